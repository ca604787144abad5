"""The command line on a PostgreSQL that asks for passwords, and docs/postgresql.md, which does what it says."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from tests.cli.command import Person
from tests.interop.postgresql import PostgreSQL
from tests.wire import Wire

from privet.acme.identifiers import from_text
from privet.ca import CLIENT, CertificateAuthority, KeyType, keys
from privet.stores.postgres import PostgresStore

PAGE = (Path(__file__).parents[2] / "docs/postgresql.md").read_text()
BLOCKS = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
PASSWORDS = dict(re.findall(r"CREATE ROLE (\w+) LOGIN PASSWORD '(.*?)';", PAGE))
QUERIES = [block for block in BLOCKS if block.startswith("SELECT")]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    with PostgreSQL(password="superuser") as running:
        yield running


def asking(query: str, serial: str, account: str) -> bytes:
    """A query of the page, about a certificate that is there."""
    return query.replace("3f1c0a", serial).replace("00000197a2c7f04e", account).encode()


def test_it_can_be_followed(server: PostgreSQL, tmp_path: Path) -> None:
    def execute(block: str, database: str) -> None:
        for statement in filter(str.strip, block.split(";\n")):
            server.do(statement, database)

    def url(user: str, database: str) -> str:
        return f"postgresql://{user}@127.0.0.1:{server.port}/{database}"

    database, serving, auditing = (block for block in BLOCKS if block not in QUERIES)
    execute(database, "postgres")
    (tmp_path / "pgpass").write_text("".join(f"*:*:*:{user}:{word}\n" for user, word in PASSWORDS.items()))
    (tmp_path / "pgpass").chmod(0o600)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
        person = Person(tmp_path, url("privet", "privet"))
        person.does("init")
        execute(serving, "privet")
        execute(auditing, "privet")
        with Person(tmp_path, url("server", "privet")).serves("--auto-approve") as running:

            async def issue() -> str:
                async with httpx.AsyncClient() as http:
                    wire = Wire(http, running.base)
                    await wire.register()
                    await wire.issue("web.internal", "10.0.0.7")
                    assert wire.kid
                    return wire.kid.rpartition("/")[2]

            account = asyncio.run(issue())
        (listed,) = json.loads(person.does("list", "--json").out)
        with psycopg.connect(url("auditor", "privet"), autocommit=True) as auditor:
            asked = [asking(query, listed["serial"], account) for query in QUERIES]
            by_name, by_serial, by_account, ending, accounts, by_day = [
                auditor.execute(query).fetchall() for query in asked
            ]
            assert [(row[0], row[1], row[3]) for row in by_name] == [(listed["serial"], "valid", account)]
            assert [(row[0], row[1], row[3]) for row in by_serial] == [(["web.internal", "10.0.0.7"], "valid", account)]
            assert [(row[0], row[1]) for row in ending] == [(["web.internal", "10.0.0.7"], listed["serial"])]
            assert [row[:3] for row in by_account] == [(["web.internal", "10.0.0.7"], listed["serial"], "valid")]
            assert accounts == [(account, 1)]
            assert [count for _, count in by_day] == [1]
            for table in ("record", "index_name", "unique_name", "schema_version"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    auditor.execute(f"SELECT * FROM privet.{table}".encode())


def test_the_columns_are_those_it_names(server: PostgreSQL) -> None:
    PostgresStore(server.new_database()).close()
    with psycopg.connect(server.url("test_1"), autocommit=True) as somebody:
        columns = somebody.execute("SELECT * FROM privet.certificate").description
    assert columns
    told = PAGE.partition("has a row for each certificate:")[2].partition("There are no keys")[0]
    assert {column.name for column in columns} - {"kept_until"} == set(re.findall(r"`(\w+)`", told))


# As many as it takes for PostgreSQL to prefer an index.
MANY = 20_000
# Each record with its names, many times over: every text in which web.internal or an id is gets a number.
MULTIPLY = """
    INSERT INTO privet.record
    SELECT kind, id || n, version, mark, convert_to({0}, 'UTF8'), names, expires + n * interval '1 h'
    FROM privet.record, generate_series(1, {1}) AS n WHERE kind IN ('certificate', 'order');
    INSERT INTO privet.index_name SELECT kind, replace(name, 'web.', 'web' || n || '.')
        || CASE WHEN name LIKE 'account:%' THEN n::text ELSE '' END, id || n
    FROM privet.index_name, generate_series(1, {1}) AS n WHERE kind IN ('certificate', 'order');
    INSERT INTO privet.unique_name SELECT kind, name || n, id || n
    FROM privet.unique_name, generate_series(1, {1}) AS n WHERE kind = 'certificate';
    ANALYZE privet.record, privet.index_name, privet.unique_name
