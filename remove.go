package tokenkeep

import (
	"context"
	"fmt"
	"strings"

	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/internal/place"
	"github.com/tokenkeep/tokenkeep/internal/removal"
)

// Remove removes everything that is stored under cfg.Name in cfg.Dir: the encrypted
// file, the plaintext file, those that were set aside, what a killed save left, and
// the keys that they had. It is for a sign-out that also works while the key is not
// available: it needs no key, asks nobody for a passphrase, and ignores Order, Store
// and AllowPlaintext. The lock files stay. It is no error if nothing is stored.
//
// A key that cannot be deleted now, because its keyring is locked or this program
// does not use it, stays. It is of no use to anybody without a copy of the file. Warn
// is told which key it is. If it was the key of NAME.enc, a later Remove or sign-in
// deletes it as soon as that works. The program's own Key belongs to somebody else
// and stays, unless its source stores a key for each file.
//
// Remove does not sign out at the provider, and does not reach the memory of running
// programs: what they save afterwards is stored.
//
// It fails with a [*persistence.Error] if cfg is wrong, or if a file cannot be
// removed; it removes the other files all the same. It waits for other processes as
// [Open] does, and fails with ErrLockTimeout when that takes too long.
func Remove(ctx context.Context, cfg Config) error {
	if cfg.Kernel == nil { // before Order is cleared, which may name it
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
	r := &removal.Removal{Cache: s.promoter.cache, Place: s.place, Lock: s.lock, Keys: s.cfg.deleters()}
	files, err := r.Files(ctx)
	if err != nil || len(files) == 0 && !place.Exists(s.place.Lock) {
		return err // and no folder is made
	}
	ctx, cancel := boundedWait(ctx)
	defer cancel()
	done, err := r.Do(ctx)
	if len(done.LeftKeys) > 0 {
		s.warn(fallback.Warning{
			Location: s.place.Encrypted,
			Message:  fmt.Sprintf("The tokens were removed, but these keys could not be deleted: %s.", strings.Join(done.LeftKeys, ", ")),
			Reason:   "Their keyring is locked, does not answer or is not used by this program, or the keys were made for a copy of the file in another folder.",
			Remedy:   fmt.Sprintf("Without the file they are useless. To delete them, unlock the keyring and sign out once more. They are there under the service %q.", layout.KeyringService(s.cfg.Name)),
		})
	}
	return err
}
