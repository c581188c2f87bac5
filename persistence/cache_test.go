package persistence_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/tokencache"
	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/persistence/persistencetest"
)

var ctx = context.Background()

// planted must never show up in an error or a log record.
const planted = "pl4nted-s3cret"

// client stands for MSAL's in-memory cache: two-level JSON.
type client struct {
	mu         sync.Mutex
	sections   map[string]map[string]map[string]any
	unmarshals int
}

func (c *client) Unmarshal(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unmarshals++
	var s map[string]map[string]map[string]any
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("%w in %s", err, b) // as unguarded as can be
	}
	c.sections = s
	return nil
}

func (c *client) Marshal() ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sections == nil {
		return []byte("{}"), nil
	}
	return json.Marshal(c.sections)
}

func (c *client) set(section, key string, fields map[string]any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sections == nil {
		c.sections = map[string]map[string]map[string]any{}
	}
	if c.sections[section] == nil {
		c.sections[section] = map[string]map[string]any{}
	}
	c.sections[section][key] = fields
}

// signIn adds what MSAL adds for a token response.
func (c *client) signIn(account, refreshToken string, cachedAt int) {
	c.set("Account", account+"-env-tenant", map[string]any{"home_account_id": account, "environment": "env"})
	c.set("RefreshToken", account+"-env-refreshtoken-app", map[string]any{"home_account_id": account, "environment": "env", "client_id": "app", "secret": refreshToken})
	c.set("AccessToken", account+"-env-accesstoken-app", map[string]any{"home_account_id": account, "environment": "env", "client_id": "app", "secret": "at " + refreshToken, "cached_at": fmt.Sprint(cachedAt)})
}

func (c *client) signOut(account string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, entries := range c.sections {
		for key, fields := range entries {
			if fields["home_account_id"] == account {
				delete(entries, key)
			}
		}
	}
}

func (c *client) refreshToken(account string) any {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sections["RefreshToken"][account+"-env-refreshtoken-app"]["secret"]
}

func (c *client) keys(section string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.sections[section])
}

// watched counts what a Cache asks of its store, and fails when told to.
type watched struct {
	*persistence.Memory
	mu               sync.Mutex
	revisions, loads int
	saves            int
	fail             error
}

func (w *watched) count(n *int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	*n++
	return w.fail
}

func (w *watched) failWith(err error) { w.mu.Lock(); w.fail = err; w.mu.Unlock() }

func (w *watched) Revision(ctx context.Context) (string, error) {
	if err := w.count(&w.revisions); err != nil {
		return "", err
	}
	return w.Memory.Revision(ctx)
}

func (w *watched) LoadRevision(ctx context.Context) ([]byte, string, error) {
	if err := w.count(&w.loads); err != nil {
		return nil, "", err
	}
	return w.Memory.LoadRevision(ctx)
}

func (w *watched) SaveIf(ctx context.Context, data []byte, rev string) (string, error) {
	if err := w.count(&w.saves); err != nil {
		return "", err
	}
	return w.Memory.SaveIf(ctx, data, rev)
}

func newWatched() *watched { return &watched{Memory: persistence.NewMemory()} }

func open(t *testing.T, p persistence.Persistence, opts ...persistence.Option) *persistence.Cache {
	t.Helper()
	c, err := persistence.New(p, opts...)
	require.NoError(t, err)
	return c
}

func replace(t *testing.T, c *persistence.Cache, u cache.Unmarshaler, hint string) {
	t.Helper()
	require.NoError(t, c.Replace(ctx, u, cache.ReplaceHints{PartitionKey: hint}))
}

func export(t *testing.T, c *persistence.Cache, m cache.Marshaler, hint string) {
	t.Helper()
	require.NoError(t, c.Export(ctx, m, cache.ExportHints{PartitionKey: hint}))
}

// stored returns what p holds as a client of its own sees it.
func stored(t *testing.T, p persistence.Persistence) *client {
	t.Helper()
	s := &client{}
	data, err := p.Load(ctx)
	if errors.Is(err, persistence.ErrNotFound) {
		return s
	}
	require.NoError(t, err)
	require.NoError(t, s.Unmarshal(data))
	return s
}

