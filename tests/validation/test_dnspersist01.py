"""dns-persist-01 (draft-ietf-acme-dns-persist-02): records that stay, and what they vouch for."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.laws import outcome
from tests.validation.scene import ACCOUNT, CANARY, KEY, NOW, Scene, patiently

from privet.acme.problems import Problem, ProblemType
from privet.validation import DNSPersist01Validator, Resolver
from privet.validation.issue_values import read_issue_value

PREFIX = "https://ca.internal/account-hash/"
LATER = int((NOW + timedelta(days=30)).timestamp())
EARLIER = int((NOW - timedelta(days=30)).timestamp())
VALIDATOR = DNSPersist01Validator(["ca.internal"], PREFIX, resolver=Resolver(["127.0.0.1"]), now=lambda: NOW)


def uri(domain: str = "www.internal", key: str = KEY, account: str = ACCOUNT) -> str:
    return VALIDATOR.account_hash(domain, key, account)


def publish(scene: Scene, *values: str, at: str = "www.internal") -> None:
    scene.nameserver.add(f"_validation-persist.{at}", "TXT", *(f'"{value}"' for value in values))


def test_the_vectors_of_the_draft() -> None:
    """§10.2."""
    validator = DNSPersist01Validator(["authority.example"], "https://ca.example/account-hash/")
    account = "https://ca.example/acct/123"
    prefix = "https://ca.example/account-hash/sha-256/"
    assert validator.account_hash("example.com", KEY, account) == prefix + "5SQm7n6tPh2-PlLbCKGnViTXX5z19SCN4cPGQHSk-kw"
    assert validator.account_hash("*", KEY, account) == prefix + "NpDnSwUthQK8zCgFdefYxAdAVPnygMLbs9US6oO-5ug"


def test_a_record_for_this_account_is_proof(scene: Scene) -> None:
    publish(scene, f"ca.internal; accounturi={uri()}")
    proof = scene.prove(scene.dns_persist(), "www.internal")
    assert (proof.method, proof.expires) == ("dns-persist-01", None)


def test_a_record_for_all_of_an_account_is_proof(scene: Scene) -> None:
    publish(scene, f"ca.internal;accounturi={uri('*')}")
    scene.prove(scene.dns_persist(), "www.internal")


def test_a_record_with_an_earlier_key_is_proof_as_long_as_it_is_known(scene: Scene) -> None:
    publish(scene, f"ca.internal; accounturi={uri(key='x' * 43)}")
    scene.prove(scene.dns_persist(), "www.internal", thumbprints=("y" * 43, "x" * 43))
    assert scene.refused(scene.dns_persist(), "www.internal").type is ProblemType.UNAUTHORIZED


def test_how_long_it_lasts_is_said(scene: Scene) -> None:
    publish(scene, f"ca.internal; accounturi={uri()}; persistUntil={LATER}")
    proof = scene.prove(scene.dns_persist(), "www.internal")
    assert proof.expires == NOW + timedelta(days=30)
    assert proof.to_json()["expires"] == "2026-03-31T12:00:00+00:00"


def test_of_several_records_the_one_that_lasts_longest_counts(scene: Scene) -> None:
    first = f"ca.internal; accounturi={uri()}; persistUntil={LATER}"
    publish(scene, first, f"ca.internal; accounturi={uri('*')}; persistuntil={LATER + 10}", f"ca.internal; {CANARY}")
    assert scene.prove(scene.dns_persist(), "www.internal").expires == NOW + timedelta(days=30, seconds=10)
    publish(scene, f"ca.internal; accounturi={uri()}")
    assert scene.prove(scene.dns_persist(), "www.internal").expires is None


def test_other_issuers_records_are_theirs(scene: Scene) -> None:
    publish(scene, f"{CANARY}.example; accounturi=x; accounturi=y", "%%%", f"ca.internal; accounturi={uri()}; new=1")
    scene.prove(scene.dns_persist(), "www.internal")


def test_a_wildcard_needs_the_policy(scene: Scene) -> None:
    publish(scene, f"ca.internal; accounturi={uri()}")
    scene.prove(scene.dns_persist(), "www.internal")
    refusal = scene.refused(scene.dns_persist(), "www.internal", wildcard=True)
    assert refusal.type is ProblemType.UNAUTHORIZED
    assert "policy=wildcard" in refusal.detail
    publish(scene, f"CA.Internal; AccountURI={uri()}; Policy=WildCard")
    scene.prove(scene.dns_persist(), "www.internal", wildcard=True)


def test_a_record_above_counts_where_that_is_wanted_and_with_the_policy(scene: Scene) -> None:
    above = uri("dept.internal")
    publish(scene, f"ca.internal; accounturi={above}; policy=wildcard", at="dept.internal")
    assert scene.refused(scene.dns_persist(), "a.b.dept.internal").type is ProblemType.DNS
    validator = scene.dns_persist(subdomains=True)
    scene.prove(validator, "a.b.dept.internal")
    scene.prove(validator, "a.b.dept.internal", wildcard=True)
    publish(scene, f"ca.internal; accounturi={uri('other.internal')}", at="other.internal")
    assert scene.refused(validator, "a.other.internal").type is ProblemType.DNS


def test_nobody_vouches_for_a_whole_top_level_domain(scene: Scene) -> None:
    publish(scene, f"ca.internal; accounturi={uri('internal')}; policy=wildcard", at="internal")
    assert scene.refused(scene.dns_persist(subdomains=True), "www.internal").type is ProblemType.DNS
    assert "TXT _validation-persist.internal" not in scene.nameserver.asked


def test_an_account_by_its_url_counts_where_that_is_wanted(scene: Scene) -> None:
    """As the draft had it until -01."""
    publish(scene, f"ca.internal; accounturi={ACCOUNT}")
    assert scene.refused(scene.dns_persist(), "www.internal").type is ProblemType.MALFORMED
    scene.prove(scene.dns_persist(account_urls=True), "www.internal")
    refusal = scene.refused(scene.dns_persist(account_urls=True), "www.internal", account=f"{ACCOUNT}4")
    assert refusal.type is ProblemType.UNAUTHORIZED


REFUSED: dict[str, tuple[str, ProblemType, str]] = {
    "of another account": (f"accounturi={uri(account=f'{ACCOUNT}4')}", ProblemType.UNAUTHORIZED, "another account"),
    "of another name": (f"accounturi={uri('other.internal')}", ProblemType.UNAUTHORIZED, "another account"),
    "without an account": ("policy=wildcard", ProblemType.MALFORMED, "no accounturi"),
    "with an empty account": ("accounturi=", ProblemType.MALFORMED, "no accounturi"),
    "with two accounts": (f"accounturi={uri()}; accounturi={uri()}", ProblemType.MALFORMED, "more than once"),
    "with an account by its URL": (f"accounturi={ACCOUNT}", ProblemType.MALFORMED, "no hash"),
    "with another hash": (f"accounturi={uri().replace('256', '512')}", ProblemType.MALFORMED, "no hash"),
    "with another prefix": (f"accounturi=x{uri()}", ProblemType.MALFORMED, "no hash"),
    "with a longer hash": (f"accounturi={uri()}A", ProblemType.MALFORMED, "no hash"),
    "with the hash in upper case": (f"accounturi={uri()[:-43]}{'A' * 43}", ProblemType.UNAUTHORIZED, "another account"),
    "that is over": (f"accounturi={uri()}; persistUntil={EARLIER}", ProblemType.UNAUTHORIZED, "over"),
    "that is over just now": (
        f"accounturi={uri()}; persistUntil={int(NOW.timestamp())}",
        ProblemType.UNAUTHORIZED,
        "over",
    ),
    "that lasts until a word": (f"accounturi={uri()}; persistUntil={CANARY}", ProblemType.MALFORMED, "seconds"),
    "that lasts until before time": (f"accounturi={uri()}; persistUntil=-1", ProblemType.MALFORMED, "seconds"),
    "that lasts until two times": (
        f"accounturi={uri()}; persistUntil={LATER}; persistUntil={LATER}",
        ProblemType.MALFORMED,
        "more than once",
    ),
    "with a policy given twice": (
        f"accounturi={uri()}; policy=wildcard; policy=wildcard",
        ProblemType.MALFORMED,
        "more than once",
    ),
}


@pytest.mark.parametrize(("value", "type", "words"), REFUSED.values(), ids=REFUSED)
def test_a_record(scene: Scene, value: str, type: ProblemType, words: str) -> None:
    publish(scene, f"ca.internal; {value}")
    refusal = scene.refused(scene.dns_persist(), "www.internal")
    assert refusal.type is type
    assert words in refusal.detail


@pytest.mark.parametrize(
    "value",
    [
        f"other.internal; accounturi={uri()}",
        f"ca.internal.evil; accounturi={uri()}",
        f"ca.internal accounturi={uri()}",
        f"ca.internal; accounturi={uri()};",
        f"ca.internal;; accounturi={uri()}",
        f"ca.internal; accounturi {uri()}",
        f"ca.internal; accounturi={uri()} x",
        f"; accounturi={uri()}",
        "",
    ],
)
def test_a_record_that_names_us_not_or_not_well(scene: Scene, value: str) -> None:
    publish(scene, value)
    refusal = scene.refused(scene.dns_persist(), "www.internal")
    assert refusal.type is ProblemType.UNAUTHORIZED
    assert refusal.detail == "no TXT record at _validation-persist.www.internal is for this issuer (ca.internal)"


def test_the_end_of_all_days_is_no_problem(scene: Scene) -> None:
    publish(scene, f"ca.internal; accounturi={uri()}; persistUntil=99999999999999999999")
    expires = scene.prove(scene.dns_persist(), "www.internal").expires
    assert expires is not None
    assert expires.year == 9999


def test_without_an_account_there_is_nothing_to_compare(scene: Scene) -> None:
    assert scene.refused(scene.dns_persist(), "www.internal", account=None).type is ProblemType.SERVER_INTERNAL


def test_what_the_directory_and_the_challenge_say() -> None:
    assert VALIDATOR.challenge_fields == {"issuerDomainNames": ["ca.internal"]}
    assert VALIDATOR.directory_meta == {"issuerDomainNames": ["ca.internal"], "accountHashPrefix": PREFIX}


@pytest.mark.parametrize(
    ("issuers", "prefix"),
    [
        ([], PREFIX),
        (["ca.internal"] * 11, PREFIX),
        ("ca.internal", PREFIX),
        (["*.internal"], PREFIX),
        (["ca_.internal"], PREFIX),
        (["ca.internal"], "not a URI"),
        (["ca.internal"], "https://ca.internal/;"),
    ],
)
def test_what_a_server_cannot_call_itself(issuers: Any, prefix: str) -> None:
    with pytest.raises(ValueError, match=r"domain name|DNS name|URI"):
        DNSPersist01Validator(issuers, prefix)


texts = st.binary(max_size=200) | st.builds(
    lambda *parts: ";".join(parts).encode(),
    st.sampled_from(["ca.internal", "CA.internal ", "", "other"]),
    st.sampled_from([f"accounturi={uri()}", " accounturi=x", "accounturi", "a=b"]),
    st.sampled_from(["policy=wildcard", f"persistUntil={LATER}", "persistUntil=1e9", ""]),
    st.text(max_size=10),
)


@patiently
@given(st.lists(texts, max_size=4), st.booleans())
def test_any_records_are_an_end_or_a_problem(records: list[bytes], wildcard: bool) -> None:
    found = outcome(VALIDATOR.judge, records, "www.internal", wildcard, ACCOUNT, [KEY])
    if not isinstance(found, Problem):
        # Then one of them, by itself, names us and the account.
        values = [value for value in map(read_issue_value, records) if value is not None]
        assert any(value.issuer == "ca.internal" and value.all("accounturi") == [uri()] for value in values)


@patiently
@given(st.text(max_size=40), st.text(max_size=43), st.text(max_size=60))
def test_nobody_elses_record_is_proof_for_us(domain: str, key: str, account: str) -> None:
    if (domain, key, account) in {("www.internal", KEY, ACCOUNT), ("*", KEY, ACCOUNT)}:
        return
    record = f"ca.internal; accounturi={VALIDATOR.account_hash(domain, key, account)}".encode()
    assert isinstance(outcome(VALIDATOR.judge, [record], "www.internal", False, ACCOUNT, [KEY]), Problem)
