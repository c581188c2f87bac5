package merge

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep/internal/tokencache"
)

// This file is the merge a second time, written for clarity on encoding/json:
// what the real one is compared with, and, with one of its rules left out, the
// control that shows that a test would notice.

// faults are rules that the reference leaves out.
type faults struct {
	noResponse bool // of rule 3: refresh tokens are ours whatever came with them
	noSignOut  bool // rule 5
	noCloud    bool // of rule 5: a sign-out holds for one name of a cloud only
	noBack     bool // rule 6
	noRemoval  bool // rule 4: nothing is ever removed
	noTime     bool // of rule 3: ours always stands
}

type refDoc map[string]*refSection

type refSection struct {
	object  bool
	raw     json.RawMessage
	entries []refEntry // in order, repetitions included
}

type refEntry struct {
	key string
	raw json.RawMessage
}

// refParse parses a cache; ok is false if it is none.
func refParse(data []byte) (d refDoc, ok bool) {
	d = refDoc{}
	if data = tokencache.Trim(data); len(data) == 0 { // which has a test of its own
		return d, true
	}
	var raw json.RawMessage
	if json.NewDecoder(bytes.NewReader(data)).Decode(&raw) != nil || raw[0] != '{' {
		return nil, false
	}
	for _, e := range refMembers(raw) {
		s := &refSection{raw: e.raw, object: e.raw[0] == '{' || string(e.raw) == "null"}
		if e.raw[0] == '{' {
			s.entries = refMembers(e.raw)
		}
		d[e.key] = s
	}
	return d, true
}

func refMembers(raw []byte) (es []refEntry) {
	d := json.NewDecoder(bytes.NewReader(raw))
	check(d.Token())
	for d.More() {
		e := refEntry{key: check(d.Token()).(string)}
		if err := d.Decode(&e.raw); err != nil {
			panic(err)
		}
		es = append(es, e)
	}
	return es
}

func check[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// canon returns a text that two values share if they say the same; nil has
// that of "".
func canon(raw json.RawMessage) string {
	if raw == nil {
		return `""`
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		panic(err)
	}
	var norm func(v any) any
	norm = func(v any) any {
		switch v := v.(type) {
		case nil:
			return ""
		case json.Number:
			return string(v)
		case []any:
			for i := range v {
				v[i] = norm(v[i])
			}
		case map[string]any:
			for k := range v {
				if v[k] = norm(v[k]); v[k] == "" {
					delete(v, k)
				}
			}
		}
		return v
	}
	return string(check(json.Marshal(norm(v))))
}

// byPair returns the entries that count, by what pairs them.
func (s *refSection) byPair(exact bool) map[string]*refEntry {
	m := map[string]*refEntry{}
	if s == nil {
		return m
	}
	for _, e := range s.entries {
		p := e.key
		if !exact {
			p = refFold(p)
		}
		if old := m[p]; old == nil || old.key == e.key || old.key != p {
			m[p] = &e
		}
	}
	return m
}

// whole returns the section as an entry, nil if it is as good as absent.
func (s *refSection) whole() *refEntry {
	if s == nil || s.object && len(s.entries) == 0 || canon(s.raw) == `""` {
		return nil
	}
	return &refEntry{raw: s.raw}
}

func refSame(a, b *refEntry) bool {
	if a == nil || b == nil {
		return a == b
	}
	return canon(a.raw) == canon(b.raw)
}

// refFields returns an entry's fields as strings.
func refFields(e *refEntry) map[string]string {
	f := map[string]string{}
	if e == nil || e.raw[0] != '{' {
		return f
	}
	for _, m := range refMembers(e.raw) {
		switch {
		case m.raw[0] == '"':
			var s string
			if err := json.Unmarshal(m.raw, &s); err != nil {
				panic(err)
			}
			f[m.key] = s
		case strings.ContainsRune("-0123456789", rune(m.raw[0])):
			f[m.key] = string(m.raw)
		default:
			f[m.key] = ""
		}
	}
	return f
}

// refClouds are the names of clouds of the tests.
var refClouds = [][]string{{"login.microsoftonline.com", "login.windows.net", "login.microsoft.com", "sts.windows.net"}}

func refFold(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r - 'A' + 'a'
		}
		return r
	}, s)
}

