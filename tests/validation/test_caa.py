"""CAA (RFC 8659) and its parameters (RFC 8657): who forbids us what."""

from collections.abc import Sequence
from dataclasses import replace

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.validation.nameserver import Answering, fails
from tests.validation.scene import ACCOUNT, CANARY, DIGEST, NOW, Scene, patiently

from privet.acme.problems import ProblemType
from privet.validation import CAA, CheckingCAA, Prover
from privet.validation.caa import Property, judge
from privet.validation.issue_values import IssueValue, read_issue_value


def checking(scene: Scene, **options: object) -> Prover:
    caa = CAA(["ca.internal", "ca.example"], resolver=scene.resolver())
    return CheckingCAA(scene.dns01(), caa, **options)  # type: ignore[arg-type]


@pytest.fixture
def proved(scene: Scene) -> None:
    for name in ("www.internal", "a.b.c.internal", "db"):
        scene.nameserver.add(f"_acme-challenge.{name}", "TXT", DIGEST)


def asked_for_caa(scene: Scene) -> list[str]:
    return [each.removeprefix("CAA ") for each in scene.nameserver.asked if each.startswith("CAA")]


def test_without_records_nothing_is_forbidden_and_each_name_is_asked_once(scene: Scene, proved: None) -> None:
    proof = scene.prove(checking(scene), "a.b.c.internal")
    assert proof.caa == ""
    assert asked_for_caa(scene) == ["a.b.c.internal", "b.c.internal", "c.internal", "internal"]
    assert proof.to_json()["caa"] == ""


def test_the_search_ends_at_the_first_records(scene: Scene, proved: None) -> None:
    scene.nameserver.add("internal", "CAA", '0 issue "other.example"')
    scene.nameserver.add("c.internal", "CAA", '0 issue "ca.internal"')
    proof = scene.prove(checking(scene), "a.b.c.internal")
    assert proof.caa == "c.internal"
    assert asked_for_caa(scene) == ["a.b.c.internal", "b.c.internal", "c.internal"]
    assert "CAA c.internal" in [step.what for step in proof.steps]


def test_a_name_of_one_label_is_one_question(scene: Scene, proved: None) -> None:
    scene.prove(checking(scene), "db")
    assert asked_for_caa(scene) == ["db"]


def test_n_names_are_n_searches(scene: Scene) -> None:
    names = [f"n{number}.internal" for number in range(5)]
    for name in names:
        scene.nameserver.add(f"_acme-challenge.{name}", "TXT", DIGEST)
        scene.nameserver.add(name, "CAA", '0 issue "ca.internal"')
    for name in names:
        scene.prove(checking(scene), name)
    assert asked_for_caa(scene) == names


def test_records_at_the_end_of_an_alias_count_and_those_above_it_do_not(scene: Scene, proved: None) -> None:
    scene.nameserver.add("www.internal", "CNAME", "www.cdn.example.")
    scene.nameserver.add("cdn.example", "CAA", '0 issue "ca.internal"')
    scene.nameserver.add("internal", "CAA", '0 issue "other.example"')
    assert scene.refused(checking(scene), "www.internal").type is ProblemType.CAA
    scene.nameserver.add("www.cdn.example", "CAA", '0 issue "ca.internal"')
    assert scene.prove(checking(scene), "www.internal").caa == "www.internal"


def test_another_issuer_is_not_us(scene: Scene, proved: None) -> None:
    scene.nameserver.add("internal", "CAA", f'0 issue "{CANARY}.example"', f'0 iodef "mailto:{CANARY}@x.example"')
    refusal = scene.refused(checking(scene), "www.internal")
    assert refusal.type is ProblemType.CAA
    assert refusal.detail == (
        "the CAA records of internal do not allow www.internal: "
        "none of them names this issuer (ca.internal or ca.example)"
    )
    assert "CAA internal" in [step.what for step in refusal.steps]
    assert "TXT _acme-challenge.www.internal" in [step.what for step in refusal.steps]


def test_records_that_cannot_be_had_forbid(scene: Scene, proved: None) -> None:
    scene.nameserver.add("internal", "CAA", '0 issue "ca.internal"')
    scene.nameserver.answering["www.internal"] = fails(dns.rcode.SERVFAIL)
    refusal = scene.refused(checking(scene), "www.internal")
    assert refusal.type is ProblemType.DNS
    assert "CAA records of www.internal could not be looked up" in refusal.detail


def cut_short(query: dns.message.Message, tcp: bool) -> bytes:
    reply = dns.message.make_response(query)
    reply.flags |= dns.flags.TC
    return reply.to_wire()


def a_referral(query: dns.message.Message, tcp: bool) -> bytes:
    reply = dns.message.make_response(query)
    reply.authority.append(dns.rrset.from_text("www.internal.", 60, "IN", "NS", "ns.www.internal."))
    return reply.to_wire()


