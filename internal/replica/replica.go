package replica

import (
	"bytes"
	"slices"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/merge"
	"github.com/tokenkeep/tokenkeep/internal/tokencache"
)

// Replica is one MSAL memory's copy of a stored cache.
type Replica struct {
	signOuts  *SignOuts
	covers    scope
	anonymous bool

	base    *version // what the memory and the store had in common last; nil if that is not known
	rev     string   // the stored revision that base is of, if atRev
	atRev   bool
	pending *version // what the memory holds and could not be stored; nil if there is nothing

	wary  bool                 // what is stored may have what MSAL cannot take
	dirty bool                 // the memory holds what it must not, or lacks what is pending: the next Replace gives it everything again
	out   Removed              // the accounts that this process has signed out since the last Replace that could read
	stale bool                 // the last Replace could not read, so base may be older than a sign-out
	back  []tokencache.Account // those that signed in while it was stale

	loaded bool     // was given what is stored
	first  *version // what it was given first, while the accounts of that are not counted as held
}

// New returns the Replica of a memory that holds nothing. homeAccountID is of the
// one user whose entries the stored cache holds, or "" for a cache of all users.
func New(s *SignOuts, homeAccountID string) *Replica {
	return &Replica{signOuts: s, covers: scope(homeAccountID)}
}

// Anonymous returns the Replica that stands for all memories that cannot be told
// apart. Nothing is known of them but what could not be stored.
func Anonymous() *Replica { return &Replica{signOuts: new(SignOuts), anonymous: true} }

// version is the bytes of a cache, parsed at most once and only if need be.
type version struct {
	data   []byte
	doc    *tokencache.Doc // nil if data is not a cache
	parsed bool
}

func (v *version) parse() *tokencache.Doc {
	if v == nil {
		return nil
	}
	if !v.parsed {
		v.doc, _ = tokencache.Parse(v.data)
		v.parsed = true
	}
	return v.doc
}

// orNothing returns v, or a version with nothing in it if v is nil.
func (v *version) orNothing() *version {
	if v == nil {
		return new(version)
	}
	return v
}

// moved returns v with other bytes, which are equal to its own. v is of no use after
// that.
func (v *version) moved(to []byte) *version {
	if v.doc != nil && v.doc.Move(to) {
		return &version{data: to, doc: v.doc, parsed: true}
	}
	return &version{data: to}
}

// accounts returns the accounts of v, and none if it is no cache.
func (v *version) accounts() []tokencache.Account {
	if d := v.parse(); d != nil {
		return d.Accounts()
	}
	return nil
}

// Read notes that a Replace has begun.
func (r *Replica) Read(call Call, hint string) {
	if !r.anonymous {
		r.signOuts.read(call, hint)
	}
}

// AtRevision reports whether the memory holds the stored revision rev as it is,
// so that nothing needs to be read if rev is the stored one still.
func (r *Replica) AtRevision() (rev string, ok bool) { return r.rev, r.atRev && !r.dirty }

// Unchanged notes that a Replace found that revision.
func (r *Replica) Unchanged() { r.stale, r.back = false, nil }

// Distrust notes that MSAL did not take what is stored, or could not serialize it
// again. From now on what it cannot take is left out of what is stored; until then
// nobody looks for it. It reports false if that was so before.
func (r *Replica) Distrust() bool {
	was := r.wary
	r.wary, r.atRev = true, false
	return !was
}

// Usable returns what is stored without what MSAL cannot take, and the names of
// that. It looks for it only after a Distrust.
func (r *Replica) Usable(stored []byte) (usable []byte, refused []tokencache.Refused) {
	if !r.wary {
		return stored, nil
	}
	return tokencache.Sound(stored)
}

