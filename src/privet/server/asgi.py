"""ASGI as all doors of the server speak it: bodies that have an end, and servers that announce their life."""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from privet.acme.problems import Problem, ProblemType

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# That of IPv6 with an interface, and some.
_LONGEST_ADDRESS = 100


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, limit: int) -> bytes:
    """Read a body, and no more of it than is allowed, however it is sent. Raises `Problem`."""
    length = headers.get(b"content-length", b"").lstrip(b"0")
    if length.isdigit() and (len(length) > len(str(limit)) or int(length) > limit):
        raise _too_large(limit)
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem(ProblemType.MALFORMED, "the request ended before its body did")
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return body


def _too_large(limit: int) -> Problem:
    return Problem(ProblemType.CONTENT_TOO_LARGE, f"the request is larger than {limit} bytes")


def client_of(scope: Scope) -> str:
    """Where a request came from. It is kept with what it asked for, and an address is never as long as that."""
    client = scope.get("client")
    return str(client[0])[:_LONGEST_ADDRESS] if client else ""


async def answer_others(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer what is no HTTP request. Mounted applications never hear of a server's life, so nothing depends on it."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1000})
    while scope["type"] == "lifespan":
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
