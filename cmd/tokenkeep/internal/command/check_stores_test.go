package command

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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
