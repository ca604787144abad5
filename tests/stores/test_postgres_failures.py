"""What happens to a database, and what its stores make of it: nothing is lost, nothing is done twice, and whoever asked
is told the truth."""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress

import psycopg
import pytest
from tests.interop.postgresql import PostgreSQL

from privet.stores import Conflict, Record, StoreError
from privet.stores.postgres import PostgresStore


@pytest.fixture
def own() -> Iterator[PostgreSQL]:
    """A PostgreSQL that may be stopped: nobody else has data in it."""
    with PostgreSQL() as running:
        yield running


class Counting:
    """Threads that count together, each with a store of its own, and leave a record behind for each number."""

    def __init__(self, url: str, threads: int = 3) -> None:
        self._url = url
        self._ending = threading.Event()
        self._counted = threading.Semaphore(0)
        self._threads = ThreadPoolExecutor(threads)
        # All are opened before anything happens: who opens one without a server is told so at once.
        stores = [PostgresStore(url, patience=60) for _ in range(threads)]
        self._counts: list[Future[list[int]]] = [self._threads.submit(self._count, store) for store in stores]

    def _count(self, store: PostgresStore) -> list[int]:
        counted = []
        with store:
            while not self._ending.is_set():
                counter = store.get("counter", "") or Record("counter", "", b"0")
                number = int(counter.body) + 1
                name = (f"number:{number}",)
                with suppress(Conflict):
                    store.commit(counter._replace(body=b"%d" % number), Record("counted", f"{number:06}", unique=name))
                    counted.append(number)
                    self._counted.release()
        return counted

    def wait_for(self, more: int) -> None:
        """Wait until so many more were counted."""
        for _ in range(more):
            assert self._counted.acquire(timeout=60)

    def end(self) -> None:
        """Each number was counted by one of them, who was told so."""
        self._ending.set()
        numbers = sorted(number for count in self._counts for number in count.result())
        self._threads.shutdown()
        with PostgresStore(self._url) as store:
            records = store.find("counted", limit=1_000_000)
            counter = store.get("counter", "")
        assert counter
        assert numbers == list(range(1, int(counter.body) + 1)) == [int(record.id) for record in records]
        assert counter.version == len(numbers)


@contextmanager
def counting(url: str) -> Iterator[Counting]:
    running = Counting(url)
    try:
        running.wait_for(10)
        yield running
        running.wait_for(10)
    finally:
        running.end()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_server_that_is_stopped_and_started_is_waited_for(own: PostgreSQL, mode: str) -> None:
    with counting(own.url()) as running:
        for _ in range(3):
            own.stop(mode)
            own.start()
            running.wait_for(10)


def test_sessions_that_are_ended_in_the_middle_of_commits_are_made_anew(database: str) -> None:
    with counting(database) as running, psycopg.connect(database, autocommit=True) as other:
        for _ in range(60):
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name = 'privet'"
            )
            running.wait_for(3)


def test_a_store_that_was_idle_meanwhile_notices_nothing(own: PostgreSQL) -> None:
    with PostgresStore(own.url()) as store:
        store.commit(Record("order", "1"))
        own.stop()
        own.start()
        assert store.get("order", "1")
        own.stop()
        own.start()
        store.commit(Record("order", "1", version=1))


def test_when_patience_ends_it_is_a_store_error_and_the_next_ones_come_at_once(own: PostgreSQL) -> None:
    with PostgresStore(own.url(), patience=0.3) as store:
        store.commit(Record("order", "1"))
        own.stop()
        for _ in range(20):
            with pytest.raises(StoreError, match="Connection refused"):
                store.commit(Record("order", "2"))
            with pytest.raises(StoreError, match="Connection refused"):
                store.get("order", "1")
            with pytest.raises(StoreError, match="Connection refused"):
                store.find("order")
        own.start()
        store.commit(Record("order", "2"))
        assert len(store.find("order")) == 2


def change_for_ever(store: PostgresStore) -> None:
    while True:
        order = store.get("order", "1")
        assert order
        store.commit(order)


def test_a_primary_that_is_read_only_for_a_while_can_be_read(own: PostgreSQL) -> None:
    with PostgresStore(own.url(), patience=0.3) as store:
        store.commit(Record("order", "1"))
        own.do("ALTER SYSTEM SET default_transaction_read_only = on")
        own.do("SELECT pg_reload_conf()")
        with pytest.raises(StoreError, match="read-only transaction"):
            change_for_ever(store)  # or until the sessions have heard of it
        assert store.get("order", "1")
        with PostgresStore(own.url(), patience=60) as patient, ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(patient.commit, Record("order", "2"))
            own.do("ALTER SYSTEM RESET default_transaction_read_only")
            own.do("SELECT pg_reload_conf()")
            waiting.result()
        assert store.get("order", "2")


