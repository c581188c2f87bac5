package keyring_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/persistence/persistencetest"
)

// limits are those of the platforms, and the smallest that New takes.
var limits = map[string]func() *keyringtest.Keyring{
	"linux":   keyringtest.New,
	"windows": keyringtest.NewWindows,
	"darwin":  keyringtest.NewMacOS,
	"least": func() *keyringtest.Keyring {
		k := keyringtest.New()
		k.SetLimit(func(string, string) int { return 256 })
		return k
	},
}

// mustNew opens the value under the given lock, or one of its own.
func mustNew(t testing.TB, k keyring.Keyring, lock ...*persistence.FileLock) persistence.Versioned {
	t.Helper()
	p, err := keyring.New(k, "app", "alice", append(lock, newLock(t))[0])
	require.NoError(t, err)
	return p
}

func newLock(t testing.TB) *persistence.FileLock {
	return persistence.NewFileLock(filepath.Join(t.TempDir(), "cache.lock"))
}

func TestConformance(t *testing.T) {
	for _, name := range []string{"linux", "windows"} { // whole, and split
		t.Run(name, func(t *testing.T) {
			var of sync.Map // the keyring of each value under test
			persistencetest.Run(t, func(t *testing.T) persistencetest.Open {
				k, path := limits[name](), filepath.Join(t.TempDir(), "cache.lock")
				return func() (persistence.Persistence, error) {
					p, err := keyring.New(k, "app", "alice", persistence.NewFileLock(path))
					of.Store(p, k)
					return p, err
				}
			}, &persistencetest.Options{Damage: func(t testing.TB, p persistence.Persistence) {
				k, ok := of.Load(p)
				require.True(t, ok)
				item := keyringtest.Item{Service: "app", User: "alice"}
				text := k.(*keyringtest.Keyring).Items()[item]
				require.NoError(t, k.(*keyringtest.Keyring).Set(t.Context(), item.Service, item.User, flip(text, len(text)/2)))
			}})
		})
	}
}

// sized returns data whose bytes name it, so that a mix of two shows.
func sized(n int, mark byte) []byte {
	data := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(mark), uint64(n)))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	return data
}

// itemsOf returns how many items the stored value ought to have.
func itemsOf(t testing.TB, k *keyringtest.Keyring) int {
	t.Helper()
	manifest, ok := k.Items()[keyringtest.Item{Service: "app", User: "alice"}]
	if !ok {
		return 0
	}
	last := manifest[strings.LastIndex(manifest, " ")+1:]
	slot, rest, _ := strings.Cut(last, ":")
	if slot == "inline" {
		return 1
	}
	n, err := strconv.Atoi(rest)
	require.NoError(t, err)
	return 1 + n
}

// long makes the tests try everything, which takes minutes.
var long = os.Getenv("TOKENKEEP_LONG") == "1"

// crashes saves new over old and crashes at every call of it, before and after
// the call takes effect; where there are many calls, and long is not set, at the
// first and last ones, at those around the switch, and at a few in between. It
// returns how often what came after was wrong, and at how many crashes it looked.
func crashes(t testing.TB, k *keyringtest.Keyring, open func(keyring.Keyring) persistence.Persistence, old, new []byte) (bad, tried int) {
	t.Helper()
	ctx := context.Background()
	require.NoError(t, open(k).Save(ctx, old))
	dry := k.Reopen()
	require.NoError(t, open(dry).Save(ctx, new))
	calls, last := dry.Calls(), len(dry.Calls())
	manifest := slices.Index(calls, keyringtest.Call{Op: "set", Item: keyringtest.Item{Service: "app", User: "alice"}}) + 1
	require.NotZero(t, manifest)
	require.NoError(t, open(k).Save(ctx, old))

	few, every := 3, max(last/5, 1)
	switch {
	case long && last > 3000:
		few, every = 10, 100
	case long, last <= 30:
		every = 1
	case last > 300:
		few, every = 1, last
	}
	for n := 1; n <= last; n++ {
		near := n <= few || n > last-few || n > manifest-few && n < manifest+few
		if !near && n%every != 0 {
			continue
		}
		for _, applied := range []bool{false, true} {
			dying := k.Reopen()
			dying.CrashAt(n, applied)
			err := open(dying).Save(ctx, new)
			tried++

			next := k.Reopen()
			got, loadErr := open(next).Load(ctx)
			switch {
			case loadErr != nil, !bytes.Equal(got, old) && !bytes.Equal(got, new), err == nil && !bytes.Equal(got, new):
				bad++
			}
			// The next save collects what is left over.
			if err := open(next).Save(ctx, old); err != nil || len(next.Items()) != itemsOf(t, next) {
				bad++
			}
		}
	}
	return bad, tried
}

