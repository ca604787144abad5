"""Whom to believe that they are the CA: a bundle of roots, a root known by its fingerprint, or what the system trusts.

The law of this module: nothing but the one root is ever fetched from a server that has not proved who it is.
"""

import asyncio
import ssl
import urllib.parse
from pathlib import Path
from typing import NamedTuple

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from privet.client.errors import ClientError, reason_of
from privet.client.session import origin_of, shown

_ROOT_MAX = 1 << 18
_TIMEOUT = 30.0


def system_trust() -> ssl.SSLContext:
    return ssl.create_default_context()


def trust_in(ca_bundle: str | Path | bytes) -> ssl.SSLContext:
    """Trust in the certificates of a file, or of PEM, alone. Raises `ClientError`."""
    try:
        pem = ca_bundle if isinstance(ca_bundle, bytes) else Path(ca_bundle).expanduser().read_bytes()
        found = x509.load_pem_x509_certificates(pem)
        # Read and written again, because what people write between certificates is not always ASCII.
        return ssl.create_default_context(cadata="".join(each.public_bytes(Encoding.PEM).decode() for each in found))
    except OSError as error:
        raise ClientError(f"the ca_bundle cannot be read: {error}") from None
    except Exception:  # the parser has many; an SSLError is an OSError
        raise ClientError("the ca_bundle has no certificate in PEM") from None


def read_fingerprint(text: str) -> bytes:
    """A SHA-256 as people copy it: hexadecimal, in either case, with or without colons. Raises `ClientError`."""
    digits = text.strip().lower().removeprefix("sha256:").removeprefix("sha-256:").replace(":", "").replace(" ", "")
    try:
        digest = bytes.fromhex(digits)
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise ClientError(f"{shown(text)} is not the SHA-256 fingerprint of a certificate: 64 hexadecimal digits")
    return digest


async def fetch_root(
    directory_url: str, fingerprint: str, *, transport: httpx.AsyncBaseTransport | None = None
) -> x509.Certificate:
    """The root with this fingerprint from `ca.pem` beside the directory. Who sends it does not matter: it is the
    fingerprint that is believed. Raises `ClientError`."""
    wanted = read_fingerprint(fingerprint)
    found = await fetch_roots(directory_url, transport=transport)
    for certificate in found:
        if certificate.fingerprint(hashes.SHA256()) == wanted:
            return certificate
    there = ", ".join(certificate.fingerprint(hashes.SHA256()).hex(":").upper() for certificate in found)
    raise ClientError(
        f"the root at {_beside(directory_url)} has the fingerprint {there}, not {wanted.hex(':').upper()}: this is "
        "another CA, or somebody in between; nothing was asked of it"
    )


async def fetch_roots(
    directory_url: str, *, transport: httpx.AsyncBaseTransport | None = None, patience: float = _TIMEOUT
) -> list[x509.Certificate]:
    """What is at `ca.pem` beside the directory, from whoever answers: to be compared, not to be trusted. Raises
    `ClientError`."""
    url = _beside(directory_url)
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    body = bytearray()
    try:
        async with (
            asyncio.timeout(patience),  # for all of it: httpx allows so much for each octet
            httpx.AsyncClient(verify=anybody, timeout=patience, trust_env=False, transport=transport) as http,
            http.stream("GET", url, headers={"accept-encoding": "identity"}) as response,
        ):
            if response.status_code != 200:
                raise ClientError(f"{url} answers {response.status_code}; the root is not there")
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > _ROOT_MAX:
                    raise ClientError(f"what is at {url} is too long for a root")
    except TimeoutError:
        raise ClientError(
            f"the root cannot be fetched from {url}: that took longer than {patience:g} seconds"
        ) from None
    except (httpx.HTTPError, httpx.StreamError, ValueError, OSError) as error:
        raise ClientError(f"the root cannot be fetched from {url}: {reason_of(error)}") from None
    try:
        return x509.load_pem_x509_certificates(bytes(body))
    except Exception:  # the parser has many, and a stranger chooses which one we meet
        raise ClientError(f"what is at {url} is not a certificate in PEM") from None


def _beside(directory_url: str) -> str:
    url = urllib.parse.urljoin(directory_url, "ca.pem")
    if origin_of(url) is None:
        raise ClientError(f"{shown(directory_url)} is not the URL of an ACME directory")
    return url


def trust_in_root(root: x509.Certificate) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=root.public_bytes(Encoding.PEM).decode())


class Trust(NamedTuple):
    """Whom to believe, and the root that alone may have issued, where one is known."""

    context: ssl.SSLContext
    root: x509.Certificate | None = None


async def find_trust(
    directory_url: str,
    ca_bundle: str | Path | bytes | None,
    ca_fingerprint: str | None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Trust:
    """By a fingerprint, by a bundle, or as the system has it. Raises `ClientError`."""
    if ca_fingerprint is not None:
        root = await fetch_root(directory_url, ca_fingerprint, transport=transport)
        return Trust(trust_in_root(root), root)
    return Trust(system_trust() if ca_bundle is None else trust_in(ca_bundle))
