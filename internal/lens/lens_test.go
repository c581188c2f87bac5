package lens

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	ours, alsoOurs, theirs = "client-a", "Client-B", "client-x"
)

var now = time.Unix(1_800_000_000, 0)

func sharp() *Lens { return New([]string{ours, alsoOurs}, false) }

func view(t testing.TB, l *Lens, file []byte) []byte {
	t.Helper()
	v, err := l.View(file)
	require.NoError(t, err, "%s", file)
	return v
}

func put(t testing.TB, l *Lens, file, view []byte) []byte {
	t.Helper()
	out, err := l.Put(file, view, now)
	require.NoError(t, err, "%s\n%s", file, view)
	require.True(t, json.Valid(out) || len(out) == 0, "%s", out)
	return out
}

// decoded is a cache as another library reads it: encoding/json, by which of
// repeated keys the last counts.
type decoded map[string]map[string]map[string]any

func decode(t testing.TB, file []byte) decoded {
	t.Helper()
	var outer map[string]json.RawMessage
	d := decoded{}
	if len(bytes.TrimSpace(file)) == 0 {
		return d
	}
	require.NoError(t, json.Unmarshal(file, &outer), "%s", file)
	for name, raw := range outer {
		var s map[string]map[string]any
		if json.Unmarshal(raw, &s) == nil {
			d[name] = s
		}
	}
	return d
}

// rest is what of a file belongs to others, by a reading of its own: the raw
// entries of other clients, and of accounts for which no client of ours has a
// credential.
func rest(t testing.TB, file []byte) (all []string) {
	t.Helper()
	own := func(client string) bool {
		return strings.EqualFold(client, ours) || strings.EqualFold(client, alsoOurs)
	}
	field := func(raw json.RawMessage, name string) string {
		var m map[string]any
		_ = json.Unmarshal(raw, &m)
		s, _ := m[name].(string)
		return s
	}
	cloud := func(s string) string {
		return strings.Replace(strings.ToLower(s), "login.windows.net", "login.microsoftonline.com", 1)
	}
	holders := map[string]bool{}
	each := func(f func(section, key string, raw json.RawMessage)) {
		if len(bytes.TrimSpace(file)) == 0 {
			return
		}
		d := json.NewDecoder(bytes.NewReader(file))
		_, err := d.Token()
		require.NoError(t, err)
		for d.More() {
			name, err := d.Token()
			require.NoError(t, err)
			var raw json.RawMessage
			require.NoError(t, d.Decode(&raw))
			switch name {
			case "AccessToken", "RefreshToken", "IdToken", "Account", "AppMetadata":
			default:
				f(name.(string), "", raw)
				continue
			}
			inner := json.NewDecoder(bytes.NewReader(raw))
			if tok, err := inner.Token(); err != nil || tok != json.Delim('{') {
				continue
			}
			for inner.More() {
				key, err := inner.Token()
				require.NoError(t, err)
				var raw json.RawMessage
				require.NoError(t, inner.Decode(&raw))
				f(name.(string), key.(string), raw)
			}
		}
	}
	of := func(raw json.RawMessage) string {
		return strings.ToLower(field(raw, "home_account_id")) + "@" + cloud(field(raw, "environment"))
	}
	each(func(section, key string, raw json.RawMessage) {
		if section != "Account" && section != "AppMetadata" && key != "" && own(field(raw, "client_id")) {
			holders[of(raw)] = true
		}
	})
	each(func(section, key string, raw json.RawMessage) {
		switch {
		case section == "Account" && holders[of(raw)], section != "Account" && own(field(raw, "client_id")):
		default:
			all = append(all, section+" "+key+" "+string(raw))
		}
	})
	slices.Sort(all)
	return all
}

// random makes files as the libraries write them, and views as MSAL Go does.
type random struct{ *rand.Rand }

func pick[T any](r random, of ...T) T { return of[r.IntN(len(of))] }

