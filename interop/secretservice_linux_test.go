package interop

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/lens"
	"github.com/tokenkeep/tokenkeep/internal/test/env"
	"github.com/tokenkeep/tokenkeep/internal/test/secretservice"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// serviceFolder starts a Secret Service and returns a signal's path.
func serviceFolder(t *testing.T) (*secretservice.Bus, *secretservice.Keyring, string) {
	t.Helper()
	signal := folder(t)
	bus := secretservice.StartBus(t)
	k := bus.StartKeyring(t, true)
	for _, set := range bus.Env() {
		if name, value, _ := strings.Cut(set, "="); name != "PATH" && name != "HOME" {
			t.Setenv(name, value)
		}
	}
	t.Setenv("DISPLAY", "")
	t.Setenv("WAYLAND_DISPLAY", "")
	return bus, k, signal
}

func needLibsecret(t testing.TB) {
	t.Helper()
	needPython(t)
	env.Require(t, exec.Command(python, "-c", "import gi; gi.require_version('Secret', '1'); from gi.repository import Secret").Run() == nil,
		"libsecret is not there for Python: apt-get install gir1.2-secret-1")
}

// contoso is an item as an author names it, and pythons the same for peer.py.
var contoso = Item{Schema: "contoso tokens", Attributes: map[string]string{"app": "contoso"}, Label: "Contoso"}

const pythons = "SECRET_SERVICE=contoso tokens:app=contoso"

func onService(t testing.TB, item Item, signal string, o Options) *Store {
	t.Helper()
	if len(o.Clients) == 0 {
		o.Clients = []string{client}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s, err := SecretService(item, signal, o)
	require.NoError(t, err)
	return s
}

func pythonOnService(t testing.TB, args ...string) *peer {
	cmd := pythonCommand(args...)
	cmd.Env = append(os.Environ(), pythons)
	return startPeer(t, cmd)
}

// What MSAL Python stores in the Secret Service is read, and nothing is changed.
func TestSecretServiceOfPython(t *testing.T) {
	needLibsecret(t)
	bus, _, signal := serviceFolder(t)
	s := onService(t, contoso, signal, Options{Clients: []string{"python-0"}})
	_, err := s.Load(t.Context())
	require.ErrorIs(t, err, persistence.ErrNotFound)
	require.Empty(t, names(t, filepath.Dir(signal)))
	require.Empty(t, pythonOnService(t, "add", signal, "python", "2", "0").rest().errors)
	before, items := stateOf(t, filepath.Dir(signal)), bus.Items(t)
	data, err := s.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, "secret-of-python-0", secretOf(t, data, "python-0"))
	require.Empty(t, secretOf(t, data, "python-1"))
	require.ErrorIs(t, s.Save(t.Context(), []byte("{}")), ErrReadOnly)
	unlock, err := s.Lock(t.Context())
	require.NoError(t, err)
	require.NoError(t, unlock())
	require.Equal(t, before, stateOf(t, filepath.Dir(signal)))
	require.Equal(t, items, bus.Items(t))
	require.True(t, s.Describe().Encrypted)

	// What it stores later is seen.
	_, rev, err := s.LoadRevision(t.Context())
	require.NoError(t, err)
	all := onService(t, contoso, signal, Options{Clients: []string{"again-0"}})
	now, err := all.Revision(t.Context())
	require.NoError(t, err)
	require.Empty(t, now)
	require.Empty(t, pythonOnService(t, "add", signal, "again", "1", "0").rest().errors)
	now, err = all.Revision(t.Context())
	require.NoError(t, err)
	require.NotEmpty(t, now)
	now, err = s.Revision(t.Context())
	require.NoError(t, err)
	require.Equal(t, rev, now, "others' entries do not matter")
}

// MSAL Python's default schema is made of the signal's path.
func TestSecretServiceDefaultSchema(t *testing.T) {
	needLibsecret(t)
	_, _, signal := serviceFolder(t)
	cmd := pythonCommand("add", signal, "python", "1", "0")
	cmd.Env = append(os.Environ(), "SECRET_SERVICE=-:=")
	require.Empty(t, startPeer(t, cmd).rest().errors)
	schema := fmt.Sprintf("%x", sha256.Sum256([]byte(signal)))
	data, err := onService(t, Item{Schema: schema}, signal, Options{Clients: []string{"python-0"}}).Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, "secret-of-python-0", secretOf(t, data, "python-0"))
}

