package signout

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// Here what a store does is a step of its own, and so is its answer: between a save
// and its answer, whole sign-outs and sign-ins come. What happens next has a name:
// that of a program's step, or "P saves alice", "P has saved alice" for the answer,
// and so on.

// parts is what a world needs where steps are parted.
type parts struct {
	baton   chan struct{} // who has put something in touches the world
	running map[int]step  // the steps under way, by actor

	of       []*process        // by actor
	creating map[*process]bool // may take back what it has stored; until its steps have ended

	mu    sync.Mutex
	gates []*gate // where they wait, the longest first
}

// A gate is where a step waits to be told to go on.
type gate struct {
	name string
	open chan struct{}
}

// park waits until its caller is told to go on.
func (w *world) park(name string) {
	if w.parts == nil {
		return
	}
	g := &gate{name, make(chan struct{})}
	w.parts.mu.Lock()
	w.parts.gates = append(w.parts.gates, g)
	w.parts.mu.Unlock()
	<-g.open
}

// outside runs what does not touch the world, but through a connection.
func (w *world) outside(run func()) {
	if w.parts != nil {
		<-w.parts.baton
		defer func() { w.parts.baton <- struct{}{} }()
	}
	run()
}

// mayTakeBack reports whether a process may still take back what it has stored.
func (w *world) mayTakeBack() bool {
	if w.parts == nil {
		return false
	}
	busy := map[*process]bool{}
	for actor := range w.parts.running {
		busy[w.parts.of[actor]] = true
	}
	maps.DeleteFunc(w.parts.creating, func(p *process, _ bool) bool { return !busy[p] })
	return len(w.parts.creating) > 0
}

// A choice is what can happen next. Where several have one name, the second one ends in
// " (2)", and so on.
type choice struct {
	name   string
	parked bool // at a gate
	do     func()
}

const timePasses = "a second goes by"

func (w *world) choices() (all []choice) {
	p := w.parts
	p.mu.Lock()
	gates := slices.Clone(p.gates)
	p.mu.Unlock()
	named := map[string]int{}
	for i, g := range gates {
		name := g.name
		if named[name]++; named[name] > 1 {
			name += fmt.Sprintf(" (%d)", named[name])
		}
		all = append(all, choice{name, true, func() {
			p.mu.Lock()
			p.gates = slices.Delete(p.gates, i, i+1)
			p.mu.Unlock()
			close(g.open)
		}})
	}
	for _, i := range w.runnable(-1) {
		s := w.queues[i][0]
		if _, busy := p.running[i]; !busy && !(s.long && len(p.running) > 0) && !(s.take && w.isRead(s.call.c)) {
			all = append(all, choice{s.name, false, func() { w.begin(i, s) }})
		}
	}
	if len(p.running) > 0 {
		all = append(all, choice{timePasses, false, func() { <-time.After(time.Second) }})
	}
	return all
}

// isRead reports whether a call has the client's read lock.
func (w *world) isRead(c *client) bool {
	for _, s := range w.parts.running {
		if s.call != nil && s.call.c == c {
			return true
		}
	}
	return false
}

func (w *world) begin(actor int, s step) {
	w.queues[actor] = w.queues[actor][1:]
	if s.take {
		s.call.c.writer = s.call
	}
	if s.long {
		w.queues[actor] = append(s.run(), w.queues[actor]...)
		return
	}
	w.parts.running[actor] = s
	go func() {
		w.parts.baton <- struct{}{}
		w.queues[actor] = append(s.run(), w.queues[actor]...)
		delete(w.parts.running, actor)
		<-w.parts.baton
	}()
}

// choose has one of the choices happen.
func (w *world) choose(c choice) {
	w.parts.baton <- struct{}{}
	w.now++
	w.trace = append(w.trace, c.name)
	w.parts.mu.Lock() // a step that time wakes is not known to come after this one
	before := len(w.parts.gates)
	if c.parked {
		before--
	}
	w.parts.mu.Unlock()
	c.do()
	<-w.parts.baton
	synctest.Wait()
	w.parts.baton <- struct{}{}
	w.parts.mu.Lock()
	slices.SortStableFunc(w.parts.gates[before:], func(a, b *gate) int { return cmp.Compare(a.name, b.name) })
	w.parts.mu.Unlock()
	w.check()
	<-w.parts.baton
}

// runParted runs a scenario, of whose choices pick picks one after the other, and
// returns their names.
func runParted(s *scenario, pick func([]choice) int) (w *world, schedule []string) {
	w = newWorld(s)
	p := &parts{baton: make(chan struct{}, 1), running: map[int]step{}, creating: map[*process]bool{}}
	for _, a := range s.actors {
		p.of = append(p.of, nil)
		if a.in >= 0 {
			p.of[len(p.of)-1] = w.processes[a.in]
		}
	}
	w.parts = p
	for w.bad == "" {
		all := w.choices()
		if len(all) == 0 {
			break
		}
		c := all[pick(all)]
		schedule = append(schedule, c.name)
		w.choose(c)
	}
	for n := 0; len(p.running) > 0; n++ { // something is wrong, and the rest ends
		if n == 1000 {
			panic("a step does not end:\n" + w.String())
		}
		if len(p.gates) > 0 {
			close(p.gates[0].open)
			p.gates = p.gates[1:]
		} else {
			<-time.After(persistence.MaxTurn)
		}
		synctest.Wait()
	}
	w.parts = nil
	w.finish()
	return w, schedule
}