func TestSignInSurvivesRestart(t *testing.T) {
	p := persistence.NewMemory()
	first, a := open(t, p), &client{}
	replace(t, first, a, "")
	a.signIn("ann", "rt1", 1)
	export(t, first, a, "")

	second, b := open(t, p), &client{}
	replace(t, second, b, "")
	require.Equal(t, "rt1", b.refreshToken("ann"))
}

func TestReplaceDoesNothingWhenNothingChanged(t *testing.T) {
	p := newWatched()
	c, a := open(t, p), &client{}
	replace(t, c, a, "")
	a.signIn("ann", "rt1", 1)
	export(t, c, a, "")
	loads, unmarshals, revisions := p.loads, a.unmarshals, p.revisions
	for range 10 {
		replace(t, c, a, "ann")
	}
	require.Equal(t, loads, p.loads, "loads")
	require.Equal(t, unmarshals, a.unmarshals, "unmarshals")
	require.Equal(t, revisions+10, p.revisions, "one look at the revision for each Replace")

	// Another in-memory cache is told apart, and so is another writer's save.
	b := &client{}
	replace(t, c, b, "")
	require.Equal(t, "rt1", b.refreshToken("ann"))
	b.signIn("bob", "rt1", 1)
	export(t, c, b, "")
	replace(t, c, a, "ann")
	require.Equal(t, "rt1", a.refreshToken("bob"))
}