// Give returns what the memory is to be given where stored is what a Replace has
// read. It is empty if nothing is stored, and must not be written into. The error
// is one of package merge.
func (r *Replica) Give(stored []byte, now time.Time) ([]byte, error) {
	if r.pending == nil {
		return stored, nil
	}
	// What could not be stored yet must not leave the memory now.
	theirs := &version{data: stored}
	p := &Plan{ours: r.pending, base: r.base, back: r.back, now: now}
	m, err := p.merge(theirs)
	if err != nil {
		return nil, err
	}
	return m.Merged, nil
}

// Loaded notes that the memory was given what Give returned for what is stored
// at rev.
func (r *Replica) Loaded(stored []byte, rev string, gave []byte, now time.Time) {
	if r.pending != nil {
		r.pending = &version{data: gave}
	}
	if r.anonymous {
		return
	}
	r.loaded = true
	r.settleFirst()
	first := r.base == nil && r.signOuts.count == 0
	r.base, r.rev, r.atRev = &version{data: stored}, rev, true
	r.dirty, r.stale, r.back, r.out = false, false, nil, Removed{}
	if first {
		// Nothing can be lost yet. Most programs read once, so the accounts are not
		// looked for before somebody needs them.
		r.first = r.holds()
		return
	}
	r.signOuts.given(r.holds().accounts(), r.covers, now)
}

// settleFirst catches up on what the first Replace gave.
func (r *Replica) settleFirst() {
	if r.first != nil {
		for _, a := range r.first.accounts() {
			r.signOuts.hold(a.Identity())
		}
		r.first = nil
	}
}

// GivenData reports whether the memory was given what is stored since it was made
// or emptied.
func (r *Replica) GivenData() bool { return r.loaded }

// holds returns what the memory was last known to hold.
func (r *Replica) holds() *version {
	if r.pending != nil {
		return r.pending
	}
	return r.base
}

// Doc returns what the memory was last known to hold, or nil if that is no cache.
func (r *Replica) Doc() *tokencache.Doc { return r.holds().parse() }

// Emptied notes that the memory was emptied, to be given other data.
func (r *Replica) Emptied() {
	r.settleFirst()
	r.loaded, r.atRev, r.dirty = false, false, false
}

// Refused notes that the memory did not take what it was given.
func (r *Replica) Refused() { r.atRev = false }

// Failed notes that a Replace failed and MSAL was told: no Export follows it.
func (r *Replica) Failed() { r.signOuts.unread() }

// Unread notes that a Replace could not read, and that MSAL goes on with what is
// in its memory. If that must not stay there, Unread returns what it is to be
// given.
func (r *Replica) Unread(now time.Time) (give []byte, again bool) {
	r.stale = true
	if !r.dirty {
		return nil, false
	}
	r.settleFirst()
	r.dirty = false
	r.atRev = false // so that the next Replace gives anew what is stored
	r.forget()
	v := r.holds()
	r.signOuts.given(v.accounts(), r.covers, now)
	if v == nil || len(v.data) == 0 {
		return []byte("{}"), true
	}
	return v.data, true
}

// forget removes accounts from what the memory holds: those that this process has signed
// out, unless they have signed in since.
func (r *Replica) forget() {
	out := r.out
	r.out = Removed{}
	base, pending := r.base.parse(), r.pending.parse()
	if !out.Any() || base == nil {
		return
	}
	since := map[tokencache.Account]bool{}
	if pending != nil {
		for _, change := range tokencache.ChangedAccounts(base, pending) {
			since[change.Account] = true
		}
	}
	keep := func(_ string, e *tokencache.Entry) bool {
		return since[e.Account().Identity()] || !out.Has(e.Account())
	}
	rest, _ := base.Filter(keep)
	r.base = &version{data: rest}
	if pending != nil {
		rest, _ = pending.Filter(keep)
		r.pending = &version{data: rest}
	}
}

// Blank notes that a Replace could not read, and that MSAL goes on all the same,
// with a sign-in: what is stored is not known. It returns what the memory is
// to be given: what could not be stored yet, or nothing.
func (r *Replica) Blank() []byte {
	r.settleFirst()
	r.loaded, r.stale, r.atRev, r.dirty = true, true, false, false
	if r.pending == nil {
		r.base = nil
		return nil
	}
	return r.pending.data
}

