package interop

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/tokenkeep/tokenkeep/internal/test/env"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// What azidentity/cache v0.4.0 made of rt(client, "mine"), and the key.
const writtenByAzureIdentity = "testdata/azureidentity/msal.cache"

func azureIdentityKey() []byte {
	key := make([]byte, 33) // the last one is the NUL that the writer adds
	for i := range 32 {
		key[i] = byte(i)
	}
	return key
}

// azureIdentityFolder returns the name of a cache that is nobody else's, and its
// path. The key of that name is removed at the end.
func azureIdentityFolder(t *testing.T) (name, path string) {
	t.Helper()
	folder(t)
	name = "tokenkeep-test-" + rand.Text()
	_, err := kernelKeys(name)
	env.Require(t, err == nil, "the kernel's keyring does not work here")
	t.Cleanup(func() { removeKeys(name) })
	dir := filepath.Join(os.Getenv("XDG_CACHE_HOME"), ".IdentityService")
	require.NoError(t, os.Mkdir(dir, 0o700))
	return name, filepath.Join(dir, name)
}

// inRing calls do with one of the user's keyrings, as one that this thread possesses.
func inRing(link func() (int, error), do func(ring int) error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ring, err := link()
	if err == nil {
		err = do(ring)
		_, _ = unix.KeyctlInt(unix.KEYCTL_UNLINK, ring, unix.KEY_SPEC_THREAD_KEYRING, 0, 0)
	}
	return err
}

func addKey(t *testing.T, link func() (int, error), name string, key []byte) {
	t.Helper()
	require.NoError(t, inRing(link, func(ring int) error {
		_, err := unix.AddKey("user", name, key, ring)
		return err
	}))
}

func removeKeys(name string) {
	for _, link := range []func() (int, error){linkPersistent, linkUser} {
		_ = inRing(link, func(ring int) error {
			id, err := unix.KeyctlSearch(ring, "user", name, 0)
			if err == nil {
				_, _ = unix.KeyctlInt(unix.KEYCTL_REVOKE, id, 0, 0, 0)
				_, err = unix.KeyctlInt(unix.KEYCTL_UNLINK, id, ring, 0, 0)
			}
			return err
		})
	}
}

func copyWritten(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(writtenByAzureIdentity)
	require.NoError(t, err)
	writeFile(t, path, string(text))
}

func azureIdentityStore(t *testing.T, name string) *Store {
	t.Helper()
	s, err := AzureIdentity(name, Options{Clients: []string{client}})
	require.NoError(t, err)
	return s
}

// The key is found in the persistent keyring and in the user's.
func TestAzureIdentity(t *testing.T) {
	for ring, link := range map[string]func() (int, error){"persistent": linkPersistent, "user": linkUser} {
		t.Run(ring, func(t *testing.T) {
			name, path := azureIdentityFolder(t)
			copyWritten(t, path)
			addKey(t, link, name, azureIdentityKey())
			before := stateOf(t, filepath.Dir(path))
			s := azureIdentityStore(t, name)
			require.Equal(t, persistence.Description{Backend: "Azure Identity", Location: path, Encrypted: true}, s.Describe())
			data, rev, err := s.LoadRevision(t.Context())
			require.NoError(t, err)
			require.Equal(t, "mine", secretOf(t, data, client))
			now, err := s.Revision(t.Context())
			require.NoError(t, err)
			require.Equal(t, rev, now)
			require.ErrorIs(t, s.Save(t.Context(), []byte("{}")), ErrReadOnly)
			require.Equal(t, before, stateOf(t, filepath.Dir(path)))
		})
	}
}

// A key that is another one in the first keyring does not hide the right one.
func TestAzureIdentityTriesBothKeys(t *testing.T) {
	name, path := azureIdentityFolder(t)
	copyWritten(t, path)
	addKey(t, linkPersistent, name, make([]byte, 33))
	addKey(t, linkUser, name, azureIdentityKey())
	data, err := azureIdentityStore(t, name).Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, "mine", secretOf(t, data, client))
}

func TestAzureIdentityFindsItsFile(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CACHE_HOME", "")
	home := os.Getenv("HOME")
	current, old := filepath.Join(home, ".cache", ".IdentityService", "msal.cache"), filepath.Join(home, ".IdentityService", "msal.cache")
	at := func() string { return azureIdentityStore(t, "").Describe().Location }
	require.Equal(t, current, at())
	for _, path := range []string{old, current} {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	}
	writeFile(t, old, "x")
	require.Equal(t, old, at(), "an older version's")
	writeFile(t, current, "x")
	past := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(old, past, past))
	require.Equal(t, current, at())
	require.NoError(t, os.Chtimes(current, past.Add(-time.Hour), past.Add(-time.Hour)))
	require.Equal(t, old, at())

	for _, name := range []string{"..", ".", "a/b", "/etc/passwd", `a\b`, "a\x00b"} {
		_, err := AzureIdentity(name, Options{Clients: []string{client}})
		require.Error(t, err, name)
		require.NotEmpty(t, persistence.Remedy(err))
	}
	_, err := AzureIdentity("", Options{})
	require.Error(t, err, "no client")
	_, err = AzureIdentity("", Options{Clients: []string{client}, Write: true})
	require.ErrorIs(t, err, ErrReadOnly)
	require.ErrorContains(t, err, "whole memory")
}

