"""What every store promises, told once and tried on each."""

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest

from privet.stores import Conflict, OpenStore, Record, Store, StoreError, new_id

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
HOUR = timedelta(hours=1)


def ids(records: list[Record]) -> list[str]:
    return [record.id for record in records]


def version(store: Store, kind: str, id: str) -> int:
    record = store.get(kind, id)
    return record.version if record else 0


def read(store: Store, kind: str, id: str) -> Record:
    record = store.get(kind, id)
    assert record is not None
    return record


class TestCommit:
    def test_what_is_committed_is_read_back_as_it_was(self, store: Store) -> None:
        record = Record(
            "order",
            new_id(NOW),
            b'{"status":"ready"}',
            unique=("key:1", "key:2"),
            index=("account:1", "name:bücher.internal"),
            expires=NOW,
            files={"cert.pem": b"-----BEGIN", "key.pem": bytes(range(256))},
        )
        store.commit(record)
        assert store.get("order", record.id) == record._replace(version=1)

    def test_a_record_may_be_nothing_but_its_id(self, store: Store) -> None:
        store.commit(Record("nonce", "1"))
        assert store.get("nonce", "1") == Record("nonce", "1", version=1)

    @pytest.mark.parametrize("body", [b"\0\xff\n\r", b"{}\n" * 100_000], ids=["odd", "big"])
    def test_a_body_is_bytes_and_not_text(self, store: Store, body: bytes) -> None:
        store.commit(Record("order", "1", body), Record("order", "2", body, files={"cert.pem": body}))
        assert read(store, "order", "1").body == read(store, "order", "2").body == body

    @pytest.mark.parametrize(
        "odd",
        ["*.internal", "::1", ".", "..", "a/b", "/", " ", "~", "%2E", "A\0b", "\n", "ü" * 300, "a" * 300, "_", "-"],
        ids=ascii,
    )
    def test_a_kind_an_id_and_a_name_may_be_any_text(self, store: Store, odd: str) -> None:
        record = Record(odd, odd, b"{}", unique=(odd,), index=("index" + odd,))
        store.commit(record, record._replace(id=odd + "files", unique=(), files={odd + ".pem": b"cert"}))
        assert read(store, odd, odd) == record._replace(version=1)
        assert read(store, odd, odd + "files").files == {odd + ".pem": b"cert"}
        assert ids(store.find(odd, odd)) == [odd]
        assert sorted(ids(store.find(odd, "index" + odd))) == sorted([odd, odd + "files"])

    def test_kinds_are_kept_apart(self, store: Store) -> None:
        store.commit(Record("order", "1", b"order", unique=("name",)))
        store.commit(Record("account", "1", b"account", unique=("name",)))
        assert read(store, "order", "1").body == b"order"
        assert [record.body for record in store.find("account", "name")] == [b"account"]

    def test_each_commit_takes_a_record_one_version_further(self, store: Store) -> None:
        store.commit(Record("order", "1", b"a"))
        store.commit(Record("order", "1", b"b", version=1))
        store.commit(Record("order", "1", b"c", version=2), durable=False)
        assert read(store, "order", "1") == Record("order", "1", b"c", version=3)

    def test_a_new_record_must_not_exist_yet(self, store: Store) -> None:
        store.commit(Record("order", "1", b"first"))
        with pytest.raises(Conflict):
            store.commit(Record("order", "1", b"second"))
        assert read(store, "order", "1").body == b"first"

    @pytest.mark.parametrize("stale", [0, 1, 3])
    def test_a_record_that_has_changed_since_is_a_conflict(self, store: Store, stale: int) -> None:
        store.commit(Record("order", "1"))
        store.commit(Record("order", "1", b"theirs", version=1))
        with pytest.raises(Conflict):
            store.commit(Record("order", "1", b"ours", version=stale))
        assert read(store, "order", "1") == Record("order", "1", b"theirs", version=2)

    def test_a_record_that_is_not_there_cannot_be_changed(self, store: Store) -> None:
        with pytest.raises(Conflict):
            store.commit(Record("order", "1", version=1))
        assert store.get("order", "1") is None

    def test_all_records_are_stored_or_none(self, store: Store) -> None:
        store.commit(Record("order", "1", b"as it was"), Record("account", "1"))
        with pytest.raises(Conflict):
            store.commit(
                Record("certificate", "new", files={"cert.pem": b"never"}, unique=("serial",)),
                Record("order", "1", b"never", version=1),
                Record("account", "1"),
            )
        assert read(store, "order", "1") == Record("order", "1", b"as it was", version=1)
        assert store.get("certificate", "new") is None
        assert store.find("certificate", "serial") == []

    def test_one_record_twice_in_a_commit_is_a_conflict(self, store: Store) -> None:
        with pytest.raises(Conflict):
            store.commit(Record("order", "1"), Record("order", "1"))
        assert store.get("order", "1") is None

    def test_a_commit_of_nothing_is_no_trouble(self, store: Store) -> None:
        store.commit()

    def test_what_was_given_to_a_commit_may_be_changed_later(self, store: Store) -> None:
        files = {"key.pem": b"key"}
        store.commit(Record("certs", "a", files=files))
        files["key.pem"] = b"another"
        assert read(store, "certs", "a").files == {"key.pem": b"key"}


