package encrypted

import (
	"bytes"
	"cmp"
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

	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// externalKey is a source of one key that somebody else made and keeps. The key's
// id is its fingerprint, so that another key is recognised at once.
type externalKey struct {
	described
	source string
	what   string // the key's place, for a person
	advice string // what to do where there is no key
	fetch  func(ctx context.Context) ([]byte, error)
	err    error // what is wrong with the arguments
}

func (k *externalKey) Source() string { return k.source }
func (k *externalKey) valid() error   { return k.err }

func (k *externalKey) NewKey(ctx context.Context, _ string) (string, []byte, error) {
	key, err := k.key(ctx)
	if errors.Is(err, persistence.ErrWrongKey) {
		// No file needs that key yet: it is the source that does not work.
		err = remedy.Errorf(k.advice, "%w: %s does not hold a key", persistence.ErrUnavailable, k.what)
	}
	if err != nil {
		return "", nil, err
	}
	return fingerprint(key), key, nil
}

func (k *externalKey) Key(ctx context.Context, ref string) ([]byte, error) {
	if strings.Contains(ref, " ") {
		return nil, remedy.With(remedyCorrupt, corrupt("its header has parameters for a key that takes none"))
	}
	key, err := k.key(ctx)
	if err != nil {
		return nil, err
	}
	if ref != fingerprint(key) {
		return nil, remedy.Errorf("Give the key that the file was written with.", "%w: the key from %s does not match the key id in the file", persistence.ErrWrongKey, k.what)
	}
	return key, nil
}

func (k *externalKey) key(ctx context.Context) ([]byte, error) {
	if k.err != nil {
		return nil, k.err
	}
	text, err := k.fetch(ctx)
	if err != nil {
		return nil, err
	}
	if k.source == "raw" {
		return text, nil
	}
	key, ok := decodeKey(text)
	if !ok {
		return nil, remedy.Errorf(k.advice, "%w: %s does not hold 32 bytes in base64", persistence.ErrWrongKey, k.what)
	}
	return key, nil
}

// howToMakeKey is a part of remedies.
const howToMakeKey = "a key is 32 random bytes in base64, as `openssl rand -base64 32` prints them"

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

// fingerprint is the id of an external key. It tells nothing about a random key.
func fingerprint(key []byte) string {
	id, err := hkdf.Key(sha256.New, key, nil, version+"\x00id", 16)
	if err != nil {
		return "" // only for lengths other than 16
	}
	return hex.EncodeToString(id)
}

// Raw returns the source of a key that the program already has, for example from
// a key management service. The key is 32 random bytes. It is copied.
func Raw(key []byte) KeySource {
	k := &externalKey{source: "raw", what: "the program", described: "a key that the program gave"}
	if len(key) != keySize {
		k.err = fmt.Errorf("the raw key has %d bytes, not %d", len(key), keySize)
	}
	key = bytes.Clone(key)
	k.fetch = func(context.Context) ([]byte, error) { return key, nil }
	return k
}

// Env returns the source of a key in an environment variable: 32 random bytes
// in base64. It is read each time the key is needed. Programs that this one
// starts inherit it, and other programs of the same user can read it.
//
// Where it is not set, the error is [persistence.ErrUnavailable]: somebody else
// keeps the key, so it is never certainly gone. Another key than the file's is
// ErrWrongKey.
func Env(name string) KeySource {
	k := &externalKey{source: "env", what: "the environment variable " + name, described: described("a key from the environment variable " + name)}
	k.advice = "Set " + name + "; " + howToMakeKey + "."
	if name == "" || strings.ContainsAny(name, "=\x00") {
		k.err = errors.New("the name of the environment variable is empty or malformed")
	}
	k.fetch = func(context.Context) ([]byte, error) {
		value, ok := os.LookupEnv(name)
		if !ok || value == "" {
			return nil, remedy.Errorf(k.advice, "%w: %s is not set", persistence.ErrUnavailable, k.what)
		}
		return []byte(value), nil
	}
	return k
}

// maxKeyText bounds what is read of a key file or a command's output.
const maxKeyText = 4096

// KeyFile returns the source of a key in a file of its own, such as a secret
// mounted into a container: 32 random bytes in base64. It is read each time
// the key is needed. It must be a regular file that belongs to the user and that
// nobody else can access; or one that root provides and nobody else can change, as
// Docker's in /run/secrets and Kubernetes' secret volumes with their links. Who may
// read the latter was decided by the person who mounted it. Where the program runs as root,
// such a file has no write permission or is in a read-only mount. On Windows it must be
// a regular file that by its access list only the user, the system and administrators
// can read or change; on a volume without access lists it is refused.
//
// Where there is no such file, the error is [persistence.ErrUnavailable]: somebody
// else keeps the key, so it is never certainly gone. Another key than the file's
// is ErrWrongKey.
func KeyFile(path string) KeySource {
	k := &externalKey{source: "file", what: "the key file " + path, described: described("a key from the key file " + path)}
	k.advice = "Put the key there; " + howToMakeKey + "."
	if path == "" {
		k.err = errors.New("the key file's path is empty")
	}
	k.fetch = func(ctx context.Context) ([]byte, error) {
		text, err := readKeyFile(ctx, path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, remedy.Errorf(k.advice, "%w: %s does not exist", persistence.ErrUnavailable, k.what)
		case err != nil:
			advice := cmp.Or(persistence.Remedy(err), "Make it a file of your own that nobody else can access"+chmod600+".")
			return nil, remedy.Errorf(advice, "%w: reading the key file: %w", persistence.ErrUnavailable, err)
		}
		return text, nil
	}
	return k
}

// commandTimeout bounds a command, whatever its caller's context allows.
const commandTimeout = 30 * time.Second

// Command returns the source of a key that a program prints on its standard
// output: 32 random bytes in base64, and nothing else. It runs each time the key
// is needed, without a shell, with no input and with this program's environment.
// It is killed when the context ends, and after 30 seconds. Neither its output nor
// its arguments appear in an error.
func Command(name string, args ...string) KeySource {
	k := &externalKey{source: "command", what: "the command " + name, described: described("a key from the command " + name)}
	k.advice = "Make it print the key; " + howToMakeKey + "."
	if name == "" {
		k.err = errors.New("the command's name is empty")
	}
	args = slices.Clone(args)
	k.fetch = func(ctx context.Context) ([]byte, error) {
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
			return nil, remedy.Errorf(k.advice, "%w: %s printed more than a key", persistence.ErrUnavailable, k.what)
		case ctx.Err() != nil:
			return nil, remedy.Errorf("Run it by hand to see what it waits for.", "%w: %s did not end in time: %w", persistence.ErrUnavailable, k.what, context.Cause(ctx))
		case err != nil:
			return nil, remedy.Errorf("Run it by hand to see what is wrong.", "%w: %s: %w", persistence.ErrUnavailable, k.what, err)
		}
		return out.b, nil
	}
	return k
}

// boundedBuffer keeps what is written to it, and calls full when that is too much.
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
