"""Orders (RFC 8555 §7.4): what may be asked for, and that it is signed for once."""

import asyncio
import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from tests.certificates import make_csr, same_key
from tests.server.conftest import Scene, Stage
from tests.wire import BASE, Wire, csr, der_of, new_key, problem_of

from privet import (
    ACMEResponder,
    CertificateAuthority,
    KeyType,
    Limits,
    MemoryStore,
    Profile,
    Record,
    SQLiteStore,
    Store,
    StoreError,
)
from privet.acme.encoding import to_base64url
from privet.ca.certificates import Certificate
from privet.ca.profiles import DEFAULT
from privet.server import orders
from privet.server.events import Event, Stored
from privet.server.records import Order

pytestmark = pytest.mark.anyio


def leaf_of(chain: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(chain)


def names_of(leaf: x509.Certificate) -> set[str]:
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in names}


def at(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


# --- the ways to a certificate ---


async def test_an_order_that_is_born_ready(stage: Stage) -> None:
    """With `auto_approve` there is nothing to prove: three requests, and RFC 8555 §7.1.6 allows it."""
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        ordered = await wire.order("a.internal")
        order = ordered.json()
        assert (ordered.status_code, order["status"]) == (201, "ready")
        assert ordered.headers["location"].startswith(f"{BASE}/order/")
        assert order["expires"] == at(scene.clock() + timedelta(days=1))
        assert order["identifiers"] == [{"type": "dns", "value": "a.internal"}]
        assert order.keys() == {"status", "expires", "identifiers", "authorizations", "finalize"}
        (authorization,) = [(await wire.post(url)).json() for url in order["authorizations"]]
        assert authorization["status"] == "valid"
        finalized = await wire.finalize(order)
        assert (finalized.status_code, finalized.json()["status"]) == (200, "valid")
        assert finalized.headers["location"] == ordered.headers["location"]
        look = await wire.post(ordered.headers["location"])
        assert look.json() == finalized.json()
        chain = await wire.post(look.json()["certificate"])
        assert names_of(leaf_of(chain.content)) == {"a.internal"}


async def test_the_long_way_round(stage: Stage) -> None:
    """Six requests, as RFC 8555 §7.1 draws them."""
    async with stage(auto_approve=True, ask_challenges=True) as scene:
        wire = await scene.account()
        ordered = await wire.order("a.internal", "b.internal")
        location = ordered.headers["location"]
        order = ordered.json()
        assert order["status"] == "pending"
        assert problem_of(await wire.finalize(order)) == (403, "orderNotReady")
        for number, url in enumerate(order["authorizations"]):
            assert (await wire.post(location)).json()["status"] == "pending"
            authorization = (await wire.post(url)).json()
            assert authorization["status"] == "pending"
            challenge = authorization["challenges"][number]
            assert (await wire.post(challenge["url"], {})).json()["status"] == "valid"
            assert (await wire.post(url)).json()["status"] == "valid"
        assert (await wire.post(location)).json()["status"] == "ready"
        finalized = (await wire.finalize(order)).json()
        assert finalized["status"] == "valid"
        chain = await wire.post(finalized["certificate"])
        assert names_of(leaf_of(chain.content)) == {"a.internal", "b.internal"}


async def test_several_names_addresses_and_wildcards_in_one_order(stage: Stage) -> None:
    """`"10.0.0.1"` is an IP identifier and an IP in the certificate, never a DNS name."""
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        names = ["a.internal", "*.a.internal", "10.0.0.1", "fd00::1", "xn--bcher-kva.internal"]
        order = (await wire.order(*names)).json()
        assert [(each["type"], each["value"]) for each in order["identifiers"]] == [
            ("dns", "a.internal"),
            ("dns", "*.a.internal"),
            ("ip", "10.0.0.1"),
            ("ip", "fd00::1"),
            ("dns", "xn--bcher-kva.internal"),
        ]
        assert len(set(order["authorizations"])) == len(names)
        finalized = (await wire.finalize(order)).json()
        leaf = leaf_of((await wire.post(finalized["certificate"])).content)
        assert names_of(leaf) == set(names)


async def test_the_same_name_twice_is_one_name(stage: Stage) -> None:
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        names = ["a.internal", "A.INTERNAL", "b.internal", "a.Internal"]
        identifiers = [{"type": "dns", "value": name} for name in names]
        order = (await wire.post("new-order", {"identifiers": identifiers})).json()
        assert [each["value"] for each in order["identifiers"]] == ["a.internal", "b.internal"]
        assert len(order["authorizations"]) == 2
        finalized = await wire.finalize(order, csr("b.internal", "a.internal"))
        assert finalized.json()["status"] == "valid"


async def test_any_responder_of_the_store_goes_on_with_an_order(stage: Stage) -> None:
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        order = (await wire.order("a.internal")).json()
        async with scene.at(replica(scene)) as http:
            elsewhere = Wire(http, BASE, wire.key, wire.kid)
            finalized = (await elsewhere.finalize(order)).json()
        assert (await wire.post(finalized["certificate"])).status_code == 200


def replica(scene: Scene, **arguments: Any) -> ACMEResponder:
    """Another responder on the same store, approving everything."""
    ca = CertificateAuthority(scene.store, now=scene.clock)
    ca.init()
    return ACMEResponder(ca, now=scene.clock, auto_approve=True, **arguments)


async def test_who_knows_an_order_reads_it_in_one_turn_and_as_it_is_now(stage: Stage) -> None:
    """Its authorizations come with it where it was made, and are read after it elsewhere."""
    told: list[Event] = []
    async with stage(ask_challenges=True, auto_approve=True, observe=told.append) as scene:
        wire = await scene.account()
        ordered = await wire.order("a.internal", "b.internal")
        other = replica(scene, ask_challenges=True, observe=told.append)
        async with scene.at(other) as http:
            elsewhere = Wire(http, BASE, wire.key, wire.kid)
            for url in ordered.json()["authorizations"]:
                assert (await wire.post(ordered.headers["location"])).json()["status"] == "pending"
                authorization = (await elsewhere.post(url)).json()
                await elsewhere.post(authorization["challenges"][0]["url"], {})
            turns = []
            for each in (wire, elsewhere):
                told.clear()
                assert (await each.post(ordered.headers["location"])).json()["status"] == "ready"
                turns.append(sum(isinstance(event, Stored) for event in told))
        assert turns == [1, 2]
        await wire.post(ordered.json()["authorizations"][1], {"status": "deactivated"})
        assert (await wire.post(ordered.headers["location"])).json()["status"] == "invalid"


# --- names that may not be ordered ---

BAD_NAMES = [
    *("", ".", "a..internal", ".internal", "internal.", "a.internal.", "-a.internal", "a-.internal", "a.-internal"),
    *("a_b.internal", "a b.internal", "a.internal\0", "a\0.internal", "a.internal\n", "ä.internal", "a/b", "a:80"),
    *("http://a.internal", "*", "*.", "*a.internal", "a.*.internal", "*.*.internal", f"{'a' * 64}.internal"),
    *(".".join(["a" * 60] * 5), "xn--.internal", "xn--0.internal", "xn--zzzzzz99999.internal", "ab--cd.internal"),
    *("10.0.0.1", "127.0.0.1", "0x7f.1", "10.0.0.0x1", "1", "a.1", "::1", "[::1]", "fd00::1"),
]
BAD_ADDRESSES = ["", "10.0.0", "10.0.0.256", "010.0.0.1", "10.0.0.1/32", "10.0.0.1 ", "a.internal", "1", "::1%eth0"]
BAD_ADDRESSES += ["::ffff:10.0.0.1", "FD00::1", "fd00:0:0:0:0:0:0:1", "[::1]", "*.10.0.0.1"]


async def test_names_that_are_none_are_refused_and_all_of_them_named(stage: Stage) -> None:
    """Empty labels, stray hyphens, 64-character labels, broken punycode, NUL, addresses for names: RFC 8555 §6.7.1, one
    subproblem each."""
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        wrong = [{"type": "dns", "value": name} for name in BAD_NAMES]
        wrong += [{"type": "ip", "value": address} for address in BAD_ADDRESSES]
        for identifier in wrong:
            refused = await wire.post("new-order", {"identifiers": [identifier]})
            assert problem_of(refused) == (400, "malformed"), identifier
            assert len(refused.json()["subproblems"]) == 1
        everything = [{"type": "dns", "value": "good.internal"}, *wrong]
        refused = await wire.post("new-order", {"identifiers": everything})
        assert problem_of(refused) == (400, "malformed")
        assert len(refused.json()["subproblems"]) == len(wrong)
        assert scene.store.find("order") == []


async def test_identifiers_of_other_types_are_unsupported(stage: Stage) -> None:
    """Lesson 2: deny by default."""
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        for type in ("email", "TNAuthList", "DNS", "permanent-identifier", ""):
            refused = await wire.post("new-order", {"identifiers": [{"type": type, "value": "a.internal"}]})
            assert problem_of(refused) == (400, "unsupportedIdentifier")
        mixed = [
            {"type": "email", "value": "a@example.org"},
            {"type": "dns", "value": "-"},
            {"type": "dns", "value": "good.internal"},
        ]
        refused = await wire.post("new-order", {"identifiers": mixed})
        assert problem_of(refused) == (400, "compound")
        types = [each["type"].rsplit(":", 1)[1] for each in refused.json()["subproblems"]]
        assert types == ["unsupportedIdentifier", "malformed"]


@pytest.mark.parametrize(
    "identifiers",
    [None, [], {}, "a.internal", [None], ["a.internal"], [{}], [{"type": "dns"}], [{"value": "a.internal"}]]
    + [[{"type": "dns", "value": value}] for value in (None, 7, ["a.internal"], {"a": "b"})]
    + [[{"type": ["dns"], "value": "a.internal"}]],
)
async def test_an_order_without_identifiers_is_malformed(stage: Stage, identifiers: object) -> None:
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        assert problem_of(await wire.post("new-order", {"identifiers": identifiers})) == (400, "malformed")
        assert problem_of(await wire.post("new-order", {})) == (400, "malformed")


async def test_an_order_may_have_so_many_identifiers_and_no_more(stage: Stage) -> None:
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        names = [f"a{number}.internal" for number in range(101)]
        assert problem_of(await wire.order(*names)) == (400, "malformed")
        order = (await wire.order(*names[:100])).json()
        assert (await wire.finalize(order)).json()["status"] == "valid"


# --- when it is to be valid ---


def span(leaf: x509.Certificate) -> tuple[datetime, datetime]:
    return leaf.not_valid_before_utc, leaf.not_valid_after_utc


@pytest.mark.parametrize(
    ("begins", "ends"),
    [
        (timedelta(0), timedelta(hours=24)),
        (timedelta(minutes=-5), timedelta(hours=1)),
        (timedelta(hours=1), timedelta(hours=2)),
        (timedelta(hours=24), timedelta(hours=48)),
        (timedelta(0), timedelta(seconds=1)),
    ],
)
async def test_a_certificate_is_valid_when_it_was_asked_to_be(stage: Stage, begins: timedelta, ends: timedelta) -> None:
    """RFC 8555 §7.4: it is what was asked for, or an error."""
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        wish = {"notBefore": at(scene.clock() + begins), "notAfter": at(scene.clock() + ends)}
        ordered = await wire.order("a.internal", **wish)
        assert ordered.status_code == 201
        assert {name: ordered.json()[name] for name in wish} == wish
        finalized = (await wire.finalize(ordered.json())).json()
        leaf = leaf_of((await wire.post(finalized["certificate"])).content)
        assert span(leaf) == (scene.clock() + begins, scene.clock() + ends)


async def test_one_end_of_the_span_may_be_left_to_the_server(stage: Stage) -> None:
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        for wish, expected in (
            ({}, (timedelta(minutes=-5), timedelta(hours=24, minutes=-5))),
            ({"notBefore": at(scene.clock())}, (timedelta(0), timedelta(hours=24))),
            ({"notAfter": at(scene.clock() + timedelta(hours=12))}, (timedelta(minutes=-5), timedelta(hours=12))),
            ({"notBefore": None, "notAfter": None}, (timedelta(minutes=-5), timedelta(hours=24, minutes=-5))),
            ({"notAfter": "2026-03-01T21:00:00.75+03:00"}, (timedelta(minutes=-5), timedelta(hours=6))),
        ):
            finalized = (await wire.finalize((await wire.order("a.internal", **wish)).json())).json()
            leaf = leaf_of((await wire.post(finalized["certificate"])).content)
            assert span(leaf) == (scene.clock() + expected[0], scene.clock() + expected[1])


NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "wish",
    [
        {"notAfter": at(NOW)},
        {"notAfter": at(NOW - timedelta(seconds=1))},
        {"notAfter": "2026-03-01T12:00:00.75Z"},  # a certificate could not say it
        {"notAfter": at(NOW + timedelta(hours=24, seconds=1))},
        {"notAfter": at(NOW + timedelta(days=36500))},
        {"notBefore": at(NOW + timedelta(hours=2)), "notAfter": at(NOW + timedelta(hours=1))},
        {"notBefore": at(NOW + timedelta(hours=1)), "notAfter": at(NOW + timedelta(hours=1))},
        {"notBefore": at(NOW - timedelta(minutes=6))},
        {"notBefore": at(NOW - timedelta(minutes=5)), "notAfter": at(NOW - timedelta(minutes=1))},
        {"notBefore": at(NOW + timedelta(hours=25))},
        {"notBefore": at(NOW + timedelta(hours=1)), "notAfter": at(NOW + timedelta(hours=26))},
        {"notBefore": "9999-12-31T23:59:59Z"},
        {"notBefore": "0001-01-01T00:00:00Z"},
        {"notAfter": "9999-12-31T23:59:59-23:59"},
        {"notAfter": "0001-01-01T00:00:00+23:59"},
        {"notAfter": "2026-03-01T13:00:00"},
        {"notAfter": "2026-03-02"},
        {"notAfter": "2026-02-30T13:00:00Z"},
        {"notAfter": "2026-03-01T24:00:01Z"},
        {"notAfter": "tomorrow"},
        {"notAfter": ""},
        {"notAfter": 1772373600},
        {"notAfter": [at(NOW + timedelta(hours=1))]},
        {"notBefore": {}},
    ],
)
async def test_a_span_that_cannot_be_had_is_refused(stage: Stage, wish: dict[str, object]) -> None:
    """In the past, before its beginning, a century ahead: RFC 8555 §7.4, "The server MUST return an error"."""
    async with stage(auto_approve=True) as scene:
        assert scene.clock() == NOW
        wire = await scene.account()
        assert problem_of(await wire.order("a.internal", **wish)) == (400, "malformed")


