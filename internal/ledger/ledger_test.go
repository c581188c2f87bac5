package ledger_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tokenkeep/tokenkeep/internal/filelock"
	"github.com/tokenkeep/tokenkeep/internal/ledger"
)

const rev = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// lockFile returns the path of a lock file whose lock the test has.
func lockFile(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "locks", "app.lock")
	unlock, err := filelock.New(path, true).Lock(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unlock()) })
	return path
}

func keyName(n int) string { return fmt.Sprintf("keyring/%032x", n) }

func TestRecords(t *testing.T) {
	l := ledger.In(lockFile(t))
	require.Empty(t, l.Keys("/a"))
	require.Empty(t, l.Promoted())

	require.NoError(t, l.AddKey("/a", keyName(1)))
	require.NoError(t, l.AddKey("/b", keyName(1)))
	require.NoError(t, l.SetPromoted(rev))
	require.NoError(t, l.AddKey("/a", keyName(2)))
	require.NoError(t, l.AddKey("/a", keyName(1)))
	require.Equal(t, []string{keyName(1), keyName(2)}, l.Keys("/a"), "each once, the oldest first")
	require.Equal(t, []string{keyName(1)}, l.Keys("/b"))
	require.Equal(t, rev, l.Promoted())

	var asked []string
	require.NoError(t, l.RemoveKeys("/a", func(name string) bool { asked = append(asked, name); return name == keyName(1) }))
	require.Equal(t, []string{keyName(1), keyName(2)}, asked, "of another file nothing is asked")
	require.Equal(t, []string{keyName(2)}, l.Keys("/a"))
	require.Equal(t, []string{keyName(1)}, l.Keys("/b"))
	require.Equal(t, rev, l.Promoted())

	require.NoError(t, l.SetPromoted("another"))
	require.Equal(t, "another", l.Promoted())
	require.NoError(t, l.SetPromoted(""))
	require.Empty(t, l.Promoted())
	require.Equal(t, []string{keyName(2)}, l.Keys("/a"))
}

// Where the room ends the oldest keys go, and never the promotion.
func TestRoom(t *testing.T) {
	path := lockFile(t)
	l := ledger.In(path)
	require.NoError(t, l.SetPromoted(rev))
	for n := range 100 {
		require.NoError(t, l.AddKey("/a", keyName(n)))
		names := l.Keys("/a")
		require.Equal(t, keyName(n), names[len(names)-1])
		require.GreaterOrEqual(t, len(names), min(n+1, 6))
		require.Equal(t, rev, l.Promoted())
	}
	longest := strings.Repeat("s", 32) + "/" + strings.Repeat("i", 64)
	require.NoError(t, l.AddKey("/a", longest))
	require.Contains(t, l.Keys("/a"), longest)

	// A promotion finds room where keys have taken all of it.
	require.NoError(t, l.SetPromoted(""))
	for n := range 100 {
		require.NoError(t, l.AddKey("/a", keyName(n)))
	}
	before := len(l.Keys("/a"))
	require.NoError(t, l.SetPromoted(rev))
	require.Equal(t, rev, l.Promoted())
	require.Less(t, len(l.Keys("/a")), before)
}

func TestNamesThatWouldBreakTheLine(t *testing.T) {
	l := ledger.In(lockFile(t))
	for _, name := range []string{"", "a b", "a\nb", "a@b", "moved:x"} {
		require.Error(t, l.AddKey("/a", name), "%q", name)
	}
	require.Empty(t, l.Keys("/a"))
	require.Error(t, l.SetPromoted("a b"))
	require.Empty(t, l.Promoted())
}

// What cannot be read counts as empty, and what others wrote does no harm.
func TestJunk(t *testing.T) {
	path := lockFile(t)
	require.NoError(t, filelock.WriteNote(path, "junk @ moved: keyring/1@nothex \x01"))
	l := ledger.In(path)
	require.Empty(t, l.Keys("/a"))
	require.Empty(t, l.Promoted())
	require.NoError(t, l.AddKey("/a", keyName(1)))
	require.Equal(t, []string{keyName(1)}, l.Keys("/a"))

	gone := ledger.In(filepath.Join(t.TempDir(), "none.lock"))
	require.Empty(t, gone.Keys("/a"))
	require.ErrorIs(t, gone.SetPromoted(rev), os.ErrNotExist)
}

func TestNotStored(t *testing.T) {
	err := ledger.NotStored(fs.ErrPermission)
	require.ErrorIs(t, err, fs.ErrPermission)
	require.EqualError(t, err, fs.ErrPermission.Error())
	require.True(t, ledger.IsNotStored(fmt.Errorf("new key: %w", err)))
	require.False(t, ledger.IsNotStored(fs.ErrPermission))
	require.False(t, ledger.IsNotStored(nil))
}
