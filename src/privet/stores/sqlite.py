"""Records in an SQLite database: several processes, many threads, and one fsync for whatever waits at the same time.

The law of this module: what `commit` returned from is in the database, whole, and nothing of what raised is.
"""

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

from privet.stores.base import NO_FILES, Batch, Conflict, Outcome, Record, StoreError
from privet.stores.disk import Turn, make_folder, open_private
from privet.stores.together import Together

# Each entry takes the schema one version further; only ever append. Names follow their record by trigger, so
# storing a record is one statement, and a row that breaks a rule breaks it there.
MIGRATIONS = (
    """
    CREATE TABLE record (
        number  INTEGER PRIMARY KEY,
        kind    TEXT NOT NULL,
        id      TEXT NOT NULL,
        version INTEGER NOT NULL,
        body    BLOB NOT NULL,
        names   TEXT,              -- JSON: {"name": 1 if unique, 0 if shared}
        expires INTEGER,           -- microseconds since 1970
        files   TEXT               -- JSON: {"name": "content"}, bytes as Latin-1
    );
    CREATE UNIQUE INDEX record_id ON record (kind, id);
    CREATE INDEX record_expires ON record (expires) WHERE expires IS NOT NULL;
    CREATE TABLE name (kind TEXT, name TEXT, id TEXT, PRIMARY KEY (kind, name, id)) WITHOUT ROWID;
    CREATE TABLE owner (kind TEXT, name TEXT, id TEXT NOT NULL, PRIMARY KEY (kind, name)) WITHOUT ROWID;
    CREATE TRIGGER record_insert AFTER INSERT ON record WHEN new.names IS NOT NULL BEGIN
        INSERT INTO name SELECT new.kind, key, new.id FROM json_each(new.names) WHERE value = 0;
        INSERT INTO owner SELECT new.kind, key, new.id FROM json_each(new.names) WHERE value = 1;
    END;
    CREATE TRIGGER record_delete AFTER DELETE ON record WHEN old.names IS NOT NULL BEGIN
        DELETE FROM name WHERE kind = old.kind AND id = old.id AND name IN (SELECT key FROM json_each(old.names));
        DELETE FROM owner WHERE kind = old.kind AND name IN (SELECT key FROM json_each(old.names) WHERE value = 1);
    END;
    CREATE TRIGGER record_update AFTER UPDATE OF names ON record WHEN old.names IS NOT new.names BEGIN
        DELETE FROM name WHERE kind = old.kind AND id = old.id AND name IN (SELECT key FROM json_each(old.names));
        DELETE FROM owner WHERE kind = old.kind AND name IN (SELECT key FROM json_each(old.names) WHERE value = 1);
        INSERT INTO name SELECT new.kind, key, new.id FROM json_each(new.names) WHERE value = 0;
        INSERT INTO owner SELECT new.kind, key, new.id FROM json_each(new.names) WHERE value = 1;
    END;
    """,
)

_SELECT = "SELECT kind, id, version, body, names, expires, files FROM record "
_GET = _SELECT + "WHERE kind = ? AND id = ?"
_FIND = _SELECT + "WHERE kind = ? AND id > ? ORDER BY id LIMIT ?"
_NAMED = """WHERE kind = ?1 AND id IN (
    SELECT id FROM (SELECT id FROM name WHERE kind = ?1 AND name = ?2 AND id > ?3 ORDER BY id LIMIT ?4)
    UNION SELECT id FROM owner WHERE kind = ?1 AND name = ?2 AND id > ?3) ORDER BY id LIMIT ?4"""
_FIND_NAMED = _SELECT + _NAMED
_INSERT = "INSERT INTO record (body, names, expires, files, kind, id, version) VALUES (?, ?, ?, ?, ?, ?, ? + 1)"
_UPDATE = """UPDATE record SET body = ?, names = ?, expires = ?, files = ?, version = version + 1
    WHERE kind = ? AND id = ? AND version = ?"""
