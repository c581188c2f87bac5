package tokencache

import (
	"bytes"
	"slices"
)

// compareDepth is how deeply nested values compare field by field. MSAL nests
// not at all; what lies deeper compares byte for byte, so that no input takes
// long to compare.
const compareDepth = 64

// Equal reports whether two caches say the same. Entries compare by what they
// say: the order of sections, entries and fields does not count, a field that is
// absent, null or "" is one and the same, so is a number and the string of its
// digits, and so are an empty section and none.
func Equal(a, b *Doc) bool {
	for i := range a.sections {
		s := &a.sections[i]
		if !sameSection(s, b.Section(s.Name)) {
			return false
		}
	}
	for i := range b.sections {
		if s := &b.sections[i]; a.Section(s.Name) == nil && s.Whole() != nil {
			return false
		}
	}
	return true
}

// sameSection compares two sections of one name; b may be nil.
func sameSection(a, b *Section) bool {
	if b == nil || !a.Object || !b.Object {
		return Same(a.Whole(), b.Whole())
	}
	if bytes.Equal(a.val, b.val) {
		return true
	}
	if len(a.Entries) != len(b.Entries) {
		return false
	}
	others := b.Finder()
	for i := range a.Entries {
		e := &a.Entries[i]
		if other := others.Find(e); other == nil || !Same(e, other) {
			return false
		}
	}
	return true
}

// Same reports whether the values of two entries say the same; nil is an absent
// entry.
func Same(a, b *Entry) bool {
	if a == nil || b == nil {
		return a == b
	}
	return sameValue(a.val, b.val, 0)
}

// sameValue compares two valid JSON values.
func sameValue(a, b []byte, depth int) bool {
	switch {
	case bytes.Equal(a, b) || isEmpty(a) && isEmpty(b):
		return true
	case depth > compareDepth:
		return false
	case a[0] == '{' && b[0] == '{':
		return sameFields(a, b, depth)
	case a[0] == '[' && b[0] == '[':
		return slices.EqualFunc(elements(a), elements(b), func(a, b []byte) bool { return sameValue(a, b, depth+1) })
	}
	ta, ok := scalar(a)
	if !ok {
		return false
	}
	tb, ok := scalar(b)
	return ok && bytes.Equal(ta, tb)
}

// sameFields compares two objects. A field that is absent is null or "".
func sameFields(a, b []byte, depth int) bool {
	var space [2][32]field // an entry of MSAL Go has up to 16
	fa, fb := appendFields(space[0][:0], a), appendFields(space[1][:0], b)
	if pairFields(fa, fb) {
		for i := range fa {
			if !sameValue(fa[i].val, fb[i].val, depth+1) {
				return false
			}
		}
		return true
	}
	fb = appendFields(space[1][:0], b) // in their order again: of repeated ones the last counts
	fa, fb = sortFields(fa), sortFields(fb)
	for len(fa) > 0 || len(fb) > 0 {
		order := 0
		switch {
		case len(fa) == 0:
			order = 1
		case len(fb) == 0:
			order = -1
		default:
			order = bytes.Compare(fa[0].key, fb[0].key)
		}
		va, vb := emptyString, emptyString
		if order <= 0 {
			va, fa = fa[0].val, fa[1:]
		}
		if order >= 0 {
			vb, fb = fb[0].val, fb[1:]
		}
		if !sameValue(va, vb, depth+1) {
			return false
		}
	}
	return true
}

// pairFields brings b into the order of a, and reports whether both have the same
// few keys, each of them once. That is so for most objects that say the same, and takes
// less time than sorting both.
func pairFields(a, b []field) bool {
	if len(a) != len(b) || len(a) > 32 {
		return false
	}
	for i := range a {
		j := i
		for ; j < len(b) && !bytes.Equal(b[j].key, a[i].key); j++ {
		}
		if j == len(b) {
			return false
		}
		b[i], b[j] = b[j], b[i]
	}
	// Each of a has one of b to itself, so a key that a has twice b has twice.
	for i := range a {
		for _, other := range a[:i] {
			if bytes.Equal(other.key, a[i].key) {
				return false
			}
		}
	}
	return true
}

var emptyString = []byte(`""`)

// isEmpty reports whether a value counts as absent.
func isEmpty(v []byte) bool { return string(v) == `""` || string(v) == "null" }

// scalar returns the text of a string or number.
func scalar(v []byte) ([]byte, bool) {
	switch c := v[0]; {
	case c == '"':
		return text(v), true
	case c == '-' || '0' <= c && c <= '9':
		return v, true
	}
	return nil, false
}

// A field is one member of an object.
type field struct {
	key, val []byte // the key is decoded
}

// appendFields appends the members of a valid object, repeated ones included.
func appendFields(fs []field, obj []byte) []field {
	object(obj, 0, 0, func(key []byte, i int) int {
		end := skip(obj, i)
		fs = append(fs, field{text(key), obj[i:end]})
		return end
	})
	return fs
}

// sortFields sorts the members by their keys, and leaves of repeated ones the last.
func sortFields(fs []field) []field {
	slices.SortStableFunc(fs, func(a, b field) int { return bytes.Compare(a.key, b.key) })
	n := 0
	for i, f := range fs {
		if i+1 < len(fs) && bytes.Equal(f.key, fs[i+1].key) {
			continue
		}
		fs[n] = f
		n++
	}
	return fs[:n]
}

// elements returns the elements of a valid array.
func elements(arr []byte) [][]byte {
	var es [][]byte
	array(arr, 0, 0, func(i int) int {
		end := skip(arr, i)
		es = append(es, arr[i:end])
		return end
	})
	return es
}
