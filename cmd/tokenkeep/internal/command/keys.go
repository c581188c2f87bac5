package command

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/internal/keyrings"
	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// Where a cache can be kept: values of tokenkeep.Config.Store.
const (
	storeKeyring    = layout.Keyring
	storeKernel     = layout.Kernel
	storeDPAPI      = layout.DPAPI
	storePassphrase = layout.Passphrase
	storePlaintext  = layout.Plaintext
)

var stores = []string{storeKeyring, storeKernel, storeDPAPI, storePassphrase, storePlaintext}

func checkStore(store string) error {
	if store == "" || slices.Contains(stores, store) {
		return nil
	}
	return &misuse{fmt.Sprintf("there is no store %q", store), "Use one of " + strings.Join(stores, ", ") + "."}
}

// passphrase returns the passphrase of the cache, asking for it once.
func (c *call) passphrase(name string) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		return c.ask(ctx, "Passphrase of "+name, c.passphraseEnv, "-passphrase-env", false)
	}
}

// newPassphrase returns a passphrase that is to protect the cache from now on.
func (c *call) newPassphrase(name string) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		return c.ask(ctx, "New passphrase of "+name, c.newPassphraseEnv, "-new-passphrase-env", true)
	}
}

// keySource returns the source of keys for that store. known says whether the
// passphrase is that of an existing file. For a new passphrase the user is asked at
// once, because a later question would be asked under the lock.
func (c *call) keySource(ctx context.Context, store, name string, known bool) (encrypted.KeySource, error) {
	switch store {
	case storeKeyring:
		return keyrings.Keys(c.Keyring, name), nil
	case storeKernel:
		if c.Kernel == nil {
			return nil, &refusal{"the kernel's keyring is a part of Linux", "Use another store.", persistence.ErrUnavailable}
		}
		return keyrings.Keys(keyrings.AsKernel(c.Kernel), name), nil
	case storeDPAPI:
		return encrypted.DPAPI(), nil
	case storePassphrase:
		if known {
			return encrypted.Passphrase(c.passphrase(name), &encrypted.PassphraseOptions{Cost: c.Cost}), nil
		}
		ask := c.newPassphrase(name)
		if _, err := ask(ctx); err != nil {
			return nil, err
		}
		return encrypted.Passphrase(ask, &encrypted.PassphraseOptions{Cost: c.Cost}), nil
	}
	return nil, &refusal{fmt.Sprintf("only the program that stored the tokens has their key (%s)", store), "Use that program.", persistence.ErrUnavailable}
}

// bounded limits how long the call waits for other processes' locks. It is called when
// the user has been asked everything: a person may take longer, and must not keep
// other processes waiting.
func (c *call) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, cmp.Or(c.Patience, persistence.DefaultTimeout))
}

// opened is the file that holds what is stored, with its data.
type opened struct {
	persistence.Versioned
	file  *encrypted.File // nil for the plaintext file
	data  []byte
	store string
}

// open opens the file that holds what is stored, and reads it. It changes nothing.
func (c *call) open(ctx context.Context, f *files) (*opened, error) {
	if !f.encrypted {
		p, err := f.openPlaintext()
		if err != nil {
			return nil, err
		}
		data, err := p.Load(ctx)
		if err != nil {
			return nil, err
		}
		return &opened{Versioned: p, data: data, store: storePlaintext}, nil
	}
	return c.openEncrypted(ctx, f, f.encryptedPath())
}

// openEncrypted opens an encrypted file of the cache: its own, or one that was set
// aside.
func (c *call) openEncrypted(ctx context.Context, f *files, path string) (*opened, error) {
	source, err := encrypted.StoredSource(ctx, path)
	if err != nil {
		return nil, err
	}
	return c.openFrom(ctx, f, path, source)
}

// openFrom opens the encrypted file at path with the key that the store has.
func (c *call) openFrom(ctx context.Context, f *files, path, store string) (*opened, error) {
	keys, err := c.keySource(ctx, store, f.name, true)
	if err != nil {
		return nil, err
	}
	p, err := f.openEncrypted(path, keys)
	if err != nil {
		return nil, err
	}
	data, err := p.Load(ctx)
	if err != nil {
		return nil, err
	}
	return &opened{p, p, data, store}, nil
}