_UNNAME = "UPDATE record SET names = NULL WHERE kind = ? AND id = ? AND version = ?"
_VERSION = "SELECT version FROM record WHERE kind = ? AND id = ?"
_PRUNE = """DELETE FROM record WHERE number IN (
    SELECT number FROM record WHERE expires <= ? ORDER BY expires LIMIT ?)"""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class SQLiteStore(Together):
    """A `Store` in one database file. Readers never wait for writers; writers who wait together commit together."""

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self._path = Path(path).expanduser().absolute()
        self._readers: list[sqlite3.Connection] = []
        self._durable: bool | None = None
        with _failures():
            make_folder(self._path.parent)
            os.close(open_private(self._path))  # SQLite gives its side files the mode of the database
            self._turn = Turn(Path(f"{self._path}-lock"))
            self._connection = self._connect()
            with self._turn:
                self._migrate()

    def get(self, kind: str, id: str) -> Record | None:
        with self._reading() as reader:
            row = reader.execute(_GET, (kind, id)).fetchone()
        return _record(row) if row else None

    def find(self, kind: str, name: str | None = None, *, after: str = "", limit: int = 100) -> list[Record]:
        with self._reading() as reader:
            if name is None:
                rows = reader.execute(_FIND, (kind, after, limit)).fetchall()
            else:
                rows = reader.execute(_FIND_NAMED, (kind, name, after, limit)).fetchall()
        return [_record(row) for row in rows]

    def prune(self, now: datetime, *, limit: int = 100) -> int:
        with self._writer, _failures(), self._turn, self._transaction(durable=False):
            return self._connection.execute(_PRUNE, (_microseconds(now), limit)).rowcount

    def close(self) -> None:
        with self._writer:
            for connection in (*self._readers, self._connection):
                connection.close()
            self._turn.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
        connection.executescript("PRAGMA journal_mode = WAL; PRAGMA journal_size_limit = 16777216;")
        return connection

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with _failures():
            try:
                reader = self._readers.pop()
            except IndexError:
                reader = self._connect()
            try:
                yield reader
            finally:
                self._readers.append(reader)

    @contextlib.contextmanager
    def _transaction(self, *, durable: bool) -> Iterator[None]:
        if durable != self._durable:
            # Not execute(): a pragma takes effect when it is compiled, and execute() compiles once.
            self._connection.executescript(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _write(self, batches: list[Batch]) -> list[Outcome]:
        durable = any(batch.durable for batch in batches)
        try:
            with _failures(), self._turn:
                try:
                    with self._transaction(durable=durable):
                        self._apply(batches)
                        return [None] * len(batches)
                except (Conflict, UnicodeEncodeError):
                    with self._transaction(durable=durable):
                        return [self._try(batch) for batch in batches]
        except StoreError as error:
            return [error] * len(batches)

    def _try(self, batch: Batch) -> Outcome:
        self._connection.execute("SAVEPOINT batch")
        try:
            # What gives a unique name up must do so before another record of the batch takes it.
            self._connection.executemany(_UNNAME, [(r.kind, r.id, r.version) for r in batch.records if r.version])
            self._apply([batch])
        except (Conflict, UnicodeEncodeError) as error:
            self._connection.execute("ROLLBACK TO batch")
            return error if isinstance(error, Conflict) else StoreError(f"this cannot be stored: {error}")
        finally:
            self._connection.execute("RELEASE batch")
        return None

    def _apply(self, batches: Sequence[Batch]) -> None:
        writer = self._connection
        for batch in batches:
            for record in batch.unchanged:
                row = writer.execute(_VERSION, (record.kind, record.id)).fetchone()
                if record.version != (row[0] if row else 0):
                    raise Conflict(f"{record.kind} {record.id} is no longer at version {record.version}")
        new = [_row(record) for batch in batches for record in batch.records if record.version == 0]
        changed = [_row(record) for batch in batches for record in batch.records if record.version]
        try:
            if changed and writer.executemany(_UPDATE, changed).rowcount != len(changed):
                raise Conflict("a record has changed since it was read")
            if new:
                writer.executemany(_INSERT, new)
        except sqlite3.IntegrityError as error:
            raise Conflict(f"a record or a unique name exists already: {error}") from None

    def _migrate(self) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise StoreError(
                f"{self._path} has schema {version}, from a newer privet; this one knows {len(MIGRATIONS)}"
            )
        for number, migration in enumerate(MIGRATIONS[version:], start=version + 1):
            self._connection.executescript(f"BEGIN; {migration} PRAGMA user_version = {number}; COMMIT;")


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"the store failed: {error}") from error


def _row(record: Record) -> tuple[Any, ...]:
    names = (
        json.dumps(dict.fromkeys(record.index, 0) | dict.fromkeys(record.unique, 1))
        if (record.unique or record.index)
        else None
    )
    files = (
        json.dumps({name: content.decode("latin-1") for name, content in record.files.items()})
        if record.files
        else None
    )
    expires = None if record.expires is None else _microseconds(record.expires)
    return record.body, names, expires, files, record.kind, record.id, record.version


def _record(row: tuple[Any, ...]) -> Record:
    kind, key, version, body, names, expires, files = row
    unique: tuple[str, ...] = ()
    index: tuple[str, ...] = ()
    if names is not None:
        named = json.loads(names)
        unique = tuple(name for name, one in named.items() if one)
        index = tuple(name for name, one in named.items() if not one)
    return Record(
        kind,
        key,
        body,
        version,
        unique,
        index,
        None if expires is None else _EPOCH + expires * _MICROSECOND,
        NO_FILES
        if files is None
        else MappingProxyType({name: content.encode("latin-1") for name, content in json.loads(files).items()}),
    )


def _microseconds(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND
