from urllib.parse import parse_qsl, urlsplit

import psycopg
import pytest

from privet import TLSConfig, TLSConfigError, postgresql_dsn

TLS = TLSConfig("/etc/epoch/it's/client & co.crt", "/etc/epoch/client.key", "/etc/epoch/ca.crt", key_password="secret")


def test_clients_read_what_was_written() -> None:
    dsn = postgresql_dsn("postgresql://epoch%20user@[::1]:5433/a%2Fb?application_name=x%26y", TLS)
    assert psycopg.conninfo.conninfo_to_dict(dsn) == {
        "user": "epoch user",
        "host": "::1",
        "port": "5433",
        "dbname": "a/b",
        "application_name": "x&y",
        "sslmode": "verify-full",
        "sslcert": "/etc/epoch/it's/client & co.crt",
        "sslkey": "/etc/epoch/client.key",
        "sslrootcert": "/etc/epoch/ca.crt",
    }
    assert "secret" not in dsn


def test_a_key_in_the_same_file_and_nothing_but_a_user() -> None:
    dsn = postgresql_dsn("postgres://epoch_user@", TLSConfig("/node.pem", ca_certificates_path="/ca.crt"))
    assert dict(parse_qsl(urlsplit(dsn).query))["sslkey"] == "/node.pem"
    assert psycopg.conninfo.conninfo_to_dict(dsn)["user"] == "epoch_user"


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("mysql://epoch_user@db.internal/production", "is not the URL of a user's database"),
        ("postgresql://db.internal/production", "is not the URL of a user's database"),
        ("epoch_user", "is not the URL of a user's database"),
        ("postgresql://epoch_user@[::1/production", "Invalid IPv6 URL"),
        ("postgresql://epoch_user:secret@db.internal/", "leave the password out"),
        ("postgresql://epoch_user@db.internal/?password=secret", "leave password out"),
        ("postgresql://epoch_user@db.internal/?sslmode=disable&sslcert=x", "leave sslmode, sslcert out"),
    ],
)
def test_what_is_something_else_is_refused(url: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        postgresql_dsn(url, TLS)
    assert "secret" not in str(caught.value)


def test_certificate_and_ca_have_to_be_there() -> None:
    with pytest.raises(TLSConfigError, match="needs its certificate and the CA"):
        postgresql_dsn("postgresql://epoch_user@db.internal/", TLSConfig("node.crt"))
