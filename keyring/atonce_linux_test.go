package keyring

import (
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/test/secretservice"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// together is a Secret Service that answers the calls of a read only when it has
// that many of them.
type together struct {
	want int
	mu   sync.Mutex
	come int
	all  chan struct{}
}

func (s *together) wait() {
	s.mu.Lock()
	if s.come++; s.come == s.want {
		close(s.all)
	}
	s.mu.Unlock()
	<-s.all
}

func (s *together) OpenSession(string, dbus.Variant) (dbus.Variant, dbus.ObjectPath, *dbus.Error) {
	s.wait()
	return dbus.MakeVariant(""), "/org/freedesktop/secrets/session/s1", nil
}

func (s *together) SearchItems(map[string]string) ([]dbus.ObjectPath, *dbus.Error) {
	s.wait()
	return []dbus.ObjectPath{loginPath + "/1"}, nil
}

// Get is that of properties.
func (s *together) Get(_, name string) (dbus.Variant, *dbus.Error) {
	s.wait()
	if name == "Collections" {
		return dbus.MakeVariant([]dbus.ObjectPath{loginPath}), nil
	}
	return dbus.MakeVariant(false), nil
}

func (s *together) GetSecret(session dbus.ObjectPath) (apiSecret, *dbus.Error) {
	return apiSecret{session, []byte{}, []byte("secret"), "text/plain"}, nil
}

// A read asks at once what does not depend on each other: it waits twice for the
// service. The control is a service that waits for one call more than there are.
func TestReadAsksAtOnce(t *testing.T) {
	for _, want := range []int{4, 5} {
		bus := secretservice.StartBus(t)
		useBus(t, bus.Address)
		s := &together{want: want, all: make(chan struct{})}
		t.Cleanup(func() {
			select {
			case <-s.all:
			default:
				close(s.all)
			}
		})
		conn, err := dbus.Connect(bus.Address)
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
		require.NoError(t, conn.ExportMethodTable(map[string]any{"OpenSession": s.OpenSession}, servicePath, serviceIface))
		require.NoError(t, conn.ExportMethodTable(map[string]any{"SearchItems": s.SearchItems}, loginPath, collectionIface))
		require.NoError(t, conn.ExportMethodTable(map[string]any{"GetSecret": s.GetSecret}, loginPath+"/1", itemIface))
		for _, path := range []dbus.ObjectPath{servicePath, loginPath} {
			require.NoError(t, conn.ExportMethodTable(map[string]any{"Get": s.Get}, path, "org.freedesktop.DBus.Properties"))
		}
		_, err = conn.RequestName(busName, dbus.NameFlagDoNotQueue)
		require.NoError(t, err)
		timeout := time.Minute
		if want == 5 {
			timeout = 500 * time.Millisecond
		}
		secret, err := System(WithTimeout(timeout)).Get(t.Context(), "app", "alice")
		if want == 5 {
			require.ErrorIs(t, err, persistence.ErrUnavailable)
			require.Equal(t, NoAnswer, SituationOf(err))
			continue
		}
		require.NoError(t, err)
		require.Equal(t, "secret", secret)
	}
}
