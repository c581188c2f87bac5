// Package lens shows the part of a shared token cache that belongs to some clients,
// and puts changes of that part back into the whole.
//
// View(file) is what MSAL Go sees: the credentials of the clients, each once and under
// the key that MSAL Go gives it; the accounts that have such a credential; and the
// clients' AppMetadata, which is made up if it is missing, because MSAL Go finds no
// refresh token without it. Put(file, view) is the file with the view's entries instead
// of those that were shown.
//
// # The laws
//
//   - View(Put(f, View(f))) = View(f).
//   - View(Put(f, v)) means the same as v, if v holds only what a view can hold, and
//     MSAL Go wrote it. What a view cannot hold is in the comment of [Lens.Put].
//   - What a view does not show is the same in Put(f, v) as in f, byte for byte.
//   - No identity is in Put(f, v) twice.
//
// An identity is what an entry is about, whatever its key: the MSAL libraries give
// one token different keys. If several entries have one identity, the one with the
// latest last_modification_time counts, or else the last one.
//
// Two names of one cloud are two environments here, as in the files.
package lens

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/tokencache"
)

// ErrShape: the file is one on which other libraries fail. It is not written to,
// because MSAL.NET deletes a file that it cannot parse.
var ErrShape = errors.New("its shape is not one that all MSAL libraries can read")

// ErrForeign: the view holds entries that do not belong in a shared cache.
var ErrForeign = errors.New("a cache that is shared with other programs holds entries of MSAL only")

// ErrUsername: an account of the view has the username of another one in the file.
var ErrUsername = errors.New("another account with this username is signed in there")

// Lens shows the entries of some clients. It never changes.
type Lens struct {
	clients   map[string]bool // in lower case
	signOut   bool
	usernames bool // each has one account
}

// New returns the Lens for some client ids. With signOut, an account that a view no
// longer has is removed even if other clients have credentials of it.
func New(clients []string, signOut bool) *Lens {
	l := &Lens{clients: map[string]bool{}, signOut: signOut}
	for _, c := range clients {
		l.clients[tokencache.Fold(c)] = true
	}
	return l
}

// Shows reports whether the entries of the client are shown.
func (l *Lens) Shows(client string) bool { return l.clients[tokencache.Fold(client)] }

// OneAccountPerUsername returns a Lens whose Put fails with ErrUsername instead of
// adding an account with a username that another one in the file has. Azure CLI
// fails on such a file.
func (l *Lens) OneAccountPerUsername() *Lens {
	same := *l
	same.usernames = true
	return &same
}

// sections are the sections of a view, in their order there.
var sections = []string{
	tokencache.AccessToken, tokencache.RefreshToken, tokencache.IDToken,
	tokencache.AccountSection, tokencache.AppMetadata,
}

// identity is what an entry is about.
type identity struct{ section, home, env, client, realm, more string }

// entry is an entry of a shared section.
type entry struct {
	tokencache.Member
	id      identity
	account tokencache.Account // by its Identity
	fields  []field            // those that MSAL Go is to see, sorted; of repeated ones the last
	key     string             // in a view
	// modified is its last_modification_time, 0 if it has none.
	modified int64
	odd      bool // some field that MSAL reads is no string or number
}

// field is one field of an entry. Its value is valid JSON, in canonical form.
type field struct {
	name  string
	value []byte
}

// shared is a section that all MSAL libraries share.
type shared struct {
	entries []entry
	bad     bool // it is no object, or one of its entries is not
}

// file is a parsed file.
type file struct {
	top    []tokencache.Member // of repeated shared sections only the last
	shared map[string]*shared
}

// ErrNotCache: the data is no JSON object, or something follows it.
var ErrNotCache = errors.New("it is not one JSON object")

// Whole reports whether data is one JSON object and nothing else, which is how
// every MSAL library writes a cache.
func Whole(data []byte) bool {
	data = bytes.TrimLeft(data, " \t\r\n")
	return len(data) > 0 && data[0] == '{' && json.Valid(data)
}

