package signout

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// check says what is wrong with what is stored after a step.
func (w *world) check() {
	present := w.stored("")
	if maps.Equal(present, w.before) && len(w.trace) > 0 && !strings.Contains(w.trace[len(w.trace)-1], "sign out") && !strings.Contains(w.trace[len(w.trace)-1], "delete") {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(present)) {
		user, text, _ := strings.Cut(present[key], " ")
		if text == "" {
			continue
		}
		w.checkStale(key, w.secretOf(text), user)
	}
	w.checkAccounts(present)
	for _, key := range slices.Sorted(maps.Keys(w.before)) {
		user, text, _ := strings.Cut(w.before[key], " ")
		switch value, there := present[key]; {
		case !there:
			w.checkRemoved(key, user, text)
		case value != w.before[key]:
			was, is := w.secretOf(text), w.secretOf(strings.TrimPrefix(value, user+" "))
			if is.answered < was.answered {
				w.fail("P3: %s: secret %d is replaced by secret %d, which is older", key, was.n, is.n)
			}
		}
	}
	w.before = present
}

func (w *world) secretOf(text string) *secret {
	n, err := strconv.Atoi(text[1:])
	if err != nil {
		panic(err)
	}
	return w.secrets[n]
}

func (o *signOut) of(user string) bool { return o.user == "" || o.user == user }

// checkStale is P1: nothing of a refresh that was asked for before a sign-out is
// stored after it.
func (w *world) checkStale(key string, s *secret, user string) {
	for _, o := range w.signOuts {
		if !o.of(user) || o.ended == 0 || o.failed {
			continue
		}
		switch {
		case s.refresh && s.asked < o.ended:
			if !w.excepted(s, o) {
				w.fail("P1: %s: secret %d, of a refresh that was asked for at %d, is stored although the user was signed out at %d", key, s.n, s.asked, o.ended)
			}
		case !s.refresh && s.done != 0 && s.done < o.begun:
			if !w.excepted(s, o) {
				w.fail("P1: %s: secret %d, of a sign-in that was done at %d, is stored although the user was signed out at %d", key, s.n, s.done, o.ended)
			}
		}
	}
}

// excepted says whether it cannot be known that s came before o, for a reason
// that the documents give.
func (w *world) excepted(s *secret, o *signOut) bool {
	// A sign-in that could not be stored, of which the sign-out saw nothing.
	if s.session.unseen && !(o.everywhere && s.session.c != nil && o.p == s.session.c.p) && o.by != s.session.c {
		return true
	}
	if s.c == nil {
		return w.backAt(s.user, o) != 0
	}
	known := s.c.p.public && (s.c.p.lists || s.c.signedIn)
	// It was in doubt for its time, which has passed.
	if !known && w.later > o.ended {
		return true
	}
	back := w.backAt(s.user, o)
	if back == 0 {
		return false
	}
	// The user is signed in again. Whether s is older can be known if the memory saw
	// that the user was signed out, and its calls have contexts of their own.
	saw := slices.ContainsFunc(s.c.reads, func(tick int) bool { return o.ended < tick && tick < back })
	return !saw || s.c.p.oneContext || !s.refresh
}

// backAt returns the tick at which the user was first signed in again after o.
func (w *world) backAt(user string, o *signOut) (tick int) {
	for _, s := range w.secrets {
		if at := max(s.answered, s.done); s.user == user && !s.refresh && at > o.ended && (tick == 0 || at < tick) {
			tick = at
		}
	}
	return tick
}

// checkAccounts finds Account entries of users who are signed out.
func (w *world) checkAccounts(present map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(present)) {
		user, text, _ := strings.Cut(present[key], " ")
		if text != "" {
			continue
		}
		// An account without secrets is of nobody's sign-in.
		if !slices.ContainsFunc(slices.Collect(maps.Values(present)), func(v string) bool { return strings.HasPrefix(v, user+" R") }) {
			w.fail("P1: %s is stored without a refresh token", key)
		}
	}
}

// checkRemoved is P3, and that no sign-out is carried out over a later sign-in.
func (w *world) checkRemoved(key, user, text string) {
	since := 0
	if text == "" {
		for _, s := range w.secrets {
			if s.user == user && !s.refresh && s.done != 0 {
				since = max(since, s.asked)
			}
		}
	} else {
		since = w.secretOf(text).session.asked
	}
	for _, o := range w.signOuts {
		if o.of(user) && (o.ended == 0 || o.ended > since) {
			return
		}
	}
	w.fail("P3: %s (%s) is gone although nobody signed %s out since %d", key, text, user, since)
}

