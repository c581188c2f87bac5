package keyring

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/quote"
	"github.com/tokenkeep/tokenkeep/internal/rawcode"
	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/internal/shell"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// keychain is the Keychain of macOS, through Apple's security(1), with the items
// of go-keyring: the same arguments and the same encoding.
//
// It runs the program itself because go-keyring calls it without a context,
// leaves it behind when it waits for a dialog, and misreads a name with a quote.
// How security reads a line, what it prints and which status it ends with is
// taken from Apple's published source (SecurityTool in
// apple-oss-distributions/Security: security.c and keychain_add.c, keychain_find.c,
// keychain_list.c, keychain_show_info.c). Only the status is used: the texts are
// translated, and "password has been deleted." is printed also when it has not been.
//
// It is no [Lister]. dump-keychain, the only subcommand that lists, asks for the
// password of each locked keychain that it comes to, and leaves out, without a word,
// keychains that it cannot open: it never shows that there is no item.
type keychain struct {
	settings
	run  runSecurity
	seen atomic.Pointer[time.Time] // when checkSession last succeeded
}

// runSecurity runs security(1). err is set if the program did not run to its end,
// also because ctx ended.
type runSecurity func(ctx context.Context, stdin string, args ...string) (stdout string, status int, err error)

// go-keyring's encodings. Since version 0.2.5 it writes the first one.
const (
	base64Prefix = "go-keyring-base64:"
	hexPrefix    = "go-keyring-encoded:"
)

func (k *keychain) Get(ctx context.Context, service, user string) (string, error) {
	out, err := k.call(ctx, "", "find-generic-password", "-s", service, "-a", user, "-w")
	if err != nil {
		return "", err
	}
	text, ended := strings.CutSuffix(out, "\n")
	if !ended {
		return "", newTrouble(Failed, "/usr/bin/security has not printed the item that it has found", "Unlock the login keychain and try again.")
	}
	var decoded []byte
	if code, ok := strings.CutPrefix(text, base64Prefix); ok {
		decoded, err = base64.StdEncoding.DecodeString(code)
	} else if code, ok := strings.CutPrefix(text, hexPrefix); ok {
		decoded, err = hex.DecodeString(code)
	} else {
		return text, nil // written by another program
	}
	if err != nil {
		// Not shown: these errors quote what they could not decode.
		return "", fmt.Errorf("%w: the item cannot be decoded", persistence.ErrCorrupt)
	}
	return string(decoded), nil
}

func (k *keychain) Set(ctx context.Context, service, user, secret string) error {
	// Where there is no default keychain, macOS shows a dialog with a button that
	// wipes the login keychain.
	if err := k.checkSession(ctx); err != nil {
		return err
	}
	// By standard input: arguments can be seen by every user of the machine. -U
	// changes the item if it is there.
	_, err := k.call(ctx, addCommand(service, user, base64.StdEncoding.EncodeToString([]byte(secret))), "-i")
	return err
}

func (k *keychain) Delete(ctx context.Context, service, user string) error {
	_, err := k.call(ctx, "", "delete-generic-password", "-s", service, "-a", user)
	return err
}

// ItemLimit returns about 3,000 less three quarters of the names. The line that
// is sent to /usr/bin/security holds names and secret, and is cut off at 4,095
// bytes.
func (*keychain) ItemLimit(service, user string) int {
	// A few bytes are left to spare; the rest holds the secret in base64.
	left := 4080 - len(addCommand(service, user, ""))
	return max(left/4*3, 1)
}

func addCommand(service, user, encoded string) string {
	return "add-generic-password -U -s " + quoteWord(service) + " -a " + quoteWord(user) + " -w " + base64Prefix + encoded + "\n"
}

