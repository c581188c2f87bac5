// Package tokencache is a stub.
package tokencache

import (
	"errors"
	"math"
	"strconv"
)

type Doc struct {
	*doc
	data []byte
}
type Entry = entry

var ErrFormat = errors.New("not a token cache")
var Scans int

func Parse(data []byte) (*Doc, error) {
	Scans++
	d, ok := scan(data)
	if !ok {
		return nil, ErrFormat
	}
	return &Doc{d, data}, nil
}
func (d *Doc) Data() []byte { return d.data }

type Account struct{ HomeAccountID, Environment string }

func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 32
		}
	}
	return string(b)
}
func SameID(a, b string) bool { return lower(a) == lower(b) }
func (a Account) Identity() Account {
	e := lower(a.Environment)
	switch e {
	case "login.windows.net", "login.microsoftonline.com", "login.microsoft.com", "sts.windows.net":
		e = "login.microsoftonline.com"
	}
	return Account{lower(a.HomeAccountID), e}
}
func (a Account) SameName(b Account) bool {
	return lower(a.HomeAccountID) == lower(b.HomeAccountID) && lower(a.Environment) == lower(b.Environment)
}
func (e *Entry) Account() Account { f := fieldsOf(e.val); return f.account }
func (d *Doc) Accounts() (as []Account) {
	s := d.section(account_)
	for i := range s.list() {
		if a := s.entries[i].Account(); a.HomeAccountID != "" {
			as = append(as, a)
		}
	}
	return as
}
func Equal(a, b *Doc) bool { return sameDoc(a.doc, b.doc) }
func (d *Doc) HoldsTokens() bool {
	for i := range d.sections {
		if s := &d.sections[i]; s.name != appMetadata && s.whole() != nil {
			return true
		}
	}
	return false
}
func (d *Doc) Filter(keep func(section string, e *Entry) bool) (data []byte, removed int) {
	var o output
	for i := range d.sections {
		s := &d.sections[i]
		if !s.object {
			o.section(s.key, s.val)
			continue
		}
		own := []*entry{}
		for i := range s.entries {
			if keep(s.name, &s.entries[i]) {
				own = append(own, &s.entries[i])
			} else {
				removed++
			}
		}
		o.section(s.key, nil, own...)
	}
	if removed == 0 {
		return d.data, 0
	}
	return o.bytes(), removed
}

// Change is one account of which entries were added or changed.
type Change struct {
	Account     Account
	Refreshable bool
}

func ChangedAccounts(before, after *Doc) []Change {
	var cs []Change
	at := map[Account]int{}
	clients := map[Account]map[string]bool{}
	for i := range after.sections {
		s := &after.sections[i]
		if !s.object {
			continue
		}
		b := before.section(s.name)
		for i := range s.entries {
			e := &s.entries[i]
			if same(b.find(e.pair, i), e) {
				continue
			}
			f := fieldsOf(e.val)
			if f.account.HomeAccountID == "" {
				continue
			}
			a := f.account.Identity()
			if _, ok := at[a]; !ok {
				at[a] = len(cs)
				cs = append(cs, Change{Account: a})
				clients[a] = map[string]bool{}
			}
			clients[a][lower(f.client)] = true
		}
	}
	for _, e := range before.section(refreshToken).list() {
		f := fieldsOf(e.val)
		if i, ok := at[f.account.Identity()]; ok && (clients[f.account.Identity()][lower(f.client)] || f.family != "") {
			cs[i].Refreshable = true
		}
	}
	for _, e := range before.section(account_).list() {
		if i, ok := at[e.Account().Identity()]; ok {
			cs[i].Refreshable = true
		}
	}
	return cs
}
func (d *Doc) Restore(before *Doc, accounts []Account) []byte {
	of := map[Account]bool{}
	for _, a := range accounts {
		of[a] = true
	}
	var o output
	add := func(s *section, b *section) {
		if !s.object || b != nil && !b.object {
			o.section(s.key, s.val)
			return
		}
		es := []*entry{}
		for i := range s.entries {
			if !of[s.entries[i].Account().Identity()] {
				es = append(es, &s.entries[i])
			}
		}
		for i := range b.list() {
			if of[b.entries[i].Account().Identity()] {
				es = append(es, &b.entries[i])
			}
		}
		o.section(s.key, nil, es...)
	}
	for i := range d.sections {
		add(&d.sections[i], before.section(d.sections[i].name))
	}
	for i := range before.sections {
		b := &before.sections[i]
		if d.section(b.name) == nil && b.object {
			e := *b
			e.entries = nil
			add(&e, b)
		}
	}
	return o.bytes()
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

// fields are those fields of an entry that decide anything. A string is "" and
// a time is 0 if the field is missing or makes no sense.
type fields struct {
	account                     Account
	client, realm, hash, family string
	times                       [3]int64 // in seconds since 1970, the one that decides first first
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
		case "family_id":
			s = &f.family
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