// checkSignIn is P2: a sign-in that began after a sign-out is stored.
func (w *world) checkSignIn(s *secret, c *call, working bool) {
	if !working || !w.mustStay(s) {
		return
	}
	w.checkThere(s)
}

// mustStay says whether s is a sign-in that is to be stored.
func (w *world) mustStay(s *secret) bool {
	for _, o := range w.signOuts {
		if o.of(s.user) && (o.ended == 0 || o.ended > s.asked) {
			return false
		}
	}
	p := s.c.p
	if p.public || p.clients != shared || !p.oneContext {
		return true
	}
	// In doubt, and for how long: until its time has passed since the memory saw
	// that the user was signed out.
	for _, o := range w.signOuts {
		if !o.of(s.user) {
			continue
		}
		saw := slices.ContainsFunc(s.c.reads, func(tick int) bool { return o.ended < tick && tick < w.later })
		withheld := slices.ContainsFunc(w.secrets, func(other *secret) bool {
			return other != s && other.c == s.c && other.user == s.user && other.answered > o.ended
		})
		if !saw || s.asked < w.later || withheld {
			return false
		}
	}
	return true
}

func (w *world) checkThere(s *secret) {
	account, token := false, false
	for key, value := range w.stored(s.user) {
		_, text, _ := strings.Cut(value, " ")
		switch {
		case text == "":
			account = true
		case text[0] == 'R' && strings.Contains(key, online):
			token = token || w.secretOf(text).answered >= s.answered
		}
	}
	if !account || !token {
		w.fail("P2: the sign-in of %s with secret %d, which began at %d, is not stored (account %v, refresh token %v)", s.user, s.n, s.asked, account, token)
	}
}

// finish has every client look once more and sign another user in, and checks
// that what could not be stored is, and that each memory is as what is stored.
func (w *world) finish() {
	if w.bad != "" {
		return
	}
	w.failLoads, w.failSaves = false, false
	w.trace = append(w.trace, "the end")
	for _, c := range slices.Clone(w.clients) {
		if len(c.reads) == 0 && !c.saved {
			continue
		}
		if c.p.partitioned {
			continue
		}
		w.now++
		look := &call{c: c, ctx: c.p.contextOf(0)}
		if err := w.replace(look, c.p.signInHint("zoe")); err != nil {
			w.fail("at the end: R: %v", err)
			return
		}
		s := w.mint(c, "zoe", false)
		s.session, s.answered = s, w.now
		c.memory.write(s, online)
		if err := w.export(look, c.p.signInHint("zoe")); err != nil {
			w.fail("at the end: E: %v", err)
			return
		}
		s.done = w.now
		w.check()
	}
	for _, p := range w.processes {
		for _, s := range w.secrets {
			if p.partitioned && s.c != nil && s.c.p == p {
				w.now++
				look := &call{c: w.newClient(p), ctx: p.contextOf(0)}
				if err := w.replace(look, s.user); err != nil {
					w.fail("at the end: R: %v", err)
					return
				}
				w.check()
			}
		}
	}
	for _, s := range w.secrets {
		if s.c != nil && !s.refresh && s.done != 0 && s.user != "zoe" && w.mustStay(s) {
			w.checkThere(s)
		}
	}
	for _, c := range slices.Clone(w.clients) {
		if len(c.reads) == 0 || c.p.partitioned {
			continue
		}
		w.now++
		if err := w.replace(&call{c: c, ctx: c.p.contextOf(0)}, c.p.signInHint("zoe")); err != nil {
			w.fail("at the end: R: %v", err)
			return
		}
		held := map[string]string{}
		for _, section := range []map[string]entry{c.memory.AccessToken, c.memory.RefreshToken, c.memory.IdToken, c.memory.Account} {
			for key, e := range section {
				held[key] = e.HomeAccountID + " " + e.Secret
			}
		}
		if stored := w.stored(""); !maps.Equal(held, stored) {
			w.fail("P1: a memory holds at the end what is not stored: %v, not %v", held, stored)
		}
	}
}
