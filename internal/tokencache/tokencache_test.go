package tokencache

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func mustParse(t testing.TB, data string) *Doc {
	t.Helper()
	d, err := Parse([]byte(data))
	require.NoError(t, err, "%s", data)
	return d
}

// seeds are caches with something odd in each.
var seeds = []string{
	``, `{}`, ` {} `, `null`, `[]`, `{}x`, "\ufeff{}", `{"A":{}}`, `{"A":null}`, `{"A":1,"A":{"k":1}}`, `{"":{"":""}}`,
	`{"AccessToken":{"K":{"f":1700},"k":{"f":"1700"}}}`, `{"AccessToken":{"k":1,"K":2}}`, `{"X":{"K":1,"k":2,"K":3}}`, `{"X":{"b":1,"a":2,"b":3,"c":4}}`,
	`{"\u0041":{"\ud83d\ude00":{"\ud800":"\n"}}}`, "{\"X\":{\"\xff\":1,\"\xfe\":2}}", `{"X":{"k":-0.0e+1}}`, `{"X":{"k":"\u00e9"}}`, "\x00{}", "\x00\x00{\"X\":{\"k\":1}}\x00 ", "\ufeff\x00{}",
	`{"X":{"k":{"a":{"b":{"c":[[[[1]]]]}}}}}`, `{"X":true,"Y":[1,2],"Z":"z"}`, `{"X":{"k":1},}`, "{\"X\":\"\x1f\"}", `{"X":"\q"}`, `{"X":1.}`,
	`{"X": { "k" : "a\\\"b\\\\" , "l" : 1 } }`, "{\"AccessToken\":{\"\u212a\":1,\"k\":2,\"K\":3}}",
}

// plain is a second reader, on encoding/json: the sections in which keys are
// folded are the five that MSAL libraries share.
type plainSection struct {
	object  bool
	raw     string
	entries map[string]string // by what pairs them
}

func plainParse(data []byte) (map[string]plainSection, bool) {
	all := map[string]plainSection{}
	if data = Trim(data); len(data) == 0 { // which has a test of its own
		return all, true
	}
	var outer json.RawMessage
	if json.NewDecoder(bytes.NewReader(data)).Decode(&outer) != nil || outer[0] != '{' {
		return nil, false
	}
	each(outer, func(name string, raw json.RawMessage) {
		s := plainSection{raw[0] == '{' || raw[0] == 'n', string(raw), map[string]string{}}
		if raw[0] == '{' {
			byKey := map[string]string{} // of one key the last
			each(raw, func(key string, raw json.RawMessage) { byKey[key] = string(raw) })
			last := map[string]string{}
			each(raw, func(key string, _ json.RawMessage) { last[asciiLower(name, key)] = key })
			for pair, key := range last {
				if _, lower := byKey[pair]; lower {
					key = pair
				}
				s.entries[pair] = byKey[key]
			}
		}
		all[name] = s
	})
	return all, true
}

func asciiLower(section, key string) string {
	switch section {
	case "AccessToken", "RefreshToken", "IdToken", "Account", "AppMetadata":
		return strings.Map(func(r rune) rune {
			if 'A' <= r && r <= 'Z' {
				return r + 'a' - 'A'
			}
			return r
		}, key)
	}
	return key
}

func each(object json.RawMessage, f func(key string, raw json.RawMessage)) {
	d := json.NewDecoder(bytes.NewReader(object))
	d.Token()
	for d.More() {
		key, err := d.Token()
		if err != nil {
			panic(err)
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			panic(err)
		}
		f(key.(string), raw)
	}
}

func (s *Section) pairs() map[string]string {
	m := map[string]string{}
	for _, e := range s.List() {
		m[string(e.pair)] = string(e.val)
	}
	return m
}

// The reader agrees with one on encoding/json, and all that it has is found.
func FuzzParse(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 0 && strings.IndexByte(" \t\r\n", data[0]) < 0 {
			end := value(data, 0, 0)
			require.Equal(t, json.Valid(data), end >= 0 && space(data, end) == len(data), "valid: %q", data)
			if end >= 0 {
				require.Equal(t, end, skip(data, 0))
			}
		}
		d, err := Parse(data)
		want, ok := plainParse(data)
		require.Equal(t, ok, err == nil, "%q", data)
		if err != nil {
			return
		}
		require.Len(t, d.Sections(), len(want))
		for name, w := range want {
			s := d.Section(name)
			require.NotNil(t, s)
			require.Equal(t, w.object, s.Object)
			require.Equal(t, w.raw, string(s.Value()))
			require.Equal(t, w.entries, s.pairs())
			forward, back := s.Finder(), s.Finder()
			for i := range s.Entries {
				require.Same(t, &s.Entries[i], forward.Find(&s.Entries[i]))
				e := &s.Entries[len(s.Entries)-1-i]
				require.Same(t, e, back.Find(e))
			}
			require.Nil(t, forward.find([]byte("\x00no such key")))
		}
		require.True(t, Equal(d, d))
	})
}

