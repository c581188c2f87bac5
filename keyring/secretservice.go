//go:build linux || freebsd || netbsd || openbsd

package keyring

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// secretService is the keyring of Linux and the BSDs, by freedesktop.org's
// Secret Service API 0.2 (https://specifications.freedesktop.org/secret-service-spec/).
//
// go-keyring speaks it too, but blocks for ever on a prompt, a stopped service
// or a deaf bus, may start a bus of its own, and keeps a connection open. So
// this is our own client. The items are those of go-keyring: the same
// collection, attributes, label and content type.
type secretService struct{ systemOptions }

const (
	busName     = "org.freedesktop.secrets"
	servicePath = "/org/freedesktop/secrets"
	loginPath   = "/org/freedesktop/secrets/collection/login"
	noPath      = dbus.ObjectPath("/") // how the API says "none"

	serviceIface    = "org.freedesktop.Secret.Service"
	collectionIface = "org.freedesktop.Secret.Collection"
	itemIface       = "org.freedesktop.Secret.Item"
	promptIface     = "org.freedesktop.Secret.Prompt"
)

const (
	needBus = "Run the program in a desktop session, or start one by dbus-run-session, " +
		"and see that DBUS_SESSION_BUS_ADDRESS names its bus."
	needService = "Install and start a keyring program: gnome-keyring, KWallet 5.97 or later, or KeePassXC with its Secret Service turned on."
	needUnlock  = "Unlock the keyring (by logging in at the screen, or with Seahorse or the keyring's own program) and try again."
)

func (s *secretService) Get(ctx context.Context, service, user string) (secret string, err error) {
	err = s.do(ctx, func(c *client) error {
		items, err := c.find(service, user)
		if err != nil {
			return err
		}
		if len(items) == 0 {
			return persistence.ErrNotFound
		}
		var session dbus.ObjectPath
		if session, err = c.openSession(); err != nil {
			return err
		}
		var reply apiSecret
		get := func() error { return c.call(items[0].path, itemIface+".GetSecret", session).Store(&reply) }
		if err = get(); isError(err, "org.freedesktop.Secret.Error.IsLocked") {
			// An item can be locked on its own: KeePassXC confirms each access.
			if err = c.unlock(items[0].path); err == nil {
				err = get()
			}
		}
		if isGone(err) {
			return persistence.ErrNotFound
		}
		secret = string(reply.Value)
		return err
	})
	if err != nil {
		return "", err
	}
	return secret, nil
}

// maxSecret is well within the 128 MiB of a D-Bus message.
const maxSecret = 64 << 20

func (s *secretService) Set(ctx context.Context, service, user, secret string) error {
	if len(secret) > maxSecret {
		return tooLarge(len(secret), maxSecret)
	}
	return s.do(ctx, func(c *client) error {
		collection, err := c.collection()
		if err != nil {
			return err
		}
		session, err := c.openSession()
		if err != nil {
			return err
		}
		var item, prompt dbus.ObjectPath
		err = c.call(collection, collectionIface+".CreateItem",
			map[string]dbus.Variant{
				itemIface + ".Label":      dbus.MakeVariant(fmt.Sprintf("Password for '%s' on '%s'", user, service)),
				itemIface + ".Attributes": dbus.MakeVariant(attributes(service, user)),
			},
			apiSecret{session, []byte{}, []byte(secret), "text/plain; charset=utf8"},
			true).Store(&item, &prompt)
		if err != nil {
			return err
		}
		if prompt != noPath {
			return c.answer(prompt)
		}
		// Should there be several items of just our attributes, the service
		// has replaced one of them. The others are out of date.
		items, err := c.search(collection, service, user)
		for _, old := range items {
			if err == nil && old.path != item && old.exact {
				err = c.remove(old.path)
			}
		}
		return err
	})
}

func (s *secretService) Delete(ctx context.Context, service, user string) error {
	return s.do(ctx, func(c *client) error {
		items, err := c.find(service, user)
		if err != nil {
			return err
		}
		if len(items) == 0 {
			return persistence.ErrNotFound
		}
		for _, item := range items {
			if err := c.remove(item.path); err != nil {
				return err
			}
		}
		return nil
	})
}

func (*secretService) ItemLimit(service, user string) int { return ItemLimit("linux", service, user) }

// attributes are go-keyring's, and few enough that secret-tool and other
// programs can find the item by them.
func attributes(service, user string) map[string]string {
	return map[string]string{"service": service, "username": user}
}

// apiSecret is the API's Secret structure, (oayays).
type apiSecret struct {
	Session     dbus.ObjectPath
	Parameters  []byte
	Value       []byte
	ContentType string
}

