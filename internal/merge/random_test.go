package merge

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/tokencache"
)

var (
	seedFlag = flag.Int64("merge.seed", 0, "seed of the random tests; 0 takes a new one")
	runsFlag = flag.Int("merge.runs", 0, "how often to run each random test; 0 takes its default")
)

// random returns a source of random numbers, with its seed in the log of a
// failing test, and how often to run.
func random(t *testing.T, runs int) (*rand.Rand, int) {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = time.Now().UnixNano()
	}
	t.Logf("go test -run '^%s$' -merge.seed=%d", t.Name(), seed)
	if *runsFlag > 0 {
		runs = *runsFlag
	} else if os.Getenv("TOKENKEEP_LONG") == "" {
		runs = max(runs/10, 1)
	}
	return rand.New(rand.NewSource(seed)), runs
}

func pick[T any](rnd *rand.Rand, of ...T) T { return of[rnd.Intn(len(of))] }

// randomCache returns a small cache from few parts, so that three of them meet
// in many ways: accounts in two spellings, clients, times, odd values. If
// named, the key of an entry names its account, client and realm, the sections
// that MSAL shares are objects, and every entry says when: as MSAL writes them.
func randomCache(rnd *rand.Rand, named bool) []byte {
	var b bytes.Buffer
	b.WriteString("{")
	for _, s := range rnd.Perm(7) {
		if rnd.Intn(4) == 0 {
			continue
		}
		if b.Len() > 1 {
			b.WriteString(",")
		}
		name := []string{accessToken, refreshToken, idToken, account, appMetadata, "X", "Y"}[s]
		fmt.Fprintf(&b, "%q:", name)
		if rnd.Intn(12) == 0 && (!named || !tokencache.Shared(name)) {
			b.WriteString(pick(rnd, `null`, `""`, `1`, `"1"`, `[1,2]`, `[2,1]`, `{}`))
			continue
		}
		b.WriteString("{")
		for j := range rnd.Intn(7) {
			if j > 0 {
				b.WriteString(",")
			}
			home, env := pick(rnd, "u", "u", "U", "v", ""), pick(rnd, "login.windows.net", "login.windows.net", "login.Windows.net", "sts.windows.net", "f")
			client, realm, key := pick(rnd, "app", "app", "App", "app2"), pick(rnd, "r", "r", "guest", ""), pick(rnd, "k", "k", "l", "m", "K", `\u006b`)
			if named {
				key = strings.Join([]string{home, env, client, realm, key}, "-")
				if !tokencache.Shared(name) {
					key = strings.ToLower(key)
				}
			}
			fmt.Fprintf(&b, `"%s":%s`, key, randomEntry(rnd, home, env, client, realm, named))
		}
		b.WriteString("}")
	}
	b.WriteString("}")
	return b.Bytes()
}

func randomEntry(rnd *rand.Rand, home, env, client, realm string, named bool) string {
	if !named && rnd.Intn(20) == 0 {
		return pick(rnd, `null`, `{}`, `""`, `1`, `"1"`, `[{"a":null}]`, `[{}]`, `true`)
	}
	always := []string{`"home_account_id":"` + home + `"`, `"environment":"` + env + `"`, `"client_id":"` + client + `"`, `"realm":"` + realm + `"`}
	fields := []string{
		`"secret":` + pick(rnd, `"a"`, `"b"`, `"c"`),
		`"x":` + pick(rnd, `[1,2]`, `["1",2]`, `{"a":1}`, `{"a":1,"b":null}`, `{}`),
	}
	if named {
		always = append(always, `"cached_at":`+pick(rnd, `"1"`, `2`, `3`, `"3"`, `"9"`, `"1e9"`), `"expires_on":`+pick(rnd, `"5"`, `6`, `"300"`))
	} else {
		fields = append(append(fields, always...),
			`"user_assertion_hash":`+pick(rnd, `""`, `""`, `null`, `"h"`),
			`"cached_at":`+pick(rnd, `"1"`, `2`, `3`, `"3"`, `"9"`, `"1e9"`, `""`),
			`"expires_on":`+pick(rnd, `"1"`, `2`, `"x"`, `"300"`),
			`"last_modification_time":`+pick(rnd, `"1"`, `2`, `"1.5"`, `9`))
		always = nil
	}
	rnd.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
	fields = append(fields[:max(len(fields)-rnd.Intn(4), 0)], always...)
	rnd.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
	return "{" + strings.Join(fields, ",") + "}"
}

// TestRandomCaches compares Merge and Equal with the reference on caches that
// no process would write, too.
func TestRandomCaches(t *testing.T) {
	rnd, runs := random(t, 3000)
	changed := 0
	for range runs {
		named := rnd.Intn(2) == 0
		base, ours, theirs := randomCache(rnd, named), randomCache(rnd, named), randomCache(rnd, named)
		switch rnd.Intn(6) {
		case 0:
			ours = base
		case 1:
			theirs = base
		case 2:
			base = nil
		}
		in := BytesInput{Base: base, Ours: ours, Theirs: theirs, BaseUnknown: rnd.Intn(8) == 0}
		if rnd.Intn(4) > 0 {
			in.Now = time.Unix(4, 0)
		}
		if rnd.Intn(4) == 0 {
			in.Back = []tokencache.Account{{HomeAccountID: pick(rnd, "u", "V"), Environment: pick(rnd, "LOGIN.microsoft.com", "f")}}
		}
		checkMerge(t, in)
		// Merging twice is merging once, unless the first merge drops the access
		// tokens by which it decided.
		if named && len(signedOut(base, ours)) == 0 && len(signedOut(base, theirs)) == 0 {
			mustMergeOnce(t, in)
		}
		require.Equal(t, refEqual(ours, theirs), Equal(ours, theirs), "%s\n%s", ours, theirs)
		if _, c, _ := Bytes(in); c {
			changed++
		}
	}
	require.NotZero(t, changed)
}

// TestRandomControls: the comparison with the reference notices a rule that is
// missing.
func TestRandomControls(t *testing.T) {
	for name, f := range controls {
		t.Run(name, func(t *testing.T) {
			rnd, _ := random(t, 0)
			for range 50000 {
				in := BytesInput{Base: randomCache(rnd, true), Ours: randomCache(rnd, true), Theirs: randomCache(rnd, true), Now: time.Unix(4, 0), Back: []tokencache.Account{{HomeAccountID: "v", Environment: "f"}}}
				want, err := refMerge(in, f)
				require.NoError(t, err)
				if !Equal(want, mustMerge(t, in)) {
					return
				}
			}
			t.Fatal("not noticed")
		})
	}
}

var controls = map[string]faults{
	"no token response": {noResponse: true},
	"no sign-out":       {noSignOut: true},
	"no cloud":          {noCloud: true},
	"nobody back":       {noBack: true},
	"nothing removed":   {noRemoval: true},
	"no times":          {noTime: true},
}