// leftKeys are keys that are still stored though no file of the cache needs them.
type leftKeys struct {
	LeftKeys []string `json:"leftKeys,omitempty"` // each as source/id
}

// keysLeft returns the keys that these files could not delete.
func (c *call) keysLeft(ctx context.Context, from ...*encrypted.File) (left leftKeys) {
	for _, file := range from {
		if file == nil {
			continue
		}
		names, err := file.LeftKeys(ctx)
		if err != nil {
			c.tell("whether old keys are still stored is not known: " + cause(err) + ".")
		}
		for _, name := range names {
			if !slices.Contains(left.LeftKeys, name) {
				left.LeftKeys = append(left.LeftKeys, name)
			}
		}
	}
	return left
}

func (l leftKeys) write(p *printer, cache string) {
	if len(l.LeftKeys) == 0 {
		return
	}
	p.line("Still stored, under the service %s, though no file of this cache needs it:", layout.KeyringService(cache))
	for _, name := range l.LeftKeys {
		source, id, _ := strings.Cut(name, "/")
		p.line("  the key %s (%s)", id, source)
	}
	p.wrapped("", "The next save, rotate or clear tries again to delete it, unless it belongs to a copy of the file in another folder.")
}

// openCache opens the cache as a program does, in that store, "" for the
// safest that works.
func (c *call) openCache(ctx context.Context, f *files, store string) (cache *persistence.Cache, err error) {
	err = c.asProgram(ctx, f, store, func(ctx context.Context, config tokenkeep.Config) (err error) {
		cache, err = tokenkeep.Open(ctx, config)
		return err
	})
	return cache, err
}

// asProgram calls do with the configuration of a program whose user asks for that
// store, "" for the safest that works.
func (c *call) asProgram(ctx context.Context, f *files, store string, do func(context.Context, tokenkeep.Config) error) error {
	config := tokenkeep.Config{Name: f.name, Dir: f.dir, Keyring: c.Keyring, Kernel: c.Kernel, Store: store, AllowPlaintext: store == storePlaintext, Strict: true,
		Logger: slog.New(slog.DiscardHandler), // Warn has what the user must know, and errors the rest
		Warn: func(w fallback.Warning) {
			if w.Backend != storePlaintext { // which was asked for
				c.tell(w.String())
			}
		}}
	if store == storeKernel && c.Kernel == nil {
		_, err := c.keySource(ctx, store, f.name, false)
		return err
	}
	if store == storePassphrase {
		config.Passphrase = c.newPassphrase(f.name)
		if f.encrypted {
			config.Passphrase = c.passphrase(f.name)
		}
		if _, err := config.Passphrase(ctx); err != nil {
			return err
		}
	}
	// First the lock alone: if another process has it, that must not look like a
	// keyring that does not answer.
	wait, cancel := c.bounded(ctx)
	defer cancel()
	unlock, err := f.lock.Lock(wait)
	if err != nil {
		return err
	}
	if err := unlock(); err != nil {
		return err
	}
	ctx, cancelOpen := c.bounded(ctx)
	defer cancelOpen()
	return do(ctx, config)
}

func (c *call) encryptedCache(name string) (*files, error) {
	f, err := c.storedCache(name)
	if err == nil && !f.encrypted {
		err = &refusal{"the tokens of " + name + " are not encrypted, so there is no key", "Encrypt them: " + c.inFolder("tokenkeep move "+name+" -to keyring"), nil}
	}
	return f, err
}

// rekey gives an encrypted file a key of another source or a new one of its own.
func (c *call) rekey(ctx context.Context, f *files, from *opened, to encrypted.KeySource, store, done string) (report, error) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	if err := from.file.Rotate(ctx, to); err != nil {
		return nil, err
	}
	return &changed{Name: f.name, storage: f.storageIn(ctx, store), leftKeys: c.keysLeft(ctx, from.file), done: done}, nil
}
