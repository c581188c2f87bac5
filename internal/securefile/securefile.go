// Package securefile reads and replaces small files that hold secrets.
//
// A file is replaced atomically: a reader sees the old content or the new one,
// whole, also after a crash. It is opened so that nothing at its path can hang
// the program or lead it elsewhere, and then checked:
//
//   - a regular file, not a link, a FIFO, a device or a folder;
//   - with one name only: a hard link would be a second way to it;
//   - on Unix, owned by the effective user and closed to everybody else;
//   - in a folder, on Unix, that belongs to that user or to root and in which
//     nobody else can rename or delete files: not writable by others, unless it
//     is sticky; writable by its group only if that is the user's private group
//     (its id is the user's id) or root's; on Linux, not writable for others by
//     an access control list.
//
// The modes of what is made are set, not left to the umask, to setgid folders or
// to default access control lists. Where a volume is mounted with a group of its
// own (Kubernetes' fsGroup), the system opens to that group what was made closed,
// always in the same way. That is recognised, and closed again.
//
// Of the folders above, only the one that holds the file is checked: a person
// who can rename that folder can put another of the user's own folders there, but
// can read nothing in either. Windows has access lists instead of modes. Files and
// folders that are made here get one that admits the user, the system and
// administrators; those that are there already are not checked. On macOS lists that
// a folder hands down are removed from what is made here, and others not checked.
package securefile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/tokenkeep/tokenkeep/internal/layout"
)

// ErrTooLarge: the file is larger than the limit that [Read] was given.
var ErrTooLarge = errors.New("larger than the limit")

// Error says what is wrong with a file or a folder, so that it was not used.
type Error struct {
	Path   string // "" where the context names it
	Reason string // what is wrong, to be read after the path
	Advice string // sentences for a person, or ""
	// Elsewhere reports whether only another folder helps, and not a change of this
	// one. Advice says so; a caller that knows how to name another one adds that.
	Elsewhere bool
	Err       error // fs.ErrPermission for what is not secure, else what Reason says
}

// Remedy returns what a person can do about it, or "".
func (e *Error) Remedy() string { return e.Advice }

func (e *Error) Error() string {
	if e.Path == "" {
		return e.Reason
	}
	return e.Path + ": " + e.Reason
}

func (e *Error) Unwrap() error { return e.Err }

// The states of a file after a write that failed, in [ReplaceError].
const (
	Old     = "old"     // what was there before is untouched
	New     = "new"     // what was written is there
	Unknown = "unknown" // one of the two, whole; it is not known which, or a power cut may change it
)

// ReplaceError is the failure of one step of a [Replace], a [Remove] or a [Rename].
type ReplaceError struct {
	Step   string // "open folder", "create", "write", "fsync", "close", "rename", "remove", "fsync folder", "fsync again"
	Path   string // the file to be replaced
	Stored string // Old, New or Unknown
	Err    error
}

func (e *ReplaceError) Error() string {
	stored := map[string]string{
		Old:     "what was stored before is untouched",
		New:     "the new content is stored",
		Unknown: "whether the old or the new content is stored is not known",
	}[e.Stored]
	return fmt.Sprintf("%s: %v (%s)", e.Step, e.Err, stored)
}

func (e *ReplaceError) Unwrap() error { return e.Err }

// MkdirAll makes dir and the missing folders above it, mode 0700 whatever the
// umask is, durably except on Windows. What is there already is left as it is. On
// Unix a run with sudo makes no folder in one of the user who has called sudo.
func MkdirAll(dir string) error {
	if fi, err := os.Stat(dir); err == nil {
		if fi.IsDir() {
			return nil
		}
		return &Error{Path: dir, Reason: "is not a folder", Err: fs.ErrExist}
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := MkdirAll(parent); err != nil {
			return err
		}
	}
	if err := mayMakeIn(parent, dir); err != nil {
		return err
	}
	if err := mkdir(dir); err != nil {
		if fi, statErr := os.Stat(dir); statErr == nil && fi.IsDir() {
			return nil // another process was faster
		}
		return Explain(dir, err)
	}
	_ = setDirMode(dir) // CheckDir says what is wrong with one that keeps another mode
	d, err := openDir(parent)
	if err != nil {
		return nil // not readable: the folder is there, its durability is the system's business
	}
	defer d.Close()
	return syncDir(d)
}

