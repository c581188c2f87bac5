// Package merge merges token caches that several processes have changed, and
// loses none of the changes. The format is that of package tokencache.
//
// # The three versions
//
// A process is given a cache, its MSAL changes it in memory, and the process
// writes all of it back. By then another process may have written. So three
// versions meet: base, which the process was given; ours, which it would write;
// and theirs, which is stored. What differs between base and ours is what we
// changed, what differs between base and theirs is what the others changed, and
// the merge has both changes.
//
// # Accounts
//
// An account is a home account ID in a cloud. A cloud has several names, and an
// entry names one of them in its field environment; all names of one cloud are
// one here. Names compare without regard to the case of ASCII letters.
//
// # The rules
//
//  0. Entries are compared by their meaning. MSAL Go writes keys in random
//     order, leaves empty fields out and turns numbers into strings; none of this
//     is a change. A field that is absent, null or "" is the same; so are a number
//     and the string of its digits, and an empty section and none. In the sections
//     that MSAL libraries share, the case of keys does not count, because MSAL Go
//     1.0 wrote them in mixed case and later versions rename them. In other
//     sections, keys are exact.
//  1. What we did not change is as they have it.
//  2. What we changed and they did not is as we have it.
//  3. What both changed is as the newer has it: by cached_at, then expires_on,
//     then last_modification_time. The entries of one token response belong
//     together, but a refresh token says no time: it comes from the side whose
//     changed access tokens of that account and client are the newest, and so
//     do ID tokens and accounts. A time that is missing decides nothing. An
//     entry from the future, by the clock of the merge, loses against one that
//     is not. If nothing decides, it is ours.
//  4. What one side removed and the other did not change is removed. What one side
//     removed and the other changed stays, except under rule 5.
//  5. A sign-out sticks. A side has signed an account out if base has an Account
//     entry for it under some name of its cloud and the side has none under that
//     name: MSAL removes one name at a time. The sign-out then holds for the
//     account under all names of the cloud: of its entries only those stay that
//     this side still has (MSAL leaves other applications' refresh tokens),
//     whatever the other side added or changed.
//  6. A sign-in that came after the sign-out stands. Base may be older than a
//     sign-out that theirs has and the caller's user has since signed in again:
//     the caller names such accounts in Back. Rule 5 then drops nothing of ours,
//     and ours' Account entry counts as changed, under those names of the cloud
//     under which ours changed anything.
//  7. Without a base, all that we have is an addition.
//  8. Sections and fields that nobody here knows are carried through byte for
//     byte. A section that is not an object is one value, merged like an entry.
//
// # The fine print
//
// An access token and a refresh token are of one response if they have the
// account, client_id and user_assertion_hash in common. A refresh token of a
// family of clients names in client_id the client that got it, so each side's is
// paired with that client's access tokens.
//
// Entries without home_account_id (AppMetadata, an application's own tokens) are
// no account's, and no sign-out removes them.
//
// The section AccessTokenCAE is one of access tokens too: see package azcredential.
//
// The merge has the key of the side whose entry stands.
//
// The rules do not cover one order of events. If another application signs an
// account out, it leaves this one's refresh token and removes the access token
// that said when it came. If a refresh is in flight at that moment, nothing shows
// which refresh token is newer, and ours stands.
package merge

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/tokencache"
)

// Input is what Merge merges. Several merges may use one Doc at the same time.
type Input struct {
	// Base is nil if it is not known (rule 7).
	Base, Ours, Theirs *tokencache.Doc
	// Back are accounts that signed in on our side after base was read (rule 6).
	Back []tokencache.Account
	// Now is the time after which a time is in the future. The zero Time means
	// that none is.
	Now time.Time
}

// Result is the result of a merge.
type Result struct {
	Merged  []byte // the merged cache; valid JSON if it is not the data of Theirs itself
	Changed bool   // false if the result means the same as Theirs; then Merged is the data of Theirs itself
}

