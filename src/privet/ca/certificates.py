"""Certificates as we keep them: one record each, from before the signature to a while after the end.

The law of this module: a certificate's status changes only along its table, and what is read back from a record is
what was written to it.
"""

import base64
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from privet.acme.identifiers import Identifier, IdentifierType
from privet.acme.reasons import REVOCATION_REASONS
from privet.bundle import digest
from privet.ca.tbs import to_pem
from privet.stores.base import NO_FILES, Record

KIND = "certificate"

STATUS = {
    ("prepared", "signed"): "valid",
    ("valid", "revoked"): "revoked",
}

# A record outlives its certificate, so that the last revocation list that must name it can be made (RFC 5280 §3.3).
KEPT_AFTER_EXPIRY = timedelta(days=7)


class AuthorityError(Exception):
    """The authority cannot or will not do what was asked. The text says why."""


class WrongStatus(AuthorityError):  # noqa: N818 - it is the outcome, and reads so where it is caught
    """The certificate is not at the point of its life where this can happen to it."""


class Certificate(NamedTuple):
    """What is known of one certificate.

    While "prepared" it has `tbs`, the bytes to be signed; from then on `der`, the certificate. `common_name` is there
    if it is another than the first of the identifiers. `requester` and `request` are the caller's own words for who
    asked and in which request. `files` holds its PEM files where the authority made the key.
    """

    id: str
    serial: int
    identifiers: tuple[Identifier, ...]
    not_before: datetime
    not_after: datetime
    profile: str
    authority: str
    status: str = "prepared"
    common_name: str | None = None
    tbs: bytes | None = None
    der: bytes | None = None
    requester: str | None = None
    request: str | None = None
    revoked: datetime | None = None
    reason: int | None = None
    clamped: bool = False
    version: int = 0
    files: Mapping[str, bytes] = NO_FILES

    def __repr__(self) -> str:
        # There may be a key among the files.
        return f"<Certificate {self.serial:x} for {', '.join(self.names)}, {self.status}>"

    def signed(self, der: bytes) -> "Certificate":
        return self._replace(status=_advance(self, "signed"), tbs=None, der=der)

    def revoke(self, now: datetime, reason: int = 0) -> "Certificate":
        """Raises `WrongStatus` unless it is valid, `ValueError` for a reason that is not in `REVOCATION_REASONS`."""
        if reason not in REVOCATION_REASONS:
            known = ", ".join(f"{number} ({name})" for number, name in REVOCATION_REASONS.items())
            raise ValueError(f"{reason} is not a usable revocation reason; usable are {known}")
        return self._replace(status=_advance(self, "revoked"), revoked=now, reason=reason)

    @property
    def names(self) -> tuple[str, ...]:
        """All that it is for, each once: a common name of its own first."""
        own = [] if self.common_name is None else [self.common_name]
        return tuple(dict.fromkeys([*own, *(identifier.value for identifier in self.identifiers)]))

    @property
    def fingerprint(self) -> str | None:
        """Its SHA-256, as people compare it; None while it is not signed."""
        return None if self.der is None else digest(self.der)

    @property
    def cert_pem(self) -> bytes:
        """The certificate in PEM. Raises `WrongStatus` while it is not signed."""
        if self.der is None:
            raise WrongStatus(f"certificate {self.serial:x} is not signed yet")
        return to_pem(self.der)

    def to_record(self) -> Record:
        body = {
            "status": self.status,
            "serial": f"{self.serial:x}",
            "identifiers": [(identifier.type, identifier.value) for identifier in self.identifiers],
            "common_name": self.common_name,
            "not_before": self.not_before.isoformat(),
            "not_after": self.not_after.isoformat(),
            "profile": self.profile,
            "authority": self.authority,
            "tbs": _to_text(self.tbs),
            "der": _to_text(self.der),
            "requester": self.requester,
            "request": self.request,
            "revoked": self.revoked and self.revoked.isoformat(),
            "reason": self.reason,
            "clamped": self.clamped or None,
        }
        return Record(
            kind=KIND,
            id=self.id,
            body=_encode({key: value for key, value in body.items() if value is not None}).encode(),
            version=self.version,
            unique=(serial_name(self.serial),),
            index=tuple(map(name_of, self.names)),
            expires=self.not_after + KEPT_AFTER_EXPIRY,
            files=self.files,
        )

    @staticmethod
    def from_record(record: Record) -> "Certificate":
        body: dict[str, Any] = json.loads(record.body)
        get = body.get
        return Certificate(
            id=record.id,
            status=body["status"],
            serial=int(body["serial"], 16),
            identifiers=tuple([Identifier(IdentifierType(kind), value) for kind, value in body["identifiers"]]),
            common_name=get("common_name"),
            not_before=datetime.fromisoformat(body["not_before"]),
            not_after=datetime.fromisoformat(body["not_after"]),
            profile=body["profile"],
            authority=body["authority"],
            tbs=_from_text(get("tbs")),
            der=_from_text(get("der")),
            requester=get("requester"),
            request=get("request"),
            revoked=datetime.fromisoformat(body["revoked"]) if "revoked" in body else None,
            reason=get("reason"),
            clamped=get("clamped", False),
            version=record.version,
            files=record.files,
        )


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def fingerprint(certificate: x509.Certificate) -> str:
    """Its SHA-256, as people compare it."""
    return digest(certificate.public_bytes(Encoding.DER))


def serial_name(serial: int) -> str:
    """The unique name by which the record of a certificate is found."""
    return f"serial:{serial:x}"


def name_of(name: str) -> str:
    """The index name by which the records of the certificates for an identifier or a common name are found."""
    return f"name:{name}"


def _advance(certificate: Certificate, event: str) -> str:
    try:
        return STATUS[certificate.status, event]
    except KeyError:
        raise WrongStatus(f"certificate {certificate.serial:x} is {certificate.status}; it cannot be {event}") from None


def _to_text(data: bytes | None) -> str | None:
    return base64.b64encode(data).decode() if data else None


def _from_text(text: str | None) -> bytes | None:
    return base64.b64decode(text) if text else None
