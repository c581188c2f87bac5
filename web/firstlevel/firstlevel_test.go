package firstlevel_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/persistence/persistencetest"
	"github.com/tokenkeep/tokenkeep/web/firstlevel"
)

// calls counts what a store is asked.
type calls struct {
	revisions, loads atomic.Int64
}

func (c *calls) around(_ context.Context, op string, call func() error) error {
	switch op {
	case "Revision":
		c.revisions.Add(1)
	case "Load", "LoadRevision":
		c.loads.Add(1)
	}
	return call()
}

// bare is a store without locks, as over a network.
type bare struct{ persistence.Versioned }

func (b bare) Describe() persistence.Description { return persistence.Describe(b.Versioned) }

func TestConformance(t *testing.T) {
	for name, store := range map[string]func() persistence.Versioned{
		"with locks":    func() persistence.Versioned { return persistence.NewMemory() },
		"without locks": func() persistence.Versioned { return bare{persistence.NewMemory()} },
	} {
		t.Run(name, func(t *testing.T) {
			for name, opts := range map[string]*firstlevel.Options{"one server": nil, "no room": {MaxBytes: 1}} {
				t.Run(name, func(t *testing.T) {
					persistencetest.Run(t, func(t *testing.T) persistencetest.Open {
						s, m := store(), firstlevel.New(opts)
						return func() (persistence.Persistence, error) { return m.Account("a", s), nil }
					}, nil)
				})
			}
			t.Run("several servers", func(t *testing.T) {
				persistencetest.Run(t, func(t *testing.T) persistencetest.Open {
					s := store()
					return func() (persistence.Persistence, error) { return firstlevel.New(nil).Account("a", s), nil }
				}, nil)
			})
		})
	}
}

func TestAbilities(t *testing.T) {
	persistencetest.RunWrapper(t, func(store persistence.Versioned) persistence.Persistence {
		return firstlevel.New(nil).Account("a", store)
	})
}

// TestHitCostsOneRevision also under the partitioned Cache with a new in-memory
// cache, as in a new request.
func TestHitCostsOneRevision(t *testing.T) {
	ctx := t.Context()
	var c calls
	store := persistencetest.Intercept(bare{persistence.NewMemory()}, c.around).(persistence.Versioned)
	m := firstlevel.New(nil)
	require.NoError(t, store.Save(ctx, []byte(`{"Account":{}}`)))
	_, err := m.Account("a", store).Load(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 1, c.loads.Load())
	require.Zero(t, c.revisions.Load(), "nothing is asked about what is not there")
	for range 3 {
		_, err := m.Account("a", store).Load(ctx)
		require.NoError(t, err)
	}
	require.EqualValues(t, 1, c.loads.Load())
	require.EqualValues(t, 3, c.revisions.Load())

	p, err := persistence.NewPartitioned(func(_ context.Context, key string) (persistence.Persistence, error) {
		return m.Account(key, store), nil
	})
	require.NoError(t, err)
	require.NoError(t, p.Replace(ctx, new(inMemory), cache.ReplaceHints{PartitionKey: "a"}))
	require.EqualValues(t, 1, c.loads.Load())
	require.EqualValues(t, 4, c.revisions.Load())
}

type inMemory struct{ data []byte }

func (m *inMemory) Unmarshal(b []byte) error { m.data = b; return nil }

// TestAnotherServersWriteIsNeverMissed: random work of three servers on four
// accounts, each of which must always see the last write of all. The control
// is a first level that believes its memory.
func TestAnotherServersWriteIsNeverMissed(t *testing.T) {
	missed := func(account func(m *firstlevel.Memory, key string, store persistence.Versioned) persistence.Versioned) (n int) {
		ctx := t.Context()
		rnd := rand.New(rand.NewPCG(1, 2))
		stores := map[string]persistence.Versioned{}
		want := map[string]string{}
		for i := range 4 {
			stores[fmt.Sprint(i)] = bare{persistence.NewMemory()}
		}
		// Room for about two of the four accounts.
		servers := []*firstlevel.Memory{firstlevel.New(&firstlevel.Options{MaxBytes: 80}), firstlevel.New(&firstlevel.Options{MaxAccounts: 2}), firstlevel.New(nil)}
		for i := range 5000 {
			key := fmt.Sprint(rnd.IntN(4))
			a := account(servers[rnd.IntN(3)], key, stores[key])
			switch rnd.IntN(8) {
			case 0:
				want[key] = fmt.Sprint("saved ", i)
				require.NoError(t, a.Save(ctx, []byte(want[key])))
			case 1, 2:
				rev, err := a.Revision(ctx)
				require.NoError(t, err)
				data := fmt.Sprint("saved if ", i)
				if _, err = a.SaveIf(ctx, []byte(data), rev); err == nil {
					want[key] = data
				}
			case 3:
				require.NoError(t, a.Delete(ctx))
				delete(want, key)
			default:
				if data, _ := a.Load(ctx); string(data) != want[key] {
					n++
				}
			}
		}
		return n
	}
	require.Zero(t, missed(func(m *firstlevel.Memory, key string, store persistence.Versioned) persistence.Versioned {
		return m.Account(key, store)
	}))
	held := map[string][]byte{}
	require.NotZero(t, missed(func(m *firstlevel.Memory, key string, store persistence.Versioned) persistence.Versioned {
		return believer{store, held, fmt.Sprintf("%p %s", m, key)}
	}), "the control")
}

