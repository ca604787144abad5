"""Records in a PostgreSQL database, for any number of processes on any number of machines.

The laws of this module: what `commit` returned from is in the database, whole, and nothing of what it raised `Conflict`
for is; a connection that is lost is made anew, and what was under way is done again without being done twice; and no
password is in anything this raises.
"""

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from privet.stores.base import Batch, Outcome, Record, StoreError
from privet.stores.columns import DAMAGED, from_files, from_names
from privet.stores.postgres.commit import (
    KEYS,
    NOT_DURABLE,
    UNNAME_INDEX,
    UNNAME_UNIQUE,
    Commit,
    Connection,
    Key,
    Name,
    Wanted,
    columns,
    escaped,
    execute,
    execute_each,
    unescaped,
    wanted_of,
)
from privet.stores.postgres.schema import migrate
from privet.stores.postgres.whole import fill, read_all
from privet.stores.together import Together
from privet.stores.urls import is_networked, without_password

_COLUMNS = "record.kind, record.id, record.version, record.body, record.names, record.expires, record.files"
_GET = f"SELECT {_COLUMNS} FROM {KEYS} JOIN privet.record AS record USING (kind, id)"  # noqa: S608
_ALL = f"SELECT {_COLUMNS} FROM privet.record AS record ORDER BY record.kind, record.id"  # noqa: S608
_FIND = f"""SELECT {_COLUMNS} FROM privet.record WHERE kind = %(kind)b AND id > %(after)b
    ORDER BY id LIMIT %(limit)b"""  # noqa: S608
_FIND_NAMED = f"""SELECT {_COLUMNS} FROM privet.record WHERE kind = %(kind)b AND id IN (
    SELECT id FROM privet.unique_name WHERE kind = %(kind)b AND name = %(name)b AND id > %(after)b
    UNION (
        SELECT id FROM privet.index_name WHERE kind = %(kind)b AND name = %(name)b AND id > %(after)b
        ORDER BY id LIMIT %(limit)b
    )) ORDER BY id LIMIT %(limit)b"""  # noqa: S608
# Several replicas prune at once: each takes what no other has taken. The names follow in the same transaction, and
# nobody is waited for: whoever wants to change a name has the lock of its record, which is ours now.
_PRUNE = """DELETE FROM privet.record AS record USING (
        SELECT kind, id FROM privet.record WHERE expires <= %b ORDER BY expires LIMIT %b FOR UPDATE SKIP LOCKED
    ) AS expired WHERE record.kind = expired.kind AND record.id = expired.id
    RETURNING record.kind, record.id, record.names"""
_FORGET_NAMES = tuple(
    f"DELETE FROM privet.{table} AS old USING {KEYS} WHERE old.kind = key.kind AND old.id = key.id"  # noqa: S608
    for table in ("unique_name", "index_name")
)

# Each statement of ours is a search in an index. A plan that was made while a table was small must not say otherwise
# when it has grown, so plans are made once, and always for large tables. A replica that stops in the middle of a commit
# must not stop the others: its session is ended, and so is a wait without end.
_SESSION = {
    "client_encoding": "UTF8",
    "timezone": "UTC",
    "search_path": "pg_catalog",
    "default_transaction_isolation": "read committed",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "10s",
}
_CONNECTION = {
    "fallback_application_name": "privet",
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}

_DURABLE = """CASE current_setting('synchronous_commit') WHEN 'off'
    THEN set_config('synchronous_commit', 'on', false) END"""
_EXAMPLE = "postgresql://USER@HOST/DATABASE"

# What passes: a server that ends, starts, is a standby (still), or has too many connections for a moment; a deadlock; a
# transaction that could not be put in order with others.
_PASSING = re.compile("08|57P|25006|25P03|40001|40P01|53300")
# What is the fault of one batch among others: what no column takes, and what is too long for an index.
_UNFIT = re.compile("22|54")
_PAUSE, _LONGEST_PAUSE = 0.02, 0.5

T = TypeVar("T")


