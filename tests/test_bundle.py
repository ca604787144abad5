from datetime import UTC, datetime
from pathlib import Path

from privet.bundle import CertBundle
from privet.stores import FileStore, MemoryStore

BUNDLE = CertBundle(
    domain="*.a.internal",
    domains=("*.a.internal", "10.0.0.1"),
    cert_pem=b"leaf",
    fullchain_pem=b"leaf and root",
    key_pem=b"s3cret",
    expires_at=datetime(2026, 6, 1, 12, tzinfo=UTC),
    serial=2**127 + 1,
)


def test_what_is_read_from_a_record_is_what_was_written() -> None:
    record = BUNDLE.to_record()
    assert (record.kind, record.id, record.version) == ("certs", "*.a.internal", 0)
    assert dict(record.files) == {"cert.pem": b"leaf", "fullchain.pem": b"leaf and root", "key.pem": b"s3cret"}
    assert CertBundle.from_record(record) == BUNDLE
    assert BUNDLE.to_record(version=3).version == 3


def test_the_key_is_in_the_files_and_nowhere_else() -> None:
    assert b"s3cret" not in BUNDLE.to_record().body
    assert "s3cret" not in repr(BUNDLE)


def test_paths_are_there_where_the_store_has_files(tmp_path: Path) -> None:
    assert BUNDLE.located(MemoryStore()) == BUNDLE
    with FileStore(tmp_path) as store:
        store.commit(BUNDLE.to_record())
        located = BUNDLE.located(store)
        assert located.key_path is not None
        assert located.fullchain_path is not None
        assert located.key_path.read_bytes() == b"s3cret"
        assert located.fullchain_path.read_bytes() == b"leaf and root"
