"""HTTP as a stranger speaks it: any bytes in any pieces are a response or a problem, and there is a limit to them."""

import asyncio

import h11
from hypothesis import example, given
from hypothesis import strategies as st
from tests.validation.scene import CANARY, patiently

from privet.acme.problems import Problem
from privet.validation.http01 import Response, read_response, request
from privet.validation.redirects import first_target

LIMIT = 500


def read(pieces: list[bytes]) -> Response | Problem:
    """Read what comes in these pieces, and then the end."""
    exchange = h11.Connection(h11.CLIENT, max_incomplete_event_size=LIMIT)
    request(exchange, first_target("www.internal", 80, "token"))
    coming = iter([*(piece for piece in pieces if piece), b""])
    taken = 0

    async def receive() -> bytes:
        nonlocal taken
        assert taken <= LIMIT, "read on behind the limit"
        data = next(coming)
        taken += len(data)
        return data

    async def reading() -> Response | Problem:
        try:
            return await read_response(exchange, receive, LIMIT, "www.internal")
        except Problem as problem:
            return problem

    found = asyncio.run(reading())
    assert isinstance(found, Response) or CANARY not in found.detail
    return found


parts = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.0 200 OK\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 302 Found\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n",
        b"HTTP/1.1 204 No Content\r\n",
        b"Location: /x\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Connection: close\r\n",
        b" folded\r\n",
        b"X-Canary: " + CANARY.encode() + b"\r\n",
        b"\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"5;x=y\r\n",
        b"hello",
        b"\0",
    ]
)


@patiently
@given(st.lists(parts | st.binary(max_size=20), max_size=15))
@example([b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"])
@example([b"HTTP/1.1 101 x\r\n\r\n", b"more"])
def test_any_bytes_are_a_response_or_a_problem(pieces: list[bytes]) -> None:
    found = read(pieces)
    if isinstance(found, Response):
        assert len(found.body) <= LIMIT
        assert 200 <= found.status < 1000


@patiently
@given(st.integers(1, 80))
def test_it_is_the_same_response_in_whatever_pieces_it_comes(size: int) -> None:
    whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nX: y\r\n\r\n"
    pieces = [whole[start : start + size] for start in range(0, len(whole), size)]
    assert read(pieces) == Response(200, None, b"hello world")


def test_what_comes_behind_the_response_is_not_in_it() -> None:
    assert read([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 302 Found\r\n\r\n"]) == Response(
        200, None, b"hello"
    )
