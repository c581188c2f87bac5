package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/cmd/tokenkeep/internal/command"
	"github.com/tokenkeep/tokenkeep/cmd/tokenkeep/internal/sample"
	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/keyring/keyringtest"
	"github.com/tokenkeep/tokenkeep/persistence"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"tokenkeep": func() { os.Exit(program()) },
		"seed":      seed,
	})
}

const planted = sample.Planted

// program is main with the keyrings of the test. It looks at all that is printed.
func program() int {
	m := &command.Machine{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Env: os.Getenv, Root: os.Getenv("TEST_ROOT"), Cost: cheap,
		Keyring: testKeyring("TEST_KEYRING"), Kernel: testKeyring("TEST_KERNEL")}
	ctx, stop := command.Signals()
	defer stop()
	if os.Getenv("TEST_FILE_LIMIT") != "" {
		limitFiles()
	}
	if os.Getenv("TEST_TERMINAL") != "" { // the streams must be what they are
		return command.Run(ctx, os.Args[1:], m)
	}
	var out, errs bytes.Buffer
	m.Stdout, m.Stderr = io.MultiWriter(&out, os.Stdout), io.MultiWriter(&errs, os.Stderr)
	code := command.Run(ctx, os.Args[1:], m)
	if bytes.Contains(append(out.Bytes(), errs.Bytes()...), []byte(planted)) && os.Getenv("SECRETS") != "allowed" {
		return fail("a secret was printed")
	}
	if slices.Contains(os.Args, "-json") {
		if err := checkJSON(out.Bytes(), code); err != nil {
			return fail("the JSON is wrong: %v\n%s", err, out.Bytes())
		}
	}
	return code
}

// limitFiles lets no file of this process grow large.
var limitFiles func()

func fail(format string, args ...any) int {
	fmt.Fprintf(os.Stderr, "TEST FAILURE: "+format+"\n", args...)
	return 99 // no script expects that
}

// checkJSON checks what all JSON of the program has in common.
func checkJSON(text []byte, code int) error {
	var object struct {
		SchemaVersion int
		Command       string
		OK            *bool
		Result        json.RawMessage
		Error         *struct{ Message, Remedy, Class string }
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	switch err := d.Decode(&object); {
	case err != nil:
		return err
	case d.More():
		return fmt.Errorf("there is more than one object")
	case object.SchemaVersion != 1:
		return fmt.Errorf("schemaVersion %d", object.SchemaVersion)
	case object.OK == nil || *object.OK != (code == command.ExitFine):
		return fmt.Errorf("ok, and exit code %d", code)
	case object.Error != nil && (object.Error.Message == "" || object.Error.Class == ""):
		return fmt.Errorf("an error without a message or a class")
	case object.Error == nil && object.Result == nil:
		return fmt.Errorf("neither a result nor an error")
	case object.Error != nil && (object.Error.Class == "usage") != (code == command.ExitMisuse):
		return fmt.Errorf("class %s, and exit code %d", object.Error.Class, code)
	}
	return nil
}

// testKeyring is the keyring whose items lie in the folder that the variable
// names, after the state it is in ("locked:", "absent:" or "blocked:"), or the
// operating system's, if it says "real".
func testKeyring(variable string) keyring.Keyring {
	state, dir, ok := strings.Cut(os.Getenv(variable), ":")
	if !ok {
		dir, state = state, ""
	}
	switch dir {
	case "":
		return nil
	case "real":
		return keyring.System()
	}
	os.MkdirAll(dir, 0o700)
	k := keyringtest.NewDir(dir)
	k.SetLocked(state == "locked")
	k.SetAbsent(state == "absent")
	if state == "blocked" { // as a container's seccomp profile blocks the kernel's
		k.SetError(keyring.Denied)
	}
	return k
}

// cheap is the cost of the tests' passphrases: the real one takes most of a
// test's time.
var cheap = encrypted.Cost{Memory: 64, Passes: 1, Lanes: 1}

// seed stores a cache as a program does: seed NAME STORE
func seed() {
	name, store := os.Args[1], os.Args[2]
	config := tokenkeep.Config{Name: name, Keyring: testKeyring("TEST_KEYRING"), Store: store, AllowPlaintext: store == layout.Plaintext,
		Passphrase: func(context.Context) ([]byte, error) { return []byte(os.Getenv("PASSPHRASE")), nil },
		Warn:       func(fallback.Warning) {}}
	if store == layout.Kernel {
		config.Kernel = testKeyring("TEST_KERNEL")
	}
	ctx := context.Background()
	var cache *persistence.Cache
	var err error
	if store == layout.Passphrase { // as Open does it, but cheaply
		var dir string
		var f *encrypted.File
		if dir, err = tokenkeep.DefaultDir(); err != nil {
			panic(err)
		}
		f, err = encrypted.New(filepath.Join(dir, name+".enc"), encrypted.Passphrase(config.Passphrase, &encrypted.PassphraseOptions{Cost: cheap}),
			&encrypted.Options{Name: name, Lock: persistence.NewFileLock(filepath.Join(dir, name+".lock"))})
		if err == nil {
			err = f.Save(ctx, sample.Cache(time.Now()))
		}
	} else if cache, err = tokenkeep.Open(ctx, config); err == nil {
		err = cache.Update(ctx, func([]byte) ([]byte, error) { return sample.Cache(time.Now()), nil })
	}
	if err == nil && os.Getenv("SEED_SOURCE") == "raw" { // a cache of which only its program has the key
		path := cache.Describe().Location
		var f *encrypted.File
		if f, err = encrypted.New(path, keyring.NewKeys(config.Keyring, "tokenkeep/"+name), &encrypted.Options{Name: name, Lock: persistence.NewFileLock(strings.TrimSuffix(path, ".enc") + ".lock")}); err == nil {
			err = f.Rotate(ctx, encrypted.Raw(bytes.Repeat([]byte{7}, 32)))
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireUniqueNames:  true,
		RequireExplicitExec: false,
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, "home")
			for name, value := range map[string]string{
				"HOME": home, "USER": "alice", "LogName": "", "LocalAppData": home, "XDG_DATA_HOME": "", "XDG_CURRENT_DESKTOP": "GNOME",
				"DATA": filepath.Join(home, ".local", "share", "tokenkeep"), "PASSPHRASE": planted + "-passphrase",
				"SSH_CONNECTION": "", "SSH_TTY": "", "container": "", "KUBERNETES_SERVICE_HOST": "", "WSL_DISTRO_NAME": "", "SUDO_UID": "", "SUDO_USER": "", "GORACE": "atexit_sleep_ms=0",
				"TEST_KEYRING": filepath.Join(env.WorkDir, "keyring"), "TEST_ROOT": filepath.Join(env.WorkDir, "root"),
			} {
				env.Setenv(name, value)
			}
			return os.Mkdir(home, 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"hold": hold, "json": jsonField, "items": items, "spoil": spoil, "code": exitCode, "putback": putBack},
	})
}

