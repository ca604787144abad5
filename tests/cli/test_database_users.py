"""What `--postgres` prints is for pg_hba.conf and pg_ident.conf: it means one user and nothing else."""

from pathlib import Path

import pytest
from cryptography import x509

from privet import CertificateAuthority, MemoryStore
from privet.acme.identifiers import from_text
from privet.ca import CLIENT, KeyType, keys
from privet.cli.failures import Failure
from privet.cli.postgresql import Database, read_database


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ca.pem").touch()
    return tmp_path


def certificate(common_name: str | None, *names: str) -> x509.Certificate:
    ca = CertificateAuthority(MemoryStore())
    ca.init()
    identifiers = [from_text(name) for name in names]
    key = keys.generate(KeyType.P256).public_key()
    prepared = ca.prepare(key, identifiers, common_name=common_name, profile=CLIENT)
    return x509.load_pem_x509_certificate(ca.sign(prepared).cert_pem)


def database(text: str) -> Database:
    found, mistakes = read_database(text)
    assert found is not None, mistakes
    return found


@pytest.mark.parametrize(
    ("text", "user", "rule"),
    [
        ("epoch_user", "epoch_user", "hostssl all epoch_user all"),
        ("all", "all", 'hostssl all "all" all'),
        ("+admins", "+admins", 'hostssl all "+admins" all'),
        ('a "b", c', 'a "b", c', 'hostssl all "a ""b"", c" all'),
        ("postgresql://Epoch%20User@h/all", "Epoch User", 'hostssl "all" "Epoch User" all'),
        ("postgresql://u@h/replication", "u", 'hostssl "replication" u all'),
    ],
)
def test_words_mean_nothing_but_themselves(folder: Path, text: str, user: str, rule: str) -> None:
    told = database(text).document(folder, certificate(user))
    assert told["user"] == user
    assert told["pg_hba"] == f"{rule} cert clientcert=verify-full"
    assert "pg_ident" not in told


def test_a_name_is_mapped(folder: Path) -> None:
    told = database("epoch_user").document(folder, certificate(None, "app.internal", "b.internal"))
    assert told["pg_ident"] == "privet app.internal epoch_user"
    assert told["pg_hba"].endswith(" cert clientcert=verify-full map=privet")


def test_what_cannot_be_used_is_said(folder: Path) -> None:
    with pytest.raises(Failure, match="'root_user', which nobody asked for"):
        database("epoch_user").document(folder, certificate("root_user", "app.internal"))
    with pytest.raises(Failure, match="has no common name, and PostgreSQL looks at nothing else"):
        database("epoch_user").document(folder, certificate(None, "10.0.0.7"))
    for pattern in ("/^.*$", "postgresql://%2Fx@h/", "postgresql://u@h/%2Fx"):
        _, (mistake,) = read_database(pattern)
        assert "names that begin with a slash" in mistake
    _, (mistake,) = read_database("postgresql://u@h/a%0Ahost%20all%20all%20all%20trust")
    assert "characters that pg_hba.conf cannot have" in mistake
    with pytest.raises(Failure, match=r"there is no CA in .*: say which one it is with --ca-file"):
        database("epoch_user").document(folder / "other", certificate("epoch_user"))
