"""Vault's PKI API as an ASGI application: the part of it that programs need to get certificates.

The law: any request has an answer below 500 unless something here is broken, and every refusal has Vault's form.
"""

import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import NamedTuple

from cryptography.hazmat.primitives.serialization import Encoding

from privet.acme.encoding import to_json
from privet.acme.problems import Problem, ProblemType
from privet.ca.authority import CertificateAuthority
from privet.ca.certificates import AuthorityError
from privet.ca.tbs import to_pem
from privet.server.asgi import Receive, Scope, Send, answer_others, client_of, read_body
from privet.server.denials import Denials
from privet.server.events import Answered, Observer, Stored, unobserved
from privet.server.limits import Limits
from privet.server.rates import Rates
from privet.server.server import Reply
from privet.server.urls import relative_path
from privet.stores.asynchronous import AsyncStore
from privet.stores.base import Store, StoreError
from privet.vault.issuing import Engine, find, issue, revoke
from privet.vault.replies import certificate_secret, issued_secret, revoked_secret, to_errors, token_secret
from privet.vault.roles import NAME, Role, Roles, profile_name
from privet.vault.tokens import Token, authenticate
from privet.vault.wishes import SERIAL, read_serial, read_wish, to_serial

log = logging.getLogger("privet")

_PEM_CHAIN, _DER = "application/pem-certificate-chain", "application/pkix-cert"


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Request(NamedTuple):
    """A request whose token is good. `argument` is what its path names: a role, or a serial number."""

    token: Token
    argument: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Resource:
    """A line of the map: what is read by everybody, or what is read or written by who has a token. By its name it is
    counted."""

    name: str
    path: re.Pattern[str]
    public: Callable[[Engine], Reply] | None = None
    handler: Callable[[Engine, Request], Awaitable[Reply]] | None = None
    writes: bool = False

    @property
    def methods(self) -> tuple[str, ...]:
        return ("POST", "PUT") if self.writes else ("GET", "HEAD")


async def issue_certificate(engine: Engine, request: Request) -> Reply:
    """`issue`: a key is made here, and goes out with its certificate."""
    return await _certify(engine, request, sign=False)


async def sign_certificate(engine: Engine, request: Request) -> Reply:
    """`sign`: from a CSR come the public key and the names."""
    return await _certify(engine, request, sign=True)


async def _certify(engine: Engine, request: Request, *, sign: bool) -> Reply:
    role = _role(engine, request.token, request.argument)
    wish = read_wish(request.body, engine.limits.identifiers, sign=sign)
    return issued_secret(engine.ca, await issue(engine, request.token, role, wish), wish)


def _role(engine: Engine, token: Token, name: str) -> Role:
    if token.role != name:
        raise Problem(ProblemType.UNAUTHORIZED, f"permission denied: the token is for the role {token.role!r}")
    role = engine.roles.get(name)
    if role is None:
        raise Problem(ProblemType.MALFORMED, f"unknown role: {name}")
    return role


async def read_certificate(engine: Engine, request: Request) -> Reply:
    """`cert/SERIAL`: a certificate that was issued by a token of this role."""
    found = await find(engine, to_serial(request.argument))
    if found is None or found.profile != profile_name(request.token.role):
        raise Problem(ProblemType.NOT_FOUND, "there is no such certificate for the role of this token")
    return certificate_secret(found.cert_pem, engine.ca.chain_pem, found.revoked)


async def revoke_certificate(engine: Engine, request: Request) -> Reply:
    """`revoke`: a certificate that this very token got."""
    return revoked_secret(await revoke(engine, request.token, read_serial(request.body)))


async def look_up_token(engine: Engine, request: Request) -> Reply:
    """`auth/token/lookup-self`, by which clients find out whether their token is good."""
    return token_secret(request.token, engine.now())


def health(engine: Engine) -> Reply:
    """`sys/health`: sealed, as Vault calls it, where it cannot sign."""
    sealed = False
    try:
        engine.ca.check_time()
    except AuthorityError:
        sealed = True
    document = {
        "initialized": True,
        "sealed": sealed,
        "standby": False,
        "server_time_utc": int(engine.now().timestamp()),
    }
    return Reply(document, status=ProblemType.UNAVAILABLE.status if sealed else 200)


def _ca_der(engine: Engine) -> Reply:
    return Reply(engine.ca.issuer.chain[0].public_bytes(Encoding.DER), content_type=_DER)


def _ca_pem(engine: Engine) -> Reply:
    return Reply(_own_pem(engine.ca), content_type=_PEM_CHAIN)


def _ca_chain(engine: Engine) -> Reply:
    return Reply(engine.ca.chain_pem, content_type=_PEM_CHAIN)


def _ca_certificate(engine: Engine) -> Reply:
    return certificate_secret(_own_pem(engine.ca), engine.ca.chain_pem)


def _ca_certificates(engine: Engine) -> Reply:
    return certificate_secret(engine.ca.chain_pem, engine.ca.chain_pem)


def _own_pem(ca: CertificateAuthority) -> bytes:
    return to_pem(ca.issuer.chain[0].public_bytes(Encoding.DER))


