"""Who may get past `requests.verify`: nobody whose request is wrong in any way, on any route.

The walk is generated over the route table: a route that is added there has to get a good request in `good_call`. After
all the refusals that request is made right, and must succeed.
"""

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.server.conftest import Clock, Scene, Stage
from tests.wire import BASE, PrivateKey, Wire, csr, der_of, jwk_of, new_key, problem_of, sign, thumbprint_of

from privet import ACMEResponder, CertificateAuthority, MemoryStore, Record
from privet.acme.encoding import from_base64url, to_base64url
from privet.server.records import Account
from privet.server.requests import Resource
from privet.server.responder import RESOURCES

pytestmark = pytest.mark.anyio

POST_AS_GET = Resource(lambda server, request: None, payload="empty")  # type: ignore[arg-type, return-value]
WALK: Mapping[str, Resource] = {**RESOURCES, "directory": POST_AS_GET, "new-nonce": POST_AS_GET}
NOBODY = "0" * 32


@dataclass
class Call:
    """A good request: whose it is, where it goes, and what it carries."""

    wire: Wire
    path: str
    payload: object = None

    async def send(self, nonce: str | None = None) -> httpx.Response:
        header: dict[str, Any] = {"nonce": nonce} if nonce else {}
        return await self.wire.post(self.path, self.payload, **header)


async def good_call(route: str, scene: Scene, wire: Wire | None = None) -> Call:
    """A request to this route that is all right."""
    wire = wire or await scene.account()
    identifiers = [{"type": "dns", "value": "a.internal"}]
    if route == "new-account":
        return Call(scene.stranger(), route, {})
    if route in ("directory", "new-nonce"):
        return Call(wire, route)
    if route == "new-order":
        return Call(wire, route, {"identifiers": identifiers})
    if route == "new-authz":
        return Call(wire, route, {"identifier": identifiers[0]})
    if route == "acct":
        assert wire.kid
        return Call(wire, wire.kid, {})
    if route == "orders":
        assert wire.kid
        return Call(wire, f"{wire.kid}/orders")
    if route == "key-change":
        return Call(wire, route, key_change(wire, new_key()))
    order = await wire.order("a.internal")
    if route == "order":
        return Call(wire, order.headers["location"])
    if route == "authz":
        return Call(wire, order.json()["authorizations"][0])
    if route == "chall":
        authorization = await wire.post(order.json()["authorizations"][0])
        return Call(wire, authorization.json()["challenges"][0]["url"], {})
    if route == "finalize":
        return Call(wire, order.json()["finalize"], {"csr": to_base64url(csr("a.internal"))})
    finalized = await wire.finalize(order.json())
    if route == "cert":
        return Call(wire, finalized.json()["certificate"])
    assert route == "revoke-cert", f"no good request to {route} is known here"
    chain = (await wire.post(finalized.json()["certificate"])).content
    return Call(wire, route, {"certificate": der_of(chain)})


def key_change(wire: Wire, key: PrivateKey) -> dict[str, Any]:
    url = wire.url("key-change")
    inner = {"account": wire.kid, "oldKey": jwk_of(wire.key)}
    return sign(key, {"alg": "ES256", "jwk": jwk_of(key), "url": url}, inner)


# --- what can be wrong with any request ---


@dataclass(frozen=True)
class Fault:
    """A way to spoil a request, the refusal it gets, and where it is one."""

    status: int
    type: str
    send: Callable[[Call, str], Awaitable[httpx.Response]]
    where: Callable[[Resource], bool] = lambda resource: True
    spends: bool = True
    """Whether the request's nonce is good and can be seen in it."""


def with_header(**changes: Any) -> Callable[[Call, str], Awaitable[httpx.Response]]:
    async def send(call: Call, nonce: str) -> httpx.Response:
        return await call.wire.post(call.path, call.payload, **({"nonce": nonce} | changes))

    return send


