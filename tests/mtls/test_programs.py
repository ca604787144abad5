"""Row E12 with real programs over real sockets: those of docs/mtls.md as they stand there, two renewals each, and a new
root beside the old one. Whoever connects meanwhile is served, and connections that are open stay."""

import http.server
import importlib.util
import os
import shlex
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.interop.programs import Program, free_port, need
from tests.mtls import page
from tests.mtls.nodes import Authority, Node, serial_shown
from websockets.sync.client import connect as connect_websocket

from privet.mtls import LiveTLS, client_ssl_context

pytestmark = pytest.mark.xdist_group("mtls")

APP = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""
GRANIAN = (
    f"{sys.executable} -m granian --interface asginl --port 8443 --ssl-certificate node.crt --ssl-keyfile node.key "
    "--ssl-ca ca.crt --ssl-client-verify app:app"
)


class Mesh:
    """A server's folder with its three files, and clients that trust both authorities."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.old, self.new = Authority("Old CA"), Authority("New CA")
        self.client = self.old.node("client.internal")
        self.newcomer = self.new.node("newcomer.internal")
        self.trust(self.old)
        self.now = self.renew(self.old)

    def renew(self, ca: Authority) -> Node:
        self.now = ca.node()
        self.now.write(self.folder)
        return self.now

    def trust(self, *authorities: Authority) -> None:
        fresh = self.folder / ".ca.crt"
        fresh.write_bytes(b"".join(each.pem for each in authorities))
        fresh.replace(self.folder / "ca.crt")

    def context(self, node: Node | None = None) -> ssl.SSLContext:
        node = node or self.client
        return client_ssl_context(node.cert, node.key, self.old.pem + self.new.pem)

    def connect(self, node: Node | None = None) -> ssl.SSLSocket:
        return self.wrap(self.context(node))

    def wrap(self, context: ssl.SSLContext) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        return context.wrap_socket(plain, server_hostname="localhost")

    def serial(self) -> int:
        """What the server shows now; it has to answer as well."""
        with closing(self.connect()) as connection:
            ask(connection)
            return serial_shown(connection)

    def lets_in(self, node: Node | None) -> bool:
        context = client_ssl_context(ca_cert_pem=self.old.pem + self.new.pem) if node is None else self.context(node)
        try:
            with closing(self.wrap(context)) as connection:
                ask(connection)
        except (ssl.SSLError, ConnectionError):
            return False
        return True


def ask(connection: ssl.SSLSocket) -> None:
    """One request, whatever the answer is."""
    connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = b""
    while b"\r\n\r\n" not in answer:
        if not (more := connection.recv(65536)):
            raise ConnectionError("the server has hung up")
        answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise ConnectionRefusedError(answer.decode())
    if b"chunked" not in head.lower():
        while len(body) < 2:
            body += connection.recv(2)


def until(happens: Callable[[], bool]) -> None:
    """Until it does; the test's own time limit ends it otherwise."""
    pause = threading.Event()
    while not happens():
        pause.wait(0.02)


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    return Mesh(tmp_path)


def write(mesh: Mesh, name: str, language: str = "python") -> Path:
    """A program of the page, on a free port, and less patient."""
    text = (
        page.program(name, language).replace("8443", str(mesh.port)).replace(".following()", ".following(every=0.05)")
    )
    path = mesh.folder / name
    path.write_text(text)
    return path


@contextmanager
def running(mesh: Mesh, *command: str | Path) -> Iterator[Program]:
    with Program(*command, cwd=mesh.folder, env={"PYTHONUNBUFFERED": "1"}) as program:

        def listens() -> bool:
            assert program.process.poll() is None, program.output
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", mesh.port)) == 0

        until(listens)
        yield program
    assert "Traceback" not in program.output.replace("KeyboardInterrupt", ""), program.output


def follows(mesh: Mesh, told: Callable[[], object] = lambda: None) -> None:
    """The story of every HTTP server."""
    first = mesh.now.serial
    with closing(mesh.connect()) as kept:
        ask(kept)
        assert serial_shown(kept) == first
        for _ in range(2):
            renewed = mesh.renew(mesh.old).serial
            told()
            until(lambda renewed=renewed: mesh.serial() == renewed)  # type: ignore[misc]
            ask(kept)
        assert (mesh.lets_in(mesh.client), mesh.lets_in(mesh.newcomer), mesh.lets_in(None)) == (True, False, False)
        mesh.trust(mesh.old, mesh.new)
        told()
        until(lambda: mesh.lets_in(mesh.newcomer))
        assert mesh.lets_in(mesh.client)
        mesh.renew(mesh.new)
        told()
        until(lambda: mesh.serial() == mesh.now.serial)
        mesh.trust(mesh.new)
        told()
        until(lambda: not mesh.lets_in(mesh.client))
        assert (mesh.lets_in(mesh.newcomer), mesh.lets_in(None)) == (True, False)
        ask(kept)