// quoteWord quotes a word of a line for "security -i": between quotes only the
// same quote and the backslash are special, and a backslash escapes them.
func quoteWord(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// call runs a subcommand that needs one item or makes one.
func (k *keychain) call(caller context.Context, stdin string, args ...string) (string, error) {
	out, status, err := k.ask(caller, stdin, args...)
	switch {
	case err != nil:
		return "", err
	case status == 0:
		return out, nil
	case status == statusNotFound:
		if err := k.checkSession(caller); err != nil {
			return "", withStatus(subcommand(stdin, args), status, err)
		}
		return "", persistence.ErrNotFound
	}
	return "", withStatus(subcommand(stdin, args), status, classifyStatus(status))
}

// subcommand returns the word of the subcommand that is run.
func subcommand(stdin string, args []string) string {
	if args[0] == "-i" { // it is in the first line
		args = strings.Fields(stdin)
	}
	return args[0]
}

// withStatus attaches to err how a subcommand has ended, unless well.
func withStatus(subcommand string, status int, err error) error {
	if status == 0 {
		return err
	}
	return rawcode.With(fmt.Sprintf("security %s: exit status %d", subcommand, status), err)
}

// ask runs a subcommand and returns what it has printed and the status with which it
// ended.
func (k *keychain) ask(caller context.Context, stdin string, args ...string) (out string, status int, err error) {
	if err := caller.Err(); err != nil {
		return "", 0, err
	}
	timeout := k.callTimeout(caller)
	ctx, cancel := context.WithTimeout(caller, timeout)
	defer cancel()
	out, status, err = k.run(ctx, stdin, args...)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return out, status, nil
	case caller.Err() != nil:
		return "", 0, fmt.Errorf("waiting for the keyring: %w", caller.Err())
	case ctx.Err() != nil:
		// It says nothing of its dialogs, and nothing else takes it so long.
		return "", 0, remedy.With("Answer the question that macOS shows, or unlock the login keychain, and try again.",
			&trouble{Unanswered, fmt.Sprintf("the keychain did not answer within %v and may have asked its user something", timeout), context.DeadlineExceeded})
	case errors.Is(err, fs.ErrNotExist):
		// A Mac has a keyring in any case, so plaintext is no answer to it.
		return "", 0, newTrouble(Denied, "/usr/bin/security is missing", "See whether a sandbox hides it, or restore macOS's own program.")
	case errors.As(err, &exit): // by a signal
		return "", 0, rawcode.With("security "+subcommand(stdin, args)+": "+exit.Error(),
			newTrouble(Declined, "/usr/bin/security was ended while it may have asked its user something", "Try again."))
	}
	return "", 0, rawcode.Copy(err, "security "+subcommand(stdin, args),
		newTrouble(Denied, "/usr/bin/security did not run to its end", "See whether a sandbox or a policy forbids it."))
}

// systemKeychain is the only keychain of the sessions that belong to no user's
// login.
const systemKeychain = "/Library/Keychains/System.keychain"

// sessionLasts is how long a session that was seen is not looked at again.
const sessionLasts = 10 * time.Second

// checkSession returns an error unless this session has the user's keychains. In a
// session without them, security answers "not found" to everything: a cron job or a
// launchd daemon searches the System keychain, also as an ordinary user, and with
// another $HOME there may be no keychain at all. Only the question for a locked default
// keychain makes macOS ask for its password.
func (k *keychain) checkSession(ctx context.Context) error {
	if at := k.seen.Load(); at != nil && time.Since(*at) < sessionLasts {
		return nil
	}
	searched, searchStatus, err := k.keychains(ctx, "list-keychains")
	if err != nil {
		return err
	}
	defaults, defaultStatus, err := k.keychains(ctx, "default-keychain")
	if err != nil {
		return err
	}
	refuse := func(what string) error {
		err := newTrouble(NoSession, what, "Run the program in a login session of its user with the usual $HOME: as a launchd agent of the type Aqua, "+
			"and not as a launchd daemon or a cron job. Or use a passphrase.")
		return withStatus("list-keychains", searchStatus, withStatus("default-keychain", defaultStatus, err))
	}
	switch {
	case len(searched) == 0:
		return refuse("this session has no keychain")
	case !slices.ContainsFunc(searched, func(path string) bool { return path != systemKeychain }):
		return refuse("this session has only the System keychain, not its user's")
	case len(defaults) != 1:
		return refuse("this session has no default keychain, only " + listed(searched))
	case defaults[0] == systemKeychain:
		return refuse("the default keychain of this session is the System keychain, not its user's")
	case !slices.Contains(searched, defaults[0]):
		return refuse("this session does not search its default keychain " + quote.Inline(defaults[0]) + ", only " + listed(searched))
	}
	if isMissing(defaults[0]) {
		return refuse("the default keychain of this session, " + quote.Inline(defaults[0]) + ", does not exist")
	}
	// What else is wrong with it, the call itself will say.
	if err := k.checkOpen(ctx, defaults[0]); err != nil && SituationOf(err) != Failed {
		return err
	}
	now := time.Now()
	k.seen.Store(&now)
	return nil
}

