package vectors

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// draft is a file in the making. A fault is one change to it.
type draft struct {
	version, key string   // lines, without their line ends
	salt         []byte   // of the derivation
	saltText     string   // what stands in the header, if not salt
	commitText   string   // what stands in the header, if not the commitment
	sumText      string   // what stands in the header, if not the sum
	order        []string // of the lines
	end          string   // what follows the sum line
	edit         func(header string) string
	seal         func(aead cipher.AEAD, nonce, data, header []byte) []byte
	body         func([]byte) []byte

	master []byte
	name   string
	data   string
}

const magic = "tokenkeep-encrypted/1"

func bytesOf(label string) []byte {
	sum := sha256.Sum256([]byte("tokenkeep test vector: " + label))
	return sum[:]
}

var (
	master  = bytesOf("key")
	other   = bytesOf("another key")
	salt    = bytesOf("salt")
	id      = hex.EncodeToString(bytesOf("key id")[:16])
	otherID = hex.EncodeToString(bytesOf("previous key id")[:16])
	b64     = base64.RawURLEncoding.EncodeToString

	// Of a stored key: its own id, and where it was stored.
	ownID  = hex.EncodeToString(bytesOf("key id")[:8]) + hex.EncodeToString(keyedHash(machineID, "owner", hex.EncodeToString(bytesOf("key id")[:8]), user, "/srv/tokens/contoso-cli", name)[:8])
	origin = b64(keyedHash(machineID, "origin", ownID, user))
	boot   = b64(keyedHash(bootID, "boot", ownID, user))
	userns = b64(keyedHash(bootID, "userns", ownID, "user:[4026531837]"))
)

const (
	machineID = "92f6a4d1c5b84a8bb2a3f0a3c1d7e9f0"
	bootID    = "b6d1f0a7-3c1e-4c57-9f58-6a4f9a1d2e10"
	user      = "1000"
)

// keyedHash is HMAC-SHA-256 over the purpose and the parts, 16 bytes of it.
func keyedHash(key, purpose string, parts ...string) []byte {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(magic + "\x00" + purpose + "\x00" + strings.Join(parts, "\x00")))
	return mac.Sum(nil)[:16]
}

const (
	name       = "contoso-cli"
	data       = `{"AccessToken":{},"Account":{},"RefreshToken":{}}`
	passphrase = "correct horse battery staple"
)

func sound() *draft {
	return &draft{
		version: magic,
		key:     "key keyring " + id,
		salt:    salt,
		order:   []string{"version", "key", "salt", "commit", "sum"},
		end:     "\n",
		master:  master,
		name:    name,
		data:    data,
	}
}

func expand(master, salt []byte, name, purpose string, size int) []byte {
	out, err := hkdf.Key(sha256.New, master, salt, magic+"\x00"+purpose+"\x00"+name, size)
	if err != nil {
		panic(err)
	}
	return out
}

// commitment covers the key line, which is not the header's in some faulty files.
func (d *draft) commitment(keyLine string) []byte {
	out, err := hkdf.Key(sha256.New, d.master, d.salt, magic+"\x00commit\x00"+keyLine+"\n"+d.name, 32)
	if err != nil {
		panic(err)
	}
	return out
}

func checksum(lines string) string {
	sum := sha256.Sum256([]byte(lines))
	return b64(sum[:16])
}

func (d *draft) file() []byte {
	or := func(s, t string) string {
		if s != "" {
			return s
		}
		return t
	}
	lines := map[string]string{
		"version": d.version,
		"key":     d.key,
		"salt":    "salt " + or(d.saltText, b64(d.salt)),
		"commit":  "commit " + or(d.commitText, b64(d.commitment(d.key))),
	}
	var header string
	for _, word := range d.order {
		line := lines[word]
		if word == "sum" {
			line = "sum " + or(d.sumText, checksum(header))
		}
		header += line + "\n"
	}
	header += d.end
	if d.edit != nil {
		header = d.edit(header)
	}
	block, err := aes.NewCipher(expand(d.master, d.salt, d.name, "key", 32))
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	if d.seal == nil {
		d.seal = func(aead cipher.AEAD, nonce, data, header []byte) []byte {
			return aead.Seal(nil, nonce, data, header)
		}
	}
	body := d.seal(aead, expand(d.master, d.salt, d.name, "nonce", 12), []byte(d.data), []byte(header))
	if d.body != nil {
		body = d.body(body)
	}
	return append([]byte(header), body...)
}

