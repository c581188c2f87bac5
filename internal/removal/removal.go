// Package removal removes all that is stored of a cache, without its key: the
// encrypted file, the plaintext file, files that were set aside, temporary files of
// killed saves, and the keys of these files, as far as they can be deleted now. The
// lock files stay.
package removal

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/internal/ledger"
	"github.com/tokenkeep/tokenkeep/internal/place"
	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// Removal is the removal of one cache.
type Removal struct {
	Cache layout.Cache
	Place place.Place           // of Cache
	Lock  *persistence.FileLock // that all writers of the cache share
	// Keys are the sources that may store keys of the cache. They are asked only
	// to delete them.
	Keys []encrypted.KeyDeleter
}

// Done says what was removed, and which keys could not be deleted.
type Done struct {
	Files    []string // paths
	LeftKeys []string // each as source/id
}

// Files returns the paths of the files that hold tokens or held some, the
// plaintext first.
func (r *Removal) Files(ctx context.Context) (paths []string, err error) {
	for _, path := range []string{r.Cache.Plaintext(), r.Place.Encrypted} {
		if place.Exists(path) {
			paths = append(paths, path)
		}
	}
	dirs := []string{r.Cache.Dir, filepath.Dir(r.Place.Encrypted), filepath.Dir(r.Place.Plaintext)}
	slices.Sort(dirs)
	for _, dir := range slices.Compact(dirs) { // a file behind a link is set aside in its own folder
		entries, err := securefile.ReadDir(ctx, dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, failed(dir, err)
		}
		for _, e := range entries {
			if f := layout.Parse(e.Name()); f.Cache == r.Cache.Name && (f.Kind == layout.Aside || f.Kind == layout.Temporary) {
				paths = append(paths, filepath.Join(dir, e.Name()))
			}
		}
	}
	return paths, nil
}

// Orphans returns the keys, each as source/id, that are recorded as stored although no
// file needs them: an earlier removal could not delete them, or no save has used them
// yet.
func (r *Removal) Orphans() []string {
	return ledger.In(r.Lock.Path()).Keys(r.Place.Encrypted)
}

// Do removes the files, and then the keys. If something cannot be removed, it still
// removes the rest, and then fails; Done says what it did. It waits for the lock until
// ctx ends.
func (r *Removal) Do(ctx context.Context) (done Done, err error) {
	unlock, err := r.Lock.Lock(ctx)
	if err != nil {
		return done, err
	}
	defer unlock()
	// Also files that others have stored since. The plaintext goes first: while an
	// encrypted file is there, no program begins a new plaintext file.
	paths, err := r.Files(ctx)
	if err != nil {
		return done, err
	}
	var failures []error
	for _, path := range paths {
		err := r.remove(ctx, path, &done)
		if err != nil {
			failures = append(failures, err)
		}
		if err == nil || !place.Exists(path) { // or only its keys could not be listed
			done.Files = append(done.Files, path)
		}
	}
	if !slices.Contains(paths, r.Place.Encrypted) { // its keys may have been left
		if err := r.removeEncrypted(ctx, r.Place.Encrypted, &done); err != nil {
			failures = append(failures, err)
		}
	}
	switch len(failures) {
	case 0:
		return done, nil
	case 1:
		return done, failures[0]
	}
	return done, failed(r.Cache.Dir, errors.Join(failures...))
}

// remove removes the file at path, under the lock, and the keys that it had.
func (r *Removal) remove(ctx context.Context, path string, done *Done) error {
	switch f := layout.Parse(filepath.Base(path)); {
	case f.Kind == layout.PlaintextFile:
		file, err := fallback.NewInsecurePlaintextFile(path, func(fallback.Warning) {}, &fallback.Options{Lock: r.Lock})
		if err == nil {
			err = file.Delete(ctx)
		}
		return err
	case f.Kind == layout.Temporary, f.OfPlaintext: // under the lock nobody is saving
		if err := securefile.Remove(ctx, path); err != nil {
			return failed(path, err)
		}
		return nil
	}
	return r.removeEncrypted(ctx, path, done)
}

// removeEncrypted removes an encrypted file, which need not exist or be readable.
func (r *Removal) removeEncrypted(ctx context.Context, path string, done *Done) error {
	// It does not matter which source: the ones that store keys are among the old ones.
	file, err := encrypted.New(path, encrypted.DPAPI(), &encrypted.Options{Name: r.Cache.Name, Lock: r.Lock, OldSources: r.Keys})
	if err != nil {
		return err
	}
	if err := file.Delete(ctx); err != nil {
		return err
	}
	left, err := file.LeftKeys(ctx)
	for _, name := range left {
		if !slices.Contains(done.LeftKeys, name) {
			done.LeftKeys = append(done.LeftKeys, name)
		}
	}
	return err
}

func failed(location string, err error) error {
	return &persistence.Error{Op: "remove", Backend: "cache", Location: location, Err: err, Remedy: persistence.Remedy(err)}
}
