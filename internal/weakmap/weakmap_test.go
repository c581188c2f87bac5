package weakmap_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/weakmap"
)

type owner struct{ first inner }
type inner struct{ _ [4]int }

// counting returns a function that counts its calls.
func counting() func() int {
	n := 0
	return func() int { n++; return n }
}

func TestOneValueForEachOwner(t *testing.T) {
	m := weakmap.New(counting())
	a, b := new(owner), new(owner)
	for _, test := range []struct {
		owner any
		want  int
	}{
		{a, 1}, {a, 1}, {b, 2}, {a, 1},
		{&a.first, 3}, // has a's address, and is another thing
		{&a.first, 3},
	} {
		got, ok := m.Of(test.owner)
		require.True(t, ok)
		require.Equal(t, test.want, got)
	}
	require.Equal(t, 3, m.Len())
	runtime.KeepAlive(a)
	runtime.KeepAlive(b)
}

func TestNoIdentity(t *testing.T) {
	m := weakmap.New(counting())
	for _, v := range []any{nil, 1, owner{}, &struct{}{}, map[int]int{}, (*owner)(nil), context.Background()} {
		_, ok := m.Of(v)
		require.False(t, ok, "%T", v)
		require.Equal(t, weakmap.Key{}, weakmap.KeyOf(v), "%T", v)
		require.False(t, weakmap.KeyOf(v).Alive(), "%T", v)
	}
	require.Zero(t, m.Len())
}

func TestValuesGoWithTheirOwners(t *testing.T) {
	m := weakmap.New(func() *owner { return new(owner) })
	kept := new(owner)
	_, _ = m.Of(kept)
	for range 100 {
		_, ok := m.Of(new(owner))
		require.True(t, ok)
	}
	require.Eventually(t, func() bool { runtime.GC(); return m.Len() == 1 }, 4*time.Minute, time.Millisecond)
	runtime.KeepAlive(kept)
}

func TestKeyKeepsNothingAlive(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	k := weakmap.KeyOf(ctx)
	require.True(t, k.Alive())
	require.Equal(t, k, weakmap.KeyOf(ctx))
	cancel()
	runtime.KeepAlive(ctx)
	require.Eventually(t, func() bool { runtime.GC(); return !k.Alive() }, 4*time.Minute, time.Millisecond)
}