RESOURCES = (
    Resource("issue", re.compile(rf"v1/pki/issue/({NAME})"), handler=issue_certificate, writes=True),
    Resource("sign", re.compile(rf"v1/pki/sign/({NAME})"), handler=sign_certificate, writes=True),
    Resource("revoke", re.compile(r"v1/pki/revoke"), handler=revoke_certificate, writes=True),
    Resource("ca", re.compile(r"v1/pki/ca"), _ca_der),
    Resource("ca", re.compile(r"v1/pki/ca/pem"), _ca_pem),
    Resource("ca", re.compile(r"v1/pki/ca_chain"), _ca_chain),
    Resource("ca", re.compile(r"v1/pki/cert/ca"), _ca_certificate),
    Resource("ca", re.compile(r"v1/pki/cert/ca_chain"), _ca_certificates),
    Resource("cert", re.compile(rf"v1/pki/cert/({SERIAL})"), handler=read_certificate),
    Resource("token", re.compile(r"v1/auth/token/lookup-self"), handler=look_up_token),
    Resource("health", re.compile(r"v1/sys/health"), health),
)


class VaultPKI:
    """Vault's PKI API for one certificate authority, to be served alone or mounted anywhere; clients use the address
    that it is mounted at as Vault's, and `pki` as the mount point.

    Who has a token gets what its role allows: `roles` are read by `Roles.from_toml`, and tokens are those that the
    store has (`privet token create`). `store` is where tokens and certificates are kept; the authority's own if it is
    not given, and with another one the authority's verbs (`certificates`, `revoke`) do not see them. `observe` is told
    of what happens, as a responder's is.
    """

    def __init__(
        self,
        ca: CertificateAuthority,
        roles: Roles,
        store: Store | None = None,
        *,
        limits: Limits | None = None,
        observe: Observer | None = None,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        async_store = AsyncStore(
            store or ca.store, (lambda seconds: observe(Stored(seconds))) if observe is not None else None
        )
        self._engine = Engine(
            ca=ca,
            store=async_store,
            roles=roles,
            limits=limits or Limits(),
            rates=Rates(async_store, ca.name, now),
            now=now,
            observe=unobserved if observe is None else observe,
        )
        self._denials = Denials(now)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await answer_others(scope, receive, send)
            return
        begun, why, name = perf_counter(), None, "none"
        try:
            resource, argument = _find(relative_path(scope))
            name = f"vault-{resource.name}"
            reply = await self._answer(resource, argument, scope, receive)
        except Problem as problem:
            client = client_of(scope)
            asked = (scope["method"], scope["path"][:100], client[:50])
            self._denials.say(client, "refused %s %a from %a: %s", *asked, problem)
            why = problem
        except StoreError as error:
            log.error("the store failed: %s", error)
            wait = timedelta(seconds=30)
            why = Problem(ProblemType.UNAVAILABLE, "the server cannot store anything now", retry_after=wait)
        except Exception:
            log.exception("a request could not be answered")
            why = Problem(ProblemType.SERVER_INTERNAL, "the server made a mistake; its log says more")
        if why is not None:
            reply = to_errors(why)
        await _send(send, reply, with_body=scope["method"] != "HEAD")
        kind = None if why is None else why.type.value[0]
        self._engine.observe(Answered(name, reply.status, kind, perf_counter() - begun))

    async def _answer(self, resource: Resource, argument: str, scope: Scope, receive: Receive) -> Reply:
        engine, headers = self._engine, scope["headers"]
        if scope["method"] not in resource.methods:
            allowed = ", ".join(resource.methods)
            raise Problem(
                ProblemType.METHOD_NOT_ALLOWED,
                f"unsupported operation: this takes {allowed}",
                headers={"Allow": allowed},
            )
        if resource.public is not None:
            return resource.public(engine)
        assert resource.handler is not None
        token = await authenticate(engine.store, engine.ca.name, _shown_token(headers), engine.now())
        if any(name.lower() == b"x-vault-wrap-ttl" for name, _ in headers):
            raise Problem(ProblemType.MALFORMED, "responses are not wrapped here: ask without X-Vault-Wrap-TTL")
        body = await read_body(dict(headers), receive, engine.limits.body) if resource.writes else b""
        return await resource.handler(engine, Request(token, argument, body))


def _find(path: str) -> tuple[Resource, str]:
    """What there is at a path, and what it names there. Raises `Problem`."""
    for resource in RESOURCES:
        if match := resource.path.fullmatch(path):
            return resource, "".join(match.groups())
    raise Problem(ProblemType.NOT_FOUND, "there is nothing here; of Vault there is what gets certificates")


def _shown_token(headers: list[tuple[bytes, bytes]]) -> str:
    """The token that a request shows, once. Raises `Problem`."""
    shown = []
    for name, value in headers:
        text = value.decode("latin-1").strip()
        if name.lower() == b"x-vault-token":
            shown.append(text)
        elif name.lower() == b"authorization":
            scheme, _, rest = text.partition(" ")
            shown += [rest.strip()] if scheme.lower() == "bearer" else []
    if not shown:
        raise Problem(ProblemType.UNAUTHORIZED, "missing client token: send it as X-Vault-Token")
    if len(set(shown)) > 1:
        raise Problem(ProblemType.MALFORMED, "there are two tokens in this request")
    return shown[0]


async def _send(send: Send, reply: Reply, *, with_body: bool) -> None:
    body = reply.document if isinstance(reply.document, bytes) else to_json(reply.document)
    headers = [
        (b"cache-control", b"no-store"),
        (b"content-length", str(len(body)).encode()),
        (b"content-type", reply.content_type.encode()),
        *((name.lower().encode(), value.encode()) for name, value in reply.headers),
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": body if with_body else b""})