// An edit changes one entry, and no other byte than it must.
func FuzzEdit(f *testing.F) {
	for _, s := range seeds {
		for _, section := range []string{"X", "AccessToken", "A", ""} {
			f.Add([]byte(s), section, "k")
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, section, key string) {
		before := bytes.Clone(data)
		d, err := Parse(data)
		if err != nil {
			return
		}
		section, key = strings.ToValidUTF8(section, "\ufffd"), strings.ToValidUTF8(key, "\ufffd")
		old, err := d.Get(section, key)
		set, setErr := d.Set(section, key, []byte(`{"new":1}`))
		deleted, deleteErr := d.Delete(section, key)
		require.Equal(t, before, data, "an edit changed its input")
		require.Equal(t, err, setErr)
		require.Equal(t, err, deleteErr)
		if err != nil {
			require.ErrorIs(t, err, ErrFormat)
			return
		}
		for data, want := range map[string]string{string(set): `{"new":1}`, string(deleted): ""} {
			after := mustParse(t, data)
			e, err := after.Get(section, key)
			require.NoError(t, err)
			if want == "" {
				require.Nil(t, e)
			} else {
				require.Equal(t, want, string(e.Value()))
			}
			a, b := entriesBut(after, section, key), entriesBut(d, section, key)
			require.Equal(t, b, a)
		}
		if old == nil {
			require.Equal(t, string(d.Data()), string(deleted))
		}
		again, err := mustParse(t, string(set)).Set(section, key, []byte(`{"new":1}`))
		require.NoError(t, err)
		require.Equal(t, string(set), string(again))
	})
}

// entriesBut returns all that a cache has but one entry.
func entriesBut(d *Doc, section, key string) map[string]string {
	all := map[string]string{}
	for _, s := range d.Sections() {
		if !s.Object {
			all[s.Name] = string(s.val)
		}
		for pair, val := range s.pairs() {
			if s.Name != section || pair != asciiLower(section, key) {
				all[s.Name+"\x00"+pair] = val
			}
		}
	}
	return all
}

// JSON nests as deeply as encoding/json lets it, and what nests more deeply
// than anybody's cache is compared byte for byte.
func TestDepth(t *testing.T) {
	nest := func(open, inner, end string, depth int) string {
		return `{"X":{"k":` + strings.Repeat(open, depth) + inner + strings.Repeat(end, depth) + `}}`
	}
	for _, c := range []struct{ open, end string }{{"[", "]"}, {`{"a":`, "}"}, {`[{"a":`, "}]"}} {
		levels := strings.Count(c.open, "[") + strings.Count(c.open, "{")
		for _, depth := range []int{1, maxDepth/levels - 2, maxDepth/levels - 1, maxDepth / levels, maxDepth + 1} {
			data := nest(c.open, "1", c.end, depth)
			_, err := Parse([]byte(data))
			require.Equal(t, json.Valid([]byte(data)), err == nil, "%s %d", c.open, depth)
		}
		for _, depth := range []int{1, 10, compareDepth / levels, 10 * compareDepth} {
			a, b := mustParse(t, nest(c.open, `{"x":1,"y":2}`, c.end, depth)), mustParse(t, nest(c.open, `{"y":2,"x":1}`, c.end, depth))
			require.Equal(t, depth*levels <= compareDepth, Equal(a, b), "%s %d", c.open, depth)
			require.True(t, Equal(a, mustParse(t, string(a.Data())+" ")))
		}
	}
}

