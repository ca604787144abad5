"""Accounts (RFC 8555 §7.3): one for each key, and what becomes of them."""

import asyncio
import hmac
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.server.conftest import Scene, Stage
from tests.wire import BASE, PrivateKey, Wire, bind, jwk_of, new_key, problem_of, sign, thumbprint_of

from privet import ACMEResponder, Applicant, CertificateAuthority, Decision, Limits, MemoryStore, SQLiteStore
from privet.acme.encoding import to_base64url
from privet.acme.identifiers import Identifier

pytestmark = pytest.mark.anyio


# --- made, and found again ---


async def test_a_new_account_is_what_was_asked_for(stage: Stage) -> None:
    """RFC 8555 §7.3: the server does not reflect `onlyReturnExisting` or what it does not know."""
    async with stage() as scene:
        wire = scene.stranger()
        contact = ["mailto:admin@example.org", "mailto:second@[10.0.0.1]"]
        response = await wire.register(
            contact=contact, onlyReturnExisting=False, orders="http://evil.example", status="revoked", extension=[1]
        )
        assert response.status_code == 201
        assert wire.kid
        assert wire.kid.startswith(f"{BASE}/acct/")
        shown = {
            "status": "valid",
            "contact": contact,
            "termsOfServiceAgreed": True,
            "orders": f"{wire.kid}/orders",
        }
        assert response.json() == shown
        for look in (await wire.post(wire.kid), await wire.post(wire.kid, {})):
            assert (look.status_code, look.json(), look.headers["location"]) == (200, shown, wire.kid)


async def test_the_account_of_a_key_is_found_again(stage: Stage) -> None:
    """RFC 8555 §7.3.1: "any fields in the request object MUST be ignored"."""
    async with stage(terms_of_service="https://ca.internal/terms") as scene:
        wire = await scene.account(contact=["mailto:a@example.org"])
        stranger = replace(wire, kid=None)
        for payload in ({}, {"onlyReturnExisting": True}, {"contact": ["tel:110"], "termsOfServiceAgreed": "perhaps"}):
            found = await stranger.post("new-account", payload)
            assert (found.status_code, found.headers["location"]) == (200, wire.kid)
            assert found.json()["contact"] == ["mailto:a@example.org"]


async def test_only_existing_accounts_are_returned_where_that_is_asked(stage: Stage) -> None:
    async with stage() as scene:
        wire = scene.stranger()
        response = await wire.post("new-account", {"onlyReturnExisting": True})
        assert problem_of(response) == (400, "accountDoesNotExist")
        assert scene.store.find("account") == []
        assert problem_of(await wire.post("new-account", {"onlyReturnExisting": "yes"})) == (400, "malformed")


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_twenty_new_accounts_with_one_key_are_one(stage: Stage, kind: str, tmp_path: Path) -> None:
    """Lesson 29: parallel account creations answered 500."""
    store = MemoryStore() if kind == "memory" else SQLiteStore(tmp_path / "privet.db")
    with store:
        async with stage(store=store) as scene:
            key = new_key()
            answers = await asyncio.gather(
                *[Wire(scene.http, key=key).post("new-account", {"contact": []}) for _ in range(20)]
            )
            assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
            assert len({answer.headers["location"] for answer in answers}) == 1
            assert len(store.find("account")) == 1


# --- contacts ---


