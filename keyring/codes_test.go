package keyring

import (
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	gokeyring "github.com/zalando/go-keyring"

	"github.com/tokenkeep/tokenkeep/internal/rawcode"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// Every way in which security(1) ends, but well, is told with its number: our reading of
// it may be wrong.
func TestCodesOfSecurity(t *testing.T) {
	play := func(status int) *system {
		return &system{&keychain{settings: settings{timeout: time.Minute}, run: func(context.Context, string, ...string) (string, int, error) {
			return "", status, nil
		}}}
	}
	for status := 1; status < 256; status++ {
		if status == statusNotFound {
			continue
		}
		k := play(status)
		_, err := k.Get(t.Context(), "app", "alice")
		require.Equal(t, []string{fmt.Sprintf("security find-generic-password: exit status %d", status)}, rawcode.Of(err))
		err = k.Delete(t.Context(), "app", "alice")
		require.Equal(t, []string{fmt.Sprintf("security delete-generic-password: exit status %d", status)}, rawcode.Of(err))
	}
	_, err := play(statusNotFound).Get(t.Context(), "app", "alice")
	require.Equal(t, NoSession, SituationOf(err))
	require.Equal(t, []string{"security find-generic-password: exit status 44", "security list-keychains: exit status 44", "security default-keychain: exit status 44"}, rawcode.Of(err))

	k, f := newFakeSecurity(t)
	_, err = k.Get(t.Context(), "app", "alice")
	require.ErrorIs(t, err, persistence.ErrNotFound)
	require.Empty(t, rawcode.Of(err), "control: that is no fault")
	f.locked = map[string]int{parsePath(strings.TrimSpace(f.defaults)): 36}
	k, _ = &system{&keychain{settings: settings{timeout: time.Minute}, run: f.run}}, f
	_, err = k.Get(t.Context(), "app", "alice")
	require.Equal(t, []string{"security find-generic-password: exit status 44", "security show-keychain-info: exit status 36"}, rawcode.Of(err))
	require.Equal(t, []string{"security show-keychain-info: exit status 36"}, rawcode.Of(k.Set(t.Context(), "app", "alice", "secret")))

	// What is written to its input, with the secret, is no part of a code.
	const secret = "planted-secret"
	k = &system{&keychain{settings: settings{timeout: time.Minute}, run: func(ctx context.Context, stdin string, args ...string) (string, int, error) {
		if args[0] == "-i" {
			return "", 195, nil
		}
		return f.run(ctx, stdin, args...)
	}}}
	f.locked = nil
	require.Equal(t, []string{"security add-generic-password: exit status 195"}, rawcode.Of(k.Set(t.Context(), "app", "alice", secret)))

	k = &system{&keychain{settings: settings{timeout: time.Minute}, run: func(context.Context, string, ...string) (string, int, error) {
		return "", 0, &exec.Error{Name: "/usr/bin/security", Err: syscall.EPERM}
	}}}
	_, err = k.Get(t.Context(), "app", "alice")
	require.Equal(t, Denied, SituationOf(err))
	require.Equal(t, []string{"security find-generic-password: " + rawcode.Number(runtime.GOOS, syscall.EPERM)}, rawcode.Of(err))
}

// The numbers of Windows' errors are told, with the function that has failed.
func TestCodesOfCredentialManager(t *testing.T) {
	const noSuchLogonSession = syscall.Errno(1312)
	number := rawcode.Number(runtime.GOOS, noSuchLogonSession)
	for _, known := range []bool{true, false} {
		k := playedSystem(settings{timeout: time.Minute}, func() (string, error) { return "", noSuchLogonSession })
		k.platform.(*credentialManager).classify = func(error) error {
			if known {
				return newTrouble(NoSession, "no logon session", "Log on.")
			}
			return nil
		}
		k.platform.(*credentialManager).list = func(string) ([]credential, error) { return nil, noSuchLogonSession }
		_, err := k.Get(t.Context(), "app", "alice")
		require.Equal(t, []string{"CredRead: " + number}, rawcode.Of(err))
		require.Equal(t, []string{"CredWrite: " + number}, rawcode.Of(k.Set(t.Context(), "app", "alice", "secret")))
		require.Equal(t, []string{"CredDelete: " + number}, rawcode.Of(k.Delete(t.Context(), "app", "alice")))
		_, err = k.platform.(Lister).List(t.Context(), "app")
		require.Equal(t, []string{"CredEnumerate: " + number}, rawcode.Of(err))
	}
	require.Equal(t, []string{"CredGetSessionTypes: " + number}, rawcode.Of(checkPersistence(0, noSuchLogonSession)))
	require.Equal(t, []string{"CredGetSessionTypes: 1 for generic credentials"}, rawcode.Of(checkPersistence(1, nil)))

	k := playedSystem(settings{timeout: time.Minute}, func() (string, error) { return "", gokeyring.ErrNotFound })
	_, err := k.Get(t.Context(), "app", "alice")
	require.Empty(t, rawcode.Of(err), "control: that is no fault")
	k.platform.(*credentialManager).session = func() error { return checkPersistence(1, nil) }
	_, err = k.Get(t.Context(), "app", "alice")
	require.Equal(t, []string{"CredRead: ERROR_NOT_FOUND", "CredGetSessionTypes: 1 for generic credentials"}, rawcode.Of(err))
}
