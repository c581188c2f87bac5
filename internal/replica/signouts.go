package replica

import (
	"context"
	"iter"
	"math"
	"slices"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/tokencache"
	"github.com/tokenkeep/tokenkeep/internal/weakmap"
)

// Undecided is how long after a sign-out an Export that may be a refresh's or a
// sign-in's is taken for a refresh's. It is longer than any token request takes.
const Undecided = 5 * time.Minute

// A Call is the identity of an API call of MSAL: its context's. The zero Call
// stands for all calls whose contexts have no identity.
type Call struct{ key weakmap.Key }

// CallOf returns the Call that ctx is of.
func CallOf(ctx context.Context) Call { return Call{weakmap.KeyOf(ctx)} }

// SignOuts is what is known of the sign-outs that one MSAL memory has seen. The
// zero SignOuts is that of a memory that was never used.
type SignOuts struct {
	tick   uint64 // counts Replaces and Exports
	public bool
	last   read // the call before, if it was a Replace of which it is not known yet whether it was an Export's own

	accounts map[string][]*account // by the folded home account id; an id is rarely in two clouds
	count    int                   // of accounts
	reads    map[reader]span
	crowd    span // of the readers that were too many to be told apart
}

// A read is a Replace, or the zero read for none.
type read struct {
	reader
	tick uint64
}

// A reader is a call that asked for an account.
type reader struct {
	call Call
	hint string
}

// A span is the ticks of a call's first and last Replace, or the zero span.
type span struct{ first, last uint64 }

func (s span) with(other span) span {
	if s.first == 0 || other.first == 0 {
		return span{max(s.first, other.first), max(s.last, other.last)}
	}
	return span{min(s.first, other.first), max(s.last, other.last)}
}

// account is the state of one account; see the package comment.
type account struct {
	tokencache.Account // its identity

	held, left bool
	was        bool      // held, when it was left
	lost       uint64    // the tick at which it was last found lost; 0 for never
	at         time.Time // when it was last found to have gone from the store
	touched    uint64
}

// What is remembered of one memory. Past that, the oldest is forgotten.
const (
	maxReads    = 4096
	maxAccounts = 4096
)

// read notes a Replace.
func (s *SignOuts) read(call Call, hint string) {
	s.settleLast()
	s.tick++
	s.last = read{reader{call, hint}, s.tick}
}

// unread takes back the last Replace, which failed: no Export follows it.
func (s *SignOuts) unread() { s.last = read{} }

// settleLast counts the last Replace as one that was no Export's own.
func (s *SignOuts) settleLast() {
	last := s.last
	s.last = read{}
	switch {
	case last.tick == 0:
	case last.hint == "":
		s.public = true
	default:
		if s.reads == nil {
			s.reads = map[reader]span{}
		}
		s.reads[last.reader] = s.reads[last.reader].with(span{last.tick, last.tick})
		if len(s.reads) > maxReads {
			s.forgetReads()
		}
	}
}

// forgetReads makes room. Calls that have ended go first. If there are still too
// many, the older half is told apart no more: who is not known to have read is
// then taken for one of them, and errs towards the sign-out.
func (s *SignOuts) forgetReads() {
	oldest, newest := uint64(math.MaxUint64), uint64(0)
	for r, sp := range s.reads {
		if r.call != (Call{}) && !r.call.key.Alive() {
			delete(s.reads, r)
			continue
		}
		oldest, newest = min(oldest, sp.last), max(newest, sp.last)
	}
	for len(s.reads) > maxReads/2 {
		oldest += (newest-oldest)/2 + 1
		for r, sp := range s.reads {
			if sp.last < oldest {
				s.crowd = s.crowd.with(sp)
				delete(s.reads, r)
			}
		}
	}
}

// readsOf returns when the call read before, or the zero span for never.
func (s *SignOuts) readsOf(call Call, hint string) span {
	if sp, ok := s.reads[reader{call, hint}]; ok {
		return sp
	}
	return s.crowd
}

// export notes an Export.
func (s *SignOuts) export(call Call, hint string) {
	if s.last.tick != 0 && s.last.reader != (reader{call, hint}) {
		s.settleLast()
	}
	s.last = read{}
	s.tick++
}

// given notes that the memory was given the accounts in present, and no others
// that in covers.
func (s *SignOuts) given(present []tokencache.Account, covers scope, now time.Time) {
	there := set(present)
	for st := range s.in(covers) {
		switch {
		case st.left:
			// Other calls may have seen the account in the memory until now. The time
			// stays: else each try to sign in that is refused would put off the next. But
			// an account that was held then may have gone from the store since.
			st.lost, st.left = s.tick, false
			if st.was && !there[st.Account] {
				st.at = now
			}
		case st.held && !there[st.Account]:
			st.lost, st.at, st.held = s.tick, now, false
		}
	}
	for a := range there {
		s.state(a).held = true
	}
	s.forgetAccounts(covers, now)
}

// stored notes that an Export with the accounts in present, and no others that in
// covers, was carried out.
func (s *SignOuts) stored(present []tokencache.Account, covers scope, now time.Time) {
	there := set(present)
	for st := range s.in(covers) {
		if st.held && !there[st.Account] {
			st.lost, st.at, st.held = s.tick, now, false
		}
	}
}

