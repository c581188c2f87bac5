// Package follow shows the token cache of another program beside a program's own.
// The other's is never written: what the program changes is kept in its own cache.
// Everything here is a pure function of documents; see package tokencache for the
// format.
//
// # The view and what is kept
//
// View is what the program sees: own and theirs, each entry once. Where both have an
// entry, rule 3 of package merge says which of the two is shown, and own where
// nothing decides. Put is the own cache after the program has made another view of
// it. It keeps what theirs does not have just so, and nothing else of theirs.
//
// # Accounts of theirs
//
// The credentials that a refresh here brings belong to a sign-in over there, and end
// with it. So Put notes in own, in the section [Section], for each account and
// client whether what it keeps of them is theirs: it is if theirs showed credentials
// of that account and client, and own had none, before the program brought its first
// ones. If theirs has no Account entry of the account any more, View does not show
// what is theirs, and Purge and Put remove it from own.
//
// What own had before, what another client id has got, and what a sign-in brings of
// an account that the view did not show, is own's, and stays. So does then the
// Account entry, also where theirs has it just so: MSAL finds no token without it.
//
// # Hidden accounts
//
// A view that does not have an account of theirs any more has signed it out (rule 5
// of package merge, or there is no entry of it left). Put notes the account as
// hidden: View shows nothing of theirs for it, whatever changes over there, until a
// view has an Account entry of it again. Names of one cloud are one.
//
// # The laws
//
//   - View after Put(View) is View. Own has lost at most what is theirs and is not
//     shown any more.
//   - View after Put(v) says v, where v changes nothing to what is older than theirs,
//     and removes only whole accounts and what is own's: a single entry of theirs
//     comes back.
//   - View after Purge is View.
//   - What Put returns holds no entry of theirs just so, but for those that a sign-in
//     of own needs.
//
// # Whom not to follow
//
// A refresh here spends a refresh token of theirs where the authority lets it be used
// only once, and signs the user out over there. Microsoft Entra ID lets it be used
// again. So only entries of Entra's own clouds are shown ([tokencache.Entra]).
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

// Section is where the own cache has the notes of this package. No view has it.
const Section = "TokenkeepFollow"

// Sides are the two caches.
type Sides struct {
	Own, Theirs *tokencache.Doc
	// Unread says that something of theirs could not be read, so that what is not
	// there may still be.
	Unread bool
	// Now is the time after which a time is in the future.
	Now time.Time
}

// A grant is what one client has of one account. Of an Account entry the client is
// "".
type grant struct {
	account tokencache.Account // its Identity
	client  string
}

func grantOf(e *tokencache.Entry) grant {
	f := e.Fields()
	return grant{f.Account.Identity(), tokencache.Fold(f.ClientID)}
}

// notes are what the section says.
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

// parsed parses what this package has built of parts of caches.
func parsed(data []byte) *tokencache.Doc {
	d, err := tokencache.Parse(data)
	if err != nil {
		panic(err) // not reached: parts of caches are one
	}
	return d
}

// filter returns the entries that keep reports true for, and of the other sections
// those that whole reports true for.
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

// index is what a document has entries of.
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

// shown returns what of theirs is shown where those accounts are hidden.
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

// mine returns what of own is shown beside that of theirs.
func (s Sides) mine(n notes, shown index) *tokencache.Doc {
	return filter(s.Own, func(*tokencache.Section) bool { return true }, func(_ string, e *tokencache.Entry) bool {
		return !ended(n, shown, e)
	})
}

// Alone reports whether there is nothing of theirs to show, nor any note of what
// there was: then the view is own as it is, whatever its format.
func (s Sides) Alone() bool {
	return len(s.Theirs.Sections()) == 0 && s.Own.Section(Section) == nil
}

// View returns what the program is to see.
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

// Purge returns own without what is theirs and has ended over there. It reports false
// if there is nothing of that kind, and where theirs could not be read.
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

// Put returns the own cache for another view. It is the data of Own itself if it
// would say the same.
func (s Sides) Put(view *tokencache.Doc) []byte {
	p := &putter{Sides: s, view: view, notes: notesIn(s.Own)}
	p.judge()
	p.choose()
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

	in, out map[tokencache.Account]bool // who signed in with the view, and who out
	shown   *tokencache.Doc             // what of theirs is shown from now on
	of      index                       // of shown
	before  index                       // of own
	now     notes
	isOwn   map[grant]bool              // of the view's grants
	keeps   map[tokencache.Account]bool // that have a credential of own's
	clients map[string]bool             // that have a credential of own's
}

// judge finds out who has signed in or out.
func (p *putter) judge() {
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

// choose finds out which grants of the view are own's.
func (p *putter) choose() {
	p.isOwn, p.keeps, p.clients = map[grant]bool{}, map[tokencache.Account]bool{}, map[string]bool{}
	for g := range indexOf(p.view).grants {
		switch {
		case p.in[g.account]:
			p.isOwn[g] = true
		case p.theirs[g] && p.of.signedIn[g.account]:
		case p.theirs[g]: // what it was has ended, or was not seen: this is new
			p.isOwn[g] = true
		case p.before.grants[g]:
			p.isOwn[g] = true
		default:
			p.isOwn[g] = !p.of.grants[g] || !p.of.signedIn[g.account]
		}
	}
	each(p.view, func(section string, e *tokencache.Entry) {
		if g := grantOf(e); tokencache.Credential(section) && p.isOwn[g] && p.stands(section, e) != nil {
			p.keeps[g.account], p.clients[g.client] = true, true
		}
	})
	for a := range p.keeps {
		p.isOwn[grant{account: a}] = true
	}
}

// stands returns the entry that own is to have where the view has e, or nil.
func (p *putter) stands(section string, e *tokencache.Entry) *tokencache.Entry {
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

// build puts the own cache together.
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
				if e := p.stands(s.Name, &s.Entries[i]); e != nil {
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

// note notes whether an entry that own is to have is theirs.
func (p *putter) note(e *tokencache.Entry) {
	if g := grantOf(e); g.account.HomeAccountID != "" && !p.isOwn[g] {
		p.now.theirs[g] = true
	}
}

// unseen returns the entries of own that the view could not have, because theirs
// could not be read, by section.
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

// Together returns what several others have: of two that have one entry the newer.
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

// Strangers returns the environments of accounts that are not shown because their
// refresh tokens may be spent by use, sorted. only reports whether there are no
// others.
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
