package once_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/once"
)

func TestKinds(t *testing.T) {
	var kinds once.Kinds
	require.True(t, kinds.First("locked"))
	require.False(t, kinds.First("locked"))
	require.True(t, kinds.First("full"))

	var first atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if kinds.First("hanging") {
				first.Add(1)
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 1, first.Load())
}
