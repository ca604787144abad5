"""Records in a PostgreSQL database, for any number of processes on any number of machines.

The laws of this module: what `commit` returned from is in the database, whole, and nothing of what it raised `Conflict`
for is; a connection that is lost is made anew, and what was under way is done again without being done twice; and no
password is in anything this raises.
"""

import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from privet.stores.base import Batch, Conflict, Outcome, Record, StoreError
from privet.stores.columns import DAMAGED, from_files, from_names, to_files, to_names
from privet.stores.together import Together
from privet.stores.urls import is_networked, without_password

# Each entry takes the schema one version further; only ever append, and only what the privets before it can live with:
# they go on while a newer one opens the store.
MIGRATIONS = (
    (
        """
        CREATE TABLE privet.record (
            kind    text COLLATE "C" NOT NULL,
            id      text COLLATE "C" NOT NULL,
            version bigint NOT NULL,
            mark    bigint NOT NULL,  -- of the commit that wrote it
            body    bytea NOT NULL,
            names   text,             -- JSON: [[unique, ...], [index, ...]]
            expires timestamptz,
            files   text,             -- JSON: {"name": "content"}, each byte the character of its number
            PRIMARY KEY (kind, id)
        )
        """,
        "CREATE INDEX record_expires ON privet.record (expires) WHERE expires IS NOT NULL",
        """
        CREATE TABLE privet.unique_name (
            kind text COLLATE "C", name text COLLATE "C", id text COLLATE "C" NOT NULL, PRIMARY KEY (kind, name)
        )
        """,
        """
        CREATE TABLE privet.index_name (
            kind text COLLATE "C", name text COLLATE "C", id text COLLATE "C", PRIMARY KEY (kind, name, id)
        )
        """,
        # For people, and read by nothing of ours: certificates without keys, as ca/certificates.py writes them.
        """
        CREATE VIEW privet.certificate AS
        SELECT
            record.id, document.serial,
            ARRAY(SELECT pair ->> 1 FROM jsonb_array_elements(document.identifiers) AS pair) AS names,
            document.status, document.not_before, document.not_after, document.revoked, document.reason,
            document.requester AS account, document.request AS "order", document.profile, document.authority,
            record.expires AS kept_until, decode(document.der, 'base64') AS der
        FROM privet.record AS record CROSS JOIN LATERAL jsonb_to_record(convert_from(record.body, 'UTF8')::jsonb)
            AS document (
                serial text, identifiers jsonb, status text, not_before timestamptz, not_after timestamptz,
                revoked timestamptz, reason integer, requester text, request text, profile text, authority text,
                der text
            )
        WHERE record.kind = 'certificate'
        """,
    ),
    # A client's certificate may have a common name that is none of its identifiers; it is one of the names.
    (
        """
        CREATE OR REPLACE VIEW privet.certificate AS
        SELECT
            record.id, document.serial,
            array_remove(ARRAY[document.common_name], NULL)
                || ARRAY(SELECT pair ->> 1 FROM jsonb_array_elements(document.identifiers) AS pair) AS names,
            document.status, document.not_before, document.not_after, document.revoked, document.reason,
            document.requester AS account, document.request AS "order", document.profile, document.authority,
            record.expires AS kept_until, decode(document.der, 'base64') AS der
        FROM privet.record AS record CROSS JOIN LATERAL jsonb_to_record(convert_from(record.body, 'UTF8')::jsonb)
            AS document (
                serial text, identifiers jsonb, common_name text, status text, not_before timestamptz,
                not_after timestamptz, revoked timestamptz, reason integer, requester text, request text, profile text,
                authority text, der text
            )
        WHERE record.kind = 'certificate'
        """,
    ),
)

_COLUMNS = "record.kind, record.id, record.version, record.body, record.names, record.expires, record.files"
_KEYS = "unnest(%s::text[], %s::text[]) AS key (kind, id)"
_GET = f"SELECT {_COLUMNS} FROM {_KEYS} JOIN privet.record AS record USING (kind, id)"  # noqa: S608
_FIND = f"""SELECT {_COLUMNS} FROM privet.record WHERE kind = %(kind)b AND id > %(after)b
    ORDER BY id LIMIT %(limit)b"""  # noqa: S608
_FIND_NAMED = f"""SELECT {_COLUMNS} FROM privet.record WHERE kind = %(kind)b AND id IN (
    SELECT id FROM privet.unique_name WHERE kind = %(kind)b AND name = %(name)b AND id > %(after)b
    UNION (
        SELECT id FROM privet.index_name WHERE kind = %(kind)b AND name = %(name)b AND id > %(after)b
        ORDER BY id LIMIT %(limit)b
    )) ORDER BY id LIMIT %(limit)b"""  # noqa: S608