def test_a_standby_that_is_promoted_takes_over(own: PostgreSQL) -> None:
    """With a synchronous standby, nothing that anybody was told of is lost."""
    with counted_by_two(own) as (running, standby):
        own.stop("immediate")
        standby.promote()
        running.wait_for(20)


@contextmanager
def counted_by_two(own: PostgreSQL) -> Iterator[tuple[Counting, PostgreSQL]]:
    standby = own.standby()
    try:
        own.do("ALTER SYSTEM SET synchronous_standby_names = '*'")
        own.do("SELECT pg_reload_conf()")
        url = f"postgresql://postgres@127.0.0.1:{own.port},127.0.0.1:{standby.port}/postgres"
        running = Counting(url)
        running.wait_for(20)
        try:
            yield running, standby
        finally:
            running.end()
    finally:
        standby.remove()


class TestTransactionsThatFail:
    """PostgreSQL may end one transaction for the good of another, at any statement and at COMMIT."""

    @contextmanager
    def failing(self, database: str, state: str, *, times: int, when: str) -> Iterator[Callable[[], int]]:
        """Let the first so many writes fail; tell how often somebody tried. A sequence counts what is undone, too."""
        with psycopg.connect(database, autocommit=True) as other:
            for statement in (
                "CREATE SEQUENCE public.tries",
                f"CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                f"IF nextval('public.tries') <= {times} THEN RAISE EXCEPTION 'as told' USING ERRCODE = '{state}'; "
                f"END IF; RETURN NULL; END $$",
                f"CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON privet.record {when} "
                f"FOR EACH ROW EXECUTE FUNCTION public.fail()",
            ):
                other.execute(statement.encode())
            yield lambda: other.execute("SELECT last_value FROM public.tries").fetchall()[0][0]

    @pytest.mark.parametrize("when", ["", "DEFERRABLE INITIALLY DEFERRED"], ids=["at a statement", "at COMMIT"])
    @pytest.mark.parametrize("state", ["40001", "40P01"], ids=["serialization failure", "deadlock"])
    def test_they_are_done_again_and_stored_once(
        self, postgres: PostgresStore, database: str, state: str, when: str
    ) -> None:
        with self.failing(database, state, times=3, when=when) as tries:
            postgres.commit(Record("order", "1", unique=("a",)))
            assert tries() == 4
        assert postgres.find("order", "a") == [Record("order", "1", version=1, unique=("a",))]

    @pytest.mark.parametrize("when", ["", "DEFERRABLE INITIALLY DEFERRED"], ids=["at a statement", "at COMMIT"])
    def test_when_it_goes_on_for_too_long_it_is_a_store_error_and_nothing_is_stored(
        self, database: str, when: str
    ) -> None:
        with (
            PostgresStore(database, patience=0.3) as store,
            self.failing(database, "40001", times=1_000_000, when=when) as tries,
        ):
            with pytest.raises(StoreError, match="as told"):
                store.commit(Record("order", "1"))
            assert tries() > 1
            assert store.get("order", "1") is None

    @pytest.mark.parametrize("state", ["57014", "53100", "55P03", "XX000"])
    def test_what_does_not_pass_is_not_tried_again(self, postgres: PostgresStore, database: str, state: str) -> None:
        """Cancelled by a person, a full disk, a lock that nobody lets go of, damage."""
        with self.failing(database, state, times=1, when="") as tries:
            with pytest.raises(StoreError, match="as told"):
                postgres.commit(Record("order", "1"))
            assert tries() == 1
            postgres.commit(Record("order", "1"))

    def test_a_deadlock_with_another_program_is_got_out_of(self, database: str) -> None:
        """It locks what it likes, in an order that is not ours."""
        with psycopg.connect(database, autocommit=True) as other, ThreadPoolExecutor(1) as threads:
            PostgresStore(database).close()
            # Whoever waits for so long looks whether it is a deadlock, and gives up if it is: us.
            other.execute(f"ALTER DATABASE {database.rpartition('/')[2]} SET deadlock_timeout = '1s'".encode())
            other.execute("SET deadlock_timeout = '60s'")
            with PostgresStore(database, patience=60) as store:
                store.commit(Record("order", "a"), Record("order", "b"))
                other.execute("BEGIN")
                other.execute("SELECT FROM privet.record WHERE id = 'b' FOR UPDATE")
                ours = threads.submit(store.commit, Record("order", "a", version=1), Record("order", "b", version=1))
                while not other.execute("SELECT FROM pg_locks WHERE NOT granted").fetchall():
                    pass
                other.execute("UPDATE privet.record SET files = NULL WHERE id = 'a'")
                other.execute("COMMIT")
                ours.result()
                assert [record.version for record in store.find("order")] == [2, 2]


