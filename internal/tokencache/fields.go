package tokencache

import (
	"math"
	"strconv"
)

// Fields are those fields of an entry that decide anything. A string is "" and
// a time is 0 if the field is missing or makes no sense.
type Fields struct {
	Account                                  Account
	ClientID, FamilyID, Realm, AssertionHash string
	// Times are in seconds since 1970, in the order in which they decide which of two
	// entries is the newer.
	Times [3]int64
}

// The times of Fields.
const (
	CachedAt = iota
	ExpiresOn
	LastModified
)

// Fields returns those fields of the entry, which may be any value.
func (e *Entry) Fields() (f Fields) {
	if e.val[0] != '{' {
		return f
	}
	var space [32]field
	for _, fd := range appendFields(space[:0], e.val) {
		var s *string
		var t *int64
		switch string(fd.key) {
		case "home_account_id":
			s = &f.Account.HomeAccountID
		case "environment":
			s = &f.Account.Environment
		case "client_id":
			s = &f.ClientID
		case "family_id":
			s = &f.FamilyID
		case "realm":
			s = &f.Realm
		case "user_assertion_hash":
			s = &f.AssertionHash
		case "cached_at":
			t = &f.Times[CachedAt]
		case "expires_on":
			t = &f.Times[ExpiresOn]
		case "last_modification_time":
			t = &f.Times[LastModified]
		default:
			continue
		}
		v, _ := scalar(fd.val)
		if s != nil {
			*s = string(v)
		} else {
			*t = Seconds(string(v))
		}
	}
	return f
}

// Account returns the account of the entry as the entry writes it: the zero
// Account if it is of none.
func (e *Entry) Account() Account {
	f := e.Fields()
	return f.Account
}

// Field returns a field of the entry that is a string, or a number as it is
// written; "" if there is none.
func (e *Entry) Field(name string) (s string) {
	if e.val[0] != '{' {
		return ""
	}
	var space [32]field
	for _, fd := range appendFields(space[:0], e.val) {
		if string(fd.key) == name {
			v, _ := scalar(fd.val)
			s = string(v)
		}
	}
	return s
}

// Seconds parses a Unix time. Nothing was cached in 1970 or before, so 0 stands
// for a missing time.
func Seconds(s string) int64 {
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
