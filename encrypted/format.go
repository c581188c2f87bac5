package encrypted

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// This file is FORMAT.md as code: bytes to a header and back, a key to what it
// derives, data to a file and back. It does no I/O and asks for no key.

const (
	versionPrefix = "tokenkeep-encrypted/"
	version       = versionPrefix + "1"

	maxHeader = 4096 // bytes, with the empty line
	keySize   = 32   // of a master key
	saltSize  = 32
	nonceSize = 12
	tagSize   = 16
	sumSize   = 16
)

// header is what stands before the ciphertext, without its sum.
type header struct {
	source   string // the word of the key's source
	ref      string // the key's id and the source's parameters
	previous string // "" or source/id of the key that the last rotation replaced
	salt     [saltSize]byte
	commit   [32]byte
}

const (
	lower  = "abcdefghijklmnopqrstuvwxyz"
	digits = "0123456789"
)

// consists tells whether s has 1 to limit characters, all of them from set and
// the first one from first.
func consists(s string, limit int, first, set string) bool {
	return s != "" && len(s) <= limit && strings.IndexByte(first, s[0]) >= 0 && strings.TrimLeft(s, set) == ""
}

func isSource(s string) bool { return consists(s, 32, lower, lower+digits+"-") }
func isKeyID(s string) bool  { return consists(s, 64, lower+digits, lower+digits+"._-") }
func isParam(s string) bool  { return consists(s, 32, lower, lower+digits+"-") }

const valueChars = lower + "ABCDEFGHIJKLMNOPQRSTUVWXYZ" + digits + "-._~/:+@"

func isValue(s string) bool   { return consists(s, 2048, valueChars, valueChars) }
func isVersion(s string) bool { return consists(s, 9, digits[1:], digits) }

// previousParam is the one parameter that belongs to the file, not to the source.
const previousParam = "previous"

// corrupt says what is wrong with a file. It never quotes the file: what was
// found in its place may be anything, a plaintext cache too.
func corrupt(what string) error {
	return fmt.Errorf("%w: %s", persistence.ErrCorrupt, what)
}

// parse returns the header at the start of a file, and its size. head is the
// whole file or at least its first maxHeader bytes.
func parse(head []byte) (h header, size int, err error) {
	first, rest, ok := bytes.Cut(head, []byte("\n"))
	if ok && string(first) == version {
		return parse1(head)
	}
	v, isOurs := bytes.CutPrefix(first, []byte(versionPrefix))
	if !ok || !isOurs || !isVersion(string(v)) {
		return header{}, 0, corrupt("it does not begin as an encrypted file does")
	}
	// The sum covers the version line, so if the rest has the sum of version 1,
	// then it is the version that was damaged.
	if _, _, err := parse1(append([]byte(version+"\n"), rest...)); err == nil {
		return header{}, 0, corrupt("its version line was changed")
	}
	return header{}, 0, fmt.Errorf("%w: file format version %s", persistence.ErrUnsupportedVersion, v)
}

// parse1 is parse for a file that begins with version 1's first line.
func parse1(head []byte) (header, int, error) {
	var h header
	head = head[:min(len(head), maxHeader)]
	at := len(version) + 1
	next := func(word string) (string, bool) { // the rest of the next line, which begins with word
		line, _, ok := bytes.Cut(head[at:], []byte("\n"))
		if !ok || !bytes.HasPrefix(line, []byte(word)) {
			return "", false
		}
		at += len(line) + 1
		return string(line[len(word):]), true
	}
	key, ok1 := next("key ")
	salt, ok2 := next("salt ")
	commit, ok3 := next("commit ")
	summed := head[:at]
	sum, ok4 := next("sum ")
	end, ok5 := next("")
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || end != "" {
		return header{}, 0, corrupt("its header is not whole")
	}
	if sum != checksum(summed) {
		return header{}, 0, corrupt("its header has another checksum than it says")
	}

	var ok bool
	var ref string
	if h.source, ref, ok = strings.Cut(key, " "); !ok || !isSource(h.source) {
		return header{}, 0, corrupt("its header names no source of the key")
	}
	if h.ref, h.previous, ok = splitPrevious(ref); !ok {
		return header{}, 0, corrupt("its header does not name the key in the one way there is")
	}
	if !decode32(&h.salt, salt) || !decode32(&h.commit, commit) {
		return header{}, 0, corrupt("its header has a salt or a commitment of the wrong form")
	}
	return h, at, nil
}

// format returns the header's bytes, the empty line included: exactly what
// parse read it from.
func (h *header) format() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\nkey %s %s\nsalt %s\ncommit %s\n", version, h.source, joinPrevious(h.ref, h.previous), encode(h.salt[:]), encode(h.commit[:]))
	fmt.Fprintf(&b, "sum %s\n\n", checksum(b.Bytes()))
	return b.Bytes()
}

// revision is the salt: it is random and new on every save.
func (h *header) revision() string { return encode(h.salt[:]) }

// keyName names the key among those of all sources.
func (h *header) keyName() string { return h.source + "/" + refID(h.ref) }

