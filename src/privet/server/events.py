"""What a responder tells whoever counts: metrics, tests, whatever is embedded beside it.

The law of this module: an event names no client, no account and no identifier, and has few enough values to be counted
one by one.
"""

from collections.abc import Callable
from typing import NamedTuple


class Answered(NamedTuple):
    """A request got its answer. `resource` is a name in the server's table (`vault-…` for those of Vault's API), or
    `none` for what is not there; `problem` the type of a refusal, without its URN."""

    resource: str
    status: int
    problem: str | None
    seconds: float


class Issued(NamedTuple):
    """A certificate was signed for an order, or for a token."""

    profile: str


class Revoked(NamedTuple):
    """A certificate was revoked by a client."""

    reason: int


class Validated(NamedTuple):
    """A challenge of this type was decided by its validator."""

    challenge: str
    valid: bool


class Stored(NamedTuple):
    """The store has answered what was asked of it during one turn of the event loop, after so many seconds."""

    seconds: float


class Pruned(NamedTuple):
    """So many expired records were forgotten."""

    records: int


Event = Answered | Issued | Revoked | Validated | Stored | Pruned
Observer = Callable[[Event], None]
"""Called on the event loop. It has to be quick, and must not raise."""


def unobserved(event: Event) -> None:
    """What is told when nobody listens."""
