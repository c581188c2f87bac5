package follow

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/merge"
	"github.com/tokenkeep/tokenkeep/internal/tokencache"
)

// rules are what a simulation runs: those of this package, or wrong ones.
type rules struct {
	view  func(s Sides) []byte
	put   func(s Sides, view []byte) []byte
	purge func(s Sides) []byte
}

func right() rules {
	return rules{
		view: func(s Sides) []byte { return s.View() },
		put:  func(s Sides, view []byte) []byte { return s.Put(parsed(view)) },
		purge: func(s Sides) []byte {
			own, _ := s.Purge()
			return own
		},
	}
}

// without returns own without the notes of a kind.
func without(own []byte, kind string) []byte {
	c := read(orEmpty(own))
	for key, n := range c[Section] {
		if n["note"] == kind {
			delete(c[Section], key)
		}
	}
	return c.data()
}

// wrong are rules that lose something each.
var wrong = map[string]func(r *rules){
	"all of the view is stored in own": func(r *rules) {
		r.put = func(_ Sides, view []byte) []byte { return view }
		r.view = func(s Sides) []byte {
			return merge.Merge(merge.Input{Ours: s.Own, Theirs: s.Theirs, Now: now}).Merged
		}
	},
	"who is hidden is forgotten": func(r *rules) {
		put := r.put
		r.put = func(s Sides, view []byte) []byte { return without(put(s, view), "hidden") }
	},
	"what is theirs is not noted": func(r *rules) {
		put := r.put
		r.put = func(s Sides, view []byte) []byte { return without(put(s, view), "theirs") }
	},
	"all is theirs": func(r *rules) {
		put := r.put
		r.put = func(s Sides, view []byte) []byte {
			own := put(s, view)
			n := notesIn(parsed(own))
			for g := range indexOf(parsed(own)).grants {
				n.theirs[g] = true
			}
			var b tokencache.Builder
			d := parsed(own)
			for i := range d.Sections() {
				if d.Sections()[i].Name != Section {
					b.Copy(&d.Sections()[i])
				}
			}
			if s := n.section(); s != nil {
				b.Copy(s)
			}
			return b.Bytes()
		}
	},
	"nothing is purged": func(r *rules) {
		r.purge = func(s Sides) []byte { return s.Own.Data() }
	},
	"theirs is always shown over own": func(r *rules) {
		r.view = func(s Sides) []byte {
			n := notesIn(s.Own)
			shown := s.shown(n.hidden)
			return overlay(s.mine(n, indexOf(shown)), shown)
		}
	},
	"own is always shown over theirs": func(r *rules) {
		r.view = func(s Sides) []byte {
			n := notesIn(s.Own)
			shown := s.shown(n.hidden)
			return overlay(shown, s.mine(n, indexOf(shown)))
		}
	},
	"hidden until something changes over there": func(r *rules) {
		view, put := r.view, r.put
		seen := ""
		r.put = func(s Sides, view []byte) []byte {
			seen = string(s.Theirs.Data())
			return put(s, view)
		}
		r.view = func(s Sides) []byte {
			if string(s.Theirs.Data()) != seen {
				s.Own = parsed(without(s.Own.Data(), "hidden"))
			}
			return view(s)
		}
	},
}

// overlay returns both, with top's entry where both have one.
func overlay(bottom, top *tokencache.Doc) []byte {
	c := read(bottom.Data())
	for section, entries := range read(top.Data()) {
		for key, f := range entries {
			c.set(section, key, f)
		}
	}
	return c.data()
}

// user is what a user has done, in short.
type user struct {
	there  bool // signed in over there
	hidden bool // signed out here while signed in over there
	own    bool // signed in here, with the program's own client id
	ownZ   bool // signed in here, with the client id that is followed, while it was not shown
	mine   int  // when the tokens of the followed client came last, here
	latest int  // when the newest refresh token of the followed client came, 0 if none is to be seen
}

func (u user) seen() bool { return u.shows() || u.own || u.ownZ }

// shows reports whether what theirs has is to be seen.
func (u user) shows() bool { return u.there && !u.hidden }