func TestReplaceEmptiesWhereNothingIsStored(t *testing.T) {
	p := persistence.NewMemory()
	c, a := open(t, p), &client{}
	a.signIn("left over", planted, 1) // as in a memory that served another user
	replace(t, c, a, "")
	require.Zero(t, a.keys("RefreshToken"))
	a.signIn("ann", "rt1", 1)
	export(t, c, a, "")
	require.NoError(t, c.Delete(ctx))
	replace(t, c, a, "")
	require.Zero(t, a.keys("RefreshToken"))
	_, err := c.Load(ctx)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// foreign is an in-memory cache of another format: MSAL Go's of on-behalf-of tokens.
type foreign struct{ unmarshals int }

func (f *foreign) Unmarshal([]byte) error   { f.unmarshals++; return errors.New("not my format") }
func (f *foreign) Marshal() ([]byte, error) { return []byte(`{"x": "` + planted + `"}`), nil }

func TestForeignFormatIsLeftAlone(t *testing.T) {
	p := persistence.NewMemory()
	c, f := open(t, p), &foreign{}
	for range 3 {
		replace(t, c, f, "")
		export(t, c, f, "")
	}
	require.Equal(t, 1, f.unmarshals, "asked once, then left alone for good")
	_, err := p.Load(ctx)
	require.ErrorIs(t, err, persistence.ErrNotFound)
}

func TestExportMergesWhatOthersSaved(t *testing.T) {
	p := persistence.NewMemory()
	one, two := open(t, p), open(t, p)
	a, b := &client{}, &client{}
	replace(t, one, a, "")
	replace(t, two, b, "")
	a.signIn("ann", "rt1", 1)
	export(t, one, a, "")
	b.signIn("bob", "rt1", 1)
	export(t, two, b, "")
	require.Equal(t, 2, stored(t, p).keys("Account"))
	// What was merged comes in with the next Replace.
	replace(t, two, b, "")
	require.Equal(t, 2, b.keys("Account"))
}

func TestExportWritesNothingWhenNothingChanged(t *testing.T) {
	p := newWatched()
	one, two := open(t, p), open(t, p)
	a, b := &client{}, &client{}
	replace(t, one, a, "")
	a.signIn("ann", "rt1", 1)
	export(t, one, a, "")
	replace(t, two, b, "")
	saves := p.saves
	export(t, two, b, "")
	export(t, one, a, "")
	export(t, open(t, p), b, "") // base unknown
	require.Equal(t, saves, p.saves)
}

func TestRefreshInFlightDoesNotUndoSignOut(t *testing.T) {
	for _, where := range []string{"another process", "another client on this cache", "this client"} {
		t.Run(where, func(t *testing.T) {
			p := persistence.NewMemory()
			c, a := open(t, p), &client{}
			replace(t, c, a, "")
			a.signIn("ann", "rt1", 1)
			a.signIn("bob", "rt1", 1)
			export(t, c, a, "")
			replace(t, c, a, "ann") // a silent refresh begins, and its request is under way

			outCache, out := c, a
			if where != "this client" {
				out = &client{}
			}
			if where == "another process" {
				outCache = open(t, p)
			}
			replace(t, outCache, out, "")
			out.signOut("ann")
			export(t, outCache, out, "")
			replace(t, c, a, "") // Accounts, from another goroutine

			replace(t, c, a, "ann") // MSAL asks again just before it writes
			a.signIn("ann", "rt2", 2)
			export(t, c, a, "ann")
			require.Nil(t, stored(t, p).refreshToken("ann"), "signed out")
			require.Equal(t, "rt1", stored(t, p).refreshToken("bob"))
			replace(t, c, a, "")
			require.Nil(t, a.refreshToken("ann"), "signed out in memory, too")

			// A new sign-in is one, again and again.
			for i := range 2 {
				replace(t, c, a, "")
				a.signIn("ann", fmt.Sprint("rt", i+3), 3)
				export(t, c, a, "")
				require.Equal(t, fmt.Sprint("rt", i+3), stored(t, p).refreshToken("ann"))
				other := open(t, p)
				o := &client{}
				replace(t, other, o, "")
				o.signOut("ann")
				export(t, other, o, "")
				replace(t, c, a, "ann")
				a.signIn("ann", "rt2", 2)
				export(t, c, a, "ann") // one more refresh that was under way
				require.Nil(t, stored(t, p).refreshToken("ann"))
			}
		})
	}
}

func TestFailedExportIsTriedAgain(t *testing.T) {
	p := newWatched()
	var log bytes.Buffer
	c := open(t, p, persistence.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	a := &client{}
	replace(t, c, a, "")
	a.signIn("ann", "rt1", 1)
	export(t, c, a, "")

	full := &persistence.Error{Op: "save", Backend: "memory", Err: persistence.ErrTooLarge}
	p.failWith(full)
	a.signIn("ann", planted, 2)
	export(t, c, a, "ann") // the sign-in is not failed
	export(t, c, a, "ann")
	require.Equal(t, 1, strings.Count(log.String(), "\n"), "logged once: %s", &log)
	require.NotContains(t, log.String(), planted)
	p.failWith(nil)

	// Meanwhile another process saves: the rotated token must not be lost.
	other, b := open(t, p.Memory), &client{}
	replace(t, other, b, "")
	b.signIn("bob", "rt1", 1)
	export(t, other, b, "")

	replace(t, c, a, "ann")
	require.Equal(t, planted, a.refreshToken("ann"), "the memory keeps what could not be stored")
	require.Equal(t, "rt1", a.refreshToken("bob"))
	export(t, c, a, "ann")
	require.Equal(t, planted, stored(t, p.Memory).refreshToken("ann"))
	require.Equal(t, "rt1", stored(t, p.Memory).refreshToken("bob"))
}

func TestSignOutThatWasNotStoredIsReported(t *testing.T) {
	p := newWatched()
	c, a := open(t, p, persistence.WithLogger(slog.New(slog.DiscardHandler))), &client{}
	replace(t, c, a, "")
	a.signIn("ann", "rt1", 1)
	export(t, c, a, "")
	p.failWith(&persistence.Error{Op: "save", Err: persistence.ErrUnavailable})
	a.signOut("ann")
	for range 2 {
		require.ErrorIs(t, c.Export(ctx, a, cache.ExportHints{}), persistence.ErrUnavailable)
	}
	p.failWith(nil)

	// It has not happened: neither here nor, by a later save, elsewhere.
	replace(t, c, a, "")
	require.Equal(t, "rt1", a.refreshToken("ann"), "still signed in")
	a.signIn("bob", "rt1", 1)
	export(t, c, a, "")
	require.Equal(t, "rt1", stored(t, p.Memory).refreshToken("ann"))

	a.signOut("ann")
	export(t, c, a, "")
	require.Nil(t, stored(t, p.Memory).refreshToken("ann"))
}

// A sign-out that failed is not carried out over a sign-in that came later.
func TestFailedSignOutYieldsToALaterSignIn(t *testing.T) {
	p := newWatched()
	c, a := open(t, p, persistence.WithLogger(slog.New(slog.DiscardHandler))), &client{}
	replace(t, c, a, "")
	a.signIn("ann", "rt1", 1)
	export(t, c, a, "")
	p.failWith(&persistence.Error{Op: "save", Err: persistence.ErrUnavailable})
	a.signOut("ann")
	require.ErrorIs(t, c.Export(ctx, a, cache.ExportHints{}), persistence.ErrUnavailable)
	p.failWith(nil)

	other, b := open(t, p.Memory), &client{}
	replace(t, other, b, "")
	b.signIn("ann", "rt2", 2)
	export(t, other, b, "")

	replace(t, c, a, "")
	a.signIn("bob", "rt1", 1)
	export(t, c, a, "")
	require.Equal(t, "rt2", stored(t, p.Memory).refreshToken("ann"))
}

func TestReplaceTrouble(t *testing.T) {
	trouble := &persistence.Error{Op: "load", Backend: "memory", Err: persistence.ErrKeyringLocked}
	for _, strict := range []bool{false, true} {
		p := newWatched()
		var log bytes.Buffer
		opts := []persistence.Option{persistence.WithLogger(slog.New(slog.NewTextHandler(&log, nil)))}
		if strict {
			opts = append(opts, persistence.WithStrict())
		}
		c, a := open(t, p, opts...), &client{}
		p.failWith(trouble)
		require.ErrorIs(t, c.Replace(ctx, a, cache.ReplaceHints{}), persistence.ErrKeyringLocked, "the first Replace always reports")
		p.failWith(nil)
		replace(t, c, a, "")
		a.signIn("ann", "rt1", 1)
		export(t, c, a, "")
		p.failWith(trouble)
		for range 3 {
			err := c.Replace(ctx, a, cache.ReplaceHints{})
			if strict {
				require.ErrorIs(t, err, persistence.ErrKeyringLocked)
			} else {
				require.NoError(t, err)
			}
		}
		require.Equal(t, "rt1", a.refreshToken("ann"), "the memory is left as it is")
		a.signIn("ann", "rt2", 2)
		err := c.Export(ctx, a, cache.ExportHints{})
		if strict {
			require.ErrorIs(t, err, persistence.ErrKeyringLocked)
			require.Equal(t, 3, strings.Count(log.String(), "\n"), "once for each kind and outage, of which there were two for reads: %s", &log)
		} else {
			require.NoError(t, err)
			require.Equal(t, 3, strings.Count(log.String(), "\n"), "once for each kind and outage, of which there were two for reads: %s", &log)
		}
	}
}

func TestCancelledContext(t *testing.T) {
	c, a := open(t, persistence.NewMemory()), &client{}
	replace(t, c, a, "")
	over, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorIs(t, c.Replace(over, a, cache.ReplaceHints{}), context.Canceled)
	a.signIn("ann", "rt1", 1)
	require.ErrorIs(t, c.Export(over, a, cache.ExportHints{}), context.Canceled)
	export(t, c, a, "")
}

// value is an in-memory cache that has no identity.
type value struct{ *client }

func TestWithoutIdentityEverythingIsReadAndNothingIsLost(t *testing.T) {
	p := persistence.NewMemory()
	c := open(t, p)
	a, b := value{&client{}}, value{&client{}}
	replace(t, c, a, "")
	a.signIn("ann", "rt1", 1)
	export(t, c, a, "")
	replace(t, c, b, "")
	require.Equal(t, "rt1", b.refreshToken("ann"))
	unmarshals := b.unmarshals
	replace(t, c, b, "")
	require.Greater(t, b.unmarshals, unmarshals)
	empty := value{&client{}}
	export(t, c, empty, "") // its base is unknown: nothing counts as removed
	require.Equal(t, "rt1", stored(t, p).refreshToken("ann"))
}

func TestClientPerRequestDoesNotGrow(t *testing.T) {
	p := persistence.NewMemory()
	c := open(t, p)
	for range 1000 {
		a := &client{}
		replace(t, c, a, "")
	}
	for i := 0; persistence.Remembered(c) > 10; i++ {
		require.Less(t, i, 1000, "in-memory caches that are gone are still remembered")
		runtime.GC()
		runtime.Gosched()
	}
}

func TestFormats(t *testing.T) {
	broken := rawClient(`{"Account": {"a": ` + planted)
	opaque := rawClient("opaque")
	t.Run("ours is broken, stored is sound", func(t *testing.T) {
		p := persistence.NewMemory()
		require.NoError(t, p.Save(ctx, []byte(`{"Account":{}}`)))
		for _, replaceFirst := range []bool{false, true} {
			c, m := open(t, p), broken
			if replaceFirst {
				replace(t, c, &m, "")
			}
			err := c.Export(ctx, &m, cache.ExportHints{})
			require.Error(t, err)
			require.NotContains(t, err.Error(), planted)
			data, err := p.Load(ctx)
			require.NoError(t, err)
			require.Equal(t, `{"Account":{}}`, string(data))
		}
	})
	t.Run("ours is broken, nothing is stored", func(t *testing.T) {
		p := persistence.NewMemory()
		c, m := open(t, p), broken
		replace(t, c, &m, "")
		require.Error(t, c.Export(ctx, &m, cache.ExportHints{}))
		_, err := p.Load(ctx)
		require.ErrorIs(t, err, persistence.ErrNotFound)
	})
	t.Run("neither is of the format: the last writer wins, and it is logged", func(t *testing.T) {
		var log bytes.Buffer
		p := persistence.NewMemory()
		require.NoError(t, p.Save(ctx, []byte("old")))
		c := open(t, p, persistence.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		m := opaque
		export(t, c, &m, "")
		export(t, c, &m, "")
		require.Equal(t, 1, strings.Count(log.String(), "\n"), &log)
		data, err := p.Load(ctx)
		require.NoError(t, err)
		require.Equal(t, "opaque", string(data))
	})
	t.Run("stored is not of the format, ours is", func(t *testing.T) {
		p := persistence.NewMemory()
		require.NoError(t, p.Save(ctx, []byte("{"+planted)))
		c, a := open(t, p), &client{}
		err := c.Replace(ctx, a, cache.ReplaceHints{})
		require.ErrorIs(t, err, persistence.ErrCorrupt)
		require.NotContains(t, err.Error(), planted)
		a.signIn("ann", "rt1", 1)
		err = c.Export(ctx, a, cache.ExportHints{})
		require.Error(t, err)
		require.NotContains(t, err.Error(), planted)
		data, _ := p.Load(ctx)
		require.Equal(t, "{"+planted, string(data), "what is stored is untouched")
	})
}

type rawClient []byte

func (r *rawClient) Unmarshal([]byte) error   { return nil }
func (r *rawClient) Marshal() ([]byte, error) { return *r, nil }

// only hides what a Persistence can do beyond its three methods.
type only struct{ persistence.Persistence }

// unlocked is a Versioned that brings no lock: a server.
type unlocked struct{ persistence.Versioned }

func TestConcurrentWritersLoseNothing(t *testing.T) {
	lockFile := filepath.Join(t.TempDir(), "cache.lock")
	memory := persistence.NewMemory()
	for name, newCache := range map[string]func() *persistence.Cache{
		"with a lock":    func() *persistence.Cache { return open(t, memory) },
		"versioned only": func() *persistence.Cache { return open(t, unlocked{memory}) },
		"lock file only": func() *persistence.Cache { return open(t, only{memory}, persistence.WithLockFile(lockFile)) },
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, memory.Delete(ctx))
			var writers sync.WaitGroup
			for w := range 8 {
				writers.Go(func() {
					c, a := newCache(), &client{}
					for i := range 10 {
						if err := c.Replace(ctx, a, cache.ReplaceHints{}); err != nil {
							t.Error(err)
						}
						a.signIn(fmt.Sprintf("%d-%d", w, i), "rt", 1)
						if err := c.Export(ctx, a, cache.ExportHints{}); err != nil {
							t.Error(err)
						}
					}
				})
			}
			writers.Wait()
			require.Equal(t, 80, stored(t, memory).keys("RefreshToken"))
		})
	}
}

