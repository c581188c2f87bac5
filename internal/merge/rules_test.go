package merge

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/tokencache"
)

// A rule is one line of the rules: what three versions become.
type rule struct {
	says               string
	base, ours, theirs string
	want               string
	in                 BytesInput // what is not base, ours, theirs or now
	gone               []tokencache.Account
}

// mirror returns the rule with ours and theirs exchanged.
func (r rule) mirror() rule {
	r.says += " (mirrored)"
	r.ours, r.theirs = r.theirs, r.ours
	return r
}

func checkRules(t *testing.T, rules []rule) {
	t.Helper()
	for _, r := range rules {
		t.Run(r.says, func(t *testing.T) {
			in := r.in
			in.Base, in.Ours, in.Theirs, in.Now = []byte(r.base), []byte(r.ours), []byte(r.theirs), now
			in = withdrawn(in, r.gone)
			require.Equal(t, contents(t, r.want), contents(t, string(mustMergeOnce(t, in))))
		})
	}
}

// both checks rules that know no sides in both directions.
func both(t *testing.T, rules []rule) {
	t.Helper()
	for _, r := range rules {
		checkRules(t, []rule{r, r.mirror()})
	}
}

// Rule 0: entries are compared by what they say.
func TestRule0Equality(t *testing.T) {
	for _, c := range []struct {
		says string
		a, b string
		want bool
	}{
		{"nothing stored is an empty cache", ``, `{}`, true},
		{"an empty section is none", `{"AccessToken":{}}`, `{}`, true},
		{"a null section is none", `{"AccessToken":null,"X":null}`, ``, true},
		{"an empty section of a later version is none", `{"X":{}}`, `{}`, true},
		{"white space says nothing", " {\n\t\"S\" : { \"k\" : { \"f\" : \"v\" } } }\r\n", `{"S":{"k":{"f":"v"}}}`, true},
		{"sections come in any order", `{"A":{"k":1},"B":{"k":2}}`, `{"B":{"k":2},"A":{"k":1}}`, true},
		{"entries come in any order", `{"A":{"k":1,"l":2}}`, `{"A":{"l":2,"k":1}}`, true},
		{"fields come in any order", `{"A":{"k":{"f":1,"g":2}}}`, `{"A":{"k":{"g":2,"f":1}}}`, true},
		{"an absent field is a null one", `{"A":{"k":{"f":1,"g":null}}}`, `{"A":{"k":{"f":1}}}`, true},
		{"an absent field is an empty one", `{"A":{"k":{"f":1}}}`, `{"A":{"k":{"f":1,"g":""}}}`, true},
		{"a null field is an empty one", `{"A":{"k":{"f":null}}}`, `{"A":{"k":{"f":""}}}`, true},
		{"a number is its string", `{"A":{"k":{"f":1700}}}`, `{"A":{"k":{"f":"1700"}}}`, true},
		{"not another number's", `{"A":{"k":{"f":1700}}}`, `{"A":{"k":{"f":"1701"}}}`, false},
		{"zero is not nothing", `{"A":{"k":{"f":0}}}`, `{"A":{"k":{}}}`, false},
		{"false is not nothing", `{"A":{"k":{"f":false}}}`, `{"A":{"k":{}}}`, false},
		{"true is not its string", `{"A":{"k":{"f":true}}}`, `{"A":{"k":{"f":"true"}}}`, false},
		{"nested values compare deeply", `{"A":{"k":{"f":{"x":[1,{"y":"z","n":null}]}}}}`, `{"A":{"k":{"f":{"x":["1",{"y":"z"}]}}}}`, true},
		{"and differ deeply", `{"A":{"k":{"f":{"x":[1,{"y":"z"}]}}}}`, `{"A":{"k":{"f":{"x":[1,{"y":"Z"}]}}}}`, false},
		{"arrays have an order", `{"A":{"k":{"f":[1,2]}}}`, `{"A":{"k":{"f":[2,1]}}}`, false},
		{"and a length", `{"A":{"k":{"f":[1,""]}}}`, `{"A":{"k":{"f":[1]}}}`, false},
		{"escapes mean what they mean", `{"A":{"\u006b":{"\u0066":"a\u002fb\u003c"}}}`, `{"A":{"k":{"f":"a\/b<"}}}`, true},
		{"keys pair without regard to case", `{"AccessToken":{"ID-AccessToken":{"f":1}}}`, `{"AccessToken":{"id-accesstoken":{"f":1}}}`, true},
		{"values do not", `{"AccessToken":{"k":{"f":"A"}}}`, `{"AccessToken":{"k":{"f":"a"}}}`, false},
		{"nor fields", `{"AccessToken":{"k":{"F":"a"}}}`, `{"AccessToken":{"k":{"f":"a"}}}`, false},
		{"nor sections", `{"AccessToken":{"k":{"f":"a"}}}`, `{"accesstoken":{"k":{"f":"a"}}}`, false},
		{"beside its lower-case successor an old key says nothing", `{"AccessToken":{"id":{"f":"new"},"ID":{"f":"old"}}}`, `{"AccessToken":{"id":{"f":"new"}}}`, true},
		{"in whatever order", `{"AccessToken":{"ID":{"f":"old"},"id":{"f":"new"}}}`, `{"AccessToken":{"id":{"f":"new"}}}`, true},
		{"in a section that MSAL libraries do not share keys are exact", `{"X":{"K":1}}`, `{"X":{"k":1}}`, false},
		{"and keys that differ in case only are two", `{"X":{"K":1,"k":2}}`, `{"X":{"k":2}}`, false},
		{"of a repeated key the last counts", `{"A":{"k":1},"A":{"k":2,"k":3}}`, `{"A":{"k":3}}`, true},
		{"what follows the object is no part of it", `{"A":{"k":1}}}garbage`, `{"A":{"k":1}}`, true},
		{"an entry more is a difference", `{"A":{"k":{}}}`, `{"A":{}}`, false},
		{"a section that is not an object is a value", `{"X":1}`, `{"X":"1"}`, true},
		{"and differs from an object", `{"X":1}`, `{"X":{"k":1}}`, false},
		{"what is no cache equals itself", `[1]`, `[1]`, true},
		{"and nothing else", `[1]`, `[1] `, false},
		{"null is an empty cache", `null`, ``, true},
		{"so are blanks", ` `, `{}`, true},
		{"and zero bytes", "\x00\x00", `{}`, true},
		{"a byte order mark says nothing", "\ufeff{\"A\":{\"k\":1}}", `{"A":{"k":1}}`, true},
	} {
		t.Run(c.says, func(t *testing.T) {
			require.Equal(t, c.want, Equal([]byte(c.a), []byte(c.b)))
			require.Equal(t, c.want, Equal([]byte(c.b), []byte(c.a)))
			require.True(t, Equal([]byte(c.a), []byte(c.a)))
		})
	}
}

