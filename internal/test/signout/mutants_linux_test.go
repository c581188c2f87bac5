//go:build !race

package signout

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A mutant is the product with one edit, by which a rule is lost.
type mutant struct {
	name     string
	file     string
	old, new string
	property string // which no longer holds
}

var mutants = []mutant{
	{"a refusal uses the sign-out up", "internal/replica/signouts.go",
		"st.held, st.left, st.was = false, true, st.held", "st.held, st.left, st.lost = false, false, 0", "P1"},
	{"only what the Export's own Replace finds lost", "internal/replica/signouts.go",
		"old := reads.first != 0 && reads.first < st.lost", "old := reads.first != 0 && st.lost+1 == s.tick", "P1"},
	{"a sign-in is taken for a refresh", "internal/replica/signouts.go",
		"old := reads.first != 0 && reads.first < st.lost", "old := true", "P2"},
	{"each name of a cloud is a cloud", "internal/tokencache/account.go",
		"return cmp.Or(clouds[e], e)", "return cmp.Or(e, clouds[e])", "P1"},
	{"what is pending does not count as held", "internal/replica/replica.go",
		"	if r.pending != nil {\n		return r.pending\n	}\n	return r.base", "	return r.base", "P2"},
	{"what was left in memory passes later", "internal/replica/signouts.go",
		"st.lost, st.left = s.tick, false", "st.left = false", "P1"},
	{"a sign-in that could not read counts for ever", "internal/replica/replica.go",
		"func (r *Replica) Unchanged() { r.stale, r.back = false, nil }", "func (r *Replica) Unchanged() {}", "P1"},
	{"a sign-in that could not read does not count", "internal/replica/replica.go",
		"p.own = append(p.own, a)\n\t\t}\n\t\ts.hold(a)", "}\n\t\ts.hold(a)", "P2"},
	{"what another request has stored counts as never stored", "persistence/outbox.go",
		"case now != nil && now.line == e.line:", "case false:", "P1"},
	{"what could not be stored is stored by two at once", "persistence/partitioned.go",
		"return o.p.late.take(ctx, o.of.partition)", "return func() {}, nil", "P1"},
	{"a sign-out during a save that creates does not count", "persistence/engine.go",
		"if err != nil || r.Pending() == nil {", "if true {", "P1"},
	{"what was stored stays in the outbox", "persistence/engine.go",
		"if err == nil {\n\t\t\tr.stored()", "if false {\n\t\t\tr.stored()", "P1"},
	{"this process does not know of its own sign-outs", "persistence/inmemory.go",
		"	if n == m.told {", "	if true {", "P1"},
	{"what a sign-in did not read counts as removed by it", "internal/replica/replica.go",
		"		base = other.base\n", "", "P3"},
	{"a Delete leaves what is pending", "internal/replica/replica.go",
		"func (r *Replica) Removed(x Removed) {\n	if r.pending == nil {", "func (r *Replica) Removed(x Removed) {\n	if true {", "P1"},
}

// The simulation finds each mutant out, by the property that it breaks.
func TestSimulationFindsMutants(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", "..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			path := filepath.Join(root, filepath.FromSlash(m.file))
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(text), m.old); n != 1 {
				t.Fatalf("%s has %q %d times, not once: bring the mutant up to date", m.file, m.old, n)
			}
			dir := t.TempDir()
			mutated, overlay := filepath.Join(dir, "mutant.go"), filepath.Join(dir, "overlay.json")
			if err := os.WriteFile(mutated, []byte(strings.Replace(string(text), m.old, m.new, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			replace, err := json.Marshal(map[string]map[string]string{"Replace": {path: mutated}})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(overlay, replace, 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-overlay="+overlay,
				"-run=^(TestSignOutsStickWhereSimplerRulesFail|TestSignOutsStickInEveryInterleaving|TestSignOutsStickBetweenSaveAndAnswer)$", ".").CombinedOutput()
			switch {
			case err == nil:
				t.Fatal("the simulation does not find it")
			case !strings.Contains(string(out), "--- FAIL") || strings.Contains(string(out), "[build failed]"):
				t.Fatalf("it does not run: %s", out)
			case !strings.Contains(string(out), " "+m.property+": "):
				t.Fatalf("%s holds, but: %s", m.property, out)
			}
		})
	}
}
