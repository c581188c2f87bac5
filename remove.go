package tokenkeep

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/internal/place"
	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// Remove removes everything that is stored under cfg.Name in cfg.Dir, for a sign-out
// that also works where the key cannot be had: the encrypted file, the plaintext
// file, those that were set aside and what a killed save left, and the keys that they
// had. It needs no key, asks nobody for a passphrase, and takes no notice of Order,
// Store and AllowPlaintext. The lock files stay. That nothing is stored is no error.
//
// A key that cannot be deleted now, because its keyring is locked or this program
// does not use it, stays, and is of no more use to anybody who has no copy of the
// file. Warn is told which. If it was the key of NAME.enc, a later Remove or sign-in
// deletes it as soon as that works. The program's own Key is somebody else's, and
// stays, unless its source stores the keys of each file.
//
// Remove does not sign out at the provider, and does not reach the memory of running
// programs: what they save afterwards is stored.
//
// It fails with a [*persistence.Error] if cfg is wrong, or if a file cannot be
// removed; it removes the other files all the same. A wait for another process ends
// as that of [Open] does, with ErrLockTimeout.
func Remove(ctx context.Context, cfg Config) error {
	if cfg.Kernel == nil { // before Order, which may name it, is left out
		cfg.Kernel = cfg.keyringOf(layout.Kernel)
	}
	cfg.Order, cfg.Store = nil, ""
	if err := cfg.check(); err != nil {
		return err
	}
	dir, err := cfg.folder()
	if err != nil {
		return err
	}
	cfg.Dir = dir
	s, err := newStore(cfg)
	if err != nil {
		return err
	}
	return s.remove(ctx)
}

func (s *store) remove(ctx context.Context) error {
	paths, err := s.stored()
	if err != nil || len(paths) == 0 && !place.Exists(s.place.Lock) {
		return err // and no folder is made
	}
	ctx, cancel := boundedWait(ctx)
	defer cancel()
	unlock, err := s.lock.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	// What others have stored since. The plaintext goes first: as long as an
	// encrypted file is there, no program begins a new plaintext file.
	if paths, err = s.stored(); err != nil {
		return err
	}
	var failed []error
	// The encrypted file also where there is none: its keys may have been left.
	for _, path := range append(paths, s.place.Encrypted) {
		if err := s.removeFile(ctx, path); err != nil {
			failed = append(failed, err)
		}
	}
	switch len(failed) {
	case 0:
		return nil
	case 1:
		return failed[0]
	}
	return openError(s.cfg.Dir, errors.Join(failed...), persistence.Remedy(failed[0]))
}

// stored returns the paths of the files that hold tokens, the plaintext first.
func (s *store) stored() (paths []string, err error) {
	here := layout.Cache{Dir: s.cfg.Dir, Name: s.cfg.Name}
	for _, path := range []string{here.Plaintext(), s.place.Encrypted} {
		if place.Exists(path) {
			paths = append(paths, path)
		}
	}
	dirs := []string{s.cfg.Dir, filepath.Dir(s.place.Encrypted), filepath.Dir(s.place.Plaintext)}
	slices.Sort(dirs)
	for _, dir := range slices.Compact(dirs) { // files are set aside where a link leads to
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, openError(dir, err, "")
		}
		for _, e := range entries {
			if f := layout.Parse(e.Name()); f.Cache == s.cfg.Name && (f.Kind == layout.Aside || f.Kind == layout.Temporary) {
				paths = append(paths, filepath.Join(dir, e.Name()))
			}
		}
	}
	return paths, nil
}

// removeFile removes the file at path, under the lock, and the keys that it had.
func (s *store) removeFile(ctx context.Context, path string) error {
	switch f := layout.Parse(filepath.Base(path)); {
	case f.Kind == layout.PlaintextFile:
		file, err := fallback.NewInsecurePlaintextFile(path, func(fallback.Warning) {}, &fallback.Options{Lock: s.lock})
		if err == nil {
			err = file.Delete(ctx)
		}
		return err
	case f.Kind == layout.Temporary, f.OfPlaintext: // under the lock nobody is saving
		if err := securefile.Remove(ctx, path); err != nil {
			return openError(path, err, persistence.Remedy(err))
		}
		return nil
	}
	file, err := s.openForDeletion(ctx, path)
	if err == nil {
		err = file.Delete(ctx)
	}
	if err == nil {
		err = s.warnOfKeys(ctx, file)
	}
	return err
}

// openForDeletion returns the encrypted file at path with the source that stores its
// key, if the program has that.
func (s *store) openForDeletion(ctx context.Context, path string) (*encrypted.File, error) {
	deleters := s.cfg.deleters()
	keys := s.anySource()
	if word, err := encrypted.StoredSource(ctx, path); err == nil {
		if i := slices.IndexFunc(deleters, func(d encrypted.KeyDeleter) bool { return d.Source() == word }); i >= 0 {
			keys = deleters[i]
		}
	}
	return encrypted.New(path, keys, &encrypted.Options{Name: s.cfg.Name, Lock: s.lock, OldSources: deleters})
}

// warnOfKeys tells which keys of the removed file stay.
func (s *store) warnOfKeys(ctx context.Context, file *encrypted.File) error {
	left, err := file.LeftKeys(ctx)
	if err != nil || len(left) == 0 {
		return err
	}
	s.warn(fallback.Warning{
		Location: file.Describe().Location,
		Message:  fmt.Sprintf("The tokens were removed, and their keys stay where they are stored: %s.", strings.Join(left, ", ")),
		Reason:   "They could not be deleted: their place is locked, does not answer, is not used by this program, or they were made for a copy of the file in another folder.",
		Remedy:   fmt.Sprintf("Without the file they are of no use. To delete them, unlock the place and sign out once more. In a keyring they are under the service %q.", layout.KeyringService(s.cfg.Name)),
	})
	return nil
}