async def test_nothing_is_promised_for_after_the_authority_ends(stage: Stage) -> None:
    """Lesson 25."""
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        scene.clock.time = scene.ca.not_after - timedelta(hours=12)
        wire = await scene.account()
        for wish in (
            {"notAfter": at(scene.ca.not_after + timedelta(seconds=1))},
            {"notBefore": at(scene.ca.not_after)},
            {"notBefore": at(scene.ca.not_after + timedelta(hours=1))},
        ):
            assert problem_of(await wire.order("a.internal", **wish)) == (400, "malformed")
        # Up to the very end it may be; and who asks for no end in particular gets what there is.
        assert (await wire.order("a.internal", notAfter=at(scene.ca.not_after))).status_code == 201
        chain = await wire.issue("a.internal")
        assert leaf_of(chain).not_valid_after_utc == scene.ca.not_after
        # And when it has ended, nothing: which is not the client's fault, and leaves the order as it is.
        ordered = await wire.order("a.internal")
        scene.clock.time = scene.ca.not_after
        wire.nonce = None
        assert problem_of(await wire.finalize(ordered.json())) == (503, "serverInternal")
        assert (await wire.post(ordered.headers["location"])).json()["status"] == "ready"
        assert problem_of(await wire.order("a.internal")) == (503, "serverInternal")


