"""Encryption with a password in the age format (age-encryption.org/v1, with a scrypt recipient), as a stream.

Any age program opens what this makes. The law of this module: nothing comes out that was not put in, in that place
of that file; a file that was cut short, put together anew or written to raises `StoreError`, at the latest at its end.
"""

import base64
import binascii
import hmac
import re
import secrets
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from privet.stores.base import StoreError

_INTRODUCTION = b"age-encryption.org/v1\n"
_CHUNK, _TAG = 1 << 16, 16
# What a guess at the password costs: 128 MiB and a third of a second. Files that would cost a gigabyte are refused,
# since the number is read before anything is known of who wrote it.
_WORK, _MOST_WORK = 17, 19
_STANZA = re.compile(rb"-> scrypt ([A-Za-z0-9+/]{22}) ([1-9][0-9]?)\n([A-Za-z0-9+/]{43})\n")


def seal(parts: Iterable[bytes], password: bytes) -> Iterator[bytes]:
    """Yield the file that has these bytes in it."""
    file_key, salt, nonce = secrets.token_bytes(16), secrets.token_bytes(16), secrets.token_bytes(16)
    wrapped = ChaCha20Poly1305(_wrapping_key(password, salt, _WORK)).encrypt(bytes(12), file_key, None)
    stanza = b"-> scrypt %b %d\n%b\n" % (_encode(salt), _WORK, _encode(wrapped))
    yield _INTRODUCTION + stanza + b"--- " + _encode(_mac(file_key, stanza)) + b"\n" + nonce
    payload = ChaCha20Poly1305(_derive(file_key, nonce, b"payload"))
    number, waiting = 0, bytearray()
    for part in parts:
        waiting += part
        while len(waiting) > _CHUNK:
            yield payload.encrypt(_chunk_nonce(number, last=False), bytes(waiting[:_CHUNK]), None)
            del waiting[:_CHUNK]
            number += 1
    yield payload.encrypt(_chunk_nonce(number, last=True), bytes(waiting), None)


def unseal(file: BinaryIO, password: bytes) -> Iterator[bytes]:
    """Yield what is in a file. Raises `StoreError`, whose text says whether it is the password or the file."""
    if file.readline(len(_INTRODUCTION)) != _INTRODUCTION:
        raise StoreError("it is no backup of privet")
    stanza = file.readline(100) + file.readline(100)
    match = _STANZA.fullmatch(stanza)
    if match is None or int(match[2]) > _MOST_WORK:
        raise StoreError("it is not encrypted in the way backups of privet are, with a password alone")
    salt, wrapped = _decode(match[1]), _decode(match[3])
    try:
        file_key = ChaCha20Poly1305(_wrapping_key(password, salt, int(match[2]))).decrypt(bytes(12), wrapped, None)
    except InvalidTag:
        raise StoreError("it was made with another password") from None
    if not hmac.compare_digest(file.readline(100), b"--- " + _encode(_mac(file_key, stanza)) + b"\n"):
        raise StoreError("it is damaged at its beginning")
    payload = ChaCha20Poly1305(_derive(file_key, file.read(16), b"payload"))
    number, chunk = 0, file.read(_CHUNK + _TAG)
    while chunk or not number:
        following = file.read(_CHUNK + _TAG)
        try:
            plain = payload.decrypt(_chunk_nonce(number, last=not following), chunk, None)
        except InvalidTag:
            where = "cut short or damaged at its end" if not following else f"damaged behind its byte {number * _CHUNK}"
            raise StoreError(f"it is {where}") from None
        yield plain
        number, chunk = number + 1, following


def _wrapping_key(password: bytes, salt: bytes, work: int) -> bytes:
    try:
        return Scrypt(b"age-encryption.org/v1/scrypt" + salt, 32, n=1 << work, r=8, p=1).derive(password)
    except MemoryError:
        raise StoreError(f"there is no room for what the password takes: {1 << work - 10} MiB of memory") from None


def _mac(file_key: bytes, stanza: bytes) -> bytes:
    return hmac.digest(_derive(file_key, b"", b"header"), _INTRODUCTION + stanza + b"---", "sha256")


def _derive(file_key: bytes, salt: bytes, purpose: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt=salt, info=purpose).derive(file_key)


def _chunk_nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _encode(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


def _decode(text: bytes) -> bytes:
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise StoreError("it is damaged at its beginning") from None
