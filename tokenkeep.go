package tokenkeep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// Config says what [Open] may do. The zero value of every field but Name is a
// sensible default.
type Config struct {
	// Name names the cache, such as "contoso-cli": 1 to 64 characters of a-z,
	// 0-9, '.', '_' and '-', the first a letter or a digit. Programs with the same
	// Name and Dir share one cache. Only Name is required.
	Name string

	// Dir is the folder for the cache's files. "" means the platform's own, see
	// DefaultDir. If it is missing it is created with mode 0700.
	Dir string

	// Keyring holds the key. nil means the operating system's, keyring.System.
	Keyring keyring.Keyring

	// Passphrase returns the passphrase that protects the file where no keyring
	// works: from a prompt, or from a secret store. Open asks for it. A later call
	// asks only if another process has changed the key, and after a failure not
	// again for a minute. nil means that there is no passphrase.
	Passphrase func(ctx context.Context) ([]byte, error)

	// AllowPlaintext permits a plaintext file as the last resort. Anybody who can
	// read the user's files can use it. Warn is told when it comes to that. It also
	// permits to move a plaintext file that is found into the encrypted one, see
	// the package comment.
	AllowPlaintext bool

	// Order names the candidates that may keep the cache, the preferred one
	// first: "keyring", "dpapi", "passphrase", "plaintext". nil means the
	// platform's own order, which is that one, with "dpapi" on Windows only. A
	// candidate that is left out is not permitted, even where it has stored tokens
	// already. "plaintext" can only be the last, and needs AllowPlaintext as well.
	Order []string

	// Store is the end user's wish, such as from an environment variable of the
	// program: "" for none, or "keyring", "passphrase", "plaintext" or "memory",
	// and on Windows "dpapi". It only narrows what the other fields permit.
	// "memory" stores nothing and does not touch what is stored.
	Store string

	// Strict lets storage errors fail the sign-in; see persistence.WithStrict.
	Strict bool

	// Warn is told, once for each kind, what the user of the program should know.
	// It must be safe for concurrent use, and must not use the cache. nil means
	// that warnings are logged.
	Warn func(fallback.Warning)

	// Logger gets the warnings if Warn is nil, storage trouble that fails no call
	// and, once for each Open, the choice that was made: at the level Info with
	// every refusal, or at Debug if there was none. A program that has to choose
	// again while it runs logs that too. nil means slog.Default().
	Logger *slog.Logger
}

// Open returns the cache of that Name, kept in the safest way that works here:
// in order, an encrypted file whose key is in the operating system's keyring, on
// Windows one whose key DPAPI encrypts for the user, an encrypted file with a
// passphrase if there is one, and a plaintext file if that is allowed. Pass it to
// public.WithCache. See the package comment for what Open does with what is
// already stored, and [ChoiceOf] for which way was chosen.
//
// Open proves that its choice works before it returns: it fetches the key of the
// file that is there or, if nothing is stored, makes the key. So nobody signs in
// through a browser only to learn then that the token cannot be stored.
//
// It fails with a [*fallback.NoneError], which lists every candidate with its
// reason and remedy, if nothing works. It fails with ErrKeyringLocked,
// ErrUnavailable, ErrWrongKey or another class of package persistence if tokens
// are stored whose key is not available now. It fails with a [*persistence.Error]
// that names the field if cfg is wrong. It does not change what is stored then.
//
// A wait for another process ends with ctx, or after persistence.DefaultTimeout
// if ctx has no deadline; a wait for a person ends with ctx.
func Open(ctx context.Context, cfg Config) (*persistence.Cache, error) {
	s, err := prepare(cfg)
	if err != nil {
		return nil, err
	}
	if err := s.choose(ctx); err != nil {
		return nil, err
	}
	opts := []persistence.Option{persistence.WithLogger(cfg.Logger)}
	if cfg.Strict {
		opts = append(opts, persistence.WithStrict())
	}
	return persistence.New(s, opts...)
}

// prepare returns the store of cfg, which has chosen nothing yet.
func prepare(cfg Config) (*store, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	cfg.Order = slices.Clone(cfg.Order)
	ofUser := cfg.Dir == ""
	if ofUser {
		dir, err := DefaultDir()
		if err != nil {
			return nil, err
		}
		cfg.Dir = dir
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, openError(cfg.Dir, err, "Set Config.Dir to an absolute path.")
	}
	cfg.Dir = dir
	if cfg.Store != layout.Memory {
		if err := securefile.MkdirAll(dir); err != nil {
			return nil, writable(openError(dir, err, cmp.Or(persistence.Remedy(err), "This user must be able to make and write the folder.")), ofUser)
		}
	}
	s, err := newStore(cfg)
	if err != nil {
		return nil, err
	}
	s.ofUser = ofUser
	return s, nil
}

// writable adds to the remedy of a folder that cannot be written which variable
// names another one, where the platform's is used. A remedy that ends in a command
// stays as it is.
func writable(err error, ofUser bool) error {
	if remedy := persistence.Remedy(err); ofUser && !strings.Contains(remedy, " with: ") {
		return remedied(err, strings.TrimSpace(remedy+" "+dirVariable()))
	}
	return err
}

func remedied(err error, remedy string) error {
	var e *persistence.Error
	if !errors.As(err, &e) {
		return err
	}
	with := *e
	with.Remedy = remedy
	return &with
}