func (r random) client() string { return pick(r, ours, alsoOurs, theirs, "client-y") }

func (r random) file() []byte {
	sections := map[string]map[string]map[string]any{}
	for range r.IntN(14) {
		section, key, e := r.entry(pick(r, "python", "dotnet", "node", "go", "old"), r.client())
		if sections[section] == nil {
			sections[section] = map[string]map[string]any{}
		}
		sections[section][key] = e
	}
	outer := map[string]any{}
	for name, s := range sections {
		outer[name] = s
	}
	if r.IntN(4) == 0 {
		outer["Unknown"] = map[string]any{"x": []int{1}}
	}
	if r.IntN(4) == 0 && outer["IdToken"] == nil {
		outer["IdToken"] = nil
	}
	var out []byte
	var err error
	if r.IntN(2) == 0 {
		out, err = json.MarshalIndent(outer, "", "    ")
	} else {
		out, err = json.Marshal(outer)
	}
	if err != nil {
		panic(err)
	}
	if len(outer) == 0 && r.IntN(2) == 0 {
		return nil
	}
	return out
}

// entry is one entry as a library writes it.
func (r random) entry(library, client string) (section, key string, e map[string]any) {
	home, env, realm := pick(r, "u1.t", "u2.t"), pick(r, "login.microsoftonline.com", "login.windows.net"), pick(r, "t", "other")
	section = pick(r, "AccessToken", "RefreshToken", "RefreshToken", "IdToken", "Account", "AppMetadata")
	e = map[string]any{"environment": env}
	set := func(name string, value any) { e[name] = value }
	if section != "AppMetadata" {
		set("home_account_id", home)
	}
	if section != "Account" {
		set("client_id", client)
	}
	if library != "go" && section != "AppMetadata" && r.IntN(3) > 0 {
		set("last_modification_time", fmt.Sprint(1_700_000_000+r.IntN(9)))
	}
	if r.IntN(3) == 0 {
		set("not_of_go", pick[any](r, "x", 7, []any{true}))
	}
	switch section {
	case "AccessToken":
		target := pick(r, "a b", "b a", "c")
		set("credential_type", "AccessToken")
		set("realm", realm)
		set("secret", r.secret())
		set("target", target)
		set("cached_at", pick[any](r, "1700000000", 1700000001, "1700000002.5"))
		set("expires_on", "1900000000")
		set("token_type", "Bearer")
		key = strings.Join([]string{home, env, "accesstoken", client, realm, target}, "-")
		if library == "node" {
			key += "--"
		}
	case "RefreshToken":
		set("credential_type", "RefreshToken")
		set("secret", r.secret())
		if r.IntN(4) == 0 {
			set("family_id", "1")
		}
		key = strings.Join([]string{home, env, "refreshtoken", client}, "-")
		switch library {
		case "python":
			set("target", "a b")
			key += "--a b"
		case "dotnet":
			key += "--"
		case "node":
			key += "----"
		}
	case "IdToken":
		set("credential_type", "IdToken")
		set("secret", r.secret())
		set("realm", realm)
		key = strings.Join([]string{home, env, "idtoken", client, realm}, "-")
		if library != "go" {
			key += "-"
		}
	case "Account":
		set("realm", realm)
		set("username", pick(r, "one@example.com", ""))
		set("authority_type", "MSSTS")
		key = strings.Join([]string{home, env, realm}, "-")
	case "AppMetadata":
		key = "appmetadata-" + env + "-" + client
	}
	if library != "old" {
		key = strings.ToLower(key)
	}
	return section, key, e
}

func (r random) secret() string { return fmt.Sprint("secret-", r.IntN(1000)) }

