//go:build linux

package secretservice

import (
	"sync/atomic"
	"testing"

	"github.com/godbus/dbus/v5"
)

// Fake is a Secret Service whose only collection is locked and whose prompts
// do as the test says: the answers that GNOME Keyring gives only to a person.
type Fake struct {
	conn *dbus.Conn
	// Shown and Dismissed tell of each prompt that was.
	Shown, Dismissed chan struct{}
	// OnPrompt is called when a prompt is shown.
	OnPrompt func(f *Fake)

	locked atomic.Bool
}

const (
	fakeCollection = dbus.ObjectPath("/org/freedesktop/secrets/collection/fake")
	fakePrompt     = dbus.ObjectPath("/org/freedesktop/secrets/prompt/p1")
	fakeItem       = dbus.ObjectPath("/org/freedesktop/secrets/collection/fake/1")
)

// StartFake starts one; onPrompt may be nil, for prompts that are never answered.
func (b *Bus) StartFake(t testing.TB, onPrompt func(*Fake)) *Fake {
	t.Helper()
	conn, err := dbus.Connect(b.Address)
	check(t, err)
	t.Cleanup(func() { conn.Close() })
	f := &Fake{conn: conn, Shown: make(chan struct{}, 16), Dismissed: make(chan struct{}, 16), OnPrompt: onPrompt}
	f.locked.Store(true)
	check(t, conn.Export(fakeService{f}, path, "org.freedesktop.Secret.Service"))
	check(t, conn.Export(fakeProperties{f}, path, "org.freedesktop.DBus.Properties"))
	check(t, conn.Export(fakeProperties{f}, fakeCollection, "org.freedesktop.DBus.Properties"))
	check(t, conn.Export(fakeCollectionObject{}, fakeCollection, "org.freedesktop.Secret.Collection"))
	check(t, conn.Export(fakeItemObject{}, fakeItem, "org.freedesktop.Secret.Item"))
	check(t, conn.Export(fakePromptObject{f}, fakePrompt, "org.freedesktop.Secret.Prompt"))
	_, err = conn.RequestName(name, dbus.NameFlagDoNotQueue)
	check(t, err)
	return f
}

// StartEmpty starts a Secret Service that has no collection, and has those names on
// the bus beside its own, as keyring programs do.
func (b *Bus) StartEmpty(t testing.TB, names ...string) {
	t.Helper()
	conn, err := dbus.Connect(b.Address)
	check(t, err)
	t.Cleanup(func() { conn.Close() })
	check(t, conn.Export(emptyService{}, path, "org.freedesktop.Secret.Service"))
	check(t, conn.Export(emptyProperties{}, path, "org.freedesktop.DBus.Properties"))
	for _, n := range append([]string{name}, names...) {
		_, err = conn.RequestName(n, dbus.NameFlagDoNotQueue)
		check(t, err)
	}
}

type emptyService struct{}

func (emptyService) ReadAlias(string) (dbus.ObjectPath, *dbus.Error) { return "/", nil }

type emptyProperties struct{}

func (emptyProperties) Get(_, _ string) (dbus.Variant, *dbus.Error) {
	return dbus.MakeVariant([]dbus.ObjectPath{}), nil
}

// Complete ends the prompt that is shown.
func (f *Fake) Complete(dismissed bool) {
	f.locked.Store(dismissed)
	f.conn.Emit(fakePrompt, "org.freedesktop.Secret.Prompt.Completed", dismissed, dbus.MakeVariant([]dbus.ObjectPath{fakeCollection}))
}

// Die makes the service leave the bus, as a killed one does.
func (f *Fake) Die() { f.conn.Close() }

type fakeService struct{ f *Fake }

func (fakeService) OpenSession(string, dbus.Variant) (dbus.Variant, dbus.ObjectPath, *dbus.Error) {
	return dbus.MakeVariant(""), "/org/freedesktop/secrets/session/s1", nil
}

func (fakeService) ReadAlias(string) (dbus.ObjectPath, *dbus.Error) { return fakeCollection, nil }

func (s fakeService) Unlock(paths []dbus.ObjectPath) ([]dbus.ObjectPath, dbus.ObjectPath, *dbus.Error) {
	if !s.f.locked.Load() {
		return paths, "/", nil
	}
	return nil, fakePrompt, nil
}

type fakeProperties struct{ f *Fake }

func (p fakeProperties) Get(_, property string) (dbus.Variant, *dbus.Error) {
	switch property {
	case "Collections":
		return dbus.MakeVariant([]dbus.ObjectPath{fakeCollection}), nil
	case "Locked":
		return dbus.MakeVariant(p.f.locked.Load()), nil
	}
	return dbus.Variant{}, dbus.NewError("org.freedesktop.DBus.Error.UnknownProperty", nil)
}

type fakeCollectionObject struct{}

func (fakeCollectionObject) SearchItems(map[string]string) ([]dbus.ObjectPath, *dbus.Error) {
	return []dbus.ObjectPath{fakeItem}, nil
}

type fakeItemObject struct{}

// Planted is what the fake keeps: a secret that no error may show.
const Planted = "planted-secret-0xC0FFEE"

func (fakeItemObject) GetSecret(session dbus.ObjectPath) (secret, *dbus.Error) {
	return secret{session, []byte{}, []byte(Planted), "text/plain"}, nil
}

// Delete fails as a careless service might: with the secret in its message.
func (fakeItemObject) Delete() (dbus.ObjectPath, *dbus.Error) {
	return "/", dbus.NewError("org.example.Careless", []any{"cannot delete " + Planted})
}

type fakePromptObject struct{ f *Fake }

func (p fakePromptObject) Prompt(string) *dbus.Error {
	p.f.Shown <- struct{}{}
	if p.f.OnPrompt != nil {
		p.f.OnPrompt(p.f)
	}
	return nil
}

func (p fakePromptObject) Dismiss() *dbus.Error {
	p.f.Dismissed <- struct{}{}
	return nil
}
