//go:build linux || freebsd || netbsd || openbsd

package keyring

import (
	"cmp"
	"context"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/internal/within"
)

// A prompt is a question of the service to its user.
type prompt struct {
	*client
	path    dbus.ObjectPath
	signals chan *dbus.Signal
}

// show shows a prompt and waits for the answer.
func (c *client) show(path dbus.ObjectPath) error {
	p := &prompt{c, path, make(chan *dbus.Signal, 16)}
	c.bus.Signal(p.signals)
	if err := c.bus.AddMatchSignalContext(c.ctx, dbus.WithMatchObjectPath(path), dbus.WithMatchInterface(promptIface)); err != nil {
		return err
	}
	// A service that dies never completes its prompt.
	if err := c.bus.AddMatchSignalContext(c.ctx, dbus.WithMatchSender("org.freedesktop.DBus"),
		dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, busName)); err != nil {
		return err
	}
	c.keepWrites() // for withdraw; nothing large is written meanwhile
	defer func() { c.keepWrites = c.endWrites() }()
	if err := c.call(path, promptIface+".Prompt", "").Err; err != nil {
		if c.caller.Err() != nil {
			return p.withdraw()
		}
		return err
	}
	return p.wait()
}

// wait waits for the user's answer. If the program allows prompts, it waits
// until the caller's context ends, or promptTimeout if that has no deadline:
// the time that a person takes does not count as the service's. Else it waits
// as long as any call may take.
func (p *prompt) wait() error {
	ctx := p.ctx
	if p.mayPrompt {
		p.timer.Stop()
		defer p.timer.Reset(p.timeout)
		limited, cancel := within.Deadline(p.caller, promptTimeout)
		defer cancel()
		ctx = limited
	}
	for {
		select {
		case signal, ok := <-p.signals:
			switch {
			case !ok || signal.Name == "org.freedesktop.DBus.NameOwnerChanged":
				return newTrouble(Failed, "the Secret Service ended while it asked its user", serviceAdvice())
			case signal.Path != p.path || signal.Name != promptIface+".Completed" || len(signal.Body) == 0:
			case signal.Body[0] == true:
				return newTrouble(Declined, "its user closed the question without an answer", "Answer the keyring's question.")
			default:
				return nil
			}
		case <-ctx.Done():
			return p.withdraw()
		}
	}
}

// withdraw takes the question off the screen and returns the error of one that
// was not answered. The context has ended: the request is sent if that is
// possible at once, and no reply is awaited.
func (p *prompt) withdraw() error {
	p.socket.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	p.bus.Object(busName, p.path).Go(promptIface+".Dismiss", dbus.FlagNoReplyExpected, nil)
	return remedy.With(needUnlock, &trouble{Unanswered, "its user did not answer in time",
		cmp.Or(p.caller.Err(), context.DeadlineExceeded)})
}
