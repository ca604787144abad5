"""What a store keeps and the four verbs it keeps it with.

A store never learns what it keeps: to it everything is a `Record`. Its one law: `commit` stores all of its
records or none, and only if nobody has changed them since they were read.
"""

import base64
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from types import MappingProxyType
from typing import NamedTuple, Protocol, Self, TypeVar

T = TypeVar("T")

NO_FILES: Mapping[str, bytes] = MappingProxyType({})


class Conflict(Exception):  # noqa: N818 - the word every caller thinks in
    """Somebody else was faster: a record changed since it was read, or a unique name is taken."""


class StoreError(Exception):
    """The store cannot do what was asked: a full disk, a damaged file, a schema from a newer privet."""


class Record(NamedTuple):
    """One thing kept, at the version at which it was read (0: it must not exist yet).

    `unique` names belong to one record of a kind at a time; `index` names are shared. `find` looks at both.
    `files` are the parts of it that a person or another program may want as files (PEM); `body` is the rest.
    A record may be pruned once `expires` has passed, and never before; without `expires` it stays.
    """

    kind: str
    id: str
    body: bytes = b""
    version: int = 0
    unique: tuple[str, ...] = ()
    index: tuple[str, ...] = ()  # type: ignore[assignment] # what a tuple's index() does is not missed here
    expires: datetime | None = None
    files: Mapping[str, bytes] = NO_FILES

    def __repr__(self) -> str:
        # Body and files stay out of logs and tracebacks: there are keys in some of them.
        return f"<Record {self.kind} {self.id} at version {self.version}>"


class Batch(NamedTuple):
    """What one `commit` is asked to store."""

    records: Sequence[Record]
    unchanged: Sequence[Record] = ()
    durable: bool = True


Outcome = Conflict | StoreError | None
"""What became of a batch: stored, or what `commit` would raise."""


class Store(Protocol):
    """Where everything is kept. Synchronous and safe to call from any thread.

    All four verbs raise `StoreError` when the medium fails them.
    """

    def get(self, kind: str, id: str) -> Record | None:
        """Return the record, or None if there is none."""
        ...

    def find(self, kind: str, name: str | None = None, *, after: str = "", limit: int = 100) -> list[Record]:
        """Return up to `limit` records of a kind with that unique or index name (None: all), in order of id,
        beginning behind the id `after`."""
        ...

    def commit(self, *records: Record, unchanged: Sequence[Record] = (), durable: bool = True) -> None:
        """Store all `records` or none; each is then at `version + 1`.

        A record with version 0 must not exist; any other, and every record in `unchanged`, must still be at the
        version that was read. `durable` commits survive a power cut once this returns; others survive at least
        the end of the process, and are never on disk later than a durable commit that follows them.

        Raises `Conflict` if somebody else was faster.
        """
        ...

    def prune(self, now: datetime, *, limit: int = 100) -> int:
        """Forget up to `limit` records that expired at or before `now`; return how many went."""
        ...


class OpenStore(Store, Protocol):
    """A store that somebody opened, and is to close. It can be copied, as a whole and while others use it."""

    def records(self) -> Iterator[Record]:
        """Yield all records as they are at one moment, in order of kind and id. Others may commit meanwhile.

        Raises `StoreError` when the medium fails.
        """
        ...

    def fill(self, records: Iterable[Record]) -> None:
        """Store records as they are, versions included, into a store in which there is nothing: all of them or none,
        also when the process is killed. They survive a power cut once this returns.

        Raises `Conflict` if there is something in it, `StoreError` when two of them cannot be there together or the
        medium fails, and what `records` raises.
        """
        ...

    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some


ID = r"[0-9a-v]{24,40}"
"""A pattern of what `new_id` makes, and has made: once it was 40 hexadecimal digits."""


def new_id(now: datetime) -> str:
    """Make an id that nobody has and nobody can guess (72 random bits), whose order is that of time, so that what is
    stored together lies together and the cost of storing does not grow with what is stored."""
    octets = int(now.timestamp() * 1000).to_bytes(6, "big") + secrets.token_bytes(9)
    # RFC 4648 §7, the base32 that sorts as what it encodes, and behind that hexadecimal. Short, because an issuance
    # writes ids two dozen times.
    return base64.b32hexencode(octets).lower().decode()
