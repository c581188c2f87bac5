package replica

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/tokencache"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// session is a client's memory, its Replica and the store, which never fails here.
type session struct {
	t      *testing.T
	r      *Replica
	store  map[string]string // the refresh tokens that are stored, by account
	memory map[string]string // those in the memory
	rev    int
	now    time.Time
	ctxs   map[string]context.Context
}

func newSession(t *testing.T) *session {
	return &session{t: t, r: New(new(SignOuts), ""), store: map[string]string{}, memory: map[string]string{}, now: start, ctxs: map[string]context.Context{}}
}

// call is the Call of a name; "" is one without identity.
func (s *session) call(name string) Call {
	if name == "" {
		return CallOf(context.Background())
	}
	if s.ctxs[name] == nil {
		ctx, cancel := context.WithCancel(context.Background())
		s.t.Cleanup(cancel)
		s.ctxs[name] = ctx
	}
	return CallOf(s.ctxs[name])
}

func serialize(tokens map[string]string) []byte {
	var accounts, rts []string
	for a, rt := range tokens {
		accounts = append(accounts, fmt.Sprintf(`"%s":{"home_account_id":"%s","environment":"login.microsoftonline.com"}`, a, a))
		rts = append(rts, fmt.Sprintf(`"%s-rt":{"home_account_id":"%s","environment":"login.microsoftonline.com","client_id":"c","secret":"%s"}`, a, a, rt))
	}
	slices.Sort(accounts)
	slices.Sort(rts)
	return []byte(`{"Account":{` + strings.Join(accounts, ",") + `},"RefreshToken":{` + strings.Join(rts, ",") + `}}`)
}

func parse(t *testing.T, data []byte) map[string]string {
	tokens := map[string]string{}
	d, err := tokencache.Parse(data)
	require.NoError(t, err)
	for _, a := range d.Accounts() {
		_, rest, _ := strings.Cut(string(data), `"`+a.HomeAccountID+`-rt":`)
		_, rest, _ = strings.Cut(rest, `"secret":"`)
		tokens[a.HomeAccountID], _, _ = strings.Cut(rest, `"`)
	}
	return tokens
}

// R is a Replace of a call.
func (s *session) R(call, hint string) {
	s.r.Read(s.call(call), hint)
	if rev, ok := s.r.AtRevision(); ok && rev == fmt.Sprint(s.rev) {
		s.r.Unchanged()
		return
	}
	stored := serialize(s.store)
	give, err := s.r.Give(stored, s.now)
	require.NoError(s.t, err)
	s.memory = parse(s.t, give)
	s.r.Loaded(stored, fmt.Sprint(s.rev), give, s.now)
}

// E is an Export of a call.
func (s *session) E(call, hint string) {
	plan := s.r.Export(s.call(call), hint, serialize(s.memory), s.now)
	m, err := plan.Merge(serialize(s.store))
	require.NoError(s.t, err)
	s.store = parse(s.t, m.Merged)
	s.rev++
	s.r.Stored(plan, "", nil)
}

// answer is the second half of a refresh, or a confidential client's sign-in.
func (s *session) answer(call, account, token string) {
	s.R(call, account)
	s.memory[account] = token
	s.E(call, account)
}

// signIn is a public client's.
func (s *session) signIn(account, token string) {
	s.R("", "")
	s.memory[account] = token
	s.E("", "")
}

// elsewhere changes the store as another process does.
func (s *session) elsewhere(account, token string) {
	if s.rev++; token == "" {
		delete(s.store, account)
	} else {
		s.store[account] = token
	}
}

// out is a sign-out by this process.
func (s *session) out(account string) {
	s.r.SignedOut(Removed{Accounts: []tokencache.Account{{HomeAccountID: account}}}, s.now)
	s.elsewhere(account, "")
}

func (s *session) list() { s.R("", ""); s.R("nobody", "nobody") } // Accounts, and another call

