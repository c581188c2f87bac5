package tokencache

import (
	"bytes"
	"encoding/json"
	"slices"
)

// Get returns the entry of a key, or nil if there is none. The error is
// ErrFormat if the section is another value than an object or null.
func (d *Doc) Get(section, key string) (*Entry, error) {
	s := d.Section(section)
	if s == nil {
		return nil, nil
	}
	if !s.Object {
		return nil, ErrFormat
	}
	return s.get(key), nil
}

func (s *Section) get(key string) *Entry {
	if at := s.search(s.pairOf(key)); at >= 0 {
		return &s.Entries[at]
	}
	return nil
}

func (s *Section) pairOf(key string) []byte {
	if Shared(s.Name) {
		key = Fold(key)
	}
	return []byte(key)
}

// Keys returns the keys of a section in their order.
func (d *Doc) Keys(section string) []string {
	s := d.Section(section)
	var keys []string
	for i := range s.List() {
		keys = append(keys, s.Entries[i].Key())
	}
	return keys
}

// Set returns the cache with another value of one entry, which must be valid
// JSON. All other bytes stay as they are. The error is ErrFormat if the section
// is another value than an object or null. A key that is not UTF-8 is stored
// as encoding/json stores it, under another name.
func (d *Doc) Set(section, key string, value []byte) ([]byte, error) {
	member := func(name string, value []byte) []byte {
		quoted, err := json.Marshal(name)
		if err != nil {
			panic(err) // not reached: every string can be marshalled
		}
		return slices.Concat(quoted, []byte(":"), value)
	}
	s := d.Section(section)
	switch {
	case len(d.data) == 0:
		return slices.Concat([]byte("{"), member(section, slices.Concat([]byte("{"), member(key, value), []byte("}"))), []byte("}")), nil
	case s == nil:
		inner := slices.Concat([]byte("{"), member(key, value), []byte("}"))
		return d.splice(d.end, d.end, comma(d.data[:d.end]), member(section, inner)), nil
	case !s.Object:
		return nil, ErrFormat
	}
	from := d.offset(s.val)
	to := from + len(s.val)
	if s.val[0] == 'n' {
		return d.splice(from, to, []byte("{"), member(key, value), []byte("}")), nil
	}
	if e := s.get(key); e != nil {
		from := d.offset(e.val)
		return d.splice(from, from+len(e.val), value), nil
	}
	return d.splice(to-1, to-1, comma(s.val[:len(s.val)-1]), member(key, value)), nil
}

// Delete returns the cache without one entry, and without repetitions of its key.
// All other bytes stay as they are; if there is no such entry, it returns Data
// itself. The error is that of Set.
func (d *Doc) Delete(section, key string) ([]byte, error) {
	e, err := d.Get(section, key)
	if e == nil {
		return d.data, err
	}
	s := d.Section(section)
	type member struct {
		from, to int // in s.val
		goes     bool
	}
	var ms []member
	base := d.offset(s.val)
	object(s.val, 0, 0, func(key []byte, i int) int {
		end := skip(s.val, i)
		pair := text(key)
		if Shared(s.Name) {
			pair = foldBytes(pair)
		}
		ms = append(ms, member{d.offset(key) - base, end, bytes.Equal(pair, e.pair)})
		return end
	})
	inner := slices.Clone(s.val[:ms[0].from])
	last := -1 // the member that was written last
	for i, m := range ms {
		if m.goes {
			continue
		}
		if last >= 0 {
			inner = append(inner, s.val[ms[last].to:ms[last+1].from]...)
		}
		inner = append(inner, s.val[m.from:m.to]...)
		last = i
	}
	inner = append(inner, s.val[ms[len(ms)-1].to:]...)
	return d.splice(base, base+len(s.val), inner), nil
}

// comma returns what goes between an object without its closing brace and one
// member more.
func comma(object []byte) []byte {
	if object = bytes.TrimRight(object, " \t\r\n"); object[len(object)-1] == '{' {
		return nil
	}
	return []byte(",")
}

// offset returns where a part of the data begins.
func (d *Doc) offset(part []byte) int { return cap(d.data) - cap(part) }

// splice returns the data with other bytes between from and to.
func (d *Doc) splice(from, to int, parts ...[]byte) []byte {
	return slices.Concat(d.data[:from], slices.Concat(parts...), d.data[to:])
}