@pytest.mark.parametrize(
    "wish",
    [
        {"notAfter": at(NOW + timedelta(hours=1))},
        {"notBefore": at(NOW - timedelta(minutes=5))},
    ],
)
async def test_an_order_expires_with_the_certificate_it_is_for(stage: Stage, wish: dict[str, str]) -> None:
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        ordered = await wire.order("a.internal", **wish)
        until = datetime.fromisoformat(ordered.json()["expires"])
        scene.clock.time = until
        wire.nonce = None
        assert problem_of(await wire.finalize(ordered.json())) == (403, "orderNotReady")
        assert (await wire.post(ordered.headers["location"])).json()["status"] == "invalid"
        assert until == datetime.fromisoformat(wish.get("notAfter") or at(NOW + timedelta(hours=24, minutes=-5)))


async def test_a_profile_says_how_long_and_for_which_keys(stage: Stage) -> None:
    short = Profile("short", timedelta(hours=1), DEFAULT.usages, frozenset({KeyType.P384}))
    async with stage(auto_approve=True, profile=short) as scene:
        wire = await scene.account()
        tomorrow = at(scene.clock() + timedelta(hours=2))
        assert problem_of(await wire.order("a.internal", notAfter=tomorrow)) == (400, "malformed")
        order = (await wire.order("a.internal")).json()
        assert problem_of(await wire.finalize(order)) == (400, "badCSR")
        der = csr("a.internal", key=ec.generate_private_key(ec.SECP384R1()))
        finalized = (await wire.finalize(order, der)).json()
        begins, ends = span(leaf_of((await wire.post(finalized["certificate"])).content))
        assert ends - begins == timedelta(hours=1)


