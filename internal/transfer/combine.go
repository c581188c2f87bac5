package transfer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/merge"
)

// Merge merges from into to: a three-way merge where base is what an earlier
// copy took, else (base is nil) one that keeps every entry of either, and of two
// tokens the newer. changed is false if to would stay as it is.
func Merge(base, from, to []byte) (merged []byte, changed bool, err error) {
	return merge.Merge(merge.Input{Base: base, BaseUnknown: base == nil, Ours: from, Theirs: to, Now: time.Now()})
}

// Malformed reports whether data starts as a JSON object and is no token cache:
// it breaks off, or is broken. Data of another format is not malformed, and
// neither is no data.
func Malformed(data []byte) bool {
	data = bytes.TrimLeft(data, " \t\r\n")
	if len(data) == 0 || data[0] != '{' {
		return false
	}
	_, err := merge.Accounts(data)
	return err != nil
}

// Accounts returns how many accounts data has. Data that is no token cache has
// none.
func Accounts(data []byte) int {
	accounts, _ := merge.Accounts(data)
	return len(accounts)
}

// Added is what [Add] did.
type Added struct {
	Entries int // that were added
	Left    int // that were neither added nor there already
}

// Add adds to a cache what data of unknown origin may add to it. to is a cache
// whose every entry was saved with its key; anybody who can write a file may
// have made from, from an old copy too. So Add
//
//   - replaces no entry: where both have a key, to's entry stands, whatever its
//     age;
//   - adds no account that to lacks, and no entry of such an account: it may have
//     been signed out;
//   - adds nothing to sections that are not MSAL's, where a key stands for a
//     sign-in of its own.
//
// What remains are entries of accounts that to has, and of no account.
func Add(from, to []byte) (sum []byte, changed bool, a Added, err error) {
	has, err := merge.Accounts(to)
	if err != nil {
		return nil, false, Added{}, err
	}
	known := map[account]bool{}
	for _, h := range has {
		known[account{h.HomeAccountID, h.Environment}.fold()] = true
	}
	fromSections, err := sections(from)
	if err != nil {
		return nil, false, Added{}, err
	}
	toSections, err := sections(to)
	if err != nil {
		return nil, false, Added{}, err
	}
	additions := map[string]map[string]json.RawMessage{}
	for name, section := range fromSections {
		theirs := toSections[name]
		for key, entry := range section.entries {
			of, isObject := accountOf(entry)
			switch {
			case theirs.has(key):
			case !shared[name], theirs.broken, !isObject, of.HomeAccountID != "" && !known[of.fold()]:
				a.Left++
			default:
				if additions[name] == nil {
					additions[name] = map[string]json.RawMessage{}
				}
				additions[name][key] = entry
				a.Entries++
			}
		}
		if section.broken {
			a.Left++
		}
	}
	if a.Entries == 0 {
		return to, false, a, nil
	}
	add, err := json.Marshal(additions)
	if err != nil {
		return nil, false, Added{}, fmt.Errorf("writing what is added: %w", err)
	}
	sum, changed, err = merge.Merge(merge.Input{BaseUnknown: true, Ours: add, Theirs: to, Now: time.Now()})
	return sum, changed, a, err
}

// shared are the sections of the MSAL libraries. Their keys pair without regard
// to case.
var shared = map[string]bool{"AccessToken": true, "RefreshToken": true, "IdToken": true, "Account": true, "AppMetadata": true}

type section struct {
	entries map[string]json.RawMessage
	folded  map[string]bool
	broken  bool // it is no object
}

func (s section) has(key string) bool { return s.folded[strings.ToLower(key)] }

func sections(data []byte) (map[string]section, error) {
	all := map[string]section{}
	if len(bytes.TrimSpace(data)) == 0 {
		return all, nil
	}
	var raw map[string]json.RawMessage
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&raw); err != nil || raw == nil {
		return nil, merge.ErrOurs // the decoder's own error may quote a token
	}
	for name, value := range raw {
		s := section{folded: map[string]bool{}}
		if json.Unmarshal(value, &s.entries) != nil {
			s.broken = true
		}
		for key := range s.entries {
			s.folded[strings.ToLower(key)] = true
		}
		all[name] = s
	}
	return all, nil
}

type account struct{ HomeAccountID, Environment string }

func (a account) fold() account {
	return account{strings.ToLower(a.HomeAccountID), strings.ToLower(a.Environment)}
}

// accountOf returns the account of an entry: the zero account for nobody's.
func accountOf(entry json.RawMessage) (a account, isObject bool) {
	// Not into a struct: its fields would also match names of another case.
	var fields map[string]json.RawMessage
	if json.Unmarshal(entry, &fields) != nil || fields == nil {
		return account{}, false
	}
	for name, into := range map[string]*string{"home_account_id": &a.HomeAccountID, "environment": &a.Environment} {
		if value := fields[name]; value != nil && json.Unmarshal(value, into) != nil {
			return account{}, false
		}
	}
	return a, true
}
