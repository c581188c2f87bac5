package account

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// server is one whose driver obeys contexts, or not.
type server bool

func (s server) Explain(error) Reason { return Reason{} }
func (s server) Obeys() bool          { return bool(s) }

// A driver that obeys contexts is called directly: what it returns counts, also
// after the context's end. Another one is left behind.
func TestWithin(t *testing.T) {
	for name, obeys := range map[string]bool{"obeys": true, "does not": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				own := errors.New("the driver's own")
				_, err := Within(ctx, server(obeys), func(ctx context.Context) (int, error) {
					<-ctx.Done()
					<-time.After(time.Millisecond)
					return 0, own
				})
				if obeys {
					require.Same(t, own, err)
				} else {
					require.ErrorIs(t, err, context.DeadlineExceeded)
				}
				<-time.After(time.Second) // what was left behind ends by itself
			})
		})
	}
}
