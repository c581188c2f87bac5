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
	"slices"
	"strings"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// This file is FORMAT.md as code. It parses and writes headers, derives keys, and
// seals and opens files. It does no I/O and asks for no key.

const (
	versionPrefix = "tokenkeep-encrypted/"
	version       = versionPrefix + "1"

	maxHeader = 4096 // bytes, with the empty line
	keySize   = 32   // of a master key
	saltSize  = 32
	nonceSize = 12
	tagSize   = 16
	sumSize   = 16
	hashSize  = 16 // of origin, boot and userns
)

// header is everything before the ciphertext, except the sum.
type header struct {
	source string     // the word of the key's source
	ref    string     // the key's id and the source's own parameters
	file   fileParams // the file's parameters
	salt   [saltSize]byte
	commit [32]byte
}

// fileParams are the parameters of a key line that belong to the file and not to
// the source: the source never sees them. "" stands for one that is not there.
type fileParams struct {
	boot     string // keyed hash of the machine's boot and the user
	origin   string // keyed hash of the machine and the user
	previous string // source/id of the key that the last rotation replaced
	userns   string // keyed hash of the boot and the user namespace
}

// byName returns the parameters in ascending order of their names.
func (p *fileParams) byName() []struct {
	name  string
	value *string
} {
	return []struct {
		name  string
		value *string
	}{{"boot", &p.boot}, {"origin", &p.origin}, {"previous", &p.previous}, {"userns", &p.userns}}
}

// valid reports whether every parameter has its form.
func (p *fileParams) valid() bool {
	for _, hash := range []string{p.boot, p.origin, p.userns} {
		var b [hashSize]byte
		if hash != "" && !decodeExactly(b[:], hash) {
			return false
		}
	}
	return p.previous == "" || validKeyName(p.previous)
}

const (
	lower  = "abcdefghijklmnopqrstuvwxyz"
	digits = "0123456789"
)

// consists reports whether s has 1 to limit characters, all from set and the
// first one from first.
func consists(s string, limit int, first, set string) bool {
	return s != "" && len(s) <= limit && strings.IndexByte(first, s[0]) >= 0 && strings.TrimLeft(s, set) == ""
}

func isSource(s string) bool { return consists(s, 32, lower, lower+digits+"-") }
func isKeyID(s string) bool  { return consists(s, 64, lower+digits, lower+digits+"._-") }
func isParam(s string) bool  { return consists(s, 32, lower, lower+digits+"-") }

const valueChars = lower + "ABCDEFGHIJKLMNOPQRSTUVWXYZ" + digits + "-._~/:+@"

func isValue(s string) bool   { return consists(s, 2048, valueChars, valueChars) }
func isVersion(s string) bool { return consists(s, 9, digits[1:], digits) }

// corrupt says what is wrong with a file. It never quotes the file, which may be
// anything, even a plaintext cache.
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
		return header{}, 0, corrupt("it does not start with the header of an encrypted file")
	}
	// The sum covers the version line. If the rest has the sum of version 1, it is
	// the version line that was damaged.
	if _, _, err := parse1(append([]byte(version+"\n"), rest...)); err == nil {
		return header{}, 0, corrupt("its version line was changed")
	}
	return header{}, 0, fmt.Errorf("%w: file format version %s", persistence.ErrUnsupportedVersion, v)
}

// parse1 is parse for a file that starts with the first line of version 1.
func parse1(head []byte) (header, int, error) {
	var h header
	head = head[:min(len(head), maxHeader)]
	at := len(version) + 1
	next := func(word string) (string, bool) { // returns the rest of the next line, which starts with word
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
		return header{}, 0, corrupt("its header is incomplete")
	}
	if sum != checksum(summed) {
		return header{}, 0, corrupt("its header checksum does not match")
	}

	var ok bool
	var ref string
	if h.source, ref, ok = strings.Cut(key, " "); !ok || !isSource(h.source) {
		return header{}, 0, corrupt("its header names no key source")
	}
	if h.ref, h.file, ok = splitRef(ref); !ok {
		return header{}, 0, corrupt("its header has a malformed key reference")
	}
	if !decodeExactly(h.salt[:], salt) || !decodeExactly(h.commit[:], commit) {
		return header{}, 0, corrupt("its header has a malformed salt or commitment")
	}
	return h, at, nil
}

// keyLine returns the key line with its line end.
func (h *header) keyLine() string {
	return "key " + h.source + " " + joinRef(h.ref, h.file) + "\n"
}

