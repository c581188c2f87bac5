//go:build linux || darwin

package interop

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// maxHold bounds how long the other programs' lock is held for a keyring: MSAL Python
// waits five seconds for it and then goes on without.
const maxHold = 3 * time.Second

// writeItem is write for an item of a keyring. The item cannot be replaced on
// condition that it is still the same, so all is done under the other programs' lock.
func (s *Store) writeItem(ctx context.Context, view []byte, rev *string) (string, error) {
	path := resolved(s.path)
	old, err := checkTarget(path)
	if err != nil {
		return "", err
	}
	// A keyring that does not open, or not soon, keeps nobody waiting.
	if _, err := s.item.foreign().Get(ctx); err != nil && !errors.Is(err, persistence.ErrNotFound) {
		return "", err
	}
	peer, err := lockPeer(ctx, s.lockPath())
	if err != nil {
		return "", err
	}
	defer peer.release()
	ctx, cancel := context.WithTimeout(ctx, maxHold)
	defer cancel()
	now, err := s.read(ctx)
	if err != nil {
		return "", err
	}
	s.keep(now)
	if rev != nil && now.rev != *rev {
		return "", persistence.ErrConflict
	}
	if len(now.raw) == 0 && string(view) == "{}" {
		return "", nil // a Delete, and nothing is stored
	}
	next, err := s.lens().Put(now.raw, view, time.Now())
	if err != nil {
		return "", remedy.With("Sign in again with the program that keeps it.", err)
	}
	if bytes.Equal(next, now.raw) && len(next) > 0 {
		return now.rev, nil
	}
	if !peer.mine() {
		return "", persistence.ErrConflict // MSAL Node removes locks that it does not hold
	}
	if err := s.item.store(ctx, next); err != nil {
		return "", err
	}
	if err := signalChange(path, old); err != nil {
		return "", err
	}
	if !peer.release() {
		if after, err := s.read(ctx); err != nil || !bytes.Equal(after.raw, next) {
			return "", persistence.ErrConflict
		}
	}
	return s.stored(view, next)
}

// signalChange makes other programs read again: it sets the time of the file to one
// later than any at which they can have read before. If there is no file, it makes
// one.
func signalChange(path string, old fs.FileInfo) error {
	var before time.Time
	if old != nil {
		before = old.ModTime()
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if now, err := f.Stat(); err == nil && old != nil && now.ModTime().After(before) {
		before = now.ModTime()
	}
	_, err = setTime(path, before)
	return err
}

// store replaces what is in the item.
func (i *Item) store(ctx context.Context, data []byte) error {
	if i.Base64 {
		data = base64.StdEncoding.AppendEncode(nil, data)
	}
	item := i.foreign()
	if i.Schema == "" {
		if _, err := item.Get(ctx); errors.Is(err, persistence.ErrNotFound) {
			return remedy.Errorf("Sign in with the other program first, or name the schema in Item.Schema.", "%w: there is no such item, and none can be made without the name of its schema", persistence.ErrUnavailable)
		}
	}
	return item.Set(ctx, data)
}
