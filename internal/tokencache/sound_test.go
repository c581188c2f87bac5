package tokencache

import (
	"context"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"
	"github.com/stretchr/testify/require"
)

// msal is the memory of a real MSAL Go client.
type msal struct{ cache.Serializer }

func (m *msal) Replace(_ context.Context, u cache.Unmarshaler, _ cache.ReplaceHints) error {
	m.Serializer = u.(cache.Serializer)
	return nil
}

func (m *msal) Export(context.Context, cache.Marshaler, cache.ExportHints) error { return nil }

func newMSAL(t testing.TB) *msal {
	t.Helper()
	m := new(msal)
	client, err := public.New("client", public.WithCache(m))
	require.NoError(t, err)
	_, err = client.Accounts(context.Background())
	require.NoError(t, err)
	require.NotNil(t, m.Serializer)
	return m
}

// takes returns nil if MSAL takes data and gives JSON back.
func (m *msal) takes(data []byte) error {
	if err := m.Unmarshal(data); err != nil {
		return err
	}
	back, err := m.Marshal()
	if err == nil && !json.Valid(back) {
		err = errors.New("it gives back what is no JSON: " + string(back))
	}
	return err
}

// MSAL Go takes exactly the entries that are sound.
func TestSoundIsWhatMSALTakes(t *testing.T) {
	m := newMSAL(t)
	values := []string{
		`null`, `""`, `"x"`, `"5"`, `"-5"`, `"+5"`, `"007"`, `"1.5"`, `"1e3"`, `" 5"`, `"5 "`, `"\u0035"`, `"\"5"`, `"5\""`, `5`, `-0`, `1.5`, `1e3`,
		`true`, `{}`, `[]`, `{"a":1}`, `{"\u0007":1}`, `"99999999999999999999"`, `9223372036854775807`, `-62135596800`, `"-62135596800"`,
	}
	names := func(section string) (names []string) {
		for name := range msalSections()[section].fields {
			names = append(names, name, strings.ToUpper(name))
		}
		return append(names, "other", `\u0007`, `\u007f`, `\u00e9`, `\u00a0`, `\ud83d\ude00`, `\udb40\udc01`, `a\nb`, "")
	}
	n, refused := 0, 0
	check := func(section, entry string) {
		t.Helper()
		data := []byte(`{"Later":{"k":{"f":1.5}},"` + section + `":` + entry + `}`)
		sound, out := mustParse(t, string(data)).Sound()
		err := m.takes(data)
		require.Equal(t, err != nil, len(out) > 0, "%s: %v", data, err)
		require.NoError(t, m.takes(sound), "%s became %s", data, sound)
		require.NotEmpty(t, mustParse(t, string(sound)).Section("Later").List(), "what MSAL does not know stays")
		n++
		if err != nil {
			refused++
			require.Equal(t, section, out[0].Section)
		} else {
			require.Equal(t, string(data), string(sound))
		}
	}
	for section := range msalSections() {
		for _, v := range values {
			check(section, v)
			check(section, `{"k":`+v+`}`)
			check(section, `{"\u0007":`+v+`}`)
			check(section, `{"k":{"client_id":"c"},"l":`+v+`}`)
			for _, name := range names(section) {
				check(section, `{"k":{"`+name+`":`+v+`}}`)
				check(section, `{"k":{"client_id":"c","`+name+`":`+v+`}}`)
				check(section, `{"k":{"`+name+`":"1","`+name+`":`+v+`}}`)
			}
		}
	}
	require.Greater(t, refused, 1000)
	require.Greater(t, n-refused, 1000)
}

// What does not count, because it is there once more, can be refused as well.
func TestSoundRepetitions(t *testing.T) {
	m := newMSAL(t)
	for _, data := range []string{
		`{"Account":{"K":1,"k":{"home_account_id":"u"}}}`,
		`{"Account":{"k":1,"k":{"home_account_id":"u"}}}`,
		`{"Account":{"l":1},"Account":{"k":{"home_account_id":"u"}}}`,
		"\ufeff" + `{"Account":{"k":{"home_account_id":"u"}}}`,
	} {
		require.Error(t, m.takes([]byte(data)), "control: %s", data)
		sound, refused := mustParse(t, data).Sound()
		require.Empty(t, refused)
		require.NoError(t, m.takes(sound))
		require.Len(t, mustParse(t, string(sound)).Accounts(), 1)
	}
}