// Resolve returns path made absolute. If it ends in a symbolic link, as dotfile
// managers make them, Resolve follows it, but only if nobody else can have made it
// or can change it: its folder and its target's belong to the user or to root and
// are not writable by others, sticky or not. Otherwise, and on Windows for every
// link, Resolve fails. The file at the end may be missing.
func Resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	for range 16 {
		target, err := readLink(path)
		if err != nil {
			return "", err
		}
		if target == "" {
			return path, nil
		}
		path = target
	}
	return "", &Error{Path: path, Reason: "is reached by too many symbolic links", Advice: "Remove the links that lead in a circle.", Err: fs.ErrInvalid}
}

// Read returns the content of the file, and its stamp at that moment. A file
// of more than limit bytes is an [ErrTooLarge] and not read.
//
// On Windows it waits while another program keeps the file open and does not share
// it, until ctx ends, and for ten seconds at most.
//
// On macOS it waits, until ctx ends, for a file that is only in a cloud.
func Read(ctx context.Context, path string, limit int64) ([]byte, Stamp, error) {
	c, err := whenFetched(ctx, path, isEvicted(path), func() (c content, err error) {
		c.data, c.stamp, err = readAll(ctx, path, limit)
		return c, err
	})
	return c.data, c.stamp, err
}

type content struct {
	data  []byte
	stamp Stamp
}

func readAll(ctx context.Context, path string, limit int64) ([]byte, Stamp, error) {
	f, st, err := openChecked(ctx, path)
	if err != nil {
		return nil, Stamp{}, err
	}
	defer f.Close()
	if st.Size > limit {
		return nil, Stamp{}, &Error{Path: path, Reason: fmt.Sprintf("has %d bytes, more than the limit of %d", st.Size, limit), Err: ErrTooLarge}
	}
	buf := make([]byte, st.Size+1) // one more, to see whether it grew
	n, err := f.Read(buf)
	if n < int(st.Size) && err == nil {
		var more int
		more, err = io.ReadFull(f, buf[n:])
		n += more
	}
	if n > int(st.Size) {
		return nil, Stamp{}, &Error{Path: path, Reason: "grew while it was read", Err: fs.ErrInvalid}
	}
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, Stamp{}, err
	}
	return buf[:n:n], st, nil
}

// ReadHead returns the first n bytes of the file, or all of it if it has fewer,
// and its stamp at that moment. It waits as [Read] does.
func ReadHead(ctx context.Context, path string, n int) ([]byte, Stamp, error) {
	c, err := whenFetched(ctx, path, isEvicted(path), func() (c content, err error) {
		c.data, c.stamp, err = readHead(ctx, path, n)
		return c, err
	})
	return c.data, c.stamp, err
}

func readHead(ctx context.Context, path string, n int) ([]byte, Stamp, error) {
	f, st, err := openChecked(ctx, path)
	if err != nil {
		return nil, Stamp{}, err
	}
	defer f.Close()
	buf := make([]byte, n)
	n, err = io.ReadFull(f, buf)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, Stamp{}, err
	}
	return buf[:n], st, nil
}

func openChecked(ctx context.Context, path string) (io.ReadCloser, Stamp, error) {
	if err := useDir(filepath.Dir(path)); err != nil {
		return nil, Stamp{}, err
	}
	return openToRead(ctx, path, 0o077)
}

// Open opens a file that is there already and holds no secret, such as a lock
// file: flag is os.O_RDONLY or os.O_RDWR. It is checked as Read does it, except
// that others may read it, and that its folder is left to [CheckDir]. See
// [MakeEmpty]. It waits as [Read] does.
func Open(ctx context.Context, path string, flag int) (*os.File, error) {
	f, _, err := open(ctx, path, flag, 0o022)
	return f, err
}

