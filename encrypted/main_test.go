package encrypted

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/persistence"
)

func TestMain(m *testing.M) {
	if child := os.Getenv("TOKENKEEP_TEST_CHILD"); child != "" {
		os.Exit(runChild(child))
	}
	os.Exit(m.Run())
}

// classes are the errors that a caller tells apart.
var classes = map[string]error{
	"not-found":           persistence.ErrNotFound,
	"unavailable":         persistence.ErrUnavailable,
	"locked":              persistence.ErrKeyringLocked,
	"corrupt":             persistence.ErrCorrupt,
	"wrong-key":           persistence.ErrWrongKey,
	"key-missing":         persistence.ErrKeyMissing,
	"unsupported-version": persistence.ErrUnsupportedVersion,
	"too-large":           persistence.ErrTooLarge,
	"conflict":            persistence.ErrConflict,
	"lock-timeout":        persistence.ErrLockTimeout,
}

// classOf returns the one class of err: "ok" for nil, "none" or "several".
func classOf(err error) string {
	if err == nil {
		return "ok"
	}
	found := "none"
	for name, class := range classes {
		if errors.Is(err, class) {
			if found != "none" {
				return "several"
			}
			found = name
		}
	}
	return found
}

// requireError checks the class and that err is complete.
func requireError(t testing.TB, class string, err error) {
	t.Helper()
	require.Equal(t, class, classOf(err), "%v", err)
	var e *persistence.Error
	require.True(t, errors.As(err, &e))
	require.NotEmpty(t, e.Op)
	require.NotEmpty(t, e.Backend)
	require.NotEmpty(t, e.Location)
	require.NotEmpty(t, e.Remedy, "%v", err)
}

var ctx = context.Background()

// fixed is a source of one key under any id.
type fixed struct {
	source string
	key    []byte
}

func (s fixed) Source() string { return s.source }
func (s fixed) NewKey(_ context.Context, id string) (string, []byte, error) {
	return id, s.key, nil
}
func (s fixed) Key(context.Context, string) ([]byte, error) { return s.key, nil }

// ring is a source that stores keys, as a keyring does.
type ring struct {
	mu     sync.Mutex
	keys   map[string][]byte
	calls  []string
	before func(call string) error // if set, called first, without the mutex
}

func newRing() *ring { return &ring{keys: map[string][]byte{}} }

func (r *ring) enter(call, ref string) error {
	if r.before != nil {
		if err := r.before(call); err != nil {
			return err
		}
	}
	r.mu.Lock()
	r.calls = append(r.calls, call+" "+refID(ref))
	return nil
}

func (r *ring) Source() string { return "keyring" }

func (r *ring) NewKey(_ context.Context, id string) (string, []byte, error) {
	if err := r.enter("new", id); err != nil {
		return "", nil, err
	}
	defer r.mu.Unlock()
	if r.keys[id] == nil {
		r.keys[id] = randomKey()
	}
	return id, bytes.Clone(r.keys[id]), nil
}

func (r *ring) Key(_ context.Context, ref string) ([]byte, error) {
	if err := r.enter("key", ref); err != nil {
		return nil, err
	}
	defer r.mu.Unlock()
	if k := r.keys[refID(ref)]; k != nil {
		return bytes.Clone(k), nil
	}
	return nil, remedy.Errorf("Sign in again.", "%w", persistence.ErrKeyMissing)
}

func (r *ring) DeleteKey(_ context.Context, ref string) error {
	if err := r.enter("delete", ref); err != nil {
		return err
	}
	defer r.mu.Unlock()
	delete(r.keys, refID(ref))
	return nil
}

func (r *ring) ids() (ids []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.keys {
		ids = append(ids, id)
	}
	return ids
}

func (r *ring) takeCalls() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	calls := r.calls
	r.calls = nil
	return calls
}

func randomKey() []byte { return []byte(newID()) } // 32 hexadecimal digits are 32 bytes

func newFile(t testing.TB, path string, s KeySource) *File {
	t.Helper()
	f, err := New(path, s, &Options{Name: "contoso-cli"})
	require.NoError(t, err)
	return f
}

func tempPath(t testing.TB) string { return filepath.Join(t.TempDir(), "cache") }

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return b
}

func headerOf(t testing.TB, path string) *header {
	t.Helper()
	h, _, err := parse(readFile(t, path))
	require.NoError(t, err)
	return &h
}

// cheap is a passphrase source that does little work.
func cheap(passphrase string) KeySource {
	return Passphrase(func(context.Context) ([]byte, error) { return []byte(passphrase), nil }, &PassphraseOptions{Cost: Cost{Memory: 32, Passes: 1, Lanes: 1}})
}

// newMemory is fresh memory for a sealed file.
func newMemory(n int) []byte { return make([]byte, 0, n) }
