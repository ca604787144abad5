"""External account bindings (RFC 8555 §7.3.4): whatever is sent for one, an account is opened by a good one alone, and
each use is counted once."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.scene import BASE, Answer, Player, Scene
from tests.laws import documents, texts
from tests.wire import bind, jwk_of, new_key, sign

from privet.acme.encoding import from_base64url, to_base64url, to_json
from privet.server import external_accounts
from privet.server.external_accounts import ExternalAccountKey

often = settings(max_examples=150, deadline=None)
URL = f"{BASE}/new-account"


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Scene(auto_approve=True, external_account_required=True) as scene:
        yield scene


@pytest.fixture(scope="module")
def key(scene: Scene) -> tuple[ExternalAccountKey, bytes]:
    return external_accounts.create(scene.store, scene.ca, "team-a", scene.clock())


def opens(player: Player, binding: object) -> Answer:
    return player.post("/new-account", {"externalAccountBinding": binding})


def accounts(scene: Scene) -> int:
    return len(scene.store.find("account", limit=100_000))


@often
@given(
    st.dictionaries(
        st.sampled_from(["alg", "kid", "url", "nonce", "jwk", "crit", "b64"]),
        documents | texts | st.sampled_from(["HS256", "HS512", "none", "ES256", URL, {}]),
        max_size=3,
    ),
    documents.map(to_json) | st.binary(max_size=100),
    st.binary(max_size=64),
    st.dictionaries(
        st.sampled_from(["protected", "payload", "signature", "header", "signatures"]), documents, max_size=2
    ),
)
def test_anything_shaped_like_a_binding_has_an_answer_and_opens_nothing(
    scene: Scene,
    key: tuple[ExternalAccountKey, bytes],
    header: dict[str, object],
    payload: bytes,
    mac: bytes,
    changes: dict[str, object],
) -> None:
    protected = {"alg": "HS256", "kid": key[0].id, "url": URL} | header
    parts = {"protected": to_json(protected), "payload": payload, "signature": mac}
    before = accounts(scene)
    answer = opens(Player(scene), {name: to_base64url(part) for name, part in parts.items()} | changes)
    assert answer.status >= 400
    assert accounts(scene) == before


@often
@given(documents | st.lists(documents, max_size=2) | texts)
def test_anything_at_all_in_its_place_has_an_answer_and_opens_nothing(scene: Scene, binding: object) -> None:
    before = accounts(scene)
    assert opens(Player(scene), binding).status >= 400
    assert accounts(scene) == before


@often
@given(st.data())
def test_a_good_binding_bent_anywhere_opens_nothing(
    scene: Scene, key: tuple[ExternalAccountKey, bytes], data: st.DataObject
) -> None:
    player = Player(scene)
    binding = bind(key[0].id, key[1], URL, player.key)
    part = data.draw(st.sampled_from(["protected", "payload", "signature"]))
    content = bytearray(from_base64url(binding[part], part))
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    answer = opens(player, binding | {part: to_base64url(bytes(content))})
    assert answer.status in (400, 403)
    assert opens(player, binding).status == 201, "the good one is still good"


def test_what_does_not_make_a_binding(scene: Scene) -> None:
    """Attacks by somebody who has seen bindings of others, or has a key of another kind."""
    one, secret = external_accounts.create(scene.store, scene.ca, "one", scene.clock(), uses=1)
    other, another_secret = external_accounts.create(scene.store, scene.ca, "other", scene.clock())
    victim, thief = Player(scene), Player(scene)
    good = bind(one.id, secret, URL, victim.key)
    resigned = sign(thief.key, {"alg": "ES256", "kid": one.id, "url": URL}, jwk_of(thief.key))
    attacks: Mapping[str, Any] = {
        "another's, as it is": good,
        "another's, with one's own key": good | {"payload": to_base64url(to_json(jwk_of(thief.key)))},
        "another's, without its MAC": good | {"signature": ""},
        "another's, with half its MAC": good | {"signature": good["signature"][:20]},
        "for another resource": bind(one.id, secret, f"{BASE}/key-change", thief.key),
        "for another server": bind(one.id, secret, "https://ca.example/new-account", thief.key),
        "for the address of an account": bind(one.id, secret, f"{BASE}/acct/1", thief.key),
        "with another key's secret": bind(one.id, another_secret, URL, thief.key),
        "with the key's id for a secret": bind(one.id, one.id.encode(), URL, thief.key),
        "with no secret": bind(one.id, b"", URL, thief.key),
        "with the key in capitals": bind(one.id.upper(), secret, URL, thief.key),
        "with the key's name": bind(one.name, secret, URL, thief.key),
        "signed by the account itself": resigned,
        "unsigned": good | {"protected": to_base64url(to_json({"alg": "none", "kid": one.id, "url": URL}))},
        "with an unprotected header": good | {"header": {"kid": other.id}},
        "of several signatures": {"payload": good["payload"], "signatures": [good]},
        "as a text": json.dumps(good),
        "in a list": [good],
        "for a third key": bind(one.id, secret, URL, new_key()),
    }
    for attack, binding in attacks.items():
        assert opens(thief, binding).status in (400, 403), attack
    assert scene.store.get(one.kind, one.id).version == 1  # type: ignore[union-attr] # no use is counted
    assert opens(victim, good).status == 201
    assert opens(victim, good).status == 200, "who comes again is who it was, and uses nothing up"
    assert opens(thief, bind(one.id, secret, URL, thief.key)).status == 403, "it is used up"


def test_a_binding_is_no_second_account_after_the_first_was_given_up(scene: Scene) -> None:
    made, secret = external_accounts.create(scene.store, scene.ca, "once", scene.clock(), uses=2)
    player = Player(scene)
    binding = bind(made.id, secret, URL, player.key)
    player.kid = opens(player, binding).header("location")
    assert player.kid
    assert player.post(player.kid, {"status": "deactivated"}).status == 200
    player.kid = None
    assert opens(player, binding).status in (400, 401, 403)
    (found,) = [each for each in external_accounts.find_all(scene.store, scene.ca.name) if each.id == made.id]
    assert found.used == 1


def test_an_account_keeps_its_key_through_a_key_change_and_brings_it_to_nobody(scene: Scene) -> None:
    """Whoever changes the key of an account does not shed the limits of its external account key, nor pass them on."""
    made, secret = external_accounts.create(scene.store, scene.ca, "narrow", scene.clock(), allow=["*.a.internal"])
    player = Player(scene)
    player.kid = opens(player, bind(made.id, secret, URL, player.key)).header("location")
    successor, url = new_key(), f"{BASE}/key-change"
    inner = sign(
        successor,
        {"alg": "ES256", "url": url, "jwk": jwk_of(successor)},
        {"account": player.kid, "oldKey": jwk_of(player.key)},
    )
    assert player.post("/key-change", inner).status == 200
    old = player.key
    player.key = successor
    assert player.order("x.b.internal").status == 403
    assert player.order("x.a.internal").status == 201
    external_accounts.revoke(scene.store, made, scene.clock())
    assert player.order("y.a.internal").status == 403
    # The key that was given up is a stranger's again, who needs a binding.
    assert Player(scene, old).register().status == 403