// change does with a view what MSAL Go does with its memory: sign out, refresh,
// sign in.
func (r random) change(t testing.TB, view []byte) []byte {
	d := decode(t, view)
	add := func(section, key string, e map[string]any) {
		if d[section] == nil {
			d[section] = map[string]map[string]any{}
		}
		d[section][key] = e
	}
	for range 1 + r.IntN(3) {
		client, home, env := pick(r, ours, alsoOurs), pick(r, "u1.t", "u2.t", "new.t"), "login.microsoftonline.com"
		switch r.IntN(4) {
		case 0: // the account goes, with everything of it
			for name := range d {
				maps.DeleteFunc(d[name], func(_ string, e map[string]any) bool { return e["home_account_id"] == home })
			}
		case 1: // an expired token goes
			for name := range d {
				for key := range d[name] {
					if name == "AccessToken" {
						delete(d[name], key)
					}
					break
				}
			}
		default:
			// If the family of its client changes, MSAL Go leaves the token of before;
			// TestFamilyChange has that.
			maps.DeleteFunc(d["RefreshToken"], func(_ string, e map[string]any) bool {
				return e["home_account_id"] == home && e["environment"] == env && strings.EqualFold(e["client_id"].(string), client)
			})
			maps.DeleteFunc(d["AccessToken"], func(_ string, e map[string]any) bool { // of two orders of the scopes one stays
				return e["home_account_id"] == home && e["environment"] == env && strings.EqualFold(e["client_id"].(string), client) && e["target"] == "b a"
			})
			add("RefreshToken", strings.ToLower(home+"-"+env+"-refreshtoken-"+client), map[string]any{"home_account_id": home, "environment": env, "client_id": client, "credential_type": "RefreshToken", "secret": r.secret()})
			add("AccessToken", strings.ToLower(home+"-"+env+"-accesstoken-"+client+"-t-a b"), map[string]any{"home_account_id": home, "environment": env, "client_id": client, "credential_type": "AccessToken", "secret": r.secret(), "realm": "t", "target": "a b", "cached_at": "1750000000", "expires_on": "1950000000", "token_type": "Bearer"})
			add("IdToken", strings.ToLower(home+"-"+env+"-idtoken-"+client+"-t"), map[string]any{"home_account_id": home, "environment": env, "client_id": client, "credential_type": "IdToken", "secret": r.secret(), "realm": "t"})
			add("Account", strings.ToLower(home+"-"+env+"-t"), map[string]any{"home_account_id": home, "environment": env, "realm": "t", "username": "new@example.com"})
			add("AppMetadata", strings.ToLower("appmetadata-"+env+"-"+client), map[string]any{"client_id": client, "environment": env})
		}
	}
	out, err := json.Marshal(d)
	require.NoError(t, err)
	return out
}

// laws checks the laws for a file and a view that MSAL Go made of View(file). It
// returns what broke, or "".
func laws(t testing.TB, l *Lens, file, changed []byte) string {
	v := view(t, l, file)
	same := put(t, l, file, v)
	if got := view(t, l, same); !bytes.Equal(v, got) {
		return fmt.Sprintf("View(Put(f, View(f))) is\n%s\nnot\n%s", got, v)
	}
	after := put(t, l, file, changed)
	for _, out := range [][]byte{same, after} {
		if want, got := others(t, file), others(t, out); !slices.Equal(want, got) {
			return fmt.Sprintf("others have\n%q\nnot\n%q", got, want)
		}
		if twice := repeated(t, out); twice != "" {
			return "twice: " + twice
		}
		if once := put(t, l, out, view(t, l, out)); !bytes.Equal(once, out) {
			return "a second Put of the same changes something"
		}
	}
	return says(t, view(t, l, after), changed)
}

// others is rest without the accounts: whether one is shown depends on what else
// there is.
func others(t testing.TB, file []byte) []string {
	return slices.DeleteFunc(rest(t, file), func(s string) bool { return strings.HasPrefix(s, "Account ") })
}