// MSAL Python and this package write at once: nothing is lost, nobody fails.
func TestSecretServiceWithPythonAtOnce(t *testing.T) {
	needLibsecret(t)
	_, _, signal := serviceFolder(t)
	n := 8
	if long {
		n = 25
	}
	var pythons []*peer
	var clients []string
	for range 2 { // one after the other: at its start, MSAL Python tries the keyring with an item that all share
		p := pythonOnService(t, "turns", signal)
		require.Equal(t, "ready", <-p.lines, "%s", &p.err)
		pythons = append(pythons, p)
	}
	for i, p := range pythons {
		for j := range n {
			fmt.Fprintf(p.in, "python%d-%d\n", i, j)
		}
		require.NoError(t, p.in.Close())
	}
	var all sync.WaitGroup
	failed := make(chan error, 2*n)
	for i := range 2 {
		for j := range n {
			clients = append(clients, fmt.Sprint("ours", i, "-", j), fmt.Sprint("python", i, "-", j))
		}
		all.Go(func() {
			for j := range n {
				name := fmt.Sprint("ours", i, "-", j)
				c, err := persistence.New(onService(t, contoso, signal, Options{Clients: []string{name}, Write: true}))
				if err == nil {
					err = c.Update(t.Context(), func([]byte) ([]byte, error) { return []byte(rt(name, "secret-of-"+name)), nil })
				}
				if err != nil {
					failed <- err
				}
			}
		})
	}
	all.Wait()
	close(failed)
	for err := range failed {
		require.NoError(t, err)
	}
	for _, p := range pythons {
		for range n {
			require.Equal(t, "ok", <-p.lines, "%s", &p.err)
		}
	}
	data, err := onService(t, contoso, signal, Options{Clients: clients}).Load(t.Context())
	require.NoError(t, err)
	for _, c := range clients {
		require.Equal(t, "secret-of-"+c, secretOf(t, data, c))
	}
	require.Equal(t, []string{filepath.Base(signal)}, names(t, filepath.Dir(signal)))
}

// The control: the same without the lock loses entries.
func TestSecretServiceWithoutALock(t *testing.T) {
	_, _, signal := serviceFolder(t)
	writeFile(t, signal, "")
	lost := false
	for round := 0; !lost; round++ {
		var both sync.WaitGroup
		names := []string{fmt.Sprint("a", round), fmt.Sprint("b", round)}
		for _, name := range names {
			both.Go(func() {
				l := lens.New([]string{name}, false)
				now, err := contoso.load(t.Context())
				if err != nil && !errors.Is(err, persistence.ErrNotFound) {
					t.Error(err)
				}
				next, err := l.Put(now, []byte(rt(name, "x")), time.Now())
				if err != nil {
					t.Error(err)
				}
				if err := contoso.store(t.Context(), next); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		require.False(t, t.Failed())
		data, err := onService(t, contoso, signal, Options{Clients: names}).Load(t.Context())
		require.NoError(t, err)
		lost = secretOf(t, data, names[0]) == "" || secretOf(t, data, names[1]) == ""
	}
}

// A running MSAL Python sees what is stored here, at once. It does not see what is
// put into the item without the signal: that is the control.
func TestSecretServiceSignals(t *testing.T) {
	needLibsecret(t)
	_, _, signal := serviceFolder(t)
	require.Empty(t, pythonOnService(t, "add", signal, "python", "1", "0").rest().errors)
	reader := pythonOnService(t, "sees", signal)
	require.Equal(t, "ready", <-reader.lines)
	sees := func(client string) string {
		t.Helper()
		fmt.Fprintln(reader.in, client)
		return <-reader.lines
	}
	require.Equal(t, "1", sees("python-0"))
	s := onService(t, contoso, signal, Options{Write: true})
	for i := range 10 {
		require.NoError(t, s.Save(t.Context(), []byte(rt(client, fmt.Sprint("secret ", i)))))
		require.Equal(t, "1", sees(client))
		require.NoError(t, s.Delete(t.Context()))
		require.Equal(t, "0", sees(client))
	}
	require.Equal(t, "1", sees("python-0"))
	require.NoError(t, contoso.foreign().Set(t.Context(), []byte(rt("silent", "x"))))
	require.Equal(t, "0", sees("silent"), "control")
}

// Where there was no item, one is made, with its signal, and MSAL Python goes on
// with it.
func TestSecretServiceMakesTheItem(t *testing.T) {
	needLibsecret(t)
	bus, _, signal := serviceFolder(t)
	s := onService(t, contoso, signal, Options{Write: true})
	require.NoError(t, s.Delete(t.Context()))
	require.Empty(t, names(t, filepath.Dir(signal)))
	require.NoError(t, s.Save(t.Context(), []byte(rt(client, "mine"))))
	i, err := os.Stat(signal)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), i.Mode())
	require.Empty(t, pythonOnService(t, "add", signal, "python", "1", "0").rest().errors)
	require.Len(t, bus.Items(t), 1, "MSAL Python has found the item")
	data, err := onService(t, contoso, signal, Options{Clients: []string{client, "python-0"}}).Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, "mine", secretOf(t, data, client))
	require.Equal(t, "secret-of-python-0", secretOf(t, data, "python-0"))

	// Without the name of the schema, none is made.
	anySchema := Item{Attributes: map[string]string{"app": "fabrikam"}}
	other := filepath.Join(t.TempDir(), "signal")
	err = onService(t, anySchema, other, Options{Write: true}).Save(t.Context(), []byte(rt(client, "mine")))
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	require.NotEmpty(t, persistence.Remedy(err))
	require.Len(t, bus.Items(t), 1)
	require.NoFileExists(t, other)
	require.NoFileExists(t, other+".lockfile")
}

