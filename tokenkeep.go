package tokenkeep

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
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
	// DefaultDir. If it is missing it is created, with mode 0700 or, on Windows, an
	// access list that admits the user, the system and administrators. In a packaged
	// program on Windows (MSIX) a folder in AppData is not the one that other programs
	// see; Warn says so. A folder of its own is best: on macOS Cache.Watch opens every
	// file of the folder.
	Dir string

	// Key is a key of the program's own: a mounted secret, a variable, a command, a
	// key management service; see package encrypted. New sign-ins are kept with it,
	// also where a keyring works. If it is missing or malformed and nothing is stored
	// yet, they go to the next candidate in Order; with the Order "key" alone, Open
	// fails. With a source that can never work, such as Raw with a wrong length, Open
	// always fails. What is stored with another key stays so until [Rotate]. Somebody
	// else keeps this key, so it is never certainly gone: if it is missing and something
	// is stored with it, Open fails and sets nothing aside, and if it is another one,
	// Open fails with ErrWrongKey. After [Remove] the user can sign in again. Waiting
	// for it ends with ctx only. nil means no such key.
	Key encrypted.KeySource

	// OldKey is the key that Key has replaced. What is stored with it can be opened,
	// and [Rotate] encrypts it with Key. nil means no such key.
	OldKey encrypted.KeySource

	// Keyring holds the key. nil means the operating system's, keyring.System,
	// which asks nobody anything: where it is locked, it is not used. Desktops with
	// automatic login begin with a locked keyring, so a program with somebody at the
	// screen lets it ask, with keyring.System(keyring.WithPrompt()). If Keyring is
	// keyring.Kernel, it counts as Kernel, there is no other keyring, and "keyring" in
	// Order and Store means it too.
	Keyring keyring.Keyring

	// Kernel is the Linux kernel's keyring, which keeps the key where nothing
	// lasting works, until a restart or three days without use. nil means
	// keyring.Kernel on Linux, if Keyring is nil or a keyring.System, or if Order names
	// "kernel"; otherwise there is none. So a test that sets Keyring alone uses no
	// keyring of the machine, and a program that wraps keyring.System sets Kernel too.
	Kernel keyring.Keyring

	// Passphrase returns the passphrase that protects the file where no keyring
	// works: from a prompt, or from a secret store. Open asks for it. A later call
	// asks only if another process has changed the key, and after a failure not
	// again for a minute. The bytes count as they are: nothing is trimmed, and
	// nothing is normalised, so "é" as one character is another passphrase than "é"
	// as two, which keyboards of other systems may send. nil means that there is no
	// passphrase. To derive the key from it costs each process a tenth of a second or
	// more and 64 MiB, once (encrypted.DefaultCost).
	Passphrase func(ctx context.Context) ([]byte, error)

	// AllowPlaintext permits a plaintext file as the last resort, where there is no
	// keyring. A keyring that is locked, does not answer or is full is there, so it
	// does not lead to plaintext; only the user's own Store "plaintext" does then.
	// Anybody who can read the user's files can use the plaintext file. Warn is told
	// before it is made. AllowPlaintext also permits Open to move a plaintext file that
	// it finds into the encrypted one; see the package comment.
	AllowPlaintext bool

	// Order names the candidates that may keep the cache, the preferred one
	// first: "key", "keyring", "dpapi", "passphrase", "kernel", "plaintext",
	// "memory". nil means the platform's own order, which is that one, with "dpapi"
	// on Windows only, "kernel" on Linux only, and without "memory". A candidate
	// that is left out is not permitted, even where it has stored tokens already.
	// "key", "passphrase" and "plaintext" also need Key, Passphrase and
	// AllowPlaintext, and are no candidates without. "plaintext" can only be
	// followed by "memory", and "memory" can only be the last: it goes on without
	// keeping anything, with a warning, where nothing else works and nothing is
	// stored, as on a read-only disk.
	Order []string

	// Store is the end user's wish, such as from an environment variable of the
	// program: "" for none, or one of the candidates. It only narrows what the other
	// fields permit, but "memory" is always permitted. "memory" stores nothing and
	// does not touch what is stored.
	Store string

	// Follow are token caches of other programs, such as interop.AzureCLI's, whose
	// sign-ins this program uses too. They are only read, and shown beside what this
	// cache has; see persistence.WithFollow for what a sign-out does on either side.
	// They do not affect where this cache is kept. Open fails with ErrUnavailable if
	// one has only sign-ins that cannot be followed, because they are with another
	// authority than Microsoft Entra ID. Remove also forgets which of their accounts
	// are hidden.
	Follow []persistence.Neighbour

	// Strict lets storage errors fail the sign-in; see persistence.WithStrict.
	Strict bool

	// Warn is told, once for each kind and Open, what the user of the program should
	// know. That the tokens are in plaintext is told in every run: a command that runs
	// often, such as a credential helper, shows it with its sign-in only. Warn must be
	// safe for concurrent use, and must not use the cache. nil means that warnings are
	// logged.
	Warn func(fallback.Warning)

	// Logger gets the warnings if Warn is nil, storage trouble that fails no call
	// and, once for each Open, the choice that was made. The choice is logged at the
	// level Info, with every refusal, if something preferred did not work, nothing was
	// stored yet, and no warning in the same log says so. Otherwise it is logged at
	// Debug, with what the program has not enabled. The end of a sign-in that was kept
	// in the kernel's keyring is logged at Info. A program that has to choose again
	// while it runs logs that too. nil means slog.Default(), which prints what is at
	// Info to standard error unless the program has set another one.
	Logger *slog.Logger
}

