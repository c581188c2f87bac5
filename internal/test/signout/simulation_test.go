package signout

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

func TestMain(m *testing.M) {
	debug.SetGCPercent(800) // a world lives for less than a millisecond
	os.Exit(m.Run())
}

// A turn is what happens next: a step of an actor, and one of another actor
// inside its save, or none where that is -1.
type turn struct{ actor, inside int }

// run carries a schedule out. Turns that cannot be taken are left out, and what
// is left to do at the end is done in order.
func run(s *scenario, schedule []turn) *world {
	w := newWorld(s)
	for _, t := range schedule {
		if w.bad != "" {
			break
		}
		if !slices.Contains(w.runnable(-1), t.actor) {
			continue
		}
		if t.inside >= 0 && !slices.Contains(w.insiders(t.actor), t.inside) {
			t.inside = -1
		}
		w.do(t.actor, t.inside)
	}
	for w.bad == "" {
		next := w.runnable(-1)
		if len(next) == 0 {
			break
		}
		w.do(next[0], -1)
	}
	w.finish()
	return w
}

// insiders returns the actors that can do a step inside the save of an actor's
// step.
func (w *world) insiders(actor int) (others []int) {
	s := w.queues[actor][0]
	if !s.saves {
		return nil
	}
	for _, i := range w.runnable(actor) {
		if c := w.queues[i][0].call; c == nil || s.call == nil || c.c != s.call.c {
			others = append(others, i)
		}
	}
	return others
}

// independent says that the order of two steps of different actors makes no
// difference.
func independent(a, b step) bool {
	return !a.writes && !b.writes && a.call.c != b.call.c
}

// every runs every interleaving of a scenario, but of those that differ only in
// the order of independent steps only one, and no more than most. It returns how
// many it has run, and what fails.
func every(s *scenario, most int) (n int, failed *world, schedule []turn) {
	var path, widths []int
	for {
		w := newWorld(s)
		schedule = schedule[:0]
		started := make([]bool, len(s.actors))
		var last *step
		lastActor, whole, inside := -1, true, false
		for depth := 0; w.bad == ""; depth++ {
			var choices []turn
			able := w.runnable(-1)
			for _, i := range able {
				if i > 0 && !started[i] && !started[i-1] && reflect.DeepEqual(s.actors[i], s.actors[i-1]) {
					continue // they are alike
				}
				if i < lastActor && independent(*last, w.queues[i][0]) {
					continue // the other order has been, or will be
				}
				choices = append(choices, turn{i, -1})
				if s.inside && !inside {
					for _, j := range w.insiders(i) {
						choices = append(choices, turn{i, j})
					}
				}
			}
			if len(choices) == 0 {
				whole = len(able) == 0
				break
			}
			if depth == len(path) {
				path, widths = append(path, 0), append(widths, len(choices))
			}
			t := choices[path[depth]]
			schedule = append(schedule, t)
			step := w.queues[t.actor][0]
			last, lastActor = &step, t.actor
			started[t.actor] = true
			if t.inside >= 0 {
				inside, lastActor = true, -1
				started[t.inside] = true
			}
			w.do(t.actor, t.inside)
		}
		if whole {
			n++
			w.finish()
		}
		if w.bad != "" {
			return n, w, schedule
		}
		for len(path) > 0 && path[len(path)-1]+1 == widths[len(path)-1] {
			path, widths = path[:len(path)-1], widths[:len(widths)-1]
		}
		if len(path) == 0 || n == most {
			return n, nil, nil
		}
		path[len(path)-1]++
	}
}

// least makes what fails as small as it gets while the same property fails.
func least(s *scenario, schedule []turn) *world { return leastBy(s, schedule, run) }

func leastBy[T any](s *scenario, schedule []T, run func(*scenario, []T) *world) *world {
	worst := run(s, schedule)
	property := property(worst.bad)
	try := func(s *scenario, schedule []T) bool {
		w := run(s, schedule)
		if strings.HasPrefix(w.bad, property) {
			worst = w
			return true
		}
		return false
	}
	for again := true; again; {
		again = false
		for i := range s.actors {
			for j := range s.actors[i].ops {
				smaller := *s
				smaller.actors = slices.Clone(s.actors)
				smaller.actors[i].ops = slices.Delete(slices.Clone(s.actors[i].ops), j, j+1)
				if try(&smaller, schedule) {
					s, again = &smaller, true
					break
				}
			}
		}
		for i := len(schedule) - 1; i >= 0; i-- {
			shorter := slices.Delete(slices.Clone(schedule), i, i+1)
			if try(s, shorter) {
				schedule, again = shorter, true
			}
		}
	}
	return worst
}

