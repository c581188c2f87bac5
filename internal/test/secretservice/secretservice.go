//go:build linux

// Package secretservice gives tests a Secret Service in each of its states: a
// real GNOME Keyring on a private D-Bus session bus, or what is there when it
// is missing, locked, stopped, killed or deaf.
//
// Nothing here touches the user's own bus or keyring, and everything that it
// starts ends with the test, even with one that is killed.
package secretservice

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	name     = "org.freedesktop.secrets"
	path     = "/org/freedesktop/secrets"
	login    = dbus.ObjectPath("/org/freedesktop/secrets/collection/login")
	prompter = "org.gnome.keyring.SystemPrompter"
	// patience is how long a program that was just started may take; it
	// decides only when to give up.
	patience = 30 * time.Second
)

// Need ends the test unless the programs are installed: it is skipped, or
// fails where the environment variable CI is "true".
func Need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			message := p + " is not installed (Debian: apt-get install gnome-keyring dbus-daemon libsecret-tools libkf5wallet-bin xdg-dbus-proxy)"
			if os.Getenv("CI") == "true" {
				t.Fatal(message)
			}
			t.Skip(message)
		}
	}
}

// Bus is a private session bus.
type Bus struct {
	Address string // for DBUS_SESSION_BUS_ADDRESS
	Pid     int
	Dir     string // a folder of its own, with a home and a runtime folder
	conn    *dbus.Conn
}