# --- the CSR (lessons 3, 20, 26) ---


async def test_the_names_of_a_csr_are_those_of_the_order_and_no_others(stage: Stage) -> None:
    """Lesson 20: smuggling in both directions; what is wrong is named, and the order waits for a better CSR."""
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        order = (await wire.order("a.internal", "10.0.0.1")).json()
        for names, wrong in (
            (["a.internal"], {"10.0.0.1"}),
            (["10.0.0.1"], {"a.internal"}),
            (["a.internal", "10.0.0.1", "b.internal"], {"b.internal"}),
            (["a.internal", "10.0.0.1", "*.a.internal"], {"*.a.internal"}),
            (["a.internal", "10.0.0.2"], {"10.0.0.1", "10.0.0.2"}),
            (["b.internal"], {"a.internal", "10.0.0.1", "b.internal"}),
        ):
            refused = await wire.finalize(order, csr(*names))
            assert problem_of(refused) == (400, "badCSR")
            assert {each["identifier"]["value"] for each in refused.json()["subproblems"]} == wrong
        refused = await wire.finalize(order, csr("a.internal", "10.0.0.1", common_name="b.internal"))
        assert problem_of(refused) == (400, "badCSR")
        assert (await wire.finalize(order)).json()["status"] == "valid"


async def test_names_are_in_the_common_name_too(stage: Stage) -> None:
    """Some clients put the only name, or the first, in the CN alone."""
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        for names, der in (
            (["a.internal"], csr(common_name="a.internal")),
            (["a.internal"], csr(common_name="A.Internal")),
            (["a.internal"], csr("a.internal", common_name="a.internal")),
            (["a.internal", "b.internal"], csr("b.internal", common_name="a.internal")),
            (["10.0.0.1"], csr(common_name="10.0.0.1")),
            (["a.internal", "10.0.0.1"], csr("a.internal", common_name="10.0.0.1")),
        ):
            finalized = (await wire.finalize((await wire.order(*names)).json(), der)).json()
            leaf = leaf_of((await wire.post(finalized["certificate"])).content)
            assert names_of(leaf) == set(names)
            # An IP in the certificate's CN makes certbot crash.
            assert [each.value for each in leaf.subject] == (["a.internal"] if names[0] == "a.internal" else [])


async def test_a_long_name_is_left_out_of_the_common_name(stage: Stage) -> None:
    """A first name longer than 64 characters was a 500."""
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        for length in (64, 65, 253):
            name = ".".join(["a" * 50] * 6)[: length - 9] + ".internal"
            assert len(name) == length
            leaf = leaf_of(await wire.issue(name))
            assert names_of(leaf) == {name}
            assert [each.value for each in leaf.subject] == ([name] if length == 64 else [])


