package securefile

import (
	"os"

	"golang.org/x/sys/unix"
)

// isEvicted reports whether the file is only in a cloud, so that reading waits until
// it is downloaded.
func isEvicted(path string) bool {
	var st unix.Stat_t
	return lstat(path, &st) == nil && st.Flags&unix.SF_DATALESS != 0
}

// Flush flushes what was written to the open file, or what has changed in the folder,
// to the disk, as far as the file system can.
func Flush(f *os.File) error {
	return flush(f.Sync, func() error {
		return os.NewSyscallError("fsync", again(func() error { return unix.Fsync(int(f.Fd())) }))
	})
}

// keepPlain prepares a temporary file for plain text: it refuses an access control list
// that stays, and a volume on
// which every user counts as the owner, and keeps the file out of backups.
func (t *temp) keepPlain(path string) error {
	var volume unix.Statfs_t
	if again(func() error { return unix.Fstatfs(int(t.f.Fd()), &volume) }) == nil && ignoresOwners(volume.Flags) {
		return errOwnerless(path)
	}
	if err := errKeptList(path, removeACL(t.f, 0o600)); err != nil {
		return err
	}
	excludeFromBackups(t.f)
	return nil
}

// excludeFromBackups keeps the open file out of Time Machine's backups, where the
// file system knows such attributes.
func excludeFromBackups(f *os.File) {
	_ = again(func() error { return unix.Fsetxattr(int(f.Fd()), backupAttribute, []byte(backupExclusion), 0) })
}
