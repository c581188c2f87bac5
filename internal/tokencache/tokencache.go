// Package tokencache reads and writes the format of token caches.
//
// The MSAL libraries of all languages share one serialized cache: a JSON object
// of sections ("AccessToken", "RefreshToken", "IdToken", "Account",
// "AppMetadata"), each an object of entries, each an object of fields. Every
// library may add sections and fields of its own; package tokensource keeps its
// tokens in one. Two levels of keys lead to an entry, and they are all that this
// package needs: a cache is any JSON object, an entry any value.
//
// As in MSAL, the last of repeated keys counts, bytes after the object are ignored, and
// a section that is null has no entries. A section that is neither an object nor null
// has no entries either, and is carried through. Unlike MSAL, this package takes a UTF-8
// byte order mark before the object, and takes these for an empty cache: no bytes at
// all, white space, zero bytes, and null.
//
// In the sections that MSAL libraries share, keys that differ only in the case
// of ASCII letters are one: MSAL Go 1.0 wrote them in mixed case, and its
// successors in lower case. Of two such keys in one cache the lower-case one
// counts, as for MSAL. In all other sections keys are exact.
package tokencache

import (
	"bytes"
	"errors"
	"hash/maphash"
	"math/bits"
	"slices"
	"sync/atomic"
)

// The sections that all MSAL libraries share.
const (
	AccessToken    = "AccessToken"
	RefreshToken   = "RefreshToken"
	IDToken        = "IdToken"
	AccountSection = "Account"
	AppMetadata    = "AppMetadata"
)

// CAEAccessToken is the section of package azcredential: the access tokens of
// clients that can answer a claims challenge, in the form of AccessToken.
const CAEAccessToken = "AccessTokenCAE"

// OAuth2Token is the section of package tokensource.
const OAuth2Token = "OAuth2Token"

// Shared reports whether the section of that name has the form that all MSAL
// libraries share. Only there it is certain that keys which differ only in case name the
// same thing.
func Shared(section string) bool {
	switch section {
	case AccessToken, CAEAccessToken, RefreshToken, IDToken, AccountSection, AppMetadata:
		return true
	}
	return false
}

// Credential reports whether the entries of a shared section are tokens.
func Credential(section string) bool {
	return Shared(section) && section != AccountSection && section != AppMetadata
}

// ErrFormat says that data is not a token cache: it does not begin with a JSON
// object.
var ErrFormat = errors.New("not a token cache")

// A Doc is a parsed cache. It never changes, so several goroutines may use it.
// It keeps the bytes that it was parsed from, and nobody may change these.
type Doc struct {
	data     []byte
	end      int // where the object's closing brace is; 0 if there is no data
	sections []Section
	repeats  bool           // a section is there twice
	index    map[string]int // by Section.Name
}

// A Section is one key of the outer object with its value.
type Section struct {
	Name     string
	Object   bool    // false if the value is neither an object nor null
	Entries  []Entry // those that count, in their order
	repeats  bool    // there are others, which do not count
	key, val []byte
	slots    []int32 // a hash table by Entry.pair: where the entry is, counted from 1, or 0; nil if the entries are sorted by pair
}

// An Entry is one key of a section with its value.
type Entry struct {
	key, val []byte // slices of the data, the key with its quotes, without white space around them
	pair     []byte // what pairs it with an entry of another cache; most often a part of key
}

// Key returns the key of the entry.
func (e *Entry) Key() string { return string(text(e.key)) }

// Value returns the value of the entry: valid JSON, a part of the data.
func (e *Entry) Value() []byte { return e.val }

var parses atomic.Uint64

// Parses returns how often [Parse] has scanned data, for tests that count.
func Parses() uint64 { return parses.Load() }

// Parse parses a cache in one scan. The error is ErrFormat if data is not a
// cache.
func Parse(data []byte) (*Doc, error) {
	parses.Add(1)
	if data = Trim(data); len(data) == 0 {
		data = nil
	}
	d := &Doc{data: data, index: map[string]int{}}
	if data == nil {
		return d, nil
	}
	i := space(data, 0)
	if i == len(data) || data[i] != '{' {
		return nil, ErrFormat
	}
	var last int // how many entries the section before has: a guess for the next
	end := object(data, i, 1, func(key []byte, i int) int {
		s := Section{key: key, Name: string(text(key))}
		folded := Shared(s.Name)
		sorted, end := true, -1
		if data[i] == '{' {
			start := i
			end = object(data, i, 2, func(key []byte, i int) int {
				end := value(data, i, 2)
				if end < 0 {
					return end
				}
				n := len(s.Entries)
				if n == cap(s.Entries) {
					s.Entries = slices.Grow(s.Entries, growth(n, last, i-start, len(data)-i))
				}
				e := Entry{key: key, val: data[i:end], pair: text(key)}
				if folded {
					e.pair = foldBytes(e.pair)
				}
				sorted = sorted && (n == 0 || bytes.Compare(s.Entries[n-1].pair, e.pair) < 0)
				s.Entries = append(s.Entries, e)
				return end
			})
		} else {
			end = value(data, i, 1)
		}
		if end < 0 {
			return end
		}
		last = len(s.Entries)
		s.val = data[i:end]
		s.Object = data[i] == '{' || data[i] == 'n'
		if !sorted {
			s.hash()
		}
		if at, ok := d.index[s.Name]; ok { // of two with one name the last counts
			d.sections[at] = s
			d.repeats = true
		} else {
			d.index[s.Name] = len(d.sections)
			d.sections = append(d.sections, s)
		}
		return end
	})
	if end < 0 {
		return nil, ErrFormat
	}
	d.end = end - 1
	return d, nil
}

