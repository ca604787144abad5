"""docs/databases.md can be followed: its commands, files and programs, and each row of what goes wrong."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.cli.command import PRIVET, Person, Serving, environment
from tests.cli.test_node_daemon import fingerprint, until
from tests.interop.postgresql import BINARIES, PostgreSQL
from tests.interop.programs import ELSEWHERE, Program, need, run

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("databases")]

PAGE = (Path(__file__).parents[2] / "docs/databases.md").read_text()
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
ROWS = re.findall(r"^\| (.*?) \| (.*?) \| .* \|$", PAGE.split("## When it does not work")[1], re.MULTILINE)[1:]


def block(kind: str, line: str) -> str:
    """The block of this kind that contains a line."""
    (found,) = [text for each, text in BLOCKS if each == kind and line in text]
    return found


class House:
    """An authority that serves, a PostgreSQL, and a folder of the user's."""

    def __init__(self, person: Person, ca: Serving, postgresql: PostgreSQL) -> None:
        self.person = person
        self.ca = ca
        self.postgresql = postgresql
        self.folder, self.store = person.folder, person.store
        psql = need("psql", path=os.pathsep.join((ELSEWHERE, BINARIES)), source="the postgresql package")
        self.programs = {"privet ": f"{shlex.join(PRIVET)} ", "psql ": f"{psql} -At "}
        self.replaced = {
            "https://ca.internal:8555": ca.base,
            "5C:0B:…": fingerprint(person),
            "/etc/postgresql/tls": str(postgresql.folder / "tls"),
            "/etc/epoch": str(person.folder),
            "--owner postgres": f"--owner {postgresql.user}",
            "'systemctl reload postgresql'": shlex.quote(postgresql.reload()),
            "@db.internal/production": f"@localhost:{postgresql.port}/production",
            " db.internal ": " localhost ",
        }

    def here(self, text: str, *, programs: bool = False) -> str:
        for said, meant in ((self.programs if programs else {}) | self.replaced).items():
            text = text.replace(said, meant)
        return text

    def shell(self, text: str, **env: str) -> str:
        return run(
            "sh",
            "-euc",
            self.here(text, programs=True),
            env=environment(self.folder, {"PRIVET_STORE": self.store, **env}),
            cwd=self.folder,
        )

    def python(self, line: str, **env: str) -> str:
        program = self.folder / "program.py"
        program.write_text(self.here(block("python", line)).replace('token="…"', f"token={self.token!r}"))
        return run(sys.executable, "-W", "error", program, env=environment(self.folder, env), cwd=self.folder)

    @property
    def token(self) -> str:
        return (self.folder / "token").read_text()


def printed(said: str) -> str:
    return re.search(r"^dsn +(\S+)$", said, re.MULTILINE)[1]  # type: ignore[index]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """As the page has it, up to the point where a user connects."""
    person = Person(tmp_path_factory.mktemp("house"))
    person.does("init")
    (person.folder / "roles.toml").write_text(block("toml", "roles.toml"))
    (person.folder / "secret").write_text("horse\n")
    serves, makes = block("sh", "privet serve").splitlines()
    _, _, *options = shlex.split(serves.replace("--host 10.0.0.5", "--auto-approve"))
    with person.serves(*options) as ca, PostgreSQL() as postgresql:
        _, *command = shlex.split(makes)
        (person.folder / "token").write_text(person.does(*command, "--json").json["token"])
        made = House(person, ca, postgresql)
        made.shell(block("sh", "--owner postgres"))
        settings = dict(re.findall(r"^(ssl_\w+) = '(.*)'$", made.here(block("ini", "ssl = on")), re.MULTILINE))
        postgresql.do("CREATE DATABASE production")
        postgresql.do(block("sql", "CREATE ROLE"))
        _, acme, maps = re.split("# pg_.*\n", block("", "# pg_ident.conf"))
        # The line for the map is for another user here: of two lines for one, the first would count.
        postgresql.do("CREATE ROLE mapped_user LOGIN")
        acme, maps = (each.replace("epoch_user", "mapped_user") for each in (acme, maps))
        postgresql.speak_tls(settings, block("", "# TYPE") + acme, maps)
        yield made


@pytest.fixture(scope="module")
def dsn(house: House) -> str:
    """What the user is told who has a token."""
    issue, _, renew = block("sh", "--out /etc/epoch/certs").rpartition("privet node renew")
    dsn = printed(house.shell(issue))
    daemon = shlex.split(house.here(f"privet node renew{renew}", programs=True))
    with Program(*daemon, env=environment(house.folder), cwd=house.folder) as running:
        running.wait_for("INFO keeping the certificate for epoch_user in ")
        assert running.stop() == 0, running.output
    return dsn


def test_the_user_connects(house: House, dsn: str) -> None:
    shown = block("", "?sslmode=verify-full&sslcert=/etc/epoch/certs")
    assert dsn == house.here(shown).strip()
    assert house.shell(block("sh", 'psql "$dsn"'), dsn=dsn) == "epoch_user\n"
    assert house.python('os.environ["dsn"]', dsn=dsn) == "epoch_user\n" * 4
    assert house.shell(block("sh", 'privet doctor "$dsn"'), dsn=dsn) == "nothing is wrong with what was looked at\n"


def test_the_program_that_gets_its_certificate_itself(house: House) -> None:
    (house.folder / "ca.pem").write_text(house.person.does("root").out)
    assert house.python("VaultClient(") == "epoch_user\n"


