"""A backup: any age program opens it, nothing comes out of it that was not put in, and a million records take no more
memory than a few."""

import io
import json
import tracemalloc
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime

import pyrage
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.laws import texts

from privet.stores import Record, StoreError, age
from privet.stores.backup import Backup, Tally, write_backup

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
PASSWORD = b"correct horse battery"


@pytest.fixture(autouse=True, scope="module")
def cheap() -> Iterator[None]:
    """A password that is quick to try, since these tests try a hundred."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(age, "_WORK", 10)
        yield


def written(*records: Record) -> bytes:
    file = io.BytesIO()
    write_backup(file, records, PASSWORD, NOW, Tally())
    return file.getvalue()


def read(data: bytes) -> list[Record]:
    return list(Backup(io.BytesIO(data), PASSWORD).records())


def sealed(*documents: object) -> bytes:
    text = b"".join(json.dumps(document).encode() + b"\n" for document in documents)
    return b"".join(age.seal([zlib.compress(text, wbits=31)], PASSWORD))


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 2 * 65536, 200_000])
def test_what_is_sealed_another_age_program_opens_and_we_do(size: int) -> None:
    plain = bytes(range(256)) * (size // 256) + bytes(size % 256)
    data = b"".join(age.seal([plain[:10], plain[10:]], PASSWORD))
    assert pyrage.passphrase.decrypt(data, PASSWORD.decode()) == plain
    assert b"".join(age.unseal(io.BytesIO(data), PASSWORD)) == plain


def test_chunks_that_change_places_or_are_missing_are_noticed() -> None:
    data = b"".join(age.seal([bytes(4 * 65536)], PASSWORD))
    size = 65536 + 16
    head, chunks = data[: len(data) - 4 * size], [data[len(data) - n * size :][:size] for n in (4, 3, 2, 1)]
    assert b"".join(age.unseal(io.BytesIO(head + b"".join(chunks)), PASSWORD)) == bytes(4 * 65536)
    for order in ([0, 2, 1, 3], [0, 1, 2], [0, 1, 3], [1, 2, 3], [0, 0, 1, 2, 3], [0, 1, 2, 3, 3], []):
        with pytest.raises(StoreError, match="damaged"):
            list(age.unseal(io.BytesIO(head + b"".join(chunks[number] for number in order)), PASSWORD))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_byte_that_changed_anywhere_is_noticed(data: st.DataObject) -> None:
    whole = written(Record("order", "1", b"{}", 1), Record("order", "2", b"{}", 1))
    place = data.draw(st.integers(0, len(whole) - 1))
    bit = data.draw(st.integers(0, 7))
    with pytest.raises(StoreError):
        read(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
    with pytest.raises(StoreError):
        read(whole[:place])


RECORDS = st.builds(
    Record,
    kind=texts,
    id=texts,
    body=st.binary(),
    version=st.integers(1, 2**40),
    unique=st.lists(texts, max_size=3).map(tuple),
    index=st.lists(texts, max_size=3).map(tuple),
    expires=st.none() | st.datetimes(timezones=st.just(UTC)),
    files=st.dictionaries(texts, st.binary(), max_size=2),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(RECORDS, max_size=5))
def test_what_is_written_is_read(records: list[Record]) -> None:
    assert read(written(*records)) == records


@pytest.mark.parametrize(
    "documents",
    [
        [],
        [{"format": 2, "taken": NOW.isoformat()}],
        [{"format": 1}],
        [{"format": 1, "taken": NOW.isoformat()}],
        [{"format": 1, "taken": NOW.isoformat()}, []],
        [{"format": 1, "taken": NOW.isoformat()}, {"kind": "order"}],
        [{"format": 1, "taken": NOW.isoformat()}, {"kind": "order", "version": 1, "body": "\u1234"}],
        [{"format": 1, "taken": NOW.isoformat()}, {"records": 1, "sha256": ""}],
        [{"format": 1, "taken": NOW.isoformat()}, {"records": 0, "sha256": Tally().sha256}, {"records": 0}],
    ],
)
def test_what_is_no_backup_inside_is_told(documents: list[object]) -> None:
    with pytest.raises(StoreError, match=r"^(it|its|something|what is in it) "):
        read(sealed(*documents))
    with pytest.raises(StoreError, match="not compressed"):
        read(b"".join(age.seal([b"not gzip"], PASSWORD)))


def test_memory_does_not_grow_with_what_is_copied() -> None:
    def many(number: int) -> Iterator[Record]:
        return (Record("order", f"{each:08}", b"%064x" % (each * 7919) * 20, 1) for each in range(number))

    def peak(number: int) -> int:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        file = io.BytesIO()
        write_backup(file, many(number), PASSWORD, NOW, Tally())
        held = len(file.getvalue())
        file.seek(0)
        assert sum(1 for _ in Backup(file, PASSWORD).records()) == number
        return tracemalloc.get_traced_memory()[1] - before - 2 * held

    tracemalloc.start()
    try:
        few, more = peak(1_000), peak(10_000)
    finally:
        tracemalloc.stop()
    assert more < few + (1 << 20)