// repeated returns an identity that is there twice.
func repeated(t testing.TB, file []byte) string {
	seen := map[string]bool{}
	for section, entries := range decode(t, file) {
		for key, e := range entries {
			client, _ := e["client_id"].(string)
			if !strings.EqualFold(client, ours) && !strings.EqualFold(client, alsoOurs) {
				continue
			}
			target := ""
			if section == "AccessToken" {
				scopes := strings.Fields(e["target"].(string))
				slices.Sort(scopes)
				target = strings.Join(scopes, " ")
			}
			realm := e["realm"]
			if section == "RefreshToken" {
				realm = ""
			}
			id := strings.ToLower(fmt.Sprint(section, e["home_account_id"], e["environment"], client, realm, target))
			if seen[id] {
				return key
			}
			seen[id] = true
		}
	}
	return ""
}

// says compares the tokens and accounts of two views.
func says(t testing.TB, got, want []byte) string {
	tokens := func(v []byte) (all []string) {
		d := decode(t, v)
		for section, entries := range d {
			for _, e := range entries {
				if section == "AppMetadata" {
					continue
				}
				if section == "Account" { // MSAL removes accounts of which it has nothing else, and so may we
					all = append(all, strings.ToLower(fmt.Sprint("account ", e["home_account_id"], e["environment"], e["realm"])))
					continue
				}
				all = append(all, strings.ToLower(fmt.Sprint(section, e["home_account_id"], e["environment"], e["client_id"], e["secret"])))
			}
		}
		slices.Sort(all)
		return slices.Compact(all)
	}
	without := func(all []string) []string {
		return slices.DeleteFunc(all, func(s string) bool { return strings.HasPrefix(s, "account ") })
	}
	g, w := tokens(got), tokens(want)
	for _, a := range w {
		if strings.HasPrefix(a, "account ") && !slices.Contains(g, a) && slices.ContainsFunc(w, func(s string) bool {
			return !strings.HasPrefix(s, "account ") && strings.Contains(s, strings.Split(strings.TrimPrefix(a, "account "), "login.")[0])
		}) {
			return "the view has not " + a
		}
	}
	if g, w := without(g), without(w); !slices.Equal(g, w) {
		return fmt.Sprintf("the view says\n%q\nnot\n%q", g, w)
	}
	return ""
}

func TestLaws(t *testing.T) {
	seed := rand.Uint64()
	for i := range 1500 {
		r := random{rand.New(rand.NewPCG(seed, uint64(i)))}
		file := r.file()
		if broken := laws(t, sharp(), file, r.change(t, view(t, sharp(), file))); broken != "" {
			t.Fatalf("seed %d, %d: %s\nfile: %s", seed, i, broken, file)
		}
	}
}

// The laws catch a Put that writes the view's keys, as MSAL Go's own way to store
// a cache does, and one that replaces the whole file.
func TestLawsCatchWrongPuts(t *testing.T) {
	wrong := map[string]func(file, view []byte) []byte{
		"Go's own keys": func(file, view []byte) []byte {
			d, v := decode(t, file), decode(t, view)
			for section, entries := range v {
				if d[section] == nil {
					d[section] = map[string]map[string]any{}
				}
				maps.Copy(d[section], entries)
			}
			out, err := json.Marshal(d)
			require.NoError(t, err)
			return out
		},
		"the view alone": func(_, view []byte) []byte { return view },
	}
	for name, wrongPut := range wrong {
		t.Run(name, func(t *testing.T) {
			for i := range 200 {
				r := random{rand.New(rand.NewPCG(1, uint64(i)))}
				file := r.file()
				out := wrongPut(file, r.change(t, view(t, sharp(), file)))
				if repeated(t, out) != "" || !slices.Equal(others(t, file), others(t, out)) {
					return
				}
			}
			t.Fatal("the laws never caught it")
		})
	}
}

