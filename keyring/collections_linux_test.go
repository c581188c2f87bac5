package keyring

import (
	"testing"

	"github.com/godbus/dbus/v5"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// An item that was stored in another collection, when that was the default one,
// is not gone.
func TestSecretServiceFindsItemsOfOtherCollections(t *testing.T) {
	bus, _ := unlockedKeyring(t)
	conn := bus.Conn()
	service := conn.Object("org.freedesktop.secrets", servicePath)
	var output dbus.Variant
	var session, item, prompt dbus.ObjectPath
	require.NoError(t, service.Call(serviceIface+".OpenSession", 0, "plain", dbus.MakeVariant("")).Store(&output, &session))
	// GNOME Keyring has a collection in memory beside the login collection.
	other := conn.Object("org.freedesktop.secrets", "/org/freedesktop/secrets/collection/session")
	require.NoError(t, other.Call(collectionIface+".CreateItem", 0, map[string]dbus.Variant{
		itemIface + ".Label":      dbus.MakeVariant("test"),
		itemIface + ".Attributes": dbus.MakeVariant(attributes("service", "user")),
	}, apiSecret{session, []byte{}, []byte("secret"), "text/plain; charset=utf8"}, true).Store(&item, &prompt))

	k := System()
	secret, err := k.Get(t.Context(), "service", "user")
	require.NoError(t, err)
	require.Equal(t, "secret", secret)
	require.NoError(t, k.Delete(t.Context(), "service", "user"))
	_, err = k.Get(t.Context(), "service", "user")
	require.ErrorIs(t, err, persistence.ErrNotFound)
}
