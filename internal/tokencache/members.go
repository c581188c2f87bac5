package tokencache

// A Member is one member of a JSON object, as it is written: the key with its
// quotes, and the value.
type Member struct{ Key, Value []byte }

// Name returns the key as a string.
func (m Member) Name() string { return string(text(m.Key)) }

// Members returns the members of an object in their order, repeated ones
// included. The object must be valid JSON, such as the value of a [Section], and
// begin with its brace.
func Members(obj []byte) []Member {
	var ms []Member
	object(obj, 0, 0, func(key []byte, i int) int {
		end := skip(obj, i)
		ms = append(ms, Member{key, obj[i:end]})
		return end
	})
	return ms
}

// Scalar returns the text of a string or number, which must be valid JSON. ok is
// false for any other value.
func Scalar(value []byte) (text string, ok bool) {
	b, ok := scalar(value)
	return string(b), ok
}