// hold keeps a cache locked until the script ends: hold NAME [SINCE [PID]]
func hold(ts *testscript.TestScript, _ bool, args []string) {
	path := filepath.Join(ts.Getenv("DATA"), args[0]+".lock")
	unlock, err := persistence.NewFileLock(path).Lock(context.Background())
	ts.Check(err)
	ts.Defer(func() { unlock() })
	if len(args) > 1 {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		ts.Check(err)
		defer f.Close()
		pid := fmt.Sprint(os.Getpid())
		if len(args) > 2 {
			pid = args[2]
		}
		_, err = f.WriteAt(fmt.Appendf(nil, "%10s %s\n", pid, args[1]), 1)
		ts.Check(err)
	}
}

// jsonField checks a value of the JSON in standard output: json a.b.0 VALUE
func jsonField(ts *testscript.TestScript, neg bool, args []string) {
	var at any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &at))
	for _, step := range strings.Split(args[0], ".") {
		switch v := at.(type) {
		case map[string]any:
			at = v[step]
		case []any:
			var next any
			for i, e := range v {
				if m, ok := e.(map[string]any); fmt.Sprint(i) == step || ok && m["id"] == step {
					next = e
				}
			}
			at = next
		default:
			at = nil
		}
	}
	if got := fmt.Sprint(at); (got == args[1]) == neg {
		ts.Fatalf("%s is %q", args[0], got)
	}
}

// items checks how many items the keyring holds: items N
func items(ts *testscript.TestScript, _ bool, args []string) {
	names, err := filepath.Glob(filepath.Join(ts.Getenv("WORK"), "keyring", "*.json"))
	ts.Check(err)
	if fmt.Sprint(len(names)) != args[0] {
		ts.Fatalf("the keyring holds %d items", len(names))
	}
}

// putBack copies the items of another keyring into the keyring: putback FOLDER
func putBack(ts *testscript.TestScript, _ bool, args []string) {
	from := ts.MkAbs(args[0])
	entries, err := os.ReadDir(from)
	ts.Check(err)
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(from, e.Name()))
		ts.Check(err)
		ts.Check(os.WriteFile(filepath.Join(ts.Getenv("WORK"), "keyring", e.Name()), text, 0o600))
	}
}

// spoil changes the last byte of a file.
func spoil(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	b, err := os.ReadFile(path)
	ts.Check(err)
	b[len(b)-1] ^= 1
	ts.Check(os.WriteFile(path, b, 0o600))
}

// exitCode runs a command that must exit with a code: code N COMMAND...
func exitCode(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("exit code %s", got)
	}
}

// The checks that see printed secrets and wrong JSON can fail.
func TestTheTestsCatch(t *testing.T) {
	for _, bad := range []string{``, `{}`, `{"schemaVersion":2,"command":"","ok":true,"result":{}}`, `{"schemaVersion":1,"command":"","ok":false,"result":{}}`,
		`{"schemaVersion":1,"command":"","ok":true}`, `{"schemaVersion":1,"command":"","ok":true,"result":{}} {}`} {
		require.Error(t, checkJSON([]byte(bad), 0), bad)
	}
	require.NoError(t, checkJSON([]byte(`{"schemaVersion":1,"command":"x","ok":true,"result":{}}`), 0))
	require.Contains(t, string(sample.Cache(time.Now())), planted)
}
