package tokencache

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"hash/maphash"
	"math/bits"
	"slices"
	"unicode/utf8"
)

// maxDepth is how deeply JSON may nest: the limit of encoding/json, so that
// both call the same bytes valid.
const maxDepth = 10000

// The sections that all MSAL libraries share.
const (
	accessToken  = "AccessToken"
	refreshToken = "RefreshToken"
	idToken      = "IdToken"
	account_     = "Account"
	appMetadata  = "AppMetadata"
)

// shared reports whether MSAL libraries share the section. Only then is it
// sure that keys that differ in nothing but case name one thing.
func shared(name string) bool {
	switch name {
	case accessToken, refreshToken, idToken, account_, appMetadata:
		return true
	}
	return false
}

// An entry is one key of a section with its value. key (with its quotes) and
// val are slices of the input, without white space around them.
type entry struct {
	key, val []byte
	pair     []byte // what pairs it with an entry of another cache; most often a part of key
}

// A section is one key of the outer object with its value.
type section struct {
	name     string
	key, val []byte
	object   bool    // null counts as an object without keys: so MSAL reads it
	exact    bool    // pairs with regard to case
	entries  []entry // one of each pair
	slots    []int32 // a hash table by entry.pair: where the entry is, counted from 1, or 0
}

// A doc is a scanned cache.
type doc struct {
	sections []section
	index    map[string]int32 // by section.name
}

// scan splits data into sections and entries. No data is an empty cache. It
// reports false unless data begins with a JSON object; like MSAL, it ignores
// what follows that object.
func scan(data []byte) (*doc, bool) {
	d := &doc{index: map[string]int32{}}
	if len(data) == 0 {
		return d, true
	}
	i := space(data, 0)
	if i == len(data) || data[i] != '{' {
		return nil, false
	}
	end := object(data, i, 1, func(key []byte, i int) int {
		s := section{key: key, name: string(text(key))}
		end := -1
		if data[i] == '{' {
			end = object(data, i, 2, func(key []byte, i int) int {
				end := value(data, i, 2)
				if end >= 0 {
					if n := len(s.entries); n == cap(s.entries) {
						s.entries = slices.Grow(s.entries, max(n, 16)) // append alone grows by a quarter, and leaves four times as much behind
					}
					s.entries = append(s.entries, entry{key: key, val: data[i:end]})
				}
				return end
			})
		} else {
			end = value(data, i, 1)
		}
		if end >= 0 {
			s.val = data[i:end]
			s.object = data[i] == '{' || data[i] == 'n'
			d.add(s)
		}
		return end
	})
	return d, end >= 0
}

// add adds a section; of two with one name the last counts, as MSAL reads it.
func (d *doc) add(s section) {
	s.build(false)
	if i, ok := d.index[s.name]; ok {
		d.sections[i] = s
		return
	}
	d.index[s.name] = int32(len(d.sections))
	d.sections = append(d.sections, s)
}

// build pairs the entries by their keys, with or without regard to case. Where
// two keys in a section that nobody here knows differ in case only, they may
// well be two things: then it has regard to case whatever was asked.
func (s *section) build(exact bool) {
	s.exact = exact
	s.slots = make([]int32, 2<<bits.Len(uint(len(s.entries))))
	kept := s.entries[:0]
	for n, e := range s.entries {
		k := text(e.key)
		e.pair = k
		if !exact && !isLower(k) {
			e.pair = bytes.ToLower(k)
		}
		slot := s.slot(e.pair)
		if *slot == 0 {
			kept = append(kept, e)
			*slot = int32(len(kept))
			continue
		}
		i := *slot - 1
		before := text(kept[i].key)
		switch {
		case bytes.Equal(before, k):
			kept[i] = e // of one key the last counts
		case !shared(s.name):
			s.entries = append(kept, s.entries[n:]...)
			s.build(true)
			return
		case !bytes.Equal(before, e.pair):
			kept[i] = e // MSAL prefers the lower-case key, an old version wrote the other
		}
	}
	s.entries = kept
}

