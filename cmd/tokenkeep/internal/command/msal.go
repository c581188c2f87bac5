package command

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/tokencache"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// contents is what a cache of the MSAL libraries and of package tokensource holds,
// without the secrets.
type contents struct {
	Accounts     []account `json:"accounts"`
	Applications []token   `json:"applicationTokens"` // of an application, not of an account
	Orphans      []token   `json:"orphanTokens"`      // of an account that is not there (any more)
	OAuth2       []oauth2  `json:"oauth2Tokens"`      // of package tokensource
	AppMetadata  int       `json:"appMetadata"`
	Unknown      int       `json:"unknownSections"`
}

type account struct {
	Username      string  `json:"username"`
	HomeAccountID string  `json:"homeAccountId"`
	Environment   string  `json:"environment"`
	Realm         string  `json:"realm"`
	Tokens        []token `json:"tokens"`
}

type token struct {
	Kind      string     `json:"kind"` // access, refresh or id
	ClientID  string     `json:"clientId,omitempty"`
	Family    string     `json:"family,omitempty"` // of clients, that share a refresh token
	Realm     string     `json:"realm,omitempty"`
	Scopes    []string   `json:"scopes,omitempty"`
	CachedAt  *time.Time `json:"cachedAt,omitempty"`
	ExpiresOn *time.Time `json:"expiresOn,omitempty"`
	Expired   bool       `json:"expired,omitempty"`
}

// oauth2 is a token that package tokensource keeps.
type oauth2 struct {
	Key          string     `json:"key"`
	TokenType    string     `json:"tokenType,omitempty"`
	Scopes       []string   `json:"scopes,omitempty"`
	RefreshToken bool       `json:"refreshToken"` // whether there is one
	CachedAt     *time.Time `json:"cachedAt,omitempty"`
	ExpiresOn    *time.Time `json:"expiresOn,omitempty"`
	Expired      bool       `json:"expired,omitempty"`
}

// parseCache parses a cache. Nothing of the data gets into the error.
func parseCache(data []byte) (*tokencache.Doc, error) {
	d, err := tokencache.Parse(tokencache.Trim(data))
	if err != nil {
		return nil, &refusal{"what is stored is not a token cache of an MSAL library", "Use the program that stored it.", persistence.ErrCorrupt}
	}
	return d, nil
}

// entriesOf returns the entries of a section, sorted by key.
func entriesOf(d *tokencache.Doc, section string) []*tokencache.Entry {
	all := d.Section(section).List()
	sorted := make([]*tokencache.Entry, len(all))
	for i := range all {
		sorted[i] = &all[i]
	}
	slices.SortFunc(sorted, func(a, b *tokencache.Entry) int { return cmp.Compare(a.Key(), b.Key()) })
	return sorted
}

// timeOf returns a time in seconds since 1970, and nil for what is not one.
func timeOf(seconds int64) *time.Time {
	if seconds <= 0 || seconds >= 1<<36 {
		return nil
	}
	t := time.Unix(seconds, 0).UTC()
	return &t
}