// The list of clouds is the one that MSAL Go has built in.
func TestClouds(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/AzureAD/microsoft-authentication-library-for-go").Output()
	require.NoError(t, err, "go list finds the source of MSAL Go")
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(strings.TrimSpace(string(dir)), "apps/internal/oauth/ops/authority/known_metadata.go"), nil, 0)
	require.NoError(t, err)
	theirs, names := map[string]string{}, 0
	text := func(e ast.Expr) string {
		s, err := strconv.Unquote(e.(*ast.BasicLit).Value)
		require.NoError(t, err)
		return s
	}
	ast.Inspect(file, func(n ast.Node) bool {
		lit, ok := n.(*ast.CompositeLit)
		if !ok {
			return true
		}
		var preferred string
		for _, e := range lit.Elts {
			kv, ok := e.(*ast.KeyValueExpr)
			if !ok {
				continue
			}
			switch kv.Key.(*ast.Ident).Name {
			case "PreferredNetwork":
				preferred = text(kv.Value)
			case "Aliases":
				for _, alias := range kv.Value.(*ast.CompositeLit).Elts {
					names++
					if a := text(alias); a != preferred {
						theirs[a] = preferred
					}
				}
			}
		}
		return true
	})
	require.Greater(t, names, 8)
	require.Equal(t, theirs, clouds)
	for alias, preferred := range theirs {
		require.Equal(t, preferred, Cloud(strings.ToUpper(alias)))
		require.True(t, SameCloud(alias, preferred))
	}
	require.False(t, SameCloud("login.microsoftonline.us", "login.microsoftonline.com"))
	require.Equal(t, "login.example", Cloud("Login.Example"))
}

// Only ASCII letters fold: for encoding/json and strings.EqualFold, a Kelvin sign
// is a k.
func TestFold(t *testing.T) {
	const kelvin = "\u212a"
	require.True(t, strings.EqualFold(kelvin, "k"), "control")
	require.False(t, SameID(kelvin, "k"))
	require.NotEqual(t, Account{kelvin, "e"}.Identity(), Account{"k", "e"}.Identity())
	require.False(t, Account{"a", kelvin}.SameName(Account{"a", "k"}))
	require.True(t, SameID("ABZ"+kelvin, "abz"+kelvin))
	require.Equal(t, Account{"a", "login.microsoftonline.com"}, Account{"A", "STS.windows.net"}.Identity())
	require.Equal(t, Account{"a", "sts.windows.net"}, Account{"A", "STS.windows.net"}.Name())
	require.Len(t, mustParse(t, `{"Account":{"`+kelvin+`":1,"k":2,"K":3}}`).Section("Account").Entries, 2)
}

func TestAccounts(t *testing.T) {
	acc := func(key, id, environment string) string {
		return fmt.Sprintf("%q:{%q:%q,%q:%q}", key, "home_account_id", id, "environment", environment)
	}
	got := mustParse(t, `{"RefreshToken":{`+acc("r", "w", "e")+`},"Account":{`+strings.Join([]string{acc("1", "v", "sts.windows.net"), acc("2", "u", "e"), acc("3", "U", "E"),
		acc("4", "v", "login.windows.net"), acc("5", "", "e"), `"6":1`}, ",")+`}}`).Accounts()
	require.Equal(t, []Account{{"U", "E"}, {"v", "login.windows.net"}, {"v", "sts.windows.net"}}, got)
	for _, none := range []string{``, `{}`, `{"Account":null}`, `{"Account":{}}`, `{"Account":[1]}`, `{"Account":{"k":1,"l":null,"m":[],"n":{}}}`} {
		require.Empty(t, mustParse(t, none).Accounts())
	}
}

func TestFilter(t *testing.T) {
	own := `{"home_account_id":"A","secret":"a"}`
	for name, test := range map[string]struct {
		data, want string
		removed    int
	}{
		"nothing":             {"", "", 0},
		"only its own":        {`{"AccessToken":{"k":` + own + `}}`, `{"AccessToken":{"k":` + own + `}}`, 0},
		"case does not count": {`{"Account":{"k":{"home_account_id":"a"}}}`, `{"Account":{"k":{"home_account_id":"a"}}}`, 0},
		"another's":           {`{"AccessToken":{"k":` + own + `,"l":{"home_account_id":"B","secret":"b"}},"Account":{}}`, `{"AccessToken":{"k":` + own + `},"Account":{}}`, 1},
		"of no account":       {`{"AppMetadata":{"k":{"client_id":"c"}},"Account":{"l":{"home_account_id":"B"}}}`, `{"AppMetadata":{"k":{"client_id":"c"}},"Account":{}}`, 1},
		"unknown sections":    {`{"New":{"k":{"home_account_id":"B"},"l":1},"Flat":[1]}`, `{"New":{"l":1},"Flat":[1]}`, 1},
		"an escaped key":      {`{"Account":{"l":{"home\u005faccount_id":"B"}}}`, `{"Account":{}}`, 1},
		"a Kelvin sign":       {"{\"Account\":{\"l\":{\"home_account_id\":\"\u212a\"}}}", `{"Account":{}}`, 1},
	} {
		t.Run(name, func(t *testing.T) {
			keep := func(_ string, e *Entry) bool {
				id := e.Account().HomeAccountID
				return id == "" || SameID(id, "A")
			}
			kept, removed := mustParse(t, test.data).Filter(keep)
			require.Equal(t, test.removed, removed)
			require.Equal(t, test.want, string(kept))
			again, none := mustParse(t, string(kept)).Filter(keep)
			require.Zero(t, none)
			require.Equal(t, string(kept), string(again))
		})
	}
}

