import contextlib
import http.client
import itertools
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from tests.cli.command import Person
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from privet.cli.serve.protocol import Connection

PIECE = b"x" * 8000
HEAD = b"POST / HTTP/1.1\r\nHost: ca\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
# How each of them starts, and what it says again and again.
ENDLESS = {
    "request line": (b"GET /", PIECE),
    "method": (b"", b"\r\n" * 4000),
    "header": (b"GET / HTTP/1.1\r\nx: ", PIECE),
    "headers": (b"GET / HTTP/1.1\r\n", b"x: y\r\n" * 1000),
    "trailer": (CHUNKED + b"2\r\nhi\r\n0\r\nx: ", PIECE),
    "trailers": (CHUNKED + b"2\r\nhi\r\n0\r\n", b"x: y\r\n" * 1000),
    "chunk extension": (CHUNKED + b"2;x=", PIECE),
    "body": (HEAD + b"Content-Length: 9000000000\r\n\r\n", PIECE),
    "pipelined header": (b"GET / HTTP/1.1\r\nHost: ca\r\n\r\nGET / HTTP/1.1\r\nx: ", PIECE),
}


async def count(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers with the path and the length of the body."""
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length += len(message["body"])
        more = message["more_body"]
    body = f"{scope['path']} {length}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def answer_early(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers without waiting for the body."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"no"})


@contextlib.contextmanager
def serving(protocol: type[HttpToolsProtocol], app: Any = count) -> Iterator[tuple[str, int]]:
    """A server of this protocol in a thread, and its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(app, http=protocol, lifespan="off", ws="none", log_config=None, timeout_keep_alive=65)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield listening.getsockname()
        finally:
            server.should_exit = True
            thread.join()


class Impatient(Connection):
    patience = 0.3


def everything(connection: socket.socket) -> bytes:
    """What the server says until it closes the connection."""
    said = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            said += piece
    return said


def until(connection: socket.socket, end: bytes) -> bytes:
    said = b""
    while not said.endswith(end):
        piece = connection.recv(65536)
        assert piece, said
        said += piece
    return said


def connect(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, timeout=30)


def pieces_sent(connection: socket.socket, start: bytes, again: bytes) -> int:
    """Say the start, and the other again and again until the server has had enough."""
    try:
        connection.sendall(start)
        for number in itertools.count():
            if number > 5000:
                break
            connection.sendall(again)
    except ConnectionError:
        pass
    return number


def ask(address: tuple[str, int], path: str = "/fine") -> bytes:
    with connect(address) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: ca\r\nConnection: close\r\n\r\n".encode())
        return everything(connection)


@pytest.mark.parametrize("what", ENDLESS)
def test_whoever_never_ends_is_cut_off_and_others_are_answered(what: str) -> None:
    with serving(Connection) as address:
        with connect(address) as connection:
            # Far less than what was to be said, though the sockets between the two hold some of it.
            assert pieces_sent(connection, *ENDLESS[what]) < 5000
        assert ask(address).endswith(b"/fine 0")


def test_whoever_asks_on_and_never_listens_is_cut_off() -> None:
    with serving(Impatient) as address:
        with connect(address) as connection:
            assert pieces_sent(connection, b"", b"GET / HTTP/1.1\r\n\r\n" * 1000) < 5000
        assert ask(address).endswith(b"/fine 0")


def test_privet_serve_cuts_off_too(person: Person) -> None:
    with person.serves() as running:
        address = ("127.0.0.1", running.port)
        for start, again in ENDLESS.values():
            with connect(address) as connection:
                assert pieces_sent(connection, start, again) < 5000
            assert ask(address, "/directory").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("start", "length", "status"),
    [
        (b"GET / HTTP/1.1\r\nx: ", Connection.head, b"431"),
        (CHUNKED + b"2;x=", Connection.request, b"413"),
        (CHUNKED + b"2\r\nhi\r\n0\r\nx: ", Connection.request, b"413"),
    ],
)
def test_it_says_why(start: bytes, length: int, status: bytes) -> None:
    with serving(Connection) as address, connect(address) as connection:
        connection.sendall(start + b"y" * (length + 1 - len(start)))
        assert everything(connection).startswith(b"HTTP/1.1 " + status)