func FuzzPut(f *testing.F) {
	for i := range 40 {
		r := random{rand.New(rand.NewPCG(2, uint64(i)))}
		f.Add(r.file(), r.change(f, []byte("{}")))
	}
	f.Add([]byte(`{"RefreshToken":{"k":{"client_id":"client-a","secret":{}}}}`), []byte(`{}`))
	f.Add([]byte(`{"AccessToken":null,"AccessToken":{"a":{"client_id":"client-a"}}}`), []byte(`{"AccessToken":{}}`))
	l := sharp()
	f.Fuzz(func(t *testing.T, file, changed []byte) {
		v, err := l.View(file)
		if err != nil {
			return
		}
		same, err := l.Put(file, v, now)
		if err != nil {
			return
		}
		require.Equal(t, string(v), string(view(t, l, same)))
		out, err := l.Put(file, changed, now)
		if err != nil {
			return
		}
		require.True(t, json.Valid(out) || len(out) == 0)
		again, err := l.Put(out, view(t, l, out), now)
		require.NoError(t, err)
		require.Equal(t, string(out), string(again), "a Put of what is shown changes nothing")
		require.Equal(t, unseen(t, l, file), unseen(t, l, out))
	})
}

// unseen returns the entries of other clients, raw.
func unseen(t *testing.T, l *Lens, data []byte) (all []string) {
	f, err := parse(data)
	require.NoError(t, err)
	for name, s := range f.shared {
		for _, e := range s.entries {
			if name != "Account" && !l.clients[e.id.client] {
				all = append(all, name+string(e.Key)+string(e.Value))
			}
		}
	}
	for _, m := range f.top {
		if f.shared[m.Name()] == nil {
			all = append(all, string(m.Key)+string(m.Value))
		}
	}
	slices.Sort(all)
	return all
}

// rt is a refresh token's entry.
func rt(key, client, secret, more string) string {
	return fmt.Sprintf(`%q:{"home_account_id":"u.t","environment":"login.microsoftonline.com","client_id":%q,"credential_type":"RefreshToken","secret":%q%s}`, key, client, secret, more)
}

const base = "u.t-login.microsoftonline.com-refreshtoken-client-a"

// MSAL Go signs in first, MSAL Python refreshes: the file has the token twice. The
// newer one is seen, and one is left after the next write.
func TestSecondSpellingIsFolded(t *testing.T) {
	l := New([]string{ours}, false)
	file := []byte(`{"RefreshToken":{` + rt(base, ours, "spent", "") + `,` + rt(base+"--a b", ours, "good", `,"target":"a b","last_modification_time":"1700000000"`) + `}}`)
	v := view(t, l, file)
	require.Contains(t, string(v), "good")
	require.NotContains(t, string(v), "spent")
	out := decode(t, put(t, l, file, []byte(strings.Replace(string(v), "good", "better", 1))))
	require.Len(t, out["RefreshToken"], 1)
	e := out["RefreshToken"][base+"--a b"]
	require.Equal(t, "better", e["secret"])
	require.Equal(t, "a b", e["target"], "else MSAL Python's key would change")
	require.Equal(t, fmt.Sprint(now.Unix()), e["last_modification_time"])
}

// A new refresh token is stored under the key that MSAL Python and MSAL.NET
// compute, never under MSAL Go's.
func TestNewEntriesHaveTheNeighboursKeys(t *testing.T) {
	l := New([]string{ours}, false)
	v := []byte(`{"RefreshToken":{` + rt(base, ours, "s", "") + `},"IdToken":{"x":{"home_account_id":"u.t","environment":"login.microsoftonline.com","client_id":"client-a","credential_type":"IdToken","realm":"T","secret":"i"}}}`)
	out := decode(t, put(t, l, nil, v))
	require.Contains(t, out["RefreshToken"], base+"--")
	require.Contains(t, out["IdToken"], "u.t-login.microsoftonline.com-idtoken-client-a-t-")
}

