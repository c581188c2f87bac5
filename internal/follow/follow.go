// Package follow shows the token cache of another program ("theirs") beside a program's
// own. Only the own cache is written: it gets what the program changes. Everything here
// is a pure function of documents; see package tokencache for the format.
//
// # The view and what is kept
//
// View is what the program sees: own and theirs, each entry once. If both have an entry,
// rule 3 of package merge says which one is shown; if it decides nothing, own's is. Put
// is the own cache after the program has changed the view. It stores only entries that
// theirs does not have in the same form.
//
// # Accounts of theirs
//
// The credentials that a refresh here brings belong to a sign-in over there, and end
// with it. So Put notes in own, in the section [Section], for each account and client
// whether the credentials that it stores are theirs. They are if, before the program
// brought its first ones, theirs showed credentials of that account and client and own
// had none. When theirs no longer has an Account entry of the account, View does not
// show what is noted as theirs, and Purge and Put remove it from own.
//
// Everything else is own's, and stays: what own had before, credentials of another
// client id, and what a sign-in brings for an account that the view did not show. Then
// own stores the Account entry too, even if theirs has it in the same form: MSAL finds
// no token without it.
//
// # Hidden accounts
//
// A view that no longer has an account of theirs has signed it out (by rule 5 of
// package merge, or because no entry of it is left). Put notes the account as hidden:
// View shows nothing of theirs for it, whatever changes over there, until a view has an
// Account entry of it again. All names of a cloud count as one.
//
// # The laws
//
//   - View after Put(View) is View. Own has lost at most what is theirs and no longer
//     shown.
//   - View after Put(v) means the same as v, if v changes no entry to one that is older
//     than theirs, and removes only whole accounts and entries of own: a single entry of
//     theirs comes back.
//   - View after Purge is View.
//   - What Put returns holds an entry in the same form as theirs only if a sign-in of
//     own needs it.
//
// # Whom not to follow
//
// If an authority accepts each refresh token only once, a refresh here spends theirs,
// and signs the user out over there. Microsoft Entra ID accepts it again. So only
// entries of Entra's own clouds are shown ([tokencache.Entra]).
package follow

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/merge"
	"github.com/tokenkeep/tokenkeep/internal/tokencache"
)

// Section is the section of the own cache with the notes of this package. No view has
// it.
const Section = "TokenkeepFollow"

// Sides are the two caches.
type Sides struct {
	Own, Theirs *tokencache.Doc
	// Unread says that something of theirs could not be read, so that an entry which is
	// missing in Theirs may exist.
	Unread bool
	// Now is the present time: later times are in the future.
	Now time.Time
}

// A grant is an account and a client that has credentials of it. The grant of an Account
// entry has the client "".
type grant struct {
	account tokencache.Account // its Identity
	client  string
}

func grantOf(e *tokencache.Entry) grant {
	f := e.Fields()
	return grant{f.Account.Identity(), tokencache.Fold(f.ClientID)}
}

// notes are the content of the section.
type notes struct {
	hidden map[tokencache.Account]bool
	theirs map[grant]bool
}

func notesIn(own *tokencache.Doc) notes {
	n := notes{map[tokencache.Account]bool{}, map[grant]bool{}}
	entries := own.Section(Section).List()
	for i := range entries {
		e := &entries[i]
		a := tokencache.Account{HomeAccountID: e.Field("account"), Environment: e.Field("cloud")}.Identity()
		switch e.Field("note") {
		case "hidden":
			n.hidden[a] = true
		case "theirs":
			n.theirs[grant{a, e.Field("client")}] = true
		}
	}
	return n
}

// section returns the notes as a section, or nil if there are none.
func (n notes) section() *tokencache.Section {
	type note struct {
		Note    string `json:"note"`
		Account string `json:"account"`
		Cloud   string `json:"cloud"`
		Client  string `json:"client,omitempty"`
	}
	all := map[string]note{} // which encoding/json writes sorted
	add := func(x note) {
		sum := sha256.Sum256([]byte(strings.Join([]string{x.Note, x.Account, x.Cloud, x.Client}, "\x00")))
		all[fmt.Sprintf("%x", sum[:16])] = x // MSAL Go writes such keys as they are
	}
	for a := range n.hidden {
		add(note{"hidden", a.HomeAccountID, a.Environment, ""})
	}
	for g := range n.theirs {
		add(note{"theirs", g.account.HomeAccountID, g.account.Environment, g.client})
	}
	if len(all) == 0 {
		return nil
	}
	data, err := json.Marshal(map[string]any{Section: all})
	if err != nil {
		panic(err) // not reached: strings can be marshalled
	}
	return parsed(data).Section(Section)
}