func TestUpdate(t *testing.T) {
	p := persistence.NewMemory()
	c := open(t, p)
	require.NoError(t, c.Update(ctx, func(current []byte) ([]byte, error) {
		require.Nil(t, current, "nil: nothing is stored")
		return nil, nil // nil: no change
	}))
	_, err := c.Load(ctx)
	require.ErrorIs(t, err, persistence.ErrNotFound)
	require.NoError(t, c.Update(ctx, func([]byte) ([]byte, error) { return []byte{}, nil }))
	require.NoError(t, c.Update(ctx, func(current []byte) ([]byte, error) {
		require.NotNil(t, current, "empty data is not absence")
		require.Empty(t, current)
		return []byte("x"), nil
	}))
	mine := errors.New("mine")
	require.Equal(t, mine, c.Update(ctx, func([]byte) ([]byte, error) { return []byte("y"), mine }))
	data, err := c.Load(ctx)
	require.NoError(t, err)
	require.Equal(t, "x", string(data))
}

func TestUpdateIsRepeatedOnConflict(t *testing.T) {
	p := persistence.NewMemory()
	c := open(t, unlocked{p})
	calls := 0
	require.NoError(t, c.Update(ctx, func(current []byte) ([]byte, error) {
		if calls++; calls == 1 {
			require.NoError(t, p.Save(ctx, []byte("theirs"))) // gets in between
		}
		return append(current, " and ours"...), nil
	}))
	data, err := c.Load(ctx)
	require.NoError(t, err)
	require.Equal(t, "theirs and ours", string(data))
}