var seed = maphash.MakeSeed()

// slot returns where the table has the entry of that pair, or would have it.
// Half of the table is empty at least.
func (s *section) slot(pair []byte) *int32 {
	for h := maphash.Bytes(seed, pair); ; h++ {
		slot := &s.slots[h&uint64(len(s.slots)-1)]
		if *slot == 0 || bytes.Equal(s.entries[*slot-1].pair, pair) {
			return slot
		}
	}
}

// isLower reports whether k is in ASCII and has no capital letter, as nearly
// every key is: that is much cheaper to find out than to lower the case.
func isLower(k []byte) bool {
	for _, c := range k {
		if c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return true
}

// pairAlike makes the sections (some may be nil) pair in the same way.
func pairAlike(ss ...*section) {
	exact := false
	for _, s := range ss {
		exact = exact || s != nil && s.exact
	}
	for _, s := range ss {
		if s != nil && s.exact != exact {
			s.build(exact)
		}
	}
}

// section returns the section of that name, or nil.
func (d *doc) section(name string) *section {
	if i, ok := d.index[name]; ok {
		return &d.sections[i]
	}
	return nil
}

// find returns the entry of that pair, or nil. hint is where it is if both
// caches have one order.
func (s *section) find(pair []byte, hint int) *entry {
	if s == nil {
		return nil
	}
	if hint < len(s.entries) && bytes.Equal(s.entries[hint].pair, pair) {
		return &s.entries[hint]
	}
	if len(s.entries) > 0 {
		if at := *s.slot(pair); at != 0 {
			return &s.entries[at-1]
		}
	}
	return nil
}

// whole returns the section as one entry, or nil if it is as good as absent.
func (s *section) whole() *entry {
	if s == nil || s.object && len(s.entries) == 0 || isEmpty(s.val) {
		return nil
	}
	return &entry{key: s.key, val: s.val}
}

// list returns the entries of a section that may be nil.
func (s *section) list() []entry {
	if s == nil {
		return nil
	}
	return s.entries
}

// text returns what a quoted JSON string means, as encoding/json decodes it: a
// slice of the input wherever possible.
func text(quoted []byte) []byte {
	in := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(in, '\\') < 0 && utf8.Valid(in) {
		return in
	}
	var s string
	if err := json.Unmarshal(quoted, &s); err != nil {
		return in // not reached: quoted is a valid string
	}
	return []byte(s)
}

// The scanner. Each function takes the index of a value's first byte and
// returns that of the first byte behind it, or -1 if the value is not valid
// JSON.

// object scans the object at i, which is nested that deeply. For each member
// it calls member, if not nil, with the key and the index of the value, to scan
// the value.
func object(b []byte, i, depth int, member func(key []byte, i int) int) int {
	if depth > maxDepth {
		return -1
	}
	i = space(b, i+1)
	if i < len(b) && b[i] == '}' {
		return i + 1
	}
	for i < len(b) && b[i] == '"' {
		start := i
		if i = str(b, i); i < 0 {
			return -1
		}
		key := b[start:i]
		if i = space(b, i); i == len(b) || b[i] != ':' {
			return -1
		}
		if i = space(b, i+1); i == len(b) {
			return -1
		}
		if member != nil {
			i = member(key, i)
		} else {
			i = value(b, i, depth)
		}
		if i < 0 {
			return -1
		}
		if i = space(b, i); i == len(b) {
			return -1
		}
		switch b[i] {
		case '}':
			return i + 1
		case ',':
			i = space(b, i+1)
		default:
			return -1
		}
	}
	return -1
}

// array is object for an array; element may be nil.
func array(b []byte, i, depth int, element func(i int) int) int {
	if depth > maxDepth {
		return -1
	}
	i = space(b, i+1)
	if i < len(b) && b[i] == ']' {
		return i + 1
	}
	for i < len(b) {
		if element != nil {
			i = element(i)
		} else {
			i = value(b, i, depth)
		}
		if i < 0 {
			return -1
		}
		if i = space(b, i); i == len(b) {
			return -1
		}
		switch b[i] {
		case ']':
			return i + 1
		case ',':
			i = space(b, i+1)
		default:
			return -1
		}
	}
	return -1
}

// value scans any value inside of depth objects and arrays.
func value(b []byte, i, depth int) int {
	switch c := b[i]; c {
	case '"':
		return str(b, i)
	case '{':
		return object(b, i, depth+1, nil)
	case '[':
		return array(b, i, depth+1, nil)
	case 't':
		return literal(b, i, "true")
	case 'f':
		return literal(b, i, "false")
	case 'n':
		return literal(b, i, "null")
	default:
		if c == '-' || '0' <= c && c <= '9' {
			return number(b, i)
		}
		return -1
	}
}

func literal(b []byte, i int, word string) int {
	if end := i + len(word); end <= len(b) && string(b[i:end]) == word {
		return end
	}
	return -1
}

func number(b []byte, i int) int {
	digits := func() bool {
		start := i
		for i < len(b) && '0' <= b[i] && b[i] <= '9' {
			i++
		}
		return i > start
	}
	if b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if !digits() {
		return -1
	}
	if i < len(b) && b[i] == '.' {
		i++
		if !digits() {
			return -1
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		if !digits() {
			return -1
		}
	}
	return i
}

const (
	ones  = 0x0101010101010101
	highs = 0x80 * ones
)

// longRun is how far into a string the search for its end goes over to
// [bytes.IndexByte], which is several times faster once it has begun.
const longRun = 64

func str(b []byte, i int) int {
	i++
	long := i + longRun
	for i < len(b) {
		// Most of a cache is long tokens: take eight bytes at a time while none
		// is a control character, a quote or a backslash. In such a byte's place
		// a subtraction borrows, and the lowest of them is right.
		for i+8 <= len(b) {
			x := binary.LittleEndian.Uint64(b[i:])
			special := (x - ' '*ones) | (x ^ '"'*ones - ones) | (x ^ '\\'*ones - ones)
			if special &= highs &^ x; special != 0 {
				i += bits.TrailingZeros64(special) / 8
				break
			}
			i += 8
			if i >= long {
				long = len(b) // only once in a string, lest many escapes take long
				if n := bytes.IndexByte(b[i:], '"'); n >= 0 && plain(b[i:i+n]) {
					return i + n + 1
				}
			}
		}
		if i == len(b) {
			return -1
		}
		switch c := b[i]; {
		case c == '"':
			return i + 1
		case c < ' ':
			return -1
		case c != '\\':
			i++
		default:
			if i = escape(b, i); i < 0 {
				return -1
			}
		}
	}
	return -1
}

// plain reports whether s has neither control characters nor backslashes.
func plain(s []byte) bool {
	if bytes.IndexByte(s, '\\') >= 0 {
		return false
	}
	var control uint64
	for ; len(s) >= 32; s = s[32:] {
		w, x := binary.LittleEndian.Uint64(s), binary.LittleEndian.Uint64(s[8:])
		y, z := binary.LittleEndian.Uint64(s[16:]), binary.LittleEndian.Uint64(s[24:])
		control |= (w-' '*ones)&^w | (x-' '*ones)&^x | (y-' '*ones)&^y | (z-' '*ones)&^z
	}
	for _, c := range s {
		if c < ' ' {
			return false
		}
	}
	return control&highs == 0
}

// escape scans what begins with the backslash at i.
func escape(b []byte, i int) int {
	if i+1 >= len(b) {
		return -1
	}
	switch b[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 2
	case 'u':
		if i+6 > len(b) {
			return -1
		}
		for _, c := range b[i+2 : i+6] {
			if !('0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F') {
				return -1
			}
		}
		return i + 6
	}
	return -1
}

// space returns the index of the first byte at or after i that is not white
// space.
func space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}
