import asyncio
import contextlib
import ssl
import tempfile
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from tests.certificates import assert_is_leaf

from privet import CertificateAuthority, MemoryStore, SQLiteStore, Store
from privet.cli.serve.tls import KIND, OwnCertificate

NAMES = ("ca.internal", "10.0.0.5", "::1")
DAY = timedelta(days=1)
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Clock:
    time = START

    def __call__(self) -> datetime:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


def authority(store: Store, clock: Callable[[], datetime]) -> CertificateAuthority:
    ca = CertificateAuthority(store, now=clock)
    ca.init()
    return ca


def shown(own: OwnCertificate) -> x509.Certificate:
    """What a handshake shows."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = own.context.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server)
    for side in (theirs, ours, theirs):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    der = theirs.getpeercert(binary_form=True)
    assert der
    return x509.load_der_x509_certificate(der)


def test_it_is_a_leaf_like_any_other_and_on_record(clock: Clock) -> None:
    ca = authority(MemoryStore(), clock)
    own = OwnCertificate(ca, NAMES, DAY, clock)
    own.refresh()
    assert_is_leaf(shown(own), issuer=ca.root_cert, names=NAMES)
    (recorded,) = ca.certificates()
    assert recorded.serial == shown(own).serial_number


def test_a_restart_goes_on_with_the_one_it_has(clock: Clock) -> None:
    ca = authority(MemoryStore(), clock)
    first, second = OwnCertificate(ca, NAMES, DAY, clock), OwnCertificate(ca, NAMES, DAY, clock)
    first.refresh()
    clock.time += DAY / 2
    second.refresh()
    assert shown(first) == shown(second)


def test_it_is_renewed_when_two_thirds_of_its_life_are_over(clock: Clock) -> None:
    ca = authority(MemoryStore(), clock)
    own = OwnCertificate(ca, NAMES, DAY, clock)
    due = own.refresh()
    first = shown(own)
    assert due == first.not_valid_before_utc + DAY * 2 / 3
    clock.time = due - timedelta(seconds=1)
    assert own.refresh() == due
    assert shown(own) == first
    clock.time = due
    assert own.refresh() == shown(own).not_valid_before_utc + DAY * 2 / 3 > due
    assert shown(own) != first


def test_what_has_expired_meanwhile_is_replaced_at_once(clock: Clock) -> None:
    ca = authority(MemoryStore(), clock)
    own = OwnCertificate(ca, NAMES, DAY, clock)
    own.refresh()
    clock.time += 3 * DAY
    OwnCertificate(ca, NAMES, DAY, clock).refresh()
    own.refresh()
    assert shown(own).not_valid_after_utc > clock.time


def test_another_root_needs_another_certificate(clock: Clock) -> None:
    store = MemoryStore()
    own = OwnCertificate(authority(store, clock), NAMES, DAY, clock)
    own.refresh()
    record = store.get("ca", "root")
    assert record
    other = authority(MemoryStore(), clock)
    found = other.store.get("ca", "root")
    assert found
    store.commit(type(record)(record.kind, record.id, version=record.version, files=found.files))
    ca = authority(store, clock)
    renewed = OwnCertificate(ca, NAMES, DAY, clock)
    renewed.refresh()
    assert_is_leaf(shown(renewed), issuer=ca.root_cert, names=NAMES)


def test_of_many_workers_one_renews_and_all_have_it(tmp_path: Path, clock: Clock) -> None:
    with SQLiteStore(tmp_path / "privet.db") as store:
        ca = authority(store, clock)
        workers = [OwnCertificate(ca, NAMES, DAY, clock) for _ in range(8)]
        for worker in workers:
            worker.refresh()
        assert len(ca.certificates()) == 1
        clock.time += DAY * 3 / 4
        threads = [threading.Thread(target=worker.refresh) for worker in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(ca.certificates()) == 2, "renewed once"
        for worker in workers:
            worker.refresh()
        assert len({shown(worker).serial_number for worker in workers}) == 1
        assert len(ca.certificates()) == 2


def test_when_the_one_who_renews_dies_another_does_it(clock: Clock) -> None:
    ca = authority(MemoryStore(), clock)
    own = OwnCertificate(ca, NAMES, DAY, clock)
    clock.time = own.refresh()
    record = ca.store.get(KIND, "_".join(("root", *NAMES)))
    assert record
    claimed = f'{{"claimed": {(clock.time + DAY / 10).timestamp()}}}'.encode()
    ca.store.commit(type(record)(KIND, record.id, claimed, record.version, expires=record.expires, files=record.files))
    own.refresh()
    assert len(ca.certificates()) == 1, "somebody is at it"
    clock.time += DAY / 10
    own.refresh()
    assert len(ca.certificates()) == 2


def test_its_key_is_in_a_file_only_for_as_long_as_it_takes(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    OwnCertificate(authority(MemoryStore(), clock), NAMES, DAY, clock).refresh()
    assert list(tmp_path.iterdir()) == []


def test_keeping_it_goes_on_when_the_store_fails_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    """In real time, since that is what it waits for."""

    class Broken(MemoryStore):
        broken = False

        def get(self, kind: str, id: str):  # type: ignore[no-untyped-def]
            if self.broken:
                self.broken = False
                raise OSError("the disk is away")
            return super().get(kind, id)

    async def story() -> None:
        store = Broken()
        ca = CertificateAuthority(store)
        ca.init()
        own = OwnCertificate(ca, NAMES, timedelta(seconds=3))
        own.refresh()
        first = shown(own)
        store.broken = True
        keeping = asyncio.create_task(own.keep())
        async with asyncio.timeout(30):
            while shown(own) == first:  # noqa: ASYNC110 - an SSLContext has no event for it
                await asyncio.sleep(0.05)
        keeping.cancel()

    asyncio.run(story())
    assert "could not be renewed, will try again: the disk is away" in caplog.text


def test_no_handshake_fails_while_it_is_renewed(clock: Clock) -> None:
    """Renewal happens in a thread; a handshake never finds the new certificate beside the old key."""
    own = OwnCertificate(authority(MemoryStore(), clock), NAMES, DAY, clock)
    own.refresh()
    over = threading.Event()

    def renew() -> None:
        for _ in range(150):
            clock.time += DAY
            own.refresh()
        over.set()

    renewing = threading.Thread(target=renew)
    renewing.start()
    serials = set()
    while not over.is_set():
        serials.add(shown(own).serial_number)
    renewing.join()
    assert len(serials) > 5