// place returns "": what a session searches can be asked at any time.
func (*keychain) place() string { return "" }

func (k *keychain) seesAll(ctx context.Context, _ bool) (again bool, err error) {
	return true, k.checkKeychains(ctx)
}

// checkKeychains returns an error unless this session searches all keychains that may
// have an item of its user, and all of them are open. Scripts that sign programs often
// replace the login keychain in the search list with one of their own; and a keychain on
// a disk that is not mounted is not searched.
func (k *keychain) checkKeychains(ctx context.Context) error {
	searched, searchStatus, err := k.keychains(ctx, "list-keychains")
	if err != nil {
		return err
	}
	login, loginStatus, err := k.keychains(ctx, "login-keychain")
	if err != nil {
		return err
	}
	refuse := func(what string) error {
		err := newTrouble(NoSession, what+": the key may be there", "Add it in Keychain Access (File, Add Keychain), mount its disk if it is on another one, and try again.")
		return withStatus("list-keychains", searchStatus, withStatus("login-keychain", loginStatus, err))
	}
	if len(login) == 0 { // there is none, or it cannot be opened
		login = loginFiles()
	}
	for _, path := range login {
		if !slices.Contains(searched, path) && !isMissing(path) {
			return refuse("this session does not search the login keychain " + quote.Inline(path) + ", only " + listed(searched))
		}
	}
	for _, path := range searched {
		if path == systemKeychain || !filepath.IsAbs(path) { // a smart card has a name and no path
			continue
		}
		if isMissing(path) {
			return refuse("the keychain " + quote.Inline(path) + " of this session does not exist")
		}
		if err := k.checkOpen(ctx, path); err != nil {
			return err
		}
	}
	return nil
}

// loginFiles returns where macOS keeps the login keychain, in the form of today and in
// that of before macOS 10.12.
func loginFiles() []string {
	home := os.Getenv("HOME")
	if home == "" { // then security asks the user database
		if u, err := user.Current(); err == nil {
			home = u.HomeDir
		}
	}
	dir := filepath.Join(home, "Library", "Keychains")
	return []string{filepath.Join(dir, "login.keychain-db"), filepath.Join(dir, "login.keychain")}
}

// checkOpen returns an error unless the keychain is unlocked and can be read. Of one
// that is locked security gives no item, and needs its password to say more; where it
// may not ask, or its user declines, it says "not found". One that it cannot open it
// leaves out without a word. (It checks each item that it finds against the item's
// access list, which is encrypted: ItemImpl::checkIntegrity in Item.cpp, and
// KCCursorImpl::next.)
func (k *keychain) checkOpen(ctx context.Context, path string) error {
	_, status, err := k.ask(ctx, "", "show-keychain-info", path)
	if err != nil || status == 0 {
		return err
	}
	name := "the keychain " + quote.Inline(path)
	trouble := func(s Situation, what, help string) error {
		return withStatus("show-keychain-info", status, newTrouble(s, what, help))
	}
	switch SituationOf(classifyStatus(status)) {
	case Locked:
		return trouble(Locked, name+" is locked", "Unlock it with: security unlock-keychain "+shell.Quote(path)+
			" (or log in at the screen), and try again. A launchd agent needs the session type Aqua.")
	case Declined:
		return trouble(Declined, name+" is locked, and the user declined to unlock it", "Unlock it when asked.")
	}
	return trouble(Failed, fmt.Sprintf("%s cannot be opened (/usr/bin/security ended with status %d)", name, status),
		"See whether a sandbox or a policy keeps the program from it. If Keychain Access cannot open it either, restore it from a backup or remove it there.")
}

func isMissing(path string) bool {
	_, err := os.Stat(path)
	return path != systemKeychain && errors.Is(err, fs.ErrNotExist)
}