func parse(data []byte) (*file, error) {
	f := &file{shared: map[string]*shared{}}
	if len(bytes.TrimSpace(data)) == 0 {
		return f, nil
	}
	if !Whole(data) {
		return nil, ErrNotCache
	}
	all := tokencache.Members(bytes.TrimLeft(data, " \t\r\n"))
	last := map[string]int{}
	for i, m := range all {
		last[m.Name()] = i
	}
	for i, m := range all {
		name := m.Name()
		if last[name] != i {
			continue // no reader sees it
		}
		f.top = append(f.top, m)
		if tokencache.Shared(name) {
			f.shared[name] = parseSection(name, m.Value)
		}
	}
	return f, nil
}

func parseSection(name string, value []byte) *shared {
	s := &shared{}
	if value[0] != '{' {
		s.bad = value[0] != 'n'
		return s
	}
	for _, m := range tokencache.Members(value) {
		if m.Value[0] != '{' {
			s.bad = true
			s.entries = append(s.entries, entry{Member: m, odd: true})
			continue
		}
		s.entries = append(s.entries, parseEntry(name, m))
	}
	return s
}

// times are the fields that hold Unix times, of any section.
var times = map[string]bool{"cached_at": true, "expires_on": true, "extended_expires_on": true, "refresh_on": true, lastModified: true}

const (
	lastModified   = "last_modification_time"
	credentialType = "credential_type"
)

// known are the fields that MSAL Go 1.10.1 reads and writes, with those that other
// libraries need to be strings.
var known = map[string][]string{
	tokencache.AccessToken: {"home_account_id", "environment", "realm", "credential_type", "client_id", "secret", "target", "refresh_on",
		"expires_on", "extended_expires_on", "cached_at", "user_assertion_hash", "token_type", "keyid", "ext_cache_key"},
	tokencache.RefreshToken: {"home_account_id", "environment", "credential_type", "client_id", "family_id", "secret", "realm", "target", "user_assertion_hash"},
	tokencache.IDToken:      {"home_account_id", "environment", "realm", "credential_type", "client_id", "secret", "user_assertion_hash"},
	tokencache.AccountSection: {"home_account_id", "environment", "realm", "local_account_id", "authority_type", "username", "name",
		"alternative_account_id", "client_info", "given_name", "middle_name", "family_name", "user_assertion_hash"},
	tokencache.AppMetadata: {"family_id", "client_id", "environment"},
}

// hidden reports whether no view shows the field, because it is bookkeeping of other
// programs. A change of such fields alone is no change, and Put keeps them.
func hidden(section, name string) bool {
	return name == lastModified || section == tokencache.RefreshToken && name == "target"
}

// parseEntry reads an entry that is an object.
func parseEntry(section string, m tokencache.Member) entry {
	e := entry{Member: m}
	of := e.readFields(section)
	e.modified = tokencache.Seconds(of[lastModified])
	e.account = tokencache.Account{HomeAccountID: of["home_account_id"], Environment: of["environment"]}.Identity()
	e.identify(section, of)
	return e
}

// readFields sets fields and odd, and returns the text of each field that is not empty.
func (e *entry) readFields(section string) (of map[string]string) {
	of = map[string]string{}
	values := map[string][]byte{}
	for _, fd := range tokencache.Members(e.Value) {
		values[fd.Name()] = fd.Value
	}
	for name, v := range values {
		text, scalar := tokencache.Scalar(v)
		isKnown := slices.Contains(known[section], name) || times[name]
		switch {
		case string(v) == "null" || scalar && text == "":
			continue
		case times[name]:
			e.odd = e.odd || !scalar
			if n := tokencache.Seconds(text); n > 0 {
				text = strconv.FormatInt(n, 10)
			} else {
				continue
			}
		case isKnown:
			e.odd = e.odd || !scalar
			if name == credentialType && strings.EqualFold(text, section) {
				text = section // MSAL Go before 1.9 writes IDToken, on which MSAL Python fails
			}
		}
		of[name] = text
		if !hidden(section, name) {
			e.fields = append(e.fields, field{name, canonical(v, text, scalar)})
		}
	}
	slices.SortFunc(e.fields, func(a, b field) int { return strings.Compare(a.name, b.name) })
	return of
}

