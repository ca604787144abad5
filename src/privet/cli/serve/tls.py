"""The server's own certificate: issued to itself by its authority, shared by all workers, renewed while they serve.

The law of this module: at every moment there is a certificate that is good, and its key touches a disk outside of the
store only in a file of mode 0600 that is gone at once.
"""

import asyncio
import json
import logging
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from privet.acme.identifiers import IdentifierType, from_text
from privet.ca import AuthorityError, CertificateAuthority, KeyType, keys
from privet.cli.failures import Failure
from privet.mtls.contexts import file_of
from privet.mtls.live import LiveContext
from privet.stores import Conflict, Record, StoreError

log = logging.getLogger("privet")

KIND = "tls"

# Clocks jump and machines sleep, so the time is looked at more often than there is something to do.
_LOOK_EVERY = timedelta(seconds=60)
_KEPT_AFTER_EXPIRY = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class _Own:
    """The certificate as the store has it, and who is about to renew it until when."""

    fullchain: bytes
    key: bytes
    begins: datetime
    ends: datetime
    claimed: datetime
    version: int

    @staticmethod
    def from_record(record: Record) -> "_Own":
        certificate = x509.load_pem_x509_certificate(record.files["fullchain.pem"])
        return _Own(
            record.files["fullchain.pem"],
            record.files["key.pem"],
            certificate.not_valid_before_utc,
            certificate.not_valid_after_utc,
            datetime.fromtimestamp(json.loads(record.body)["claimed"], UTC),
            record.version,
        )

    def to_record(self, id: str) -> Record:
        return Record(
            KIND,
            id,
            json.dumps({"claimed": self.claimed.timestamp()}).encode(),
            self.version,
            expires=self.ends + _KEPT_AFTER_EXPIRY,
            files={"fullchain.pem": self.fullchain, "key.pem": self.key},
        )

    @property
    def due(self) -> datetime:
        """When two thirds of its life are over."""
        return self.begins + (self.ends - self.begins) * 2 / 3


def read_client_ca(path: Path) -> str:
    """The certificates in a file, in PEM and nothing else. Raises `Failure`."""
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise Failure(f"--client-ca {path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise Failure(f"--client-ca {path} has no certificate in PEM: name a file with those of your CA") from None
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in found)


Context = TypeVar("Context", bound=ssl.SSLContext)


class OwnCertificate:
    """Keeps an `SSLContext` supplied with a good certificate for these names. `client_ca` (PEM) are the authorities
    whose certificates clients may show."""

    def __init__(
        self,
        ca: CertificateAuthority,
        names: Sequence[str],
        validity: timedelta,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        client_ca: str | None = None,
    ) -> None:
        self._ca = ca
        self._names = tuple(names)
        self._validity = validity
        self._now = now
        # By its names, so that servers with other names can share the store.
        self._id = "_".join((ca.name, *self._names))
        self._pause = min(_LOOK_EVERY, validity / 30)
        self._client_ca = client_ca
        self._loaded = b""
        self.context = self._set_up(LiveContext(ssl.PROTOCOL_TLS_SERVER))

    def _set_up(self, context: Context) -> Context:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        if self._client_ca is not None:
            # Who shows none is anybody; who shows one that does not verify gets no connection.
            context.verify_mode = ssl.CERT_OPTIONAL
            context.load_verify_locations(cadata=self._client_ca)
            # A session that is resumed is not verified again.
            context.options |= ssl.OP_NO_TICKET
            context.num_tickets = 0
        return context

    def refresh(self) -> datetime:
        """Take up the certificate in the store, after renewing it if it is time; return when to look again."""
        own = self._current()
        if own.fullchain != self._loaded:
            # Another context, whole from the start: a handshake must not find the new certificate beside the old key.
            renewed = self._set_up(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            with file_of(own.fullchain + own.key) as path:
                renewed.load_cert_chain(path)
            self.context.supersede(renewed)
            self._loaded = own.fullchain
        return own.due

    async def keep(self) -> None:
        """Refresh for as long as the server lives."""
        while True:
            try:
                due = await asyncio.to_thread(self.refresh)
            except (StoreError, AuthorityError, OSError) as error:
                log.error("the server's own certificate could not be renewed, will try again: %s", error)
                due = self._now()
            wait = min(max(due - self._now(), self._pause), _LOOK_EVERY)
            await asyncio.sleep(wait.total_seconds())

    def _current(self) -> _Own:
        while True:
            record = self._ca.store.get(KIND, self._id)
            own = _Own.from_record(record) if record else None
            now = self._now()
            usable = own is not None and now < own.ends and own.fullchain.endswith(self._ca.chain_pem)
            try:
                if own is None or not usable:
                    return self._issue(own.version if own else 0)
                if now < own.due or now < own.claimed:
                    return own
                # One worker renews; the others go on with what they have until it is there.
                claimed = replace(own, claimed=now + self._validity / 10)
                self._ca.store.commit(claimed.to_record(self._id))
                return self._issue(own.version + 1)
            except Conflict:
                continue  # somebody was faster: take theirs

    def _issue(self, version: int) -> _Own:
        key = keys.generate(KeyType.P256)
        general = [
            x509.DNSName(each.value) if each.type is IdentifierType.DNS else x509.IPAddress(ip_address(each.value))
            for each in map(from_text, self._names)
        ]
        csr = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([]))
            .add_extension(x509.SubjectAlternativeName(general), critical=False)
            .sign(key, hashes.SHA256())
        )
        # By CSR, so that it is on record like any other, and nobody's current bundle of this name is replaced.
        hours = self._validity / timedelta(hours=1)
        bundle = self._ca.issue_from_csr(csr.public_bytes(Encoding.DER), validity_hours=hours)
        certificate = x509.load_pem_x509_certificate(bundle.cert_pem)
        own = _Own(
            bundle.fullchain_pem,
            keys.to_pem(key),
            certificate.not_valid_before_utc,
            certificate.not_valid_after_utc,
            self._now(),
            version,
        )
        self._ca.store.commit(own.to_record(self._id))
        return replace(own, version=version + 1)
