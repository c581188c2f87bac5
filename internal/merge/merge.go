// Package merge merges token caches that several processes have changed, and
// loses none of the changes.
//
// # The format
//
// The MSAL libraries of all languages share one serialized cache: a JSON object
// of sections ("AccessToken", "RefreshToken", "IdToken", "Account",
// "AppMetadata"), each an object of entries, each an object of fields. Every
// library may add sections and fields of its own. Two levels of keys lead to an
// entry, and they are all that this package needs: a cache is any JSON object,
// an entry any value. As when MSAL reads, the last of repeated keys counts,
// what follows the object is no part of it, and no bytes at all are a cache
// with nothing in it.
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
// # The rules
//
//  0. Entries are compared by what they say. MSAL Go writes keys in random
//     order, leaves empty fields out and turns numbers into strings; none of it
//     is a change. A field that is absent, null or "" is one and the same, so is
//     a number and the string of its digits, and so are an empty section and
//     none. Keys pair without regard to case, because MSAL Go 1.0 wrote them
//     in mixed case and its successors rename them in passing.
//  1. What we did not change is as they have it.
//  2. What we changed and they did not is as we have it.
//  3. What both changed is as the newer has it: by cached_at, then expires_on,
//     then last_modification_time. The entries of one token response belong
//     together, but a refresh token says no time: it comes from the side whose
//     changed access tokens of that account and client are the newest, and so
//     do ID tokens and accounts. A time that is missing compares with none. An
//     entry from the future, by the clock of the merge, is no match for one that
//     is not. Where nothing decides, it is ours.
//  4. What one side removed and the other left alone is removed. What one side
//     removed and the other changed stays, but for rule 5.
//  5. Signing out sticks. A side has signed an account out if base has an
//     Account entry for it and the side has none. Of the account's entries then
//     only those stay that this side still has (MSAL leaves other
//     applications' refresh tokens), whatever the other side added or changed.
//  6. Of an account that is gone by the caller's knowledge, everything is as
//     they have it.
//  7. Without a base, all that we have is an addition.
//  8. Sections and fields that nobody here knows are carried through byte for
//     byte. A section that is not an object is one value, merged like an entry.
//     What is no cache at all is not merged: see the errors.
//
// # The fine print
//
// An access token and a refresh token are of one response if they have
// home_account_id, environment, client_id and user_assertion_hash in common. A
// refresh token of a family of clients names in client_id the client that got
// it, so each side's is paired with that client's access tokens.
//
// An account in two environments is two accounts. Entries without
// home_account_id (AppMetadata, an application's own tokens) are no account's,
// and no sign-out removes them.
//
// Of two keys of a shared section that differ in case only, the lower-case one
// counts, as for MSAL; in a section that nobody here knows they are two
// entries. The merge has the key of the side whose entry stands.
//
// One order of events is beyond the rules. If another application signs an
// account out, it leaves this one's refresh token and removes the access token
// that said when it came. If a refresh is in flight just then, nothing tells
// which refresh token is the newer, and ours stands.
package merge

