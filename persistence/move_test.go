package persistence_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/internal/merge"
	"github.com/tokenkeep/tokenkeep/internal/tokencache"
	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
	"github.com/tokenkeep/tokenkeep/persistence"
	"github.com/tokenkeep/tokenkeep/persistence/persistencetest"
)

// oneAccount is a token cache of one account, with a planted secret.
func oneAccount(user string) []byte {
	return fmt.Appendf(nil, `{"Account":{"%[1]s-login":{"home_account_id":"%[1]s","environment":"login","username":"%[1]s@example.com"}},`+
		`"RefreshToken":{"%[1]s-rt":{"home_account_id":"%[1]s","environment":"login","client_id":"c","secret":"pl4nted-s3cret"}}}`, user)
}

// usersIn returns the accounts of a token cache, and fails where one has lost
// its token.
func usersIn(t *testing.T, data []byte) (users []string) {
	t.Helper()
	d, err := tokencache.Parse(data)
	require.NoError(t, err)
	for _, a := range d.Accounts() {
		require.Contains(t, string(data), a.HomeAccountID+"-rt")
		users = append(users, a.HomeAccountID)
	}
	return users
}

// bare hides all abilities of a Persistence.
type bare struct{ persistence.Persistence }

// onlyLocker hides that a Persistence is Versioned.
type onlyLocker struct {
	persistence.Persistence
	persistence.Locker
}

func (o onlyLocker) Describe() persistence.Description { return persistence.Describe(o.Persistence) }

// backendsToMove are ways to open a storage, each time as another process.
func backendsToMove(t *testing.T) map[string]func() persistence.Persistence {
	must := func(p persistence.Persistence, err error) persistence.Persistence {
		require.NoError(t, err)
		return p
	}
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	memory, bareMemory, lockedMemory, ring := persistence.NewMemory(), persistence.NewMemory(), persistence.NewMemory(), keyringtest.New()
	return map[string]func() persistence.Persistence{
		"memory": func() persistence.Persistence { return memory },
		"bare":   func() persistence.Persistence { return bare{bareMemory} },
		"locker": func() persistence.Persistence { return onlyLocker{lockedMemory, lockedMemory} },
		"locked file": func() persistence.Persistence {
			f := must(fallback.NewInsecurePlaintextFile(path("locked"), func(fallback.Warning) {}, nil))
			return onlyLocker{f, f.(persistence.Locker)}
		},
		"plaintext": func() persistence.Persistence {
			return must(fallback.NewInsecurePlaintextFile(path("plain"), func(fallback.Warning) {}, nil))
		},
		"encrypted": func() persistence.Persistence {
			return must(encrypted.New(path("encrypted"), encrypted.Raw(bytes.Repeat([]byte{1}, 32)), nil))
		},
		"keyring": func() persistence.Persistence {
			return must(keyring.New(ring, "service", "user", persistence.NewFileLock(path("keyring.lock"))))
		},
	}
}

func loadOrNothing(t *testing.T, p persistence.Persistence) []byte {
	t.Helper()
	data, err := p.Load(context.Background())
	if errors.Is(err, persistence.ErrNotFound) {
		return nil
	}
	require.NoError(t, err)
	return data
}

func eachPair(t *testing.T, test func(t *testing.T, from, to func() persistence.Persistence)) {
	for a := range backendsToMove(t) {
		for b := range backendsToMove(t) {
			t.Run(a+" to "+b, func(t *testing.T) {
				t.Parallel()
				test(t, backendsToMove(t)[a], backendsToMove(t)[b])
			})
		}
	}
}