class TestUnchanged:
    def test_a_record_that_is_as_it_was_lets_the_commit_pass_and_stays_as_it_is(self, store: Store) -> None:
        store.commit(Record("account", "1"))
        store.commit(Record("order", "1"), unchanged=[Record("account", "1", version=1)])
        assert version(store, "account", "1") == version(store, "order", "1") == 1

    def test_a_record_that_has_changed_stops_the_commit(self, store: Store) -> None:
        store.commit(Record("account", "1"))
        account = read(store, "account", "1")
        store.commit(account)
        with pytest.raises(Conflict):
            store.commit(Record("order", "1"), unchanged=[account])
        assert store.get("order", "1") is None

    def test_a_record_that_was_not_there_must_still_be_missing(self, store: Store) -> None:
        missing = Record("authorization", "1")
        store.commit(Record("order", "1"), unchanged=[missing])
        store.commit(missing)
        with pytest.raises(Conflict):
            store.commit(Record("order", "2"), unchanged=[missing])

    def test_a_record_that_has_gone_stops_the_commit(self, store: Store) -> None:
        with pytest.raises(Conflict):
            store.commit(Record("order", "1"), unchanged=[Record("account", "1", version=1)])


class TestUniqueNames:
    def test_a_name_belongs_to_one_record_of_a_kind(self, store: Store) -> None:
        store.commit(Record("account", "1", unique=("key",)))
        with pytest.raises(Conflict):
            store.commit(Record("account", "2", unique=("key",)))
        assert ids(store.find("account", "key")) == ["1"]

    def test_two_records_of_one_commit_cannot_share_a_name(self, store: Store) -> None:
        with pytest.raises(Conflict):
            store.commit(Record("account", "1", unique=("key",)), Record("account", "2", unique=("key",)))
        assert store.find("account") == []

    def test_a_name_that_a_record_says_twice_is_its_name(self, store: Store) -> None:
        store.commit(Record("order", "1", unique=("key", "key"), index=("all", "all")))
        store.commit(Record("order", "1", b"", 1, unique=("key", "key", "other"), index=("all", "all", "all")))
        for name in ("key", "other", "all"):
            assert ids(store.find("order", name)) == ["1"]
        with pytest.raises(Conflict):
            store.commit(Record("order", "2", unique=("key",)))

    def test_a_name_that_was_given_up_is_free(self, store: Store) -> None:
        store.commit(Record("account", "1", unique=("old", "kept")))
        store.commit(Record("account", "1", unique=("new", "kept"), version=1))
        assert store.find("account", "old") == []
        assert ids(store.find("account", "new")) == ids(store.find("account", "kept")) == ["1"]
        store.commit(Record("account", "2", unique=("old",)))
        with pytest.raises(Conflict):
            store.commit(Record("account", "3", unique=("kept",)))

    def test_a_record_that_was_changed_cannot_take_anothers_name(self, store: Store) -> None:
        store.commit(Record("account", "1", unique=("a",)), Record("account", "2", b"as it was", unique=("b",)))
        with pytest.raises(Conflict):
            store.commit(Record("account", "2", unique=("a",), version=1))
        assert read(store, "account", "2") == Record("account", "2", b"as it was", version=1, unique=("b",))
        assert ids(store.find("account", "b")) == ["2"]

    @pytest.mark.parametrize("giver_first", [True, False])
    def test_a_name_passes_from_one_record_to_another_in_one_commit(self, store: Store, giver_first: bool) -> None:
        store.commit(Record("account", "1", unique=("key",)))
        records = [Record("account", "1", version=1), Record("account", "2", unique=("key",))]
        store.commit(*(records if giver_first else reversed(records)))
        assert ids(store.find("account", "key")) == ["2"]

    def test_two_records_swap_their_names(self, store: Store) -> None:
        one, two = Record("account", "1", unique=("a",)), Record("account", "2", unique=("b",))
        store.commit(one, two)
        store.commit(one._replace(version=1, unique=("b",)), two._replace(version=1, unique=("a",)))
        assert ids(store.find("account", "a")) == ["2"]
        assert ids(store.find("account", "b")) == ["1"]

    def test_a_name_can_turn_from_shared_to_unique(self, store: Store) -> None:
        store.commit(Record("account", "1", index=("key",)))
        store.commit(Record("account", "1", unique=("key",), version=1))
        with pytest.raises(Conflict):
            store.commit(Record("account", "2", unique=("key",)))
        store.commit(Record("account", "1", index=("key",), version=2))
        store.commit(Record("account", "2", index=("key",)))
        assert ids(store.find("account", "key")) == ["1", "2"]


