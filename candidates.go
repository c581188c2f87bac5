package tokenkeep

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep/encrypted"
	"github.com/tokenkeep/tokenkeep/fallback"
	"github.com/tokenkeep/tokenkeep/internal/keyrings"
	"github.com/tokenkeep/tokenkeep/internal/layout"
	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/keyring"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// This file says which candidates there are, and where each has its key.
// docs/choice.md has the table of what follows from that.

// allStores are the values of Config.Store that keep anything, in the order of
// preference.
var allStores = []string{layout.Key, layout.Keyring, layout.DPAPI, layout.Passphrase, layout.Kernel, layout.Plaintext}

// hasDPAPI: tests turn it off, to see what is done where DPAPI fails.
var hasDPAPI = runtime.GOOS == "windows"

// candidateOf returns the candidate that made a file whose header has that word
// for the source of its key.
func candidateOf(source string) string {
	switch source {
	case layout.Keyring, layout.DPAPI, layout.Passphrase, layout.Kernel:
		return source
	}
	return layout.Key
}

// order returns the candidates that the program permits and has enabled, the
// preferred one first.
func (cfg *Config) order() []string {
	return slices.DeleteFunc(slices.Clone(cfg.named()), func(name string) bool { return !cfg.enabled(name) })
}

// named returns the candidates of Config.Order, or those of the platform.
func (cfg *Config) named() []string {
	if cfg.Order != nil {
		return cfg.Order
	}
	return slices.DeleteFunc(slices.Clone(allStores), func(name string) bool {
		return name == layout.DPAPI && !hasDPAPI || name == layout.Kernel && !cfg.kernelByDefault()
	})
}

// enabled reports whether the program has given what that candidate needs.
func (cfg *Config) enabled(name string) bool {
	switch name {
	case layout.Key:
		return cfg.Key != nil
	case layout.Keyring:
		return !keyrings.IsKernel(cfg.Keyring)
	case layout.Passphrase:
		return cfg.Passphrase != nil
	case layout.Plaintext:
		return cfg.AllowPlaintext
	}
	return true
}

// notEnabled returns the candidates that were named and that the program has not
// enabled: for its author, not for its user.
func (cfg *Config) notEnabled() []string {
	return slices.DeleteFunc(slices.Clone(cfg.named()), cfg.enabled)
}

// permits reports whether the program and its user permit that candidate.
func (cfg *Config) permits(name string) bool {
	return slices.Contains(cfg.order(), name) && (cfg.Store == "" || cfg.Store == name)
}

// nameKernel makes "keyring" in Order and Store mean the kernel's keyring, where
// Keyring is that.
func (cfg *Config) nameKernel() {
	if !keyrings.IsKernel(cfg.Keyring) {
		return
	}
	if cfg.Store == layout.Keyring {
		cfg.Store = layout.Kernel
	}
	if i := slices.Index(cfg.Order, layout.Keyring); i >= 0 && !slices.Contains(cfg.Order, layout.Kernel) {
		cfg.Order[i] = layout.Kernel
	}
}

// kernelByDefault reports whether the kernel's keyring is a candidate where Order
// does not say. A program that brings a keyring of its own, as tests do, has to name it.
func (cfg *Config) kernelByDefault() bool {
	return cfg.Kernel != nil || keyrings.IsKernel(cfg.Keyring) ||
		(cfg.Keyring == nil || keyrings.IsSystem(cfg.Keyring)) && runtime.GOOS == "linux"
}

// keyringOf returns the keyring of that candidate, or nil if the program may not
// use one.
func (cfg *Config) keyringOf(name string) keyring.Keyring {
	switch {
	case name == layout.Keyring && cfg.Keyring == nil:
		return keyring.System()
	case name == layout.Keyring && !keyrings.IsKernel(cfg.Keyring):
		return cfg.Keyring
	case name == layout.Kernel && cfg.Kernel != nil:
		return keyrings.AsKernel(cfg.Kernel)
	case name == layout.Kernel && keyrings.IsKernel(cfg.Keyring):
		return cfg.Keyring
	case name == layout.Kernel && slices.Contains(cfg.named(), layout.Kernel):
		return keyring.Kernel()
	}
	return nil
}

