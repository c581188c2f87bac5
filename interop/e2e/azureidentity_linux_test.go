package e2e

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity/cache"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/public"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/tokenkeep/tokenkeep/entratest"
	"github.com/tokenkeep/tokenkeep/internal/test/env"
	"github.com/tokenkeep/tokenkeep/interop"
	"github.com/tokenkeep/tokenkeep/persistence"
)

const (
	client = "11111111-0000-4000-8000-000000000001"
	scope  = "https://management.azure.com/.default"
)

// With this variable set, the test program is a process of a test: what it names.
// The others have a session keyring of their own, which holds nothing.
const programVariable = "TOKENKEEP_INTEROP_PROGRAM"

var programs = map[string]func(name, endpoint string) error{
	"write":       write,
	"write again": writeAgain,
	"read":        read,
	"read by id":  readByID,
}

func TestMain(m *testing.M) {
	program, ok := programs[os.Getenv(programVariable)]
	if !ok {
		os.Exit(m.Run())
	}
	if err := program(os.Args[1], os.Args[2]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// fixture is a cache that is nobody else's, in a home folder of its own.
type fixture struct {
	t    *testing.T
	s    *entratest.Server
	name string
	dir  string
}

func start(t *testing.T) *fixture {
	t.Helper()
	s, err := entratest.Start(entratest.Options{Interval: -1})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CACHE_HOME", "")
	f := &fixture{t: t, s: s, name: "tokenkeep-test-" + rand.Text(), dir: filepath.Join(home, ".cache", ".IdentityService")}
	user, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_USER_KEYRING, true)
	env.Require(t, err == nil, "the kernel's keyring does not work here")
	// The writer links the persistent keyring into the user's. That is taken back.
	persistent, err := unix.KeyctlInt(unix.KEYCTL_GET_PERSISTENT, -1, unix.KEY_SPEC_PROCESS_KEYRING, 0, 0)
	env.Require(t, err == nil, "the kernel has no persistent keyring")
	linked := slices.Contains(keysIn(t, user), persistent)
	t.Cleanup(func() {
		f.removeKey("")
		f.removeKey(".cae")
		if !linked {
			_, _ = unix.KeyctlInt(unix.KEYCTL_UNLINK, persistent, user, 0, 0)
		}
	})
	return f
}

func keysIn(t testing.TB, ring int) (keys []int) {
	t.Helper()
	ids := make([]int32, 1<<12)
	n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, ring, unsafe.Slice((*byte)(unsafe.Pointer(&ids[0])), 4*len(ids)), 0)
	require.NoError(t, err)
	for _, id := range ids[:n/4] {
		keys = append(keys, int(id))
	}
	return keys
}

// inPersistent calls do with the persistent keyring, as one that this thread
// possesses.
func inPersistent(do func(ring int) error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ring, err := unix.KeyctlInt(unix.KEYCTL_GET_PERSISTENT, -1, unix.KEY_SPEC_THREAD_KEYRING, 0, 0)
	if err == nil {
		err = do(ring)
		_, _ = unix.KeyctlInt(unix.KEYCTL_UNLINK, ring, unix.KEY_SPEC_THREAD_KEYRING, 0, 0)
	}
	return err
}

// removeKey takes the key of the cache away, as a restart does.
func (f *fixture) removeKey(suffix string) {
	_ = inPersistent(func(ring int) error {
		id, err := unix.KeyctlSearch(ring, "user", f.name+suffix, 0)
		if err == nil {
			_, _ = unix.KeyctlInt(unix.KEYCTL_REVOKE, id, 0, 0, 0)
			_, err = unix.KeyctlInt(unix.KEYCTL_UNLINK, id, ring, 0, 0)
		}
		return err
	})
}

// run runs a program in another process and returns what it says.
func (f *fixture) run(program string) (string, error) {
	f.t.Helper()
	exe, err := os.Executable()
	require.NoError(f.t, err)
	cmd := exec.CommandContext(f.t.Context(), exe, f.name, f.s.Endpoint())
	cmd.Env = append(os.Environ(), programVariable+"="+program, "GORACE=atexit_sleep_ms=0")
	out, err := cmd.Output()
	return string(out), err
}

func (f *fixture) ran(program string) string {
	f.t.Helper()
	said, err := f.run(program)
	require.NoError(f.t, err, "%s: %s", program, said)
	return said
}

func (f *fixture) store(suffix string) *interop.Store {
	f.t.Helper()
	s, err := interop.AzureIdentity(f.name+suffix, interop.Options{Clients: []string{client}})
	require.NoError(f.t, err)
	return s
}