def with_message(change: Callable[[dict[str, Any]], Any]) -> Callable[[Call, str], Awaitable[httpx.Response]]:
    async def send(call: Call, nonce: str) -> httpx.Response:
        return await call.wire.post(call.path, call.payload, change=change, nonce=nonce)

    return send


def with_payload(payload: object) -> Callable[[Call, str], Awaitable[httpx.Response]]:
    async def send(call: Call, nonce: str) -> httpx.Response:
        return await call.wire.post(call.path, payload, nonce=nonce)

    return send


def with_url(change: Callable[[str], str]) -> Callable[[Call, str], Awaitable[httpx.Response]]:
    async def send(call: Call, nonce: str) -> httpx.Response:
        return await call.wire.post(call.path, call.payload, nonce=nonce, url=change(call.wire.url(call.path)))

    return send


async def with_unknown_kid(call: Call, nonce: str) -> httpx.Response:
    return await call.wire.post(call.path, call.payload, nonce=nonce, kid=call.wire.url(f"acct/{NOBODY}"))


async def with_kid_elsewhere(call: Call, nonce: str) -> httpx.Response:
    assert call.wire.kid
    kid = call.wire.kid.replace(call.wire.base, "http://other.internal")
    return await call.wire.post(call.path, call.payload, nonce=nonce, kid=kid)


async def with_longer_kid(call: Call, nonce: str) -> httpx.Response:
    return await call.wire.post(call.path, call.payload, nonce=nonce, kid=f"{call.wire.kid}0")


async def with_shorter_kid(call: Call, nonce: str) -> httpx.Response:
    assert call.wire.kid
    return await call.wire.post(call.path, call.payload, nonce=nonce, kid=call.wire.kid[:-1])


async def with_kid_of_another_kind(call: Call, nonce: str) -> httpx.Response:
    assert call.wire.kid
    return await call.wire.post(call.path, call.payload, nonce=nonce, kid=call.wire.kid.replace("/acct/", "/order/"))


async def with_another_key(call: Call, nonce: str) -> httpx.Response:
    """Signed by a key that is not the one the header names."""
    changes: dict[str, Any] = {} if call.wire.kid else {"jwk": jwk_of(call.wire.key)}
    return await replace(call.wire, key=new_key()).post(call.path, call.payload, nonce=nonce, **changes)


async def with_jwk_for_kid(call: Call, nonce: str) -> httpx.Response:
    return await call.wire.post(call.path, call.payload, nonce=nonce, kid=None, jwk=jwk_of(call.wire.key))


async def with_kid_for_jwk(call: Call, nonce: str) -> httpx.Response:
    kid = call.wire.url(f"acct/{NOBODY}")
    return await call.wire.post(call.path, call.payload, nonce=nonce, kid=kid, jwk=None)


async def with_both(call: Call, nonce: str) -> httpx.Response:
    kid = call.wire.kid or call.wire.url(f"acct/{NOBODY}")
    return await call.wire.post(call.path, call.payload, nonce=nonce, kid=kid, jwk=jwk_of(call.wire.key))


async def unsigned(call: Call, nonce: str) -> httpx.Response:
    return await call.wire.post(
        call.path, call.payload, change=lambda m: m | {"signature": ""}, nonce=nonce, alg="none"
    )


async def with_mac(call: Call, nonce: str) -> httpx.Response:
    """The classic confusion: HS256 with the public key for a secret."""
    header = await call.wire.header(call.wire.url(call.path), nonce=nonce, alg="HS256")
    message = sign(call.wire.key, header, call.payload)
    mac = hmac.HMAC(json.dumps(jwk_of(call.wire.key)).encode(), hashes.SHA256())
    mac.update(f"{message['protected']}.{message['payload']}".encode())
    return await call.wire.send(call.path, message | {"signature": to_base64url(mac.finalize())})


async def with_reused_nonce(call: Call, nonce: str) -> httpx.Response:
    spent = await call.wire.post(call.path, call.payload, nonce=nonce, url="http://elsewhere.internal/")
    assert problem_of(spent) == (403, "unauthorized")
    return await call.send(nonce)


