package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep"
	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/keyring"
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
	return &misuse{fmt.Sprintf("%q is no place to keep tokens", store), "Use one of " + strings.Join(stores, ", ") + "."}
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
// passphrase is the one of a file that is there. A new one is asked for at once,
// since who asks for the key later has the lock.
func (c *call) keySource(ctx context.Context, store, name string, known bool) (encrypted.KeySource, error) {
	switch store {
	case storeKeyring:
		return keyring.NewKeys(c.keyring, layout.KeyringService(name)), nil
	case storeKernel:
		if c.kernel == nil {
			return nil, &refusal{"the kernel's keyring is a part of Linux", "Use another store.", persistence.ErrUnavailable}
		}
		return c.kernelKeys(name), nil
	case storeDPAPI:
		return encrypted.DPAPI(), nil
	case storePassphrase:
		if known {
			return encrypted.Passphrase(c.passphrase(name), &encrypted.PassphraseOptions{Cost: c.cost}), nil
		}
		ask := c.newPassphrase(name)
		if _, err := ask(ctx); err != nil {
			return nil, err
		}
		return encrypted.Passphrase(ask, &encrypted.PassphraseOptions{Cost: c.cost}), nil
	}
	return nil, &refusal{fmt.Sprintf("only the program that stored the tokens has their key (%s)", store), "Use that program.", persistence.ErrUnavailable}
}

// kernelKeys returns the keys of a cache in the kernel's keyring, or in what stands
// for it.
func (c *call) kernelKeys(name string) *keyring.Keys {
	return keyring.NewKeys(theKernel{c.kernel}, layout.KeyringService(name))
}

type theKernel struct{ keyring.Keyring }

// KeySource makes it the kernel's for keyring.Keys.
func (theKernel) KeySource() string { return storeKernel }

// bounded bounds what waits for other processes' locks. It is to be called when
// there is nobody to be asked any more: a person may take longer, and must not
// keep others waiting.
func (c *call) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, cmp.Or(c.patience, persistence.DefaultTimeout))
}

// open returns the backend that holds what is stored, having read it once, and
// the store that it is. It changes nothing.
func (c *call) open(ctx context.Context, f *files) (backend, []byte, string, error) {
	if !f.encrypted {
		p, err := f.openPlaintext()
		if err != nil {
			return nil, nil, "", err
		}
		data, err := p.Load(ctx)
		return p, data, storePlaintext, err
	}
	source, err := encrypted.StoredSource(f.encryptedPath())
	if err != nil {
		return nil, nil, "", err
	}
	p, data, err := c.tryKey(ctx, f, source)
	return p, data, source, err
}

func (c *call) tryKey(ctx context.Context, f *files, store string) (backend, []byte, error) {
	keys, err := c.keySource(ctx, store, f.name, true)
	if err != nil {
		return nil, nil, err
	}
	p, err := f.openEncrypted(f.encryptedPath(), keys)
	if err != nil {
		return nil, nil, err
	}
	data, err := p.Load(ctx)
	return p, data, err
}

// backend is what both files are.
type backend interface {
	persistence.Versioned
	persistence.Describer
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
	config := tokenkeep.Config{Name: f.name, Dir: f.dir, Keyring: c.keyring, Kernel: c.kernel, Store: store, AllowPlaintext: store == storePlaintext, Strict: true,
		Logger: slog.New(slog.DiscardHandler), // what the user ought to know comes by Warn, and trouble as an error
		Warn: func(w fallback.Warning) {
			if w.Backend != storePlaintext { // which was asked for
				fmt.Fprintln(c.stderr, "tokenkeep: "+w.String())
			}
		}}
	if store == storeKernel && c.kernel == nil {
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
	// First the lock alone, lest another process that has it pass for a keyring that
	// does not answer.
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

// keyLost says that the file can certainly not be read any more.
func keyLost(err error) bool {
	return errors.Is(err, persistence.ErrCorrupt) || errors.Is(err, persistence.ErrKeyMissing)
}