func TestExclusive(t *testing.T) {
	c := open(t, persistence.NewMemory())
	inside := 0
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			err := c.Exclusive(ctx, "ann", func(context.Context) error {
				inside++ // the race detector would see two at once
				if inside != 1 {
					t.Error("two at once")
				}
				inside--
				a := &client{}
				if err := c.Replace(ctx, a, cache.ReplaceHints{}); err != nil {
					return err
				}
				a.signIn("ann", "rt", 1)
				return c.Export(ctx, a, cache.ExportHints{})
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	err := c.Exclusive(ctx, "ann", func(ctx context.Context) error {
		return c.Exclusive(ctx, "bob", func(context.Context) error { // other names are independent
			short, cancel := context.WithCancel(ctx)
			cancel()
			return c.Exclusive(short, "ann", func(context.Context) error { return nil })
		})
	})
	require.ErrorIs(t, err, persistence.ErrLockTimeout)
	require.ErrorIs(t, err, context.Canceled)
	mine := errors.New("mine")
	require.Equal(t, mine, c.Exclusive(ctx, "ann", func(context.Context) error { return mine }))
	require.ErrorIs(t, open(t, unlocked{persistence.NewMemory()}).Exclusive(ctx, "ann", nil), persistence.ErrUnavailable)
}

func TestNewRefusesWhatWouldLoseTokens(t *testing.T) {
	var none *persistence.Memory
	for name, p := range map[string]persistence.Persistence{
		"nil": nil, "nil pointer": none, "neither Versioned nor Locker": only{persistence.NewMemory()},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := persistence.New(p)
			var e *persistence.Error
			require.ErrorAs(t, err, &e)
			require.NotEmpty(t, e.Remedy)
		})
	}
	_, err := persistence.New(persistence.NewMemory(), persistence.WithLockFile(""))
	require.Error(t, err)
	_, err = persistence.New(persistence.NewMemory(), persistence.WithTimeout(0))
	require.Error(t, err)
	c := open(t, persistence.NewMemory())
	require.Error(t, c.Replace(ctx, nil, cache.ReplaceHints{}))
	require.Error(t, c.Export(ctx, nil, cache.ExportHints{}))
	require.Error(t, c.Replace(ctx, (*client)(nil), cache.ReplaceHints{}))
}

