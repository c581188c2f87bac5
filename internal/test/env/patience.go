package env

import (
	"context"
	"testing"
	"time"
)

// mostPatience is what only a defect needs.
const mostPatience = 4 * time.Minute

// Patiently is for a call that is to be ended by its context when it has got to a
// certain point, which a slow machine reaches later. It calls try with contexts that
// last for d, then for longer and longer, until try reports that the call got there. If
// it never does, the test fails.
func Patiently(t testing.TB, d time.Duration, try func(ctx context.Context) bool) {
	t.Helper()
	for ; d < mostPatience; d *= 4 {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		done := try(ctx)
		cancel()
		if done {
			return
		}
	}
	t.Fatal("the call ended too early, however long its context was")
}