func TestCrashAtEveryCall(t *testing.T) {
	lock := newLock(t)
	open := func(k keyring.Keyring) persistence.Persistence { return mustNew(t, k, lock) }
	sizes := []int{1, 1000, 2500, 10_000, 100_000, 1 << 20}
	for name, newKeyring := range limits {
		t.Run(name, func(t *testing.T) {
			tried := 0
			for _, size := range sizes {
				for _, before := range []int{0, 5000} {
					if size > 100_000 && before == 0 {
						continue
					}
					if name == "least" && size > 100_000 && !long {
						continue // 6,000 items; windows and darwin show it
					}
					bad, n := crashes(t, newKeyring(), open, sized(before, 'o'), sized(size, 'n'))
					require.Zero(t, bad, "%d bytes over %d", size, before)
					tried += n
				}
			}
			t.Logf("%d crashes, all of them left the old value or the new one, and no item too many after the next save", tried)
		})
	}
	t.Run("control: parts in place", func(t *testing.T) {
		bad, _ := crashes(t, keyringtest.NewWindows(), func(k keyring.Keyring) persistence.Persistence { return inPlace{k} },
			sized(5000, 'o'), sized(10_000, 'n'))
		require.NotZero(t, bad)
	})
}

// inPlace is how not to do it: parts overwrite those of the value before.
type inPlace struct{ k keyring.Keyring }

func (p inPlace) Save(ctx context.Context, data []byte) error {
	n := 0
	for rest := string(data); rest != ""; n++ {
		size := min(1000, len(rest))
		if err := p.k.Set(ctx, "app", fmt.Sprint("alice", n), rest[:size]); err != nil {
			return err
		}
		rest = rest[size:]
	}
	return p.k.Set(ctx, "app", "alice", "naive inline:"+strconv.Itoa(n))
}

func (p inPlace) Load(ctx context.Context) ([]byte, error) {
	manifest, err := p.k.Get(ctx, "app", "alice")
	if err != nil {
		return nil, err
	}
	n, _ := strconv.Atoi(strings.TrimPrefix(manifest, "naive inline:"))
	var b strings.Builder
	for i := range n {
		part, err := p.k.Get(ctx, "app", fmt.Sprint("alice", i))
		if err != nil {
			return nil, err
		}
		b.WriteString(part)
	}
	return []byte(b.String()), nil
}

func (p inPlace) Delete(ctx context.Context) error { return p.k.Delete(ctx, "app", "alice") }

// A delete that crashes leaves the value or nothing, and the next one, or a
// save, the rest.
func TestCrashInDelete(t *testing.T) {
	ctx := t.Context()
	for n := 1; ; n++ {
		k := keyringtest.NewWindows()
		require.NoError(t, mustNew(t, k).Save(ctx, sized(9000, 'x')))
		dying := k.Reopen()
		dying.CrashAt(n, n%2 == 0)
		err := mustNew(t, dying).Delete(ctx)
		got, loadErr := mustNew(t, k).Load(ctx)
		if loadErr == nil {
			require.Equal(t, sized(9000, 'x'), got)
		} else {
			require.ErrorIs(t, loadErr, persistence.ErrNotFound)
		}
		require.NoError(t, mustNew(t, k).Delete(ctx))
		require.Empty(t, k.Items())
		if err == nil {
			return
		}
		require.ErrorIs(t, err, keyringtest.ErrCrashed)
	}
}

// between is a keyring that does something after its n-th call.
type between struct {
	keyring.Limited
	n  int
	do func()
}

func (b *between) after() {
	if b.n--; b.n == 0 {
		b.do()
	}
}

