package persistence_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"
	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/persistence"
)

func newCache(t *testing.T) *persistence.Cache {
	t.Helper()
	c, err := persistence.New(persistence.NewMemory())
	require.NoError(t, err)
	return c
}

func newEntries(t *testing.T, c *persistence.Cache, section string) *persistence.Entries {
	t.Helper()
	e, err := c.Entries(section)
	require.NoError(t, err)
	return e
}

var (
	hardKeys   = []string{"", "a", "A", "é", "ключ/🔑", "\x00\n\"\\<>&", "\u2028", "__proto__"}
	hardValues = [][]byte{{}, {0}, []byte("secret"), {0xff, 0xfe, '"'}, make([]byte, 4096)}
)

func TestEntries(t *testing.T) {
	c := newCache(t)
	e := newEntries(t, c, "contoso-cli")
	keys, err := e.Keys(t.Context())
	require.NoError(t, err)
	require.Empty(t, keys)
	_, err = e.Get(t.Context(), "a")
	require.ErrorIs(t, err, persistence.ErrNotFound)
	require.NoError(t, e.Delete(t.Context(), "a"))

	check := func() {
		t.Helper()
		keys, err := e.Keys(t.Context())
		require.NoError(t, err)
		require.Equal(t, slices.Sorted(slices.Values(hardKeys)), keys)
		for i, k := range hardKeys {
			v, err := e.Get(t.Context(), k)
			require.NoError(t, err, "%q", k)
			require.Equal(t, hardValues[i%len(hardValues)], v, "%q", k)
		}
	}
	for i, k := range hardKeys {
		require.NoError(t, e.Set(t.Context(), k, hardValues[i%len(hardValues)]))
	}
	check()
	_, err = newEntries(t, c, "another").Get(t.Context(), "a")
	require.ErrorIs(t, err, persistence.ErrNotFound, "sections are apart")

	// MSAL reads and writes the same cache, and a sign-out removes no entry.
	s, err := entratest.Start(entratest.Options{})
	require.NoError(t, err)
	defer s.Close()
	_, err = s.SignIn(t.Context(), c, "app", entratest.Alice, "User.Read")
	require.NoError(t, err)
	check()
	client, err := public.New("app", public.WithAuthority(entratest.Authority(entratest.Contoso)), public.WithHTTPClient(s.Client()), public.WithCache(c))
	require.NoError(t, err)
	accounts, err := client.Accounts(t.Context())
	require.NoError(t, err)
	require.NoError(t, e.Set(t.Context(), "set after MSAL has read", []byte("x")))
	require.NoError(t, client.RemoveAccount(t.Context(), accounts[0]))
	v, err := e.Get(t.Context(), "set after MSAL has read")
	require.NoError(t, err)
	require.Equal(t, "x", string(v))
	require.NoError(t, e.Delete(t.Context(), "set after MSAL has read"))
	check()

	require.NoError(t, e.Set(t.Context(), "a", nil))
	v, err = e.Get(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, []byte{}, v)
}

