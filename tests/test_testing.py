"""What is offered to other people's tests: an ACME server that misbehaves on demand, and fixtures, as in
docs/testing.md."""

import os
import re
import ssl
import subprocess
import sys
import tomllib
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from tests.certificates import assert_is_leaf
from tests.interop.clients import Lego
from tests.mtls.nodes import shake
from tests.wire import Wire, problem_of

from privet import CertificateAuthority, Client, ClientError, MemoryStore
from privet.challenges.http01 import HTTP01Handler
from privet.testing import ACMEServer, node_certificate

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/testing.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def client(server: ACMEServer) -> httpx.AsyncClient:
    return httpx.AsyncClient(verify=server.client_context())


async def test_it_issues_over_tls_on_a_real_port() -> None:
    with ACMEServer() as server:
        async with client(server) as http:
            wire = Wire(http, server.directory_url.removesuffix("/directory"))
            await wire.register()
            order = (await wire.order("web.internal")).json()
            assert order["status"] == "pending", "challenges are asked, so that clients have to answer them"
            assert (
                await http.get(f"{server.directory_url.removesuffix('directory')}ca.pem")
            ).content == server.root_pem


def test_what_it_is_served_with_goes_with_it() -> None:
    with ACMEServer() as server:
        assert Path(server.ca_bundle).read_bytes() == server.root_pem
    assert not Path(server.ca_bundle).exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.directory_url, verify=server.client_context())


async def test_nonces_are_refused_as_often_as_was_said() -> None:
    with ACMEServer() as server:
        async with client(server) as http:
            wire = Wire(http, server.directory_url.removesuffix("/directory"))
            server.refuse_nonces(2)
            for _ in range(2):
                refused = await wire.register()
                assert problem_of(refused) == (400, "badNonce")
                assert refused.headers["replay-nonce"]
            assert (await wire.register()).status_code == 201


async def test_validation_takes_as_long_as_was_said() -> None:
    with ACMEServer() as server:
        server.slow_validation(0.4)
        async with client(server) as http:
            wire = Wire(http, server.directory_url.removesuffix("/directory"))
            await wire.register()
            order = (await wire.order("web.internal")).json()
            authorization = (await wire.post(order["authorizations"][0])).json()
            answered = await wire.post(authorization["challenges"][0]["url"], {})
            assert answered.json()["status"] == "processing"
            assert answered.headers["retry-after"] == "1"
            statuses = []
            while "valid" not in statuses:
                statuses.append((await wire.post(order["authorizations"][0])).json()["status"])
            assert set(statuses) <= {"pending", "valid"}


async def test_orders_expire_when_that_was_said() -> None:
    with ACMEServer() as server:
        async with client(server) as http:
            wire = Wire(http, server.directory_url.removesuffix("/directory"))
            await wire.register()
            location = (await wire.order("web.internal")).headers["location"]
            server.expire_orders()
            assert problem_of(await wire.post(location)) == (400, "badNonce"), "as a client has to expect"
            assert (await wire.post(location)).json()["status"] == "invalid"
            assert (await wire.order("web.internal")).json()["status"] == "pending"


def test_a_client_that_obeys_the_rfc_gets_its_certificate_all_the_same(tmp_path: Path) -> None:
    with ACMEServer() as server:
        server.refuse_nonces(3)
        server.slow_validation(1.2)
        lego = Lego(tmp_path / "lego", server.directory_url, Path(server.ca_bundle))
        lego.issue(["web.internal"]).check(Path(server.ca_bundle), ["web.internal"])


def test_without_tls_and_with_a_validator() -> None:
    class Nobody:
        async def validate(self, *challenge: str) -> bool:
            return False

    with ACMEServer(tls=False, challenge_validator=Nobody()) as server:
        assert server.directory_url.startswith("http://localhost:")
        assert "newOrder" in httpx.get(server.directory_url).json()


async def test_what_else_a_responder_takes() -> None:
    key = bytes(32)
    with ACMEServer(external_account_keys={"team-a": key}, external_account_required=True) as server:
        async with Client(server.directory_url, ca_bundle=server.ca_bundle) as stranger:
            with pytest.raises(ClientError, match="external account key"):
                await stranger.issue("a.internal")
        async with Client(
            server.directory_url,
            ca_bundle=server.ca_bundle,
            external_account=("team-a", key),
            challenge_handler=HTTP01Handler(port=None),
        ) as client:
            assert (await client.issue("a.internal")).domain == "a.internal"


def test_a_node_has_files(tmp_path: Path) -> None:
    ca = CertificateAuthority(MemoryStore())
    ca.init()
    for _ in range(2):
        tls = node_certificate(ca, tmp_path)
    leaf = x509.load_pem_x509_certificate((tmp_path / "node.crt").read_bytes())
    assert_is_leaf(leaf, issuer=ca.root_cert, names=["localhost", "127.0.0.1", "::1"])
    assert (tmp_path / "node.key").stat().st_mode & 0o777 == 0o600
    shake(tls.server_context, tls.client_context)


def pytest_of(folder: Path, *arguments: str) -> str:
    """What a pytest of its own says, with the plugin and no other."""
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "pytest", "-p", "pytest_privet", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    (block,) = [block for block in BLOCKS if block.startswith("# test_service.py")]
    (tmp_path / "test_service.py").write_text(block)
    assert "3 passed" in pytest_of(tmp_path, "-W", "error")
    fixtures = pytest_of(tmp_path, "--fixtures")
    for name in re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE):
        assert re.search(rf"^{name}\b", fixtures, re.MULTILINE)


def test_the_other_programs_of_the_page_run(capsys: pytest.CaptureFixture[str]) -> None:
    others = [block for block in BLOCKS if not block.startswith("# test_service.py")]
    assert len(others) == 4
    for block in others:
        names: dict[str, object] = {"__name__": "page"}
        exec(compile(block, "docs/testing.md", "exec"), names)
    assert isinstance(names["client_ctx"], ssl.SSLContext)


def test_the_plugin_is_registered_and_imports_nothing_before_it_is_asked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"privet": "pytest_privet"}
    program = (
        "import sys, pytest_privet; print([name for name in sys.modules if name.split('.')[0] in "
        "('privet', 'cryptography', 'uvicorn', 'asyncio')])"
    )
    bare = (
        "import pytest, sys; print([name for name in sys.modules if name.split('.')[0] in "
        "('privet', 'cryptography', 'uvicorn', 'asyncio')])"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", each], env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            capture_output=True, text=True, check=True,
        ).stdout
        for each in (program, bare)
    ]  # fmt: skip
    assert said[0] == said[1]