// A client is one connection to the session bus, for one operation. Nothing of
// it outlives the operation: the service ends the sessions and prompts of a
// client that disconnects.
type client struct {
	*secretService
	ctx    context.Context // of the caller, with the timeout added
	caller context.Context
	timer  *time.Timer // ends ctx
	socket *net.UnixConn
	bus    *dbus.Conn

	keepWrites func() bool
}

var errTimeout = errors.New("timeout")

// do runs fn with a connection and gives its error a class.
func (s *secretService) do(caller context.Context, fn func(*client) error) error {
	ctx, cancel := context.WithCancelCause(caller)
	defer cancel(nil)
	timer := time.AfterFunc(s.timeout, func() { cancel(errTimeout) })
	defer timer.Stop()
	c := &client{secretService: s, ctx: ctx, caller: caller, timer: timer}
	err := c.connect()
	if err == nil {
		err = fn(c)
		c.close()
	}
	return c.class(err)
}

// connect dials the bus. What godbus does there knows no context: only closing
// the socket under it ends a wait.
func (c *client) connect() error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	addresses, err := busAddresses()
	if err != nil {
		return err
	}
	for _, address := range addresses {
		var conn net.Conn
		if conn, err = new(net.Dialer).DialContext(c.ctx, "unix", address); err == nil {
			c.socket = conn.(*net.UnixConn)
			break
		}
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		// A bus that does not even accept. The dialer's own clock may be a moment
		// ahead of the context's.
		<-c.ctx.Done()
		return c.ctx.Err()
	}
	if err != nil {
		return unavailable(fmt.Sprintf("the D-Bus session bus cannot be reached (%v)", reason(err)), needBus)
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
		return unavailable("the D-Bus session bus refused the connection", needBus)
	}
	// From here on replies are awaited with the context. A write is not: the
	// bus may have stopped reading.
	c.endWrites()
	return nil
}

// endWrites makes every write fail once the context has ended, until the
// returned function, kept in c.keepWrites, is called.
func (c *client) endWrites() {
	c.keepWrites = context.AfterFunc(c.ctx, func() { c.socket.SetWriteDeadline(time.Unix(1, 0)) })
}

func (c *client) close() {
	// A bus that does not read must not keep Close waiting for a writer.
	c.socket.SetWriteDeadline(time.Unix(1, 0))
	c.bus.Close()
}