// format returns the header's bytes with the empty line: exactly the bytes that
// parse read.
func (h *header) format() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n%ssalt %s\ncommit %s\n", version, h.keyLine(), encode(h.salt[:]), encode(h.commit[:]))
	fmt.Fprintf(&b, "sum %s\n\n", checksum(b.Bytes()))
	return b.Bytes()
}

// revision is the salt: it is random and new on every save.
func (h *header) revision() string { return encode(h.salt[:]) }

// keyName returns source/id.
func (h *header) keyName() string { return h.source + "/" + refID(h.ref) }

func checksum(b []byte) string {
	sum := sha256.Sum256(b)
	return encode(sum[:sumSize])
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// decodeExactly fills dst from the one base64 text that its bytes have.
func decodeExactly(dst []byte, s string) bool {
	if len(s) != base64.RawURLEncoding.EncodedLen(len(dst)) {
		return false
	}
	n, err := base64.RawURLEncoding.Strict().Decode(dst, []byte(s))
	return err == nil && n == len(dst) // n is less if there are line ends in s: Decode skips them
}

// validRef reports whether ref is "<key id>[ name=value]…", with the names in
// ascending order and each once.
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

// splitRef takes the file's parameters out of a reference. ok reports whether
// both parts are valid.
func splitRef(full string) (ref string, file fileParams, ok bool) {
	if !validRef(full) {
		return "", fileParams{}, false
	}
	var rest []string
fields:
	for _, f := range strings.Split(full, " ") {
		for _, p := range file.byName() {
			if value, found := strings.CutPrefix(f, p.name+"="); found {
				*p.value = value
				continue fields
			}
		}
		rest = append(rest, f)
	}
	return strings.Join(rest, " "), file, file.valid()
}

// joinRef is the reverse of splitRef.
func joinRef(ref string, file fileParams) string {
	fields := strings.Split(ref, " ")
	for _, p := range file.byName() {
		if *p.value == "" {
			continue
		}
		i := 1
		for i < len(fields) && fields[i] < p.name { // name=value sorts here as name does: '=' is less than any letter
			i++
		}
		fields = slices.Insert(fields, i, p.name+"="+*p.value)
	}
	return strings.Join(fields, " ")
}

// validKeyName reports whether s is source/id.
func validKeyName(s string) bool {
	source, id, ok := strings.Cut(s, "/")
	return ok && isSource(source) && isKeyID(id)
}

// derived are the values that one save derives from the master key. No other
// save has the same.
type derived struct {
	key    [keySize]byte
	nonce  [nonceSize]byte
	commit [32]byte
}

// derive computes the values for h's salt and key line, and the cache of that
// name. h.commit is not used.
func derive(master []byte, h *header, name string) (*derived, error) {
	if len(master) != keySize {
		return nil, fmt.Errorf("a key must have %d bytes", keySize)
	}
	prk, err := hkdf.Extract(sha256.New, master, h.salt[:])
	if err != nil {
		return nil, err
	}
	// HKDF-Expand of up to 32 bytes is one HMAC (RFC 5869, section 2.3). Resetting
	// one HMAC for all three saves the work of setting it up twice more.
	mac := hmac.New(sha256.New, prk)
	d := new(derived)
	for _, out := range []struct {
		info string
		to   []byte
	}{
		{"key\x00", d.key[:]},
		{"nonce\x00", d.nonce[:]},
		{"commit\x00" + h.keyLine(), d.commit[:]},
	} {
		mac.Reset()
		mac.Write([]byte(version + "\x00" + out.info + name + "\x01"))
		var okm [sha256.Size]byte
		copy(out.to, mac.Sum(okm[:0]))
	}
	return d, nil
}

// commits reports whether h was written with the key that d derives from, and
// for the key line and the cache name that d was derived for.
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

// seal returns the file that holds data: h, whose commitment it sets, then the
// ciphertext and the tag. d was derived for h. h.salt must never have been used
// before. memory returns an empty slice with room for n bytes, for the file.
func (d *derived) seal(h *header, data []byte, memory func(n int) []byte) ([]byte, error) {
	h.commit = d.commit
	head := h.format()
	if len(head) > maxHeader {
		return nil, errors.New("the key's reference is too long for the file's header")
	}
	return d.sealAfter(head, data, memory)
}

// sealAfter returns head and the sealed data, with head as the additional data.
func (d *derived) sealAfter(head, data []byte, memory func(n int) []byte) ([]byte, error) {
	aead, err := d.aead()
	if err != nil {
		return nil, err
	}
	file := append(memory(len(head)+len(data)+tagSize), head...)
	return aead.Seal(file, d.nonce[:], data, head), nil
}

// open returns the data of a file whose header is its first size bytes. It
// decrypts in place: the data overwrites the ciphertext.
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
