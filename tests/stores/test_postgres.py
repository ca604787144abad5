"""A PostgreSQL database: its schema, what others see in it, and what it does with replicas that write at once."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
from tests.interop.postgresql import PostgreSQL

from privet.stores import Batch, Conflict, Record, StoreError, new_id, open_store
from privet.stores.postgres import PostgresStore
from privet.stores.postgres.schema import MIGRATIONS

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@contextmanager
def somebody(database: str) -> Iterator["psycopg.Connection[tuple[Any, ...]]"]:
    """Another program in the same database."""
    with closing(psycopg.connect(database, autocommit=True)) as connection:
        yield connection


class TestDurable:
    @pytest.fixture
    def watched(self, database: str) -> str:
        """A database that writes down how each record was committed."""
        PostgresStore(database).close()
        with somebody(database) as other:
            other.execute("CREATE TABLE public.seen (id text, how text)")
            other.execute(
                "CREATE FUNCTION public.see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen "
                "VALUES (new.id, current_setting('synchronous_commit')); RETURN NULL; END $$"
            )
            other.execute("CREATE TRIGGER see AFTER INSERT ON privet.record FOR EACH ROW EXECUTE FUNCTION public.see()")
        return database

    def seen(self, database: str) -> dict[str, str]:
        with somebody(database) as other:
            return dict(other.execute("SELECT id, how FROM public.seen").fetchall())

    def test_durable_commits_wait_for_the_disk_and_others_do_not(self, watched: str) -> None:
        with PostgresStore(watched) as store:
            for id, durable in (("a", True), ("b", False), ("c", True), ("d", False)):
                store.commit(Record("order", id), durable=durable)
            store.commit_each([Batch([Record("order", "e")], durable=False), Batch([Record("order", "f")])])
        assert self.seen(watched) == {"a": "on", "b": "off", "c": "on", "d": "off", "e": "on", "f": "on"}

    @pytest.mark.parametrize(("everybody", "ours"), [("off", "on"), ("remote_apply", "remote_apply")])
    def test_what_the_database_says_for_everybody_holds_unless_it_is_not_durable(
        self, watched: str, everybody: str, ours: str
    ) -> None:
        with somebody(watched) as other:
            other.execute(f"ALTER DATABASE {watched.rpartition('/')[2]} SET synchronous_commit = {everybody}")
        with PostgresStore(watched) as store:
            store.commit(Record("order", "a"))
        assert self.seen(watched) == {"a": ours}


class TestSchema:
    def test_a_new_database_may_be_opened_by_many_at_once(self, database: str) -> None:
        def start(number: int) -> None:
            with PostgresStore(database) as store:
                store.commit(Record("order", str(number)))

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(start, range(8)))
        with PostgresStore(database) as store:
            assert len(store.find("order")) == 8

    def test_one_from_a_newer_privet_that_we_can_live_with_is_used_as_it_is(self, database: str) -> None:
        """An old replica that is started again in the middle of an upgrade."""
        newer = len(MIGRATIONS) + 1
        PostgresStore(database).close()
        with somebody(database) as other:
            other.execute(f"UPDATE privet.schema_version SET version = {newer}, oldest = {newer - 1}")
            with PostgresStore(database) as store:
                store.commit(Record("order", "1"))
            assert other.execute("TABLE privet.schema_version").fetchall() == [(newer, newer - 1)]

    def test_one_from_which_something_was_taken_that_we_need_is_refused_in_a_sentence(self, database: str) -> None:
        known = len(MIGRATIONS)
        PostgresStore(database).close()
        with somebody(database) as other:
            other.execute("UPDATE privet.schema_version SET version = version + 2, oldest = version + 1")
        with pytest.raises(
            StoreError, match=f"schema {known + 2} is for those that know {known + 1} at least, and this"
        ):
            PostgresStore(database)

    @pytest.mark.parametrize("before", range(1, len(MIGRATIONS)))
    def test_each_schema_there_ever_was_becomes_the_newest(
        self, database: str, monkeypatch: pytest.MonkeyPatch, before: int
    ) -> None:
        with monkeypatch.context() as then:
            then.setattr("privet.stores.postgres.schema.MIGRATIONS", MIGRATIONS[:before])
            old = PostgresStore(database)
        with somebody(database) as other:
            if before < 3:
                other.execute("ALTER TABLE privet.schema_version DROP COLUMN oldest")  # which they did not have
            with old, PostgresStore(database) as new:
                old.commit(Record("certificate", "1", b"{}", unique=("serial:1",)))
                new.commit(Record("certificate", "1", b"{}", version=1, unique=("serial:2",)))
                assert old.find("certificate", "serial:2") == new.find("certificate", "serial:2")
            assert other.execute("TABLE privet.schema_version").fetchall() == [(len(MIGRATIONS), 1)]
            assert other.execute("TABLE privet.certificate_name").fetchall() == [("serial:2", "1")]

    def test_another_programs_schema_is_refused(self, database: str) -> None:
        with somebody(database) as other:
            other.execute("CREATE SCHEMA privet CREATE TABLE record (theirs text)")
        with pytest.raises(StoreError, match="has a schema named privet of another program"):
            PostgresStore(database)

    def test_a_database_that_cannot_keep_every_text_is_refused(self, postgresql: PostgreSQL) -> None:
        postgresql.do("CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
        with pytest.raises(StoreError, match="keeps texts in LATIN1: make it anew with ENCODING 'UTF8'"):
            PostgresStore(postgresql.url("latin"))

    def test_replicas_go_on_while_a_newer_one_migrates(self, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with PostgresStore(database) as old:
            old.commit(Record("order", "1", unique=("a",)))
            more = ("ALTER TABLE privet.record ADD COLUMN more text", "UPDATE privet.record SET more = 'yes'")
            monkeypatch.setattr("privet.stores.postgres.schema.MIGRATIONS", (*MIGRATIONS, (*more, "nonsense")))
            with pytest.raises(StoreError, match="syntax error"):
                PostgresStore(database)
            monkeypatch.setattr("privet.stores.postgres.schema.MIGRATIONS", (*MIGRATIONS, more))
            for number in range(2):
                with PostgresStore(database) as new:
                    old.commit(Record("order", "1", version=1 + 2 * number, unique=("a",)))
                    new.commit(Record("order", "1", version=2 + 2 * number, unique=("a",)))
                    assert old.find("order", "a") == new.find("order", "a")
        with somebody(database) as other:
            assert other.execute("SELECT more FROM privet.record").fetchall() == [("yes",)]
            assert other.execute("SELECT version FROM privet.schema_version").fetchall() == [(len(MIGRATIONS) + 1,)]

    def test_a_migration_that_waits_for_somebody_lets_those_who_serve_pass(
        self, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with PostgresStore(database) as old, somebody(database) as auditor, ThreadPoolExecutor(1) as threads:
            auditor.execute("BEGIN")
            auditor.execute("TABLE privet.certificate")  # and they look at it for a while
            adding = ("ALTER TABLE privet.record ADD COLUMN more text",)
            monkeypatch.setattr("privet.stores.postgres.schema.MIGRATIONS", (*MIGRATIONS, adding))
            starting = threads.submit(PostgresStore, database)
            for number in range(200):
                old.commit(Record("order", str(number)), durable=False)
            assert not starting.done()
            auditor.execute("COMMIT")
            with starting.result() as new:
                assert len(new.find("order", limit=1000)) == 200

    def test_who_serves_needs_no_right_to_change_the_schema(self, database: str) -> None:
        PostgresStore(database).close()
        with somebody(database) as other:
            other.execute("DROP ROLE IF EXISTS server")
            other.execute("CREATE ROLE server LOGIN")
            other.execute("GRANT USAGE ON SCHEMA privet TO server")
            other.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA privet TO server")
        with PostgresStore(database.replace("postgres@", "server@")) as store:
            store.commit(Record("order", "1", unique=("a",), index=("b",), expires=NOW))
            store.commit(Record("order", "1", unique=("c",), version=1, expires=NOW))
            assert store.prune(NOW) == 1
        with somebody(database) as other:
            other.execute("DROP OWNED BY server")

    def test_a_hostile_search_path_changes_nothing(self, database: str) -> None:
        name = database.rpartition("/")[2]
        with somebody(database) as other:
            other.execute("CREATE SCHEMA evil CREATE TABLE record (kind text)")
            other.execute(f"ALTER DATABASE {name} SET search_path = evil, public")
            other.execute("CREATE FUNCTION evil.unnest(text[], text[]) RETURNS integer LANGUAGE sql AS 'SELECT 1'")
        with PostgresStore(database) as store:
            store.commit(Record("order", "1"))
            assert store.get("order", "1")


DAMAGE = [
    ("names", "{"),
    ("names", ""),
    ("names", "5"),
    ("names", '[["a"]]'),
    ("names", '[[1], ["b"]]'),
    ("names", '[["\\ud800"], []]'),
    ("files", "nothing"),
    ("files", "[]"),
    ("files", '{"a": 1}'),
    ("files", '{"a": "\u20ac"}'),
    ("expires", "infinity"),
]


class TestDamage:
    """What a person with another program has written into a database."""

    def damage(self, database: str, column: str, content: str) -> None:
        with somebody(database) as other:
            other.execute(f"UPDATE privet.record SET {column} = '{content}' WHERE id = '1'".encode())

    @pytest.mark.parametrize(("column", "content"), DAMAGE)
    def test_it_is_told_wherever_it_is_read(
        self, postgres: PostgresStore, database: str, column: str, content: str
    ) -> None:
        postgres.commit(Record("order", "1", unique=("a",), index=("b",), expires=NOW), Record("order", "2"))
        self.damage(database, column, content)
        for read in (
            lambda: postgres.get("order", "1"),
            lambda: postgres.get_each([("order", "2"), ("order", "1")]),
            lambda: postgres.find("order"),
            lambda: postgres.find("order", "b"),
        ):
            with pytest.raises(StoreError, match=r"( is damaged in order 1)?: "):
                read()
        assert postgres.get("order", "2") == Record("order", "2", version=1)

    @pytest.mark.parametrize("content", [content for column, content in DAMAGE if column == "names"])
    def test_names_that_are_none_keep_nobody_from_pruning(
        self, postgres: PostgresStore, database: str, content: str
    ) -> None:
        postgres.commit(*(Record("order", id, unique=(id,), index=("b",), expires=NOW) for id in "12"))
        self.damage(database, "names", content)
        assert postgres.prune(NOW) == 2
        with somebody(database) as other:
            assert other.execute("TABLE privet.unique_name").fetchall() == []
            assert other.execute("TABLE privet.index_name").fetchall() == []

    def test_who_commits_beside_it_is_left_alone(self, postgres: PostgresStore, database: str) -> None:
        postgres.commit(*(Record("order", id, unique=(id,)) for id in "12"))
        self.damage(database, "names", "{")
        damaged, good = postgres.commit_each([Batch([Record("order", id, version=1, unique=(id,))]) for id in "12"])
        assert good is None
        assert isinstance(damaged, StoreError)
        assert "order 1 are damaged" in str(damaged)

    def test_a_name_too_long_for_an_index_is_refused_and_its_neighbours_are_not(self, postgres: PostgresStore) -> None:
        random = Random(1)
        long = "".join(chr(random.randrange(0x4E00, 0x9FFF)) for _ in range(5000))
        records = [Record("order", "1"), Record("order", "2", index=(long,)), Record("order", "3", unique=(long,))]
        outcomes = postgres.commit_each([Batch([record]) for record in (*records, Record("order", "4"))])
        assert (outcomes[0], outcomes[3]) == (None, None)
        assert isinstance(outcomes[1], StoreError)
        assert isinstance(outcomes[2], StoreError)
        assert [record.id for record in postgres.find("order")] == ["1", "4"]


class TestTogether:
    """Several replicas write to one database."""

    def test_nobody_waits_for_somebody_who_waits_for_them(self, postgresql: PostgreSQL, database: str) -> None:
        """Whatever they change, rest on, name and rename, in whatever order: never a deadlock."""
        ids = "abcdef"

        def write(seed: int) -> int:
            random, done = Random(seed), 0
            with PostgresStore(database) as store:
                for _ in range(120):
                    keys = [("order", id) for id in random.sample(ids, 4)]
                    found = store.get_each(keys)
                    records = [one or Record(*key) for one, key in zip(found, keys, strict=True)]
                    names = random.sample("uvwxyz", 3)
                    changed = [one._replace(unique=(name,)) for one, name in zip(records[:3], names, strict=True)]
                    batches = [Batch(changed[:2], records[2:], durable=False), Batch(changed[2:], durable=False)]
                    random.shuffle(batches)
                    outcomes = store.commit_each(batches)
                    assert not any(isinstance(outcome, StoreError) for outcome in outcomes)
                    done += outcomes.count(None)
                    if random.random() < 0.1:
                        store.prune(NOW)
            return done

        with ThreadPoolExecutor(4) as threads:
            assert sum(threads.map(write, range(4))) > 40
        with PostgresStore(database) as store, somebody(database) as other:
            owners = dict(other.execute("SELECT name, id FROM privet.unique_name").fetchall())
            assert owners == {name: record.id for record in store.find("order") for name in record.unique}
            name = database.rpartition("/")[2]
            assert postgresql.do(f"SELECT deadlocks FROM pg_stat_database WHERE datname = '{name}'") == [(0,)]

    def test_what_must_be_missing_is_watched_over(self, database: str) -> None:
        """Two replicas each make what the other was sure is not there; one of them is right."""
        new = Record("order", "a"), Record("order", "b")
        with PostgresStore(database) as one, PostgresStore(database) as two, ThreadPoolExecutor(2) as threads:
            for number in range(50):
                a, b = (record._replace(kind=str(number)) for record in new)
                outcomes = [
                    threads.submit(one.commit_each, [Batch([a], [b])]),
                    threads.submit(two.commit_each, [Batch([b], [a])]),
                ]
                results = [type(outcome) for future in outcomes for outcome in future.result()]
                assert sorted(results, key=str) == sorted([type(None), Conflict], key=str)
                assert len(one.find(str(number))) == 1

    def test_who_rests_on_the_same_record_does_not_wait_for_each_other(self, database: str) -> None:
        with PostgresStore(database) as store, somebody(database) as other:
            store.commit(Record("account", "1"))
            other.execute("BEGIN")
            other.execute("SELECT FROM privet.record FOR SHARE")
            store.commit(Record("order", "1"), unchanged=[Record("account", "1", version=1)])

    def test_a_replica_that_stopped_in_the_middle_stops_nobody(self, database: str) -> None:
        with PostgresStore(database) as store, PostgresStore(database) as stopped:
            store.commit(Record("account", "1"))
            (session,) = stopped._idle
            session.execute("BEGIN")
            session.execute("SELECT FROM privet.record FOR UPDATE")
            session.execute("SET idle_in_transaction_session_timeout = '200ms'")
            store.commit(Record("account", "1", version=1))
            stopped.commit(Record("account", "1", version=2))

    def test_what_has_expired_goes_once(self, database: str) -> None:
        with PostgresStore(database) as one, PostgresStore(database) as two, ThreadPoolExecutor(4) as threads:
            one.commit(*(Record("nonce", str(number), unique=(str(number),), expires=NOW) for number in range(500)))
            pruned = threads.map(lambda number: (one, two)[number % 2].prune(NOW, limit=20), range(25))
            assert sum(pruned) == 500
            assert one.find("nonce") == []

    def test_pruning_passes_by_what_somebody_is_changing(self, postgres: PostgresStore, database: str) -> None:
        postgres.commit(*(Record("order", id, expires=NOW) for id in "12"))
        with somebody(database) as other:
            other.execute("BEGIN")
            other.execute("SELECT FROM privet.record WHERE id = '1' FOR UPDATE")
            assert postgres.prune(NOW) == 1
            other.execute("ROLLBACK")
        assert postgres.prune(NOW) == 1


class TestGrowth:
    def test_no_statement_looks_at_more_than_it_needs(self, database: str) -> None:
        """What keeps a store as quick with a million records as with none: each step is a search in an index."""

        def scans() -> list[tuple[Any, ...]]:
            return other.execute("SELECT relname, seq_scan FROM pg_stat_user_tables ORDER BY relname").fetchall()

        PostgresStore(database).close()
        with somebody(database) as other:
            before = scans()
            with PostgresStore(database) as store:
                for number in range(20):
                    record = Record("order", str(number), unique=(f"a{number}",), index=("b",), expires=NOW)
                    store.commit(record, Record("account", str(number)))
                    account = Record("account", str(number), version=1)
                    store.commit(record._replace(version=1, unique=("c",), index=("d",)), unchanged=[account])
                    with pytest.raises(Conflict):
                        store.commit(Record("order", "x", unique=("c",)))
                    store.get_each([("order", "1"), ("order", "2"), ("account", "1")])
                    store.find("order", after="0")
                    store.find("order", "c")
                    assert store.prune(NOW) == 1
                (session,) = store._idle
                session.execute("SELECT pg_stat_force_next_flush()")
            looked = {row for row in scans() if row not in before}
        assert {name for name, _ in looked} <= {"schema_version"}


@pytest.fixture(scope="module")
def guarded() -> Iterator[PostgreSQL]:
    """One that asks for a password."""
    with PostgreSQL(password=TestAddress.SECRET) as running:
        yield running


class TestAddress:
    SECRET = "s3cr3t"

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://privet:s3cr3t%zz@localhost/db",
            "postgresql://privet:s3cr3t@[localhost/db",
            "postgresql://privet:s3cr3t@localhost/db?nonsense=1",
            "postgresql://privet:x@s3cr3t@localhost/db",
            "postgresql://privet:s3cr3t/x@localhost/db",
            "postgresql://privet:s3cr3t",
            "postgresql://privet:s3cr3t/db",
            "postgresql://localhost/db?password=s3cr3t&nonsense=@",
            "postgresq://privet:s3cr3t@localhost/db",
        ],
    )
    def test_a_wrong_one_is_refused_and_not_repeated(self, url: str) -> None:
        with pytest.raises((ValueError, StoreError), match=r"write .*postgresql://USER@HOST/DATABASE") as caught:
            open_store(url)
        assert self.SECRET not in "".join(map(str, (caught.value, caught.value.__cause__)))
        assert caught.value.__suppress_context__ or caught.value.__context__ is None

    def test_the_password_is_used_and_not_told(self, guarded: PostgreSQL) -> None:
        with open_store(guarded.url()) as store:
            assert repr(store) == f"<PostgresStore postgresql://postgres@127.0.0.1:{guarded.port}/postgres>"
        with pytest.raises(StoreError, match="password authentication failed") as caught:
            open_store(guarded.url().replace(self.SECRET, "s3cr3t-wrong"))
        assert self.SECRET not in str(caught.value)

    def test_it_may_be_where_libpq_looks(
        self, guarded: PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url = f"postgresql://postgres@127.0.0.1:{guarded.port}/postgres"
        with pytest.raises(StoreError, match="no password supplied"):
            open_store(url)
        monkeypatch.setenv("PGPASSWORD", self.SECRET)
        open_store(url).close()
        monkeypatch.delenv("PGPASSWORD")
        (tmp_path / "pgpass").write_text(f"*:*:*:postgres:{self.SECRET}\n")
        (tmp_path / "pgpass").chmod(0o600)
        monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
        open_store(url).close()

    def test_tls_can_be_insisted_on(self, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(StoreError, match="server does not support SSL, but SSL was required"):
            open_store(f"{database}?sslmode=require")
        monkeypatch.setenv("PGSSLMODE", "require")
        with pytest.raises(StoreError, match="server does not support SSL, but SSL was required"):
            open_store(database)

    def test_nobody_there_is_told_at_once(self, database: str) -> None:
        nowhere = database.replace(database.split(":")[2].partition("/")[0], "1")
        with pytest.raises(StoreError, match="Connection refused"):
            open_store(nowhere)

    def test_without_psycopg_it_says_what_to_install(self) -> None:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys; sys.modules['psycopg'] = None\nfrom privet import *\nopen_store('postgresql://localhost/db')",
            ],
            capture_output=True,
            text=True,
            env={**os.environ},
        )
        assert done.stderr.splitlines()[-1] == (
            "privet.stores.base.StoreError: PostgreSQL takes psycopg, which is missing: pip install 'privet[postgres]'"
        )


def test_a_closed_store_says_so(database: str) -> None:
    store = PostgresStore(database)
    store.commit(Record("order", "1"))
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.commit(Record("order", "2"))
    with pytest.raises(StoreError, match="closed"):
        store.get("order", "1")


def test_readers_in_other_threads_do_not_wait_for_a_commit(postgres: PostgresStore) -> None:
    postgres.commit(Record("order", "1", index=("a",)))
    with postgres._writer, ThreadPoolExecutor(4) as threads:
        assert all(threads.map(lambda _: postgres.get("order", "1") and postgres.find("order", "a"), range(20)))


def test_ids_of_one_time_lie_together(postgres: PostgresStore) -> None:
    ids = [new_id(NOW + timedelta(milliseconds=number)) for number in range(20)]
    postgres.commit(*(Record("order", id) for id in reversed(ids)))
    assert [record.id for record in postgres.find("order")] == ids
