"""A database: who may read it, how it grows, and what it does with others in it."""

import os
import sqlite3
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from privet.stores import Batch, Conflict, Record, SQLiteStore, StoreError, new_id
from privet.stores.sqlite import MIGRATIONS

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@contextmanager
def somebody_writing(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection


def test_everything_is_for_its_owner_alone(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        with SQLiteStore(tmp_path / "new" / "folder" / "database") as store:
            store.commit(Record("order", "1"))
            paths = [tmp_path / "new", *(tmp_path / "new").rglob("*")]
            assert {path.name for path in paths} > {"database", "database-wal", "database-shm"}
            for path in paths:
                assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    finally:
        os.umask(mask)


def test_durable_commits_are_synchronous_in_full_and_others_are_not(sqlite: SQLiteStore) -> None:
    for durable, level in ((True, 2), (False, 1), (False, 1), (True, 2)):
        sqlite.commit(Record("order", new_id(NOW)), durable=durable)
        assert sqlite._connection.execute("PRAGMA synchronous").fetchone() == (level,)


def test_readers_do_not_wait_for_writers(sqlite: SQLiteStore, tmp_path: Path) -> None:
    sqlite.commit(Record("order", "1", index=("a",)))
    with somebody_writing(tmp_path / "database") as other, SQLiteStore(tmp_path / "database-2"):
        other.execute("DELETE FROM record")
        assert sqlite.get("order", "1")
        assert sqlite.find("order", "a")
        other.execute("ROLLBACK")


def test_readers_in_other_threads_do_not_wait_for_a_commit(sqlite: SQLiteStore) -> None:
    sqlite.commit(Record("order", "1", index=("a",)))
    with sqlite._writer, ThreadPoolExecutor(4) as threads:
        assert all(threads.map(lambda _: sqlite.get("order", "1") and sqlite.find("order", "a"), range(20)))


def test_writers_wait_for_writers(sqlite: SQLiteStore, tmp_path: Path) -> None:
    with somebody_writing(tmp_path / "database") as other, ThreadPoolExecutor(1) as threads:
        commit = threads.submit(sqlite.commit, Record("order", "1"))
        other.execute("INSERT INTO record (kind, id, version, body) VALUES ('order', '2', 1, x'')")
        assert sqlite.get("order", "1") is None
        other.execute("COMMIT")
        commit.result()
    assert [record.id for record in sqlite.find("order")] == ["1", "2"]


def test_a_new_database_may_be_opened_by_many_at_once(tmp_path: Path) -> None:
    def start(number: int) -> None:
        with SQLiteStore(tmp_path / "database") as store:
            store.commit(Record("order", str(number)))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(start, range(8)))
    with SQLiteStore(tmp_path / "database") as store:
        assert len(store.find("order")) == 8


class TestSchema:
    def test_one_from_a_newer_privet_is_refused_in_a_sentence(self, tmp_path: Path) -> None:
        SQLiteStore(tmp_path / "database").close()
        with closing(sqlite3.connect(tmp_path / "database")) as connection:
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
        with pytest.raises(StoreError, match="database is from a newer privet: schema 2, known are 1 to 1"):
            SQLiteStore(tmp_path / "database")

    def test_another_programs_database_is_refused(self, tmp_path: Path) -> None:
        with closing(sqlite3.connect(tmp_path / "database")) as connection:
            connection.execute("CREATE TABLE theirs (id)")
        with pytest.raises(StoreError, match="another program"):
            SQLiteStore(tmp_path / "database")

    def test_what_is_no_database_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "database").write_bytes(b"no database " * 1000)
        with pytest.raises(StoreError, match="database: file is not a database"):
            SQLiteStore(tmp_path / "database")

    def test_a_migration_runs_once_and_whole(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with SQLiteStore(tmp_path / "database") as store:
            store.commit(Record("order", "1"))
        later = (*MIGRATIONS, "ALTER TABLE record ADD COLUMN more TEXT; UPDATE record SET more = 'yes';")
        monkeypatch.setattr("privet.stores.sqlite.MIGRATIONS", (*later[:-1], later[-1] + "nonsense;"))
        with pytest.raises(StoreError, match="syntax error"):
            SQLiteStore(tmp_path / "database")
        monkeypatch.setattr("privet.stores.sqlite.MIGRATIONS", later)
        for _ in range(2):
            with SQLiteStore(tmp_path / "database") as store:
                assert store.get("order", "1")
        with closing(sqlite3.connect(tmp_path / "database")) as connection:
            assert connection.execute("SELECT more FROM record").fetchall() == [("yes",)]
            assert connection.execute("PRAGMA user_version").fetchone() == (2,)


DAMAGE = [
    ("names", b"{"),
    ("names", b""),
    ("names", b"5"),
    ("names", b'[["a"]]'),
    ("names", b'[[1], ["b"]]'),
    ("names", b'["a", "b"]'),
    ("names", b'[["\xff"], []]'),
    ("names", b'[["\\ud800"], []]'),
    ("files", b"nothing"),
    ("files", b"[]"),
    ("files", b'{"a": 1}'),
    ("files", '{"a": "\u20ac"}'.encode()),
    ("files", b"\xff"),
    ("body", b"a text"),
    ("version", b"one"),
    ("expires", b"soon"),
    ("expires", b"9000000000000000000"),
]


class TestDamage:
    """What a disk, or a person with another program, has written into a database."""

    def damage(self, path: Path, column: str, content: bytes) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(f"UPDATE record SET {column} = CAST(? AS TEXT) WHERE id = '1'", (content,))

    @pytest.mark.parametrize(("column", "content"), DAMAGE)
    def test_it_is_told_wherever_it_is_read(
        self, sqlite: SQLiteStore, tmp_path: Path, column: str, content: bytes
    ) -> None:
        record = Record("order", "1", unique=("a",), index=("b",), expires=NOW)
        sqlite.commit(record, Record("order", "2"))
        self.damage(tmp_path / "database", column, content)
        for read in (
            lambda: sqlite.get("order", "1"),
            lambda: sqlite.get_each([("order", "2"), ("order", "1")]),
            lambda: sqlite.find("order"),
            lambda: sqlite.find("order", "b"),
        ):
            with pytest.raises(StoreError, match=r"database( is damaged in order 1)?: "):
                read()
        assert sqlite.get("order", "2") == Record("order", "2", version=1)

    @pytest.mark.parametrize("content", [content for column, content in DAMAGE if column == "names"])
    def test_names_that_are_none_keep_nobody_from_pruning(
        self, sqlite: SQLiteStore, tmp_path: Path, content: bytes
    ) -> None:
        sqlite.commit(*(Record("order", id, unique=(id,), index=("b",), expires=NOW) for id in "12"))
        self.damage(tmp_path / "database", "names", content)
        assert sqlite.prune(NOW) == 2
        assert sqlite.find("order") == []
        for table in ("unique_name", "index_name"):
            assert sqlite._connection.execute(f"SELECT * FROM {table}").fetchall() == []

    @pytest.mark.parametrize("content", [content for column, content in DAMAGE if column == "names"])
    def test_who_commits_beside_it_is_left_alone(self, sqlite: SQLiteStore, tmp_path: Path, content: bytes) -> None:
        sqlite.commit(*(Record("order", id, unique=(id,)) for id in "12"))
        self.damage(tmp_path / "database", "names", content)
        damaged, good = sqlite.commit_each([Batch([Record("order", id, version=1, unique=(id,))]) for id in "12"])
        assert good is None
        assert isinstance(damaged, StoreError)
        assert "database is damaged" in str(damaged)

    def test_a_schema_that_is_no_text_is_told_when_it_is_opened(self, tmp_path: Path) -> None:
        SQLiteStore(tmp_path / "database").close()
        with closing(sqlite3.connect(tmp_path / "database", isolation_level=None)) as connection:
            connection.execute("PRAGMA writable_schema = ON")
            connection.execute(
                "UPDATE sqlite_master SET sql = CAST(? AS TEXT) WHERE name = 'record'", (b"CREATE \xff",)
            )
        with pytest.raises(StoreError, match="database: "):
            SQLiteStore(tmp_path / "database")


class TestGrowth:
    def test_room_that_was_freed_is_used_again(self, sqlite: SQLiteStore, tmp_path: Path) -> None:
        sizes = []
        for day in range(12):
            now = NOW + timedelta(days=day)
            sqlite.commit(
                *(
                    Record("order", new_id(now), b"x" * 300, index=("account:1",), unique=(new_id(now),), expires=now)
                    for _ in range(500)
                )
            )
            assert sqlite.prune(now, limit=1000) == 500
            sqlite._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            sizes.append((tmp_path / "database").stat().st_size)
        assert max(sizes) < 1.2 * sizes[1]

    def test_the_log_is_limited(self, sqlite: SQLiteStore, tmp_path: Path) -> None:
        for _ in range(400):
            sqlite.commit(*(Record("order", new_id(NOW), b"x" * 5000) for _ in range(20)), durable=False)
        assert (tmp_path / "database").stat().st_size > 25_000_000
        assert (tmp_path / "database-wal").stat().st_size < 20_000_000

    def test_no_statement_looks_at_more_than_it_needs(self, sqlite: SQLiteStore, tmp_path: Path) -> None:
        """What keeps a store as quick with a million records as with none: each step is a search in an index."""
        statements: set[str] = set()
        record = Record("order", "1", unique=("a",), index=("b",), expires=NOW)
        sqlite._connection.set_trace_callback(statements.add)
        sqlite.commit(record, Record("account", "1"))
        sqlite.commit(
            record._replace(version=1, unique=("c",), index=("d",)), unchanged=[Record("account", "1", version=1)]
        )
        with pytest.raises(Conflict):
            sqlite.commit(Record("order", "2", unique=("c",)))
        sqlite.get("order", "1")
        sqlite.get_each([("order", "1"), ("order", "2"), ("account", "1")])
        sqlite.find("order", after="0")
        sqlite.find("order", "c")
        sqlite.prune(NOW)
        sqlite._connection.set_trace_callback(None)
        steps = set()
        for statement in statements:
            if statement.split()[0] in ("SELECT", "WITH", "INSERT", "UPDATE", "DELETE"):
                for row in sqlite._connection.execute("EXPLAIN QUERY PLAN " + statement):
                    steps.add(row[3])
        assert len(statements) > 12
        assert not {step for step in steps if step.startswith(("SCAN record", "SCAN unique_name", "SCAN index_name"))}
        assert not any("TEMP B-TREE FOR ORDER BY" in step for step in steps)


class TestClosed:
    def test_a_closed_store_says_so(self, tmp_path: Path) -> None:
        store = SQLiteStore(tmp_path / "database")
        store.commit(Record("order", "1"))
        store.close()
        store.close()
        with pytest.raises(StoreError, match="closed"):
            store.commit(Record("order", "2"))
        with pytest.raises(StoreError, match="closed"):
            store.get("order", "1")

    def test_it_leaves_one_file_with_everything_in_it(self, tmp_path: Path) -> None:
        with SQLiteStore(tmp_path / "database") as store:
            store.commit(Record("order", "1"))
        assert {path.name for path in tmp_path.iterdir()} == {"database", "database-lock"}
