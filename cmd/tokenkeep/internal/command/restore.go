package command

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/internal/tokencache"
	"github.com/tokenkeep/tokenkeep/internal/transfer"
	"github.com/tokenkeep/tokenkeep/persistence"
)

var restoreCommand = &command{
	name: "restore", args: "NAME", min: 1, max: 1, short: "put back what was set aside, if its key is there again",
	long: "A program sets an encrypted file aside when its key is gone, and its user signs in again. If the key comes back, for example because the keyring was restored, " +
		"restore adds what the file holds to the cache again, and removes the file. What was stored since then stays; of two tokens for one purpose the newer one is kept. " +
		"Accounts that signed out since then are signed in again.",
	examples: []string{"tokenkeep restore contoso-cli"},
	flags:    func(set *flag.FlagSet, o *options) { dirFlag(set, o) },
	run:      runRestore,
}

type restored struct {
	changed
	Restored []string `json:"restored"` // the files
	Accounts int      `json:"accounts"` // that the cache has now
}

func (r *restored) write(p *printer) {
	p.line("%s: put back; it is kept %s.", r.Name, r.storage)
	for _, path := range r.Restored {
		p.line("  from %s", path)
	}
	p.line("It has %s.", count(r.Accounts, "account"))
	r.leftKeys.write(p, r.Name)
}

func runRestore(ctx context.Context, c *call) (report, error) {
	f, err := c.cache(c.args[0])
	if err != nil {
		return nil, err
	}
	// Once without the lock: a keyring may take long to answer the first time.
	if err := f.encryptedNow(c); err != nil {
		return nil, err
	}
	if _, err := c.readableAside(ctx, f); err != nil {
		return nil, err
	}
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	unlock, err := f.lock.Lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	again, err := c.cache(f.name) // what a program has done since
	if err != nil {
		return nil, err
	}
	again.lock, f = f.lock, again
	if err := f.encryptedNow(c); err != nil {
		return nil, err
	}
	readable, err := c.readableAside(ctx, f)
	if err != nil {
		return nil, err
	}
	r := &restored{}
	for _, aside := range readable {
		r.Restored = append(r.Restored, aside.path)
	}
	if !f.encrypted {
		newest := readable[0]
		if err := securefile.Rename(ctx, newest.path, f.encryptedPath()); err != nil {
			return nil, err
		}
		f.encrypted = true
		readable = readable[1:]
	}
	to, err := c.open(ctx, f)
	if err != nil {
		return nil, err
	}
	data, err := c.addBack(ctx, f, to, readable)
	if err != nil {
		return nil, err
	}
	// Only now is everything where it belongs.
	had := []*encrypted.File{to.file}
	for _, aside := range readable {
		if err := aside.file.Delete(ctx); err != nil {
			return nil, err
		}
		had = append(had, aside.file)
	}
	sum, err := parseCache(data)
	if err != nil {
		return nil, err
	}
	r.Accounts = len(sum.Accounts())
	r.changed = changed{Name: f.name, storage: f.storageIn(ctx, to.store), leftKeys: c.keysLeft(ctx, had...), done: "put back"}
	return r, nil
}

// addBack merges the files that were set aside into the cache, and returns what the
// cache then holds. The caller has the lock.
func (c *call) addBack(ctx context.Context, f *files, to *opened, from []asideFile) (data []byte, err error) {
	data = to.data
	for _, aside := range from {
		t := &transfer.Transfer{From: aside, To: to, NotFound: persistence.ErrNotFound, Conflict: persistence.ErrConflict,
			Combine: func(h transfer.Held) (transfer.Next, error) {
				merged, changed, refused, err := transfer.Merge(nil, h.From, h.To)
				if len(refused) > 0 {
					c.tell("left out, because MSAL cannot read them: " + tokencache.Names(refused) + ".")
				}
				return transfer.Next{Data: merged, Changed: changed, Keep: true}, err
			}}
		done, err := t.Try(ctx)
		if err != nil {
			return nil, &refusal{fmt.Sprintf("%s cannot be added to %s: %s", aside.path, f.encryptedPath(), cause(err)), persistence.Remedy(err), err}
		}
		data = done.Data
	}
	return data, nil
}

// encryptedNow refuses to add to a plaintext file what was encrypted.
func (f *files) encryptedNow(c *call) error {
	if f.plaintext && !f.encrypted {
		return &refusal{f.name + " is kept unencrypted now, and what was set aside was encrypted", "Encrypt it first: " + c.inFolder("tokenkeep move "+f.name+" -to keyring"), nil}
	}
	return nil
}

// asideFile is a file that was set aside, and can be read.
type asideFile struct {
	*opened
	path string
}

// readableAside returns the encrypted files that were set aside and can be read,
// the newest first. Nobody is asked for a passphrase: a file that has one was
// damaged when it was set aside. If no file can be read, readableAside fails.
func (c *call) readableAside(ctx context.Context, f *files) (readable []asideFile, err error) {
	var first error
	n := 0
	for _, name := range slices.Backward(f.aside) {
		if layout.Parse(name).OfPlaintext {
			continue
		}
		n++
		path := filepath.Join(f.dir, name)
		from, err := c.openAside(ctx, f, path)
		if err == nil {
			readable = append(readable, asideFile{from, path})
		} else {
			first = cmp.Or(first, err)
		}
	}
	switch {
	case n == 0:
		return nil, &refusal{"no encrypted file of " + f.name + " was set aside in " + f.dir, "", persistence.ErrNotFound}
	case readable == nil:
		return nil, &refusal{fmt.Sprintf("%s set aside, and cannot be read: %s", was(n, "file"), cause(first)), persistence.Remedy(first), first}
	}
	return readable, nil
}

func was(n int, one string) string {
	if n == 1 {
		return "1 " + one + " was"
	}
	return fmt.Sprintf("%d %ss were", n, one)
}

// openAside opens a file that was set aside, unless its key is from a passphrase.
func (c *call) openAside(ctx context.Context, f *files, path string) (*opened, error) {
	if source, err := encrypted.StoredSource(ctx, path); err == nil && source == storePassphrase {
		return nil, &refusal{"it is encrypted with a passphrase and was damaged", "", persistence.ErrCorrupt}
	}
	return c.openEncrypted(ctx, f, path)
}
