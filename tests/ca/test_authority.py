import logging
import math
import ssl
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID
from tests.ca.tier import DAY, NOON, Clock, Tier
from tests.certificates import (
    Party,
    assert_is_ca,
    assert_is_leaf,
    make_csr,
    openssl,
    openssl_verify,
    tls_handshake,
)

from privet.acme.identifiers import BadIdentifier, from_text
from privet.bundle import CertBundle
from privet.ca import (
    CLIENT,
    DEFAULT,
    AuthorityError,
    BadCSR,
    CertificateAuthority,
    KeyType,
    WeakKey,
    WrongStatus,
    keys,
)
from privet.ca.tbs import der, to_pem
from privet.stores import Conflict, FileStore, MemoryStore, Record, Store, open_store


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(
    params=["memory:", "file:///{}/store", "sqlite:///{}/privet.db", "postgresql"],
    ids=lambda url: url.partition(":")[0],
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = request.param.format(tmp_path)
    if url == "postgresql":
        url = request.getfixturevalue("postgresql").new_database()
    with open_store(url) as store:
        yield store


@pytest.fixture
def ca(clock: Clock) -> CertificateAuthority:
    ca = CertificateAuthority(MemoryStore(), now=clock)
    ca.init(cn="Test CA")
    return ca


def leaf(bundle: CertBundle) -> x509.Certificate:
    return x509.load_pem_x509_certificate(bundle.cert_pem)


def party(bundle: CertBundle) -> Party:
    return Party(bundle.fullchain_pem, bundle.key_pem)


# --- the authority itself ---


def test_init_makes_a_root(store: Store) -> None:
    ca = CertificateAuthority(store)
    assert repr(ca) == "<CertificateAuthority 'root', not initialized>"
    ca.init(cn="My Service Mesh CA", validity_days=30)
    assert ca.initialized
    assert_is_ca(ca.root_cert, cn="My Service Mesh CA")
    assert ca.root_cert.not_valid_after_utc - ca.root_cert.not_valid_before_utc == timedelta(days=30)
    assert ca.not_after == ca.root_cert.not_valid_after_utc
    assert ca.root_cert_pem == ca.chain_pem == ca.root_cert.public_bytes(Encoding.PEM)
    openssl_verify(ca.root_cert_pem, ca.root_cert_pem, purpose="any")
    shown = openssl("x509", "-noout", "-fingerprint", "-sha256", input=ca.root_cert_pem).decode().strip()
    assert shown == f"sha256 Fingerprint={ca.fingerprint}"


@pytest.mark.parametrize("days", [0, -1, math.nan, 1e12, 3_000_000])
def test_a_root_that_would_never_end_or_never_begin_is_refused(ca: CertificateAuthority, days: float) -> None:
    with pytest.raises(ValueError):
        CertificateAuthority(ca.store, "other").init(validity_days=days)
    assert ca.store.get("ca", "other") is None


@pytest.mark.parametrize("minutes", [1, 30, 60, 61, 24 * 60])
def test_a_root_that_lives_for_a_short_time_lives_as_long_as_was_asked_and_signs(clock: Clock, minutes: float) -> None:
    ca = CertificateAuthority(MemoryStore(), now=clock)
    ca.init(validity_days=minutes / 24 / 60)
    span = ca.root_cert.not_valid_after_utc - ca.root_cert.not_valid_before_utc
    assert span == timedelta(minutes=minutes)
    assert ca.not_after - NOON > span * 0.9
    assert ca.issue("a.internal").expires_at == ca.not_after


def test_a_root_that_would_hardly_live_is_refused(clock: Clock) -> None:
    with pytest.raises(ValueError, match="has to live for a minute at least"):
        CertificateAuthority(MemoryStore(), now=clock).init(validity_days=59 / 86400)


def test_init_loads_the_root_that_is_there(store: Store) -> None:
    first, second = CertificateAuthority(store), CertificateAuthority(store)
    first.init(cn="first")
    second.init(cn="second")
    second.init(cn="third")
    assert first.root_cert == second.root_cert
    third = CertificateAuthority(store)
    assert third.load()
    certificate = third.sign(third.prepare(keys.generate(KeyType.P256).public_key(), [from_text("a.internal")]))
    openssl_verify(certificate.cert_pem, first.root_cert_pem, name="a.internal")


def test_several_authorities_share_one_store(store: Store) -> None:
    root, turnstone = CertificateAuthority(store), CertificateAuthority(store, name="turnstone")
    root.init(cn="root CA")
    assert not turnstone.load()
    turnstone.init(cn="turnstone CA")
    assert root.root_cert != turnstone.root_cert
    ours, theirs = root.issue("a.internal"), turnstone.issue("a.internal")
    assert [c.serial for c in root.certificates("a.internal")] == [ours.serial]
    assert [c.serial for c in turnstone.certificates()] == [theirs.serial]
    assert root.certificate(theirs.serial) is None
    with pytest.raises(AuthorityError, match="no certificate"):
        root.revoke(theirs.serial)
    with pytest.raises(AssertionError, match="verification failed"):
        openssl_verify(ours.cert_pem, turnstone.root_cert_pem)


@pytest.mark.parametrize("key_type", KeyType)
def test_a_root_may_have_any_kind_of_key(key_type: KeyType) -> None:
    ca = CertificateAuthority(MemoryStore())
    ca.init(key_type=key_type)
    assert_is_ca(ca.root_cert, cn="privet Internal CA")
    bundle = ca.issue("a.internal")
    assert_is_leaf(leaf(bundle), issuer=ca.root_cert, names=["a.internal"])
    tls_handshake(party(bundle), ca.root_cert_pem, name="a.internal", client=party(bundle))


def test_an_encrypted_authority_opens_with_its_password_alone(store: Store) -> None:
    ca = CertificateAuthority(store, key_password=b"s3cret")
    ca.init()
    record = store.get("ca", "root")
    assert record is not None
    assert record.files["key.pem"].startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    again = CertificateAuthority(store, key_password=b"s3cret")
    assert again.load()
    assert again.root_cert == ca.root_cert
    for password, complaint in ((None, "password is missing"), (b"wrong", "another password")):
        with pytest.raises(AuthorityError, match=f"'root' in the store cannot be used: .*{complaint}") as caught:
            CertificateAuthority(store, key_password=password).init()
        assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_a_password_for_an_authority_that_is_not_encrypted_is_a_mistake_somebody_should_know_of() -> None:
    store = MemoryStore()
    CertificateAuthority(store).init()
    with pytest.raises(AuthorityError, match="is not encrypted"):
        CertificateAuthority(store, key_password=b"s3cret").init()


def test_an_empty_password_is_not_taken_for_none() -> None:
    with pytest.raises(ValueError, match="an empty password would encrypt nothing"):
        CertificateAuthority(MemoryStore(), key_password=b"")
    with pytest.raises(ValueError):
        keys.to_pem(keys.generate(KeyType.P256), b"")


@pytest.mark.parametrize("file", ["cert.pem", "key.pem"])
def test_a_damaged_authority_is_an_error_and_never_replaced(file: str) -> None:
    store = MemoryStore()
    CertificateAuthority(store).init()
    record = store.get("ca", "root")
    assert record is not None
    for files in ({**record.files, file: b"damaged"}, {k: v for k, v in record.files.items() if k != file}):
        damaged = record._replace(files=files)
        broken = MemoryStore()
        broken.commit(damaged._replace(version=0))
        with pytest.raises(AuthorityError, match="cannot be used"):
            CertificateAuthority(broken).init()
        kept = broken.get("ca", "root")
        assert kept is not None
        assert kept.files == files


def test_a_certificate_beside_another_roots_key_is_noticed() -> None:
    store, other = MemoryStore(), MemoryStore()
    for each in (store, other):
        CertificateAuthority(each).init()
    mine, theirs = store.get("ca", "root"), other.get("ca", "root")
    assert mine is not None
    assert theirs is not None
    store.commit(mine._replace(files={**mine.files, "key.pem": theirs.files["key.pem"]}))
    with pytest.raises(AuthorityError, match="does not belong"):
        CertificateAuthority(store).init()


def test_a_folder_with_a_certificate_that_is_no_ca_is_noticed() -> None:
    store = MemoryStore()
    server = Tier("server", ca=False, signs=False)
    store.commit(Record("ca", "root", files={"cert.pem": server.cert_pem, "key.pem": server.key_pem}))
    with pytest.raises(AuthorityError, match="CN=server is not a CA"):
        CertificateAuthority(store).init()


def test_a_ca_that_a_person_or_another_program_put_into_the_folder_serves(clock: Clock, tmp_path: Path) -> None:
    folder, theirs = tmp_path / "ca" / "root", Tier("theirs")
    folder.mkdir(parents=True)
    (folder / "cert.pem").write_bytes(theirs.cert_pem)
    (folder / "key.pem").write_bytes(openssl("ec", input=theirs.key_pem))  # traditional
    with FileStore(tmp_path) as store:
        ca = CertificateAuthority(store, now=clock)
        ca.init(cn="never made")
        assert ca.root_cert == theirs.cert
        assert_is_leaf(leaf(ca.issue("a.internal")), issuer=theirs.cert, names=["a.internal"])


def test_before_init_everything_says_what_to_do() -> None:
    ca = CertificateAuthority(MemoryStore(), "turnstone")
    attempts: list[Callable[[], object]] = [
        lambda: ca.root_cert_pem,
        lambda: ca.fingerprint,
        lambda: ca.chain_pem,
        lambda: ca.issue("a.internal"),
        lambda: ca.prepare(keys.generate(KeyType.P256).public_key(), [from_text("a.internal")]),
    ]
    for attempt in attempts:
        with pytest.raises(AuthorityError, match=r"'turnstone' is not initialized; call init\(\) first"):
            attempt()


INIT = """
import sys
from privet.ca import CertificateAuthority
from privet.stores import open_store
sys.stdin.readline()
with open_store(sys.argv[1]) as store:
    ca = CertificateAuthority(store)
    ca.init()
    bundle = ca.issue("worker-1.internal")
    print(ca.fingerprint, format(bundle.serial, "x"))
"""


@pytest.mark.parametrize("scheme", ["file", "sqlite"])
def test_eight_processes_that_call_init_at_once_have_one_root(scheme: str, tmp_path: Path) -> None:
    url = f"{scheme}:///{tmp_path / 'store'}"
    processes = [
        subprocess.Popen([sys.executable, "-c", INIT, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("now\n")
        process.stdin.flush()
    lines = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * 8
    fingerprints, serials = zip(*lines, strict=True)
    with open_store(url) as store:
        ca = CertificateAuthority(store)
        assert ca.load()
        assert set(fingerprints) == {ca.fingerprint}
        assert {f"{c.serial:x}" for c in ca.certificates("worker-1.internal")} == set(serials)
        for certificate in ca.certificates():
            openssl_verify(certificate.cert_pem, ca.root_cert_pem, name="worker-1.internal")
            assert_key_fits(certificate.files)
        current = store.get("certs", "worker-1.internal")
        assert current is not None
        assert_key_fits(current.files)


def assert_key_fits(files: Mapping[str, bytes]) -> None:
    key = keys.from_pem(files["key.pem"])
    assert x509.load_pem_x509_certificate(files["cert.pem"]).public_key() == key.public_key()


def test_threads_that_init_and_issue_at_once_lose_nothing(store: Store) -> None:
    start = threading.Barrier(8)
    bundles: list[CertBundle] = []
    roots: set[str] = set()

    def work() -> None:
        ca = CertificateAuthority(store)
        start.wait()
        ca.init()
        roots.add(ca.fingerprint)
        bundles.extend(ca.issue("worker-1.internal") for _ in range(3))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(roots) == 1
    ca = CertificateAuthority(store)
    ca.load()
    kept = {certificate.serial: certificate for certificate in ca.certificates()}
    assert len(bundles) == len(kept) == 24
    for bundle in bundles:
        assert kept[bundle.serial].files["key.pem"] == bundle.key_pem
        assert kept[bundle.serial].status == "valid"


# --- issue ---


def test_issue_gives_a_certificate_with_its_key_and_its_chain(store: Store) -> None:
    ca = CertificateAuthority(store)
    ca.init()
    bundle = ca.issue("worker-1.internal")
    assert (bundle.domain, bundle.domains) == ("worker-1.internal", ("worker-1.internal",))
    certificate = leaf(bundle)
    assert_is_leaf(certificate, issuer=ca.root_cert, names=["worker-1.internal"])
    assert bundle.expires_at == certificate.not_valid_after_utc
    assert bundle.serial == certificate.serial_number
    assert bundle.fullchain_pem == bundle.cert_pem + ca.root_cert_pem
    assert keys.from_pem(bundle.key_pem).public_key() == certificate.public_key()
    openssl_verify(bundle.cert_pem, ca.root_cert_pem, chain_pem=bundle.fullchain_pem, name="worker-1.internal")
    openssl_verify(bundle.cert_pem, ca.root_cert_pem, purpose="sslclient")
    tls_handshake(party(bundle), ca.root_cert_pem, name="worker-1.internal")
    tls_handshake(party(bundle), ca.root_cert_pem, name="worker-1.internal", client=party(bundle))


@pytest.mark.parametrize("key_type", [*KeyType, "P-384"])
def test_issue_for_every_kind_of_key(ca: CertificateAuthority, key_type: KeyType) -> None:
    ca._now = lambda: datetime.now(UTC)
    bundle = ca.issue("a.internal", key_type=key_type)
    assert_is_leaf(leaf(bundle), issuer=ca.root_cert, names=["a.internal"])
    tls_handshake(party(bundle), ca.root_cert_pem, name="a.internal", client=party(bundle))


def test_handshakes_that_must_fail_do() -> None:
    ca, stranger = CertificateAuthority(MemoryStore()), CertificateAuthority(MemoryStore())
    for each in (ca, stranger):
        each.init()
    server = party(ca.issue("a.internal"))
    client_only = party(ca.issue("a.internal", client=True))
    tls_handshake(server, ca.root_cert_pem, name="a.internal", client=client_only)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        tls_handshake(server, ca.root_cert_pem, name="b.internal")
    with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
        tls_handshake(client_only, ca.root_cert_pem, name="a.internal")
    with pytest.raises(ssl.SSLCertVerificationError):
        tls_handshake(server, stranger.root_cert_pem, name="a.internal")
    with pytest.raises(ssl.SSLCertVerificationError):
        tls_handshake(server, ca.root_cert_pem, name="a.internal", client=party(stranger.issue("a.internal")))
    expired = CertificateAuthority(ca.store, now=Clock(datetime.now(UTC) - timedelta(minutes=30)))
    expired.load()
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        tls_handshake(party(expired.issue("a.internal", validity_hours=0.25)), ca.root_cert_pem, name="a.internal")


def test_names_are_read_as_people_write_them(ca: CertificateAuthority) -> None:
    bundle = ca.issue(["Bücher.Internal", "10.0.0.1", "2001:DB8:0::1", "bücher.internal"])
    expected = ["xn--bcher-kva.internal", "10.0.0.1", "2001:db8::1"]
    assert list(bundle.domains) == expected
    assert_is_leaf(leaf(bundle), issuer=ca.root_cert, names=expected)


def test_a_string_that_is_an_address_becomes_an_ip_name(ca: CertificateAuthority) -> None:
    bundle = ca.issue("10.0.0.1")
    assert_is_leaf(leaf(bundle), issuer=ca.root_cert, names=["10.0.0.1"])
    openssl_verify(bundle.cert_pem, ca.root_cert_pem, name="10.0.0.1", at=NOON)


def test_client_certificates_are_for_clients_alone(ca: CertificateAuthority) -> None:
    bundle = ca.issue("worker-1.internal", client=True, validity_hours=6)
    assert_is_leaf(leaf(bundle), issuer=ca.root_cert, names=["worker-1.internal"], client=True)
    kept = ca.certificate(bundle.serial)
    assert kept is not None
    assert kept.profile == CLIENT.name
    assert kept.not_after - kept.not_before == timedelta(hours=6)


@pytest.mark.parametrize(
    ("options", "span"),
    [
        ({}, timedelta(hours=24)),
        ({"validity_hours": 24}, timedelta(hours=24)),
        ({"validity_days": 90}, timedelta(days=90)),
        ({"validity_days": 90, "validity_hours": 6}, timedelta(hours=6)),
        ({"validity_hours": 0.5}, timedelta(minutes=30)),
    ],
)
def test_the_span_is_what_was_asked(ca: CertificateAuthority, options: dict[str, float], span: timedelta) -> None:
    certificate = leaf(ca.issue("a.internal", **options))  # type: ignore[arg-type]
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc == span
    assert certificate.not_valid_before_utc < NOON


@pytest.mark.parametrize(
    "options",
    [
        {"validity_days": 0},
        {"validity_days": -1},
        {"validity_hours": 0},
        {"validity_hours": 0.0001},
        {"validity_days": math.nan},
        {"validity_days": math.inf},
        {"validity_days": 1e12},
    ],
)
def test_spans_that_are_none_are_refused(ca: CertificateAuthority, options: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        ca.issue("a.internal", **options)  # type: ignore[arg-type]
    assert ca.certificates() == []


def test_a_long_span_is_cut_and_one_beyond_the_end_of_time_refused(ca: CertificateAuthority) -> None:
    assert ca.issue("a.internal", validity_days=2_000_000).expires_at == ca.not_after
    with pytest.raises(AuthorityError, match="beyond the year 9999"):
        ca.issue("a.internal", validity_days=3_000_000)


def test_a_leaf_never_outlives_its_issuer_and_the_log_says_so(
    ca: CertificateAuthority, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    clock.now = ca.not_after - timedelta(hours=1)
    bundle = ca.issue("a.internal")
    assert bundle.expires_at == ca.not_after
    kept = ca.certificate(bundle.serial)
    assert kept is not None
    assert kept.clamped
    assert "a.internal is cut to" in caplog.text
    assert_is_leaf(leaf(bundle), issuer=ca.root_cert, names=["a.internal"])


def test_an_expired_authority_signs_nothing(ca: CertificateAuthority, clock: Clock) -> None:
    clock.now = ca.not_after
    with pytest.raises(AuthorityError, match="cannot sign"):
        ca.issue("a.internal")


@pytest.mark.parametrize("name", ["", "a..b", "under_score.internal", "a\0b", "-a.internal", f"{'a' * 64}.internal"])
def test_what_is_not_a_name_is_refused_before_anything_is_kept(ca: CertificateAuthority, name: str) -> None:
    with pytest.raises(BadIdentifier):
        ca.issue(["good.internal", name])
    assert ca.certificates() == []


def test_a_certificate_for_nobody_is_refused(ca: CertificateAuthority) -> None:
    with pytest.raises(ValueError, match="at least one name"):
        ca.issue([])


def test_an_identifier_is_not_taken_for_a_list_of_names(ca: CertificateAuthority) -> None:
    """It would be one for a name `dns`, and another."""
    with pytest.raises(BadIdentifier, match="names are text"):
        ca.issue(from_text("a.internal"))
    assert ca.certificates() == []


def test_wildcards_are_for_those_who_say_so(ca: CertificateAuthority) -> None:
    with pytest.raises(BadIdentifier, match="wildcard=True"):
        ca.issue("*.w.internal")
    bundle = ca.issue(["*.w.internal", "*.Bücher.internal"], wildcard=True)
    assert_is_leaf(leaf(bundle), issuer=ca.root_cert, names=["*.w.internal", "*.xn--bcher-kva.internal"])
    openssl_verify(bundle.cert_pem, ca.root_cert_pem, name="any.w.internal", at=NOON)


def test_certificates_of_one_name_never_overwrite_one_anothers_record_or_key(store: Store) -> None:
    ca = CertificateAuthority(store)
    ca.init()
    bundles = [ca.issue("worker-1.internal") for _ in range(3)]
    csr = make_csr(keys.generate(KeyType.P256), ["worker-1.internal"])
    from_csr = ca.issue_from_csr(csr)
    kept = {certificate.serial: certificate for certificate in ca.certificates("worker-1.internal")}
    assert len(kept) == 4
    for bundle in bundles:
        assert kept[bundle.serial].cert_pem == bundle.cert_pem
        assert kept[bundle.serial].files == bundle.files
    assert kept[from_csr.serial].files == {}
    current = store.get("certs", "worker-1.internal")
    assert current is not None
    assert current.files == bundles[-1].files


def test_the_current_bundle_reads_back(store: Store) -> None:
    ca = CertificateAuthority(store)
    ca.init()
    ca.issue("worker-1.internal")
    bundle = ca.issue(["worker-1.internal", "10.0.0.1"])
    record = store.get("certs", "worker-1.internal")
    assert record is not None
    assert CertBundle.from_record(record).located(store) == bundle


def test_a_file_store_has_the_bundle_as_files_that_only_the_owner_reads(tmp_path: Path) -> None:
    with FileStore(tmp_path / "store") as store:
        ca = CertificateAuthority(store, "turnstone")
        ca.init()
        bundle = ca.issue("worker-1.internal")
        assert bundle.key_path == tmp_path / "store" / "certs" / "worker-1.internal" / "key.pem"
        assert bundle.fullchain_path is not None
        assert bundle.key_path.read_bytes() == bundle.key_pem
        assert bundle.fullchain_path.read_bytes() == bundle.fullchain_pem
        assert (tmp_path / "store/ca/turnstone/cert.pem").read_bytes() == ca.root_cert_pem
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(bundle.fullchain_path, bundle.key_path)
        private = list((tmp_path / "store").rglob("*.pem"))
        assert len(private) >= 8
        for path in private:
            assert path.stat().st_mode & 0o777 == 0o600, path
            assert path.parent.stat().st_mode & 0o777 == 0o700, path


def test_without_files_there_are_no_paths(ca: CertificateAuthority) -> None:
    bundle = ca.issue("a.internal")
    assert (bundle.fullchain_path, bundle.key_path) == (None, None)


class Onlooker(MemoryStore):
    """A store that remembers what was committed."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[tuple[Record, ...]] = []

    def commit(self, *records: Record, **options: Any) -> None:
        super().commit(*records, **options)
        self.commits.append(records)


def test_serial_and_to_be_signed_bytes_are_on_record_before_the_signature() -> None:
    store = Onlooker()
    ca = CertificateAuthority(store)
    ca.init()
    bundle = ca.issue("a.internal")
    _, (prepared,), (signed, current) = store.commits
    assert (prepared.kind, prepared.version) == ("certificate", 0)
    assert prepared.unique == signed.unique == (f"serial:{bundle.serial:x}",)
    assert (signed.id, signed.version) == (prepared.id, 1)
    assert current.kind == "certs"
    assert b'"status":"prepared"' in prepared.body
    assert b"der" not in prepared.body
    assert b'"status":"valid"' in signed.body


class Contested(MemoryStore):
    """A store where somebody else replaces a bundle just before we do."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def commit(self, *records: Record, **options: Any) -> None:
        if any(record.kind == "certs" for record in records) and self.times:
            self.times -= 1
            current = self.get("certs", "a.internal")
            super().commit(current or Record("certs", "a.internal", b"{}"))
        super().commit(*records, **options)


def test_a_contested_bundle_is_tried_again() -> None:
    ca = CertificateAuthority(Contested(3))
    ca.init()
    bundle = ca.issue("a.internal")
    kept = ca.certificate(bundle.serial)
    assert kept is not None
    assert kept.files == bundle.files


def test_a_conflict_about_something_else_is_not_tried_for_ever() -> None:
    class Full(MemoryStore):
        def commit(self, *records: Record, **options: Any) -> None:
            if any(record.kind == "certs" for record in records):
                raise Conflict("somebody has that name")
            super().commit(*records, **options)

    ca = CertificateAuthority(Full())
    ca.init()
    with pytest.raises(Conflict):
        ca.issue("a.internal")


def test_what_has_expired_long_ago_goes_by_itself(ca: CertificateAuthority, clock: Clock) -> None:
    for _ in range(5):
        ca.issue("a.internal")
    clock.now += timedelta(days=7)
    ca.issue("b.internal")
    assert len(ca.certificates()) == 6
    for name in ("c.internal", "d.internal"):  # whether the clock was right, the next to come can tell
        clock.now += timedelta(days=1)
        ca.issue(name)
    assert [c.identifiers[0].value for c in ca.certificates()] == ["b.internal", "c.internal", "d.internal"]


def test_a_clock_that_leaps_ahead_and_is_put_right_costs_no_record(ca: CertificateAuthority, clock: Clock) -> None:
    """Lesson 24: deleted records of certificates still valid."""
    right = clock.now
    first = ca.issue("a.internal")
    clock.now = right + timedelta(days=3650 - 1)
    ca.issue("b.internal")
    clock.now = right + timedelta(minutes=1)
    ca.issue("c.internal")
    assert ca.certificate(first.serial)


# --- from a CSR ---


@pytest.mark.parametrize("encoding", ["DER", "PEM"])
def test_a_csr_gives_a_certificate_for_its_key_and_its_names(ca: CertificateAuthority, encoding: str) -> None:
    key = keys.generate(KeyType.P384)
    csr = make_csr(key, ["a.internal", "10.0.0.1"], cn="b.internal")
    if encoding == "PEM":
        csr = x509.load_der_x509_csr(csr).public_bytes(Encoding.PEM)
    bundle = ca.issue_from_csr(csr, client=True, validity_hours=2)
    names = ["b.internal", "a.internal", "10.0.0.1"]
    assert list(bundle.domains) == names
    assert_is_leaf(leaf(bundle), issuer=ca.root_cert, names=names, client=True)
    assert leaf(bundle).public_key() == key.public_key()
    assert bundle.key_pem == b""
    assert (bundle.key_path, bundle.fullchain_path) == (None, None)
    kept = ca.certificate(bundle.serial)
    assert kept is not None
    assert kept.version == 2


def test_nothing_else_from_a_csr_comes_into_the_certificate(ca: CertificateAuthority) -> None:
    wishes = [x509.TLSFeature([x509.TLSFeatureType.status_request]), x509.OCSPNoCheck()]
    csr = make_csr(keys.generate(KeyType.P256), ["a.internal"], extensions=wishes)
    assert_is_leaf(leaf(ca.issue_from_csr(csr)), issuer=ca.root_cert, names=["a.internal"])


@pytest.mark.parametrize("csr", [b"", b"nonsense", b"-----BEGIN CERTIFICATE REQUEST-----\nnonsense"])
def test_a_bad_csr_is_refused(ca: CertificateAuthority, csr: bytes) -> None:
    with pytest.raises(BadCSR):
        ca.issue_from_csr(csr)


def test_a_csr_for_a_wildcard_needs_the_callers_word(ca: CertificateAuthority) -> None:
    csr = make_csr(keys.generate(KeyType.P256), ["*.w.internal"])
    with pytest.raises(BadIdentifier, match="wildcard"):
        ca.issue_from_csr(csr)
    assert ca.issue_from_csr(csr, wildcard=True).domain == "*.w.internal"


# --- prepare and sign ---


def test_prepare_and_sign_touch_nothing(clock: Clock) -> None:
    store = Onlooker()
    ca = CertificateAuthority(store, now=clock)
    ca.init()
    public_key = keys.generate(KeyType.P256).public_key()
    prepared = ca.prepare(public_key, [from_text("a.internal")], requester="account", request="order")
    assert (prepared.status, prepared.authority, prepared.profile) == ("prepared", "root", DEFAULT.name)
    assert (prepared.requester, prepared.request) == ("account", "order")
    signed = ca.sign(prepared)
    assert signed.status == "valid"
    assert signed.der is not None
    certificate = x509.load_der_x509_certificate(signed.der)
    assert certificate.tbs_certificate_bytes == prepared.tbs
    assert_is_leaf(certificate, issuer=ca.root_cert, names=["a.internal"])
    assert ca.fullchain_pem(signed) == signed.cert_pem + ca.root_cert_pem
    assert len(store.commits) == 1


def test_signing_again_after_a_crash_gives_the_same_certificate_but_for_its_signature(ca: CertificateAuthority) -> None:
    prepared = ca.prepare(keys.generate(KeyType.P256).public_key(), [from_text("a.internal")])
    one, two = (x509.load_der_x509_certificate(ca.sign(prepared).der or b"") for _ in range(2))
    assert one.tbs_certificate_bytes == two.tbs_certificate_bytes


def test_only_what_this_authority_prepared_is_signed_and_only_once(ca: CertificateAuthority) -> None:
    prepared = ca.prepare(keys.generate(KeyType.P256).public_key(), [from_text("a.internal")])
    with pytest.raises(WrongStatus, match="signed already"):
        ca.sign(ca.sign(prepared))
    with pytest.raises(AuthorityError, match="belongs to authority 'other'"):
        ca.sign(prepared._replace(authority="other"))


def test_a_profile_has_certificates_for_its_own_kinds_of_keys(ca: CertificateAuthority) -> None:
    only_ec = replace(DEFAULT, name="ec", key_types=frozenset({KeyType.P256}))
    ca.prepare(keys.generate(KeyType.P256).public_key(), [from_text("a.internal")], profile=only_ec)
    with pytest.raises(WeakKey, match="'ec' is not for Ed25519 keys"):
        ca.prepare(keys.generate(KeyType.ED25519).public_key(), [from_text("a.internal")], profile=only_ec)


def test_the_common_name_of_a_client_may_be_any_text(store: Store, clock: Clock) -> None:
    ca = CertificateAuthority(store, now=clock)
    ca.init()
    key = keys.generate(KeyType.P256).public_key()
    prepared = ca.prepare(key, [], common_name="epoch_user", profile=CLIENT)
    store.commit(prepared.to_record())
    signed = ca.sign(prepared._replace(version=1))
    store.commit(signed.to_record())
    certificate = x509.load_pem_x509_certificate(signed.cert_pem)
    assert_is_leaf(certificate, issuer=ca.root_cert, names=[], client=True, cn="epoch_user")
    openssl_verify(signed.cert_pem, ca.root_cert_pem, purpose="sslclient", at=NOON)
    (found,) = ca.certificates("epoch_user")
    assert found == ca.certificate(signed.serial) == signed._replace(version=2)
    assert (found.names, found.common_name, found.identifiers) == (("epoch_user",), "epoch_user", ())

    both = ca.prepare(key, [from_text("a.internal")], common_name="epoch_user", profile=CLIENT)
    assert both.names == ("epoch_user", "a.internal")
    certificate = x509.load_pem_x509_certificate(ca.sign(both).cert_pem)
    assert_is_leaf(certificate, issuer=ca.root_cert, names=["a.internal"], client=True, cn="epoch_user")


def test_the_common_name_of_a_server_is_a_dns_name(ca: CertificateAuthority) -> None:
    key, names = keys.generate(KeyType.P256).public_key(), [from_text("a.internal")]
    with pytest.raises(ValueError, match="'epoch_user' is no DNS name, and other common names are for clients alone"):
        ca.prepare(key, names, common_name="epoch_user")
    with pytest.raises(ValueError, match="at least one name"):
        ca.prepare(key, [], common_name="b.internal")
    certificate = x509.load_pem_x509_certificate(ca.sign(ca.prepare(key, names, common_name="b.internal")).cert_pem)
    assert_is_leaf(certificate, issuer=ca.root_cert, names=["a.internal"], cn="b.internal")


@pytest.mark.parametrize("cn", ["", "x" * 65, "line\nbreak", "nul\0"])
def test_what_is_no_common_name_is_refused(ca: CertificateAuthority, cn: str) -> None:
    key = keys.generate(KeyType.P256).public_key()
    with pytest.raises(ValueError, match="1 to 64 printable characters"):
        ca.prepare(key, [], common_name=cn, profile=CLIENT)


def test_a_weak_key_is_never_certified(ca: CertificateAuthority) -> None:
    weak = rsa.generate_private_key(65537, 1024)
    with pytest.raises(WeakKey):
        ca.prepare(weak.public_key(), [from_text("a.internal")])


# --- what was issued ---


def test_certificates_are_listed_page_by_page_in_the_order_of_their_making(
    ca: CertificateAuthority, clock: Clock
) -> None:
    other = CertificateAuthority(ca.store, "other", now=clock)
    other.init()
    serials = []
    for i in range(7):
        serials.append(ca.issue(f"w{i}.internal").serial)
        other.issue(f"w{i}.internal")
        clock.now += timedelta(seconds=1)
    pages = []
    after = ""
    while page := ca.certificates(after=after, limit=3):
        pages.append([certificate.serial for certificate in page])
        after = page[-1].id
    assert pages == [serials[:3], serials[3:6], serials[6:]]
    assert [c.serial for c in ca.certificates("W3.internal")] == [serials[3]]
    assert ca.certificates("nobody.internal") == []
    with pytest.raises(BadIdentifier):
        ca.certificates("no name")


def test_a_revoked_certificate_keeps_its_files_and_says_when_and_why(store: Store, clock: Clock) -> None:
    ca = CertificateAuthority(store, now=clock)
    ca.init()
    bundle = ca.issue("a.internal")
    clock.now += timedelta(hours=1)
    revoked = ca.revoke(bundle.serial, 4)
    assert (revoked.status, revoked.revoked, revoked.reason) == ("revoked", NOON + timedelta(hours=1), 4)
    assert ca.certificate(bundle.serial) == revoked
    assert revoked.files == bundle.files
    with pytest.raises(WrongStatus, match="is revoked; it cannot be revoked"):
        ca.revoke(bundle.serial)
    with pytest.raises(AuthorityError, match="no certificate with the serial number 1"):
        ca.revoke(1)
    with pytest.raises(ValueError, match="reason"):
        ca.revoke(bundle.serial, 2)


def test_eight_who_revoke_at_once_revoke_once(ca: CertificateAuthority) -> None:
    bundle = ca.issue("a.internal")
    start = threading.Barrier(8)
    outcomes: list[str] = []

    def revoke() -> None:
        start.wait()
        try:
            outcomes.append(ca.revoke(bundle.serial).status)
        except WrongStatus:
            outcomes.append("too late")

    threads = [threading.Thread(target=revoke) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["revoked"] + ["too late"] * 7


def test_a_revocation_that_meets_another_change_looks_again() -> None:
    class Busy(MemoryStore):
        busy = True

        def commit(self, *records: Record, **options: Any) -> None:
            if b'"status":"revoked"' in records[0].body and self.busy:
                self.busy = False
                current = self.get(records[0].kind, records[0].id)
                assert current is not None
                super().commit(current)
            super().commit(*records, **options)

    ca = CertificateAuthority(Busy())
    ca.init()
    assert ca.revoke(ca.issue("a.internal").serial).version == 4


# --- other people's CAs ---


def openssl_root(folder: Path, *options: str, subject: str = "/CN=Old CA") -> tuple[bytes, bytes]:
    """A root as a person makes it with one command."""
    cert, key = folder / "ca.pem", folder / "ca.key"
    openssl(
        "req", "-x509", "-keyout", key, "-out", cert, "-subj", subject,
        "-addext", "keyUsage=critical,keyCertSign,cRLSign", *options,
    )  # fmt: skip
    return cert.read_bytes(), key.read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        ["-newkey", "rsa:2048", "-nodes"],
        ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-nodes"],
        ["-newkey", "ed25519", "-nodes"],
        ["-newkey", "rsa:2048", "-passout", "pass:s3cret"],
    ],
    ids=["RSA", "P-384", "Ed25519", "encrypted RSA"],
)
@pytest.mark.parametrize("subject", ["/CN=Old CA", "/C=DE/O=Bücher & Söhne/OU=a+CN=b/CN=Old CA"])
def test_a_root_made_by_openssl_is_taken_over(store: Store, options: list[str], subject: str, tmp_path: Path) -> None:
    cert_pem, key_pem = openssl_root(tmp_path, *options, "-utf8", "-multivalue-rdn", subject=subject)
    ca = CertificateAuthority(store, key_password=b"ours")
    ca.import_ca(cert_pem, key_pem, b"s3cret" if b"ENCRYPTED" in key_pem else None)
    assert ca.root_cert == x509.load_pem_x509_certificate(cert_pem)
    again = CertificateAuthority(store, key_password=b"ours")
    again.init(cn="never made")
    bundle = again.issue("a.internal")
    assert_is_leaf(leaf(bundle), issuer=ca.root_cert, names=["a.internal"])
    openssl_verify(bundle.cert_pem, cert_pem, name="a.internal")
    tls_handshake(party(bundle), cert_pem, name="a.internal", client=party(bundle))


@pytest.mark.parametrize("password", [None, b"s3cret"])
def test_a_key_in_the_traditional_format_is_taken_over(password: bytes | None, tmp_path: Path) -> None:
    cert_pem, key_pem = openssl_root(tmp_path, "-newkey", "rsa:2048", "-nodes")
    encryption = ["-aes256", "-passout", "pass:s3cret"] if password else []
    traditional = openssl("rsa", "-traditional", *encryption, input=key_pem)
    assert traditional.startswith(b"-----BEGIN RSA PRIVATE KEY-----")
    ca = CertificateAuthority(MemoryStore())
    ca.import_ca(cert_pem, traditional, password)
    tls_handshake(party(ca.issue("a.internal")), cert_pem, name="a.internal")


def test_a_root_without_key_usage_is_taken_over_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`openssl req -x509` makes them so; only strict verifiers mind."""
    cert, key = tmp_path / "ca.pem", tmp_path / "ca.key"
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-subj", "/CN=CastyCA")
    ca = CertificateAuthority(MemoryStore())
    ca.import_ca(cert.read_bytes(), key.read_bytes())
    assert "the CA lacks key usage" in caplog.text
    bundle = ca.issue("10.0.0.1")
    (tmp_path / "leaf.pem").write_bytes(bundle.cert_pem)
    openssl("verify", "-CAfile", cert, tmp_path / "leaf.pem")


def test_an_intermediate_signs_when_it_comes_with_its_chain(clock: Clock) -> None:
    root = Tier("root", end=NOON + 10 * DAY)
    middle = Tier("middle", root, path_length=1)
    lower = Tier("lower", middle, path_length=0, end=NOON + 50 * DAY)
    store = MemoryStore()
    CertificateAuthority(store, now=clock).import_ca(lower.cert_pem + middle.cert_pem + root.cert_pem, lower.key_pem)
    ca = CertificateAuthority(store, now=clock)
    ca.init()
    assert ca.root_cert == root.cert
    assert ca.root_cert_pem == root.cert_pem
    assert ca.chain_pem == lower.cert_pem + middle.cert_pem + root.cert_pem
    assert ca.not_after == root.cert.not_valid_after_utc
    bundle = ca.issue("a.internal", validity_days=30)
    assert bundle.expires_at == root.cert.not_valid_after_utc
    assert_is_leaf(leaf(bundle), issuer=lower.cert, names=["a.internal"])
    openssl_verify(bundle.cert_pem, root.cert_pem, chain_pem=bundle.fullchain_pem, name="a.internal", at=NOON)


SERVER, CLIENT_ = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
EMAIL, ANY = ExtendedKeyUsageOID.EMAIL_PROTECTION, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
FOR_CLIENTS = x509.ExtendedKeyUsage([CLIENT_])
STRANGE = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\0")


def names_of(subtree: bytes) -> x509.UnrecognizedExtension:
    """Name constraints that permit one subtree, such as nobody would write."""
    value = der(0x30, der(0xA0, der(0x30, subtree)))
    return x509.UnrecognizedExtension(ExtensionOID.NAME_CONSTRAINTS, value)


ROOT = Tier("root")
MIDDLE = Tier("middle", ROOT)


@pytest.mark.parametrize(
    ("chain", "complaint"),
    [
        ([Tier("leaf", ca=False, signs=False)], "CN=leaf is not a CA"),
        ([Tier("mute", signs=False)], "CN=mute must not sign certificates"),
        ([Tier("old", end=NOON)], "CN=old ended at 2026-06-01 12:00:00.* and cannot sign"),
        ([Tier("young", begin=NOON + timedelta(seconds=1))], "CN=young begins at 2026-06-01 12:00:01"),
        ([MIDDLE], "CN=middle was not issued by the next certificate, and is no root"),
        ([MIDDLE, Tier("root")], "CN=middle was not issued by the next"),
        ([ROOT, MIDDLE], "CN=root was not issued by the next"),
        ([Tier("middle", short := Tier("root", path_length=0)), short], "CN=root must not have 1 CAs below it"),
        (
            [Tier("middle", weak := Tier("root", key=rsa.generate_private_key(65537, 1024))), weak],
            "key of CN=root is refused: RSA keys of 1024 bits",
        ),
        ([Tier("middle", old := Tier("root", end=NOON)), old], "CN=root ended at"),
        (
            [Tier("mail", says=[x509.ExtendedKeyUsage([EMAIL])])],
            "CN=mail must not vouch for servers or clients: no usage is left",
        ),
        # OpenSSL does not take "any" for a server's or a client's.
        ([Tier("any", says=[x509.ExtendedKeyUsage([ANY])])], "CN=any must not vouch for servers or clients"),
        (
            [
                Tier("client", server := Tier("server", says=[x509.ExtendedKeyUsage([SERVER])]), says=[FOR_CLIENTS]),
                server,
            ],
            "CN=client and CN=server must not vouch",
        ),
        ([Tier("odd", says=[STRANGE])], r"CN=odd has a critical extension .*: 1\.2\.3\.4"),
        ([Tier("middle", odd := Tier("root", says=[STRANGE])), odd], "CN=root has a critical extension"),
        ([Tier("p", says=[x509.PolicyConstraints(0, None)])], "CN=p requires policies of all certificates below it"),
        (
            [Tier("ip", says=[names_of(b"\x87\x08\x0a\0\0\0\xff\0\xff\0")])],
            "CN=ip has an extension that cannot be read",
        ),
        ([Tier("dns", says=[names_of(b"\x82\x02a.")])], "CN=dns .* not understood: the DNS name"),
        ([Tier("deep", says=[names_of(b"\x82\x01a\x80\x01\x01")])], "CN=deep .* not understood: their encoding"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_verifiers_would_refuse_is_no_ca(clock: Clock, chain: list[Tier], complaint: str) -> None:
    store = MemoryStore()
    ca = CertificateAuthority(store, now=clock)
    with pytest.raises(AuthorityError, match=complaint):
        ca.import_ca(b"".join(tier.cert_pem for tier in chain), chain[0].key_pem)
    assert not ca.initialized
    assert store.get("ca", "root") is None


@pytest.mark.parametrize(("usage", "client"), [(SERVER, False), (CLIENT_, True)])
def test_a_ca_for_servers_or_clients_alone_signs_for_them_and_says_so(
    clock: Clock, caplog: pytest.LogCaptureFixture, usage: x509.ObjectIdentifier, client: bool
) -> None:
    tier = Tier("half", says=[x509.ExtendedKeyUsage([usage])], critical=False)
    ca = CertificateAuthority(MemoryStore(), now=clock)
    ca.import_ca(tier.cert_pem, tier.key_pem)
    assert "for servers alone, or for clients alone" in caplog.text
    bundle = ca.issue("a.internal", client=client)
    openssl_verify(bundle.cert_pem, tier.cert_pem, purpose="sslclient" if client else "sslserver", at=NOON)


def test_a_ca_for_servers_signs_nothing_for_clients_alone(clock: Clock) -> None:
    tier = Tier("half", says=[x509.ExtendedKeyUsage([SERVER, EMAIL])], critical=False)
    ca = CertificateAuthority(MemoryStore(), now=clock)
    ca.import_ca(tier.cert_pem, tier.key_pem)
    with pytest.raises(AuthorityError, match=r"the authority is for serverAuth alone, .* profile 'client' is not"):
        ca.issue("a.internal", client=True)
    assert ca.certificates() == []


def test_what_a_ca_says_beside_all_that_is_no_hindrance(clock: Clock) -> None:
    says = [
        x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("2.5.29.32.0"), None)]),
        x509.PolicyConstraints(None, 0),
        x509.InhibitAnyPolicy(0),
        x509.ExtendedKeyUsage([SERVER, CLIENT_]),
    ]
    root = Tier("root", says=says)
    ca = CertificateAuthority(MemoryStore(), now=clock)
    ca.import_ca(root.cert_pem, root.key_pem)
    openssl_verify(ca.issue("a.internal").cert_pem, root.cert_pem, at=NOON)


@pytest.mark.parametrize(
    ("cert_pem", "key_pem", "password", "complaint"),
    [
        (ROOT.cert_pem, MIDDLE.key_pem, None, "does not belong"),
        (ROOT.cert_pem, b"nonsense", None, "key of the CA cannot be used: the private key cannot be read"),
        (ROOT.cert_pem, keys.to_pem(ROOT.key, b"s3cret"), None, "password is missing"),
        (ROOT.cert_pem, keys.to_pem(ROOT.key, b"s3cret"), b"wrong", "has another password"),
        (ROOT.cert_pem, ROOT.key_pem, b"s3cret", "is not encrypted"),
        (b"", ROOT.key_pem, None, "certificate of the CA cannot be read"),
        (ROOT.cert_pem[:100], ROOT.key_pem, None, "certificate of the CA cannot be read"),
        (ROOT.cert.public_bytes(Encoding.DER), ROOT.key_pem, None, "certificate of the CA cannot be read"),
    ],
)
def test_keys_and_certificates_that_cannot_be_used_are_named(
    clock: Clock, cert_pem: bytes, key_pem: bytes, password: bytes | None, complaint: str
) -> None:
    with pytest.raises(AuthorityError, match=complaint) as caught:
        CertificateAuthority(MemoryStore(), now=clock).import_ca(cert_pem, key_pem, password)
    shown = "".join(traceback.format_exception(caught.value))
    assert "s3cret" not in shown
    assert ROOT.key_pem.splitlines()[1].decode() not in shown


@pytest.mark.parametrize("options", [["rsa:1024"], ["ec", "-pkeyopt", "ec_paramgen_curve:P-521"]], ids=str)
def test_a_ca_with_a_key_we_would_not_certify_is_refused(options: list[str], tmp_path: Path) -> None:
    cert_pem, key_pem = openssl_root(tmp_path, "-newkey", *options, "-nodes")
    with pytest.raises(AuthorityError, match=r"key of the CA cannot be used: .* are not accepted"):
        CertificateAuthority(MemoryStore()).import_ca(cert_pem, key_pem)


def test_a_ca_certificate_changed_in_any_octet_is_refused(clock: Clock) -> None:
    whole = ROOT.cert.public_bytes(Encoding.DER)
    unused_bits = len(whole) - len(ROOT.cert.signature) - 1
    ca = CertificateAuthority(MemoryStore(), now=clock)
    for at in {*range(len(whole))} - {unused_bits}:
        for value in (whole[at] ^ 1, whole[at] ^ 0x80, 0, 0xFF):
            if value != whole[at]:
                with pytest.raises(AuthorityError):
                    ca.import_ca(to_pem(whole[:at] + bytes([value]) + whole[at + 1 :]), ROOT.key_pem)


def test_an_authority_is_never_overwritten_by_an_import(clock: Clock, store: Store) -> None:
    ca = CertificateAuthority(store, now=clock)
    ca.init()
    with pytest.raises(AuthorityError, match="there already is an authority 'root'"):
        CertificateAuthority(store, now=clock).import_ca(ROOT.cert_pem, ROOT.key_pem)
    again = CertificateAuthority(store, now=clock)
    assert again.load()
    assert again.root_cert == ca.root_cert


# --- with files of its own ---


def test_a_key_that_is_elsewhere_is_in_no_store(clock: Clock, store: Store) -> None:
    one, two = (CertificateAuthority(store, now=clock) for _ in range(2))
    for ca in (one, two, one):  # several processes, and one that is started again
        ca.use(ROOT.cert_pem, ROOT.key_pem)
    record = store.get("ca", "root")
    assert record is not None
    assert dict(record.files) == {"cert.pem": ROOT.cert_pem}
    assert record.version == 1
    bundle = two.issue("web.internal")
    x509.load_pem_x509_certificate(bundle.cert_pem).verify_directly_issued_by(one.root_cert)
    assert [each.names for each in one.certificates()] == [("web.internal",)]
    without = CertificateAuthority(store, now=clock)
    for start in (without.load, without.init):
        with pytest.raises(AuthorityError, match="its key is not in the store"):
            start()


def test_files_of_another_authority_than_the_stores_are_refused(clock: Clock, store: Store) -> None:
    ca = CertificateAuthority(store, now=clock)
    ca.init()
    with pytest.raises(AuthorityError, match="the store has an authority 'root' with another certificate"):
        CertificateAuthority(store, now=clock).use(ROOT.cert_pem, ROOT.key_pem)
    CertificateAuthority(store, "other", now=clock).use(ROOT.cert_pem, ROOT.key_pem)
    again = CertificateAuthority(store, now=clock)
    assert again.load()
    assert again.root_cert == ca.root_cert


def test_a_key_in_the_store_beside_the_one_in_a_file_is_worth_a_word(
    clock: Clock, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    CertificateAuthority(store, now=clock).import_ca(ROOT.cert_pem, ROOT.key_pem)
    caplog.clear()
    CertificateAuthority(store, now=clock).use(ROOT.cert_pem, ROOT.key_pem)
    assert "the key of authority 'root' is in the store as well" in caplog.messages


def test_what_cannot_serve_is_refused_from_files_too(clock: Clock, store: Store) -> None:
    ca = CertificateAuthority(store, now=clock, key_password=b"secret")
    with pytest.raises(AuthorityError, match="is not encrypted"):
        ca.use(ROOT.cert_pem, ROOT.key_pem)
    clock.now = ca_end = ROOT.cert.not_valid_after_utc + timedelta(seconds=1)
    assert ca_end
    with pytest.raises(AuthorityError, match="ended"):
        CertificateAuthority(store, now=clock).use(ROOT.cert_pem, ROOT.key_pem)
    assert store.get("ca", "root") is None


# --- secrets ---


def test_private_keys_are_in_no_repr_and_in_no_log(caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
    caplog.set_level(logging.DEBUG)
    store = MemoryStore()
    ca = CertificateAuthority(store, key_password=b"s3cret", now=clock)
    ca.init()
    bundle = ca.issue("a.internal")
    ca.revoke(bundle.serial)
    record, certificate = store.get("ca", "root"), ca.certificate(bundle.serial)
    shown = f"{ca!r} {bundle!r} {record!r} {certificate!r} {ca.issuer!r} {caplog.text}"
    assert "a.internal" in shown
    assert "s3cret" not in shown
    assert "PRIVATE KEY" not in shown


def test_a_certificate_for_a_databases_user_is_the_current_one_of_that_name(tmp_path: Path) -> None:
    with FileStore(tmp_path) as store:
        ca = CertificateAuthority(store)
        ca.init()
        for user in ("epoch_user", "../epoch user", "app.internal"):
            bundle = ca.issue(common_name=user, client=True, validity_hours=6)
            assert (bundle.domain, bundle.common_name, bundle.domains) == (user, user, ())
            assert_is_leaf(
                x509.load_pem_x509_certificate(bundle.cert_pem), issuer=ca.root_cert, names=[], client=True, cn=user
            )
            assert bundle.key_path is not None
            assert bundle.key_path.read_bytes() == bundle.key_pem
            assert tmp_path in bundle.key_path.parents
        with pytest.raises(ValueError, match="needs at least one name"):
            ca.issue(common_name="epoch_user")
        with pytest.raises(ValueError, match="at least one name"):
            ca.issue(client=True)
        with pytest.raises(ValueError, match="cannot be read"):
            ca.issue("a.internal", key_pem=b"no key")
        both = ca.issue(["a.internal", "b.internal"], common_name="b.internal", client=True)
        assert (both.domain, both.common_name) == ("b.internal", "b.internal")
        assert ca.issue(["a.internal"], client=True).common_name is None


def test_clients_whose_names_differ_in_case_are_different_ones(ca: CertificateAuthority) -> None:
    for user in ("alice", "Alice", "App.Internal"):
        ca.issue(common_name=user, client=True)
    ca.issue("web.internal")
    for name in ("alice", "Alice", "App.Internal"):
        assert [found.names for found in ca.certificates(name)] == [(name,)]
    assert [found.names for found in ca.certificates("WEB.internal")] == [("web.internal",)]
    assert not ca.certificates("ALICE.internal")


def test_the_csr_of_a_client_may_have_any_common_name(ca: CertificateAuthority) -> None:
    key = keys.generate(KeyType.P256)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "epoch_user")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    der = csr.public_bytes(Encoding.DER)
    bundle = ca.issue_from_csr(der, client=True)
    assert_is_leaf(
        x509.load_pem_x509_certificate(bundle.cert_pem), issuer=ca.root_cert, names=[], client=True, cn="epoch_user"
    )
    with pytest.raises(BadCSR, match="bad name"):
        ca.issue_from_csr(der)
