"""Row E12: contexts that follow renewal, one connection of one time."""

import gc
import logging
import os
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.mtls.nodes import Authority, Node, serial_shown, shake

from privet.mtls import LiveTLS, TLSConfig, TLSConfigError, client_ssl_context, server_ssl_context


@pytest.fixture
def ca() -> Authority:
    return Authority()


@pytest.fixture
def first(ca: Authority) -> Node:
    return ca.node()


@pytest.fixture
def folder(ca: Authority, first: Node, tmp_path: Path) -> Path:
    first.write(tmp_path)
    (tmp_path / "ca.pem").write_bytes(ca.pem)
    return tmp_path


def from_files(folder: Path) -> LiveTLS:
    return TLSConfig(folder / "node.crt", folder / "node.key", folder / "ca.pem").live()


def shown(live: LiveTLS) -> tuple[int, int]:
    """What both sides of it show to each other now."""
    client, server = shake(live.server_context, live.client_context)
    return serial_shown(client), serial_shown(server)


def test_a_renewal_is_for_the_connections_made_after_it(ca: Authority, first: Node) -> None:
    live = LiveTLS(first.cert, first.key, ca.pem)
    contexts = live.server_context, live.client_context
    open_ones = shake(*contexts)
    for _ in range(2):
        renewed = ca.node()
        live.on_renewed(renewed)
        assert shown(live) == (renewed.serial, renewed.serial)
        assert (live.server_context, live.client_context) == contexts, "they are given out once"
        assert live.material.cert == renewed.cert
    client, server = open_ones
    client.write(b"still here")
    assert serial_shown(client) == first.serial
    assert server.version() == "TLSv1.3"


def test_trust_follows_too_and_old_roots_go(ca: Authority, first: Node) -> None:
    live = LiveTLS(first.cert, first.key, ca.pem)
    other = Authority("Second CA")
    newcomer, old = other.node(), ca.node()

    def may_come_in(node: Node) -> bool:
        try:
            shake(live.server_context, client_ssl_context(node.cert, node.key, ca.pem + other.pem))
            shake(server_ssl_context(node.cert, node.key, ca.pem + other.pem), live.client_context)
        except ssl.SSLError:
            return False
        return True

    assert (may_come_in(old), may_come_in(newcomer)) == (True, False)
    live.replace(ca_cert_pem=ca.pem + other.pem)
    assert (may_come_in(old), may_come_in(newcomer)) == (True, True)
    live.replace(cert_pem=newcomer.cert, key_pem=newcomer.key)
    assert (may_come_in(old), may_come_in(newcomer)) == (True, True)
    live.replace(ca_cert_pem=other.pem)
    assert (may_come_in(old), may_come_in(newcomer)) == (False, True)


def test_revocation_lists_follow(ca: Authority, first: Node) -> None:
    live = LiveTLS(first.cert, first.key, ca.pem, crl_pem=ca.revocation_list())
    other = ca.node()
    client = client_ssl_context(other.cert, other.key, ca.pem)
    shake(live.server_context, client)
    live.replace(crl_pem=ca.revocation_list([other]))
    with pytest.raises(ssl.SSLError):
        shake(live.server_context, client)


def test_what_cannot_be_used_changes_nothing(ca: Authority, first: Node) -> None:
    live = LiveTLS(first.cert, first.key, ca.pem)
    other = ca.node()
    with pytest.raises(TLSConfigError, match="does not belong"):
        live.replace(cert_pem=other.cert, key_pem=first.key)
    with pytest.raises(TLSConfigError, match="without its certificate"):
        live.replace(key_pem=other.key)
    with pytest.raises(TLSConfigError, match="those to trust"):
        live.replace(cert_pem=other.cert, key_pem=other.key, ca_cert_pem=b"")
    with pytest.raises(FileNotFoundError):
        live.replace(ca_cert_pem="/nowhere/ca.pem")
    assert shown(live) == (first.serial, first.serial)


def test_what_could_not_be_used_is_not_looked_at_any_more(ca: Authority, folder: Path, first: Node) -> None:
    live = from_files(folder)
    (folder / "other.crt").write_bytes(ca.node().cert)
    with pytest.raises(TLSConfigError):
        live.replace(cert_pem=folder / "other.crt", key_pem=folder / "node.key")
    renewed = ca.node()
    renewed.write(folder)
    assert live.refresh()
    assert shown(live) == (renewed.serial, renewed.serial)


def test_files_are_looked_at(ca: Authority, folder: Path, first: Node) -> None:
    live = from_files(folder)
    assert live.refresh() is False
    for _ in range(2):
        renewed = ca.node()
        renewed.write(folder)
        assert live.refresh() is True
        assert live.refresh() is False
        assert shown(live) == (renewed.serial, renewed.serial)


def test_half_a_renewal_is_none(ca: Authority, folder: Path, first: Node) -> None:
    live = from_files(folder)
    renewed = ca.node()
    (folder / "node.key").write_bytes(renewed.key)
    for _ in range(2):
        with pytest.raises(TLSConfigError, match="does not belong"):
            live.refresh()
    assert shown(live) == (first.serial, first.serial)
    (folder / "node.crt").unlink()
    with pytest.raises(FileNotFoundError):
        live.refresh()
    (folder / "node.crt").write_bytes(renewed.cert)
    assert live.refresh() is True
    assert shown(live) == (renewed.serial, renewed.serial)


