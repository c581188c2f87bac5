package env_test

import (
	"runtime"
	"testing"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

// recorder notes how a test ended.
type recorder struct {
	testing.TB
	ended, why string
}

func (r *recorder) Helper()        {}
func (r *recorder) Fatal(a ...any) { r.ended, r.why = "failed", a[0].(string); runtime.Goexit() }
func (r *recorder) Skip(a ...any)  { r.ended, r.why = "skipped", a[0].(string); runtime.Goexit() }

func TestRequire(t *testing.T) {
	for _, test := range []struct {
		ci   string
		ok   bool
		want string
	}{
		{"true", true, "went on"}, {"", true, "went on"},
		{"true", false, "failed"}, {"", false, "skipped"}, {"false", false, "skipped"},
	} {
		t.Setenv("CI", test.ci)
		r := &recorder{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			env.Require(r, test.ok, "no keyring")
			r.ended = "went on"
		}()
		<-done
		if r.ended != test.want || (!test.ok && r.why != "no keyring") {
			t.Errorf("CI=%q, ok %v: %s (%q), want %s", test.ci, test.ok, r.ended, r.why, test.want)
		}
	}
}