// summarize says what a cache holds.
func summarize(data []byte, now time.Time) (*contents, error) {
	d, err := parseCache(data)
	if err != nil {
		return nil, err
	}
	sum := &contents{Accounts: []account{}, Applications: []token{}, Orphans: []token{}, OAuth2: oauth2Of(d, now), AppMetadata: len(d.Section(tokencache.AppMetadata).List())}
	for _, s := range d.Sections() {
		if !tokencache.Shared(s.Name) && s.Name != tokencache.OAuth2Token {
			sum.Unknown++
		}
	}
	listed := map[tokencache.Account]bool{}
	byOwner := map[tokencache.Account]int{} // by name, and by identity for tokens under another name of the cloud
	for _, e := range entriesOf(d, tokencache.AccountSection) {
		a := e.Account()
		if listed[a.Name()] || a.HomeAccountID == "" {
			continue // an account may have an entry for each of its tenants
		}
		listed[a.Name()] = true
		byOwner[a.Name()] = len(sum.Accounts)
		if _, known := byOwner[a.Identity()]; !known {
			byOwner[a.Identity()] = len(sum.Accounts)
		}
		sum.Accounts = append(sum.Accounts, account{short(e.Field("username")), short(a.HomeAccountID), short(a.Environment), short(e.Field("realm")), []token{}})
	}
	for _, kind := range []struct{ section, name string }{{tokencache.AccessToken, "access"}, {tokencache.RefreshToken, "refresh"}, {tokencache.IDToken, "id"}} {
		for _, e := range entriesOf(d, kind.section) {
			f := e.Fields()
			t := token{Kind: kind.name, ClientID: short(f.ClientID), Family: short(f.FamilyID), Realm: short(f.Realm), Scopes: strings.Fields(short(e.Field("target"))),
				CachedAt: timeOf(f.Times[tokencache.CachedAt]), ExpiresOn: timeOf(f.Times[tokencache.ExpiresOn])}
			t.Expired = t.ExpiresOn != nil && !t.ExpiresOn.After(now)
			i, known := byOwner[f.Account.Name()]
			if !known {
				i, known = byOwner[f.Account.Identity()]
			}
			if known {
				sum.Accounts[i].Tokens = append(sum.Accounts[i].Tokens, t)
			} else if f.Account.HomeAccountID == "" {
				sum.Applications = append(sum.Applications, t)
			} else {
				sum.Orphans = append(sum.Orphans, t)
			}
		}
	}
	slices.SortStableFunc(sum.Accounts, func(a, b account) int { return cmp.Compare(a.Username, b.Username) })
	return sum, nil
}

// oauth2Of returns the tokens of package tokensource. A field that does not have its
// proper form is not shown.
func oauth2Of(d *tokencache.Doc, now time.Time) []oauth2 {
	tokens := []oauth2{}
	for _, e := range entriesOf(d, tokencache.OAuth2Token) {
		if e.Value()[0] != '{' {
			continue
		}
		f := e.Fields()
		t := oauth2{Key: short(e.Key()), TokenType: short(e.Field("token_type")), Scopes: strings.Fields(short(e.Field("scope"))),
			RefreshToken: e.Field("refresh_token") != "", CachedAt: timeOf(f.Times[tokencache.CachedAt]), ExpiresOn: timeOf(f.Times[tokencache.ExpiresOn])}
		t.Expired = t.ExpiresOn != nil && !t.ExpiresOn.After(now)
		tokens = append(tokens, t)
	}
	return tokens
}

func (t oauth2) line(now time.Time) string {
	var parts []string
	if t.TokenType != "" {
		parts = append(parts, t.TokenType)
	}
	if len(t.Scopes) > 0 {
		parts = append(parts, "for "+strings.Join(t.Scopes, " "))
	}
	expiry := expiryWords(t.ExpiresOn, now)
	if expiry == "" {
		expiry = "does not say when it expires"
	}
	refresh := "without a refresh token"
	if t.RefreshToken {
		refresh = "with a refresh token"
	}
	return fmt.Sprintf("%-8s %s", t.Key, strings.Join(append(parts, expiry, refresh), ", "))
}

// expiryWords says when a token expires or has expired, "" if that is not known.
func expiryWords(on *time.Time, now time.Time) string {
	switch {
	case on == nil:
		return ""
	case on.After(now):
		return "expires in " + ago(on.Sub(now))
	}
	return "expired " + ago(now.Sub(*on)) + " ago"
}

func (t token) line(now time.Time) string {
	var parts []string
	if t.ClientID != "" {
		parts = append(parts, "client "+t.ClientID)
	}
	if t.Family != "" {
		parts = append(parts, "family "+t.Family)
	}
	if len(t.Scopes) > 0 {
		parts = append(parts, "for "+strings.Join(t.Scopes, " "))
	}
	if expiry := expiryWords(t.ExpiresOn, now); expiry != "" {
		parts = append(parts, expiry)
	}
	return fmt.Sprintf("%-8s %s", t.Kind, strings.Join(parts, ", "))
}

// ago returns a duration as a person says it.
func ago(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return count(int(d.Seconds()), "second")
	case d < 2*time.Hour:
		return count(int(d.Minutes()), "minute")
	case d < 48*time.Hour:
		return count(int(d.Hours()), "hour")
	}
	return count(int(d.Hours()/24), "day")
}
