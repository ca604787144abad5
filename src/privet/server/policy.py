"""Who may ask for what. Well-formed is for `acme/`; willing is for a policy.

A policy is asked before anything is written. It answers, or raises a `Problem`; if it fails in any other way, the
request is refused.
"""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from privet.acme.identifiers import Identifier


class Decision(Enum):
    """What an account has to do for an authorization."""

    PROVE = "prove"
    """Answer a challenge."""
    TRUST = "trust"
    """Nothing: the authorization is born valid."""


@dataclass(frozen=True, slots=True)
class Applicant:
    """Who asks: the account's id (None while it is being made), its contacts, its external account key's id, and the
    address the request came from."""

    account: str | None
    contact: tuple[str, ...]
    external_account: str | None
    client: str


class Policy(Protocol):
    """Both methods may be plain or async, and raise `Problem` to refuse."""

    def allow_account(self, applicant: Applicant) -> Awaitable[None] | None: ...

    def allow_order(
        self, applicant: Applicant, identifiers: Sequence[Identifier]
    ) -> Awaitable[Decision] | Decision: ...


@dataclass(frozen=True, slots=True)
class Everybody:
    """Any account may order anything, on the one condition given."""

    decision: Decision

    def allow_account(self, applicant: Applicant) -> None:
        return None

    def allow_order(self, applicant: Applicant, identifiers: Sequence[Identifier]) -> Decision:
        return self.decision
