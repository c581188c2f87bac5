package persistence_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/persistence/persistencetest"
)

// With a neighbour that has nothing, a backend is what it is without one.
func TestFollowedConforms(t *testing.T) {
	persistencetest.Run(t, func(t *testing.T) persistencetest.Open {
		own := persistence.NewMemory()
		return func() (persistence.Persistence, error) { return persistence.Followed(own, persistence.NewMemory()) }
	}, nil)
}

// signedIn is a cache with one user of the client.
func signedIn(user, client, secret string, at int) string {
	const env = "login.microsoftonline.com"
	fields := fmt.Sprintf(`"home_account_id":%q,"environment":%q`, user, env)
	return fmt.Sprintf(`{"Account":{%q:{%s,"username":%q}},"RefreshToken":{%q:{%s,"client_id":%q,"secret":%q,"last_modification_time":"%d"}}}`,
		user+"-"+env+"-t", fields, user, user+"-"+env+"-refreshtoken-"+client, fields, client, secret, at)
}

func follower(t *testing.T, own persistence.Persistence, theirs persistence.Neighbour, opts ...persistence.Option) *persistence.Cache {
	t.Helper()
	c, err := persistence.New(own, append(opts, persistence.WithFollow(theirs), persistence.WithLogger(slog.New(slog.DiscardHandler)))...)
	require.NoError(t, err)
	return c
}

func put(t *testing.T, c *persistence.Cache, data string) {
	t.Helper()
	require.NoError(t, c.Update(t.Context(), func([]byte) ([]byte, error) { return []byte(data), nil }))
}

func storedIn(t *testing.T, p persistence.Persistence) string {
	t.Helper()
	data, err := p.Load(t.Context())
	if errors.Is(err, persistence.ErrNotFound) {
		return ""
	}
	require.NoError(t, err)
	return string(data)
}

// abilityless hides all abilities of a Persistence but its own.
type abilityless struct{ persistence.Persistence }

// What was kept goes with a sign-out over there: with the next load, or with the
// next save where a load must not write or cannot.
func TestFollowedIsPurged(t *testing.T) {
	for name, kind := range map[string]struct {
		own    func(p persistence.Persistence) persistence.Persistence
		opts   func(t *testing.T) []persistence.Option
		onLoad bool
	}{
		"versioned": {func(p persistence.Persistence) persistence.Persistence { return p }, nil, true},
		"with a lock file only": {func(p persistence.Persistence) persistence.Persistence { return abilityless{p} }, func(t *testing.T) []persistence.Option {
			return []persistence.Option{persistence.WithLockFile(filepath.Join(t.TempDir(), "lock"))}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			own, theirs := persistence.NewMemory(), persistence.NewMemory()
			var opts []persistence.Option
			if kind.opts != nil {
				opts = kind.opts(t)
			}
			c := follower(t, kind.own(own), theirs, opts...)
			require.NoError(t, theirs.Save(t.Context(), []byte(signedIn("u.a", "z", "theirs", 100))))
			put(t, c, signedIn("u.a", "z", "refreshed", 200))
			require.Contains(t, storedIn(t, own), "refreshed")
			require.NoError(t, theirs.Delete(t.Context()))
			data, err := c.Load(t.Context())
			require.NoError(t, err)
			require.NotContains(t, string(data), "refreshed")
			require.Equal(t, !kind.onLoad, strings.Contains(storedIn(t, own), "refreshed"))
			put(t, c, signedIn("u.b", "c", "another", 300))
			require.NotContains(t, storedIn(t, own), "refreshed")
			require.Contains(t, storedIn(t, own), "another")
		})
	}
}

// Where the own backend cannot be written, nothing that has ended is shown either.
func TestFollowedReadOnly(t *testing.T) {
	memory, theirs := persistence.NewMemory(), persistence.NewMemory()
	fail := false
	own := persistencetest.Intercept(memory, func(ctx context.Context, op string, call func() error) error {
		if fail && op == "SaveIf" {
			return errors.New("read-only")
		}
		return call()
	})
	c := follower(t, own, theirs)
	require.NoError(t, theirs.Save(t.Context(), []byte(signedIn("u.a", "z", "theirs", 100))))
	put(t, c, signedIn("u.a", "z", "refreshed", 200))
	require.NoError(t, theirs.Delete(t.Context()))
	fail = true
	require.NotContains(t, shownBy(t, c), "refreshed")
	require.Contains(t, storedIn(t, memory), "refreshed")
	fail = false
	require.NotContains(t, shownBy(t, c), "refreshed")
	require.NotContains(t, storedIn(t, memory), "refreshed")
}