// MSAL.NET's and MSAL Go's items are base64 text.
func TestSecretServiceBase64(t *testing.T) {
	bus, _, signal := serviceFolder(t)
	bus.AddItem(t, "MSALCache", map[string]string{"app": "contoso", schemaAttribute: "contoso tokens"}, base64.StdEncoding.EncodeToString([]byte(rt(client, "theirs"))))
	writeFile(t, signal, "")
	item := contoso
	item.Base64 = true
	s := onService(t, item, signal, Options{Write: true})
	data, err := s.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, "theirs", secretOf(t, data, client))
	require.NoError(t, s.Save(t.Context(), []byte(rt(client, "ours"))))
	text, err := item.foreign().Get(t.Context())
	require.NoError(t, err)
	plain, err := base64.StdEncoding.DecodeString(string(text))
	require.NoError(t, err)
	require.Equal(t, "ours", secretOf(t, plain, client))

	for _, c := range []struct {
		item   Item
		secret string
		remedy string
	}{
		{contoso, base64.StdEncoding.EncodeToString([]byte(rt(client, "x"))), "Set Item.Base64"},
		{item, rt(client, "x"), "Leave Item.Base64 unset"},
	} {
		require.NoError(t, contoso.foreign().Set(t.Context(), []byte(c.secret)))
		writeFile(t, signal, "changed")
		settle(t, signal)
		_, err := onService(t, c.item, signal, Options{}).Load(t.Context())
		require.ErrorIs(t, err, persistence.ErrCorrupt)
		require.Contains(t, persistence.Remedy(err), c.remedy)
	}
}

