"""How batches get into the database: all that wait, in one transaction, whole or not at all.

The law of this module: nobody is told that a batch is stored before it is, nor that it is not while it may be.
"""

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import psycopg

from privet.stores.base import Batch, Conflict, Outcome, Record, StoreError
from privet.stores.columns import DAMAGED, from_names, to_files, to_names

KEYS = "unnest(%s::text[], %s::text[]) AS key (kind, id)"
_LOCK = f"""SELECT record.kind, record.id, record.version, record.names, record.mark
    FROM {KEYS} JOIN privet.record AS record USING (kind, id) ORDER BY record.kind, record.id FOR """  # noqa: S608
INSERT = """INSERT INTO privet.record (kind, id, version, mark, body, names, expires, files)
    SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bytea[], %s::text[], %s::timestamptz[],
        %s::text[])
    ON CONFLICT DO NOTHING RETURNING kind, id"""
_UPDATE = """UPDATE privet.record AS record SET version = new.version, mark = new.mark, body = new.body,
        names = new.names, expires = new.expires, files = new.files
    FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bytea[], %s::text[], %s::timestamptz[],
        %s::text[]) AS new (kind, id, version, mark, body, names, expires, files)
    WHERE record.kind = new.kind AND record.id = new.id"""
_CLEAR = f"""DELETE FROM privet.record AS record USING {KEYS}
    WHERE record.kind = key.kind AND record.id = key.id AND record.version = 0"""  # noqa: S608
_NAMES = "unnest(%s::text[], %s::text[], %s::text[]) AS each (kind, name, id)"
NAME_UNIQUE = f"""INSERT INTO privet.unique_name (kind, name, id) SELECT * FROM {_NAMES}
    ON CONFLICT DO NOTHING RETURNING kind, name"""  # noqa: S608
NAME_INDEX = f"INSERT INTO privet.index_name (kind, name, id) SELECT * FROM {_NAMES} ON CONFLICT DO NOTHING"  # noqa: S608
_UNNAME = """DELETE FROM privet.{0} AS old USING unnest(%s::text[], %s::text[], %s::text[]) AS each (kind, name, id)
    WHERE old.kind = each.kind AND old.name = each.name AND old.id = each.id"""
UNNAME_UNIQUE, UNNAME_INDEX = _UNNAME.format("unique_name"), _UNNAME.format("index_name")
NOT_DURABLE = "SET LOCAL synchronous_commit = off"

# A text of PostgreSQL has no NUL. These keep the order of texts: \1 is the smallest character that remains.
_ESCAPES = {0: "\1\1", 1: "\1\2"}
Key = tuple[str, str]
Name = tuple[str, str, str]
Connection = psycopg.Connection[tuple[Any, ...]]


class Wanted(NamedTuple):
    """A batch with its keys and names as they are in the database, and the mark that tells what it wrote."""

    mark: int
    durable: bool
    records: list[tuple[Key, Record]]
    unchanged: list[tuple[Key, int]]


class _Row(NamedTuple):
    """What is in the database of a record that a batch rests on."""

    version: int
    names: str | None
    mark: int | None


_NOTHING = _Row(0, None, None)


class Commit:
    """Batches on their way into the database, in one transaction, as often as it takes.

    Transactions of other processes meet with ours at records that both change, and at ids and unique names that both
    want. Every transaction takes all it needs in the same order, whatever its batches are: the locks of the records
    that are there, then new records, then unique names, each sorted. So of any two, one waits for the other and never
    both, and what was waited for is seen as it is then: a version that has moved on or a name that is taken is a
    conflict, and READ COMMITTED is enough. That a record is `unchanged` takes a lock that others may share; that there
    is none takes a place-holder, which is gone when the transaction ends.

    If the connection is lost while COMMIT is under way, nobody has said what became of it. Each row says by a mark
    which batch wrote it, so the next attempt looks at the rows first; and should the lost one reach the database even
    later, the two meet as strangers do, and one of them is stored.
    """

    def __init__(self, batches: list[Wanted], unsure: bool = False) -> None:
        self.batches = batches
        self.unsure = unsure
        self._committing = False

    def lose(self) -> None:
        """Hear that the attempt failed."""
        self.unsure, self._committing = self.unsure or self._committing, False

    def attempt(self, connection: Connection) -> list[Outcome]:
        beaten: set[int] = set()
        while True:
            with connection.pipeline():
                execute(connection, "BEGIN")
                if not any(one.durable for one in self.batches):
                    execute(connection, NOT_DURABLE)
                changes = _Changes(self.batches, self._lock(connection), beaten, self.unsure)
                now_beaten = changes.write(connection)
                if not now_beaten:
                    self._committing = True
                    execute(connection, "COMMIT")
            if not now_beaten:
                return changes.outcomes
            execute(connection, "ROLLBACK")  # not in the pipeline, where psycopg would lose what it has prepared
            beaten |= now_beaten

    def _lock(self, connection: Connection) -> dict[Key, _Row]:
        """Lock what is there of the records that the batches rest on."""
        modes = {key: "SHARE" for one in self.batches for key, version in one.unchanged if version}
        for one in self.batches:
            modes.update({key: "UPDATE" for key, record in one.records if record.version or self.unsure})
        found = []
        for mode, keys in groupby(sorted(modes), key=modes.__getitem__):
            found.append(execute(connection, _LOCK + f"{mode} OF record", columns(keys, 2)))
        return {(kind, id): _Row(*rest) for cursor in found for kind, id, *rest in cursor}