@pytest.mark.parametrize(
    ("contact", "type"),
    [
        (["tel:+49123"], "unsupportedContact"),
        (["https://example.org"], "unsupportedContact"),
        (["admin@example.org"], "unsupportedContact"),
        (["mailto:"], "invalidContact"),
        (["mailto:admin"], "invalidContact"),
        (["mailto:a@example.org,b@example.org"], "invalidContact"),
        (["mailto:a@example.org?subject=hi"], "invalidContact"),
        (["mailto:a@example.org%0Abcc:b@example.org"], "invalidContact"),
        (["mailto:a@example.org\n"], "invalidContact"),
        (["mailto:ä@example.org"], "invalidContact"),
        ([f"mailto:{'a' * 65}@example.org"], "invalidContact"),
        (["mailto:a@example.org"] * 11, "invalidContact"),
        (["mailto:a@example.org", "mailto:b"], "invalidContact"),
        ("mailto:a@example.org", "invalidContact"),
        ([7], "invalidContact"),
        ({}, "invalidContact"),
    ],
)
async def test_contacts_that_reach_nobody_are_refused(stage: Stage, contact: object, type: str) -> None:
    """RFC 8555 §7.3: a `mailto:` of one address; in new accounts and in updates."""
    async with stage() as scene:
        assert problem_of(await scene.stranger().post("new-account", {"contact": contact})) == (400, type)
        wire = await scene.account(contact=["mailto:a@example.org"])
        assert wire.kid
        assert problem_of(await wire.post(wire.kid, {"contact": contact})) == (400, type)
        assert (await wire.post(wire.kid)).json()["contact"] == ["mailto:a@example.org"]


# --- terms ---


async def test_terms_are_agreed_to_or_there_is_no_account(stage: Stage) -> None:
    terms = "https://ca.internal/terms"
    async with stage(terms_of_service=terms) as scene:
        wire = scene.stranger()
        for payload in ({}, {"termsOfServiceAgreed": False}):
            refused = await wire.post("new-account", payload)
            assert problem_of(refused) == (403, "userActionRequired")
            assert f'<{terms}>;rel="terms-of-service"' in refused.headers.get_list("link")
            assert refused.json()["instance"] == terms
        assert problem_of(await wire.post("new-account", {"termsOfServiceAgreed": 1})) == (400, "malformed")
        assert (await wire.register()).status_code == 201


# --- updated, deactivated ---


async def test_an_account_is_updated(stage: Stage) -> None:
    async with stage() as scene:
        wire = await scene.account(contact=["mailto:a@example.org"])
        assert wire.kid
        for contact in (["mailto:b@example.org"], []):
            updated = await wire.post(wire.kid, {"contact": contact})
            assert updated.status_code == 200
            assert updated.json()["contact"] == contact
            assert (await wire.post(wire.kid)).json() == updated.json()


async def test_updates_and_orders_at_the_same_time_all_succeed(stage: Stage) -> None:
    """Lesson 29: whoever comes too late looks again, and nobody is turned away."""
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        assert wire.kid
        same = [Wire(scene.http, BASE, wire.key, wire.kid) for _ in range(24)]
        updates = [
            client.post(wire.kid, {"contact": [f"mailto:a{n}@example.org"]}) for n, client in enumerate(same[:12])
        ]
        answers = await asyncio.gather(*updates, *[client.order("a.internal") for client in same[12:]])
        assert sorted(answer.status_code for answer in answers) == [200] * 12 + [201] * 12


@pytest.mark.parametrize(
    "update",
    [
        {"status": "revoked"},
        {"status": "valid"},
        {"status": "nonsense"},
        {"termsOfServiceAgreed": False},
        {"termsOfServiceAgreed": "nonsense"},
        {"orders": "http://evil.example"},
        {"onlyReturnExisting": True},
        {"externalAccountBinding": {}},
        {"jwk": {}, "key": 7, "id": "1"},
    ],
)
async def test_what_cannot_be_updated_is_ignored(stage: Stage, update: dict[str, object]) -> None:
    """RFC 8555 §7.3.2: "The server MUST ignore any updates to ..."."""
    async with stage() as scene:
        wire = await scene.account(contact=["mailto:a@example.org"])
        assert wire.kid
        before = await wire.post(wire.kid)
        updated = await wire.post(wire.kid, update)
        assert (updated.status_code, updated.json()) == (200, before.json())
        assert (await wire.post(wire.kid)).json() == before.json()