// Rule 0: what MSAL does to a cache in passing is no change.
func TestRule0NothingChanged(t *testing.T) {
	stored := `{"AccessToken":{"K1":{"secret":"s","cached_at":1700,"realm":null},"k2":{"secret":"t"}},"X":{"a":1},"Account":{}}`
	rewritten := `{"X":{"a":1},"RefreshToken":{},"AccessToken":{"k2":{"secret":"t"},"k1":{"cached_at":"1700","secret":"s"}}}`
	changed := `{"AccessToken":{"K1":{"secret":"new","cached_at":1701},"k3":{"secret":"u"}},"X":{"a":1}}`
	checkRules(t, []rule{
		{says: "rewritten by us", base: stored, ours: rewritten, theirs: stored, want: stored},
		{says: "rewritten by them", base: stored, ours: stored, theirs: rewritten, want: rewritten},
	})
	both(t, []rule{
		{says: "a rewritten entry is not one that was changed", base: stored, ours: rewritten, theirs: changed, want: changed},
	})
	for _, base := range []string{stored, rewritten, `{}`} {
		got, differs, err := Bytes(BytesInput{Base: []byte(base), Ours: []byte(rewritten), Theirs: []byte(stored), Now: now})
		require.NoError(t, err)
		require.False(t, differs)
		require.Equal(t, stored, string(got), "theirs itself")
	}
}

// Rule 0: of keys that differ in case the merge has one.
func TestRule0OneKey(t *testing.T) {
	old := at("u", "s", "1", -100).as("U-" + env + "-AccessToken-app-realm-s")
	checkRules(t, []rule{
		{says: "renamed by us and changed: the new key", base: cacheOf(old), ours: cacheOf(at("u", "s", "2", -50)), theirs: cacheOf(old, rt("u", "r")),
			want: cacheOf(at("u", "s", "2", -50), rt("u", "r"))},
		{says: "renamed by us, changed by them: their entry", base: cacheOf(old), ours: cacheOf(at("u", "s", "1", -100), rt("u", "r")), theirs: cacheOf(old.with("secret", "2")),
			want: cacheOf(old.with("secret", "2"), rt("u", "r"))},
		{says: "changed by both, newer here", base: cacheOf(old), ours: cacheOf(at("u", "s", "2", -50)), theirs: cacheOf(old.with("secret", "3")),
			want: cacheOf(at("u", "s", "2", -50))},
		{says: "changed by both, newer there", base: cacheOf(old), ours: cacheOf(old.with("secret", "3")), theirs: cacheOf(at("u", "s", "2", -50)),
			want: cacheOf(at("u", "s", "2", -50))},
		{says: "removed by them under the old key", base: cacheOf(old), ours: cacheOf(at("u", "s", "1", -100), rt("u", "r")), theirs: `{}`,
			want: cacheOf(rt("u", "r"))},
		{says: "in a section that MSAL libraries do not share two keys are two entries", base: `{"X":{"K":1,"k":2}}`, ours: `{"X":{"K":3,"k":2}}`, theirs: `{"X":{"K":1,"k":4}}`,
			want: `{"X":{"K":3,"k":4}}`},
		{says: "even if only one side has both", base: `{"X":{"K":1}}`, ours: `{"X":{"K":1,"k":2}}`, theirs: `{"X":{"K":5}}`,
			want: `{"X":{"K":5,"k":2}}`},
	})
}

// Rules 1 and 2: each side's changes stand where the other made none.
func TestRules1And2OneSideChanged(t *testing.T) {
	both(t, []rule{
		{says: "added by one", base: ``, ours: cacheOf(acc("u"), rt("u", "r")), theirs: ``, want: cacheOf(acc("u"), rt("u", "r"))},
		{says: "added by each",
			base:   cacheOf(acc("u")),
			ours:   cacheOf(acc("u"), at("u", "mail", "m", -10)),
			theirs: cacheOf(acc("u"), at("u", "files", "f", -20)),
			want:   cacheOf(acc("u"), at("u", "mail", "m", -10), at("u", "files", "f", -20))},
		{says: "changed by one, however old it looks",
			base:   cacheOf(acc("u"), at("u", "mail", "1", -10)),
			ours:   cacheOf(acc("u"), at("u", "mail", "2", -500)),
			theirs: cacheOf(acc("u"), at("u", "mail", "1", -10)),
			want:   cacheOf(acc("u"), at("u", "mail", "2", -500))},
		{says: "different entries changed by each",
			base:   cacheOf(at("u", "a", "1", -90), at("u", "b", "1", -90)),
			ours:   cacheOf(at("u", "a", "2", -10), at("u", "b", "1", -90)),
			theirs: cacheOf(at("u", "a", "1", -90), at("u", "b", "2", -20)),
			want:   cacheOf(at("u", "a", "2", -10), at("u", "b", "2", -20))},
		{says: "the same done by both",
			base:   cacheOf(at("u", "a", "1", -90)),
			ours:   cacheOf(at("u", "a", "2", -10), app("c")),
			theirs: cacheOf(at("u", "a", "2", -10), app("c")),
			want:   cacheOf(at("u", "a", "2", -10), app("c"))},
		{says: "sections added by each", base: `{}`, ours: `{"X":{"k":1}}`, theirs: `{"Y":{"k":1}}`, want: `{"X":{"k":1},"Y":{"k":1}}`},
	})
}