def test_a_long_head_within_the_limit_is_fine() -> None:
    with serving(Connection) as address, connect(address) as connection:
        connection.sendall(b"GET /long HTTP/1.1\r\nx: " + b"y" * 30_000)
        connection.sendall(b"\r\n\r\n")
        assert until(connection, b"/long 0").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "said",
    [b"", b"\r\n", b"GET /", b"GET / HTTP/1.1\r\nx:", HEAD + b"Content-Length: 9\r\n\r\nhalf", CHUNKED + b"0\r\n"],
)
def test_silence_and_half_a_request_end_with_patience(said: bytes) -> None:
    with serving(Impatient) as address, connect(address) as connection:
        connection.sendall(said)
        assert everything(connection) == b""


def test_half_a_request_after_a_whole_one_ends_too() -> None:
    with serving(Impatient) as address, connect(address) as connection:
        connection.sendall(b"GET /one HTTP/1.1\r\nHost: ca\r\n\r\n")
        until(connection, b"/one 0")
        connection.sendall(b"GET /two HTTP/1.1\r\n")
        assert everything(connection) == b""


def test_silence_after_an_answer_that_came_before_the_end_of_the_body_ends_too() -> None:
    with serving(Impatient, answer_early) as address, connect(address) as connection:
        connection.sendall(HEAD + b"Content-Length: 9\r\n\r\nhalf")
        until(connection, b"no")
        connection.sendall(b" more")
        assert everything(connection) == b""


def test_requests_on_one_connection_and_at_once_are_answered_in_order() -> None:
    body = b"x" * 60 * 1024
    posted = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with serving(Connection) as address, connect(address) as connection:
        for number in range(20):
            connection.sendall(b"GET /%d HTTP/1.1\r\nHost: ca\r\n\r\n" % number)
            until(connection, b"/%d 0" % number)
            connection.sendall(posted)
            until(connection, b"/ %d" % len(body))
        connection.sendall(b"".join(b"GET /%d HTTP/1.1\r\nHost: ca\r\n\r\n" % number for number in range(40)))
        said = until(connection, b"/39 0")
        places = [said.index(b"/%d 0" % number) for number in range(40)]
        assert places == sorted(places)


def test_an_idle_connection_outlives_the_patience_for_requests() -> None:
    looks: list[float] = []
    enough = threading.Event()

    class Watched(Impatient):
        def _look(self) -> None:
            super()._look()
            looks.append(self.loop.time())
            if len(looks) > 5:
                enough.set()

    with serving(Watched) as address, connect(address) as connection:
        connection.sendall(b"GET /one HTTP/1.1\r\nHost: ca\r\n\r\n")
        until(connection, b"/one 0")
        assert enough.wait(30)
        connection.sendall(b"GET /two HTTP/1.1\r\nHost: ca\r\n\r\n")
        until(connection, b"/two 0")


def test_as_many_files_as_the_system_allows_may_be_open(person: Person) -> None:
    with person.serves() as running:
        limits = Path(f"/proc/{running.program.process.pid}/limits").read_text()
        (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
        assert line.split()[3] == line.split()[4] == str(resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def test_whoever_does_not_read_is_not_waited_for() -> None:
    gone = threading.Event()

    async def answer_at_length(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"50000000")]})
        await send({"type": "http.response.body", "body": b"x" * 50_000_000})
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()

    with serving(Impatient, answer_at_length) as address, connect(address) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: ca\r\n\r\n")
        assert gone.wait(30), "it is still waiting for somebody who does not read"
        everything(connection)


def test_whoever_reads_slowly_has_it_all() -> None:
    length = 24_000_000

    class Waiting(Connection):
        patience = 1.0  # a third of what it takes to read it all, and twenty times what it takes to read a piece

    async def answer_a_lot(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % length)]})
        await send({"type": "http.response.body", "body": b"x" * length})

    with serving(Waiting, answer_a_lot) as address, connect(address) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: ca\r\n\r\n")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        had = 0
        pause = threading.Event()
        while piece := answer.read(400_000):
            had += len(piece)
            pause.wait(0.05)
        assert had == length
