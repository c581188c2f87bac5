// Package jwe decrypts what azidentity/cache of the Azure SDK for Go writes on
// Linux: a JWE in compact serialization (RFC 7516), encrypted directly with a key
// of 32 bytes by A128CBC-HS256 (RFC 7518, section 5.2.3).
//
// It differs from the RFC in one point, as the writer does: the additional
// authenticated data is empty, so the header is not authenticated. Only the two
// algorithms are read from the header, and only these two are accepted.
package jwe

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/tokenkeep/tokenkeep/persistence"
)

// KeySize is the size of a key in bytes: half of it for the tag, half for the
// encryption.
const KeySize = 32

const (
	parts     = 5
	tagSize   = KeySize / 2
	maxHeader = 4096 // of the text; the writer's has about 80
)

// Message is a JWE that has not been decrypted yet.
type Message struct{ iv, text, tag []byte }

// Parse takes a JWE apart. It fails with ErrCorrupt for anything else, also for a JWE
// that was cut off, and with ErrUnsupportedVersion for one of another kind.
func Parse(data []byte) (*Message, error) {
	all := bytes.SplitN(data, []byte("."), parts+1)
	if len(all) != parts {
		return nil, corrupt("it does not have the five parts of a JWE")
	}
	if len(all[0]) > maxHeader {
		return nil, corrupt("its header is too long")
	}
	head, err := decode(all[0])
	if err != nil {
		return nil, corrupt("its header is not base64")
	}
	var header struct {
		Alg, Enc string
		Zip      json.RawMessage
		Crit     json.RawMessage
	}
	if err := json.Unmarshal(head, &header); err != nil {
		return nil, corrupt("its header is not a JSON object")
	}
	if header.Alg != "dir" || header.Enc != "A128CBC-HS256" || header.Zip != nil || header.Crit != nil {
		return nil, fmt.Errorf("%w of the other program: it is encrypted in a way that is not known here", persistence.ErrUnsupportedVersion)
	}
	if len(all[1]) > 0 {
		return nil, corrupt("it has an encrypted key, which its algorithm does not")
	}
	var m Message
	for i, into := range []*[]byte{&m.iv, &m.text, &m.tag} {
		if *into, err = decode(all[2+i]); err != nil {
			return nil, corrupt("a part of it is not base64")
		}
	}
	switch {
	case len(m.iv) != aes.BlockSize, len(m.tag) != tagSize, len(m.text) == 0, len(m.text)%aes.BlockSize != 0:
		return nil, corrupt("a part of it has a wrong length")
	}
	return &m, nil
}

// Decrypt returns what the message says. It fails with ErrWrongKey if the key is
// another one, or if the message was changed, which looks the same.
func (m *Message) Decrypt(key []byte) ([]byte, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("%w: it does not have %d bytes", persistence.ErrWrongKey, KeySize)
	}
	// The tag is looked at before anything is decrypted.
	if !hmac.Equal(m.tag, tag(key[:tagSize], m.iv, m.text)) {
		return nil, persistence.ErrWrongKey
	}
	block, err := aes.NewCipher(key[tagSize:])
	if err != nil {
		return nil, err
	}
	plain := make([]byte, len(m.text))
	cipher.NewCBCDecrypter(block, m.iv).CryptBlocks(plain, m.text)
	n := int(plain[len(plain)-1])
	if n < 1 || n > aes.BlockSize || !bytes.Equal(plain[len(plain)-n:], bytes.Repeat([]byte{byte(n)}, n)) {
		return nil, corrupt("what is encrypted in it has no proper end")
	}
	return plain[:len(plain)-n], nil
}

func tag(key, iv, text []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(iv)
	h.Write(text)
	h.Write(make([]byte, 8)) // the length of the additional data
	return h.Sum(nil)[:tagSize]
}

func decode(text []byte) ([]byte, error) {
	return base64.RawURLEncoding.Strict().AppendDecode(nil, text)
}

func corrupt(why string) error { return fmt.Errorf("%w: %s", persistence.ErrCorrupt, why) }