class TestFind:
    def test_nothing_is_found_where_nothing_is(self, store: Store) -> None:
        assert store.get("order", "1") is None
        assert store.find("order") == store.find("order", "name") == []

    @pytest.mark.parametrize("odd", ["\udc80", "\0", "../../etc/passwd", "x" * 10_000, ""], ids=ascii)
    def test_any_text_may_be_asked_for(self, store: Store, odd: str) -> None:
        store.commit(Record("order", "1", files={"cert.pem": b""}))
        assert store.get("order", odd) is None
        assert store.get(odd, "1") is None
        assert store.find("order", odd) == store.find(odd) == store.find(odd, odd) == []

    def test_what_cannot_be_stored_does_not_spoil_what_comes_after(self, store: Store) -> None:
        """Half a surrogate is no text; a store may refuse it, and is as good as before."""
        try:
            store.commit(Record("order", "\ud800", index=("\ud800",)))
        except Exception as error:
            assert not isinstance(error, Conflict)  # noqa: PT017
        store.commit(Record("order", "1"))
        assert ids(store.find("order"))[:1] == ["1"]

    def test_records_come_in_order_of_id(self, store: Store) -> None:
        for id in ("b", "d", "a", "c"):
            store.commit(Record("order", id, index=("account:1",)))
        assert ids(store.find("order")) == ids(store.find("order", "account:1")) == ["a", "b", "c", "d"]

    def test_a_long_list_is_read_in_pages(self, store: Store) -> None:
        store.commit(*(Record("order", f"{number:03}", index=("account:1",)) for number in range(25)))
        store.commit(*(Record("order", f"{number:03}x", index=("account:2",)) for number in range(25)))
        pages = []
        after = ""
        while page := store.find("order", "account:1", after=after, limit=10):
            after = page[-1].id
            pages.append(ids(page))
        assert [len(page) for page in pages] == [10, 10, 5]
        assert [id for page in pages for id in page] == [f"{number:03}" for number in range(25)]
        assert len(store.find("order", limit=100)) == 50
        assert ids(store.find("order", after="024", limit=2)) == ["024x"]

    def test_a_page_behind_an_id_that_has_gone_goes_on_where_it_was(self, store: Store) -> None:
        store.commit(Record("order", "a"), Record("order", "c"))
        assert ids(store.find("order", after="b")) == ["c"]

    def test_unique_and_shared_names_are_found_alike_and_once(self, store: Store) -> None:
        store.commit(Record("certificate", "1", unique=("x",), index=("x", "y")))
        store.commit(Record("certificate", "2", index=("x",)), Record("certificate", "0", index=("x",)))
        assert ids(store.find("certificate", "x")) == ["0", "1", "2"]
        assert ids(store.find("certificate", "x", limit=2)) == ["0", "1"]
        assert ids(store.find("certificate", "x", after="0", limit=1)) == ["1"]

    def test_names_follow_their_record(self, store: Store) -> None:
        store.commit(Record("order", "1", index=("pending", "account:1")), Record("order", "2", index=("pending",)))
        store.commit(Record("order", "1", b"{}", index=("account:1",), version=1))
        assert ids(store.find("order", "pending")) == ["2"]
        assert store.find("order", "account:1") == [Record("order", "1", b"{}", version=2, index=("account:1",))]

    def test_found_records_are_whole(self, store: Store) -> None:
        record = Record("certs", "a", b"{}", index=("x",), files={"cert.pem": b"cert"})
        store.commit(record)
        assert store.find("certs") == store.find("certs", "x") == [record._replace(version=1)]