// sources returns the sources that may have the key of a file whose header has
// that word. There is none where the program has not enabled one.
func (cfg *Config) sources(word string) (all []encrypted.KeySource) {
	switch candidate := candidateOf(word); candidate {
	case layout.Keyring, layout.Kernel:
		if k := cfg.keyringOf(candidate); k != nil {
			all = append(all, keyrings.Keys(k, cfg.Name))
		}
	case layout.DPAPI:
		all = append(all, encrypted.DPAPI())
	case layout.Passphrase:
		if cfg.Passphrase != nil {
			all = append(all, encrypted.Passphrase(cfg.Passphrase, nil))
		}
	default:
		for _, k := range []encrypted.KeySource{cfg.Key, cfg.OldKey} {
			if k != nil && k.Source() == word {
				all = append(all, k)
			}
		}
	}
	return all
}

// deleters returns the sources that may store keys of the cache.
func (cfg *Config) deleters() (all []encrypted.KeyDeleter) {
	for _, word := range []string{layout.Keyring, layout.Kernel} {
		for _, s := range cfg.sources(word) {
			all = append(all, s.(encrypted.KeyDeleter))
		}
	}
	for _, k := range []encrypted.KeySource{cfg.Key, cfg.OldKey} {
		if d, ok := k.(encrypted.KeyDeleter); ok {
			all = append(all, d)
		}
	}
	return all
}

// newSource returns the source of a new key for that candidate.
func (cfg *Config) newSource(candidate string) (encrypted.KeySource, error) {
	word := candidate
	if candidate == layout.Key && cfg.Key != nil {
		word = cfg.Key.Source()
	}
	if all := cfg.sources(word); len(all) > 0 {
		return all[0], nil
	}
	return nil, openError("", fmt.Errorf("%w: this program has no keys from %q", persistence.ErrUnavailable, candidate), "")
}

// sourceMissing is the error for a stored file whose key this program cannot ask
// for.
func (cfg *Config) sourceMissing(word string) error {
	what := fmt.Sprintf("the key source %q is not one that this program uses", word)
	switch word {
	case layout.Keyring:
		what = "the key is in the system's keyring, which this program does not use here"
	case layout.Kernel:
		what = "the key is in the Linux kernel's keyring, which this program does not use here"
	case layout.Passphrase:
		what = "the key is made from a passphrase, and this program has no way to ask for one"
	}
	return remedy.Errorf("Use the program that stored the tokens, or sign out and sign in again.", "%w: %s", persistence.ErrUnavailable, what)
}

// candidates are those that the program and the user ask for, in the order of
// preference.
func (s *store) candidates() (all []fallback.Candidate) {
	for _, name := range s.cfg.order() {
		if s.cfg.Store != "" && s.cfg.Store != name {
			continue
		}
		c := fallback.Candidate{Name: name, Open: func(ctx context.Context) (persistence.Persistence, error) { return s.openNew(ctx, name) }}
		switch name {
		case layout.Keyring, layout.DPAPI:
			c.Timeout = keyringTimeout
		case layout.Kernel:
			if s.promoter.found() && !s.promoter.toKernel {
				continue // plaintext lasts longer, and would have to move there
			}
			c.Timeout = keyringTimeout
		case layout.Plaintext:
			c.Open = func(context.Context) (persistence.Persistence, error) { return s.promoter.file() }
			c.After = s.plaintextAfter
		case layout.Memory:
			c.Open = func(context.Context) (persistence.Persistence, error) { return s.openMemory() }
		}
		all = append(all, c)
	}
	return all
}

// plaintextAfter returns an error unless the refusals show that there is no
// keyring here: one that is locked, hangs or is full is there. Plaintext that is
// stored already goes on.
func (s *store) plaintextAfter(refusals []fallback.Refusal) error {
	if s.promoter.found() {
		return nil
	}
	for _, r := range refusals {
		if !absent(r) {
			return remedy.Errorf(`Repair that, or set the program's store to "plaintext" to keep the tokens unencrypted all the same.`,
				"tokens are kept unencrypted only where there is no keyring, but there is a place that did not work just now (%s)", r.Candidate)
		}
	}
	return nil
}

// absent reports whether a refusal says that its candidate does not exist here.
// What does not answer, is locked or full exists. A passphrase that was not given
// is no place, and a key of the program's own always is one.
func absent(r fallback.Refusal) bool {
	unavailable := errors.Is(r.Err, persistence.ErrUnavailable) && !errors.Is(r.Err, context.DeadlineExceeded)
	situation := keyring.SituationOf(r.Err)
	switch r.Candidate {
	case layout.Passphrase:
		return true
	case layout.Keyring:
		return unavailable && slices.Contains([]keyring.Situation{"", keyring.Unsupported, keyring.NoBus, keyring.NoService}, situation)
	case layout.Kernel: // a container's filter denies it
		return unavailable && situation != keyring.Failed
	case layout.DPAPI:
		return errors.Is(r.Err, errors.ErrUnsupported)
	}
	return false
}