// Rule 3: of what both changed, the newer entry stands.
func TestRule3Newer(t *testing.T) {
	tok := at("u", "a", "base", -900)
	ours, theirs := tok.with("secret", "ours"), tok.with("secret", "theirs")
	conflict := func(says string, o, th ent, want ent) rule {
		return rule{says: says, base: cacheOf(tok), ours: cacheOf(o), theirs: cacheOf(th), want: cacheOf(want)}
	}
	timeless := func(e ent) ent { return e.without("cached_at").without("expires_on") }
	both(t, []rule{
		conflict("the later cached_at", ours.with("cached_at", secs(-10)), theirs.with("cached_at", secs(-20)), ours.with("cached_at", secs(-10))),
		conflict("cached_at before expires_on", ours.with("cached_at", secs(-10), "expires_on", secs(60)),
			theirs.with("cached_at", secs(-20), "expires_on", secs(9000)), ours.with("cached_at", secs(-10), "expires_on", secs(60))),
		conflict("the same cached_at: the later expires_on", ours.with("expires_on", secs(8000)), theirs.with("expires_on", secs(7000)), ours.with("expires_on", secs(8000))),
		conflict("a missing cached_at is not an old one: the later expires_on", ours.without("cached_at").with("expires_on", secs(8000)),
			theirs.with("cached_at", secs(-1), "expires_on", secs(7000)), ours.without("cached_at").with("expires_on", secs(8000))),
		conflict("then the later last_modification_time", timeless(ours).with("last_modification_time", secs(-3)),
			timeless(theirs).with("last_modification_time", secs(-4)), timeless(ours).with("last_modification_time", secs(-3))),
		conflict("expires_on before last_modification_time", ours.with("expires_on", secs(8000), "last_modification_time", secs(-9)),
			theirs.with("expires_on", secs(7000), "last_modification_time", secs(-4)), ours.with("expires_on", secs(8000), "last_modification_time", secs(-9))),
		conflict("numbers and strings", ours.with("cached_at", now.Unix()-10), theirs.with("cached_at", secs(-20)), ours.with("cached_at", now.Unix()-10)),
		conflict("fractions of seconds", ours.with("cached_at", secs(-10)+".25"), theirs.with("cached_at", secs(-20)), ours.with("cached_at", secs(-10)+".25")),
		conflict("a time in the future does not win", ours.with("cached_at", secs(1)), theirs.with("cached_at", secs(-20)), theirs.with("cached_at", secs(-20))),
		conflict("nor does its late expiry", ours.with("cached_at", secs(3600), "expires_on", secs(7200)), theirs.with("cached_at", secs(-20), "expires_on", secs(60)), theirs.with("cached_at", secs(-20), "expires_on", secs(60))),
		conflict("nor does a last_modification_time in the future", timeless(ours).with("last_modification_time", secs(100)),
			timeless(theirs).with("last_modification_time", secs(-4)), timeless(theirs).with("last_modification_time", secs(-4))),
		conflict("this very second is not the future", ours.with("cached_at", secs(0)), theirs.with("cached_at", secs(-20)), ours.with("cached_at", secs(0))),
	})
	checkRules(t, []rule{
		conflict("no times: ours", timeless(ours), timeless(theirs), timeless(ours)),
		conflict("a time against none: ours", timeless(ours), theirs.with("cached_at", secs(-1)).without("expires_on"), timeless(ours)),
		conflict("none against a time: ours", ours.with("cached_at", secs(-900)).without("expires_on"), timeless(theirs), ours.with("cached_at", secs(-900)).without("expires_on")),
		conflict("all times the same: ours", ours, theirs, ours),
		conflict("both in the future: ours", ours.with("cached_at", secs(50)), theirs.with("cached_at", secs(60)), ours.with("cached_at", secs(50))),
		conflict("a time that is none: ours", ours.with("cached_at", "soon", "expires_on", ""), theirs.with("cached_at", secs(-1), "expires_on", ""), ours.with("cached_at", "soon", "expires_on", "")),
		conflict("a time of 1970 or before is none: ours", ours.with("cached_at", "-5", "expires_on", 0), theirs.with("cached_at", secs(-1)), ours.with("cached_at", "-5", "expires_on", 0)),
		{says: "values that are not objects: ours", base: `{"X":{"k":1}}`, ours: `{"X":{"k":2}}`, theirs: `{"X":{"k":3}}`, want: `{"X":{"k":2}}`},
	})
	t.Run("no clock: no time is in the future", func(t *testing.T) {
		got := mustMerge(t, BytesInput{Base: []byte(cacheOf(tok)), Ours: []byte(cacheOf(ours)), Theirs: []byte(cacheOf(theirs.with("cached_at", secs(1e9))))})
		require.Equal(t, contents(t, cacheOf(theirs.with("cached_at", secs(1e9)))), contents(t, string(got)))
	})
}

