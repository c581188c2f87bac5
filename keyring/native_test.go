package keyring

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	gokeyring "github.com/zalando/go-keyring"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// played plays go-keyring back: what it shows is our own mapping, and no
// evidence about macOS or Windows.
type played func() (string, error)

func (p played) Get(string, string) (string, error) { return p() }
func (p played) Set(string, string, string) error   { _, err := p(); return err }
func (p played) Delete(string, string) error        { _, err := p(); return err }

type exitStatus int

func (e exitStatus) Error() string { return "exit status" }

func playedSystem(goos string, o systemOptions, p played) *system {
	return &system{&native{systemOptions: o, calls: p, goos: goos, classify: func(err error) error {
		var exit exitStatus
		if errors.As(err, &exit) {
			return classifyExit(int(exit))
		}
		return nil
	}}}
}

func TestNativeErrors(t *testing.T) {
	const secret = "planted-secret"
	_, badHex := hex.DecodeString("zz" + secret)
	_, badBase64 := base64.StdEncoding.DecodeString("!" + secret)
	for _, c := range []struct {
		err, class error
	}{
		{nil, nil},
		{gokeyring.ErrNotFound, persistence.ErrNotFound},
		{gokeyring.ErrSetDataTooBig, persistence.ErrTooLarge},
		{badHex, persistence.ErrCorrupt},
		{badBase64, persistence.ErrCorrupt},
		{exitStatus(36), persistence.ErrKeyringLocked},
		{exitStatus(51), persistence.ErrKeyringLocked},
		{exitStatus(128), persistence.ErrKeyringLocked},
		{exitStatus(37), persistence.ErrUnavailable},
		{exitStatus(1), exitStatus(1)},
	} {
		k := playedSystem("darwin", systemOptions{timeout: time.Minute}, func() (string, error) { return secret, c.err })
		_, err := k.Get(t.Context(), "app", "alice")
		for _, err := range []error{err, k.Set(t.Context(), "app", "alice", secret), k.Delete(t.Context(), "app", "alice")} {
			if c.class == nil {
				require.NoError(t, err)
				continue
			}
			require.ErrorIs(t, err, c.class)
			require.NotContains(t, err.Error(), secret)
			var e *persistence.Error
			require.ErrorAs(t, err, &e)
		}
	}
}

// A call that the system never lets return is left when its time is up.
func TestNativeCallsAreBounded(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	hang := played(func() (string, error) { <-release; return "", nil })

	_, err := playedSystem("windows", systemOptions{timeout: time.Millisecond}, hang).Get(context.Background(), "app", "alice")
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	require.ErrorIs(t, err, context.DeadlineExceeded)

	k := playedSystem("darwin", systemOptions{timeout: time.Hour}, hang)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	err = k.Set(ctx, "app", "alice", "x")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorIs(t, err, persistence.ErrUnavailable)

	// Where the user may be asked, the context alone counts.
	k = playedSystem("darwin", systemOptions{timeout: time.Nanosecond, prompt: true}, func() (string, error) { return "answered", nil })
	ctx, cancel = context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	got, err := k.Get(ctx, "app", "alice")
	require.NoError(t, err)
	require.Equal(t, "answered", got)
}

func TestNames(t *testing.T) {
	never := played(func() (string, error) { return "", errors.New("called") })
	for _, bad := range []string{"", "a\nquit", "\xff", strings.Repeat("x", 501)} {
		require.NotContains(t, playedSystem("windows", systemOptions{timeout: time.Hour}, never).Delete(t.Context(), bad, "u").Error(), "called")
		require.NotContains(t, playedSystem("windows", systemOptions{timeout: time.Hour}, never).Delete(t.Context(), "s", bad).Error(), "called")
	}
	// Characters that macOS's security(1) takes for its own.
	for _, bad := range []string{`it's`, `a\b`} {
		require.NotContains(t, playedSystem("darwin", systemOptions{timeout: time.Hour}, never).Delete(t.Context(), "s", bad).Error(), "called")
	}
	require.Contains(t, playedSystem("windows", systemOptions{timeout: time.Hour}, never).Delete(t.Context(), "s", `it's`).Error(), "called")
}

func TestItemLimit(t *testing.T) {
	require.Equal(t, 2560, ItemLimit("windows", "app", "alice"))
	require.Zero(t, ItemLimit("linux", "app", "alice"))
	for _, name := range []string{"app", "with space", "it's", strings.Repeat("é", 200)} {
		// go-keyring's own measure: the line that it writes for security(1).
		limit := ItemLimit("darwin", name, "alice")
		quoted := name
		if name != "app" {
			quoted = "'" + strings.ReplaceAll(name, "'", `'"'"'`) + "'"
		}
		line := func(n int) int {
			return len("add-generic-password -U -s " + quoted + " -a alice -w go-keyring-base64:" + base64.StdEncoding.EncodeToString(make([]byte, n)) + "\n")
		}
		require.LessOrEqual(t, line(limit), 4096)
		require.Greater(t, line(limit+30), 4096, "the limit wastes no more than a few bytes")
	}
	k := playedSystem("windows", systemOptions{timeout: time.Hour}, func() (string, error) { return "", nil })
	require.NoError(t, k.Set(t.Context(), "app", "alice", strings.Repeat("x", 2560)))
	err := k.Set(t.Context(), "app", "alice", strings.Repeat("x", 2561))
	require.ErrorIs(t, err, persistence.ErrTooLarge)
	require.ErrorContains(t, err, "2560")
}
