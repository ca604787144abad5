"""What somebody would try who wants a name that the rules deny: other spellings, wildcards, addresses in every form.

The rules trust everything else inside, so whatever is let through would be certified at once.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.scene import Player
from tests.fuzz.scene import Scene as SynchronousScene
from tests.server.conftest import Scene, Stage
from tests.wire import csr

from privet.acme.identifiers import BadIdentifier, Identifier, from_json
from privet.server.names import Names
from privet.server.records import Authorization, Kind, Order
from privet.server.rules import Rules

pytestmark = pytest.mark.anyio

DENIED = ("vault.internal", "**.hsm.internal", "10.66.0.0/16", "fd00:66::/32")
RULES = f"""
[[rule]]
name = "crown jewels"
deny = {list(DENIED)}

[[rule]]
name = "rest"
trust = ["**.internal", "10.0.0.0/8", "fd00::/8"]
wildcard = true
"""

ATTACKS: dict[str, Any] = {
    # the name itself, otherwise written
    "as it is": ("dns", "vault.internal"),
    "in upper case": ("dns", "VAULT.INTERNAL"),
    "in mixed case": ("dns", "vAuLt.InTeRnAl"),
    "with a dot behind": ("dns", "vault.internal."),
    "with two dots behind": ("dns", "vault.internal.."),
    "with a dot in front": ("dns", ".vault.internal"),
    "with two dots inside": ("dns", "vault..internal"),
    "with a NUL behind": ("dns", "vault.internal\0"),
    "with a NUL and more": ("dns", "vault.internal\0.web.internal"),
    "with a space in front": ("dns", " vault.internal"),
    "with a space behind": ("dns", "vault.internal "),
    "with a line feed": ("dns", "vault.internal\n"),
    "with a tab": ("dns", "vault\t.internal"),
    "with an escaped dot": ("dns", "vault\\.internal"),
    "with a decimal escape": ("dns", "\\118ault.internal"),
    "percent-encoded": ("dns", "vault%2einternal"),
    "with a full stop of another script": ("dns", "vault\u3002internal"),
    "in full-width letters": ("dns", "\uff56ault.internal"),
    "with a soft hyphen": ("dns", "va\xadult.internal"),
    "with a zero-width space": ("dns", "vault\u200b.internal"),
    "in punycode that stands for itself": ("dns", "xn--vault-.internal"),
    "in punycode that is none": ("dns", "xn--vault.internal"),
    "with a port": ("dns", "vault.internal:443"),
    "with a user": ("dns", "web@vault.internal"),
    "with a path": ("dns", "vault.internal/web.internal"),
    "as a URL": ("dns", "https://vault.internal"),
    "with half a surrogate": ("dns", "vault.internal\ud800"),
    "as a list": ("dns", ["vault.internal"]),
    "as an object": ("dns", {"value": "vault.internal"}),
    "of a type in capitals": ("DNS", "vault.internal"),
    "of a type with a space": ("dns ", "vault.internal"),
    "of no type": (None, "vault.internal"),
    "of the type of addresses": ("ip", "vault.internal"),
    "as an e-mail address": ("email", "vault@vault.internal"),
    # names below, and wildcards
    "below": ("dns", "a.hsm.internal"),
    "far below": ("dns", f"{'a.' * 100}hsm.internal"),
    "below, in upper case": ("dns", "A.B.HSM.INTERNAL"),
    "too long": ("dns", f"{'a.' * 130}hsm.internal"),
    "a label too long": ("dns", f"{'a' * 64}.hsm.internal"),
    "the wildcard beside": ("dns", "*.internal"),
    "the wildcard beside, in capitals": ("dns", "*.Internal"),
    "the wildcard below": ("dns", "*.hsm.internal"),
    "a wildcard far below": ("dns", "*.a.b.hsm.internal"),
    "two stars": ("dns", "*.*.internal"),
    "a double star": ("dns", "**.internal"),
    "a star within": ("dns", "v*.internal"),
    "a star behind": ("dns", "vault.*"),
    "a question mark": ("dns", "vaul?.internal"),
    "a star without a dot": ("dns", "*vault.internal"),
    "a star alone": ("dns", "*"),
    "a pattern of a regular expression": ("dns", "va.lt[.]internal"),
    # addresses
    "an address": ("ip", "10.66.0.1"),
    "an address as a name": ("dns", "10.66.0.1"),
    "an address as a wildcard": ("dns", "*.66.0.1"),
    "an address with zeros in front": ("ip", "010.066.000.001"),
    "a short address": ("ip", "10.66.1"),
    "a short address as a name": ("dns", "10.66.1"),
    "an address as a number": ("ip", "171048961"),
    "an address as a number and a name": ("dns", "171048961"),
    "an address in hexadecimal": ("dns", "0xa.0x42.0x0.0x1"),
    "an address in octal": ("dns", "012.0102.0.01"),
    "an address with a mask": ("ip", "10.66.0.1/32"),
    "an IPv4-mapped address": ("ip", "::ffff:10.66.0.1"),
    "an IPv4-mapped address in hexadecimal": ("ip", "::ffff:a42:1"),
    "an IPv6 address": ("ip", "fd00:66::1"),
    "an IPv6 address in capitals": ("ip", "FD00:66::1"),
    "an IPv6 address in full": ("ip", "fd00:0066:0:0:0:0:0:1"),
    "an IPv6 address in brackets": ("ip", "[fd00:66::1]"),
    "an IPv6 address with a scope": ("ip", "fd00:66::1%eth0"),
    "an IPv6 address that ends like an IPv4 one": ("ip", "fd00:66::10.0.0.1"),
    "a reverse name": ("dns", "1.0.66.10.in-addr.arpa"),
    "in digits of another script": ("ip", "\u0661\u0660.66.0.1"),
}


def granted(scene: Scene | SynchronousScene) -> set[Identifier]:
    """All that anybody was given an order or an authorization for."""
    orders = map(Order.from_record, scene.store.find(Kind.ORDER, limit=10_000))
    authorizations = map(Authorization.from_record, scene.store.find(Kind.AUTHORIZATION, limit=10_000))
    return {each for order in orders for each in order.identifiers} | {each.identifier for each in authorizations}


@pytest.fixture
async def scene(stage: Stage) -> AsyncIterator[Scene]:
    async with stage(policy=Rules.from_toml(RULES)) as scene:
        yield scene


@pytest.mark.parametrize(("type", "value"), ATTACKS.values(), ids=ATTACKS)
async def test_what_is_denied_is_not_to_be_had(scene: Scene, type: object, value: object) -> None:
    wire = await scene.account()
    good, bad = {"type": "dns", "value": "web.internal"}, {"type": type, "value": value}
    for identifiers in ([bad], [good, bad], [bad, good]):
        refused = await wire.post("new-order", {"identifiers": identifiers})
        assert 400 <= refused.status_code < 500, refused.text
    assert 400 <= (await wire.post("new-authz", {"identifier": bad})).status_code < 500
    assert granted(scene) == set()
    assert (await wire.post("new-order", {"identifiers": [good]})).json()["status"] == "ready"


async def test_a_certificate_names_nothing_that_was_not_ordered(scene: Scene) -> None:
    wire = await scene.account()
    order = (await wire.order("web.internal")).json()
    for names in (["vault.internal"], ["web.internal", "vault.internal"], ["*.internal"], ["10.66.0.1"]):
        refused = await wire.finalize(order, csr(*names))
        assert (refused.status_code, refused.json()["type"].rpartition(":")[2]) == (400, "badCSR")
    assert (await wire.finalize(order)).json()["status"] == "valid"
    (certificate,) = scene.ca.certificates()
    assert [str(each) for each in certificate.identifiers] == ["web.internal"]


async def test_a_hundred_good_names_hide_no_bad_one(scene: Scene) -> None:
    wire = await scene.account()
    refused = await wire.order(*(f"web-{number}.internal" for number in range(99)), "vault.internal")
    assert [each["identifier"]["value"] for each in refused.json()["subproblems"]] == ["vault.internal"]
    assert granted(scene) == set()


LETTERS = "vaultVAULThsminternal.*-_ \0\u3002\uff56\u212a\u0131xn0123456789:%/\\"


@settings(deadline=None, max_examples=150)
@given(
    type=st.sampled_from(["dns", "ip"]),
    value=st.text(LETTERS, max_size=30)
    | st.text(LETTERS, max_size=12).map(lambda text: f"{text}vault.internal")
    | st.text(LETTERS, max_size=12).map(lambda text: f"{text}.hsm.internal")
    | st.text(LETTERS, max_size=12).map(lambda text: f"vault.internal{text}")
    | st.ip_addresses().map(str),
)
def test_whatever_is_granted_is_not_denied(type: str, value: str) -> None:
    with SynchronousScene(policy=Rules.from_toml(RULES)) as scene:
        player = Player(scene)
        player.register()
        answer = player.post("/new-order", {"identifiers": [{"type": type, "value": value}]})
        denied = Names(DENIED)
        assert not any(denied.touch(each) for each in granted(scene))
        if answer.status == 201:
            assert granted(scene) == {from_json(type, value)}
            return
        try:
            identifier = from_json(type, value)
        except BadIdentifier:
            return
        assert denied.touch(identifier) or not Names(["**.internal", "10.0.0.0/8", "fd00::/8"]).cover(identifier)