// Pending returns what could not be stored, or nil.
func (r *Replica) Pending() []byte {
	if r.pending == nil {
		return nil
	}
	return r.pending.data
}

// Removed is what the program itself has removed from the store since something
// became pending: all that was stored, or some accounts.
type Removed struct {
	All      bool
	Accounts []tokencache.Account

	// Stored is what another memory has stored of what is pending here, or nil. It
	// may have been removed since.
	Stored *Outstanding
}

// Any reports whether anything was removed.
func (x Removed) Any() bool { return x.All || len(x.Accounts) > 0 || x.Stored != nil }

// SignedOut notes that this process has signed the accounts of x out since the last
// call of the memory. An account without an environment is in all clouds.
func (r *Replica) SignedOut(x Removed, now time.Time) {
	r.settleFirst()
	r.signOuts.tick++ // all calls of this memory were before
	if x.All && r.signOuts.signedOut(tokencache.Account{}, now) {
		r.dirty, r.out.All = true, true
	}
	for _, a := range x.Accounts {
		if r.signOuts.signedOut(a, now) {
			r.dirty, r.out.Accounts = true, append(r.out.Accounts, a)
		}
	}
}

// Has reports whether an entry of the account is of what was removed. An account without
// an environment is in all clouds.
func (x Removed) Has(of tokencache.Account) bool {
	of = of.Identity()
	return of.HomeAccountID != "" && (x.All || slices.ContainsFunc(x.Accounts, func(a tokencache.Account) bool {
		return a == of || a.Environment == "" && hinted(of, a.HomeAccountID)
	}))
}

// Removed notes that what is pending of x is to count as stored, and removed since.
func (r *Replica) Removed(x Removed) {
	if r.pending == nil {
		return
	}
	if x.Stored != nil && !x.All {
		o := (&Outstanding{r.base, r.pending, r.back, time.Time{}}).After(x.Stored)
		r.base, r.back, r.atRev = o.base.clone(), o.back, false
		return
	}
	r.base, r.atRev = r.without(x), false
	if x.All {
		r.pending, r.back = nil, nil
		return
	}
	r.back = slices.DeleteFunc(r.back, func(a tokencache.Account) bool { return slices.Contains(x.Accounts, a) })
}

// without returns the base of which x was removed.
func (r *Replica) without(x Removed) *version {
	if x.All {
		return r.pending
	}
	base, pending := r.base.parse(), r.pending.parse()
	if base == nil || pending == nil {
		return r.base
	}
	return &version{data: base.Restore(pending, x.Accounts)}
}

// Export plans what to store for an Export of ours. A Plan is good until the next
// call of another verb.
func (r *Replica) Export(call Call, hint string, ours []byte, now time.Time) *Plan {
	p := &Plan{ours: &version{data: ours}, base: r.base, now: now, usable: r.Usable}
	if r.covers != "" {
		p.leaveOut(r.covers)
	}
	if r.anonymous {
		if r.pending != nil {
			// What could not be stored of another memory is not lost with this one's.
			both := &Plan{ours: p.ours, now: now}
			if m, err := both.merge(r.pending); err == nil {
				p.ours = &version{data: m.Merged}
			}
		}
		return p
	}
	p.hint = hint
	r.settleFirst()
	r.signOuts.export(call, hint)
	if r.base != nil {
		r.judge(p, call, hint)
		if hint == "" {
			r.remove(p)
		}
	} else if r.stale {
		// A sign-in after Blank, which may meet what another memory could not store; or
		// a refresh after that, which has read, and brings nobody who was not held.
		r.judge(p, call, hint)
		held, read := set(r.pending.accounts()), r.signOuts.readsOf(call, hint).first != 0
		for _, a := range p.ours.accounts() {
			if a = a.Identity(); !read || !held[a] {
				p.own = append(p.own, a)
			}
			r.signOuts.hold(a)
		}
	}
	r.returned(p)
	return p
}

