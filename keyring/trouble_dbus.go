//go:build linux || freebsd || netbsd || openbsd

package keyring

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"

	"github.com/tokenkeep/tokenkeep/internal/rawcode"
	"github.com/tokenkeep/tokenkeep/persistence"
)

const needUnlock = "Unlock the keyring (log in at the screen, or use Seahorse or the keyring's own program) and try again."

// classify gives an error its class and situation. Of an error from the bus or
// the service only the name is passed on: its text is theirs, and might quote a
// secret.
func (c *client) classify(err error) error {
	if err == nil || SituationOf(err) != "" || errors.Is(err, persistence.ErrNotFound) {
		return err
	}
	classified := c.classOf(err)
	if e := (dbus.Error{}); errors.As(err, &e) {
		return rawcode.With(fmt.Sprintf("D-Bus: %q", e.Name[:min(len(e.Name), 255)]), classified) // 255 is what D-Bus permits
	}
	return rawcode.Copy(err, "D-Bus", classified)
}

func (c *client) classOf(err error) error {
	switch {
	case c.caller.Err() != nil:
		return fmt.Errorf("waiting for the Secret Service: %w", c.caller.Err())
	case c.ctx.Err() != nil:
		return noAnswer("the Secret Service or the session bus", c.timeout)
	case isError(err, "org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner"):
		if hidesNames() {
			return newTrouble(BusRefused, "the sandbox of this program shows it no Secret Service", allowAdvice())
		}
		return newTrouble(NoService, "the session bus has no Secret Service", serviceAdvice())
	case isError(err, "org.freedesktop.DBus.Error.AccessDenied"):
		return newTrouble(BusRefused, "the D-Bus session bus does not let this program use the Secret Service", allowAdvice())
	case isError(err, "org.freedesktop.Secret.Error.IsLocked"):
		return newTrouble(Locked, "it was locked during the call", needUnlock)
	case isError(err, "org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.Disconnected"),
		errors.Is(err, dbus.ErrClosed), isNetError(err):
		return newTrouble(Failed, "the Secret Service or the session bus ended during the call", serviceAdvice())
	}
	var e dbus.Error
	if errors.As(err, &e) {
		if strings.HasPrefix(e.Name, "org.freedesktop.DBus.Error.Spawn.") || e.Name == "org.freedesktop.DBus.Error.TimedOut" {
			return newTrouble(NoService, fmt.Sprintf("the Secret Service cannot be started (%q)", e.Name), serviceAdvice())
		}
		return newTrouble(Failed, fmt.Sprintf("the Secret Service failed with %q", e.Name), serviceAdvice())
	}
	return newTrouble(Failed, "the Secret Service gave an answer that does not follow its specification", serviceAdvice())
}

// isGone reports whether a call failed because its object no longer exists.
func isGone(err error) bool {
	return isError(err, "org.freedesktop.Secret.Error.NoSuchObject", "org.freedesktop.DBus.Error.UnknownObject",
		"org.freedesktop.DBus.Error.UnknownMethod", "org.freedesktop.DBus.Error.UnknownInterface")
}

func isNetError(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// isError reports whether err is a D-Bus error with one of the names.
func isError(err error, names ...string) bool {
	var e dbus.Error
	return errors.As(err, &e) && slices.Contains(names, e.Name)
}