func TestMove(t *testing.T) {
	ctx := context.Background()
	eachPair(t, func(t *testing.T, from, to func() persistence.Persistence) {
		require.NoError(t, persistence.Move(ctx, from(), to()), "nothing is there")
		require.Nil(t, loadOrNothing(t, to()))

		require.NoError(t, from().Save(ctx, oneAccount("ann")))
		require.NoError(t, persistence.Move(ctx, from(), to()))
		require.Nil(t, loadOrNothing(t, from()))
		require.Equal(t, string(oneAccount("ann")), string(loadOrNothing(t, to())), "byte for byte")
		require.NoError(t, persistence.Move(ctx, from(), to()), "a second time")
		require.Equal(t, string(oneAccount("ann")), string(loadOrNothing(t, to())))

		require.NoError(t, from().Save(ctx, oneAccount("ben")))
		require.NoError(t, persistence.Move(ctx, from(), to()))
		require.Nil(t, loadOrNothing(t, from()))
		require.Equal(t, []string{"ann", "ben"}, usersIn(t, loadOrNothing(t, to())))

		both := loadOrNothing(t, to())
		require.NoError(t, from().Save(ctx, both))
		require.NoError(t, persistence.Move(ctx, from(), to()))
		require.Nil(t, loadOrNothing(t, from()))
		require.Equal(t, string(both), string(loadOrNothing(t, to())), "both have the same")

		// What is no token cache is moved too, but not merged.
		require.NoError(t, to().Delete(ctx))
		require.NoError(t, from().Save(ctx, []byte("pl4nted-s3cret")))
		require.NoError(t, persistence.Move(ctx, from(), to()))
		require.Equal(t, "pl4nted-s3cret", string(loadOrNothing(t, to())))
		require.NoError(t, from().Save(ctx, oneAccount("ann")))
		err := persistence.Move(ctx, from(), to())
		var e *persistence.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, "move", e.Op)
		require.NotEmpty(t, e.Remedy)
		require.NotContains(t, err.Error(), "pl4nted")
		require.Equal(t, "pl4nted-s3cret", string(loadOrNothing(t, to())))
		require.Equal(t, string(oneAccount("ann")), string(loadOrNothing(t, from())))
	})
}

// A move fails at each of its calls, before it or after it took effect, and all
// after it fail as well: the process has died. Nothing is lost, and a further
// move completes it.
func TestMoveFailsAtAnyCall(t *testing.T) {
	eachPair(t, func(t *testing.T, from, to func() persistence.Persistence) {
		// In short: each with one in memory, and the move that Open makes.
		if os.Getenv("TOKENKEEP_LONG") != "1" && !strings.Contains(t.Name(), "memory") && !strings.HasSuffix(t.Name(), "/plaintext_to_encrypted") {
			return
		}
		if problem := failAtAnyCall(t, persistence.Move, from, to); problem != "" {
			t.Fatal(problem)
		}
	})
	for name, wrong := range map[string]func(ctx context.Context, from, to persistence.Persistence) error{
		"deletes before it verifies": func(ctx context.Context, from, to persistence.Persistence) error {
			data, err := from.Load(ctx)
			if errors.Is(err, persistence.ErrNotFound) {
				return nil
			}
			if err = errors.Join(err, from.Delete(ctx)); err != nil {
				return err
			}
			if err := to.Save(ctx, data); err != nil {
				return err
			}
			_, err = to.Load(ctx)
			return err
		},
		"replaces what is there": func(ctx context.Context, from, to persistence.Persistence) error {
			data, err := from.Load(ctx)
			if errors.Is(err, persistence.ErrNotFound) {
				return nil
			}
			if err == nil {
				err = to.Save(ctx, data)
			}
			if err == nil {
				err = from.Delete(ctx)
			}
			return err
		},
	} {
		t.Run("control: "+name, func(t *testing.T) {
			b := backendsToMove(t)
			problem := failAtAnyCall(t, wrong, b["plaintext"], b["memory"])
			require.NotEmpty(t, problem, "the control was not caught: this test proves nothing")
		})
	}
}

// failAtAnyCall returns what was wrong.
func failAtAnyCall(t *testing.T, move func(ctx context.Context, from, to persistence.Persistence) error, from, to func() persistence.Persistence) string {
	ctx := context.Background()
	died := errors.New("died")
	for _, kept := range []bool{false, true} {
		for call, done := 1, false; !done; call++ {
			for _, late := range []bool{false, true} {
				require.NoError(t, from().Save(ctx, oneAccount("ann")))
				require.NoError(t, to().Delete(ctx))
				want := []string{"ann"}
				if kept {
					require.NoError(t, to().Save(ctx, oneAccount("ben")))
					want = append(want, "ben")
				}
				n := 0
				dying := func(_ context.Context, op string, do func() error) error {
					if op == "Unlock" {
						return do() // a dead process has no locks
					}
					switch n++; {
					case n < call:
						return do()
					case n == call && late:
						_ = do()
					}
					return died
				}
				err := move(ctx, persistencetest.Intercept(from(), dying), persistencetest.Intercept(to(), dying))
				done = n < call
				if done != (err == nil) {
					return fmt.Sprintf("%d calls, the last at %d: %v", n, call, err)
				}
				there := map[string]bool{}
				for _, p := range []persistence.Persistence{from(), to()} {
					if data := loadOrNothing(t, p); data != nil {
						for _, u := range usersIn(t, data) {
							there[u] = true
						}
					}
				}
				if len(there) != len(want) {
					return fmt.Sprintf("died at call %d, late %v: %v is left of %v", call, late, there, want)
				}
				if err := move(ctx, from(), to()); err != nil {
					return fmt.Sprintf("the move after call %d: %v", call, err)
				}
				if all := usersIn(t, loadOrNothing(t, to())); len(all) != len(want) {
					return fmt.Sprintf("completed after call %d, late %v: %v is left of %v", call, late, all, want)
				}
				if loadOrNothing(t, from()) != nil {
					return fmt.Sprintf("completed after call %d: the source is still there", call)
				}
			}
		}
	}
	return ""
}

