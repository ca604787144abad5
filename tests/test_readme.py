"""What the README shows runs as it stands there."""

import asyncio
import contextlib
import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from tests.interop.programs import free_port
from tests.wire import Wire, problem_of

from privet import ACMEResponder, CertificateAuthority, Client, MemoryStore
from privet.testing import node_certificate

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the block that contains a line, in a home and a folder of its own, perhaps on another port; return its
    names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    def run_block(line: str, port: int = 8443) -> dict[str, Any]:
        (block,) = [block.replace("8443", str(port)) for block in BLOCKS if line in block]
        names: dict[str, Any] = {"__name__": "readme"}
        exec(compile(block, "README.md", "exec"), names)
        return names

    return run_block


def client(app: Any, address: str = "127.0.0.1") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(address, 1)))


async def test_the_mounted_application_gives_a_certificate(run: Any) -> None:
    app = run("Mount(")["app"]
    async with client(app) as http:
        wire = Wire(http, "http://ca.internal/acme")
        await wire.register()
        assert (await wire.issue("worker-1.internal")).count(b"BEGIN CERTIFICATE") == 2


async def test_the_policy_lets_its_own_team_in_and_nobody_else(run: Any) -> None:
    app = run("class OwnTeamOnly")["responder"]
    async with client(app, "10.0.0.7") as http:
        wire = Wire(http)
        await wire.register()
        await wire.issue("web.team-a.internal")
        refusal = await wire.order("web.team-b.internal")
        assert problem_of(refusal) == (403, "rejectedIdentifier")
        assert "web.team-b.internal" in refusal.json()["detail"]
    async with client(app, "10.0.0.9") as http:
        assert problem_of(await Wire(http).register()) == (403, "unauthorized")


async def test_a_certificate_without_acme_lies_where_the_readme_says(
    run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = run("ca.issue(")["bundle"]
    assert bundle.fullchain_path == tmp_path / ".privet-ca/certs/worker-1.internal/fullchain.pem"
    assert bundle.key_path.read_bytes() == bundle.key_pem
    assert str(bundle.fullchain_path) in capsys.readouterr().out


async def test_a_node_gets_its_certificate(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = run("client.auto_renew(")
    ca = CertificateAuthority(MemoryStore())
    ca.init()
    way = httpx.ASGITransport(ACMEResponder(ca, auto_approve=True))
    names["Client"] = partial(Client, transport=way)
    monkeypatch.setitem(names, "asyncio", SimpleNamespace(sleep=lambda seconds: asyncio.sleep(0)))
    await names["main"]()
    assert str(tmp_path / ".privet-node/certs/worker-1.internal/fullchain.pem") in capsys.readouterr().out


async def test_the_service_has_mutual_tls(run: Any, tmp_path: Path) -> None:
    ca = CertificateAuthority(MemoryStore())
    ca.init()
    node_certificate(ca, tmp_path)
    port = free_port()
    names = run("live.following()", port)
    done = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        done.set()

    serving = asyncio.create_task(names["serve"](handle))
    while not done.is_set():
        with contextlib.suppress(ConnectionRefusedError):
            _, writer = await asyncio.open_connection("localhost", port, ssl=names["live"].client_context)
            await done.wait()
            writer.close()
        assert not serving.done()
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


def test_every_python_block_of_the_readme_is_run_here() -> None:
    assert len(BLOCKS) == 5