// Resume plans to store what is pending, which must not be nothing.
func (r *Replica) Resume(now time.Time) *Plan {
	return &Plan{ours: r.pending, base: r.base, back: slices.Clone(r.back), now: now, hint: "pending", usable: r.Usable}
}

// Rebase plans anew what to store, after a Removed that came between. What signed
// in with the plan itself was not yet pending, so it was not removed.
func (r *Replica) Rebase(p *Plan) {
	p.base = r.base
	r.returned(p)
}

// returned notes who has signed in since the plan's base.
func (r *Replica) returned(p *Plan) {
	r.back = with(r.back, p.own...)
	p.back = slices.Clone(r.back)
}

// with returns accounts and more, each once.
func with(accounts []tokencache.Account, more ...tokencache.Account) []tokencache.Account {
	if len(more) == 0 {
		return accounts
	}
	accounts, there := slices.Clone(accounts), set(accounts)
	for _, a := range more {
		if !there[a] {
			there[a] = true
			accounts = append(accounts, a)
		}
	}
	return accounts
}

// judge takes what must not be stored out of the plan's ours, and notes what the
// memory holds.
func (r *Replica) judge(p *Plan, call Call, hint string) {
	s := r.signOuts
	if hint == "" {
		for _, a := range p.ours.accounts() {
			if a = a.Identity(); !s.holds(a) {
				s.public = true // a sign-in without a hint
				s.hold(a)
			}
		}
		if !r.stale {
			return
		}
	} else if suspect, unknown := s.expects(hint); !suspect && !r.stale {
		if unknown {
			for _, a := range p.ours.accounts() {
				if hinted(a, hint) {
					s.hold(a.Identity())
				}
			}
		}
		return
	}
	ours, before := p.ours.parse(), r.holds().orNothing().parse()
	if ours == nil || before == nil {
		return // nothing of it has an account
	}
	var withheld []tokencache.Account
	for _, change := range tokencache.ChangedAccounts(before, ours) {
		a := change.Account
		if hint != "" && !hinted(a, hint) {
			continue
		}
		withhold, signIn := s.decide(call, hint, a, !change.Refreshable, p.now)
		switch {
		case withhold:
			withheld = append(withheld, a)
			s.leave(a)
			continue
		case signIn && r.stale:
			p.own = append(p.own, a)
		}
		s.hold(a)
	}
	if len(withheld) > 0 {
		r.dirty, p.Withheld = true, true
		p.ours = &version{data: ours.Restore(before, withheld)}
		p.bare = r.covers != "" && !p.ours.parse().HoldsTokens()
	}
}

// remove finds the accounts that MSAL has removed from what the memory held: those
// that are gone under one name of their cloud at least. What was pending of them
// counts as stored: else nothing would tell what others have stored of them.
func (r *Replica) remove(p *Plan) {
	present := map[tokencache.Account]bool{}
	for _, a := range p.ours.accounts() {
		present[a.Name()] = true
	}
	var gone []tokencache.Account
	for _, a := range r.holds().accounts() {
		if !present[a.Name()] {
			gone = append(gone, a)
		}
	}
	if p.SignsOut = len(gone) > 0; !p.SignsOut || r.pending == nil {
		return
	}
	if base, pending := p.base.parse(), r.pending.parse(); base != nil && pending != nil {
		p.base = &version{data: base.Restore(pending, gone)}
		r.atRev = false
	}
}

// Stored notes that the plan was carried out. rev is the revision that is stored
// now, or "" if that holds more than the plan's ours. spare is memory that the
// Replica may write into.
func (r *Replica) Stored(p *Plan, rev string, spare []byte) {
	r.pending = nil
	r.leaving(p)
	if r.anonymous {
		return
	}
	r.base = p.ours.moved(keep(spare, p.ours.data))
	r.rev, r.atRev, r.back = rev, rev != "", nil
}

// Nothing notes that there was nothing to store for the plan.
func (r *Replica) Nothing(p *Plan) {
	r.leaving(p)
	r.pending, r.back = nil, nil
}

