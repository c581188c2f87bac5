package sealed

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// This file is FORMAT.md as code.

const (
	magic   = "tokenkeep-sealed/"
	version = magic + "1"

	keySize    = 32
	saltSize   = 32
	nonceSize  = 12
	commitSize = 32
	tagSize    = 16
	sumSize    = 16
	maxID      = 64
)

const (
	alphanumeric = "abcdefghijklmnopqrstuvwxyz0123456789"
	idChars      = alphanumeric + "._-"
)

func validID(id string) bool {
	return id != "" && len(id) <= maxID && strings.IndexByte(alphanumeric, id[0]) >= 0 && strings.Trim(id, idChars) == ""
}

// header is the line before the ciphertext.
type header struct {
	id     string // of the key
	salt   [saltSize]byte
	commit [commitSize]byte
}

// format returns the header as it is written, with its line end: exactly what
// parse read it from.
func (h *header) format() []byte {
	b := fmt.Appendf(nil, "%s %s %s %s ", version, h.id, encode(h.salt[:]), encode(h.commit[:]))
	return append(append(b, checksum(b)...), '\n')
}

// corrupt says what is wrong. It never quotes what it found, which may be
// anything, a plaintext cache too.
func corrupt(what string) error { return fmt.Errorf("%w: %s", persistence.ErrCorrupt, what) }

// parse splits what is stored into its header and the rest.
func parse(stored []byte) (h header, line, body []byte, err error) {
	at := bytes.IndexByte(stored[:min(len(stored), 512)], '\n')
	if at < 0 || !bytes.HasPrefix(stored, []byte(magic)) {
		return header{}, nil, nil, corrupt("it is not sealed")
	}
	line, body = stored[:at+1], stored[at+1:]
	fields := strings.Split(string(line[:at]), " ")
	if fields[0] != version {
		// The sum covers the version, so if the rest has the sum of version 1, then
		// it is the version that was damaged.
		if len(fields) == 5 && fields[4] == checksum([]byte(version+" "+strings.Join(fields[1:4], " ")+" ")) {
			return header{}, nil, nil, corrupt("its version was changed")
		}
		n := strings.TrimPrefix(fields[0], magic)
		if n == "" || len(n) > 9 || n[0] == '0' || strings.Trim(n, "0123456789") != "" {
			return header{}, nil, nil, corrupt("its version is no number")
		}
		return header{}, nil, nil, fmt.Errorf("%w: format %s", persistence.ErrUnsupportedVersion, n)
	}
	switch {
	case len(fields) != 5:
		err = corrupt("its header is not whole")
	case fields[4] != checksum(line[:at-len(fields[4])]):
		err = corrupt("its header has another checksum than it says")
	case !validID(fields[1]):
		err = corrupt("its header names no key")
	case !decode(h.salt[:], fields[2]) || !decode(h.commit[:], fields[3]):
		err = corrupt("its header has a salt or a commitment of the wrong form")
	case len(body) < tagSize:
		err = corrupt("its end is missing")
	}
	if err != nil {
		return header{}, nil, nil, err
	}
	h.id = fields[1]
	return h, line, body, nil
}

func checksum(b []byte) string {
	sum := sha256.Sum256(b)
	return encode(sum[:sumSize])
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// decode accepts the one encoding that so many bytes have.
func decode(dst []byte, s string) bool {
	if len(s) != base64.RawURLEncoding.EncodedLen(len(dst)) {
		return false
	}
	n, err := base64.RawURLEncoding.Strict().Decode(dst, []byte(s))
	return err == nil && n == len(dst) // less if there are line ends in it, which Decode skips
}

// derived is what one save needs of its key, and no other save.
type derived struct {
	key    []byte
	nonce  []byte
	commit []byte
}

func derive(secret []byte, salt *[saltSize]byte) (derived, error) {
	okm, err := hkdf.Key(sha256.New, secret, salt[:], version, keySize+nonceSize+commitSize)
	if err != nil {
		return derived{}, err
	}
	return derived{okm[:keySize], okm[keySize : keySize+nonceSize], okm[keySize+nonceSize:]}, nil
}

func (d derived) aead() (cipher.AEAD, error) {
	block, err := aes.NewCipher(d.key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// additional is the additional data. A header has one line end, its last byte,
// so no two pairs of header and account give the same.
func additional(line []byte, account string) []byte {
	return append(bytes.Clone(line), account...)
}

func seal(k *Key, account string, data []byte) ([]byte, error) {
	h := header{id: k.ID}
	rand.Read(h.salt[:]) //nolint:errcheck // it never fails
	return sealWith(k, &h, account, data)
}

// sealWith is seal with the salt in h, which must never have been used before.
func sealWith(k *Key, h *header, account string, data []byte) ([]byte, error) {
	d, err := derive(k.bytes(), &h.salt)
	if err != nil {
		return nil, err
	}
	aead, err := d.aead()
	if err != nil {
		return nil, err
	}
	copy(h.commit[:], d.commit)
	line := h.format()
	out := make([]byte, len(line), len(line)+len(data)+tagSize)
	copy(out, line)
	return aead.Seal(out, d.nonce, data, additional(line, account)), nil
}

// open returns the data of what is stored. find finds the key of an id, or
// returns nil.
func open(stored []byte, account string, find func(id string) *Key) ([]byte, error) {
	h, line, body, err := parse(stored)
	if err != nil {
		return nil, err
	}
	k := find(h.id)
	if k == nil {
		return nil, fmt.Errorf("%w: the data was sealed with key %q", persistence.ErrKeyMissing, h.id)
	}
	d, err := derive(k.bytes(), &h.salt)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(d.commit, h.commit[:]) != 1 {
		return nil, fmt.Errorf("%w: the data was sealed with another key of the id %q", persistence.ErrWrongKey, h.id)
	}
	aead, err := d.aead()
	if err != nil {
		return nil, err
	}
	data, err := aead.Open(make([]byte, 0, len(body)), d.nonce, body, additional(line, account))
	if err != nil {
		return nil, corrupt("its content was changed, or it is another account's")
	}
	return data, nil
}
