"""A responder with nothing in between: requests go in as ASGI has them, and what holds of every answer is checked.

Everything is synchronous, because hypothesis is.
"""

import asyncio
import json
import re
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

from tests.wire import PrivateKey, algorithm_of, jwk_of, new_key, sign

from privet import ACMEResponder, CertificateAuthority, MemoryStore
from privet.acme.identifiers import from_text
from privet.acme.problems import URN, ProblemType

HOST = "ca.internal"
BASE = f"https://{HOST}"
JOSE_JSON = (b"content-type", b"application/jose+json")

Headers = Sequence[tuple[bytes, bytes]]
# RFC 9110 §5.6.2 and §5.5
_NAME = re.compile(rb"[a-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(rb"[\x21-\x7e\x80-\xff]([\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?")
_TYPES = {type.urn for type in ProblemType}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Headers
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value.decode() for key, value in self.headers if key == name.encode()), None)

    def links(self, relation: str) -> list[str]:
        found = [re.fullmatch(r'<(.*)>;rel="(.*)"', value.decode()) for key, value in self.headers if key == b"link"]
        return [link[1] for link in found if link and link[2] == relation]

    @property
    def document(self) -> dict[str, Any]:
        document = json.loads(self.body)
        assert isinstance(document, dict)
        return document

    @property
    def problem(self) -> str | None:
        """The type of the problem, without its URN; None where there is none."""
        return self.document["type"].removeprefix(URN) if self.status >= 400 else None


class Clock:
    def __init__(self) -> None:
        self.time = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def forward(self, span: timedelta) -> None:
        self.time += span


class Scene:
    """A responder on a `MemoryStore` and an event loop of its own."""

    def __init__(self, **arguments: Any) -> None:
        self.clock = Clock()
        self.store = MemoryStore()
        self.ca = CertificateAuthority(self.store, now=self.clock)
        self.ca.init()
        self.arguments = arguments
        self.runner = asyncio.Runner()
        self.start()

    def start(self) -> None:
        self.responder = ACMEResponder(self.ca, now=self.clock, external_url=BASE, **self.arguments)

    def close(self) -> None:
        self.runner.close()

    def rest(self) -> None:
        """Wait until nothing goes on behind the replies."""
        self.runner.run(_behind())

    def restart(self) -> None:
        """Kill the process, whatever it was at, and start another on the same store."""
        self.runner.run(_behind(kill=True))
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] = b"",
        headers: Headers = (),
        query: bytes = b"",
        root_path: str = "",
    ) -> Answer:
        """Send a request and return the answer, which is not the server's own fault."""
        answer = self.runner.run(self._ask(method, path, body, headers, query, root_path))
        check(method, path, answer)
        return answer

    def ask_together(self, path: str, bodies: Sequence[bytes]) -> list[Answer]:
        """Several POSTs to the same resource at the same time."""

        async def all_of_them() -> list[Answer]:
            return await asyncio.gather(*[self._ask("POST", path, body, [JOSE_JSON], b"", "") for body in bodies])

        answers = self.runner.run(all_of_them())
        for answer in answers:
            check("POST", path, answer)
        return answers

    async def _ask(
        self, method: str, path: str, body: bytes | Iterable[bytes], headers: Headers, query: bytes, root_path: str
    ) -> Answer:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "https",
            "path": path,
            "raw_path": path.encode(errors="surrogatepass"),
            "query_string": query,
            "root_path": root_path,
            "headers": [(b"host", HOST.encode()), *headers],
            "client": ("192.0.2.1", 1024),
            "server": (HOST, 443),
        }
        pieces = [body] if isinstance(body, bytes) else list(body)
        incoming: list[dict[str, object]] = [
            {"type": "http.request", "body": each, "more_body": True} for each in pieces
        ]
        incoming += [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> dict[str, object]:
            return incoming.pop(0)

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        await self.responder(scope, receive, send)
        start, *bodies = sent
        assert start["type"] == "http.response.start"
        assert [each["type"] for each in bodies] == ["http.response.body"]
        return Answer(start["status"], start["headers"], bodies[0]["body"])

    def nonce(self) -> str:
        nonce = self.ask("HEAD", "/new-nonce").header("replay-nonce")
        assert nonce is not None
        return nonce

    def is_well(self) -> None:
        """It answers as if nothing had happened."""
        directory = self.ask("GET", "/directory")
        assert directory.status == 200
        assert directory.document["newOrder"] == f"{BASE}/new-order"
        assert Player(self).register().status == 201


async def _behind(*, kill: bool = False) -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    if kill:
        for task in tasks:
            task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=30)


def check(method: str, path: str, answer: Answer) -> None:
    """What holds of every answer to anything."""
    shown = f"{method} {path!a} gave {answer}"
    assert 200 <= answer.status < 500, shown
    for name, value in answer.headers:
        assert _NAME.fullmatch(name), shown
        assert _VALUE.fullmatch(value), shown
    length = answer.header("content-length")
    if answer.status == 204:
        assert (length, answer.body) == (None, b""), shown
    else:
        assert method == "HEAD" or int(length or "") == len(answer.body), shown
    # RFC 8555 §7.1: "The server MUST include a link of relation "index" in all responses other than the directory"
    assert answer.links("index") == [f"{BASE}/directory"], shown
    if method == "POST":
        assert answer.header("replay-nonce"), shown  # §6.5
    if answer.status >= 400:
        assert answer.header("content-type") == "application/problem+json", shown
        if method != "HEAD":
            document = answer.document
            assert document["status"] == answer.status, shown
            assert document["type"] in _TYPES, shown
            assert document["detail"], shown
            assert document["detail"].isprintable(), shown


@dataclass
class Player:
    """Somebody with a key, and once registered with an account."""

    scene: Scene = field(repr=False)
    key: PrivateKey = field(default_factory=new_key, repr=False)
    kid: str | None = None

    def header(self, url: str, **changes: object) -> dict[str, object]:
        named: dict[str, object] = {"kid": self.kid} if self.kid else {"jwk": jwk_of(self.key)}
        header = {"alg": algorithm_of(self.key), "nonce": self.scene.nonce(), "url": url, **named} | changes
        return {name: value for name, value in header.items() if value is not None}

    def signed(self, url: str, payload: object = None, **changes: object) -> bytes:
        """The body of a good request; `changes` are to its protected header."""
        return json.dumps(sign(self.key, self.header(url, **changes), payload)).encode()

    def post(self, path: str, payload: object = None, headers: Headers = (JOSE_JSON,), **changes: object) -> Answer:
        path, _, query = path.removeprefix(BASE).partition("?")
        url = f"{BASE}{path}?{query}" if query else BASE + path
        return self.scene.ask("POST", path, self.signed(url, payload, **changes), headers, query.encode())

    def register(self, **payload: object) -> Answer:
        self.kid = None
        answer = self.post("/new-account", {"termsOfServiceAgreed": True, **payload})
        self.kid = answer.header("location")
        return answer

    def order(self, *names: str) -> Answer:
        return self.post("/new-order", {"identifiers": [each.to_json() for each in map(from_text, names)]})