@pytest.mark.parametrize("answering", [cut_short, a_referral])
def test_an_answer_that_leaves_it_open_forbids(scene: Scene, proved: None, answering: Answering) -> None:
    """Nobody is rid of the records that forbid him by making an answer too long, or by sending us elsewhere."""
    scene.nameserver.add("internal", "CAA", '0 issue "ca.internal"')
    scene.nameserver.answering["www.internal"] = answering
    refusal = scene.refused(checking(scene), "www.internal")
    assert refusal.type is ProblemType.DNS
    assert "CAA records of www.internal could not be looked up" in refusal.detail


def test_a_circle_of_aliases_forbids(scene: Scene, proved: None) -> None:
    def circle(query: dns.message.Message, tcp: bool) -> bytes:
        reply = dns.message.make_response(query)
        reply.answer.append(dns.rrset.from_text("www.internal.", 60, "IN", "CNAME", "www.internal."))
        return reply.to_wire()

    scene.nameserver.answering["www.internal"] = circle
    assert scene.refused(checking(scene), "www.internal").type is ProblemType.DNS


def test_addresses_have_no_caa(scene: Scene) -> None:
    class Sure:
        method = "http-01"

        async def validate(self, *asked: str) -> bool:
            return True

    caa = CAA(["ca.internal"], resolver=scene.resolver())
    assert scene.prove(CheckingCAA(Sure(), caa, now=lambda: NOW), "10.0.0.1", "ip").caa == ""
    assert not scene.nameserver.asked


def test_what_is_not_proved_is_not_looked_up(scene: Scene) -> None:
    assert scene.refused(checking(scene), "www.internal").type is ProblemType.DNS
    assert not asked_for_caa(scene)


def test_the_account_and_the_method_reach_the_records(scene: Scene, proved: None) -> None:
    scene.nameserver.add("internal", "CAA", f'0 issue "ca.internal; accounturi={ACCOUNT}; validationmethods=dns-01"')
    scene.prove(checking(scene), "www.internal")
    refusal = scene.refused(checking(scene), "www.internal", account=f"{ACCOUNT}4")
    assert refusal.type is ProblemType.CAA
    assert "another account" in refusal.detail
    assert scene.refused(checking(scene), "www.internal", account=None).type is ProblemType.CAA


def test_a_validator_that_does_not_say_its_method_needs_one() -> None:
    class Sure:
        async def validate(self, *asked: str) -> bool:
            return True

    with pytest.raises(ValueError, match="the method is needed"):
        CheckingCAA(Sure(), CAA(["ca.internal"]))


def records(*values: str) -> Sequence[Property]:
    """From `issue ca.internal` or `128 issue ca.internal`."""
    found = []
    for value in values:
        flags, _, rest = value.partition(" ") if value[0].isdigit() else ("0", "", value)
        tag, _, content = rest.partition(" ")
        found.append(Property(int(flags), tag.encode(), content.encode()))
    return found


def verdict(*values: str, wildcard: bool = False, account: str | None = ACCOUNT, method: str = "http-01") -> str | None:
    return judge(records(*values), ["ca.internal"], wildcard=wildcard, account=account, method=method)


ALLOWED: dict[str, Sequence[str]] = {
    "nothing": [],
    "us": ["issue ca.internal"],
    "us, in capitals": ["ISSUE CA.Internal"],
    "us, with spaces": ["issue  \tca.internal\t "],
    "us, with a semicolon": ["issue ca.internal;"],
    "us among others": ["issue other.example", "issue ca.internal", "issue ;"],
    "us, critically": ["128 issue ca.internal"],
    "a report and nothing else": ["iodef mailto:x@example.com"],
    "a critical report": ["128 iodef mailto:x@example.com"],
    "something unknown": ["tbs Unknown"],
    "something unknown, with a flag that means nothing": ["1 tbs Unknown"],
    "nobody for mail": ["issuemail ;"],
    "wildcards by others": ["issuewild other.example", "issue ca.internal"],
    "wildcards by nobody, and nothing of names": ["issuewild ;"],
    "this account": [f"issue ca.internal; accounturi={ACCOUNT}"],
    "this account among others": ["issue ca.internal; accounturi=https://x", f"issue ca.internal;accounturi={ACCOUNT}"],
    "this method": ["issue ca.internal; validationmethods=http-01"],
    "this method among others": ["issue ca.internal; validationmethods=dns-01,http-01"],
    "an unknown parameter": ["issue ca.internal; policy=ev"],
    "account and method": [f"issue ca.internal; AccountURI={ACCOUNT}; ValidationMethods=http-01"],
}


@pytest.mark.parametrize("values", ALLOWED.values(), ids=ALLOWED)
def test_what_allows_us(values: Sequence[str]) -> None:
    assert verdict(*values) is None


