package follow

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/tokencache"
)

const (
	cloud    = "login.microsoftonline.com"
	followed = "client-z" // whose entries the neighbour shows
	another  = "client-c" // the program's own
)

// cache is a token cache as tests change it: section, key, field.
type cache map[string]map[string]map[string]string

func (c cache) set(section, key string, fields map[string]string) {
	if c[section] == nil {
		c[section] = map[string]map[string]string{}
	}
	c[section][key] = fields
}

func (c cache) data() []byte {
	b, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	return b
}

func (c cache) doc() *tokencache.Doc { return parsed(c.data()) }

// account writes the Account entry of a user, as somebody does whose mark is by.
func (c cache) account(user, by string) {
	c.set(tokencache.AccountSection, user+"-"+cloud+"-t", map[string]string{
		"home_account_id": user, "environment": cloud, "realm": "t", "username": user, "by": by})
}

// answer puts what a token response brings.
func (c cache) answer(user, client, scope string, at int, by string) {
	text := fmt.Sprint(at, by) // no two answers of an authority are the same
	entry := func(kind, more string) map[string]string {
		return map[string]string{"home_account_id": user, "environment": cloud, "client_id": client, "credential_type": kind, "secret": kind + more + text}
	}
	token := entry("AccessToken", scope)
	token["cached_at"], token["expires_on"], token["target"], token["realm"] = fmt.Sprint(at), fmt.Sprint(at+3600), scope, "t"
	c.set(tokencache.AccessToken, strings.Join([]string{user, cloud, "accesstoken", client, "t", scope}, "-"), token)
	c.set(tokencache.RefreshToken, strings.Join([]string{user, cloud, "refreshtoken", client}, "-"), entry("RefreshToken", ""))
	id := entry("IdToken", "")
	id["realm"] = "t"
	c.set(tokencache.IDToken, strings.Join([]string{user, cloud, "idtoken", client, "t"}, "-"), id)
	c.set(tokencache.AppMetadata, "appmetadata-"+cloud+"-"+client, map[string]string{"client_id": client, "environment": cloud})
}

// remove removes what f reports true for.
func (c cache) remove(f func(section string, fields map[string]string) bool) {
	for section, entries := range c {
		maps.DeleteFunc(entries, func(_ string, fields map[string]string) bool { return f(section, fields) })
	}
}

// signOut is MSAL Go's RemoveAccount: it leaves other clients' refresh tokens.
func (c cache) signOut(user, client string) {
	c.remove(func(section string, f map[string]string) bool {
		return f["home_account_id"] == user && (section != tokencache.RefreshToken || f["client_id"] == client)
	})
}

func (c cache) has(user string) bool {
	return c[tokencache.AccountSection][user+"-"+cloud+"-t"] != nil
}

func (c cache) secrets(user string) (all []string) {
	for _, entries := range c {
		for _, f := range entries {
			if f["home_account_id"] == user && f["secret"] != "" {
				all = append(all, f["secret"])
			}
		}
	}
	slices.Sort(all)
	return all
}

func (c cache) refreshToken(user, client string) string {
	return c[tokencache.RefreshToken][strings.Join([]string{user, cloud, "refreshtoken", client}, "-")]["secret"]
}

var now = time.Unix(1e9, 0)

func sides(own []byte, theirs cache) Sides {
	return Sides{Own: parsed(own), Theirs: theirs.doc(), Now: now}
}

// random returns two caches that may have anything: own as earlier Puts or other
// programs have left it.
func random(r *rand.Rand) Sides {
	fill := func(side string, clients ...string) cache {
		c := cache{}
		for _, user := range []string{"u.a", "u.b", "u.c"} {
			for _, client := range clients {
				for _, scope := range []string{"s1", "s2"} {
					if r.IntN(3) > 0 {
						c.answer(user, client, scope, 100+r.IntN(4), side)
					}
				}
			}
			if r.IntN(4) > 0 {
				c.account(user, []string{"go", "python"}[r.IntN(2)])
			}
			if r.IntN(4) == 0 {
				c.remove(func(string, map[string]string) bool { return r.IntN(3) == 0 })
			}
		}
		return c
	}
	own, theirs := fill("own", followed, another), fill("theirs", followed)
	own.set("Contoso", "key", map[string]string{"data": "x"})
	n := notes{map[tokencache.Account]bool{}, map[grant]bool{}}
	for _, user := range []string{"u.a", "u.b", "u.c"} {
		a := tokencache.Account{HomeAccountID: user, Environment: cloud}.Identity()
		if r.IntN(4) == 0 {
			n.hidden[a] = true
		}
		for _, client := range []string{followed, ""} {
			if r.IntN(2) == 0 {
				n.theirs[grant{a, client}] = true
			}
		}
	}
	s := sides(own.data(), theirs)
	if section := n.section(); section != nil {
		var b tokencache.Builder
		for i := range s.Own.Sections() {
			b.Copy(&s.Own.Sections()[i])
		}
		b.Copy(section)
		s.Own = parsed(b.Bytes())
	}
	s.Unread = r.IntN(6) == 0
	return s
}