// property returns the name of the property that does not hold.
func property(bad string) string {
	name, _, _ := strings.Cut(bad, ":")
	return name
}

func (w *world) String() string {
	var b strings.Builder
	for _, p := range w.processes {
		fmt.Fprintf(&b, "%s is %s\n", p.name, p.kind.name)
	}
	for i, line := range w.trace {
		fmt.Fprintf(&b, "%3d %s\n", i+1, line)
	}
	return b.String() + w.bad
}

// long says that everything is to run many times.
var long = os.Getenv("TOKENKEEP_LONG") == "1"

// newSeeds says that random schedules are to be new ones: to look for what the
// fixed ones do not meet.
var newSeeds = os.Getenv("TOKENKEEP_SEEDS") == "new"

const (
	alice = "alice"
	bob   = "bob"
)

func silent(user string) op { return op{do: "refresh", user: user} }
func signIn(user string) op { return op{do: "sign in", user: user} }
func signOutOf(u string) op { return op{do: "sign out", user: u} }
func during(n int, o op) op { o.request = n; return o }
func events(ops ...string) (a actor) {
	a.in = -1
	for _, o := range ops {
		a.ops = append(a.ops, op{do: o})
	}
	return a
}

// scenariosOf returns the small scenarios of a kind of program, P. Q is another
// process on the same store.
func scenariosOf(k kind) (all []scenario) {
	q := kindNamed("public")
	out := actor{1, []op{signOutOf(alice)}}
	if k.partitioned {
		q = kindNamed("partitioned, client per request")
		out = actor{1, []op{{do: "sign out here", user: alice}}}
	}
	here := func(o op) actor { return actor{0, []op{o}} }
	there := func(o op) actor { return actor{1, []op{o}} }
	then := func(a actor, more ...op) actor { a.ops = append(slices.Clone(a.ops), more...); return a }
	outHere := here(signOutOf(alice))
	if k.partitioned {
		outHere = here(op{do: "sign out here", user: alice})
	}
	one := map[string][]string{alice: {online}}
	add := func(name string, stored map[string][]string, actors ...actor) {
		all = append(all, scenario{name: name, processes: []kind{k, q}, stored: stored, by: -1, actors: actors})
	}
	add("two refreshes", one, here(silent(alice)), here(silent(alice)), out)
	add("two refreshes of one request", one, here(during(1, silent(alice))), here(during(1, silent(alice))), out)
	add("two refreshes, signed out here", one, here(silent(alice)), here(silent(alice)), outHere)
	add("a refresh, and a look", one, here(silent(alice)), here(op{do: "hit", user: alice}), here(op{do: "hit", user: bob}), out)
	add("a refresh, and a new sign-in", one, here(silent(alice)), then(out), here(signIn(alice)))
	add("a new sign-in after it", one, here(silent(alice)), actor{0, []op{signIn(alice), silent(alice)}}, out)
	add("a new sign-in elsewhere", one, here(silent(alice)), then(out, signIn(alice)), here(op{do: "hit", user: alice}))
	add("signed out twice", one, here(silent(alice)), then(out, signIn(alice), out.ops[0]))
	add("another user", map[string][]string{alice: {online}, bob: {online}}, here(silent(alice)), here(silent(bob)), out)
	add("another name of the cloud", map[string][]string{alice: {windows}}, here(silent(alice)), here(silent(alice)), out)
	add("both names of the cloud", map[string][]string{alice: {online, windows}}, here(silent(alice)), out)
	add("a sign-in while saves fail", one, here(signIn(alice)), out, events("saves fail", "all works"))
	add("a refresh while saves fail", one, here(silent(alice)), out, events("saves fail", "all works"))
	add("a sign-in while all fails", one, actor{0, []op{{do: "hit", user: alice}, signIn(alice)}}, out, events("all fails", "all works"))
	add("a first sign-in while saves fail", nil, here(signIn(alice)), here(silent(alice)), outHere, events("saves fail", "all works"))
	add("signing out fails", one, then(outHere), there(signIn(alice)), here(op{do: "hit", user: bob}), events("saves fail", "all works"))
	add("time goes by", one, here(silent(alice)), out, actor{0, []op{{do: "hit", user: alice}, signIn(alice)}}, events("time goes by"))
	if !k.partitioned {
		add("deleted", map[string][]string{alice: {online}, bob: {online}}, here(silent(alice)), here(silent(bob)), there(op{do: "delete"}))
		add("deleted here while saves fail", nil, here(signIn(alice)), here(op{do: "delete"}), events("saves fail", "all works"))
	}
	inside := scenario{name: "inside a save", processes: []kind{k, q}, stored: one, by: -1, inside: true,
		actors: []actor{here(silent(alice)), here(signIn(alice)), out}}
	mine := scenario{name: "signed in by itself", processes: []kind{k, q}, stored: one, by: 0,
		actors: []actor{here(silent(alice)), here(silent(alice)), out, here(op{do: "hit", user: alice})}}
	return append(all, inside, mine)
}

