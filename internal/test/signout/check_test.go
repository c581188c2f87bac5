package signout

import (
	"slices"
	"strconv"
	"strings"
)

// check says what is wrong with what is stored after a step.
func (w *world) check() {
	if w.changes == w.checked || w.bad != "" {
		return
	}
	present := w.stored("")
	for _, e := range present {
		if e.text != "" {
			if s := w.secretOf(e.text); s.landed == 0 {
				s.landed = w.now
				if s.session.seen == 0 {
					s.session.seen, s.session.untold = w.now, w.loseAnswers
				}
			}
		}
	}
	if w.mayTakeBack() {
		return
	}
	w.checked = w.changes
	for _, e := range present {
		if e.text != "" {
			w.checkStale(e)
		} else if !w.beingSignedOut(e.user) && !slices.ContainsFunc(present, func(o entry) bool { return o.user == e.user && o.section == refreshTokens }) {
			w.fail("P1: %s is stored without a refresh token", e.key)
		}
	}
	for _, was := range w.before {
		i := slices.IndexFunc(present, func(e entry) bool { return e.section == was.section && e.key == was.key })
		switch {
		case i < 0:
			w.checkRemoved(was)
		case present[i].text != was.text:
			if old, now := w.secretOf(was.text), w.secretOf(present[i].text); now.answered < old.answered && !w.signedOutSince(was.user, w.beforeAt) {
				w.fail("P3: %s: %s is replaced by %s, which is older", was.key, was.text, present[i].text)
			}
		}
	}
	w.before, w.beforeAt = present, w.now
}

// beingSignedOut says whether a sign-out is under way: it goes name by name.
func (w *world) beingSignedOut(user string) bool {
	return slices.ContainsFunc(w.signOuts, func(o *signOut) bool { return o.of(user) && (o.ended == 0 || o.failed) })
}

func (w *world) secretOf(text string) *secret {
	n, err := strconv.Atoi(text[1:])
	if err != nil {
		panic(err)
	}
	return w.secrets[n]
}

func (o *signOut) of(user string) bool { return o.user == "" || o.user == user }

// checkStale is P1: nothing of a refresh that was asked for before a sign-out, or of
// a session from before it, is stored after it.
func (w *world) checkStale(e entry) {
	s := w.secretOf(e.text)
	for _, o := range w.signOuts {
		if !o.of(e.user) || o.ended == 0 || o.failed {
			continue
		}
		switch {
		case s.refresh && (s.asked < o.ended || max(s.session.answered, s.session.done) < o.begun):
			if !w.excused(s, o) {
				w.fail("P1: %s: %s, of a refresh that was asked for at %d, is stored although the user was signed out at %d", e.key, e.text, s.asked, o.ended)
			}
		case !s.refresh && s.done != 0 && s.done < o.begun:
			if !w.excepted(s, o) {
				w.fail("P1: %s: %s, of a sign-in that was done at %d, is stored although the user was signed out at %d", e.key, e.text, s.done, o.ended)
			}
		}
	}
}

// excused says whether a refresh's answer may be stored although its session is from
// before o.
func (w *world) excused(s *secret, o *signOut) bool {
	return s.refresh && (s.asked > o.ended && w.excused(s.parent, o) || w.excepted(s, o))
}

// excepted says whether it cannot be known that s came before o, for a reason
// that the documents give.
func (w *world) excepted(s *secret, o *signOut) bool {
	if s.c == nil {
		return w.backAt(s.user, o) != 0
	}
	// A sign-in that could not be stored, of which the sign-out saw nothing, is stored
	// later; so is one that was stored although its process was told that it was not.
	// A Delete of its own process sees it, unless it comes or is being stored just then.
	if slices.ContainsFunc(w.secrets, func(x *secret) bool {
		saw := o.by == x.c || o.everywhere && o.p == x.c.p && x.answered < o.begun && o.inside != x.c
		unseen := x.unseen || x.unread && !x.c.saw(s.user, x.done, o.begun) ||
			x.unsaved && !x.c.knew(x.user, o.begun)
		return unseen && (x.seen == 0 || x.seen > o.begun || x.untold) && x.user == s.user && !saw
	}) {
		return true
	}
	// It was in doubt for its time since a sign-out, which has passed. So was what a
	// withheld sign-in left in MSAL's memory, since the sign-out before that.
	if !s.known && slices.ContainsFunc(w.signOuts, func(o *signOut) bool {
		return o.of(s.user) && (o.ended > s.session.asked || s.session.withheld && o.ended != 0) && w.later > o.begun
	}) {
		s.revived = s.refresh
		return true
	}
	back := w.backAt(s.user, o)
	if back == 0 {
		return false
	}
	// The user is signed in again. Whether s is older can be known if the memory saw
	// that the user was signed out, or s was under way when its own process did it, and
	// its calls have contexts of their own.
	own := o.everywhere && o.p == s.c.p && max(s.began, s.session.answered) < o.begun
	return !s.c.saw(s.user, o.ended, back) && !own || s.mixed || !s.refresh
}

