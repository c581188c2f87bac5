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

func number(n int) func() int { return func() int { return n } }

func TestOneValueForEachOwner(t *testing.T) {
	m := weakmap.New[int]()
	a, b := new(owner), new(owner)
	for _, test := range []struct {
		owner any
		made  int
		want  int
	}{
		{a, 1, 1}, {a, 2, 1}, {b, 3, 3}, {a, 4, 1},
		{&a.first, 5, 5}, // has a's address, and is another thing
		{&a.first, 6, 5},
	} {
		got, ok := m.Of(test.owner, number(test.made))
		require.True(t, ok)
		require.Equal(t, test.want, got)
	}
	require.Equal(t, 3, m.Len())
	runtime.KeepAlive(a)
	runtime.KeepAlive(b)
}

func TestNoIdentity(t *testing.T) {
	m := weakmap.New[int]()
	for _, v := range []any{nil, 1, owner{}, &struct{}{}, map[int]int{}, (*owner)(nil), context.Background()} {
		_, ok := m.Of(v, number(1))
		require.False(t, ok, "%T", v)
		require.Equal(t, weakmap.Key{}, weakmap.KeyOf(v), "%T", v)
		require.False(t, weakmap.KeyOf(v).Alive(), "%T", v)
	}
	require.Zero(t, m.Len())
}

func TestValuesGoWithTheirOwners(t *testing.T) {
	m := weakmap.New[*owner]()
	kept := new(owner)
	_, _ = m.Of(kept, func() *owner { return new(owner) })
	for range 100 {
		_, ok := m.Of(new(owner), func() *owner { return new(owner) })
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
