package securefile

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/tokenkeep/tokenkeep/internal/within"
)

// What is special on macOS, as far as it needs no system call, so that it is tested
// on every system.

// whenFetched returns what read returns. For a file that is only in a cloud it ends
// with ctx: reading one waits for its download, without end where there is no network.
func whenFetched[T any](ctx context.Context, path string, evicted bool, read func() (T, error)) (T, error) {
	if !evicted {
		return read()
	}
	got, err := within.Call(ctx, read)
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = &Error{Path: path, Reason: "is only in the cloud and is still being downloaded",
			Advice: "Wait until it is downloaded, or use a folder that is not kept in the cloud (on macOS: not in Desktop, Documents or iCloud Drive).", Err: err}
	}
	return got, err
}

// flush asks for more than fsync with full, and where the file system does not know
// that, calls fsync. On macOS [os.File.Sync] has the drive flush too (F_FULLFSYNC). It
// does without that for the error ENOTSUP, which SMB gives; exFAT and WebDAV give ENOTTY,
// and macFUSE gives EINVAL.
func flush(full, fsync func() error) error {
	err := full()
	if errors.Is(err, syscall.ENOTTY) || errors.Is(err, syscall.EINVAL) {
		return fsync()
	}
	return err
}

// adviseProtected says what helps where macOS keeps a program out of a folder until
// its user has permitted that, or "". It answers EPERM then, whatever owner and mode
// say.
func adviseProtected(system, home, file string) string {
	if system != "darwin" {
		return ""
	}
	inside := func(dir string) bool { return file == dir || strings.HasPrefix(file, dir+"/") }
	protected := []string{"/Volumes"}
	if path.IsAbs(home) {
		for _, name := range []string{"Desktop", "Documents", "Downloads", "Library/Mobile Documents", "Library/CloudStorage"} {
			protected = append(protected, path.Join(home, name))
		}
	}
	if !slices.ContainsFunc(protected, inside) {
		return ""
	}
	return "Permit the program to use this folder in System Settings, Privacy & Security, Files and Folders (in a terminal: the terminal), or use another folder."
}

// ignoresOwners reports whether statfs(2) says of a volume that every user counts as
// the owner of its files.
func ignoresOwners(flags uint32) bool {
	const mntIgnoreOwnership = 0x00200000 // MNT_IGNORE_OWNERSHIP
	return flags&mntIgnoreOwnership != 0
}

func errOwnerless(path string) error {
	return &Error{Path: path, Reason: "lies on a volume that ignores owners, so every user of this machine could read it", Err: fs.ErrPermission,
		Advice: "Use a folder on another volume, or let this one have owners, with: sudo diskutil enableOwnership VOLUME"}
}

// removeList removes the access control list of a file with set, which takes what
// fchmod_extended(2) takes for a list. It succeeds where the file system has no lists:
// by Apple's published xnu (vnode_setattr in kpi_vfs.c) the error is ENOTSUP then, and
// only then.
//
// Kernels of today remove the list for the word of the C library, as chmod_extended does
// (vfs_syscalls.c). Old ones take that word for an address and fail; for them no address
// means to remove.
func removeList(set func(list uintptr) error) error {
	const (
		remove    = 1 // _FILESEC_REMOVE_ACL
		removeOld = 0
	)
	err := set(remove)
	if errors.Is(err, syscall.EFAULT) {
		err = set(removeOld)
	}
	if errors.Is(err, syscall.ENOTSUP) {
		return nil
	}
	return err
}

// errKeptList is the error for a plaintext file whose list could not be removed, or nil
// if err is nil.
func errKeptList(path string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Path: path, Reason: "would keep the access control list that its folder hands down, so others might read it", Err: errors.Join(fs.ErrPermission, err),
		Advice: "Remove the list from the folder, with: chmod -N FOLDER, or use another folder."}
}

// backupAttribute is the attribute that keeps a file out of Time Machine's backups,
// and backupExclusion its value: a binary property list of the text
// "com.apple.backupd".
const (
	backupAttribute = "com.apple.metadata:com_apple_backup_excludeItem"
	backupExclusion = "bplist00" + "\x5f\x10\x11com.apple.backupd" + "\x08" +
		"\x00\x00\x00\x00\x00\x00\x01\x01" + "\x00\x00\x00\x00\x00\x00\x00\x01" +
		"\x00\x00\x00\x00\x00\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x1c"
)
