"""A real PostgreSQL that lets in whose certificate has the user's name, and nobody else."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from tests.cli.command import Person
from tests.cli.test_node_daemon import until
from tests.interop.postgresql import BINARIES, PostgreSQL
from tests.interop.programs import ELSEWHERE, need, run

from privet import CertificateAuthority, FileStore, TLSConfig, postgresql_dsn

pytestmark = pytest.mark.interop

RULES = """
hostssl all asked_user all scram-sha-256
hostssl all turned_away all reject
hostssl all all all cert clientcert=verify-full
"""


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Person:
    person = Person(tmp_path_factory.mktemp("ca"))
    person.does("init")
    (person.folder / "secret").write_text("horse, battery & staple\n")
    return person


@pytest.fixture(scope="module")
def postgresql(ca: Person) -> Iterator[PostgreSQL]:
    with PostgreSQL() as running:
        tls = running.folder / "tls"
        ca.does("issue", "localhost", "--out", tls)
        give(tls, running.user)
        (tls / "ca.pem").write_text(ca.does("root").out)
        settings = {"ssl_cert_file": tls / "fullchain.pem", "ssl_key_file": tls / "key.pem"}
        running.speak_tls(settings | {"ssl_ca_file": tls / "ca.pem"}, RULES)
        for user in ("epoch_user", "other_user"):
            running.do(f"CREATE ROLE {user} LOGIN")
        yield running


def give(folder: Path, user: str) -> None:
    for path in folder.iterdir():
        shutil.chown(path, user)


def url(postgresql: PostgreSQL, user: str = "epoch_user", host: str = "localhost") -> str:
    return f"postgresql://{user}@{host}:{postgresql.port}/postgres"


def issued(ca: Person, postgresql: PostgreSQL, folder: Path, *options: str, user: str = "epoch_user") -> dict[str, Any]:
    """What `privet issue --postgres` says in JSON."""
    done = ca.does("issue", "--postgres", url(postgresql, user), "--out", folder, "--json", *options)
    told: dict[str, Any] = done.json["postgresql"]
    return told


def who_am_i(dsn: str, **more: Any) -> tuple[object, ...]:
    """The user, and the subject of the certificate, as the server knows them."""
    with psycopg.connect(dsn, **more) as connection:
        query = "SELECT current_user, client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        (found,) = connection.execute(query).fetchall()
        return tuple(found)


async def asyncpg_user(dsn: str, **more: Any) -> object:
    connection = await asyncpg.connect(dsn, **more)
    try:
        return await connection.fetchval("SELECT current_user")
    finally:
        await connection.close()


def refusal(dsn: str, **more: Any) -> str:
    with pytest.raises(psycopg.OperationalError) as caught:
        psycopg.connect(dsn, **more)
    return str(caught.value)


def test_psql_psycopg_asyncpg_and_sqlalchemy_connect_with_what_was_printed(
    ca: Person, postgresql: PostgreSQL, tmp_path: Path
) -> None:
    dsn = issued(ca, postgresql, tmp_path / "client")["dsn"]
    psql = need("psql", path=f"{ELSEWHERE}:{BINARIES}", source="the postgresql package")
    assert run(psql, dsn, "-At", "-c", "SELECT current_user") == "epoch_user\n"
    assert who_am_i(dsn) == ("epoch_user", "/CN=epoch_user")

    assert asyncio.run(asyncpg_user(dsn)) == "epoch_user"

    engine = create_engine(dsn.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT current_user")).scalar() == "epoch_user"
    engine.dispose()

    async def ask_alchemy() -> object:
        engine = create_async_engine("postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(dsn))
        try:
            async with engine.connect() as connection:
                return (await connection.execute(text("SELECT current_user"))).scalar()
        finally:
            await engine.dispose()

    assert asyncio.run(ask_alchemy()) == "epoch_user"


def test_where_host_and_database_are_left_out_the_environment_has_them(
    ca: Person, postgresql: PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = ca.does("issue", "--postgres", "epoch_user", "--out", tmp_path / "client", "--json")
    dsn = done.json["postgresql"]["dsn"]
    environment = {"PGHOST": "localhost", "PGPORT": str(postgresql.port), "PGDATABASE": "postgres"}
    psql = need("psql", path=f"{ELSEWHERE}:{BINARIES}", source="the postgresql package")
    assert run(psql, dsn, "-At", "-c", "SELECT current_user", env=environment) == "epoch_user\n"

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert asyncio.run(asyncpg_user(dsn)) == "epoch_user"
    assert who_am_i(dsn)[0] == "epoch_user"


@pytest.mark.parametrize("options", [(), ("--traditional",), ("--traditional", "--key-type", "RSA-2048")])
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_keys_in_each_form(
    ca: Person, postgresql: PostgreSQL, tmp_path: Path, options: tuple[str, ...], encrypted: bool
) -> None:
    secret = ("--password-file", str(ca.folder / "secret")) if encrypted else ()
    dsn = issued(ca, postgresql, tmp_path / "client", *options, *secret)["dsn"]
    password = (ca.folder / "secret").read_text().strip()
    more = {"sslpassword": password} if encrypted else {}
    assert "horse" not in dsn
    assert who_am_i(dsn, **more)[0] == "epoch_user"
    cert, key, root = (tmp_path / "client" / name for name in ("fullchain.pem", "key.pem", "ca.pem"))
    context = TLSConfig(cert, key, root, key_password=password if encrypted else None).client_context

    assert asyncio.run(asyncpg_user(url(postgresql), ssl=context)) == "epoch_user"
    if encrypted:
        assert "could not load private key" in refusal(dsn, sslpassword="wrong")


def test_from_python(ca: Person, postgresql: PostgreSQL, tmp_path: Path) -> None:
    """The authority of the server, in another store, as an application has it."""
    exported = tmp_path / "ca"
    with FileStore(tmp_path / "store") as store:
        authority = CertificateAuthority(store)
        authority.init()
        exported.write_bytes(authority.root_cert_pem)
        bundle = authority.issue(common_name="epoch_user", client=True)
        assert bundle.fullchain_path is not None
        dsn = postgresql_dsn(url(postgresql), TLSConfig(bundle.fullchain_path, bundle.key_path, exported))
        # It trusts another authority than the server's, as the server does.
        assert "certificate verify failed" in refusal(dsn)
        trusting = postgresql_dsn(
            url(postgresql), TLSConfig(bundle.fullchain_path, bundle.key_path, postgresql.folder / "tls/ca.pem")
        )
        assert "unknown ca" in refusal(trusting)


def test_nobody_else_is_let_in(ca: Person, postgresql: PostgreSQL, tmp_path: Path) -> None:
    other = issued(ca, postgresql, tmp_path / "other", user="other_user")["dsn"]
    assert who_am_i(other)[0] == "other_user"
    assert 'certificate authentication failed for user "epoch_user"' in refusal(other, user="epoch_user")
    trusted = {"sslmode": "verify-full", "sslrootcert": str(tmp_path / "other/ca.pem")}
    assert "requires a valid client certificate" in refusal(url(postgresql), **trusted)
    assert "no encryption" in refusal(url(postgresql), sslmode="disable")
    assert 'does not match host name "127.0.0.1"' in refusal(other, host="127.0.0.1")

    short = issued(ca, postgresql, tmp_path / "short", "--validity", "4s")["dsn"]
    until(lambda: "certificate expired" in _attempt(short), "the end of a certificate")


def _attempt(dsn: str) -> str:
    try:
        psycopg.connect(dsn).close()
    except psycopg.OperationalError as error:
        return str(error)
    return ""


def causes(person: Person, *arguments: str | Path) -> dict[str, str]:
    """What `privet doctor` finds: causes, and what it says of them."""
    findings = person.tries("doctor", *arguments, "--json").json["findings"]
    return {finding["cause"]: finding["says"] for finding in findings}


def test_the_doctor_says_why(ca: Person, postgresql: PostgreSQL, tmp_path: Path) -> None:
    dsn = issued(ca, postgresql, tmp_path / "client")["dsn"]
    ca.does("doctor", dsn)
    ca.does("doctor", f"postgresql://localhost:{postgresql.port}", "--ca", tmp_path / "client/ca.pem")
    assert "hostname-mismatch" in causes(ca, dsn.replace("@localhost", "@127.0.0.1"))
    mismatch = causes(ca, dsn.replace("epoch_user@", "other_user@"))
    assert list(mismatch) == ["user-mismatch"]
    assert "the common name of" in mismatch["user-mismatch"]
    away = causes(ca, dsn.replace("epoch_user@", "turned_away@"))
    assert list(away) == ["login-refused"], "it does not come to comparing the names"
    ca.does("issue", "10.0.0.7", "--out", tmp_path / "nameless")
    files = [tmp_path / "nameless" / name for name in ("fullchain.pem", "key.pem")]
    nameless = causes(ca, url(postgresql), "--cert", files[0], "--key", files[1], "--ca", tmp_path / "client/ca.pem")
    assert "nameless/fullchain.pem has no common name, and PostgreSQL looks at" in nameless["user-mismatch"]
    missing = causes(ca, url(postgresql))["client-certificate-missing"]
    assert "requires a valid client certificate" in missing
    who = f"epoch_user at localhost:{postgresql.port}"
    nowhere = causes(ca, dsn.replace("/postgres?", "/nothing?"))
    assert nowhere == {"login-refused": f'PostgreSQL refuses {who}: database "nothing" does not exist'}
    asked = causes(ca, dsn.replace("epoch_user@", "asked_user@"))
    assert list(asked) == ["no-certificate-login"]
    (tmp_path / "client/key.pem").chmod(0o644)
    assert list(causes(ca, dsn)) == ["key-permissions"]
    assert "has group or world access" in refusal(dsn)
    (tmp_path / "client/key.pem").chmod(0o600)


def test_the_doctor_knows_who_speaks_no_tls(ca: Person) -> None:
    with PostgreSQL() as plain:
        says = causes(ca, f"postgresql://localhost:{plain.port}")["no-tls"]
        assert says == f"the PostgreSQL at localhost:{plain.port} does not offer TLS"
    with ca.serves("--auto-approve") as serving:
        says = causes(ca, f"postgresql://localhost:{serving.port}")["no-tls"]
        assert says == f"what answers at localhost:{serving.port} is no PostgreSQL"
    for said in ("postgresql:///production", "postgresql://[::1/production", "postgres://host:port/"):
        assert "does not say where it is" in ca.tries("doctor", said).sentences[0]
    for said in ("postgresql://a..b/production", f"{'a' * 64}.internal:443"):
        assert "is no name of a host" in ca.tries("doctor", said).sentences[0]
    assert "is no name of a host" in ca.tries("doctor", "localhost:443", "--name", ".internal").sentences[0]