func TestErrorClasses(t *testing.T) {
	require.ErrorIs(t, persistence.ErrNotFound, fs.ErrNotExist)
	require.NotErrorIs(t, persistence.ErrKeyMissing, fs.ErrNotExist)
	err := error(&persistence.Error{Op: "load", Backend: "encrypted", Location: "/x/y.enc",
		Err: fmt.Errorf("%w: no bus", persistence.ErrUnavailable), Remedy: "Start one."})
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	require.Equal(t, "tokenkeep: load encrypted /x/y.enc: not available in this environment: no bus. Start one.", err.Error())
}

// A confidential client hints with the account's id when a user signs in, as it
// does when it refreshes: the sign-in must not pass for a refresh.
func TestConfidentialClientSignsInAgain(t *testing.T) {
	for _, who := range []string{"itself", "another process"} {
		p := persistence.NewMemory()
		c, a := open(t, p), &client{}
		replace(t, c, a, "ann")
		a.signIn("ann", "rt1", 1)
		export(t, c, a, "ann")
		out, b := c, a
		if who == "another process" {
			out, b = open(t, p), &client{}
		}
		replace(t, out, b, "") // RemoveAccount
		b.signOut("ann")
		export(t, out, b, "")
		if who == "another process" {
			replace(t, c, a, "ann") // Account, which finds it gone
		}
		replace(t, c, a, "ann")
		a.signIn("ann", "rt2", 2)
		export(t, c, a, "ann")
		require.Equal(t, "rt2", stored(t, p).refreshToken("ann"), who)
		replace(t, c, a, "ann")
		require.Equal(t, "rt2", a.refreshToken("ann"), who)
	}
}