// The rows of the package comment's table: what an Export does to an account in
// each state.
func TestStates(t *testing.T) {
	for _, test := range []struct {
		name  string
		steps func(s *session)
		want  string // the token that is stored; "" for none
	}{
		{"unknown, confidential: a sign-in", func(s *session) { s.answer("1", "ann", "new") }, "new"},
		{"unknown, public: a refresh creates no account", func(s *session) { s.list(); s.answer("1", "ann", "old") }, ""},
		{"unknown, public: a sign-in", func(s *session) { s.list(); s.signIn("ann", "new") }, "new"},
		{"held: a refresh", func(s *session) { s.elsewhere("ann", "rt"); s.R("1", "ann"); s.answer("1", "ann", "new") }, "new"},
		{"lost, public: any refresh", func(s *session) {
			s.elsewhere("ann", "rt")
			s.list()
			s.elsewhere("ann", "")
			s.list()
			s.answer("1", "ann", "old")
		}, ""},
		{"lost, public, an hour later", func(s *session) {
			s.elsewhere("ann", "rt")
			s.list()
			s.R("1", "ann")
			s.elsewhere("ann", "")
			s.list()
			s.now = s.now.Add(time.Hour)
			s.answer("1", "ann", "old")
		}, ""},
		{"lost, not public: a call that read before", func(s *session) {
			s.elsewhere("ann", "rt")
			s.R("1", "ann")
			s.elsewhere("ann", "")
			s.R("2", "ann")
			s.answer("1", "ann", "old")
		}, ""},
		{"lost, not public: a call that read only after", func(s *session) {
			s.elsewhere("ann", "rt")
			s.R("1", "ann")
			s.elsewhere("ann", "")
			s.R("2", "ann")
			s.answer("2", "ann", "new")
		}, "new"},
		{"lost, not public: a call of its own", func(s *session) {
			s.elsewhere("ann", "rt")
			s.R("1", "ann")
			s.elsewhere("ann", "")
			s.R("2", "ann")
			s.answer("3", "ann", "new")
		}, "new"},
		{"lost, not public, one context for all, soon", func(s *session) {
			s.elsewhere("ann", "rt")
			s.R("", "ann")
			s.elsewhere("ann", "")
			s.R("", "ann")
			s.now = s.now.Add(Undecided)
			s.answer("", "ann", "undecided")
		}, ""},
		{"lost, not public, one context for all, later", func(s *session) {
			s.elsewhere("ann", "rt")
			s.R("", "ann")
			s.elsewhere("ann", "")
			s.R("", "ann")
			s.now = s.now.Add(Undecided + 1)
			s.answer("", "ann", "undecided")
		}, "undecided"},
		{"held again: a call that read before the loss", func(s *session) {
			s.elsewhere("ann", "rt")
			s.list()
			s.R("1", "ann")
			s.elsewhere("ann", "")
			s.list()
			s.signIn("ann", "new")
			s.answer("1", "ann", "old")
		}, "new"},
		{"held again: a call that read after it", func(s *session) {
			s.elsewhere("ann", "rt")
			s.list()
			s.elsewhere("ann", "")
			s.list()
			s.signIn("ann", "new")
			s.R("1", "ann")
			s.answer("1", "ann", "newer")
		}, "newer"},
		{"held again, confidential, by a sign-in elsewhere", func(s *session) {
			s.elsewhere("ann", "rt")
			s.R("1", "ann")
			s.elsewhere("ann", "")
			s.R("2", "ann")
			s.elsewhere("ann", "new")
			s.R("3", "ann")
			s.answer("1", "ann", "old")
		}, "new"},
		{"signed out by this process, and in again elsewhere", func(s *session) {
			s.elsewhere("ann", "rt")
			s.R("1", "ann")
			s.out("ann")
			s.elsewhere("ann", "new")
			s.answer("1", "ann", "old")
		}, "new"},
		{"signed out by this process, and in again elsewhere: a call that read after it", func(s *session) {
			s.elsewhere("ann", "rt")
			s.R("1", "ann")
			s.out("ann")
			s.elsewhere("ann", "new")
			s.R("2", "ann")
			s.answer("2", "ann", "newer")
		}, "newer"},
		{"unknown, signed out by this process", func(s *session) {
			s.out("ann")
			s.answer("1", "ann", "new")
		}, "new"},
		{"left: what another call reads of it in memory", func(s *session) {
			s.elsewhere("ann", "rt")
			s.R("1", "ann")
			s.elsewhere("ann", "")
			s.R("2", "ann") // finds nothing, and is about to look into the memory
			s.answer("1", "ann", "old")
			s.answer("2", "ann", "older")
		}, ""},
		{"a refused answer uses nothing up", func(s *session) {
			s.elsewhere("ann", "rt")
			for i := range 10 {
				s.R(fmt.Sprint(i), "ann")
			}
			s.elsewhere("ann", "")
			for i := range 10 {
				s.answer(fmt.Sprint(i), "ann", "old")
			}
		}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSession(t)
			s.elsewhere("bob", "rt")
			test.steps(s)
			require.Equal(t, test.want, s.store["ann"])
			require.Equal(t, "rt", s.store["bob"], "nobody else loses anything")
			s.list()
			require.Equal(t, s.store, s.memory, "the next Replace gives the memory what is stored")
		})
	}
}

