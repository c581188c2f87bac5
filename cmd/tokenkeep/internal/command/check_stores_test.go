package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/rawcode"
	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
)

// Every situation of a keyring has the same id on every system, a summary of its own
// and no advice for another system.
func TestKeyringTroubleOfEverySystem(t *testing.T) {
	ids := map[keyring.Situation]string{
		keyring.Unsupported: "keyring.unsupported", keyring.NoBus: "keyring.no-bus", keyring.ForeignBus: "keyring.foreign-bus",
		keyring.BusRefused: "keyring.bus-refused", keyring.NoService: "keyring.no-service", keyring.NoCollection: "keyring.no-collection",
		keyring.NoAnswer: "keyring.no-answer", keyring.NoSession: "keyring.no-session", keyring.Denied: "keyring.denied",
		keyring.Failed: "keyring.failed", keyring.Locked: "keyring.locked", keyring.Declined: "keyring.declined",
		keyring.Unanswered: "keyring.unanswered",
	}
	onlyOfABus := map[keyring.Situation]bool{keyring.NoBus: true, keyring.ForeignBus: true, keyring.BusRefused: true}
	foreign := map[string][]string{
		"windows": {"Secret Service", "D-Bus", "Keychain", "keychain", "apt-get", "seahorse", "systemd"},
		"darwin":  {"Secret Service", "D-Bus", "Credential Manager", "apt-get", "seahorse", "systemd"},
		"linux":   {"Credential Manager", "Keychain", "keychain"},
	}
	for system, words := range foreign {
		x := &doctorRun{call: &call{Machine: &Machine{}}, session: session{desktop: "unnamed"}}
		_, unknown := x.keyringTrouble(system, keyringState{"new-in-a-later-version", errors.New("unknown")})
		require.Equal(t, "keyring.new-in-a-later-version", unknown.ID)
		general, _ := x.keyringTrouble(system, keyringState{"new-in-a-later-version", errors.New("unknown")})
		for situation, id := range ids {
			if system != "linux" && onlyOfABus[situation] {
				continue
			}
			summary, f := x.keyringTrouble(system, keyringState{situation, remedy.Errorf("Do this.", "%w", situation)})
			require.Equal(t, id, f.ID)
			require.NotEqual(t, general, summary, "%s on %s is not told by itself", situation, system)
			require.NotEmpty(t, f.What)
			require.NotEmpty(t, f.Remedy)
			for _, word := range words {
				require.NotContains(t, strings.Join([]string{summary, f.What, f.Remedy, f.Command}, " "), word, "%s on %s", situation, system)
			}
		}
	}
}

// searching is a keyring that searches keychains, as that of macOS does.
type searching struct{ keyring.Keyring }

func (searching) Keychains(context.Context) ([]string, error) {
	return []string{"/homes/alice/Library/Keychains/login.keychain-db", "/Library/Keychains/\x1b[31m"}, nil
}

// The doctor says which keychains were asked, with nothing in it that a terminal obeys.
func TestDoctorNamesTheKeychains(t *testing.T) {
	x := &doctorRun{call: &call{Machine: &Machine{Keyring: searching{keyringtest.New()}}}}
	x.timeout = time.Minute
	x.keyring = x.askKeyring()
	o := checkKeyring(t.Context(), x)
	require.Contains(t, o.Details, `This session searches /homes/alice/Library/Keychains/login.keychain-db, /Library/Keychains/\x1b[31m.`)
	x.Keyring = keyringtest.New()
	require.Empty(t, x.keychains(t.Context()), "control")
}

// answering is a keyring whose system has answered with codes.
type answering struct {
	keyring.Keyring
	err error
}

func (k answering) Get(context.Context, string, string) (string, error) { return "", k.err }

// A person who reports a fault needs what the system itself has answered. It is told as
// text and in a field of its own, quoted, and with no name in it.
func TestDoctorTellsCodes(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	name := "D-Bus: \x1b[31m " + filepath.Join(home, "x")
	for _, c := range []struct {
		err   error
		codes []string
	}{
		{rawcode.With("security find-generic-password: exit status 36", keyring.Locked), []string{"security find-generic-password: exit status 36"}},
		{rawcode.With("CredRead: ERROR_NOT_FOUND", rawcode.With("CredGetSessionTypes: 1", keyring.NoSession)), []string{"CredRead: ERROR_NOT_FOUND", "CredGetSessionTypes: 1"}},
		{fmt.Errorf("unknown: %w", syscall.Errno(5)), []string{rawcode.Number(runtime.GOOS, 5)}},
		{rawcode.With(name, keyring.NoService), []string{"D-Bus: \x1b[31m ~" + string(filepath.Separator) + "x"}},
		{keyring.Locked, nil},
	} {
		run := func(args ...string) string {
			var out screenText
			code := Run(t.Context(), append([]string{"doctor", "keyring", "-dir", t.TempDir()}, args...),
				&Machine{Stdout: &out, Stderr: &out, Env: os.Getenv, Keyring: answering{keyringtest.New(), c.err}, Cost: cheap, Root: t.TempDir()})
			require.Equal(t, ExitProblem, code, "%s", out)
			return string(out)
		}
		text := strings.Join(strings.Fields(run()), " ")
		require.NotContains(t, text, "\x1b")
		require.NotContains(t, text, home)
		if c.codes == nil {
			require.NotContains(t, text, "has answered", "control")
		} else {
			require.Contains(t, text, "(The system has answered: "+strings.ReplaceAll(strings.Join(c.codes, "; "), "\x1b", `\x1b`)+".)")
		}
		printed := run("-json")
		require.NotContains(t, printed, "\x1b")
		var got struct{ Result doctorReport }
		require.NoError(t, json.Unmarshal([]byte(printed), &got))
		require.Equal(t, c.codes, got.Result.Checks[0].Findings[0].Codes)
	}
}
