package keyring

import (
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/test/secretservice"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// together is a Secret Service that answers the calls of a read, but for the first
// one, only when it has that many of them.
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
	if name == "Collections" { // the first call, which is alone
		return dbus.MakeVariant([]dbus.ObjectPath{loginPath}), nil
	}
	s.wait()
	return dbus.MakeVariant(false), nil
}

func (s *together) GetSecret(session dbus.ObjectPath) (apiSecret, *dbus.Error) {
	return apiSecret{session, []byte{}, []byte("secret"), "text/plain"}, nil
}

// A read asks at once what does not depend on each other: it waits three times for
// the service. The control is a service that waits for one call more than there are.
func TestReadAsksAtOnce(t *testing.T) {
	for _, want := range []int{3, 4} {
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
		if want == 4 {
			timeout = 500 * time.Millisecond
		}
		secret, err := System(WithTimeout(timeout)).Get(t.Context(), "app", "alice")
		if want == 4 {
			require.ErrorIs(t, err, persistence.ErrUnavailable)
			require.Equal(t, NoAnswer, SituationOf(err))
			continue
		}
		require.NoError(t, err)
		require.Equal(t, "secret", secret)
	}
}

// noted is a Secret Service that notes the calls that come, and takes a moment for
// the first one of a connection.
type noted struct {
	mu    sync.Mutex
	calls map[dbus.Sender][]string // "first answered" among them
}

func (n *noted) note(from dbus.Sender, what string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls[from] = append(n.calls[from], what)
}

func (n *noted) OpenSession(from dbus.Sender, _ string, _ dbus.Variant) (dbus.Variant, dbus.ObjectPath, *dbus.Error) {
	n.note(from, "OpenSession")
	return dbus.MakeVariant(""), "/org/freedesktop/secrets/session/s1", nil
}

func (n *noted) SearchItems(from dbus.Sender, _ map[string]string) ([]dbus.ObjectPath, *dbus.Error) {
	n.note(from, "SearchItems")
	return nil, nil
}

func (n *noted) SearchAll(from dbus.Sender, _ map[string]string) (open, shut []dbus.ObjectPath, _ *dbus.Error) {
	n.note(from, "SearchItems")
	return nil, nil, nil
}

func (n *noted) CreateItem(from dbus.Sender, _ map[string]dbus.Variant, _ apiSecret, _ bool) (item, prompt dbus.ObjectPath, _ *dbus.Error) {
	n.note(from, "CreateItem")
	return loginPath + "/1", noPath, nil
}

// Get is that of properties.
func (n *noted) Get(from dbus.Sender, _, name string) (dbus.Variant, *dbus.Error) {
	n.note(from, name)
	if name == "Collections" {
		<-time.After(50 * time.Millisecond) // what does not wait for the answer comes now
		n.note(from, "first answered")
		return dbus.MakeVariant([]dbus.ObjectPath{loginPath}), nil
	}
	return dbus.MakeVariant(false), nil
}

// seen returns the calls up to now.
func (n *noted) seen() map[dbus.Sender][]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := map[dbus.Sender][]string{}
	for from, calls := range n.calls {
		all[from] = slices.Clone(calls)
	}
	return all
}

// begunWell reports whether the first call of each connection needed no caller and
// was answered before the next one came.
func (n *noted) begunWell() bool {
	all := n.seen()
	for _, calls := range all {
		if len(calls) < 2 || calls[0] != "Collections" || calls[1] != "first answered" {
			return false
		}
	}
	return len(all) > 0
}

// Every operation begins with a call that GNOME Keyring survives whenever it comes.
// The controls begin as other clients do: with a session, and with several calls at
// once.
func TestFirstCallIsAloneAndHarmless(t *testing.T) {
	begin := func(t *testing.T) *noted {
		bus := secretservice.StartBus(t)
		useBus(t, bus.Address)
		n := &noted{calls: map[dbus.Sender][]string{}}
		conn, err := dbus.Connect(bus.Address)
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
		require.NoError(t, conn.ExportMethodTable(map[string]any{"OpenSession": n.OpenSession, "SearchItems": n.SearchAll}, servicePath, serviceIface))
		require.NoError(t, conn.ExportMethodTable(map[string]any{"SearchItems": n.SearchItems, "CreateItem": n.CreateItem}, loginPath, collectionIface))
		for _, path := range []dbus.ObjectPath{servicePath, loginPath} {
			require.NoError(t, conn.ExportMethodTable(map[string]any{"Get": n.Get}, path, "org.freedesktop.DBus.Properties"))
		}
		_, err = conn.RequestName(busName, dbus.NameFlagDoNotQueue)
		require.NoError(t, err)
		return n
	}
	t.Run("operations", func(t *testing.T) {
		n, ring := begin(t), System()
		_, err := ring.Get(t.Context(), "app", "alice")
		require.ErrorIs(t, err, persistence.ErrNotFound)
		require.NoError(t, ring.Set(t.Context(), "app", "alice", "secret"))
		require.ErrorIs(t, ring.Delete(t.Context(), "app", "alice"), persistence.ErrNotFound)
		_, err = ring.(Lister).List(t.Context(), "app")
		require.NoError(t, err)
		require.Len(t, n.seen(), 4)
		require.True(t, n.begunWell(), "%v", n.seen())
	})
	for name, first := range map[string][]string{
		"control: a session":   {serviceIface + ".OpenSession"},
		"control: two at once": {"org.freedesktop.DBus.Properties.Get", serviceIface + ".OpenSession"},
	} {
		t.Run(name, func(t *testing.T) {
			n := begin(t)
			conn, err := dbus.Connect(os.Getenv("DBUS_SESSION_BUS_ADDRESS"))
			require.NoError(t, err)
			defer conn.Close()
			var begun []*dbus.Call
			for _, method := range first {
				args := []any{"plain", dbus.MakeVariant("")}
				if method != serviceIface+".OpenSession" {
					args = []any{serviceIface, "Collections"}
				}
				begun = append(begun, conn.Object(busName, servicePath).Go(method, 0, make(chan *dbus.Call, 1), args...))
			}
			for _, call := range begun {
				require.NoError(t, (<-call.Done).Err)
			}
			require.False(t, n.begunWell(), "%v", n.seen())
		})
	}
}

// A real GNOME Keyring lives through many connections. It does not where they begin
// with OpenSession: version 42.1 then ended after 3 to 1,400 of them.
func TestKeyringSurvivesManyConnections(t *testing.T) {
	bus, _ := unlockedKeyring(t)
	useBus(t, bus.Address)
	ring, reads := System(), 300
	if os.Getenv("TOKENKEEP_LONG") == "1" {
		reads = 5000
	}
	require.NoError(t, ring.Set(t.Context(), "app", "alice", "secret"))
	for range reads {
		_, err := ring.Get(t.Context(), "app", "alice")
		require.NoError(t, err)
	}
}
