"""Rows L1 to L27: the code of lacme's guide that is not a program by itself runs here, block by block, in its order,
over real connections. Addresses are those of this machine, and certificates are short enough to see them renewed."""

import asyncio
import re
import socket
import ssl
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from starlette.applications import Starlette
from starlette.routing import Route
from tests.interop.programs import free_port
from tests.interop.serving import Privet
from tests.mtls.nodes import serial_shown, shake
from tests.reference.guides import blocks, run

from privet import ACMEResponder, Client, FileStore, MemoryStore, Problem, ProblemType
from privet.challenges.http01 import HTTP01Handler
from privet.testing import serving

pytestmark = [pytest.mark.anyio, pytest.mark.interop, pytest.mark.xdist_group("reference")]

(
    AUTHORITY,
    VALIDATOR,
    ROOT_SERVED,
    ROOT_FETCHED,
    CONTEXTS,
    STREAMS,
    AIOHTTP,
    PEM_OR_PATHS,
    RENEWAL,
    SHORT_LIVED,
) = (block for _, block in blocks("lacme_private_ca.txt"))


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the blocks share, after the first of them: there is an authority, at home in a folder of its own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"ACMEResponder": ACMEResponder, "Route": Route, "Client": Client}
    asyncio.run(run(AUTHORITY, names))
    yield names
    names["store"].close()


@pytest.fixture
def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of the guide are those of this machine."""
    real = socket.getaddrinfo

    def here(host: Any, *arguments: Any, **options: Any) -> Any:
        return real("127.0.0.1" if str(host).endswith(".internal") else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", here)


def test_an_authority_by_its_name(names: dict[str, Any], tmp_path: Path) -> None:
    assert (tmp_path / ".privet-ca/ca/turnstone/key.pem").exists()
    root = x509.load_pem_x509_certificate(names["ca"].root_cert_pem)
    assert (root.not_valid_after_utc - root.not_valid_before_utc).days == 3650
    assert root.subject.rfc4514_string() == "CN=My Service Mesh CA"


async def test_short_lived_certificates(names: dict[str, Any]) -> None:
    await run(SHORT_LIVED, names)
    for bundle, hours, usages in (
        ("bundle", 24, [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
        ("client_bundle", 6, [ExtendedKeyUsageOID.CLIENT_AUTH]),
    ):
        certificate = x509.load_pem_x509_certificate(names[bundle].cert_pem)
        assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).total_seconds() == hours * 3600
        assert list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == usages


async def test_a_validator_of_ones_own(names: dict[str, Any]) -> None:
    await run(VALIDATOR, names)
    with serving(names["responder"]) as port:
        async with Client(
            f"http://127.0.0.1:{port}/directory",
            allow_insecure=True,
            store=MemoryStore(),
            challenge_handler=HTTP01Handler(port=None),
        ) as client:
            assert (await client.issue("worker-2.internal")).domain == "worker-2.internal"
            with pytest.raises(Problem) as refused:
                await client.issue("worker-3.internal")
    assert refused.value.type is ProblemType.INCORRECT_RESPONSE


async def test_the_root_is_handed_out(names: dict[str, Any], tmp_path: Path) -> None:
    await run(ROOT_SERVED, names)
    with serving(Starlette(routes=[Route("/root-ca.pem", names["root_cert"])])) as port:
        await run(ROOT_FETCHED.replace("http://ca-server:8443", f"http://127.0.0.1:{port}"), names)
    assert names["resp"].headers["content-disposition"] == "attachment; filename=root-ca.pem"
    assert (tmp_path / "root-ca.pem").read_bytes() == names["ca"].root_cert_pem


@pytest.fixture
async def contexts(names: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Step 5 has been done, by a node that is called as its peer is too."""
    names["bundle"] = names["ca"].issue(["worker-1.internal", "worker-2.internal"])
    (tmp_path / "root-ca.pem").write_bytes(names["ca"].root_cert_pem)
    await run(CONTEXTS, names)
    return names


async def test_contexts_from_memory_and_from_files(contexts: dict[str, Any], tmp_path: Path) -> None:
    shake(contexts["server_ctx"], contexts["client_ctx"], "worker-1.internal")
    await run(PEM_OR_PATHS.replace("/etc/pki/root-ca.pem", str(tmp_path / "root-ca.pem")), contexts)
    shake(contexts["ctx"], contexts["client_ctx"], "worker-1.internal")


@pytest.mark.usefixtures("at_home")
async def test_with_asyncio(contexts: dict[str, Any]) -> None:
    async def handle_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serial = serial_shown(writer.get_extra_info("ssl_object"))
        writer.write(f"{serial:x}".encode())
        writer.close()

    contexts["handle_client"] = handle_client
    await run(STREAMS.replace("8443", str(free_port())).replace("0.0.0.0", "127.0.0.1"), contexts)
    assert await contexts["reader"].read() == f"{contexts['bundle'].serial:x}".encode()
    contexts["writer"].close()
    contexts["server"].close()


@pytest.mark.usefixtures("at_home")
async def test_with_aiohttp(contexts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    up: list[asyncio.Task[web.AppRunner]] = []

    async def api(request: web.Request) -> web.Response:
        assert request.transport is not None
        return web.json_response({"serial": serial_shown(request.transport.get_extra_info("ssl_object"))})

    def beside(app: web.Application, *, ssl_context: ssl.SSLContext) -> None:
        """The server in the same loop, because the block goes on as its client."""
        app.router.add_get("/api", api)
        listening = socket.create_server(("127.0.0.1", port))

        async def serve() -> web.AppRunner:
            runner = web.AppRunner(app)
            await runner.setup()
            await web.SockSite(runner, listening, ssl_context=ssl_context).start()
            return runner

        up.append(asyncio.ensure_future(serve()))

    monkeypatch.setattr(web, "run_app", beside)
    await run(AIOHTTP.replace("8443", str(port)), contexts)
    await (await up[0]).cleanup()
    assert contexts["data"] == {"serial": contexts["bundle"].serial}


async def test_contexts_are_rebuilt_when_certificates_renew(tmp_path: Path) -> None:
    said: list[str] = []
    renewed = asyncio.Event()

    def say(text: str) -> None:
        said.append(text)
        renewed.set()

    with Privet(tmp_path / "ca", "--validity", "10s") as ca, FileStore(tmp_path / "node") as store:
        names: dict[str, Any] = {"Client": Client, "CA_DIRECTORY": ca.directory, "store": store, "print": say}
        names |= {"handler": HTTP01Handler(), "ca_cert_pem": ca.root().read_bytes(), "serve_forever": renewed.wait}
        names["bundle"] = None
        await run(CONTEXTS.partition("\n\n")[0], names)
        story = f"async def main(server_ctx, client_ctx):\n{textwrap.indent(RENEWAL, '    ')}"
        await run(f"{story}\n    return server_ctx, client_ctx\nresult = await main(None, None)", names)
        server, client = names["result"]
        end, _ = shake(server, client, "worker-1.internal")
        record = store.get("certs", "worker-1.internal")
        assert record is not None
        current = x509.load_pem_x509_certificate(record.files["cert.pem"])
        assert serial_shown(end) == current.serial_number
    assert re.fullmatch(r"Renewed: worker-1\.internal, expires 20\S+ \S+", said[0])