func refCloud(a tokencache.Account) tokencache.Account {
	for _, names := range refClouds {
		if slices.Contains(names, refFold(a.Environment)) {
			a.Environment = names[0]
		}
	}
	return tokencache.Account{HomeAccountID: refFold(a.HomeAccountID), Environment: refFold(a.Environment)}
}

// refAccount returns the account of an entry under the name that it has there.
func refAccount(e *refEntry) tokencache.Account {
	f := refFields(e)
	return tokencache.Account{HomeAccountID: refFold(f["home_account_id"]), Environment: refFold(f["environment"])}
}

func refAccounts(d refDoc) map[tokencache.Account]bool {
	as := map[tokencache.Account]bool{}
	if s := d[account]; s != nil {
		for _, e := range s.byPair(false) {
			as[refAccount(e)] = true
		}
	}
	return as
}

// refMerge merges. What it returns says what Merge's result must say.
func refMerge(in BytesInput, without faults) ([]byte, error) {
	t, tok := refParse(in.Theirs)
	o, ook := refParse(in.Ours)
	switch {
	case bytes.Equal(in.Ours, in.Theirs):
		return in.Theirs, nil
	case !ook && !tok:
		return nil, ErrBoth
	case !ook:
		return nil, ErrOurs
	case !tok:
		return nil, ErrTheirs
	}
	b, ok := refParse(in.Base)
	if !ok || in.BaseUnknown {
		b = refDoc{}
	}
	out := func(side refDoc) map[tokencache.Account]bool {
		as := refAccounts(b)
		if without.noSignOut || side[account] != nil && !side[account].object || b[account] != nil && !b[account].object {
			return nil
		}
		for a := range refAccounts(side) {
			delete(as, a)
		}
		delete(as, tokencache.Account{})
		clouds := map[tokencache.Account]bool{}
		for a := range as {
			if a.HomeAccountID == "" {
				continue
			}
			if !without.noCloud {
				a = refCloud(a)
			}
			clouds[a] = true
		}
		return clouds
	}
	oursOut, theirsOut := out(o), out(t)
	back := map[tokencache.Account]bool{}
	for _, a := range in.Back {
		if a.HomeAccountID != "" && !without.noBack {
			back[refCloud(a)] = true
			delete(theirsOut, refCloud(a))
		}
	}
	of := func(e *refEntry) tokencache.Account {
		if without.noCloud {
			return refAccount(e)
		}
		return refCloud(refAccount(e))
	}
	now := in.Now.Unix()
	if in.Now.IsZero() {
		now = 1<<63 - 1
	}
	times := func(f map[string]string) []int64 {
		return []int64{tokencache.Seconds(f["cached_at"]), tokencache.Seconds(f["expires_on"]), tokencache.Seconds(f["last_modification_time"])}
	}
	future := func(f map[string]string) bool { return times(f)[0] > now || times(f)[2] > now }
	byTime := func(of, tf map[string]string) int {
		switch {
		case without.noTime, future(of) && future(tf):
			return 0
		case future(of):
			return -1
		case future(tf):
			return 1
		}
		for i, ot := range times(of) {
			if tt := times(tf)[i]; ot != 0 && tt != 0 {
				if ot > tt {
					return 1
				} else if ot < tt {
					return -1
				}
			}
		}
		return 0
	}
	newestWith := func(side refDoc, e map[string]string) map[string]string {
		var best map[string]string
		was := b[accessToken].byPair(false)
		all := side[accessToken].byPair(false)
		for _, k := range slices.Sorted(maps.Keys(all)) {
			f := refFields(all[k])
			alike := func(name string, always bool) bool {
				return !always && e[name] == "" || refFold(e[name]) == refFold(f[name])
			}
			if refSame(was[k], all[k]) || tokencache.Seconds(f["cached_at"]) == 0 || refAccount(all[k]).HomeAccountID == "" ||
				!alike("home_account_id", true) || refCloud(tokencache.Account{Environment: e["environment"]}) != refCloud(tokencache.Account{Environment: f["environment"]}) || !alike("client_id", false) || !alike("realm", false) || !alike("user_assertion_hash", true) {
				continue
			}
			if best == nil || future(best) && !future(f) || future(best) == future(f) && slices.Compare(times(f), times(best)) > 0 {
				best = f
			}
		}
		return best
	}
	byResponse := func(of, tf map[string]string) int {
		oa, ta := newestWith(o, of), newestWith(t, tf)
		if without.noResponse || oa == nil || ta == nil {
			return 0
		}
		return byTime(oa, ta)
	}
	newer := func(section string, oe, te *refEntry) int {
		of, tf := refFields(oe), refFields(te)
		if section == accessToken || of["home_account_id"] == "" {
			return byTime(of, tf)
		}
		order := []func(of, tf map[string]string) int{byTime, byResponse}
		if section == refreshToken {
			slices.Reverse(order)
		}
		for _, by := range order {
			if c := by(of, tf); c != 0 {
				return c
			}
		}
		return 0
	}
	wrote := func(name tokencache.Account) bool {
		for section, s := range o {
			if !s.object {
				continue
			}
			exact := !tokencache.Shared(section)
			was := map[string]*refEntry{}
			if bs := b[section]; bs != nil && bs.object {
				was = bs.byPair(exact)
			}
			for p, e := range s.byPair(exact) {
				if !refSame(was[p], e) && refAccount(e) == name {
					return true
				}
			}
		}
		return false
	}
	decide := func(section string, be, oe, te *refEntry) *refEntry {
		var w *refEntry
		if section == account && be != nil && oe != nil && back[refCloud(refAccount(oe))] && wrote(refAccount(oe)) {
			be = nil
		}
		switch {
		case refSame(oe, te):
			return te
		case refSame(be, oe):
			w = te
		case refSame(be, te):
			w = oe
		case oe == nil:
			w = te
		case te == nil:
			w = oe
		case newer(section, oe, te) < 0:
			w = te
		default:
			w = oe
		}
		if w == nil && without.noRemoval {
			w = be
		}
		if w != nil && (oe == nil && oursOut[of(w)] || te == nil && theirsOut[of(w)]) {
			return nil
		}
		return w
	}
	merged := map[string]any{}
	names := maps.Clone(t)
	maps.Copy(names, o)
	for name := range names {
		bs, os, ts := b[name], o[name], t[name]
		object, exact := true, !tokencache.Shared(name)
		for _, s := range []*refSection{bs, os, ts} {
			object = object && (s == nil || s.object)
		}
		if !object {
			if w := decide("", bs.whole(), os.whole(), ts.whole()); w != nil {
				merged[name] = w.raw
			}
			continue
		}
		be, oe, te := bs.byPair(exact), os.byPair(exact), ts.byPair(exact)
		pairs := maps.Clone(te)
		maps.Copy(pairs, oe)
		section := map[string]json.RawMessage{}
		for p := range pairs {
			if w := decide(name, be[p], oe[p], te[p]); w != nil {
				section[w.key] = w.raw
			}
		}
		merged[name] = section
	}
	return json.Marshal(merged)
}

// refEqual reports whether two caches say the same.
func refEqual(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	da, ok := refParse(a)
	if !ok {
		return false
	}
	db, ok := refParse(b)
	if !ok {
		return false
	}
	names := maps.Clone(da)
	maps.Copy(names, db)
	for name := range names {
		sa, sb := da[name], db[name]
		if sa != nil && !sa.object || sb != nil && !sb.object {
			if !refSame(sa.whole(), sb.whole()) {
				return false
			}
			continue
		}
		exact := !tokencache.Shared(name)
		if !maps.EqualFunc(sa.byPair(exact), sb.byPair(exact), func(a, b *refEntry) bool { return refSame(a, b) }) {
			return false
		}
	}
	return true
}