class _Changes:
    """What of the batches is to be written, after a look at what is there. No two of them rest on each other."""

    def __init__(self, batches: list[Wanted], current: dict[Key, _Row], beaten: set[int], unsure: bool) -> None:
        self.outcomes: list[Outcome] = []
        self._current = current
        self._unsure = unsure
        self._new: dict[Key, tuple[int, Record | None]] = {}  # with the number of the batch; None is a place-holder
        self._changed: dict[Key, tuple[int, Record]] = {}
        self._named: dict[Key, int] = {}  # all unique names that come or go, with the number of the batch
        self._unique: list[tuple[str, str, bool, str]] = []  # kind, name, whether it comes, id
        self._index: dict[str, list[Name]] = {UNNAME_INDEX: [], NAME_INDEX: []}
        self._marks = [one.mark for one in batches]
        missing: dict[Key, int] = {}
        for number, one in enumerate(batches):
            if unsure and any(current.get(key, _NOTHING).mark == one.mark for key, _ in one.records):
                self.outcomes.append(None)
            elif unsure and one.records and not any(self._is_before(key, record) for key, record in one.records):
                self.outcomes.append(StoreError("the connection was lost, and what became of the commit is not known"))
            elif number in beaten:
                self.outcomes.append(Conflict("an id or a unique name was taken by somebody faster"))
            else:
                self.outcomes.append(self._add(number, one))
                if self.outcomes[-1] is None:
                    missing.update({key: number for key, version in one.unchanged if not version})
        self._missing = [key for key in missing if key not in self._new]
        self._new.update({key: (missing[key], None) for key in self._missing})

    def _is_before(self, key: Key, record: Record) -> bool:
        """Whether this record shows that the lost attempt of its batch was not stored: it is where it was, or
        somebody else took the step that we would have taken."""
        row = self._current.get(key, _NOTHING)
        return row.version <= record.version + 1 and (row is not _NOTHING or record.version == 0)

    def _add(self, number: int, one: Wanted) -> Outcome:
        """Take a batch up, unless something stands against it."""
        new: dict[Key, tuple[int, Record | None]] = {}
        changed: dict[Key, tuple[int, Record]] = {}
        unique: list[tuple[str, str, bool, str]] = []
        index: dict[str, list[Name]] = {statement: [] for statement in self._index}
        for key, version in one.unchanged:
            if key in self._new or key in self._changed or (version and self._version(key) != version):
                return _changed(key)
        for key, record in one.records:
            if key in self._new or key in self._changed or key in new or key in changed:
                return _changed(key)
            old: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
            if record.version:
                if self._version(key) != record.version:
                    return _changed(key)
                try:
                    old = from_names(self._current[key].names)
                except DAMAGED as error:
                    return StoreError(f"the names of {record.kind} {record.id} are damaged: {error}")
                changed[key] = number, record
            else:
                new[key] = number, record
            kind, id = key
            if old != (record.unique, record.index):
                before, after = [{escaped(name) for name in names} for names in (old[0], record.unique)]
                unique += [(kind, name, False, id) for name in before - after]
                unique += [(kind, name, True, id) for name in after - before]
                before, after = [{escaped(name) for name in names} for names in (old[1], record.index)]
                index[UNNAME_INDEX] += [(kind, name, id) for name in before - after]
                index[NAME_INDEX] += [(kind, name, id) for name in after - before]
        taken = [(kind, name) for kind, name, comes, _ in unique if comes]
        if len(set(taken)) < len(taken) or any((kind, name) in self._named for kind, name, _, _ in unique):
            return Conflict("two records want the same unique name")
        self._new |= new
        self._changed |= changed
        self._unique += unique
        self._named.update({(kind, name): number for kind, name, _, _ in unique})
        for statement, names in index.items():
            self._index[statement] += names
        return None

    def _version(self, key: Key) -> int:
        return self._current.get(key, _NOTHING).version

    def write(self, connection: Connection) -> set[int]:
        """Write it all, and return the numbers of those batches whose ids or unique names somebody else has: because
        of them, nothing of it may stay."""
        wanted: dict[Key, int] = {}
        told = []
        if self._new:
            rows = [self._row(key, *self._new[key]) for key in sorted(self._new)]
            wanted.update({key: number for key, (number, _) in self._new.items()})
            told.append(execute(connection, INSERT, columns(rows, 8)))
        execute_each(connection, _UPDATE, [self._row(key, *what) for key, what in self._changed.items()])
        taken: dict[Key, int] = {}
        told_names = []
        for comes, each in groupby(sorted(self._unique), itemgetter(2)):
            names = [(kind, name, id) for kind, name, _, id in each]
            if comes:
                taken.update({(kind, name): self._named[kind, name] for kind, name, _ in names})
                told_names.append(execute(connection, NAME_UNIQUE, columns(names, 3)))
            else:
                execute(connection, UNNAME_UNIQUE, columns(names, 3))
        for statement, names in self._index.items():
            execute_each(connection, statement, names)
        execute_each(connection, _CLEAR, self._missing)
        for cursors, numbers in ((told, wanted), (told_names, taken)):
            for cursor in cursors:
                for key in cursor:
                    del numbers[key]
        return {*wanted.values(), *taken.values()}

    def _row(self, key: Key, number: int, record: Record | None) -> tuple[object, ...]:
        if record is None:
            return (*key, 0, 0, b"", None, None, None)
        names = to_names(record.unique, record.index)
        expires = record.expires and record.expires.astimezone(UTC)
        return (*key, record.version + 1, self._marks[number], record.body, names, expires, to_files(record.files))