async def test_the_account_key_is_no_certificate_key(stage: Stage) -> None:
    """Lesson 20, RFC 8555 §11.1."""
    async with stage(auto_approve=True) as scene:
        for key in (new_key(), rsa.generate_private_key(65537, 2048)):
            wire = scene.stranger()
            wire.key = key
            await wire.register()
            order = (await wire.order("a.internal")).json()
            assert problem_of(await wire.finalize(order, csr("a.internal", key=key))) == (400, "badCSR")
            assert (await wire.finalize(order)).json()["status"] == "valid"


WEAK: Mapping[str, Callable[[], Any]] = {
    "RSA-1024": lambda: rsa.generate_private_key(65537, 1024),
    "RSA with exponent 3": lambda: rsa.generate_private_key(3, 2048),
    "P-224": lambda: ec.generate_private_key(ec.SECP224R1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "DSA": lambda: dsa.generate_private_key(1024),
    "Ed448": ed448.Ed448PrivateKey.generate,
}
GOOD_KEYS: Mapping[str, Callable[[], Any]] = {
    "P-256": new_key,
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "RSA-2048": lambda: rsa.generate_private_key(65537, 2048),
}


@pytest.mark.parametrize("kind", WEAK)
async def test_weak_keys_get_no_certificate(stage: Stage, kind: str) -> None:
    """Lesson 26."""
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        order = (await wire.order("a.internal")).json()
        names = x509.SubjectAlternativeName([x509.DNSName("a.internal")])
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        signed = builder.add_extension(names, critical=False).sign(WEAK[kind](), None if kind == "Ed448" else SHA256())
        assert problem_of(await wire.finalize(order, signed.public_bytes(Encoding.DER))) == (400, "badCSR")


@pytest.mark.parametrize("kind", GOOD_KEYS)
async def test_good_keys_get_one(stage: Stage, kind: str) -> None:
    async with stage(auto_approve=True) as scene:
        wire, key = await scene.account(), GOOD_KEYS[kind]()
        assert same_key(leaf_of(await wire.issue("a.internal", key=key)), key.public_key())


GOOD = csr("a.internal")


@pytest.mark.parametrize(
    "der",
    [
        b"",
        b"0",
        b"0\x80\0\0",
        GOOD[:-1],
        GOOD + b"\0",
        GOOD[:-1] + bytes([GOOD[-1] ^ 1]),
        GOOD.replace(b"a.internal", b"b.internal"),
        x509.load_der_x509_csr(GOOD).public_bytes(Encoding.PEM),
        csr(),
        make_csr(new_key(), ["a.internal"], extensions=[x509.BasicConstraints(ca=True, path_length=None)]),
        make_csr(new_key(), ["a.internal", x509.RFC822Name("a@example.org")]),
        make_csr(new_key(), ["a.internal", x509.UniformResourceIdentifier("spiffe://a")]),
        make_csr(new_key(), ["a.internal"], cn="a.internal."),
    ],
)
async def test_a_csr_that_is_none_is_a_bad_csr(stage: Stage, der: bytes) -> None:
    """Lesson 3: whatever the parser makes of it, it is a 4xx, and the order stays ready."""
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        order = (await wire.order("a.internal")).json()
        refused = await wire.post(order["finalize"], {"csr": to_base64url(der)})
        assert problem_of(refused) == (400, "badCSR")
        assert (await wire.finalize(order)).json()["status"] == "valid"


@pytest.mark.parametrize("payload", [{}, {"csr": None}, {"csr": 7}, {"csr": "=="}, {"csr": "a"}, {"CSR": "MA"}])
async def test_a_finalize_without_a_csr_is_malformed(stage: Stage, payload: dict[str, object]) -> None:
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        order = (await wire.order("a.internal")).json()
        assert problem_of(await wire.post(order["finalize"], payload)) == (400, "malformed")
        assert (await wire.finalize(order)).json()["status"] == "valid"


# --- once (lesson 19) ---


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "privet.db") as store:
        yield store


async def test_fifty_finalizes_at_once_give_one_certificate(stage: Stage, store: Store) -> None:
    """Lessons 19, 29: at two responders, each with a CSR of its own."""
    async with stage(store=store, auto_approve=True) as scene, scene.at(replica(scene)) as http:
        wire = await scene.account()
        ordered = await wire.order("a.internal")
        answers = await asyncio.gather(
            *[
                Wire(client, BASE, wire.key, wire.kid).finalize(ordered.json())
                for client in [scene.http, http]
                for _ in range(25)
            ]
        )
        issued = [answer for answer in answers if answer.is_success]
        refused = {problem_of(answer) for answer in answers if answer.is_error}
        assert (len(issued), refused) == (1, {(403, "orderNotReady")})
        assert len(store.find("certificate")) == 1
        assert (await wire.post(ordered.headers["location"])).json() == issued[0].json()


