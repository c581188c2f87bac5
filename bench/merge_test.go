//go:build linux

package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/merge"
	"github.com/tokenkeep/tokenkeep/internal/tokencache"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// Merging two caches of 1 MB that each got one more change since they were one.
// order=kept is what the merge is given when entries are still in the order in
// which they were stored; order=random is what MSAL Go makes of them: its maps
// shuffle all keys in each Marshal.

var (
	orderKept   = param{"size=1MB/order=kept", 1 << 20}
	orderRandom = param{"size=1MB/order=random", 1 << 20}
	bothRandom  = param{"size=1MB/order=random-both", 1 << 20}
)

// Merge is the merge alone, in memory.
var mergeTopic = topic{subjects: []subject{
	{"tokenkeep", []param{orderKept, orderRandom, bothRandom}, mergeAlone},
	{"json", []param{orderKept}, mergeJSON},
}}

// Export is all of an Export into the encrypted file: with nothing that differs,
// with one entry that differs, and with a merge. The limit is a Save of as much.
var exportTopic = topic{subjects: []subject{
	{"limit", []param{{"size=1MB/what=save", 1 << 20}}, saveLimit},
	{"tokenkeep", []param{{"size=1MB/what=unchanged", 1 << 20}, {"size=1MB/what=changed", 1 << 20}}, exportPlain},
	{"tokenkeep-merge", []param{orderKept, orderRandom, bothRandom}, exportMerge},
}}

// versions are what a merge meets.
type versions struct{ base, ours, theirs []byte }

func newVersions(p param) versions {
	base := tokens(p.n, 1)
	v := versions{base, changed(base, 3, "ours"), changed(base, 7, "theirs")}
	if p != orderKept {
		v.ours = shuffled(v.ours)
	}
	if p == bothRandom {
		v.base = shuffled(base)
	}
	return v
}

// changed changes the secret of the i-th access token.
func changed(data []byte, i int, to string) []byte {
	from := fmt.Appendf(nil, `"secret":"1-%d-`, i)
	if bytes.Count(data, from) != 1 {
		panic("not the tokens that were made")
	}
	return bytes.Replace(data, from, fmt.Appendf(nil, `"secret":"%s-%d-`, to, i), 1)
}

// merged fails unless data has both changes and all else.
func merged(data []byte, v versions) error {
	for _, secret := range []string{`"secret":"ours-3-`, `"secret":"theirs-7-`} {
		if bytes.Count(data, []byte(secret)) != 1 {
			return errors.New("a change is missing")
		}
	}
	if got, want := bytes.Count(data, []byte(`"secret":"1-`)), bytes.Count(v.base, []byte(`"secret":"1-`))-2; got != want {
		return fmt.Errorf("%d entries that nobody changed, not %d", got, want)
	}
	if !json.Valid(data) {
		return errors.New("not JSON")
	}
	return nil
}

func mergeAlone(_ testing.TB, p param) task {
	v := newVersions(p)
	in := merge.BytesInput{Base: v.base, Ours: v.ours, Theirs: v.theirs, Now: time.Now()}
	var got []byte
	return task{
		run: func() (err error) {
			got, _, err = merge.Bytes(in)
			return err
		},
		check: func(run func() error) error {
			got = nil
			if err := run(); err != nil {
				return err
			}
			return merged(got, v)
		},
	}
}

// mergeJSON is what only decoding and encoding the three costs with
// encoding/json, without the merge.
func mergeJSON(_ testing.TB, p param) task {
	v := newVersions(p)
	var got []byte
	return task{
		run: func() error {
			var c map[string]map[string]json.RawMessage
			for _, data := range [][]byte{v.base, v.theirs, v.ours} {
				c = nil
				if err := json.Unmarshal(data, &c); err != nil {
					return err
				}
			}
			var err error
			got, err = json.Marshal(c)
			return err
		},
		check: func(run func() error) error {
			got = nil
			if err := run(); err != nil {
				return err
			}
			return expect("encoded", got, v.ours)
		},
	}
}

// counted counts what a Cache asks of its file.
type counted struct {
	persistence.Versioned
	persistence.Locker
	loads, saves int
}

func (c *counted) LoadRevision(ctx context.Context) ([]byte, string, error) {
	c.loads++
	return c.Versioned.LoadRevision(ctx)
}

