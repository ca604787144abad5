"""Clients that want certificates while everything breaks, and what servers have told them.

The law of this module: what a server has said is remembered before anybody else hears of it, also when the client that
asked makes nothing of it.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from random import Random

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from tests.interop.clients import Certbot, Lego

from privet import Client, MemoryStore, Problem
from privet.client.errors import ClientError

_BAD_NONCE = "urn:ietf:params:acme:error:badNonce"
_LATE = 300  # how many requests are kept to be sent once more at the end


class Seen:
    """What clients were told."""

    def __init__(self) -> None:
        self.certificates: dict[bytes, str] = {}
        """Each certificate in DER, and whose it is."""
        self.accounts: set[str] = set()
        """The ids of accounts that servers have said there are."""
        self.failures: Counter[str] = Counter()
        self.replayed: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.accepted: list[tuple[httpx.Request, int]] = []
        """Requests that were answered well, and how many crashes there had been before."""
        self._answers: dict[str, bytes] = {}

    def note(self, request: httpx.Request, answer: httpx.Response) -> None:
        path = request.url.path
        if answer.headers.get("content-type", "").startswith("application/pem-certificate-chain"):
            leaf = x509.load_pem_x509_certificates(answer.content)[0]
            self.certificates.setdefault(leaf.public_bytes(Encoding.DER), "client")
            if self._answers.setdefault(path, answer.content) != answer.content:
                self.wrong.append(f"{path} has been two certificates")
        if path.endswith("/new-account") and answer.is_success:
            self.accounts.add(answer.headers["location"].rpartition("/")[2])


class Way(httpx.AsyncBaseTransport):
    """A client's way to the servers: to any of them, with an ear for the answers, and now and then a request twice."""

    def __init__(self, sockets: list[Path], seen: Seen, crashes: Callable[[], int], chance: Random) -> None:
        self._ways = [httpx.AsyncHTTPTransport(uds=str(socket)) for socket in sockets] or [httpx.AsyncHTTPTransport()]
        self._seen = seen
        self._crashes = crashes
        self._chance = chance

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        crashes = self._crashes()
        answer = await self.send(request)
        self._seen.note(request, answer)
        if request.method == "POST" and answer.status_code < 400:
            if self._chance.random() < 0.1:
                with suppress(httpx.HTTPError):
                    await self.replay(request, crashes)
            else:
                self._seen.accepted.append((request, crashes))
                if len(self._seen.accepted) > _LATE:
                    del self._seen.accepted[self._chance.randrange(_LATE)]
        return httpx.Response(answer.status_code, headers=answer.headers, stream=httpx.ByteStream(answer.content))

    async def send(self, request: httpx.Request) -> httpx.Response:
        copy = httpx.Request(request.method, request.url, headers=request.headers, content=request.content)
        answer = await self._chance.choice(self._ways).handle_async_request(copy)
        try:
            content = await answer.aread()
        finally:
            await answer.aclose()
        return httpx.Response(answer.status_code, headers=answer.headers, content=content, request=request)

    async def replay(self, request: httpx.Request, crashes: int) -> None:
        """Send what was answered well once more: its nonce is spent, unless the database has crashed since."""
        answer = await self.send(request)
        problem = json.loads(answer.content).get("type") if answer.status_code >= 400 else None
        if problem == _BAD_NONCE:
            self._seen.replayed["refused"] += 1
        elif answer.status_code >= 500:
            self._seen.replayed["not answered"] += 1
        elif crashes != self._crashes():
            self._seen.replayed["after a crash"] += 1
        else:
            self._seen.wrong.append(f"a nonce was good twice at {request.url.path}: {answer.status_code} {problem}")

    async def aclose(self) -> None:
        for way in self._ways:
            await way.aclose()


async def want(
    name: str, base: str, way: Callable[[], Way], seen: Seen, chance: Random, end: asyncio.Event, least: int = 0
) -> None:
    """Get certificates, with one account after the other, until the end, and `least` in any case."""
    got = 0
    while not end.is_set() or got < least:
        async with Client(
            f"{base}/directory",
            allow_insecure=True,
            store=MemoryStore(),
            transport=way(),
            timeout=20,
            # A server that cannot store anything asks for half a minute, in which a lot more is to happen here.
            sleep=lambda seconds: asyncio.sleep(min(seconds, 1)),
        ) as client:
            for number in range(chance.randrange(1, 8)):
                if end.is_set() and got >= least:
                    return
                try:
                    async with asyncio.timeout(45):
                        await client.issue([f"{name}-{number}.internal"])
                    got += 1
                except (ClientError, Problem, TimeoutError) as error:
                    kind = error.type.name if isinstance(error, Problem) else type(error).__name__
                    seen.failures[kind] += 1
                    await asyncio.sleep(chance.random() / 5)


class Others:
    """certbot and lego in turn, each with an account of its own, as other people run them: again, if it fails."""

    def __init__(self, folder: Path, directory: str, root: Path) -> None:
        self.programs = []
        for kind in (Certbot, Lego):
            (folder / kind.name).mkdir()
            self.programs.append(kind(folder / kind.name, directory, root))

    async def want(self, seen: Seen, end: asyncio.Event) -> None:
        """Get certificates until the end, and each program one in any case."""
        lacking = {program.name for program in self.programs}
        for number in count():
            program = self.programs[number % len(self.programs)]
            try:
                issued = await asyncio.to_thread(program.issue, [f"{program.name}-{number}.internal"])
                seen.certificates[issued.certificate.public_bytes(Encoding.DER)] = program.name
                lacking.discard(program.name)
            except (AssertionError, OSError):
                seen.failures[program.name] += 1
                await asyncio.sleep(0.5)
            if end.is_set() and not lacking:
                break
        for program in self.programs:
            seen.accounts |= {url.rpartition("/")[2] for url in program.accounts()}
