package securefile

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// A file that is only in a cloud is waited for until the context ends.
func TestFilesThatAreOnlyInACloud(t *testing.T) {
	hangs, end := make(chan struct{}), make(chan struct{})
	defer close(end)
	read := func() (int, error) {
		close(hangs)
		<-end
		return 0, nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-hangs
		cancel()
	}()
	_, err := whenFetched(ctx, "cache", true, read)
	require.ErrorIs(t, err, context.Canceled)
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Contains(t, e.Remedy(), "cloud")

	got, err := whenFetched(t.Context(), "cache", true, func() (int, error) { return 7, nil })
	require.NoError(t, err)
	require.Equal(t, 7, got)
	_, err = whenFetched(t.Context(), "cache", true, func() (int, error) { return 0, fs.ErrNotExist })
	require.Equal(t, fs.ErrNotExist, err, "its own errors stay")
	// Control: any other file is read at once, also when the context has ended.
	_, err = whenFetched(ctx, "cache", false, func() (int, error) { return 0, nil })
	require.NoError(t, err)
}

// Where the file system does not know how to flush the drive, fsync takes its place. A
// write that failed is not tried again: a second fsync may succeed although the data
// are lost.
func TestFlushOfEveryFileSystem(t *testing.T) {
	for err, plain := range map[error]bool{
		nil:             false,
		syscall.ENOTTY:  true, // exFAT, WebDAV
		syscall.EINVAL:  true, // macFUSE
		syscall.EIO:     false,
		syscall.ENOSPC:  false,
		syscall.EROFS:   false,
		syscall.ENOTSUP: false, // package os has called fsync already
	} {
		called, failed := false, errors.New("fsync failed")
		full := func() error {
			if err == nil {
				return nil
			}
			return &fs.PathError{Op: "sync", Path: "cache", Err: err}
		}
		got := flush(full, func() error { called = true; return failed })
		require.Equal(t, plain, called, err)
		if plain {
			require.Equal(t, failed, got)
		} else {
			require.ErrorIs(t, got, err)
		}
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	require.NoError(t, err)
	require.NoError(t, Flush(f))
	require.NoError(t, f.Close())
	require.Error(t, Flush(f), "control")
}

// macOS keeps programs out of some folders of the user, where owner and mode say
// nothing.
func TestAdviceForProtectedFolders(t *testing.T) {
	for path, advised := range map[string]bool{
		"/homes/alice/Documents/contoso/cache.enc":                  true,
		"/homes/alice/Desktop":                                      true,
		"/homes/alice/Library/Mobile Documents/com~apple~CloudDocs": true,
		"/Volumes/Stick/cache.enc":                                  true,
		"/homes/alice/Documents2/cache.enc":                         false,
		"/homes/alice/Library/Application Support/tokenkeep/a.enc":  false,
		"/homes/bob/Documents/cache.enc":                            false,
		"/homes/alice/cache.enc":                                    false,
	} {
		require.Equal(t, advised, adviseProtected("darwin", "/homes/alice", path) != "", path)
		require.Empty(t, adviseProtected("linux", "/homes/alice", path))
	}
	require.Empty(t, adviseProtected("darwin", "", "/Documents/cache"))
}

// A volume without owners is known by its flag, which is Apple's number.
func TestVolumesWithoutOwners(t *testing.T) {
	require.True(t, ignoresOwners(0x04200000|0x1000))
	require.False(t, ignoresOwners(^uint32(0x00200000)))
	require.ErrorIs(t, errOwnerless("cache"), fs.ErrPermission)
	require.NotEmpty(t, errOwnerless("cache").(*Error).Remedy())
}

// The attribute's value is a property list that holds one text. (Its form is that of
// Apple's CFBinaryPList.c.)
func TestBackupExclusion(t *testing.T) {
	list := []byte(backupExclusion)
	text := func(list []byte) (string, error) {
		if len(list) < 8+32 || string(list[:8]) != "bplist00" {
			return "", errors.New("no property list")
		}
		trailer := list[len(list)-32:]
		table := binary.BigEndian.Uint64(trailer[24:])
		if trailer[6] != 1 || trailer[7] != 1 || binary.BigEndian.Uint64(trailer[8:]) != 1 || binary.BigEndian.Uint64(trailer[16:]) != 0 ||
			table+1 != uint64(len(list)-32) {
			return "", errors.New("another table than that of one object")
		}
		object := list[list[table]:table]
		if object[0] != 0x5f || object[1] != 0x10 || int(object[2]) != len(object)-3 {
			return "", errors.New("no text")
		}
		return string(object[3:]), nil
	}
	got, err := text(list)
	require.NoError(t, err)
	require.Equal(t, "com.apple.backupd", got)
	_, err = text(append(list[:len(list):len(list)], 0))
	require.Error(t, err, "control")
}

// A list that cannot be removed is an error, unless the file system has none. The
// numbers are macOS's answers, played back.
func TestRemoveList(t *testing.T) {
	for _, c := range []struct {
		today, old, want error // of kernels of today, and of old ones after EFAULT
	}{
		{nil, syscall.EIO, nil},
		{syscall.EFAULT, nil, nil},
		{syscall.EFAULT, syscall.EPERM, syscall.EPERM},
		{syscall.EFAULT, syscall.ENOTSUP, nil},
		{syscall.ENOTSUP, syscall.EIO, nil},
		{syscall.EPERM, nil, syscall.EPERM},
		{syscall.EIO, nil, syscall.EIO},
		{syscall.EINVAL, nil, syscall.EINVAL},
	} {
		err := removeList(func(list uintptr) error {
			if list == 0 {
				return c.old
			}
			return c.today
		})
		require.Equal(t, c.want, err, "%v", c)
		kept := errKeptList("folder/file", err)
		if c.want == nil {
			require.NoError(t, kept)
			continue
		}
		require.ErrorIs(t, kept, fs.ErrPermission)
		require.ErrorIs(t, kept, c.want)
		require.ErrorContains(t, kept, "folder/file: would keep the access control list")
		var e *Error
		require.ErrorAs(t, kept, &e)
		require.Contains(t, e.Remedy(), "chmod -N")
	}
}