// believer is a first level that asks no questions.
type believer struct {
	persistence.Versioned
	held map[string][]byte
	key  string
}

func (b believer) Load(ctx context.Context) ([]byte, error) {
	if data, ok := b.held[b.key]; ok {
		return data, nil
	}
	data, err := b.Versioned.Load(ctx)
	if err == nil {
		b.held[b.key] = data
	}
	return data, err
}

// TestBounds: memory stays within both bounds, and what was used last stays.
func TestBounds(t *testing.T) {
	ctx := t.Context()
	load := func(m *firstlevel.Memory, key string, size int) (fromMemory bool) {
		var c calls
		store := persistencetest.Intercept(bare{fixed{bytes.Repeat([]byte("x"), size)}}, c.around).(persistence.Versioned)
		data, err := m.Account(key, store).Load(ctx)
		require.NoError(t, err)
		require.Len(t, data, size)
		return c.loads.Load() == 0
	}
	m := firstlevel.New(&firstlevel.Options{MaxAccounts: 3})
	for _, key := range []string{"a", "b", "c"} {
		require.False(t, load(m, key, 10))
	}
	require.True(t, load(m, "a", 10))
	require.False(t, load(m, "d", 10))
	require.False(t, load(m, "b", 10), "it was used longest ago")
	require.True(t, load(m, "a", 10))

	m = firstlevel.New(&firstlevel.Options{MaxBytes: 1000})
	require.False(t, load(m, "a", 400))
	require.False(t, load(m, "b", 400))
	require.True(t, load(m, "a", 400))
	require.False(t, load(m, "large", 2000), "more than there is room for")
	require.False(t, load(m, "large", 2000))
	require.True(t, load(m, "b", 400), "and it drove nobody out")
	require.False(t, load(m, "c", 400))
	require.False(t, load(m, "a", 400))

	// Many accounts, and the heap does not grow with them.
	m = firstlevel.New(&firstlevel.Options{MaxBytes: 1 << 20})
	heap := func() uint64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	before := heap()
	for i := range 2000 {
		load(m, fmt.Sprint(i), 10_000)
	}
	require.Less(t, heap(), before+8<<20, "20 MB went through")
	runtime.KeepAlive(m)
}

// fixed is a store that holds always the same.
type fixed struct{ data []byte }

func (f fixed) Load(context.Context) ([]byte, error)                   { return bytes.Clone(f.data), nil }
func (f fixed) Save(context.Context, []byte) error                     { return nil }
func (f fixed) Delete(context.Context) error                           { return nil }
func (f fixed) Revision(context.Context) (string, error)               { return "r", nil }
func (f fixed) DeleteIf(context.Context, string) error                 { return nil }
func (f fixed) SaveIf(context.Context, []byte, string) (string, error) { return "r", nil }
func (f fixed) LoadRevision(ctx context.Context) ([]byte, string, error) {
	data, err := f.Load(ctx)
	return data, "r", err
}

// TestWhatIsLoadedIsTheCallers: no caller can change what is in memory.
func TestWhatIsLoadedIsTheCallers(t *testing.T) {
	ctx := t.Context()
	m := firstlevel.New(nil)
	a := m.Account("a", bare{persistence.NewMemory()})
	saved := []byte("saved")
	_, err := a.SaveIf(ctx, saved, "")
	require.NoError(t, err)
	saved[0] = 'X'
	for range 3 {
		data, err := a.Load(ctx)
		require.NoError(t, err)
		require.Equal(t, "saved", string(data))
		data[0] = 'Y'
	}
}