async def test_sixteen_clients_of_one_account_get_in_nobodys_way(stage: Stage, store: Store) -> None:
    """Lesson 29: nothing fails because others are busy too."""
    async with stage(store=store, auto_approve=True) as scene:
        wire = await scene.account()

        async def client(number: int) -> list[bytes]:
            same = Wire(scene.http, BASE, wire.key, wire.kid)
            return [await same.issue(f"a{number}.internal") for _ in range(3)]

        chains = await asyncio.gather(*map(client, range(16)))
        leaves = [leaf_of(chain) for each in chains for chain in each]
        assert len({leaf.serial_number for leaf in leaves}) == 48
        assert [names_of(leaf) for leaf in leaves] == [
            {f"a{number}.internal"} for number in range(16) for _ in range(3)
        ]


def test_one_path_leads_to_the_signing_room() -> None:
    """Lesson 1: only one code path reaches the CA from ACME, and it takes a finalized order."""
    paths = [
        (file.name, verb)
        for file in sorted(Path(orders.__file__).parent.glob("*.py"))
        for verb in re.findall(r"\bca\.(prepare|sign|issue\w*|issuer)\b", file.read_text())
    ]
    assert sorted(paths) == [("orders.py", "prepare"), ("orders.py", "sign")]


async def test_an_order_is_finalized_once(stage: Stage) -> None:
    """RFC 8555 §7.4: "MUST return a 403 (Forbidden) error with a problem document of type orderNotReady"."""
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        order = (await wire.order("a.internal")).json()
        der = csr("a.internal")
        assert (await wire.finalize(order, der)).status_code == 200
        for _ in range(2):
            assert problem_of(await wire.finalize(order, der)) == (403, "orderNotReady")
        assert len(scene.store.find("certificate")) == 1


# --- orders that come to nothing ---


class Refusing:
    async def validate(self, identifier: str, identifier_type: str, token: str, key_authorization: str) -> bool:
        return False


async def test_a_refused_authorization_makes_its_order_invalid(stage: Stage) -> None:
    """It left its order pending for ever. RFC 8555 §7.1.6: the order is `invalid`, with the error."""
    async with stage(challenge_validator=Refusing()) as scene:
        wire = await scene.account()
        ordered = await wire.order("a.internal", "b.internal")
        order = ordered.json()
        challenge = (await wire.post(order["authorizations"][1])).json()["challenges"][0]
        answered = (await wire.post(challenge["url"], {})).json()
        assert answered["status"] == "invalid"
        assert answered["error"]["type"] == "urn:ietf:params:acme:error:incorrectResponse"
        look = (await wire.post(ordered.headers["location"])).json()
        assert (look["status"], look["error"]) == ("invalid", answered["error"])
        assert problem_of(await wire.finalize(order)) == (403, "orderNotReady")
        authorization = (await wire.post(order["authorizations"][1])).json()
        assert authorization["status"] == "invalid"
        # RFC 8555 §7.1.4: "For invalid authorizations, the challenge that was attempted and failed."
        assert [each["type"] for each in authorization["challenges"]] == [challenge["type"]]


@pytest.mark.parametrize("arguments", [{"auto_approve": True}, {}], ids=["valid", "pending"])
async def test_a_deactivated_authorization_makes_its_order_invalid(stage: Stage, arguments: dict[str, Any]) -> None:
    async with stage(**arguments) as scene:
        wire = await scene.account()
        ordered = await wire.order("a.internal", "b.internal")
        url = ordered.json()["authorizations"][1]
        assert (await wire.post(url, {"status": "deactivated"})).json()["status"] == "deactivated"
        assert (await wire.post(ordered.headers["location"])).json()["status"] == "invalid"
        assert problem_of(await wire.finalize(ordered.json())) == (403, "orderNotReady")


async def test_an_order_expires(stage: Stage) -> None:
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        ordered = await wire.order("a.internal")
        scene.clock.forward(days=1)
        wire.nonce = None
        assert (await wire.post(ordered.headers["location"])).json()["status"] == "invalid"
        assert problem_of(await wire.finalize(ordered.json())) == (403, "orderNotReady")
        scene.store.prune(scene.clock())
        assert problem_of(await wire.post(ordered.headers["location"])) == (404, "malformed")


async def test_a_finished_order_stays_as_long_as_its_certificate(stage: Stage) -> None:
    """Lesson 24."""
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        ordered = await wire.order("a.internal")
        finalized = (await wire.finalize(ordered.json())).json()
        scene.clock.forward(days=7)
        scene.store.prune(scene.clock())
        wire.nonce = None
        assert (await wire.post(ordered.headers["location"])).json() == finalized
        assert (await wire.post(finalized["certificate"])).status_code == 200
        scene.clock.forward(days=2)
        scene.store.prune(scene.clock())
        wire.nonce = None
        assert problem_of(await wire.post(finalized["certificate"])) == (404, "malformed")