func FuzzSound(f *testing.F) {
	m := newMSAL(f)
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Add([]byte(`{"AccessToken":{"k":{"cached_at":"1","secret":"s"},"l":{"cached_at":1.5}},"Account":{"a":null,"b":{"username":5}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := Parse(data)
		if err != nil {
			return
		}
		for i := range d.sections {
			if !writable([]byte(d.sections[i].Name)) {
				return // stays, though MSAL writes its name as what is no JSON
			}
		}
		sound, refused := d.Sound()
		if err := m.takes(sound); err != nil {
			t.Fatalf("MSAL does not take %q, of %q: %v", sound, data, err)
		}
		if err := m.takes(data); err == nil && len(refused) > 0 && !d.repeats {
			t.Fatalf("MSAL takes %q, and %v was left out", data, refused)
		}
	})
}

// The list of fields is that of MSAL Go.
func TestSoundKnowsMSALsFields(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/AzureAD/microsoft-authentication-library-for-go").Output()
	require.NoError(t, err, "go list finds the source of MSAL Go")
	structs := map[string]*ast.StructType{}
	for _, path := range []string{"base/storage/items.go", "oauth/ops/accesstokens/tokens.go", "shared/shared.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(strings.TrimSpace(string(dir)), "apps/internal", path), nil, 0)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				if s, ok := spec.Type.(*ast.StructType); ok && structs[spec.Name.Name] == nil {
					structs[spec.Name.Name] = s
				}
			}
			return true
		})
	}
	eachField := func(name string, do func(name, json string, of ast.Expr)) {
		require.Contains(t, structs, name)
		for _, f := range structs[name].Fields.List {
			require.Len(t, f.Names, 1)
			json := ""
			if f.Tag != nil {
				tag, err := strconv.Unquote(f.Tag.Value)
				require.NoError(t, err)
				json, _, _ = strings.Cut(reflect.StructTag(tag).Get("json"), ",")
			}
			do(f.Names[0].Name, json, f.Type)
		}
	}
	typeName := func(e ast.Expr) string {
		if s, ok := e.(*ast.SelectorExpr); ok {
			return s.Sel.Name
		}
		if m, ok := e.(*ast.MapType); ok {
			if _, ok := m.Value.(*ast.InterfaceType); ok {
				return "map"
			}
			return "?"
		}
		return e.(*ast.Ident).Name
	}
	sections := []string{"AdditionalFields"}
	eachField("Contract", func(name, json string, of ast.Expr) {
		if json == "" {
			require.Equal(t, "AdditionalFields", name)
			return
		}
		sections = append(sections, name, json)
		entry := of.(*ast.MapType).Value
		var want []string
		eachField(typeName(entry), func(name, json string, of ast.Expr) {
			kind := map[string]byte{"string": 's', "Unix": 't', "map": 'm'}[typeName(of)]
			require.NotZero(t, kind, name)
			for _, n := range []string{name, json} {
				if n == "" {
					continue
				}
				want = append(want, n)
				for _, section := range sections[len(sections)-2:] {
					require.Equal(t, kind, msalSections()[section].fields[n].kind, "%s %s", section, n)
				}
			}
		})
		for _, section := range sections[len(sections)-2:] {
			require.Len(t, msalSections()[section].fields, len(slices.Compact(slices.Sorted(slices.Values(want)))), section)
		}
	})
	require.Len(t, msalSections(), len(sections))
}

func TestNames(t *testing.T) {
	require.Equal(t, `"Account" "a\x1b", "IdToken"`, Names([]Refused{{Section: "Account", Key: "a\x1b"}, {Section: "IdToken", Whole: true}}))
	many := slices.Repeat([]Refused{{Section: "Account", Whole: true}}, 7)
	require.Equal(t, `"Account", "Account", "Account", "Account", "Account", and 2 more`, Names(many))
}

// What holds nothing is an empty cache, and a byte order mark is no damage.
func TestParseWhatHoldsNothing(t *testing.T) {
	for _, data := range []string{"", " ", "\n", "\x00\x00\x00", " \x00\r\n\t", "null", " null\n", "null\x00\x00", "\ufeff", "\ufeffnull", "\ufeff{}"} {
		d, err := Parse([]byte(data))
		require.NoError(t, err, "%q", data)
		require.Empty(t, d.Sections())
		require.NotContains(t, string(d.Data()), "\ufeff")
		set, err := d.Set("S", "k", []byte("1"))
		require.NoError(t, err)
		require.Equal(t, `{"S":{"k":1}}`, string(set), "%q", data)
	}
	for _, data := range []string{"nul", "nulll", "null null", "x", "\x01{}", "{\x00}", "\ufeff\ufeff{}", "\xef\xbb{}"} {
		_, err := Parse([]byte(data))
		require.ErrorIs(t, err, ErrFormat, "%q", data)
	}
	d := mustParse(t, "\ufeff"+`{"Account":{"k":1}}`)
	deleted, err := d.Delete("Account", "k")
	require.NoError(t, err)
	require.Equal(t, `{"Account":{}}`, string(deleted))
}
