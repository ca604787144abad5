"""Who may ask for what. Well-formed is for `acme/`; willing is for a policy.

A policy is asked before anything is written. It answers, or raises a `Problem`; if it fails in any other way, takes too
long, or answers what nobody understands, the request is refused.
"""

import logging
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import NamedTuple, Protocol, runtime_checkable

from privet.acme.identifiers import Identifier
from privet.ca.keys import KeyType
from privet.server.client_certificates import ClientCertificate

log = logging.getLogger("privet")


class Decision(Enum):
    """What an account has to do for an authorization."""

    PROVE = "prove"
    """Answer a challenge. Where nothing validates challenges, a person decides."""
    TRUST = "trust"
    """Nothing: the authorization is born valid, and is on record."""
    ASK = "ask"
    """Wait for a person, who approves or refuses, whatever could be proved."""


class Ruling(NamedTuple):
    """A decision, and the name of the rule that made it, which stays on record with the authorization."""

    decision: Decision
    rule: str = ""


Rulings = Decision | Ruling | Mapping[Identifier, Decision | Ruling]
"""One answer for all identifiers, or one for each. An identifier that a mapping leaves out is refused."""


@dataclass(frozen=True, slots=True)
class Applicant:
    """Who asks, from where, and for how long.

    `account` is None while the account is being made; `external_account` is the id of its external account key, and
    `external_account_name` that key's name; `client` is the address that the request came from, and
    `client_certificate` what it showed where the connection is mutual TLS. `profile` and `lifetime` are those of the
    certificate that is asked for: the lifetime is None unless the order names a notAfter.
    """

    account: str | None
    contact: tuple[str, ...]
    external_account: str | None
    client: str
    external_account_name: str | None = None
    client_certificate: ClientCertificate | None = None
    profile: str | None = None
    lifetime: timedelta | None = None


class Policy(Protocol):
    """Both methods may be plain or async, and raise `Problem` to refuse. A plain one has to be quick: nothing else is
    served while it thinks."""

    def allow_account(self, applicant: Applicant) -> Awaitable[None] | None: ...

    def allow_order(self, applicant: Applicant, identifiers: Sequence[Identifier]) -> Awaitable[Rulings] | Rulings: ...


@runtime_checkable
class CertificatePolicy(Protocol):
    """What a policy may have besides, to be asked once more when an order is finalized."""

    def allow_certificate(
        self, applicant: Applicant, identifiers: Sequence[Identifier], key_type: KeyType
    ) -> Awaitable[timedelta | None] | timedelta | None:
        """Return the longest lifetime that the certificate may have (None: its profile's), or raise `Problem`."""
        ...


@dataclass(frozen=True, slots=True)
class Everybody:
    """Any account may order anything, on the one condition given."""

    decision: Decision

    def allow_account(self, applicant: Applicant) -> None:
        return None

    def allow_order(self, applicant: Applicant, identifiers: Sequence[Identifier]) -> Decision:
        return self.decision


def warn_of_strangers(policy: Policy) -> None:
    """Say so if it has methods that look like those of a policy, and that nobody calls."""
    known = ("allow_account", "allow_order", "allow_certificate")
    for name in dir(type(policy)):
        if name.startswith("allow_") and name not in known and callable(getattr(type(policy), name)):
            log.warning(
                "the policy %s has %s, which nobody calls: there are %s", type(policy).__name__, name, ", ".join(known)
            )


def read_rulings(answer: object, identifiers: Sequence[Identifier]) -> dict[Identifier, Ruling]:
    """What a policy answered, for each identifier it allows. Raises `TypeError` for what is no answer."""
    if not isinstance(answer, Mapping):
        return dict.fromkeys(identifiers, _read_ruling(answer))
    for key in answer:
        if not isinstance(key, Identifier):
            raise TypeError(f"a policy answered for {key!a}, a {type(key).__name__}; the keys have to be identifiers")
    return {identifier: _read_ruling(answer[identifier]) for identifier in identifiers if identifier in answer}


def _read_ruling(answer: object) -> Ruling:
    match answer:
        case Decision():
            return Ruling(answer)
        case Ruling(Decision(), str()):
            return answer
        case _:
            raise TypeError(f"a policy answered with a {type(answer).__name__}, which is neither Decision nor Ruling")