_LOCK = f"""SELECT record.kind, record.id, record.version, record.names, record.mark
    FROM {_KEYS} JOIN privet.record AS record USING (kind, id) ORDER BY record.kind, record.id FOR """  # noqa: S608
_INSERT = """INSERT INTO privet.record (kind, id, version, mark, body, names, expires, files)
    SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bytea[], %s::text[], %s::timestamptz[],
        %s::text[])
    ON CONFLICT DO NOTHING RETURNING kind, id"""
_UPDATE = """UPDATE privet.record AS record SET version = new.version, mark = new.mark, body = new.body,
        names = new.names, expires = new.expires, files = new.files
    FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bytea[], %s::text[], %s::timestamptz[],
        %s::text[]) AS new (kind, id, version, mark, body, names, expires, files)
    WHERE record.kind = new.kind AND record.id = new.id"""
_CLEAR = f"""DELETE FROM privet.record AS record USING {_KEYS}
    WHERE record.kind = key.kind AND record.id = key.id AND record.version = 0"""  # noqa: S608
_NAMES = "unnest(%s::text[], %s::text[], %s::text[]) AS each (kind, name, id)"
_NAME_UNIQUE = f"""INSERT INTO privet.unique_name (kind, name, id) SELECT * FROM {_NAMES}
    ON CONFLICT DO NOTHING RETURNING kind, name"""  # noqa: S608
_NAME_INDEX = f"INSERT INTO privet.index_name (kind, name, id) SELECT * FROM {_NAMES} ON CONFLICT DO NOTHING"  # noqa: S608
_UNNAME = """DELETE FROM privet.{0} AS old USING unnest(%s::text[], %s::text[], %s::text[]) AS each (kind, name, id)
    WHERE old.kind = each.kind AND old.name = each.name AND old.id = each.id"""
_UNNAME_UNIQUE, _UNNAME_INDEX = _UNNAME.format("unique_name"), _UNNAME.format("index_name")
# Several replicas prune at once: each takes what no other has taken. The names follow in the same transaction, and
# nobody is waited for: whoever wants to change a name has the lock of its record, which is ours now.
_PRUNE = """DELETE FROM privet.record AS record USING (
        SELECT kind, id FROM privet.record WHERE expires <= %b ORDER BY expires LIMIT %b FOR UPDATE SKIP LOCKED
    ) AS expired WHERE record.kind = expired.kind AND record.id = expired.id
    RETURNING record.kind, record.id, record.names"""
