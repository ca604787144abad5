"""Grants: what an operator hands out to somebody known elsewhere, such as an external account key or a token.

They have a name, are good perhaps for a time, perhaps for so many uses, and can be taken back. The law: what is taken
back stays so, whoever else changes it at the same time.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol, Self, TypeVar

from privet.stores.base import Conflict, Record, Store


class Grant(Protocol):
    """`uses` is how many there are (None: any number, and nobody counts), `ends` until when it is good."""

    @property
    def kind(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def ends(self) -> datetime | None: ...
    @property
    def uses(self) -> int | None: ...
    @property
    def used(self) -> int: ...
    @property
    def revoked(self) -> datetime | None: ...

    def take_back(self, now: datetime) -> Self:
        """Revoked from now on, unless it is already."""
        ...

    def to_record(self) -> Record: ...


Given = TypeVar("Given", bound=Grant)


def status_of(grant: Grant, now: datetime) -> str:
    """Whether it can be used, or why not: valid, revoked, expired or used up."""
    if grant.revoked is not None:
        return "revoked"
    if grant.ends is not None and now >= grant.ends:
        return "expired"
    return "used up" if grant.uses is not None and grant.used >= grant.uses else "valid"


def index_of(authority: str) -> str:
    """The index name by which the grants of an authority are found."""
    return f"authority:{authority}"


def find_all(store: Store, kind: str, read: Callable[[Record], Given], authority: str) -> list[Given]:
    """All of a kind, oldest first."""
    found: list[Given] = []
    after = ""
    while records := store.find(kind, index_of(authority), after=after, limit=500):
        found += map(read, records)
        after = records[-1].id
    return found


def revoke(store: Store, read: Callable[[Record], Given], grant: Given, now: datetime) -> Given:
    """Take it back."""
    while True:
        record = grant.take_back(now).to_record()
        try:
            store.commit(record)
        except Conflict:
            changed = store.get(grant.kind, grant.id)
            if changed is None:
                raise
            grant = read(changed)
        else:
            return read(record._replace(version=record.version + 1))
