"""Rules in TOML: who they let have what, how they are misunderstood, and how somebody would get around them."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from tests.server.conftest import Stage
from tests.server.test_policy import Convinced, shown
from tests.wire import csr, problem_of

from privet import Applicant, ClientCertificate, KeyType, Problem
from privet.acme.identifiers import from_text
from privet.server.rules import _KEYS, BadRules, Rules

pytestmark = pytest.mark.anyio

SOMEBODY = Applicant("somebody", (), None, "10.1.2.3")


def rules(text: str) -> Rules:
    return Rules.from_toml(text, "policy.toml")


def becomes(policy: Rules, name: str, applicant: Applicant = SOMEBODY, key_type: KeyType | None = None) -> str:
    """What becomes of a name, in a word or two."""
    (verdict,) = policy.judge(applicant, [from_text(name)], key_type)
    decision = verdict.decision.value if verdict.decision else "deny"
    return f"{decision} by {verdict.rule.name}" if verdict.rule else decision


def bound(name: str) -> Applicant:
    return replace(SOMEBODY, external_account="some-id", external_account_name=name)


def holding(*names: str, common_name: str | None = None) -> Applicant:
    return replace(SOMEBODY, client_certificate=ClientCertificate(common_name, names, "00", "CN=ours"))


def test_the_first_rule_that_fits_decides() -> None:
    policy = rules("""
        [[rule]]
        name = "secrets"
        deny = ["secret.internal"]

        [[rule]]
        name = "machines"
        trust = ["db-?.internal"]

        [[rule]]
        name = "careful"
        ask = ["*.bank.internal"]

        [[rule]]
        name = "rest"
        allow = ["*.internal", "*.bank.internal", "10.0.0.0/8"]

        [[rule]]
        name = "too late"
        deny = ["web.internal"]
    """)
    for name, expected in {
        "secret.internal": "deny by secrets",
        "db-1.internal": "trust by machines",
        "x.bank.internal": "ask by careful",
        "web.internal": "prove by rest",
        "10.1.1.1": "prove by rest",
        "11.1.1.1": "deny",
        "a.b.internal": "deny",
        "internal": "deny",
    }.items():
        assert becomes(policy, name) == expected


def test_who_asks_is_a_part_of_whether_a_rule_fits() -> None:
    policy = rules("""
        [[rule]]
        name = "by key"
        trust = ["*.internal"]
        external-key = ["team-a", "team-b"]

        [[rule]]
        name = "by certificate"
        trust = ["*.internal"]
        client-certificate = ["host-*.internal", "my_app"]

        [[rule]]
        name = "by network"
        trust = ["*.internal"]
        client = ["192.168.0.0/16", "fd00::/8", "172.16.0.9"]
    """)
    for applicant, expected in (
        (bound("team-a"), "trust by by key"),
        (bound("team-c"), "deny"),
        (replace(SOMEBODY, external_account="team-a"), "deny"),  # the id is not the name
        (holding("host-1.internal"), "trust by by certificate"),
        (holding("other.internal", "HOST-7.internal".lower()), "trust by by certificate"),
        (holding(common_name="My_App"), "trust by by certificate"),
        (holding("host-1.evil.internal", common_name="my_app2"), "deny"),
        (holding(), "deny"),
        (replace(SOMEBODY, client="192.168.7.7"), "trust by by network"),
        (replace(SOMEBODY, client="::ffff:192.168.7.7"), "trust by by network"),
        (replace(SOMEBODY, client="fd12::1"), "trust by by network"),
        (replace(SOMEBODY, client="172.16.0.9"), "trust by by network"),
        (replace(SOMEBODY, client="172.16.0.10"), "deny"),
        (replace(SOMEBODY, client="unknown"), "deny"),
        (replace(SOMEBODY, client=""), "deny"),
        (SOMEBODY, "deny"),
    ):
        assert becomes(policy, "web.internal", applicant) == expected


def test_all_conditions_of_a_rule_have_to_be_met() -> None:
    policy = rules("""
        [[rule]]
        name = "strict"
        allow = ["*.internal"]
        external-key = ["team-a"]
        client = ["10.0.0.0/8"]
        client-certificate = ["host.internal"]
    """)
    shown = ClientCertificate(None, ("host.internal",), "", "")
    whole = replace(bound("team-a"), client_certificate=shown)
    assert becomes(policy, "web.internal", whole) == "prove by strict"
    for lacking in (
        replace(whole, external_account_name=None),
        replace(whole, client="11.0.0.1"),
        replace(whole, client_certificate=None),
    ):
        assert becomes(policy, "web.internal", lacking) == "deny"


WILDCARDS = """
    [[rule]]
    name = "secrets"
    deny = ["secret.a.internal", "**.hsm.internal"]

    [[rule]]
    name = "four eyes"
    ask = ["pay.b.internal"]

    [[rule]]
    name = "four eyes for all"
    ask = ["pay.c.internal"]
    wildcard = true

    [[rule]]
    name = "no wildcards"
    allow = ["*.plain.internal"]

    [[rule]]
    name = "wildcards"
    trust = ["**.internal"]
    wildcard = true
