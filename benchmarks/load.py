"""ACME clients (RFC 8555 §7.4) that cost less than the server they load.

They sign with cryptography directly and read of an answer only what the next request needs.
The law of this module: an issuance ends in a certificate or in an error that is counted; nothing is tried again.
"""

import asyncio
import json
import random
import ssl
import time
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

ES256 = ec.ECDSA(SHA256())
POLLS = 100


class Failed(Exception):  # noqa: N818 - it names an outcome
    """What kept an issuance from its certificate."""


def base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[bytes, bytes]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Connection(asyncio.Protocol):
    """One keep-alive HTTP/1.1 connection with one request on its way at a time."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[Answer] | None = None
        self._bodiless = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            answer = self._read()
        except (ValueError, LookupError) as error:
            self._fail(Failed(f"unreadable answer: {error!r}"))
            return
        if answer is not None and self._answer is not None:
            self._answer.set_result(answer)
            self._answer = None

    def _read(self) -> Answer | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        first, *lines = self._buffer[:end].split(b"\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        status = int(first.split(b" ", 2)[1])
        if headers.get(b"transfer-encoding") == b"chunked":
            if not self._buffer.endswith(b"0\r\n\r\n"):
                return None
            body = b"".join(_chunks(self._buffer[end + 4 :]))
        else:
            size = 0 if self._bodiless or status == 204 else int(headers[b"content-length"])
            body = self._buffer[end + 4 :]
            if len(body) < size:
                return None
        self._buffer = b""  # one request at a time: nothing can follow its answer
        return Answer(status, headers, body)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._fail(Failed(f"connection lost: {exc!r}"))

    def _fail(self, failure: Failed) -> None:
        if self._answer is not None and not self._answer.done():  # nobody waits for it if it was cancelled
            self._answer.set_exception(failure)
        self._answer = None

    async def send(self, request: bytes, *, bodiless: bool = False) -> Answer:
        if self._transport is None:
            raise Failed("connection lost between requests")
        self._bodiless = bodiless
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _chunks(body: bytes) -> Iterator[bytes]:
    at = 0
    while size := int(body[at : (start := body.index(b"\r\n", at) + 2)], 16):
        yield body[start : start + size]
        at = start + size + 2


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is, and how to reach it."""

    directory: str
    trust: ssl.SSLContext | None = None

    async def connect(self) -> Connection:
        url = urlsplit(self.directory)
        port = url.port or (443 if url.scheme == "https" else 80)
        _, connection = await asyncio.get_running_loop().create_connection(
            Connection, url.hostname or "", port, ssl=self.trust if url.scheme == "https" else None
        )
        return connection


@dataclass(frozen=True, slots=True)
class Job:
    """A certificate to get: its name, and the payloads of newOrder and finalize made beforehand."""

    name: str
    order: str
    csr: str


def jobs(count: int, seed: int, address: str = "") -> list[Job]:
    """Make `count` jobs with sixteen keys, the same ones for the same seed: each with a name of its own, or all for
    `address`, where control can be proved."""
    choose = random.Random(seed)
    keys = [ec.derive_private_key(choose.getrandbits(255) + 1, ec.SECP256R1()) for _ in range(16)]
    if address:
        name: x509.GeneralName = x509.IPAddress(ip_address(address))
        return [_job("ip", address, name, keys[at % 16]) for at in range(count)]
    names = [f"host-{choose.getrandbits(64):016x}.bench.internal" for _ in range(count)]
    return [_job("dns", name, x509.DNSName(name), keys[at % 16]) for at, name in enumerate(names)]


def _job(type: str, name: str, alternative_name: x509.GeneralName, key: ec.EllipticCurvePrivateKey) -> Job:
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.SubjectAlternativeName([alternative_name]), critical=False)
        .sign(key, SHA256())
    )
    return Job(
        name,
        base64url(json.dumps({"identifiers": [{"type": type, "value": name}]}).encode()),
        base64url(json.dumps({"csr": base64url(csr.public_bytes(Encoding.DER))}).encode()),
    )


