"""http-01 (RFC 8555 §8.3): the key authorization at /.well-known/acme-challenge/TOKEN on port 80.

The law of this module: nothing is served but tokens that were presented, and nothing is read from a request but its
path.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from privet.client.errors import ClientError
from privet.client.handlers import check_token

_PATH = "/.well-known/acme-challenge/"
_HEAD_MAX = 1 << 14
_PATIENCE = 10.0
_MOST_AT_ONCE = 100

Message = MutableMapping[str, Any]


class HTTP01Handler:
    """Meets http-01 challenges, in one of three ways.

    By itself it listens at `port` from the first challenge to the last. With `port=None` it is an ASGI application, to
    be mounted in the one that has port 80, at any path: what is asked for below `/.well-known/acme-challenge/` has to
    reach it. With `webroot` it writes files below the folder that a web server shows.
    """

    challenge_type = "http-01"

    def __init__(self, port: int | None = 80, host: str = "", *, webroot: str | Path | None = None) -> None:
        self.port = port
        self.host = host
        self.webroot = None if webroot is None else Path(webroot).expanduser()
        self._tokens: dict[str, str] = {}
        self._server: asyncio.Server | None = None
        self._turn = asyncio.Lock()
        self._connections: dict[asyncio.Task[None], None] = {}

    async def present(self, identifier: str, token: str, key_authorization: str) -> None:
        check_token(token)
        if self.webroot is not None:
            await asyncio.to_thread(_write, self.webroot, token, key_authorization)
            return
        self._tokens[token] = key_authorization
        async with self._turn:
            if self._server is None and self.port is not None:
                self._server = await self._listen(self.port)

    async def cleanup(self, identifier: str, token: str, key_authorization: str) -> None:
        check_token(token)
        if self.webroot is not None:
            await asyncio.to_thread((self.webroot / _PATH[1:] / token).unlink, missing_ok=True)
            return
        self._tokens.pop(token, None)
        async with self._turn:
            if self._server is not None and not self._tokens:
                self._server.close()
                for connection in self._connections:
                    connection.cancel()
                await asyncio.gather(*self._connections, return_exceptions=True)
                self._server = None

    def answer(self, path: str) -> bytes | None:
        """The key authorization for the token that a path ends in, if it was presented."""
        found = self._tokens.get(path.rpartition("/")[2])
        return None if found is None else found.encode()

    # --- as a server of its own ---

    async def _listen(self, port: int) -> asyncio.Server:
        try:
            return await asyncio.start_server(self._connected, self.host or None, port, limit=_HEAD_MAX)
        except OSError as error:
            at = f"{self.host or '*'}:{port}"
            raise ClientError(
                f"http-01 needs to listen at {at}, and cannot: {error}. Give HTTP01Handler another port that {at} is "
                "forwarded to, the webroot of the server that is there, or mount it in that"
            ) from None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) >= _MOST_AT_ONCE:  # a crowd does not keep the CA out
            oldest = next(iter(self._connections))
            del self._connections[oldest]
            oldest.cancel()
        self._connections[task] = None
        try:
            with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError, TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await self._converse(reader, writer)
        except asyncio.CancelledError:
            pass  # it has to make room, or nobody is served any more
        finally:
            self._connections.pop(task, None)
            writer.transport.abort() if writer.transport.is_closing() else writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if path.lower().startswith("http://"):  # RFC 9112 §3.2.2: the absolute form
            path = "/" + path[7:].partition("/")[2]
        found = self.answer(path) if path.startswith(_PATH) and method in ("GET", "HEAD") else None
        status, body = ("404 Not Found", b"no such token\n") if found is None else ("200 OK", found)
        kind = "text/plain" if found is None else "application/octet-stream"
        lines = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(lines.encode() + (b"" if method == "HEAD" else body))
        await writer.drain()

    # --- as an ASGI application ---

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        elif scope["type"] == "http":
            found = self.answer(scope["path"]) if scope["method"] in ("GET", "HEAD") else None
            body = b"no such token\n" if found is None else found
            headers = [(b"content-type", b"application/octet-stream" if found else b"text/plain")]
            headers.append((b"content-length", str(len(body)).encode()))
            await send({"type": "http.response.start", "status": 200 if found else 404, "headers": headers})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1000})


def _write(webroot: Path, token: str, key_authorization: str) -> None:
    """Write a file that the web server can read, which everybody may: the CA does."""
    folder = webroot / _PATH[1:]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / token
        # Made anew, not opened: what somebody else may have put there, a link, is not followed.
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
            file.write(key_authorization.encode())
    except OSError as error:
        raise ClientError(f"http-01 needs to write below {folder}, and cannot: {error}") from None
