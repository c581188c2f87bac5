package keyring

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/test/secretservice"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// databases is a Secret Service as KeePassXC is one: its collections are databases,
// and those that are locked have no items (Collection::searchItems in its
// Collection.cpp). The key is not in the one that is open.
type databases struct{ locked bool }

const (
	openDatabase  = dbus.ObjectPath("/org/freedesktop/secrets/collection/open")
	otherDatabase = dbus.ObjectPath("/org/freedesktop/secrets/collection/other")
)

// database is the object of one collection.
type database struct {
	databases
	locked bool
}

func (databases) OpenSession(string, dbus.Variant) (dbus.Variant, dbus.ObjectPath, *dbus.Error) {
	return dbus.MakeVariant(""), "/org/freedesktop/secrets/session/s1", nil
}

func (databases) ReadAlias(string) (dbus.ObjectPath, *dbus.Error) { return openDatabase, nil }

// SearchAll is SearchItems of the service.
func (databases) SearchAll(map[string]string) (open, shut []dbus.ObjectPath, _ *dbus.Error) {
	return []dbus.ObjectPath{}, []dbus.ObjectPath{}, nil
}

// SearchItems is that of a collection.
func (databases) SearchItems(map[string]string) ([]dbus.ObjectPath, *dbus.Error) {
	return []dbus.ObjectPath{}, nil
}

// Get is that of properties.
func (d database) Get(_, name string) (dbus.Variant, *dbus.Error) {
	if name == "Collections" {
		return dbus.MakeVariant([]dbus.ObjectPath{openDatabase, otherDatabase}), nil
	}
	return dbus.MakeVariant(d.locked), nil
}

func startDatabases(t *testing.T, d databases, names ...string) *secretservice.Bus {
	bus := secretservice.StartBus(t)
	conn, err := dbus.Connect(bus.Address)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.ExportWithMap(d, map[string]string{"SearchAll": "SearchItems", "SearchItems": "OfACollection"}, servicePath, serviceIface))
	for path, locked := range map[dbus.ObjectPath]bool{servicePath: false, openDatabase: false, otherDatabase: d.locked} {
		object := database{d, locked}
		require.NoError(t, conn.Export(object, path, "org.freedesktop.DBus.Properties"))
		if path != servicePath {
			require.NoError(t, conn.Export(object, path, collectionIface))
		}
	}
	for _, name := range append(names, busName) {
		_, err := conn.RequestName(name, dbus.NameFlagDoNotQueue)
		require.NoError(t, err)
	}
	return bus
}

// A key that the Secret Service does not find is gone only if it was stored over this
// bus, all collections are open, and there are no others that only the user can open.
func TestSecretServiceKeysThatMayBeElsewhere(t *testing.T) {
	const keePassXC = "org.keepassxc.KeePassXC.MainWindow"
	for name, c := range map[string]struct {
		names     []string
		locked    bool // whether another collection is
		elsewhere bool // whether the key was stored over another bus
		says      string
		situation Situation // "" if the key is gone
	}{
		"every collection is open":                {},
		"another collection is locked":            {locked: true, says: "collection is locked", situation: Locked},
		"KeePassXC, another database is locked":   {names: []string{keePassXC}, locked: true, says: "collection is locked", situation: Locked},
		"KeePassXC, another database is not open": {names: []string{keePassXC}, says: "KeePassXC", situation: NoSession},
		"stored over another bus":                 {elsewhere: true, says: "another D-Bus session bus", situation: NoSession},
	} {
		t.Run(name, func(t *testing.T) {
			bus := startDatabases(t, databases{c.locked}, c.names...)
			useBus(t, bus.Address)
			k := System()
			place, err := NewKeys(k, "app").place(t.Context())
			require.NoError(t, err)
			ref := refAt("0123", place)
			require.Regexp(t, `^0123 bus=[A-Za-z0-9_-]{22}$`, ref)
			require.NotEqual(t, strings.TrimPrefix(ref, "0123"), strings.TrimPrefix(refAt("4567", place), "4567"), "two files have nothing in common")
			if c.elsewhere {
				ref = "0123" // over the bus of the user's login
			}
			for wrapper, k := range wrappers(k) {
				_, err := NewKeys(k, "app").Key(t.Context(), ref)
				if c.situation == "" {
					require.ErrorIs(t, err, persistence.ErrKeyMissing, wrapper)
					continue
				}
				require.NotErrorIs(t, err, persistence.ErrKeyMissing, wrapper)
				require.ErrorIs(t, err, c.situation, wrapper)
				require.ErrorContains(t, err, c.says, wrapper)
				require.NotEmpty(t, persistence.Remedy(err), wrapper)
				seen, err := NewKeys(k, "app").place(t.Context())
				require.NoError(t, err)
				require.Equal(t, place, seen, wrapper)
			}
			// Control: who believes the search gives up a sound file.
			_, err = NewKeys(believing{k}, "app").Key(t.Context(), ref)
			require.ErrorIs(t, err, persistence.ErrKeyMissing)
		})
	}
}

// The bus of the user's login is the same in every session, and needs no word. Every
// other bus has its own.
func TestPlaceOfTheBus(t *testing.T) {
	s := &secretService{}
	noUserBus(t)
	login := filepath.Join(runUser, strconv.Itoa(os.Getuid()), "bus")
	seen := map[string]string{}
	for address, usual := range map[string]bool{
		"unix:path=" + login:                             true,
		"unix:path=" + login + ",guid=0123":              true,
		"unix:path=" + login + ";unix:path=/nowhere/b":   false,
		"unix:path=/nowhere/a":                           false,
		"unix:path=/nowhere/b":                           false,
		"unix:abstract=/nowhere/a":                       false,
		"unix:path=" + filepath.Dir(login) + "/bus-2":    false,
		"unix:path=" + strings.Repeat("a", 100) + "/bus": false,
	} {
		t.Setenv("DBUS_SESSION_BUS_ADDRESS", address)
		place := s.place()
		require.Equal(t, usual, place == "", address)
		require.Equal(t, place, s.place())
		if !usual {
			require.Empty(t, seen[place], address)
			seen[place] = address
		}
	}
	// The example of FORMAT.md.
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/tmp/dbus-8vfVsX1k9q,guid=0123")
	require.Equal(t, "adcf592e71ae3c8f79d68acf8976217a bus=s6WbnNPD5fBhiL-E5nKETA", refAt("adcf592e71ae3c8f79d68acf8976217a", s.place()))
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "")
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	require.Empty(t, s.place(), "there is no bus")
}

// The kernel's keyring, told through a wrapper, is the same one in this boot and user
// namespace only.
func TestPlaceOfTheKernel(t *testing.T) {
	k := kernel{}
	require.Regexp(t, `^kernel\x00[0-9a-f-]{36}\x00user:\[\d+\]$`, k.place())
	require.Equal(t, k.place(), k.place())
	_, err := k.seesAll(t.Context(), true)
	require.NoError(t, err)
	_, err = k.seesAll(t.Context(), false)
	require.Equal(t, NoSession, SituationOf(err))
}