@pytest.mark.parametrize("name", ["streams.py", "uvicorn_in_code.py", "aiohttp_server.py", "hypercorn_server.py"])
def test_a_server_follows(name: str, mesh: Mesh) -> None:
    with running(mesh, sys.executable, write(mesh, name)):
        follows(mesh)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_uvicorn_follows_with_its_own_options(loop: str, mesh: Mesh) -> None:
    (mesh.folder / "app.py").write_text(APP)
    words = shlex.split(page.command("uvicorn app:app").replace("8443", str(mesh.port)))
    with running(mesh, sys.executable, "-m", *words, "--loop", loop) as program:
        with closing(mesh.connect()) as connection:
            ask(connection)
            assert connection.session is not None
            assert not connection.session.has_ticket, "with one its client would not have to show a certificate again"
        follows(mesh)
        # A renewal that is half done is left alone, and said once a connection has come upon it.
        serial = mesh.now.serial
        (mesh.folder / "node.key").write_bytes(mesh.new.node().key)
        mesh.client = mesh.newcomer
        assert mesh.serial() == serial
        program.wait_for("the certificate in use stays")


def test_nginx_follows_when_it_is_told(mesh: Mesh) -> None:
    folder = mesh.folder
    user = "user root;\n" if os.geteuid() == 0 else ""
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    conf = write(mesh, "nginx.conf", "nginx")
    text = conf.read_text().replace("http {", f"http {{\naccess_log off;\n{temporary}")
    conf.write_text(f"{user}daemon off;\npid {folder}/nginx.pid;\nerror_log stderr notice;\n{text}")
    nginx = [need("nginx"), "-e", "stderr", "-c", str(conf), "-p", str(folder)]

    def reload() -> None:
        with Program(*nginx, "-s", "reload") as told:
            told.process.wait(30)

    with running(mesh, *nginx) as program:
        program.wait_for("start worker process ")
        for _ in range(2):
            renewed = mesh.renew(mesh.old).serial
            reload()
            until(lambda renewed=renewed: mesh.serial() == renewed)  # type: ignore[misc]
        mesh.trust(mesh.old, mesh.new)
        assert not mesh.lets_in(None)
        reload()
        until(lambda: mesh.lets_in(mesh.newcomer))


def test_granian_takes_up_new_files_with_new_workers(mesh: Mesh) -> None:
    (mesh.folder / "app.py").write_text(APP)

    def soon(happens: Callable[[], bool]) -> None:
        """Its workers come and go, and connections with them."""
        os.kill(program.process.pid, signal.SIGHUP)

        def happens_at_last() -> bool:
            try:
                return happens()
            except OSError:
                return False

        until(happens_at_last)

    with running(mesh, *GRANIAN.replace("8443", str(mesh.port)).split()) as program:
        program.wait_for("Started worker")
        with closing(mesh.connect()) as kept:
            ask(kept)
            for _ in range(2):
                renewed = mesh.renew(mesh.old).serial
                assert mesh.serial() != renewed
                soon(lambda renewed=renewed: mesh.serial() == renewed)  # type: ignore[misc]
            with pytest.raises(OSError):
                ask(kept)
        mesh.trust(mesh.old, mesh.new)
        assert not mesh.lets_in(mesh.newcomer)
        soon(lambda: mesh.lets_in(mesh.newcomer))


def test_websockets_follows(mesh: Mesh) -> None:
    def connect() -> Any:
        context = mesh.context()
        return connect_websocket(f"wss://localhost:{mesh.port}", ssl=context, open_timeout=30)

    def serial() -> int:
        with connect() as connection:
            connection.send("hello")
            assert connection.recv() == "hello"
            return serial_shown(connection.socket)

    with running(mesh, sys.executable, write(mesh, "websockets_server.py")), connect() as kept:
        for _ in range(2):
            renewed = mesh.renew(mesh.old).serial
            until(lambda renewed=renewed: serial() == renewed)  # type: ignore[misc]
            kept.send("still here")
            assert kept.recv() == "still here"
        mesh.trust(mesh.old, mesh.new)
        mesh.renew(mesh.new)
        until(lambda: serial() == mesh.now.serial)
        mesh.client = mesh.newcomer
        serial()