// signedOut notes that this process has signed an account out, in its cloud or
// in all clouds: what is under way of it is of an earlier session. It reports whether
// the memory knows the account. The next Replace finds out whether it still holds it.
func (s *SignOuts) signedOut(a tokencache.Account, now time.Time) (known bool) {
	for st := range s.in(scope(a.HomeAccountID)) {
		if a.Environment == "" || st.Account == a {
			st.lost, st.at, known = s.tick, now, true
		}
	}
	return known
}

// hold notes that the memory holds an account.
func (s *SignOuts) hold(a tokencache.Account) { s.state(a).held = true }

// holds reports whether the memory holds an account.
func (s *SignOuts) holds(a tokencache.Account) bool {
	st := s.find(a)
	return st != nil && st.held
}

// leave notes that an account's entries were kept out of the store, and are
// still in MSAL's memory.
func (s *SignOuts) leave(a tokencache.Account) {
	st := s.state(a)
	st.held, st.left, st.was = false, true, st.held
}

// expects reports what there is to know, before an Export with that hint is looked
// at, of the accounts that the hint is of: whether it may bring what is not to be
// stored and, if not, whether it may bring an account that is unknown. Most
// Exports do neither, and then nobody needs to know what they bring.
func (s *SignOuts) expects(hint string) (suspect, unknown bool) {
	known := false
	for st := range s.in(scope(hint)) {
		if known = true; !st.held || st.lost != 0 {
			return true, false
		}
	}
	return !known && s.public, !known
}

// decide says what an Export is that brings entries of a: whether they are to be
// withheld and, if not, whether it is known to be a sign-in. created says that
// the memory had neither the account nor a refresh token that could bring it.
func (s *SignOuts) decide(call Call, hint string, a tokencache.Account, created bool, now time.Time) (withhold, signIn bool) {
	if hint == "" {
		return false, true
	}
	reads := s.readsOf(call, hint)
	signIn = !s.public && reads.first == 0
	st := s.find(a)
	switch {
	case st == nil || !st.held && st.lost == 0:
		return s.public && created, signIn
	case st.held && st.lost == 0:
		return false, signIn
	case st.held:
		old := reads.first != 0 && reads.last < st.lost
		return old && (s.public || st.undecided(now)), signIn
	default:
		old := reads.first != 0 && reads.first < st.lost
		return s.public || old && st.undecided(now), signIn
	}
}

// undecided reports whether the loss is so recent that a refresh which was asked
// for before it may still be under way.
func (a *account) undecided(now time.Time) bool { return now.Sub(a.at) <= Undecided }

// find returns the state of an account, or nil.
func (s *SignOuts) find(a tokencache.Account) *account {
	for _, st := range s.accounts[a.HomeAccountID] {
		if st.Account == a {
			return st
		}
	}
	return nil
}

// state returns the state of an account, which is made if need be.
func (s *SignOuts) state(a tokencache.Account) *account {
	st := s.find(a)
	if st == nil {
		if s.accounts == nil {
			s.accounts = map[string][]*account{}
		}
		st = &account{Account: a}
		s.accounts[a.HomeAccountID] = append(s.accounts[a.HomeAccountID], st)
		s.count++
	}
	st.touched = s.tick
	return st
}

// in returns the accounts that covers covers.
func (s *SignOuts) in(covers scope) iter.Seq[*account] {
	return func(yield func(*account) bool) {
		if covers != "" {
			for _, st := range s.accounts[covers.id()] {
				if !yield(st) {
					return
				}
			}
			return
		}
		for _, all := range s.accounts {
			for _, st := range all {
				if !yield(st) {
					return
				}
			}
		}
	}
}

// forgetAccounts makes room. What the memory holds now is never forgotten; covers
// says which accounts those can be of.
func (s *SignOuts) forgetAccounts(covers scope, now time.Time) {
	if s.count <= maxAccounts {
		return
	}
	s.count = 0
	for id, all := range s.accounts {
		all = slices.DeleteFunc(all, func(st *account) bool {
			gone := !st.held && !st.left && !st.undecided(now)
			elsewhere := !covers.has(st.Account) && st.touched+maxAccounts/2 < s.tick
			return gone || elsewhere
		})
		s.accounts[id] = all
		if s.count += len(all); len(all) == 0 {
			delete(s.accounts, id)
		}
	}
}

// A scope is the home account id of the only user whose entries a stored cache
// holds, or "" for a cache of all users.
type scope string

func (s scope) has(a tokencache.Account) bool { return s == "" || hinted(a, string(s)) }

func (s scope) id() string {
	return tokencache.Account{HomeAccountID: string(s)}.Identity().HomeAccountID
}

func hinted(a tokencache.Account, hint string) bool {
	return tokencache.SameID(a.HomeAccountID, hint)
}

func set(accounts []tokencache.Account) map[tokencache.Account]bool {
	m := make(map[tokencache.Account]bool, len(accounts))
	for _, a := range accounts {
		m[a.Identity()] = true
	}
	return m
}
