package merge

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand"
	"strings"
	"testing"
	"time"
)

// bigCache returns a cache of access tokens of about 2 kB each.
func bigCache(entries int) map[string]map[string]map[string]string {
	secret := bytes.Repeat([]byte("eyJ0eXAiOiJKV1QiLCJub25jZSI6IkFC"), 52)
	ats := map[string]map[string]string{}
	for i := range entries {
		home := fmt.Sprintf("00000000-0000-0000-0000-%012d.11111111-1111-1111-1111-111111111111", i)
		ats[home+"-login.microsoftonline.com-accesstoken-client-tenant-user.read"] = map[string]string{
			"home_account_id": home, "environment": "login.microsoftonline.com", "realm": "tenant",
			"credential_type": "AccessToken", "client_id": "client", "secret": fmt.Sprintf("%d%s", i, secret),
			"target": "user.read openid profile", "expires_on": "1700003600", "extended_expires_on": "1700003600",
			"cached_at": "1700000000", "token_type": "Bearer",
		}
	}
	return map[string]map[string]map[string]string{"AccessToken": ats, "AppMetadata": {"m": {"client_id": "client"}}}
}

// shuffled serializes the cache with sections, entries and fields in random
// order.
func shuffled(c map[string]map[string]map[string]string, rnd *rand.Rand) []byte {
	b := []byte{'{'}
	for _, s := range shuffledKeys(c, rnd) {
		b = fmt.Appendf(b, "%q:{", s)
		for _, k := range shuffledKeys(c[s], rnd) {
			b = fmt.Appendf(b, "%q:{", k)
			for _, f := range shuffledKeys(c[s][k], rnd) {
				b = fmt.Appendf(b, "%q:%q,", f, c[s][k][f])
			}
			b = append(bytes.TrimSuffix(b, []byte(",")), '}', ',')
		}
		b = append(bytes.TrimSuffix(b, []byte(",")), '}', ',')
	}
	return append(bytes.TrimSuffix(b, []byte(",")), '}')
}

func BenchmarkMerge(b *testing.B) {
	now := time.Unix(1700000100, 0)
	for _, size := range []struct {
		name    string
		entries int
	}{{"1MB", 500}, {"10MB", 5000}} {
		c := bigCache(size.entries)
		base, err := json.Marshal(c)
		if err != nil {
			b.Fatal(err)
		}
		edit := func(n int, secret string) []byte {
			return bytes.Replace(base, fmt.Appendf(nil, `"secret":"%d`, n), fmt.Appendf(nil, `"secret":"%s%d`, secret, n), 1)
		}
		theirs := edit(7, "new")
		rnd := rand.New(rand.NewSource(1))
		// Every account has a refresh token that both sides changed.
		accounts := func(secret string, cached int64) []byte {
			var es []ent
			for i := range size.entries / 2 {
				who := fmt.Sprint("user", i)
				es = append(es, rt(who, fmt.Sprint(secret, i, strings.Repeat("x", 1500))), at(who, "s", fmt.Sprint(secret, i, strings.Repeat("x", 1500)), cached+int64(i%3)))
			}
			return []byte(cacheOf(es...))
		}
		for _, bm := range []struct {
			name string
			in   BytesInput
		}{
			{"all_conflict", BytesInput{BaseUnknown: true, Ours: accounts("ours", -90), Theirs: accounts("theirs", -89)}},
			{"few_changed", BytesInput{Base: base, Ours: edit(3, "other"), Theirs: theirs}},
			{"reordered", BytesInput{Base: base, Ours: shuffled(c, rnd), Theirs: theirs}},
			{"all_reordered", BytesInput{Base: shuffled(c, rnd), Ours: shuffled(c, rnd), Theirs: theirs}},
			{"base_unknown", BytesInput{BaseUnknown: true, Ours: edit(3, "other"), Theirs: theirs}},
			{"identical", BytesInput{Base: base, Ours: theirs, Theirs: theirs}},
		} {
			bm.in.Now = now
			b.Run(size.name+"/"+bm.name, func(b *testing.B) {
				b.SetBytes(int64(len(bm.in.Ours)))
				b.ReportAllocs()
				for b.Loop() {
					if _, _, err := Bytes(bm.in); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkEqual(b *testing.B) {
	c := bigCache(500)
	base, err := json.Marshal(c)
	if err != nil {
		b.Fatal(err)
	}
	rnd := rand.New(rand.NewSource(1))
	for _, bm := range []struct {
		name  string
		other []byte
		want  bool
	}{
		{"reordered", shuffled(c, rnd), true},
		{"differs", bytes.Replace(base, []byte(`"secret":"0`), []byte(`"secret":"x`), 1), false},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.SetBytes(int64(len(base)))
			b.ReportAllocs()
			for b.Loop() {
				if Equal(base, bm.other) != bm.want {
					b.Fatal("wrong")
				}
			}
		})
	}
}