// parsed parses a document that this package has built.
func parsed(data []byte) *tokencache.Doc {
	d, err := tokencache.Parse(data)
	if err != nil {
		panic(err) // not reached: it was built from sections of caches
	}
	return d
}

// filter returns d with only those entries of shared sections for which keep returns
// true, and only those other sections for which whole does.
func filter(d *tokencache.Doc, whole func(*tokencache.Section) bool, keep func(section string, e *tokencache.Entry) bool) *tokencache.Doc {
	var b tokencache.Builder
	for i := range d.Sections() {
		s := &d.Sections()[i]
		switch {
		case s.Name == Section:
		case !s.Object || !tokencache.Shared(s.Name):
			if whole(s) {
				b.Copy(s)
			}
		default:
			var kept []*tokencache.Entry
			for i := range s.Entries {
				if e := &s.Entries[i]; keep(s.Name, e) {
					kept = append(kept, e)
				}
			}
			if len(kept) == len(s.Entries) {
				b.Copy(s)
			} else {
				b.Entries(s, kept)
			}
		}
	}
	return parsed(b.Bytes())
}

// index is of whom a document has entries.
type index struct {
	signedIn map[tokencache.Account]bool // that have an Account entry
	any      map[tokencache.Account]bool // that have any entry
	grants   map[grant]bool
}

func indexOf(d *tokencache.Doc) index {
	x := index{map[tokencache.Account]bool{}, map[tokencache.Account]bool{}, map[grant]bool{}}
	each(d, func(section string, e *tokencache.Entry) {
		g := grantOf(e)
		if g.account.HomeAccountID == "" {
			return
		}
		x.any[g.account] = true
		x.grants[g] = true
		if section == tokencache.AccountSection {
			x.signedIn[g.account] = true
		}
	})
	return x
}

// each calls f for the entries of the sections that MSAL libraries share.
func each(d *tokencache.Doc, f func(section string, e *tokencache.Entry)) {
	for i := range d.Sections() {
		if s := &d.Sections()[i]; tokencache.Shared(s.Name) {
			for i := range s.Entries {
				f(s.Name, &s.Entries[i])
			}
		}
	}
}

// shown returns the part of theirs that is shown while those accounts are hidden.
func (s Sides) shown(hidden map[tokencache.Account]bool) *tokencache.Doc {
	return filter(s.Theirs, func(*tokencache.Section) bool { return false }, func(_ string, e *tokencache.Entry) bool {
		a := e.Account()
		return tokencache.Entra(a.Environment) && !hidden[a.Identity()]
	})
}

// ended reports whether an entry of own is theirs, and its sign-in has ended.
func ended(n notes, theirs index, e *tokencache.Entry) bool {
	g := grantOf(e)
	return n.theirs[g] && !theirs.signedIn[g.account]
}

// mine returns the part of own that is shown beside the part of theirs with that index.
func (s Sides) mine(n notes, shown index) *tokencache.Doc {
	return filter(s.Own, func(*tokencache.Section) bool { return true }, func(_ string, e *tokencache.Entry) bool {
		return !ended(n, shown, e)
	})
}

// Alone reports whether theirs is empty and own has no notes. Then the view is own as it
// is, whatever its format.
func (s Sides) Alone() bool {
	return len(s.Theirs.Sections()) == 0 && s.Own.Section(Section) == nil
}

// View returns what the program sees.
func (s Sides) View() []byte {
	if s.Alone() {
		return s.Own.Data()
	}
	n := notesIn(s.Own)
	shown := s.shown(n.hidden)
	return s.view(n, shown)
}

func (s Sides) view(n notes, shown *tokencache.Doc) []byte {
	return merge.Merge(merge.Input{Ours: s.mine(n, indexOf(shown)), Theirs: shown, Now: s.Now}).Merged
}