// resum computes the sum of an edited header anew.
func resum(header string) string {
	above, _, ok := strings.Cut(header, "\nsum ")
	if !ok {
		panic("no sum line")
	}
	above += "\n"
	return above + "sum " + checksum(above) + "\n\n"
}

func passphraseKey(m uint32, p uint8, t uint32) (params string, key []byte) {
	argonSalt := bytesOf("argon2id salt")[:16]
	return fmt.Sprintf("m=%d p=%d salt=%s t=%d", m, p, b64(argonSalt), t), argon2.IDKey([]byte(passphrase), argonSalt, t, m, p, 32)
}

// Generate returns all vectors by their file names. It is deterministic.
func Generate() map[string][]byte {
	vectors := map[string][]byte{}

	// add makes the vector of sound() with one change.
	type reader struct{ source, key, passphrase, name string }
	add := func(expect, title, comment string, change func(d *draft, r *reader)) {
		d := sound()
		r := &reader{source: "keyring", key: hex.EncodeToString(master), name: name}
		if change != nil {
			change(d, r)
		}
		file := d.file()
		var b bytes.Buffer
		fmt.Fprintf(&b, "comment: %s\nexpect: %s\nsource: %s\nkey: %s\n", comment, expect, r.source, r.key)
		if r.passphrase != "" {
			fmt.Fprintf(&b, "passphrase: %s\n", r.passphrase)
		}
		fmt.Fprintf(&b, "name: %s\n", r.name)
		if expect == "ok" {
			fmt.Fprintf(&b, "sha256: %x\n", sha256.Sum256([]byte(d.data)))
		}
		b.WriteByte('\n')
		b.Write(file)
		title = expect + "-" + title + ".vec"
		if _, there := vectors[title]; there {
			panic("two vectors of one name: " + title)
		}
		vectors[title] = b.Bytes()
	}
	ok := func(title, comment string, change func(d *draft, r *reader)) { add("ok", title, comment, change) }
	corrupt := func(title, comment string, change func(d *draft)) {
		add("corrupt", title, comment, func(d *draft, _ *reader) { change(d) })
	}
	replace := func(title, comment, old, new string) { // in the header, with a sum that is right
		corrupt(title, comment, func(d *draft) {
			d.edit = func(h string) string {
				if !strings.Contains(h, old) {
					panic("nothing to replace: " + title)
				}
				return resum(strings.Replace(h, old, new, 1))
			}
		})
	}

	// Files to open.

	ok("keyring", "the usual file: a key from the OS keyring", nil)
	ok("no-data", "empty data is data", func(d *draft, _ *reader) { d.data = "" })
	ok("no-name", "a cache without a name", func(d *draft, r *reader) { d.name, r.name = "", "" })
	ok("utf8-name", "a name that is not ASCII", func(d *draft, r *reader) { d.name, r.name = "Größe/名前", "Größe/名前" })
	ok("binary", "data that is no text, longer than a block", func(d *draft, _ *reader) { d.data = strings.Repeat("\x00\xff\n\r", 1000) })
	ok("previous", "a key that replaced another one", func(d *draft, _ *reader) { d.key += " previous=keyring/" + otherID })
	ok("origin", "a key from the OS keyring that says where it was stored", func(d *draft, _ *reader) { d.key = "key keyring " + ownID + " origin=" + origin })
	ok("kernel", "a key from the Linux kernel's keyring, and the key before it", func(d *draft, r *reader) {
		r.source = "kernel"
		d.key = "key kernel " + ownID + " boot=" + boot + " origin=" + origin + " previous=keyring/" + otherID + " userns=" + userns
	})
	ok("file-parameters", "the file's parameters among a source's own", func(d *draft, r *reader) {
		r.source = "x-vault-2"
		d.key = "key x-vault-2 0 a=1 boot=" + boot + " c=1 origin=" + origin + " p=1 userns=" + userns + " z=1"
	})
	ok("raw", "a key that the program has, named by its fingerprint", func(d *draft, r *reader) {
		r.source = "raw"
		d.key = "key raw " + hex.EncodeToString(fingerprint(master))
	})
	ok("parameters", "a source of another program's, with every kind of character", func(d *draft, r *reader) {
		r.source = "x-vault-2"
		d.key = "key x-vault-2 0.a_b-z a=-._~/:+@azAZ09 b-2=x previous=keyring/" + otherID + " z=1"
	})
	ok("longest", "a header of exactly 4096 bytes", func(d *draft, _ *reader) {
		d.key += " a=" + strings.Repeat("a", 2048) + " b="
		d.key += strings.Repeat("b", 4096-len(d.file())+len(d.data)+16)
	})
	add("corrupt", "raw-parameter", "a key that is given takes no parameters", func(d *draft, r *reader) {
		r.source = "raw"
		d.key = "key raw " + hex.EncodeToString(fingerprint(master)) + " a=1"
	})
	pass := func(params string, key []byte) func(*draft, *reader) {
		return func(d *draft, r *reader) {
			d.key = strings.TrimSpace("key passphrase " + id + " " + params)
			d.master = key
			r.source, r.key, r.passphrase = "passphrase", hex.EncodeToString(key), passphrase
		}
	}
	small, smallKey := passphraseKey(64, 4, 1)
	ok("passphrase", "a passphrase, with little work", pass(small, smallKey))
	usual, usualKey := passphraseKey(64<<10, 4, 3)
	ok("passphrase-default", "a passphrase, with RFC 9106's second recommendation", pass(usual, usualKey))

	// The version line.

	version := func(expect, title, comment, line string) {
		add(expect, title, comment, func(d *draft, _ *reader) { d.version = line })
	}
	version("unsupported-version", "2", "a later version, with a header like this one's", "tokenkeep-encrypted/2")
	version("unsupported-version", "999999999", "the last version that there can be", "tokenkeep-encrypted/999999999")
	add("unsupported-version", "other-header", "a later version, with a header of its own", func(d *draft, _ *reader) {
		d.edit = func(string) string { return "tokenkeep-encrypted/12\nrecipients 3\n\x00\x01" }
	})
	version("corrupt", "version-0", "there is no version 0", "tokenkeep-encrypted/0")
	version("corrupt", "version-01", "a version is written without leading zeros", "tokenkeep-encrypted/01")
	version("corrupt", "version-none", "the version is missing", "tokenkeep-encrypted/")
	version("corrupt", "version-sign", "a version has no sign", "tokenkeep-encrypted/+1")
	version("corrupt", "version-space", "nothing follows the version", "tokenkeep-encrypted/1 ")
	version("corrupt", "version-1000000000", "a version has nine digits at most", "tokenkeep-encrypted/1000000000")
	version("corrupt", "version-word", "another format", "tokenkeep-Encrypted/1")
	version("corrupt", "version-cr", "a line ends with LF, not CR LF", magic+"\r")
	version("corrupt", "version-bom", "nothing precedes the version line", "\ufeff"+magic)
	corrupt("version-changed", "version 1, damaged into 3: the rest has version 1's sum", func(d *draft) {
		d.edit = func(h string) string { return strings.Replace(h, "/1\n", "/3\n", 1) }
	})
	corrupt("version-longer", "version 1, damaged into 12: the rest has version 1's sum", func(d *draft) {
		d.edit = func(h string) string { return strings.Replace(h, "/1\n", "/12\n", 1) }
	})
	corrupt("version-cut", "a later version whose first line is cut short", func(d *draft) {
		d.edit = func(string) string { return "tokenkeep-encrypted/2" }
		d.body = func([]byte) []byte { return nil }
	})

	// The lines of the header.

	lines := func(title, comment string, order ...string) {
		corrupt(title, comment, func(d *draft) { d.order = order })
	}
	lines("no-key", "the key line is missing", "version", "salt", "commit", "sum")
	lines("no-salt", "the salt line is missing", "version", "key", "commit", "sum")
	lines("no-commit", "the commit line is missing", "version", "key", "salt", "sum")
	lines("no-sum", "the sum line is missing", "version", "key", "salt", "commit")
	lines("order", "the lines have one order", "version", "key", "commit", "salt", "sum")
	lines("two-keys", "each line stands once", "version", "key", "key", "salt", "commit", "sum")
	corrupt("no-empty-line", "the empty line is missing", func(d *draft) { d.end = "" })
	corrupt("line-after-sum", "nothing stands between the sum and the empty line", func(d *draft) { d.end = "more\n\n" })
	replace("more-lines", "there are no other lines", "\nsum ", "\nmore lines\nsum ")
	replace("cr", "a line ends with LF, not CR LF", "\nsalt ", "\r\nsalt ")
	replace("space-at-end", "nothing follows a line's last word", "\nsalt ", " \nsalt ")
	replace("two-spaces", "one space separates words", "key keyring ", "key keyring  ")
	replace("tab", "a space separates words", "key keyring ", "key keyring\t")
	replace("word-case", "a line's word is lower case", "\nsalt ", "\nSalt ")
	corrupt("too-long", "a header of 4097 bytes", func(d *draft) {
		d.key += " a=" + strings.Repeat("a", 2048) + " b="
		d.key += strings.Repeat("b", 4097-len(d.file())+len(d.data)+16)
	})

	// The key line.

	replace("source-none", "the source is missing", "key keyring ", "key ")
	replace("source-case", "a source is lower case", "key keyring ", "key Keyring ")
	replace("source-digit", "a source begins with a letter", "key keyring ", "key 1keyring ")
	replace("source-long", "a source has 32 characters at most", "key keyring ", "key "+strings.Repeat("k", 33)+" ")
	replace("id-none", "the key id is missing", " "+id, "")
	replace("id-case", "a key id is lower case", id, "A"+id[1:])
	replace("id-dot", "a key id begins with a letter or digit", id, "."+id[1:])
	replace("id-long", "a key id has 64 characters at most", id, strings.Repeat("a", 65))
	replace("id-character", "a key id has a set of characters", id, "a/b")
	replace("parameter-bare", "a parameter has a value", id, id+" a")
	replace("parameter-empty", "a value is not empty", id, id+" a=")
	replace("parameter-two", "a parameter stands once", id, id+" a=1 a=1")
	replace("parameter-order", "parameters are in order of their names", id, id+" b=1 a=1")
	replace("parameter-case", "a parameter's name is lower case", id, id+" A=1")
	replace("parameter-long-name", "a parameter's name has 32 characters at most", id, id+" "+strings.Repeat("a", 33)+"=1")
	replace("parameter-long-value", "a value has 2048 characters at most", id, id+" a="+strings.Repeat("a", 2049))
	replace("parameter-character", "a value has a set of characters", id, id+" a=1=2")
	replace("parameter-utf8", "a value is ASCII", id, id+" a=ö")
	replace("previous-id", "the previous key has a source too", id, id+" previous="+otherID)
	replace("previous-source", "the previous key has an id too", id, id+" previous=keyring/")
	for _, name := range []string{"boot", "origin", "userns"} {
		replace(name+"-short", name+" has 16 bytes", id, id+" "+name+"="+b64(salt[:15]))
		replace(name+"-bits", name+"'s last character has bits that do not count, which are zero", id, id+" "+name+"="+b64(make([]byte, 16))[:21]+"B")
		replace(name+"-alphabet", name+" is base64url, though a value may have other characters", id, id+" "+name+"=+"+b64(salt[:16])[1:])
	}
	replace("previous-slash", "the previous key is one source and one id", id, id+" previous=keyring/a/b")

	// Salt, commitment and sum.

	saltText, commitText := b64(salt), b64(sound().commitment(sound().key))
	for _, v := range []struct{ word, text string }{{"salt", saltText}, {"commit", commitText}} {
		last := v.text[len(v.text)-1]
		alphabet := "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		bent := v.text[:len(v.text)-1] + string(alphabet[strings.IndexByte(alphabet, last)+1])
		replace(v.word+"-bits", "the "+v.word+"'s last character has bits that do not count, which are zero", v.word+" "+v.text, v.word+" "+bent)
		replace(v.word+"-padded", "base64 is not padded", v.word+" "+v.text, v.word+" "+v.text+"=")
		replace(v.word+"-short", "the "+v.word+" has 32 bytes", v.word+" "+v.text, v.word+" "+v.text[:42])
		replace(v.word+"-long", "the "+v.word+" has 32 bytes", v.word+" "+v.text, v.word+" "+v.text+"AA")
		replace(v.word+"-alphabet", "the alphabet is base64url's", v.word+" "+v.text, v.word+" +"+v.text[1:])
		replace(v.word+"-cr", "there is nothing in base64 but its characters", v.word+" "+v.text, v.word+" "+v.text[:20]+"\r"+v.text[21:42]+"A") // some decoders skip it, and find 31 sound bytes
		replace(v.word+"-none", "the "+v.word+" is missing", v.word+" "+v.text, v.word+" ")
	}
	sum := func(title, comment string, change func(string) string) {
		corrupt(title, comment, func(d *draft) {
			d.edit = func(h string) string {
				above, rest, _ := strings.Cut(h, "\nsum ")
				return above + "\nsum " + change(strings.TrimSuffix(rest, "\n\n")) + "\n\n"
			}
		})
	}
	sum("sum-other", "the sum is another header's", func(string) string { return checksum("") })
	sum("sum-padded", "the sum is not padded", func(s string) string { return s + "==" })
	sum("sum-short", "the sum has 16 bytes", func(s string) string { return s[:20] })
	sum("sum-none", "the sum is missing", func(string) string { return "" })
	sum("sum-bits", "the sum's last character has bits that do not count, which are zero", func(s string) string {
		return s[:21] + map[byte]string{'A': "B", 'Q': "R", 'g': "h", 'w': "x"}[s[21]]
	})
	corrupt("flipped-header", "one bit of the key id is flipped: the sum tells", func(d *draft) {
		d.edit = func(h string) string { return strings.Replace(h, id, string(id[0]^1)+id[1:], 1) }
	})

	// Which key it is.

	wrong := func(title, comment string, change func(d *draft, r *reader)) {
		add("wrong-key", title, comment, change)
	}
	wrong("key", "another key: the commitment tells", func(_ *draft, r *reader) { r.key = hex.EncodeToString(other) })
	wrong("name", "another cache's name: the commitment tells", func(_ *draft, r *reader) { r.name = "fabrikam-cli" })
	wrong("name-case", "a name's case counts", func(_ *draft, r *reader) { r.name = "Contoso-CLI" })
	wrong("source", "a key from another source", func(_ *draft, r *reader) { r.source = "raw" })
	wrong("raw-id", "another raw key: the id tells, though the commitment is right", func(d *draft, r *reader) {
		r.source = "raw"
		d.key = "key raw " + hex.EncodeToString(fingerprint(other))
	})
	wrong("commit", "another commitment, with a sum that is right", func(d *draft, _ *reader) {
		e := sound()
		e.master = other
		d.commitText = b64(e.commitment(e.key))
	})
	wrong("salt", "another salt, with a sum that is right", func(d *draft, _ *reader) { d.saltText = b64(bytesOf("another salt")) })
	wrong("damaged-too", "another key on a file with a damaged body: the commitment comes first", func(d *draft, r *reader) {
		r.key = hex.EncodeToString(other)
		d.body = func(b []byte) []byte { b[0] ^= 1; return b }
	})
	wrong("passphrase", "a mistyped passphrase", func(d *draft, r *reader) {
		pass(small, smallKey)(d, r)
		r.passphrase = "correct horse battery stable"
		r.key = hex.EncodeToString(other)
	})
	for _, v := range []struct{ title, comment, params string }{
		{"passphrase-none", "a passphrase has parameters", ""},
		{"passphrase-no-t", "a passphrase has all parameters", strings.TrimSuffix(small, " t=1")},
		{"passphrase-more", "a passphrase has no other parameters", small + " x=1"},
		{"passphrase-zero", "a number is written without leading zeros", strings.Replace(small, "m=64", "m=064", 1)},
		{"passphrase-t-0", "there is one pass at least", strings.Replace(small, "t=1", "t=0", 1)},
		{"passphrase-p-0", "there is one lane at least", strings.Replace(small, "p=4", "p=0", 1)},
		{"passphrase-m-31", "each lane has 8 KiB at least", strings.Replace(small, "m=64", "m=31", 1)},
		{"passphrase-salt", "the salt has 16 bytes", strings.Replace(small, "salt=", "salt=AAAA", 1)},
		{"passphrase-salt-bits", "the salt's last character has bits that do not count, which are zero", strings.Replace(small, " t=1", "", 1)[:len(small)-5] + "B t=1"},
		{"passphrase-digits", "a number has ten digits at most", strings.Replace(small, "m=64", "m=10000000000", 1)},
		{"passphrase-number", "a number is decimal", strings.Replace(small, "m=64", "m=0x40", 1)},
	} {
		add("corrupt", v.title, v.comment, pass(v.params, smallKey))
	}
	for _, v := range []struct{ title, comment, old, new string }{
		{"passphrase-m", "more than 1 GiB of memory: refused before any work", "m=64", "m=1048577"},
		{"passphrase-t", "more than 1024 passes: refused before any work", "t=1", "t=1025"},
		{"passphrase-p", "more than 16 lanes: refused before any work", "p=4", "p=17"},
		{"passphrase-huge", "a number larger than 32 bits: refused before any work", "m=64", "m=4294967360"},
	} {
		params := strings.Replace(small, v.old, v.new, 1)
		if v.title == "passphrase-p" {
			params = strings.Replace(params, "m=64", "m=136", 1)
		}
		add("unsupported-version", v.title, v.comment, pass(params, smallKey))
	}
	blobOf := func(change func(blob []byte)) string {
		blob := binary.LittleEndian.AppendUint32(nil, 1) // version
		blob = append(blob, 0xd0, 0x8c, 0x9d, 0xdf, 0x01, 0x15, 0xd1, 0x11, 0x8c, 0x7a, 0x00, 0xc0, 0x4f, 0xc2, 0x97, 0xeb)
		blob = binary.LittleEndian.AppendUint32(blob, 1) // version of the master key
		blob = append(blob, bytesOf("the user's master key")[:16]...)
		blob = binary.LittleEndian.AppendUint32(blob, 0) // flags
		blob = append(blob, bytesOf("what DPAPI made of the key")...)
		if change != nil {
			change(blob)
		}
		return b64(blob)
	}
	blob := blobOf(nil)
	dpapi := func(params string) func(*draft, *reader) {
		return func(d *draft, r *reader) {
			d.key = strings.TrimSpace("key dpapi " + id + " " + params)
			r.source = "dpapi"
		}
	}
	ok("dpapi", "a key that Windows encrypted: its blob is made up, and decrypts to the key by definition", dpapi("blob="+blob))
	for _, v := range []struct{ title, comment, params string }{
		{"dpapi-none", "a key of DPAPI has a blob", ""},
		{"dpapi-name", "the blob's parameter has one name", "data=" + blob},
		{"dpapi-more", "a key of DPAPI has no other parameters", "blob=" + blob + " x=1"},
		{"dpapi-before", "a key of DPAPI has no other parameters, before the blob either", "a=1 blob=" + blob},
		{"dpapi-alphabet", "the blob is base64url, though a value may have other characters", "blob=+" + blob[1:]},
		{"dpapi-length", "no number of bytes has a base64 text of this length", "blob=" + blob + "AAA"},
		{"dpapi-bits", "the blob's last character has bits that do not count, which are zero", "blob=" + blob[:len(blob)-1] + string(blob[len(blob)-1]+1)},
		{"dpapi-short", "a blob of DPAPI has 44 bytes at least", "blob=" + b64(make([]byte, 43))},
	} {
		add("corrupt", v.title, v.comment, dpapi(v.params))
	}
	add("wrong-key", "dpapi-machine", "a blob that every user of the machine can make", dpapi("blob="+blobOf(func(b []byte) { b[40] = 0x04 })))
	add("wrong-key", "dpapi-system", "a blob of the system's, not of the user's", dpapi("blob="+blobOf(func(b []byte) { b[43] = 0x20 })))
	add("unsupported-version", "dpapi-version", "a blob of another version", dpapi("blob="+blobOf(func(b []byte) { b[0] = 2 })))
	add("unsupported-version", "passphrase-much-memory", "more than four times the usual memory: refused before any work",
		pass(strings.Replace(small, "m=64", "m=262145", 1), smallKey))
	add("unsupported-version", "passphrase-much-work", "more than four times the usual work: refused before any work",
		pass(strings.NewReplacer("m=64", "m=65536", "t=1", "t=13").Replace(small), smallKey))
	add("unsupported-version", "passphrase-work", "memory times passes more than 4 GiB: refused before any work",
		pass(strings.NewReplacer("m=64", "m=1048576", "t=1", "t=5").Replace(small), smallKey))

	// The body, under the right key.

	corrupt("flipped-body", "one bit of the ciphertext is flipped", func(d *draft) {
		d.body = func(b []byte) []byte { b[0] ^= 1; return b }
	})
	corrupt("flipped-tag", "one bit of the tag is flipped", func(d *draft) {
		d.body = func(b []byte) []byte { b[len(b)-1] ^= 0x80; return b }
	})
	corrupt("cut", "the last byte is missing", func(d *draft) { d.body = func(b []byte) []byte { return b[:len(b)-1] } })
	corrupt("cut-to-tag", "there are sixteen bytes after the header, which are no tag", func(d *draft) {
		d.body = func(b []byte) []byte { return b[:16] }
	})
	corrupt("cut-in-tag", "there are fifteen bytes after the header", func(d *draft) { d.body = func(b []byte) []byte { return b[:15] } })
	corrupt("cut-at-header", "nothing follows the header", func(d *draft) { d.body = func([]byte) []byte { return nil } })
	corrupt("cut-in-header", "the file ends in the salt line", func(d *draft) {
		d.edit = func(h string) string { return h[:len(magic)+len(d.key)+20] }
		d.body = func([]byte) []byte { return nil }
	})
	corrupt("empty", "an empty file is not the absence of a file", func(d *draft) {
		d.edit = func(string) string { return "" }
		d.body = func([]byte) []byte { return nil }
	})
	corrupt("longer", "a byte follows the tag", func(d *draft) { d.body = func(b []byte) []byte { return append(b, 0) } })
	corrupt("plaintext", "a cache in plain text", func(d *draft) {
		d.edit = func(string) string { return "" }
		d.body = func([]byte) []byte { return []byte(d.data) }
	})
	corrupt("not-bound", "the header is not the additional data", func(d *draft) {
		d.seal = func(aead cipher.AEAD, nonce, data, _ []byte) []byte { return aead.Seal(nil, nonce, data, nil) }
	})
	wrong("key-line-changed", "a parameter was added to the key line, with a sum that is right: the commitment tells", func(d *draft, _ *reader) {
		before := headerOf(sound())
		d.edit = func(h string) string { return resum(strings.Replace(h, id, id+" previous=keyring/"+otherID, 1)) }
		d.seal = func(aead cipher.AEAD, nonce, data, _ []byte) []byte {
			return aead.Seal(nil, nonce, data, []byte(before))
		}
	})
	wrong("commit-without-key-line", "the commitment covers the key line", func(d *draft, _ *reader) {
		d.commitText = b64(expand(master, salt, name, "commit", 32))
	})
	wrong("commit-without-line-end", "the commitment covers the key line with its line end", func(d *draft, _ *reader) {
		out, err := hkdf.Key(sha256.New, master, salt, magic+"\x00commit\x00"+d.key+name, 32)
		if err != nil {
			panic(err)
		}
		d.commitText = b64(out)
	})
	corrupt("header-changed", "the additional data is another header, with the parameter previous", func(d *draft) {
		e := sound()
		e.key += " previous=keyring/" + otherID
		before := headerOf(e)
		d.seal = func(aead cipher.AEAD, nonce, data, _ []byte) []byte {
			return aead.Seal(nil, nonce, data, []byte(before))
		}
	})
	corrupt("nonce-zero", "the nonce is derived, not zero", func(d *draft) {
		d.seal = func(aead cipher.AEAD, _, data, header []byte) []byte {
			return aead.Seal(nil, make([]byte, 12), data, header)
		}
	})
	corrupt("master-key-used", "the body is encrypted under the derived key, not the master key", func(d *draft) {
		d.seal = func(_ cipher.AEAD, nonce, data, header []byte) []byte {
			block, err := aes.NewCipher(master)
			if err != nil {
				panic(err)
			}
			aead, err := cipher.NewGCM(block)
			if err != nil {
				panic(err)
			}
			return aead.Seal(nil, nonce, data, header)
		}
	})
	return vectors
}

// headerOf returns what stands before the body of the file that d becomes.
func headerOf(d *draft) string {
	file := d.file()
	return string(file[:len(file)-len(d.data)-16])
}

// fingerprint returns a key's fingerprint, the id of a key that the program has.
func fingerprint(key []byte) []byte {
	out, err := hkdf.Key(sha256.New, key, nil, magic+"\x00id", 16)
	if err != nil {
		panic(err)
	}
	return out
}