_FORGET_NAMES = tuple(
    f"DELETE FROM privet.{table} AS old USING {_KEYS} WHERE old.kind = key.kind AND old.id = key.id"  # noqa: S608
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
_MIGRATING = 0x707269766574  # the number of our advisory lock

_DURABLE = """CASE current_setting('synchronous_commit') WHEN 'off'
    THEN set_config('synchronous_commit', 'on', false) END"""
_NOT_DURABLE = "SET LOCAL synchronous_commit = off"
_EXAMPLE = "postgresql://USER@HOST/DATABASE"

# What passes: a server that ends, starts, is a standby (still), or has too many connections for a moment; a deadlock; a
# transaction that could not be put in order with others.
_PASSING = re.compile("08|57P|25006|25P03|40001|40P01|53300")
# What is the fault of one batch among others: what no column takes, and what is too long for an index.
_UNFIT = re.compile("22|54")
_PAUSE, _LONGEST_PAUSE = 0.02, 0.5

# A text of PostgreSQL has no NUL. These keep the order of texts: \1 is the smallest character that remains.
_ESCAPES = {0: "\1\1", 1: "\1\2"}

T = TypeVar("T")
Key = tuple[str, str]
Name = tuple[str, str, str]
Connection = psycopg.Connection[tuple[Any, ...]]


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
            connection = self._connect()
            try:
                self._migrate(connection)
            except BaseException:
                connection.close()
                raise
        except psycopg.Error as error:
            raise self._failure(error) from None
        self._idle.append(connection)

    def __repr__(self) -> str:
        return f"<PostgresStore {self._name}>"

    def get(self, kind: str, id: str) -> Record | None:
        return self.get_each([(kind, id)])[0]

    def get_each(self, keys: Sequence[Key]) -> list[Record | None]:
        """Get many records, by kind and id, in one go."""
        try:
            wanted = _columns([(_escaped(kind), _escaped(id)) for kind, id in dict.fromkeys(keys)], 2)
        except UnicodeEncodeError:  # half a surrogate is no text, and nothing of that name was ever stored
            return [self.get(*key) for key in keys] if len(keys) > 1 else [None]
        rows = self._try(lambda connection: _execute(connection, _GET, wanted).fetchall())
        found = {(record.kind, record.id): record for record in map(self._from_row, rows)}
        return [found.get(key) for key in keys]

    def find(self, kind: str, name: str | None = None, *, after: str = "", limit: int = 100) -> list[Record]:
        try:
            asked = {"kind": _escaped(kind), "name": _escaped(name or ""), "after": _escaped(after), "limit": limit}
        except UnicodeEncodeError:
            return []
        statement = _FIND if name is None else _FIND_NAMED
        rows = self._try(lambda connection: _execute(connection, statement, asked).fetchall())
        return [self._from_row(row) for row in rows]

    def prune(self, now: datetime, *, limit: int = 100) -> int:
        def forget(connection: Connection) -> int:
            _execute(connection, "BEGIN")
            _execute(connection, _NOT_DURABLE)
            rows = _execute(connection, _PRUNE, [now, limit]).fetchall()
            named: dict[str, list[Name]] = {_UNNAME_UNIQUE: [], _UNNAME_INDEX: []}
            damaged: list[Key] = []
            for kind, id, names in rows:
                try:
                    for known, each in zip(named.values(), from_names(names), strict=True):
                        known += [(kind, _escaped(name), id) for name in each]
                except DAMAGED:  # it takes a search to find its names
                    damaged.append((kind, id))
            for statement, known in named.items():
                _each(connection, statement, known)
            for statement in _FORGET_NAMES:
                _each(connection, statement, damaged)
            _execute(connection, "COMMIT")
            return len(rows)

        return self._try(forget)

    def close(self) -> None:
        with self._writer:
            self._closed = True
            self._drop(True)

    def _write(self, batches: list[Batch]) -> list[Outcome]:
        outcomes: list[Outcome] = [None] * len(batches)
        wanted: dict[int, _Wanted] = {}
        for number, batch in enumerate(batches):
            try:
                wanted[number] = _wanted(batch)
            except UnicodeEncodeError as error:
                outcomes[number] = StoreError(f"{self._name}: {error}")
        for number, outcome in zip(wanted, self._commit(_Commit(list(wanted.values()))), strict=True):
            outcomes[number] = outcome
        return outcomes

    def _commit(self, commit: "_Commit") -> list[Outcome]:
        try:
            return self._try(commit.attempt, lost=commit.lose)
        except _UnfitError as error:
            if len(commit.batches) == 1:
                return [error]
            return [outcome for one in commit.batches for outcome in self._commit(_Commit([one], commit.unsure))]
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
            _execute(connection, f"SELECT {settings}, {_DURABLE}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _migrate(self, connection: Connection) -> None:
        ((encoding,),) = _execute(connection, "SHOW server_encoding").fetchall()
        if encoding != "UTF8":
            raise StoreError(f"{self._name} keeps texts in {encoding}: make it anew with ENCODING 'UTF8'")
        if self._schema(connection) == len(MIGRATIONS):
            return
        with connection.transaction():
            _execute(connection, "SELECT pg_advisory_xact_lock(%b::bigint)", [_MIGRATING])
            version = self._schema(connection)
            if not _execute(connection, "SELECT to_regnamespace('privet')").fetchall()[0][0]:
                _execute(connection, "CREATE SCHEMA privet")
            if not version:
                _execute(connection, "CREATE TABLE privet.schema_version (version integer NOT NULL)")
                _execute(connection, "INSERT INTO privet.schema_version VALUES (0)")
            for statement in (statement for migration in MIGRATIONS[version:] for statement in migration):
                _execute(connection, statement)
            _execute(connection, "UPDATE privet.schema_version SET version = %b", [len(MIGRATIONS)])

    def _schema(self, connection: Connection) -> int:
        """The version of the schema that is there, 0 if there is none. Raises `StoreError` if it is not for us."""
        there = "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace('privet')"
        tables = [name for (name,) in _execute(connection, there)]
        if not tables:
            return 0
        if "schema_version" not in tables:
            raise StoreError(f"{self._name} has a schema named privet of another program")
        ((version,),) = _execute(connection, "SELECT version FROM privet.schema_version").fetchall()
        if version > len(MIGRATIONS):
            raise StoreError(f"{self._name} is from a newer privet: schema {version}, known are 1 to {len(MIGRATIONS)}")
        return int(version)

    def _from_row(self, row: tuple[Any, ...]) -> Record:
        kind, id, version, body, names, expires, files = row
        kind, id = _unescaped(kind), _unescaped(id)
        try:
            return Record(kind, id, body, version, *from_names(names), expires, from_files(files))
        except DAMAGED as error:
            raise StoreError(f"{self._name} is damaged in {kind} {id}: {error}") from None

    def _failure(self, error: psycopg.Error) -> StoreError:
        text = " ".join((error.diag.message_primary or str(error)).split())
        if self._password:
            text = text.replace(self._password, "…")
        return (_UnfitError if _is_unfit(error) else StoreError)(f"{self._name}: {text}")


class _UnfitError(StoreError):
    """One of the batches is at fault, and not the database."""


class _Wanted(NamedTuple):
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


class _Commit:
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

    def __init__(self, batches: list[_Wanted], unsure: bool = False) -> None:
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
                _execute(connection, "BEGIN")
                if not any(one.durable for one in self.batches):
                    _execute(connection, _NOT_DURABLE)
                changes = _Changes(self.batches, self._lock(connection), beaten, self.unsure)
                now_beaten = changes.write(connection)
                if not now_beaten:
                    self._committing = True
                    _execute(connection, "COMMIT")
            if not now_beaten:
                return changes.outcomes
            _execute(connection, "ROLLBACK")  # not in the pipeline, where psycopg would lose what it has prepared
            beaten |= now_beaten

    def _lock(self, connection: Connection) -> dict[Key, _Row]:
        """Lock what is there of the records that the batches rest on."""
        modes = {key: "SHARE" for one in self.batches for key, version in one.unchanged if version}
        for one in self.batches:
            modes.update({key: "UPDATE" for key, record in one.records if record.version or self.unsure})
        found = []
        for mode, keys in groupby(sorted(modes), key=modes.__getitem__):
            found.append(_execute(connection, _LOCK + f"{mode} OF record", _columns(keys, 2)))
        return {(kind, id): _Row(*rest) for cursor in found for kind, id, *rest in cursor}


class _Changes:
    """What of the batches is to be written, after a look at what is there. No two of them rest on each other."""

    def __init__(self, batches: list[_Wanted], current: dict[Key, _Row], beaten: set[int], unsure: bool) -> None:
        self.outcomes: list[Outcome] = []
        self._current = current
        self._unsure = unsure
        self._new: dict[Key, tuple[int, Record | None]] = {}  # with the number of the batch; None is a place-holder
        self._changed: dict[Key, tuple[int, Record]] = {}
        self._named: dict[Key, int] = {}  # all unique names that come or go, with the number of the batch
        self._unique: list[tuple[str, str, bool, str]] = []  # kind, name, whether it comes, id
        self._index: dict[str, list[Name]] = {_UNNAME_INDEX: [], _NAME_INDEX: []}
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

    def _add(self, number: int, one: _Wanted) -> Outcome:
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
                before, after = [{_escaped(name) for name in names} for names in (old[0], record.unique)]
                unique += [(kind, name, False, id) for name in before - after]
                unique += [(kind, name, True, id) for name in after - before]
                before, after = [{_escaped(name) for name in names} for names in (old[1], record.index)]
                index[_UNNAME_INDEX] += [(kind, name, id) for name in before - after]
                index[_NAME_INDEX] += [(kind, name, id) for name in after - before]
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
            told.append(_execute(connection, _INSERT, _columns(rows, 8)))
        _each(connection, _UPDATE, [self._row(key, *what) for key, what in self._changed.items()])
        taken: dict[Key, int] = {}
        told_names = []
        for comes, each in groupby(sorted(self._unique), itemgetter(2)):
            names = [(kind, name, id) for kind, name, _, id in each]
            if comes:
                taken.update({(kind, name): self._named[kind, name] for kind, name, _ in names})
                told_names.append(_execute(connection, _NAME_UNIQUE, _columns(names, 3)))
            else:
                _execute(connection, _UNNAME_UNIQUE, _columns(names, 3))
        for statement, names in self._index.items():
            _each(connection, statement, names)
        _each(connection, _CLEAR, self._missing)
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


def _wanted(batch: Batch) -> _Wanted:
    """Raises `UnicodeEncodeError` for half a surrogate, which is no text."""
    for record in batch.records:
        for name in (*record.unique, *record.index):
            name.encode()
    return _Wanted(
        secrets.randbits(63),
        batch.durable,
        [((_escaped(record.kind), _escaped(record.id)), record) for record in batch.records],
        [((_escaped(record.kind), _escaped(record.id)), record.version) for record in batch.unchanged],
    )


def _changed(key: Key) -> Conflict:
    return Conflict(f"{key[0]} {key[1]} has changed since it was read")


def _execute(
    connection: Connection, statement: str, parameters: Sequence[object] | Mapping[str, object] | None = None
) -> "psycopg.Cursor[tuple[Any, ...]]":
    return connection.execute(statement.encode(), parameters, binary=True)


def _each(connection: Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Do a statement with rows, if there are any."""
    if rows:
        _execute(connection, statement, _columns(rows, 0))


def _columns(rows: Iterable[tuple[object, ...]], count: int) -> list[str]:
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


def _escaped(text: str) -> str:
    """Raises `UnicodeEncodeError` for half a surrogate, which is no text."""
    if not text.isascii():
        text.encode()
    return text.translate(_ESCAPES) if "\0" in text or "\1" in text else text


def _unescaped(text: str) -> str:
    return re.sub("\1(.)", lambda pair: "\0" if pair[1] == "\1" else "\1", text) if "\1" in text else text


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
