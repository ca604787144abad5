"""A node's side of Vault's PKI API: certificates by a token, for whoever has no name in DNS to prove, such as the
user of a database.

The law of this module: the private key never leaves the node, and what was issued is checked against what was asked for
before anybody sees it.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import quote

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from privet.acme.identifiers import Identifier, IdentifierType, from_text
from privet.bundle import KIND as BUNDLE
from privet.bundle import CertBundle
from privet.ca import keys
from privet.ca.keys import KeyType, PrivateKey
from privet.client.errors import ClientError, reason_of, untrusted
from privet.client.issued import Issued, check_issued, make_csr, read_chain
from privet.client.keeping import ensure, keep, whole
from privet.client.keyform import KeyForm
from privet.client.schedule import RenewalInfo
from privet.client.session import check_directory_url
from privet.client.trust import Trust, find_trust
from privet.stores.asynchronous import AsyncStore
from privet.stores.base import Store
from privet.stores.memory import MemoryStore

log = logging.getLogger("privet.client")

_ANSWER_MAX = 1 << 20


def _utc_now() -> datetime:
    return datetime.now(UTC)


class _Connection(NamedTuple):
    http: httpx.AsyncClient
    trust: Trust


class VaultClient:
    """Gets certificates by a token for a role, from a server that speaks Vault's PKI API: privet's, or Vault's own.
    `async with` closes it. A `RenewalManager(client=…)` renews them.

    `url` is the server's address, to which `v1/pki` is added, or another `mount`. `token` is a text, or the path of a
    file, which is read each time. `ttl` is how long certificates are to live, if the role allows it; what is not said
    is up to the role. The keys are made here; with `key_password` they are encrypted. The rest is as with `Client`.

    Whatever goes wrong is a `ClientError`.
    """

    def __init__(
        self,
        url: str,
        role: str,
        token: str | Path,
        *,
        mount: str = "pki",
        store: Store | None = None,
        allow_insecure: bool = False,
        ca_bundle: str | Path | bytes | None = None,
        ca_fingerprint: str | None = None,
        key_type: KeyType = KeyType.P256,
        key_password: bytes | None = None,
        traditional_key: bool = False,
        ttl: timedelta | None = None,
        timeout: float = 60,
        transport: httpx.AsyncBaseTransport | None = None,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self.url = f"{url.rstrip('/')}/"
        check_directory_url(self.url, allow_insecure=allow_insecure)
        if ca_bundle is not None and ca_fingerprint is not None:
            raise ClientError("ca_bundle and ca_fingerprint both say whom to trust; give one of them")
        self.store: Store = MemoryStore() if store is None else store
        self._async_store = AsyncStore(self.store)
        self._sign = f"{self.url}v1/{mount.strip('/')}/sign/{quote(role, safe='')}"
        self._role = role
        self._token = token
        self._ca_bundle = ca_bundle
        self._ca_fingerprint = ca_fingerprint
        self._key_type = KeyType(key_type)
        self._key_form = KeyForm(key_password, traditional_key)
        self._ttl = ttl
        self._timeout = timeout
        self._transport = transport
        self._now = now
        self._owned: dict[str, None] = {}
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<VaultClient of {self.url} for the role {self._role!r}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close connections. The store is for whoever opened it to close."""
        if self._connection is not None:
            await self._connection.http.aclose()
            self._connection = None
        await asyncio.to_thread(self._async_store.close)

    async def issue(self, names: str | Sequence[str] = (), *, common_name: str | None = None) -> CertBundle:
        """A certificate for DNS names and IP addresses, or with a common name of its own, such as the user of a
        database. It becomes the store's current one of the common name, or of the first name.

        Raises `BadIdentifier` for what is no name, and `ClientError`.
        """
        identifiers, common_name = _wanted(names, common_name)
        key = await asyncio.to_thread(keys.generate, self._key_type)
        return await self._issue(identifiers, common_name, key)

    async def ensure(
        self, names: str | Sequence[str] = (), *, common_name: str | None = None, fraction: float = 2 / 3
    ) -> CertBundle:
        """The store's certificate if it is that and has lived for less than this part of its life, else a new one; the
        old one will do as long as it is valid where no new one is to be had."""
        identifiers, common_name = _wanted(names, common_name)
        domains = tuple(each.value for each in identifiers)
        record = await self._async_store.get(BUNDLE, domains[0] if common_name is None else common_name)
        bundle = None if record is None else whole(record)
        stored = None if bundle is None else bundle.located(self.store)
        if stored is not None and (stored.domains != domains or stored.common_name != common_name):
            stored = None
        bundle = await ensure(stored, lambda: self.issue(names, common_name=common_name), self._now(), fraction)
        self._owned[bundle.domain] = None
        return bundle

    async def renew(self, bundle: CertBundle, *, rotate_key: bool = True) -> CertBundle:
        """Replace a certificate: the same names, and the same kind of key."""
        if rotate_key:
            public_key = x509.load_pem_x509_certificate(bundle.cert_pem).public_key()
            key = await asyncio.to_thread(keys.generate, keys.check_public_key(public_key))
        else:
            key = self._key_form.from_pem(bundle.key_pem)
        return await self._issue(*_wanted(bundle.domains, bundle.common_name), key)

    async def owned(self) -> Sequence[str]:
        """What the certificates are called that this client was asked for."""
        return tuple(self._owned)

    async def renewal_info(self, bundle: CertBundle) -> RenewalInfo | None:
        """Vault suggests nothing."""
        return None

    # --- how a certificate comes about ---

    async def _issue(self, identifiers: tuple[Identifier, ...], common_name: str | None, key: PrivateKey) -> CertBundle:
        try:
            csr = x509.load_der_x509_csr(make_csr(key, identifiers, common_name)).public_bytes(Encoding.PEM)
        except ValueError as error:  # names are names by now
            raise ClientError(f"{common_name!a} cannot be the common name of a certificate: {error}") from None
        connection = await self._connect()
        wish: dict[str, object] = {
            "csr": csr.decode(),
            "common_name": identifiers[0].value if common_name is None else common_name,
            "alt_names": ",".join(each.value for each in identifiers if each.type is IdentifierType.DNS),
            "ip_sans": ",".join(each.value for each in identifiers if each.type is IdentifierType.IP),
            "exclude_cn_from_sans": common_name is not None,
            "remove_roots_from_chain": True,
        }
        if self._ttl is not None:
            wish["ttl"] = f"{self._ttl / timedelta(seconds=1):.0f}s"
        issued = _read(await self._ask(connection.http, wish))
        check_issued(issued, identifiers, key.public_key(), self._now(), connection.trust.root)
        if common_name is not None and (there := issued.common_name) != common_name:
            raise ClientError(
                f"the certificate that was issued is for {there!a}, not for {common_name!a}; it is not used"
            )
        certificate = issued.certificate
        bundle = CertBundle(
            domain=identifiers[0].value if common_name is None else common_name,
            domains=tuple(each.value for each in identifiers),
            cert_pem=issued.cert_pem,
            fullchain_pem=issued.fullchain_pem,
            key_pem=self._key_form.to_pem(key),
            expires_at=certificate.not_valid_after_utc,
            serial=certificate.serial_number,
        )
        kept = await asyncio.to_thread(keep, self.store, bundle)
        self._owned[kept.domain] = None
        log.info("got a certificate for %s until %s, SHA-256 %s", kept.domain, kept.expires_at, kept.fingerprint)
        return kept

    async def _ask(self, http: httpx.AsyncClient, wish: dict[str, object]) -> dict[str, Any]:
        headers = {"X-Vault-Token": await asyncio.to_thread(self._read_token), "accept-encoding": "identity"}
        body = bytearray()
        try:
            async with (
                asyncio.timeout(self._timeout),
                http.stream("POST", self._sign, json=wish, headers=headers) as response,
            ):
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > _ANSWER_MAX:
                        raise ClientError(f"what {self.url} answers is too long for a certificate")
        except (httpx.HTTPError, httpx.StreamError, ValueError, OSError) as error:
            if refusal := untrusted(self.url, error):
                raise refusal from None
            raise ClientError(f"{self.url} cannot be asked: {reason_of(error)}") from None
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = None
        if response.status_code != 200:
            errors = document.get("errors") if isinstance(document, dict) else None
            texts = [ascii(each)[1:-1] for each in errors if isinstance(each, str)] if isinstance(errors, list) else []
            said = "; ".join(texts) or f"it answers {response.status_code}"
            raise ClientError(f"{self.url} refuses to sign for the role {self._role!r}: {said[:1000]}")
        data = document.get("data") if isinstance(document, dict) else None
        if not isinstance(data, dict):
            raise ClientError(f"{self.url} answers something that is not Vault's")
        return data

    def _read_token(self) -> str:
        try:
            token = self._token if isinstance(self._token, str) else self._token.read_text("ascii")
        except (OSError, ValueError):
            raise ClientError(f"the token cannot be read from {self._token}") from None
        token = token.strip()
        if not (token and token.isascii() and token.isprintable()):
            raise ClientError("the token is none: it has to be a line of printable characters")
        return token

    async def _connect(self) -> _Connection:
        async with self._connecting:
            if self._connection is None:
                trust = await find_trust(self.url, self._ca_bundle, self._ca_fingerprint, self._transport)
                http = httpx.AsyncClient(
                    verify=trust.context, timeout=self._timeout, trust_env=False, transport=self._transport
                )
                self._connection = _Connection(http, trust)
            return self._connection


def _wanted(names: str | Sequence[str], common_name: str | None) -> tuple[tuple[Identifier, ...], str | None]:
    """The names, each once, and a common name that is not the first of them anyway."""
    identifiers = tuple(dict.fromkeys(from_text(name) for name in ([names] if isinstance(names, str) else names)))
    if not identifiers and common_name is None:
        raise ClientError("a certificate is for one name at least")
    return identifiers, None if common_name in [each.value for each in identifiers[:1]] else common_name


def _read(data: dict[str, Any]) -> Issued:
    """The certificate and what is behind it. Raises `ClientError`."""
    above = data.get("ca_chain")
    parts = [data.get("certificate"), *(above if isinstance(above, list) else [])]
    if not all(isinstance(part, str) for part in parts):
        raise ClientError("the server sent something else than certificates in PEM")
    return read_chain("\n".join(parts).encode(errors="replace"))
