"""Records in an SQLite database, for several processes and many threads, with one fsync for all who wait together.

The law of this module: what `commit` returned from is in the database, whole, and nothing of what it raised for is.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from privet.stores.base import Batch, Conflict, Outcome, Record, StoreError, batched
from privet.stores.columns import DAMAGED, from_files, from_names, to_files, to_names
from privet.stores.disk import Turn, keep_private, make_folder, open_private
from privet.stores.together import Together

# Each entry takes the schema one version further; only ever append.
MIGRATIONS = (
    """
    CREATE TABLE record (
        number  INTEGER PRIMARY KEY,
        kind    TEXT NOT NULL,
        id      TEXT NOT NULL,
        version INTEGER NOT NULL,
        body    BLOB NOT NULL,
        names   TEXT,     -- JSON: [[unique, ...], [index, ...]]
        expires INTEGER,  -- microseconds since 1970
        files   TEXT      -- JSON: {"name": "content"}, each byte the character of its number
    );
    CREATE UNIQUE INDEX record_id ON record (kind, id);
    CREATE INDEX record_expires ON record (expires) WHERE expires IS NOT NULL;
    CREATE TABLE unique_name (kind TEXT, name TEXT, id TEXT, PRIMARY KEY (kind, name)) WITHOUT ROWID;
    CREATE TABLE index_name (kind TEXT, name TEXT, id TEXT, PRIMARY KEY (kind, name, id)) WITHOUT ROWID;
    """,
)

_COLUMNS = "kind, id, version, body, names, expires, files"
_SELECT = f"SELECT {_COLUMNS} FROM record "  # noqa: S608
_FIND = _SELECT + "WHERE kind = ? AND id > ? ORDER BY id LIMIT ?"
_ALL = _SELECT + "ORDER BY kind, id"
_NAMED = """WHERE kind = ?1 AND id IN (
    SELECT id FROM unique_name WHERE kind = ?1 AND name = ?2 AND id > ?3
    UNION SELECT id FROM (SELECT id FROM index_name WHERE kind = ?1 AND name = ?2 AND id > ?3 ORDER BY id LIMIT ?4)
    ) ORDER BY id LIMIT ?4"""
_FIND_NAMED = _SELECT + _NAMED
_INSERT = "INSERT INTO record (body, expires, files, kind, id, version, names) VALUES (?, ?, ?, ?, ?, ? + 1, ?)"
_UPDATE = """UPDATE record SET body = ?1, expires = ?2, files = ?3, version = ?6 + 1, names = ?7
    WHERE kind = ?4 AND id = ?5"""
_NAME = (
    "INSERT INTO unique_name (kind, id, name) VALUES (?, ?, ?)",
    "INSERT INTO index_name (kind, id, name) VALUES (?, ?, ?)",
)
_UNNAME = (
    "DELETE FROM unique_name WHERE kind = ? AND id = ? AND name = ?",
    "DELETE FROM index_name WHERE kind = ? AND id = ? AND name = ?",
)
_NAMES = "CAST(names AS BLOB)"  # SQLite's own module refuses all rows when one has a text that is none
_EXPIRED = f"SELECT kind, id, {_NAMES} FROM record WHERE expires <= ? ORDER BY expires LIMIT ?"  # noqa: S608
_FORGET_NAMES = (
    "DELETE FROM unique_name WHERE kind = ? AND id = ?",
    "DELETE FROM index_name WHERE kind = ? AND id = ?",
)
_DELETE = "DELETE FROM record WHERE kind = ? AND id = ?"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_WRITTEN = (-1, None)  # a version nobody can have read

_FAILED = (sqlite3.Error, OSError, UnicodeDecodeError)  # the last one: of a message or a text that is no UTF-8

T = TypeVar("T")


class SQLiteStore(Together):
    """A `Store` in one database file, for several processes. Readers never wait for writers.

    It does not survive a fork: a process that forks opens its stores afterwards.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self._path = Path(path).expanduser().absolute()
        self._readers: list[sqlite3.Connection] = []
        self._durable: bool | None = None
        self._closed = False
        try:
            make_folder(self._path.parent)
            os.close(open_private(self._path))  # SQLite gives its side files the mode of the database
            for side in ("-wal", "-shm"):  # but not those that are there
                with contextlib.suppress(FileNotFoundError):
                    keep_private(Path(f"{self._path}{side}"))
            with contextlib.ExitStack() as undo:
                # SQLite lets those who wait to write sleep and look again, and some never get in. The kernel queues.
                self._turn = Turn(Path(f"{self._path}-lock"))
                undo.callback(self._turn.close)
                with self._turn:
                    self._connection = self._connect()
                    undo.callback(self._connection.close)
                    self._migrate()
                undo.pop_all()
        except _FAILED as error:
            raise self._failure(error) from error

    def get(self, kind: str, id: str) -> Record | None:
        return self.get_each([(kind, id)])[0]

    def get_each(self, keys: Sequence[tuple[str, str]]) -> list[Record | None]:
        """Get many records, by kind and id, in one go."""
        wanted = list(dict.fromkeys(keys))
        found: dict[tuple[str, str], Record] = {}
        try:
            for statement, parameters in _by_key(_COLUMNS, wanted):
                for row in self._read(statement, parameters, quick=True):
                    found[row[0], row[1]] = self._from_row(row)
        except UnicodeEncodeError:  # half a surrogate is no text, and nothing of that name was ever stored
            return [self.get(*key) for key in keys] if len(keys) > 1 else [None]
        return [found.get(key) for key in keys]

    def find(self, kind: str, name: str | None = None, *, after: str = "", limit: int = 100) -> list[Record]:
        try:
            if name is None:
                return [self._from_row(row) for row in self._read(_FIND, [kind, after, limit])]
            return [self._from_row(row) for row in self._read(_FIND_NAMED, [kind, name, after, limit])]
        except UnicodeEncodeError:
            return []

    def prune(self, now: datetime, *, limit: int = 100) -> int:
        def forget() -> int:
            rows = self._connection.execute(_EXPIRED, ((now - _EPOCH) // _MICROSECOND, limit)).fetchall()
            expired = []
            for kind, id, names in rows:
                try:
                    unique, index = from_names(names)
                    expired.append(Record(kind, id, unique=unique, index=index))
                except DAMAGED:  # it takes a search to find its names
                    for statement in _FORGET_NAMES:
                        self._connection.execute(statement, (kind, id))
            self._name(_UNNAME, expired)
            self._connection.executemany(_DELETE, [row[:2] for row in rows])
            return len(rows)

        try:
            with self._writer, self._turn:
                return self._in_transaction(forget, durable=False)
        except _FAILED as error:
            raise self._failure(error) from error

    def records(self) -> Iterator[Record]:
        try:
            # One statement is one view of the database, however long it is read.
            with contextlib.closing(self._connect()) as connection:
                yield from map(self._from_row, connection.execute(_ALL))
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise self._failure(error) from error

    def fill(self, records: Iterable[Record]) -> None:
        def insert() -> None:
            if self._connection.execute("SELECT 1 FROM record").fetchone():
                raise Conflict("there is something in the store")
            for some in batched(records, 1000):
                self._name(_NAME, some)
                self._execute(_INSERT, [_to_row(record._replace(version=record.version - 1)) for record in some])

        try:
            with self._writer, self._turn:
                self._in_transaction(insert, durable=True)
        except sqlite3.IntegrityError as error:
            raise StoreError(f"two records cannot be there together: {error}") from error
        except (*_FAILED, UnicodeEncodeError) as error:
            raise self._failure(error) from error

    def close(self) -> None:
        with self._writer:
            self._closed = True
            while self._readers:
                self._readers.pop().close()
            self._connection.close()
            self._turn.close()

    def _connect(self) -> sqlite3.Connection:
        if self._closed:
            raise sqlite3.ProgrammingError("it is closed")
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
        try:
            connection.executescript("""
                PRAGMA page_size = 4096;  -- smaller ones leave more unused, of larger ones a commit writes more
                PRAGMA journal_mode = WAL;
                PRAGMA wal_autocheckpoint = 2000;
                PRAGMA journal_size_limit = 8388608;
            """)
        except BaseException:
            connection.close()
            raise
        return connection

    def _read(self, sql: str, parameters: list[Any], *, quick: bool = False) -> list[Any]:
        try:
            if quick and self._writer.acquire(blocking=False):
                # Nobody is writing. Of all connections, only the one that writes still has its pages at hand.
                try:
                    return self._connection.execute(sql, parameters).fetchall()
                finally:
                    self._writer.release()
            try:
                reader = self._readers.pop()
            except IndexError:
                reader = self._connect()
            try:
                return reader.execute(sql, parameters).fetchall()
            finally:
                if self._closed:
                    reader.close()
                else:
                    self._readers.append(reader)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise self._failure(error) from error

    def _write(self, batches: list[Batch]) -> list[Outcome]:
        durable = any(batch.durable for batch in batches)
        try:
            with self._turn:
                try:
                    return self._in_transaction(lambda: self._store(batches), durable=durable)
                except (sqlite3.IntegrityError, UnicodeEncodeError):
                    return self._in_transaction(
                        lambda: [self._store_alone(batch) for batch in batches], durable=durable
                    )
        except _FAILED as error:
            return [self._failure(error)] * len(batches)

    def _in_transaction(self, work: Callable[[], T], *, durable: bool) -> T:
        connection = self._connection
        if durable is not self._durable:
            # Not execute(): a pragma takes effect when it is compiled, and execute() compiles a text once.
            connection.executescript(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = work()
            connection.execute("COMMIT")
            return result
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _store(self, batches: Sequence[Batch]) -> list[Outcome]:
        """Store all batches that nothing stands against, with a few statements for all of them.

        Raises `sqlite3.IntegrityError` if an id or a unique name is taken, which does not say by whose batch.
        """
        current = self._current(batches)
        outcomes: list[Outcome] = []
        new: list[Record] = []
        changed: list[Record] = []
        renamed: list[tuple[Record, Record]] = []
        for batch in batches:
            old = [record for record in batch.records if record.version]
            for record in (*old, *batch.unchanged):
                if current[record.kind, record.id][0] != record.version:
                    outcomes.append(Conflict(f"{record.kind} {record.id} has changed since it was read"))
                    break
            else:
                try:
                    names = [from_names(current[record.kind, record.id][1]) for record in old]
                except DAMAGED as error:
                    outcomes.append(StoreError(f"{self._path} is damaged in the names of a record: {error}"))
                    continue
                outcomes.append(None)
                new += [record for record in batch.records if not record.version]
                changed += old
                for record, (unique, index) in zip(old, names, strict=True):
                    if (unique, index) != (record.unique, record.index):
                        renamed.append((record._replace(unique=unique, index=index), record))
                if current:  # the batches that follow must not rest on what this one changes
                    current.update({(record.kind, record.id): _WRITTEN for record in batch.records})
        # A unique name may pass from one record to another, so old names go before new ones come.
        if renamed:
            self._name(_UNNAME, [before for before, _ in renamed])
        self._name(_NAME, [after for _, after in renamed] + new)
        self._execute(_UPDATE, [_to_row(record) for record in changed])
        self._execute(_INSERT, [_to_row(record) for record in new])
        return outcomes

    def _current(self, batches: Sequence[Batch]) -> dict[tuple[str, str], tuple[int, bytes | None]]:
        """The version and the names of each record that the batches rest on; 0 if it is not there."""
        keys = [record[:2] for batch in batches for record in batch.records if record.version]
        keys += [record[:2] for batch in batches for record in batch.unchanged]
        current: dict[tuple[str, str], tuple[int, bytes | None]] = dict.fromkeys(keys, (0, None))
        for statement, parameters in _by_key(f"kind, id, version, {_NAMES}", list(current)):
            for kind, id, version, names in self._connection.execute(statement, parameters):
                current[kind, id] = (version, names)
        return current

    def _store_alone(self, batch: Batch) -> Outcome:
        """Store one batch, or leave the transaction as it was."""
        self._connection.execute("SAVEPOINT batch")
        try:
            (outcome,) = self._store([batch])
            return outcome
        except (sqlite3.IntegrityError, UnicodeEncodeError) as error:
            self._connection.execute("ROLLBACK TO batch")
            return self._failure(error) if isinstance(error, UnicodeEncodeError) else Conflict(str(error))
        finally:
            self._connection.execute("RELEASE batch")

    def _name(self, statements: tuple[str, str], records: list[Record]) -> None:
        """Add or remove the names of records: unique ones by the first statement, shared ones by the second."""
        unique = [(record.kind, record.id, name) for record in records for name in {*record.unique}]
        index = [(record.kind, record.id, name) for record in records for name in {*record.index}]
        self._execute(statements[0], unique)
        self._execute(statements[1], index)

    def _execute(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Do the same with each row."""
        if len(rows) == 1:  # which costs a third less than to do it with many
            self._connection.execute(statement, rows[0])
        elif rows:
            self._connection.executemany(statement, rows)

    def _migrate(self) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise StoreError(f"{self._path} is from a newer privet: schema {version}, known are 1 to {len(MIGRATIONS)}")
        if not version and self._connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            raise StoreError(f"{self._path} is a database of another program")
        for number, migration in enumerate(MIGRATIONS[version:], start=version + 1):
            self._connection.executescript(f"BEGIN; {migration} PRAGMA user_version = {number}; COMMIT;")

    def _from_row(self, row: tuple[Any, ...]) -> Record:
        try:
            return _from_row(row)
        except DAMAGED as error:
            raise StoreError(f"{self._path} is damaged in {row[0]} {row[1]}: {error}") from error

    def _failure(self, error: Exception) -> StoreError:
        return StoreError(f"{self._path}: {error}")


def _to_row(record: Record) -> tuple[Any, ...]:
    return (
        record.body,
        None if record.expires is None else (record.expires - _EPOCH) // _MICROSECOND,
        to_files(record.files),
        record.kind,
        record.id,
        record.version,
        to_names(record.unique, record.index),
    )


def _from_row(row: tuple[Any, ...]) -> Record:
    kind, key, version, body, names, expires, files = row
    if type(body) is not bytes or type(version) is not int:
        raise TypeError("the body or the version is of another type than was written")
    if expires is not None:
        expires = _EPOCH + timedelta(microseconds=expires)
    return Record(kind, key, body, version, *from_names(names), expires, from_files(files))


def _by_key(columns: str, keys: list[tuple[str, str]]) -> Iterator[tuple[str, list[str]]]:
    """The statements, with their parameters, that read many records by kind and id."""
    for start in range(0, len(keys), 250):
        some = keys[start : start + 250]
        yield _wanted(columns, len(some)), [text for key in some for text in key]


@cache
def _wanted(columns: str, count: int) -> str:
    # A join, in this order, because SQLite uses no index for (kind, id) IN (VALUES ...).
    keys = ", ".join(["(?, ?)"] * count)
    return f"WITH key (a, b) AS (VALUES {keys}) SELECT {columns} FROM key CROSS JOIN record ON kind = a AND id = b"  # noqa: S608