// Merge merges. It parses nothing.
func Merge(in Input) Result {
	if in.Base == nil {
		in.Base = empty
	}
	m := merger{base: in.Base, ours: in.Ours, theirs: in.Theirs, now: math.MaxInt64}
	if !in.Now.IsZero() {
		m.now = in.Now.Unix()
	}
	m.back = identities(in.Back)
	m.oursOut = identities(SignedOut(m.base, m.ours))
	m.theirsOut = identities(SignedOut(m.base, m.theirs))
	for a := range m.back {
		delete(m.theirsOut, a)
	}
	m.backAs = m.written()
	return m.merge()
}

// empty is a cache with nothing in it.
var empty = func() *tokencache.Doc {
	d, err := tokencache.Parse(nil)
	if err != nil {
		panic(err) // not reached: no data is a cache
	}
	return d
}()

type merger struct {
	base, ours, theirs *tokencache.Doc
	now                int64
	back               map[tokencache.Account]bool // rule 6, by identity
	backAs             map[tokencache.Account]bool // rule 6, by the names under which ours changed anything
	oursOut, theirsOut map[tokencache.Account]bool // rule 5: who was signed out by which side, by identity
	oursNew, theirsNew *newest                     // rule 3: the newest access tokens that a side changed; nil until they are needed
	steps              int                         // how many access tokens were looked at, for a test
}

// merge merges section by section, in the order of theirs.
func (m *merger) merge() Result {
	var out tokencache.Builder
	changed := false
	for i := range m.theirs.Sections() {
		t := &m.theirs.Sections()[i]
		changed = m.section(&out, m.base.Section(t.Name), m.ours.Section(t.Name), t) || changed
	}
	for i := range m.ours.Sections() {
		o := &m.ours.Sections()[i]
		if m.theirs.Section(o.Name) == nil {
			changed = m.section(&out, m.base.Section(o.Name), o, nil) || changed
		}
	}
	if !changed {
		return Result{m.theirs.Data(), false}
	}
	return Result{out.Bytes(), true}
}

// section merges the sections of one name, of which o or t is not nil, and
// reports whether the result differs from t.
func (m *merger) section(out *tokencache.Builder, b, o, t *tokencache.Section) (changed bool) {
	if !objects(b, o, t) {
		bw, ow, tw := b.Whole(), o.Whole(), t.Whole()
		w := m.entry("", bw, ow, tw)
		switch {
		case w == tw && t != nil:
			out.Copy(t)
		case w != nil:
			out.Value(w)
		}
		return w != tw
	}
	if t != nil && o != nil && bytes.Equal(o.Value(), t.Value()) {
		// Each entry of one side is on the other too, so no rule but "both did the
		// same" applies.
		out.Copy(t)
		return false
	}
	kept := make([]*tokencache.Entry, 0, max(len(o.List()), len(t.List())))
	keep := func(w, te *tokencache.Entry) {
		changed = changed || w != te
		if w != nil {
			kept = append(kept, w)
		}
	}
	if t != nil {
		bases, ours := b.Finder(), o.Finder()
		for i := range t.Entries {
			te := &t.Entries[i]
			keep(m.entry(t.Name, bases.Find(te), ours.Find(te), te), te)
		}
	}
	if o != nil {
		bases, theirs := b.Finder(), t.Finder()
		for i := range o.Entries {
			if oe := &o.Entries[i]; theirs.Find(oe) == nil {
				keep(m.entry(o.Name, bases.Find(oe), oe, nil), nil)
			}
		}
	}
	switch {
	case !changed && t != nil:
		out.Copy(t)
	case t != nil:
		out.Entries(t, kept)
	case changed:
		out.Entries(o, kept)
	}
	return changed
}

// objects reports whether all those sections that are not nil are objects.
func objects(ss ...*tokencache.Section) bool {
	for _, s := range ss {
		if s != nil && !s.Object {
			return false
		}
	}
	return true
}