// credential is the Azure SDK's, with the real cache.
func credential(name, endpoint string, record azidentity.AuthenticationRecord, silent bool) (*azidentity.DeviceCodeCredential, error) {
	c, err := cache.New(&cache.Options{Name: name})
	if err != nil {
		return nil, err
	}
	transport, err := entratest.NewClient(endpoint)
	if err != nil {
		return nil, err
	}
	o := &azidentity.DeviceCodeCredentialOptions{Cache: c, ClientID: client, TenantID: entratest.Contoso, DisableAutomaticAuthentication: silent, AuthenticationRecord: record,
		UserPrompt: func(ctx context.Context, m azidentity.DeviceCodeMessage) error {
			return entratest.Approve(ctx, transport, m.VerificationURL, m.UserCode, entratest.Alice.Username)
		}}
	o.Transport = transport
	o.Retry.MaxRetries = -1
	return azidentity.NewDeviceCodeCredential(o)
}

// write signs in with the Azure SDK, into both its caches, and prints the access
// tokens, with CAE last, and the record.
func write(name, endpoint string) error {
	c, err := credential(name, endpoint, azidentity.AuthenticationRecord{}, false)
	if err != nil {
		return err
	}
	ctx := context.Background()
	for _, cae := range []bool{false, true} {
		record, err := c.Authenticate(ctx, &policy.TokenRequestOptions{Scopes: []string{scope}, EnableCAE: cae})
		if err != nil {
			return err
		}
		if text, err := json.Marshal(record); err != nil || os.WriteFile(recordPath(), text, 0o600) != nil {
			return errors.New("no place for the record")
		}
		token, err := c.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{scope}, EnableCAE: cae})
		if err != nil {
			return err
		}
		fmt.Println(token.Token)
	}
	return nil
}

func recordPath() string { return filepath.Join(os.Getenv("HOME"), "record.json") }

// writeAgain refreshes what is stored, in another process.
func writeAgain(name, endpoint string) error {
	text, err := os.ReadFile(recordPath())
	if err != nil {
		return err
	}
	var record azidentity.AuthenticationRecord
	if err := json.Unmarshal(text, &record); err != nil {
		return err
	}
	c, err := credential(name, endpoint, record, true)
	if err != nil {
		return err
	}
	token, err := c.GetToken(context.Background(), policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}})
	if err != nil {
		return err
	}
	fmt.Println(token.Token)
	return nil
}

// inNewSession makes this thread's session keyring a new one, which holds nothing,
// and takes the persistent keyring out of the user's.
func inNewSession() (user int, err error) {
	runtime.LockOSThread()
	if _, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0); err != nil {
		return 0, err
	}
	user, err = unix.KeyctlGetKeyringID(unix.KEY_SPEC_USER_KEYRING, true)
	if err != nil {
		return 0, err
	}
	return user, inPersistent(func(ring int) error {
		if _, err := unix.KeyctlInt(unix.KEYCTL_UNLINK, ring, user, 0, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		return nil
	})
}

// read reads the cache where no keyring of the session or the user leads to the key.
// It prints the secret and what the thread's, the session's and the user's keyrings
// hold afterwards that they did not before.
func read(name, _ string) error {
	user, err := inNewSession()
	if err != nil {
		return err
	}
	rings := []int{unix.KEY_SPEC_THREAD_KEYRING, unix.KEY_SPEC_SESSION_KEYRING, user}
	held := func() (n []int) {
		for _, ring := range rings {
			size, err := unix.KeyctlBuffer(unix.KEYCTL_READ, ring, nil, 0)
			if err != nil {
				size = 0 // the thread has none yet
			}
			n = append(n, size)
		}
		return n
	}
	before := held()
	s, err := interop.AzureIdentity(name, interop.Options{Clients: []string{client}})
	if err != nil {
		return err
	}
	data, err := s.Load(context.Background())
	if err != nil {
		return err
	}
	var d struct {
		AccessToken map[string]struct{ Secret string }
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return err
	}
	for _, e := range d.AccessToken {
		fmt.Println(e.Secret)
	}
	if after := held(); !slices.Equal(before, after) {
		return fmt.Errorf("keyrings hold more than before: %v, %v", before, after)
	}
	return nil
}

// readByID reads the key by the number that the file names, as it seems to invite.
func readByID(name, _ string) error {
	if _, err := inNewSession(); err != nil {
		return err
	}
	var id int
	err := inPersistent(func(ring int) (err error) {
		id, err = unix.KeyctlSearch(ring, "user", name, 0)
		return err
	})
	if err != nil {
		return err
	}
	_, err = unix.KeyctlBuffer(unix.KEYCTL_READ, id, make([]byte, 64), 0)
	fmt.Println(err)
	return nil
}