async def test_a_deactivated_account_stays_deactivated(stage: Stage) -> None:
    """RFC 8555 §7.3.6: "ACME does not provide a way to reactivate a deactivated account"."""
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        assert wire.kid
        order = (await wire.order("a.internal")).json()
        gone = await wire.post(wire.kid, {"status": "deactivated"})
        assert (gone.status_code, gone.json()["status"]) == (200, "deactivated")
        for payload in (None, {}, {"status": "valid"}, {"status": "deactivated"}):
            assert problem_of(await wire.post(wire.kid, payload)) == (401, "unauthorized")
        assert problem_of(await wire.finalize(order)) == (401, "unauthorized")
        assert problem_of(await replace(wire, kid=None).post("new-account", {})) == (401, "unauthorized")


async def test_a_deactivation_and_a_finalize_at_the_same_time(stage: Stage) -> None:
    """Whichever comes first, a deactivated account gets nothing afterwards."""
    async with stage(auto_approve=True) as scene:
        for _ in range(5):
            wire = await scene.account()
            assert wire.kid
            order = (await wire.order("a.internal")).json()
            same = Wire(scene.http, BASE, wire.key, wire.kid)
            gone, finalized = await asyncio.gather(wire.post(wire.kid, {"status": "deactivated"}), same.finalize(order))
            assert gone.status_code == 200
            assert finalized.status_code in (200, 401)
            (record,) = scene.store.find("order", f"account:{wire.kid.rsplit('/', 1)[1]}")
            assert ("certificate" in json.loads(record.body)) == (finalized.status_code == 200)


# --- external account binding ---

MAC_KEYS = {"kid-1": b"a secret of kid-1", "kid-2": b"a secret of kid-2"}


class Attentive:
    """A policy that remembers whom it was told of."""

    def __init__(self) -> None:
        self.applicants: list[Applicant] = []

    def allow_account(self, applicant: Applicant) -> None:
        self.applicants.append(applicant)

    def allow_order(self, applicant: Applicant, identifiers: Sequence[Identifier]) -> Decision:
        self.applicants.append(applicant)
        return Decision.TRUST


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("as_function", [False, True])
async def test_an_account_is_bound_to_an_external_one(stage: Stage, algorithm: str, as_function: bool) -> None:
    """RFC 8555 §7.3.4; the policy is told, now and with every order."""
    policy = Attentive()
    keys = MAC_KEYS.get if as_function else MAC_KEYS
    async with stage(external_account_keys=keys, external_account_required=True, policy=policy) as scene:
        wire = scene.stranger()
        binding = bind("kid-1", MAC_KEYS["kid-1"], wire.url("new-account"), wire.key, algorithm)
        bound = await wire.register(externalAccountBinding=binding)
        assert bound.status_code == 201
        assert bound.json()["externalAccountBinding"] == binding
        assert wire.kid
        assert (await wire.post(wire.kid)).json()["externalAccountBinding"] == binding
        await wire.order("a.internal")
        assert [each.external_account for each in policy.applicants] == ["kid-1", "kid-1"]
        assert [each.account for each in policy.applicants] == [None, wire.kid.rsplit("/", 1)[1]]


def binding_with(**header: object) -> Callable[[Wire], object]:
    """A binding signed as it should be, over another header."""

    def make(wire: Wire) -> object:
        good = {"alg": "HS256", "kid": "kid-1", "url": wire.url("new-account")} | header
        protected = to_base64url(json.dumps({k: v for k, v in good.items() if v is not None}).encode())
        return remac({"protected": protected, "payload": to_base64url(json.dumps(jwk_of(wire.key)).encode())})

    return make


def binding_of(payload: bytes) -> Callable[[Wire], object]:
    def make(wire: Wire) -> object:
        good = bind("kid-1", MAC_KEYS["kid-1"], wire.url("new-account"), wire.key)
        return remac(good | {"payload": to_base64url(payload)})

    return make


def remac(message: dict[str, str]) -> dict[str, str]:
    mac = hmac.digest(MAC_KEYS["kid-1"], f"{message['protected']}.{message['payload']}".encode(), "sha256")
    return message | {"signature": to_base64url(mac)}


def signed_by_account_key(wire: Wire) -> object:
    url = wire.url("new-account")
    return sign(wire.key, {"alg": "ES256", "kid": "kid-1", "url": url}, jwk_of(wire.key))