"""


def test_a_wildcard_is_no_way_around_what_is_denied_or_asked_about() -> None:
    policy = rules(WILDCARDS)
    for name, expected in {
        "*.a.internal": "deny by secrets",
        "*.A.Internal": "deny by secrets",
        "*.hsm.internal": "deny by secrets",
        "*.x.hsm.internal": "deny by secrets",
        "*.b.internal": "deny by four eyes",  # which allows no wildcards
        "*.c.internal": "ask by four eyes for all",
        "*.plain.internal": "deny by no wildcards",
        "*.internal": "trust by wildcards",
        "*.d.internal": "trust by wildcards",
        "b.a.internal": "trust by wildcards",
    }.items():
        assert becomes(policy, name) == expected


def test_a_wildcard_has_to_be_covered_by_what_allows_it() -> None:
    policy = rules("""
        [[rule]]
        name = "some"
        allow = ["web.internal", "db-*.internal", "?.internal", "*.a.internal"]
        wildcard = true
    """)
    for name in ("*.internal", "*.web.internal", "*.b.a.internal", "*.db-1.internal"):
        assert becomes(policy, name) == "deny"
    assert becomes(policy, "*.a.internal") == "prove by some"


def test_whose_address_is_unknown_is_in_every_network_that_is_kept_out_and_in_none_that_is_let_in() -> None:
    policy = rules("""
        [[rule]]
        name = "guests"
        deny = ["**", "0.0.0.0/0", "::/0"]
        client = ["10.66.0.0/16"]

        [[rule]]
        name = "rest"
        trust = ["**"]
    """)
    for client, expected in {
        "10.66.1.1": "deny by guests",
        "::ffff:10.66.1.1": "deny by guests",
        "::ffff:a42:101": "deny by guests",
        "": "deny by guests",
        "unknown": "deny by guests",
        "10.66.1.1:4711": "deny by guests",
        "10.65.1.1": "trust by rest",
        "2002:a42:101::1": "trust by rest",
    }.items():
        assert becomes(policy, "web.internal", replace(SOMEBODY, client=client)) == expected


def test_names_are_compared_as_what_they_are_and_not_as_they_are_written() -> None:
    policy = rules("""
        [[rule]]
        name = "secrets"
        deny = ["GEHEIM.Bücher.internal"]

        [[rule]]
        name = "rest"
        allow = ["**.internal"]
    """)
    for name in ("geheim.bücher.internal", "Geheim.BÜCHER.Internal", "geheim.xn--bcher-kva.internal"):
        assert becomes(policy, name) == "deny by secrets"
    # Letters that only look alike are another name, which the rule does not mean.
    assert becomes(policy, "geheim.b\u0446cher.internal") == "prove by rest"


def test_what_a_rule_says_besides_is_a_condition_and_not_handed_on() -> None:
    policy = rules("""
        [[rule]]
        name = "strict"
        allow = ["*.internal"]
        key-types = ["P-256", "Ed25519"]
        max-lifetime = "12h"
        max-names = 2

        [[rule]]
        name = "lax"
        trust = ["**"]
    """)
    (name, other, third) = map(from_text, ("a.internal", "b.internal", "c.other"))
    assert becomes(policy, "a.internal", key_type=KeyType.ED25519) == "prove by strict"
    assert becomes(policy, "a.internal", key_type=KeyType.RSA2048) == "deny by strict"
    hours = [
        replace(SOMEBODY, lifetime=timedelta(hours=12)),
        replace(SOMEBODY, lifetime=timedelta(hours=12, seconds=1)),
    ]
    assert [becomes(policy, "a.internal", each) for each in hours] == ["prove by strict", "deny by strict"]
    many = [each.decision for each in policy.judge(SOMEBODY, [name, other, third])]
    assert many[:2] == [None, None]
    assert many[2] is not None
    assert policy.allow_certificate(SOMEBODY, [name, other], KeyType.P256) == timedelta(hours=12)
    assert policy.allow_certificate(SOMEBODY, [third], KeyType.RSA2048) is None


def test_an_account_is_for_those_who_may_have_something() -> None:
    by_key = '[[rule]]\nname = "a"\nallow = ["**"]\nexternal-key = ["team-a"]\n'
    by_net = '[[rule]]\nname = "b"\ntrust = ["**"]\nclient = ["192.168.0.0/16"]\n'
    nobody = '[[rule]]\nname = "c"\ndeny = ["**"]\n'
    for text, applicant, refused in (
        (by_key, bound("team-a"), None),
        (by_key, bound("team-b"), "unauthorized"),
        (by_key, SOMEBODY, "externalAccountRequired"),
        (by_net, SOMEBODY, "unauthorized"),
        (by_net, replace(SOMEBODY, client="192.168.1.1"), None),
        (by_net, replace(SOMEBODY, client=""), "unauthorized"),
        (nobody, SOMEBODY, "unauthorized"),
        (nobody + by_net, SOMEBODY, "unauthorized"),
    ):
        if refused is None:
            rules(text).allow_account(applicant)
            continue
        with pytest.raises(Problem) as raised:
            rules(text).allow_account(applicant)
        assert raised.value.type.value[0] == refused


async def test_rules_on_a_server(stage: Stage) -> None:
    """All that is refused is named, what is trusted is born valid, what is asked waits, and the rest is proved."""
    policy = rules(WILDCARDS)
    async with stage(policy=policy, challenge_validator=Convinced()) as scene:
        wire = await scene.account()
        refused = await wire.order("*.a.internal", "x.internal", "web.example")
        assert problem_of(refused) == (403, "rejectedIdentifier")
        assert {each["identifier"]["value"]: each["detail"] for each in refused.json()["subproblems"]} == {
            "*.a.internal": "*.a.internal is denied by the rule 'secrets'",
            "web.example": "web.example is allowed by no rule",
        }
        ordered = await wire.order("x.internal", "pay.b.internal", "a.plain.internal")
        looks = [(await wire.post(url)).json() for url in ordered.json()["authorizations"]]
        assert [look["status"] for look in looks] == ["valid", "pending", "pending"]
        ahead = {"identifier": {"type": "dns", "value": "y.internal"}}
        assert (await wire.post("new-authz", ahead)).json()["status"] == "valid"
        ahead = {"identifier": {"type": "dns", "value": "secret.a.internal"}}
        assert problem_of(await wire.post("new-authz", ahead)) == (403, "rejectedIdentifier")


async def test_the_key_and_the_lifetime_are_judged_on_a_server(stage: Stage) -> None:
    policy = rules("""
        [[rule]]
        name = "strict"
        trust = ["*.internal"]
        key-types = ["Ed25519"]
        max-lifetime = "6h"
    """)
    async with stage(policy=policy) as scene:
        wire = await scene.account()
        late = (scene.clock.time + timedelta(hours=7)).isoformat()
        assert problem_of(await wire.order("a.internal", notAfter=late)) == (403, "rejectedIdentifier")
        order = (await wire.order("a.internal")).json()
        refused = await wire.finalize(order)
        assert problem_of(refused) == (400, "badCSR")
        assert refused.json()["detail"] == (
            "a.internal is allowed by the rule 'strict' for keys of type Ed25519, not P-256"
        )
        assert (await wire.finalize(order, csr("a.internal", key=Ed25519PrivateKey.generate()))).json()[
            "status"
        ] == "valid"
        (certificate,) = scene.ca.certificates()
        assert certificate.not_after - certificate.not_before == timedelta(hours=6)


async def test_who_finalizes_is_judged_again(stage: Stage) -> None:
    """An order made over one connection is not finished over another that the rule is not for."""
    policy = rules("""
        [[rule]]
        name = "hosts"
        trust = ["web.internal"]
        client-certificate = ["host.internal"]

        [[rule]]
        name = "anybody"
        allow = ["other.internal"]
    """)
    async with stage(policy=policy) as scene:
        pem = scene.ca.issue("host.internal", client=True).cert_pem.decode()
        wire = shown(scene, {"tls": {"client_cert_chain": [pem]}})
        assert (await wire.register()).status_code == 201
        order = (await wire.order("web.internal")).json()
        assert order["status"] == "ready"
        without = scene.stranger()
        without.key, without.kid = wire.key, wire.kid
        assert problem_of(await without.finalize(order)) == (403, "rejectedIdentifier")
        assert (await wire.finalize(order)).json()["status"] == "valid"
        await wire.http.aclose()


# --- mistakes ---


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("rule = ", ["policy.toml is not TOML: Invalid value (at end of document)"]),
        ("", ["policy.toml has no [[rule]], so that nobody would get anything"]),
        ("rule = []", ["policy.toml has no [[rule]], so that nobody would get anything"]),
        ("[rule]\nname = 'a'", ["rule in policy.toml has to be written as [[rule]], with two brackets"]),
        ("rule = [1]", ["rule in policy.toml has to be written as [[rule]], with two brackets"]),
        (
            "[[rules]]\nname = 'a'",
            [
                "'rules' in policy.toml means nothing there; it is a list of [[rule]]",
                "policy.toml has no [[rule]], so that nobody would get anything",
            ],
        ),
        ("[[rule]]\nallow = ['a']", ["rule 1 in policy.toml needs a name, for messages and records to call it by"]),
        (
            "[[rule]]\nname = 'a'\nalow = ['a']",
            [
                "rule 1 (a) in policy.toml has 'alow', which means nothing; did you mean allow?",
                "rule 1 (a) in policy.toml needs one of allow, trust, ask, deny, and has none",
            ],
        ),
        (
            "[[rule]]\nname = 'a'\nallow = ['a']\ntrust = ['b']",
            ["rule 1 (a) in policy.toml needs one of allow, trust, ask, deny, and has allow and trust"],
        ),
        (
            "[[rule]]\nname = 'a'\nallow = ['a']\n[[rule]]\nname = 'a'\nallow = ['b']",
            ["rule 2 (a) in policy.toml has the name of another rule"],
        ),
        (
            "[[rule]]\nname = 'a'\ndeny = ['a']\nwildcard = true",
            ["rule 1 (a) in policy.toml has wildcard, which means nothing where everything is denied"],
        ),
        (
            "[[rule]]\nname = 'a'\nallow = ['a']\nreason = 'b'",
            ["rule 1 (a) in policy.toml has a reason, which is for rules that deny"],
        ),
        (
            "[[rule]]\nname = 'a'\nallow = ['b..c']",
            [
                "rule 1 (a) in policy.toml has allow, which has a name that is none: 'b..c' is not a valid DNS name: "
                "it has an empty label"
            ],
        ),
        (
            "[[rule]]\nname = 'a'\nallow = ['b', '*', 'c', 'd.**']\nclient = ['10.0.0.1/8']",
            [
                "rule 1 (a) in policy.toml has allow, which has a name that is none: '*' alone is a single label; "
                "write ** for every name, or ?* for every name without a dot; 'd.**' has ** where it means nothing: it "
                "goes in front, as in **.internal",
                "rule 1 (a) in policy.toml has client, which has a network that is none: '10.0.0.1/8' is not a network "
                "such as 10.0.0.0/8: 10.0.0.1/8 has host bits set",
            ],
        ),
        (
            "[[rule]]\nname = 'a'\nallow = ['b']\nkey-types = ['DSA']",
            [
                "rule 1 (a) in policy.toml has key-types, which has to be a list of P-256, P-384, RSA-2048, RSA-3072, "
                "RSA-4096, Ed25519, not ['DSA']"
            ],
        ),
        (
            "[[rule]]\nname = 'a'\nallow = ['b']\nmax-lifetime = 3600",
            ["rule 1 (a) in policy.toml has max-lifetime, which has to be a duration such as 90m, 24h or 7d, not 3600"],
        ),
    ],
)
def test_mistakes_are_told_with_their_place(text: str, sentences: list[str]) -> None:
    with pytest.raises(BadRules) as raised:
        rules(text)
    assert list(raised.value.mistakes) == sentences


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "7"),
        ("name", "''"),
        ("name", '"a\\nb"'),
        ("allow", "'web.internal'"),
        ("allow", "[]"),
        ("allow", "[7]"),
        ("external-key", "'team-a'"),
        ("external-key", "[]"),
        ("client", "[]"),
        ("client", "['internal']"),
        ("client-certificate", "['']"),
        ("external-key", "['team-*']"),
        ("external-key", "['team-?']"),
        ("allow", "['*']"),
        ("client-certificate", "['*']"),
        ("client-certificate", "['10.0.0.0/8']"),
        ("wildcard", "'no'"),
        ("wildcard", "1"),
        ("key-types", "'P-256'"),
        ("max-lifetime", "'0s'"),
        ("max-names", "0"),
        ("max-names", "true"),
        ("max-names", "'3'"),
    ],
)
def test_a_value_that_means_nothing_is_refused(key: str, value: str) -> None:
    table: dict[str, str] = {"name": "'a'", "allow": "['web.internal']", key: value}
    with pytest.raises(BadRules) as raised:
        rules("[[rule]]\n" + "\n".join(f"{name} = {each}" for name, each in table.items()))
    (sentence,) = raised.value.mistakes
    assert sentence.startswith("rule 1 ")
    assert f" has {key}, which " in sentence


def test_every_mistake_is_told_at_once_and_each_in_a_line() -> None:
    text = '[[rule]]\nname = "a"\n"b\\nc" = 1\nallow = []\n[[rule]]\nname = "b"\ndeny = ["*.10"]\n[x]\n'
    with pytest.raises(BadRules) as raised:
        rules(text)
    assert len(raised.value.mistakes) == 4
    assert str(raised.value).count("\n") == 3


@given(st.text() | st.text("[]rule=\n\"'*.adenyname 10/", max_size=60))
def test_any_text_is_rules_or_mistakes(text: str) -> None:
    mistakes: tuple[str, ...] = ("none",)
    try:
        assert rules(text).rules
    except BadRules as error:
        mistakes = error.mistakes
    assert mistakes
    assert all("\n" not in each for each in mistakes)


def to_toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{to_toml(name)} = {to_toml(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    return json.dumps(value)


GOOD_PATTERNS = st.sampled_from(
    ["**", "**.internal", "*.internal", "web.internal", "w?b.internal", "10.0.0.0/8", "::/0"]
)
PATTERNS = GOOD_PATTERNS | st.just("*")
VALUES = (
    st.sampled_from(
        [True, False, 0, 1, -1, 1.5, "", "12h", "0s", "9" * 400, "P-256", "DSA", "a\nb", "10.0.0.0/8", "::/0"]
    )
    | st.text(st.characters(codec="utf-8"), max_size=20)
    | PATTERNS
)
TABLES = st.dictionaries(
    st.sampled_from([*_KEYS, "Allow", "allow ", "unless"]),
    st.lists(PATTERNS, min_size=1, max_size=3)
    | VALUES
    | st.lists(VALUES, max_size=3)
    | st.dictionaries(PATTERNS, VALUES),
    max_size=6,
)
GOOD_TABLES = st.builds(
    lambda verb, names, more: {verb: names} | more,
    st.sampled_from(["allow", "trust", "ask", "deny"]),
    st.lists(GOOD_PATTERNS, min_size=1, max_size=3),
    st.dictionaries(st.sampled_from(["wildcard"]), st.just(True)) | st.just({}),
)


@given(st.lists(TABLES | GOOD_TABLES, min_size=1, max_size=4))
def test_any_tables_are_rules_or_mistakes_and_rules_let_nobody_have_what_they_do_not_name(tables: list[Any]) -> None:
    numbered = [{"name": f"rule {number}"} | table for number, table in enumerate(tables)]
    text = "\n".join(
        "[[rule]]\n" + "\n".join(f"{to_toml(name)} = {to_toml(value)}" for name, value in table.items())
        for table in numbered
    )
    mistakes: tuple[str, ...] = ("none",)
    policy = Rules(())
    try:
        policy = rules(text)
    except BadRules as error:
        mistakes = error.mistakes
    assert mistakes
    assert all(each.isprintable() for each in mistakes)
    names = list(map(from_text, ("web.internal", "*.internal", "a.b.internal", "internal", "10.1.1.1", "fd00::1")))
    for verdict in policy.judge(SOMEBODY, names):
        if verdict.decision is None:
            assert verdict.reason
            continue
        assert verdict.rule
        assert verdict.rule.names.touch(verdict.identifier)
        assert not verdict.identifier.wildcard or verdict.rule.wildcard


async def test_an_order_is_finalized_by_the_rule_that_made_it_or_by_one_that_wants_no_more(stage: Stage) -> None:
    """Somebody orders where the rules are lenient, and finalizes from where they are not."""
    policy = rules("""
        [[rule]]
        name = "inside"
        trust = ["db.internal"]
        client = ["10.20.0.0/16"]
        max-lifetime = "1h"
        key-types = ["Ed25519"]

        [[rule]]
        name = "outside"
        ask = ["db.internal"]
    """)
    async with stage(policy=policy) as scene:
        wire = await scene.account()
        inside, outside = (
            httpx.AsyncClient(transport=httpx.ASGITransport(scene.responder, client=(address, 1)), base_url=scene.base)
            for address in ("10.20.0.1", "10.99.0.1")
        )
        async with inside, outside:
            wire.http = inside
            ordered = (await wire.order("db.internal")).json()
            assert ordered["status"] == "ready"
            wire.http = outside
            assert problem_of(await wire.finalize(ordered)) == (403, "unauthorized")
            wire.http = inside
            assert problem_of(await wire.finalize(ordered)) == (400, "badCSR")
            der = csr("db.internal", key=Ed25519PrivateKey.generate())
            assert (await wire.finalize(ordered, der)).json()["status"] == "valid"


def test_a_mail_address_or_a_uri_is_no_host(stage: Stage) -> None:
    policy = rules("""
        [[rule]]
        name = "hosts"
        trust = ["*.internal"]
        client-certificate = ["host-*.internal"]
    """)
    assert becomes(policy, "a.internal", holding("host-a.internal")).startswith("trust")
    certificate = ClientCertificate(None, (), "00", "CN=ours", ("host-eve@mail.internal", "host-x:eve.internal"))
    assert becomes(policy, "a.internal", replace(SOMEBODY, client_certificate=certificate)) == "deny"
