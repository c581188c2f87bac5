package proof

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/persistence"
)

func init() { programs["mix"] = mixProgram }

// deed is what a goroutine of a process did to one user's sign-in. What ended
// at an earlier tick than another began at was over before it.
type deed struct {
	Do         string // "sign in", "refresh" or "sign out"
	User       int
	Start, End int64
	Exchange   exchange
}

// mix says what the processes of a test do.
type mix struct {
	Glue      string
	Endpoint  string
	Clock     string // URL that answers each request with the next tick
	Users     int
	Deeds     int // of each goroutine
	Seed      uint64
	Exclusive bool // refresh tokens are spent under Exclusive
}

const (
	mixProcesses  = 4
	mixGoroutines = 3
)

// mixProgram signs in, refreshes and signs out at random, with several
// goroutines on two MSAL clients that share a Cache, and reports its deeds.
func mixProgram(args []string) error {
	p, args := placeOf(args)
	var m mix
	if err := json.Unmarshal([]byte(args[0]), &m); err != nil {
		return err
	}
	ctx, cancel := patient()
	defer cancel()
	c, err := p.glue(ctx, m.Glue, true)
	if err != nil {
		return err
	}
	var apps []*app
	for range 2 {
		a, err := newApp(c, m.Endpoint)
		if err != nil {
			return err
		}
		apps = append(apps, a)
	}
	ready()
	deeds, errs := make([][]deed, mixGoroutines), make([]error, mixGoroutines)
	var wg sync.WaitGroup
	for i := range mixGoroutines {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(m.Seed, uint64(i)))
			for range m.Deeds {
				d, err := m.deed(ctx, rnd, apps[i%len(apps)], c)
				if err != nil {
					errs[i] = err
					return
				}
				deeds[i] = append(deeds[i], d)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(slices.Concat(deeds...))
}

func (m *mix) deed(ctx context.Context, rnd *rand.Rand, a *app, c cache.ExportReplace) (d deed, err error) {
	d.User = rnd.IntN(m.Users)
	who := user(d.User)
	scope := msalScopes[rnd.IntN(len(msalScopes))]
	ctx = context.WithValue(ctx, exchangeKey{}, &d.Exchange)
	during := func(what string, do func() error) error {
		d.Do = what
		if d.Start, err = tick(m.Clock); err != nil {
			return err
		}
		if err := do(); err != nil {
			return err
		}
		d.End, err = tick(m.Clock)
		return err
	}
	accounts, err := a.accounts(ctx)
	if err != nil {
		return d, err
	}
	account, signedIn := accounts[who.HomeAccountID()]
	switch n := rnd.IntN(6); {
	case !signedIn || n == 0:
		return d, during("sign in", func() error { _, err := a.signIn(ctx, who); return err })
	case n == 1:
		return d, during("sign out", func() error { return a.RemoveAccount(ctx, account) })
	}
	refresh := func(ctx context.Context) error {
		return during("refresh", func() error {
			_, err := a.silent(ctx, account, scope)
			if d.Exchange == (exchange{}) && err != nil && strings.Contains(err.Error(), "no token found") {
				return nil // signed out meanwhile
			}
			if d.Exchange.Refused != "" {
				return nil // it is for the test to judge
			}
			return err
		})
	}
	if cache, ok := c.(*persistence.Cache); ok && m.Exclusive {
		return d, cache.Exclusive(ctx, account.HomeAccountID, refresh)
	}
	return d, refresh(ctx)
}

func tick(url string) (int64, error) {
	r, err := http.Get(url)
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	var n int64
	_, err = fmt.Fscan(r.Body, &n)
	return n, err
}

// newClock returns the URL of a clock that counts the requests.
func newClock(t *testing.T) string {
	var n atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, n.Add(1))
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// run runs the processes and returns all their deeds.
func (m mix) run(t *testing.T, s *entratest.Server, p place) (deeds []deed) {
	m.Endpoint, m.Clock = s.Endpoint(), newClock(t)
	reports := all(t, mixProcesses, "mix", func(i int) []string {
		m.Seed = rand.Uint64()
		text, err := json.Marshal(m)
		require.NoError(t, err)
		return p.args(string(text))
	})
	for _, lines := range reports {
		require.Len(t, lines, 1)
		var of []deed
		require.NoError(t, json.Unmarshal([]byte(lines[0]), &of))
		deeds = append(deeds, of...)
	}
	return deeds
}

// entries are the stored entries of one user.
type entries struct {
	account bool
	refresh []string // the fingerprints of the refresh tokens
	others  int
}

func entriesOf(t *testing.T, p place, users int) []entries {
	t.Helper()
	data, err := p.load()
	require.NoError(t, err)
	var sections map[string]map[string]map[string]any
	if data != nil {
		require.NoError(t, json.Unmarshal(data, &sections))
	}
	of := make([]entries, users)
	for section, byKey := range sections {
		for _, e := range byKey {
			n := slices.IndexFunc(slices.Collect(usersUpTo(users)), func(u entratest.User) bool { return e["home_account_id"] == u.HomeAccountID() })
			if n < 0 {
				continue
			}
			switch section {
			case "Account":
				of[n].account = true
			case "RefreshToken":
				of[n].refresh = append(of[n].refresh, fingerprint(e["secret"].(string)))
			default:
				of[n].others++
			}
		}
	}
	return of
}

func usersUpTo(n int) func(func(entratest.User) bool) {
	return func(yield func(entratest.User) bool) {
		for i := range n {
			if !yield(user(i)) {
				return
			}
		}
	}
}

// unexplained returns what of the end state no serial order of the deeds
// explains. A refresh that no sign-in is there for changes nothing.
func unexplained(deeds []deed, end []entries) (bad []string) {
	later := func(than deed, do ...string) bool {
		return slices.ContainsFunc(deeds, func(d deed) bool {
			return d.User == than.User && d.Start > than.End && slices.Contains(do, d.Do) && (d.Do != "refresh" || d.Exchange.Token != fingerprint(""))
		})
	}
	for n, e := range end {
		var signedOut, signedIn, newest bool // whether that may be how it ended
		for _, d := range deeds {
			if d.User != n {
				continue
			}
			switch d.Do {
			case "sign out":
				signedOut = signedOut || !later(d, "sign in")
			case "sign in":
				signedIn = signedIn || !later(d, "sign out")
			}
			if slices.Contains(e.refresh, d.Exchange.Token) {
				newest = newest || !later(d, "sign in", "refresh", "sign out")
			}
		}
		never := !slices.ContainsFunc(deeds, func(d deed) bool { return d.User == n && d.Do == "sign in" })
		switch {
		case !e.account && (len(e.refresh) > 0 || e.others > 0):
			bad = append(bad, fmt.Sprintf("user %d: tokens are left of an account that is gone", n))
		case !e.account && !signedOut && !never:
			bad = append(bad, fmt.Sprintf("user %d: signed in after the last sign-out, and gone", n))
		case e.account && !signedIn:
			bad = append(bad, fmt.Sprintf("user %d: signed out after the last sign-in, and there", n))
		case e.account && len(e.refresh) != 1:
			bad = append(bad, fmt.Sprintf("user %d: %d refresh tokens", n, len(e.refresh)))
		case e.account && !newest:
			bad = append(bad, fmt.Sprintf("user %d: the refresh token is not the newest", n))
		}
	}
	return bad
}

// Several processes, each with goroutines on two MSAL clients that share a
// Cache, sign in, refresh and sign out at random. Whoever signed out after the
// last sign-in is gone, nobody else is, and the stored refresh tokens are the
// newest. Under Exclusive, with an authority that ends a sign-in when a refresh
// token is used twice, it never does; without, the authority allows it.
func TestSignOutsAndRefreshes(t *testing.T) {
	const users = 4
	for _, exclusive := range []bool{true, false} {
		t.Run(map[bool]string{true: "exclusive", false: "reuse allowed"}[exclusive], func(t *testing.T) {
			for i := range times(1, 6) {
				kind := []string{opened, encryptedFile, plaintextFile}[i%3]
				s := newAuthority(t, users, entratest.Options{AllowReuse: !exclusive})
				s.SetLifetime(time.Minute, 0) // so short that every silent sign-in refreshes
				p := newPlace(t, kind)
				deeds := mix{Glue: tokenkeepGlue, Users: users, Deeds: times(8, 20), Exclusive: exclusive}.run(t, s, p)
				end := entriesOf(t, p, users)
				require.Empty(t, unexplained(deeds, end))
				require.NotZero(t, s.Requests(entratest.GrantRefreshToken))
				for _, d := range deeds {
					require.Empty(t, d.Exchange.Refused)
				}
				if exclusive {
					require.Zero(t, s.Reuses())
				}
				requireAccepted(t, s, p, end)
			}
		})
	}
	// The controls want other glue, so they show that the test would notice.
	for _, kind := range []string{unionGlue, naiveGlue} {
		t.Run("control, "+kind, func(t *testing.T) {
			for range 30 {
				s := newAuthority(t, users, entratest.Options{AllowReuse: true})
				s.SetLifetime(time.Minute, 0)
				p := newPlace(t, plaintextFile)
				deeds := mix{Glue: kind, Users: users, Deeds: 8}.run(t, s, p)
				if bad := unexplained(deeds, entriesOf(t, p, users)); len(bad) > 0 {
					t.Logf("of %d deeds: %s", len(deeds), strings.Join(bad, "; "))
					return
				}
			}
			t.Fatal("never caught: this test proves nothing")
		})
	}
}

// requireAccepted has a client that is started now use every refresh token.
func requireAccepted(t *testing.T, s *entratest.Server, p place, end []entries) {
	t.Helper()
	reuses := s.Reuses()
	c, err := p.cache(t.Context(), true)
	require.NoError(t, err)
	a, err := newApp(c, s.Endpoint())
	require.NoError(t, err)
	accounts, err := a.accounts(t.Context())
	require.NoError(t, err)
	for n, e := range end {
		account, there := accounts[user(n).HomeAccountID()]
		require.Equal(t, e.account, there)
		if there {
			_, err := a.silent(t.Context(), account, "Another.Scope")
			require.NoError(t, err, "user "+strconv.Itoa(n))
		}
	}
	require.Equal(t, reuses, s.Reuses())
}

// A process signs a user out while another one's refresh for that user is with
// the authority. The refresh gives its caller a token and brings nothing back.
func TestSignOutDuringARefreshOfAnotherProcess(t *testing.T) {
	for _, c := range []struct{ kind, glue string }{
		{encryptedFile, tokenkeepGlue}, {plaintextFile, tokenkeepGlue}, {opened, tokenkeepGlue}, {plaintextFile, unionGlue},
	} {
		t.Run(c.kind+", "+c.glue, func(t *testing.T) {
			s := newAuthority(t, 2, entratest.Options{})
			p := newPlace(t, c.kind)
			refresher, remover := startSession(t, p, c.glue, s), startSession(t, p, c.glue, s)
			refresher.must(command{Do: "sign in", User: 0})
			remover.must(command{Do: "sign in", User: 1})
			h := s.Hold(entratest.GrantRefreshToken)
			refresher.tell(command{Do: "silent", User: 0, Scope: "Mail.Read"})
			<-h.Arrived()
			remover.must(command{Do: "sign out", User: 0})
			h.Release()
			require.Empty(t, refresher.answer().Err)

			end := entriesOf(t, p, 2)
			require.True(t, end[1].account)
			if c.glue == unionGlue {
				require.True(t, end[0].account, "the control was not caught: this test proves nothing")
				return
			}
			require.Equal(t, entries{}, end[0])
			require.Equal(t, []int{1}, refresher.must(command{Do: "accounts"}).Accounts)
			refresher.must(command{Do: "sign in", User: 0}) // but a new sign-in counts
			end = entriesOf(t, p, 2)
			require.True(t, end[0].account)
			requireAccepted(t, s, p, end)
		})
	}
}