func (c *counted) SaveIf(ctx context.Context, data []byte, rev string) (string, error) {
	c.saves++
	return c.Versioned.SaveIf(ctx, data, rev)
}

// exportPlain is an Export into a file that nobody else has written: nothing is
// loaded, and where nothing is new nothing is saved.
func exportPlain(tb testing.TB, p param) task {
	file := newFile(tb, filepath.Join(tb.TempDir(), "cache.enc"))
	store := &counted{Versioned: file, Locker: file}
	c := must(persistence.New(store))(tb)
	m := &memory{data: tokens(p.n, 1)}
	next := [2][]byte{changed(m.data, 3, "even"), changed(m.data, 3, "odd")}
	export := func() error { return c.Export(ctx, m, exportHints) }
	ok(tb, export())
	ok(tb, c.Replace(ctx, m, replaceHints)) // as MSAL does before every Export
	if p.name == "size=1MB/what=unchanged" {
		next[0] = shuffled(m.data) // MSAL never gives the same bytes twice
		next[1] = shuffled(m.data)
	}
	runs := 0
	return task{
		run: func() error {
			runs++
			m.data = next[runs%2]
			return export()
		},
		check: func(run func() error) error {
			store.loads, store.saves = 0, 0
			before := runs
			if err := run(); err != nil {
				return err
			}
			wantSaves := 1
			if p.name == "size=1MB/what=unchanged" {
				wantSaves = 0
			}
			if runs == before || store.loads != 0 || store.saves != wantSaves {
				return fmt.Errorf("%d exports with %d loads and %d saves", runs-before, store.loads, store.saves)
			}
			got, err := file.Load(ctx)
			if err != nil {
				return err
			}
			if same, err := sameCache(m.data, got); err != nil || !same {
				return errors.Join(errors.New("what is stored is not what was exported"), err)
			}
			return nil
		},
	}
}

// exportMerge is an Export after another process has saved. What the two start
// from is put back before each run, which takes a Replace and a Save that are
// not the Export's: their time is taken out.
func exportMerge(tb testing.TB, p param) task {
	v := newVersions(p)
	file := newFile(tb, filepath.Join(tb.TempDir(), "cache.enc"))
	var exporting time.Duration
	exports := 0
	return task{
		run: func() error {
			ours := must(persistence.New(file))(tb)
			m := new(memory)
			if err := file.Save(ctx, v.base); err != nil {
				return err
			}
			if err := ours.Replace(ctx, m, replaceHints); err != nil {
				return err
			}
			if err := file.Save(ctx, v.theirs); err != nil {
				return err
			}
			m.data = v.ours
			start := time.Now()
			err := ours.Export(ctx, m, exportHints)
			exporting += time.Since(start)
			exports++
			return err
		},
		check: func(run func() error) error {
			if err := file.Save(ctx, []byte("{}")); err != nil {
				return err
			}
			if err := run(); err != nil {
				return err
			}
			got, err := file.Load(ctx)
			if err != nil {
				return err
			}
			return merged(got, v)
		},
		metrics: func() map[string]float64 {
			return map[string]float64{"export-ns": float64(exporting.Nanoseconds()) / float64(exports)}
		},
	}
}

// shuffled writes a cache with all its keys in random order, as MSAL Go does.
func shuffled(data []byte) []byte {
	var c map[string]map[string]map[string]string
	if err := json.Unmarshal(data, &c); err != nil {
		panic(err)
	}
	b := []byte{'{'}
	for s, entries := range c {
		b = fmt.Appendf(b, "%q:{", s)
		for k, fields := range entries {
			b = fmt.Appendf(b, "%q:{", k)
			for f, v := range fields {
				b = fmt.Appendf(b, "%q:%q,", f, v)
			}
			b = append(bytes.TrimSuffix(b, []byte(",")), "},"...)
		}
		b = append(bytes.TrimSuffix(b, []byte(",")), "},"...)
	}
	return append(bytes.TrimSuffix(b, []byte(",")), '}')
}

// sameCache reports whether two caches say the same.
func sameCache(a, b []byte) (bool, error) {
	da, err := tokencache.Parse(a)
	if err != nil {
		return false, err
	}
	db, err := tokencache.Parse(b)
	if err != nil {
		return false, err
	}
	return tokencache.Equal(da, db), nil
}