// RemoveAccount has the hints of a sign-in, and makes nobody public.
func TestRemoveAccountTellsNoKind(t *testing.T) {
	s := newSession(t)
	s.elsewhere("ann", "rt")
	s.elsewhere("bob", "rt")
	s.R("1", "ann")
	s.R("", "")
	delete(s.memory, "bob")
	s.E("", "")
	require.False(t, s.r.signOuts.public)
	require.NotContains(t, s.store, "bob")

	s.R("", "") // a RemoveAccount whose Replace failed has no Export either
	s.r.Failed()
	s.R("1", "ann")
	require.False(t, s.r.signOuts.public)
}

func TestContextsAreNotKeptAlive(t *testing.T) {
	s := new(SignOuts)
	s.state(tokencache.Account{HomeAccountID: "ann"})
	for range 3 * maxReads {
		ctx, cancel := context.WithCancel(context.Background())
		s.read(CallOf(ctx), "ann")
		cancel()
		if len(s.reads) == maxReads {
			runtime.GC()
		}
	}
	require.LessOrEqual(t, len(s.reads), maxReads)
	require.Zero(t, s.crowd, "there was no need to mix up calls")
}

// More calls than are told apart err towards the sign-out.
func TestTooManyCalls(t *testing.T) {
	s := newSession(t)
	s.elsewhere("ann", "rt")
	for i := range 2 * maxReads {
		s.R(fmt.Sprint(i), "ann")
	}
	require.LessOrEqual(t, len(s.r.signOuts.reads), maxReads)
	s.elsewhere("ann", "")
	for i := range 2 * maxReads {
		s.answer(fmt.Sprint(i), "ann", "old")
		require.Empty(t, s.store, "call %d", i)
	}
	s.answer("new", "ann", "undecided")
	require.Empty(t, s.store)
	s.now = s.now.Add(Undecided + 1)
	s.answer("newer", "ann", "new")
	require.Equal(t, "new", s.store["ann"])
}

func TestAccountsAreBounded(t *testing.T) {
	s, now := new(SignOuts), start
	for i := range 10 * maxAccounts { // one shared client, and a partition for each user
		user := fmt.Sprint(i)
		s.read(Call{}, user)
		s.given([]tokencache.Account{{HomeAccountID: user}}, scope(user), now)
		now = now.Add(time.Second)
	}
	require.LessOrEqual(t, s.count, 2*maxAccounts)
	require.LessOrEqual(t, len(s.accounts), 2*maxAccounts)

	one := New(new(SignOuts), "")
	all := map[string]string{}
	for i := range 2 * maxAccounts {
		all[fmt.Sprint(i)] = "rt"
	}
	one.Loaded(serialize(all), "1", serialize(all), now)
	one.Read(Call{}, "7")
	one.Loaded(nil, "2", nil, now) // all were signed out
	one.Read(Call{}, "7")
	st := one.signOuts.find(tokencache.Account{HomeAccountID: "7", Environment: "login.microsoftonline.com"}.Identity())
	require.NotNil(t, st, "what was held just now is not forgotten")
}

// A save that fails leaves nothing pending if it had nothing of the user's.
func TestNothingOfTheUsersIsPending(t *testing.T) {
	const token = `"AccessToken":{"a":{"home_account_id":"ann","environment":"login","secret":"s"}},`
	for ours, pending := range map[string]bool{
		`{"AppMetadata":{"m":{"client_id":"c"}}}`:              false,
		`{` + token + `"AppMetadata":{"m":{"client_id":"c"}}}`: true,
	} {
		r := New(new(SignOuts), "ann")
		r.Read(Call{}, "ann")
		r.Loaded(nil, "", nil, time.Now())
		r.Unsaved(r.Export(Call{}, "ann", []byte(ours), time.Now()))
		require.Equal(t, pending, r.Pending() != nil, ours)
	}
}