// Rule 3: what one token response brought stays together. A refresh token says
// no time; the access token beside it does.
func TestRule3TokenResponse(t *testing.T) {
	base := []ent{acc("u"), rt("u", "r0"), idt("u", "i0"), at("u", "a", "a0", -900), at("u", "b", "b0", -900)}
	with := func(es ...ent) string { return cacheOf(append(base[:len(base):len(base)], es...)...) }
	both(t, []rule{
		{says: "of the same scope",
			base: with(), ours: with(rt("u", "r1"), at("u", "a", "a1", -10)), theirs: with(rt("u", "r2"), at("u", "a", "a2", -20)),
			want: with(rt("u", "r1"), at("u", "a", "a1", -10))},
		{says: "of different scopes",
			base: with(), ours: with(rt("u", "r1"), at("u", "a", "a1", -10)), theirs: with(rt("u", "r2"), at("u", "b", "b2", -20)),
			want: with(rt("u", "r1"), at("u", "a", "a1", -10), at("u", "b", "b2", -20))},
		{says: "of added scopes",
			base: with(), ours: with(rt("u", "r1"), at("u", "c", "c1", -10)), theirs: with(rt("u", "r2"), at("u", "d", "d2", -20)),
			want: with(rt("u", "r1"), at("u", "c", "c1", -10), at("u", "d", "d2", -20))},
		{says: "of several scopes on both sides: the refresh token comes with the newest of them all",
			base: with(),
			ours: with(rt("u", "r1"), at("u", "a", "a1", -30), at("u", "b", "b1", -15)), theirs: with(rt("u", "r2"), at("u", "a", "a2", -10), at("u", "b", "b2", -20)),
			want: with(rt("u", "r2"), at("u", "a", "a2", -10), at("u", "b", "b1", -15))},
		{says: "an access token that did not change is not of the response",
			base: with(at("u", "z", "z0", -1)), ours: with(at("u", "z", "z0", -1), rt("u", "r1"), at("u", "a", "a1", -30)), theirs: with(at("u", "z", "z0", -1), rt("u", "r2"), at("u", "a", "a2", -20)),
			want: with(at("u", "z", "z0", -1), rt("u", "r2"), at("u", "a", "a2", -20))},
		{says: "cached in the same second: both from the side whose access token lives longer",
			base: with(), ours: with(rt("u", "r1"), at("u", "a", "a1", -10).with("expires_on", secs(5000))), theirs: with(rt("u", "r2"), at("u", "a", "a2", -10).with("expires_on", secs(4000))),
			want: with(rt("u", "r1"), at("u", "a", "a1", -10).with("expires_on", secs(5000)))},
		{says: "one in the future does not win",
			base: with(), ours: with(rt("u", "r1"), at("u", "a", "a1", 10)), theirs: with(rt("u", "r2"), at("u", "b", "b2", -20)),
			want: with(rt("u", "r2"), at("u", "a", "a1", 10), at("u", "b", "b2", -20))},
		{says: "one in the future does not hide one that is not",
			base: with(), ours: with(rt("u", "r1"), at("u", "a", "a1", 10), at("u", "b", "b1", -5)), theirs: with(rt("u", "r2"), at("u", "c", "c2", -20)),
			want: with(rt("u", "r1"), at("u", "a", "a1", 10), at("u", "b", "b1", -5), at("u", "c", "c2", -20))},
		{says: "another account's access token does not count",
			base: with(), ours: with(rt("u", "r1"), at("u", "a", "a1", -30), at("v", "a", "v1", -1)), theirs: with(rt("u", "r2"), at("u", "b", "b2", -20)),
			want: with(rt("u", "r2"), at("u", "a", "a1", -30), at("v", "a", "v1", -1), at("u", "b", "b2", -20))},
		{says: "nor another environment's",
			base: with(), ours: with(rt("u", "r1"), at("u", "a", "a1", -30), at("u", "a", "v1", -1).with("environment", "login.example").as("other")), theirs: with(rt("u", "r2"), at("u", "b", "b2", -20)),
			want: with(rt("u", "r2"), at("u", "a", "a1", -30), at("u", "a", "v1", -1).with("environment", "login.example").as("other"), at("u", "b", "b2", -20))},
		{says: "nor another client's",
			base: with(), ours: with(rt("u", "r1"), at("u", "a", "a1", -30), clientAT("u", "app2", "a", "x1", -1)), theirs: with(rt("u", "r2"), at("u", "b", "b2", -20)),
			want: with(rt("u", "r2"), at("u", "a", "a1", -30), clientAT("u", "app2", "a", "x1", -1), at("u", "b", "b2", -20))},
		{says: "nor one got on behalf of a user",
			base: with(), ours: with(rt("u", "r1"), at("u", "a", "a1", -30), at("u", "z", "z1", -1).with("user_assertion_hash", "h")), theirs: with(rt("u", "r2"), at("u", "b", "b2", -20)),
			want: with(rt("u", "r2"), at("u", "a", "a1", -30), at("u", "z", "z1", -1).with("user_assertion_hash", "h"), at("u", "b", "b2", -20))},
		{says: "tokens got on behalf of one user belong together",
			base: with(), ours: with(rt("u", "r1").with("user_assertion_hash", "h"), at("u", "a", "a1", -30), at("u", "z", "z1", -1).with("user_assertion_hash", "h")),
			theirs: with(rt("u", "r2").with("user_assertion_hash", "h"), at("u", "b", "b2", -20), at("u", "y", "y2", -2).with("user_assertion_hash", "h")),
			want: with(rt("u", "r1").with("user_assertion_hash", "h"), at("u", "a", "a1", -30), at("u", "z", "z1", -1).with("user_assertion_hash", "h"),
				at("u", "b", "b2", -20), at("u", "y", "y2", -2).with("user_assertion_hash", "h"))},
		{says: "names compare without regard to case",
			base: with(), ours: with(rt("u", "r1").with("home_account_id", "U", "client_id", "APP"), at("u", "a", "a1", -10)), theirs: with(rt("u", "r2"), at("u", "b", "b2", -20).with("environment", "LOGIN.microsoftonline.com")),
			want: with(rt("u", "r1").with("home_account_id", "U", "client_id", "APP"), at("u", "a", "a1", -10), at("u", "b", "b2", -20).with("environment", "LOGIN.microsoftonline.com"))},
		{says: "the realm of an access token does not matter to a refresh token",
			base: with(), ours: with(rt("u", "r1"), at("u", "a", "a1", -10).with("realm", "guest").as("guest")), theirs: with(rt("u", "r2"), at("u", "b", "b2", -20)),
			want: with(rt("u", "r1"), at("u", "a", "a1", -10).with("realm", "guest").as("guest"), at("u", "b", "b2", -20))},
		{says: "ID token and account come along",
			base:   with(),
			ours:   with(rt("u", "r1"), idt("u", "i1"), acc("u").with("username", "one"), at("u", "a", "a1", -10)),
			theirs: with(rt("u", "r2"), idt("u", "i2"), acc("u").with("username", "two"), at("u", "b", "b2", -20)),
			want:   with(rt("u", "r1"), idt("u", "i1"), acc("u").with("username", "one"), at("u", "a", "a1", -10), at("u", "b", "b2", -20))},
		{says: "an ID token comes with an access token of its realm",
			base:   with(),
			ours:   with(idt("u", "i1"), at("u", "a", "a1", -30), at("u", "a", "g1", -1).with("realm", "guest").as("guest")),
			theirs: with(idt("u", "i2"), at("u", "b", "b2", -20)),
			want:   with(idt("u", "i2"), at("u", "a", "a1", -30), at("u", "a", "g1", -1).with("realm", "guest").as("guest"), at("u", "b", "b2", -20))},
		{says: "an account with a time of its own goes by that",
			base:   with(),
			ours:   with(acc("u").with("username", "one", "last_modification_time", secs(-2)), at("u", "a", "a1", -30)),
			theirs: with(acc("u").with("username", "two", "last_modification_time", secs(-3)), at("u", "b", "b2", -20)),
			want:   with(acc("u").with("username", "one", "last_modification_time", secs(-2)), at("u", "a", "a1", -30), at("u", "b", "b2", -20))},
		{says: "a refresh token does not: it stays with its access token",
			base:   with(),
			ours:   with(rt("u", "r1").with("last_modification_time", secs(-2)), at("u", "a", "a1", -30)),
			theirs: with(rt("u", "r2").with("last_modification_time", secs(-3)), at("u", "b", "b2", -20)),
			want:   with(rt("u", "r2").with("last_modification_time", secs(-3)), at("u", "a", "a1", -30), at("u", "b", "b2", -20))},
		{says: "unless that does not decide",
			base: with(), ours: with(rt("u", "r1").with("last_modification_time", secs(-2))), theirs: with(rt("u", "r2").with("last_modification_time", secs(-3))),
			want: with(rt("u", "r1").with("last_modification_time", secs(-2)))},
		{says: "a family's refresh token goes with the client that got it",
			base:   with(familyRT("u", "one", "f0"), clientAT("u", "one", "a", "x0", -900), clientAT("u", "two", "a", "y0", -900)),
			ours:   with(familyRT("u", "one", "f1"), clientAT("u", "one", "a", "x1", -10), clientAT("u", "two", "a", "y0", -900)),
			theirs: with(familyRT("u", "two", "f2"), clientAT("u", "one", "a", "x0", -900), clientAT("u", "two", "a", "y2", -20)),
			want:   with(familyRT("u", "one", "f1"), clientAT("u", "one", "a", "x1", -10), clientAT("u", "two", "a", "y2", -20))},
		{says: "and not with a stranger's access token",
			base:   with(familyRT("u", "one", "f0")),
			ours:   with(familyRT("u", "one", "f1"), clientAT("u", "one", "a", "x1", -30), at("u", "a", "a1", -1)),
			theirs: with(familyRT("u", "two", "f2"), clientAT("u", "two", "a", "y2", -20)),
			want:   with(familyRT("u", "two", "f2"), clientAT("u", "one", "a", "x1", -30), at("u", "a", "a1", -1), clientAT("u", "two", "a", "y2", -20))},
		{says: "changed by one side only: the access tokens do not matter",
			base: with(), ours: with(rt("u", "r1"), at("u", "a", "a1", -30)), theirs: with(at("u", "b", "b2", -20)),
			want: with(rt("u", "r1"), at("u", "a", "a1", -30), at("u", "b", "b2", -20))},
	})
	checkRules(t, []rule{
		{says: "no access token changed there: ours",
			base: with(), ours: with(rt("u", "r1"), at("u", "a", "a1", -30)), theirs: with(rt("u", "r2")),
			want: with(rt("u", "r1"), at("u", "a", "a1", -30))},
		{says: "no access token changed here: a missing time is not an old one, ours",
			base: with(), ours: with(rt("u", "r1")), theirs: with(rt("u", "r2"), at("u", "a", "a2", -1)),
			want: with(rt("u", "r1"), at("u", "a", "a2", -1))},
		{says: "an access token without cached_at decides nothing: ours",
			base: with(), ours: with(rt("u", "r1"), at("u", "a", "a1", -30).without("cached_at")), theirs: with(rt("u", "r2"), at("u", "b", "b2", -20)),
			want: with(rt("u", "r1"), at("u", "a", "a1", -30).without("cached_at"), at("u", "b", "b2", -20))},
		{says: "cached at the same time: ours",
			base: with(), ours: with(rt("u", "r1"), at("u", "a", "a1", -20)), theirs: with(rt("u", "r2"), at("u", "b", "b2", -20)),
			want: with(rt("u", "r1"), at("u", "a", "a1", -20), at("u", "b", "b2", -20))},
		{says: "AppMetadata is of no response: ours",
			base:   with(app("c"), at("u", "a", "a1", -30)),
			ours:   with(app("c").with("family_id", "1"), at("u", "a", "a1", -30)),
			theirs: with(app("c").with("family_id", "2"), at("u", "a", "a2", -3)),
			want:   with(app("c").with("family_id", "1"), at("u", "a", "a2", -3))},
		{says: "nor of one for the application itself: ours",
			base:   cacheOf(app("app"), at("", "a", "a0", -900)),
			ours:   cacheOf(app("app").with("family_id", "1"), at("", "a", "a1", -30)),
			theirs: cacheOf(app("app").with("family_id", "2"), at("", "a", "a2", -3)),
			want:   cacheOf(app("app").with("family_id", "1"), at("", "a", "a2", -3))},
	})
}