func (b *between) Get(ctx context.Context, service, user string) (string, error) {
	secret, err := b.Limited.Get(ctx, service, user)
	b.after()
	return secret, err
}

func (b *between) Set(ctx context.Context, service, user, secret string) error {
	err := b.Limited.Set(ctx, service, user, secret)
	b.after()
	return err
}

func (b *between) Delete(ctx context.Context, service, user string) error {
	err := b.Limited.Delete(ctx, service, user)
	b.after()
	return err
}

// interleaved loads after every call of a save, and saves after every call of a
// load. It returns how often a load was no whole value.
func interleaved(t *testing.T, open func(keyring.Keyring) persistence.Persistence) (torn int) {
	ctx := t.Context()
	values := [][]byte{sized(9000, 'a'), sized(10, 'b'), sized(12_000, 'c'), sized(9100, 'd')}
	whole := func(got []byte, err error) {
		if err != nil || !slices.ContainsFunc(values, func(v []byte) bool { return bytes.Equal(v, got) }) {
			torn++
		}
	}
	for i, old := range values {
		for _, new := range [][]byte{values[(i+1)%4], values[(i+2)%4], values[(i+3)%4]} {
			k := keyringtest.NewWindows()
			for n := 1; ; n++ {
				require.NoError(t, open(k).Save(ctx, old))
				writer := &between{k, n, func() { whole(open(k).Load(ctx)) }}
				require.NoError(t, open(writer).Save(ctx, new))
				require.NoError(t, open(k).Save(ctx, old))
				reader := &between{k, n, func() {
					// Twice, so that the slots of the old value are in use again.
					require.NoError(t, open(k).Save(ctx, new))
					require.NoError(t, open(k).Save(ctx, values[(i+1)%4]))
				}}
				whole(open(reader).Load(ctx))
				if writer.n > 0 && reader.n > 0 {
					break
				}
			}
		}
	}
	return torn
}

func TestReadersSeeWholeValues(t *testing.T) {
	// Every one has a lock of its own: a reader takes none, and a writer must not
	// wait for the one that it interrupts.
	require.Zero(t, interleaved(t, func(k keyring.Keyring) persistence.Persistence { return mustNew(t, k) }))
	require.NotZero(t, interleaved(t, func(k keyring.Keyring) persistence.Persistence { return inPlace{k} }), "the control")
}

// For the race detector.
func TestConcurrentUse(t *testing.T) {
	ctx := t.Context()
	p := mustNew(t, keyringtest.NewWindows())
	values := [][]byte{sized(5000, 'a'), sized(10, 'b'), sized(9000, 'c')}
	require.NoError(t, p.Save(ctx, values[0]))
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			for range 10 {
				if err := p.Save(ctx, values[i]); err != nil {
					t.Error(err)
				}
				got, err := p.Load(ctx)
				if err != nil || !slices.ContainsFunc(values, func(v []byte) bool { return bytes.Equal(v, got) }) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
			}
		})
	}
	wg.Wait()
}

func TestDamagedItems(t *testing.T) {
	ctx := t.Context()
	const secret = "planted-secret"
	data := bytes.Repeat([]byte(secret), 1000)
	for _, size := range []int{1, 300} { // inline, and split
		k := keyringtest.NewWindows()
		require.NoError(t, mustNew(t, k).Save(ctx, data[:size*len(secret)]))
		k.SetLimit(nil)
		for item, text := range k.Items() {
			for _, damaged := range []string{"", text[:len(text)-1], text + "A", "x" + text, flip(text, len(text)/2), flip(text, len(text)-2), flip(text, 25), flip(text, 50), secret} {
				require.NoError(t, k.Set(ctx, item.Service, item.User, damaged))
				p := mustNew(t, k, newLock(t))
				got, rev, err := p.LoadRevision(ctx)
				require.ErrorIs(t, err, persistence.ErrCorrupt, "%q for %q", damaged, text)
				require.Nil(t, got)
				require.NotContains(t, err.Error(), secret)
				// It can be replaced on condition that it still is that.
				require.NotEmpty(t, rev)
				same, err := p.Revision(ctx)
				require.NoError(t, err)
				require.Equal(t, rev, same)
				_, err = p.SaveIf(ctx, nil, "another")
				require.ErrorIs(t, err, persistence.ErrConflict)
			}
			require.NoError(t, k.Set(ctx, item.Service, item.User, text))
		}
		// What is damaged does not stop the next save.
		require.NoError(t, k.Set(ctx, "app", "alice", "not ours"))
		require.NoError(t, mustNew(t, k).Save(ctx, data))
		got, err := mustNew(t, k).Load(ctx)
		require.NoError(t, err)
		require.Equal(t, data, got)
	}
}

