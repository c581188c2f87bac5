package persistence_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/cache"

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