def test_grpc_follows(mesh: Mesh) -> None:
    def channel(node: Node) -> grpc.Channel:
        trusted = mesh.old.pem + mesh.new.pem
        credentials = grpc.ssl_channel_credentials(trusted, node.key, node.cert)
        own = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.secure_channel(f"localhost:{mesh.port}", credentials, own)

    def echo(channel: grpc.Channel) -> bytes:
        answer: bytes = channel.unary_unary("/privet/Echo")(b"hello", timeout=30, wait_for_ready=False)
        return answer

    def serial() -> int:
        # gRPC's clients do not tell what they were shown. It speaks HTTP/2 alone, and asks for it by ALPN.
        context = mesh.context()
        context.set_alpn_protocols(["h2"])
        with closing(mesh.wrap(context)) as connection:
            return serial_shown(connection)

    def lets_in(node: Node) -> bool:
        with channel(node) as each:
            try:
                return echo(each) == b"hello"
            except grpc.RpcError:
                return False

    with running(mesh, sys.executable, write(mesh, "grpc_server.py")), channel(mesh.client) as kept:
        assert echo(kept) == b"hello"
        for _ in range(2):
            renewed = mesh.renew(mesh.old).serial
            until(lambda renewed=renewed: serial() == renewed)  # type: ignore[misc]
            assert echo(kept) == b"hello"
            assert lets_in(mesh.client)
        assert not lets_in(mesh.newcomer)
        mesh.trust(mesh.old, mesh.new)
        until(lambda: lets_in(mesh.newcomer))
        assert lets_in(mesh.client)


# --- clients ---


class Greeter(http.server.BaseHTTPRequestHandler):
    """Tells clients which certificate they have shown. The server is one of threads and plain sockets."""

    def do_GET(self) -> None:
        assert isinstance(self.connection, ssl.SSLSocket)
        body = f"{serial_shown(self.connection):x}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def greeting(mesh: Mesh) -> Iterator[LiveTLS]:
    """A threaded HTTPS server. Its socket is wrapped once, while it only listens."""
    node = mesh.old.node()
    live = LiveTLS(node.cert, node.key, mesh.old.pem)
    with http.server.ThreadingHTTPServer(("127.0.0.1", mesh.port), Greeter) as server:
        server.socket = live.server_context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield live
        finally:
            server.shutdown()


def module(path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(path.parent)
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None
    assert specification.loader is not None
    found = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(found)
    return found


async def client_follows(mesh: Mesh, peer: LiveTLS, client: Any) -> None:
    fetch: Callable[[], Awaitable[str]] = client.fetch
    assert await fetch() == f"{mesh.now.serial:x}"
    for _ in range(2):
        mesh.renew(mesh.old)
        assert client.live.refresh()
        assert await fetch() == f"{mesh.now.serial:x}"
    # The other end goes over to the new root, and this one has to trust it first.
    newcomer = mesh.new.node()
    peer.replace(cert_pem=newcomer.cert, key_pem=newcomer.key, ca_cert_pem=mesh.old.pem + mesh.new.pem)
    with pytest.raises(Exception, match=r"(?i)certificate.verify.failed"):
        await fetch()
    mesh.trust(mesh.old, mesh.new)
    mesh.renew(mesh.new)
    assert client.live.refresh()
    assert await fetch() == f"{mesh.now.serial:x}"


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["httpx_client.py", "httpx_async_client.py", "aiohttp_client.py", "streams_client.py"])
async def test_a_client_follows(name: str, mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    with greeting(mesh) as peer:
        client = module(write(mesh, name), monkeypatch)
        await client_follows(mesh, peer, client)
        if name == "httpx_client.py":
            client.client.close()
        elif name == "httpx_async_client.py":
            await client.client.aclose()


@pytest.mark.anyio
async def test_a_client_of_websockets_follows(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    from websockets.asyncio.server import ServerConnection, serve

    async def greet(connection: ServerConnection) -> None:
        await connection.send(f"{serial_shown(connection.transport.get_extra_info('ssl_object')):x}")

    node = mesh.old.node()
    peer = LiveTLS(node.cert, node.key, mesh.old.pem)
    async with serve(greet, "127.0.0.1", mesh.port, ssl=peer.server_context):
        await client_follows(mesh, peer, module(write(mesh, "websockets_client.py"), monkeypatch))


def test_every_program_of_the_page_is_run_here() -> None:
    text = "".join(Path(__file__).with_name(name).read_text() for name in ("test_programs.py", "test_page.py"))
    assert [name for name in page.names() if f'"{name.removeprefix("# ")}"' not in text] == []