func flip(s string, i int) string {
	b := []byte(s)
	if b[i] == 'A' {
		b[i] = 'B'
	} else {
		b[i] = 'A'
	}
	return string(b)
}

func TestNewerVersionIsLeftAlone(t *testing.T) {
	ctx := t.Context()
	k := keyringtest.New()
	const newer = "tokenkeep-keyring/2 something else"
	require.NoError(t, k.Set(ctx, "app", "alice", newer))
	p := mustNew(t, k, newLock(t))
	_, err := p.Load(ctx)
	require.ErrorIs(t, err, persistence.ErrUnsupportedVersion)
	_, err = p.Revision(ctx)
	require.ErrorIs(t, err, persistence.ErrUnsupportedVersion)
	require.ErrorIs(t, p.Save(ctx, []byte("x")), persistence.ErrUnsupportedVersion)
	require.ErrorIs(t, p.Delete(ctx), persistence.ErrUnsupportedVersion)
	require.Equal(t, newer, k.Items()[keyringtest.Item{Service: "app", User: "alice"}])
}

// An unchanged value costs no call of the keyring.
func TestRevisionWithoutTheKeyring(t *testing.T) {
	ctx := t.Context()
	k := keyringtest.New()
	p := mustNew(t, k, newLock(t))
	rev, err := p.SaveIf(ctx, []byte("one"), "")
	require.NoError(t, err)
	before := len(k.Calls())
	k.SetLocked(true)
	for range 10 {
		got, err := p.Revision(ctx)
		require.NoError(t, err)
		require.Equal(t, rev, got)
	}
	require.Len(t, k.Calls(), before)
}

// MSAL's memory of a cache.
type msal struct{ data []byte }

func (m *msal) Unmarshal(data []byte) error { m.data = bytes.Clone(data); return nil }
func (m *msal) Marshal() ([]byte, error)    { return m.data, nil }

// What MSAL does before every token costs no call of the keyring while nothing
// has changed, and sees it when something has.
func TestWarmReplaceWithoutTheKeyring(t *testing.T) {
	ctx := t.Context()
	for name, newKeyring := range limits {
		t.Run(name, func(t *testing.T) {
			k, lock := newKeyring(), newLock(t)
			open := func() *persistence.Cache {
				c, err := persistence.New(mustNew(t, k, lock))
				require.NoError(t, err)
				return c
			}
			c, m := open(), new(msal)
			set := func(c *persistence.Cache, text string) {
				require.NoError(t, c.Update(ctx, func([]byte) ([]byte, error) { return []byte(text), nil }))
			}
			set(c, `{"AccessToken":{"one":{"secret":"1"}}}`)
			require.NoError(t, c.Replace(ctx, m, cache.ReplaceHints{}))
			calls := len(k.Calls())
			for range 10 {
				require.NoError(t, c.Replace(ctx, m, cache.ReplaceHints{}))
			}
			require.Len(t, k.Calls(), calls)
			set(open(), `{"AccessToken":{"two":{"secret":"2"}}}`)
			require.NoError(t, c.Replace(ctx, m, cache.ReplaceHints{}))
			require.Contains(t, string(m.data), "two")
		})
	}
}