// Each state in which the cache cannot be read has its class, and says what to do.
func TestAzureIdentityCannotBeRead(t *testing.T) {
	whole, err := os.ReadFile(writtenByAzureIdentity)
	require.NoError(t, err)
	cut := string(whole[:len(whole)/2])
	parts := strings.Split(string(whole), ".")
	parts[3] = parts[3][:len(parts[3])-8] + "AAAAAAAA"
	changed := strings.Join(parts, ".")
	var all []string
	var checks []func()
	for name, c := range map[string]struct {
		file  string // "-": none
		key   []byte // nil: none
		class error
	}{
		"no file":           {"-", azureIdentityKey(), persistence.ErrNotFound},
		"empty":             {"", azureIdentityKey(), persistence.ErrNotFound},
		"no key":            {string(whole), nil, persistence.ErrKeyMissing},
		"another key":       {string(whole), make([]byte, 33), persistence.ErrWrongKey},
		"a key too short":   {string(whole), make([]byte, 16), persistence.ErrWrongKey},
		"cut":               {cut, azureIdentityKey(), persistence.ErrCorrupt},
		"changed":           {changed, azureIdentityKey(), persistence.ErrWrongKey},
		"plain":             {rt(client, "planted"), azureIdentityKey(), persistence.ErrCorrupt},
		"another algorithm": {"eyJhbGciOiJub25lIn0....", azureIdentityKey(), persistence.ErrUnsupportedVersion},
	} {
		cache, path := azureIdentityFolder(t)
		if c.key != nil {
			addKey(t, linkPersistent, cache, c.key)
		}
		if c.file != "-" {
			writeFile(t, path, c.file)
			all = append(all, path)
		}
		s := azureIdentityStore(t, cache)
		checks = append(checks, func() {
			_, err := s.Load(t.Context())
			require.ErrorIs(t, err, c.class, name)
			require.NotContains(t, err.Error(), "planted", name)
			if c.class != persistence.ErrNotFound {
				require.NotEmpty(t, persistence.Remedy(err), name)
			}
		})
	}
	for _, path := range all {
		settle(t, path)
	}
	for _, check := range checks {
		check()
	}
}

// A file of another user is refused, also if it can be read.
func TestAzureIdentityOfAnotherUser(t *testing.T) {
	env.Require(t, os.Geteuid() == 0, "needs to be root, to become another user")
	name, path := azureIdentityFolder(t)
	copyWritten(t, path)
	addKey(t, linkPersistent, name, azureIdentityKey())
	require.NoError(t, os.Chmod(path, 0o644))
	require.NoError(t, os.Chown(path, 12345, 12345))
	for dir := filepath.Dir(path); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		require.NoError(t, os.Chmod(dir, 0o755))
	}
	s := azureIdentityStore(t, name)
	_, err := s.Load(t.Context())
	require.NoError(t, err, "control: root may")
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if _, _, no := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 12346, ^uintptr(0)); no != 0 {
			failed <- no
			return
		}
		_, err := azureIdentityStore(t, name).Load(context.Background())
		failed <- err
	}()
	err = <-failed
	require.ErrorIs(t, err, persistence.ErrUnavailable)
	require.ErrorContains(t, err, "another user")
}

// A file that is just being written is waited for: first half of it is there, and
// the key is another one.
func TestAzureIdentityWhileItIsWritten(t *testing.T) {
	name, path := azureIdentityFolder(t)
	whole, err := os.ReadFile(writtenByAzureIdentity)
	require.NoError(t, err)
	writeFile(t, path, string(whole[:len(whole)/2]))
	s := azureIdentityStore(t, name)
	type result struct {
		data []byte
		err  error
	}
	read := make(chan result)
	looked := make(chan struct{}, 1000)
	inner := s.content
	s.content = func(ctx context.Context, file []byte) ([]byte, error) {
		looked <- struct{}{}
		return inner(ctx, file)
	}
	go func() {
		data, err := s.Load(context.Background())
		read <- result{data, err}
	}()
	<-looked
	addKey(t, linkPersistent, name, make([]byte, 33))
	writeFile(t, path, string(whole))
	<-looked
	addKey(t, linkPersistent, name, azureIdentityKey())
	r := <-read
	require.NoError(t, r.err)
	require.Equal(t, "mine", secretOf(t, r.data, client))
}

// What was read before is seen still while the file is damaged.
func TestAzureIdentityDamagedLater(t *testing.T) {
	name, path := azureIdentityFolder(t)
	copyWritten(t, path)
	addKey(t, linkPersistent, name, azureIdentityKey())
	s := azureIdentityStore(t, name)
	_, err := s.Load(t.Context())
	require.NoError(t, err)
	for _, damage := range []string{"", "eyJhbGci"} {
		writeFile(t, path, damage)
		settle(t, path)
		data, err := s.Load(t.Context())
		require.NoError(t, err)
		require.Equal(t, "mine", secretOf(t, data, client))
	}
	require.NoError(t, os.Remove(path))
	_, err = s.Load(t.Context())
	require.ErrorIs(t, err, persistence.ErrNotFound)
	require.False(t, errors.Is(err, persistence.ErrCorrupt))
}
