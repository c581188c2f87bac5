package keyring

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/test/secretservice"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// An item that libsecret made is read, and replaced so that libsecret finds it.
func TestForeignItem(t *testing.T) {
	secretservice.Need(t, "secret-tool")
	bus, k := unlockedKeyring(t)
	ctx := t.Context()
	item := ForeignItem{Attributes: map[string]string{"app": "contoso", "kind": "tokens"}, Label: "ours"}
	_, err := item.Get(ctx)
	require.ErrorIs(t, err, persistence.ErrNotFound)

	tool := func(input string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(ctx, "secret-tool", args...)
		cmd.Env, cmd.Stdin = bus.Env(), strings.NewReader(input)
		out, err := cmd.Output()
		require.NoError(t, err, "%v", args)
		return string(out)
	}
	tool("theirs", "store", "--label=label of theirs", "app", "contoso", "kind", "tokens", "more", "1")
	got, err := item.Get(ctx)
	require.NoError(t, err)
	require.Equal(t, "theirs", string(got))
	require.NoError(t, item.Set(ctx, []byte("ours")))
	require.Equal(t, "ours", tool("", "lookup", "app", "contoso", "kind", "tokens"))
	items := bus.Items(t)
	require.Len(t, items, 1)
	require.Equal(t, "label of theirs", items[0].Label, "the item stays what it is")
	require.Equal(t, "1", items[0].Attributes["more"])

	// One that is not there is made, and found by libsecret.
	another := ForeignItem{Attributes: map[string]string{"app": "contoso", "kind": "another", "xdg:schema": "org.example.Schema"}, Label: "ours"}
	require.NoError(t, another.Set(ctx, []byte("second")))
	require.Equal(t, "second", tool("", "lookup", "kind", "another"))
	require.Len(t, bus.Items(t), 2)
	got, err = item.Get(ctx)
	require.NoError(t, err)
	require.Equal(t, "ours", string(got))
	_, err = ForeignItem{Attributes: map[string]string{"kind": "another", "xdg:schema": "org.example.Other"}}.Get(ctx)
	require.ErrorIs(t, err, persistence.ErrNotFound, "the schema's name counts")

	// Any attributes would find it if none were asked for.
	for _, bad := range []ForeignItem{{}, {Attributes: map[string]string{"a": "\xff"}}, {Attributes: map[string]string{"a\x00": "b"}}, {Attributes: map[string]string{"a": "b"}, Label: "\xff"}} {
		_, err := bad.Get(ctx)
		require.Error(t, err)
		require.NotErrorIs(t, err, persistence.ErrNotFound)
		require.Error(t, bad.Set(ctx, []byte("x")))
	}

	// A locked one is not missing, and nobody is asked.
	k.Lock(t)
	_, err = item.Get(ctx)
	require.ErrorIs(t, err, persistence.ErrKeyringLocked)
	require.NotEmpty(t, persistence.Remedy(err))
	require.ErrorIs(t, item.Set(ctx, []byte("x")), persistence.ErrKeyringLocked)
	err = ForeignItem{Attributes: map[string]string{"app": "never"}}.Set(ctx, []byte("x"))
	require.ErrorIs(t, err, persistence.ErrKeyringLocked)
	k.Kill(t)
	bus.AwaitNoService(t)
	_, err = item.Get(ctx)
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	require.False(t, errors.Is(err, persistence.ErrNotFound))
}

// Of two items with the same attributes the one counts that was changed last.
func TestForeignItemTwice(t *testing.T) {
	bus, _ := unlockedKeyring(t)
	first, second := map[string]string{"app": "x", "n": "1"}, map[string]string{"app": "x", "n": "2"}
	bus.AddItem(t, "", first, "one")
	bus.AddItem(t, "", second, "two")
	both := ForeignItem{Attributes: map[string]string{"app": "x"}}
	for _, attributes := range []map[string]string{first, second, first} {
		n := 0
		require.Eventually(t, func() bool { // the service's times are in seconds
			n++
			now := fmt.Sprint("changed ", attributes["n"], " ", n)
			require.NoError(t, ForeignItem{Attributes: attributes}.Set(t.Context(), []byte(now)))
			got, err := both.Get(t.Context())
			require.NoError(t, err)
			return string(got) == now
		}, time.Minute, 50*time.Millisecond)
	}
}

// go-keyring takes an empty user, which System refuses.
func TestForeignItemWithoutAUser(t *testing.T) {
	bus, _ := unlockedKeyring(t)
	out, ok := runGoKeyring(t, bus, "set", "app", "", "theirs")
	require.True(t, ok, out)
	out, ok = runGoKeyring(t, bus, "set", "app", "alice", "hers")
	require.True(t, ok, out)
	secret, err := ForeignItem{Attributes: map[string]string{"service": "app", "username": ""}}.Get(t.Context())
	require.NoError(t, err)
	require.Equal(t, "theirs", string(secret))
	_, err = System().Get(t.Context(), "app", "")
	require.ErrorContains(t, err, "the user is empty", "control")
}
