package lens

import (
	"bytes"
	"slices"

	"github.com/tokenkeep/tokenkeep/internal/tokencache"
)

// Health is what is worth knowing about a whole file. It holds no secret.
type Health struct {
	Clients   []string // that have tokens, sorted
	Null      []string // sections that are null: MSAL Python fails on them
	Bad       []string // sections that MSAL.NET may not be able to read
	Twice     int      // tokens that are there under a second key
	Usernames int      // usernames that several accounts have: Azure CLI fails on them
}

// Examine returns the Health of a file. The error is ErrNotCache.
func Examine(data []byte) (*Health, error) {
	f, err := parse(data)
	if err != nil {
		return nil, err
	}
	h := &Health{}
	for _, m := range f.top {
		if tokencache.Shared(m.Name()) && bytes.Equal(m.Value, []byte("null")) {
			h.Null = append(h.Null, m.Name())
		}
	}
	for _, name := range sections {
		sec := f.shared[name]
		if sec == nil {
			continue
		}
		bad, seen := sec.bad, map[identity]bool{}
		for i := range sec.entries {
			e := &sec.entries[i]
			if bad = bad || e.odd; e.odd {
				continue
			}
			if seen[e.id] {
				h.Twice++
			}
			seen[e.id] = true
			if tokencache.Credential(name) && e.id.client != "" {
				h.Clients = append(h.Clients, e.id.client)
			}
		}
		if bad {
			h.Bad = append(h.Bad, name)
		}
	}
	slices.Sort(h.Clients)
	h.Clients = slices.Compact(h.Clients)
	for _, homes := range homesOf(f) {
		if len(homes) > 1 {
			h.Usernames++
		}
	}
	return h, nil
}

// user is a username in a cloud, without regard to case.
type user struct{ cloud, name string }

// homesOf returns the accounts that have each username, by their home.
func homesOf(f *file) map[user]map[string]bool {
	of := map[user]map[string]bool{}
	if sec := f.shared[tokencache.AccountSection]; sec != nil {
		for i := range sec.entries {
			u, home := userOf(&sec.entries[i])
			if u.name == "" {
				continue
			}
			if of[u] == nil {
				of[u] = map[string]bool{}
			}
			of[u][home] = true
		}
	}
	return of
}

func userOf(e *entry) (u user, home string) {
	if e.odd || e.account.HomeAccountID == "" {
		return user{}, ""
	}
	for _, fd := range e.fields {
		if fd.name == "username" {
			text, _ := tokencache.Scalar(fd.value)
			return user{e.account.Environment, tokencache.Fold(text)}, e.account.HomeAccountID
		}
	}
	return user{}, ""
}