// Purge returns own without credentials that are theirs and whose sign-in has ended over
// there. purged is false if there are none, or if theirs could not be read.
func (s Sides) Purge() (own []byte, purged bool) {
	n := notesIn(s.Own)
	if len(n.theirs) == 0 || s.Unread {
		return s.Own.Data(), false
	}
	view := s.View()
	shown := indexOf(s.shown(n.hidden))
	for g := range n.theirs {
		purged = purged || !shown.signedIn[g.account]
	}
	if !purged {
		return s.Own.Data(), false
	}
	return s.Put(parsed(view)), true
}

// OnlyHidden returns an own cache that hides all accounts of theirs and has nothing
// else, or nothing if there are none to hide. Own may be nil.
func (s Sides) OnlyHidden() []byte {
	n := notes{map[tokencache.Account]bool{}, nil}
	if s.Own != nil {
		was := notesIn(s.Own)
		n.hidden = was.hidden
		for g := range was.theirs {
			if s.Unread { // else they have ended, or are in theirs
				n.hidden[g.account] = true
			}
		}
	}
	for a := range indexOf(s.shown(nil)).any {
		n.hidden[a] = true
	}
	only := n.section()
	if only == nil {
		return nil
	}
	var b tokencache.Builder
	b.Copy(only)
	return b.Bytes()
}

// Put returns the own cache for a view that the program has changed. If nothing changes
// in it, that is the data of Own itself.
func (s Sides) Put(view *tokencache.Doc) []byte {
	p := &putter{Sides: s, view: view, notes: notesIn(s.Own)}
	p.findSignIns()
	p.findOwn()
	data := p.build()
	if tokencache.Equal(parsed(data), s.Own) {
		return s.Own.Data()
	}
	return data
}

// putter is one Put.
type putter struct {
	Sides
	view *tokencache.Doc
	notes

	in, out map[tokencache.Account]bool // accounts that the view signs in, or out
	shown   *tokencache.Doc             // the part of theirs that is shown from now on
	of      index                       // of shown
	before  index                       // of own
	now     notes                       // to be stored
	isOwn   map[grant]bool              // which of the view's grants are own's, not theirs
	keeps   map[tokencache.Account]bool // accounts of which own stores a credential of its own
	clients map[string]bool             // clients of which it does
}

// findSignIns finds out which accounts the view signs in or out.
func (p *putter) findSignIns() {
	shown := p.Sides.shown(p.hidden)
	was := parsed(p.Sides.view(p.notes, shown))
	there, before, view := indexOf(shown), indexOf(was), indexOf(p.view)
	p.in, p.out = map[tokencache.Account]bool{}, map[tokencache.Account]bool{}
	for a := range view.signedIn {
		p.in[a] = !before.signedIn[a]
	}
	for _, a := range merge.SignedOut(was, p.view) {
		if a = a.Identity(); there.any[a] && !p.in[a] {
			p.out[a] = true
		}
	}
	for a := range there.any {
		if !view.any[a] {
			p.out[a] = true
		}
	}
	p.now = notes{map[tokencache.Account]bool{}, map[grant]bool{}}
	for a := range p.hidden {
		if !p.in[a] {
			p.now.hidden[a] = true
		}
	}
	for a := range p.out {
		p.now.hidden[a] = true
	}
	p.shown = p.Sides.shown(p.now.hidden)
	p.of, p.before = indexOf(p.shown), indexOf(p.Own)
}

// findOwn finds out which grants of the view are own's.
func (p *putter) findOwn() {
	p.isOwn, p.keeps, p.clients = map[grant]bool{}, map[tokencache.Account]bool{}, map[string]bool{}
	for g := range indexOf(p.view).grants {
		switch {
		case p.in[g.account]:
			p.isOwn[g] = true
		case p.theirs[g] && p.of.signedIn[g.account]:
		case p.theirs[g]: // the old one has ended, or was not shown: this one is new
			p.isOwn[g] = true
		case p.before.grants[g]:
			p.isOwn[g] = true
		default:
			p.isOwn[g] = !p.of.grants[g] || !p.of.signedIn[g.account]
		}
	}
	each(p.view, func(section string, e *tokencache.Entry) {
		if g := grantOf(e); tokencache.Credential(section) && p.isOwn[g] && p.toStore(section, e) != nil {
			p.keeps[g.account], p.clients[g.client] = true, true
		}
	})
	for a := range p.keeps {
		p.isOwn[grant{account: a}] = true
	}
}

