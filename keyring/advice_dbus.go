//go:build linux || freebsd || netbsd || openbsd

package keyring

import (
	"os"

	"github.com/godbus/dbus/v5"

	"github.com/tokenkeep/tokenkeep/internal/shell"
)

// This file says what the user of this machine can do: in a sandbox, in WSL, with
// the keyring program that runs.

// In their own words these programs say where they run.
const (
	flatpakVariable = "FLATPAK_ID"
	snapVariable    = "SNAP_INSTANCE_NAME"
	wslVariable     = "WSL_DISTRO_NAME"
)

// allowAdvice says how a program is allowed to use the Secret Service.
func allowAdvice() string {
	if app := os.Getenv(flatpakVariable); app != "" {
		return "The program runs in Flatpak. Allow it to use the keyring with: flatpak override --user --talk-name=" + busName + " " + shell.Quote(app)
	}
	if snap := os.Getenv(snapVariable); snap != "" {
		return "The program is a snap. Allow it to use the keyring with: sudo snap connect " + shell.Quote(snap+":password-manager-service")
	}
	return "Allow the program to talk to " + busName + ", for instance in its AppArmor profile or in the settings of its sandbox."
}

// hidesNames reports whether the program runs in a sandbox that answers as if
// nobody had the names that the program may not talk to.
func hidesNames() bool { return os.Getenv(flatpakVariable) != "" }

const (
	needBus = "Run the program in a desktop session, or start a bus with dbus-run-session, " +
		"and make sure that DBUS_SESSION_BUS_ADDRESS names it."
	needService = "Install and start a keyring program: gnome-keyring, KWallet 5.97 or later, or KeePassXC with its Secret Service turned on."
	inWSL       = "In WSL, put systemd=true under [boot] in /etc/wsl.conf, install the packages gnome-keyring and dbus-user-session, " +
		"and restart WSL with wsl.exe --shutdown. Then log in and create a keyring in Seahorse once."
)

func busAdvice() string     { return wslOr(needBus) }
func serviceAdvice() string { return wslOr(needService) }

func wslOr(advice string) string {
	if os.Getenv(wslVariable) != "" {
		return inWSL
	}
	return advice
}

// collectionAdvice says how the keyring program that runs gets a collection.
func (c *client) collectionAdvice() string {
	switch {
	case c.isKeePassXC():
		return "KeePassXC exposes no group. Open a database in it, choose a group under Database > Database Settings > Secret Service Integration, and try again."
	case c.serviceIs("org.kde.kwalletd5"), c.serviceIs("org.kde.kwalletd6"):
		return "Create a wallet in KWalletManager, set it as the default in System Settings > KDE Wallet, and try again."
	}
	return "Create a keyring named login in Seahorse or the keyring's own program, or log in at the screen once."
}

func (c *client) isKeePassXC() bool { return c.serviceIs("org.keepassxc.KeePassXC.MainWindow") }

// serviceIs reports whether the Secret Service is the program that has that name, too.
func (c *client) serviceIs(name string) bool {
	owner := c.ownerOf(busName)
	return owner != "" && c.ownerOf(name) == owner
}

// ownerOf returns the connection that has a name on the bus, or "".
func (c *client) ownerOf(name string) (owner string) {
	err := c.bus.Object("org.freedesktop.DBus", dbus.ObjectPath("/org/freedesktop/DBus")).
		CallWithContext(c.ctx, "org.freedesktop.DBus.GetNameOwner", 0, name).Store(&owner)
	if err != nil {
		return ""
	}
	return owner
}
