package tokencache

import (
	"cmp"
	"slices"
)

// An Account names an account by two fields that its entries have.
type Account struct{ HomeAccountID, Environment string }

// Identity returns the account in the form by which accounts compare with ==: the
// names of one cloud are one, and the case of ASCII letters does not count.
func (a Account) Identity() Account {
	return Account{Fold(a.HomeAccountID), Cloud(a.Environment)}
}

// Name returns the account in the form by which accounts compare with == where
// two names of one cloud are two: only the case of ASCII letters does not count.
func (a Account) Name() Account {
	return Account{Fold(a.HomeAccountID), Fold(a.Environment)}
}

// SameName reports whether both name one account under one name of its cloud.
// The case of ASCII letters does not count.
func (a Account) SameName(b Account) bool { return a.Name() == b.Name() }

// SameID reports whether two home account IDs are one: the case of ASCII letters
// does not count.
func SameID(a, b string) bool { return Fold(a) == Fold(b) }

// clouds are the other names of clouds that have several, by the name that is
// preferred in the network. They are those that MSAL Go 1.10.1 has built in,
// GetKnownMetadata in apps/internal/oauth/ops/authority/known_metadata.go.
var clouds = map[string]string{
	"login.windows.net":       "login.microsoftonline.com",
	"login.microsoft.com":     "login.microsoftonline.com",
	"sts.windows.net":         "login.microsoftonline.com",
	"login.chinacloudapi.cn":  "login.partner.microsoftonline.cn",
	"login.usgovcloudapi.net": "login.microsoftonline.us",
}

// Cloud returns the preferred name of the cloud that environment is a name of. For an
// environment that is not known it returns that name, with ASCII letters in lower case.
func Cloud(environment string) string {
	e := Fold(environment)
	return cmp.Or(clouds[e], e)
}

// SameCloud reports whether two environments are names of one cloud.
func SameCloud(a, b string) bool { return Cloud(a) == Cloud(b) }

// single are the names of those clouds that have one name, of the same list.
var single = map[string]bool{
	"login.microsoftonline.de":     true,
	"login-us.microsoftonline.com": true,
	"login.sovcloud-identity.fr":   true,
	"login.sovcloud-identity.de":   true,
	"login.sovcloud-identity.sg":   true,
}

// Entra reports whether an environment is a cloud of Microsoft Entra ID itself:
// one of those that MSAL Go 1.10.1 has built in. Customers' own hosts, AD FS and
// other providers are none.
func Entra(environment string) bool {
	cloud := Cloud(environment)
	if single[cloud] {
		return true
	}
	for _, c := range clouds {
		if c == cloud {
			return true
		}
	}
	return false
}

// Fold returns s with its ASCII letters in lower case, and all else as it is.
func Fold(s string) string {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			return string(foldBytes([]byte(s)))
		}
	}
	return s
}

// foldBytes is Fold. It returns b itself if there is nothing to fold.
func foldBytes(b []byte) []byte {
	for i, c := range b {
		if 'A' > c || c > 'Z' {
			continue
		}
		b = slices.Clone(b)
		for j, c := range b[i:] {
			if 'A' <= c && c <= 'Z' {
				b[i+j] = c + 'a' - 'A'
			}
		}
		break
	}
	return b
}

// Accounts returns the accounts that have an Account entry, as it writes them.
// They are sorted, and each name of an account is there once; an account that
// has entries under two names of its cloud is there twice.
func (d *Doc) Accounts() []Account {
	var as []Account
	s := d.Section(AccountSection)
	for i := range s.List() {
		if a := s.Entries[i].Account(); a.HomeAccountID != "" {
			as = append(as, a)
		}
	}
	return Distinct(as)
}

// Distinct sorts accounts and removes repetitions of one name. It changes as.
func Distinct(as []Account) []Account {
	slices.SortFunc(as, func(a, b Account) int {
		na, nb := a.Name(), b.Name()
		return cmp.Or(
			cmp.Compare(na.HomeAccountID, nb.HomeAccountID), cmp.Compare(na.Environment, nb.Environment),
			cmp.Compare(a.HomeAccountID, b.HomeAccountID), cmp.Compare(a.Environment, b.Environment))
	})
	return slices.CompactFunc(as, Account.SameName)
}

// HoldsTokens reports whether there is anything but AppMetadata.
func (d *Doc) HoldsTokens() bool {
	return slices.ContainsFunc(d.sections, func(s Section) bool { return s.Name != AppMetadata && s.Whole() != nil })
}

// A Change is one account of which entries were added or changed.
type Change struct {
	Account Account // its Identity
	// Refreshable is false if a refresh cannot have made the change: before, there
	// was neither an Account entry of the account nor a refresh token of a family or
	// of a client whose entries changed.
	Refreshable bool
}

// ChangedAccounts returns the accounts of which after has entries that before does not
// have, or has in another form, in the order of their first entries in after.
func ChangedAccounts(before, after *Doc) []Change {
	type client struct {
		of Account
		id string
	}
	var cs []Change
	at, clients := map[Account]int{}, map[client]bool{}
	for i := range after.sections {
		s := &after.sections[i]
		was := before.Section(s.Name).Finder()
		for i := range s.Entries {
			e := &s.Entries[i]
			if Same(was.Find(e), e) {
				continue
			}
			f := e.Fields()
			if f.Account.HomeAccountID == "" {
				continue
			}
			a := f.Account.Identity()
			if _, ok := at[a]; !ok {
				at[a] = len(cs)
				cs = append(cs, Change{Account: a})
			}
			clients[client{a, Fold(f.ClientID)}] = true
		}
	}
	if len(cs) == 0 {
		return nil
	}
	tokens := before.Section(RefreshToken)
	for i := range tokens.List() {
		f := tokens.Entries[i].Fields()
		a := f.Account.Identity()
		if n, ok := at[a]; ok && (f.FamilyID != "" || clients[client{a, Fold(f.ClientID)}]) {
			cs[n].Refreshable = true
		}
	}
	for _, a := range before.Accounts() {
		if n, ok := at[a.Identity()]; ok {
			cs[n].Refreshable = true
		}
	}
	return cs
}
