package encrypted

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// DPAPI returns the source of random keys that Windows encrypts for the user
// who runs the program, with its Data Protection API (CryptProtectData). The
// encrypted key lies in the file's header, so nothing is stored elsewhere, and
// it works also where Credential Manager does not, as in some remote sessions.
// Nobody is ever asked anything. Whoever runs a program as that user can have
// the key decrypted.
//
// Where Windows does not decrypt the key, the error is [persistence.ErrWrongKey],
// since Windows does not tell which of these it is: another user or another
// machine, which leave the file sound; or the user's own protection is lost, as
// after somebody else reset the password of a local account, and then so is the
// key. It is [persistence.ErrUnavailable] if the service does not work, and on
// every other system, where it is also an errors.ErrUnsupported.
func DPAPI() KeySource { return &dpapi{protect, unprotect} }

// dpapi calls the system through its fields, which differ only in tests.
// Entropy is DPAPI's word for what has to be given again to decrypt.
type dpapi struct {
	protect, unprotect func(data, entropy []byte) ([]byte, error)
}

func (*dpapi) Source() string { return "dpapi" }

// blobParam is the parameter that holds the encrypted key.
const blobParam = "blob="

func (s *dpapi) NewKey(ctx context.Context, id string) (string, []byte, error) {
	key := make([]byte, keySize)
	rand.Read(key) // never fails
	blob, err := bounded(ctx, s.protect, key, id)
	if err != nil {
		return "", nil, err
	}
	ref := id + " " + blobParam + encode(blob)
	if !validRef(ref) {
		return "", nil, fault("Use another store for the key.", "%w: DPAPI made %d bytes of the key, and the header has no room for them", persistence.ErrUnavailable, len(blob))
	}
	// What cannot be decrypted here now never will be.
	back, err := bounded(ctx, s.unprotect, blob, id)
	if ctx.Err() != nil {
		return "", nil, err
	}
	if err == nil && subtle.ConstantTimeCompare(back, key) != 1 {
		err = errors.New("it decrypts to something else")
	}
	if err != nil {
		return "", nil, fault("Use another store for the key.", "%w: DPAPI does not decrypt what it has just encrypted: %v", persistence.ErrUnavailable, err)
	}
	return ref, key, nil
}

func (s *dpapi) Key(ctx context.Context, ref string) ([]byte, error) {
	id, text, ok := strings.Cut(ref, " "+blobParam)
	blob, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if !ok || err != nil || len(blob) == 0 || !isKeyID(id) {
		return nil, fault(remedyCorrupt, "%w", corrupt("its header describes no key of DPAPI"))
	}
	key, err := bounded(ctx, s.unprotect, blob, id)
	if err == nil && len(key) != keySize {
		err = fault(remedyDPAPI, "%w: DPAPI decrypts something else than a key", persistence.ErrWrongKey)
	}
	return key, err
}

const remedyDPAPI = "Run the program as the user and on the machine that stored the tokens. If that user's password was reset by somebody else, the key is lost: remove the file and sign in again."

// bounded calls do with the entropy that ties a blob to the id of its key. It
// leaves it behind when ctx ends: Windows may ask a domain controller.
func bounded(ctx context.Context, do func(data, entropy []byte) ([]byte, error), data []byte, id string) ([]byte, error) {
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		out, err := do(data, []byte(version+"\x00dpapi\x00"+id))
		done <- result{out, err}
	}()
	select {
	case r := <-done:
		return r.data, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for DPAPI: %w", context.Cause(ctx))
	}
}