def bound(
    kid: str = "kid-1", mac_key: bytes = MAC_KEYS["kid-1"], url: str = f"{BASE}/new-account", **members: object
) -> Callable[[Wire], object]:
    return lambda wire: bind(kid, mac_key, url, wire.key) | members


@pytest.mark.parametrize(
    ("make", "status", "type"),
    [
        (bound(mac_key=b"wrong"), 403, "unauthorized"),
        (bound(mac_key=MAC_KEYS["kid-2"]), 403, "unauthorized"),
        (bound(kid="kid-2"), 403, "unauthorized"),
        (bound(kid="kid-3"), 403, "unauthorized"),
        (bound(url=f"{BASE}/new-order"), 400, "malformed"),
        (bound(url="http://other.internal/new-account"), 400, "malformed"),
        (bound(header={}), 400, "malformed"),
        (bound(signatures=[]), 400, "malformed"),
        (bound(signature=""), 403, "unauthorized"),
        (bound(signature="===="), 400, "malformed"),
        (lambda w: bind("kid-1", MAC_KEYS["kid-1"], w.url("new-account"), new_key()), 400, "malformed"),
        (signed_by_account_key, 400, "badSignatureAlgorithm"),
        (binding_with(alg="none"), 400, "badSignatureAlgorithm"),
        (binding_with(alg="HS1"), 400, "badSignatureAlgorithm"),
        (binding_with(alg=None), 400, "malformed"),
        (binding_with(url=None), 400, "malformed"),
        (binding_with(kid=None), 400, "malformed"),
        (binding_with(kid=7), 400, "malformed"),
        (binding_with(kid="\ud800"), 403, "unauthorized"),
        (binding_with(nonce="AAAA"), 400, "malformed"),
        (binding_with(jwk={"kty": "oct", "k": "AAAA"}), 400, "malformed"),
        (binding_with(kid=None, jwk={"kty": "oct", "k": "AAAA"}), 400, "malformed"),
        (binding_with(crit=["b64"]), 400, "malformed"),
        (binding_of(b""), 400, "malformed"),
        (binding_of(b"7"), 400, "malformed"),
        (binding_of(b"{}"), 400, "badPublicKey"),
        (lambda w: "kid-1", 400, "malformed"),
        (lambda w: [], 400, "malformed"),
        (lambda w: {}, 400, "malformed"),
    ],
)
async def test_a_binding_that_binds_nothing_is_refused(
    stage: Stage, make: Callable[[Wire], object], status: int, type: str
) -> None:
    """Lesson 17: a MAC inside the binding, and nowhere else; RFC 8555 §7.3.4: each check that fails refuses."""
    for required in (True, False):
        async with stage(external_account_keys=MAC_KEYS, external_account_required=required) as scene:
            wire = scene.stranger()
            refused = await wire.post("new-account", {"externalAccountBinding": make(wire)})
            assert problem_of(refused) == (status, type)
            assert scene.store.find("account") == []


async def test_unknown_kids_and_wrong_keys_look_the_same(stage: Stage) -> None:
    """A stranger learns nothing about which kids there are."""
    async with stage(external_account_keys=MAC_KEYS) as scene:
        wire = scene.stranger()
        bindings = [bind(kid, b"?", wire.url("new-account"), wire.key) for kid in ("kid-1", "kid-4")]
        answers = [await wire.post("new-account", {"externalAccountBinding": binding}) for binding in bindings]
        assert answers[0].json() == answers[1].json()


async def test_a_binding_is_required_where_it_is(stage: Stage) -> None:
    async with stage(external_account_keys=MAC_KEYS, external_account_required=True) as scene:
        refused = await scene.stranger().post("new-account", {})
        assert problem_of(refused) == (403, "externalAccountRequired")
    async with stage(external_account_keys=MAC_KEYS) as scene:
        assert (await scene.stranger().register()).status_code == 201