func (cfg *Config) check() error {
	if !layout.ValidName(cfg.Name) {
		return openError("", fmt.Errorf("Config.Name %q is not the name of a cache", cfg.Name),
			"Use 1 to 64 characters of a-z, 0-9, '.', '_' and '-', the first a letter or a digit, and no name of a Windows device.")
	}
	for _, k := range []encrypted.KeySource{cfg.Key, cfg.OldKey} {
		if k != nil && candidateOf(k.Source()) != layout.Key {
			return openError("", fmt.Errorf("Config.Key or Config.OldKey is of the kind %q, which has a field of its own", k.Source()), "Use Config.Keyring, Config.Kernel or Config.Passphrase.")
		}
	}
	if cfg.OldKey != nil && cfg.Key == nil {
		return openError("", errors.New("Config.OldKey is set, and Config.Key, which has replaced it, is not"), "Set Config.Key.")
	}
	if err := cfg.checkOrder(); err != nil {
		return err
	}
	values := cfg.order()
	if !slices.Contains(values, layout.Memory) {
		values = append(values, layout.Memory)
	}
	remedy := "Use one of " + strings.Join(values, ", ") + ", or leave it empty."
	switch {
	case cfg.Store == layout.DPAPI && !hasDPAPI:
		return openError("", fmt.Errorf("%w: the store %q was asked for, which is a part of Windows: %w", persistence.ErrUnavailable, layout.DPAPI, errors.ErrUnsupported), remedy)
	case cfg.Store == "" || slices.Contains(values, cfg.Store):
		return nil
	case slices.Contains(allStores, cfg.Store):
		return openError("", fmt.Errorf("%w: the store %q was asked for, which this program does not permit", persistence.ErrUnavailable, cfg.Store), remedy)
	default:
		return openError("", fmt.Errorf("the store %q was asked for, which is unknown", cfg.Store), remedy)
	}
}

// checkKeys refuses a key of the program's own that can never work, such as one of a
// wrong length: the sign-in would be kept elsewhere, and nobody would notice.
func (s *store) checkKeys() error {
	if _, err := s.open(encrypted.Raw(make([]byte, 32))); err != nil {
		return nil // the place is at fault, and every candidate says so
	}
	for _, k := range []struct {
		field  string
		source encrypted.KeySource
	}{{"Config.Key", s.cfg.Key}, {"Config.OldKey", s.cfg.OldKey}} {
		if k.source == nil {
			continue
		}
		if _, err := s.open(k.source); err != nil {
			return openError("", fmt.Errorf("%s can never work: %w", k.field, persistence.Cause(err)), "Correct what the program gives as its key. Package encrypted says what each source takes.")
		}
	}
	return nil
}

func (cfg *Config) checkOrder() error {
	remedy := "Use some of " + strings.Join(allStores, ", ") + " and memory, each once, or nil for the default."
	if cfg.Order != nil && len(cfg.Order) == 0 {
		return openError("", errors.New("Config.Order names no candidate"), remedy)
	}
	last := len(cfg.Order) - 1
	for i, name := range cfg.Order {
		switch {
		case !slices.Contains(allStores, name) && name != layout.Memory:
			return openError("", fmt.Errorf("Config.Order names %q, which is unknown", name), remedy)
		case slices.Contains(cfg.Order[:i], name):
			return openError("", fmt.Errorf("Config.Order names %q twice", name), remedy)
		case name == layout.Memory && i != last:
			return openError("", fmt.Errorf("Config.Order prefers %q to what keeps the tokens", name), "Put it at the end.")
		case name == layout.Plaintext && i != last && !(i == last-1 && cfg.Order[last] == layout.Memory):
			return openError("", fmt.Errorf("Config.Order prefers %q to what is safer", name), "Put it at the end, or before memory.")
		}
	}
	if len(cfg.order()) == 0 {
		return openError("", fmt.Errorf("Config.Order names only candidates that need another field of Config (%s)", strings.Join(cfg.notEnabled(), ", ")),
			"Set Config.Key, Config.Passphrase or Config.AllowPlaintext.")
	}
	return nil
}

// permitsPlaintext reports whether plaintext may be read, and moved to what is
// safer: only where it could also be stored.
func (cfg *Config) permitsPlaintext() bool { return cfg.permits(layout.Plaintext) }