// Each state in which the cache cannot be read has its class, and nothing of it is
// written to.
func TestSecretServiceCannotBeRead(t *testing.T) {
	bus, k, signal := serviceFolder(t)
	item := contoso.foreign()
	s := onService(t, contoso, signal, Options{Write: true})
	load := func() error {
		_, err := onService(t, contoso, signal, Options{}).Load(t.Context())
		if err != nil {
			require.NotContains(t, err.Error(), "planted")
		}
		return err
	}
	require.NoError(t, item.Set(t.Context(), []byte(rt(client, "planted"))))
	require.ErrorIs(t, load(), persistence.ErrNotFound, "without a signal nothing is stored")
	writeFile(t, signal, "")
	require.NoError(t, load())
	settle(t, signal)
	for _, bad := range []string{`{"RefreshToken":{"planted`, `[{"client_id":"x","client_secret":"planted"}]`, "planted", `"planted"`} {
		require.NoError(t, item.Set(t.Context(), []byte(bad)))
		require.ErrorIs(t, load(), persistence.ErrCorrupt, bad)
		require.ErrorIs(t, s.Save(t.Context(), []byte(rt(client, "x"))), persistence.ErrCorrupt)
		got, err := item.Get(t.Context())
		require.NoError(t, err)
		require.Equal(t, bad, string(got))
	}
	require.NoError(t, item.Set(t.Context(), []byte(" ")))
	require.ErrorIs(t, load(), persistence.ErrNotFound)

	k.Lock(t)
	require.ErrorIs(t, load(), persistence.ErrKeyringLocked)
	require.ErrorIs(t, s.Save(t.Context(), []byte(rt(client, "x"))), persistence.ErrKeyringLocked)
	k.Kill(t)
	bus.AwaitNoService(t)
	require.ErrorIs(t, load(), persistence.ErrUnavailable)
	require.ErrorIs(t, s.Save(t.Context(), []byte(rt(client, "x"))), persistence.ErrUnavailable)
	require.Equal(t, []string{filepath.Base(signal)}, names(t, filepath.Dir(signal)), "no lock is left")

	_, err := SecretService(Item{}, signal, Options{Clients: []string{client}})
	require.Error(t, err)
	_, err = SecretService(contoso, signal, Options{})
	require.Error(t, err)
	_, err = SecretService(contoso, "", Options{Clients: []string{client}})
	require.Error(t, err)
}

// An item that the other program has removed is not seen any more, though it was
// read before: that is no damage.
func TestSecretServiceItemRemoved(t *testing.T) {
	secretservice.Need(t, "secret-tool")
	_, _, signal := serviceFolder(t)
	s := onService(t, contoso, signal, Options{Write: true})
	require.NoError(t, s.Save(t.Context(), []byte(rt(client, "mine"))))
	_, err := s.Load(t.Context())
	require.NoError(t, err)
	require.NoError(t, exec.Command("secret-tool", "clear", "app", "contoso").Run())
	_, err = s.Load(t.Context())
	require.ErrorIs(t, err, persistence.ErrNotFound)
}

// A save is refused if what is seen has changed since, by whomever.
func TestSecretServiceRevisions(t *testing.T) {
	_, _, signal := serviceFolder(t)
	ctx := t.Context()
	s := onService(t, contoso, signal, Options{Write: true})
	rev, err := s.SaveIf(ctx, []byte(rt(client, "one")), "")
	require.NoError(t, err)
	_, err = s.SaveIf(ctx, []byte(rt(client, "two")), "")
	require.ErrorIs(t, err, persistence.ErrConflict)
	another := onService(t, contoso, signal, Options{Write: true, Clients: []string{"another"}})
	require.NoError(t, another.Save(ctx, []byte(rt("another", "x"))))
	_, now, err := s.LoadRevision(ctx)
	require.NoError(t, err)
	if !strings.HasPrefix(rev, "changed-") {
		require.Equal(t, rev, now)
	}
	_, err = s.SaveIf(ctx, []byte(rt(client, "two")), now)
	require.NoError(t, err)
	require.ErrorIs(t, s.DeleteIf(ctx, now), persistence.ErrConflict)
	_, now, err = s.LoadRevision(ctx)
	require.NoError(t, err)
	require.NoError(t, s.DeleteIf(ctx, now))
	data, err := another.Load(ctx)
	require.NoError(t, err)
	require.Equal(t, "x", secretOf(t, data, "another"), "others' entries stay")
}

// For a keyring that does not answer, the other programs' lock is not taken.
func TestSecretServiceThatHangs(t *testing.T) {
	_, k, signal := serviceFolder(t)
	s := onService(t, contoso, signal, Options{Write: true})
	require.NoError(t, s.Save(t.Context(), []byte(rt(client, "mine"))))
	k.Pause(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	saved := make(chan error)
	go func() { saved <- s.Save(ctx, []byte(rt(client, "x"))) }()
	for {
		select {
		case err := <-saved:
			require.ErrorIs(t, err, context.DeadlineExceeded)
			return
		case <-time.After(5 * time.Millisecond):
			require.Equal(t, []string{filepath.Base(signal)}, names(t, filepath.Dir(signal)))
		}
	}
}
