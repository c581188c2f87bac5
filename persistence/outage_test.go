package persistence_test

// What an outage of the store costs the users of a web app.

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/persistence"
)

func usersOf(n int) (all []entratest.User) {
	for i := range n {
		all = append(all, entratest.User{Username: fmt.Sprintf("user%d@contoso.example", i), Name: fmt.Sprint("User ", i),
			ID: fmt.Sprintf("d0000000-0000-4000-8000-%012d", i), Tenant: entratest.Contoso})
	}
	return all
}

// TestOutageLosesNoSignIn: while the store refuses writes, users refresh their
// tokens, and others sign in while nothing can be read either. After Flush another
// server finds the newest tokens of them all. The control leaves Flush out.
func TestOutageLosesNoSignIn(t *testing.T) {
	for name, flushes := range map[string]bool{"Flush": true, "no Flush, the control": false} {
		t.Run(name, func(t *testing.T) {
			users := usersOf(20)
			there, come := users[:15], users[15:]
			s := msalAuthority(t, entratest.Options{Users: users})
			s.SetLifetime(time.Minute, 0) // every silent sign-in refreshes
			var f failing
			r := &rows{around: f.around}
			p, other := r.server(t, silence), r.server(t, silence)
			for _, u := range there {
				webSignIn(t, s, msalConfidential(t, s, p), u)
			}
			f.saves.Store(true)
			for range 2 {
				for _, u := range there {
					_, err := webSilent(msalConfidential(t, s, p), u, userRead)
					require.NoError(t, err)
				}
			}
			f.all.Store(true)
			for _, u := range come {
				_, err := webTrySignIn(persistence.SigningIn(t.Context()), s, msalConfidential(t, s, p), u)
				require.NoError(t, err)
			}
			accounts, bytes := p.Unsaved()
			require.Equal(t, len(users), accounts)
			require.NotZero(t, bytes)
			left, err := p.Flush(t.Context())
			require.Equal(t, len(users), left)
			require.ErrorIs(t, err, errFull)

			f.all.Store(false)
			f.saves.Store(false)
			if flushes {
				left, err = p.Flush(t.Context())
				require.NoError(t, err)
				require.Zero(t, left)
			}
			mustSignInAgain := 0
			for _, u := range users {
				if _, err := webSilent(msalConfidential(t, s, other), u, userRead); err != nil {
					mustSignInAgain++
				}
			}
			if flushes {
				require.Zero(t, mustSignInAgain)
				require.Zero(t, s.Reuses())
			} else {
				require.Equal(t, len(users), mustSignInAgain)
			}
		})
	}
}

// TestSigningInControl: without the mark, the code is spent for nothing; with
// WithStrict the mark has no effect, and nothing passes for a sign-in where what is
// stored is damaged.
func TestSigningInControl(t *testing.T) {
	s := msalAuthority(t, entratest.Options{})
	var f failing
	r := &rows{around: f.around}
	marked := persistence.SigningIn(t.Context())
	f.all.Store(true)
	_, err := webTrySignIn(t.Context(), s, msalConfidential(t, s, r.server(t, silence)), entratest.Alice)
	require.ErrorIs(t, err, errFull)
	_, err = webTrySignIn(marked, s, msalConfidential(t, s, r.server(t, silence, persistence.WithStrict())), entratest.Alice)
	require.ErrorIs(t, err, errFull)

	f.all.Store(false)
	require.NoError(t, r.row(entratest.Alice.HomeAccountID()).Save(t.Context(), []byte(`{"Account":`)))
	_, err = webTrySignIn(marked, s, msalConfidential(t, s, r.server(t, silence)), entratest.Alice)
	require.ErrorIs(t, err, persistence.ErrCorrupt)
}