// simulate lets two programs and their users do anything, and checks after each
// step what the program here sees and keeps.
func simulate(r rules, rnd *rand.Rand, steps int) (failed error) {
	defer func() {
		if p := recover(); p != nil {
			failed = fmt.Errorf("it panicked: %v", p)
		}
	}()
	var own []byte
	theirs := cache{}
	users := map[string]*user{"u.a": {}, "u.b": {}}
	var log []string
	at := 100
	load := func() cache {
		own = r.purge(sides(own, theirs))
		return read(orEmpty(r.view(sides(own, theirs))))
	}
	for range steps {
		at++
		name := []string{"u.a", "u.b"}[rnd.IntN(2)]
		u := users[name]
		// Theirs changes with or without somebody here who looks.
		if rnd.IntN(2) == 0 {
			switch what := rnd.IntN(4); {
			case what == 0 && u.there:
				log = append(log, "over there "+name+" signs out")
				theirs.signOut(name, followed)
				u.there, u.latest = false, 0
				if u.ownZ {
					u.latest = u.mine
				}
			case u.there || what == 1:
				log = append(log, fmt.Sprintf("over there %s gets tokens at %d", name, at))
				theirs.answer(name, followed, fmt.Sprint("s", rnd.IntN(2)), at, "theirs")
				theirs.account(name, "python")
				u.there = true
				if !u.hidden {
					u.latest = at
				}
			}
			if rnd.IntN(3) == 0 {
				continue
			}
		}
		view := load()
		if err := check(view, own, users, theirs); err != nil {
			return fmt.Errorf("%w; %s", err, strings.Join(log, "; "))
		}
		before := theirs.data()
		switch what := rnd.IntN(6); {
		case what == 0 && u.seen():
			log = append(log, "here "+name+" signs out")
			view.remove(func(_ string, f map[string]string) bool { return f["home_account_id"] == name })
			u.hidden = u.hidden || u.there
			u.own, u.ownZ, u.latest = false, false, 0
		case what == 1:
			log = append(log, fmt.Sprintf("here %s signs in with the own client id at %d", name, at))
			if !u.seen() && u.hidden { // who signs in again sees theirs again
				u.hidden = false
				if u.there {
					u.latest = latestOf(theirs, name)
				}
			}
			view.answer(name, another, "s0", at, "own")
			view.account(name, "go")
			u.own = true
		case what == 2 || what < 5 && u.latest > 0:
			// A refresh, or a sign-in with the client id that is followed.
			log = append(log, fmt.Sprintf("here %s gets tokens with the followed client id at %d", name, at))
			if u.latest == 0 {
				u.ownZ = true
			}
			if !u.seen() || u.hidden && !u.own {
				u.hidden = false
			}
			view.answer(name, followed, fmt.Sprint("s", rnd.IntN(2)), at, "own")
			view.account(name, "go")
			u.mine, u.latest = at, at
		}
		own = r.put(sides(own, theirs), view.data())
		if string(theirs.data()) != string(before) {
			return fmt.Errorf("theirs was changed")
		}
		if err := check(load(), own, users, theirs); err != nil {
			return fmt.Errorf("%w; %s", err, strings.Join(log, "; "))
		}
	}
	return nil
}

func latestOf(c cache, name string) (at int) {
	fmt.Sscanf(strings.TrimPrefix(c.refreshToken(name, followed), "RefreshToken"), "%d", &at)
	return at
}

// check checks what the program sees and keeps against what the users have done.
func check(view cache, own []byte, users map[string]*user, theirs cache) error {
	kept := read(orEmpty(own))
	for name, u := range users {
		if view.has(name) != u.seen() {
			return fmt.Errorf("%s is seen: %v, want %v", name, view.has(name), u.seen())
		}
		if got := latestOf(view, name); got != u.latest {
			return fmt.Errorf("%s has the refresh token of %d, want %d", name, got, u.latest)
		}
		if (view.refreshToken(name, another) != "") != u.own {
			return fmt.Errorf("%s has a refresh token of the own client: %v", name, !u.own)
		}
		if secrets := kept.secrets(name); !u.seen() && len(secrets) > 0 {
			return fmt.Errorf("of %s is kept: %v", name, secrets)
		}
		for _, secret := range kept.secrets(name) {
			if strings.HasSuffix(secret, "theirs") {
				return fmt.Errorf("a token of theirs is kept: %s", secret)
			}
		}
	}
	return nil
}

func orEmpty(data []byte) []byte {
	if len(data) == 0 {
		return []byte("{}")
	}
	return data
}

func TestSimulation(t *testing.T) {
	runs := 40
	if os.Getenv("TOKENKEEP_LONG") == "1" {
		runs = 800
	}
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	for i := range runs {
		require.NoError(t, simulate(right(), rnd, 30), "seed %d, run %d", seed, i)
	}
	for name, change := range wrong {
		t.Run("control: "+name, func(t *testing.T) {
			for range 500 {
				r := right()
				change(&r)
				if err := simulate(r, rnd, 30); err != nil {
					t.Log(err)
					return
				}
			}
			t.Fatal("not caught")
		})
	}
}