class BrokenKey(ec.EllipticCurvePrivateKey):
    """An HSM that has lost its token."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key

    def sign(self, data: Any, signature_algorithm: Any) -> bytes:
        raise RuntimeError("the secret PIN is 1234")

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._key.public_key()

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._key.curve

    @property
    def key_size(self) -> int:
        return self._key.key_size

    def exchange(self, *arguments: Any) -> bytes:
        raise NotImplementedError

    def private_numbers(self) -> ec.EllipticCurvePrivateNumbers:
        raise NotImplementedError

    def private_bytes(self, *arguments: Any) -> bytes:
        raise NotImplementedError

    def __copy__(self) -> "BrokenKey":
        return self

    def __deepcopy__(self, memo: object) -> "BrokenKey":
        return self


async def test_signing_that_fails_makes_the_order_invalid(stage: Stage) -> None:
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        ordered = await wire.order("a.internal")
        sound = scene.ca.issuer
        assert isinstance(sound.key, ec.EllipticCurvePrivateKey)
        scene.ca._issuer = dataclasses.replace(sound, key=BrokenKey(sound.key))
        failed = await wire.finalize(ordered.json())
        assert (failed.status_code, failed.json()["status"]) == (200, "invalid")
        assert failed.json()["error"]["type"] == "urn:ietf:params:acme:error:serverInternal"
        assert "1234" not in failed.text
        scene.ca._issuer = sound
        assert (await wire.post(ordered.headers["location"])).json() == failed.json()
        assert problem_of(await wire.finalize(ordered.json())) == (403, "orderNotReady")
        assert (await wire.issue("a.internal")).startswith(b"-----BEGIN")


# --- cut short ---


class CutShort(MemoryStore):
    """A store whose machine dies when a signed certificate is about to be stored."""

    dying = False

    def commit(self, *records: Record, unchanged: Sequence[Record] = (), durable: bool = True) -> None:
        if self.dying and any(record.kind == "certificate" and record.version > 0 for record in records):
            raise StoreError("the power is out")
        super().commit(*records, unchanged=unchanged, durable=durable)


@pytest.fixture
async def cut_short(stage: Stage) -> Any:
    """An order whose certificate was signed, and the signature lost: its scene, client, and order."""
    async with stage(store=CutShort(), auto_approve=True) as scene:
        assert isinstance(scene.store, CutShort)
        wire = await scene.account()
        ordered = await wire.order("a.internal")
        scene.store.dying = True
        assert problem_of(await wire.finalize(ordered.json())) == (503, "serverInternal")
        scene.store.dying = False
        yield scene, wire, ordered


CutOff = tuple[Scene, Wire, httpx.Response]


def prepared(scene: Scene) -> Mapping[str, Any]:
    (record,) = scene.store.find("certificate")
    document: dict[str, Any] = json.loads(record.body)
    return document


async def test_an_order_cut_short_says_so_while_somebody_may_still_be_at_it(cut_short: CutOff) -> None:
    scene, wire, ordered = cut_short
    assert prepared(scene)["status"] == "prepared"
    look = await wire.post(ordered.headers["location"])
    assert look.json()["status"] == "processing"
    assert int(look.headers["retry-after"]) > 0
    assert "certificate" not in look.json()
    assert problem_of(await wire.finalize(ordered.json())) == (403, "orderNotReady")


async def test_an_order_cut_short_is_finished_by_whoever_asks_later(cut_short: CutOff) -> None:
    """Lesson 19: with the serial and the to-be-signed bytes that were on record before the signature."""
    scene, wire, ordered = cut_short
    before = prepared(scene)
    scene.clock.forward(seconds=10)
    async with scene.at(replica(scene)) as http:
        finished = await Wire(http, BASE, wire.key, wire.kid).post(ordered.headers["location"])
    assert finished.json()["status"] == "valid"
    leaf = leaf_of((await wire.post(finished.json()["certificate"])).content)
    assert f"{leaf.serial_number:x}" == before["serial"]
    assert to_base64url(leaf.tbs_certificate_bytes) == base64url_of(before["tbs"])
    assert len(scene.store.find("certificate")) == 1


def base64url_of(text: str) -> str:
    return text.rstrip("=").replace("+", "-").replace("/", "_")


async def test_an_order_cut_short_is_finished_once_however_many_ask(cut_short: CutOff) -> None:
    scene, wire, ordered = cut_short
    scene.clock.forward(seconds=10)
    async with scene.at(replica(scene)) as http:
        clients = [Wire(client, BASE, wire.key, wire.kid) for client in (scene.http, http) for _ in range(10)]
        looks = await asyncio.gather(*[client.post(ordered.headers["location"]) for client in clients])
    assert {look.status_code for look in looks} == {200}
    assert {look.json()["status"] for look in looks} <= {"processing", "valid"}
    finished = (await wire.post(ordered.headers["location"])).json()
    assert finished["status"] == "valid"
    der = der_of((await wire.post(finished["certificate"])).content)
    assert base64url_of(prepared(scene)["der"]) == der


async def test_an_order_cut_short_again_and_again_keeps_its_serial(cut_short: CutOff) -> None:
    scene, wire, ordered = cut_short
    assert isinstance(scene.store, CutShort)
    before = prepared(scene)
    for _ in range(3):
        scene.clock.forward(seconds=10)
        scene.store.dying = True
        assert problem_of(await wire.post(ordered.headers["location"])) == (503, "serverInternal")
        scene.store.dying = False
        assert (await wire.post(ordered.headers["location"])).json()["status"] == "processing"
        assert prepared(scene) == before
    # It is no trap: days later, past the order's own expiry, it is finished all the same.
    scene.clock.forward(days=2)
    scene.store.prune(scene.clock())
    wire.nonce = None
    assert (await wire.post(ordered.headers["location"])).json()["status"] == "valid"
    assert prepared(scene)["serial"] == before["serial"]


class Overtaken(MemoryStore):
    """A store in which somebody else finishes the signing first."""

    overtake: Callable[[], None] | None = None

    def commit(self, *records: Record, unchanged: Sequence[Record] = (), durable: bool = True) -> None:
        if self.overtake and any(record.kind == "certificate" and record.version > 0 for record in records):
            overtake, self.overtake = self.overtake, None
            overtake()
        super().commit(*records, unchanged=unchanged, durable=durable)


async def test_who_is_overtaken_answers_with_what_the_other_one_made(stage: Stage) -> None:
    """Lesson 19: two signatures over the same bytes, and one of them is the certificate."""
    async with stage(store=Overtaken(), auto_approve=True) as scene:
        assert isinstance(scene.store, Overtaken)
        wire = await scene.account()
        ordered = await wire.order("a.internal")

        def overtake() -> None:
            (order,), (certificate,) = scene.store.find("order"), scene.store.find("certificate")
            signed = scene.ca.sign(Certificate.from_record(certificate))
            scene.store.commit(Order.from_record(order).issued().to_record(), signed.to_record())

        scene.store.overtake = overtake
        finalized = await wire.finalize(ordered.json())
        assert (finalized.status_code, finalized.json()["status"]) == (200, "valid")
        chain = (await wire.post(finalized.json()["certificate"])).content
        assert der_of(chain) == base64url_of(prepared(scene)["der"])


# --- how many may be open ---


async def test_so_many_orders_may_be_open_and_no_more(stage: Stage) -> None:
    """A looping client cannot fill the disk; it is told when to come back."""
    async with stage(auto_approve=True, limits=Limits(open_orders=3)) as scene:
        wire, other = await scene.account(), await scene.account()
        orders = [(await wire.order(f"a{number}.internal")).json() for number in range(3)]
        refused = await wire.order("b.internal")
        assert problem_of(refused) == (429, "rateLimited")
        assert int(refused.headers["retry-after"]) > 0
        assert (await other.order("b.internal")).status_code == 201
        # One that is finished makes room for another.
        assert (await wire.finalize(orders[0])).status_code == 200
        assert problem_of(await wire.order("b.internal")) == (429, "rateLimited")  # for a second nobody counts again
        scene.clock.forward(seconds=1)
        assert (await wire.order("b.internal")).status_code == 201
        assert problem_of(await wire.order("c.internal")) == (429, "rateLimited")


async def test_orders_that_have_expired_take_no_room(stage: Stage) -> None:
    """Also before they are pruned: who is refused brings no pruning on."""
    limits = Limits(open_orders=3, pending_authorizations=3)
    async with stage(limits=limits) as scene:
        wire = await scene.account()
        for number in range(3):
            assert (await wire.order(f"a{number}.internal")).status_code == 201
        assert problem_of(await wire.order("b.internal")) == (429, "rateLimited")
        scene.clock.forward(days=1)
        wire.nonce = None
        assert (await wire.order("b.internal")).status_code == 201


async def test_so_many_authorizations_may_be_pending_and_no_more(stage: Stage) -> None:
    async with stage(limits=Limits(pending_authorizations=4)) as scene:
        wire = await scene.account()
        ordered = await wire.order("a.internal", "b.internal", "c.internal", "d.internal")
        assert ordered.status_code == 201
        refused = await wire.order("e.internal")
        assert problem_of(refused) == (429, "rateLimited")
        assert int(refused.headers["retry-after"]) > 0
        await wire.post(ordered.json()["authorizations"][0], {"status": "deactivated"})
        scene.clock.forward(seconds=1)
        assert (await wire.order("e.internal")).status_code == 201


async def test_a_large_order_is_no_way_over_a_ceiling(stage: Stage) -> None:
    async with stage(limits=Limits(pending_authorizations=10)) as scene:
        wire = await scene.account()
        names = [f"a{number}.internal" for number in range(12)]
        assert (await wire.order(*names[:9])).status_code == 201
        refused = await wire.order(*names[10:])
        assert problem_of(refused) == (429, "rateLimited")
        assert refused.json()["detail"].startswith("9 authorizations of this account are pending; ")
        assert (await wire.order(names[9])).status_code == 201, "for one there is room"
        assert problem_of(await wire.order(names[10])) == (429, "rateLimited")
        assert len(scene.store.find("authorization", limit=100)) == 10


async def test_a_ceiling_is_one_for_large_orders_too(stage: Stage) -> None:
    """It is not the orders that are counted there."""
    async with stage(limits=Limits(pending_authorizations=40)) as scene:
        wire = await scene.account()
        answers = [await wire.order(*[f"a{n}.b{m}.internal" for n in range(20)]) for m in range(10)]
        assert [answer.status_code for answer in answers].count(201) == 2
        assert {problem_of(answer) for answer in answers[2:]} == {(429, "rateLimited")}