class TestPrune:
    def test_only_what_has_expired_goes(self, store: Store) -> None:
        store.commit(
            Record("nonce", "past", expires=NOW - timedelta(microseconds=1)),
            Record("nonce", "now", expires=NOW),
            Record("nonce", "future", expires=NOW + timedelta(microseconds=1)),
            Record("certificate", "kept"),
        )
        assert store.prune(NOW) == 2
        assert ids(store.find("nonce")) == ["future"]
        assert ids(store.find("certificate")) == ["kept"]
        assert store.prune(NOW) == 0

    def test_it_goes_in_bites_the_oldest_first(self, store: Store) -> None:
        store.commit(*(Record("nonce", str(number), expires=NOW + number * HOUR) for number in range(5)))
        later = NOW + 10 * HOUR
        assert store.prune(later, limit=2) == 2
        assert ids(store.find("nonce")) == ["2", "3", "4"]
        assert store.prune(later, limit=2) == 2
        assert store.prune(later, limit=2) == 1
        assert store.prune(later, limit=2) == 0

    def test_the_expiry_that_counts_is_the_last_one(self, store: Store) -> None:
        store.commit(Record("order", "later", expires=NOW), Record("order", "never", expires=NOW))
        store.commit(Record("order", "later", expires=NOW + HOUR, version=1), Record("order", "never", version=1))
        assert store.prune(NOW) == 0
        assert store.prune(NOW + HOUR) == 1
        assert ids(store.find("order")) == ["never"]

    def test_an_expiry_that_was_there_before_counts_again(self, store: Store) -> None:
        for number, expires in enumerate((NOW, NOW + HOUR, NOW)):
            store.commit(Record("order", "1", expires=expires, version=number))
        assert store.prune(NOW) == 1
        assert store.prune(NOW + HOUR) == 0

    def test_what_went_leaves_nothing(self, store: Store) -> None:
        record = Record(
            "certificate", "1", b"{}", unique=("serial",), index=("name",), expires=NOW, files={"cert.pem": b"cert"}
        )
        store.commit(record)
        store.prune(NOW)
        assert store.get("certificate", "1") is None
        assert store.find("certificate", "serial") == store.find("certificate", "name") == []
        store.commit(record)
        assert version(store, "certificate", "1") == 1

    def test_what_went_cannot_be_changed(self, store: Store) -> None:
        store.commit(Record("order", "1", expires=NOW))
        order = read(store, "order", "1")
        store.prune(NOW)
        with pytest.raises(Conflict):
            store.commit(order)
        with pytest.raises(Conflict):
            store.commit(Record("order", "2"), unchanged=[order])

    def test_times_of_any_zone_come_back_as_the_same_time_in_utc(self, store: Store) -> None:
        store.commit(Record("order", "1", expires=NOW.astimezone(timezone(5 * HOUR))))
        expires = read(store, "order", "1").expires
        assert expires == NOW
        assert expires.tzinfo is UTC


class TestFiles:
    def test_a_record_changes_with_all_its_files(self, store: Store) -> None:
        store.commit(Record("certs", "a", b"1", files={"cert.pem": b"1", "key.pem": b"1"}))
        store.commit(Record("certs", "a", b"2", files={"cert.pem": b"2", "fullchain.pem": b"2"}, version=1))
        assert read(store, "certs", "a") == Record(
            "certs", "a", b"2", version=2, files={"cert.pem": b"2", "fullchain.pem": b"2"}
        )

    def test_a_record_can_lose_its_files_and_get_others(self, store: Store) -> None:
        store.commit(Record("certs", "a", b"1", files={"cert.pem": b"1"}))
        store.commit(Record("certs", "a", b"2", version=1))
        assert read(store, "certs", "a") == Record("certs", "a", b"2", version=2)
        store.commit(Record("certs", "a", files={"cert.pem": b"3"}, version=2))
        assert read(store, "certs", "a") == Record("certs", "a", version=3, files={"cert.pem": b"3"})


