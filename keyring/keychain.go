package keyring

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// keychain is the Keychain of macOS, through Apple's security(1), with the items
// of go-keyring: the same arguments and the same encoding.
//
// It runs the program itself because go-keyring calls it without a context,
// leaves it behind when it waits for a dialog, and misreads a name with a quote.
// How security reads a line, what it prints and which status it ends with is
// taken from Apple's published source (SecurityTool in
// apple-oss-distributions/Security: security.c, keychain_add.c,
// keychain_find.c). Only the status is used: the texts are translated, and
// "password has been deleted." is printed also when it has not been.
type keychain struct {
	settings
	run runSecurity
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
	text := strings.TrimSuffix(out, "\n")
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
	// By standard input: arguments can be seen by every user of the machine.
	//
	// -U changes an item only if its label is also the given one, which by
	// default is the service. With another label, comment or kind, go-keyring
	// would no longer find the item.
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

func (k *keychain) call(caller context.Context, stdin string, args ...string) (string, error) {
	if err := caller.Err(); err != nil {
		return "", err
	}
	timeout := k.callTimeout(caller)
	ctx, cancel := context.WithTimeout(caller, timeout)
	defer cancel()
	out, status, err := k.run(ctx, stdin, args...)
	switch {
	case err == nil && status == 0:
		return out, nil
	case err == nil:
		return "", classifyStatus(status)
	case caller.Err() != nil:
		return "", fmt.Errorf("waiting for the keyring: %w", caller.Err())
	case ctx.Err() != nil:
		return "", noAnswer("the keyring", timeout)
	case errors.Is(err, fs.ErrNotExist):
		return "", newTrouble(NoService, "/usr/bin/security is missing", "Restore macOS's own security program.")
	}
	return "", newTrouble(Denied, "/usr/bin/security did not run to its end", "See whether a sandbox or a policy forbids it.")
}

// execSecurity runs the program at path, and kills it when its context ends.
func execSecurity(path string) runSecurity {
	return func(ctx context.Context, stdin string, args ...string) (string, int, error) {
		var out bytes.Buffer
		cmd := exec.CommandContext(ctx, path, args...)
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

// classifyStatus maps a status of security(1) other than 0: the low byte of the
// OSStatus that it met, whose numbers are in Apple's SecBase.h,
// Authorization.h and MacErrors.h.
func classifyStatus(status int) error {
	unlock := "Unlock the login keychain (security unlock-keychain, or log in at the screen) and try again."
	switch status {
	case 44: // errSecItemNotFound, -25300
		return persistence.ErrNotFound
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
	case 45: // errSecDuplicateItem, -25299: what -U could not change it then could not add
		return remedy.Errorf("In Keychain Access, delete the item, or give it its service as name and allow security to change it.",
			"the item is there and cannot be changed")
	}
	return fmt.Errorf("/usr/bin/security ended with status %d", status)
}