// Rule 4: removals.
func TestRule4Removed(t *testing.T) {
	base := cacheOf(acc("u"), at("u", "a", "a0", -900), at("u", "b", "b0", -900))
	both(t, []rule{
		{says: "removed by one, left alone by the other", base: base, ours: cacheOf(acc("u"), at("u", "b", "b0", -900)), theirs: base,
			want: cacheOf(acc("u"), at("u", "b", "b0", -900))},
		{says: "removed by both", base: base, ours: cacheOf(acc("u")), theirs: cacheOf(acc("u"), app("c")), want: cacheOf(acc("u"), app("c"))},
		{says: "removed by one, changed by the other: the change", base: base,
			ours:   cacheOf(acc("u"), at("u", "b", "b0", -900)),
			theirs: cacheOf(acc("u"), at("u", "a", "a2", -20), at("u", "b", "b0", -900)),
			want:   cacheOf(acc("u"), at("u", "a", "a2", -20), at("u", "b", "b0", -900))},
		{says: "a section removed", base: `{"X":{"k":1},"Y":{"k":1}}`, ours: `{"Y":{"k":1}}`, theirs: `{"X":{"k":1},"Y":{"k":1}}`, want: `{"Y":{"k":1}}`},
		{says: "the last entry removed", base: `{"X":{"k":1}}`, ours: `{}`, theirs: `{"X":{"k":1}}`, want: `{}`},
	})
}