func TestRefusedRefreshStaysRefusedWhenItsExportFails(t *testing.T) {
	p := newWatched()
	c, a := open(t, p, persistence.WithLogger(slog.New(slog.DiscardHandler))), &client{}
	replace(t, c, a, "")
	a.signIn("ann", "rt1", 1)
	a.signIn("bob", "rt1", 1)
	export(t, c, a, "")
	other, b := open(t, p.Memory), &client{}
	replace(t, other, b, "")
	b.signOut("ann")
	export(t, other, b, "")

	replace(t, c, a, "ann") // finds it gone
	a.signIn("ann", "rt2", 2)
	p.failWith(&persistence.Error{Op: "save", Err: persistence.ErrUnavailable})
	export(t, c, a, "ann")
	p.failWith(nil)
	b.signIn("eve", "rt1", 1)
	export(t, other, b, "") // so that the next Replace must read
	replace(t, c, a, "bob")
	a.signIn("bob", "rt2", 2)
	export(t, c, a, "bob")
	require.Nil(t, stored(t, p.Memory).refreshToken("ann"))
	require.Equal(t, "rt2", stored(t, p.Memory).refreshToken("bob"))
	require.Equal(t, "rt1", stored(t, p.Memory).refreshToken("eve"))
}

// reuser marshals into the bytes that it was given and gave before.
type reuser struct{ bytes []byte }

func (r *reuser) Unmarshal(b []byte) error { r.bytes = append(r.bytes[:0], b...); return nil }
func (r *reuser) Marshal() ([]byte, error) { return r.bytes, nil }
func (r *reuser) set(c *client) {
	b, _ := c.Marshal()
	r.bytes = append(r.bytes[:0], b...)
}

func TestBytesThatAreUsedAgain(t *testing.T) {
	p := persistence.NewMemory()
	c, r := open(t, p), &reuser{}
	replace(t, c, r, "")
	a := &client{}
	a.signIn("ann", "rt1", 1)
	r.set(a)
	export(t, c, r, "")
	require.Equal(t, "rt1", stored(t, p).refreshToken("ann"))
	a.signIn("ann", "rt2", 2)
	r.set(a)
	export(t, c, r, "")
	require.Equal(t, "rt2", stored(t, p).refreshToken("ann"))
}

// A caller that waited behind a hanging save comes with its deadline spent: its
// token is not lost for that.
func TestSpentDeadline(t *testing.T) {
	c, a := open(t, persistence.NewMemory(), persistence.WithLogger(slog.New(slog.DiscardHandler))), &client{}
	spent, cancel := context.WithTimeout(ctx, 0)
	defer cancel()
	require.ErrorIs(t, c.Replace(spent, a, cache.ReplaceHints{}), context.DeadlineExceeded, "the first Replace always reports")
	replace(t, c, a, "")
	require.NoError(t, c.Replace(spent, a, cache.ReplaceHints{}))
	a.signIn("ann", "rt1", 1)
	require.NoError(t, c.Export(spent, a, cache.ExportHints{}))
	replace(t, c, a, "")
	export(t, c, a, "")
	b := &client{}
	replace(t, c, b, "")
	require.Equal(t, "rt1", b.refreshToken("ann"))
}

func TestTroubleWithoutIdentity(t *testing.T) {
	p := newWatched()
	c := open(t, p, persistence.WithLogger(slog.New(slog.DiscardHandler)))
	a, b := value{&client{}}, value{&client{}}
	replace(t, c, a, "")
	p.failWith(&persistence.Error{Op: "save", Err: persistence.ErrUnavailable})
	require.ErrorIs(t, c.Replace(ctx, b, cache.ReplaceHints{}), persistence.ErrUnavailable, "for all that is known, its first")
	a.signIn("ann", "rt1", 1)
	export(t, c, a, "")
	p.failWith(nil)
	b.signIn("bob", "rt1", 1)
	export(t, c, b, "")
	require.Equal(t, "rt1", stored(t, p.Memory).refreshToken("ann"), "what could not be stored comes with the next")
	require.Equal(t, "rt1", stored(t, p.Memory).refreshToken("bob"))
}