// TestSigningInIsMerged: what such a sign-in brings is merged with what turns out
// to be stored, and with what could not be stored before. So it is with a Cache.
func TestSigningInIsMerged(t *testing.T) {
	marked := persistence.SigningIn(ctx)
	var f failing
	hint := "alice"
	token := func(c *client, name string) {
		c.set("AccessToken", name, map[string]any{"home_account_id": hint, "secret": name})
	}
	for name, glue := range map[string]func(r *rows) cache.ExportReplace{
		"Partitioned": func(r *rows) cache.ExportReplace { return r.server(t, silence) },
		"Cache": func(r *rows) cache.ExportReplace {
			store, err := r.open(ctx, hint)
			require.NoError(t, err)
			return msalCache(t, store, silence)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := &rows{around: f.around}
			f.all.Store(false)
			f.saves.Store(false)
			first := new(client)
			first.signIn(hint, "rt 1", 1)
			token(first, "stored")
			data, err := first.Marshal()
			require.NoError(t, err)
			require.NoError(t, r.row(hint).Save(ctx, data))
			p := glue(r)
			c := new(client)
			if name == "Partitioned" {
				f.saves.Store(true)
				require.NoError(t, p.Replace(ctx, c, cache.ReplaceHints{PartitionKey: hint}))
				token(c, "could not be stored")
				require.NoError(t, p.Export(ctx, c, cache.ExportHints{PartitionKey: hint}))
			}
			f.all.Store(true)
			c = new(client)
			require.Error(t, p.Replace(ctx, c, cache.ReplaceHints{PartitionKey: hint}))
			require.NoError(t, p.Replace(marked, c, cache.ReplaceHints{PartitionKey: hint}))
			c.signIn(hint, "rt 2", 2)
			token(c, "signed in")
			require.NoError(t, p.Export(marked, c, cache.ExportHints{PartitionKey: hint}))
			f.all.Store(false)
			f.saves.Store(false)
			if parts, ok := p.(*persistence.Partitioned); ok {
				left, err := parts.Flush(ctx)
				require.NoError(t, err)
				require.Zero(t, left)
				require.Contains(t, r.stored(t)[hint], `"could not be stored"`)
			} else {
				require.NoError(t, p.Replace(ctx, c, cache.ReplaceHints{PartitionKey: hint}))
				require.NoError(t, p.Export(ctx, c, cache.ExportHints{PartitionKey: hint}))
			}
			require.Contains(t, r.stored(t)[hint], `"stored"`)
			require.Contains(t, r.stored(t)[hint], `"signed in"`)
			require.Contains(t, r.stored(t)[hint], "rt 2")
		})
	}
}

// TestFlushGivesUp: while nothing can be stored, not every account is tried.
func TestFlushGivesUp(t *testing.T) {
	var f failing
	var saves atomic.Int64
	r := &rows{around: func(ctx context.Context, op string, call func() error) error {
		if op == "SaveIf" {
			saves.Add(1)
		}
		return f.around(ctx, op, call)
	}}
	p := r.server(t, silence)
	f.saves.Store(true)
	const accounts = 500
	for i := range accounts {
		c, id := new(client), fmt.Sprint("user", i)
		require.NoError(t, p.Replace(ctx, c, cache.ReplaceHints{PartitionKey: id}))
		c.signIn(id, "rt", 1)
		require.NoError(t, p.Export(ctx, c, cache.ExportHints{PartitionKey: id}))
	}
	saves.Store(0)
	left, err := p.Flush(ctx)
	require.ErrorIs(t, err, errFull)
	require.Equal(t, accounts, left)
	require.Less(t, saves.Load(), int64(50))

	ended, cancel := context.WithCancel(ctx)
	cancel()
	left, err = p.Flush(ended)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, accounts, left)

	f.saves.Store(false)
	left, err = p.Flush(ctx)
	require.NoError(t, err)
	require.Zero(t, left)
	require.Len(t, r.stored(t), accounts)
}

