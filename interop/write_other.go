//go:build !linux && !darwin

package interop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/persistence"
)

func canWrite() error {
	return remedy.Errorf("Leave Options.Write unset.", "%w: another program's cache can only be read on this system: %w", persistence.ErrUnavailable, errors.ErrUnsupported)
}

func (s *Store) write(context.Context, []byte, *string) (string, error) { return "", canWrite() }

// peerLock is the other programs' lock, which is never taken here.
type peerLock struct{}

func (*peerLock) release() bool { return true }

// stamp tells one state of a file from another.
type stamp struct {
	size     int64
	modified int64
}

func (s stamp) age() time.Duration { return time.Since(time.Unix(0, s.modified)) }

func stampOf(path string) (stamp, error) {
	i, err := os.Stat(path)
	if err != nil {
		return stamp{}, err
	}
	return stamp{i.Size(), i.ModTime().UnixNano()}, nil
}

func readFile(ctx context.Context, path string, limit int64) ([]byte, stamp, error) {
	f, err := securefile.OpenForeign(ctx, path)
	if err != nil {
		return nil, stamp{}, err
	}
	defer f.Close()
	i, err := f.Stat()
	if err != nil {
		return nil, stamp{}, err
	}
	if !i.Mode().IsRegular() {
		return nil, stamp{}, remedy.Errorf("Give the path of the file.", "%w: it is no regular file", persistence.ErrUnavailable)
	}
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, stamp{}, err
	}
	if int64(len(raw)) > limit {
		return nil, stamp{}, fmt.Errorf("%w: more than %d bytes", persistence.ErrTooLarge, limit)
	}
	return raw, stamp{i.Size(), i.ModTime().UnixNano()}, nil
}
