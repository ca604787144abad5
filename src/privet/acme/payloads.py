"""What clients send, as values (RFC 8555 §7): read exactly, with unknown members ignored.

The law: any JSON object gives a value or a `Problem`; and whoever reads several identifiers names all that are wrong.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from privet.acme.encoding import from_base64url
from privet.acme.identifiers import BadIdentifier, Identifier, UnsupportedIdentifier, from_json
from privet.acme.problems import Problem, ProblemType, Subproblem, compound
from privet.acme.reasons import REVOCATION_REASONS

Payload = Mapping[str, Any]

# RFC 6068 as far as §7.3 lets it go: one address, no header fields; behind the @ a domain or an address literal.
_MAILTO = re.compile(r"mailto:[A-Za-z0-9.!#$'*+/=^_`{|}~-]{1,64}@(\[[0-9A-Fa-f:.IPv]{2,50}\]|[A-Za-z0-9.-]{1,253})")
_CONTACTS_MAX = 10
# RFC 3339 §5.6: the day and time, a fraction that certificates cannot say, the offset.
_DATE_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt](?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2})(?:\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


@dataclass(frozen=True, slots=True)
class NewAccount:
    """newAccount (§7.3)."""

    contact: tuple[str, ...]
    terms_of_service_agreed: bool
    only_return_existing: bool
    external_account_binding: object | None

    @classmethod
    def read(cls, payload: Payload) -> "NewAccount":
        return cls(
            contact=read_contact(payload) or (),
            terms_of_service_agreed=_flag(payload, "termsOfServiceAgreed"),
            only_return_existing=_flag(payload, "onlyReturnExisting"),
            external_account_binding=payload.get("externalAccountBinding"),
        )


@dataclass(frozen=True, slots=True)
class NewOrder:
    """newOrder (§7.4)."""

    identifiers: tuple[Identifier, ...]
    not_before: datetime | None
    not_after: datetime | None

    @classmethod
    def read(cls, payload: Payload, most: int) -> "NewOrder":
        """Read an order of at most so many identifiers; counted first, because to refuse completely costs for each."""
        identifiers = payload.get("identifiers")
        if not isinstance(identifiers, list) or not identifiers:
            raise Problem(ProblemType.MALFORMED, "an order needs a list of identifiers")
        if len(identifiers) > most:
            raise Problem(ProblemType.MALFORMED, f"{len(identifiers)} identifiers in one order; {most} are allowed")
        read: list[Identifier] = []
        wrong: list[Subproblem] = []
        for entry in identifiers:
            try:
                read.append(_identifier(entry))
            except BadIdentifier as error:
                wrong.append(_rejected(error))
        if wrong:
            raise compound(wrong)
        # The same name twice asks for nothing more; the order of the first mentions is kept, it decides the CN.
        return cls(tuple(dict.fromkeys(read)), _time(payload, "notBefore"), _time(payload, "notAfter"))


@dataclass(frozen=True, slots=True)
class Revocation:
    """revokeCert (§7.6): the certificate as DER, and why."""

    certificate: bytes
    reason: int

    @classmethod
    def read(cls, payload: Payload) -> "Revocation":
        reason = payload.get("reason", 0)
        if type(reason) is not int or reason not in REVOCATION_REASONS:
            allowed = ", ".join(map(str, sorted(REVOCATION_REASONS)))
            raise Problem(ProblemType.BAD_REVOCATION_REASON, f"the reason must be one of {allowed} (RFC 5280 §5.3.1)")
        return cls(from_base64url(payload.get("certificate"), "certificate"), reason)


def read_new_authorization(payload: Payload) -> Identifier:
    """newAuthz (§7.4.1)."""
    try:
        identifier = _identifier(payload.get("identifier"))
    except BadIdentifier as error:
        raise compound([_rejected(error)]) from None
    if identifier.wildcard:
        raise Problem(ProblemType.MALFORMED, "a wildcard cannot be authorized ahead of an order (RFC 8555 §7.4.1)")
    return identifier


def read_finalize(payload: Payload) -> bytes:
    """finalize (§7.4): the CSR as DER."""
    return from_base64url(payload.get("csr"), "csr")


def read_contact(payload: Payload) -> tuple[str, ...] | None:
    """The contact list of an account, or None where the payload has none (§7.3)."""
    contact = payload.get("contact")
    if contact is None:
        return None
    if not isinstance(contact, list) or not all(isinstance(url, str) for url in contact):
        raise Problem(ProblemType.INVALID_CONTACT, "contact must be a list of URLs")
    if len(contact) > _CONTACTS_MAX:
        raise Problem(ProblemType.INVALID_CONTACT, f"contact may have {_CONTACTS_MAX} URLs at most")
    for url in contact:
        if not url.lower().startswith("mailto:"):
            raise Problem(ProblemType.UNSUPPORTED_CONTACT, f"only mailto: contacts are supported, not {url[:100]!a}")
        if not _MAILTO.fullmatch("mailto:" + url[7:]):
            raise Problem(ProblemType.INVALID_CONTACT, f"{url[:100]!a} is not the mailto: URL of one address")
    return tuple(contact)


def read_status(payload: Payload) -> str | None:
    """The status that a client asks an account or an authorization to take (§7.3.6, §7.5.2)."""
    status = payload.get("status")
    if status is not None and not isinstance(status, str):
        raise Problem(ProblemType.MALFORMED, "status must be a string")
    return status


def _identifier(entry: object) -> Identifier:
    if not isinstance(entry, dict):
        raise BadIdentifier("an identifier must be a JSON object with a type and a value")
    return from_json(entry.get("type"), entry.get("value"))


def _rejected(error: BadIdentifier) -> Subproblem:
    unsupported = isinstance(error, UnsupportedIdentifier)
    return Subproblem(ProblemType.UNSUPPORTED_IDENTIFIER if unsupported else ProblemType.MALFORMED, str(error))


def _flag(payload: Payload, name: str) -> bool:
    value = payload.get(name, False)
    if not isinstance(value, bool):
        raise Problem(ProblemType.MALFORMED, f"{name} must be true or false")
    return value


def _time(payload: Payload, name: str) -> datetime | None:
    """A time of RFC 3339, in the whole seconds that certificates know."""
    value = payload.get(name)
    if value is None:
        return None
    found = _DATE_TIME.fullmatch(value) if isinstance(value, str) else None
    try:
        if found is None:
            raise ValueError(value)
        return datetime.fromisoformat("".join(found.groups()).upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Problem(ProblemType.MALFORMED, f"{name} must be a date and time as in RFC 3339") from None