FORBIDDEN: dict[str, tuple[Sequence[str], str]] = {
    "others": (["issue other.example"], "none of them names this issuer"),
    "nobody": (["issue ;"], "none of them names this issuer"),
    "nobody, said with nothing": (["issue "], "none of them names this issuer"),
    "a name below ours": (["issue www.ca.internal"], "none of them names this issuer"),
    "a name above ours": (["issue internal"], "none of them names this issuer"),
    "nonsense": (["issue %%%%%"], "none of them names this issuer"),
    "us and nonsense": (["issue ca.internal; %%%"], "none of them names this issuer"),
    "us and a parameter without a value": (["issue ca.internal; policy"], "none of them names this issuer"),
    "us and a semicolon too many": (["issue ca.internal; a=b;"], "none of them names this issuer"),
    "something critical and unknown": (["128 tbs Unknown"], "critical and not known"),
    "us, and something critical and unknown": (["issue ca.internal", "128 tbs x"], "critical and not known"),
    "something critical and unknown, with more flags": (["issue ca.internal", "129 tbs x"], "critical and not known"),
    "another account": (["issue ca.internal; accounturi=https://ca.internal/acct/9"], "another account"),
    "this account and another": (
        [f"issue ca.internal; accounturi={ACCOUNT}; accounturi=https://x"],
        "another account",
    ),
    "this account twice": ([f"issue ca.internal; accounturi={ACCOUNT}; accounturi={ACCOUNT}"], "another account"),
    "this account, nearly": ([f"issue ca.internal; accounturi={ACCOUNT.upper()}"], "another account"),
    "no account": (["issue ca.internal; accounturi="], "another account"),
    "another method": (["issue ca.internal; validationmethods=dns-01"], "do not allow http-01"),
    "no method": (["issue ca.internal; validationmethods="], "do not allow http-01"),
    "methods with a space": (["issue ca.internal; validationmethods=dns-01, http-01"], "none of them names"),
    "methods with an empty one": (["issue ca.internal; validationmethods=,http-01"], "do not allow http-01"),
    "methods twice": (
        ["issue ca.internal; validationmethods=http-01; validationmethods=http-01"],
        "do not allow http-01",
    ),
    "this account for other issuers": ([f"issue other.example; accounturi={ACCOUNT}"], "none of them names"),
}


@pytest.mark.parametrize(("values", "words"), FORBIDDEN.values(), ids=FORBIDDEN)
def test_what_forbids_us(values: Sequence[str], words: str) -> None:
    found = verdict(*values)
    assert found is not None
    assert words in found


def test_for_a_wildcard_issuewild_counts_in_place_of_issue() -> None:
    assert verdict("issue ca.internal", wildcard=True) is None
    assert verdict("issue ca.internal", "issuewild ;", wildcard=True) is not None
    assert verdict("issue ;", "issuewild ca.internal", wildcard=True) is None
    assert verdict("issue ;", "issuewild ca.internal") is not None


def test_a_property_never_takes_over_from_another() -> None:
    """A property with the right account and another with the right method do not add up to one with both."""
    values = (
        f"issue ca.internal; accounturi={ACCOUNT}; validationmethods=dns-01",
        "issue ca.internal; accounturi=https://x; validationmethods=http-01",
    )
    assert verdict(*values) is not None


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"", IssueValue("", [])),
        (b" ; ", IssueValue("", [])),
        (b"ca.example.net; account=230123", IssueValue("ca.example.net", [("account", "230123")])),
        (b"ca1.example.net; a = b ; C-1= d=e", IssueValue("ca1.example.net", [("a", "b"), ("c-1", "d=e")])),
        (b"a..b", None),
        (b"-a", None),
        (b"a-", None),
        (b"a_b", None),
        (b"a;-b=c", None),
        (b"a;b=c d", None),
        (b"a;=c", None),
        (b"a;;b=c", None),
        (b"a\n", None),
        ("ä".encode(), None),
    ],
)
def test_the_grammar_of_values(data: bytes, value: IssueValue | None) -> None:
    assert read_issue_value(data) == value


@patiently
@given(st.binary(max_size=100))
def test_any_bytes_are_a_value_or_none(data: bytes) -> None:
    value = read_issue_value(data)
    assert value is None or isinstance(value, IssueValue)


properties = st.builds(
    Property,
    st.integers(0, 255),
    st.sampled_from([b"issue", b"ISSUE", b"issuewild", b"iodef", b"tbs"]) | st.binary(max_size=5),
    st.sampled_from([b"ca.internal", b"other", b";", b"ca.internal; accounturi=x"]) | st.binary(max_size=30),
)


@patiently
@given(st.lists(properties, max_size=5), st.booleans())
def test_any_records_are_judged_and_one_more_of_ours_never_forbids(found: list[Property], wildcard: bool) -> None:
    def ask(records: list[Property]) -> str | None:
        return judge(records, ["ca.internal"], wildcard=wildcard, account=ACCOUNT, method="dns-01")

    before = ask(found)
    assert before is None or before
    ours = Property(0, b"issuewild" if wildcard else b"issue", b"ca.internal")
    critical = any(each.flags & 0x80 and each.tag.lower() not in (b"issue", b"issuewild", b"iodef") for each in found)
    assert (ask([*found, ours]) is None) == (not critical)


def test_a_proof_can_be_kept(scene: Scene, proved: None) -> None:
    proof = scene.prove(checking(scene), "www.internal")
    assert replace(proof, caa=None).to_json() == {
        "identifier": {"type": "dns", "value": "www.internal"},
        "wildcard": False,
        "method": "dns-01",
        "validated": "2026-03-01T12:00:00+00:00",
        "steps": [step.to_json() for step in proof.steps],
    }
