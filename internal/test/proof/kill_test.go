package proof

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/persistence"
)

func init() {
	programs["save"] = saveProgram
	programs["save in place"] = saveInPlaceProgram
	programs["first save"] = firstSaveProgram
	programs["first save, careless"] = carelessFirstSaveProgram
}

// numbered is data that shows when it is torn: n, again and again. The size
// changes with n.
func numbered(kind string, n uint64) []byte {
	size := 20_000 + int(n*7919%60_000)
	if kind == keyringItem {
		size /= 10
	}
	data := make([]byte, 0, size+8)
	for len(data) < size {
		data = binary.BigEndian.AppendUint64(data, n|notBlank)
	}
	return data
}

// notBlank is set in numbered data, of which some would else be blanks only. What
// is blank counts as nothing.
const notBlank = 1 << 63

// numberOf returns the n of numbered data, 0 for none.
func numberOf(kind string, data []byte) (uint64, error) {
	if data == nil {
		return 0, nil
	}
	if len(data) < 8 {
		return 0, fmt.Errorf("%d bytes", len(data))
	}
	n := binary.BigEndian.Uint64(data) &^ notBlank
	if string(data) != string(numbered(kind, n)) {
		return n, fmt.Errorf("torn: %d bytes that begin with %d", len(data), n)
	}
	return n, nil
}

// saveProgram saves numbered data from what is stored on, without end, and
// reports each number before ("saving") and after ("saved"). If args say so it
// also gives the encrypted file a new key with every third save.
func saveProgram(args []string) error {
	p, args := placeOf(args)
	rotate := len(args) > 0
	report("opening")
	ctx, cancel := patient()
	defer cancel()
	c, err := p.cache(ctx, true)
	if err != nil {
		return err
	}
	data, err := c.Load(ctx)
	if err != nil && !errors.Is(err, persistence.ErrNotFound) {
		return err
	}
	n, err := numberOf(p.kind, data)
	if err != nil {
		return err
	}
	for {
		n++
		report("saving", n)
		if err := c.Update(ctx, func([]byte) ([]byte, error) { return numbered(p.kind, n), nil }); err != nil {
			return err
		}
		report("saved", n)
		if rotate && n%3 == 0 {
			f, err := p.encrypted()
			if err != nil {
				return err
			}
			if err := f.Rotate(ctx, keyring.NewKeys(p.keyring(), cacheName)); err != nil {
				return err
			}
		}
	}
}

// saveInPlaceProgram is the control: it rewrites the plaintext file in place.
func saveInPlaceProgram(args []string) error {
	p, _ := placeOf(args)
	report("opening")
	for n := uint64(1); ; n++ {
		report("saving", n)
		if err := os.WriteFile(p.path()+".json", numbered(p.kind, n), 0o600); err != nil {
			return err
		}
		report("saved", n)
	}
}

// saves is what a process reported of its saves.
type saves struct{ started, completed uint64 }

func (s *saves) add(lines ...string) {
	for _, line := range lines {
		what, number, _ := strings.Cut(line, " ")
		n, _ := strconv.ParseUint(number, 10, 64)
		switch what {
		case "saving":
			s.started = n
		case "saved":
			s.completed = n
		}
	}
}

// killAfter lets a process report n lines and kills it some time later. It
// returns all that it reported.
func killAfter(p *process, n int, after time.Duration) (lines []string) {
	p.t.Helper()
	for len(lines) < n {
		line, ok := p.line()
		if !ok {
			break // ended by itself, which afterKill reports
		}
		lines = append(lines, line)
	}
	time.AfterFunc(after, func() { p.cmd.Process.Kill() })
	return append(lines, p.afterKill()...)
}

// A process that opens the cache and saves in a loop is killed at any moment,
// many times. What is stored then is what it saved last or was about to save,
// and at most one temporary file lies beside it. So it is also where the process
// gives the file new keys in between.
func TestKills(t *testing.T) {
	type saver struct {
		kind   string
		rotate bool
	}
	savers := []saver{{encryptedFile, true}}
	for _, kind := range backends {
		savers = append(savers, saver{kind, false})
	}
	for _, s := range savers {
		name, args, keys := s.kind, []any{}, 1
		if s.rotate {
			// The file's, the one before, and one that was made for it or not
			// deleted yet.
			name, args, keys = name+", rotated", []any{"rotate"}, 3
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			killSavers(t, newPlace(t, s.kind), args, keys)
		})
	}
	t.Run("control", func(t *testing.T) {
		t.Parallel()
		rnd := random(t)
		p := newPlace(t, plaintextFile)
		require.NoError(t, p.save(numbered(p.kind, 1)))
		for n := range 1000 {
			killAfter(start(t, "save in place", p.args()...), 1+rnd.IntN(6), time.Duration(rnd.IntN(3000))*time.Microsecond)
			data, err := p.load()
			require.NoError(t, err)
			if _, err := numberOf(p.kind, data); err != nil {
				t.Logf("kill %d of a writer in place: %v", n+1, err)
				return
			}
		}
		t.Fatal("a writer in place was never caught: this test proves nothing")
	})
}