// entry returns the entry that stands: o, t or, if none does, nil. Each of the
// three that it chooses from may be nil.
func (m *merger) entry(section string, b, o, t *tokencache.Entry) *tokencache.Entry {
	if section == tokencache.AccountSection && o != nil && b != nil && len(m.backAs) > 0 && m.backAs[o.Account().Name()] { // rule 6
		b = nil
	}
	w := m.winner(section, b, o, t)
	if w == nil {
		return nil
	}
	if o == nil && len(m.oursOut) > 0 && m.oursOut[w.Account().Identity()] { // rule 5
		return nil
	}
	if t == nil && len(m.theirsOut) > 0 && m.theirsOut[w.Account().Identity()] { // rule 5
		return nil
	}
	return w
}

// winner is entry without rules 5 and 6.
func (m *merger) winner(section string, b, o, t *tokencache.Entry) *tokencache.Entry {
	switch {
	case tokencache.Same(o, t):
		return t // also where both did the same
	case tokencache.Same(b, o): // rule 1, and rule 4 where t is nil
		return t
	case tokencache.Same(b, t): // rule 2, and rule 4 where o is nil
		return o
	case o == nil: // rule 4: a change outlasts a removal
		return t
	case t == nil:
		return o
	case m.newer(section, o, t) < 0: // rule 3
		return t
	}
	return o
}

// newer compares two entries that both sides changed: positive if ours is the
// newer, negative if theirs is, 0 if nothing decides.
func (m *merger) newer(section string, o, t *tokencache.Entry) int {
	of, tf := o.Fields(), t.Fields()
	byTime, byResponse := m.byTime(of.Times, tf.Times), func() int { return m.byResponse(of, tf) }
	switch {
	case section == tokencache.AccessToken, section == tokencache.CAEAccessToken:
		return byTime
	case section == tokencache.RefreshToken:
		return cmp.Or(byResponse(), byTime)
	case byTime != 0:
		return byTime
	}
	return byResponse()
}

// times are those of an entry, [tokencache.Fields].
type times = [3]int64

// byTime compares two entries by their own times.
func (m *merger) byTime(o, t times) int {
	switch of, tf := m.future(o), m.future(t); {
	case of && tf:
		return 0
	case of:
		return -1
	case tf:
		return 1
	}
	for i := range o {
		if o[i] != 0 && t[i] != 0 && o[i] != t[i] {
			return cmp.Compare(o[i], t[i])
		}
	}
	return 0
}

// future reports whether the entry was written after now. That it expires in
// the future is as it should be.
func (m *merger) future(t times) bool {
	return t[tokencache.CachedAt] > m.now || t[tokencache.LastModified] > m.now
}

// byResponse compares two entries by the newest access tokens that came with
// them.
func (m *merger) byResponse(o, t tokencache.Fields) int {
	if m.oursNew == nil {
		m.oursNew, m.theirsNew = m.changedTokens(m.ours), m.changedTokens(m.theirs)
	}
	oa, ok := m.newestOf(m.oursNew, responseOf(o))
	if !ok {
		return 0
	}
	ta, ok := m.newestOf(m.theirsNew, responseOf(t))
	if !ok {
		return 0
	}
	return m.byTime(oa, ta)
}

// A response is what the entries of one token response have in common. An entry
// that names no client or realm may be of any: an Account entry names no client,
// a refresh token no realm.
type response struct {
	account             tokencache.Account
	client, realm, hash string
}

func responseOf(f tokencache.Fields) response {
	return response{f.Account.Identity(), tokencache.Fold(f.ClientID), tokencache.Fold(f.Realm), tokencache.Fold(f.AssertionHash)}
}

// newest are the access tokens that a side added or changed and that say for whom
// and when, and the times of the newest of each response.
type newest struct {
	tokens []token
	// For entries that name client and realm, no client, no realm, or neither: nil
	// until one of them asks.
	of [4]map[response]times
}

