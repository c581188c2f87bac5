package tokencache

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/quote"
)

// Refused names what MSAL Go cannot take: an entry or, if Whole, a section.
type Refused struct {
	Section, Key string
	Whole        bool
}

// String returns the names, quoted.
func (r Refused) String() string {
	if r.Whole {
		return quote.Text(r.Section)
	}
	return quote.Text(r.Section) + " " + quote.Text(r.Key)
}

// Names returns the names of the first few of what was refused, quoted.
func Names(refused []Refused) string {
	const most = 5
	var names []string
	for _, r := range refused[:min(len(refused), most)] {
		names = append(names, r.String())
	}
	if more := len(refused) - most; more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}

// Sound returns the cache without what MSAL Go cannot take. One such entry is
// enough: MSAL then refuses the whole cache, or writes broken JSON when it
// serializes it. data is Data itself if there is nothing of that kind. Sections
// that MSAL does not know stay as they are.
func (d *Doc) Sound() (data []byte, refused []Refused) {
	var b Builder
	same := !d.repeats
	for i := range d.sections {
		s := &d.sections[i]
		kind, known := msalSections()[s.Name]
		switch {
		case !known:
			b.Copy(s)
			continue
		case !s.Object:
			refused = append(refused, Refused{Section: s.Name, Whole: true})
			continue
		}
		kept := make([]*Entry, 0, len(s.Entries))
		for i := range s.Entries {
			if e := &s.Entries[i]; kind.takes(e) {
				kept = append(kept, e)
			} else {
				refused = append(refused, Refused{Section: s.Name, Key: e.Key()})
			}
		}
		if s.repeats || len(kept) < len(s.Entries) {
			same = false
			b.Entries(s, kept)
		} else {
			b.Copy(s)
		}
	}
	if same && len(refused) == 0 {
		return d.data, nil
	}
	return b.Bytes(), refused
}

// Sound is [Doc.Sound] of bytes. It returns data that is not a token cache as it
// is.
func Sound(data []byte) (sound []byte, refused []Refused) {
	d, err := Parse(data)
	if err != nil {
		return data, nil
	}
	return d.Sound()
}

// An msalType is a struct of MSAL Go.
type msalType struct {
	any    bool                 // a map that takes any entry
	fields map[string]msalField // by their names in JSON, and by those in Go, which MSAL takes as well
}

type msalField struct {
	kind byte   // 's' a string, 't' a time, 'm' a map
	bit  uint32 // one for each field of a struct
}

// msalSections returns the sections that MSAL Go 1.10.1 knows: the fields of
// Contract and of the types of its entries, in apps/internal/base/storage/items.go,
// apps/internal/oauth/ops/accesstokens/tokens.go and apps/internal/shared/shared.go.
var msalSections = sync.OnceValue(func() map[string]msalType {
	all := map[string]msalType{"AdditionalFields": {any: true}}
	for _, c := range [...]struct{ sections, strings, times string }{
		{"AccessToken AccessTokens",
			"home_account_id HomeAccountID environment Environment realm Realm credential_type CredentialType client_id ClientID secret Secret " +
				"target Scopes user_assertion_hash UserAssertionHash token_type TokenType keyid AuthnSchemeKeyID ext_cache_key ExtCacheKey",
			"refresh_on RefreshOn expires_on ExpiresOn extended_expires_on ExtendedExpiresOn cached_at CachedAt"},
		{"RefreshToken RefreshTokens",
			"home_account_id HomeAccountID environment Environment credential_type CredentialType client_id ClientID family_id FamilyID " +
				"secret Secret realm Realm target Target user_assertion_hash UserAssertionHash", ""},
		{"IdToken IDTokens",
			"home_account_id HomeAccountID environment Environment realm Realm credential_type CredentialType client_id ClientID " +
				"secret Secret user_assertion_hash UserAssertionHash", ""},
		{"Account Accounts",
			"home_account_id HomeAccountID environment Environment realm Realm local_account_id LocalAccountID authority_type AuthorityType " +
				"username PreferredUsername given_name GivenName family_name FamilyName middle_name MiddleName name Name " +
				"alternative_account_id AlternativeID client_info RawClientInfo user_assertion_hash UserAssertionHash", ""},
		{"AppMetadata AppMetaData",
			"family_id FamilyID client_id ClientID environment Environment", ""},
	} {
		t := msalType{fields: map[string]msalField{}}
		add := func(names string, kind byte) {
			pairs := strings.Fields(names)
			for i := 0; i < len(pairs); i += 2 {
				f := msalField{kind, 1 << (len(t.fields) / 2)}
				t.fields[pairs[i]], t.fields[pairs[i+1]] = f, f
			}
		}
		add(c.strings, 's')
		add(c.times, 't')
		t.fields["AdditionalFields"] = msalField{kind: 'm'}
		for _, name := range strings.Fields(c.sections) {
			all[name] = t
		}
	}
	return all
})

// takes reports whether MSAL Go can read an entry, and can write it as JSON again. What
// it writes is not JSON for an entry without content, for the first second of the year 1
// and for some names of fields.
func (t msalType) takes(e *Entry) bool {
	if !writable(text(e.key)) {
		return false
	}
	if t.any {
		return true
	}
	if e.val[0] != '{' {
		return false
	}
	var space [32]field
	var says, others uint32 // which fields say something; others are those that MSAL does not know
	for _, f := range appendFields(space[:0], e.val) {
		known := t.fields[string(f.key)]
		switch known.kind {
		case 's':
			switch f.val[0] {
			case '"':
				says &^= known.bit
				if len(f.val) > len(`""`) {
					says |= known.bit
				}
			case 'n': // changes nothing
			default:
				return false
			}
		case 't':
			n, err := strconv.Atoi(string(bytes.Trim(f.val, `"`)))
			if err != nil || int64(n) == (time.Time{}).Unix() {
				return false
			}
			says |= known.bit
		case 'm':
			if f.val[0] != '{' && f.val[0] != 'n' {
				return false
			}
			others = 0
			if f.val[0] == 'n' {
				continue
			}
			for _, inner := range appendFields(nil, f.val) {
				if !writable(inner.key) {
					return false
				}
				others = 1
			}
		default:
			if !writable(f.key) {
				return false
			}
			others = 1
		}
	}
	return says|others != 0
}

// writable reports whether MSAL Go writes a key as JSON: it quotes keys as Go does.
func writable(key []byte) bool {
	plain := true
	for _, c := range key {
		plain = plain && ' ' <= c && c < 0x7f
	}
	if plain {
		return true
	}
	quoted := []byte(strconv.Quote(string(key)))
	return str(quoted, 0) == len(quoted)
}