func TestRestore(t *testing.T) {
	entry := func(id, secret string) string {
		return fmt.Sprintf(`{"home_account_id":%q,"environment":"sts.windows.net","s":%q}`, id, secret)
	}
	ours := mustParse(t, `{"A":{"u":`+entry("u", "new")+`,"v":`+entry("v", "new")+`},"B":{"u":`+entry("u", "new")+`},"V":1}`)
	from := mustParse(t, `{"A":{"u":`+entry("u", "old")+`,"v":`+entry("v", "old")+`},"C":{"u":`+entry("u", "old")+`},"D":{"v":`+entry("v", "old")+`}}`)
	got := mustParse(t, string(ours.Restore(from, []Account{{"U", "login.microsoftonline.com"}})))
	require.True(t, Equal(mustParse(t, `{"A":{"u":`+entry("u", "old")+`,"v":`+entry("v", "new")+`},"C":{"u":`+entry("u", "old")+`},"V":1}`), got), "%s", got.Data())
	require.True(t, Equal(ours, mustParse(t, string(ours.Restore(from, []Account{{"", ""}})))))
}

func TestChangedAccounts(t *testing.T) {
	cred := func(id, client, more string) string {
		return fmt.Sprintf(`{"home_account_id":%q,"environment":"login.windows.net","client_id":%q%s}`, id, client, more)
	}
	of := Account{"u", "login.microsoftonline.com"}
	after := `{"AccessToken":{"a":` + cred("U", "app", "") + `},"X":{"n":1}}`
	for _, c := range []struct {
		says, before string
		want         []Change
	}{
		{"a new account", ``, []Change{{of, false}}},
		{"nothing changed", after, nil},
		{"an Account entry was there, under another name", `{"Account":{"k":{"home_account_id":"u","environment":"sts.windows.net"}}}`, []Change{{of, true}}},
		{"its refresh token was there", `{"RefreshToken":{"k":` + cred("u", "APP", "") + `}}`, []Change{{of, true}}},
		{"another client's was", `{"RefreshToken":{"k":` + cred("u", "other", "") + `}}`, []Change{{of, false}}},
		{"a family's was", `{"RefreshToken":{"k":` + cred("u", "other", `,"family_id":"1"`) + `}}`, []Change{{of, true}}},
		{"another account's was", `{"RefreshToken":{"k":` + cred("v", "app", "") + `},"Account":{"k":` + cred("v", "", "") + `}}`, []Change{{of, false}}},
	} {
		require.Equal(t, c.want, ChangedAccounts(mustParse(t, c.before), mustParse(t, after)), c.says)
	}
}

// A Doc may be used by several goroutines, and Parse counts.
func TestConcurrentUse(t *testing.T) {
	data := `{"Account":{"b":{"home_account_id":"u"},"A":{"home_account_id":"v"}},"X":{"k":1}}`
	before := Parses()
	d, other := mustParse(t, data), mustParse(t, data+" ")
	require.Equal(t, before+2, Parses())
	var g sync.WaitGroup
	for range 8 {
		g.Go(func() {
			for range 100 {
				if !Equal(d, other) || len(d.Accounts()) != 2 {
					panic("wrong")
				}
				d.Filter(func(string, *Entry) bool { return false })
				ChangedAccounts(other, d)
			}
		})
	}
	g.Wait()
	require.Equal(t, before+2, Parses())
}

// Repetitions cost no more than other entries: the same work is done for eight
// times as many in about eight times the allocations and bytes.
func TestRepetitionsAreLinear(t *testing.T) {
	repeated := func(n int) string { return `{"X":{` + strings.Repeat(`"k":1,`, n) + `"l":2}}` }
	size := func(n int) float64 {
		d := mustParse(t, repeated(n))
		return testing.AllocsPerRun(3, func() {
			out, err := d.Delete("X", "k")
			if err != nil || string(out) != `{"X":{"l":2}}` {
				panic(string(out))
			}
		})
	}
	require.Less(t, size(16000), size(250)+64, "a Delete parses once, however many repetitions there are")
}

