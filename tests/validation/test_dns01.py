"""dns-01 (RFC 8555 §8.4) and dns-account-01 (draft-ietf-acme-dns-account-label)."""

import dns.rcode
import pytest
from tests.validation.nameserver import fails
from tests.validation.scene import ACCOUNT, CANARY, DIGEST, NOW, Scene

from privet.acme.problems import ProblemType
from privet.validation.dns01 import account_label

NAME = "_acme-challenge.www.internal"


def test_the_digest_is_found(scene: Scene) -> None:
    scene.nameserver.add(NAME, "TXT", DIGEST)
    proof = scene.prove(scene.dns01(), "www.internal")
    assert (proof.method, proof.identifier, proof.validated, proof.expires) == ("dns-01", "www.internal", NOW, None)
    assert [(step.what, step.target) for step in proof.steps] == [(f"TXT {NAME}", scene.nameserver.address)]


def test_a_wildcard_is_proved_at_its_base(scene: Scene) -> None:
    scene.nameserver.add(NAME, "TXT", DIGEST)
    assert scene.prove(scene.dns01(), "www.internal", wildcard=True).wildcard


def test_one_of_several_records_is_enough(scene: Scene) -> None:
    """A name and its wildcard in one order are two challenges with one record name."""
    scene.nameserver.add(NAME, "TXT", '"v=spf1 -all"', DIGEST, f'"{CANARY}"')
    scene.prove(scene.dns01(), "www.internal")


def test_a_digest_in_several_strings_is_one(scene: Scene) -> None:
    scene.nameserver.add(NAME, "TXT", f'"{DIGEST[:20]}" "{DIGEST[20:]}"')
    scene.prove(scene.dns01(), "www.internal")


def test_a_digest_in_several_records_is_none(scene: Scene) -> None:
    scene.nameserver.add(NAME, "TXT", DIGEST[:20], DIGEST[20:])
    refusal = scene.refused(scene.dns01(), "www.internal")
    assert refusal.type is ProblemType.INCORRECT_RESPONSE
    assert refusal.detail == f"none of the 2 TXT records is the digest of the key authorization, at {NAME}"


def test_the_record_may_be_elsewhere(scene: Scene) -> None:
    scene.nameserver.add(NAME, "CNAME", "www.validation.internal.")
    scene.nameserver.add("www.validation.internal", "TXT", DIGEST)
    scene.prove(scene.dns01(), "www.internal")


@pytest.mark.parametrize("text", [CANARY, DIGEST.lower(), f"{DIGEST}=", f'"{DIGEST} "', f'"\\"{DIGEST}\\""', '""'])
def test_nothing_but_the_digest_will_do(scene: Scene, text: str) -> None:
    scene.nameserver.add(NAME, "TXT", text)
    refusal = scene.refused(scene.dns01(), "www.internal")
    assert refusal.type is ProblemType.INCORRECT_RESPONSE
    assert refusal.detail == f"the TXT record is not the digest of the key authorization, at {NAME}"


def test_no_record_is_a_dns_problem_that_says_where(scene: Scene) -> None:
    refusal = scene.refused(scene.dns01(), "www.internal")
    assert refusal.type is ProblemType.DNS
    assert refusal.detail == f"{NAME} could not be looked up: there is no such name"


def test_a_nameserver_with_trouble_is_a_dns_problem_that_says_which(scene: Scene) -> None:
    scene.nameserver.answering[NAME] = fails(dns.rcode.SERVFAIL)
    refusal = scene.refused(scene.dns01(), "www.internal")
    assert refusal.type is ProblemType.DNS
    assert refusal.detail.endswith(f"the nameserver {scene.nameserver.address} answered SERVFAIL")


def test_addresses_are_not_for_dns(scene: Scene) -> None:
    refusal = scene.refused(scene.dns01(), "10.0.0.1", "ip")
    assert refusal.type is ProblemType.MALFORMED
    assert "address" in refusal.detail


@pytest.mark.parametrize(
    ("url", "label"),
    [
        ("https://example.com/acme/acct/ExampleAccount", "ujmmovf2vn55tgye"),  # the draft's own
        ("http://localhost:4000/acme/acct/1", "vkbgbqfhr6yv2asd"),
        ("https://acme-v02.api.letsencrypt.org/acme/acct/12345", "lvrajhh53e27yh7f"),
    ],
)
def test_the_label_of_an_account(url: str, label: str) -> None:
    assert account_label(url) == label


def test_each_account_has_a_record_of_its_own(scene: Scene) -> None:
    scene.nameserver.add(f"_{account_label(ACCOUNT)}.{NAME}", "TXT", DIGEST)
    assert scene.prove(scene.dns_account(), "www.internal").method == "dns-account-01"
    refusal = scene.refused(scene.dns_account(), "www.internal", account=f"{ACCOUNT}4")
    assert refusal.type is ProblemType.DNS


def test_without_an_account_there_is_nothing_to_look_for(scene: Scene) -> None:
    refusal = scene.refused(scene.dns_account(), "www.internal", account=None)
    assert refusal.type is ProblemType.SERVER_INTERNAL
    assert not scene.nameserver.asked
