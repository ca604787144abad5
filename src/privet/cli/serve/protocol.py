"""HTTP/1.1 connections, with an end to what a client may send, to how long it may take (RFC 9110 §17.5) and to how many
there may be, and with the certificate that the client showed (ASGI's TLS extension).

uvicorn limits none of them, and its keep-alive timer starts only after a first answer. The law of this module: a client
that has yet to finish a request costs a bounded amount of memory for a bounded time, and keeps nobody else out.
"""

import asyncio
import resource
from functools import cache
from typing import cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from privet.mtls.peers import tls_extension


class Connection(HttpToolsProtocol):
    """A connection that is closed when a request is too long or takes too long to arrive.

    Bytes are counted as they are read from the socket: those of a new request that come with the end of the one before
    are not, so that the ceilings are exact but for one read.
    """

    head = 32 * 1024
    """Bytes of a request before its headers are complete."""
    request = 256 * 1024
    """Bytes of a request in all, chunk extensions and trailers included. The responder's limit on bodies is far below,
    and answers better."""
    pipelined = 50
    """Whole requests that wait for the one before them. uvicorn reads on whenever it has answered one."""
    piece = 4096
    """Bytes that are looked at before the ceilings are: more of them may be hundreds of requests, and keep others
    waiting."""
    patience = 20.0
    """Seconds from the first byte of a request, or from connecting, until all of the request has come; and for which a
    client may leave an answer unread. A look every so often enforces it, so that it may take a quarter longer."""

    _received = 0
    _in_head = True
    _last = 0.0
    _since = 0.0
    _unread = 0
    _look_timer: asyncio.TimerHandle | None = None
    _tls: dict[object, object] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._tls = cast("dict[object, object] | None", tls_extension(transport.get_extra_info("ssl_object")))
        self._last = self._since = self.loop.time()
        self._look_timer = self.loop.call_later(self.patience, self._look)
        if len(self.connections) > most():
            self._make_room()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._tls is not None:
            self.scope["extensions"] = {"tls": self._tls}

    def connection_lost(self, exc: Exception | None) -> None:
        if self._look_timer is not None:
            self._look_timer.cancel()
            self._look_timer = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        for start in range(0, len(data), self.piece):
            piece = data[start : start + self.piece]
            if not self._received:
                self._since = self.loop.time()
            self._received += len(piece)
            super().data_received(piece)
            too_long = self._received > self.head and (self._in_head or self._received > self.request)
            if too_long or len(self.pipeline) > self.pipelined:
                self._refuse()
            if self.transport.is_closing():
                return

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._last = self.loop.time()
        self._received = 0
        self._in_head = True
        super().on_message_complete()

    def _make_room(self) -> None:
        """Close those whose last whole request is longest ago, or who never had one: clients connect anew when they
        want something. Several at once, for to find them takes a look at all."""
        waiting = [each for each in self.connections if isinstance(each, Connection) and each._is_clients_turn()]
        waiting.sort(key=lambda each: each._last)
        for each in waiting[: max(1, most() // 16)]:
            each._close()

    def _refuse(self) -> None:
        if self.transport.is_closing():
            return
        # An answer is for the request it belongs to, and those before it may still wait for theirs.
        cycle = self.cycle
        if self._in_head:
            status, free = 431, cycle is None or cycle.response_complete
        else:
            status, free = 413, not cycle.response_started
        if free and not self.pipeline:
            self.transport.write(STATUS_LINE[status] + b"content-length: 0\r\nconnection: close\r\n\r\n")
        self._close()

    def _look(self) -> None:
        """Close the connection when its client is late, and come back later when it is not."""
        if self.transport.is_closing():
            # It was closed a while ago, and its client does not take what was still to be sent.
            self.transport.abort()
            return
        unread = self.transport.get_write_buffer_size()
        if unread >= self._unread > 0:
            # It has taken nothing since the last look of what waits for it.
            self.transport.abort()
            return
        self._unread = unread
        now = self.loop.time()
        if self.flow.read_paused or not self._is_awaited():
            self._since = now
        if now >= self._since + self.patience:
            self._close()
        # A closed connection is looked at once more, to see that it is gone.
        self._look_timer = self.loop.call_later(max(self._since + self.patience - now, self.patience / 4), self._look)

    def _is_clients_turn(self) -> bool:
        return bool(self._received) or self.cycle is None or self.cycle.response_complete

    def _is_awaited(self) -> bool:
        """Whether it is the client's turn, and uvicorn's keep-alive timer does not mind it."""
        return self._is_clients_turn() and (bool(self._received) or self.timeout_keep_alive_task is None)

    def _close(self) -> None:
        # What the responder still says is not to follow.
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()


@cache
def most() -> int:
    """How many connections a process has: enough for a fleet, and fewer than the files it may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(16, min(12_000, soft * 3 // 4))
