"""The states of RFC 8555 §7.1.6 as tables: a status changes only by looking up (status, event).

The law: `advance` is the only code that makes a new status, and what is not in a table does not happen. What follows
from other facts (an order is ready once its authorizations are valid) is derived when it is read, not remembered.
"""

from collections.abc import Mapping
from enum import StrEnum


class Status(StrEnum):
    PENDING = "pending"
    READY = "ready"
    PROCESSING = "processing"
    VALID = "valid"
    INVALID = "invalid"
    DEACTIVATED = "deactivated"
    EXPIRED = "expired"
    REVOKED = "revoked"


class Event(StrEnum):
    ANSWERED = "answered"
    AUTHORIZED = "authorized"
    DEACTIVATED = "deactivated"
    EXPIRED = "expired"
    FAILED = "failed"
    FINALIZED = "finalized"
    ISSUED = "issued"
    REFUSED = "refused"
    REVOKED = "revoked"
    VALIDATED = "validated"


Table = Mapping[tuple[Status, Event], Status]

ACCOUNT: Table = {
    (Status.VALID, Event.DEACTIVATED): Status.DEACTIVATED,
    (Status.VALID, Event.REVOKED): Status.REVOKED,
}

ORDER: Table = {
    (Status.PENDING, Event.AUTHORIZED): Status.READY,
    (Status.PENDING, Event.REFUSED): Status.INVALID,
    (Status.PENDING, Event.EXPIRED): Status.INVALID,
    (Status.READY, Event.FINALIZED): Status.PROCESSING,
    (Status.READY, Event.REFUSED): Status.INVALID,
    (Status.READY, Event.EXPIRED): Status.INVALID,
    (Status.PROCESSING, Event.ISSUED): Status.VALID,
    (Status.PROCESSING, Event.FAILED): Status.INVALID,
}

AUTHORIZATION: Table = {
    (Status.PENDING, Event.VALIDATED): Status.VALID,
    (Status.PENDING, Event.REFUSED): Status.INVALID,
    (Status.PENDING, Event.EXPIRED): Status.INVALID,
    (Status.PENDING, Event.DEACTIVATED): Status.DEACTIVATED,
    (Status.VALID, Event.DEACTIVATED): Status.DEACTIVATED,
    (Status.VALID, Event.EXPIRED): Status.EXPIRED,
    (Status.VALID, Event.REVOKED): Status.REVOKED,
}

CHALLENGE: Table = {
    (Status.PENDING, Event.ANSWERED): Status.PROCESSING,
    # A validation that was cut short is taken up again (§8.2).
    (Status.PROCESSING, Event.ANSWERED): Status.PROCESSING,
    (Status.PROCESSING, Event.VALIDATED): Status.VALID,
    (Status.PROCESSING, Event.REFUSED): Status.INVALID,
}


class IllegalTransition(Exception):  # noqa: N818 - reads as what happened
    """The table has no such line: a bug here, never the fault of who asks."""


def advance(table: Table, status: Status, event: Event) -> Status:
    try:
        return table[status, event]
    except KeyError:
        raise IllegalTransition(f"{status} does not answer to {event}") from None