func TestEntriesLoseNothing(t *testing.T) {
	c := newCache(t)
	var all sync.WaitGroup
	for i := range 8 {
		e := newEntries(t, c, "contoso-cli")
		all.Go(func() {
			for n := range 10 {
				if err := e.Set(t.Context(), fmt.Sprint(i, " ", n), []byte("x")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	keys, err := newEntries(t, c, "contoso-cli").Keys(t.Context())
	require.NoError(t, err)
	require.Len(t, keys, 80)
}

func TestEntriesRefuse(t *testing.T) {
	c := newCache(t)
	for _, section := range []string{"", "\xff", "RefreshToken", "accesstoken", "OAuth2Token", "AccessTokenCAE", "tokenkeepX"} {
		_, err := c.Entries(section)
		var own *persistence.Error
		require.ErrorAs(t, err, &own, section)
		require.NotEmpty(t, own.Remedy)
	}
	e := newEntries(t, c, "contoso-cli")
	require.ErrorContains(t, e.Set(t.Context(), "\xff", nil), "UTF-8")
	_, err := c.Load(t.Context())
	require.ErrorIs(t, err, persistence.ErrNotFound)
	for _, foreign := range []string{`{"contoso-cli":1}`, `{"contoso-cli":{"a":"text"}}`, `not JSON`} {
		for op, call := range map[string]func() error{
			"load":   func() error { _, err := e.Get(t.Context(), "a"); return err },
			"keys":   func() error { _, err := e.Keys(t.Context()); return err },
			"save":   func() error { return e.Set(t.Context(), "a", nil) },
			"delete": func() error { return e.Delete(t.Context(), "a") },
		} {
			require.NoError(t, c.Update(t.Context(), func([]byte) ([]byte, error) { return []byte(foreign), nil }))
			err := call()
			if foreign == `{"contoso-cli":{"a":"text"}}` && op != "load" { // replaced or removed, whatever it was
				continue
			}
			var own *persistence.Error
			require.ErrorIs(t, err, persistence.ErrCorrupt, foreign)
			require.ErrorAs(t, err, &own)
			if op == "keys" {
				op = "load"
			}
			require.Equal(t, op, own.Op, foreign)
			// Another section does not help where nothing is a cache.
			if foreign == "not JSON" {
				require.ErrorContains(t, err, "not a token cache")
				require.NotContains(t, own.Remedy, "section")
			} else {
				require.Contains(t, own.Remedy, "section")
			}
		}
	}
}

// origin is what a program has kept elsewhere.
type origin struct {
	path    string
	broken  bool
	removed int
}

var errBusy = errors.New("busy")

func (o *origin) read(context.Context) ([]byte, error) { return os.ReadFile(o.path) }

func (o *origin) remove(context.Context) error {
	if o.broken {
		return errBusy
	}
	o.removed++
	return os.Remove(o.path)
}

func newOrigin(t *testing.T, content string) *origin {
	t.Helper()
	o := &origin{path: filepath.Join(t.TempDir(), "old")}
	require.NoError(t, os.WriteFile(o.path, []byte(content), 0o600))
	return o
}

// silent is a store that takes what it is given, and has it not.
type silent struct{ persistence.Versioned }

func (silent) SaveIf(context.Context, []byte, string) (string, error) { return "r", nil }

func TestEntriesAdopt(t *testing.T) {
	c := newCache(t)
	e := newEntries(t, c, "contoso-cli")
	o := newOrigin(t, "old secret")
	stored, err := e.Adopt(t.Context(), "k", o.read, o.remove)
	require.NoError(t, err)
	require.True(t, stored)
	require.NoFileExists(t, o.path)
	v, err := e.Get(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, "old secret", string(v))
	stored, err = e.Adopt(t.Context(), "k", o.read, o.remove)
	require.NoError(t, err, "there is nothing any more")
	require.False(t, stored)
	require.Equal(t, 1, o.removed)

	require.NoError(t, e.Set(t.Context(), "k", []byte("new secret")))
	o = newOrigin(t, "old secret")
	stored, err = e.Adopt(t.Context(), "k", o.read, o.remove)
	require.NoError(t, err)
	require.False(t, stored)
	require.NoFileExists(t, o.path)
	v, err = e.Get(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, "new secret", string(v), "what is stored is the newer")

	t.Run("what cannot be removed does not come back", func(t *testing.T) {
		e := newEntries(t, newCache(t), "contoso-cli")
		o := newOrigin(t, "old secret")
		o.broken = true
		stored, err := e.Adopt(t.Context(), "k", o.read, o.remove)
		require.ErrorIs(t, err, errBusy)
		require.True(t, stored)
		require.NotEmpty(t, persistence.Remedy(err))
		require.NoError(t, e.Delete(t.Context(), "k"))
		o.broken = false
		stored, err = e.Adopt(t.Context(), "k", o.read, o.remove)
		require.NoError(t, err)
		require.False(t, stored)
		require.NoFileExists(t, o.path)
		_, err = e.Get(t.Context(), "k")
		require.ErrorIs(t, err, persistence.ErrNotFound)

		o = newOrigin(t, "old secret")
		stored, err = e.Adopt(t.Context(), "k", o.read, o.remove)
		require.NoError(t, err)
		require.True(t, stored, "what was put back on purpose is taken over again")
	})
	t.Run("what does not read back is not removed", func(t *testing.T) {
		c, err := persistence.New(silent{persistence.NewMemory()})
		require.NoError(t, err)
		o := newOrigin(t, "old secret")
		_, err = newEntries(t, c, "contoso-cli").Adopt(t.Context(), "k", o.read, o.remove)
		require.Error(t, err)
		require.FileExists(t, o.path)
	})
	t.Run("an error of read", func(t *testing.T) {
		_, err := e.Adopt(t.Context(), "k", func(context.Context) ([]byte, error) { return nil, errBusy }, nil)
		require.Equal(t, errBusy, err)
		stored, err := e.Adopt(t.Context(), "k", func(context.Context) ([]byte, error) { return nil, fs.ErrNotExist }, nil)
		require.NoError(t, err)
		require.False(t, stored)
	})
}

func TestCacheAdopt(t *testing.T) {
	s, err := entratest.Start(entratest.Options{})
	require.NoError(t, err)
	defer s.Close()
	names := func(c *persistence.Cache) (all []string) {
		t.Helper()
		client, err := public.New("app", public.WithCache(c))
		require.NoError(t, err)
		accounts, err := client.Accounts(t.Context())
		require.NoError(t, err)
		for _, a := range accounts {
			all = append(all, a.PreferredUsername)
		}
		return all
	}
	old := newCache(t)
	_, err = s.SignIn(t.Context(), old, "app", entratest.Alice, "User.Read")
	require.NoError(t, err)
	data, err := old.Load(t.Context())
	require.NoError(t, err)

	c := newCache(t)
	_, err = s.SignIn(t.Context(), c, "app", entratest.Bob, "User.Read")
	require.NoError(t, err)
	o := newOrigin(t, string(data))
	o.broken = true
	stored, err := c.Adopt(t.Context(), o.read, o.remove)
	require.ErrorIs(t, err, errBusy)
	require.True(t, stored)
	require.ElementsMatch(t, []string{entratest.Alice.Username, entratest.Bob.Username}, names(c))

	// Alice signs out before the old file could be removed.
	require.NoError(t, c.SignOut(t.Context(), persistence.Account{HomeAccountID: entratest.Alice.HomeAccountID(), Environment: "login.microsoftonline.com"}))
	o.broken = false
	stored, err = c.Adopt(t.Context(), o.read, o.remove)
	require.NoError(t, err)
	require.False(t, stored)
	require.NoFileExists(t, o.path)
	require.Equal(t, []string{entratest.Bob.Username}, names(c))
	rest, err := c.Load(t.Context())
	require.NoError(t, err)
	require.NotContains(t, string(rest), "adopted_at")

	for _, content := range []string{"", "DPAPI blob", `{"AccessToken":{`} {
		o := newOrigin(t, content)
		_, err := c.Adopt(t.Context(), o.read, o.remove)
		require.ErrorIs(t, err, persistence.ErrCorrupt)
		require.FileExists(t, o.path)
	}
}

// A program may remove an origin that is damaged. So the error tells that from a cache
// here that is, for which the origin is still needed.
func TestAdoptTellsWhatIsDamaged(t *testing.T) {
	const sound = `{"Account":{"a":{"home_account_id":"a","environment":"e"}}}`
	for name, test := range map[string]struct {
		origin, here string
		op           string
	}{
		"the origin":                    {`{"Acc`, ``, "adopt"},
		"the origin holds nothing":      {``, ``, "adopt"},
		"what is stored here":           {sound, `{"Acc`, "save"},
		"another program's section":     {sound, `{"TokenkeepAdopted":1}`, "save"},
		"the origin, and what is here":  {`{"Acc`, `{"Acc`, "adopt"},
		"control: nothing is damaged":   {sound, `{}`, ""},
		"control: it is here in a part": {sound, sound, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c, o := newCache(t), newOrigin(t, test.origin)
			if test.here != "" {
				require.NoError(t, c.Update(t.Context(), func([]byte) ([]byte, error) { return []byte(test.here), nil }))
			}
			_, err := c.Adopt(t.Context(), o.read, o.remove)
			if test.op == "" {
				require.NoError(t, err)
				require.Equal(t, 1, o.removed)
				return
			}
			var e *persistence.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, test.op, e.Op, "%v", err)
			require.Zero(t, o.removed)
		})
	}
}