// leaving notes which accounts the plan's Export took away.
func (r *Replica) leaving(p *Plan) {
	if p.hint == "" && !r.anonymous { // no other Export takes any away
		r.signOuts.stored(p.ours.accounts(), r.covers, p.now)
	}
}

// Unsaved notes that the plan could not be carried out: its ours is pending.
func (r *Replica) Unsaved(p *Plan) {
	if p.SignsOut {
		// Its caller was told that it failed. So it has not happened, also later:
		// somebody may have signed in by then.
		r.dirty = true
		return
	}
	if p.bare && r.pending == nil {
		// There is nothing of the user's. As what is pending it would only give others
		// this base, which may be older than theirs.
		return
	}
	r.base = p.base
	r.pending = p.ours.moved(bytes.Clone(p.ours.data)) // MSAL may marshal into the same bytes again
}

// keep returns a copy of data, in spare if it fits.
func keep(spare, data []byte) []byte {
	if cap(spare) < len(data) {
		return bytes.Clone(data)
	}
	return append(spare[:0], data...)
}

// A Plan is what an Export is to store.
type Plan struct {
	SignsOut bool // an account that the memory held is gone from it
	Withheld bool // something of it is an old refresh's, and not to be stored
	Foreign  int  // how many entries of other users were left out

	ours, base *version
	back       []tokencache.Account
	own        []tokencache.Account // those of back that the plan itself brings
	bare       bool
	hint       string
	now        time.Time
	usable     func(stored []byte) ([]byte, []tokencache.Refused)
}

// leaveOut takes the entries of other users out of the plan's ours.
func (p *Plan) leaveOut(covers scope) {
	d := p.ours.parse()
	if d == nil {
		return
	}
	own, removed := d.Filter(func(_ string, e *tokencache.Entry) bool {
		id := e.Account().HomeAccountID
		return id == "" || tokencache.SameID(id, string(covers))
	})
	if removed > 0 {
		p.ours, p.Foreign = &version{data: own}, removed
	}
	p.bare = !p.ours.parse().HoldsTokens()
}

// Bare reports whether the plan is for one user's cache and has nothing of the
// user's: no such cache is made for it.
func (p *Plan) Bare() bool { return p.bare }

// Spare returns memory of the plan's base, to be given to [Replica.Stored] once
// the base is no longer needed.
func (p *Plan) Spare() []byte { return p.base.data }

// Data returns what is to be stored if nobody else has saved.
func (p *Plan) Data() []byte { return p.ours.data }

// Merge merges the plan with what is stored now. The error is one of package
// merge.
func (p *Plan) Merge(theirs []byte) (merge.Result, error) {
	theirs, _ = p.usable(theirs)
	return p.merge(&version{data: theirs})
}

// Same reports whether the plan's ours says the same as its base, so that there is
// nothing to store where nobody else has saved. The error is that of Merge.
func (p *Plan) Same() (bool, error) {
	if bytes.Equal(p.ours.data, p.base.data) {
		return true, nil
	}
	base, ours := p.base.parse(), p.ours.parse()
	switch {
	case ours == nil && base == nil:
		return false, merge.ErrBoth
	case ours == nil:
		return false, merge.ErrOurs
	case base == nil:
		return false, nil
	}
	return tokencache.Equal(base, ours), nil
}

func (p *Plan) merge(theirs *version) (merge.Result, error) {
	if bytes.Equal(p.ours.data, theirs.data) {
		return merge.Result{Merged: theirs.data}, nil
	}
	in := merge.Input{Base: p.base.parse(), Ours: p.ours.parse(), Theirs: theirs.parse(), Back: p.back, Now: p.now}
	switch {
	case in.Ours == nil && in.Theirs == nil:
		return merge.Result{}, merge.ErrBoth
	case in.Ours == nil:
		return merge.Result{}, merge.ErrOurs
	case in.Theirs == nil:
		return merge.Result{}, merge.ErrTheirs
	}
	return merge.Merge(in), nil
}

