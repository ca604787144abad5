"""Rows C1 to C17 and H2 to H14: the code of two guides runs here, block by block, in the order in which they have it.

What is theirs and not ours is a stand-in that opens real TLS connections with the contexts it is given.
"""

import ssl
import sys
import types
from pathlib import Path
from typing import Any, Self

import anyio
import pytest
import trustme
from tests.cli.command import Person
from tests.mtls.nodes import Authority, Node, shake
from tests.reference.guides import blocks, run

from privet import TLSConfig, build_client_ssl_context, build_server_ssl_context
from privet.ca import keys
from privet.mtls import client_ssl_context, server_ssl_context

pytestmark = pytest.mark.anyio


def put(folder: Path, node: Node, cert: str, key: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / cert).write_bytes(node.cert)
    (folder / key).write_bytes(node.key)


class Cluster:
    """In place of a cluster: both of a node's contexts shake hands, and strangers are refused."""

    used = 0

    def __init__(self, *_: object, tls: TLSConfig, **rest: object) -> None:
        self.tls = tls

    async def __aenter__(self) -> Self:
        shake(self.tls.server_context, self.tls.client_context, "10.0.0.1")
        nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        nobody.check_hostname, nobody.verify_mode = False, ssl.CERT_NONE
        with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN"):
            shake(self.tls.server_context, nobody, "10.0.0.1")
        Cluster.used += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


async def test_casty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Cluster, "used", 0)
    ca, person = Authority(), Person(tmp_path)
    node = ca.node("10.0.0.1")
    certs = tmp_path / "certs"
    put(certs, node, "node.crt", "node.key")
    put(certs / "client", node, "node.crt", "node.key")
    (certs / "node.pem").write_bytes(node.cert + node.key)
    for name in ("ca.pem", "ca.crt"):
        (certs / name).write_bytes(ca.pem)
    names: dict[str, Any] = {"ClusteredActorSystem": Cluster, "ClusterClient": Cluster, "Config": TLSConfig}
    names |= {"ssl": ssl, "trustme": trustme}
    for language, block in blocks("casty_tls.txt"):
        if language == "sh":
            if "create-ca" in block:
                (certs / "ca.crt").unlink()
            for line in block.replace("\\\n", " ").splitlines():
                words = line.partition("#")[0].split()
                if words:
                    person.does(*words[1:])
        elif language == "bash":
            await anyio.run_process(["bash", "-euc", block])
            made = TLSConfig.from_paths(certfile="node.pem", keyfile="node.key", cafile="ca.pem")
            shake(made.server_context, made.client_context, "10.0.0.1")
        else:
            names.pop("tls", None)
            await run(block, names)
            if "tls" in names:
                called = "127.0.0.1" if "trustme" in block else "10.0.0.1"
                shake(names["tls"].server_context, names["tls"].client_context, called)
    assert Cluster.used == 3
    assert {path.name for path in (certs / "client").iterdir()} >= {"client.crt", "client.key"}


class Device:
    """In place of haystack's client and websocket: it calls a server that asks for certificates, or does not."""

    folder = Path()

    def __init__(self, url: str, *_: object, tls: TLSConfig, **rest: object) -> None:
        self.context = build_client_ssl_context(tls)
        self.shows = tls.certificate_path is not None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def about(self) -> str:
        ca = str(self.folder / "ca.crt") if self.shows else None
        server = TLSConfig(str(self.folder / "server.crt"), str(self.folder / "server.key"), ca)
        return str(shake(build_server_ssl_context(server), self.context)[0].version())


class Request:
    """In place of aiohttp's, whose transport is one of TLS."""

    def __init__(self, ca: Authority) -> None:
        node, device = ca.node(), ca.node("device-01.example.com", "10.0.1.5", cn="device-01")
        server = server_ssl_context(node.cert, node.key, ca.pem)
        _, self._end = shake(server, client_ssl_context(device.cert, device.key, ca.pem))
        self.transport = self

    def get_extra_info(self, name: str) -> object:
        assert name == "peercert"
        return self._end.getpeercert()


async def test_haystack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Device, "folder", tmp_path)
    ca = Authority()
    server, client = ca.node(), ca.node(cn="device-01", client=True)
    put(tmp_path, server, "server.crt", "server.key")
    put(tmp_path, client, "client.crt", "client.key")
    put(tmp_path, client, "cert.pem", "client.key")
    (tmp_path / "encrypted.key").write_bytes(keys.to_pem(keys.from_pem(client.key), b"my-key-password"))
    for name in ("ca.crt", "ca.pem"):
        (tmp_path / name).write_bytes(ca.pem)
    served: list[Any] = []
    made: list[Any] = []

    def create(**options: object) -> str:
        made.append(options)
        return "app"

    modules: dict[str, dict[str, Any]] = {
        "hs_py": {"Client": Device},
        "hs_py.ws_client": {"WebSocketClient": Device},
        "hs_py.fastapi_server": {"create_fastapi_app": create},
        "hs_py.auth_types": {"SimpleAuthenticator": dict},
        "uvicorn": {"run": lambda *arguments, **options: served.append(options)},
    }
    for name, contents in modules.items():
        module = types.ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    names: dict[str, Any] = {"storage": None, "MyOps": object, "request": Request(ca)}
    after = 0
    for _, block in blocks("haystack_tls.txt"):
        names.pop("about", None)
        await run(block, names)
        if "about()" in block:
            assert names["about"] == "TLSv1.3"
            after += 1
        if "encrypted.key" in block:
            asking = build_server_ssl_context(TLSConfig("server.crt", "server.key", "ca.crt"))
            shake(asking, build_client_ssl_context(names["tls"]))
        if "build_client_ssl_context" in block:
            assert names["ctx"].minimum_version is ssl.TLSVersion.TLSv1_3
        if "CertAuthenticator" in block:
            shake(names["ctx"], build_client_ssl_context(TLSConfig("client.crt", "client.key", "ca.crt")))
            assert made[-1]["authenticator"].allows(client.cert)
            assert not made[-1]["authenticator"].allows(server.cert)
    assert after == 3
    assert names["cn"] == "device-01"
    assert names["sans"] == ["device-01.example.com", "10.0.1.5"]
    assert served[0]["ssl_certfile"] == "server.crt"
    assert Path(names["client_tls"].certificate_path).name == "client.pem"
