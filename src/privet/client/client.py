"""A node's side of ACME (RFC 8555 §7): from a name to a certificate that can be used, and back again.

Its law: what was issued is checked against what was asked for before anybody sees it, and nothing is asked of a server
before it is needed.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Self

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from privet.acme.encoding import to_base64url
from privet.acme.identifiers import Identifier, from_text
from privet.acme.reasons import REVOCATION_REASONS
from privet.bundle import KIND as BUNDLE
from privet.bundle import CertBundle
from privet.ca import keys
from privet.ca.csr import CSR, BadCSR, from_pem, parse_csr
from privet.ca.keys import KeyType, PublicKey
from privet.client.account import Account
from privet.client.ari import renewal_info
from privet.client.errors import ClientError
from privet.client.handlers import ChallengeHandler
from privet.client.issued import certificate_id, check_issued, make_csr
from privet.client.keeping import ensure, keep, whole
from privet.client.keyform import KeyForm
from privet.client.ordering import Ordering
from privet.client.renewal import OnError, OnRenewed, RenewalManager
from privet.client.schedule import RenewalInfo
from privet.client.session import KeyAlone, Session, Sleep, check_directory_url
from privet.client.signing import AccountKey, ExternalAccount
from privet.client.trust import find_trust
from privet.stores.asynchronous import AsyncStore
from privet.stores.base import Store
from privet.stores.memory import MemoryStore

log = logging.getLogger("privet.client")


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """How a certificate was asked for, so that it is renewed in the same way."""

    key_type: KeyType
    profile: str | None
    preferred_chain: str | None


class _Connection(NamedTuple):
    http: httpx.AsyncClient
    session: Session
    account: Account
    root: x509.Certificate | None


class Client:
    """Gets certificates from an ACME server: privet's, or any other that speaks RFC 8555. `async with` closes it.

    `store` keeps the account's key and the certificates; without one they live as long as the process. `ca_bundle` is a
    file, or PEM, of the roots that the server's own certificate may come from. `ca_fingerprint` is the SHA-256 of the
    root instead: it is fetched from `ca.pem` beside the directory, and then trusted alone, for the server and for what
    it issues. Plain http needs `allow_insecure`.

    `challenge_handler` is one or several; of those that fit, the first is used, and none where nothing has to be
    proved. `external_account` is the key id and the MAC key that a CA hands out to let an account in. `patience` is how
    many seconds are waited for the server to decide, at each step.

    Keys of certificates are written as PKCS#8, or with `traditional_key` as OpenSSL did before; with `key_password`
    they are encrypted.

    Whatever the server refuses is a `Problem`; everything else that goes wrong is a `ClientError`.
    """

    def __init__(
        self,
        directory_url: str,
        *,
        store: Store | None = None,
        challenge_handler: ChallengeHandler | Sequence[ChallengeHandler] | None = None,
        allow_insecure: bool = False,
        ca_bundle: str | Path | bytes | None = None,
        ca_fingerprint: str | None = None,
        contact: str | Sequence[str] = (),
        external_account: tuple[str, bytes | str] | None = None,
        account_key_type: KeyType = KeyType.P256,
        key_type: KeyType = KeyType.P256,
        key_password: bytes | None = None,
        traditional_key: bool = False,
        profile: str | None = None,
        preferred_chain: str | None = None,
        agree_to_terms: bool = True,
        patience: float = 300,
        timeout: float = 60,
        proxy: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        now: Callable[[], datetime] = _utc_now,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        check_directory_url(directory_url, allow_insecure=allow_insecure)
        if ca_bundle is not None and ca_fingerprint is not None:
            raise ClientError("ca_bundle and ca_fingerprint both say whom to trust; give one of them")
        self.directory_url = directory_url
        self.store: Store = MemoryStore() if store is None else store
        self.renewal: RenewalManager | None = None
        """What `auto_renew` started last."""
        self._async_store = AsyncStore(self.store)
        self._handlers = _listed(challenge_handler)
        self._allow_insecure = allow_insecure
        self._ca_bundle = ca_bundle
        self._ca_fingerprint = ca_fingerprint
        self._contact = [contact] if isinstance(contact, str) else list(contact)
        self._external_account = None if external_account is None else ExternalAccount.read(*external_account)
        self._account_key_type = KeyType(account_key_type)
        self._key_form = KeyForm(key_password, traditional_key)
        self._wanted_by_default = _Wanted(KeyType(key_type), profile, preferred_chain)
        self._agree_to_terms = agree_to_terms
        self._patience = patience
        self._timeout = timeout
        self._proxy = proxy
        self._transport = transport
        self._now = now
        self._sleep = sleep
        self._wanted: dict[str, _Wanted] = {}
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()
        self._renewals: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"<Client of {self.directory_url}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End renewal and close connections. The store is for whoever opened it to close."""
        for task in self._renewals:
            task.cancel()
        await asyncio.gather(*self._renewals, return_exceptions=True)
        self._renewals.clear()
        if self._connection is not None:
            await self._connection.http.aclose()
            self._connection = None
        await asyncio.to_thread(self._async_store.close)

    # --- certificates ---

    async def issue(
        self,
        names: str | Sequence[str] = (),
        *,
        csr: bytes | None = None,
        key_pem: bytes | None = None,
        key_type: KeyType | None = None,
        profile: str | None = None,
        preferred_chain: str | None = None,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
    ) -> CertBundle:
        """A certificate for the names: DNS names, wildcards, IP addresses. It becomes the store's current one of the
        first name, and is renewed by `auto_renew`.

        The key is made here, or is `key_pem`. With `csr`, in PEM or DER, key and names are its own; then the bundle's
        `key_pem` is empty, and the store does not keep it.

        Raises `BadIdentifier` for what is no name, `Problem`, and `ClientError`.
        """
        wanted = _Wanted(
            KeyType(key_type or self._wanted_by_default.key_type),
            profile or self._wanted_by_default.profile,
            preferred_chain or self._wanted_by_default.preferred_chain,
        )
        given = [from_text(name) for name in ([names] if isinstance(names, str) else names)]
        if csr is not None:
            if key_pem is not None:
                raise ClientError("a CSR has a key already; leave key_pem out")
            request = _read_csr(csr)
            if given and frozenset(given) != frozenset(request.identifiers):
                raise ClientError("the names are not those of the CSR; leave them out")
            der = from_pem(csr)
            return await self._issue(request.identifiers, der, request.public_key, b"", wanted, not_before, not_after)
        return await self._issue_with_key(
            tuple(dict.fromkeys(given)), _read_key(key_pem), wanted, not_before=not_before, not_after=not_after
        )

    async def ensure(self, names: str | Sequence[str], *, fraction: float = 2 / 3) -> CertBundle:
        """The store's certificate for exactly these names if it has lived for less than this part of its life, else a
        new one: what a service that restarts often should ask for. When no new one is to be had, the old one will do
        as long as it is valid."""
        identifiers = [from_text(name) for name in ([names] if isinstance(names, str) else names)]
        stored = await self._stored(identifiers)
        bundle = await ensure(stored, lambda: self.issue(names), self._now(), fraction)
        self._wanted.setdefault(bundle.domain, self._wanted_by_default)
        return bundle

    async def _stored(self, identifiers: Sequence[Identifier]) -> CertBundle | None:
        """The bundle in the store, if it is whole and for these names."""
        record = await self._async_store.get(BUNDLE, identifiers[0].value) if identifiers else None
        if record is None:
            return None
        bundle = whole(record)
        if bundle is None or set(bundle.domains) != {each.value for each in identifiers}:
            return None
        return bundle.located(self.store)

    async def revoke(
        self, certificate: CertBundle | bytes, reason: int | str = 0, *, key_pem: bytes | None = None
    ) -> None:
        """Revoke a certificate (§7.6): a bundle, PEM or DER. The account that ordered it may; so may, with `key_pem`,
        whoever has its private key. The reason is a number of RFC 5280, or its name there."""
        connection = await self._connect()
        directory = await connection.session.directory()
        if directory.revoke_cert is None:
            raise ClientError(f"{self.directory_url} does not offer revocation")
        payload = {"certificate": to_base64url(_der_of(certificate)), "reason": _reason(reason)}
        if key_pem is None:
            await connection.account.post(directory.revoke_cert, payload)
        else:
            await connection.session.post(directory.revoke_cert, payload, KeyAlone(AccountKey.from_pem(key_pem)))

    async def renewal_info(self, bundle: CertBundle) -> RenewalInfo | None:
        """When the server suggests to renew (RFC 9773); None if it suggests nothing, or nothing sensible."""
        session = (await self._connect()).session
        return await renewal_info(session, x509.load_pem_x509_certificate(bundle.cert_pem), self._now())

    # --- renewal ---

    async def auto_renew(
        self,
        interval_hours: float = 12,
        days_before_expiry: float | None = None,
        on_renewed: OnRenewed | None = None,
        *,
        fraction: float = 2 / 3,
        renewal_threshold: float | None = None,
        names: Iterable[str] | None = None,
        on_error: OnError | None = None,
        rotate_key: bool = True,
    ) -> "asyncio.Task[None]":
        """Keep what this client was asked for renewed, or the certificates of `names`. Returns the task; cancel it to
        stop. How it stands is in `client.renewal.status()`; the arguments are those of `RenewalManager`."""
        self.renewal = RenewalManager(
            client=self,
            names=names,
            interval_hours=interval_hours,
            days_before_expiry=days_before_expiry,
            fraction=fraction,
            renewal_threshold=renewal_threshold,
            on_renewed=on_renewed,
            on_error=on_error,
            rotate_key=rotate_key,
            now=self._now,
            sleep=self._sleep,
        )
        task = self.renewal.start()
        self._renewals = [each for each in self._renewals if not each.done()] + [task]
        return task

    async def owned(self) -> Sequence[str]:
        """The first names of the certificates that this client was asked for."""
        return tuple(self._wanted)

    async def renew(self, bundle: CertBundle, *, rotate_key: bool = True) -> CertBundle:
        """Replace a certificate: the same names, asked for in the same way."""
        wanted = self._wanted.get(bundle.domain, self._wanted_by_default)
        if not rotate_key:
            key = self._key_form.from_pem(bundle.key_pem)
        else:
            if bundle.domain not in self._wanted:  # then its key says which kind was wanted
                public_key = x509.load_pem_x509_certificate(bundle.cert_pem).public_key()
                wanted = _Wanted(keys.check_public_key(public_key), wanted.profile, wanted.preferred_chain)
            key = await asyncio.to_thread(keys.generate, wanted.key_type)
        identifiers = tuple(from_text(name) for name in bundle.domains)
        return await self._issue_with_key(identifiers, key, wanted, replaces=bundle)

    # --- the account ---

    async def account_url(self) -> str:
        """The URL of the account, which is registered if need be."""
        return await (await self._connect()).account.ready()

    async def update_account(self, contact: str | Sequence[str]) -> None:
        """Change the contacts: e-mail addresses, or URLs."""
        await (await self._connect()).account.update([contact] if isinstance(contact, str) else contact)

    async def change_account_key(self, key_type: KeyType | None = None) -> None:
        """Give the account a new key (§7.3.5)."""
        await (await self._connect()).account.change_key(key_type)

    async def deactivate_account(self) -> None:
        """End the account for good (§7.3.6)."""
        await (await self._connect()).account.deactivate()

    # --- how a certificate comes about ---

    async def _issue_with_key(
        self,
        identifiers: tuple[Identifier, ...],
        key: keys.PrivateKey | None,
        wanted: _Wanted,
        *,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        replaces: CertBundle | None = None,
    ) -> CertBundle:
        if not identifiers:
            raise ClientError("a certificate is for one name at least")
        if key is None:
            key = await asyncio.to_thread(keys.generate, wanted.key_type)
        csr = make_csr(key, identifiers)
        bundle = await self._issue(
            identifiers, csr, key.public_key(), self._key_form.to_pem(key), wanted, not_before, not_after, replaces
        )
        kept = await asyncio.to_thread(keep, self.store, bundle)
        self._wanted[kept.domain] = wanted
        return kept

    async def _issue(
        self,
        identifiers: tuple[Identifier, ...],
        csr: bytes,
        public_key: PublicKey,
        key_pem: bytes,
        wanted: _Wanted,
        not_before: datetime | None,
        not_after: datetime | None,
        replaces: CertBundle | None = None,
    ) -> CertBundle:
        connection = await self._connect()
        payload = await self._order_payload(connection.session, identifiers, wanted.profile, not_before, not_after)
        ordering = Ordering(connection.session, connection.account, self._handlers, self._patience)
        predecessor = None if replaces is None else certificate_id(x509.load_pem_x509_certificate(replaces.cert_pem))
        issued = await ordering.obtain(payload, predecessor, identifiers, csr, wanted.preferred_chain)
        check_issued(issued, identifiers, public_key, self._now(), connection.root)
        certificate = issued.certificate
        bundle = CertBundle(
            domain=identifiers[0].value,
            domains=tuple(each.value for each in identifiers),
            cert_pem=issued.cert_pem,
            fullchain_pem=issued.fullchain_pem,
            key_pem=key_pem,
            expires_at=certificate.not_valid_after_utc,
            serial=certificate.serial_number,
        )
        log.info("got a certificate for %s until %s, SHA-256 %s", bundle.domain, bundle.expires_at, bundle.fingerprint)
        return bundle

    async def _order_payload(
        self,
        session: Session,
        identifiers: Sequence[Identifier],
        profile: str | None,
        not_before: datetime | None,
        not_after: datetime | None,
    ) -> dict[str, object]:
        payload: dict[str, object] = {"identifiers": [each.to_json() for each in identifiers]}
        for name, time in (("notBefore", not_before), ("notAfter", not_after)):
            if time is not None:
                payload[name] = time.astimezone(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
        if profile is not None:
            offered = (await session.directory()).profiles
            if offered is None or profile not in offered:
                there = ", ".join(sorted(offered)) if offered else "none"
                raise ClientError(f"{self.directory_url} has no profile {profile!a}; it has {there}")
            payload["profile"] = profile
        return payload

    # --- the connection ---

    async def _connect(self) -> _Connection:
        """The way to the server, opened when it is first needed, so that a CA that is down stops nobody's start."""
        async with self._connecting:
            if self._connection is None:
                self._connection = await self._open()
            return self._connection

    async def _open(self) -> _Connection:
        trust = await find_trust(self.directory_url, self._ca_bundle, self._ca_fingerprint, self._transport)
        http = httpx.AsyncClient(
            verify=trust.context,
            timeout=httpx.Timeout(self._timeout, connect=min(self._timeout, 15)),
            trust_env=False,
            proxy=self._proxy,
            transport=self._transport,
        )
        session = Session(
            self.directory_url,
            http,
            allow_insecure=self._allow_insecure,
            timeout=self._timeout,
            now=self._now,
            sleep=self._sleep,
        )
        account = Account(
            session,
            self._async_store,
            contact=self._contact,
            external_account=self._external_account,
            key_type=self._account_key_type,
            agree_to_terms=self._agree_to_terms,
        )
        return _Connection(http, session, account, trust.root)


def _listed(handlers: ChallengeHandler | Sequence[ChallengeHandler] | None) -> list[ChallengeHandler]:
    if handlers is None:
        return []
    return list(handlers) if isinstance(handlers, Sequence) else [handlers]


def _read_csr(csr: bytes) -> CSR:
    try:
        return parse_csr(from_pem(csr))
    except BadCSR as error:
        raise ClientError(f"the CSR cannot be used: {error}") from None


def _read_key(key_pem: bytes | None) -> keys.PrivateKey | None:
    try:
        return None if key_pem is None else keys.from_pem(key_pem)
    except keys.BadKey as error:
        raise ClientError(f"the key cannot be used: {error}") from None


def _der_of(certificate: CertBundle | bytes) -> bytes:
    if isinstance(certificate, CertBundle):
        certificate = certificate.cert_pem
    try:
        if b"-----BEGIN" in certificate:
            return x509.load_pem_x509_certificate(certificate).public_bytes(Encoding.DER)
        return x509.load_der_x509_certificate(certificate).public_bytes(Encoding.DER)
    except ValueError:
        raise ClientError("this is not a certificate in PEM or DER") from None


def _reason(reason: int | str) -> int:
    for number, name in REVOCATION_REASONS.items():
        if reason in (number, name):
            return number
    known = ", ".join(f"{number} ({name})" for number, name in REVOCATION_REASONS.items())
    raise ClientError(f"{reason!a} is not a usable revocation reason; usable are {known}")