// Rule 5: signing out sticks.
func TestRule5SignOut(t *testing.T) {
	signedIn := []ent{acc("u"), rt("u", "r0"), idt("u", "i0"), at("u", "a", "a0", -900)}
	all := func(ess ...[]ent) string {
		var es []ent
		for _, e := range ess {
			es = append(es, e...)
		}
		return cacheOf(es...)
	}
	other := []ent{acc("v"), rt("v", "s0"), at("v", "a", "c0", -900)}
	rest := []ent{app("app"), at("", "graph", "own", -5)}
	otherRT := rt("u", "x0").with("client_id", "app2").as("u-" + env + "-refreshtoken-app2")
	cased := func(es []ent) []ent {
		out := make([]ent, len(es))
		for i, e := range es {
			out[i] = e.with("home_account_id", "U", "environment", "Login.MicrosoftOnline.com")
		}
		return out
	}
	both(t, []rule{
		{says: "against a side that did nothing",
			base: all(signedIn, other, rest), ours: all(other, rest), theirs: all(signedIn, other, rest), want: all(other, rest)},
		{says: "against a refresh",
			base: all(signedIn, other, rest), ours: all(other, rest),
			theirs: all(signedIn, other, rest, []ent{rt("u", "r1"), idt("u", "i1"), at("u", "a", "a1", -1)}), want: all(other, rest)},
		{says: "against a new scope",
			base: all(signedIn), ours: `{}`, theirs: all(signedIn, []ent{at("u", "b", "b1", -1)}), want: `{}`},
		{says: "against a changed Account entry",
			base: all(signedIn), ours: `{}`, theirs: all(signedIn, []ent{acc("u").with("username", "renamed")}), want: `{}`},
		{says: "against a further Account entry, of another tenant",
			base: all(signedIn), ours: `{}`, theirs: all(signedIn, []ent{acc("u").with("realm", "guest").as("guest"), at("u", "a", "g", -1).as("guest")}), want: `{}`},
		{says: "of all Account entries of the account",
			base: all(signedIn, []ent{acc("u").with("realm", "guest").as("guest")}), ours: `{}`, theirs: all(signedIn, []ent{acc("u").with("realm", "guest").as("guest"), rt("u", "r1")}), want: `{}`},
		{says: "not if the side has an Account entry left, under whatever key",
			base:   all(signedIn, []ent{acc("u").with("realm", "guest").as("guest")}),
			ours:   cacheOf(acc("u").with("realm", "third").as("third")),
			theirs: all(signedIn, []ent{acc("u").with("realm", "guest").as("guest"), rt("u", "r1"), at("u", "b", "b1", -1)}),
			want:   cacheOf(acc("u").with("realm", "third").as("third"), rt("u", "r1"), at("u", "b", "b1", -1))},
		{says: "what the signing-out side kept stays, as the other side has changed it",
			base: all(signedIn, []ent{otherRT}), ours: cacheOf(otherRT), theirs: all(signedIn, []ent{otherRT.with("secret", "x1"), rt("u", "r1")}), want: cacheOf(otherRT.with("secret", "x1"))},
		{says: "in unknown sections too",
			base: all(signedIn), ours: `{}`, theirs: all(signedIn, []ent{{"X", "k", map[string]any{"home_account_id": "u", "environment": env, "f": 1}}, {"X", "l", map[string]any{"f": 1}}}),
			want: `{"X":{"l":{"f":1}}}`},
		{says: "another account is not touched",
			base: all(signedIn, other), ours: all(other), theirs: all(signedIn, other, []ent{rt("v", "s1"), at("v", "b", "d1", -1)}), want: all(other, []ent{rt("v", "s1"), at("v", "b", "d1", -1)})},
		{says: "the same account in another environment is another account",
			base: all(signedIn, []ent{acc("u").with("environment", "sts.example").as("sts")}), ours: cacheOf(acc("u").with("environment", "sts.example").as("sts")),
			theirs: all(signedIn, []ent{acc("u").with("environment", "sts.example").as("sts"), rt("u", "r1"), rt("u", "q1").with("environment", "sts.example").as("sts")}),
			want:   cacheOf(acc("u").with("environment", "sts.example").as("sts"), rt("u", "q1").with("environment", "sts.example").as("sts"))},
		{says: "AppMetadata and an application's own tokens are nobody's",
			base: all(signedIn), ours: `{}`, theirs: all(signedIn, rest), want: all(rest)},
		{says: "accounts compare without regard to case",
			base: all(signedIn), ours: `{}`, theirs: all(cased(signedIn), []ent{at("U", "b", "b1", -1)}), want: `{}`},
		{says: "and a change of case is no sign-out",
			base: all(signedIn), ours: all(cased(signedIn)), theirs: all(signedIn, []ent{at("u", "b", "b1", -1)}), want: all(cased(signedIn), []ent{at("u", "b", "b1", -1)})},
		{says: "by both sides",
			base: all(signedIn, other), ours: all(other), theirs: all(other, []ent{at("v", "b", "d1", -1)}), want: all(other, []ent{at("v", "b", "d1", -1)})},
		{says: "by both sides, what both kept stays",
			base: all(signedIn, []ent{otherRT}), ours: cacheOf(otherRT.with("secret", "x1")), theirs: cacheOf(otherRT), want: cacheOf(otherRT.with("secret", "x1"))},
		{says: "by both sides, what one added does not stay",
			base: all(signedIn), ours: `{}`, theirs: cacheOf(rt("u", "r1")), want: `{}`},
		{says: "of different accounts by each side",
			base: all(signedIn, other), ours: all(other), theirs: all(signedIn), want: `{}`},
		{says: "who signs out and in again has not signed out: a change beside it stands (rule 4)",
			base: all(signedIn), ours: cacheOf(acc("u"), rt("u", "r5"), at("u", "z", "z5", -1)), theirs: all(signedIn, []ent{at("u", "b", "b1", -10)}),
			want: cacheOf(acc("u"), rt("u", "r5"), at("u", "z", "z5", -1), at("u", "b", "b1", -10))},
		{says: "tokens without an Account entry in base were not signed out: only removed",
			base: cacheOf(rt("u", "r0"), at("u", "a", "a0", -900)), ours: `{}`, theirs: cacheOf(rt("u", "r1"), at("u", "a", "a0", -900)), want: cacheOf(rt("u", "r1"))},
		{says: "an Account section that is no object says nothing about who is signed in",
			base: all(signedIn), ours: `{"Account":1}`, theirs: all(signedIn, []ent{at("u", "b", "b1", -10)}), want: `{"Account":1,"AccessToken":` + sectionOf(at("u", "b", "b1", -10)) + `}`},
	})
}

