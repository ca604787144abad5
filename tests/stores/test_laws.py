"""Whatever is done to them, in whatever order, all stores say the same."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from privet.stores import Conflict, FileStore, MemoryStore, Record, SQLiteStore, Store
from privet.stores.postgres import PostgresStore

NOW = datetime(2026, 3, 1, tzinfo=UTC)
few = st.sampled_from("abc")
names = st.lists(few, unique=True, max_size=2).map(tuple)
records = st.builds(
    Record,
    kind=st.sampled_from(["order", "certs"]),
    id=few,
    body=st.binary(max_size=4),
    version=st.integers(0, 3),
    unique=names,
    index=names,
    expires=st.none() | st.integers(0, 3).map(lambda hours: NOW + timedelta(hours=hours)),
    files=st.dictionaries(st.sampled_from(["cert.pem", "key.pem"]), st.binary(max_size=4), max_size=2),
)


class Stores(RuleBasedStateMachine):
    database: str

    @initialize()
    def begin(self) -> None:
        self.folder = TemporaryDirectory()
        self.memory = MemoryStore()
        with psycopg.connect(self.database, autocommit=True) as other:
            other.execute("DROP SCHEMA IF EXISTS privet CASCADE")
        self.stores: list[Store] = []
        self.reopen()

    @rule()
    def reopen(self) -> None:
        for store in self.stores:
            store.close()  # type: ignore[attr-defined]
        file, sqlite = FileStore(Path(self.folder.name, "folder")), SQLiteStore(Path(self.folder.name, "database"))
        file.slack = 3
        self.stores = [file, sqlite, PostgresStore(self.database)]

    @rule(records=st.lists(records, max_size=3), unchanged=st.lists(records, max_size=1), current=st.booleans())
    def commit(self, records: list[Record], unchanged: list[Record], current: bool) -> None:
        if current:  # at the versions they are at, so that most go through
            records = [record._replace(version=self.version(record)) for record in records]
            unchanged = [record._replace(version=self.version(record)) for record in unchanged]
        keys = [(record.kind, record.id) for record in (*records, *unchanged)]
        if len(set(keys)) < len(records) + len(unchanged):
            return
        outcome = self.outcome(self.memory, records, unchanged)
        for store in self.stores:
            assert self.outcome(store, records, unchanged) == outcome

    def version(self, record: Record) -> int:
        found = self.memory.get(record.kind, record.id)
        return found.version if found else 0

    def outcome(self, store: Store, records: list[Record], unchanged: list[Record]) -> bool:
        try:
            store.commit(*records, unchanged=unchanged, durable=False)
        except Conflict:
            return False
        return True

    @rule(hours=st.integers(0, 3))
    def prune(self, hours: int) -> None:
        now = NOW + timedelta(hours=hours)
        gone = self.memory.prune(now)
        for store in self.stores:
            assert store.prune(now) == gone

    @rule(
        kind=st.sampled_from(["order", "certs"]), name=st.none() | few, after=st.just("") | few, limit=st.integers(0, 4)
    )
    def find(self, kind: str, name: str | None, after: str, limit: int) -> None:
        expected = self.memory.find(kind, name, after=after, limit=limit)
        for store in self.stores:
            assert store.find(kind, name, after=after, limit=limit) == expected

    @rule(kind=st.sampled_from(["order", "certs"]), id=few)
    def get(self, kind: str, id: str) -> None:
        for store in self.stores:
            assert store.get(kind, id) == self.memory.get(kind, id)

    def teardown(self) -> None:
        for store in self.stores:
            store.close()  # type: ignore[attr-defined]
        self.folder.cleanup()


def test_all_stores_say_the_same(database: str) -> None:
    class OurStores(Stores):
        pass

    OurStores.database = database
    run_state_machine_as_test(OurStores, settings=settings(max_examples=40, stateful_step_count=30, deadline=None))