class Proofs:
    """A web server on this machine that proves control of its address by http-01 (RFC 8555 §8.3) to whoever looks."""

    def __init__(self) -> None:
        self._proofs: dict[str, str] = {}

    def tell(self, token: str, key_authorization: str) -> None:
        self._proofs[token] = key_authorization

    async def serve(self, host: str, port: int) -> asyncio.Server:
        return await asyncio.start_server(self._answer, host, port)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        token = head.split(b" ", 2)[1].rpartition(b"/")[2].decode()
        proof = self._proofs.get(token, "").encode()
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(proof), proof))
        await writer.drain()
        writer.close()


@dataclass(slots=True)
class Account:
    """An account's key, and once it is registered its URL."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    signer: str = ""
    thumbprint: str = ""

    def __post_init__(self) -> None:
        point = self.key.public_key().public_numbers()
        jwk = {"crv": "P-256", "kty": "EC", "x": _coordinate(point.x), "y": _coordinate(point.y)}
        text = json.dumps(jwk, separators=(",", ":"))  # as RFC 7638 §3 wants it
        self.signer = f'"jwk":{text}'
        self.thumbprint = base64url(sha256(text.encode()).digest())

    def registered(self, url: str) -> None:
        self.signer = f'"kid":{json.dumps(url)}'

    def sign(self, url: str, nonce: str, payload: str) -> bytes:
        """Sign a payload that is already base64url (RFC 8555 §6.2)."""
        protected = base64url(f'{{"alg":"ES256",{self.signer},"nonce":"{nonce}","url":"{url}"}}'.encode())
        r, s = decode_dss_signature(self.key.sign(f"{protected}.{payload}".encode(), ES256))
        signature = base64url(r.to_bytes(32) + s.to_bytes(32))
        return f'{{"protected":"{protected}","payload":"{payload}","signature":"{signature}"}}'.encode()


def _coordinate(number: int) -> str:
    return base64url(number.to_bytes(32))


@dataclass(slots=True)
class Tally:
    """What a load did: how long each issuance took, how many requests, what went wrong how often."""

    seconds: list[float] = field(default_factory=list)
    requests: int = 0
    errors: Counter[str] = field(default_factory=Counter)


class Client:
    """One client: a connection of its own, an account that it may share, and its chain of nonces."""

    def __init__(
        self, connection: Connection, account: Account, urls: dict[str, str], tally: Tally, proofs: Proofs | None = None
    ) -> None:
        self._connection = connection
        self._account = account
        self._urls = urls
        self._tally = tally
        self._proofs = proofs
        self._host = urlsplit(urls["newOrder"]).netloc
        self._prefix = len(urls["newOrder"]) - len(urlsplit(urls["newOrder"]).path)
        self._nonce = ""

    @classmethod
    async def connect(cls, place: Place, account: Account, tally: Tally, proofs: Proofs | None = None) -> "Client":
        connection = await place.connect()
        url = urlsplit(place.directory)
        head = f"GET {url.path} HTTP/1.1\r\nhost: {url.netloc}\r\nuser-agent: bench\r\n\r\n"
        answer = await connection.send(head.encode())
        if answer.status != 200:
            raise Failed(f"directory answered {answer.status}")
        return cls(connection, account, answer.json(), tally, proofs)

    async def register(self, account: Account | None = None) -> None:
        """Make the account, or take on another one and make that."""
        self._account = account or self._account
        answer = await self.post(self._urls["newAccount"], base64url(b'{"termsOfServiceAgreed":true}'))
        self._account.registered(answer.headers[b"location"].decode())

    async def new_nonce(self) -> str:
        path = self._urls["newNonce"][self._prefix :]
        head = f"HEAD {path} HTTP/1.1\r\nhost: {self._host}\r\nuser-agent: bench\r\n\r\n"
        answer = await self._connection.send(head.encode(), bodiless=True)
        self._tally.requests += 1
        if answer.status != 200:
            raise Failed(f"newNonce answered {answer.status}")
        return answer.headers[b"replay-nonce"].decode()

    async def post(self, url: str, payload: str = "") -> Answer:
        nonce, self._nonce = self._nonce or await self.new_nonce(), ""
        body = self._account.sign(url, nonce, payload)
        head = (
            f"POST {url[self._prefix :]} HTTP/1.1\r\nhost: {self._host}\r\nuser-agent: bench\r\n"
            f"content-type: application/jose+json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        answer = await self._connection.send(head.encode() + body)
        self._tally.requests += 1
        self._nonce = answer.headers.get(b"replay-nonce", b"").decode()
        if answer.status >= 300:
            raise Failed(f"{answer.status} {_problem(answer)}")
        return answer

    async def issue(self, job: Job) -> bytes:
        """Get one certificate: six requests, or three when the order is born ready."""
        answer = await self.post(self._urls["newOrder"], job.order)
        url, order = answer.headers[b"location"].decode(), answer.json()
        if order["status"] == "pending":
            for authorization in order["authorizations"]:
                await self._authorize(authorization)
            order = await self._settled(url, await self.post(url), "pending")
        if order["status"] != "ready":
            raise Failed(f"order {order['status']} before finalize")
        order = await self._settled(url, await self.post(order["finalize"], job.csr), "processing")
        if order["status"] != "valid":
            raise Failed(f"order {order['status']} after finalize")
        chain = (await self.post(order["certificate"])).body
        if not chain.startswith(b"-----BEGIN CERTIFICATE-----"):
            raise Failed("the certificate is not PEM")
        return chain

    async def _authorize(self, url: str) -> None:
        authorization = (await self.post(url)).json()
        (challenge,) = (each for each in authorization["challenges"] if each["type"] == "http-01")
        if self._proofs is not None:
            self._proofs.tell(challenge["token"], f"{challenge['token']}.{self._account.thumbprint}")
        challenge = (await self.post(challenge["url"], base64url(b"{}"))).json()
        if challenge["status"] not in ("pending", "processing", "valid"):
            raise Failed(f"challenge {challenge['status']}")

    async def _settled(self, url: str, answer: Answer, status: str) -> Any:
        order = answer.json()
        for _ in range(POLLS):
            if order["status"] != status:
                break
            await asyncio.sleep(0.01)
            order = (await self.post(url)).json()
        return order

    async def work(self, queue: Iterator[Job]) -> None:
        for job in queue:
            begun = time.perf_counter()
            try:
                chain = await self.issue(job)
                seconds = time.perf_counter() - begun
                if len(self._tally.seconds) % 100 == 0 and job.name not in _names(chain):
                    raise Failed("a certificate for another name")
            except Failed as failure:
                self._tally.errors[str(failure)] += 1
            except (LookupError, ValueError, TypeError, OSError) as error:
                self._tally.errors[f"client: {error!r}"] += 1
            else:
                self._tally.seconds.append(seconds)

    def close(self) -> None:
        self._connection.close()


def _problem(answer: Answer) -> str:
    try:
        problem = answer.json()
        return f"{problem['type'].rpartition(':')[2]}: {problem.get('detail', '')}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return repr(answer.body[:80])


def _names(chain: bytes) -> list[str]:
    leaf = x509.load_pem_x509_certificates(chain)[0]
    return [str(name.value) for name in leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value]


async def clients(place: Place, count: int, accounts: str, tally: Tally, proofs: Proofs | None = None) -> list[Client]:
    """Connect `count` clients with `one` account among them or one for `each`, registered."""
    shared = Account()
    made = []
    for at in range(count):
        client = await Client.connect(place, shared if accounts == "one" else Account(), tally, proofs)
        if accounts == "each" or at == 0:
            await client.register()
        made.append(client)
    return made


async def drive(workers: Sequence[Client], work: Iterable[Job]) -> None:
    """Let all clients take from the same work until it is done."""
    queue = iter(work)
    await asyncio.gather(*(worker.work(queue) for worker in workers))
