package persistence_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// BenchmarkWarmReplace is what every silent token costs, without the backend's
// own part.
func BenchmarkWarmReplace(b *testing.B) {
	c, err := persistence.New(persistence.NewMemory())
	if err != nil {
		b.Fatal(err)
	}
	a := &client{}
	a.signIn("ann", "rt1", 1)
	if err := c.Export(ctx, a, cache.ExportHints{}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Replace(ctx, a, cache.ReplaceHints{PartitionKey: "ann"}); err != nil {
			b.Fatal(err)
		}
	}
}

// An Exclusive that waits for nobody.
func BenchmarkExclusive(b *testing.B) {
	c, err := persistence.New(persistence.NewMemory(), persistence.WithLockFile(filepath.Join(b.TempDir(), "lock")))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := c.Exclusive(b.Context(), "alice", func(context.Context) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

// A program may ask for a token before each of its requests. So a Replace that finds
// nothing new allocates next to nothing, however large the cache is.
func TestAWarmReplaceAllocatesLittle(t *testing.T) {
	p := persistence.NewMemory()
	ours, err := persistence.New(p)
	require.NoError(t, err)
	a := &client{}
	for i := range 100 {
		a.signIn(fmt.Sprint("user", i), "rt1", 1)
	}
	require.NoError(t, ours.Export(ctx, a, cache.ExportHints{}))
	replace := func() { require.NoError(t, ours.Replace(ctx, a, cache.ReplaceHints{PartitionKey: "ann"})) }
	const most = 4
	require.LessOrEqual(t, testing.AllocsPerRun(100, replace), float64(most))

	data, err := p.Load(ctx)
	require.NoError(t, err)
	require.Greater(t, testing.AllocsPerRun(100, func() { // the control
		require.NoError(t, p.Save(ctx, data))
		replace()
	}), float64(most))
}
