package encrypted

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/tokenkeep/tokenkeep/internal/securefile"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// given is a source of one key that somebody else made and keeps. Its id is a
// fingerprint of the key, so another key is seen as such at once.
type given struct {
	source string
	what   string // the key's place, for a person
	remedy string // where there is no key
	fetch  func(ctx context.Context) ([]byte, error)
	err    error // what is wrong with the arguments
}

func (g *given) Source() string { return g.source }
func (g *given) valid() error   { return g.err }

func (g *given) NewKey(ctx context.Context, _ string) (string, []byte, error) {
	key, err := g.key(ctx)
	switch {
	case errors.Is(err, persistence.ErrKeyMissing), errors.Is(err, persistence.ErrWrongKey):
		// No file is in need of that key yet: it is the source that does not work.
		return "", nil, fault(g.remedy, "%w: no key from %s", persistence.ErrUnavailable, g.what)
	case err != nil:
		return "", nil, err
	}
	return fingerprint(key), key, nil
}

func (g *given) Key(ctx context.Context, ref string) ([]byte, error) {
	if strings.Contains(ref, " ") {
		return nil, fault(remedyCorrupt, "%w", corrupt("its header has parameters for a key that takes none"))
	}
	key, err := g.key(ctx)
	if err != nil {
		return nil, err
	}
	if ref != fingerprint(key) {
		return nil, fault("Give the key that the file was written with.", "%w: the key from %s has not the id that the file names", persistence.ErrWrongKey, g.what)
	}
	return key, nil
}

func (g *given) key(ctx context.Context) ([]byte, error) {
	if g.err != nil {
		return nil, g.err
	}
	text, err := g.fetch(ctx)
	if err != nil {
		return nil, err
	}
	if g.source == "raw" {
		return text, nil
	}
	key, ok := decodeKey(text)
	if !ok {
		return nil, fault(g.remedy, "%w: %s does not hold 32 bytes in base64", persistence.ErrWrongKey, g.what)
	}
	return key, nil
}

// makeKey says how, in the remedies.
const makeKey = "a key is 32 random bytes in base64, as `openssl rand -base64 32` prints them"

// decodeKey reads 32 bytes in base64 of either alphabet, padded or not, with
// white space around it.
func decodeKey(text []byte) ([]byte, bool) {
	s := strings.TrimSpace(string(text))
	if strings.ContainsAny(s, "\r\n") { // which the decoder skips
		return nil, false
	}
	s = strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimSuffix(s, "="))
	key, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return key, err == nil && len(key) == keySize
}

// fingerprint names a key. It tells nothing about a random one.
func fingerprint(key []byte) string {
	id, err := hkdf.Key(sha256.New, key, nil, version+"\x00id", 16)
	if err != nil {
		return "" // only for lengths that are not ours
	}
	return hex.EncodeToString(id)
}

// Raw returns the source of a key that the program has already, from a key
// management service for example. The key is 32 random bytes; it is copied.
func Raw(key []byte) KeySource {
	g := &given{source: "raw", what: "the program"}
	if len(key) != keySize {
		g.err = fmt.Errorf("the raw key is %d bytes long, not %d", len(key), keySize)
	}
	key = bytes.Clone(key)
	g.fetch = func(context.Context) ([]byte, error) { return key, nil }
	return g
}

// Env returns the source of a key in an environment variable: 32 random bytes
// in base64. It is read each time the key is needed. Programs that this one
// starts inherit it, and others of the same user can read it.
//
// Where it is not set, an existing file has [persistence.ErrKeyMissing].
func Env(name string) KeySource {
	g := &given{source: "env", what: "the environment variable " + name}
	g.remedy = "Set " + name + "; " + makeKey + "."
	if name == "" || strings.ContainsAny(name, "=\x00") {
		g.err = errors.New("the name of the environment variable is not one")
	}
	g.fetch = func(context.Context) ([]byte, error) {
		value, ok := os.LookupEnv(name)
		if !ok || value == "" {
			return nil, fault(g.remedy, "%w: %s is not set", persistence.ErrKeyMissing, g.what)
		}
		return []byte(value), nil
	}
	return g
}

// maxKeyText bounds what is read of a key file or a command's output.
const maxKeyText = 4096

// KeyFile returns the source of a key in a file of its own, such as a secret
// mounted into a container: 32 random bytes in base64. It is read each time
// the key is needed, and has to be a regular file of the user that nobody else
// can access.
//
// Where there is no such file, an existing file has [persistence.ErrKeyMissing].
func KeyFile(path string) KeySource {
	g := &given{source: "file", what: "the key file " + path}
	g.remedy = "Put the key there; " + makeKey + "."
	if path == "" {
		g.err = errors.New("the key file's path is empty")
	}
	g.fetch = func(context.Context) ([]byte, error) {
		text, _, err := securefile.Read(path, maxKeyText)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, fault(g.remedy, "%w: there is no %s", persistence.ErrKeyMissing, g.what)
		case err != nil:
			remedy := "Make it a file of your own that nobody else can access (chmod 600)."
			var e *securefile.Error
			if errors.As(err, &e) && e.Remedy() != "" {
				remedy = e.Remedy()
			}
			return nil, fault(remedy, "%w: reading the key file: %w", persistence.ErrUnavailable, err)
		}
		return text, nil
	}
	return g
}

// commandTimeout bounds a command, whatever its caller's context allows.
const commandTimeout = 30 * time.Second

// Command returns the source of a key that a program prints on its standard
// output: 32 random bytes in base64, and nothing else. It is run each time the
// key is needed, without a shell, with no input and this program's
// environment, and killed when the context ends or after 30 seconds. Neither
// its output nor its arguments get into an error.
func Command(name string, args ...string) KeySource {
	g := &given{source: "command", what: "the command " + name}
	g.remedy = "Make it print the key; " + makeKey + "."
	if name == "" {
		g.err = errors.New("the command's name is empty")
	}
	args = slices.Clone(args)
	g.fetch = func(ctx context.Context) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, commandTimeout)
		defer cancel()
		out := &boundedBuffer{left: maxKeyText, full: cancel}
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Stdout = out
		// A child of the killed command may hold the pipe open: do not wait for it.
		cmd.WaitDelay = time.Second
		err := cmd.Run()
		switch {
		case out.left < 0:
			return nil, fault(g.remedy, "%w: %s printed more than a key", persistence.ErrUnavailable, g.what)
		case ctx.Err() != nil:
			return nil, fault("Run it by hand to see what it waits for.", "%w: %s did not end: %w", persistence.ErrUnavailable, g.what, context.Cause(ctx))
		case err != nil:
			return nil, fault("Run it by hand to see what is wrong.", "%w: %s: %w", persistence.ErrUnavailable, g.what, err)
		}
		return out.b, nil
	}
	return g
}

// boundedBuffer keeps what is written to it, and calls full when that is too
// much.
type boundedBuffer struct {
	b    []byte
	left int // less than 0 when full
	full func()
}

func (w *boundedBuffer) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		w.full()
		return 0, errors.New("too much output")
	}
	w.b = append(w.b, p...)
	return len(p), nil
}
