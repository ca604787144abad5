"""Any bytes, any JSON, anything signed, to any route: an answer below 500, and the responder lives on."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.scene import BASE, JOSE_JSON, Headers, Player, Scene
from tests.laws import documents, texts
from tests.wire import PrivateKey, algorithm_of, bind, csr, jwk_of, new_key, sign, thumbprint_of

from privet.acme.encoding import to_base64url, to_json
from privet.server.responder import RESOURCES

often = settings(max_examples=200, deadline=None)
sometimes = settings(max_examples=75, deadline=None)
one_mode = pytest.mark.parametrize("scene", ["approves"], indirect=True)  # where the mode makes no difference

ROUTES = ["directory", "new-nonce", "ca.pem", *(name for name in RESOURCES if name != "orders")]
KEYS: dict[str, PrivateKey] = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "RS256": rsa.generate_private_key(65537, 2048),
}

ids = (
    st.sampled_from(["", "0", "a" * 64, "a" * 65, "..", ".", "%2e", "%00", "x/orders", "x.http-01", "\0", "x/y", "X"])
    | texts
)
paths = (
    st.builds("/{}".format, st.sampled_from(ROUTES))
    | st.builds("/{}/{}".format, st.sampled_from(ROUTES), ids)
    | texts
    | st.sampled_from(
        ["", "/", "//directory", "/directory/", "/DIRECTORY", "/directory?x", "/acme/directory", "http://x/"]
    )
)
methods = (
    st.sampled_from(["POST", "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "post", ""])
    | texts
)
values = st.binary(max_size=40) | st.sampled_from(
    [
        b"application/jose+json",
        b"APPLICATION/JOSE+JSON; charset=utf-8",
        b"application/json",
        b";",
        b"*/*",
        b"application/pkix-cert",
        b"text/html;q=0",
        b"application/pem-certificate-chain;q=0.0,application/*;q=",
        b"chunked",
        b"0",
        b"-1",
        b"99999999999999999999",
        b"9" * 5000,
        b"0" * 5000 + b"1",
        "\u0661".encode(),
        b"a:b@c",
        b"ca.internal:99999999",
        b"[::1]:1",
    ]
)
names = st.sampled_from(
    [b"content-type", b"content-length", b"accept", b"host", b"transfer-encoding", b"user-agent", b"link"]
)
headers = st.lists(st.tuples(names | st.binary(max_size=10), values), max_size=6)
pieces = st.lists(st.binary(max_size=200), max_size=4)


@one_mode
@often
@given(
    methods, paths, pieces, headers, st.binary(max_size=40), st.sampled_from(["", "/acme", "/", "/new-order", "\u00e9"])
)
def test_any_request_has_an_answer(
    scene: Scene, method: str, path: str, body: list[bytes], headers: Headers, query: bytes, root_path: str
) -> None:
    scene.ask(method, path, body, headers, query, root_path)


@one_mode
@often
@given(paths, pieces | documents.map(lambda document: [to_json(document)]), headers)
def test_any_body_has_an_answer(scene: Scene, path: str, body: list[bytes], headers: Headers) -> None:
    scene.ask("POST", path, body, [JOSE_JSON, *headers])


@one_mode
@pytest.mark.parametrize("route", ROUTES)
def test_a_body_that_never_ends_is_cut_off(scene: Scene, route: str) -> None:
    """Lesson 16."""
    path = f"/{route}" if route not in RESOURCES or RESOURCES[route].names is None else f"/{route}/x"

    def endless() -> Any:
        for _ in range(65):
            yield b"[" * 1024

    answer = scene.ask("POST", path, endless(), [JOSE_JSON])
    assert answer.status == (405 if route == "ca.pem" else 413)


header_values = (
    texts | documents | st.sampled_from([BASE + "/new-order", BASE + "/acct/x", "ES256", "EdDSA", "HS256", "none"])
)
jwks = st.sampled_from([jwk_of(key) for key in KEYS.values()]) | documents
protected = st.dictionaries(
    st.sampled_from(["alg", "nonce", "url", "kid", "jwk", "crit"]) | texts, header_values | jwks
)


@one_mode
@often
@given(
    paths,
    protected.map(to_json) | documents.map(to_json) | st.binary(),
    documents.map(to_json) | st.binary(),
    st.binary(max_size=140),
    st.dictionaries(
        st.sampled_from(["protected", "payload", "signature", "header", "signatures"]), documents, max_size=2
    ),
    st.booleans(),
)
def test_anything_shaped_like_a_signed_message_has_an_answer(
    scene: Scene,
    path: str,
    protected: bytes,
    payload: bytes,
    signature: bytes,
    changes: dict[str, object],
    changed: bool,
) -> None:
    parts = {"protected": protected, "payload": payload, "signature": signature}
    message: dict[str, object] = {name: to_base64url(octets) for name, octets in parts.items()}
    answer = scene.ask("POST", path, to_json(message | changes if changed else message), [JOSE_JSON])
    assert answer.status >= 400 or "signature" not in message


likely = st.sampled_from(
    [
        {"type": "dns", "value": "a.internal"},
        {"type": "dns", "value": "*.a.internal"},
        {"type": "ip", "value": "10.0.0.1"},
        [{"type": "dns", "value": "a.internal"}],
        [{"type": "dns", "value": f"{n}.internal"} for n in range(101)],
        "mailto:a@example.org",
        ["mailto:a@example.org"],
        "deactivated",
        "valid",
        "revoked",
        True,
        1,
        10**100,
        "2026-03-01T12:30:00Z",
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00Z",
        to_base64url(csr("a.internal", key=KEYS["ES256"])),
        to_base64url(csr(key=KEYS["ES256"])),
        to_base64url(b"0" * 1000),
        bind("kid-1", b"secret", f"{BASE}/new-account", KEYS["ES256"]),
        bind("kid-2", b"secret", f"{BASE}/new-account", KEYS["ES256"]),
    ]
)
members = st.sampled_from(
    [
        "identifiers",
        "identifier",
        "contact",
        "status",
        "termsOfServiceAgreed",
        "onlyReturnExisting",
        "externalAccountBinding",
        "notBefore",
        "notAfter",
        "csr",
        "certificate",
        "reason",
        "protected",
        "payload",
        "signature",
    ]
)
payloads = (
    st.dictionaries(members | texts, likely | documents | st.lists(likely, max_size=3), max_size=5)
    | documents
    | st.none()
    | st.binary(max_size=30)
    | st.sampled_from(
        [b'{"a":1,"a":2}', b'{"a":' * 5000 + b"1" + b"}" * 5000, b'{"identifiers":[' + b"[" * 9000, b"\xff"]
    )
)


def places(player: Player) -> list[str]:
    """The path of everything an account has, and of every resource that has no id."""
    order = player.order("a.internal", "10.0.0.1")
    if order.problem == "rateLimited":  # so many examples that this account has had its share
        player.key, player.kid = new_key(), None
        player.register()
        order = player.order("a.internal", "10.0.0.1")
    document = order.document
    found = [order.header("location"), document["finalize"], *document["authorizations"]]
    authorization = player.post(document["authorizations"][0]).document
    found += [challenge["url"] for challenge in authorization["challenges"]]
    if document["status"] == "ready":
        final = player.post(document["finalize"], {"csr": to_base64url(csr("a.internal", "10.0.0.1"))}).document
        found.append(final["certificate"])
    found += [player.kid, f"{player.kid}/orders", f"{player.kid}/orders?after=x"]
    routes = [f"{BASE}/{name}" for name, resource in RESOURCES.items() if resource.names is None]
    return [each for each in found if each] + routes + [f"{BASE}/directory", f"{BASE}/new-nonce"]


@sometimes
@given(st.data(), payloads, st.sampled_from([(JOSE_JSON,), (JOSE_JSON, (b"accept", b"application/pkix-cert;q=1"))]))
def test_an_account_may_send_anything(scene: Scene, data: st.DataObject, payload: Any, headers: Headers) -> None:
    player = Player(scene, data.draw(st.sampled_from([*KEYS.values()])))
    if player.register().status != 200:  # the account of this key, if it still is one
        player = Player(scene)
        assert player.register().status in (200, 201)
    found = places(player)
    place = data.draw(st.sampled_from(found))
    player.post(place, payload, headers)
    player.post(place, None, headers)


@one_mode
@often
@given(st.sampled_from(["new-account", "revoke-cert"]), payloads, st.sampled_from([*KEYS.values()]))
def test_a_key_may_send_anything(scene: Scene, route: str, payload: Any, key: PrivateKey) -> None:
    Player(scene, key).post(f"{BASE}/{route}", payload)


@one_mode
@sometimes
@given(
    st.dictionaries(st.sampled_from(["account", "oldKey"]), documents | texts),
    st.dictionaries(st.sampled_from(["alg", "url", "jwk", "kid", "nonce"]), documents | jwks | texts, max_size=2),
    st.sampled_from([*KEYS.values()]),
    documents,
)
def test_a_key_change_may_be_about_anything(
    scene: Scene, changes: dict[str, object], bent: dict[str, object], another: PrivateKey, instead: object
) -> None:
    """§7.3.5, the one message inside another that comes from an account."""
    player = Player(scene)
    player.register()
    url = f"{BASE}/key-change"
    payload = {"account": player.kid, "oldKey": jwk_of(player.key)} | changes
    header = {"alg": algorithm_of(another), "url": url, "jwk": jwk_of(another)} | bent
    answer = player.post(url, sign(another, header, payload))
    assert answer.status >= 400 or not (changes or bent)
    player.post(url, sign(another, header, to_json(instead)))


@one_mode
@pytest.mark.parametrize("more", ["nested", "1e999", r'"\ud800"'])
def test_a_binding_may_hold_anything_besides(scene: Scene, more: str) -> None:
    """It is shown with the account (§7.1.2), at any depth that the parser lets in and beyond."""
    for depth in [*range(100, 900, 100), *range(900, 1000)] if more == "nested" else [0]:
        player = Player(scene)
        binding = bind("kid-1", b"secret", f"{BASE}/new-account", player.key)
        inside = "[" * depth + "]" * depth if depth else more
        body = json.dumps({"externalAccountBinding": binding})[:-2] + f', "more": {inside}}}}}'
        player.post("/new-account", body.encode())


@one_mode
@often
@given(st.data(), st.integers(0, 7))
def test_a_good_request_with_any_byte_changed_is_refused_or_the_same(
    scene: Scene, data: st.DataObject, bit: int
) -> None:
    player = Player(scene)
    player.register()
    message = sign(
        player.key, player.header(f"{BASE}/new-authz"), {"identifier": {"type": "dns", "value": "a.internal"}}
    )
    body = bytearray(json.dumps(message).encode())
    place = data.draw(st.integers(0, len(body) - 1))
    body[place] ^= 1 << bit
    answer = scene.ask("POST", "/new-authz", bytes(body), [JOSE_JSON])
    assert answer.status >= 400 or json.loads(body) == message


@one_mode
def test_an_account_is_named_by_its_url_and_by_nothing_else(scene: Scene) -> None:
    """Lesson 6: ids are compared whole."""
    player = Player(scene)
    player.register()
    account, key = player.kid, thumbprint_of(player.key)
    assert account
    assert player.post(account).status == 200
    id = account.rsplit("/", 1)[1]
    for kid in (
        id,
        key,
        account[:-1],
        account + "0",
        account + "/",
        account + "/orders",
        account + "?",
        account.upper(),
    ):
        assert player.post(account, kid=kid).problem == "accountDoesNotExist"
