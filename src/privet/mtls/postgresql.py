"""PostgreSQL: how its clients are told of a certificate, in the one URL that libpq, psycopg and asyncpg read alike.

The law of this module: what it writes always verifies the server, its name included, and no password is in it.
"""

from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from privet.mtls.config import TLSConfig
from privet.mtls.contexts import TLSConfigError

SCHEMES = ("postgresql", "postgres")


def postgresql_dsn(url: str, tls: TLSConfig) -> str:
    """The URL of a database, `postgresql://USER@HOST:PORT/DATABASE`, with what a client needs to show the certificate
    and to verify the server: `sslmode=verify-full`, `sslcert`, `sslkey`, `sslrootcert`. What is left out of the URL,
    clients take from their environment (`PGHOST`, `PGDATABASE`).

    A password of the key is not in it; clients take it as `sslpassword`.

    Raises `ValueError` for what is no such URL or says something else about TLS, and `TLSConfigError` if certificate
    or CA are missing.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or not parts.username or parts.fragment:
        raise ValueError("it is not the URL of a user's database, which is postgresql://USER@HOST:PORT/DATABASE")
    if parts.password is not None:
        raise ValueError("leave the password out of the URL: it is a certificate that says who connects")
    given = parse_qsl(parts.query, keep_blank_values=True)
    if said := [name for name, _ in given if name.startswith("ssl") or name == "password"]:
        raise ValueError(f"leave {', '.join(said)} out of the URL: what is needed is filled in")
    if tls.certificate_path is None or tls.ca_certificates_path is None:
        raise TLSConfigError(
            "a client needs its certificate and the CA: give certificate_path and ca_certificates_path"
        )
    files = {
        "sslcert": tls.certificate_path,
        "sslkey": tls.private_key_path or tls.certificate_path,
        "sslrootcert": tls.ca_certificates_path,
    }
    named = {name: str(Path(path).expanduser().absolute()) for name, path in files.items()}
    query = urlencode([*given, ("sslmode", "verify-full"), *named.items()], safe="/", quote_via=quote)
    return f"postgresql://{parts.netloc}{parts.path}?{query}"