// toStore returns the entry that own stores for an entry e of the view, or nil.
func (p *putter) toStore(section string, e *tokencache.Entry) *tokencache.Entry {
	g := grantOf(e)
	if p.out[g.account] && (p.theirs[g] || tokencache.Same(find(p.Theirs, section, e), e)) {
		return nil // MSAL leaves refresh tokens of other clients
	}
	if !tokencache.Same(find(p.shown, section, e), e) {
		return e
	}
	if g.account.HomeAccountID != "" && !p.isOwn[g] {
		return nil
	}
	if old := find(p.Own, section, e); old != nil && tokencache.Credential(section) && !p.theirs[g] {
		return old // theirs is shown over it
	}
	if section == tokencache.AccountSection && p.keeps[g.account] || section == tokencache.AppMetadata && p.clients[g.client] {
		return e
	}
	return nil
}

// find returns the entry of d with the key of e.
func find(d *tokencache.Doc, section string, e *tokencache.Entry) *tokencache.Entry {
	f := d.Section(section).Finder()
	return f.Find(e)
}

// build returns the new own cache.
func (p *putter) build() []byte {
	var b tokencache.Builder
	left := p.unseen()
	for i := range p.view.Sections() {
		s := &p.view.Sections()[i]
		switch {
		case s.Name == Section:
		case !s.Object || !tokencache.Shared(s.Name):
			b.Copy(s)
		default:
			var kept []*tokencache.Entry
			for i := range s.Entries {
				if e := p.toStore(s.Name, &s.Entries[i]); e != nil {
					kept = append(kept, e)
					p.note(e)
				}
			}
			if kept = append(kept, left[s.Name]...); len(kept) > 0 {
				b.Entries(s, kept)
			}
			delete(left, s.Name)
		}
	}
	for i := range p.Own.Sections() {
		if s := &p.Own.Sections()[i]; len(left[s.Name]) > 0 {
			b.Entries(s, left[s.Name])
		}
	}
	if s := p.now.section(); s != nil {
		b.Copy(s)
	}
	return b.Bytes()
}

// note notes that an entry which own stores is theirs, if it is.
func (p *putter) note(e *tokencache.Entry) {
	if g := grantOf(e); g.account.HomeAccountID != "" && !p.isOwn[g] {
		p.now.theirs[g] = true
	}
}

// unseen returns, by section, the entries of own that the view does not have because
// theirs could not be read.
func (p *putter) unseen() map[string][]*tokencache.Entry {
	left := map[string][]*tokencache.Entry{}
	if !p.Unread {
		return left
	}
	each(p.Own, func(section string, e *tokencache.Entry) {
		g := grantOf(e)
		if p.theirs[g] && !p.of.signedIn[g.account] && !p.isOwn[g] && !p.in[g.account] && find(p.view, section, e) == nil {
			left[section] = append(left[section], e)
			p.now.theirs[g] = true
		}
	})
	return left
}

// Together merges the caches of several other programs: if two have the same entry, the
// newer one.
func Together(docs []*tokencache.Doc, now time.Time) *tokencache.Doc {
	all := parsed(nil)
	for i, d := range docs {
		if i == 0 {
			all = d
			continue
		}
		all = parsed(merge.Merge(merge.Input{Ours: all, Theirs: d, Now: now}).Merged)
	}
	return all
}

// Strangers returns the environments, sorted, of accounts that are not shown because
// their authority may accept each refresh token only once. only reports whether theirs
// has no other accounts.
func Strangers(theirs *tokencache.Doc) (environments []string, only bool) {
	found, others := map[string]bool{}, false
	each(theirs, func(_ string, e *tokencache.Entry) {
		switch a := e.Account(); {
		case a.HomeAccountID == "":
		case tokencache.Entra(a.Environment):
			others = true
		default:
			found[a.Environment] = true
		}
	})
	for e := range found {
		environments = append(environments, e)
	}
	slices.Sort(environments)
	return environments, len(found) > 0 && !others
}
