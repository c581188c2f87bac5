package command

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/keyring"
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
