#!/usr/bin/env python3
"""Checks the test vectors beside this file with a reader of its own.

It was written from encrypted/FORMAT.md and shares nothing with the Go code. It
needs python3-cryptography, for AES-GCM. Argon2id and DPAPI are not in it: for a
file with a passphrase or a key of DPAPI it takes the key that the vector names,
and it skips the vector with a mistyped passphrase. It prints how many vectors it
has checked, and exits with 1 if one is not as it says.
"""

import base64
import hashlib
import hmac
import pathlib
import re
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"tokenkeep-encrypted/"
SOURCE = re.compile(rb"[a-z][a-z0-9-]{0,31}")
ID = re.compile(rb"[a-z0-9][a-z0-9._-]{0,63}")
FILE_PARAMETERS = (b"boot", b"origin", b"previous", b"userns")
PARAMETER = re.compile(rb"([a-z][a-z0-9-]{0,31})=([A-Za-z0-9._~/:+@-]{1,2048})")


USUAL_MEMORY, USUAL_PASSES = 65536, 3


class Corrupt(Exception):
    pass


class WrongKey(Exception):
    pass


class UnsupportedVersion(Exception):
    pass


def need(condition):
    if not condition:
        raise Corrupt


def encode(b):
    return base64.urlsafe_b64encode(b).rstrip(b"=")


def decode(text, size=None):
    need(re.fullmatch(rb"[A-Za-z0-9_-]*", text))
    try:
        b = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except ValueError:
        raise Corrupt
    need((size is None or len(b) == size) and encode(b) == text)
    return b


def hkdf(key, salt, info, size):
    prk = hmac.new(salt or bytes(32), key, hashlib.sha256).digest()
    out, block = b"", b""
    for i in range(1, 256):
        if len(out) >= size:
            break
        block = hmac.new(prk, block + info + bytes([i]), hashlib.sha256).digest()
        out += block
    return out[:size]


def checksum(lines):
    return encode(hashlib.sha256(lines).digest()[:16])


def parse(file):
    """Returns source, key id, the source's parameters, key line, salt, commitment and the header's size."""
    first, lf, rest = file.partition(b"\n")
    if first != MAGIC + b"1":
        need(lf and re.fullmatch(re.escape(MAGIC) + rb"[1-9][0-9]{0,8}", first))
        try:
            parse(MAGIC + b"1\n" + rest)
        except Corrupt:
            raise UnsupportedVersion
        raise Corrupt
    at, values = len(first) + 1, []
    for word in (b"key ", b"salt ", b"commit ", b"sum ", b""):
        above = file[:at]
        end = file.find(b"\n", at, 4096)
        need(end >= 0 and file.startswith(word, at))
        values.append(file[at + len(word):end])
        if word == b"sum ":
            need(values[-1] == checksum(above))
        at = end + 1
    key, salt, commit, _, empty = values
    need(empty == b"")
    words = key.split(b" ")
    need(len(words) >= 2 and SOURCE.fullmatch(words[0]) and ID.fullmatch(words[1]))
    parameters = []
    for word in words[2:]:
        match = PARAMETER.fullmatch(word)
        need(match)
        parameters.append(match.groups())
    names = [name for name, _ in parameters]
    need(names == sorted(set(names)))
    of_the_file = {name: value for name, value in parameters if name in FILE_PARAMETERS}
    for name, value in of_the_file.items():
        if name == b"previous":
            source, slash, key_id = value.partition(b"/")
            need(slash and SOURCE.fullmatch(source) and ID.fullmatch(key_id))
        else:
            decode(value, 16)
    own = [p for p in parameters if p[0] not in FILE_PARAMETERS]
    key_line = b"key " + key + b"\n"
    return words[0], words[1], own, key_line, decode(salt, 32), decode(commit, 32), at


def check_argon2id(parameters):
    need([name for name, _ in parameters] == [b"m", b"p", b"salt", b"t"])
    m, p, salt, t = (value for _, value in parameters)
    need(all(re.fullmatch(rb"[1-9][0-9]{0,9}", n) for n in (m, p, t)))
    decode(salt, 16)
    m, p, t = int(m), int(p), int(t)
    need(m >= 8 * p)
    if m > 1 << 20 or p > 16 or t > 1 << 10 or m * t > 4 << 20:
        raise UnsupportedVersion
    if m > 4 * USUAL_MEMORY or m * t > 4 * USUAL_MEMORY * USUAL_PASSES:
        raise UnsupportedVersion


def check_blob(blob):
    """Looks at the version and the flags, both little-endian."""
    version, flags = blob[:4], blob[40:44]
    need(len(flags) == 4)
    if version != b"\x01\0\0\0":
        raise UnsupportedVersion
    if int.from_bytes(flags, "little") & 0x20000004:
        raise WrongKey


def open_file(file, source, key, name):
    its_source, key_id, parameters, key_line, salt, commit, at = parse(file)
    need(len(file) - at >= 16)
    if its_source != source:
        raise WrongKey
    if source == b"passphrase":
        check_argon2id(parameters)
    if source == b"dpapi":
        need([name for name, _ in parameters] == [b"blob"])
        check_blob(decode(parameters[0][1]))
    if source in (b"raw", b"env", b"file", b"command"):
        need(not parameters)
        if key_id != hkdf(key, b"", MAGIC + b"1\0id", 16).hex().encode():
            raise WrongKey

    def derive(purpose, size, line=b""):
        return hkdf(key, salt, MAGIC + b"1\0" + purpose + b"\0" + line + name, size)

    if not hmac.compare_digest(derive(b"commit", 32, key_line), commit):
        raise WrongKey
    try:
        return AESGCM(derive(b"key", 32)).decrypt(derive(b"nonce", 12), file[at:], file[:at])
    except InvalidTag:
        raise Corrupt


def main():
    checked, failed = 0, 0
    for path in sorted(pathlib.Path(__file__).parent.glob("*.vec")):
        text, _, file = path.read_bytes().partition(b"\n\n")
        want = dict(line.split(b": ", 1) for line in text.split(b"\n"))
        if want[b"expect"] == b"wrong-key" and b"passphrase" in want:
            continue
        checked += 1
        try:
            data = open_file(file, want[b"source"], bytes.fromhex(want[b"key"].decode()), want[b"name"])
            got = "ok"
            if hashlib.sha256(data).hexdigest().encode() != want.get(b"sha256"):
                got = "other data"
        except Corrupt:
            got = "corrupt"
        except WrongKey:
            got = "wrong-key"
        except UnsupportedVersion:
            got = "unsupported-version"
        if got != want[b"expect"].decode():
            print(f"{path.name}: {got}, not {want[b'expect'].decode()}")
            failed += 1
    print(f"checked {checked} vectors")
    sys.exit(1 if failed or not checked else 0)


main()