// CheckDir checks the folder that holds a file. It changes no mode, so it also
// fails for a folder that a volume's group has opened; see the package comment.
func CheckDir(dir string) error { return checkDir(dir) }

// ID names a file or a folder as long as it exists, whatever path leads to it.
// IDs are compared with ==.
type ID struct{ Dev, Ino, InoHigh uint64 }

// IDOf returns the ID of what is at path, of a symbolic link itself.
func IDOf(path string) (ID, error) {
	st, err := Stat(path)
	return st.id(), err
}

// MakeDir checks the folder as [CheckDir] does and returns its ID. It first makes
// it with [MkdirAll] if it is missing, and closes it if a volume's group has opened
// it.
func MakeDir(dir string) (ID, error) {
	err := useDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err = MkdirAll(filepath.Clean(dir)); err == nil {
			err = useDir(dir)
		}
	}
	if err != nil {
		return ID{}, err
	}
	return dirID(dir)
}

// Replace replaces the file at path by one with the content of parts, one after
// the other, mode 0600, and returns its stamp. It writes a new file under a
// temporary name in the same folder, flushes it to the disk, renames it and
// flushes the folder, on Windows the file again, which also flushes what the file
// system has noted of its new name. A missing folder is made. On file systems that
// cannot flush folders, the last step is left out.
//
// A failed Replace returns a [ReplaceError], or an [Error] for a path that must
// not be written. The old content or the new one is then stored, whole.
//
// Replace first removes the temporary files that killed processes left for the
// same path. On Windows, where they look like live ones, it removes only those
// that are a minute old. Its cost does not depend on what else is in the folder.
// Concurrent calls, also of other processes, do not disturb each other, and the
// last one wins. On Windows it waits while another program keeps the file open and
// does not share it, until ctx ends, and for ten seconds at most; then it fails with
// an [Error] that says so. The end of ctx ends nothing else.
//
// On Windows the new file has an access list that admits the user, the system and
// administrators, whatever the folder's says. (In a sandbox that Windows calls an
// AppContainer, and for a restricted user, it inherits the folder's.)
func Replace(ctx context.Context, path string, parts ...[]byte) (Stamp, error) {
	return replace(ctx, path, false, parts)
}

// ReplacePlain is [Replace] for secrets that are not encrypted. On macOS it keeps the
// file out of Time Machine's backups, and does not write it to a volume that ignores
// owners.
func ReplacePlain(ctx context.Context, path string, parts ...[]byte) (Stamp, error) {
	return replace(ctx, path, true, parts)
}

func replace(ctx context.Context, path string, plain bool, parts [][]byte) (Stamp, error) {
	fail := func(step, stored string, err error) (Stamp, error) {
		return Stamp{}, &ReplaceError{Step: step, Path: path, Stored: stored, Err: err}
	}
	dir, base := filepath.Split(path)
	d, err := prepareDir(dir)
	if err != nil {
		return fail("open folder", Old, err)
	}
	defer d.Close()
	if err := checkTarget(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Stamp{}, err
	}
	removeLeftovers(dir, base)

	t, err := createTemp(dir, base)
	if err != nil {
		return fail("create", Old, err)
	}
	defer t.release()
	if plain {
		if err := t.keepPlain(path); err != nil {
			t.discard()
			return Stamp{}, err
		}
	}
	if step, err := t.fill(parts); err != nil {
		t.discard()
		return fail(step, Old, err)
	}
	if err := t.rename(ctx, path); err != nil {
		// Over a network a rename may report an error and have happened.
		stored := Unknown
		if t.inPlace() {
			stored = Old
			t.discard()
		}
		return fail("rename", stored, err)
	}
	if step, err := t.sync(d); err != nil {
		return fail(step, Unknown, err)
	}
	st, err := t.stamp(path)
	if err != nil {
		return Stamp{}, nil // stored; no file has the zero Stamp
	}
	return st, nil
}

