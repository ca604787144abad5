"""What is served: the responder where it is mounted, a page for people who come by, and the server's own certificate.

A `Site` is its settings and what the files said that they name, and opens what it needs in the process that serves it:
it travels to workers by pickle, so that all of them follow what was read and checked when the server started.
Speaks for ASGI's root_path. The law of this module: the way to the responder is one look at a path, and no redirect.
"""

import asyncio
import contextlib
import logging
import multiprocessing.connection
import os
import signal
import ssl
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

from uvicorn.config import STARTUP_FAILURE, Config

from privet.acme.attempts import ChallengeValidator
from privet.acme.encoding import to_json
from privet.acme.identifiers import from_text
from privet.acme.problems import Problem, ProblemType
from privet.ca import DEFAULT, AuthorityError, CertificateAuthority
from privet.cli.failures import Failure
from privet.cli.limits import set_limits
from privet.cli.logs import begin_request
from privet.cli.serve.proxy import TrustedProxies
from privet.cli.serve.tls import OwnCertificate
from privet.cli.settings import Settings
from privet.cli.stores import check_time, init_authority, load_authority, open_settings_store
from privet.server.asgi import Receive, Scope, Send
from privet.server.limits import Limits
from privet.server.responder import ACMEResponder
from privet.server.rules import Rules
from privet.server.urls import URLs
from privet.stores import OpenStore, StoreError
from privet.validation import Networks, Resolver, make_validators
from privet.vault.pki import VaultPKI
from privet.vault.roles import Roles

log = logging.getLogger("privet")

_READY = "/health/ready"
# Seconds that an answer to it counts.
_REMEMBERED = 1.0
_HEALTH = {"/health/live": "live", _READY: "ready"}

# Seconds that requests in flight have to finish; container runtimes kill after ten.
GRACE = 8

# The store works in a thread beside the event loop. When both want to run, the loop should not wait for 5 ms.
_SWITCH_INTERVAL = 0.0005
# Seconds of a validation's time that are left for its last try, and for CAA after that.
_LAST_TRY = 20


@dataclass(frozen=True, slots=True)
class Files:
    """What the files said that were read when the server started."""

    rules: Rules | None = None
    client_ca: str | None = None
    roles: Roles | None = None