// Every interleaving of small scenarios, for every kind of program, keeps the
// properties. Of a scenario that has many, only some are run unless in long mode:
// the first ones, and others at random.
func TestSignOutsStickInEveryInterleaving(t *testing.T) {
	most := 60
	if long {
		most = math.MaxInt
	}
	for _, k := range kinds {
		for _, s := range scenariosOf(k) {
			t.Run(k.name+"/"+s.name, func(t *testing.T) {
				t.Parallel()
				seed := uint64(1)
				if newSeeds {
					seed = rand.Uint64()
				}
				synctest.Test(t, func(t *testing.T) {
					n, failed, schedule := every(&s, most)
					rnd := rand.New(rand.NewPCG(seed, 0))
					for i := 0; n == most && i < most && failed == nil; i++ {
						schedule = shuffled(&s, rnd)
						if w := run(&s, schedule); w.bad != "" {
							failed = w
						}
					}
					if failed != nil {
						t.Fatalf("seed %d, interleaving %d of %q:\n%s", seed, n, s.name, least(&s, schedule))
					}
					t.Logf("%d interleavings", n)
				})
			})
		}
	}
}

// shuffled returns a schedule at random.
func shuffled(s *scenario, rnd *rand.Rand) (schedule []turn) {
	for range 12 * len(s.actors) {
		t := turn{rnd.IntN(len(s.actors)), -1}
		if s.inside && rnd.IntN(3) == 0 {
			t.inside = rnd.IntN(len(s.actors))
		}
		schedule = append(schedule, t)
	}
	return schedule
}

// randomScenario returns a larger scenario, and a schedule.
func randomScenario(rnd *rand.Rand) (*scenario, []turn) {
	pick := func(of ...string) string { return of[rnd.IntN(len(of))] }
	s := &scenario{stored: map[string][]string{}, by: rnd.IntN(3) - 1}
	partitioned := rnd.IntN(3) == 0
	for len(s.processes) < 2 {
		if k := kinds[rnd.IntN(len(kinds))]; k.partitioned == partitioned {
			s.processes = append(s.processes, k)
		}
	}
	for _, user := range []string{alice, bob} {
		switch rnd.IntN(5) {
		case 0:
		case 1:
			s.stored[user] = []string{windows}
		case 2:
			s.stored[user] = []string{online, windows}
		default:
			s.stored[user] = []string{online}
		}
	}
	out := "sign out"
	if partitioned {
		out = "sign out here"
	}
	for range 3 + rnd.IntN(4) {
		a := actor{in: rnd.IntN(2)}
		for range 1 + rnd.IntN(3) {
			do := pick("refresh", "refresh", "refresh", "hit", "list", "sign in", "sign in", out, "sign out here", "time goes by", "delete")
			if do == "delete" && partitioned || do == "list" && partitioned {
				do = "refresh"
			}
			user := pick(alice, alice, alice, bob)
			a.ops = append(a.ops, op{do: do, user: user, request: rnd.IntN(4)})
		}
		s.actors = append(s.actors, a)
	}
	if rnd.IntN(2) == 0 {
		s.actors = append(s.actors, events(pick("saves fail", "all fails", "reads fail"), "all works", pick("saves fail", "all fails", "reads fail"), "all works"))
	}
	s.inside = true
	return s, shuffled(s, rnd)
}

// So do random interleavings of larger ones: the same ones each time, unless new
// seeds are asked for.
func TestSignOutsStickAtRandom(t *testing.T) {
	runs := 4000
	if newSeeds {
		runs = 200_000
	}
	for part := range 2 {
		t.Run(fmt.Sprint(part), func(t *testing.T) {
			t.Parallel()
			first := uint64(part) << 32
			if newSeeds {
				first = rand.Uint64()
			}
			synctest.Test(t, func(t *testing.T) {
				for i := range runs / 2 {
					seed := first + uint64(i)
					s, schedule := randomScenario(rand.New(rand.NewPCG(seed, 0)))
					if w := run(s, schedule); w.bad != "" {
						t.Fatalf("seed %d:\n%s", seed, least(s, schedule))
					}
				}
			})
		})
	}
}
