package merge

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// seeds are caches with something odd in each.
var seeds = []string{
	``, `{}`, ` {} `, `null`, `[]`, `{}x`, "\x00{}", "\ufeff{\"X\":{\"k\":1}}\x00", `{"A":{}}`, `{"A":null}`, `{"A":1,"A":{"k":1}}`, `{"":{"":""}}`,
	`{"AccessToken":{"K":{"f":1700},"k":{"f":"1700"}}}`, `{"X":{"K":1,"k":2,"K":3}}`, `{"X":{"k":1}}`, `{"X":{"k":{"f":[1,{"y":null}]}}}`,
	`{"\u0041":{"\ud83d\ude00":{"\ud800":"\n"}}}`, "{\"X\":{\"\xff\":1,\"\xfe\":2}}", `{"X":{"k":-0.0e+1}}`, `{"X":{"k":"\u00e9"}}`, "{\"X\":{\"k\":\"é\"}}",
	`{"X":{"k":{"a":{"b":{"c":[[[[1]]]]}}}}}`, `{"X":true,"Y":[1,2],"Z":"z"}`, `{"X":{"k":1},}`, "{\"X\":\"\x1f\"}", `{"X":"\q"}`, `{"X":1.}`,
	cacheOf(acc("u"), rt("u", "r0"), at("u", "a", "a0", -900), idt("u", "i0"), app("app")),
	cacheOf(acc("u"), rt("u", "r1"), at("u", "a", "a1", -10), idt("u", "i1"), app("app")),
	cacheOf(acc("u"), rt("u", "r2"), at("u", "b", "b2", -20).with("cached_at", 1700000000), app("app")),
	cacheOf(acc("v"), app("app")),
	cacheOf(acc("u").as("U"), rt("u", "r2").as("U-rt"), familyRT("u", "app", "f"), at("u", "a", "a0", 10)),
}

// tooDeep reports whether values nest deeper than Equal compares field by
// field, where the reference still does.
func tooDeep(data []byte) bool {
	return max(bytes.Count(data, []byte("{")), bytes.Count(data, []byte("["))) > 64
}

func FuzzEqual(f *testing.F) {
	for _, a := range seeds {
		for _, b := range seeds {
			f.Add([]byte(a), []byte(b))
		}
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		require.True(t, Equal(a, bytes.Clone(a)), "reflexive")
		got := Equal(a, b)
		require.Equal(t, got, Equal(b, a), "symmetric")
		if !tooDeep(a) && !tooDeep(b) {
			require.Equal(t, refEqual(a, b), got, "as the reference")
		}
		if got {
			merged, changed, err := Bytes(BytesInput{Ours: a, Theirs: b})
			require.NoError(t, err)
			require.False(t, changed)
			require.Equal(t, b, merged)
		}
	})
}

func FuzzMerge(f *testing.F) {
	for i, a := range seeds {
		for j, b := range seeds {
			f.Add([]byte(a), []byte(b), []byte(seeds[(i+j)%len(seeds)]), (i+j)%5 == 0, (i+j)%3 == 0)
		}
	}
	f.Fuzz(func(t *testing.T, base, ours, theirs []byte, unknown, back bool) {
		in := BytesInput{Base: base, Ours: ours, Theirs: theirs, BaseUnknown: unknown, Now: now}
		if d := parse(ours); back && d != nil {
			in.Back = d.Accounts()
		}
		checkMerge(t, in)
	})
}

// checkMerge checks what holds whatever is merged.
func checkMerge(t testing.TB, in BytesInput) {
	t.Helper()
	got, changed, err := Bytes(in)
	tooDeep := tooDeep(in.Base) || tooDeep(in.Ours) || tooDeep(in.Theirs)
	if !tooDeep {
		want, wantErr := refMerge(in, faults{})
		require.Equal(t, wantErr, err)
		require.True(t, err != nil || Equal(want, got), "want %s\ngot  %s", want, got)
	}
	if err != nil {
		require.Nil(t, got)
		require.False(t, changed)
		return
	}
	require.Equal(t, !Equal(got, in.Theirs), changed)
	mustMerge(t, in)
	for _, x := range [][]byte{in.Ours, in.Theirs, got} {
		if parse(x) == nil {
			continue
		}
		b := in.Base
		if parse(b) == nil {
			b = nil
		}
		for name, in := range map[string]BytesInput{
			"only we changed":   {Base: b, Ours: x, Theirs: b},
			"only they changed": {Base: b, Ours: b, Theirs: x},
			"both the same":     {Base: b, Ours: x, Theirs: x},
			"nothing stored":    {Ours: x, BaseUnknown: true},
		} {
			in.Now = time.Time{}
			require.True(t, Equal(mustMerge(t, in), x), "%s: base %s x %s", name, b, x)
		}
	}
}