// Outstanding is what could not be stored of one memory, to be given to others
// that come for the same user. It does not change.
type Outstanding struct {
	base, ours *version
	back       []tokencache.Account
	at         time.Time
}

// Outstanding returns what could not be stored, or nil.
func (r *Replica) Outstanding(now time.Time) *Outstanding {
	if r.pending == nil {
		return nil
	}
	return &Outstanding{r.base.clone(), r.pending.clone(), slices.Clone(r.back), now}
}

// Size returns how many bytes o holds.
func (o *Outstanding) Size() int {
	n := len(o.ours.data)
	if o.base != nil {
		n += len(o.base.data)
	}
	return n
}

// With returns o and what else could not be stored, of another memory.
func (o *Outstanding) With(other *Outstanding) *Outstanding {
	// The other's changes are merged into o, which was read last: what o found signed
	// out stays so.
	base, ours := o.base, o.ours
	if base == nil {
		// o could not read. What it lacks of what the other has read is not removed by it.
		base = other.base
		over := &Plan{ours: ours, now: o.at}
		if m, err := over.merge(base.orNothing()); err == nil {
			ours = &version{data: m.Merged}
		}
	}
	both := &Plan{ours: other.ours, base: other.base, back: other.back, now: o.at}
	m, err := both.merge(ours)
	if err != nil {
		return o
	}
	// An account that the other's memory has, and that was not stored when that was
	// read, has signed in since. If o's base has it, that is of an earlier sign-in.
	came := slices.Clone(other.back)
	before := set(other.base.accounts())
	for _, a := range other.ours.accounts() {
		if a = a.Identity(); !before[a] {
			came = append(came, a)
		}
	}
	return &Outstanding{base, (&version{data: m.Merged}).clone(), with(o.back, came...), o.at}
}

// After returns o where stored, which o includes, has been stored: what is gone of
// it since was removed by somebody else.
func (o *Outstanding) After(stored *Outstanding) *Outstanding {
	back := slices.DeleteFunc(slices.Clone(o.back), func(a tokencache.Account) bool { return slices.Contains(stored.back, a) })
	return &Outstanding{stored.ours, o.ours, back, o.at}
}

// Adopt makes o, which may be nil, what could not be stored, instead of what that
// was before: somebody has stored it since, added to it, or signed the user out.
// What the other memory knew of the store counts as seen by this one.
func (r *Replica) Adopt(o *Outstanding, now time.Time) {
	r.settleFirst()
	unseen := r.unseen()
	r.Removed(Removed{All: true})
	r.atRev = false
	if o == nil {
		return
	}
	r.base, r.pending, r.back, r.dirty = o.base.clone(), o.ours.clone(), slices.Clone(o.back), true
	r.signOuts.tick++ // after all calls of this memory
	if r.base != nil {
		r.signOuts.given(append(unseen, r.base.accounts()...), r.covers, now)
	}
	r.signOuts.given(r.pending.accounts(), r.covers, now)
}

// unseen returns the accounts that are only in what is pending: that they are not stored
// tells of no sign-out.
func (r *Replica) unseen() (accounts []tokencache.Account) {
	stored := set(r.base.accounts())
	for _, a := range r.pending.accounts() {
		if !stored[a.Identity()] {
			accounts = append(accounts, a)
		}
	}
	return accounts
}

// Discard drops what could not be stored and is not kept: MSAL's caller was told, or
// the user has signed out. The next Replace takes it out of the memory, also if it
// cannot read.
func (r *Replica) Discard() {
	r.pending, r.back, r.atRev, r.dirty = nil, nil, false, true
	if r.base == nil {
		r.loaded = false // after Blank, nothing else is known
	}
}

// clone returns v with bytes of its own: a Replica writes into those of its base.
func (v *version) clone() *version {
	if v == nil {
		return nil
	}
	return &version{data: bytes.Clone(v.data)}
}
