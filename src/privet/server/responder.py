"""The ACME server as an ASGI application (RFC 8555 §6 and §7.1): the map of its resources, and the way in and out.

It needs no lifespan and has no globals; everything comes in through the constructor. The law: every answer leaves by
`_send`, bare nonces apart, and every refusal is a problem document, whatever the bytes were.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from time import perf_counter

from privet.acme.encoding import to_json
from privet.acme.problems import Problem, ProblemType
from privet.ca.authority import CertificateAuthority
from privet.ca.certificates import KIND as CERTIFICATE
from privet.ca.profiles import DEFAULT, Profile
from privet.server import accounts, approval, authorizations, certificates, orders
from privet.server.asgi import Receive, Scope, Send, answer_others, client_of
from privet.server.client_certificates import find_client_certificate
from privet.server.denials import Denials
from privet.server.events import Answered, Observer, Stored, unobserved
from privet.server.health import find_faults
from privet.server.limits import Limits
from privet.server.nonces import Nonces
from privet.server.policy import Decision, Everybody, Policy, warn_of_strangers
from privet.server.rates import Rates
from privet.server.records import Authorization, Kind
from privet.server.requests import Incoming, Resource, read_jose, verify, verify_again
from privet.server.server import ExternalAccountKeys, Reply, Server
from privet.server.urls import ID, URLs, derive_base, read_base, relative_path
from privet.server.validators import AnyValidator, TakesTheirWord, choose_validators, directory_meta
from privet.stores.asynchronous import AsyncStore
from privet.stores.base import Conflict, Store, StoreError

log = logging.getLogger("privet")

RESOURCES: Mapping[str, Resource] = {
    "new-account": Resource(accounts.new_account, signer="key"),
    "new-order": Resource(orders.new_order),
    "new-authz": Resource(authorizations.new_authorization),
    "revoke-cert": Resource(certificates.revoke, signer="either"),
    "key-change": Resource(accounts.key_change),
    "acct": Resource(accounts.account, payload="either", names=Kind.ACCOUNT),
    "orders": Resource(accounts.orders, payload="empty", names=Kind.ACCOUNT),
    "order": Resource(orders.order, payload="empty", names=Kind.ORDER),
    "authz": Resource(authorizations.authorization, payload="either", names=Kind.AUTHORIZATION),
    "chall": Resource(authorizations.challenge, payload="either", names=Kind.AUTHORIZATION),
    "finalize": Resource(orders.finalize, names=Kind.ORDER),
    "cert": Resource(certificates.certificate, payload="empty", names=CERTIFICATE),
}

_UNSIGNED = ("directory", "new-nonce", "ca.pem")

# What the directory calls them (§7.1.1).
DIRECTORY = {
    "newAccount": "new-account",
    "newNonce": "new-nonce",
    "newOrder": "new-order",
    "newAuthz": "new-authz",
    "revokeCert": "revoke-cert",
    "keyChange": "key-change",
}

# Whoever conflicts waits for a moment that doubles and is random, so that many who want the same get it in turn.
_ATTEMPTS, _MOMENT = 11, 0.003


_NO_STORE, _EMPTY = (b"cache-control", b"no-store"), (b"content-length", b"0")


def _utc_now() -> datetime:
    return datetime.now(UTC)


class ACMEResponder:
    """An ACME server for one certificate authority, to be served alone or mounted anywhere.

    With `auto_approve` every account gets what it orders; with `challenge_validator` (one, or a mapping from challenge
    type to validator, whose keys are then the types offered) control has to be proved; with neither, challenges wait
    until `approve` or `refuse` is called. `policy` says who may ask for what in the first place, and for which names
    nothing has to be proved, or a person is to be asked.

    `store` is where accounts, orders and their certificates are kept; the authority's own if it is not given, and with
    another one the authority's verbs (`certificates`, `revoke`) do not see them. `external_url` is the
    address that clients know this responder by, and wants to be said wherever Host headers are not to be trusted.
    External account keys are those that the store has (`privet eab create`) and those of `external_account_keys`.
    With `ask_challenges`, auto-approved orders still start out pending, and any answer to a challenge is accepted.
    `observe` is told of what happens, one `privet.server.events.Event` at a time, to be counted.

    Raises `ValueError` for arguments that contradict each other, types of challenges that do not exist and an
    `external_url` that is none, and `TypeError` for what is no validator.
    """

    def __init__(
        self,
        ca: CertificateAuthority,
        store: Store | None = None,
        *,
        auto_approve: bool = False,
        challenge_validator: AnyValidator | Mapping[str, AnyValidator] | None = None,
        policy: Policy | None = None,
        external_url: str | None = None,
        ask_challenges: bool = False,
        profile: Profile = DEFAULT,
        limits: Limits | None = None,
        terms_of_service: str | None = None,
        website: str | None = None,
        external_account_keys: ExternalAccountKeys | Mapping[str, bytes] | None = None,
        external_account_required: bool = False,
        observe: Observer | None = None,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        if auto_approve and (challenge_validator is not None or policy is not None):
            raise ValueError("auto_approve asks nobody; leave it out to use a challenge_validator or a policy")
        if ask_challenges and not auto_approve:
            raise ValueError("ask_challenges is about auto_approve; without it challenges are asked anyway")
        if policy is not None:
            warn_of_strangers(policy)
        if isinstance(external_account_keys, Mapping):
            external_account_keys = external_account_keys.get
        limits = limits or Limits()
        async_store = AsyncStore(
            store or ca.store, (lambda seconds: observe(Stored(seconds))) if observe is not None else None
        )
        trusting = auto_approve and not ask_challenges
        self._server = Server(
            ca=ca,
            store=async_store,
            nonces=Nonces(async_store, limits.nonce_lifetime, now),
            rates=Rates(async_store, ca.name, now),
            denials=Denials(now),
            policy=policy or Everybody(Decision.TRUST if trusting else Decision.PROVE),
            validators=choose_validators(TakesTheirWord() if auto_approve else challenge_validator),
            limits=limits,
            now=now,
            profile=profile,
            terms_of_service=terms_of_service,
            website=website,
            external_account_keys=external_account_keys,
            external_account_required=external_account_required,
            observe=unobserved if observe is None else observe,
        )
        self._observed = observe is not None
        self._urls = URLs(_read_external(external_url)) if external_url else None

    async def pending(self) -> list[Authorization]:
        """The authorizations that wait for proof or for a person, oldest first."""
        return await approval.pending(self._server.store, self._server.now(), authority=self._server.ca.name)

    async def approve(self, id: str, *, by: str = "") -> Authorization:
        """Let an authorization be valid. `by` says for the record who decides. Raises `approval.NotPending`."""
        name, now = self._server.ca.name, self._server.now()
        return await approval.approve(self._server.store, id, now, authority=name, by=by)

    async def refuse(self, id: str, reason: str = "", *, by: str = "") -> Authorization:
        """Let an authorization, and with it its order, be invalid. The client is told the reason, and `by` is for the
        record. Raises `approval.NotPending`."""
        name, now = self._server.ca.name, self._server.now()
        return await approval.refuse(self._server.store, id, now, reason, authority=name, by=by)

    async def find_faults(self) -> tuple[str, ...]:
        """What is in the way of issuing a certificate now, in sentences that anybody may read; nothing if all is well.

        For a health check: it writes to the store what a request writes, and looks at how long the authority lasts.
        """
        return await find_faults(self._server)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await answer_others(scope, receive, send)
        elif self._observed:
            begun = perf_counter()
            status, problem = await self._serve(scope, receive, send)
            name = relative_path(scope).partition("/")[0]
            resource = name if name in RESOURCES or name in _UNSIGNED else "none"
            self._server.observe(Answered(resource, status, problem, perf_counter() - begun))
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> tuple[int, str | None]:
        """Answer a request. Returns the status, and the type of the problem if it was refused."""
        urls = self._urls or URLs(derive_base(scope))
        if scope["method"] == "HEAD" and self._server.nonces.ready and relative_path(scope) == "new-nonce":
            # What is asked for more often than anything else takes no detour.
            headers = [_NO_STORE, (b"link", urls.index), _EMPTY, (b"replay-nonce", self._server.nonces.make().encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return 200, None
        why = None
        with_nonce = scope["method"] == "POST"
        try:
            if not self._server.nonces.ready:
                await self._server.nonces.load()
            path = relative_path(scope)
            with_nonce = with_nonce or path == "new-nonce"
            reply = await self._answer(scope, receive, path, urls)
        except Problem as problem:
            client = client_of(scope)
            asked = (scope["method"], scope["path"][:100], client[:50])
            self._server.denials.say(client, "refused %s %a from %a: %s", *asked, problem)
            why = problem
        except StoreError as error:
            # Its text says what there is to know, and every request says it anew while a disk is full.
            log.error("the store failed: %s", error)
            with_nonce = with_nonce and self._server.nonces.ready
            why = Problem(
                ProblemType.UNAVAILABLE, "the server cannot store anything now", retry_after=timedelta(seconds=30)
            )
        except Exception:
            log.exception("a request could not be answered")
            with_nonce = with_nonce and self._server.nonces.ready
            why = Problem(ProblemType.SERVER_INTERNAL, "the server made a mistake; its log says more")
        if why is not None:
            reply = _refusal(why)
        await self._send(send, reply, urls, with_nonce=with_nonce, with_body=scope["method"] != "HEAD")
        return reply.status, None if why is None else why.type.value[0]

    async def _answer(self, scope: Scope, receive: Receive, path: str, urls: URLs) -> Reply:
        method: str = scope["method"]
        name, slash, id = path.partition("/")
        if name == "acct" and id.endswith("/orders"):
            name, id = "orders", id.removesuffix("/orders")
        elif name == "orders":
            name = ""  # it is only there below its account
        if not slash and name in _UNSIGNED:
            return await self._answer_unsigned(name, method, scope, receive, urls)
        resource = RESOURCES.get(name)
        if resource is None or (resource.names is None) == bool(slash) or (slash and not ID.fullmatch(id)):
            raise Problem(ProblemType.NOT_FOUND, "there is nothing here; the directory names what there is")
        if method != "POST":
            raise _not_allowed(["POST"])
        incoming = _incoming(scope, name, id, path, urls)
        body = await read_jose(incoming, receive, self._server.limits.body)
        request = await verify(self._server, resource, incoming, body)
        for attempt in range(_ATTEMPTS):
            try:
                return await resource.handler(self._server, request)
            except Conflict:
                # Something changed between reading and committing: look again, and answer with what is found.
                await asyncio.sleep(_MOMENT * 2**attempt * secrets.randbelow(1000) / 1000)
                request = await verify_again(self._server, request)
        raise Problem(
            ProblemType.UNAVAILABLE,
            "too many requests change the same thing; try again",
            retry_after=timedelta(seconds=1),
        )

    async def _answer_unsigned(self, name: str, method: str, scope: Scope, receive: Receive, urls: URLs) -> Reply:
        """What everybody may read: by GET, and the directory and nonces by POST-as-GET too (§6.3)."""
        if method == "POST" and name != "ca.pem":
            resource = Resource(_nothing, payload="empty")
            incoming = _incoming(scope, name, "", name, urls)
            body = await read_jose(incoming, receive, self._server.limits.body)
            await verify(self._server, resource, incoming, body)
        elif method not in ("GET", "HEAD"):
            raise _not_allowed(["GET", "HEAD"] + (["POST"] if name != "ca.pem" else []))
        if name == "directory":
            return Reply(self._directory(urls))
        if name == "ca.pem":
            return Reply(self._server.ca.root_cert_pem, content_type="application/x-pem-file")
        # §7.2: 200 to HEAD, 204 to GET, and nobody may keep it.
        return Reply(status=200 if method == "HEAD" else 204)

    def _directory(self, urls: URLs) -> dict[str, object]:
        meta = directory_meta(self._server.validators)
        if self._server.terms_of_service:
            meta["termsOfService"] = self._server.terms_of_service
        if self._server.website:
            meta["website"] = self._server.website
        if self._server.external_account_required:
            meta["externalAccountRequired"] = True
        return {name: urls.to(path) for name, path in DIRECTORY.items()} | {"meta": meta}

    async def _send(self, send: Send, reply: Reply, urls: URLs, *, with_nonce: bool, with_body: bool) -> None:
        body = reply.document if isinstance(reply.document, bytes) else to_json(reply.document)
        headers = [_NO_STORE, (b"link", urls.index)]
        if reply.links:
            headers += [(b"link", f'<{url}>;rel="{relation}"'.encode()) for url, relation in reply.links]
        if reply.headers:
            headers += [(name.lower().encode(), value.encode()) for name, value in reply.headers]
        if reply.status != 204:
            headers.append((b"content-length", str(len(body)).encode()))
        if body:
            headers.append((b"content-type", reply.content_type.encode()))
        if with_nonce:
            headers.append((b"replay-nonce", self._server.nonces.make().encode()))
        if reply.location:
            headers.append((b"location", reply.location.encode()))
        if reply.retry_after:
            headers.append((b"retry-after", str(max(1, round(reply.retry_after.total_seconds()))).encode()))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": body if with_body else b""})


def _incoming(scope: Scope, name: str, id: str, path: str, urls: URLs) -> Incoming:
    query: bytes = scope.get("query_string", b"")
    url = f"{urls.base}/{path}"
    return Incoming(
        resource=name,
        id=id,
        url=f"{url}?{query.decode('latin-1')}" if query else url,
        query=query,
        headers=dict(scope["headers"]),
        client=client_of(scope),
        urls=urls,
        client_certificate=find_client_certificate(scope),
    )


def _read_external(url: str) -> str:
    try:
        return read_base(url)
    except ValueError as error:
        raise ValueError(f"external_url {error}") from None


def _refusal(problem: Problem) -> Reply:
    return Reply(
        problem.to_json(),
        status=problem.type.status,
        content_type="application/problem+json",
        headers=tuple(problem.headers.items()),
    )


def _not_allowed(methods: Sequence[str]) -> Problem:
    allowed = ", ".join(methods)
    return Problem(ProblemType.METHOD_NOT_ALLOWED, f"this resource takes {allowed}", headers={"Allow": allowed})


async def _nothing(server: Server, request: object) -> Reply:
    return Reply()