"""


def test_what_the_page_asks_for_is_found_in_indexes(server: PostgreSQL, tmp_path: Path) -> None:
    """Among many certificates, only those that are asked for are looked at; the last two questions are about all."""
    url = server.new_database()
    with Person(tmp_path, url).serves("--auto-approve") as running:

        async def issue() -> str:
            async with httpx.AsyncClient() as http:
                wire = Wire(http, running.base)
                await wire.register()
                await wire.issue("web.internal")
                assert wire.kid
                return wire.kid.rpartition("/")[2]

        account = asyncio.run(issue())
    with psycopg.connect(url, autocommit=True) as somebody:
        ((id, serial),) = somebody.execute("SELECT id, serial FROM privet.certificate").fetchall()
        told = f"replace(replace(convert_from(body, 'UTF8'), 'web.', 'web' || n || '.'), '{id}', '{id}' || n)"
        for statement in MULTIPLY.format(told, MANY).split(";\n"):
            somebody.execute(statement.encode())
        for query in QUERIES[:4]:
            # Who looks is somebody with the plans of everybody else, and not with ours.
            asked = b"EXPLAIN (ANALYZE, FORMAT JSON) " + asking(query, serial, account)
            (((told,),),) = somebody.execute(asked).fetchall()
            looked = list(nodes(told["Plan"]))
            assert "Seq Scan" not in {node["Node Type"] for node in looked}, query
            assert sum(node["Actual Rows"] * node["Actual Loops"] for node in looked) < MANY / 10, query
            assert somebody.execute(asking(query, serial, account)).fetchone(), query
        assert somebody.execute("SELECT count(*) FROM privet.certificate").fetchone() == (MANY + 1,)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan of PostgreSQL, and all that it is made of."""
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


def test_the_common_name_of_a_client_is_one_of_the_names(server: PostgreSQL) -> None:
    url = server.new_database()
    with PostgresStore(url) as store:
        ca = CertificateAuthority(store)
        ca.init()
        key = keys.generate(KeyType.P256).public_key()
        for cn, identifiers in (("epoch_user", []), (None, [from_text("a.internal")])):
            store.commit(ca.prepare(key, identifiers, common_name=cn, profile=CLIENT).to_record())
    with psycopg.connect(url, autocommit=True) as somebody:
        rows = somebody.execute("SELECT names FROM privet.certificate ORDER BY id").fetchall()
    assert rows == [(["epoch_user"],), (["a.internal"],)]


@pytest.mark.parametrize(
    ("store", "sentence"),
    [
        (
            "postgresql://privet:s3cr3t@127.0.0.1:1/db",
            "the store postgresql://privet@127.0.0.1:1/db cannot be opened: con",
        ),
        (
            "postgresql://privet:s3cr3t/x@127.0.0.1:1/db",
            "the store postgresql://privet@127.0.0.1:1/db cannot be opened: ",
        ),
        ("postgresql://h/db?password=s3cr3t&nonsense=1", "the store postgresql://h/db?nonsense=1 cannot be opened: "),
        ("mysql://privet:s3cr3t@127.0.0.1/db", "PRIVET_STORE has to be sqlite:///PATH, file:///PATH, postgresql://"),
        (
            "postgresql:/privet:s3cr3t@127.0.0.1/db",
            "PRIVET_STORE has to be sqlite:///PATH, file:///PATH, postgresql://",
        ),
    ],
)
def test_a_store_that_cannot_be_had_is_told_in_a_sentence_without_its_password(
    tmp_path: Path, store: str, sentence: str
) -> None:
    done = Person(tmp_path, store).tries("list")
    assert done.status != 0
    (told,) = done.sentences
    assert told.startswith(sentence)
    assert "s3cr3t" not in done.err + done.out


def test_an_empty_database_has_no_authority(server: PostgreSQL, tmp_path: Path) -> None:
    server.do("CREATE DATABASE empty")
    done = Person(tmp_path, server.url("empty")).tries("list")
    assert done.sentences == [
        f"there is no authority 'root' in postgresql://postgres@127.0.0.1:{server.port}/empty: `privet init` makes one"
    ]


def test_what_is_printed_to_be_copied_has_no_password_and_works_with_one(server: PostgreSQL, tmp_path: Path) -> None:
    server.do("CREATE DATABASE printed")
    person = Person(tmp_path, server.url("printed"))
    with person.serves("--ask-person") as running:
        told = running.program.output
        assert "superuser" not in told
        assert f"data         postgresql://postgres@127.0.0.1:{server.port}/printed\n" in told
        (store,) = set(re.findall(r"--store ([^\s`]+)", told))
        root = Person(tmp_path, store).does("root", env={"PGPASSWORD": "superuser"})
        assert root.out == person.does("root").out


def test_workers_share_it(server: PostgreSQL, tmp_path: Path) -> None:
    server.do("CREATE DATABASE shared")
    person = Person(tmp_path, server.url("shared"))
    with person.serves("--auto-approve", "--workers", "2") as running:

        async def issue() -> None:
            for _ in range(4):
                async with httpx.AsyncClient() as http:  # a connection of its own, to any of them
                    wire = Wire(http, running.base)
                    await wire.register()
                    await wire.issue("web.internal")

        asyncio.run(issue())
    assert len(json.loads(person.does("list", "--json").out)) == 4