// TestFlushDuringASignOut: a user signs out while tokens of a sign-in that was
// never stored are on their way to the store. The sign-out finds nothing to remove,
// and what comes after it must not stay.
func TestFlushDuringASignOut(t *testing.T) {
	var f failing
	var during atomic.Pointer[func()]
	r := &rows{}
	r.around = func(ctx context.Context, op string, call func() error) error {
		if op == "SaveIf" {
			if g := during.Swap(nil); g != nil {
				(*g)()
			}
		}
		return f.around(ctx, op, call)
	}
	for name, store := range map[string]func(p *persistence.Partitioned){
		"Flush": func(p *persistence.Partitioned) {
			left, err := p.Flush(ctx)
			require.NoError(t, err)
			require.Zero(t, left)
		},
		"Replace": func(p *persistence.Partitioned) {
			require.NoError(t, p.Replace(ctx, new(client), cache.ReplaceHints{PartitionKey: "alice"}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := r.server(t, silence)
			f.saves.Store(true)
			c := new(client)
			require.NoError(t, p.Replace(ctx, c, cache.ReplaceHints{PartitionKey: "alice"}))
			c.signIn("alice", "rt", 1)
			require.NoError(t, p.Export(ctx, c, cache.ExportHints{PartitionKey: "alice"}))
			f.saves.Store(false)
			signOut := func() {
				if err := p.SignOut(ctx, "alice"); err != nil {
					t.Error(err)
				}
			}
			during.Store(&signOut)
			store(p)
			require.Nil(t, during.Load(), "the sign-out was during the save")
			require.Empty(t, r.stored(t))
			require.Zero(t, unsaved(p))
		})
	}
}

// onRecord calls itself for each record.
type onRecord func()

func (f onRecord) Enabled(context.Context, slog.Level) bool  { return true }
func (f onRecord) Handle(context.Context, slog.Record) error { f(); return nil }
func (f onRecord) WithAttrs([]slog.Attr) slog.Handler        { return f }
func (f onRecord) WithGroup(string) slog.Handler             { return f }

// TestSignOutBeforeWhatFailedIsKept: a user signs out after the save of a sign-in has
// failed, and before it is kept for later. It is not kept.
func TestSignOutBeforeWhatFailedIsKept(t *testing.T) {
	for name, signsOut := range map[string]bool{"signed out": true, "not signed out, the control": false} {
		t.Run(name, func(t *testing.T) {
			var f failing
			r := &rows{around: f.around}
			logged := 0
			var p *persistence.Partitioned
			p = r.server(t, persistence.WithLogger(slog.New(onRecord(func() {
				f.saves.Store(false)
				if logged++; signsOut {
					if err := p.SignOut(ctx, "alice"); err != nil {
						t.Error(err)
					}
				}
			}))))
			c := new(client)
			require.NoError(t, p.Replace(ctx, c, cache.ReplaceHints{PartitionKey: "alice"}))
			c.signIn("alice", "rt", 1)
			f.saves.Store(true)
			require.NoError(t, p.Export(ctx, c, cache.ExportHints{PartitionKey: "alice"}))
			require.Equal(t, 1, logged)
			left, err := p.Flush(ctx)
			require.NoError(t, err)
			require.Zero(t, left)
			require.Equal(t, signsOut, len(r.stored(t)) == 0)
		})
	}
}

// TestUnsavedOfThreeRequests: what one request could not store, two others that run
// at once were given. What all three brought is stored in the end.
func TestUnsavedOfThreeRequests(t *testing.T) {
	var f failing
	r := &rows{around: f.around}
	p := r.server(t, silence)
	hint := "alice"
	c := []*client{new(client), new(client), new(client)}
	replace := func(c *client) { require.NoError(t, p.Replace(ctx, c, cache.ReplaceHints{PartitionKey: hint})) }
	export := func(i int) {
		c[i].set("AccessToken", fmt.Sprint("token", i), map[string]any{"home_account_id": hint, "secret": fmt.Sprint("at", i)})
		require.NoError(t, p.Export(ctx, c[i], cache.ExportHints{PartitionKey: hint}))
	}
	f.saves.Store(true)
	replace(c[0])
	export(0)
	replace(c[1])
	replace(c[2])
	export(1)
	export(2)
	f.saves.Store(false)
	left, err := p.Flush(ctx)
	require.NoError(t, err)
	require.Zero(t, left)
	for i := range c {
		require.Contains(t, r.stored(t)[hint], fmt.Sprint("at", i))
	}
}

// TestFlushWhileRequestsRun: nothing is lost or stored twice, and the race detector
// has nothing to say.
func TestFlushWhileRequestsRun(t *testing.T) {
	var f failing
	r := &rows{around: f.around}
	p := r.server(t, silence)
	const users, each = 8, 20
	var wg, flushing sync.WaitGroup
	done := make(chan struct{})
	flushing.Go(func() {
		for i := 0; ; i++ {
			f.saves.Store(i%2 == 0)
			p.Flush(ctx) //nolint:errcheck // it is to fail now and then
			select {
			case <-done:
				return
			default:
			}
		}
	})
	for i := range users {
		id := fmt.Sprint("user", i%(users/2))
		wg.Go(func() {
			for j := range each {
				c := new(client)
				if err := p.Replace(ctx, c, cache.ReplaceHints{PartitionKey: id}); err != nil {
					t.Error(err)
				}
				c.set("AccessToken", fmt.Sprintf("token %d %d", i, j), map[string]any{"home_account_id": id, "secret": "at"})
				if err := p.Export(ctx, c, cache.ExportHints{PartitionKey: id}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	close(done)
	flushing.Wait()
	f.saves.Store(false)
	left, err := p.Flush(ctx)
	require.NoError(t, err)
	require.Zero(t, left)
	for i := range users / 2 {
		c := new(client)
		require.NoError(t, p.Replace(ctx, c, cache.ReplaceHints{PartitionKey: fmt.Sprint("user", i)}))
		require.Equal(t, 2*each, c.keys("AccessToken"))
	}
}