func after(s Sides, own []byte) Sides {
	s.Own = parsed(own)
	return s
}

func same(a, b []byte) bool { return tokencache.Equal(parsed(a), parsed(b)) }

// laws checks the laws for one view that a program has made.
func laws(s Sides, r *rand.Rand) error {
	view := s.View()
	if parsed(view).Section(Section) != nil {
		return fmt.Errorf("the view has the notes")
	}
	kept := s.Put(parsed(view))
	if got := after(s, kept).View(); !same(got, view) {
		return fmt.Errorf("View after Put(View): %s\n%s", differ(got, view), describe(s))
	}
	if again := after(s, kept).Put(parsed(view)); !same(again, kept) {
		return fmt.Errorf("a second Put changes\n%s\nto\n%s", kept, again)
	}
	if purged, ok := s.Purge(); !same(after(s, purged).View(), view) {
		return fmt.Errorf("View after Purge: %s", purged)
	} else if _, again := after(s, purged).Purge(); ok && again {
		return fmt.Errorf("Purge has left something: %s", purged)
	}
	// Another view: somebody signs in, refreshes or signs out, newer than all.
	var next cache
	if err := json.Unmarshal(view, &next); err != nil {
		return err
	}
	user, client := []string{"u.a", "u.b", "u.c"}[r.IntN(3)], []string{followed, another}[r.IntN(2)]
	out := r.IntN(3) == 0
	if out {
		next.remove(func(_ string, f map[string]string) bool { return f["home_account_id"] == user })
	} else {
		next.answer(user, client, "s1", 500, "own")
		next.account(user, "go")
	}
	kept = s.Put(next.doc())
	if got := after(s, kept).View(); !same(got, next.data()) && !sameButUnhidden(got, next, s) {
		return fmt.Errorf("View after Put(v) of %s %s, out %v: %s\n%s", user, client, out, differ(got, next.data()), describe(s))
	}
	// With another refresh over there, who was there and has signed out stays out.
	if theirs := read(s.Theirs.Data()); out && indexOf(s.Theirs).any[tokencache.Account{HomeAccountID: user, Environment: cloud}] {
		theirs.answer(user, followed, "s3", 600, "theirs")
		theirs.account(user, "python again")
		s.Theirs = theirs.doc()
		if read(after(s, kept).View()).has(user) {
			return fmt.Errorf("%s is back: %s", user, kept)
		}
	}
	return nil
}

func read(data []byte) cache {
	c := cache{}
	if err := json.Unmarshal(data, &c); err != nil {
		panic(err)
	}
	return c
}

// sameButUnhidden reports whether a view is the wanted one, but that a sign-in of a
// hidden account shows again what theirs has of it.
func sameButUnhidden(got []byte, want cache, s Sides) bool {
	g, w := read(got), cache{}
	for section, entries := range want {
		w[section] = maps.Clone(entries)
	}
	theirs := read(s.Theirs.Data())
	hidden := notesIn(s.Own).hidden
	for section, entries := range g {
		for key, f := range entries {
			a := tokencache.Account{HomeAccountID: f["home_account_id"], Environment: f["environment"]}.Identity()
			if hidden[a] && maps.Equal(theirs[section][key], f) {
				delete(entries, key)
				delete(w[section], key)
			}
		}
	}
	return same(g.data(), w.data())
}

// differ says in which entries two caches differ.
func differ(got, want []byte) string {
	var b strings.Builder
	g, w := read(got), read(want)
	for _, x := range []struct {
		name        string
		some, other cache
	}{{"got", g, w}, {"want", w, g}} {
		for section, entries := range x.some {
			for key, f := range entries {
				if !maps.Equal(f, x.other[section][key]) {
					fmt.Fprintf(&b, "\n%s %s %s: %s by %s, at %s", x.name, section, key, f["secret"], f["by"], f["cached_at"])
				}
			}
		}
	}
	return b.String()
}

// describe says what the two sides have.
func describe(s Sides) string {
	var b strings.Builder
	for name, d := range map[string]*tokencache.Doc{"own": s.Own, "theirs": s.Theirs} {
		fmt.Fprintf(&b, "\n%s, unread %v:", name, s.Unread)
		for section, entries := range read(d.Data()) {
			for _, key := range slices.Sorted(maps.Keys(entries)) {
				f := entries[key]
				fmt.Fprintf(&b, "\n  %s %s %s%s%s %s", section, key, f["secret"], f["by"], f["note"], f["account"]+f["client"])
			}
		}
	}
	return b.String()
}

func TestLaws(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	cases := 200
	if os.Getenv("TOKENKEEP_LONG") == "1" {
		cases = 8000
	}
	for i := range cases {
		require.NoError(t, laws(random(r), r), "seed %d, case %d", seed, i)
	}
}