// Open returns the cache of that Name, kept in the best way that works here: an
// encrypted file with, in order, the program's own key if it has one, a key in the
// operating system's keyring, on Windows one that DPAPI encrypts for the user, one
// from a passphrase if the program can ask for it, and on Linux one in the kernel's
// keyring; or a plaintext file if that is allowed and there is no keyring. Pass it to
// public.WithCache. See the package comment for what Open does with what is
// already stored, and [ChoiceOf] for which way was chosen.
//
// Open proves that its choice works before it returns: it fetches the key of the
// file that is there or, if nothing is stored, makes the key. So nobody signs in
// through a browser only to learn then that the token cannot be stored.
//
// It fails with a [*fallback.NoneError], which lists every candidate with its
// reason and remedy, if nothing works; keyring.SituationOf tells what is missing
// from what is locked, full or does not answer. It fails with ErrKeyringLocked,
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
	if err := s.cfg.checkFollow(ctx); err != nil {
		return nil, err
	}
	if err := s.choose(ctx); err != nil {
		return nil, err
	}
	opts := []persistence.Option{persistence.WithLogger(cfg.Logger), persistence.WithFollow(s.cfg.Follow...)}
	if cfg.Strict {
		opts = append(opts, persistence.WithStrict())
	}
	return persistence.New(s, opts...)
}

// prepare returns the store of cfg, which has chosen nothing yet.
func prepare(cfg Config) (*store, error) {
	cfg.Order, cfg.Follow = slices.Clone(cfg.Order), slices.Clone(cfg.Follow)
	cfg.nameKernel()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	ofUser := cfg.Dir == ""
	dir, err := cfg.folder()
	if err == nil && cfg.Store != layout.Memory {
		if err = securefile.MkdirAll(dir); err != nil {
			err = withVariable(openError(dir, err, cmp.Or(persistence.Remedy(err), "This user must be able to make and write the folder.")), ofUser)
		}
	}
	if err != nil && !cfg.permits(layout.Memory) {
		return nil, err
	}
	cfg.Dir = dir
	s, newErr := newStore(cfg)
	if newErr != nil {
		return nil, newErr
	}
	if err := s.checkKeys(); err != nil {
		return nil, err
	}
	s.noDir, s.ofUser = err, ofUser
	if cfg.Store != layout.Memory && isBelow(dir, copiedFolders()) {
		s.warn(copiedWarning(dir))
	}
	return s, nil
}

// folder returns the absolute path of the folder of the cache's files.
func (cfg *Config) folder() (string, error) {
	if cfg.Dir == "" {
		return DefaultDir()
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return "", openError(cfg.Dir, err, "Set Config.Dir to an absolute path.")
	}
	return dir, nil
}

// withVariable adds to the remedy of a folder that cannot be used which variable
// names another one, where the platform's is used. A remedy for that folder stays as
// it is.
func withVariable(err error, ofUser bool) error {
	var folder *securefile.Error
	var e *persistence.Error
	if !ofUser || !errors.As(err, &e) || errors.As(err, &folder) && folder.Advice != "" && !folder.Elsewhere {
		return err
	}
	with := *e
	with.Remedy = strings.TrimSpace(persistence.Remedy(err) + " " + dirVariable())
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

// Rotate gives the encrypted file of cfg a new key and encrypts its data again; see
// [encrypted.File.Rotate]. The new key is cfg.Key, if that is set and neither
// cfg.Order nor cfg.Store leaves it out: it replaces cfg.OldKey, or whatever key the
// file has. Else it comes from the source that the key comes from now. Programs that
// have the cache open go on with the new key, if they have it too. A passphrase
// stays the same: to change it use [encrypted.File.Rotate] or the command
// "tokenkeep passphrase".
//
// It opens the cache as [Open] does, and fails as Open does. Where nothing is
// stored encrypted it fails with ErrNotFound. It fails if cfg.Key is the key that
// the file has.
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
	candidate := candidateOf(file.Describe().KeySource)
	if s.cfg.permits(layout.Key) {
		candidate = layout.Key
	}
	keys, err := s.cfg.newSource(candidate)
	if err != nil {
		return err
	}
	return file.Rotate(ctx, keys)
}

func openError(location string, err error, remedy string) error {
	return &persistence.Error{Op: "open", Backend: "cache", Location: location, Err: err, Remedy: remedy}
}
