package encrypted

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	system "github.com/tokenkeep/tokenkeep/internal/dpapi"
	"github.com/tokenkeep/tokenkeep/internal/rawcode"
	"github.com/tokenkeep/tokenkeep/internal/remedy"
	"github.com/tokenkeep/tokenkeep/internal/within"
	"github.com/tokenkeep/tokenkeep/persistence"
)

// DPAPI returns the source of random keys that Windows encrypts for the user who
// runs the program, with its Data Protection API (CryptProtectData). The encrypted
// key is in the file's header: nothing is stored elsewhere, and the source also
// works where Credential Manager does not, as in some remote sessions. It never
// asks anybody. Every program that the user runs can have the key decrypted.
//
// Where Windows does not decrypt the key, the source tries whether DPAPI works for
// this user in this session. If it does, the error is [persistence.ErrWrongKey]:
// the key is another user's or another machine's, or the user's own protection was
// lost, as when somebody else resets the password of a local account. If it does
// not, as in a session over SSH without a password, the error is
// [persistence.ErrUnavailable], and the file is sound. A key that was protected
// for the whole machine is ErrWrongKey: this source never makes one, and every
// user of the machine can. On every other system the error is ErrUnavailable and
// also an errors.ErrUnsupported.
func DPAPI() KeySource {
	return &dpapi{described: "a key protected by DPAPI", protect: protect, unprotect: unprotect}
}

// dpapi calls the system through its fields, so that tests can replace it. Entropy
// is DPAPI's word for what must be given again to decrypt. unprotect fails with a
// system.Refused where Windows refuses to decrypt.
type dpapi struct {
	described
	protect, unprotect func(data, entropy []byte) ([]byte, error)
}

func protect(data, entropy []byte) ([]byte, error) {
	out, err := system.Protect(data, entropy)
	return out, withRemedy(err)
}

func unprotect(data, entropy []byte) ([]byte, error) {
	out, err := system.Unprotect(data, entropy)
	return out, withRemedy(err)
}

func withRemedy(err error) error {
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return remedy.With("Run the program on Windows, as the user who stored the tokens, or use another store for the key.", err)
	case errors.Is(err, persistence.ErrUnavailable):
		return remedy.With("Run the program in a session of the user whose profile is loaded, or use another store for the key.", err)
	}
	return err
}

func (*dpapi) Source() string { return "dpapi" }

// blobParam starts the parameter that holds the encrypted key.
const blobParam = "blob="

const remedyOtherStore = "Use another store for the key."

func (s *dpapi) NewKey(ctx context.Context, id string) (string, []byte, error) {
	key := make([]byte, keySize)
	rand.Read(key) // never fails
	blob, err := s.call(ctx, s.protect, key, id)
	if err != nil {
		return "", nil, err
	}
	ref := id + " " + blobParam + encode(blob)
	if !validRef(ref) {
		return "", nil, remedy.Errorf(remedyOtherStore, "%w: DPAPI encrypted the key into %d bytes, and the header has no room for them", persistence.ErrUnavailable, len(blob))
	}
	// What cannot be decrypted here and now can never be decrypted.
	back, err := s.unprotectOwn(ctx, blob, id)
	if ctx.Err() != nil {
		return "", nil, err
	}
	if err == nil && subtle.ConstantTimeCompare(back, key) != 1 {
		err = errors.New("the result is not the key")
	}
	if err != nil {
		return "", nil, rawcode.Copy(err, "", remedy.Errorf(remedyOtherStore, "%w: DPAPI does not decrypt what it has just encrypted: %v", persistence.ErrUnavailable, err))
	}
	return ref, key, nil
}

func (s *dpapi) Key(ctx context.Context, ref string) ([]byte, error) {
	id, text, ok := strings.Cut(ref, " "+blobParam)
	blob, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if !ok || err != nil || len(blob) == 0 || !isKeyID(id) {
		return nil, remedy.With(remedyCorrupt, corrupt("its header has malformed parameters for a key of DPAPI"))
	}
	key, err := s.unprotectOwn(ctx, blob, id)
	var refused *system.Refused
	switch {
	case errors.As(err, &refused):
		return nil, rawcode.Copy(err, "", s.explain(ctx, refused))
	case err == nil && len(key) != keySize:
		return nil, remedy.Errorf(remedyDPAPI, "%w: DPAPI decrypts something that is not a key", persistence.ErrWrongKey)
	}
	return key, err
}

const remedyDPAPI = "Run the program as the user and on the machine that stored the tokens. " +
	"If that user's password was reset by somebody else, the key is lost: remove the file and sign in again."

// explain tells why Windows did not decrypt the key, by trying whether DPAPI works
// at all for this user in this session.
func (s *dpapi) explain(ctx context.Context, refused *system.Refused) error {
	if _, _, err := s.NewKey(ctx, newID()); err != nil {
		if ctx.Err() != nil {
			return err
		}
		return remedy.Errorf("Run the program in a session where the user has signed in with the password, at the screen for example. What is stored is sound.",
			"%w: Windows cannot open this user's protection in this session: %w", persistence.ErrUnavailable, refused)
	}
	return remedy.Errorf(remedyDPAPI, "%w: DPAPI does not decrypt the key for this user on this machine: %w", persistence.ErrWrongKey, refused)
}

// unprotectOwn decrypts a blob that is the user's own.
func (s *dpapi) unprotectOwn(ctx context.Context, blob []byte, id string) ([]byte, error) {
	if err := checkBlob(blob); err != nil {
		return nil, err
	}
	return s.call(ctx, s.unprotect, blob, id)
}

// The start of a blob, in little-endian order: version, provider, master key
// version, master key and flags. Microsoft does not document it; see FORMAT.md.
const (
	blobVersion     = 1
	blobFlags       = 40
	blobHeader      = 44
	flagMachine     = 0x4        // CRYPTPROTECT_LOCAL_MACHINE
	flagSystem      = 0x20000000 // CRYPTPROTECT_SYSTEM
	blobFlagsOthers = flagMachine | flagSystem
)

// checkBlob refuses a blob that is not protected for one user. CryptUnprotectData
// decrypts a blob of the whole machine without being asked to, and every user of
// the machine can make one.
func checkBlob(blob []byte) error {
	switch {
	case len(blob) < blobHeader:
		return remedy.With(remedyCorrupt, corrupt("its header has a key of DPAPI that is too short"))
	case binary.LittleEndian.Uint32(blob) != blobVersion:
		return remedy.Errorf("Update this program: the file is sound and needs a newer one.",
			"%w: the key is protected in a form of DPAPI that is not known here", persistence.ErrUnsupportedVersion)
	case binary.LittleEndian.Uint32(blob[blobFlags:])&blobFlagsOthers != 0:
		return remedy.Errorf("This program did not write the file. Find out who did, remove it and sign in again.",
			"%w: the key is protected for all users of this machine, not for this user alone", persistence.ErrWrongKey)
	}
	return nil
}

// call calls do with the entropy that ties a blob to the id of its key. It leaves
// the call behind when ctx ends: Windows may ask a domain controller.
func (s *dpapi) call(ctx context.Context, do func(data, entropy []byte) ([]byte, error), data []byte, id string) ([]byte, error) {
	data = bytes.Clone(data) // the call may go on after this one has returned
	out, err := within.Call(ctx, func() ([]byte, error) { return do(data, []byte(version+"\x00dpapi\x00"+id)) })
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil, fmt.Errorf("waiting for DPAPI: %w", err)
	}
	return out, err
}