// MovePlaintext moves what the plaintext file holds into the encrypted one, where
// the program does not permit plaintext or the user asks for another store: for a
// program that has asked its user first. The encrypted file is chosen, or started,
// as [Open] does, and cfg.AllowPlaintext counts for nothing. If there is no
// plaintext file, nothing is moved, and that is no error.
//
// If nothing is stored encrypted, everything is moved. Else entries are only
// added: none is replaced, and no account comes back that the encrypted file does
// not have. If some entries may not be moved, or the file cannot be read,
// MovePlaintext fails with a [*persistence.Error] that says so, and the plaintext
// file stays as it is. It also fails as Open does.
func MovePlaintext(ctx context.Context, cfg Config) error {
	cfg.AllowPlaintext = false
	s, err := prepare(cfg)
	if err != nil {
		return err
	}
	s.promoter.permitted = true
	s.promoter.notMoved = func(w fallback.Warning) error {
		return &persistence.Error{Op: "move", Backend: "plaintext", Location: w.Location, Err: errors.New(clause(w.Message + " " + w.Reason)), Remedy: w.Remedy}
	}
	return s.choose(ctx)
}

// Rotate gives the encrypted file of cfg a new key, from the source that its key
// comes from, and encrypts its data anew; see [encrypted.File.Rotate]. Programs
// that have the cache open go on with the new key. A passphrase stays the same:
// to change it, or the source, use [encrypted.File.Rotate] or the command
// "tokenkeep passphrase".
//
// It opens the cache as [Open] does, and fails as Open does. Where nothing is
// stored encrypted it fails with ErrNotFound.
func Rotate(ctx context.Context, cfg Config) error {
	s, err := prepare(cfg)
	if err != nil {
		return err
	}
	if err := s.choose(ctx); err != nil {
		return err
	}
	file, ok := s.current.Load().backend.(*encrypted.File)
	if !ok {
		return &persistence.Error{Op: "rotate", Backend: "encrypted", Location: s.place.Encrypted, Err: persistence.ErrNotFound}
	}
	keys, err := s.source(file.Describe().KeySource)
	if err != nil {
		return err
	}
	return file.Rotate(ctx, keys)
}

func (cfg *Config) check() error {
	if !layout.ValidName(cfg.Name) {
		return openError("", fmt.Errorf("Config.Name %q is not the name of a cache", cfg.Name),
			"Use 1 to 64 characters of a-z, 0-9, '.', '_' and '-', the first a letter or a digit, and no name of a Windows device.")
	}
	if err := cfg.checkOrder(); err != nil {
		return err
	}
	values := append(slices.Clone(cfg.order()), layout.Memory)
	remedy := "Use one of " + strings.Join(values, ", ") + ", or leave it empty."
	switch {
	case cfg.Store == layout.DPAPI && !hasDPAPI:
		return openError("", fmt.Errorf("%w: Config.Store is %q, which is a part of Windows: %w", persistence.ErrUnavailable, layout.DPAPI, errors.ErrUnsupported), remedy)
	case cfg.Store == "" || slices.Contains(values, cfg.Store):
		return nil
	case slices.Contains(allStores, cfg.Store):
		return openError("", fmt.Errorf("%w: Config.Store is %q, which this program does not permit", persistence.ErrUnavailable, cfg.Store), remedy)
	default:
		return openError("", fmt.Errorf("Config.Store %q is unknown", cfg.Store), remedy)
	}
}

func (cfg *Config) checkOrder() error {
	remedy := "Use some of " + strings.Join(allStores, ", ") + ", each once, or nil for the default."
	if cfg.Order != nil && len(cfg.Order) == 0 {
		return openError("", errors.New("Config.Order names no candidate"), remedy)
	}
	for i, name := range cfg.Order {
		switch {
		case !slices.Contains(allStores, name):
			return openError("", fmt.Errorf("Config.Order names %q, which is unknown", name), remedy)
		case slices.Contains(cfg.Order[:i], name):
			return openError("", fmt.Errorf("Config.Order names %q twice", name), remedy)
		case name == layout.Plaintext && i != len(cfg.Order)-1:
			return openError("", fmt.Errorf("Config.Order prefers %q to what is safer", name), "Put it at the end.")
		}
	}
	return nil
}

// order returns the candidates that the program permits, the preferred one
// first.
func (cfg *Config) order() []string {
	switch {
	case cfg.Order != nil:
		return cfg.Order
	case hasDPAPI:
		return allStores
	default:
		return []string{layout.Keyring, layout.Passphrase, layout.Plaintext}
	}
}

// permitsPlaintext reports whether plaintext may be read, and moved to what is
// safer: only where it could also be stored.
func (cfg *Config) permitsPlaintext() bool {
	return cfg.AllowPlaintext && slices.Contains(cfg.order(), layout.Plaintext) && (cfg.Store == "" || cfg.Store == layout.Plaintext)
}

// allStores are the values of Config.Store that keep anything, the safest first.
var allStores = []string{layout.Keyring, layout.DPAPI, layout.Passphrase, layout.Plaintext}

// hasDPAPI: tests turn it off, to see what is done where DPAPI fails.
var hasDPAPI = runtime.GOOS == "windows"

func openError(location string, err error, remedy string) error {
	return &persistence.Error{Op: "open", Backend: "cache", Location: location, Err: err, Remedy: remedy}
}