// After a crash in a save or a delete the revision is that of what is stored,
// and a value that was loaded before is never taken for current when it is not.
func TestRevisionAfterACrash(t *testing.T) {
	ctx := t.Context()
	for _, op := range []string{"save", "delete"} {
		for n := 1; ; n++ {
			lock := newLock(t)
			k := keyringtest.NewWindows()
			rev, err := mustNew(t, k, lock).SaveIf(ctx, sized(5000, 'o'), "")
			require.NoError(t, err)
			dying := k.Reopen()
			dying.CrashAt(n, n%2 == 0)
			p := mustNew(t, dying, lock)
			if op == "save" {
				_, err = p.SaveIf(ctx, sized(9000, 'n'), rev)
			} else {
				err = p.DeleteIf(ctx, rev)
			}
			next := mustNew(t, k, lock)
			now, nowErr := next.Revision(ctx)
			require.NoError(t, nowErr)
			data, loaded, loadErr := next.LoadRevision(ctx)
			require.Equal(t, loaded, now)
			if now == rev {
				require.Equal(t, sized(5000, 'o'), data)
			} else if now != "" {
				require.Equal(t, sized(9000, 'n'), data)
			} else {
				require.ErrorIs(t, loadErr, persistence.ErrNotFound)
			}
			if err == nil {
				break
			}
		}
	}
}

func TestFailedSaveSaysWhatIsStored(t *testing.T) {
	ctx := t.Context()
	k := keyringtest.NewWindows()
	p := mustNew(t, k)
	require.NoError(t, p.Save(ctx, []byte("old")))
	boom := errors.New("boom")
	for n, says := range map[int]string{2: "the previous value is still stored", 5: "the previous value is still stored"} {
		k.FailAt(n, boom)
		err := p.Save(ctx, sized(5000, 'n'))
		require.ErrorIs(t, err, boom)
		require.ErrorContains(t, err, says)
		got, err := p.Load(ctx)
		require.NoError(t, err)
		require.Equal(t, []byte("old"), got)
	}
	// A call that was carried out though it was said to have failed.
	dying := k.Reopen()
	dying.CrashAt(2, true)
	err := mustNew(t, dying).Save(ctx, []byte("new"))
	require.ErrorContains(t, err, "is not known")

	k.SetLocked(true)
	require.ErrorIs(t, p.Save(ctx, []byte("x")), persistence.ErrKeyringLocked)
	k.SetLocked(false)
	k.SetAbsent(true)
	require.ErrorIs(t, p.Save(ctx, []byte("x")), persistence.ErrUnavailable)
	k.SetAbsent(false)
	k.SetFull(true)
	require.ErrorIs(t, p.Save(ctx, []byte("x")), keyring.Full)
}

func TestNewRefuses(t *testing.T) {
	k, tiny, lock := keyringtest.New(), keyringtest.New(), newLock(t)
	tiny.SetLimit(func(string, string) int { return 100 })
	for name, try := range map[string]func() (persistence.Persistence, error){
		"no keyring":        func() (persistence.Persistence, error) { return keyring.New(nil, "app", "alice", lock) },
		"no service":        func() (persistence.Persistence, error) { return keyring.New(k, "", "alice", lock) },
		"no user":           func() (persistence.Persistence, error) { return keyring.New(k, "app", "", lock) },
		"control character": func() (persistence.Persistence, error) { return keyring.New(k, "app", "a\nquit", lock) },
		"not UTF-8":         func() (persistence.Persistence, error) { return keyring.New(k, "app\xff", "a", lock) },
		"too long":          func() (persistence.Persistence, error) { return keyring.New(k, strings.Repeat("x", 600), "a", lock) },
		"no lock":           func() (persistence.Persistence, error) { return keyring.New(k, "app", "alice", nil) },
		"tiny limit":        func() (persistence.Persistence, error) { return keyring.New(tiny, "app", "alice", lock) },
	} {
		_, err := try()
		var e *persistence.Error
		require.ErrorAs(t, err, &e, name)
	}
	require.Equal(t, persistence.Description{Backend: "keyring", Location: "app/alice", Encrypted: true}, persistence.Describe(mustNew(t, k)))
}

// keyringtest has the limits of the real keyrings.
func TestLimitsForTests(t *testing.T) {
	for _, name := range []string{"app", "with space", `it's "quoted" \\`, strings.Repeat("é", 200), strings.Repeat(`"`, 500)} {
		require.Equal(t, keyring.MacOSLimit(name, "alice"), keyringtest.NewMacOS().ItemLimit(name, "alice"), name)
		require.Equal(t, keyring.MacOSLimit("app", name), keyringtest.NewMacOS().ItemLimit("app", name), name)
	}
	require.Equal(t, keyring.WindowsLimit, keyringtest.NewWindows().ItemLimit("app", "alice"))
}
