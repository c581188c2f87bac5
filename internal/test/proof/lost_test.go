package proof

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/entratest"
)

const (
	writers = 8
	each    = 25
)

func init() {
	programs["add"] = addProgram
	programs["add by MSAL"] = addByMSALProgram
	programs["check by MSAL"] = checkByMSALProgram
}

// addProgram adds entries to the cache, each by Replace, edit and Export, and
// acknowledges each when Export has returned: n of them, or without end if n is
// 0.
func addProgram(args []string) error {
	p, args := placeOf(args)
	kind, id := args[0], args[1]
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	ctx, cancel := patient()
	defer cancel()
	c, err := p.glue(ctx, kind, true)
	if err != nil {
		return err
	}
	m := &memory{}
	ready()
	for i := 0; n == 0 || i < n; i++ {
		if err := c.Replace(ctx, m, cache.ReplaceHints{}); err != nil {
			return err
		}
		key := fmt.Sprint(id, "-", i)
		m.add(key)
		if kind == hastyGlue {
			report(key)
		}
		if err := c.Export(ctx, m, cache.ExportHints{}); err != nil {
			return err
		}
		if kind != hastyGlue {
			report(key)
		}
	}
	return nil
}

// lost returns which of the keys are not stored.
func lost(t testing.TB, p place, keys []string) (lost []string) {
	data, err := p.load()
	require.NoError(t, err)
	m := &memory{}
	require.NoError(t, m.Unmarshal(data))
	for _, key := range keys {
		if !m.has(key) {
			lost = append(lost, key)
		}
	}
	return lost
}

// addAll runs the writers and returns the keys of their updates.
func addAll(t testing.TB, p place, glue string) (keys []string) {
	for _, added := range all(t, writers, "add", func(i int) []string { return p.args(glue, fmt.Sprint("w", i), each) }) {
		keys = append(keys, added...)
	}
	require.Len(t, keys, writers*each)
	return keys
}

// Eight processes add 25 entries each, with no pause between updates. All 200
// are there, every time.
func TestNoUpdateIsLost(t *testing.T) {
	for _, kind := range backends {
		t.Run(kind, func(t *testing.T) {
			repetitions := times(1, 10)
			if kind == keyringItem || kind == openedPlain {
				repetitions = times(1, 5)
			}
			for range repetitions {
				p := newPlace(t, kind)
				require.Empty(t, lost(t, p, addAll(t, p, tokenkeepGlue)))
				require.Empty(t, temporary(dirFiles(t, p.dir)))
			}
		})
	}
	t.Run("control", func(t *testing.T) {
		for range 20 {
			p := newPlace(t, encryptedFile)
			if n := len(lost(t, p, addAll(t, p, naiveGlue))); n > 0 {
				t.Logf("the naive glue loses %d of %d updates", n, writers*each)
				return
			}
		}
		t.Fatal("the naive glue never lost an update: this test proves nothing")
	})
}

// Eight processes add entries until each is killed, at some moment after some
// acknowledgement. Every update that was acknowledged is there.
func TestNoAcknowledgedUpdateIsLost(t *testing.T) {
	for _, kind := range backends {
		t.Run(kind, func(t *testing.T) {
			rnd := random(t)
			for range times(1, 4) {
				p := newPlace(t, kind)
				var acknowledged []string
				for round := range times(1, 4) {
					acknowledged = append(acknowledged, addAndKill(t, p, tokenkeepGlue, round, rnd)...)
				}
				require.Empty(t, lost(t, p, acknowledged))
				require.NoError(t, p.save([]byte("{}")))
				require.Empty(t, temporary(dirFiles(t, p.dir)))
			}
		})
	}
	t.Run("control", func(t *testing.T) {
		rnd := random(t)
		for range 50 {
			p := newPlace(t, plaintextFile)
			if len(lost(t, p, addAndKill(t, p, hastyGlue, 0, rnd))) > 0 {
				return
			}
		}
		t.Fatal("a program that acknowledges before it has stored was never caught: this test proves nothing")
	})
}