// The Azure SDK signs in; a Go program with MSAL uses that sign-in. Nothing in the
// folder changes.
func TestAzureIdentity(t *testing.T) {
	f := start(t)
	tokens := strings.Fields(f.ran("write"))
	require.Len(t, tokens, 2)
	before := f.state()
	for i, suffix := range []string{"", ".cae"} {
		s := f.store(suffix)
		c, err := persistence.New(s)
		require.NoError(t, err)
		app, err := public.New(client, public.WithAuthority(entratest.Authority(entratest.Contoso)), public.WithHTTPClient(f.s.Client()), public.WithCache(c))
		require.NoError(t, err)
		accounts, err := app.Accounts(t.Context())
		require.NoError(t, err)
		require.Len(t, accounts, 1)
		require.Equal(t, entratest.Alice.Username, accounts[0].PreferredUsername)
		r, err := app.AcquireTokenSilent(t.Context(), []string{scope}, public.WithSilentAccount(accounts[0]))
		require.NoError(t, err)
		require.Equal(t, tokens[i], r.AccessToken, "it is the token that the other program has")
	}
	another, err := interop.AzureIdentity(f.name, interop.Options{Clients: []string{"another-client"}})
	require.NoError(t, err)
	_, err = another.Load(t.Context())
	require.ErrorIs(t, err, persistence.ErrNotFound)
	require.Equal(t, before, f.state())

	// What the other program stores later is seen.
	s := f.store("")
	_, rev, err := s.LoadRevision(t.Context())
	require.NoError(t, err)
	added := strings.TrimSpace(f.ran("write again"))
	data, now, err := s.LoadRevision(t.Context())
	require.NoError(t, err)
	require.NotEqual(t, rev, now)
	require.Contains(t, string(data), added)
	require.NotEqual(t, before, f.state(), "control: the other program's own call does change the folder")
}

// state is what the folder holds, with times.
func (f *fixture) state() (all []string) {
	f.t.Helper()
	entries, err := os.ReadDir(f.dir)
	require.NoError(f.t, err)
	for _, e := range entries {
		var st unix.Stat_t
		require.NoError(f.t, unix.Lstat(filepath.Join(f.dir, e.Name()), &st))
		all = append(all, fmt.Sprint(e.Name(), st.Ino, st.Mode, st.Size, st.Atim, st.Mtim, st.Ctim))
	}
	return all
}

// The key is found where no keyring of the session or the user leads to it, and
// nothing is left in any of them.
func TestAzureIdentityLinksNothing(t *testing.T) {
	f := start(t)
	token := strings.Fields(f.ran("write"))[0]
	require.Equal(t, token, strings.TrimSpace(f.ran("read")))
	// The control: by its number alone, the key cannot be read there.
	require.Equal(t, unix.EACCES.Error(), strings.TrimSpace(f.ran("read by id")))
}

// After a restart the key is gone. The other program starts again, and is followed.
func TestAzureIdentityAfterARestart(t *testing.T) {
	f := start(t)
	f.ran("write")
	s := f.store("")
	_, err := s.Load(t.Context())
	require.NoError(t, err)
	f.removeKey("")
	_, err = f.store("").Load(t.Context())
	require.ErrorIs(t, err, persistence.ErrKeyMissing)
	require.NotEmpty(t, persistence.Remedy(err))
	again := strings.Fields(f.ran("write"))[0]
	data, err := s.Load(t.Context())
	require.NoError(t, err)
	require.Contains(t, string(data), again)
}

// The other program writes in place, again and again: no reader sees a file that
// is half written, or one under another key.
func TestAzureIdentityWhileItIsWritten(t *testing.T) {
	f := start(t)
	f.ran("write")
	text, err := os.ReadFile(filepath.Join(f.dir, f.name))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	done := make(chan struct{})
	go func() { // as os.WriteFile, slower
		defer close(done)
		for ctx.Err() == nil {
			file, err := os.OpenFile(filepath.Join(f.dir, f.name), os.O_WRONLY|os.O_TRUNC, 0)
			if err != nil {
				return
			}
			_, _ = file.Write(text[:len(text)/2])
			<-time.After(time.Millisecond)
			_, _ = file.Write(text[len(text)/2:])
			file.Close()
			<-time.After(2 * time.Millisecond)
		}
	}()
	s, torn := f.store(""), 0
	for n := 0; ctx.Err() == nil; n++ {
		_, err := f.store("").Load(t.Context())
		require.NoError(t, err, "read "+strconv.Itoa(n))
		if raw, _ := os.ReadFile(filepath.Join(f.dir, f.name)); len(raw) != len(text) {
			torn++
		}
	}
	<-done
	require.NotZero(t, torn, "control: a plain reader does see half files")
	_, err = s.Load(t.Context())
	require.NoError(t, err)
}
