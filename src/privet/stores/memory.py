"""Records in memory, gone with the process: for tests, and for authorities that live as short as their certificates.

It keeps the laws of `Store` like any other, and `FileStore` uses it as the picture of what its journal says.
"""

import heapq
from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from threading import Lock
from types import MappingProxyType
from typing import Self

from privet.stores.base import NO_FILES, Conflict, Record, StoreError


class MemoryStore:
    """A `Store` that forgets everything when it is closed."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._picture = Picture()

    def get(self, kind: str, id: str) -> Record | None:
        with self._lock:
            return self._picture.records.get((kind, id))

    def find(self, kind: str, name: str | None = None, *, after: str = "", limit: int = 100) -> list[Record]:
        with self._lock:
            return self._picture.find(kind, name, after, limit)

    def commit(self, *records: Record, unchanged: Sequence[Record] = (), durable: bool = True) -> None:
        with self._lock:
            for record in self._picture.advance(records, unchanged):
                self._picture.put(record)

    def prune(self, now: datetime, *, limit: int = 100) -> int:
        with self._lock:
            expired = self._picture.expired(now, limit)
            for key in expired:
                self._picture.drop(*key)
            return len(expired)

    def records(self) -> Iterator[Record]:
        with self._lock:
            records = self._picture.all()
        yield from records

    def fill(self, records: Iterable[Record]) -> None:
        with self._lock:
            if self._picture.records:
                raise Conflict("there is something in the store")
            picture = Picture()
            for record in records:
                picture.add(record)
            self._picture = picture

    def close(self) -> None:
        self._picture = Picture()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Picture:
    """Records with their names, in memory, in order of id. No locks: whoever draws it holds one."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], Record] = {}
        self._ids: dict[tuple[str, str | None], list[str]] = {}  # by kind and name; name None is the whole kind
        self._owners: dict[tuple[str, str], str] = {}
        self._expiries: list[tuple[datetime, str, str]] = []  # a heap; what has since changed or gone is skipped

    def find(self, kind: str, name: str | None, after: str, limit: int) -> list[Record]:
        ids = self._ids.get((kind, name), [])
        start = bisect_right(ids, after)
        return [self.records[kind, one] for one in ids[start : start + limit]]

    def all(self) -> list[Record]:
        return [self.records[key] for key in sorted(self.records)]

    def add(self, record: Record) -> Record:
        """Put a record that is not there yet at the version it has. Raises `StoreError` if another is in its way."""
        try:
            (put,) = self.advance([record._replace(version=0)], ())
        except Conflict as error:
            raise StoreError(f"two records cannot be there together: {error}") from None
        put = put._replace(version=record.version)
        self.put(put)
        return put

    def advance(self, records: Sequence[Record], unchanged: Sequence[Record]) -> list[Record]:
        """Return the records as they will be stored, each at its next version, or raise `Conflict`."""
        for record in (*records, *unchanged):
            current = self.records.get((record.kind, record.id))
            if record.version != (current.version if current else 0):
                raise Conflict(f"{record.kind} {record.id} is no longer at version {record.version}")
        changing = {(record.kind, record.id) for record in records}
        taken = set()
        for record in records:
            for name in set(record.unique):
                owner = self._owners.get((record.kind, name))
                if (record.kind, name) in taken or not (owner is None or (record.kind, owner) in changing):
                    raise Conflict(f"another {record.kind} has the name {name}")
                taken.add((record.kind, name))
        if len(changing) < len(records):
            raise Conflict("one record twice in a commit")
        return [_advanced(record) for record in records]

    def put(self, record: Record) -> None:
        key = (record.kind, record.id)
        old = self.records.get(key)
        if old is None or (old.unique, old.index) != (record.unique, record.index):
            if old is not None:
                self.drop(*key)
            for name in _names(record):
                insort(self._ids.setdefault((record.kind, name), []), record.id)
            for name in record.unique:
                self._owners[record.kind, name] = record.id
        self.records[key] = record
        if record.expires is not None and (old is None or old.expires != record.expires):
            heapq.heappush(self._expiries, (record.expires, *key))

    def drop(self, kind: str, id: str) -> None:
        record = self.records.pop((kind, id))
        for name in _names(record):
            ids = self._ids[kind, name]
            ids.pop(bisect_right(ids, id) - 1)
            if not ids:
                del self._ids[kind, name]
        for name in record.unique:
            if self._owners.get((kind, name)) == id:
                del self._owners[kind, name]

    def expired(self, now: datetime, limit: int) -> list[tuple[str, str]]:
        """Take up to `limit` records that have expired off the list of those that will."""
        keys: dict[tuple[str, str], None] = {}
        while self._expiries and len(keys) < limit and self._expiries[0][0] <= now:
            expires, kind, id = heapq.heappop(self._expiries)
            record = self.records.get((kind, id))
            if record is not None and record.expires == expires:
                keys[kind, id] = None
        return list(keys)


def _names(record: Record) -> set[str | None]:
    return {None, *record.unique, *record.index}


def _advanced(record: Record) -> Record:
    files = MappingProxyType(dict(record.files)) if record.files else NO_FILES
    expires = record.expires and record.expires.astimezone(UTC)
    return record._replace(version=record.version + 1, files=files, expires=expires)