// identify sets id and key from the texts of the fields.
func (e *entry) identify(section string, of map[string]string) {
	e.id = identity{section: section, home: of["home_account_id"], env: of["environment"], client: of["client_id"], realm: of["realm"]}
	join := func(parts ...string) string { return strings.Join(parts, "-") }
	switch section {
	case tokencache.AccessToken:
		scheme := of["token_type"]
		if strings.EqualFold(scheme, "Bearer") {
			scheme = ""
		}
		scopes := strings.Fields(tokencache.Fold(of["target"]))
		slices.Sort(scopes)
		e.id.more = strings.Join([]string{strings.Join(scopes, " "), scheme, of["keyid"], of["key_id"], of["kid"], of["user_assertion_hash"], of["ext_cache_key"]}, "\n")
		kind := of[credentialType]
		if of["ext_cache_key"] != "" {
			kind = "atext"
		}
		e.key = join(e.id.home, e.id.env, kind, e.id.client, e.id.realm, of["target"])
		for _, more := range []string{scheme, of["ext_cache_key"]} {
			if more != "" {
				e.key += "-" + more
			}
		}
	case tokencache.RefreshToken:
		e.id.realm, e.id.more = "", of["user_assertion_hash"]
		e.key = join(e.id.home, e.id.env, of[credentialType], e.id.client)
		if f := of["family_id"]; f != "" {
			e.key = join(e.id.home, e.id.env, of[credentialType], f)
		}
	case tokencache.IDToken:
		e.id.more = of["user_assertion_hash"]
		e.key = join(e.id.home, e.id.env, of[credentialType], e.id.client, e.id.realm)
	case tokencache.AccountSection:
		e.id.client = ""
		e.key = join(e.id.home, e.id.env, e.id.realm)
	case tokencache.AppMetadata:
		e.id.home, e.id.realm = "", ""
		e.key = join("appmetadata", e.id.env, e.id.client)
	}
	e.key = strings.ToLower(e.key)
	for _, s := range []*string{&e.id.home, &e.id.env, &e.id.client, &e.id.realm, &e.id.more} {
		*s = tokencache.Fold(*s)
	}
}

// canonical returns a value in canonical form. A string or a number becomes the string
// of its text, which every MSAL library reads.
func canonical(v []byte, text string, scalar bool) []byte {
	if scalar {
		return quoted(text)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, v); err != nil {
		return v
	}
	return b.Bytes()
}

