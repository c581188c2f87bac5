//go:build linux || freebsd || netbsd || openbsd

package keyring

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/tokenkeep/tokenkeep/internal/rawcode"
)

// A client is one connection to the session bus, for one operation. Nothing of
// it outlives the operation: the service ends the sessions and prompts of a
// client that disconnects.
type client struct {
	*secretService
	ctx    context.Context // the caller's, with the timeout added
	caller context.Context
	timer  *time.Timer // ends ctx
	socket *net.UnixConn
	bus    *dbus.Conn

	collections []dbus.ObjectPath
	keepWrites  func() bool // undoes endWrites
}

var errTimeout = errors.New("timeout")

// do runs fn with a connection and classifies its error.
func (s *secretService) do(caller context.Context, fn func(*client) error) error {
	ctx, cancel := context.WithCancelCause(caller)
	defer cancel(nil)
	timer := time.AfterFunc(s.timeout, func() { cancel(errTimeout) })
	defer timer.Stop()
	c := &client{secretService: s, ctx: ctx, caller: caller, timer: timer}
	err := c.connect()
	if err == nil {
		if err = c.greet(); err == nil {
			err = fn(c)
		}
		c.close()
	}
	return c.classify(err)
}

// connect connects to the bus. godbus takes no context there: only closing the
// socket under it ends a wait.
func (c *client) connect() error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	addresses, err := busAddresses()
	if err != nil {
		return err
	}
	if err := c.dial(addresses); err != nil {
		return err
	}
	stop := context.AfterFunc(c.ctx, func() { c.socket.Close() })
	c.bus, err = dbus.ConnectUnix(c.socket)
	if !stop() && err == nil {
		c.bus.Close()
		err = c.ctx.Err()
	}
	if err != nil {
		c.socket.Close()
		if c.ctx.Err() != nil {
			return c.ctx.Err()
		}
		return rawcode.Copy(err, "D-Bus", newTrouble(BusRefused, "the D-Bus session bus refused the connection", busAdvice()))
	}
	// From here on, waiting for a reply ends with the context. A write does not:
	// the bus may have stopped reading.
	c.keepWrites = c.endWrites()
	return nil
}

// greet makes a connection's first call, and waits for it. GNOME Keyring (42.1, and
// by reports 50) now and then carries a call out before it has noted whose it is,
// if the call comes just as it learns of the connection: about once in a thousand
// connections. OpenSession or a search then end the whole keyring. To list the
// collections needs no caller, and has to be done anyway.
func (c *client) greet() error {
	return c.property(servicePath, serviceIface, "Collections", &c.collections)
}

// dial connects c.socket to the first address where a bus of this user or of
// root listens. If there is none, an error about a bus of another user counts
// more than that nobody listens at an address.
func (c *client) dial(addresses []string) error {
	var unreachable, foreign error
	for _, address := range addresses {
		conn, err := new(net.Dialer).DialContext(c.ctx, "unix", address)
		if err != nil {
			unreachable = err
			continue
		}
		c.socket = conn.(*net.UnixConn)
		if foreign = checkPeer(c.socket); foreign == nil {
			return nil
		}
		c.socket.Close()
	}
	if foreign != nil {
		return foreign
	}
	if err := c.ctx.Err(); err != nil {
		return err
	}
	var timeout net.Error
	if errors.As(unreachable, &timeout) && timeout.Timeout() {
		// A bus that does not even accept. The dialer's clock may be a moment
		// ahead of the context's.
		<-c.ctx.Done()
		return c.ctx.Err()
	}
	if errors.Is(unreachable, fs.ErrPermission) {
		return rawcode.Copy(unreachable, "connect", newTrouble(BusRefused, "this program may not connect to the D-Bus session bus", allowAdvice()))
	}
	return rawcode.Copy(unreachable, "connect", newTrouble(NoBus, fmt.Sprintf("the D-Bus session bus cannot be reached (%v)", withoutAddress(unreachable)), busAdvice()))
}

// checkPeer returns an error unless this user or root listens at the other end
// of a socket. Anybody may listen on an abstract socket, or in a shared folder,
// when a session has ended, and a bus of another user would be given new keys
// and could say that old ones are gone. So it is called before anything is sent.
var checkPeer = func(socket *net.UnixConn) error { // a variable for the tests' control
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var uid int
	var credErr error
	if err := raw.Control(func(fd uintptr) { uid, credErr = peerUser(int(fd)) }); err != nil {
		return err
	}
	const help = "Run the program in a session of its own user, without sudo or su, or set DBUS_SESSION_BUS_ADDRESS to that user's bus."
	switch {
	case credErr != nil:
		return newTrouble(ForeignBus, fmt.Sprintf("whose the D-Bus session bus is cannot be found out (%v)", credErr), help)
	case uid != os.Geteuid() && uid != 0:
		return newTrouble(ForeignBus, fmt.Sprintf("the D-Bus session bus is run by another user (uid %d)", uid), help)
	}
	return nil
}

// endWrites makes every write fail once the context has ended, unless the
// returned function is called before.
func (c *client) endWrites() (keep func() bool) {
	return context.AfterFunc(c.ctx, func() { c.socket.SetWriteDeadline(time.Unix(1, 0)) })
}

func (c *client) close() {
	// A bus that does not read must not keep Close waiting for a writer.
	c.socket.SetWriteDeadline(time.Unix(1, 0))
	c.bus.Close()
}

// withoutAddress returns the cause of a failed dial without the address, which
// the environment named.
func withoutAddress(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

var runUser = "/run/user" // tests change it

// busAddresses returns the sockets that the session bus may be listening on.
// It never starts a bus.
func busAddresses() ([]string, error) {
	env := os.Getenv("DBUS_SESSION_BUS_ADDRESS")
	if env == "" || env == "autolaunch:" {
		// Where systemd runs the bus, it is here. An SSH session or a cron job
		// of a user who is logged in finds it, too.
		for _, dir := range []string{os.Getenv("XDG_RUNTIME_DIR"), filepath.Join(runUser, strconv.Itoa(os.Getuid()))} {
			socket := filepath.Join(dir, "bus")
			if filepath.IsAbs(dir) && isOwnSocket(socket) {
				return []string{socket}, nil
			}
		}
		return nil, newTrouble(NoBus, "there is no D-Bus session bus: DBUS_SESSION_BUS_ADDRESS is not set and the user's runtime folder has no bus", busAdvice())
	}
	var found []string
	for address := range strings.SplitSeq(env, ";") {
		transport, list, _ := strings.Cut(address, ":")
		if transport != "unix" {
			continue
		}
		for pair := range strings.SplitSeq(list, ",") {
			key, value, _ := strings.Cut(pair, "=")
			value, err := dbus.UnescapeBusAddressValue(value)
			switch {
			case err != nil:
			case key == "path":
				found = append(found, value)
			case key == "abstract":
				found = append(found, "@"+value)
			case key == "runtime" && value == "yes":
				found = append(found, filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "bus"))
			}
		}
	}
	if found == nil {
		return nil, newTrouble(NoBus, "DBUS_SESSION_BUS_ADDRESS names no unix socket", busAdvice())
	}
	return found, nil
}

func isOwnSocket(path string) bool {
	info, err := os.Stat(path)
	if err != nil || info.Mode().Type() != fs.ModeSocket {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Getuid()
}