def generalize(message: dict[str, Any]) -> dict[str, Any]:
    """The general JSON serialization, with the signature given twice."""
    one = {"protected": message["protected"], "signature": message["signature"]}
    return {"payload": message["payload"], "signatures": [one, one]}


def with_member_twice(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode()[:-1] + b', "payload": ""}'


def spoil_signature(message: dict[str, Any]) -> dict[str, Any]:
    signature = bytearray(from_base64url(message["signature"], "signature"))
    signature[-1] ^= 1
    return message | {"signature": to_base64url(bytes(signature))}


def by_account(resource: Resource) -> bool:
    return resource.signer == "account"


def for_kid(resource: Resource) -> bool:
    """Where a request may name an account, and the good one here does."""
    return resource.signer != "key"


def for_jwk(resource: Resource) -> bool:
    return resource.signer == "key"


def with_id(resource: Resource) -> bool:
    return resource.names is not None


FAULTS: Mapping[str, Fault] = {
    # Who signs
    "no such account": Fault(400, "accountDoesNotExist", with_unknown_kid, for_kid),
    "kid of another host": Fault(400, "accountDoesNotExist", with_kid_elsewhere, for_kid),
    "kid with a character more": Fault(400, "accountDoesNotExist", with_longer_kid, for_kid),
    "kid with a character less": Fault(400, "accountDoesNotExist", with_shorter_kid, for_kid),
    "kid of another resource": Fault(400, "accountDoesNotExist", with_kid_of_another_kind, for_kid),
    "kid is no URL": Fault(400, "accountDoesNotExist", with_header(kid="\ud800"), for_kid),
    "kid is no string": Fault(400, "malformed", with_header(kid=7), for_kid),
    "kid is empty": Fault(400, "accountDoesNotExist", with_header(kid=""), for_kid),
    "jwk where kid is due": Fault(400, "malformed", with_jwk_for_kid, by_account),
    "kid where jwk is due": Fault(400, "malformed", with_kid_for_jwk, for_jwk),
    "jwk and kid": Fault(400, "malformed", with_both),
    "neither jwk nor kid": Fault(400, "malformed", with_header(kid=None, jwk=None)),
    # The signature
    "another key": Fault(403, "unauthorized", with_another_key),
    "spoilt signature": Fault(403, "unauthorized", with_message(spoil_signature)),
    "short signature": Fault(403, "unauthorized", with_message(lambda m: m | {"signature": m["signature"][:80]})),
    "empty signature": Fault(403, "unauthorized", with_message(lambda m: m | {"signature": ""})),
    "zeros for a signature": Fault(
        403, "unauthorized", with_message(lambda m: m | {"signature": to_base64url(bytes(64))})
    ),
    "padded signature": Fault(400, "malformed", with_message(lambda m: m | {"signature": m["signature"] + "=="})),
    "no signature": Fault(400, "malformed", with_message(lambda m: {k: v for k, v in m.items() if k != "signature"})),
    "another payload": Fault(403, "unauthorized", with_message(lambda m: m | {"payload": "e30x"})),
    # The algorithm
    "alg none": Fault(400, "badSignatureAlgorithm", with_header(alg="none")),
    "alg None": Fault(400, "badSignatureAlgorithm", with_header(alg="None")),
    "alg none, unsigned": Fault(400, "badSignatureAlgorithm", unsigned),
    "alg HS256": Fault(400, "badSignatureAlgorithm", with_mac),
    "alg RS256, the key being EC": Fault(400, "badSignatureAlgorithm", with_header(alg="RS256"), for_kid),
    "alg ES384, the key being P-256": Fault(400, "badSignatureAlgorithm", with_header(alg="ES384"), for_kid),
    "alg RS256, the jwk being EC": Fault(400, "badPublicKey", with_header(alg="RS256"), for_jwk),
    "alg ES384, the jwk being on P-256": Fault(400, "badPublicKey", with_header(alg="ES384"), for_jwk),
    "alg PS256": Fault(400, "badSignatureAlgorithm", with_header(alg="PS256")),
    "alg in small letters": Fault(400, "badSignatureAlgorithm", with_header(alg="es256")),
    "alg is no string": Fault(400, "malformed", with_header(alg=["ES256"])),
    "no alg": Fault(400, "malformed", with_header(alg=None)),
    # The url
    "no url": Fault(400, "malformed", with_header(url=None)),
    "url is no string": Fault(400, "malformed", with_header(url=7)),
    "url of another resource": Fault(403, "unauthorized", with_url(lambda url: f"{BASE}/certificate")),
    "url of another id": Fault(
        403, "unauthorized", with_url(lambda url: url.rsplit("/", 1)[0] + f"/{NOBODY}"), with_id
    ),
    "url of another host": Fault(403, "unauthorized", with_url(lambda url: url.replace("ca.internal", "ca.example"))),
    "url of another scheme": Fault(403, "unauthorized", with_url(lambda url: url.replace("http:", "https:"))),
    "url with a slash": Fault(403, "unauthorized", with_url(lambda url: f"{url}/")),
    "url with a query": Fault(403, "unauthorized", with_url(lambda url: f"{url}?page=2")),
    "url with a port": Fault(403, "unauthorized", with_url(lambda url: url.replace(".internal/", ".internal:80/"))),
    # The nonce
    "no nonce": Fault(400, "malformed", with_header(nonce=None), spends=False),
    "nonce is no string": Fault(400, "malformed", with_header(nonce=7), spends=False),
    "nonce is not base64url": Fault(400, "malformed", with_header(nonce="a+b/"), spends=False),
    "nonce with padding": Fault(400, "malformed", lambda c, n: with_header(nonce=f"{n}=")(c, n), spends=False),
    "made-up nonce": Fault(400, "badNonce", with_header(nonce=to_base64url(bytes(32))), spends=False),
    "empty nonce": Fault(400, "badNonce", with_header(nonce=""), spends=False),
    "reused nonce": Fault(400, "badNonce", with_reused_nonce),
    # The envelope
    "unprotected header": Fault(400, "malformed", with_message(lambda m: m | {"header": {}})),
    "unprotected header with a kid": Fault(400, "malformed", with_message(lambda m: m | {"header": {"kid": BASE}})),
    "several signatures": Fault(400, "malformed", with_message(generalize), spends=False),
    "no signatures": Fault(400, "malformed", with_message(lambda m: m | {"signatures": []})),
    "crit": Fault(400, "malformed", with_header(crit=["exp"])),
    "unencoded payload": Fault(400, "malformed", with_header(b64=False)),
    "no protected header": Fault(
        400, "malformed", with_message(lambda m: {k: v for k, v in m.items() if k != "protected"}), spends=False
    ),
    "protected header is no object": Fault(
        400, "malformed", with_message(lambda m: m | {"protected": to_base64url(b"[]")}), spends=False
    ),
    "a member twice": Fault(400, "malformed", with_message(with_member_twice), spends=False),
    "an array": Fault(400, "malformed", with_message(lambda m: [m]), spends=False),
    "compact serialization": Fault(
        400,
        "malformed",
        with_message(lambda m: f"{m['protected']}.{m['payload']}.{m['signature']}".encode()),
        spends=False,
    ),
    "not UTF-8": Fault(400, "malformed", with_message(lambda m: json.dumps(m).encode("utf-16")), spends=False),
    "nothing": Fault(400, "malformed", with_message(lambda m: b""), spends=False),
    "deeply nested": Fault(400, "malformed", with_message(lambda m: b"[" * 60_000), spends=False),
    # The payload
    "no payload": Fault(400, "malformed", with_message(lambda m: {k: v for k, v in m.items() if k != "payload"})),
    "null payload": Fault(400, "malformed", with_message(lambda m: m | {"payload": None})),
    "empty payload": Fault(400, "malformed", with_payload(None), lambda resource: resource.payload == "object"),
    "payload where none is due": Fault(
        400, "malformed", with_payload({}), lambda resource: resource.payload == "empty"
    ),
    "payload is an array": Fault(400, "malformed", with_payload([])),
    "payload is null": Fault(400, "malformed", with_payload(b"null")),
    "payload is a number": Fault(400, "malformed", with_payload(7)),
    "payload is no JSON": Fault(400, "malformed", with_payload(b"{")),
    "payload is not UTF-8": Fault(400, "malformed", with_payload(b'{"a": "\xff"}')),
    "payload with a member twice": Fault(400, "malformed", with_payload(b'{"a": 1, "a": 2}')),
    "payload with NaN": Fault(400, "malformed", with_payload(b'{"a": NaN}')),
    "payload nested deeply": Fault(400, "malformed", with_payload(b'{"a":' * 8_000)),
}


@pytest.mark.parametrize("route", WALK)
async def test_a_spoilt_request_is_refused_and_its_nonce_spent(stage: Stage, route: str) -> None:
    """Lessons 2, 6, 16, 17, 18, 21, 26, 27: on every route; and the same request made right succeeds afterwards."""
    faults = {name: fault for name, fault in FAULTS.items() if fault.where(WALK[route])}
    async with stage(auto_approve=True) as scene:
        call = await good_call(route, scene)
        refusals, reuses = {}, {}
        for name, fault in faults.items():
            nonce = await call.wire.fresh_nonce()
            refused = await fault.send(call, nonce)
            refusals[name] = problem_of(refused)
            assert refused.headers["link"] == f'<{BASE}/directory>;rel="index"'
            assert ("algorithms" in refused.json()) == (fault.type == "badSignatureAlgorithm")
            fresh = refused.headers["replay-nonce"]
            if fault.spends:
                reuses[name] = problem_of(await call.send(nonce))
            call.wire.nonce = fresh
        assert refusals == {name: (fault.status, fault.type) for name, fault in faults.items()}
        assert reuses == {name: (400, "badNonce") for name, fault in faults.items() if fault.spends}
        assert (await call.send()).is_success


# --- accounts that may not ask, and things that are not theirs ---


@pytest.mark.parametrize("route", WALK)
async def test_a_deactivated_account_gets_nothing(stage: Stage, route: str) -> None:
    """Lessons 6, 7, 30: no route forgets to look at the account, and its key makes no new one."""
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        call = await good_call(route, scene, wire)
        if route == "new-account":
            call.wire.key = wire.key
        assert wire.kid
        gone = await wire.post(wire.kid, {"status": "deactivated"})
        assert gone.json()["status"] == "deactivated"
        nonce = await call.wire.fresh_nonce()
        assert problem_of(await call.send(nonce)) == (401, "unauthorized")
        assert problem_of(await call.send(nonce)) == (400, "badNonce")


class Meddling(MemoryStore):
    """A store in which somebody else is quicker, once: between a request's reading and its writing."""

    meddle: Callable[[], None] | None = None

    def commit(self, *records: Record, unchanged: Sequence[Record] = (), durable: bool = True) -> None:
        if self.meddle and any(record.kind != "spent-nonce" for record in records):
            meddle, self.meddle = self.meddle, None
            meddle()
        super().commit(*records, unchanged=unchanged, durable=durable)


@pytest.mark.parametrize("change", ["deactivated", "another key"])
@pytest.mark.parametrize(
    "route", ["new-order", "new-authz", "finalize", "revoke-cert", "key-change", "acct", "authz", "chall"]
)
async def test_an_account_is_still_good_when_its_request_takes_effect(stage: Stage, route: str, change: str) -> None:
    """Lessons 7, 9, 30: what happens to the account between the check and the commit counts."""
    async with stage(store=Meddling(), auto_approve=route != "chall") as scene:
        assert isinstance(scene.store, Meddling)
        wire = await scene.account()
        await wire.order("before.internal")  # the first order of an account is about the account as well
        call = await good_call(route, scene, wire)
        if route == "acct":
            call.payload = {"contact": ["mailto:a@example.org"]}
        elif route == "authz":
            call.payload = {"status": "deactivated"}
        (record,) = scene.store.find("account")

        def meddle() -> None:
            account = Account.from_record(record)
            if change == "deactivated":
                scene.store.commit(account.deactivate().to_record())
            else:
                jwk, thumbprint = jwk_of(another), thumbprint_of(another)
                scene.store.commit(account._replace(jwk=jwk, thumbprint=thumbprint).to_record())

        another = new_key()
        scene.store.meddle = meddle
        refused = await call.send()
        assert problem_of(refused) == ((401 if change == "deactivated" else 403), "unauthorized")
        assert scene.store.meddle is None


@pytest.mark.parametrize("route", [route for route, resource in WALK.items() if resource.signer != "key"])
async def test_an_account_that_has_expired_is_not_there(stage: Stage, route: str) -> None:
    async with stage(auto_approve=True) as scene:
        call = await good_call(route, scene)
        scene.clock.forward(days=401)
        nonce = await scene.stranger().fresh_nonce()
        assert problem_of(await call.send(nonce)) == (400, "accountDoesNotExist")
        assert problem_of(await call.send(nonce)) == (400, "badNonce")


@pytest.mark.parametrize("route", [route for route, resource in RESOURCES.items() if resource.names])
async def test_what_belongs_to_another_is_not_there(stage: Stage, route: str) -> None:
    """Lessons 6, 28: the answer about another's object is, to the letter, the answer about none."""
    async with stage(auto_approve=True) as scene:
        owner, other = await scene.account(), await scene.account()
        theirs = await good_call(route, scene, owner)
        id = theirs.path.removeprefix(f"{BASE}/").split("/")[1]
        about_theirs = await other.post(theirs.path, theirs.payload)
        about_none = await other.post(theirs.path.replace(id.split(".")[0], NOBODY), theirs.payload)
        assert problem_of(about_theirs) == (404, "malformed")
        assert about_theirs.json() == about_none.json()
        assert (await theirs.send()).is_success


@pytest.mark.parametrize("route", [route for route, resource in RESOURCES.items() if resource.names])
async def test_ids_are_exact(stage: Stage, route: str) -> None:
    """Lesson 6: what begins or ends like an id of ours is none."""
    async with stage(auto_approve=True) as scene:
        call = await good_call(route, scene)
        tail = "/orders" if route == "orders" else ""
        for path in (f"{call.path.removesuffix(tail)}.x{tail}", f"{call.path.removesuffix(tail)}0{tail}"):
            assert problem_of(await call.wire.post(path, call.payload)) == (404, "malformed")


@pytest.mark.parametrize("route", WALK)
async def test_a_nonce_that_is_too_old_is_refused(stage: Stage, route: str) -> None:
    async with stage(auto_approve=True) as scene:
        call = await good_call(route, scene)
        nonce = await call.wire.fresh_nonce()
        scene.clock.forward(minutes=61)
        refused = await call.send(nonce)
        assert problem_of(refused) == (400, "badNonce")
        assert (await call.send(refused.headers["replay-nonce"])).is_success


@pytest.mark.parametrize("route", WALK)
async def test_a_request_cannot_be_replayed(stage: Stage, route: str) -> None:
    """Lesson 15: not to the letter, and not to another route."""
    async with stage(auto_approve=True) as scene:
        call = await good_call(route, scene)
        message = sign(call.wire.key, await call.wire.header(call.wire.url(call.path)), call.payload)
        assert (await call.wire.send(call.path, message)).is_success
        assert problem_of(await call.wire.send(call.path, message)) == (400, "badNonce")


async def test_a_request_goes_to_the_resource_it_is_signed_for(stage: Stage) -> None:
    """Lesson 21: whoever stands in between cannot send it on to another."""
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        order = (await wire.order("a.internal")).json()
        header = await wire.header(order["authorizations"][0])
        message = sign(wire.key, header, {"status": "deactivated"})
        assert wire.kid
        assert problem_of(await wire.send(wire.kid, message)) == (403, "unauthorized")
        assert (await wire.post(wire.kid)).json()["status"] == "valid"


async def test_what_is_not_known_is_ignored(stage: Stage) -> None:
    """In the envelope, in the header, in the payload: RFC 7515 §4, RFC 8555 §7.3."""
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        payload = {"identifiers": [{"type": "dns", "value": "a.internal", "more": 1}], "replaces": None, "profile": [1]}
        header: dict[str, Any] = {"typ": "JOSE", "cty": "json", "x5t": "AAAA", "iat": 1}
        ordered = await wire.post("new-order", payload, change=lambda m: m | {"more": {"of": "it"}}, **header)
        assert ordered.status_code == 201
        assert ordered.json()["identifiers"] == [{"type": "dns", "value": "a.internal"}]


SWITCHES = [
    name
    for name, parameter in inspect.signature(ACMEResponder).parameters.items()
    if isinstance(parameter.default, bool)
]


async def test_no_switch_turns_a_check_off(stage: Stage) -> None:
    """Lesson 22: whatever is switched on, signatures and nonces are looked at."""
    async with stage() as scene:
        account = await scene.account()
        tried = 0
        for chosen in product([False, True], repeat=len(SWITCHES)):
            try:
                app = ACMEResponder(scene.ca, now=scene.clock, **dict(zip(SWITCHES, chosen, strict=True)))  # type: ignore[arg-type]
            except ValueError:
                continue  # they contradict each other
            async with scene.at(app) as http:
                assert account.kid
                call = Call(Wire(http, key=account.key, kid=account.kid), account.kid)
                for spoil in (spoil_signature, lambda message: message | {"signature": ""}):
                    assert problem_of(await with_message(spoil)(call, await call.wire.fresh_nonce()))[0] == 403
                assert problem_of(await unsigned(call, await call.wire.fresh_nonce())) == (400, "badSignatureAlgorithm")
                nonce = await call.wire.fresh_nonce()
                assert (await call.send(nonce)).status_code == 200
                assert problem_of(await call.send(nonce)) == (400, "badNonce")
            tried += 1
        assert tried >= 6


# --- keys ---


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["ES384", "ES512", "RS256"],
)
async def test_accounts_may_have_keys_of_every_kind(stage: Stage, key: PrivateKey) -> None:
    """RSA account keys are certbot's default, and were refused with a KeyError's text."""
    async with stage(auto_approve=True) as scene:
        wire = scene.stranger()
        wire.key = key
        assert (await wire.register()).status_code == 201
        assert (await wire.issue("a.internal")).startswith(b"-----BEGIN CERTIFICATE-----")


