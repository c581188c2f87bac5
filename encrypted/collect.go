package encrypted

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep/internal/ledger"
	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// A key that a source stores outlives the process that made it. So that a kill
// leaves none behind for good, the ledger in the lock file records every key that
// may be stored while no header names it: one that is being made, or is about to
// be deleted. The first save of a file uses a recorded key; what changes the keys
// that a header names collects the others.
//
// Neither the ledger nor a header is proof that a key may be deleted: somebody
// who can write the folder can write both. The key's id is: see File.owns.

func (f *File) ledger() ledger.Ledger { return ledger.In(f.store.FileLock().Path()) }

// record adds a key to the ledger.
func (f *File) record(name string) error { return f.ledger().AddKey(f.store.Path(), name) }

// orphanKey returns the id of a recorded key of that source that this file may
// use, or "". It leaves out the keys that h, which may be nil, or another file's
// header names.
func (f *File) orphanKey(ctx context.Context, source string, h *header) string {
	recorded := f.ledger().Keys(f.store.Path())
	if len(recorded) == 0 {
		return ""
	}
	headers, err := f.headers(ctx)
	if err != nil && !errors.Is(err, persistence.ErrCorrupt) {
		return ""
	}
	for _, name := range recorded {
		if id, ok := strings.CutPrefix(name, source+"/"); ok && f.owns(id) && !h.names(name) && !needed(name, headers) {
			return id
		}
	}
	return ""
}

// names reports whether h needs the key of that name. A nil header needs none.
func (h *header) names(name string) bool {
	return h != nil && (name == h.keyName() || name == h.file.previous)
}

// headers returns the headers of this file and of those that were set aside from
// it, or are one of these: the files whose keys this File owns. It leaves out
// damaged ones. It fails if there is a file that may need any key, with ErrCorrupt
// if that is this one.
func (f *File) headers(ctx context.Context) (all []*header, err error) {
	dir, base := filepath.Split(f.store.Path())
	entries, err := securefile.ReadDir(ctx, dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if withoutAside(e.Name()) != withoutAside(base) {
			continue
		}
		h, err := readHeader(ctx, filepath.Join(dir, e.Name()))
		switch {
		case err == nil:
			all = append(all, h)
		case !errors.Is(err, persistence.ErrNotFound) && (!errors.Is(err, persistence.ErrCorrupt) || e.Name() == base):
			return nil, err
		}
	}
	return all, nil
}

// needed reports whether one of the headers names the key of that name.
func needed(name string, headers []*header) bool {
	return slices.ContainsFunc(headers, func(h *header) bool { return h.names(name) })
}

// collectKeys deletes the recorded keys that no header needs, but for the one
// called keep, and removes the records that are settled. It uses this File's
// sources and the others given, and runs under the lock. A key that cannot be
// deleted now stays recorded.
func (f *File) collectKeys(ctx context.Context, keep string, others ...KeySource) {
	if len(f.ledger().Keys(f.store.Path())) == 0 {
		return
	}
	headers, err := f.headers(ctx)
	if err != nil {
		return
	}
	sources := append(f.sources(), others...)
	// If the ledger cannot be written, it keeps records that are not needed: no harm.
	_ = f.ledger().RemoveKeys(f.store.Path(), func(name string) bool {
		return needed(name, headers) || name != keep && f.deleteKey(ctx, name, sources)
	})
}

// sources returns all sources that may hold keys of this file.
func (f *File) sources() []KeySource {
	return append([]KeySource{f.keySource()}, f.oldSources...)
}

// deleteKey deletes a key that is this file's own from every source of its word.
// It reports whether the record is settled: the key is deleted, or it is not this
// file's.
func (f *File) deleteKey(ctx context.Context, name string, sources []KeySource) (settled bool) {
	word, id, _ := strings.Cut(name, "/")
	if !f.owns(id) {
		return true
	}
	for _, s := range sources {
		if d, ok := s.(KeyDeleter); ok && s.Source() == word {
			if d.DeleteKey(ctx, id) != nil {
				return false
			}
			settled = true
		}
	}
	return settled
}

// recordKeys records the keys that the file's header names, because it is about
// to go, and returns its revision: "" if there is no header that can be read.
func (f *File) recordKeys(ctx context.Context) (rev string, err error) {
	err = f.hold(ctx, func() error {
		h, err := f.header(ctx)
		if err != nil {
			return nil
		}
		rev = h.revision()
		return f.giveUp(h.keyName(), h.file.previous)
	})
	return rev, err
}

// giveUp records keys that a header is about to lose. They are collected later,
// whatever source is in use then. A key that is not this file's own stays where it
// is; where a source at hand may store it, LeftKeys says so.
func (f *File) giveUp(names ...string) error {
	for _, name := range names {
		word, id, ok := strings.Cut(name, "/")
		if !ok {
			continue
		}
		if f.owns(id) {
			f.setKeysToCollect(true)
			if err := f.record(name); err != nil {
				return err
			}
			continue
		}
		stored := func(s KeySource) bool { _, ok := s.(KeyDeleter); return ok && s.Source() == word }
		if slices.ContainsFunc(f.sources(), stored) {
			f.mu.Lock()
			if !slices.Contains(f.notOwned, name) {
				f.notOwned = append(f.notOwned, name)
			}
			f.mu.Unlock()
		}
	}
	return nil
}

// forget gives up, under the lock, the keys of the files old, which are about to
// be removed.
func (f *File) forget(ctx context.Context, old []string) error {
	for _, path := range old {
		h, err := readHeader(ctx, path)
		if err != nil {
			continue
		}
		if err := f.giveUp(h.keyName(), h.file.previous); err != nil {
			return err
		}
	}
	return nil
}

// LeftKeys returns the keys, each as "source/id", that are still stored though
// neither this file nor one that was set aside from it needs them, as far as that is
// known. After [File.Delete], [File.Rotate] or [File.SetAside] these are the keys that
// could not be deleted: their source was not available, is not among the sources of this
// File (see [Options]), or they belong to a copy of the file in another folder. The next
// save, Rotate or Delete tries again, except for those of another folder.
func (f *File) LeftKeys(ctx context.Context) ([]string, error) {
	var left []string
	err := f.hold(ctx, func() error {
		headers, err := f.headers(ctx)
		if err != nil && !errors.Is(err, persistence.ErrCorrupt) {
			return err
		}
		f.mu.Lock()
		left = slices.Clone(f.notOwned)
		f.mu.Unlock()
		for _, name := range f.ledger().Keys(f.store.Path()) {
			if _, id, _ := strings.Cut(name, "/"); f.owns(id) {
				left = append(left, name)
			}
		}
		left = slices.DeleteFunc(left, func(name string) bool { return needed(name, headers) })
		return nil
	})
	if err != nil {
		return nil, wrap("list keys", f.store.Path(), err)
	}
	return left, nil
}

// collectIfNeeded collects keys after a save or a removal, if a key was recorded
// since the last time. Its own failure does no harm: the ledger then keeps records that
// are not needed.
func (f *File) collectIfNeeded(ctx context.Context, keep string) {
	if f.setKeysToCollect(false) {
		_ = f.hold(ctx, func() error { f.collectKeys(ctx, keep); return nil })
	}
}

// setKeysToCollect returns what was set before.
func (f *File) setKeysToCollect(now bool) (before bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before, f.keysToCollect = f.keysToCollect, now
	return before
}
