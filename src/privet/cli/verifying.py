"""What OpenSSL itself says of a certificate: the last word, where nothing that has a name is wrong.

The law of this module: it verifies as the other end would, by OpenSSL's own code and not by ours.
"""

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from privet.ca import KeyType, keys
from privet.ca.issuer import make_root
from privet.cli.diagnosis import Finding
from privet.cli.stores import read_bounded
from privet.mtls.contexts import client_context, read, server_context

_ROUNDS = 8
_HINTS = {
    "subtree violation": "its CA is good for some names alone, as `privet cert info` shows: take another name",
    "path length": "a CA behind it may have no other CA below itself: have it issued by the one above",
    "too weak": "have it issued anew, with a newer algorithm",
}

Verifying = Callable[[ssl.SSLContext], object]
"""A handshake with a context that verifies."""


def of_server(connect: Callable[[], socket.socket], where: str, name: str, ca: Path) -> Iterator[Finding]:
    """Whether a client believes the server that `connect` leads to, where TLS begins."""

    def shake(verifier: ssl.SSLContext) -> None:
        with connect() as plain, verifier.wrap_socket(plain, server_hostname=name):
            pass

    trusted = read_bounded(ca)
    yield from _verdict(shake, lambda: client_context(read(None, None, trusted)), where)


def of_files(
    cert: Path, key: Path | None, password: bytes | None, ca: Path, *, server: bool, name: str | None
) -> Iterator[Finding]:
    """Whether the other end believes whoever shows these: a server that is called so, or a client."""
    material = read(read_bounded(cert), read_bounded(key) if key else None, None, key_password=password)
    trusted = read_bounded(ca)
    if server:
        shown = server_context(material)

        def verifier() -> ssl.SSLContext:
            context = client_context(read(None, None, trusted))
            context.check_hostname = name is not None
            return context
    else:
        shown = client_context(material)
        shown.check_hostname, shown.verify_mode = False, ssl.CERT_NONE
        own = make_root(keys.generate(KeyType.P256), "privet doctor", datetime.now(UTC), timedelta(days=1))

        def verifier() -> ssl.SSLContext:
            return server_context(read(own.chain_pem, keys.to_pem(own.key), trusted))

    def shake(other: ssl.SSLContext) -> None:
        _in_memory(*((shown, other) if server else (other, shown)), name if server else None)

    yield from _verdict(shake, verifier, str(cert))


def _verdict(shake: Verifying, verifier: Callable[[], ssl.SSLContext], where: str) -> Iterator[Finding]:
    for strict in (False, True):
        context = verifier()
        flags = context.verify_flags & ~ssl.VERIFY_X509_STRICT
        context.verify_flags = flags | ssl.VERIFY_X509_STRICT if strict else flags
        try:
            shake(context)
        except ssl.SSLCertVerificationError as error:
            yield _refused(where, str(error.verify_message), strict)
            return
        except OSError:
            return  # it was there a moment ago


def _refused(where: str, message: str, strict: bool) -> Finding:
    if strict:
        return Finding(
            "not-strict",
            f"the certificate in {where} does not pass a strict verifier, as Python is one from 3.13 on: {message}",
            "have it issued by a CA that goes by RFC 5280, as those of privet do; or leave strictness off",
            problem=False,
        )
    if "mismatch" in message:
        return Finding(
            "hostname-mismatch",
            f"OpenSSL does not find the name in the certificate in {where}: {message}",
            "for OpenSSL a wildcard has two labels behind its star at least (*.mesh.internal, and not *.internal), and "
            "a name has no dot at its end: call it otherwise, or have the name itself in the certificate",
        )
    hint = next((hint for words, hint in _HINTS.items() if words in message), None)
    return Finding(
        "not-verified",
        f"OpenSSL does not believe the certificate in {where}: {message}",
        hint or "look for these words in the manual of `openssl verify`",
    )


def _in_memory(server: ssl.SSLContext, client: ssl.SSLContext, name: str | None) -> None:
    """A handshake of two contexts. Raises `SSLError`."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(_ROUNDS):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