// What does not read back the same is not deleted where it was.
func TestMoveComparesWhatItReadsBack(t *testing.T) {
	ctx := context.Background()
	eachPair(t, func(t *testing.T, from, to func() persistence.Persistence) {
		require.NoError(t, from().Save(ctx, oneAccount("ann")))
		calls := 0
		broken := persistencetest.Intercept(to(), func(_ context.Context, op string, call func() error) error {
			if op != "LoadRevision" && op != "Load" {
				return call()
			}
			if calls++; calls == 1 {
				return call()
			}
			return persistence.ErrCorrupt
		})
		err := persistence.Move(ctx, from(), broken)
		require.ErrorIs(t, err, persistence.ErrCorrupt)
		require.NotContains(t, err.Error(), "pl4nted")
		require.Equal(t, string(oneAccount("ann")), string(loadOrNothing(t, from())))
	})
	from, to := persistence.NewMemory(), persistence.NewMemory()
	require.NoError(t, from.Save(ctx, oneAccount("ann")))
	err := persistence.Move(ctx, from, lossy{to})
	require.ErrorContains(t, err, "does not read back")
	require.NotContains(t, err.Error(), "pl4nted")
	require.Equal(t, string(oneAccount("ann")), string(loadOrNothing(t, from)))
}

// lossy loses the last byte, as a column that is too short.
type lossy struct{ *persistence.Memory }

func (l lossy) LoadRevision(ctx context.Context) ([]byte, string, error) {
	data, rev, err := l.Memory.LoadRevision(ctx)
	return data[:max(len(data)-1, 0)], rev, err
}

// Moving something to where it is does not delete it.
func TestMoveToItself(t *testing.T) {
	ctx := context.Background()
	for name, open := range backendsToMove(t) {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, open().Save(ctx, oneAccount("ann")))
			require.Error(t, persistence.Move(ctx, open(), open()))
			require.Equal(t, string(oneAccount("ann")), string(loadOrNothing(t, open())))
		})
	}
}

// While it is moved, an account is signed out of the source, and another one
// signs in: the move has both.
func TestMoveWhileTheSourceChanges(t *testing.T) {
	ctx := context.Background()
	from, to := persistence.NewMemory(), persistence.NewMemory()
	both, _, err := merge.Bytes(merge.BytesInput{BaseUnknown: true, Ours: oneAccount("ann"), Theirs: oneAccount("ben")})
	require.NoError(t, err)
	require.NoError(t, from.Save(ctx, both))
	require.NoError(t, to.Save(ctx, oneAccount("dora")))
	changed, _, err := merge.Bytes(merge.BytesInput{BaseUnknown: true, Ours: oneAccount("ben"), Theirs: oneAccount("carl")})
	require.NoError(t, err)
	var once sync.Once
	changing := persistencetest.Intercept(from, func(_ context.Context, op string, call func() error) error {
		if op == "DeleteIf" {
			once.Do(func() { require.NoError(t, from.Save(ctx, changed)) })
		}
		return call()
	})
	require.NoError(t, persistence.Move(ctx, changing, to))
	require.Nil(t, loadOrNothing(t, from))
	require.Equal(t, []string{"ben", "carl", "dora"}, usersIn(t, loadOrNothing(t, to)))
}

// The target changes between the save and the look at it.
func TestMoveWhileTheTargetChanges(t *testing.T) {
	ctx := context.Background()
	from, to := persistence.NewMemory(), persistence.NewMemory()
	require.NoError(t, from.Save(ctx, oneAccount("ann")))
	var once sync.Once
	changing := persistencetest.Intercept(to, func(_ context.Context, op string, call func() error) error {
		err := call()
		if op == "SaveIf" {
			once.Do(func() { require.NoError(t, to.Save(ctx, oneAccount("ben"))) })
		}
		return err
	})
	require.NoError(t, persistence.Move(ctx, from, changing))
	require.Nil(t, loadOrNothing(t, from))
	require.Equal(t, []string{"ann", "ben"}, usersIn(t, loadOrNothing(t, to)))

	// Without end: the context ends it.
	require.NoError(t, from.Save(ctx, oneAccount("ann")))
	ctx, cancel := context.WithCancel(ctx)
	tries := 0
	never := persistencetest.Intercept(to, func(_ context.Context, op string, call func() error) error {
		if op != "SaveIf" && op != "DeleteIf" {
			return call()
		}
		if tries++; tries == 3 {
			cancel()
		}
		return persistence.ErrConflict
	})
	require.NoError(t, to.Save(context.Background(), oneAccount("ben")))
	err := persistence.Move(ctx, from, never)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, string(oneAccount("ann")), string(loadOrNothing(t, from)))
}