async def test_without_keys_a_binding_is_ignored_and_not_reflected(stage: Stage) -> None:
    """RFC 8555 §7.3.4: who does not verify it "MUST NOT reflect" it."""
    policy = Attentive()
    async with stage(policy=policy) as scene:
        wire = scene.stranger()
        response = await wire.register(externalAccountBinding=bind("kid-1", b"?", wire.url("new-account"), wire.key))
        assert response.status_code == 201
        assert "externalAccountBinding" not in response.json()
        assert policy.applicants[0].external_account is None


@pytest.mark.parametrize("depth", [10, 500, 900, 5000])
async def test_a_binding_with_more_than_it_needs_is_no_mistake_of_ours(stage: Stage, depth: int) -> None:
    async with stage(external_account_keys=MAC_KEYS) as scene:
        wire = scene.stranger()
        binding = bind("kid-1", MAC_KEYS["kid-1"], wire.url("new-account"), wire.key)
        more = json.dumps({"externalAccountBinding": binding})[:-2] + f', "more": {"[" * depth}{"]" * depth}}}}}'
        response = await wire.post("new-account", more.encode())
        assert response.status_code in (201, 400)


# --- key change ---


async def test_a_new_key_counts_at_once_and_everywhere(stage: Stage) -> None:
    """Lesson 9: no cache keeps the old one, on this responder or on another one of the same store."""
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        assert wire.kid
        async with scene.at(replica(scene, auto_approve=True)) as http:
            old = Wire(http, BASE, wire.key, wire.kid)
            assert (await old.post(wire.kid)).status_code == 200  # the other one has seen the old key
            order = (await wire.order("a.internal")).json()
            key = new_key()
            changed = await change_key(wire, key)
            assert (changed.status_code, changed.headers["location"]) == (200, wire.kid)
            assert changed.json()["status"] == "valid"
            for client in (scene.http, http):
                old, new = Wire(client, BASE, wire.key, wire.kid), Wire(client, BASE, key, wire.kid)
                assert problem_of(await old.post(wire.kid)) == (403, "unauthorized")
                assert problem_of(await old.finalize(order)) == (403, "unauthorized")
                assert (await new.post(wire.kid)).status_code == 200
                assert (await replace(new, kid=None).post("new-account", {})).headers["location"] == wire.kid
                gone = await replace(old, kid=None).post("new-account", {"onlyReturnExisting": True})
                assert problem_of(gone) == (400, "accountDoesNotExist")
            # RFC 8555 §7.3.5: "the server MUST NOT invalidate pending orders"
            assert (await Wire(scene.http, BASE, key, wire.kid).finalize(order)).json()["status"] == "valid"


def inner_with(**header: object) -> Callable[[Wire, PrivateKey], object]:
    def make(wire: Wire, key: PrivateKey) -> object:
        return inner(wire, key, header=header)

    return make


def inner(
    wire: Wire, key: PrivateKey, *, header: dict[str, object] | None = None, payload: object = None, by: Any = None
) -> dict[str, Any]:
    good = {"alg": "ES256", "jwk": jwk_of(key), "url": wire.url("key-change")} | (header or {})
    change = {"account": wire.kid, "oldKey": jwk_of(wire.key)} if payload is None else payload
    return sign(by or key, {name: value for name, value in good.items() if value is not None}, change)


async def change_key(wire: Wire, key: PrivateKey) -> Any:
    return await wire.post("key-change", inner(wire, key))


