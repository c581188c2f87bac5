//go:build unix

package encrypted

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tokenkeep/tokenkeep/internal/securefile"
)

// chmod600 names the command, for an advice.
const chmod600 = " (chmod 600)"

// readKeyFile reads a key file: one of the user's own that is closed to others, or
// one that the system mounted. The error is that of the first.
func readKeyFile(ctx context.Context, path string) ([]byte, error) {
	text, _, err := securefile.Read(ctx, path, maxKeyText)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return text, err
	}
	if mounted, mountedErr := readMounted(path, os.Geteuid()); mountedErr == nil {
		return mounted, nil
	}
	return nil, err
}

// readMounted reads, as the user euid, a file that root provides: Docker mounts
// secrets with mode 0444, and Kubernetes as links into folders of root's in a folder
// that everybody could write, were it not mounted to be read only. Who may read such
// a file was decided by the person who mounted it. Nobody but root and the user may be able
// to change it, or where a link on the way leads.
func readMounted(path string, euid int) ([]byte, error) {
	path, err := followTrusted(path, euid)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	// Root's own file counts as mounted only if it cannot be written.
	mounted := st.Uid == 0 && (euid != 0 || st.Mode&0o222 == 0 || readOnly(path))
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, errors.New("it is not a regular file")
	case st.Mode&0o022 != 0, !mounted && (int(st.Uid) != euid || st.Mode&0o077 != 0):
		return nil, fs.ErrPermission
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyText+1))
	if err == nil && len(text) > maxKeyText {
		err = errors.New("it is larger than a key")
	}
	return text, err
}

// followTrusted follows all links on the way to path, and checks the folder of each
// and the folder of the file.
func followTrusted(path string, euid int) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	at, rest, links := "/", strings.Split(path, "/"), 0
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, name)
		var st unix.Stat_t
		if err := unix.Lstat(next, &st); err != nil {
			return "", &fs.PathError{Op: "lstat", Path: next, Err: err}
		}
		link := st.Mode&unix.S_IFMT == unix.S_IFLNK
		if (link || len(rest) == 0) && !trustedIn(at, &st, euid) {
			return "", fmt.Errorf("%w: others can change %s", fs.ErrPermission, next)
		}
		if !link {
			at = next
			continue
		}
		if links++; links > 16 {
			return "", unix.ELOOP
		}
		target, err := os.Readlink(next)
		if err != nil {
			return "", err
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return at, nil
}

// trustedIn reports whether nobody but root and the user can replace the entry st of
// the folder dir.
func trustedIn(dir string, st *unix.Stat_t, euid int) bool {
	own := func(uid uint32) bool { return uid == 0 || int(uid) == euid }
	var d unix.Stat_t
	if unix.Stat(dir, &d) != nil || !own(d.Uid) || !own(st.Uid) {
		return false
	}
	return d.Mode&0o022 == 0 || d.Mode&unix.S_ISVTX != 0 || readOnly(dir)
}