func killSavers(t *testing.T, p place, args []any, keys int) {
	kills, rnd := times(25, 250), random(t)
	running, err := p.cache(t.Context(), true)
	require.NoError(t, err)
	var last uint64
	for range kills {
		s := saves{last, last}
		s.add(killAfter(start(t, "save", p.args(args...)...), rnd.IntN(6), time.Duration(rnd.IntN(6000))*time.Microsecond)...)

		data, err := p.load()
		require.NoError(t, err)
		last, err = numberOf(p.kind, data)
		require.NoError(t, err)
		require.Contains(t, []uint64{s.completed, s.started}, last)
		same, err := running.Load(t.Context())
		if last != 0 {
			require.NoError(t, err)
		}
		require.Equal(t, string(data), string(same), "a process that has been running all the time")
		require.LessOrEqual(t, len(temporary(dirFiles(t, p.dir))), 1)
		if p.kind != keyringItem {
			require.LessOrEqual(t, p.keyCount(t), keys)
		}
	}
	require.NotZero(t, last)
	t.Logf("%d kills, %d saves", kills, last)
	require.NoError(t, p.save(numbered(p.kind, last+1)))
	require.Empty(t, temporary(dirFiles(t, p.dir)))
	if p.kind != keyringItem {
		require.Len(t, dirFiles(t, p.dir), 1)
	}
}

// firstSaveProgram makes the first save and removes it again, without end.
func firstSaveProgram(args []string) error {
	p, _ := placeOf(args)
	ctx, cancel := patient()
	defer cancel()
	for {
		report("opening")
		c, err := p.cache(ctx, true)
		if err != nil {
			return err
		}
		report("saving")
		if err := c.Update(ctx, func([]byte) ([]byte, error) { return numbered(p.kind, 1), nil }); err != nil {
			return err
		}
		report("deleting")
		if err := c.Delete(ctx); err != nil {
			return err
		}
	}
}

// carelessFirstSaveProgram is the control: it makes a key under a new name each
// time, and notes that nowhere before the file is there.
func carelessFirstSaveProgram(args []string) error {
	p, _ := placeOf(args)
	ctx, source := context.Background(), keyring.NewKeys(p.keyring(), cacheName)
	for n := 0; ; n++ {
		report("opening")
		id := fmt.Sprint(os.Getpid(), "-", n)
		if _, _, err := source.NewKey(ctx, id); err != nil {
			return err
		}
		report("saving")
		file := filepath.Join(p.dir, id)
		if err := os.WriteFile(file, []byte(id), 0o600); err != nil {
			return err
		}
		report("deleting")
		if err := errors.Join(os.Remove(file), source.DeleteKey(ctx, id)); err != nil {
			return err
		}
	}
}

// Processes that open a cache, make the first save and delete it again are
// killed at any moment. The keys that they leave in the keyring do not pile up,
// and when all is deleted none is left.
func TestKillsLeaveNoKeys(t *testing.T) {
	kill := func(t *testing.T, program string, p place, kills int, limit int) (most int) {
		rnd := random(t)
		require.NoError(t, os.MkdirAll(p.dir, 0o700))
		for range kills {
			killAfter(start(t, program, p.args()...), 1+rnd.IntN(6), time.Duration(rnd.IntN(3000))*time.Microsecond)
			if most = max(most, p.keyCount(t)); most > limit {
				break
			}
		}
		return most
	}
	const limit = 2
	for _, kind := range []string{opened, encryptedFile} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, kind)
			most := kill(t, "first save", p, times(15, 150), limit)
			require.LessOrEqual(t, most, limit)
			t.Logf("at most %d keys at once", most)
			require.NoError(t, p.save([]byte("{}")))
			require.Equal(t, 1, p.keyCount(t))
			c, err := p.cache(t.Context(), true)
			require.NoError(t, err)
			require.NoError(t, c.Delete(t.Context()))
			require.Zero(t, p.keyCount(t))
			require.Empty(t, dirFiles(t, p.dir))
		})
	}
	t.Run("control", func(t *testing.T) {
		t.Parallel()
		require.Greater(t, kill(t, "first save, careless", newPlace(t, encryptedFile), 1000, limit), limit, "never caught: this test proves nothing")
	})
}