@pytest.mark.parametrize(
    ("make", "status", "type"),
    [
        (lambda w, k: {}, 400, "malformed"),
        (lambda w, k: inner(w, k) | {"header": {}}, 400, "malformed"),
        (lambda w, k: inner(w, k) | {"signatures": []}, 400, "malformed"),
        (lambda w, k: inner(w, k) | {"signature": inner(w, w.key)["signature"]}, 403, "unauthorized"),
        (lambda w, k: inner(w, k, by=w.key), 403, "unauthorized"),
        (lambda w, k: inner(w, k, header={"jwk": jwk_of(w.key)}), 403, "unauthorized"),
        (inner_with(jwk=None), 400, "malformed"),
        (lambda w, k: inner(w, k, header={"jwk": None, "kid": w.kid}), 400, "malformed"),
        (lambda w, k: inner(w, k, header={"kid": w.kid}), 400, "malformed"),
        (inner_with(nonce="AAAA"), 400, "malformed"),
        (inner_with(url=None), 400, "malformed"),
        (inner_with(url=f"{BASE}/new-order"), 400, "malformed"),
        (inner_with(url="http://other.internal/key-change"), 400, "malformed"),
        (inner_with(alg="none"), 400, "badSignatureAlgorithm"),
        (inner_with(alg="HS256"), 400, "badSignatureAlgorithm"),
        (inner_with(alg="RS256"), 400, "badPublicKey"),
        (inner_with(jwk={"kty": "oct", "k": "AAAA"}), 400, "badPublicKey"),
        (inner_with(jwk={"kty": "EC"}), 400, "badPublicKey"),
        (inner_with(crit=["b64"]), 400, "malformed"),
        (lambda w, k: inner(w, k, payload=b""), 400, "malformed"),
        (lambda w, k: inner(w, k, payload=[]), 400, "malformed"),
        (lambda w, k: inner(w, k, payload={"oldKey": jwk_of(w.key)}), 400, "malformed"),
        (lambda w, k: inner(w, k, payload={"account": w.kid}), 400, "malformed"),
        (lambda w, k: inner(w, k, payload={"account": w.kid, "oldKey": None}), 400, "malformed"),
        (lambda w, k: inner(w, k, payload={"account": w.kid, "oldKey": {}}), 400, "malformed"),
        (lambda w, k: inner(w, k, payload={"account": w.kid, "oldKey": jwk_of(k)}), 400, "malformed"),
        (lambda w, k: inner(w, k, payload={"account": f"{w.kid}0", "oldKey": jwk_of(w.key)}), 400, "malformed"),
        (lambda w, k: inner(w, k, payload={"account": [w.kid], "oldKey": jwk_of(w.key)}), 400, "malformed"),
    ],
)
async def test_a_key_change_that_fails_a_check_changes_nothing(
    stage: Stage, make: Callable[[Wire, PrivateKey], object], status: int, type: str
) -> None:
    """RFC 8555 §7.3.5, checks 2 to 8."""
    async with stage() as scene:
        wire, key = await scene.account(), new_key()
        assert wire.kid
        assert problem_of(await wire.post("key-change", make(wire, key))) == (status, type)
        assert (await wire.post(wire.kid)).status_code == 200
        assert problem_of(await Wire(scene.http, BASE, key, wire.kid).post(wire.kid)) == (403, "unauthorized")
        assert (await change_key(wire, key)).status_code == 200


async def test_nobody_takes_over_another_account(stage: Stage) -> None:
    """Signed outside by one account, inside for another."""
    async with stage() as scene:
        mine, theirs, key = await scene.account(), await scene.account(), new_key()
        for payload in (
            {"account": theirs.kid, "oldKey": jwk_of(theirs.key)},
            {"account": theirs.kid, "oldKey": jwk_of(mine.key)},
        ):
            refused = await mine.post("key-change", inner(mine, key, payload=payload))
            assert problem_of(refused) == (400, "malformed")
        assert theirs.kid
        assert (await theirs.post(theirs.kid)).status_code == 200


async def test_a_weak_key_is_no_new_key(stage: Stage) -> None:
    """Lesson 26."""
    async with stage() as scene:
        wire, weak = await scene.account(), rsa.generate_private_key(65537, 1024)
        message = sign(
            weak,
            {"alg": "RS256", "jwk": jwk_of(weak), "url": wire.url("key-change")},
            {"account": wire.kid, "oldKey": jwk_of(wire.key)},
        )
        assert problem_of(await wire.post("key-change", message)) == (400, "badPublicKey")