def wanted_of(batch: Batch) -> Wanted:
    """Raises `UnicodeEncodeError` for half a surrogate, which is no text."""
    for record in batch.records:
        for name in (*record.unique, *record.index):
            name.encode()
    return Wanted(
        secrets.randbits(63),
        batch.durable,
        [((escaped(record.kind), escaped(record.id)), record) for record in batch.records],
        [((escaped(record.kind), escaped(record.id)), record.version) for record in batch.unchanged],
    )


def _changed(key: Key) -> Conflict:
    return Conflict(f"{key[0]} {key[1]} has changed since it was read")


def execute(
    connection: Connection, statement: str, parameters: Sequence[object] | Mapping[str, object] | None = None
) -> "psycopg.Cursor[tuple[Any, ...]]":
    return connection.execute(statement.encode(), parameters, binary=True)


def execute_each(connection: Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Do a statement with rows, if there are any."""
    if rows:
        execute(connection, statement, columns(rows, 0))


def columns(rows: Iterable[tuple[object, ...]], count: int) -> list[str]:
    """The columns of these rows as arrays: `count` empty ones if there are no rows."""
    return ["{" + ",".join(map(_element, column)) + "}" for column in zip(*rows, strict=True)] or ["{}"] * count


def _element(value: object) -> str:
    """How PostgreSQL writes a value in an array. psycopg can do that too, in five times the time."""
    if type(value) is str:
        if '"' in value or "\\" in value:
            value = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{value}"'
    if type(value) is bytes:
        return f'"\\\\x{value.hex()}"'
    return "NULL" if value is None else f'"{value}"'


def escaped(text: str) -> str:
    """Raises `UnicodeEncodeError` for half a surrogate, which is no text."""
    if not text.isascii():
        text.encode()
    return text.translate(_ESCAPES) if "\0" in text or "\1" in text else text


def unescaped(text: str) -> str:
    return re.sub("\1(.)", lambda pair: "\0" if pair[1] == "\1" else "\1", text) if "\1" in text else text