EC_JWK, RSA_JWK = jwk_of(new_key()), jwk_of(rsa.generate_private_key(65537, 2048))
N = from_base64url(RSA_JWK["n"], "n")


@pytest.mark.parametrize(
    "jwk",
    [
        jwk_of(rsa.generate_private_key(65537, 1024)),
        *[RSA_JWK | {"e": to_base64url(e)} for e in (b"", b"\0", b"\1", b"\3", b"\1\0\0", b"\0\1\0\1")],
        *[RSA_JWK | {"n": to_base64url(n)} for n in (b"", b"\1", b"\0" + N, N[:-1] + b"\0", N * 3, N * 20)],
        RSA_JWK | {"d": "AQAB"},
        {"kty": "RSA"},
        {"kty": "RSA", "n": 7, "e": None},
        EC_JWK | {"crv": "P-224"},
        EC_JWK | {"crv": "secp256k1"},
        EC_JWK | {"crv": "P-384"},
        EC_JWK | {"x": EC_JWK["y"]},
        EC_JWK | {"x": to_base64url(bytes(32)), "y": to_base64url(bytes(32))},
        EC_JWK | {"x": EC_JWK["x"] + "AA"},
        EC_JWK | {"y": "ä"},
        EC_JWK | {"d": EC_JWK["x"]},
        {"kty": "EC", "crv": ["P-256"], "x": {}, "y": []},
        {"kty": "OKP", "crv": "Ed448", "x": to_base64url(bytes(57))},
        {"kty": "OKP", "crv": "X25519", "x": to_base64url(bytes(32))},
        {"kty": "OKP", "crv": "Ed25519", "x": to_base64url(bytes(31))},
        {"kty": "OKP", "crv": "Ed25519", "x": to_base64url(bytes(32))},
        {"kty": "oct", "k": "AAAA"},
        {"kty": "DSA"},
        {"kty": ["EC"]},
        {},
    ],
)
async def test_keys_that_anybody_could_use_are_refused(stage: Stage, jwk: dict[str, Any]) -> None:
    """Lessons 3, 26: weak, private, symmetric or broken: badPublicKey, whatever algorithm goes with it."""
    async with stage() as scene:
        wire = scene.stranger()
        for route, payload in (("new-account", {}), ("revoke-cert", {"certificate": "MIIB"})):
            for algorithm in ("ES256", "RS256", "EdDSA"):
                refused = await wire.post(route, payload, jwk=jwk, alg=algorithm)
                assert problem_of(refused) == (400, "badPublicKey")
        assert scene.store.find("account") == []