func quoted(s string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic(err) // not reached: every string can be encoded
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

func sameFields(a, b []field) bool {
	return slices.EqualFunc(a, b, func(a, b field) bool { return a.name == b.name && bytes.Equal(a.value, b.value) })
}

// newer reports whether b counts, and not a, which comes before it and has the same
// identity.
func newer(a, b *entry) bool {
	return a.modified == 0 || b.modified == 0 || b.modified >= a.modified
}

// shown is what a view shows of a file.
type shown struct {
	of     map[identity]*entry
	order  map[string][]*entry         // by section, those that count
	others map[tokencache.Account]bool // of which other clients have credentials
	madeUp []entry                     // AppMetadata that the file does not have
}

// app is a client in one cloud.
type app struct{ env, client string }

// look returns what a view shows of the file.
func (l *Lens) look(f *file) *shown {
	s := &shown{of: map[identity]*entry{}, order: map[string][]*entry{}, others: map[tokencache.Account]bool{}}
	own := map[tokencache.Account]bool{} // that have a credential of the clients
	apps := map[app]*entry{}             // with their first credential
	for _, name := range sections {      // credentials come before accounts
		sec := f.shared[name]
		if sec == nil {
			continue
		}
		for i := range sec.entries {
			e := &sec.entries[i]
			if e.odd {
				if tokencache.Credential(name) && e.account.HomeAccountID != "" {
					s.others[e.account] = true
				}
				continue
			}
			switch {
			case name == tokencache.AccountSection:
				if !own[e.account] {
					continue
				}
			case !l.clients[e.id.client]:
				if tokencache.Credential(name) {
					s.others[e.account] = true
				}
				continue
			case tokencache.Credential(name):
				own[e.account] = true
				if a := (app{e.id.env, e.id.client}); apps[a] == nil {
					apps[a] = e
				}
			}
			if was := s.of[e.id]; was != nil && !newer(was, e) {
				continue
			}
			s.of[e.id] = e
		}
		for i := range sec.entries {
			if e := &sec.entries[i]; s.of[e.id] == e {
				s.order[name] = append(s.order[name], e)
			}
		}
	}
	s.makeUp(apps)
	return s
}

// makeUp makes AppMetadata for the apps that have none in the file, each from a
// credential of the app.
func (s *shown) makeUp(apps map[app]*entry) {
	for a, e := range apps {
		id := identity{section: tokencache.AppMetadata, env: a.env, client: a.client}
		if s.of[id] != nil || a.env == "" {
			continue
		}
		m := entry{id: id}
		for _, fd := range e.fields {
			if fd.name == "client_id" || fd.name == "environment" {
				m.fields = append(m.fields, fd)
			}
		}
		m.key = strings.ToLower("appmetadata-" + a.env + "-" + a.client)
		s.madeUp = append(s.madeUp, m)
	}
}

// Empty reports whether a view holds nothing.
func Empty(view []byte) bool { return string(view) == "{}" }

// View returns what is shown of the file: a token cache of MSAL Go in canonical form,
// so that two files of which the same is shown have equal views. No data stands for no
// file. The error is ErrNotCache.
func (l *Lens) View(data []byte) ([]byte, error) {
	f, err := parse(data)
	if err != nil {
		return nil, err
	}
	return l.look(f).bytes(), nil
}

func (s *shown) bytes() []byte {
	var out bytes.Buffer
	out.WriteByte('{')
	for _, name := range sections {
		entries := s.order[name]
		if name == tokencache.AppMetadata {
			for i := range s.madeUp {
				entries = append(entries, &s.madeUp[i])
			}
		}
		if len(entries) == 0 {
			continue
		}
		keys := viewKeys(entries)
		slices.SortFunc(entries, func(a, b *entry) int { return strings.Compare(keys[a], keys[b]) })
		if out.Len() > 1 {
			out.WriteByte(',')
		}
		out.Write(quoted(name))
		out.WriteString(":{")
		for i, e := range entries {
			if i > 0 {
				out.WriteByte(',')
			}
			out.Write(quoted(keys[e]))
			out.WriteByte(':')
			writeFields(&out, e.fields)
		}
		out.WriteByte('}')
	}
	out.WriteByte('}')
	return out.Bytes()
}

func writeFields(out *bytes.Buffer, fields []field) {
	out.WriteByte('{')
	for i, fd := range fields {
		if i > 0 {
			out.WriteByte(',')
		}
		out.Write(quoted(fd.name))
		out.WriteByte(':')
		out.Write(fd.value)
	}
	out.WriteByte('}')
}

// viewKeys returns the keys of entries in a view: those of MSAL Go, made unique, since
// two clients of one family have the same key for their refresh tokens.
func viewKeys(entries []*entry) map[*entry]string {
	byIdentity := slices.Clone(entries)
	slices.SortFunc(byIdentity, func(a, b *entry) int {
		x, y := a.id, b.id
		return slices.Compare([]string{x.home, x.env, x.client, x.realm, x.more}, []string{y.home, y.env, y.client, y.realm, y.more})
	})
	keys, taken := map[*entry]string{}, map[string]bool{}
	for _, e := range byIdentity {
		key := e.key
		if taken[key] {
			key = strings.ToLower(strings.Join([]string{e.id.home, e.id.env, e.id.section, e.id.client, e.id.realm, e.id.more}, "-"))
		}
		for taken[key] {
			key += "-"
		}
		keys[e], taken[key] = key, true
	}
	return keys
}

// sharedKey returns the key that MSAL Python and MSAL.NET give the entry. Under MSAL
// Go's own key, an entry that Python refreshes would be there twice.
func sharedKey(e *entry) string {
	switch e.id.section {
	case tokencache.RefreshToken:
		return strings.ToLower(strings.Join([]string{e.id.home, e.id.env, "refreshtoken", e.id.client, "", ""}, "-"))
	case tokencache.IDToken:
		return e.key + "-"
	}
	return e.key
}

// Put returns the file with the entries of a view instead of those that View
// shows. now is the last_modification_time of what is changed.
//
// An entry that is changed keeps the fields that MSAL Go does not know. It also keeps
// its key, unless that is MSAL Go's key. An account that the view no longer has stays
// if other clients have credentials of it. An account that the file has only for other
// clients stays as it is, also if the view has it. Entries of other clients in the view
// are not put into the file.
//
// If nothing changes, Put returns data itself. It fails with ErrShape for a file
// that other libraries may fail on, with ErrNotCache for a file or a view that is
// no JSON object, with ErrForeign for a view with sections that are not MSAL's, and
// with ErrUsername as [Lens.OneAccountPerUsername] says.
func (l *Lens) Put(data, view []byte, now time.Time) ([]byte, error) {
	f, err := parse(data)
	if err != nil {
		return nil, err
	}
	v, err := parse(view)
	if err != nil {
		return nil, fmt.Errorf("what is to be stored: %w", err)
	}
	for name, sec := range f.shared {
		for i := range sec.entries {
			sec.bad = sec.bad || sec.entries[i].odd
		}
		if sec.bad {
			return nil, fmt.Errorf("%w: section %s", ErrShape, name)
		}
	}
	for _, m := range v.top {
		if name := m.Name(); !tokencache.Shared(name) && len(m.Value) > len(`{}`) && string(m.Value) != "null" {
			return nil, ErrForeign
		}
	}
	p := &putter{l: l, f: f, was: l.look(f), want: map[identity]*entry{}, now: now.Unix()}
	if err := p.read(v); err != nil {
		return nil, err
	}
	if l.usernames {
		if err := p.checkUsernames(); err != nil {
			return nil, err
		}
	}
	return p.write(data)
}

// checkUsernames returns ErrUsername if Put would add an account while another one with
// the same username stays.
func (p *putter) checkUsernames() error {
	gone := map[string]bool{} // home account ids that have no account any more
	for _, e := range p.was.order[tokencache.AccountSection] {
		if p.want[e.id] == nil && !p.stays(e) {
			gone[e.account.HomeAccountID] = true
		}
	}
	homes := homesOf(p.f)
	for _, e := range p.order[tokencache.AccountSection] {
		delete(gone, e.account.HomeAccountID)
	}
	for _, e := range p.order[tokencache.AccountSection] {
		u, home := userOf(e)
		if u.name == "" || homes[u][home] {
			continue // it was there before
		}
		for other := range homes[u] {
			if !gone[other] {
				return ErrUsername
			}
		}
		if homes[u] == nil {
			homes[u] = map[string]bool{}
		}
		homes[u][home] = true
	}
	return nil
}

// putter is one Put.
type putter struct {
	l     *Lens
	f     *file
	was   *shown
	want  map[identity]*entry
	order map[string][]*entry // by section, what the view has
	now   int64
}

// read takes the entries of the view.
func (p *putter) read(v *file) error {
	p.order = map[string][]*entry{}
	for _, name := range sections {
		sec := v.shared[name]
		if sec == nil {
			continue
		}
		if sec.bad {
			return fmt.Errorf("what is to be stored: %w", ErrShape)
		}
		for i := range sec.entries {
			e := &sec.entries[i]
			if e.odd {
				return fmt.Errorf("what is to be stored: %w", ErrShape)
			}
			if name != tokencache.AccountSection && !p.l.clients[e.id.client] {
				continue
			}
			// MSAL Go may have added an entry that was there under another key.
			if first := p.want[e.id]; first != nil && (p.changed(first) || !p.changed(e)) {
				continue
			}
			p.want[e.id] = e
		}
		for i := range sec.entries {
			if e := &sec.entries[i]; p.want[e.id] == e {
				p.order[name] = append(p.order[name], e)
			}
		}
	}
	return nil
}

// changed reports whether the view's entry differs from what was shown.
func (p *putter) changed(e *entry) bool {
	was := p.was.of[e.id]
	return was == nil || !sameFields(was.fields, e.fields)
}

// out is a member of a section to be written.
type out struct{ key, value []byte }

// write returns the new file.
func (p *putter) write(data []byte) ([]byte, error) {
	changed := false
	values := map[string][]byte{}
	for _, name := range sections {
		members, differs, err := p.section(name)
		if err != nil {
			return nil, err
		}
		if differs {
			values[name], changed = join(members), true
		}
	}
	if !changed {
		return data, nil
	}
	var members []out
	for _, m := range p.f.top {
		name := m.Name()
		value := m.Value
		if v, ok := values[name]; ok {
			value = v
			delete(values, name)
		} else if tokencache.Shared(name) && value[0] == 'n' {
			value = []byte("{}") // MSAL Python fails on null
		}
		members = append(members, out{m.Key, value})
	}
	for _, name := range sections {
		if v, ok := values[name]; ok {
			members = append(members, out{quoted(name), v})
		}
	}
	return join(members), nil
}

func join(members []out) []byte {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range members {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(m.key)
		b.WriteByte(':')
		b.Write(m.value)
	}
	b.WriteByte('}')
	return b.Bytes()
}

// section returns what the section holds, and whether that differs from the
// file's.
func (p *putter) section(name string) (members []out, differs bool, err error) {
	keys := map[string]bool{}
	add := func(key, value []byte) error {
		text, _ := tokencache.Scalar(key)
		if keys[text] {
			return fmt.Errorf("%w: another entry has a key that one of ours needs", ErrShape)
		}
		keys[text] = true
		members = append(members, out{key, value})
		return nil
	}
	theirs := map[identity]bool{}
	var ours []*entry // that have changed
	sec := p.f.shared[name]
	if sec == nil {
		sec = &shared{}
	}
	for i := range sec.entries {
		e := &sec.entries[i]
		winner := p.was.of[e.id]
		switch {
		case winner == nil: // not shown
			theirs[e.id] = true
			keys[e.Name()] = true
			members = append(members, out{e.Key, e.Value})
		case winner != e: // the same under another key
			differs = true
		case p.want[e.id] == nil && !p.stays(e):
			differs = true
		case p.want[e.id] == nil || !p.changed(p.want[e.id]):
			if err := add(e.Key, e.Value); err != nil {
				return nil, false, err
			}
		default:
			differs = true
			ours = append(ours, e)
		}
	}
	for _, e := range ours {
		key := e.Key
		if own := sharedKey(e); e.Name() == e.key && own != e.key {
			key = quoted(own)
		}
		if err := add(key, p.value(e, p.want[e.id])); err != nil {
			return nil, false, err
		}
	}
	for _, e := range p.order[name] {
		if p.was.of[e.id] != nil || theirs[e.id] || p.madeUp(e) {
			continue
		}
		differs = true
		if err := add(quoted(sharedKey(e)), p.value(nil, e)); err != nil {
			return nil, false, err
		}
	}
	return members, differs, nil
}

// stays reports whether an entry that the view no longer has stays in the file.
func (p *putter) stays(e *entry) bool {
	return e.id.section == tokencache.AccountSection && p.was.others[e.account] && !p.l.signOut
}

// madeUp reports whether View has made the entry up. Other libraries do not need it.
func (p *putter) madeUp(e *entry) bool {
	return slices.ContainsFunc(p.was.madeUp, func(m entry) bool { return m.id == e.id && sameFields(m.fields, e.fields) })
}

// value returns what is stored for e of the view. was is the entry that the file has
// for it, or nil.
func (p *putter) value(was, e *entry) []byte {
	section := e.id.section
	var b bytes.Buffer
	b.WriteByte('{')
	put := func(key, value []byte) {
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(value)
	}
	left := map[string][]byte{} // what is not put yet
	for _, fd := range e.fields {
		left[fd.name] = fd.value
	}
	if was != nil {
		last := map[string]int{}
		fields := tokencache.Members(was.Value)
		for i, m := range fields {
			last[m.Name()] = i
		}
		for i, m := range fields {
			name := m.Name()
			value, is := left[name]
			switch {
			case last[name] != i || name == lastModified:
			case is:
				put(m.Key, value)
				delete(left, name)
			case hidden(section, name), section == tokencache.AccountSection, !slices.Contains(known[section], name):
				put(m.Key, m.Value)
			}
		}
	}
	for _, fd := range e.fields {
		if value, is := left[fd.name]; is {
			put(quoted(fd.name), value)
		}
	}
	if tokencache.Credential(section) {
		put(quoted(lastModified), quoted(strconv.FormatInt(p.now, 10)))
	}
	b.WriteByte('}')
	return b.Bytes()
}