class Site:
    """`listeners` are the addresses and ports this server listens at itself; the `first` process makes what is not
    there yet."""

    def __init__(
        self,
        settings: Settings,
        files: Files,
        external_url: str,
        tls_names: tuple[str, ...],
        listeners: tuple[tuple[str, int], ...] = (),
        *,
        first: bool = True,
    ) -> None:
        self.settings = settings
        self.files = files
        self.external_url = external_url
        self.listeners = listeners
        self.registry: Any = None
        """What counts for `--metrics`, where the server is one process."""
        self._tls_names = tls_names
        self._first = first
        self._ca: CertificateAuthority | None = None
        self._own: OwnCertificate | None = None
        self._store: OpenStore | None = None

    def __reduce__(self) -> tuple[object, ...]:
        arguments = self.settings, self.files, self.external_url, self._tls_names, self.listeners
        return partial(Site, *arguments, first=False), ()

    def open(self) -> CertificateAuthority:
        """Open the store, and make what the first start makes. Raises what the store and the authority raise."""
        if self._ca is None:
            # A worker makes nothing: if all of it is gone, another authority would not bring it back.
            self._store = open_settings_store(self.settings.store, existing=not self._first)
            ca = (init_authority if self._first else load_authority)(self._store, self.settings)
            check_time(ca)
            if self.settings.tls:
                names, validity = self._certifiable(ca), self.settings.tls_validity
                self._own = OwnCertificate(ca, names, validity, client_ca=self.files.client_ca)
                self._own.refresh()
            self._ca = ca
        return self._ca

    def _certifiable(self, ca: CertificateAuthority) -> tuple[str, ...]:
        """The server's own names, less addresses that nobody asked for and the authority must not certify."""
        refused = {name: reason for name in self._tls_names if (reason := ca.issuer.refusal(from_text(name)))}
        if mistake := tls_mistake(self.settings, self._tls_names, refused):
            raise Failure(mistake)
        return tuple(name for name in self._tls_names if name not in refused)

    def close(self) -> None:
        self._ca = self._own = None
        if self._store is not None:
            self._store.close()
            self._store = None

    def make_context(self, config: Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        """uvicorn's ssl_context_factory, asked before the application is made."""
        self._open_or_exit()
        assert self._own is not None
        return self._own.context

    def make_app(self) -> "Application":
        if supervisor := multiprocessing.parent_process():
            threading.Thread(target=_end_with, args=(supervisor.sentinel,), daemon=True).start()
        sys.setswitchinterval(_SWITCH_INTERVAL)
        settings = self.settings
        ca = self._open_or_exit()
        limits = set_limits(
            Limits(validation=settings.validate_within, authorization_reuse=settings.reuse_authorizations),
            settings.limit,
        )
        observe = import_metrics().Metrics(self.registry) if settings.metrics else None
        responder = ACMEResponder(
            ca,
            policy=self.files.rules,
            auto_approve=settings.auto_approve,
            challenge_validator=make_settings_validators(settings, self.external_url, self.listeners),
            ask_challenges=settings.ask_challenges,
            external_url=self.external_url,
            profile=replace(DEFAULT, validity=settings.validity),
            limits=limits,
            terms_of_service=settings.terms_of_service,
            website=settings.website,
            external_account_required=settings.require_eab,
            observe=observe,
        )
        proxies = TrustedProxies(settings.trusted_proxy)
        vault = VaultPKI(ca, self.files.roles, limits=limits, observe=observe) if self.files.roles else None
        return Application(responder, vault, settings, self.external_url, proxies, self._own, self.close)

    def _open_or_exit(self) -> CertificateAuthority:
        """In a worker: what cannot be opened now will not be opened by starting another worker."""
        try:
            return self.open()
        except (StoreError, AuthorityError, Failure) as error:
            log.error("a worker cannot start: %s", error)
            sys.exit(STARTUP_FAILURE)


class Application:
    """The ASGI application: mounts the responder, and Vault's API where there are roles, and lives as long as the
    server."""

    def __init__(
        self,
        responder: ACMEResponder,
        vault: VaultPKI | None,
        settings: Settings,
        external_url: str,
        proxies: TrustedProxies,
        own: OwnCertificate | None,
        close: Callable[[], None],
    ) -> None:
        mount = settings.mount
        self._responder = responder
        self._request_ids = settings.log_format == "json"
        self._vault = vault
        self._vault_below = f"{mount}/v1/"
        self._mount = mount
        self._below = f"{mount}/"
        self._front = {"/", mount, f"{mount}/"}
        self._page = _page(external_url)
        self._index = URLs(external_url).index
        self._proxies = proxies
        self._own = own
        self._close = close
        self._looking: asyncio.Task[tuple[str, ...]] | None = None
        self._looked = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        app: ACMEResponder | VaultPKI = self._responder
        if scope["type"] == "http":
            if self._request_ids:
                send = begin_request(self._proxies.request_id(scope), send)
            path: str = scope["path"]
            if path in _HEALTH and scope["method"] in ("GET", "HEAD"):
                await self._tell_health(path, send, scope)
                return
            if path in self._front and scope["method"] in ("GET", "HEAD"):
                await self._send(send, 200, b"text/plain; charset=utf-8", self._page, scope)
                return
            if not path.startswith(self._below):
                problem = Problem(ProblemType.NOT_FOUND, f"there is nothing here; ACME is below {self._below}")
                body = to_json(problem.to_json())
                await self._send(send, problem.type.status, b"application/problem+json", body, scope)
                return
            scope["client"] = self._proxies.client(scope)
            if self._vault is not None and path.startswith(self._vault_below):
                app = self._vault
        scope["root_path"] = self._mount
        await app(scope, receive, send)

    async def _tell_health(self, path: str, send: Send, scope: Scope) -> None:
        """Whether this process answers at all, or can issue certificates too. Nothing of it is a secret."""
        faults = await self._find_faults() if path == _READY else ()
        document = {"status": "not ready", "reasons": faults} if faults else {"status": _HEALTH[path]}
        await self._send(send, 503 if faults else 200, b"application/json", to_json(document), scope)

    async def _find_faults(self) -> tuple[str, ...]:
        """To look costs the store a write: whoever asks all the time is told what was found a moment ago."""
        loop = asyncio.get_running_loop()
        if self._looking is None or (self._looking.done() and loop.time() >= self._looked + _REMEMBERED):
            self._looking, self._looked = loop.create_task(self._responder.find_faults()), loop.time()
        # Others wait for the same answer, so that nobody who hangs up may take it away.
        return await asyncio.shield(self._looking)

    async def _send(self, send: Send, status: int, content_type: bytes, body: bytes, scope: Scope) -> None:
        length = str(len(body)).encode()
        headers = [
            (b"link", self._index),
            (b"cache-control", b"no-store"),
            (b"content-type", content_type),
            (b"content-length", length),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        keeping = asyncio.create_task(self._own.keep()) if self._own else None
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if keeping:
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping
        self._close()
        await send({"type": "lifespan.shutdown.complete"})


def import_metrics() -> ModuleType:
    """Only where metrics are wanted: the library is an extra. Raises `Failure` if it is missing."""
    try:
        return import_module("privet.cli.serve.metrics")
    except ImportError:
        raise Failure("--metrics takes prometheus-client, which is missing: pip install 'privet[metrics]'") from None


def tls_mistake(settings: Settings, names: Sequence[str], refused: Mapping[str, str]) -> str | None:
    """What is wrong if the authority must not certify these of the server's names, for these reasons."""
    asked = {names[0], *settings.tls_name}
    reasons = [reason for name, reason in refused.items() if name in asked]
    if not reasons:
        return None
    return (
        f"HTTPS needs a certificate that the authority must not make: {'; '.join(reasons)}; choose another name with "
        "--external-url and --tls-name"
    )


def _end_with(supervisor: int) -> None:
    """In a worker: end when the supervisor is gone. Whoever started that believes that nobody serves any more."""
    multiprocessing.connection.wait([supervisor])
    log.error("the supervisor of the workers is gone; this one ends as well")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE + 2)
    os._exit(1)


def make_settings_validators(
    settings: Settings, external_url: str, listeners: tuple[tuple[str, int], ...]
) -> Mapping[str, ChallengeValidator] | None:
    """None if nothing is to be proved, and everything waits for a person."""
    if not settings.methods:
        return None
    return make_validators(
        settings.methods,
        resolver=Resolver(settings.resolver or None),
        networks=Networks(allow=settings.validate_allow, deny=settings.validate_deny, listeners=listeners),
        http_port=settings.http_01_port,
        issuers=settings.identities(external_url),
        account_hash_prefix=f"{external_url}/account-hash/",
        check_caa=settings.caa,
        retry_within=max(0, settings.validate_within.total_seconds() - _LAST_TRY),
    )


def _page(external_url: str) -> bytes:
    return (
        f"This is privet, an internal certificate authority that speaks ACME (RFC 8555).\n\n"
        f"Point an ACME client at   {external_url}/directory\n"
        f"Its root certificate is   {external_url}/ca.pem\n"
    ).encode()