// sharing breaks the rules of Persistence: it hands out and keeps slices that
// are not its own, as the simplest backend in memory does.
type sharing struct{ data []byte }

func (s *sharing) Load(context.Context) ([]byte, error) {
	if s.data == nil {
		return nil, persistence.ErrNotFound
	}
	return s.data, nil
}
func (s *sharing) Save(_ context.Context, data []byte) error { s.data = data; return nil }
func (s *sharing) Delete(context.Context) error              { s.data = nil; return nil }

// TestBackendThatSharesItsBytes: a Cache never writes into bytes that are still
// stored, even where the backend gave them away.
func TestBackendThatSharesItsBytes(t *testing.T) {
	p := new(sharing)
	lock := persistence.WithLockFile(filepath.Join(t.TempDir(), "lock"))
	a, b := open(t, p, lock), open(t, p, lock)
	ca, cb := new(client), new(client)
	step := func(c *persistence.Cache, m *client, account string) {
		m.signIn(account, "rt "+account, 1)
		export(t, c, m, "")
	}
	replace(t, a, ca, "")
	replace(t, b, cb, "")
	step(a, ca, "alice")
	step(b, cb, "bob") // merges
	step(b, cb, "carol")
	step(a, ca, "dave")
	export(t, b, cb, "") // has nothing to write
	require.Equal(t, 4, stored(t, p).keys("Account"))
	replace(t, a, ca, "")
	step(a, ca, "erin") // has nothing to merge
	step(a, ca, "frank")
	require.Equal(t, 6, stored(t, p).keys("Account"))
	replace(t, b, cb, "")
	require.Equal(t, 6, cb.keys("Account"))
}

// In one Export each byte string is parsed at most once: ours and base once, theirs
// once for each revision that is met. One that failed parses nothing again.
func TestExportParsesEachSideOnce(t *testing.T) {
	parsed := func(f func()) uint64 {
		before := tokencache.Parses()
		f()
		return tokencache.Parses() - before
	}
	p := newWatched()
	c, a := open(t, p, persistence.WithLogger(slog.New(slog.DiscardHandler))), &client{}
	replace(t, c, a, "")
	a.signIn("ann", "rt1", 1)
	export(t, c, a, "")
	replace(t, c, a, "ann")
	a.signIn("ann", "rt2", 2)
	require.LessOrEqual(t, parsed(func() { export(t, c, a, "ann") }), uint64(1), "nobody else has saved: base is what the last Export parsed")

	other, b := open(t, p.Memory), &client{}
	replace(t, other, b, "")
	b.signIn("bob", "rt1", 1)
	export(t, other, b, "")
	a.signIn("ann", "rt3", 3)
	require.LessOrEqual(t, parsed(func() { export(t, c, a, "ann") }), uint64(2), "merged")

	replace(t, c, a, "ann")
	p.failWith(&persistence.Error{Op: "save", Err: persistence.ErrUnavailable})
	a.signIn("ann", "rt4", 4)
	require.LessOrEqual(t, parsed(func() { export(t, c, a, "ann") }), uint64(2), "failed")
	require.NotZero(t, parsed(func() { _, _ = tokencache.Parse(nil) }), "control: parses are counted")
}

// An Export that changes nothing needs no lock: on a read-only disk a strict cache
// works as long as nothing is to be stored.
func TestExportThatChangesNothingNeedsNoLock(t *testing.T) {
	memory := persistence.NewMemory()
	a, u := open(t, memory), &client{}
	u.signIn("ann", "1", 1)
	export(t, a, u, "")
	readOnly := errors.New("read-only")
	c := open(t, persistencetest.Faulty(memory, persistencetest.Fault{Op: "Lock", Err: readOnly}), persistence.WithStrict())
	v := &client{}
	replace(t, c, v, "")
	require.NoError(t, c.Export(t.Context(), v, cache.ExportHints{}))

	v.signIn("ann", "2", 2)
	require.ErrorIs(t, c.Export(t.Context(), v, cache.ExportHints{}), readOnly, "something is to be stored")

	w := &client{}
	replace(t, c, w, "")
	u.signIn("ben", "1", 1)
	export(t, a, u, "")
	require.ErrorIs(t, c.Export(t.Context(), w, cache.ExportHints{}), readOnly, "somebody else has stored since")
}
