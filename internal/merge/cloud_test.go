package merge

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/tokencache"
)

// under returns entries as a library writes them that knows the cloud by another
// name.
func under(environment string, es ...ent) []ent {
	out := make([]ent, len(es))
	for i, e := range es {
		out[i] = e.with("environment", environment).as(environment + "-" + e.key)
	}
	return out
}

// Rule 5: a sign-out is seen under one name of a cloud, and holds for all.
func TestRule5Cloud(t *testing.T) {
	all := func(ess ...[]ent) string {
		var es []ent
		for _, e := range ess {
			es = append(es, e...)
		}
		return cacheOf(es...)
	}
	const windows = "login.windows.net"
	here := []ent{acc("u"), rt("u", "r0"), at("u", "a", "a0", -900)}
	there := under(windows, here...)
	refreshed := under(windows, rt("u", "r1"), at("u", "b", "b1", -1))
	other := under("login.microsoftonline.us", acc("u"), rt("u", "s0"))
	otherNew := under("login.microsoftonline.us", acc("u"), rt("u", "s1"))
	both(t, []rule{
		{says: "what a refresh brings under another name is dropped",
			base: all(here), ours: `{}`, theirs: all(here, refreshed), want: `{}`},
		{says: "with an account of its own too",
			base: all(here), ours: `{}`, theirs: all(here, there), want: `{}`},
		{says: "while the account is left under the other name",
			base: all(here, there), ours: all(there), theirs: all(here, there, under(windows, at("u", "b", "b1", -1))), want: all(there)},
		{says: "the same account in another cloud is another account",
			base: all(here, other), ours: all(other), theirs: all(here, otherNew), want: all(otherNew)},
		{says: "a Kelvin sign is not a k",
			base: all([]ent{acc("k")}), ours: `{}`, theirs: all([]ent{acc("k"), rt("\u212a", "r1")}), want: all([]ent{rt("\u212a", "r1")})},
	})
	checkRules(t, []rule{
		{says: "who signs out under one name and in again under another is signed in",
			base: all(here), ours: all(there), theirs: all(here, []ent{at("u", "b", "b1", -1)}), want: all(there)},
	})
}

// Rule 3: the entries of one response belong together under all names.
func TestRule3Cloud(t *testing.T) {
	base := []ent{acc("u"), rt("u", "r0")}
	with := func(es ...ent) string { return cacheOf(append(base[:len(base):len(base)], es...)...) }
	newest := under("sts.windows.net", at("u", "a", "a1", -10))[0]
	both(t, []rule{{says: "an access token under another name decides",
		base: with(), ours: with(rt("u", "r1"), newest), theirs: with(rt("u", "r2"), at("u", "b", "b2", -20)),
		want: with(rt("u", "r1"), newest, at("u", "b", "b2", -20))}})
}

// Rule 6: a sign-in that came after the sign-out stands.
func TestRule6Back(t *testing.T) {
	old := []ent{acc("u"), rt("u", "r0"), at("u", "a", "a0", -900)}
	fresh := []ent{acc("u"), rt("u", "r1"), at("u", "a", "a1", -1)}
	v := []ent{acc("v"), rt("v", "s0")}
	back := BytesInput{Back: []tokencache.Account{named("U", "login.windows.net")}}
	checkRules(t, []rule{
		{says: "control: without Back, nothing of it stays",
			base: cacheOf(old...), ours: cacheOf(fresh...), theirs: `{}`, want: `{}`},
		{says: "signed out there, signed in again here", in: back,
			base: cacheOf(old...), ours: cacheOf(fresh...), theirs: `{}`, want: cacheOf(fresh...)},
		{says: "control: an Account entry that looks unchanged is removed with the others",
			base: cacheOf(old...), ours: cacheOf(acc("u"), at("u", "a", "a1", -1)), theirs: cacheOf(v...), want: cacheOf(v...)},
		{says: "of another account signed out there nothing stays", in: back,
			base: cacheOf(append(v, old...)...), ours: cacheOf(append([]ent{acc("v"), rt("v", "s1")}, fresh...)...), theirs: `{}`, want: cacheOf(fresh...)},
		{says: "signed in there as well: the newer stands", in: back,
			base: cacheOf(old...), ours: cacheOf(fresh...), theirs: cacheOf(acc("u").with("username", "x"), rt("u", "r2"), at("u", "b", "b2", -5)),
			want: cacheOf(acc("u"), rt("u", "r1"), at("u", "a", "a1", -1), at("u", "b", "b2", -5))},
		{says: "a sign-out here stands", in: back,
			base: cacheOf(old...), ours: `{}`, theirs: cacheOf(fresh...), want: `{}`},
	})
}

// Rule 0: in a section that MSAL libraries do not share, keys that differ in case
// are two entries also where each side has one.
func TestRule0ExactKeys(t *testing.T) {
	both(t, []rule{
		{says: "one key on each side", base: `{}`, ours: `{"OAuth2Token":{"Key":{"refresh_token":"1"}}}`, theirs: `{"OAuth2Token":{"key":{"refresh_token":"2"}}}`,
			want: `{"OAuth2Token":{"Key":{"refresh_token":"1"},"key":{"refresh_token":"2"}}}`},
		{says: "one of them removed", base: `{"X":{"K":1,"k":1}}`, ours: `{"X":{"K":1}}`, theirs: `{"X":{"K":2,"k":1}}`, want: `{"X":{"K":2}}`},
	})
}

// Refresh tokens of one account, each beside access tokens, cost a number of steps
// that grows as they do.
func TestNewestIsLinear(t *testing.T) {
	steps := func(n int) int {
		side := func(secret string) *tokencache.Doc {
			es := make([]ent, 0, 2*n)
			for i := range n {
				client := fmt.Sprint("app", i)
				es = append(es, rt("u", secret).with("client_id", client).as("rt-"+client), clientAT("u", client, "a", secret, -10))
			}
			return parse([]byte(cacheOf(es...)))
		}
		m := merger{base: empty, ours: side("ours"), theirs: side("theirs"), now: now.Unix()}
		require.True(t, m.merge().Changed)
		return m.steps
	}
	small, large := steps(50), steps(400)
	require.NotZero(t, small)
	require.LessOrEqual(t, large, 8*small)
}

// A merge parses nothing, and Bytes parses each side once.
func TestParses(t *testing.T) {
	base, ours, theirs := parse([]byte(cacheOf(acc("u"), rt("u", "r0")))), parse([]byte(cacheOf(acc("u"), rt("u", "r1")))), parse([]byte(cacheOf(acc("u"), rt("u", "r2"), app("c"))))
	before := tokencache.Parses()
	require.True(t, Merge(Input{Base: base, Ours: ours, Theirs: theirs, Now: now}).Changed)
	require.Equal(t, before, tokencache.Parses())
	_, _, err := Bytes(BytesInput{Base: base.Data(), Ours: ours.Data(), Theirs: theirs.Data(), Now: now})
	require.NoError(t, err)
	require.Equal(t, before+3, tokencache.Parses())
}