// by picks what a schedule names. What is not there is left out, and what is left to
// do at the end is done in order.
func by(schedule []string) func([]choice) int {
	return func(all []choice) int {
		for len(schedule) > 0 {
			next := schedule[0]
			schedule = schedule[1:]
			if i := slices.IndexFunc(all, func(c choice) bool { return c.name == next }); i >= 0 {
				return i
			}
		}
		return 0
	}
}

// leastParted is least of what runParted runs.
func leastParted(s *scenario, schedule []string) *world {
	return leastBy(s, schedule, func(s *scenario, schedule []string) *world {
		w, _ := runParted(s, by(schedule))
		return w
	})
}

// Larger scenarios keep the properties also where others do something between a save
// and its answer.
func TestSignOutsStickBetweenSaveAndAnswerAtRandom(t *testing.T) {
	runs := 1000
	first := uint64(0)
	if newSeeds {
		runs, first = 100_000, rand.Uint64()
	}
	for i := range runs {
		seed := first + uint64(i)
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 11))
			s, ok := randomOutage(rnd)
			if !ok {
				s, _ = randomScenario(rnd)
			}
			if w, schedule := runParted(s, func(all []choice) int { return rnd.IntN(len(all)) }); w.bad != "" {
				t.Fatalf("seed %d:\n%s", seed, leastParted(s, schedule))
			}
		})
		if t.Failed() {
			return
		}
	}
}

// Each of these lost to rules that were simpler. A schedule names what happens next
// and, after a question mark, what must not but may.
func TestSignOutsStickBetweenSaveAndAnswer(t *testing.T) {
	parted, one := kindNamed("partitioned, client per request"), kindNamed("public")
	here := func(ops ...op) actor { return actor{0, ops} }
	there := func(ops ...op) actor { return actor{1, ops} }
	out := op{do: "sign out here", user: alice}
	pending := []string{
		"saves fail", "P2 sign in alice: begin", "P2 sign in alice: R", "P reads alice", "P2 sign in alice: E", "P saves alice", "all works",
	}
	pendingOfOne := []string{
		"saves fail", "P0 sign in alice: begin", "P0 sign in alice: R", "P reads ", "P0 sign in alice: E", "P saves ", "all works",
	}
	for _, c := range []struct {
		name     string
		kind     kind
		pending  []string
		stored   map[string][]string
		actors   []actor
		schedule []string
	}{
		{"signed out while a flush has no answer yet", parted, pending, nil,
			[]actor{here(markedSignIn(alice)), here(op{do: "flush"}), here(op{do: "hit", user: alice}), there(out), events("saves fail", "all works")},
			[]string{"P flush", "P reads alice", "P saves alice", "Q sign out here alice", "Q deletes alice", "Q has deleted alice",
				"P3 hit alice: R(user)", "P reads alice", "? P reads alice", "? P saves alice"}},
		{"signed out here while a flush has not saved yet", parted, pending, nil,
			[]actor{here(markedSignIn(alice)), here(op{do: "flush"}), here(out), events("saves fail", "all works")},
			[]string{"P flush", "P reads alice", "P sign out here alice", "? P deletes alice", "? P has deleted alice", "P saves alice"}},
		{"deleted while what could not be stored is saved", one, pendingOfOne, nil,
			[]actor{here(signIn(alice), silent(alice)), here(op{do: "delete"}), events("saves fail", "all works")},
			[]string{"P0 refresh alice: R(user)", "P reads ", "P0 refresh alice: ask", "P0 refresh alice: R(user)", "P reads ", "P0 refresh alice: E", "P delete ",
				"? P deletes ", "? P has deleted ", "P saves "}},
		{"deleted while what could not be stored is saved beside another account", one, pendingOfOne, map[string][]string{bob: {online}},
			[]actor{here(signIn(alice), silent(alice)), here(op{do: "delete"}), events("saves fail", "all works")},
			[]string{"P0 refresh alice: R(user)", "P reads ", "P0 refresh alice: ask", "P0 refresh alice: R(user)", "P reads ", "P0 refresh alice: E", "P delete ",
				"? P deletes ", "? P has deleted ", "P saves "}},
		{"signed out here while what could not be stored is saved beside another account", one, pendingOfOne, map[string][]string{bob: {online}},
			[]actor{here(signIn(alice), silent(alice)), here(out), events("saves fail", "all works")},
			[]string{"P0 refresh alice: R(user)", "P reads ", "P0 refresh alice: ask", "P0 refresh alice: R(user)", "P reads ", "P0 refresh alice: E", "P sign out here alice",
				"P reads ", "P saves "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scenario{name: c.name, processes: []kind{c.kind, c.kind}, stored: c.stored, by: -1, actors: c.actors}
				var must, may []string
				for _, name := range append(slices.Clone(c.pending), c.schedule...) {
					name, optional := strings.CutPrefix(name, "? ")
					if may = append(may, name); !optional {
						must = append(must, name)
					}
				}
				w, took := runParted(s, by(may))
				if w.bad != "" {
					t.Fatal(w)
				}
				for _, name := range took {
					if len(must) > 0 && must[0] == name {
						must = must[1:]
					}
				}
				if len(must) > 0 {
					t.Fatalf("%q did not happen:\n%s", must, w)
				}
			})
		})
	}
}