func checksum(b []byte) string {
	sum := sha256.Sum256(b)
	return encode(sum[:sumSize])
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// decode32 accepts the one encoding that 32 bytes have.
func decode32(dst *[32]byte, s string) bool {
	if len(s) != base64.RawURLEncoding.EncodedLen(len(dst)) {
		return false
	}
	n, err := base64.RawURLEncoding.Strict().Decode(dst[:], []byte(s))
	return err == nil && n == len(dst) // n is less if there are line ends in it, which Decode skips
}

// validRef tells whether ref is "<key id>[ name=value]…" with the names in
// ascending order, each once.
func validRef(ref string) bool {
	fields := strings.Split(ref, " ")
	if !isKeyID(fields[0]) {
		return false
	}
	last := ""
	for _, f := range fields[1:] {
		name, value, ok := strings.Cut(f, "=")
		if !ok || name <= last || !isParam(name) || !isValue(value) {
			return false
		}
		last = name
	}
	return true
}

func refID(ref string) string {
	id, _, _ := strings.Cut(ref, " ")
	return id
}

// splitPrevious takes the file's own parameter out of a valid reference.
func splitPrevious(full string) (ref, previous string, ok bool) {
	if !validRef(full) {
		return "", "", false
	}
	var own []string
	for _, f := range strings.Split(full, " ") {
		if value, found := strings.CutPrefix(f, previousParam+"="); found {
			previous = value
		} else {
			own = append(own, f)
		}
	}
	return strings.Join(own, " "), previous, previous == "" || validKeyName(previous)
}

// joinPrevious is the reverse of splitPrevious.
func joinPrevious(ref, previous string) string {
	if previous == "" {
		return ref
	}
	fields := strings.Split(ref, " ")
	i := 1
	for i < len(fields) && fields[i] < previousParam { // name=value sorts here as name does: '=' is less than any letter
		i++
	}
	fields = append(fields[:i], append([]string{previousParam + "=" + previous}, fields[i:]...)...)
	return strings.Join(fields, " ")
}

// validKeyName tells whether s is source/id.
func validKeyName(s string) bool {
	source, id, ok := strings.Cut(s, "/")
	return ok && isSource(source) && isKeyID(id)
}

// derived is what one save needs of its master key, and no other save.
type derived struct {
	key    [keySize]byte
	nonce  [nonceSize]byte
	commit [32]byte
}

// derive computes the keys of the save with that salt, of the cache of that name.
func derive(master []byte, salt *[saltSize]byte, name string) (*derived, error) {
	if len(master) != keySize {
		return nil, fmt.Errorf("a key must be %d bytes", keySize)
	}
	prk, err := hkdf.Extract(sha256.New, master, salt[:])
	if err != nil {
		return nil, err
	}
	// HKDF-Expand of up to 32 bytes is one HMAC (RFC 5869, section 2.3), and one
	// HMAC that is reset does for all three what three new ones would.
	mac := hmac.New(sha256.New, prk)
	d := new(derived)
	for _, out := range []struct {
		purpose string
		to      []byte
	}{{"key", d.key[:]}, {"nonce", d.nonce[:]}, {"commit", d.commit[:]}} {
		mac.Reset()
		mac.Write([]byte(version + "\x00" + out.purpose + "\x00" + name + "\x01"))
		var okm [sha256.Size]byte
		copy(out.to, mac.Sum(okm[:0]))
	}
	return d, nil
}

// commits tells whether h was written with the key that d derives from.
func (d *derived) commits(h *header) bool {
	return subtle.ConstantTimeCompare(d.commit[:], h.commit[:]) == 1
}

func (d *derived) aead() (cipher.AEAD, error) {
	block, err := aes.NewCipher(d.key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// seal returns the file of data: h, which gets its commitment here, then the
// ciphertext and the tag. h.salt must never have been used before.
func (d *derived) seal(h *header, data []byte) ([]byte, error) {
	h.commit = d.commit
	head := h.format()
	if len(head) > maxHeader {
		return nil, errors.New("the key's reference is too long for the file's header")
	}
	return d.sealAfter(head, data)
}

// sealAfter returns head, then data sealed, with head as the additional data.
func (d *derived) sealAfter(head, data []byte) ([]byte, error) {
	aead, err := d.aead()
	if err != nil {
		return nil, err
	}
	file := make([]byte, len(head), len(head)+len(data)+tagSize)
	copy(file, head)
	return aead.Seal(file, d.nonce[:], data, head), nil
}

// open returns the data of a file whose header is its first size bytes. It
// decrypts in place: the data takes the ciphertext's bytes.
func (d *derived) open(file []byte, size int) ([]byte, error) {
	aead, err := d.aead()
	if err != nil {
		return nil, err
	}
	body := file[size:]
	data, err := aead.Open(body[:0:len(body)], d.nonce[:], body, file[:size])
	if err != nil {
		return nil, corrupt("its body was changed")
	}
	return data[:len(data):len(data)], nil
}