func TestKeys(t *testing.T) {
	d := mustParse(t, `{"X":{"b":1,"\u0061":2,"b":3},"Y":5}`)
	require.Equal(t, []string{"b", "a"}, d.Keys("X"))
	require.Empty(t, d.Keys("Y"))
	require.Empty(t, d.Keys("Z"))
	_, err := d.Get("Y", "k")
	require.ErrorIs(t, err, ErrFormat)
	require.Equal(t, []string{"X", "Y"}, slices.Sorted(maps.Keys(d.index)))
}

func TestMembers(t *testing.T) {
	var got []string
	for _, m := range Members([]byte(`{ "\u0061" : 1 , "b":{"c":[2]},"a":null}`)) {
		got = append(got, m.Name()+"="+string(m.Value))
	}
	require.Equal(t, []string{"a=1", `b={"c":[2]}`, "a=null"}, got)
	require.Empty(t, Members([]byte(`{ }`)))
}

func TestScalar(t *testing.T) {
	for value, want := range map[string]string{`"a\u0062"`: "ab", `-1.5`: "-1.5", `""`: ""} {
		text, ok := Scalar([]byte(value))
		require.True(t, ok)
		require.Equal(t, want, text)
	}
	for _, value := range []string{`null`, `true`, `{}`, `[]`} {
		_, ok := Scalar([]byte(value))
		require.False(t, ok, value)
	}
}

// Nested objects that say the same in different ways are compared once, not twice
// for each level.
func TestCompareIsNotExponential(t *testing.T) {
	nest := func(with string) string {
		v := `1`
		for range compareDepth - 4 {
			v = `{"a":` + v + `,` + with + `}`
		}
		return `{"X":{"k":` + v + `}}`
	}
	require.True(t, Equal(mustParse(t, nest(`"b":""`)), mustParse(t, nest(`"c":null`))))
	require.True(t, Equal(mustParse(t, nest(`"a":{},"a":1,"b":2`)), mustParse(t, nest(`"a":[],"b":2,"a":1`))))
}

// Of a repeated field the last counts, in whatever order the other object has its own.
func TestCompareRepeatedFields(t *testing.T) {
	same := func(a, b string) bool {
		return Equal(mustParse(t, `{"X":{"k":`+a+`}}`), mustParse(t, `{"X":{"k":`+b+`}}`))
	}
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{`{"x":1,"k":1,"y":""}`, `{"k":5,"k":1,"x":1}`, true},
		{`{"x":1,"k":5,"y":""}`, `{"k":5,"k":1,"x":1}`, false},
		{`{"k":5,"k":1,"x":1}`, `{"x":1,"k":5,"k":1}`, true},
		{`{"k":5,"k":1,"x":1}`, `{"x":1,"k":1,"k":5}`, false},
		{`{"k":1,"k":1,"x":1}`, `{"x":1,"k":1,"x":1}`, true},
	} {
		require.Equal(t, c.want, same(c.a, c.b), "%s %s", c.a, c.b)
		require.Equal(t, c.want, same(c.b, c.a), "%s %s", c.b, c.a)
	}
}

// A document that was moved to equal bytes is as one that was parsed from them, and
// refers to nothing else.
func FuzzMove(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := Parse(data)
		if err != nil {
			return
		}
		to := make([]byte, len(d.Data()), len(d.Data())+7)
		copy(to, d.Data())
		want, err := Parse(bytes.Clone(d.Data()))
		require.NoError(t, err)
		require.True(t, d.Move(to))
		clear(data)
		require.True(t, Equal(want, d))
		require.True(t, Equal(d, want))
		for i := range want.sections {
			a, b := &want.sections[i], &d.sections[i]
			require.Equal(t, a.Name, b.Name)
			require.Equal(t, string(a.val), string(b.val))
			require.Equal(t, a.pairs(), b.pairs())
			for i := range a.Entries {
				require.Same(t, &b.Entries[i], finder(b).Find(&a.Entries[i]))
			}
		}
		for _, section := range []string{"X", "AccessToken"} {
			a, errA := want.Set(section, "k", []byte("1"))
			b, errB := d.Set(section, "k", []byte("1"))
			require.Equal(t, errA, errB)
			require.Equal(t, string(a), string(b))
		}
		require.False(t, d.Move(append(to, ' ')))
	})
}

func finder(s *Section) *Finder { f := s.Finder(); return &f }