// A client that leaves its family has two refresh tokens in MSAL Go's memory. The
// one that is new is stored.
func TestFamilyChange(t *testing.T) {
	l := New([]string{ours}, false)
	family := "u.t-login.microsoftonline.com-refreshtoken-1"
	file := []byte(`{"RefreshToken":{` + rt(base+"--", ours, "old", `,"family_id":"1"`) + `}}`)
	require.Contains(t, string(view(t, l, file)), family)
	for _, v := range []string{rt(base, ours, "new", "") + "," + rt(family, ours, "old", `,"family_id":"1"`), rt(family, ours, "old", `,"family_id":"1"`) + "," + rt(base, ours, "new", "")} {
		out := decode(t, put(t, l, file, []byte(`{"RefreshToken":{`+v+`}}`)))
		require.Len(t, out["RefreshToken"], 1)
		require.Equal(t, "new", out["RefreshToken"][base+"--"]["secret"])
		require.NotContains(t, out["RefreshToken"][base+"--"], "family_id")
	}
}

// A refresh that brings no refresh_on takes away the old one: it would say for
// ever that it is time to refresh.
func TestFieldsThatGoKnowsGo(t *testing.T) {
	l := New([]string{ours}, false)
	at := func(secret, more string) string {
		return `{"AccessToken":{"u.t-e-accesstoken-client-a-t-s":{"home_account_id":"u.t","environment":"e","client_id":"client-a","credential_type":"AccessToken","realm":"t","target":"s","token_type":"Bearer","secret":"` + secret + `"` + more + `}}}`
	}
	out := string(put(t, l, []byte(at("old", `,"refresh_on":"1700000000","of_python":"kept"`)), []byte(at("new", ""))))
	require.NotContains(t, out, "refresh_on")
	require.Contains(t, out, `"of_python":"kept"`)
}

// MSAL.NET reads strings only.
func TestNumbersBecomeStrings(t *testing.T) {
	l := New([]string{ours}, false)
	v := `{"AccessToken":{"k":{"home_account_id":"u.t","environment":"e","client_id":"client-a","credential_type":"AccessToken","realm":"t","target":"s","secret":"x","cached_at":1700000000}}}`
	require.Contains(t, string(put(t, l, nil, []byte(v))), `"cached_at":"1700000000"`)
}

// An account that another client uses too stays in the file after a sign-out here,
// and is not shown any more.
func TestSignOutBesideAnotherClient(t *testing.T) {
	account := `"Account":{"u.t-login.microsoftonline.com-t":{"home_account_id":"u.t","environment":"login.microsoftonline.com","realm":"t","username":"a@example.com"}}`
	file := []byte(`{"RefreshToken":{` + rt(base+"--", ours, "mine", "") + `,` + rt("other", theirs, "theirs", "") + `},` + account + `}`)
	l := New([]string{ours}, false)
	require.Contains(t, string(view(t, l, file)), "a@example.com")
	out := put(t, l, file, []byte("{}"))
	require.NotContains(t, string(out), "mine")
	require.Contains(t, string(out), "theirs")
	require.Contains(t, string(out), "a@example.com")
	require.Equal(t, "{}", string(view(t, l, out)))

	out = put(t, New([]string{ours}, true), file, []byte("{}"))
	require.Contains(t, string(out), "theirs")
	require.NotContains(t, string(out), "a@example.com", "with SignOut")
}

func TestViewMakesUpAppMetadata(t *testing.T) {
	l := New([]string{ours}, false)
	file := []byte(`{"RefreshToken":{` + rt(base+"--", ours, "mine", "") + `}}`)
	v := view(t, l, file)
	require.Contains(t, string(v), `"AppMetadata":{"appmetadata-login.microsoftonline.com-client-a":{"client_id":"client-a","environment":"login.microsoftonline.com"}}`)
	require.Equal(t, string(file), string(put(t, l, file, v)), "what was made up is not written")
}