// Of accounts that the caller knows to be gone, it gives the merge what theirs has.
func TestGone(t *testing.T) {
	gone := []tokencache.Account{named("U", "LOGIN.MICROSOFTONLINE.COM")}
	refreshed := []ent{rt("u", "r1"), idt("u", "i1"), acc("u"), at("u", "a", "a1", -1)}
	v := []ent{acc("v"), rt("v", "s1")}
	checkRules(t, []rule{
		{says: "what a refresh in flight brings is not added", gone: gone,
			base: `{}`, ours: cacheOf(refreshed...), theirs: `{}`, want: `{}`},
		{says: "though base is theirs", gone: gone,
			base: cacheOf(v...), ours: cacheOf(append(refreshed, v...)...), theirs: cacheOf(v...), want: cacheOf(v...)},
		{says: "nor changed", gone: gone,
			base: cacheOf(rt("u", "r0")), ours: cacheOf(rt("u", "r1")), theirs: cacheOf(rt("u", "r0")), want: cacheOf(rt("u", "r0"))},
		{says: "nor removed", gone: gone,
			base: cacheOf(rt("u", "r0")), ours: `{}`, theirs: cacheOf(rt("u", "r0")), want: cacheOf(rt("u", "r0"))},
		{says: "who has signed in again elsewhere stays so", gone: gone,
			base: `{}`, ours: cacheOf(refreshed...), theirs: cacheOf(acc("u"), rt("u", "r9"), at("u", "a", "a9", -100)), want: cacheOf(acc("u"), rt("u", "r9"), at("u", "a", "a9", -100))},
		{says: "other accounts and AppMetadata are added", gone: gone,
			base: `{}`, ours: cacheOf(append(refreshed, acc("v"), rt("v", "s1"), app("app"))...), theirs: `{}`, want: cacheOf(acc("v"), rt("v", "s1"), app("app"))},
		{says: "the same account in another environment is another account", gone: []tokencache.Account{named("u", "sts.example")},
			base: `{}`, ours: cacheOf(refreshed...), theirs: `{}`, want: cacheOf(refreshed...)},
		{says: "an account without a name is nobody's", gone: []tokencache.Account{named("", env)},
			base: `{}`, ours: cacheOf(at("", "graph", "own", -5), app("app")), theirs: `{}`, want: cacheOf(at("", "graph", "own", -5), app("app"))},
	})
}