func listed(paths []string) string {
	var quoted []string
	for _, path := range paths {
		quoted = append(quoted, quote.Inline(path))
	}
	return strings.Join(quoted, ", ")
}

// keychains returns the paths that a subcommand prints, and the status with which it
// ended. There are none if that is not 0.
func (k *keychain) keychains(ctx context.Context, subcommand string) (paths []string, status int, err error) {
	out, status, err := k.ask(ctx, "", subcommand)
	switch {
	case SituationOf(err) == Unanswered: // it asks nobody
		return nil, 0, noAnswer("security "+subcommand, k.callTimeout(ctx))
	case err != nil:
		return nil, 0, err
	case status != 0:
		return nil, status, nil
	}
	for line := range strings.Lines(out) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		path := parsePath(strings.TrimSuffix(strings.TrimLeft(line, " "), "\n"))
		if path == "" {
			// Programs that remove a keychain of their own can leave an entry
			// without a path, which makes searches fail.
			return nil, 0, newTrouble(NoSession, "the list of this session's keychains has an entry that is no path",
				"Remove it in Keychain Access, or list the keychains anew with: security list-keychains -d user -s ~/Library/Keychains/login.keychain-db")
		}
		paths = append(paths, path)
	}
	return paths, 0, nil
}

// parsePath returns the path that security prints in quotes, as it is, or "".
func parsePath(printed string) string {
	if len(printed) < 2 || printed[0] != '"' || printed[len(printed)-1] != '"' {
		return ""
	}
	return printed[1 : len(printed)-1]
}

// execSecurity runs the program at path, and kills it when its context ends. It is
// in a process group of its own: Ctrl-C in a terminal does not end it before this
// program has decided to.
func execSecurity(path string) runSecurity {
	return func(ctx context.Context, stdin string, args ...string) (string, int, error) {
		var out bytes.Buffer
		cmd := exec.CommandContext(ctx, path, args...)
		setGroup(cmd)
		cmd.Stdin = strings.NewReader(stdin)
		cmd.Stdout = &out
		cmd.WaitDelay = time.Second // should a child of its own hold the pipe
		err := cmd.Run()
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.Exited() {
			return "", exit.ExitCode(), nil
		}
		return out.String(), 0, err
	}
}

// statusNotFound is errSecItemNotFound, -25300. security ends with it whatever kept
// it from finding the item; see checkSession.
const statusNotFound = 44

// classifyStatus maps the other statuses of security(1) except 0: the low byte of the
// OSStatus that it met, whose numbers are in Apple's SecBase.h,
// Authorization.h and MacErrors.h.
func classifyStatus(status int) error {
	unlock := "Unlock the login keychain (security unlock-keychain, or log in at the screen) and try again. A launchd agent needs the session type Aqua."
	switch status {
	case 36, // errSecInteractionNotAllowed, -25308
		24,       // errSecInDarkWake, -25320
		29,       // errSecInteractionRequired, -25315
		152, 153: // errAuthorizationInternal, -60008, and errAuthorizationInteractionNotAllowed, -60007
		return newTrouble(Locked, "the keychain may not ask, as in an SSH session", unlock)
	case 51, // errSecAuthFailed, -25293
		155: // errAuthorizationDenied, -60005
		return newTrouble(Locked, "the keychain refused access to the item", unlock)
	case 195, 52: // wrPermErr, -61, and errSecReadOnly, -25292
		return newTrouble(Locked, "the keychain may only be read here", unlock)
	case 128, 154: // userCanceledErr, -128, and errAuthorizationCanceled, -60006
		return newTrouble(Declined, "the user declined", "Allow the access when asked.")
	case 37, 50, 53: // errSecNoDefaultKeychain, -25307, errSecNoSuchKeychain, -25294, and errSecNotAvailable, -25291
		return newTrouble(NoCollection, "there is no keychain", "Create a login keychain with Keychain Access.")
	case 45: // errSecDuplicateItem, -25299
		return remedy.Errorf("In Keychain Access, delete the item, or allow security to change it.",
			"the item is there and cannot be changed")
	}
	return fmt.Errorf("/usr/bin/security ended with status %d", status)
}
