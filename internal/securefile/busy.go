package securefile

import (
	"context"
	"errors"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/within"
)

// On Windows a file can be kept open in a way that keeps others from opening,
// replacing or deleting it: by a virus scanner, an indexer, a backup, an editor.
// This file says how long that is waited for. It has no system call, so that it is
// tested on every system.

// A refusal is what an error says of another attempt.
type refusal int

const (
	final  refusal = iota // another attempt changes nothing
	shared                // another program keeps the file open
	denied                // an access list, or a file that is just being deleted
)

// The longest waits for files that others keep open. The context may end them
// earlier. An access list stays as it is, and every call meets it: only the moment
// counts that a deletion takes.
const (
	sharedWait = 10 * time.Second
	deniedWait = 50 * time.Millisecond
	firstPause = time.Millisecond
	maxPause   = 50 * time.Millisecond
)

// retryBusy repeats do while judge says that another program keeps path open, until
// ctx ends or for as long as is sensible. Then it fails with an [Error] that says
// so.
func retryBusy(ctx context.Context, path string, judge func(error) refusal, do func() error) error {
	if ctx == once {
		return do()
	}
	start := time.Now()
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		err := do()
		if err == nil {
			return nil
		}
		why := judge(err)
		patience := sharedWait
		switch why {
		case final:
			return err
		case denied:
			patience = deniedWait
		}
		if time.Since(start) < patience && within.Sleep(ctx, pause) {
			continue
		}
		if why == denied {
			return err
		}
		return keptOpen(path, errors.Join(err, ctx.Err()))
	}
}

// whileDeleted judges a refusal to open another program's file. A file that was deleted
// while somebody has it open is denied until that one closes it, and then gone. It
// differs from a file whose access list denies to read it: not even its attributes can
// be seen. attributes judges an attempt to see them, final where it succeeds.
func whileDeleted(why refusal, attributes func() refusal) refusal {
	if why == denied && attributes() == denied {
		return shared
	}
	return why
}

// once is for retryBusy: it makes one attempt and returns its error.
var once = context.WithValue(context.Background(), onceKey{}, true)

type onceKey struct{}

// ErrKeptOpen: another program kept the file open, and did not share it, for as long as
// was waited.
var ErrKeptOpen = errors.New("kept open by another program")

// keptOpen is the error for a file that another program keeps open.
func keptOpen(path string, err error) error {
	return &Error{Path: path, Reason: "is kept open by another program, which does not share it",
		Advice: "Close the program that has it open, such as an editor, a backup or a virus scanner, and try again.", Err: errors.Join(ErrKeptOpen, err)}
}

// firstKnown tries ways in their order, up to the first that the system knows.
func firstKnown(unknown func(error) bool, ways ...func() error) (err error) {
	for _, way := range ways {
		if err = way(); err == nil || !unknown(err) {
			return err
		}
	}
	return err
}

// A reparse point is a file that a filter of the system stands in for. Those with
// this bit in their tag are other names for something: symbolic links and mount
// points. The others, such as files that Windows has deduplicated, are files.
const nameSurrogate = 0x20000000

func isLinkTag(tag uint32) bool { return tag&nameSurrogate != 0 }