class Wire:
    """Between a store and its database, to be cut where it hurts: at the first COMMIT that comes by.

    `lost` is called when both sides have noticed, and before anybody may connect again.
    """

    def __init__(self, port: int, *, arrives: bool, lost: Callable[[], None] = lambda: None) -> None:
        self._to = port
        self._arrives = arrives
        self._lost = lost
        self._cut = False
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                with near, socket.create_connection(("127.0.0.1", self._to)) as far:
                    self._pass(near, far)

    def _pass(self, near: socket.socket, far: socket.socket) -> None:
        """From the store to the database, while another thread passes what comes back."""
        silent = threading.Event()
        back = threading.Thread(target=self._pass_back, args=(near, far, silent), daemon=True)
        back.start()
        while data := near.recv(65536):
            if b"COMMIT" in data and not self._cut:
                self._cut = True
                while b"S\0\0\0\4" not in data:  # Sync: what ends a pipeline
                    data += near.recv(65536)
                silent.set()
                if self._arrives:
                    far.sendall(data)
                    far.shutdown(socket.SHUT_WR)
                else:
                    far.shutdown(socket.SHUT_RDWR)
                back.join()  # the database has done what it does and closed
                near.shutdown(socket.SHUT_RDWR)
                self._lost()
                return
            far.sendall(data)
        far.shutdown(socket.SHUT_RDWR)
        back.join()

    def _pass_back(self, near: socket.socket, far: socket.socket, silent: threading.Event) -> None:
        with suppress(OSError):
            while data := far.recv(65536):
                if not silent.is_set():
                    near.sendall(data)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


@contextmanager
def cut(database: str, *, arrives: bool, lost: Callable[[], None] = lambda: None) -> Iterator[PostgresStore]:
    """A store whose first COMMIT is cut, before or after it arrives."""
    head, _, name = database.rpartition("/")
    wire = Wire(int(head.rpartition(":")[2]), arrives=arrives, lost=lost)
    try:
        with PostgresStore(f"{head.rpartition(':')[0]}:{wire.port}/{name}") as store:
            yield store
    finally:
        wire.close()


class TestCommitOfUnknownOutcome:
    @pytest.fixture
    def other(self, database: str) -> Iterator[PostgresStore]:
        """Another replica, which has made the schema and an order."""
        with PostgresStore(database) as store:
            store.commit(Record("order", "1"))
            yield store

    @pytest.mark.parametrize("arrives", [True, False])
    def test_it_is_stored_once_and_told_so(self, database: str, other: PostgresStore, arrives: bool) -> None:
        with cut(database, arrives=arrives) as store:
            store.commit(Record("order", "1", b"ours", version=1), Record("certificate", "1", unique=("serial",)))
        assert other.get("order", "1") == Record("order", "1", b"ours", version=2)
        assert other.get("certificate", "1") == Record("certificate", "1", version=1, unique=("serial",))

    @pytest.mark.parametrize("arrives", [True, False])
    def test_of_two_replicas_one_spends_the_nonce(self, database: str, other: PostgresStore, arrives: bool) -> None:
        """The records are alike to the last byte; each still knows its own."""
        theirs: list[bool] = []

        def spend() -> None:
            try:
                other.commit(Record("nonce", "n"), durable=False)
                theirs.append(True)
            except Conflict:
                theirs.append(False)

        with cut(database, arrives=arrives, lost=spend) as store:
            try:
                store.commit(Record("nonce", "n"), durable=False)
                ours = True
            except Conflict:
                ours = False
        assert (ours, theirs) == (arrives, [not arrives])

    @pytest.mark.parametrize("arrives", [True, False])
    def test_of_two_replicas_one_changes_the_record(self, database: str, other: PostgresStore, arrives: bool) -> None:
        def change() -> None:
            with suppress(Conflict):
                other.commit(Record("order", "1", b"theirs", version=1))

        with cut(database, arrives=arrives, lost=change) as store:
            if arrives:
                store.commit(Record("order", "1", b"ours", version=1))
            else:
                with pytest.raises(Conflict):
                    store.commit(Record("order", "1", b"ours", version=1))
        assert other.get("order", "1") == Record("order", "1", b"ours" if arrives else b"theirs", version=2)

    @pytest.mark.parametrize("arrives", [True, False])
    def test_what_cannot_be_found_out_is_not_made_up(self, database: str, other: PostgresStore, arrives: bool) -> None:
        """Others have gone on with the record since, and there is nothing else to know the commit by."""

        def go_on() -> None:
            for _ in range(2):
                order = other.get("order", "1")
                assert order
                other.commit(order)

        with (
            cut(database, arrives=arrives, lost=go_on) as store,
            pytest.raises(StoreError, match="what became of the commit is not known"),
        ):
            store.commit(Record("order", "1", version=1))

    def test_any_of_its_records_tells(self, database: str, other: PostgresStore) -> None:
        def go_on() -> None:
            order = other.get("order", "1")
            assert order
            other.commit(order)

        with cut(database, arrives=True, lost=go_on) as store:
            store.commit(Record("order", "1", version=1), Record("certificate", "1"))