// reason is the cause of a failed dial, without the address, which the
// environment named.
func reason(err error) error {
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
	missing := func(what string) error { return unavailable(what, needBus) }
	env := os.Getenv("DBUS_SESSION_BUS_ADDRESS")
	if env == "" || env == "autolaunch:" {
		// Where systemd runs the bus it is here, and an SSH session or a cron
		// job of a user who is logged in finds it, too.
		for _, dir := range []string{os.Getenv("XDG_RUNTIME_DIR"), filepath.Join(runUser, strconv.Itoa(os.Getuid()))} {
			socket := filepath.Join(dir, "bus")
			if filepath.IsAbs(dir) && isOwnSocket(socket) {
				return []string{socket}, nil
			}
		}
		return nil, missing("there is no D-Bus session bus: DBUS_SESSION_BUS_ADDRESS is not set and the user's runtime folder has no bus")
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
		return nil, missing("DBUS_SESSION_BUS_ADDRESS names no unix socket")
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

// call calls a method of the Secret Service, which the bus starts if it has to.
func (c *client) call(path dbus.ObjectPath, method string, args ...any) *dbus.Call {
	return c.bus.Object(busName, path).CallWithContext(c.ctx, method, 0, args...)
}

func (c *client) property(path dbus.ObjectPath, iface, name string, value any) error {
	var v dbus.Variant
	if err := c.call(path, "org.freedesktop.DBus.Properties.Get", iface, name).Store(&v); err != nil {
		return err
	}
	return v.Store(value)
}

func (c *client) openSession() (session dbus.ObjectPath, err error) {
	var output dbus.Variant
	// "plain": secrets cross the bus, a socket of this user, as they are.
	err = c.call(servicePath, serviceIface+".OpenSession", "plain", dbus.MakeVariant("")).Store(&output, &session)
	return session, err
}

// collection returns the collection that is ours, unlocked: go-keyring's
// choice, which is the login collection where there is one, else the default.
func (c *client) collection() (dbus.ObjectPath, error) {
	var all []dbus.ObjectPath
	if err := c.property(servicePath, serviceIface, "Collections", &all); err != nil {
		return "", err
	}
	path := noPath
	for _, p := range all {
		if p == loginPath {
			path = p
		}
	}
	if path == noPath {
		if err := c.call(servicePath, serviceIface+".ReadAlias", "default").Store(&path); err != nil {
			return "", err
		}
	}
	if path == noPath {
		return "", unavailable("the Secret Service has no default collection",
			"Create a keyring named login in Seahorse or the keyring's own program, or log in at the screen once.")
	}
	var isLocked bool
	if err := c.property(path, collectionIface, "Locked", &isLocked); err != nil {
		return "", err
	}
	if isLocked {
		return path, c.unlock(path)
	}
	return path, nil
}

// unlock unlocks a collection or an item. Some can be without asking anybody.
func (c *client) unlock(path dbus.ObjectPath) error {
	var unlocked []dbus.ObjectPath
	var prompt dbus.ObjectPath
	if err := c.call(servicePath, serviceIface+".Unlock", []dbus.ObjectPath{path}).Store(&unlocked, &prompt); err != nil {
		return err
	}
	if len(unlocked) == 0 && prompt == noPath {
		return locked("it cannot be unlocked", needUnlock)
	}
	if len(unlocked) == 0 && !c.prompt && c.isOpenWallet(path) {
		return c.ask(prompt)
	}
	return c.answer(prompt)
}

// isOpenWallet reports whether a collection that is said to be locked is a
// wallet of KWallet that is open. KWallet opens a wallet for the Secret Service
// only by a prompt, even if the user's login has opened it, and by default that
// prompt then asks nobody.
func (c *client) isOpenWallet(collection dbus.ObjectPath) bool {
	var name string
	if err := c.property(collection, collectionIface, "Label", &name); err != nil {
		return false
	}
	for _, path := range []dbus.ObjectPath{"/modules/kwalletd5", "/modules/kwalletd6"} {
		var open bool
		if err := c.call(path, "org.kde.KWallet.isOpen", name).Store(&open); err == nil && open {
			return true
		}
	}
	return false
}

type match struct {
	path     dbus.ObjectPath
	exact    bool // has our attributes and no other
	modified uint64
}

func (c *client) find(service, user string) ([]match, error) {
	collection, err := c.collection()
	if err != nil {
		return nil, err
	}
	items, err := c.search(collection, service, user)
	if err != nil || len(items) > 0 {
		return items, err
	}
	// The item may be in another collection: it was stored when there was no
	// login collection yet, or when another was the default one. That it is not
	// in this one must not pass for its being gone.
	var open, shut []dbus.ObjectPath
	if err := c.call(servicePath, serviceIface+".SearchItems", attributes(service, user)).Store(&open, &shut); err != nil {
		return nil, err
	}
	if len(open) == 0 && len(shut) > 0 {
		return nil, locked("the item is in another collection, which is locked", needUnlock)
	}
	return c.ranked(open)
}

// search returns the items in the collection that have our attributes, the one
// that counts first.
func (c *client) search(collection dbus.ObjectPath, service, user string) ([]match, error) {
	var paths []dbus.ObjectPath
	if err := c.call(collection, collectionIface+".SearchItems", attributes(service, user)).Store(&paths); err != nil {
		return nil, err
	}
	return c.ranked(paths)
}

// ranked orders items of our attributes. More than one there are only if another
// program wrote some of them, as Python's keyring does, with an attribute of its
// own besides.
func (c *client) ranked(paths []dbus.ObjectPath) ([]match, error) {
	items := make([]match, len(paths))
	for i, path := range paths {
		items[i].path = path
		if len(paths) == 1 {
			break
		}
		var attrs map[string]string
		if err := c.property(path, itemIface, "Attributes", &attrs); err != nil {
			return nil, err
		}
		if err := c.property(path, itemIface, "Modified", &items[i].modified); err != nil {
			return nil, err
		}
		delete(attrs, "xdg:schema") // which services add
		items[i].exact = len(attrs) == 2
	}
	slices.SortStableFunc(items, func(a, b match) int {
		if a.exact != b.exact {
			if a.exact {
				return -1
			}
			return 1
		}
		return cmp.Compare(b.modified, a.modified)
	})
	return items, nil
}

func (c *client) remove(item dbus.ObjectPath) error {
	var prompt dbus.ObjectPath
	err := c.call(item, itemIface+".Delete").Store(&prompt)
	if isError(err, "org.freedesktop.Secret.Error.IsLocked") {
		if err = c.unlock(item); err == nil {
			err = c.call(item, itemIface+".Delete").Store(&prompt)
		}
	}
	if isGone(err) {
		return nil // somebody else was faster
	}
	if err != nil {
		return err
	}
	return c.answer(prompt)
}

// answer deals with a prompt that an operation has left to be answered. It
// shows it only if the program allows it, else dismisses it.
func (c *client) answer(prompt dbus.ObjectPath) error {
	if prompt == noPath || prompt == "" {
		return nil
	}
	if !c.prompt {
		c.bus.Object(busName, prompt).CallWithContext(c.ctx, promptIface+".Dismiss", 0)
		return locked("its user would have to be asked", needUnlock)
	}
	return c.ask(prompt)
}

// ask shows a prompt and waits for its user: for as long as the caller's
// context lasts, not for the timeout, if the program allows it to ask.
func (c *client) ask(prompt dbus.ObjectPath) error {
	signals := make(chan *dbus.Signal, 16)
	c.bus.Signal(signals)
	if err := c.bus.AddMatchSignalContext(c.ctx, dbus.WithMatchObjectPath(prompt), dbus.WithMatchInterface(promptIface)); err != nil {
		return err
	}
	// A service that dies never completes its prompt.
	if err := c.bus.AddMatchSignalContext(c.ctx, dbus.WithMatchSender("org.freedesktop.DBus"),
		dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, busName)); err != nil {
		return err
	}
	c.keepWrites() // for withdraw; nothing large is written meanwhile
	defer c.endWrites()
	unanswered := func() error {
		c.withdraw(prompt)
		return &advice{fmt.Errorf("%w: its user did not answer in time: %w", persistence.ErrKeyringLocked,
			cmp.Or(c.caller.Err(), context.DeadlineExceeded)), needUnlock}
	}
	if err := c.call(prompt, promptIface+".Prompt", "").Err; err != nil {
		if c.caller.Err() != nil {
			return unanswered()
		}
		return err
	}
	if c.prompt {
		c.timer.Stop()
		defer c.timer.Reset(c.timeout)
	}
	var patience <-chan time.Time
	if _, ok := c.caller.Deadline(); !ok {
		timer := time.NewTimer(promptTimeout)
		defer timer.Stop()
		patience = timer.C
	}
	for {
		select {
		case signal, ok := <-signals:
			switch {
			case !ok || signal.Name == "org.freedesktop.DBus.NameOwnerChanged":
				return unavailable("the Secret Service ended while it asked its user", needService)
			case signal.Path != prompt || signal.Name != promptIface+".Completed" || len(signal.Body) == 0:
			case signal.Body[0] == true:
				return locked("its user dismissed the question", "Answer the keyring's question.")
			default:
				return nil
			}
		case <-c.ctx.Done():
			return unanswered()
		case <-patience:
			return unanswered()
		}
	}
}

// withdraw takes a question off the screen that nobody waits for any more. The
// context has ended: the request is sent if that is possible at once, and no
// reply is awaited.
func (c *client) withdraw(prompt dbus.ObjectPath) {
	c.socket.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	c.bus.Object(busName, prompt).Go(promptIface+".Dismiss", dbus.FlagNoReplyExpected, nil)
}

// isGone reports whether a call failed because its object is no more.
func isGone(err error) bool {
	return isError(err, "org.freedesktop.Secret.Error.NoSuchObject", "org.freedesktop.DBus.Error.UnknownObject",
		"org.freedesktop.DBus.Error.UnknownMethod", "org.freedesktop.DBus.Error.UnknownInterface")
}

func isNetError(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

func isError(err error, names ...string) bool {
	var e dbus.Error
	if !errors.As(err, &e) {
		return false
	}
	for _, name := range names {
		if e.Name == name {
			return true
		}
	}
	return false
}

// class gives an error its class. Of what the bus or the service says only the
// error's name is passed on: its text is theirs, and might quote a secret.
func (c *client) class(err error) error {
	if err == nil {
		return nil
	}
	var done *advice
	if errors.As(err, &done) || errors.Is(err, persistence.ErrNotFound) {
		return err
	}
	switch {
	case c.caller.Err() != nil:
		return fmt.Errorf("waiting for the Secret Service: %w", c.caller.Err())
	case c.ctx.Err() != nil:
		return noAnswer("the Secret Service or the session bus", c.timeout)
	case isError(err, "org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner"):
		return unavailable("the session bus has no Secret Service", needService)
	case isError(err, "org.freedesktop.Secret.Error.IsLocked"):
		return locked("it locked itself during the call", needUnlock)
	case isError(err, "org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.Disconnected"),
		errors.Is(err, dbus.ErrClosed), isNetError(err):
		return unavailable("the Secret Service or the session bus ended during the call", needService)
	}
	var e dbus.Error
	if errors.As(err, &e) {
		if strings.HasPrefix(e.Name, "org.freedesktop.DBus.Error.Spawn.") || e.Name == "org.freedesktop.DBus.Error.TimedOut" {
			return unavailable("the Secret Service cannot be started ("+e.Name+")", needService)
		}
		return unavailable("the Secret Service failed with "+e.Name, needService)
	}
	return unavailable("the Secret Service gave an answer that is not of its specification", needService)
}