// Moves in opposite directions at once neither wait for each other for ever nor
// lose anything.
func TestMovesInOppositeDirections(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b func() persistence.Persistence) {
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute) // only a deadlock takes so long
		defer cancel()
		if strings.Contains(t.Name(), "bare") {
			return // nothing tells its writers apart
		}
		require.NoError(t, a().Save(ctx, oneAccount("ann")))
		require.NoError(t, b().Save(ctx, oneAccount("ben")))
		var all sync.WaitGroup
		for range 3 {
			for _, pair := range [][2]persistence.Persistence{{a(), b()}, {b(), a()}} {
				all.Go(func() {
					for range 3 {
						if err := persistence.Move(ctx, pair[0], pair[1]); err != nil {
							t.Error(err)
						}
					}
				})
			}
		}
		all.Wait()
		require.NoError(t, persistence.Move(ctx, a(), b()))
		require.Equal(t, []string{"ann", "ben"}, usersIn(t, loadOrNothing(t, b())))
	})
}

// Both backends share one lock, in one value or in two of the same file, by one path
// or by two.
func TestMoveUnderASharedLock(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	one := persistence.NewFileLock(filepath.Join(dir, "lock"))
	alias := filepath.Join(t.TempDir(), "alias")
	require.NoError(t, os.Symlink(dir, alias))
	t.Chdir(dir)
	for _, other := range []*persistence.FileLock{one, persistence.NewFileLock(one.Path()), persistence.NewFileLock("lock"), persistence.NewFileLock(filepath.Join(alias, "lock"))} {
		ctx, cancel := context.WithTimeout(ctx, 4*time.Minute) // only a deadlock takes so long
		defer cancel()
		from, err := fallback.NewInsecurePlaintextFile(filepath.Join(dir, "plain"), func(fallback.Warning) {}, &fallback.Options{Lock: one})
		require.NoError(t, err)
		to, err := encrypted.New(filepath.Join(dir, "encrypted"), encrypted.Raw(make([]byte, 32)), &encrypted.Options{Lock: other})
		require.NoError(t, err)
		require.NoError(t, from.Save(ctx, oneAccount("ann")))
		require.NoError(t, persistence.Move(ctx, from, to))
		require.Equal(t, string(oneAccount("ann")), string(loadOrNothing(t, to)))
		require.Nil(t, loadOrNothing(t, from))
	}
}

func TestMoveWaitsNoLongerThanItsContext(t *testing.T) {
	for _, busy := range []string{"plaintext", "encrypted", "keyring", "locked file", "locker"} {
		for _, reverse := range []bool{false, true} {
			b := backendsToMove(t)
			from, to := b["memory"](), b[busy]()
			if reverse {
				from, to = to, from
			}
			require.NoError(t, from.Save(context.Background(), oneAccount("ann")))
			unlock, err := b[busy]().(persistence.Locker).Lock(context.Background())
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
			err = persistence.Move(ctx, from, to)
			cancel()
			require.ErrorIs(t, err, persistence.ErrLockTimeout, busy)
			require.NoError(t, unlock())
			require.Equal(t, string(oneAccount("ann")), string(loadOrNothing(t, from)))
		}
	}
}

func TestMoveOfNothing(t *testing.T) {
	var none *persistence.Memory
	require.Error(t, persistence.Move(context.Background(), nil, persistence.NewMemory()))
	require.Error(t, persistence.Move(context.Background(), persistence.NewMemory(), none))
}

func TestPersistenceOfACache(t *testing.T) {
	memory := persistence.NewMemory()
	c, err := persistence.New(memory)
	require.NoError(t, err)
	require.Same(t, memory, c.Backend())
	plain := bare{memory}
	c, err = persistence.New(plain, persistence.WithLockFile(filepath.Join(t.TempDir(), "lock")))
	require.NoError(t, err)
	require.Equal(t, plain, c.Backend())
}
