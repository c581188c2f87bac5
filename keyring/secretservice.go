//go:build linux || freebsd || netbsd || openbsd

package keyring

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/godbus/dbus/v5"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// secretService is the keyring of Linux and the BSDs, by freedesktop.org's
// Secret Service API 0.2 (https://specifications.freedesktop.org/secret-service-spec/).
//
// It is a client of our own because go-keyring's waits without end for a prompt,
// a stopped service or a bus that does not answer, may start a bus of its own,
// and keeps a connection open. The items are go-keyring's: the same collection,
// attributes, label and content type.
type secretService struct{ settings }

const (
	busName     = "org.freedesktop.secrets"
	servicePath = "/org/freedesktop/secrets"
	loginPath   = "/org/freedesktop/secrets/collection/login"
	noPath      = dbus.ObjectPath("/") // means "none" in this API

	serviceIface    = "org.freedesktop.Secret.Service"
	collectionIface = "org.freedesktop.Secret.Collection"
	itemIface       = "org.freedesktop.Secret.Item"
	promptIface     = "org.freedesktop.Secret.Prompt"
)

func newSystem(s settings) Limited { return &secretService{s} }

func (s *secretService) Get(ctx context.Context, service, user string) (secret string, err error) {
	err = s.do(ctx, func(c *client) error {
		opened := c.beginSession()
		items, err := c.find(service, user)
		if err != nil {
			return err
		}
		if len(items) == 0 {
			return persistence.ErrNotFound
		}
		value, err := c.secret(items[0].path, opened)
		secret = string(value)
		return err
	})
	if err != nil {
		return "", err
	}
	return secret, nil
}

// secret returns an item's secret.
func (c *client) secret(item dbus.ObjectPath, opened *dbus.Call) ([]byte, error) {
	session, err := sessionOf(opened)
	if err != nil {
		return nil, err
	}
	var reply apiSecret
	err = c.unlocking(item, func() error { return c.call(item, itemIface+".GetSecret", session).Store(&reply) })
	if isGone(err) {
		return nil, persistence.ErrNotFound
	}
	return reply.Value, err
}

// unlocking calls do, and if path is locked, unlocks it and calls do again. An item
// can be locked on its own: KeePassXC confirms each access.
func (c *client) unlocking(path dbus.ObjectPath, do func() error) error {
	err := do()
	if isError(err, "org.freedesktop.Secret.Error.IsLocked") {
		if err = c.unlock(path); err == nil {
			err = do()
		}
	}
	return err
}