// Rule 7: without a base nothing counts as removed.
func TestRule7BaseUnknown(t *testing.T) {
	unknown := BytesInput{BaseUnknown: true}
	both(t, []rule{
		{says: "all additions", in: unknown,
			base: cacheOf(acc("u"), rt("u", "r0")), ours: cacheOf(acc("u"), rt("u", "r0")), theirs: cacheOf(acc("v"), rt("v", "s0")),
			want: cacheOf(acc("u"), rt("u", "r0"), acc("v"), rt("v", "s0"))},
		{says: "nobody has signed out", in: unknown,
			base: cacheOf(acc("u"), rt("u", "r0")), ours: `{}`, theirs: cacheOf(acc("u"), rt("u", "r0")), want: cacheOf(acc("u"), rt("u", "r0"))},
		{says: "the newer response stands", in: unknown,
			ours: cacheOf(acc("u"), rt("u", "r1"), at("u", "a", "a1", -10)), theirs: cacheOf(acc("u"), rt("u", "r2"), at("u", "b", "b2", -20)),
			want: cacheOf(acc("u"), rt("u", "r1"), at("u", "a", "a1", -10), at("u", "b", "b2", -20))},
		{says: "a base that is no cache is unknown", base: `[`,
			ours: `{}`, theirs: cacheOf(acc("u"), rt("u", "r0")), want: cacheOf(acc("u"), rt("u", "r0"))},
	})
}

// Rule 8: what nobody here knows is carried through.
func TestRule8Unknown(t *testing.T) {
	both(t, []rule{
		{says: "sections and fields", base: `{}`, ours: `{"AccessToken":{"a":{"secret":"s","x":{"y":[1,null,"<"]}}}}`, theirs: `{"X":{"k":{"f":1.50}},"Y":{"k":[]}}`,
			want: `{"AccessToken":{"a":{"secret":"s","x":{"y":[1,null,"<"]}}},"X":{"k":{"f":1.50}},"Y":{"k":[]}}`},
		{says: "a section that is not an object is one value", base: `{"V":1,"W":[1],"Z":"z"}`, ours: `{"V":2,"W":[1],"Z":"z","N":true}`, theirs: `{"V":1,"W":[1,2]}`,
			want: `{"V":2,"W":[1,2],"N":true}`},
		{says: "a value replaced by an object", base: `{"V":1}`, ours: `{"V":{"k":1}}`, theirs: `{"V":1,"W":1}`, want: `{"V":{"k":1},"W":1}`},
		{says: "null sections", base: `{"V":null}`, ours: `{"V":{"k":1}}`, theirs: `{"V":null}`, want: `{"V":{"k":1}}`},
	})
	checkRules(t, []rule{
		{says: "a value that both changed: ours", base: `{"V":1}`, ours: `{"V":2}`, theirs: `{"V":{"k":3}}`, want: `{"V":2}`},
	})
	t.Run("byte for byte", func(t *testing.T) {
		got := mustMerge(t, BytesInput{
			Base:   []byte(`{}`),
			Ours:   []byte(`{"X":{"o":{"f": 1e2,  "\u0067":[ ]}}}`),
			Theirs: []byte(`{"Y":  {"b" : 1, "a":{"z":"\/"} } ,"V":[ 1 ],"E":"","N": null, "X":{"t":{"f":"<\u003c"}}}`),
		})
		require.Equal(t, `{"Y":{"b" : 1, "a":{"z":"\/"} },"V":[ 1 ],"E":"","N":null,"X":{"t":{"f":"<\u003c"},"o":{"f": 1e2,  "\u0067":[ ]}}}`, string(got))
	})
}

// Rule 8: what is no cache is not merged.
func TestRule8Errors(t *testing.T) {
	broken := []string{`[]`, `"{}"`, `{`, `{"a"}`, `{"A":{"k":}}`, `{"A":{"k":1,}}`, "{\"A\":\"\n\"}", `{"A":"\x41"}`, `{"A":01}`, "\x01{}", `nul`}
	for _, b := range broken {
		for _, good := range []string{``, `{}`, `{"A":{"k":1}}`} {
			for _, base := range []string{``, `{"A":{"k":2}}`, b} {
				for _, c := range []struct {
					ours, theirs string
					want         error
				}{{b, good, ErrOurs}, {good, b, ErrTheirs}, {b, b + "x", ErrBoth}} {
					got, changed, err := Bytes(BytesInput{Base: []byte(base), Ours: []byte(c.ours), Theirs: []byte(c.theirs)})
					require.ErrorIs(t, err, c.want, "base %q ours %q theirs %q", base, c.ours, c.theirs)
					require.False(t, changed)
					require.Nil(t, got)
				}
			}
		}
		got, changed, err := Bytes(BytesInput{Ours: []byte(b), Theirs: []byte(b)})
		require.NoError(t, err, "equal bytes need no merge")
		require.False(t, changed)
		require.Equal(t, b, string(got))
		require.Nil(t, signedOut([]byte(b), nil))
		require.Nil(t, signedOut([]byte(cacheOf(acc("u"))), []byte(b)))
	}
}

func TestSignedOut(t *testing.T) {
	base := cacheOf(acc("u"), acc("u").with("realm", "guest").as("guest"), acc("v"), acc("W"))
	for _, c := range []struct {
		says, ours string
		want       []tokencache.Account
	}{
		{"nobody", base, nil},
		{"everybody", ``, []tokencache.Account{named("u", env), named("v", env), named("W", env)}},
		{"one", cacheOf(acc("u"), acc("w")), []tokencache.Account{named("v", env)}},
		{"one Account entry of two is left", cacheOf(acc("u").as("renamed"), acc("v"), acc("w")), nil},
		{"tokens are not an account", cacheOf(rt("u", "r"), acc("v"), acc("w")), []tokencache.Account{named("u", env)}},
		{"the environment matters", cacheOf(acc("u").with("environment", "x"), acc("v"), acc("w")), []tokencache.Account{named("u", env)}},
	} {
		t.Run(c.says, func(t *testing.T) {
			require.Equal(t, c.want, append([]tokencache.Account(nil), signedOut([]byte(base), []byte(c.ours))...))
		})
	}
	require.Nil(t, signedOut(nil, []byte(base)))
}

// sectionOf serializes one entry as a section.
func sectionOf(e ent) string {
	s := cacheOf(e)
	return s[len(`{"`+e.section+`":`) : len(s)-1]
}