async def test_a_key_has_one_account_however_its_jwk_is_dressed(stage: Stage) -> None:
    """Lesson 6: the thumbprint is RFC 7638's, not that of the JWK as sent."""
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        dressed = {"use": "sig", "kid": "mine", "alg": "ES256", **jwk_of(wire.key)}
        found = await replace(wire, kid=None).post("new-account", {}, jwk=dressed)
        assert (found.status_code, found.headers["location"]) == (200, wire.kid)
        (record,) = scene.store.find("account")
        assert json.loads(record.body)["thumbprint"] == thumbprint_of(wire.key)


# --- any bytes ---


@settings(max_examples=150, deadline=None)
@given(body=st.binary(max_size=200), route=st.sampled_from(sorted(WALK)))
def test_any_bytes_are_answered_below_500(body: bytes, route: str) -> None:
    """Lesson 3."""
    path = f"{route}/{NOBODY}" if WALK[route].names and route != "orders" else f"acct/{NOBODY}/orders"
    assert 400 <= asyncio.run(_post(path if WALK[route].names else route, body)).status_code < 500


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        *("identifiers", "identifier", "type", "value", "dns", "ip", "a.internal", "notBefore", "notAfter", "csr"),
        *("certificate", "reason", "contact", "status", "externalAccountBinding", "onlyReturnExisting"),
        *("termsOfServiceAgreed", "protected", "payload", "signature", "account", "oldKey"),
    ]
)
PAYLOAD = st.dictionaries(NAMES, JSON | st.recursive(NAMES, lambda inner: st.dictionaries(NAMES, inner)), max_size=4)


@settings(max_examples=60, deadline=None)
@given(payload=PAYLOAD, route=st.sampled_from([route for route in RESOURCES if RESOURCES[route].payload != "empty"]))
def test_any_payload_is_answered_below_500(payload: dict[str, Any], route: str) -> None:
    """Lesson 3: well signed, and nonsense."""

    async def story() -> int:
        clock, store = Clock(), MemoryStore()
        ca = CertificateAuthority(store, now=clock)
        ca.init()
        responder = ACMEResponder(ca, now=clock, auto_approve=True)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(responder), base_url=BASE) as http:
            wire = Wire(http)
            await wire.register()
            call = await good_call(route, Scene(clock, store, ca, responder, http), wire)
            return (await call.wire.post(call.path, payload)).status_code

    assert asyncio.run(story()) < 500


async def _post(path: str, body: bytes) -> httpx.Response:
    ca = CertificateAuthority(MemoryStore())
    ca.init()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(ACMEResponder(ca)), base_url=BASE) as http:
        return await Wire(http).send(path, body)