class TestIds:
    def test_they_are_in_the_order_of_time_and_never_the_same(self) -> None:
        times = [NOW + number * timedelta(milliseconds=1) for number in range(100)]
        made = [new_id(time) for time in times]
        assert made == sorted(made)
        assert len({new_id(NOW) for _ in range(1000)}) == 1000

    def test_they_come_after_those_of_earlier_versions(self) -> None:
        once = f"{int(NOW.timestamp() * 1000):012x}{secrets.token_hex(14)}"
        assert once < new_id(NOW + timedelta(milliseconds=1))


class TestWhole:
    """`records` and `fill`: a store as a whole."""

    RECORDS = (
        Record("", "", b"\0\xff", 3),
        Record("ca", "root", b"", 1, files={"cert.pem": b"cert", "key.pem": bytes(range(256))}),
        Record("certs", "*.internal", b'{"a":1}', 7, files={"key.pem": b"key"}),
        Record("order", "1", b"{}", 2, index=("account:1", "name:bücher.internal"), expires=NOW),
        Record("order", "1\0", b"odd", 1, unique=("a\0b",)),
        Record("order", "\ue000", b"", 1, unique=("twice", "twice"), index=("again", "again")),
        Record("order", "\U0001f600", b"", 1, unique=("key:1", "key:2")),
    )

    def test_all_records_come_in_order_of_kind_and_id(self, store: OpenStore) -> None:
        assert list(store.records()) == []
        store.commit(*(record._replace(version=0) for record in reversed(self.RECORDS)))
        assert list(store.records()) == [record._replace(version=1) for record in self.RECORDS]

    def test_what_a_store_is_filled_with_is_there_as_it_was(self, store: OpenStore) -> None:
        store.fill(iter(self.RECORDS))
        assert list(store.records()) == list(self.RECORDS)
        for record in self.RECORDS:
            assert store.get(record.kind, record.id) == record
            for name in (*record.unique, *record.index):
                assert store.find(record.kind, name) == [record]
        store.commit(read(store, "certs", "*.internal")._replace(body=b"newer"))
        assert version(store, "certs", "*.internal") == 8
        assert store.prune(NOW) == 1
        with pytest.raises(Conflict):
            store.commit(Record("order", "2", unique=("key:2",)))

    def test_many_records(self, store: OpenStore) -> None:
        many = [Record("order", f"{number:06}", b"x" * 100, 1, index=("all",)) for number in range(2500)]
        store.fill(iter(many))
        assert list(store.records()) == many
        assert ids(store.find("order", "all", after="002498")) == ["002499"]

    def test_a_store_with_something_in_it_is_not_filled(self, store: OpenStore) -> None:
        store.commit(Record("order", "0", b"here"))
        with pytest.raises(Conflict):
            store.fill(self.RECORDS)
        assert list(store.records()) == [Record("order", "0", b"here", 1)]

    @pytest.mark.parametrize(
        "contradiction",
        [[Record("order", "1", version=2)], [Record("order", "2", version=1, unique=("key:1",))]],
        ids=["id", "name"],
    )
    def test_records_that_contradict_each_other_leave_nothing(
        self, store: OpenStore, contradiction: list[Record]
    ) -> None:
        with pytest.raises(StoreError, match="together"):
            store.fill([*self.RECORDS, *contradiction])
        assert list(store.records()) == []
        store.fill(self.RECORDS)
        assert list(store.records()) == list(self.RECORDS)

    def test_records_that_end_too_early_leave_nothing(self, store: OpenStore) -> None:
        def broken() -> Iterator[Record]:
            yield from self.RECORDS
            raise StoreError("the file is damaged")

        with pytest.raises(StoreError, match="the file is damaged"):
            store.fill(broken())
        assert list(store.records()) == []
        store.commit(Record("order", "1"))

    def test_others_commit_while_records_are_read_and_are_not_seen(self, store: OpenStore) -> None:
        store.commit(*(Record("order", f"{number:04}", b"before", index=("all",)) for number in range(1500)))
        reading = store.records()
        seen = [next(reading)]
        store.commit(Record("order", "1499", b"after", 1), Record("order", "2000"), Record("certs", "late"))
        store.prune(NOW)
        seen += reading
        assert [(record.id, record.body) for record in seen] == [(f"{number:04}", b"before") for number in range(1500)]
