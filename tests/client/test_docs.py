"""What docs/nodes.md shows runs as it stands there, against a real `privet serve --tls`."""

import hashlib
import re
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.interop.programs import run
from tests.interop.serving import Privet

from privet import Client, ClientError, SyncClient

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("nodes")]

GUIDE = (Path(__file__).parents[2] / "docs/nodes.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Privet]:
    with Privet(tmp_path_factory.mktemp("ca"), "--tls") as running:
        yield running


@pytest.fixture(scope="module")
def fingerprint(server: Privet) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(server.root().read_text())).hexdigest()


def said_by(line: str, server: Privet, fingerprint: str, home: Path) -> str:
    """Run the block that contains a line, where the CA is, at home in a folder of its own; return what it prints."""
    (block,) = [block for block in BLOCKS if line in block]
    text = block.replace("https://ca.internal:8555/directory", server.directory).replace("5C:0B:…", fingerprint)
    (home / "program.py").write_text(text.replace("sleep(3600)", "sleep(0.1)"))
    return run(sys.executable, "-W", "error", home / "program.py", env={"HOME": str(home)}, cwd=home)


def test_the_script(server: Privet, fingerprint: str, tmp_path: Path) -> None:
    said = said_by("with SyncClient(", server, fingerprint, tmp_path)
    folder = tmp_path / ".privet-node/certs/worker-1.internal"
    assert said.startswith(f"{folder}/fullchain.pem {folder}/key.pem 20")
    assert list((tmp_path / ".privet-node/accounts").glob("*/account.key"))


def test_the_service_that_restarts(server: Privet, fingerprint: str, tmp_path: Path) -> None:
    first = said_by("client.ensure(", server, fingerprint, tmp_path)
    assert said_by("client.ensure(", server, fingerprint, tmp_path) == first


def test_the_health_check(server: Privet, fingerprint: str, tmp_path: Path) -> None:
    healthy, status = said_by("client.renewal.healthy", server, fingerprint, tmp_path).splitlines()
    assert healthy == "True"
    assert re.fullmatch(r"worker-1\.internal 20.* 20.* 0 None", status)


@pytest.mark.parametrize("line", ["RenewalManager(ca=ca", "HTTP01Handler()"])
def test_the_other_blocks(line: str, server: Privet, fingerprint: str, tmp_path: Path) -> None:
    said_by(line, server, fingerprint, tmp_path)


def test_every_block_is_run_here() -> None:
    assert len(BLOCKS) == 5


@pytest.mark.anyio
async def test_nothing_is_asked_of_a_server_with_another_root(server: Privet) -> None:
    async with Client(server.directory, ca_fingerprint="00" * 32) as client:
        with pytest.raises(ClientError, match="another CA, or somebody in between"):
            await client.issue("a.internal")
    async with Client(server.directory) as client:
        with pytest.raises(ClientError, match="not trusted here"):
            await client.issue("a.internal")


def test_a_bundle_by_its_path(server: Privet) -> None:
    with SyncClient(server.directory, ca_bundle=server.root()) as client:
        assert client.issue("a.internal").domain == "a.internal"