def test_a_folder_that_is_switched_by_a_link_is_followed(ca: Authority, folder: Path) -> None:
    """As certbot's `live` and Kubernetes' secrets are."""
    nodes = [ca.node(), ca.node()]
    for name, node in zip(("one", "two"), nodes, strict=True):
        (folder / name).mkdir()
        node.write(folder / name)
        (folder / name / "ca.pem").write_bytes(ca.pem)
    current = folder / "current"
    current.symlink_to("one")
    live = from_files(current)
    assert shown(live)[0] == nodes[0].serial
    (folder / "next").symlink_to("two")
    (folder / "next").replace(current)
    assert live.refresh()
    assert shown(live)[0] == nodes[1].serial


def test_files_that_are_only_touched_change_nothing(folder: Path) -> None:
    live = from_files(folder)
    told: list[LiveTLS] = []
    live.on_change = told.append
    os.utime(folder / "node.crt", ns=(1, 1))
    assert live.refresh() is False
    assert told == []


def test_it_looks_by_itself_and_says_so(ca: Authority, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    changed = threading.Semaphore(0)
    live = TLSConfig(folder / "node.crt", folder / "node.key", folder / "ca.pem").live(lambda _: changed.release())
    with live.following(every=0.01), caplog.at_level(logging.WARNING, "privet.mtls"):
        for _ in range(2):
            renewed = ca.node()
            renewed.write(folder)
            assert changed.acquire(timeout=30)
            assert shown(live) == (renewed.serial, renewed.serial)
    assert not [thread for thread in threading.enumerate() if thread.name == "privet-tls"]
    for record in caplog.records:
        assert "stays" in record.message  # it may have looked between the two files


def test_what_it_is_told_to_do_then_may_fail(ca: Authority, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    changed = threading.Semaphore(0)

    def fail(live: LiveTLS) -> None:
        changed.release()
        raise RuntimeError("no such luck")

    live = TLSConfig(folder / "node.crt", folder / "node.key", folder / "ca.pem").live(fail)
    with live.following(every=0.01):
        for _ in range(2):
            renewed = ca.node()
            renewed.write(folder)
            assert changed.acquire(timeout=30)
    assert shown(live)[0] == renewed.serial
    assert "no such luck" in caplog.text


def test_what_a_program_sets_up_stays_set_up(ca: Authority, first: Node) -> None:
    live = LiveTLS(first.cert, first.key, ca.pem)
    live.server_context.set_alpn_protocols(["h2", "http/1.1"])
    live.client_context.set_alpn_protocols(["http/1.1"])
    live.client_context.maximum_version = ssl.TLSVersion.TLSv1_2
    live.client_context.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")

    def agreed() -> tuple[object, ...]:
        end = shake(live.server_context, live.client_context)[0]
        cipher = end.cipher()
        assert cipher is not None
        return end.selected_alpn_protocol(), end.version(), cipher[0]

    expected = ("http/1.1", "TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384")
    assert agreed() == expected
    live.on_renewed(ca.node())
    assert agreed() == expected
    live.client_context.set_alpn_protocols(["h2"])
    live.client_context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    assert agreed() == ("h2", "TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256")


def test_it_needs_somebody_to_trust_and_something_to_follow(first: Node, folder: Path) -> None:
    with pytest.raises(TLSConfigError, match="whom to trust"):
        LiveTLS(first.cert, first.key)
    with pytest.raises(TLSConfigError, match="nothing to follow"):
        TLSConfig(ca_certificates_path=folder / "ca.pem").live()


def test_contexts_that_were_superseded_are_not_kept(ca: Authority, first: Node) -> None:
    live = LiveTLS(first.cert, first.key, ca.pem)

    def contexts() -> Iterator[ssl.SSLContext]:
        gc.collect()
        return (each for each in gc.get_objects() if isinstance(each, ssl.SSLContext))

    live.on_renewed(ca.node())
    before = len(list(contexts()))
    for _ in range(5):
        live.on_renewed(ca.node())
    assert len(list(contexts())) == before


def test_every_connection_is_of_one_time_however_often_it_changes(ca: Authority, first: Node) -> None:
    """Certificate, key and trust go over together: no handshake ever meets half of a change."""
    live = LiveTLS(first.cert, first.key, ca.pem)
    other = Authority("Second CA")
    both = ca.pem + other.pem
    live.replace(ca_cert_pem=both)
    nodes = [ca.node(), other.node(), ca.node()]
    serials = {first.serial, *(node.serial for node in nodes)}
    over = threading.Event()
    seen: list[int] = []
    failures: list[BaseException] = []

    def connect() -> None:
        try:
            while not over.is_set():
                seen.extend(shown(live))
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=connect) for _ in range(3)]
    for thread in threads:
        thread.start()
    while len(seen) < 300 and not failures:
        for node in nodes:
            live.replace(cert_pem=node.cert, key_pem=node.key, ca_cert_pem=both)
    over.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(serials & set(seen)) == len(set(seen)) > 1


def test_a_session_of_before_is_not_resumed_after_a_change(ca: Authority, first: Node) -> None:
    """TLS 1.2 remembers sessions without tickets, and whoever resumes one shows no certificate."""
    live = LiveTLS(first.cert, first.key, ca.pem)
    client = client_ssl_context(first.cert, first.key, ca.pem)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    for _ in range(2):
        session = shake(live.server_context, client)[0].session
        live.on_renewed(ca.node())
        assert not shake(live.server_context, client, session=session)[0].session_reused