func shownBy(t *testing.T, c *persistence.Cache) string {
	t.Helper()
	data, err := c.Load(t.Context())
	require.NoError(t, err)
	return string(data)
}

// Delete also hides where the own backend cannot be read.
func TestFollowedDelete(t *testing.T) {
	memory, theirs := persistence.NewMemory(), persistence.NewMemory()
	fail := true
	own := persistencetest.Intercept(memory, func(ctx context.Context, op string, call func() error) error {
		if fail && op == "LoadRevision" {
			return persistence.ErrWrongKey
		}
		return call()
	})
	require.NoError(t, memory.Save(t.Context(), []byte(signedIn("u.b", "c", "mine", 100))))
	require.NoError(t, theirs.Save(t.Context(), []byte(signedIn("u.a", "z", "theirs", 100))))
	c := follower(t, own, theirs)
	require.NoError(t, c.Delete(t.Context()))
	fail = false
	require.NotContains(t, storedIn(t, memory), "mine")
	require.NotContains(t, shownBy(t, c), "theirs")
	require.Contains(t, storedIn(t, theirs), "theirs")

	// Where there is nothing to hide, nothing is stored.
	require.NoError(t, theirs.Delete(t.Context()))
	memory = persistence.NewMemory()
	c = follower(t, memory, theirs)
	put(t, c, signedIn("u.b", "c", "mine", 100))
	require.NoError(t, c.Delete(t.Context()))
	require.Empty(t, storedIn(t, memory))
	_, err := c.Load(t.Context())
	require.ErrorIs(t, err, persistence.ErrNotFound)
}

