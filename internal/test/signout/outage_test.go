package signout

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
)

// Sign-ins while nothing can be read, and Flush, of web apps.

func markedSignIn(user string) op { return op{do: "sign in", user: user, marked: true} }

func inTurn(user string) op { return op{do: "refresh", user: user, inTurn: true} }

func outageScenarios(k kind) (all []scenario) {
	q := kindNamed("partitioned, client per request")
	here := func(ops ...op) actor { return actor{0, ops} }
	outHere := here(op{do: "sign out here", user: alice})
	outThere := actor{1, []op{{do: "sign out here", user: alice}}}
	flush := here(op{do: "flush"}, op{do: "flush"})
	one := map[string][]string{alice: {online}}
	add := func(name string, inside bool, stored map[string][]string, actors ...actor) {
		all = append(all, scenario{name: name, processes: []kind{k, q}, stored: stored, by: -1, actors: actors, inside: inside})
	}
	add("a sign-in in an outage", false, one, here(markedSignIn(alice)), outThere, flush, events("all fails", "all works"))
	add("a first sign-in in an outage", false, nil, here(markedSignIn(alice)), outHere, flush, events("all fails", "all works"))
	add("two sign-ins in an outage", false, one, here(markedSignIn(alice)), here(markedSignIn(alice)), flush, events("all fails", "all works"))
	add("a refresh in an outage", false, one, here(silent(alice)), outThere, flush, events("saves fail", "all works"))
	add("a refresh and a sign-in in an outage", false, one, here(silent(alice)), here(markedSignIn(alice)), outThere, here(op{do: "flush"}), events("saves fail", "all fails", "all works"))
	add("a first sign-in and refreshes in an outage", false, nil, here(markedSignIn(alice)), here(silent(alice)), here(silent(alice)), outThere, here(op{do: "flush"}), events("saves fail", "all works"))
	add("a first sign-in in an outage of two", false, nil, here(markedSignIn(alice), op{do: "flush"}), actor{1, []op{markedSignIn(alice), {do: "flush"}}}, outThere, events("all fails", "all works"))
	add("answers that are lost", false, one, here(silent(alice)), here(markedSignIn(alice)), outThere, here(op{do: "flush"}), events("answers are lost", "all works"))
	add("in turn", false, one, here(inTurn(alice)), actor{1, []op{inTurn(alice)}}, outThere, here(op{do: "flush"}), events("saves fail", "all works"))
	add("in turn on one server", false, one, here(inTurn(alice)), here(inTurn(alice)), outThere, flush, events("reads fail", "all works"))
	add("in turn, and a new sign-in", false, one, here(inTurn(alice)), actor{1, []op{{do: "sign out here", user: alice}, markedSignIn(alice)}}, events("saves fail", "all works"))
	add("both servers flush", false, one, here(markedSignIn(alice)), actor{1, []op{markedSignIn(alice)}}, outHere, here(op{do: "flush"}), actor{1, []op{{do: "flush"}}}, events("all fails", "all works"))
	for _, unsaved := range []int{1, 2500} {
		add(fmt.Sprint("room for ", unsaved, " bytes"), false, one, here(silent(alice)), here(markedSignIn(alice)), outThere, flush, events("saves fail", "all works"))
		all[len(all)-1].unsaved = unsaved
	}
	add("signed out while it is flushed", true, nil, events("saves fail", "all works"), here(markedSignIn(alice), op{do: "flush"}), outHere)
	add("signed in anew while it is flushed", true, one, here(silent(alice), op{do: "flush"}), actor{1, []op{{do: "sign out here", user: alice}, signIn(alice)}}, events("saves fail", "all works"))
	return all
}

// An outage undoes no sign-out, and loses no sign-in.
func TestSignOutsStickInAnOutage(t *testing.T) {
	most := 300
	if long {
		most = 5_000
	}
	for _, k := range kinds {
		if !k.partitioned {
			continue
		}
		for _, s := range outageScenarios(k) {
			t.Run(k.name+"/"+s.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					n, failed, schedule := every(&s, most)
					rnd := rand.New(rand.NewPCG(1, 0))
					for i := 0; n == most && i < most && failed == nil; i++ {
						schedule = shuffled(&s, rnd)
						if w := run(&s, schedule); w.bad != "" {
							failed = w
						}
					}
					if failed != nil {
						t.Fatalf("interleaving %d of %q:\n%s", n, s.name, least(&s, schedule))
					}
					t.Logf("%d interleavings", n)
				})
			})
		}
	}
}

// So it is in larger scenarios.
func TestSignOutsStickInAnOutageAtRandom(t *testing.T) {
	runs := 2000
	first := uint64(0)
	if long || newSeeds {
		runs = 25_000
	}
	if newSeeds {
		first = rand.Uint64()
	}
	synctest.Test(t, func(t *testing.T) {
		for i := range runs {
			seed := first + uint64(i)
			rnd := rand.New(rand.NewPCG(seed, 7))
			s, ok := randomOutage(rnd)
			if !ok {
				continue
			}
			schedule := shuffled(s, rnd)
			if w := run(s, schedule); w.bad != "" {
				t.Fatalf("seed %d:\n%s", seed, least(s, schedule))
			}
		}
	})
}

// randomOutage returns a larger scenario of a web app.
func randomOutage(rnd *rand.Rand) (s *scenario, ok bool) {
	s, _ = randomScenario(rnd)
	if !s.processes[0].partitioned {
		return nil, false
	}
	for n := range s.actors {
		if s.actors[n].in < 0 {
			continue
		}
		s.unsaved = []int{0, 0, 1, 2500}[rnd.IntN(4)]
		for j := range s.actors[n].ops {
			switch o := &s.actors[n].ops[j]; {
			case o.do == "sign in":
				o.marked = rnd.IntN(2) == 0
			case o.do == "refresh":
				o.inTurn = rnd.IntN(3) == 0
			case o.do == "hit" && rnd.IntN(2) == 0:
				*o = op{do: "flush"}
			}
		}
	}
	for n := range s.actors {
		if a := s.actors[n]; a.in < 0 && rnd.IntN(3) == 0 {
			a.ops[0].do = "answers are lost"
		}
	}
	return s, true
}

// The control: where a sign-in in an outage is not marked, it is lost; and a Flush
// has something to do. Both show that these scenarios reach what they are about.
func TestOutageScenariosReachFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := kindNamed("partitioned, client per request")
		stored := func(marked, flush bool) bool {
			s := scenario{processes: []kind{k, k}, by: -1, actors: []actor{
				events("all fails"),
				{0, []op{{do: "sign in", user: alice, marked: marked}}},
				events("all works"),
			}}
			if flush {
				s.actors = append(s.actors, actor{0, []op{{do: "flush"}}})
			}
			w := newWorld(&s)
			for next := w.runnable(-1); len(next) > 0 && w.bad == ""; next = w.runnable(-1) {
				w.do(next[0], -1)
			}
			if w.bad != "" {
				t.Fatal(w)
			}
			return len(w.stored(alice)) > 0
		}
		for _, test := range []struct{ marked, flush, want bool }{{true, true, true}, {true, false, false}, {false, true, false}} {
			if got := stored(test.marked, test.flush); got != test.want {
				t.Errorf("%+v: stored %v", test, got)
			}
		}
	})
}