// backAt returns the tick at which the user was first signed in again after o.
func (w *world) backAt(user string, o *signOut) (tick int) {
	for _, s := range w.secrets {
		at := max(s.answered, s.done)
		if s.landed > o.ended && (s.done == 0 || s.landed < at) {
			at = s.landed // from then on a look finds the user signed in
		}
		if s.user == user && (!s.refresh || s.revived) && at > o.ended && (tick == 0 || at < tick) {
			tick = at
		}
	}
	return tick
}

// signedOutSince says whether a sign-out of the user has ended after a tick, or is under
// way.
func (w *world) signedOutSince(user string, tick int) bool {
	return slices.ContainsFunc(w.signOuts, func(o *signOut) bool { return o.of(user) && (o.ended == 0 || o.ended > tick) })
}

// checkRemoved is P3, and that no sign-out is carried out over a later sign-in.
func (w *world) checkRemoved(e entry) {
	since := 0
	if e.text == "" {
		for _, s := range w.secrets {
			if s.user == e.user && !s.refresh && s.done != 0 {
				since = max(since, s.asked)
			}
		}
	} else {
		since = w.secretOf(e.text).session.asked
	}
	if w.signedOutSince(e.user, min(since, w.beforeAt)) {
		return
	}
	w.fail("P3: %s (%s) is gone although nobody signed %s out since %d", e.key, e.text, e.user, since)
}

// checkSignIn is P2: a sign-in that began after a sign-out is stored.
func (w *world) checkSignIn(s *secret, working bool) {
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
	if p.public || p.clients == perSignIn || !s.mixed {
		return true
	}
	// In doubt is also who signed in before with this client, was told that it failed,
	// and has gone from the memory since.
	if slices.ContainsFunc(w.secrets, func(x *secret) bool {
		return x != s && x.c == s.c && x.user == s.user && !x.refresh && x.answered != 0 && x.done == 0
	}) {
		return false
	}
	// In doubt, and for how long: until its time has passed since the memory saw
	// that the user was signed out.
	for _, o := range w.signOuts {
		if !o.of(s.user) {
			continue
		}
		withheld := slices.ContainsFunc(w.secrets, func(other *secret) bool {
			return other != s && other.c == s.c && other.user == s.user && other.answered > o.ended
		})
		if !s.c.saw(s.user, o.ended, w.later) || s.asked < w.later || withheld {
			return false
		}
	}
	return true
}

func (w *world) checkThere(s *secret) {
	account, token := false, false
	for _, e := range w.stored(s.user) {
		switch e.section {
		case accounts:
			account = true
		case refreshTokens:
			token = token || e.env == online && w.secretOf(e.text).answered >= s.answered
		}
	}
	if !account || !token {
		w.fail("P2: the sign-in of %s with secret %d, which began at %d, is not stored (account %v, refresh token %v)", s.user, s.n, s.asked, account, token)
	}
}

// finish has every client look once more and sign another user in, and checks
// that what could not be stored is, and that each memory is as what is stored.
func (w *world) finish() {
	for _, end := range w.turns {
		end()
	}
	if w.bad != "" {
		return
	}
	w.failLoads, w.failSaves, w.loseAnswers = false, false, false
	w.trace = append(w.trace, "the end")
	for _, c := range slices.Clone(w.clients) {
		if len(c.looks) == 0 && !c.saved {
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
		if len(c.looks) == 0 || c.p.partitioned {
			continue
		}
		w.now++
		if err := w.replace(&call{c: c, ctx: c.p.contextOf(0)}, c.p.signInHint("zoe")); err != nil {
			w.fail("at the end: R: %v", err)
			return
		}
		held := slices.DeleteFunc(slices.Clone(c.memory.entries), func(e entry) bool { return e.user == "" })
		if stored := w.stored(""); !slices.Equal(sorted(held), sorted(stored)) {
			w.fail("P1: a memory holds at the end what is not stored: %v, not %v", held, stored)
		}
	}
}

func sorted(entries []entry) []entry {
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.section+a.key, b.section+b.key) })
	return entries
}
