package keyring

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// A Situation is why a keyring did not do what it was asked, in more detail than
// the error classes of package persistence. [SituationOf] finds it in an error.
//
// A Situation is itself an error of the class that its comment names, so a
// [Keyring] of your own can return or wrap one. The words stay the same in all
// later versions 1; new ones may be added.
type Situation string

// Situations that are also persistence.ErrUnavailable.
const (
	// Unsupported: this package knows no such keyring for this operating
	// system. The error is also errors.ErrUnsupported.
	Unsupported Situation = "unsupported"
	// NoBus: there is no D-Bus session bus, or none answers at its address.
	NoBus Situation = "no-bus"
	// ForeignBus: another user listens at the address of the session bus.
	// Nothing was sent there.
	ForeignBus Situation = "foreign-bus"
	// BusRefused: the session bus refused the connection or the call, or shows
	// no keyring, most often because of a sandbox.
	BusRefused Situation = "bus-refused"
	// NoService: no keyring program is installed, or it does not start.
	NoService Situation = "no-service"
	// NoCollection: the keyring has no default collection (on macOS: no
	// keychain) yet.
	NoCollection Situation = "no-collection"
	// NoAnswer: the keyring did not answer within the timeout (see
	// [WithTimeout]). The error is also context.DeadlineExceeded. A call that
	// ends with its own context has no Situation: it says nothing about the
	// keyring.
	NoAnswer Situation = "no-answer"
	// NoSession: this session does not have its user's keyring, as a launchd
	// daemon, a cron job or a service. What is stored is in another session.
	NoSession Situation = "no-session"
	// Denied: the operating system does not let this program use the keyring.
	Denied Situation = "denied"
	// Failed: the keyring ended during the call, reported an error of its own
	// or gave an answer that makes no sense.
	Failed Situation = "failed"
)

// Situations that are also persistence.ErrKeyringLocked.
const (
	// Locked: the keyring is locked, and nobody may be asked to unlock it (see
	// [WithPrompt]), or unlocking failed.
	Locked Situation = "locked"
	// Declined: the user was asked and said no.
	Declined Situation = "declined"
	// Unanswered: the user was asked and did not answer before the context
	// ended. The error is also the context's error.
	Unanswered Situation = "unanswered"
)

// A situation that is also persistence.ErrTooLarge.
const (
	// Full: the keyring has no room left for this user's items.
	Full Situation = "full"
)

// situations are the class of each Situation and its text, if the class does not
// say all.
var situations = map[Situation]struct {
	class error
	text  string
}{
	Unsupported:  {persistence.ErrUnavailable, "this system has no such keyring"},
	NoBus:        {persistence.ErrUnavailable, "there is no D-Bus session bus"},
	ForeignBus:   {persistence.ErrUnavailable, "the D-Bus session bus is another user's"},
	BusRefused:   {persistence.ErrUnavailable, "the D-Bus session bus refused the call"},
	NoService:    {persistence.ErrUnavailable, "no keyring program is running"},
	NoCollection: {persistence.ErrUnavailable, "the keyring has no default collection"},
	NoAnswer:     {persistence.ErrUnavailable, "the keyring did not answer in time"},
	NoSession:    {persistence.ErrUnavailable, "this session does not have its user's keyring"},
	Denied:       {persistence.ErrUnavailable, "the system denies access to the keyring"},
	Failed:       {persistence.ErrUnavailable, "the keyring failed"},
	Locked:       {persistence.ErrKeyringLocked, ""},
	Declined:     {persistence.ErrKeyringLocked, "its user declined"},
	Unanswered:   {persistence.ErrKeyringLocked, "its user did not answer in time"},
	Full:         {persistence.ErrTooLarge, "the keyring is full"},
}

// Error returns the class and what the situation is.
func (s Situation) Error() string { return s.say(situations[s].text) }

// Unwrap returns the class, so that errors.Is finds it.
func (s Situation) Unwrap() error { return situations[s].class }

func (s Situation) say(what string) string {
	switch class := situations[s].class; {
	case class == nil: // not one of ours
		return string(s)
	case what == "":
		return class.Error()
	default:
		return class.Error() + ": " + what
	}
}

// SituationOf returns the Situation in err, or "" if there is none: for nil, for
// an item that is not there or is too large, and for a call that its own context
// ended.
func SituationOf(err error) Situation {
	var s Situation
	errors.As(err, &s)
	return s
}

// trouble is a Situation with its details.
type trouble struct {
	Situation
	what string
	also error // a standard error that it also is, or nil
}

func (t *trouble) Error() string { return t.say(t.what) }

func (t *trouble) Unwrap() []error {
	if t.also == nil {
		return []error{t.Situation}
	}
	return []error{t.Situation, t.also}
}

// newTrouble returns an error of situation s, which what describes.
func newTrouble(s Situation, what, help string) error {
	return remedy.With(help, &trouble{s, what, nil})
}

// noAnswer is the error of a keyring that takes longer than it may.
func noAnswer(who string, after time.Duration) error {
	return remedy.With("See whether the keyring's program hangs or shows a dialog, and restart it if necessary.",
		&trouble{NoAnswer, fmt.Sprintf("%s did not answer within %v", who, after), context.DeadlineExceeded})
}

// unsupported is the error of a keyring that this platform does not have.
func unsupported(what string) error {
	return &trouble{Unsupported, what, errors.ErrUnsupported}
}

const keepInFile = "Keep the data in an encrypted file, and only its key in the keyring."

func tooLarge(size, limit int) error {
	return remedy.Errorf(keepInFile, "%w: %d bytes; this keyring takes %d for an item of this name", persistence.ErrTooLarge, size, limit)
}

// wrap makes err the *persistence.Error of an operation on an item. If err is
// such an error already, its cause and remedy are kept and its place is not.
func wrap(op, service, user string, err error) error {
	if err == nil {
		return nil
	}
	return &persistence.Error{Op: op, Backend: "keyring", Location: location(service, user),
		Err: persistence.Cause(err), Remedy: persistence.Remedy(err)}
}

// annotate adds to an error what it means for the stored value.
func annotate(err error, text string) error {
	return remedy.Errorf(persistence.Remedy(err), "%w (%s)", persistence.Cause(err), text)
}

func location(service, user string) string { return service + "/" + user }