async def test_a_key_that_has_an_account_is_a_conflict(stage: Stage) -> None:
    """RFC 8555 §7.3.5: 409, "and provide the URL of that account in the Location header field"."""
    async with stage() as scene:
        one, two = await scene.account(), await scene.account()
        conflict = await change_key(one, two.key)
        assert (problem_of(conflict), conflict.headers["location"]) == ((409, "malformed"), two.kid)
        itself = await change_key(one, one.key)
        assert (problem_of(itself), itself.headers["location"]) == ((409, "malformed"), one.kid)


async def test_two_accounts_want_one_key_at_the_same_time(stage: Stage) -> None:
    async with stage() as scene:
        one, two, key = await scene.account(), await scene.account(), new_key()
        answers = await asyncio.gather(change_key(one, key), change_key(two, key))
        assert sorted(answer.status_code for answer in answers) == [200, 409]
        won, lost = sorted(answers, key=lambda answer: int(answer.status_code))
        assert lost.headers["location"] == won.headers["location"]


async def test_twenty_key_changes_at_once_leave_one_key(stage: Stage) -> None:
    """Lesson 29: never a 500."""
    async with stage() as scene:
        wire = await scene.account()
        assert wire.kid
        keys = [new_key() for _ in range(20)]
        answers = await asyncio.gather(*[change_key(Wire(scene.http, BASE, wire.key, wire.kid), key) for key in keys])
        assert sorted(answer.status_code for answer in answers) == [200] + [403] * 19
        looks = [await Wire(scene.http, BASE, key, wire.kid).post(wire.kid) for key in keys]
        assert [look.status_code for look in looks] == [answer.status_code for answer in answers]


class Noting:
    """A validator that notes what it was asked to look for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def validate(self, identifier: str, identifier_type: str, token: str, key_authorization: str) -> bool:
        self.asked.append(key_authorization)
        return True


async def test_a_pending_challenge_belongs_to_the_key_that_answers_it(stage: Stage) -> None:
    """Lesson 8: one answered before the key change keeps the old key's authorization, one answered after has the
    new key's."""
    async with stage() as scene:
        wire, key = await scene.account(), new_key()
        order = (await wire.order("a.internal", "b.internal")).json()
        challenges = [(await wire.post(url)).json()["challenges"][0] for url in order["authorizations"]]
        before, after = challenges
        assert (await wire.post(before["url"], {})).json()["status"] == "processing"
        assert (await change_key(wire, key)).status_code == 200
        validator = Noting()
        async with scene.at(replica(scene, challenge_validator=validator)) as http:
            changed = Wire(http, BASE, key, wire.kid)
            assert (await changed.post(before["url"])).json()["status"] == "valid"
            assert (await changed.post(after["url"], {})).json()["status"] == "valid"
        assert validator.asked == [
            f"{before['token']}.{thumbprint_of(wire.key)}",
            f"{after['token']}.{thumbprint_of(key)}",
        ]


def replica(scene: Scene, **arguments: Any) -> ACMEResponder:
    """Another responder on the same store."""
    ca = CertificateAuthority(scene.store, now=scene.clock)
    ca.init()
    return ACMEResponder(ca, now=scene.clock, **arguments)


# --- the list of orders ---


async def test_orders_are_listed_a_page_at_a_time(stage: Stage) -> None:
    """RFC 8555 §7.1.2.1; and only its own."""
    async with stage(auto_approve=True, limits=Limits(orders_page=3)) as scene:
        wire, other = await scene.account(), await scene.account()
        assert wire.kid
        made = []
        for number in range(7):
            made.append((await wire.order(f"a{number}.internal")).headers["location"])
            await other.order(f"b{number}.internal")
            scene.clock.forward(seconds=1)
        listed: list[str] = []
        pages = 0
        url: str | None = f"{wire.kid}/orders"
        while url:
            page = await wire.post(url)
            assert page.status_code == 200
            listed += page.json()["orders"]
            pages += 1
            url = page.links.get("next", {}).get("url")
        assert listed == made
        assert pages == 3
        assert problem_of(await other.post(f"{wire.kid}/orders")) == (404, "malformed")