import (
	"bytes"
	"cmp"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Account names an account by two fields that its entries have. They compare
// without regard to case.
type Account struct{ HomeAccountID, Environment string }

// Input is what Merge merges. It keeps none of it, but what it returns may be
// a part of it.
type Input struct {
	// Base, Ours and Theirs are the three versions; empty means that nothing is
	// stored. A base that is no cache is an unknown one.
	Base, Ours, Theirs []byte
	// BaseUnknown says that Base is not known (rule 7).
	BaseUnknown bool
	// Gone are accounts of which ours adds, changes and removes nothing (rule 6).
	Gone []Account
	// Now is the time after which a time is in the future. The zero Time means
	// that none is.
	Now time.Time
}

// Where Merge fails, one side is not a JSON object, and only the caller can say
// which of the two is to be kept.
var (
	// ErrOurs: ours is not a cache, theirs is. MSAL Go can marshal broken
	// JSON, so ours must not replace theirs.
	ErrOurs = errors.New("what MSAL serialized is not a token cache")
	// ErrTheirs: theirs is not a cache, ours is.
	ErrTheirs = errors.New("what is stored is not a token cache")
	// ErrBoth: neither is a cache, so this may be another format altogether.
	ErrBoth = errors.New("neither what is stored nor what is to be stored is a token cache")
)

// Result is what a merge came to.
type Result struct {
	Merged    []byte    // the merged cache; valid JSON if it is not Theirs itself
	Changed   bool      // false if it would say the same as theirs; then Merged is Theirs itself
	SignedOut []Account // as SignedOut says of base and ours
}

// Merge is [Join] for callers that need not know who was signed out.
func Merge(in Input) (merged []byte, changed bool, err error) {
	r, err := Join(in)
	return r.Merged, r.Changed, err
}

// Join merges. The error is nil, ErrOurs, ErrTheirs or ErrBoth; there is none
// for equal bytes.
func Join(in Input) (Result, error) {
	if bytes.Equal(in.Ours, in.Theirs) {
		r := Result{Merged: in.Theirs}
		if !in.BaseUnknown {
			r.SignedOut = SignedOut(in.Base, in.Ours)
		}
		return r, nil
	}
	theirs, theirsOK := scan(in.Theirs)
	ours, oursOK := scan(in.Ours)
	switch {
	case !oursOK && !theirsOK:
		return Result{}, ErrBoth
	case !oursOK:
		return Result{}, ErrOurs
	case !theirsOK:
		return Result{}, ErrTheirs
	}
	m := merger{base: &doc{}, ours: ours, theirs: theirs, now: math.MaxInt64}
	switch {
	case in.BaseUnknown:
	case bytes.Equal(in.Base, in.Theirs):
		m.base = theirs
	case bytes.Equal(in.Base, in.Ours):
		m.base = ours
	default:
		if base, ok := scan(in.Base); ok {
			m.base = base
		}
	}
	if !in.Now.IsZero() {
		m.now = in.Now.Unix()
	}
	m.gone = setOf(in.Gone)
	out := signedOut(m.base, ours)
	m.oursOut = setOf(out)
	m.theirsOut = setOf(signedOut(m.base, theirs))
	merged, changed := m.merge(in.Theirs)
	return Result{merged, changed, out}, nil
}

type merger struct {
	base, ours, theirs *doc
	now                int64
	gone               map[Account]bool     // rule 6
	oursOut, theirsOut map[Account]bool     // rule 5: who was signed out by which side
	oursNew, theirsNew map[Account][]fields // rule 3: the access tokens that a side changed; nil until they are needed
}

// merge merges section by section, in the order of theirs.
func (m *merger) merge(stored []byte) ([]byte, bool) {
	var out output
	changed := false
	for i := range m.theirs.sections {
		t := &m.theirs.sections[i]
		changed = m.section(&out, m.base.section(t.name), m.ours.section(t.name), t) || changed
	}
	for i := range m.ours.sections {
		o := &m.ours.sections[i]
		if m.theirs.section(o.name) == nil {
			changed = m.section(&out, m.base.section(o.name), o, nil) || changed
		}
	}
	if !changed {
		return stored, false
	}
	return out.bytes(), true
}

// section merges the sections of one name, of which o or t is not nil, and
// reports whether the result differs from t.
func (m *merger) section(out *output, b, o, t *section) (changed bool) {
	if !objects(b, o, t) {
		bw, ow, tw := b.whole(), o.whole(), t.whole()
		w := m.entry("", bw, ow, tw)
		switch {
		case w == tw && t != nil:
			out.section(t.key, t.val)
		case w != nil:
			out.section(w.key, w.val)
		}
		return w != tw
	}
	pairAlike(b, o, t)
	name := ""
	kept := make([]*entry, 0, max(len(o.list()), len(t.list())))
	keep := func(w, te *entry) {
		changed = changed || w != te
		if w != nil {
			kept = append(kept, w)
		}
	}
	if t != nil {
		name = t.name
		for i := range t.entries {
			te := &t.entries[i]
			keep(m.entry(name, b.find(te.pair, i), o.find(te.pair, i), te), te)
		}
	}
	if o != nil {
		name = o.name
		for i := range o.entries {
			if oe := &o.entries[i]; t.find(oe.pair, i) == nil {
				keep(m.entry(name, b.find(oe.pair, i), oe, nil), nil)
			}
		}
	}
	switch {
	case !changed && t != nil:
		out.section(t.key, t.val)
	case t != nil:
		out.section(t.key, nil, kept...)
	case changed:
		out.section(o.key, nil, kept...)
	}
	return changed
}

// objects reports whether all those sections that are not nil are objects.
func objects(ss ...*section) bool {
	for _, s := range ss {
		if s != nil && !s.object {
			return false
		}
	}
	return true
}

// entry returns the entry that stands: o, t or, if none does, nil. Each of the
// three that it chooses from may be nil.
func (m *merger) entry(section string, b, o, t *entry) *entry {
	w := m.winner(section, b, o, t)
	if w != t && len(m.gone) > 0 && m.gone[accountOf(cmp.Or(o, t))] { // rule 6
		return t
	}
	if w != nil && o == nil && len(m.oursOut) > 0 && m.oursOut[accountOf(w)] { // rule 5
		return nil
	}
	if w != nil && t == nil && len(m.theirsOut) > 0 && m.theirsOut[accountOf(w)] { // rule 5
		return nil
	}
	return w
}

// winner is entry without the rules for accounts that are gone.
func (m *merger) winner(section string, b, o, t *entry) *entry {
	switch {
	case same(o, t):
		return t // also where both did the same
	case same(b, o): // rule 1, and rule 4 where t is nil
		return t
	case same(b, t): // rule 2, and rule 4 where o is nil
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
func (m *merger) newer(section string, o, t *entry) int {
	of, tf := fieldsOf(o.val), fieldsOf(t.val)
	byTime, byResponse := m.byTime(of, tf), func() int { return m.byResponse(of, tf) }
	switch {
	case section == accessToken:
		return byTime
	case section == refreshToken:
		if c := byResponse(); c != 0 {
			return c
		}
		return byTime
	case byTime != 0:
		return byTime
	}
	return byResponse()
}

// byTime compares two entries by their own times.
func (m *merger) byTime(o, t fields) int {
	switch of, tf := m.future(o), m.future(t); {
	case of && tf:
		return 0
	case of:
		return -1
	case tf:
		return 1
	}
	for i := range o.times {
		if ot, tt := o.times[i], t.times[i]; ot != 0 && tt != 0 && ot != tt {
			return cmp.Compare(ot, tt)
		}
	}
	return 0
}

// future reports whether the entry was written after now. That it expires in
// the future is as it should be.
func (m *merger) future(f fields) bool {
	return f.times[cachedAt] > m.now || f.times[modified] > m.now
}

// byResponse compares two entries by the access tokens of their token
// responses.
func (m *merger) byResponse(o, t fields) int {
	if m.oursNew == nil {
		m.oursNew, m.theirsNew = m.changed(m.ours), m.changed(m.theirs)
	}
	oa, ok := m.newest(m.oursNew, o)
	if !ok {
		return 0
	}
	ta, ok := m.newest(m.theirsNew, t)
	if !ok {
		return 0
	}
	return m.byTime(oa, ta)
}

// changed returns the access tokens that the side added or changed and that
// say for whom and when.
func (m *merger) changed(side *doc) map[Account][]fields {
	b, s := m.base.section(accessToken), side.section(accessToken)
	fs := map[Account][]fields{}
	for i := range s.list() {
		if e := &s.entries[i]; !same(b.find(e.pair, i), e) {
			if f := fieldsOf(e.val); f.account.HomeAccountID != "" && f.times[cachedAt] != 0 {
				a := f.account.fold()
				fs[a] = append(fs[a], f)
			}
		}
	}
	return fs
}

// newest returns the newest of the access tokens that came with the entry, one
// from the future only if there is no other.
func (m *merger) newest(tokens map[Account][]fields, entry fields) (newest fields, ok bool) {
	for _, f := range tokens[entry.account.fold()] {
		if !f.cameWith(entry) {
			continue
		}
		// A total order, unlike byTime: the result must not depend on the order
		// of the entries.
		better := !ok || slices.Compare(f.times[:], newest.times[:]) > 0
		if ok && m.future(f) != m.future(newest) {
			better = m.future(newest)
		}
		if better {
			newest, ok = f, true
		}
	}
	return newest, ok
}

// SignedOut returns the accounts that base has an Account entry for and ours
// has none, as base writes them. It returns none if either is not a cache.
func SignedOut(base, ours []byte) []Account {
	b, ok := scan(base)
	if !ok {
		return nil
	}
	o, ok := scan(ours)
	if !ok {
		return nil
	}
	return signedOut(b, o)
}

func signedOut(base, side *doc) []Account {
	b, s := base.section(account), side.section(account)
	if b == nil || !objects(b, s) {
		return nil
	}
	var missing []Account
	for i := range b.entries {
		e := &b.entries[i]
		if se := s.find(e.pair, i); se != nil && bytes.Equal(e.val, se.val) {
			continue
		}
		if a := accountNamed(e); a.HomeAccountID != "" {
			missing = append(missing, a)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	still := map[Account]bool{}
	for i := range s.list() {
		still[accountOf(&s.entries[i])] = true
	}
	return distinct(slices.DeleteFunc(missing, func(a Account) bool { return still[a.fold()] }))
}

// Accounts returns the accounts that have an Account entry, each once, in the
// order of their names. The error is ErrTheirs if data is not a cache.
func Accounts(data []byte) ([]Account, error) {
	d, ok := scan(data)
	if !ok {
		return nil, ErrTheirs
	}
	var as []Account
	s := d.section(account)
	for i := range s.list() {
		if a := accountNamed(&s.entries[i]); a.HomeAccountID != "" {
			as = append(as, a)
		}
	}
	return distinct(as), nil
}

// distinct sorts accounts and removes repetitions.
func distinct(as []Account) []Account {
	slices.SortFunc(as, func(a, b Account) int {
		fa, fb := a.fold(), b.fold()
		return cmp.Or(
			cmp.Compare(fa.HomeAccountID, fb.HomeAccountID), cmp.Compare(fa.Environment, fb.Environment),
			cmp.Compare(a.HomeAccountID, b.HomeAccountID), cmp.Compare(a.Environment, b.Environment))
	})
	return slices.CompactFunc(as, func(a, b Account) bool { return a.fold() == b.fold() })
}

func (a Account) fold() Account {
	return Account{strings.ToLower(a.HomeAccountID), strings.ToLower(a.Environment)}
}

func setOf(as []Account) map[Account]bool {
	set := make(map[Account]bool, len(as))
	for _, a := range as {
		if a.HomeAccountID != "" {
			set[a.fold()] = true
		}
	}
	return set
}

// accountOf returns the account of an entry, folded: the zero Account if it is
// nobody's.
func accountOf(e *entry) Account { return accountNamed(e).fold() }

// accountNamed returns the account of an entry as the entry writes it.
func accountNamed(e *entry) Account { return fieldsOf(e.val).account }

// fields are those fields of an entry that decide anything. A string is "" and
// a time is 0 if the field is missing or makes no sense.
type fields struct {
	account             Account
	client, realm, hash string
	times               [3]int64 // in seconds since 1970, the one that decides first first
}

// The times of fields.
const (
	cachedAt = iota
	expiresOn
	modified
)

// fieldsOf parses an entry, which may be any value.
func fieldsOf(val []byte) (f fields) {
	if val[0] != '{' {
		return f
	}
	var space [32]field
	for _, fd := range appendFields(space[:0], val) {
		var s *string
		var t *int64
		switch string(fd.key) {
		case "home_account_id":
			s = &f.account.HomeAccountID
		case "environment":
			s = &f.account.Environment
		case "client_id":
			s = &f.client
		case "realm":
			s = &f.realm
		case "user_assertion_hash":
			s = &f.hash
		case "cached_at":
			t = &f.times[cachedAt]
		case "expires_on":
			t = &f.times[expiresOn]
		case "last_modification_time":
			t = &f.times[modified]
		default:
			continue
		}
		v, _ := scalar(fd.val)
		if s != nil {
			*s = string(v)
		} else {
			*t = seconds(string(v))
		}
	}
	return f
}

// seconds parses a Unix time. Nothing was cached in 1970 or before, so 0 can
// stand for a missing time.
func seconds(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		x, err := strconv.ParseFloat(s, 64) // some libraries write fractions
		if err != nil || !(x < math.MaxInt64) {
			return 0
		}
		n = int64(x)
	}
	return max(n, 0)
}

// cameWith reports whether access token f may be of the token response that e,
// of the same account, is of. An Account entry names no client, a refresh token no realm.
func (f fields) cameWith(e fields) bool {
	like := func(a, b string) bool { return strings.EqualFold(a, b) }
	return (e.client == "" || like(f.client, e.client)) &&
		(e.realm == "" || like(f.realm, e.realm)) &&
		like(f.hash, e.hash)
}

// output collects the merged cache and writes it in one piece.
type output struct {
	parts []part
	size  int
}

// A part is one section: its value, or its entries if the value is nil.
type part struct {
	key, val []byte
	entries  []*entry
}

func (o *output) section(key, val []byte, entries ...*entry) {
	o.parts = append(o.parts, part{key, val, entries})
	o.size += len(key) + len(val) + len(`:{},`)
	for _, e := range entries {
		o.size += len(e.key) + len(e.val) + len(`:,`)
	}
}

func (o *output) bytes() []byte {
	b := make([]byte, 0, o.size+len(`{}`))
	b = append(b, '{')
	for i, p := range o.parts {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, p.key...), ':')
		if p.val != nil {
			b = append(b, p.val...)
			continue
		}
		b = append(b, '{')
		for j, e := range p.entries {
			if j > 0 {
				b = append(b, ',')
			}
			b = append(append(append(b, e.key...), ':'), e.val...)
		}
		b = append(b, '}')
	}
	return append(b, '}')
}
