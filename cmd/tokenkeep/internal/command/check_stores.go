package command

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/internal/quote"
	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// keyringState is the answer of a keyring.
type keyringState struct {
	situation keyring.Situation // "" if it works
	err       error
}

// probe asks for an item that nobody has made. If the keyring answers that the item is
// not there, the keyring is there and open. Nothing is stored to find that out.
func probe(ctx context.Context, k keyring.Keyring) keyringState {
	_, err := k.Get(ctx, "tokenkeep", "doctor asks whether the keyring answers")
	if err == nil || errors.Is(err, persistence.ErrNotFound) {
		return keyringState{}
	}
	situation := keyring.SituationOf(err)
	switch {
	case situation != "":
	case errors.Is(err, context.DeadlineExceeded): // the doctor's own timeout
		situation = keyring.NoAnswer
	default:
		situation = keyring.Failed
	}
	return keyringState{situation, err}
}

// askKeyring asks the operating system's keyring, at the first call only.
func (x *doctorRun) askKeyring() func(context.Context) keyringState {
	var state *keyringState
	return func(ctx context.Context) keyringState {
		if state == nil {
			ctx, cancel := context.WithTimeout(ctx, x.timeout)
			defer cancel()
			s := probe(ctx, x.Keyring)
			state = &s
		}
		return *state
	}
}

// keyringName returns the name of the keyring of a system, a value of runtime.GOOS.
func keyringName(system string) string {
	switch system {
	case "windows":
		return "Credential Manager"
	case "darwin":
		return "the Keychain"
	}
	return "the Secret Service"
}

func checkKeyring(ctx context.Context, x *doctorRun) checkResult {
	state := x.keyring(ctx)
	if state.situation == "" {
		details := []string{"The key of a cache is there under the service tokenkeep/NAME."}
		if searched := x.keychains(ctx); searched != "" {
			details = append(details, "This session searches "+searched+".")
		}
		return checkResult{Summary: keyringName(runtime.GOOS) + " answers and is open", Details: details}
	}
	summary, f := x.keyringTrouble(runtime.GOOS, state)
	o := checkResult{Summary: summary}
	if _, normal := x.session.withoutBus(); state.situation == keyring.NoBus && normal && x.Kernel != nil && probe(ctx, x.Kernel).err == nil {
		o.note(f)
	} else {
		o.problem(f)
	}
	return o
}

// keychains names the keychains that this session searches, on macOS; else it returns
// "".
func (x *doctorRun) keychains(ctx context.Context) string {
	k, ok := x.Keyring.(interface {
		Keychains(context.Context) ([]string, error)
	})
	if !ok {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, x.timeout)
	defer cancel()
	paths, _ := k.Keychains(ctx) // what is wrong with the keyring itself is said elsewhere
	for i := range paths {
		paths[i] = quote.Inline(paths[i])
	}
	return strings.Join(paths, ", ")
}

// keyringTrouble says what it means that the keyring of a system does not work. The
// finding's id is the situation's, on every system.
func (x *doctorRun) keyringTrouble(system string, state keyringState) (summary string, f finding) {
	name, secretService := keyringName(system), system != "darwin" && system != "windows"
	f = finding{ID: "keyring." + string(state.situation), What: sentence(cause(state.err)), Remedy: persistence.Remedy(state.err), err: state.err}
	switch state.situation {
	case keyring.NoBus:
		summary = "cannot be reached: no session bus"
		f.What = "There is no D-Bus session bus here. A keyring can only be reached through one."
		r, _ := x.session.withoutBus()
		f.Remedy = cmp.Or(r, f.Remedy)
	case keyring.ForeignBus:
		summary = "cannot be reached: the session bus is another user's"
		f.What = sentence(cause(state.err)) + " Nothing was sent to it."
	case keyring.BusRefused:
		summary = "cannot be reached: the session bus refuses"
	case keyring.NoService:
		summary = name + " is not running"
		if !secretService {
			break
		}
		f.What = "There is a session bus, but no Secret Service on it: no keyring program is installed, or it does not start."
		if commandExists("apt-get") {
			f.Command = "sudo apt-get install gnome-keyring"
		}
	case keyring.NoCollection:
		summary = name + " has no place for items yet"
		if secretService {
			f.What = "The Secret Service answers but has no default collection (keyring) yet. The first login at the screen makes one."
		}
	case keyring.Locked, keyring.Declined, keyring.Unanswered:
		summary = name + " is locked"
		f.What = "The keyring is locked. What it keeps is safe; programs cannot read it until it is unlocked."
		switch {
		case system == "darwin":
			f.Command = "security unlock-keychain"
		case !secretService:
		case x.session.ssh:
			f.Remedy = "It opens when you log in at the screen; a login over SSH does not open it."
		case commandExists("seahorse"):
			f.Command = "seahorse"
		}
	case keyring.NoAnswer:
		summary = name + " does not answer"
		f.What = fmt.Sprintf("The keyring did not answer within %v. It hangs, or it shows a dialog that nobody answers, perhaps on another screen.", x.timeout)
		f.Remedy = "Look for a dialog and answer it. If there is none, end the keyring's program; it starts again when it is needed."
	case keyring.NoSession:
		summary = name + " of this user is not in this session"
		f.What += " What is stored is sound, and can be used in a session that has it."
	case keyring.Denied:
		summary = name + " is denied to this program"
	case keyring.Unsupported:
		summary = "this system has none that is known here"
	case keyring.Failed:
		summary = name + " fails"
	default:
		summary = name + " does not work"
	}
	return summary, f
}