func TestNullSectionsAreMended(t *testing.T) {
	l := New([]string{ours}, false)
	out := put(t, l, []byte(`{"IdToken":null,"RefreshToken":null,"Other":null}`), []byte(`{"RefreshToken":{`+rt(base, ours, "s", "")+`}}`))
	require.Contains(t, string(out), `"IdToken":{}`)
	require.Contains(t, string(out), `"Other":null`)
}

func TestRefusedFiles(t *testing.T) {
	l := New([]string{ours}, false)
	for file, want := range map[string]error{
		`{"RefreshToken":[]}`:                       ErrShape,
		`{"RefreshToken":{"k":1}}`:                  ErrShape,
		`{"RefreshToken":{"k":{"secret":{}}}}`:      ErrShape,
		`{"RefreshToken":{"k":{"client_id":true}}}`: ErrShape,
		`{}x`:    ErrNotCache,
		`[]`:     ErrNotCache,
		`{"a":`:  ErrNotCache,
		"\ufeff": ErrNotCache,
	} {
		_, err := l.Put([]byte(file), []byte("{}"), now)
		require.ErrorIs(t, err, want, file)
	}
	for v, want := range map[string]error{
		`{"OAuth2Token":{"k":{}}}`: ErrForeign,
		`null`:                     ErrNotCache,
		`{"RefreshToken":7}`:       ErrShape,
	} {
		_, err := l.Put(nil, []byte(v), now)
		require.ErrorIs(t, err, want, v)
	}
}

// No error says anything of what is in the file.
func TestErrorsHoldNoSecrets(t *testing.T) {
	const secret = "planted-secret"
	for _, file := range []string{`{"RefreshToken":{"k":"` + secret + `"}}`, `{"` + secret + `":`, `{"RefreshToken":{"` + secret + `":{"secret":["` + secret + `"]}}}`} {
		_, err := sharp().Put([]byte(file), []byte("{}"), now)
		require.Error(t, err)
		require.NotContains(t, err.Error(), secret)
	}
}

// The fields that MSAL Go knows are those of its source.
func TestKnownFieldsAreMSALs(t *testing.T) {
	root := msalFolder(t)
	for file, sections := range map[string][]string{
		"apps/internal/base/storage/items.go":            {"AccessToken", "IdToken", "AppMetadata"},
		"apps/internal/oauth/ops/accesstokens/tokens.go": {"RefreshToken"},
		"apps/internal/shared/shared.go":                 {"Account"},
	} {
		source, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(file)))
		require.NoError(t, err)
		for _, section := range sections {
			name := map[string]string{"IdToken": "IDToken", "AppMetadata": "AppMetaData"}[section]
			if name == "" {
				name = section
			}
			_, body, ok := strings.Cut(string(source), "type "+name+" struct {")
			require.True(t, ok, section)
			body, _, _ = strings.Cut(body, "\n}")
			var want []string
			for _, line := range strings.Split(body, "\n") {
				if _, tag, ok := strings.Cut(line, "`json:\""); ok {
					tag, _, _ = strings.Cut(tag, `"`)
					tag, _, _ = strings.Cut(tag, ",")
					want = append(want, tag)
				}
			}
			require.ElementsMatch(t, want, known[section], section)
		}
	}
}

// MSAL Go before 1.9 gives an ID token another credential_type than all others do,
// and MSAL Python's RemoveAccount fails on it.
func TestPutWritesTheCredentialTypeOfAll(t *testing.T) {
	v := `{"IdToken":{"u.t-e-idtoken-client-a-t":{"home_account_id":"u.t","environment":"e","client_id":"client-a","credential_type":"IDToken","realm":"t","secret":"i"}}}`
	got, err := New([]string{"client-a"}, false).Put(nil, []byte(v), time.Unix(1_750_000_000, 0))
	require.NoError(t, err)
	require.Contains(t, string(got), `"credential_type":"IdToken"`)
	require.NotContains(t, string(got), "IDToken")
}
