"""For other people's tests: a real ACME server in the same process, on a real port, that misbehaves when asked to.

    with ACMEServer() as server:
        client = Client(directory_url=server.directory_url, ca_bundle=server.ca_bundle)
        server.refuse_nonces(3)

It is the responder that `privet serve` has, over TLS, with a store in memory. The law of this module: what goes wrong
goes wrong as RFC 8555 says it may, and only after somebody has said so.
"""

import asyncio
import contextlib
import socket
import ssl
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import uvicorn

from privet.acme.attempts import ChallengeValidator
from privet.acme.encoding import to_json
from privet.acme.problems import Problem, ProblemType
from privet.ca import CertificateAuthority
from privet.mtls.config import TLSConfig
from privet.mtls.contexts import client_ssl_context, read, server_context
from privet.mtls.testing import NAMES, generate_test_certificates
from privet.server.limits import Limits
from privet.server.responder import ACMEResponder
from privet.stores import MemoryStore

__all__ = ["ACMEServer", "generate_test_certificates", "node_certificate", "serving"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_SOON = Limits(patience=timedelta(seconds=0.05), retry_after=timedelta(seconds=1))


def _utc_now() -> datetime:
    return datetime.now(UTC)


@contextlib.contextmanager
def serving(app: App, tls: ssl.SSLContext | None = None, **options: Any) -> Iterator[int]:
    """Serve an ASGI application in a thread, on a free port of 127.0.0.1, for as long as the block lasts; `options` are
    those of `uvicorn.Config`."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        factory = None if tls is None else lambda config, default: tls
        config = uvicorn.Config(
            app, **{"lifespan": "off", "log_config": None, "ssl_context_factory": factory, **options}
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), name="privet-test-server", daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def node_certificate(ca: CertificateAuthority, folder: Path, *names: str) -> TLSConfig:
    """Write `node.crt`, `node.key` and `ca.crt` for a node of this authority; for localhost if no names are given."""
    bundle = ca.issue(names or NAMES)
    for name, content in (
        ("node.key", bundle.key_pem),
        ("node.crt", bundle.fullchain_pem),
        ("ca.crt", ca.root_cert_pem),
    ):
        path = folder / name
        path.unlink(missing_ok=True)
        path.touch(0o600)
        path.write_bytes(content)
    return TLSConfig(str(folder / "node.crt"), str(folder / "node.key"), str(folder / "ca.crt"))


class ACMEServer:
    """An ACME server to test clients with. It accepts whatever challenges are answered, unless `challenge_validator` is
    there to look; `tls=False` is for clients that cannot be told whom to trust. `options` are others of
    `ACMEResponder`: external account keys, a policy, a profile."""

    def __init__(
        self,
        ca: CertificateAuthority | None = None,
        *,
        tls: bool = True,
        challenge_validator: ChallengeValidator | None = None,
        limits: Limits = _SOON,
        **options: Any,
    ) -> None:
        if ca is None:
            ca = CertificateAuthority(MemoryStore())
            ca.init(cn="privet Test CA")
        self.ca = ca
        self._tls = tls
        self._validator = challenge_validator
        self._limits = limits
        self._options = options
        self._passed = timedelta()
        self._refusals = 0
        self._delay = 0.0
        self._url = ""
        self._stack = contextlib.ExitStack()
        self.ca_bundle = ""
        """The path of a file that has the root."""

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="privet-")))
            (folder / "ca.pem").write_bytes(self.ca.root_cert_pem)
            self.ca_bundle = str(folder / "ca.pem")
            context = None
            if self._tls:
                bundle = self.ca.issue(NAMES)
                context = server_context(read(bundle.fullchain_pem, bundle.key_pem, None))
            self._responder = ACMEResponder(
                self.ca,
                MemoryStore(),
                challenge_validator=_Patient(self),
                limits=self._limits,
                now=lambda: _utc_now() + self._passed,
                **self._options,
            )
            port = stack.enter_context(serving(self, context))
            self._url = f"{'https' if self._tls else 'http'}://localhost:{port}"
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def directory_url(self) -> str:
        return f"{self._url}/directory"

    @property
    def root_pem(self) -> bytes:
        return self.ca.root_cert_pem

    def client_context(self) -> ssl.SSLContext:
        """A client's context that trusts this server and whatever it issues."""
        return client_ssl_context(ca_cert_pem=self.root_pem)

    # --- misbehaviour ---

    def refuse_nonces(self, count: int = 1) -> None:
        """Refuse so many good nonces, as a server does that has forgotten them (RFC 8555 §6.5)."""
        self._refusals = count

    def slow_validation(self, seconds: float) -> None:
        """Take so long for every challenge; clients are told `processing` and when to ask again."""
        self._delay = seconds

    def expire_orders(self) -> None:
        """Let more time pass than orders and authorizations have. Nonces made before are too old as well."""
        self._passed += self._limits.order_lifetime + timedelta(seconds=1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and self._refusals > 0:
            self._refusals -= 1
            await self._refuse(scope, receive, send)
        else:
            await self._responder(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        problem = Problem(ProblemType.BAD_NONCE, "this nonce was refused because the test said so")
        body = to_json(problem.to_json())
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
            (b"replay-nonce", await self._nonce(scope)),
        ]
        await send({"type": "http.response.start", "status": problem.type.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _nonce(self, scope: Scope) -> bytes:
        """A good one, from the responder itself."""
        answers: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def keep(message: MutableMapping[str, Any]) -> None:
            answers.append(message)

        path = "/new-nonce"
        await self._responder({**scope, "method": "HEAD", "path": path, "raw_path": path.encode()}, receive, keep)
        nonce: bytes = dict(answers[0]["headers"])[b"replay-nonce"]
        return nonce

    async def _validate(self, *challenge: str) -> bool:
        await asyncio.sleep(self._delay)
        return self._validator is None or await self._validator.validate(*challenge)


class _Patient:
    """Takes the time that the test wants."""

    def __init__(self, server: ACMEServer) -> None:
        self._server = server

    async def validate(self, identifier: str, identifier_type: str, token: str, key_authorization: str) -> bool:
        return await self._server._validate(identifier, identifier_type, token, key_authorization)
