package encrypted

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep/internal/ledger"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// A key that a source stores outlives the process that made it. So that no kill
// leaves one behind for good, the ledger in the lock file records every key that
// may be stored while no header names it: one that is being made, or is about to
// be deleted. Who makes a file's first key under the lock uses a recorded one;
// who changes which keys the header names sweeps the rest.

func (f *File) ledger() ledger.Ledger { return ledger.In(f.store.FileLock().Path()) }

// note adds a key to the ledger.
func (f *File) note(name string) error { return f.ledger().AddKey(f.store.Path(), name) }

// stray returns the id of a noted key of that source, or "". There is no file,
// so no header names it.
func (f *File) stray(source string) (id string) {
	for _, name := range f.ledger().Keys(f.store.Path()) {
		if id, ok := strings.CutPrefix(name, source+"/"); ok && validKeyName(name) {
			return id
		}
	}
	return ""
}

// names tells whether h needs the key of that name.
func (h *header) names(name string) bool {
	return h != nil && (name == h.keyName() || name == h.previous)
}

// sweep deletes the noted keys that no header names, from this File's source
// and from the others given, and removes from the ledger what it has dealt with.
// It runs under the lock. What cannot be deleted now stays noted.
func (f *File) sweep(ctx context.Context, others ...KeySource) {
	names := f.ledger().Keys(f.store.Path())
	if len(names) == 0 {
		return
	}
	h, err := f.header()
	if err != nil && !errors.Is(err, persistence.ErrNotFound) {
		return
	}
	// A ledger that cannot be written says more than it needs to.
	_ = f.ledger().RemoveKeys(f.store.Path(), func(name string) bool {
		return validKeyName(name) && (h.names(name) || deleteKey(ctx, name, append(others, f.keySource())))
	})
}

// deleteKey tells whether the key is gone: from every source whose word is its
// own, and there is one.
func deleteKey(ctx context.Context, name string, sources []KeySource) (gone bool) {
	word, id, _ := strings.Cut(name, "/")
	for _, s := range sources {
		if d, ok := s.(KeyDeleter); ok && s.Source() == word {
			if d.DeleteKey(ctx, id) != nil {
				return false
			}
			gone = true
		}
	}
	return gone
}

// noteKeys notes the keys that the header names, as they are about to lose it,
// and returns its revision. That is "" if there is no header that can be read.
func (f *File) noteKeys(ctx context.Context) (rev string, err error) {
	err = f.hold(ctx, func() error {
		h, err := f.header()
		if err != nil {
			return nil
		}
		rev = h.revision()
		var names []string
		if _, stores := f.keySource().(KeyDeleter); stores {
			names = append(names, h.keyName())
		}
		if h.previous != "" { // of another source perhaps, for which it stays noted
			names = append(names, h.previous)
		}
		for _, name := range names {
			f.setUntidy(true)
			if err := f.note(name); err != nil {
				return err
			}
		}
		return nil
	})
	return rev, err
}

// forget notes, under the lock, the keys of the files old, which are about to be
// removed, but for those that a file of kept names. There are no other files
// here then: the last one has just been set aside.
func (f *File) forget(old, kept []string) error {
	source, ok := f.keySource().(KeyDeleter)
	if !ok {
		return nil
	}
	var needed []*header
	for _, path := range kept {
		h, err := readHeader(path)
		switch {
		case err == nil:
			needed = append(needed, h)
		case !errors.Is(err, persistence.ErrCorrupt):
			return err // it may need any key
		}
	}
	for _, path := range old {
		h, err := readHeader(path)
		if err != nil {
			continue
		}
		for _, name := range []string{h.keyName(), h.previous} {
			own := strings.HasPrefix(name, source.Source()+"/")
			if !own || slices.ContainsFunc(needed, func(h *header) bool { return h.names(name) }) {
				continue
			}
			f.setUntidy(true)
			if err := f.note(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// tidy sweeps, after a save or a removal that went well, if a key was noted since
// the last time. Its own failure does no harm: the note says more than it needs
// to.
func (f *File) tidy(ctx context.Context) {
	if f.setUntidy(false) {
		f.hold(ctx, func() error { f.sweep(ctx); return nil })
	}
}

// setUntidy returns what was set before.
func (f *File) setUntidy(now bool) (before bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before, f.untidy = f.untidy, now
	return before
}