// addAndKill runs the writers until they are killed, and returns the keys that
// they have acknowledged.
func addAndKill(t *testing.T, p place, glue string, round int, rnd *rand.Rand) (acknowledged []string) {
	var running []*process
	for i := range writers {
		running = append(running, start(t, "add", p.args(glue, fmt.Sprint("w", i, ".", round), 0)...))
	}
	for _, w := range running {
		w.expect("ready")
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, w := range running {
		w.begin()
		n, after := 1+rnd.IntN(8), time.Duration(rnd.IntN(3000))*time.Microsecond
		wg.Go(func() {
			var keys []string
			for len(keys) < n {
				key, ok := w.line()
				if !ok {
					break // ended by itself, which afterKill reports
				}
				keys = append(keys, key)
			}
			time.AfterFunc(after, func() { w.cmd.Process.Kill() })
			keys = append(keys, w.afterKill()...)
			mu.Lock()
			acknowledged = append(acknowledged, keys...)
			mu.Unlock()
		})
	}
	wg.Wait()
	return acknowledged
}

// addByMSALProgram signs in users of its own with a real MSAL client, and gets
// a token for each user and scope.
func addByMSALProgram(args []string) error {
	p, args := placeOf(args)
	first, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	ctx, cancel := patient()
	defer cancel()
	c, err := p.glue(ctx, args[0], true)
	if err != nil {
		return err
	}
	a, err := newApp(c, args[1])
	if err != nil {
		return err
	}
	ready()
	for i := range usersEach {
		r, err := a.signIn(ctx, user(first+i))
		if err != nil {
			return err
		}
		for _, scope := range msalScopes[1:] {
			// With other glue the process may even lose what it has just got.
			if _, err := a.silent(ctx, r.Account, scope); err != nil && args[0] == tokenkeepGlue {
				return err
			}
		}
	}
	return nil
}

// usersEach is how many users each process signs in. MSAL's own work grows with
// the square of it.
var usersEach = times(1, 5)

// Eight processes with real MSAL clients sign in five users each (one in short
// mode) and refresh four times for each: 200 updates. A process that is started
// then finds the 40 users and, without a request, the 200 access tokens; and
// the authority takes every refresh token that it finds.
func TestNoUpdateOfMSALIsLost(t *testing.T) {
	for _, kind := range []string{encryptedFile, plaintextFile, opened} {
		t.Run(kind, func(t *testing.T) {
			for range times(1, 4) {
				s := newAuthority(t, writers*usersEach, entratest.Options{})
				p := newPlace(t, kind)
				require.Empty(t, addByMSAL(t, s, p, tokenkeepGlue))
				require.Zero(t, s.Reuses())
				require.NoError(t, s.Close())
			}
		})
	}
	t.Run("control", func(t *testing.T) {
		for range 20 {
			s := newAuthority(t, writers*usersEach, entratest.Options{AllowReuse: true})
			if bad := addByMSAL(t, s, newPlace(t, plaintextFile), naiveGlue); len(bad) > 0 {
				t.Logf("the naive glue loses %d of %d updates", len(bad), writers*usersEach*len(msalScopes))
				return
			}
			require.NoError(t, s.Close())
		}
		t.Fatal("the naive glue never lost an update: this test proves nothing")
	})
}

// addByMSAL runs the writers and returns what a process misses that is started
// then.
func addByMSAL(t *testing.T, s *entratest.Server, p place, glue string) (bad []string) {
	all(t, writers, "add by MSAL", func(i int) []string { return p.args(glue, s.Endpoint(), i*usersEach) })
	check := func(what string) []string {
		return all(t, 1, "check by MSAL", func(int) []string { return p.args(glue, s.Endpoint(), what) })[0]
	}
	before := s.Requests(entratest.GrantRefreshToken)
	bad = check("access tokens")
	if n := s.Requests(entratest.GrantRefreshToken) - before; n > 0 {
		bad = append(bad, fmt.Sprint(n, " access tokens are gone"))
	}
	return append(bad, check("refresh tokens")...)
}

// checkByMSALProgram asks for a token for each user and scope, or for a scope
// that nobody has asked for yet, and reports where it gets none.
func checkByMSALProgram(args []string) error {
	p, args := placeOf(args)
	ctx, cancel := patient()
	defer cancel()
	c, err := p.glue(ctx, args[0], true)
	if err != nil {
		return err
	}
	a, err := newApp(c, args[1])
	if err != nil {
		return err
	}
	scopes := msalScopes
	if args[2] == "refresh tokens" {
		scopes = []string{"Another.Scope"}
	}
	ready()
	accounts, err := a.accounts(ctx)
	if err != nil {
		return err
	}
	for i := range writers * usersEach {
		account, ok := accounts[user(i).HomeAccountID()]
		for _, scope := range scopes {
			if !ok {
				report("no account", i)
			} else if _, err := a.silent(ctx, account, scope); err != nil {
				report("no token", i, scope)
			}
		}
	}
	return nil
}