class PostgresStore(Together):
    """A `Store` in the schema `privet` of a PostgreSQL database. Readers never wait for writers.

    What libpq knows from its environment, such as PGPASSFILE, PGPASSWORD and PGSSLMODE, holds here as well.
    When the connection is lost, or the server is a standby for the moment, verbs try again for `patience` seconds from
    then on before they raise `StoreError`; after that, each tries once. It does not survive a fork: a process that
    forks opens its stores afterwards.
    """

    def __init__(self, url: str, *, patience: float = 5) -> None:
        super().__init__()
        self._name = without_password(url)
        self._conninfo, self._password = _connection_of(url)
        self._patience = patience
        self._trying_until: float | None = None  # while the server cannot be had
        self._idle: list[Connection] = []
        self._closed = False
        try:
            # Tried once: if there is no server at all, whoever starts this wants to know.
            self._idle.append(self._connect())
        except psycopg.Error as error:
            raise self._failure(error) from None
        self._try(lambda connection: migrate(connection, self._name))

    def __repr__(self) -> str:
        return f"<PostgresStore {self._name}>"

    def get(self, kind: str, id: str) -> Record | None:
        return self.get_each([(kind, id)])[0]

    def get_each(self, keys: Sequence[Key]) -> list[Record | None]:
        """Get many records, by kind and id, in one go."""
        try:
            wanted = columns([(escaped(kind), escaped(id)) for kind, id in dict.fromkeys(keys)], 2)
        except UnicodeEncodeError:  # half a surrogate is no text, and nothing of that name was ever stored
            return [self.get(*key) for key in keys] if len(keys) > 1 else [None]
        rows = self._try(lambda connection: execute(connection, _GET, wanted).fetchall())
        found = {(record.kind, record.id): record for record in map(self._from_row, rows)}
        return [found.get(key) for key in keys]

    def find(self, kind: str, name: str | None = None, *, after: str = "", limit: int = 100) -> list[Record]:
        try:
            asked = {"kind": escaped(kind), "name": escaped(name or ""), "after": escaped(after), "limit": limit}
        except UnicodeEncodeError:
            return []
        statement = _FIND if name is None else _FIND_NAMED
        rows = self._try(lambda connection: execute(connection, statement, asked).fetchall())
        return [self._from_row(row) for row in rows]

    def prune(self, now: datetime, *, limit: int = 100) -> int:
        def forget(connection: Connection) -> int:
            execute(connection, "BEGIN")
            execute(connection, NOT_DURABLE)
            rows = execute(connection, _PRUNE, [now, limit]).fetchall()
            named: dict[str, list[Name]] = {UNNAME_UNIQUE: [], UNNAME_INDEX: []}
            damaged: list[Key] = []
            for kind, id, names in rows:
                try:
                    for known, each in zip(named.values(), from_names(names), strict=True):
                        known += [(kind, escaped(name), id) for name in each]
                except DAMAGED:  # it takes a search to find its names
                    damaged.append((kind, id))
            for statement, known in named.items():
                execute_each(connection, statement, known)
            for statement in _FORGET_NAMES:
                execute_each(connection, statement, damaged)
            execute(connection, "COMMIT")
            return len(rows)

        return self._try(forget)

    def records(self) -> Iterator[Record]:
        with self._alone() as connection:
            yield from map(self._from_row, read_all(connection, _ALL))

    def fill(self, records: Iterable[Record]) -> None:
        with self._alone() as connection:
            try:
                fill(connection, records)
            except UnicodeEncodeError as error:  # half a surrogate is no text
                raise StoreError(f"{self._name}: {error}") from error

    @contextlib.contextmanager
    def _alone(self) -> Iterator[Connection]:
        """A connection for something long. What fails is not done again: the caller may have seen half of it."""
        try:
            with contextlib.closing(self._connect()) as connection:
                yield connection
        except psycopg.Error as error:
            raise self._failure(error) from None

    def close(self) -> None:
        with self._writer:
            self._closed = True
            self._drop(True)

    def _write(self, batches: list[Batch]) -> list[Outcome]:
        outcomes: list[Outcome] = [None] * len(batches)
        wanted: dict[int, Wanted] = {}
        for number, batch in enumerate(batches):
            try:
                wanted[number] = wanted_of(batch)
            except UnicodeEncodeError as error:
                outcomes[number] = StoreError(f"{self._name}: {error}")
        for number, outcome in zip(wanted, self._commit(Commit(list(wanted.values()))), strict=True):
            outcomes[number] = outcome
        return outcomes

    def _commit(self, commit: "Commit") -> list[Outcome]:
        try:
            return self._try(commit.attempt, lost=commit.lose)
        except _UnfitError as error:
            if len(commit.batches) == 1:
                return [error]
            return [outcome for one in commit.batches for outcome in self._commit(Commit([one], commit.unsure))]
        except StoreError as error:
            return [error] * len(commit.batches)

    def _try(self, work: Callable[[Connection], T], *, lost: Callable[[], None] = lambda: None) -> T:
        """Do the work, and do it again when it failed for a reason that passes; `lost` is told before.

        Raises `StoreError`.
        """
        pause = 0.0
        while not self._closed:
            try:
                connection = self._idle.pop() if self._idle else self._connect()
                try:
                    result = work(connection)
                except BaseException:
                    connection.close()
                    raise
            except psycopg.Error as error:
                lost()
                if not _passes(error) or not self._may_try_again():
                    raise self._failure(error) from None  # its details may tell what is in a record
            else:
                self._trying_until = None
                self._idle.append(connection)
                self._drop(self._closed)
                return result
            self._drop(True)  # the others go to where this one went
            time.sleep(pause)
            pause = min(max(2 * pause, _PAUSE), _LONGEST_PAUSE)
        raise StoreError(f"{self._name}: it is closed")

    def _drop(self, wanted: bool) -> None:
        while wanted and self._idle:
            self._idle.pop().close()

    def _may_try_again(self) -> bool:
        now = time.monotonic()
        if self._trying_until is None:
            self._trying_until = now + self._patience
        return now < self._trying_until

    def _connect(self) -> Connection:
        connection = psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=0)
        try:
            settings = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in _SESSION.items())
            execute(connection, f"SELECT {settings}, {_DURABLE}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _from_row(self, row: tuple[Any, ...]) -> Record:
        kind, id, version, body, names, expires, files = row
        kind, id = unescaped(kind), unescaped(id)
        try:
            return Record(kind, id, body, version, *from_names(names), expires, from_files(files))
        except DAMAGED as error:
            raise StoreError(f"{self._name} is damaged in {kind} {id}: {error}") from None

    def _failure(self, error: psycopg.Error) -> StoreError:
        lines = (error.diag.message_primary or str(error)).splitlines()
        text = "; ".join(line for each in lines if (line := " ".join(each.split())))
        if self._password:
            text = text.replace(self._password, "…")
        return (_UnfitError if _is_unfit(error) else StoreError)(f"{self._name}: {text}")


class _UnfitError(StoreError):
    """One of the batches is at fault, and not the database."""


def _passes(error: psycopg.Error) -> bool:
    if error.sqlstate is None:  # it comes from the connection, or from there being none
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return _PASSING.match(error.sqlstate) is not None


def _is_unfit(error: psycopg.Error) -> bool:
    return isinstance(error, psycopg.DataError) or _UNFIT.match(error.sqlstate or "") is not None


def _connection_of(url: str) -> tuple[str, str]:
    """What libpq is to be told, with what we choose where nobody chose, and the password that is in it."""
    if not is_networked(url):
        raise ValueError(f"{without_password(url)!r} names no PostgreSQL database; write {_EXAMPLE}")
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error:  # its text may have a piece of the password
        given = {}
    hosts, ports, database = (str(given.get(part) or "") for part in ("host", "port", "dbname"))
    if not given or "@" in hosts + database or not re.fullmatch("[0-9,]*", ports):
        raise ValueError(
            f"{without_password(url)!r} is no address that PostgreSQL knows; write {_EXAMPLE}, with each @, /, ?, # "
            "and % of a password as %40, %2F, %3F, %23 and %25"
        )
    chosen = dict(_CONNECTION)
    if "," in hosts:
        chosen["target_session_attrs"] = "primary"  # the one of them that can be written to
    for option in psycopg.pq.Conninfo.get_defaults():
        if option.envvar and option.val not in (None, b"any"):
            chosen.pop(option.keyword.decode(), None)
    told = {**chosen, **{name: str(value) for name, value in given.items()}}
    return make_conninfo("", **told), told.get("password", "")