// A token is an access token: of what response, and its times.
type token struct {
	response
	times
}

func (m *merger) changedTokens(side *tokencache.Doc) *newest {
	n := new(newest)
	for _, section := range [...]string{tokencache.AccessToken, tokencache.CAEAccessToken} {
		s := side.Section(section)
		bases := m.base.Section(section).Finder()
		for i := range s.List() {
			e := &s.Entries[i]
			if tokencache.Same(bases.Find(e), e) {
				continue
			}
			f := e.Fields()
			if f.Account.HomeAccountID == "" || f.Times[tokencache.CachedAt] == 0 {
				continue
			}
			n.tokens = append(n.tokens, token{responseOf(f), f.Times})
		}
	}
	return n
}

// newestOf returns the times of the newest access token of a response; of one from
// the future only if there is no other.
func (m *merger) newestOf(n *newest, r response) (t times, ok bool) {
	asks := 0
	if r.client == "" {
		asks |= 1
	}
	if r.realm == "" {
		asks |= 2
	}
	if n.of[asks] == nil {
		all := make(map[response]times, len(n.tokens))
		for _, t := range n.tokens {
			m.steps++
			of := t.response
			if asks&1 != 0 {
				of.client = ""
			}
			if asks&2 != 0 {
				of.realm = ""
			}
			if old, ok := all[of]; !ok || m.better(t.times, old) {
				all[of] = t.times
			}
		}
		n.of[asks] = all
	}
	t, ok = n.of[asks][r]
	return t, ok
}

// better reports whether an access token with times a is to be preferred to one
// with b. Unlike byTime it is a total order: the result must not depend on the
// order of the entries.
func (m *merger) better(a, b times) bool {
	if fa, fb := m.future(a), m.future(b); fa != fb {
		return fb
	}
	return slices.Compare(a[:], b[:]) > 0
}

// SignedOut returns the accounts that the side has signed out (rule 5): base has
// an Account entry for them, and the side has none under that name of their
// cloud. They are as base writes them, sorted, each name once. There are none if
// the Account section of either is not an object.
func SignedOut(base, side *tokencache.Doc) []tokencache.Account {
	b, s := base.Section(tokencache.AccountSection), side.Section(tokencache.AccountSection)
	if b == nil || !objects(b, s) {
		return nil
	}
	var missing []tokencache.Account
	sides := s.Finder()
	for i := range b.Entries {
		e := &b.Entries[i]
		se := sides.Find(e)
		if se != nil && bytes.Equal(e.Value(), se.Value()) {
			continue
		}
		a := e.Account()
		if a.HomeAccountID == "" || se != nil && a.SameName(se.Account()) {
			continue
		}
		missing = append(missing, a)
	}
	if len(missing) == 0 {
		return nil
	}
	still := map[tokencache.Account]bool{}
	for _, a := range side.Accounts() {
		still[a.Name()] = true
	}
	return tokencache.Distinct(slices.DeleteFunc(missing, func(a tokencache.Account) bool { return still[a.Name()] }))
}

// written returns the names under which ours added or changed entries of accounts
// that are back.
func (m *merger) written() map[tokencache.Account]bool {
	if len(m.back) == 0 {
		return nil
	}
	names := map[tokencache.Account]bool{}
	for i := range m.ours.Sections() {
		o := &m.ours.Sections()[i]
		bases := m.base.Section(o.Name).Finder()
		for i := range o.Entries {
			e := &o.Entries[i]
			if tokencache.Same(bases.Find(e), e) {
				continue
			}
			if a := e.Account(); m.back[a.Identity()] {
				names[a.Name()] = true
			}
		}
	}
	return names
}

// identities returns the set of the accounts' identities.
func identities(as []tokencache.Account) map[tokencache.Account]bool {
	set := make(map[tokencache.Account]bool, len(as))
	for _, a := range as {
		if a.HomeAccountID != "" {
			set[a.Identity()] = true
		}
	}
	return set
}
