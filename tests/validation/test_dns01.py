"""dns-01 (RFC 8555 §8.4) and dns-account-01 (draft-ietf-acme-dns-account-label)."""

import asyncio
import base64
import hashlib

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.validation.nameserver import Answering, fails
from tests.validation.scene import ACCOUNT, CANARY, DIGEST, KEY, NOW, PROOF, TOKEN, Scene, patiently

from privet.acme.problems import ProblemType
from privet.validation import Attempt, DNS01Validator, NotProved, Resolver
from privet.validation.dns01 import account_label
from privet.validation.trail import Trail

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


def digest(text: str, algorithm: str = "sha256") -> bytes:
    return hashlib.new(algorithm, text.encode()).digest()


def encoded(text: str, algorithm: str = "sha256") -> str:
    return base64.urlsafe_b64encode(digest(text, algorithm)).rstrip(b"=").decode()


TEXTS = {
    "something else": CANARY,
    "nothing": '""',
    "the digest in lower case": DIGEST.lower(),
    "the digest, padded": f"{DIGEST}=",
    "the digest and a space": f'"{DIGEST} "',
    "a space and the digest": f'" {DIGEST}"',
    "the digest in quotes of its own": f'"\\"{DIGEST}\\""',
    "the digest and a NUL": f'"{DIGEST}\\000"',
    "the digest twice": DIGEST * 2,
    "half the digest": DIGEST[:22],
    "the halves of the digest, the wrong way round": f'"{DIGEST[20:]}" "{DIGEST[:20]}"',
    "the digest in hexadecimal": digest(PROOF).hex(),
    "the digest in the other base64": base64.b64encode(digest(PROOF)).decode(),
    "the digest as bytes": '"' + "".join(f"\\{byte:03}" for byte in digest(PROOF)) + '"',
    "a longer digest": encoded(PROOF, "sha512"),
    "a weaker digest": encoded(PROOF, "sha1"),
    "the key authorization itself": PROOF,
    "the token": TOKEN,
    "the digest of the token": encoded(TOKEN),
    "the digest of the account's key": encoded(KEY),
    "the digest with a line feed": encoded(PROOF + "\n"),
    "the digest for another token": encoded(f"{TOKEN[::-1]}.{KEY}"),
    "the digest for another account": encoded(f"{TOKEN}.{KEY[::-1]}"),
    "the digest for the key alone behind a dot": encoded(f".{KEY}"),
    "the digest of the digest": encoded(DIGEST),
    "a pattern": "*",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_nothing_but_the_digest_will_do(scene: Scene, text: str) -> None:
    scene.nameserver.add(NAME, "TXT", text)
    refusal = scene.refused(scene.dns01(), "www.internal")
    assert refusal.type is ProblemType.INCORRECT_RESPONSE
    assert refusal.detail == f"the TXT record is not the digest of the key authorization, at {NAME}"


ELSEWHERE = (
    "www.internal",
    "_acme-challenge.internal",
    "acme-challenge.www.internal",
    "_acme-challenge.web.internal",
    f"{NAME}.internal",
    f"www.{NAME}",
    "_acme-challenge.www.internal.internal",
    f"_{account_label(ACCOUNT)}.{NAME}",
    "_validation-persist.www.internal",
    "www.internal._acme-challenge",
)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_the_digest_elsewhere_is_nothing(scene: Scene, name: str) -> None:
    scene.nameserver.add(name, "TXT", DIGEST)
    refusal = scene.refused(scene.dns01(), "www.internal")
    assert refusal.type is ProblemType.DNS
    assert NAME in refusal.detail


def reply_with(
    section: str, name: str = NAME, type: str = "TXT", rdclass: str = "IN", value: str = f'"{DIGEST}"'
) -> Answering:
    def answering(query: dns.message.Message, tcp: bool) -> bytes:
        reply = dns.message.make_response(query)
        getattr(reply, section).append(dns.rrset.from_text(f"{name}.", 60, rdclass, type, value))
        return reply.to_wire()

    return answering


def with_an_error(query: dns.message.Message, tcp: bool) -> bytes:
    reply = dns.message.from_wire(reply_with("answer")(query, tcp))  # type: ignore[arg-type]
    reply.set_rcode(dns.rcode.SERVFAIL)
    return reply.to_wire()


def cut_short(query: dns.message.Message, tcp: bool) -> bytes:
    """The digest is in what says of itself that it is not all, and by TCP it is not."""
    reply = dns.message.from_wire(reply_with("answer", value='"not yet"')(query, tcp))  # type: ignore[arg-type]
    if not tcp:
        reply = dns.message.from_wire(reply_with("answer")(query, tcp))  # type: ignore[arg-type]
        reply.flags |= dns.flags.TC
    return reply.to_wire()


REPLIES = {
    "the digest beside the answer": reply_with("additional"),
    "the digest under authority": reply_with("authority"),
    "the digest at another name": reply_with("answer", f"{CANARY}.internal"),
    "the digest at the name above": reply_with("answer", "www.internal"),
    "the digest in another class": reply_with("answer", rdclass="CH"),
    "the digest in another type": reply_with("answer", type="SPF"),
    "the digest as the name of an alias": reply_with("answer", type="CNAME", value=f"{DIGEST}.internal."),
    "the digest and an error": with_an_error,
    "the digest, cut short": cut_short,
}


@pytest.mark.parametrize("answering", REPLIES.values(), ids=REPLIES)
def test_nothing_is_read_into_an_answer(scene: Scene, answering: Answering) -> None:
    scene.nameserver.answering[NAME] = answering
    refusal = scene.refused(scene.dns01(), "www.internal")
    assert refusal.type in (ProblemType.DNS, ProblemType.INCORRECT_RESPONSE)


@patiently
@given(st.lists(st.binary(max_size=255), max_size=6))
def test_whatever_a_record_says_it_is_the_digest_or_not(texts: list[bytes]) -> None:
    """The strings of a record are joined, as resolvers do it, and compared as they are."""

    class Says(Resolver):
        async def texts(self, name: str, trail: Trail) -> tuple[bytes, ...]:
            return tuple(texts)

    validator = DNS01Validator(resolver=Says(["127.0.0.1"]))
    attempt = Attempt("www.internal", "dns", TOKEN, PROOF)
    try:
        asyncio.run(validator.prove(attempt))
    except NotProved:
        assert DIGEST.encode() not in texts
    else:
        assert DIGEST.encode() in texts


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
