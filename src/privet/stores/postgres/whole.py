"""All records at once: read as they were at one moment, and written into a database that has none.

The law of this module: each is one transaction, so what others do meanwhile is not seen, and what is cut short leaves
nothing.
"""

import secrets
from collections.abc import Iterable, Iterator
from datetime import UTC
from typing import Any

from privet.stores.base import Conflict, Record, StoreError, batched
from privet.stores.columns import to_files, to_names
from privet.stores.postgres.commit import (
    INSERT,
    NAME_INDEX,
    NAME_UNIQUE,
    Connection,
    columns,
    escaped,
    execute,
    execute_each,
)

# Whoever has to write a backup to a slow disk, or reads one from there, pauses for longer than a replica should.
_PATIENT = "SET LOCAL idle_in_transaction_session_timeout = 0"
_SOME = 500


def read_all(connection: Connection, select: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a statement."""
    execute(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    execute(connection, _PATIENT)
    execute(connection, f"DECLARE every NO SCROLL CURSOR FOR {select}")
    while rows := execute(connection, f"FETCH {_SOME} FROM every").fetchall():
        yield from rows
    execute(connection, "COMMIT")


def fill(connection: Connection, records: Iterable[Record]) -> None:
    """Write them. Raises `Conflict` if there are some, and `StoreError` if two cannot be there together."""
    execute(connection, "BEGIN")
    execute(connection, _PATIENT)
    # Whoever starts to serve meanwhile waits, and finds what is written here.
    execute(connection, "LOCK TABLE privet.record IN SHARE ROW EXCLUSIVE MODE")
    if execute(connection, "SELECT 1 FROM privet.record LIMIT 1").fetchall():
        raise Conflict("there is something in the store")
    for some in batched(records, _SOME):
        mark = secrets.randbits(63)
        stored = execute(connection, INSERT, columns([_row(record, mark) for record in some], 8)).fetchall()
        unique = [_name(record, name) for record in some for name in {*record.unique}]
        named = execute(connection, NAME_UNIQUE, columns(unique, 3)).fetchall()
        if len(stored) < len(some) or len(named) < len(unique):
            raise StoreError("two records cannot be there together: they have the same id, or the same unique name")
        execute_each(connection, NAME_INDEX, [_name(record, name) for record in some for name in record.index])
    execute(connection, "COMMIT")


def _row(record: Record, mark: int) -> tuple[object, ...]:
    return (
        escaped(record.kind),
        escaped(record.id),
        record.version,
        mark,
        record.body,
        to_names(record.unique, record.index),
        record.expires and record.expires.astimezone(UTC),
        to_files(record.files),
    )


def _name(record: Record, name: str) -> tuple[str, str, str]:
    return escaped(record.kind), escaped(name), escaped(record.id)