def test_by_acme_and_a_map(house: House) -> None:
    said = house.shell(block("sh", "privet node issue epoch-user.db.internal"))
    hba, ident = re.split("# pg_.*\n", block("", "# pg_ident.conf"))[1:]
    assert f"  {hba}" in said
    assert f"  {ident}" in said
    dsn = printed(said)
    with psycopg.connect(dsn, user="mapped_user") as connection:
        assert connection.execute("SELECT current_user").fetchall() == [("mapped_user",)]
    with pytest.raises(psycopg.OperationalError, match='authentication failed for user "epoch_user"'):
        psycopg.connect(dsn)


def test_where_the_authority_is(house: House) -> None:
    dsn = printed(house.shell(block("sh", "privet issue")))
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT current_user").fetchall() == [("epoch_user",)]


def test_an_encrypted_key(house: House) -> None:
    dsn = printed(house.shell(block("sh", "--password-file secret")))
    keys = [house.folder / "encrypted" / name for name in ("key.pem", ".privet/certs/epoch_user/key.pem")]
    assert all(b"BEGIN ENCRYPTED PRIVATE KEY" in key.read_bytes() for key in keys)
    for _ in range(2):
        with psycopg.connect(dsn, sslpassword="horse") as connection:
            assert connection.execute("SELECT current_user").fetchall() == [("epoch_user",)]
        house.person.does("node", "renew", "encrypted", "--force")
    house.person.does("doctor", dsn, "--password-file", "secret")
    (house.folder / "secret").rename(house.folder / "moved")
    (sentence,) = house.person.tries("node", "renew", "encrypted", "--force").sentences
    assert sentence.startswith("the password file ")
    (house.folder / "moved").rename(house.folder / "secret")


def test_every_option_it_names_is_there(house: House) -> None:
    helps = (("node", "issue"), ("issue",), ("cert", "create-client"), ("token", "create"), ("doctor",))
    known = "".join(house.person.does(*each, "--help", env={"COLUMNS": "250"}).out for each in helps)
    for option in set(re.findall(r"`(--[a-z0-9-]+)", PAGE)):
        assert option in known


# --- what goes wrong ---


class Client:
    """A copy of the user's files, to spoil."""

    def __init__(self, house: House, dsn: str, folder: Path) -> None:
        self.house = house
        self.folder = folder / "certs"
        shutil.copytree(house.folder / "certs", self.folder, ignore=shutil.ignore_patterns(".privet"))
        self.dsn = dsn.replace(str(house.folder / "certs"), str(self.folder))

    def openssl(self, command: str) -> None:
        run(need("openssl"), *shlex.split(command), cwd=self.folder)


def _another_ca(client: Client) -> None:
    client.openssl("req -x509 -newkey rsa:2048 -nodes -keyout other.key -out ca.pem -subj /CN=other -days 1")


def _expired(client: Client) -> None:
    client.house.person.does("issue", "--postgres", "epoch_user", "--validity", "4s", "--out", client.folder, "--force")
    until(lambda: client.house.person.tries("doctor", client.dsn).status == 1, "the end of a certificate")


def _another_key(client: Client) -> None:
    client.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem")


def _encrypted(client: Client) -> None:
    client.openssl("pkcs8 -topk8 -in key.pem -out new.pem -passout pass:other -v2 aes256")
    (client.folder / "new.pem").replace(client.folder / "key.pem")


def _traditional(client: Client) -> None:
    client.openssl("ec -in key.pem -out new.pem")
    (client.folder / "new.pem").replace(client.folder / "key.pem")


Spoil = Callable[[Client], Any]
SPOILED: dict[str, Spoil] = {
    "wrong-ca": _another_ca,
    "expired": _expired,
    "hostname-mismatch": lambda client: setattr(client, "dsn", client.dsn.replace("@localhost", "@127.0.0.1")),
    "client-certificate-missing": lambda client: setattr(client, "dsn", re.sub("sslcert=[^&]*&", "", client.dsn)),
    "user-mismatch": lambda client: setattr(client, "dsn", client.dsn.replace("epoch_user@", "mapped_user@")),
    "login-refused": lambda client: setattr(client, "dsn", client.dsn.replace("/production?", "/postgres?")),
    "key-permissions": lambda client: (client.folder / "key.pem").chmod(0o644),
    "password-missing": _encrypted,
    "key-mismatch": _another_key,
    "key-format": _traditional,
    "no-tls": lambda client: None,
}


@pytest.mark.parametrize("cause", SPOILED)
def test_each_row_of_what_goes_wrong(house: House, dsn: str, tmp_path: Path, cause: str) -> None:
    (row,) = [(said, causes) for said, causes in ROWS if f"`{cause}`" in causes]
    client = Client(house, dsn, tmp_path)
    SPOILED[cause](client)
    if cause == "no-tls":
        with PostgreSQL() as plain:
            client.dsn = client.dsn.replace(f":{house.postgresql.port}/", f":{plain.port}/")
            _compare(house, client, row, cause)
    else:
        _compare(house, client, row, cause)


def _compare(house: House, client: Client, row: tuple[str, str], cause: str) -> None:
    found = house.person.tries("doctor", client.dsn, "--json").json["findings"]
    assert cause in [finding["cause"] for finding in found]
    assert all(f"`{finding['cause']}`" in row[1] for finding in found)
    said = re.findall("`(.*?)`", row[0])
    if not said:  # no client complains
        psycopg.connect(client.dsn).close()
        return
    with pytest.raises(psycopg.OperationalError) as caught:
        psycopg.connect(client.dsn, sslpassword="wrong")
    assert any(re.search(re.escape(each).replace("…", ".*"), str(caught.value)) for each in said), caught.value


def test_there_are_no_other_rows() -> None:
    assert [row for row in ROWS if not any(f"`{cause}`" in row[1] for cause in SPOILED)] == []
