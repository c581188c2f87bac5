//go:build linux || freebsd || netbsd || openbsd

package keyring

import (
	"context"

	"github.com/godbus/dbus/v5"

	"github.com/tokenkeep/tokenkeep/persistence"
)

func (i ForeignItem) get(ctx context.Context, s settings) (secret []byte, err error) {
	service := &secretService{s}
	err = service.do(ctx, func(c *client) error {
		opened := c.beginSession()
		item, err := c.findForeign(i.Attributes)
		if err != nil {
			return err
		}
		if item == noPath {
			return persistence.ErrNotFound
		}
		secret, err = c.secret(item, opened)
		return err
	})
	if err != nil {
		return nil, err
	}
	return secret, nil
}

func (i ForeignItem) set(ctx context.Context, s settings, secret []byte) error {
	service := &secretService{s}
	return service.do(ctx, func(c *client) error {
		opened := c.beginSession()
		item, err := c.findForeign(i.Attributes)
		if err != nil {
			return err
		}
		session, err := sessionOf(opened)
		if err != nil {
			return err
		}
		// libsecret returns no other type as a password.
		value := apiSecret{session, []byte{}, secret, "text/plain"}
		if item != noPath {
			return c.unlocking(item, func() error { return c.call(item, itemIface+".SetSecret", value).Err })
		}
		collection, err := c.defaultCollection()
		if err != nil {
			return err
		}
		properties := map[string]dbus.Variant{
			itemIface + ".Label":      dbus.MakeVariant(i.Label),
			itemIface + ".Attributes": dbus.MakeVariant(i.Attributes),
		}
		return c.unlocking(collection, func() error {
			var item, prompt dbus.ObjectPath
			if err := c.call(collection, collectionIface+".CreateItem", properties, value, true).Store(&item, &prompt); err != nil {
				return err
			}
			return c.answer(prompt)
		})
	})
}

// findForeign returns the item with these attributes that was changed last, or
// noPath. Those that are locked count only if there is no other.
func (c *client) findForeign(attributes map[string]string) (dbus.ObjectPath, error) {
	var open, shut []dbus.ObjectPath
	if err := c.call(servicePath, serviceIface+".SearchItems", attributes).Store(&open, &shut); err != nil {
		return noPath, err
	}
	if len(open) == 0 {
		if open = shut; len(shut) > 0 {
			if err := c.unlock(shut[0]); err != nil {
				return noPath, err
			}
		}
	}
	newest, at := noPath, uint64(0)
	for _, path := range open {
		var modified uint64
		if len(open) > 1 {
			if err := c.property(path, itemIface, "Modified", &modified); isGone(err) {
				continue
			} else if err != nil {
				return noPath, err
			}
		}
		if newest == noPath || modified > at {
			newest, at = path, modified
		}
	}
	return newest, nil
}

// defaultCollection returns the collection in which libsecret makes items, unlocked.
func (c *client) defaultCollection() (path dbus.ObjectPath, err error) {
	if err := c.call(servicePath, serviceIface+".ReadAlias", "default").Store(&path); err != nil {
		return noPath, err
	}
	if path == noPath {
		return noPath, newTrouble(NoCollection, "the Secret Service has no default collection", c.collectionAdvice())
	}
	var locked bool
	if err := c.property(path, collectionIface, "Locked", &locked); err != nil {
		return noPath, err
	}
	if locked {
		return path, c.unlock(path)
	}
	return path, nil
}
