package env_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
)

func TestPatiently(t *testing.T) {
	for name, c := range map[string]struct {
		needs time.Duration
		want  string
	}{
		"a fast machine": {0, "went on"}, "a slow one": {30 * time.Second, "went on"}, "a defect": {time.Hour, "failed"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &recorder{TB: t, ended: "went on"}
				done := make(chan struct{})
				go func() {
					defer close(done)
					env.Patiently(r, time.Millisecond, func(ctx context.Context) bool {
						select {
						case <-ctx.Done():
							return false
						case <-time.After(c.needs):
							return true
						}
					})
				}()
				<-done
				if r.ended != c.want {
					t.Errorf("%s, want that it %s", r.ended, c.want)
				}
			})
		})
	}
}
