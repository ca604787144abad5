"""What the tests of the client begin with: the real responder, a clock that is set, and servers that misbehave."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from privet import ACMEResponder, CertificateAuthority, Client, MemoryStore, Store

BASE = "http://ca.internal"
DIRECTORY = f"{BASE}/directory"


@dataclass
class Clock:
    """What time it is, as a test says; who sleeps lets it pass. `naps` are the seconds that were slept."""

    time: datetime = datetime(2026, 3, 1, 12, tzinfo=UTC)
    naps: list[float] = field(default_factory=list)

    def __call__(self) -> datetime:
        return self.time

    def forward(self, **span: float) -> None:
        self.time += timedelta(**span)

    async def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.time += timedelta(seconds=seconds)
        await asyncio.sleep(0)


Answer = tuple[int, Mapping[str, str], bytes]
Change = Callable[[httpx.Request, Answer], Answer | Awaitable[Answer]]


class Difficult(httpx.AsyncBaseTransport):
    """The way to a real responder, on which a test may change answers, or give its own. It remembers who asked what."""

    def __init__(self, app: Any) -> None:
        self.inner = httpx.ASGITransport(app)
        self.changes: list[Change] = []
        self.requests: list[httpx.Request] = []
        self.down = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.down:
            raise httpx.ConnectError("the CA is down", request=request)
        response = await self.inner.handle_async_request(request)
        answer: Answer = (response.status_code, dict(response.headers), await response.aread())
        for change in self.changes:
            changed = change(request, answer)
            answer = changed if isinstance(changed, tuple) else await changed
        status, headers, body = answer
        headers = {name: value for name, value in headers.items() if name.lower() != "content-length"}
        return httpx.Response(status, headers=headers, stream=httpx.ByteStream(body))

    def paths(self, method: str = "POST") -> list[str]:
        return [each.url.path.split("/")[1] for each in self.requests if each.method == method]


@dataclass
class Scene:
    clock: Clock
    ca: CertificateAuthority
    responder: ACMEResponder
    way: Difficult

    def client(self, **options: Any) -> Client:
        defaults: dict[str, Any] = {
            "allow_insecure": True,
            "transport": self.way,
            "now": self.clock,
            "sleep": self.clock.sleep,
        }
        return Client(options.pop("directory_url", DIRECTORY), **{**defaults, **options})


@asynccontextmanager
async def stage(*, store: Store | None = None, clock: Clock | None = None, **arguments: Any) -> AsyncIterator[Scene]:
    """A responder that approves what it is asked unless told otherwise."""
    clock = clock or Clock()
    ca = CertificateAuthority(store or MemoryStore(), now=clock)
    ca.init()
    arguments.setdefault("auto_approve", "challenge_validator" not in arguments)
    responder = ACMEResponder(ca, now=clock, **arguments)
    yield Scene(clock, ca, responder, Difficult(responder))


def on(path: str, *answers: Answer, method: str = "") -> Change:
    """Give these answers, one after the other, to whoever asks for a path that begins so; then the real ones."""
    waiting = list(answers)

    def change(request: httpx.Request, answer: Answer) -> Answer:
        fits = request.url.path.startswith(path) and method in ("", request.method)
        return waiting.pop(0) if waiting and fits else answer

    return change


def rewritten(path: str, **members: Any) -> Change:
    """Change members of the JSON that is answered at paths that begin so; None takes one out."""

    def change(request: httpx.Request, answer: Answer) -> Answer:
        status, headers, body = answer
        if not request.url.path.startswith(path) or status >= 400 or not body.startswith(b"{"):
            return answer
        document = {**json.loads(body), **members}
        document = {name: value for name, value in document.items() if value is not None}
        return status, headers, json.dumps(document).encode()

    return change


def problem(status: int, type: str, detail: str = "no", headers: Mapping[str, str] = {}, **members: Any) -> Answer:
    document = {"type": f"urn:ietf:params:acme:error:{type}", "detail": detail, "status": status, **members}
    return status, {"content-type": "application/problem+json", **headers}, json.dumps(document).encode()


@asynccontextmanager
async def trickling() -> AsyncIterator[str]:
    """A server that answers without end, an octet at a time."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n")
        with closing(writer), suppress(OSError):
            while not writer.is_closing():
                writer.write(b"-")
                await writer.drain()
                await asyncio.sleep(0.02)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