const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path=%[1]s/bus</listen><auth>EXTERNAL</auth>
<servicedir>%[1]s/services</servicedir>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>%[2]s</policy>
<limit name="max_message_size">134217728</limit><limit name="max_incoming_bytes">134217728</limit><limit name="max_outgoing_bytes">134217728</limit>
</busconfig>`

// StartBus starts a bus that knows no services.
func StartBus(t testing.TB) *Bus {
	t.Helper()
	return startBus(t, "")
}

// StartDenyingBus starts a bus that lets nobody talk to a Secret Service, as a
// sandbox does.
func StartDenyingBus(t testing.TB) *Bus {
	t.Helper()
	return startBus(t, `<deny send_destination="`+name+`"/>`)
}

// StartProxy starts the proxy of Flatpak's sandbox before the bus, which shows no
// names but the bus's own, and returns its address.
func (b *Bus) StartProxy(t testing.TB) (address string) {
	t.Helper()
	Need(t, "xdg-dbus-proxy")
	socket := filepath.Join(b.Dir, "proxy")
	ready, write, err := os.Pipe()
	check(t, err)
	cmd := exec.Command("xdg-dbus-proxy", "--fd=3", b.Address, socket, "--filter")
	cmd.ExtraFiles = []*os.File{write}
	b.start(t, cmd)
	write.Close()
	_, err = ready.Read(make([]byte, 1))
	check(t, err)
	t.Cleanup(func() { ready.Close() })
	return "unix:path=" + socket
}

func startBus(t testing.TB, policy string) *Bus {
	t.Helper()
	Need(t, "dbus-daemon")
	// Not t.TempDir: a socket's path must be short.
	dir, err := os.MkdirTemp("", "bus")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, d := range []string{"services", "home", "run"} {
		check(t, os.Mkdir(filepath.Join(dir, d), 0o700))
	}
	check(t, os.WriteFile(filepath.Join(dir, "bus.conf"), fmt.Appendf(nil, busConfig, dir, policy), 0o600))
	b := &Bus{Dir: dir}
	cmd := exec.Command("dbus-daemon", "--nofork", "--print-address=1", "--config-file="+filepath.Join(dir, "bus.conf"))
	out, err := cmd.StdoutPipe()
	check(t, err)
	b.Pid = b.start(t, cmd)
	line, err := bufio.NewReader(out).ReadString('\n')
	check(t, err)
	b.Address = strings.TrimSpace(line)
	b.conn, err = dbus.Connect(b.Address)
	check(t, err)
	t.Cleanup(func() { b.conn.Close() })
	return b
}

// start starts a program that is killed at the end of the test.
func (b *Bus) start(t testing.TB, cmd *exec.Cmd) (pid int) {
	t.Helper()
	cmd.Env = b.Env()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	check(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd.Process.Pid
}

// Env is the environment of a program of this session.
func (b *Bus) Env() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + filepath.Join(b.Dir, "home"),
		"XDG_DATA_HOME=" + filepath.Join(b.Dir, "home"),
		"XDG_CONFIG_HOME=" + filepath.Join(b.Dir, "home"),
		"XDG_RUNTIME_DIR=" + filepath.Join(b.Dir, "run"),
		"DBUS_SESSION_BUS_ADDRESS=" + b.Address,
	}
}

// Conn is a connection to the bus, for the test's own calls.
func (b *Bus) Conn() *dbus.Conn { return b.conn }

// Clients returns how many connections the bus has.
func (b *Bus) Clients(t testing.TB) int {
	t.Helper()
	var names []string
	check(t, b.conn.BusObject().Call("org.freedesktop.DBus.ListNames", 0).Store(&names))
	n := 0
	for _, name := range names {
		if strings.HasPrefix(name, ":") {
			n++
		}
	}
	return n
}

// Pause stops the bus until the end of the test: it accepts connections, by its
// kernel, and answers nothing.
func (b *Bus) Pause(t testing.TB) {
	t.Helper()
	check(t, syscall.Kill(b.Pid, syscall.SIGSTOP))
	t.Cleanup(func() { syscall.Kill(b.Pid, syscall.SIGCONT) })
}

// Keyring is a GNOME Keyring of this bus.
type Keyring struct {
	Pid int
	bus *Bus
}

// StartKeyring starts a GNOME Keyring with an empty login collection,
// unlocked, whose password is "test"; or, without login, one that has no
// collection at all.
func (b *Bus) StartKeyring(t testing.TB, withLogin bool) *Keyring {
	t.Helper()
	Need(t, "gnome-keyring-daemon")
	cmd := exec.Command("gnome-keyring-daemon", "--foreground", "--components=secrets")
	if withLogin {
		// The password is read up to the end of the file.
		cmd.Args = append(cmd.Args, "--unlock")
		cmd.Stdin = strings.NewReader("test")
	}
	return &Keyring{b.startService(t, cmd), b}
}

// StartKWallet starts a KWallet without a wallet, on a machine without a screen:
// it is there, and has no default collection.
func (b *Bus) StartKWallet(t testing.TB) {
	t.Helper()
	Need(t, "kwalletd5")
	b.startService(t, exec.Command("kwalletd5", "-platform", "offscreen"))
}

// KWallet is a KWallet of this bus that has an empty wallet.
type KWallet struct{ bus *Bus }

// StartKWalletWithWallet starts a KWallet with an empty wallet, which is closed.
func (b *Bus) StartKWalletWithWallet(t testing.TB) *KWallet {
	t.Helper()
	// A wallet becomes a collection when KWallet starts.
	Need(t, "kwalletd5")
	pid := b.startService(t, exec.Command("kwalletd5", "-platform", "offscreen"))
	k := &KWallet{b}
	k.Open(t)
	k.Close(t)
	check(t, syscall.Kill(pid, syscall.SIGKILL))
	b.AwaitNoService(t)
	b.StartKWallet(t)
	return k
}

const (
	kwalletPath  = "/modules/kwalletd5"
	kwalletIface = "org.kde.KWallet"
	walletName   = "kdewallet" // the default one
)

// Open opens the wallet as its user's login does.
func (k *KWallet) Open(t testing.TB) {
	t.Helper()
	wallet := k.bus.conn.Object(name, kwalletPath)
	check(t, wallet.Call(kwalletIface+".pamOpen", 0, walletName, make([]byte, 56), int32(0)).Err)
	var open bool
	check(t, wallet.Call(kwalletIface+".isOpen", 0, walletName).Store(&open))
	if !open {
		t.Fatal("KWallet did not open its wallet")
	}
}

// Close closes the wallet, which writes it.
func (k *KWallet) Close(t testing.TB) {
	t.Helper()
	check(t, k.bus.conn.Object(name, kwalletPath).Call(kwalletIface+".closeAllWallets", 0).Err)
}

// startService starts a program and waits until it is the Secret Service.
func (b *Bus) startService(t testing.TB, cmd *exec.Cmd) (pid int) {
	t.Helper()
	owners := make(chan *dbus.Signal, 16)
	b.conn.Signal(owners)
	defer b.conn.RemoveSignal(owners)
	match := []dbus.MatchOption{dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, name)}
	check(t, b.conn.AddMatchSignal(match...))
	defer b.conn.RemoveMatchSignal(match...)
	pid = b.start(t, cmd)
	for timeout := time.After(patience); ; {
		select {
		case s := <-owners:
			if s.Name == "org.freedesktop.DBus.NameOwnerChanged" && s.Body[0] == name && s.Body[2] != "" {
				return pid
			}
		case <-timeout:
			t.Fatal(cmd.Path + " did not become the Secret Service")
		}
	}
}

// Lock locks the login collection.
func (k *Keyring) Lock(t testing.TB) {
	t.Helper()
	var locked []dbus.ObjectPath
	var prompt dbus.ObjectPath
	check(t, k.bus.conn.Object(name, path).Call("org.freedesktop.Secret.Service.Lock", 0, []dbus.ObjectPath{login}).Store(&locked, &prompt))
	if len(locked) != 1 {
		t.Fatal("the collection did not lock")
	}
}

// Pause stops the daemon, which then keeps its name and answers nothing.
func (k *Keyring) Pause(t testing.TB) {
	t.Helper()
	check(t, syscall.Kill(k.Pid, syscall.SIGSTOP))
	t.Cleanup(func() { syscall.Kill(k.Pid, syscall.SIGCONT) })
}

// Kill kills the daemon.
func (k *Keyring) Kill(t testing.TB) {
	t.Helper()
	check(t, syscall.Kill(k.Pid, syscall.SIGKILL))
}

// AwaitNoService waits until the bus has no Secret Service, as after a Kill.
func (b *Bus) AwaitNoService(t testing.TB) {
	t.Helper()
	for timeout := time.After(patience); ; {
		var owned bool
		check(t, b.conn.BusObject().Call("org.freedesktop.DBus.NameHasOwner", 0, name).Store(&owned))
		if !owned {
			return
		}
		select {
		case <-timeout:
			t.Fatal("the Secret Service did not end")
		default:
		}
	}
}

// AddItem makes an item in the login collection, beside any that is like it.
func (b *Bus) AddItem(t testing.TB, label string, attributes map[string]string, value string) {
	t.Helper()
	service := b.conn.Object(name, path)
	var output dbus.Variant
	var session, item, prompt dbus.ObjectPath
	check(t, service.Call("org.freedesktop.Secret.Service.OpenSession", 0, "plain", dbus.MakeVariant("")).Store(&output, &session))
	check(t, b.conn.Object(name, login).Call("org.freedesktop.Secret.Collection.CreateItem", 0,
		map[string]dbus.Variant{
			"org.freedesktop.Secret.Item.Label":      dbus.MakeVariant(label),
			"org.freedesktop.Secret.Item.Attributes": dbus.MakeVariant(attributes),
		},
		secret{session, []byte{}, []byte(value), "text/plain"},
		false).Store(&item, &prompt))
}

// secret is the API's Secret structure.
type secret struct {
	Session           dbus.ObjectPath
	Parameters, Value []byte
	ContentType       string
}

// Item is what the login collection shows of an item.
type Item struct {
	Label      string
	Attributes map[string]string
}

// Items returns the items of the login collection, without the schema that
// GNOME Keyring notes of an item when it is changed.
func (b *Bus) Items(t testing.TB) []Item {
	t.Helper()
	var v dbus.Variant
	get := func(p dbus.ObjectPath, iface, property string, to any) {
		t.Helper()
		check(t, b.conn.Object(name, p).Call("org.freedesktop.DBus.Properties.Get", 0, iface, property).Store(&v))
		check(t, v.Store(to))
	}
	var paths []dbus.ObjectPath
	get(login, "org.freedesktop.Secret.Collection", "Items", &paths)
	items := make([]Item, len(paths))
	for i, p := range paths {
		get(p, "org.freedesktop.Secret.Item", "Label", &items[i].Label)
		get(p, "org.freedesktop.Secret.Item", "Attributes", &items[i].Attributes)
		delete(items[i].Attributes, "xdg:schema")
	}
	return items
}

// DeafPrompter is a desktop where nobody sits in front of the dialog: it takes
// every request of the keyring to ask its user, and answers none. Requests are
// counted on the channel.
func (b *Bus) DeafPrompter(t testing.TB) <-chan string {
	t.Helper()
	conn, err := dbus.Connect(b.Address)
	check(t, err)
	t.Cleanup(func() { conn.Close() })
	p := deafPrompter(make(chan string, 64))
	check(t, conn.Export(p, "/org/gnome/keyring/Prompter", "org.gnome.keyring.internal.Prompter"))
	_, err = conn.RequestName(prompter, dbus.NameFlagDoNotQueue)
	check(t, err)
	return p
}

type deafPrompter chan string

func (p deafPrompter) BeginPrompting(dbus.ObjectPath) *dbus.Error {
	p <- "begin"
	return nil
}

func (p deafPrompter) PerformPrompt(dbus.ObjectPath, string, map[string]dbus.Variant, string) *dbus.Error {
	p <- "perform"
	return nil
}

func (p deafPrompter) StopPrompting(dbus.ObjectPath) *dbus.Error {
	p <- "stop"
	return nil
}

// DeafBus returns the address of a bus that accepts connections, by its kernel,
// and never answers.
func DeafBus(t testing.TB) (address string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "bus")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "bus"))
	check(t, err)
	t.Cleanup(func() { l.Close() })
	return "unix:path=" + filepath.Join(dir, "bus")
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