async def test_orders_that_came_to_nothing_are_not_listed(stage: Stage) -> None:
    """RFC 8555 §7.1.2.1: "The server ... SHOULD NOT include orders that are invalid"."""
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        assert wire.kid
        await wire.order("expired.internal")
        finished = await wire.order("finished.internal")
        await wire.finalize(finished.json())
        scene.clock.forward(days=1, seconds=1)
        wire.nonce = None
        fresh = await wire.order("fresh.internal")
        listed = (await wire.post(f"{wire.kid}/orders")).json()["orders"]
        assert listed == [finished.headers["location"], fresh.headers["location"]]


async def test_a_new_account_has_an_empty_list(stage: Stage) -> None:
    async with stage() as scene:
        wire = await scene.account()
        page = await wire.post(f"{wire.kid}/orders")
        assert page.json() == {"orders": []}
        assert page.links.keys() == {"index"}
        # The query is under the signature like the rest of the URL.
        assert (await wire.post(f"{wire.kid}/orders?after=zzz&x=%ff&after=")).json() == {"orders": []}


# --- how long they live ---


async def test_an_account_that_never_orders_expires(stage: Stage) -> None:
    async with stage(auto_approve=True) as scene:
        unused, used = await scene.account(), await scene.account()
        await used.order("a.internal")
        scene.clock.forward(days=31)
        for wire in (unused, used):
            wire.nonce = None
        assert unused.kid
        assert used.kid
        assert problem_of(await unused.post(unused.kid)) == (400, "accountDoesNotExist")
        assert (await used.post(used.kid)).status_code == 200
        scene.store.prune(scene.clock())
        assert [record.id for record in scene.store.find("account")] == [used.kid.rsplit("/", 1)[1]]


async def test_an_account_lives_as_long_as_it_orders(stage: Stage) -> None:
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        assert wire.kid
        for _ in range(4):
            wire.nonce = None
            assert (await wire.order("a.internal")).status_code == 201
            scene.clock.forward(days=199)
        wire.nonce = None
        assert (await wire.post(wire.kid)).status_code == 200
        scene.clock.forward(days=202)
        wire.nonce = None
        assert problem_of(await wire.post(wire.kid)) == (400, "accountDoesNotExist")


async def test_the_key_of_an_expired_account_is_free_again(stage: Stage) -> None:
    """Also while the old record is still waiting to be pruned."""
    async with stage() as scene:
        lapsed, other = await scene.account(), await scene.account()
        scene.clock.forward(days=31)
        stranger = replace(lapsed, kid=None, nonce=None)
        only = await stranger.post("new-account", {"onlyReturnExisting": True})
        assert problem_of(only) == (400, "accountDoesNotExist")
        again = await stranger.post("new-account", {})
        assert again.status_code == 201
        assert again.headers["location"] != lapsed.kid
        # A key change may take such a key as well.
        taker = await scene.account()
        assert (await change_key(taker, other.key)).status_code == 200
        assert len(scene.store.find("account")) == 4
        scene.store.prune(scene.clock())
        assert len(scene.store.find("account")) == 2
        assert taker.kid
        assert (await Wire(scene.http, BASE, other.key, taker.kid).post(taker.kid)).status_code == 200
        assert (await replace(stranger, kid=again.headers["location"]).post(again.headers["location"])).is_success


async def test_an_rsa_key_that_can_be_factored_is_refused(stage: Stage) -> None:
    """Lesson 26, for account keys: this modulus has a factor that anybody finds."""
    modulus = rsa.generate_private_key(65537, 2048).public_key().public_numbers().n // 3 * 3
    modulus += 3 * (1 - modulus % 2)
    async with stage(auto_approve=True) as scene:
        n = to_base64url(modulus.to_bytes(256, "big"))
        wire = scene.stranger()
        response = await wire.post("new-account", {}, alg="RS256", jwk={"kty": "RSA", "n": n, "e": "AQAB"})
        assert problem_of(response) == (400, "badPublicKey")
        assert "factored" in response.json()["detail"]
