"""From bytes to a `VerifiedRequest` (RFC 8555 §6.2 to §6.5): size, form, nonce, url, key, signature, account, payload.

The law: nothing behind this module doubts who is asking, and nothing in it looks into a record but the account that
signs; the one that the URL names is fetched along the way. A nonce is spent by appearing, whatever else is wrong with
the request.
"""

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qsl

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from privet.acme.encoding import from_json
from privet.acme.jws import JWS, Key, find_nonce, parse
from privet.acme.problems import Problem, ProblemType
from privet.acme.status import Status
from privet.ca.keys import WeakKey, check_public_key
from privet.server.asgi import Receive, read_body
from privet.server.records import Account, Kind
from privet.server.server import Reply, Server, VerifiedRequest
from privet.server.urls import URLs
from privet.stores.base import Conflict, Record

Handler = Callable[[Server, VerifiedRequest], Awaitable[Reply]]

JOSE_JSON = b"application/jose+json"


@dataclass(frozen=True, slots=True)
class Resource:
    """A line of the map of the server: who handles it, how its requests are signed, and what they carry.

    `signer`: by an account (`kid`), by a key that the request brings (`jwk`), or either. `payload`: an object, empty
    (POST-as-GET, §6.3), or either. `names`: the kind of record that its URL has the id of, if it has one.
    """

    handler: Handler
    signer: Literal["account", "key", "either"] = "account"
    payload: Literal["object", "empty", "either"] = "object"
    names: str | None = None


class Incoming(NamedTuple):
    """A POST as it comes in, taken apart no further than HTTP does."""

    resource: str
    id: str
    url: str
    query: bytes
    headers: Mapping[bytes, bytes]
    client: str
    urls: URLs
    client_certificate: str | None = None


async def read_jose(incoming: Incoming, receive: Receive, limit: int) -> bytes:
    """Read the body of a signed request, no longer than is allowed. Raises `Problem`."""
    media_type = incoming.headers.get(b"content-type", b"")
    if media_type != JOSE_JSON and media_type.split(b";", 1)[0].strip().lower() != JOSE_JSON:
        raise Problem(ProblemType.UNSUPPORTED_MEDIA_TYPE, f"the content type must be {JOSE_JSON.decode()}")
    return await read_body(incoming.headers, receive, limit)


async def verify(server: Server, resource: Resource, incoming: Incoming, body: bytes) -> VerifiedRequest:
    """Return what a request proves to be. Raises `Problem`."""
    try:
        jws = parse(body)
    except Problem:
        await _spend(server, body)
        raise
    account, key, record, authorizations = await _signer(server, resource, jws, incoming)
    # §6.4: the url is under the signature, so that nobody can send the request on to another resource.
    if jws.url != incoming.url:
        raise Problem(
            ProblemType.UNAUTHORIZED, f"the request is signed for {jws.url[:200]!a}, not for {incoming.url!a}"
        )
    jws.verify(key)
    return VerifiedRequest(
        account=account,
        key=key,
        payload=_payload(resource, jws.payload),
        url=incoming.url,
        id=incoming.id,
        record=record,
        authorizations=authorizations,
        query=_query(incoming.query),
        accept=incoming.headers.get(b"accept", b"").decode("latin-1"),
        client=incoming.client,
        urls=incoming.urls,
        client_certificate=incoming.client_certificate,
    )


async def verify_again(server: Server, request: VerifiedRequest) -> VerifiedRequest:
    """The same request with its account and record as they are now: something changed under the first attempt."""
    if request.account is None:
        return request._replace(again=True)
    record = request.record
    if record is not None:
        record = await server.store.get(record.kind, record.id)
    account = _check_account(server, await server.store.get(Kind.ACCOUNT, request.account.id), request.account.id)
    if account.thumbprint != request.key.thumbprint:
        raise Problem(ProblemType.UNAUTHORIZED, "the account has another key by now")
    return request._replace(account=account, record=record, authorizations={}, again=True)


async def _spend(server: Server, body: bytes) -> None:
    """§6.5: "Once a nonce value has appeared in an ACME request, the server MUST consider it invalid", whatever else
    the request is."""
    nonce = find_nonce(body)
    if nonce is not None:
        with contextlib.suppress(Problem, Conflict):
            await server.spend(nonce)


async def _signer(
    server: Server, resource: Resource, jws: JWS, incoming: Incoming
) -> tuple[Account | None, Key, Record | None, Mapping[str, Record | None]]:
    """Spend the nonce, and find out who claims to have signed: an account, or a key that the request brings along.

    What the request is about is fetched in the same turn; nobody looks at it before the signature is verified.
    """
    assert jws.nonce is not None
    spending = server.spend(jws.nonce)
    id = incoming.urls.id_of("acct", jws.kid or "")
    loading = server.store.get(Kind.ACCOUNT, id) if id else None
    fetching = None
    along: dict[str, Awaitable[Record | None]] = {}
    if resource.names not in (None, Kind.ACCOUNT):
        # A challenge is kept in its authorization, whose id its own begins with; all other ids are exact.
        name = incoming.id.partition(".")[0] if incoming.resource == "chall" else incoming.id
        fetching = server.store.get(resource.names, name)
        if resource.names == Kind.ORDER:
            along = {each: server.store.get(Kind.AUTHORIZATION, each) for each in server.known_authorizations(name)}
    try:
        await spending
    except Conflict:
        raise Problem(ProblemType.BAD_NONCE, "the nonce was used before; take the new one and try again") from None
    if jws.kid is None:
        if resource.signer == "account":
            raise Problem(ProblemType.MALFORMED, "this request must name its account as kid, not carry a key")
        return None, read_key(jws.jwk), None, {}
    if resource.signer == "key":
        raise Problem(ProblemType.MALFORMED, "this request must carry its key as jwk, not name an account")
    account = _check_account(server, await loading if loading else None, jws.kid)
    record = await fetching if fetching else None
    return account, server.key_of(account), record, {id: await each for id, each in along.items()}


def read_key(jwk: object) -> Key:
    """A key that somebody wants to use from now on: well-formed, and not one that can be factored. Raises `Problem`."""
    key = Key.from_jwk(jwk)
    if isinstance(key.public_key, RSAPublicKey):
        try:
            check_public_key(key.public_key)
        except WeakKey as error:
            raise Problem(ProblemType.BAD_PUBLIC_KEY, str(error)) from None
    return key


def _check_account(server: Server, record: Record | None, name: str) -> Account:
    account = None if record is None else server.read(Account, record)
    if account is None or account.expires <= server.now() or account.authority != server.ca.name:
        raise Problem(ProblemType.ACCOUNT_DOES_NOT_EXIST, f"there is no account {name[:200]!a}")
    if account.status is not Status.VALID:
        raise Problem(ProblemType.ACCOUNT_NOT_VALID, f"the account is {account.status}")
    return account


def _payload(resource: Resource, payload: bytes) -> Mapping[str, Any] | None:
    if not payload:
        if resource.payload == "object":
            raise Problem(ProblemType.MALFORMED, "this request must carry a JSON object, if only {}")
        return None
    if resource.payload == "empty":
        raise Problem(ProblemType.MALFORMED, "this resource is read by POST-as-GET, with an empty payload")
    return from_json(payload, "the payload")


def _query(query: bytes) -> Mapping[str, str]:
    return dict(parse_qsl(query.decode("latin-1"))) if query else {}