// growth returns for how many more entries to make room in a section that has n entries
// in size bytes so far, when left bytes of data remain; before is the number of entries
// in the section before. Most entries have about the same size. Where they do not, at
// most 15 times as much room is made as is needed. (append grows by a quarter at a time,
// and leaves four times as much behind.)
func growth(n, before, size, left int) int {
	if n == 0 {
		return max(16, min(before, 64))
	}
	return min(max(left/(size/n+1)*17/16, n/4)+4, 15*n)
}

// Move makes d refer to other bytes, which are equal to its Data. Nobody else may use d.
// It returns false if the bytes cannot be equal; then d must not be used any more.
func (d *Doc) Move(to []byte) bool {
	if len(to) != len(d.data) {
		return false
	}
	from := d.data
	at := func(part []byte) []byte {
		i := cap(from) - cap(part)
		return to[i : i+len(part)]
	}
	for i := range d.sections {
		s := &d.sections[i]
		s.key, s.val = at(s.key), at(s.val)
		for i := range s.Entries {
			e := &s.Entries[i]
			key := at(e.key)
			if len(e.pair) > 0 && &e.pair[0] == &e.key[1] {
				e.pair = key[1 : len(key)-1]
			}
			e.key, e.val = key, at(e.val)
		}
	}
	d.data = to
	return true
}

// hash makes the table of a section whose entries are not sorted, and leaves
// the entries that count.
func (s *Section) hash() {
	s.slots = make([]int32, 2<<bits.Len(uint(len(s.Entries))))
	kept := s.Entries[:0]
	for _, e := range s.Entries {
		slot := s.slot(e.pair)
		if *slot == 0 {
			kept = append(kept, e)
			*slot = int32(len(kept))
			continue
		}
		// Of one key the last counts. Of two keys that differ in case it is the
		// lower-case one: an old version of MSAL wrote the other.
		old := &kept[*slot-1]
		if was := text(old.key); bytes.Equal(was, text(e.key)) || !bytes.Equal(was, e.pair) {
			*old = e
		}
	}
	s.repeats = len(kept) < len(s.Entries)
	s.Entries = kept
}

var seed = maphash.MakeSeed()

// slot returns where the table has the entry of that pair, or would have it. At
// least half of the table is empty.
func (s *Section) slot(pair []byte) *int32 {
	for h := maphash.Bytes(seed, pair); ; h++ {
		slot := &s.slots[h&uint64(len(s.slots)-1)]
		if *slot == 0 || bytes.Equal(s.Entries[*slot-1].pair, pair) {
			return slot
		}
	}
}

// Value returns the value of the section: valid JSON, a part of the data.
func (s *Section) Value() []byte { return s.val }

// Data returns the bytes that the cache was parsed from, without a byte order mark,
// and none if they held nothing.
func (d *Doc) Data() []byte { return d.data }

// Sections returns the sections in their order. Nobody may change them.
func (d *Doc) Sections() []Section { return d.sections }

// Section returns the section of that name, or nil.
func (d *Doc) Section(name string) *Section {
	if i, ok := d.index[name]; ok {
		return &d.sections[i]
	}
	return nil
}

// List returns the entries of a section that may be nil.
func (s *Section) List() []Entry {
	if s == nil {
		return nil
	}
	return s.Entries
}

// Whole returns the section, which may be nil, as one entry without a key of its
// own, or nil if it says as much as an absent one.
func (s *Section) Whole() *Entry {
	if s == nil || s.Object && len(s.Entries) == 0 || isEmpty(s.val) {
		return nil
	}
	return &Entry{key: s.key, val: s.val}
}

// A Finder finds the entries of one section. It is fast where it is asked in the
// order of the section, and logarithmic at worst.
type Finder struct {
	s    *Section
	next int
}

// Finder returns a Finder for the section, which may be nil.
func (s *Section) Finder() Finder { return Finder{s: s} }

// Find returns the entry that pairs with e, an entry of a section of the same
// name in another cache, or nil.
func (f *Finder) Find(e *Entry) *Entry { return f.find(e.pair) }

func (f *Finder) find(pair []byte) *Entry {
	if f.s == nil {
		return nil
	}
	es := f.s.Entries
	if f.next < len(es) && bytes.Equal(es[f.next].pair, pair) {
		f.next++
		return &es[f.next-1]
	}
	at := f.s.search(pair)
	if at < 0 {
		return nil
	}
	f.next = at + 1
	return &es[at]
}

// search returns the index of the entry of that pair, or -1.
func (s *Section) search(pair []byte) int {
	if s.slots != nil {
		return int(*s.slot(pair)) - 1
	}
	at, ok := slices.BinarySearchFunc(s.Entries, pair, func(e Entry, pair []byte) int { return bytes.Compare(e.pair, pair) })
	if !ok {
		return -1
	}
	return at
}