// Several writers, while the neighbour changes all the time: nothing of any is lost.
func TestFollowedLosesNothing(t *testing.T) {
	own, theirs := persistence.NewMemory(), persistence.NewMemory()
	require.NoError(t, theirs.Save(t.Context(), []byte(signedIn("u.z", "z", "theirs", 100))))
	end, ended := make(chan struct{}), make(chan error)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-end:
				ended <- nil
				return
			default:
			}
			if err := theirs.Save(context.Background(), []byte(signedIn("u.z", "z", fmt.Sprint("theirs", i), 100+i))); err != nil {
				ended <- err
				return
			}
		}
	}()
	const writers, each = 4, 8
	var group sync.WaitGroup
	for w := range writers {
		c := follower(t, own, theirs)
		group.Go(func() {
			e, err := c.Entries("contoso")
			for i := 0; err == nil && i < each; i++ {
				err = e.Set(context.Background(), fmt.Sprint(w, "-", i), []byte("x"))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	close(end)
	require.NoError(t, <-ended)
	c := follower(t, own, theirs)
	e, err := c.Entries("contoso")
	require.NoError(t, err)
	keys, err := e.Keys(t.Context())
	require.NoError(t, err)
	require.Len(t, keys, writers*each)
	require.NotContains(t, storedIn(t, own), "theirs")
	require.Contains(t, shownBy(t, c), "theirs")
}

// The backend is the own one, and Move moves what that has.
func TestFollowedBackend(t *testing.T) {
	own, theirs, to := persistence.NewMemory(), persistence.NewMemory(), persistence.NewMemory()
	require.NoError(t, theirs.Save(t.Context(), []byte(signedIn("u.a", "z", "theirs", 100))))
	c := follower(t, own, theirs)
	put(t, c, signedIn("u.b", "c", "mine", 100))
	require.Same(t, own, c.Backend())
	require.Equal(t, own.Describe(), c.Describe())
	require.NoError(t, persistence.Move(t.Context(), c.Backend(), to))
	require.Contains(t, storedIn(t, to), "mine")
	require.NotContains(t, storedIn(t, to), "theirs")
	require.Contains(t, storedIn(t, theirs), "theirs")
}

// Own data that is no token cache is shown as it is, and moved out of the way for an
// MSAL client, as without a neighbour.
func TestFollowedNoCache(t *testing.T) {
	path := filepath.Join(t.TempDir(), "own.json")
	own, err := fallback.NewInsecurePlaintextFile(path, func(fallback.Warning) {}, nil)
	require.NoError(t, err)
	require.NoError(t, own.Save(t.Context(), []byte("{torn")))
	theirs := persistence.NewMemory()
	require.NoError(t, theirs.Save(t.Context(), []byte(signedIn("u.a", "z", "theirs", 100))))
	c := follower(t, own, theirs)
	require.Equal(t, "{torn", shownBy(t, c))
	require.NoError(t, c.Replace(t.Context(), &client{}, cache.ReplaceHints{}))
	require.NoFileExists(t, path)
	require.Contains(t, shownBy(t, c), "theirs")
}

// deaf is a neighbour that answers no more, but obeys its context.
type deaf struct {
	persistence.Neighbour
	on    bool
	asked int
}

func (s *deaf) LoadRevision(ctx context.Context) ([]byte, string, error) {
	if s.asked++; s.on {
		<-ctx.Done()
		return nil, "", ctx.Err()
	}
	return s.Neighbour.LoadRevision(ctx)
}

func (s *deaf) Revision(ctx context.Context) (string, error) {
	_, rev, err := s.LoadRevision(ctx)
	if errors.Is(err, persistence.ErrNotFound) {
		err = nil
	}
	return rev, err
}

// A neighbour that does not answer holds the program up once a minute, for two
// seconds, and not at all what the program has itself.
func TestFollowedThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own, there := persistence.NewMemory(), persistence.NewMemory()
		theirs := &deaf{Neighbour: there}
		c := follower(t, own, theirs)
		put(t, c, signedIn("u.o", "c", "own", 100))
		require.NoError(t, there.Save(t.Context(), []byte(signedIn("u.a", "z", "theirs", 100))))
		require.Contains(t, shownBy(t, c), "theirs")
		took := func() time.Duration {
			start := time.Now()
			got := shownBy(t, c)
			require.Contains(t, got, "own")
			require.NotContains(t, got, "theirs")
			return time.Since(start)
		}
		theirs.on = true
		require.Equal(t, 2*time.Second, took())
		asked := theirs.asked
		require.Zero(t, took())
		require.Equal(t, asked, theirs.asked)
		put(t, c, signedIn("u.o", "c", "own too", 200))

		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := c.Load(ended)
		require.ErrorIs(t, err, context.Canceled)

		<-time.After(time.Minute)
		require.Equal(t, 2*time.Second, took())
		theirs.on = false
		<-time.After(time.Minute)
		require.Contains(t, shownBy(t, c), "theirs")
	})
}

// A Delete hides the neighbours' accounts in the same step in which it removes the
// own tokens; where nothing can be stored, it removes them all the same, and fails.
func TestFollowedIsDeletedAtOnce(t *testing.T) {
	var ops []string
	full := false
	memory, theirs := persistence.NewMemory(), persistence.NewMemory()
	own := persistencetest.Intercept(memory, func(_ context.Context, op string, call func() error) error {
		switch op {
		case "SaveIf", "Save", "Delete", "DeleteIf":
			ops = append(ops, op)
		}
		if full && op == "SaveIf" {
			return errors.New("no space left on device")
		}
		return call()
	})
	c := follower(t, own, theirs)
	require.NoError(t, theirs.Save(t.Context(), []byte(signedIn("u.a", "z", "theirs", 100))))
	put(t, c, signedIn("u.o", "c", "own", 100))

	ops = nil
	require.NoError(t, c.Delete(t.Context()))
	require.Equal(t, []string{"SaveIf"}, ops)
	require.NotContains(t, storedIn(t, memory), "own")
	require.NotContains(t, shownBy(t, c), "theirs")

	put(t, c, signedIn("u.o", "c", "own", 100))
	full = true
	require.ErrorContains(t, c.Delete(t.Context()), "no space")
	require.Empty(t, storedIn(t, memory))
}
