//go:build linux

package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/internal/test/secretservice"
)

// Start is a whole program, from its start to its token, with a real GNOME
// Keyring. The limit is the same program with a plaintext file; secret-tool is the
// system's own client, which looks up one item.
var startTopic = topic{subjects: []subject{
	{"limit", []param{{"keyring=gnome", 1}}, startProgram("plaintext")},
	{"tokenkeep", []param{{"keyring=gnome", 1}}, startProgram("keyring")},
	{"secret-tool", []param{{"keyring=gnome", 1}}, startProgram("")},
}}

// startProgram starts the program with that store, or secret-tool.
func startProgram(store string) func(testing.TB, param) task {
	return func(tb testing.TB, _ param) task {
		secretservice.Need(tb, "gnome-keyring-daemon", "secret-tool", "dbus-daemon")
		bus := secretservice.StartBus(tb)
		bus.StartKeyring(tb, true)
		before, was := os.LookupEnv("DBUS_SESSION_BUS_ADDRESS")
		ok(tb, os.Setenv("DBUS_SESSION_BUS_ADDRESS", bus.Address))
		defer func() {
			if !was {
				os.Unsetenv("DBUS_SESSION_BUS_ADDRESS")
				return
			}
			os.Setenv("DBUS_SESSION_BUS_ADDRESS", before)
		}()

		dir, want := tb.TempDir(), tokens(size10KB.n, 1)
		program := filepath.Join(dir, "token")
		args := []string{program, dir, store}
		if store == "" {
			want = []byte("secret")
			args = []string{"secret-tool", "lookup", "service", "bench", "username", "key"}
			set := exec.Command("secret-tool", "store", "--label=bench", "service", "bench", "username", "key")
			set.Env, set.Stdin = bus.Env(), bytes.NewReader(want)
			if out, err := set.CombinedOutput(); err != nil {
				tb.Fatalf("%v: %s", err, out)
			}
		} else {
			if out, err := exec.Command("go", "build", "-o", program, "./cmd/token").CombinedOutput(); err != nil {
				tb.Fatalf("%v: %s", err, out)
			}
			c := must(tokenkeep.Open(ctx, tokenkeep.Config{Name: "bench", Dir: dir, Store: store, AllowPlaintext: true, Warn: func(fallback.Warning) {}}))(tb)
			ok(tb, c.Export(ctx, &memory{data: want}, exportHints))
		}
		var got []byte
		return task{
			run: func() (err error) {
				cmd := exec.Command(args[0], args[1:]...)
				cmd.Env = bus.Env()
				got, err = cmd.Output()
				var exit *exec.ExitError
				if errors.As(err, &exit) {
					err = fmt.Errorf("%w: %s", err, exit.Stderr)
				}
				return err
			},
			check: func(run func() error) error {
				got = nil
				if err := run(); err != nil {
					return err
				}
				return expect("printed", bytes.TrimSuffix(got, []byte("\n")), want)
			},
		}
	}
}