func (s *secretService) Set(ctx context.Context, service, user, secret string) error {
	if len(secret) > maxSecret {
		return tooLarge(len(secret), maxSecret)
	}
	return s.do(ctx, func(c *client) error {
		opened := c.beginSession()
		collection, _, err := c.collection()
		if err != nil {
			return err
		}
		session, err := sessionOf(opened)
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
		// If several items have exactly our attributes, the service has
		// replaced one of them. The others are out of date.
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

// List finds the items by their attributes, which can be read without the secrets.
func (s *secretService) List(ctx context.Context, service string) (users []string, err error) {
	err = s.do(ctx, func(c *client) error {
		users = nil
		var open, shut []dbus.ObjectPath
		if err := c.call(servicePath, serviceIface+".SearchItems", map[string]string{"service": service}).Store(&open, &shut); err != nil {
			return err
		}
		if len(shut) > 0 {
			return newTrouble(Locked, "some of the items are locked", needUnlock)
		}
		for _, path := range open {
			var attrs map[string]string
			if err := c.property(path, itemIface, "Attributes", &attrs); isGone(err) {
				continue
			} else if err != nil {
				return err
			}
			if user, ok := attrs["username"]; ok {
				users = append(users, user)
			}
		}
		return nil
	})
	slices.Sort(users)
	return slices.Compact(users), err
}

// ItemLimit returns 0: only the size of a D-Bus message limits an item.
func (*secretService) ItemLimit(service, user string) int { return 0 }

// attributes returns the attributes that go-keyring gives an item. secret-tool
// and other programs can find it by them.
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

// call calls a method of the Secret Service. The bus starts the service if
// necessary.
func (c *client) call(path dbus.ObjectPath, method string, args ...any) *dbus.Call {
	return c.bus.Object(busName, path).CallWithContext(c.ctx, method, 0, args...)
}

// begin is call that does not wait for the reply, which waits in the Done of what
// it returns. What does not depend on each other is asked at once: a call costs
// mostly the way through the bus.
func (c *client) begin(path dbus.ObjectPath, method string, args ...any) *dbus.Call {
	return c.bus.Object(busName, path).GoWithContext(c.ctx, method, 0, make(chan *dbus.Call, 1), args...)
}

// end waits for the reply of a call that was begun.
func end(call *dbus.Call, values ...any) error {
	return (<-call.Done).Store(values...)
}

// endProperty is end for a property's value.
func endProperty(call *dbus.Call, value any) error {
	var v dbus.Variant
	if err := end(call, &v); err != nil {
		return err
	}
	return v.Store(value)
}

func (c *client) beginProperty(path dbus.ObjectPath, iface, name string) *dbus.Call {
	return c.begin(path, "org.freedesktop.DBus.Properties.Get", iface, name)
}

func (c *client) property(path dbus.ObjectPath, iface, name string, value any) error {
	return endProperty(c.beginProperty(path, iface, name), value)
}

// beginSession begins to open a session. "plain": secrets cross the bus, a socket
// of this user, as they are.
func (c *client) beginSession() *dbus.Call {
	return c.begin(servicePath, serviceIface+".OpenSession", "plain", dbus.MakeVariant(""))
}

func sessionOf(opened *dbus.Call) (session dbus.ObjectPath, err error) {
	var output dbus.Variant
	err = end(opened, &output, &session)
	return session, err
}

// collection returns the collection to use, unlocked, and whether it had to be. It
// is the same as go-keyring's: the login collection if it exists, else the default
// one.
func (c *client) collection() (path dbus.ObjectPath, unlocked bool, err error) {
	path = loginPath
	if !slices.Contains(c.collections, path) {
		if err := c.call(servicePath, serviceIface+".ReadAlias", "default").Store(&path); err != nil {
			return "", false, err
		}
		if path == noPath {
			return "", false, newTrouble(NoCollection, "the Secret Service has no default collection", c.collectionAdvice())
		}
	}
	var isLocked bool
	if err := c.property(path, collectionIface, "Locked", &isLocked); err != nil {
		return "", false, err
	}
	if isLocked {
		return path, true, c.unlock(path)
	}
	return path, false, nil
}

// unlock unlocks a collection or an item, for which some services need to ask
// nobody.
func (c *client) unlock(path dbus.ObjectPath) error {
	var unlocked []dbus.ObjectPath
	var prompt dbus.ObjectPath
	if err := c.call(servicePath, serviceIface+".Unlock", []dbus.ObjectPath{path}).Store(&unlocked, &prompt); err != nil {
		return err
	}
	if len(unlocked) == 0 && prompt == noPath {
		return newTrouble(Locked, "it cannot be unlocked", needUnlock)
	}
	if len(unlocked) == 0 && !c.mayPrompt && c.isOpenWallet(path) {
		return c.show(prompt)
	}
	return c.answer(prompt)
}

// isOpenWallet reports whether a collection that says that it is locked is an
// open wallet of KWallet. Even if the user's login has opened a wallet, KWallet
// opens it for the Secret Service only by a prompt; by default that prompt then
// asks nobody.
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
	exact    bool // has our attributes and no others
	modified uint64
}

func (c *client) find(service, user string) ([]match, error) {
	// A search in what is locked finds nothing that counts: it is asked again.
	inLogin := c.beginSearch(loginPath, service, user)
	collection, unlocked, err := c.collection()
	if err != nil {
		return nil, err
	}
	if collection != loginPath || unlocked {
		inLogin = c.beginSearch(collection, service, user)
	}
	items, err := c.endSearch(inLogin)
	if err != nil || len(items) > 0 {
		return items, err
	}
	// The item may be in another collection, if it was stored before there was
	// a login collection or while another collection was the default. Then it
	// must not be reported as missing.
	var open, shut []dbus.ObjectPath
	if err := c.call(servicePath, serviceIface+".SearchItems", attributes(service, user)).Store(&open, &shut); err != nil {
		return nil, err
	}
	if len(open) == 0 && len(shut) > 0 {
		return nil, newTrouble(Locked, "the item is in another collection, which is locked", needUnlock)
	}
	return c.ranked(open)
}

// place returns the bus's address, unless that is where systemd runs the bus of the
// user's login. Each other bus has a keyring program of its own, which may have another
// home folder.
func (s *secretService) place() string {
	addresses, err := busAddresses()
	if err != nil || len(addresses) == 1 && filepath.Clean(addresses[0]) == filepath.Join(runUser, strconv.Itoa(os.Getuid()), "bus") {
		return ""
	}
	return strings.Join(addresses, "\x00")
}

// seesAll returns an error if the item may be in a keyring of another bus, in a
// collection that is locked, of which KeePassXC finds nothing, or in a database that
// KeePassXC has not opened.
func (s *secretService) seesAll(ctx context.Context, samePlace bool) (again bool, err error) {
	const orClear = " Otherwise sign out in the program, or run `tokenkeep clear` with the name of the cache, and sign in again."
	if !samePlace {
		return false, newTrouble(NoSession, "the key was stored over another D-Bus session bus, and may be in the keyring there",
			"Run the program in the session in which you signed in (see DBUS_SESSION_BUS_ADDRESS)."+orClear)
	}
	return false, s.do(ctx, func(c *client) error {
		for _, path := range c.collections {
			var locked bool
			if err := c.property(path, collectionIface, "Locked", &locked); isGone(err) {
				continue
			} else if err != nil {
				return err
			}
			if locked {
				return newTrouble(Locked, "a collection is locked, and the item may be in it", needUnlock)
			}
		}
		if c.isKeePassXC() {
			return newTrouble(NoSession, "KeePassXC does not have the item in the databases that are open",
				"Open the database that it was stored in, and try again."+orClear)
		}
		return nil
	})
}

// search returns the items in the collection that have our attributes. The first
// is the one to read.
func (c *client) search(collection dbus.ObjectPath, service, user string) ([]match, error) {
	return c.endSearch(c.beginSearch(collection, service, user))
}

func (c *client) beginSearch(collection dbus.ObjectPath, service, user string) *dbus.Call {
	return c.begin(collection, collectionIface+".SearchItems", attributes(service, user))
}

func (c *client) endSearch(search *dbus.Call) ([]match, error) {
	var paths []dbus.ObjectPath
	if err := end(search, &paths); err != nil {
		return nil, err
	}
	return c.ranked(paths)
}

// ranked sorts items that have our attributes: those without other attributes
// first, then the newest. There is more than one only if another program wrote
// some of them; Python's keyring adds an attribute of its own.
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
	err := c.unlocking(item, func() error { return c.call(item, itemIface+".Delete").Store(&prompt) })
	if isGone(err) {
		return nil // somebody else was faster
	}
	if err != nil {
		return err
	}
	return c.answer(prompt)
}

// answer handles the prompt that an operation returned, if any: it shows it if
// the program allows prompts, else it dismisses it.
func (c *client) answer(prompt dbus.ObjectPath) error {
	if prompt == noPath || prompt == "" {
		return nil
	}
	if !c.mayPrompt {
		c.bus.Object(busName, prompt).CallWithContext(c.ctx, promptIface+".Dismiss", 0)
		return newTrouble(Locked, "its user would have to be asked", needUnlock)
	}
	return c.show(prompt)
}