// withoutBus returns what helps in a session that has no bus, and whether such a
// session normally has none.
func (s session) withoutBus() (remedy string, normal bool) {
	const instead = "Give the program a passphrase or a key of its own, if it takes one; else it uses the kernel's keyring where that works."
	switch {
	case s.sudo:
		return "sudo does not pass on the bus of your session. Run the program without sudo.", false
	case s.container:
		return "This is normal in a container. " + instead, true
	case s.unit:
		return "This is normal in a systemd unit. " + instead + " LoadCredential= hands a key to a unit.", true
	case s.wsl:
		return "In WSL, turn systemd on (systemd=true under [boot] in /etc/wsl.conf), install gnome-keyring, and start WSL again.", false
	case s.ssh:
		return "An SSH session has no bus unless you are also logged in at the screen. Log in there, or use a program that can ask for a passphrase.", false
	case s.desktop == "" && !isWindows && !isDarwin:
		return "This is normal on a server without a desktop. " + instead, true
	}
	return "", false
}

func checkKernel(ctx context.Context, x *doctorRun) checkResult {
	state := probe(ctx, x.Kernel)
	if state.err == nil {
		return checkResult{Summary: "works; its keys are gone after a restart, and after three days without use",
			Details: []string{"Programs use it where there is no other keyring and no passphrase."}}
	}
	o := checkResult{Summary: "cannot be used here"}
	o.note(finding{ID: "kernel.unavailable", What: sentence(cause(state.err)) + " It is needed only where there is no other keyring and no passphrase.", Remedy: persistence.Remedy(state.err), err: state.err})
	return o
}

// newID returns the id of a key that nobody keeps.
func newID() string {
	b := make([]byte, 16)
	rand.Read(b)
	return hex.EncodeToString(b)
}

func checkDPAPI(ctx context.Context, x *doctorRun) checkResult {
	ctx, cancel := context.WithTimeout(ctx, x.timeout)
	defer cancel()
	// Makes a key, in memory, and gets it back.
	if _, _, err := encrypted.DPAPI().NewKey(ctx, newID()); err != nil {
		o := checkResult{Summary: "Windows does not protect keys here"}
		o.problem(finding{ID: "dpapi.failed", What: sentence(cause(err)), Remedy: persistence.Remedy(err), err: err})
		return o
	}
	return checkResult{Summary: "Windows protects keys for this user"}
}

func checkPassphrase(ctx context.Context, x *doctorRun) checkResult {
	ctx, cancel := context.WithTimeout(ctx, x.timeout)
	defer cancel()
	// As a program does it, with a made-up passphrase.
	source := encrypted.Passphrase(func(context.Context) ([]byte, error) { return []byte("doctor"), nil }, &encrypted.PassphraseOptions{Cost: x.Cost})
	if _, _, err := source.NewKey(ctx, newID()); err != nil {
		o := checkResult{Summary: "no key could be made from a passphrase"}
		o.problem(finding{ID: "passphrase.failed", What: sentence(cause(err)), Remedy: persistence.Remedy(err), err: err})
		return o
	}
	return checkResult{Summary: "a file can be encrypted with one, by programs that can ask for it",
		Details: []string{fmt.Sprintf("Deriving a key takes %d MiB of memory and the time shown.", x.Cost.Memory>>10)}}
}

func checkPlaintext(_ context.Context, x *doctorRun) checkResult {
	dir, err := x.folder()
	if err == nil {
		err = writable(dir)
	}
	if err != nil {
		o := checkResult{Summary: "no file can be made"}
		o.problem(finding{ID: "plaintext.folder", What: sentence(fmt.Sprintf("the folder %s cannot be written: %v", dir, pathless(err))), Remedy: "See the check of the folder.", err: err})
		return o
	}
	return checkResult{Summary: "possible, by programs whose authors permit it"}
}

// sentence makes a sentence of an error's text.
func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + strings.TrimSuffix(s[1:], ".") + "."
}