// fill writes parts and flushes them to the disk. It returns the step that
// failed. Nothing is tried again after a failure: a second fsync may succeed
// although the data are lost.
func (t *temp) fill(parts [][]byte) (step string, err error) {
	for _, p := range parts {
		if _, err := t.f.Write(p); err != nil {
			return "write", err
		}
	}
	if err := Flush(t.f); err != nil {
		return "fsync", err
	}
	if err := t.written(); err != nil && !errors.Is(err, syscall.EINTR) { // EINTR: closed, and the data are on the disk
		return "close", err
	}
	return "", nil
}

// Remove deletes the file, durably, and the temporary files that killed
// processes left for it. A missing file is no error. A file that [Read] refuses is
// not deleted, unless only its mode is too wide. On Windows it waits as [Replace]
// does, and how soon a deletion is on the disk is the file system's business.
func Remove(ctx context.Context, path string) error {
	fail := func(step, stored string, err error) error {
		return &ReplaceError{Step: step, Path: path, Stored: stored, Err: err}
	}
	dir, base := filepath.Split(path)
	if err := useDir(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fail("open folder", Old, err)
	}
	d, err := openDir(dir)
	if err != nil {
		return fail("open folder", Old, err)
	}
	defer d.Close()
	removeLeftovers(dir, base)
	if err := checkTarget(path); err == nil {
		if err := remove(ctx, path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fail("remove", Old, err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Also if there was no file: a process may have died before this step.
	if err := syncDir(d); err != nil {
		return fail("fsync folder", Unknown, err)
	}
	return nil
}

// Rename gives the file a new name in the same folder, durably; on Windows how soon
// that is on the disk is the file system's business. It never
// overwrites a file: if newPath exists, it fails with fs.ErrExist. (On systems
// other than Linux, macOS and Windows it overwrites one that appears in this very
// moment.) On Windows it waits as [Replace] does.
func Rename(ctx context.Context, oldPath, newPath string) error {
	fail := func(step, stored string, err error) error {
		return &ReplaceError{Step: step, Path: oldPath, Stored: stored, Err: err}
	}
	dir := filepath.Dir(oldPath)
	if filepath.Dir(newPath) != dir {
		return fail("rename", Old, errors.New("the new name is in another folder"))
	}
	if err := useDir(dir); err != nil {
		return fail("open folder", Old, err)
	}
	d, err := openDir(dir)
	if err != nil {
		return fail("open folder", Old, err)
	}
	defer d.Close()
	if err := renameNew(ctx, oldPath, newPath); err != nil {
		return fail("rename", Old, err)
	}
	if err := syncDir(d); err != nil {
		return fail("fsync folder", Unknown, err)
	}
	return nil
}

// prepareDir opens the folder, made if it is missing, and checks it.
func prepareDir(dir string) (*os.File, error) {
	if _, err := MakeDir(dir); err != nil {
		return nil, err
	}
	return openDir(dir)
}

// tempPath returns the path of a temporary file. The first number that is free is
// taken, which is nearly always 0. So what a killed process leaves is found
// without reading the folder, which may hold very many files.
func tempPath(dir, base string, n int) string { return filepath.Join(dir, layout.Temp(base, n)) }

const (
	// usualTemps is how many numbers are looked at in any case. More are in use
	// only while more processes replace one file at once.
	usualTemps = 8
	maxTemps   = 1000
)

// createTemp creates the temporary file for base under the first free number.
func createTemp(dir, base string) (*temp, error) {
	var err error
	for n := 0; n < maxTemps; n++ {
		var t *temp
		if t, err = createTempAt(tempPath(dir, base, n)); err == nil {
			return t, nil
		}
		if !errors.Is(err, errTaken) {
			return nil, err
		}
	}
	return nil, err
}

// errTaken: the name of a temporary file belongs to another writer.
var errTaken = fmt.Errorf("too many temporary files: %w", fs.ErrExist)

// removeLeftovers removes the temporary files for base whose writer is dead.
// Trouble with them is no reason to fail: they are tried again next time.
func removeLeftovers(dir, base string) {
	for n := 0; n < maxTemps; n++ {
		path := tempPath(dir, base, n)
		if _, err := Stat(path); err == nil {
			removeIfDead(path)
		} else if n >= usualTemps {
			return
		}
	}
}