// Two requests of one user, again and again while nothing can be stored: what is
// kept of each goes on to both of the next two. It names the user's account once.
func TestWhatWaitsDoesNotGrow(t *testing.T) {
	const user = "ann"
	request := func(o *Outstanding, token string) *Outstanding {
		r := New(new(SignOuts), user)
		r.Adopt(o, start)
		r.Blank()
		r.Unsaved(r.Export(Call{}, user, serialize(map[string]string{user: token}), start))
		return r.Outstanding(start)
	}
	waiting := request(nil, "0")
	size := waiting.Size()
	for i := range 10 {
		one, two := request(waiting, fmt.Sprint(i)), request(waiting, fmt.Sprint(i))
		waiting = two.With(one)
	}
	require.LessOrEqual(t, waiting.Size(), 2*size)
	require.Equal(t, 1, len(waiting.back))
}

// Where nothing can be read, a memory loses the accounts that this process has signed
// out. It keeps the others, and those that have signed in since.
func TestSignedOutWithoutReading(t *testing.T) {
	for _, all := range []bool{false, true} {
		s := newSession(t)
		s.elsewhere("ann", "rt")
		s.elsewhere("bob", "rt")
		s.list()
		x := Removed{All: all, Accounts: []tokencache.Account{{HomeAccountID: "ann"}}}
		s.r.SignedOut(x, s.now)
		give, again := s.r.Unread(s.now)
		require.True(t, again)
		want := map[string]string{"bob": "rt"}
		if all {
			want = map[string]string{}
		}
		require.Equal(t, want, parse(t, give))
		_, again = s.r.Unread(s.now)
		require.False(t, again, "nothing is new")

		s.r.Read(s.call(""), "")
		s.memory = parse(t, give)
		s.memory["ann"] = "new"
		s.r.Unsaved(s.r.Export(s.call(""), "", serialize(s.memory), s.now))
		s.r.SignedOut(Removed{Accounts: []tokencache.Account{{HomeAccountID: "bob"}}}, s.now)
		give, _ = s.r.Unread(s.now)
		require.Equal(t, map[string]string{"ann": "new"}, parse(t, give))
	}
}

// A sign-out of an account that the memory does not know does not make it load again.
func TestSignedOutOfStrangers(t *testing.T) {
	s := newSession(t)
	s.elsewhere("bob", "rt")
	s.list()
	s.r.SignedOut(Removed{Accounts: []tokencache.Account{{HomeAccountID: "ann"}}}, s.now)
	_, ok := s.r.AtRevision()
	require.True(t, ok)
	s.r.SignedOut(Removed{Accounts: []tokencache.Account{{HomeAccountID: "bob"}}}, s.now)
	_, ok = s.r.AtRevision()
	require.False(t, ok)
}

// What another memory has found signed out counts as seen by one that is given what that
// memory could not store. That it has not found what was never stored tells of nothing.
func TestAdoptedKnowledge(t *testing.T) {
	for _, test := range []struct {
		name  string
		steps func(s *session)
		want  string
	}{
		{"found signed out", func(s *session) { s.elsewhere("ann", "rt"); s.R("1", "ann"); s.elsewhere("ann", "") }, "new"},
		{"never stored", func(s *session) {
			s.R("1", "ann")
			s.R("2", "ann")
			s.memory["ann"] = "first"
			s.r.Unsaved(s.r.Export(s.call("2"), "ann", serialize(s.memory), s.now))
		}, "newer"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, other := newSession(t), newSession(t)
			test.steps(s)
			other.store, other.rev = s.store, s.rev
			other.R("", "ann")
			other.memory["ann"] = "new"
			other.r.Unsaved(other.r.Export(other.call(""), "ann", serialize(other.memory), other.now))
			s.r.Adopt(other.r.Outstanding(s.now), s.now)
			s.answer("1", "ann", "newer")
			require.Equal(t, test.want, s.store["ann"])
		})
	}
}
