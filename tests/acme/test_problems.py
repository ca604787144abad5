"""Problem documents: the table of RFC 8555 §6.7, and how refusals are written."""

import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.laws import texts

from privet.acme.encoding import from_json, to_json
from privet.acme.identifiers import Identifier, IdentifierType, from_text
from privet.acme.problems import URN, Problem, ProblemType, Subproblem, compound

# RFC 8555 §6.7, the whole table.
REGISTERED = {
    "accountDoesNotExist",
    "alreadyRevoked",
    "badCSR",
    "badNonce",
    "badPublicKey",
    "badRevocationReason",
    "badSignatureAlgorithm",
    "caa",
    "compound",
    "connection",
    "dns",
    "externalAccountRequired",
    "incorrectResponse",
    "invalidContact",
    "malformed",
    "orderNotReady",
    "rateLimited",
    "rejectedIdentifier",
    "serverInternal",
    "tls",
    "unauthorized",
    "unsupportedContact",
    "unsupportedIdentifier",
    "userActionRequired",
}


def test_the_table_is_that_of_the_rfc() -> None:
    assert {type.value[0] for type in ProblemType} == REGISTERED
    assert {type.urn for type in ProblemType} == {URN + name for name in REGISTERED}


def test_each_type_is_there_once_under_its_own_name_and_otherwise_with_another_status() -> None:
    seen = [type.value for type in ProblemType.__members__.values()]
    assert len(seen) == len(set(seen)), "an alias would be two names for one member"
    for type in ProblemType:
        name = "".join(word.capitalize() for word in type.name.split("_"))
        own_name = type.value[0].casefold() == name.casefold()
        assert own_name or type.value[0] in ("malformed", "unauthorized", "serverInternal"), type


def test_statuses_are_refusals() -> None:
    for type in ProblemType:
        assert 400 <= type.status <= 503
        assert (type.status >= 500) == type.urn.endswith(":serverInternal")


# RFC 8555, where it names the status: §6.2, §6.3, §6.6, §7.3.4, §7.3.5, §7.3.6, §7.4
@pytest.mark.parametrize(
    ("type", "status"),
    [
        (ProblemType.BAD_NONCE, 400),  # §6.5
        (ProblemType.BAD_SIGNATURE_ALGORITHM, 400),  # §6.2
        (ProblemType.RATE_LIMITED, 429),  # §6.6
        (ProblemType.METHOD_NOT_ALLOWED, 405),  # §6.3
        (ProblemType.UNSUPPORTED_MEDIA_TYPE, 415),  # §6.2
        (ProblemType.EXTERNAL_ACCOUNT_REQUIRED, 403),  # §7.3.4
        (ProblemType.USER_ACTION_REQUIRED, 403),  # §7.3.3
        (ProblemType.ACCOUNT_DOES_NOT_EXIST, 400),  # §7.3.1
        (ProblemType.CONFLICT, 409),  # §7.3.5
        (ProblemType.ACCOUNT_NOT_VALID, 401),  # §7.3.6
        (ProblemType.ORDER_NOT_READY, 403),  # §7.4
        (ProblemType.UNAUTHORIZED, 403),  # §7.6
    ],
)
def test_statuses_are_those_the_rfc_names(type: ProblemType, status: int) -> None:
    assert type.status == status


def test_a_document_says_type_detail_and_status() -> None:
    problem = Problem(ProblemType.BAD_CSR, "the CSR names b.internal, the order does not")
    assert problem.to_json() == {
        "type": "urn:ietf:params:acme:error:badCSR",
        "detail": "the CSR names b.internal, the order does not",
        "status": 400,
    }
    assert str(problem) == "badCSR: the CSR names b.internal, the order does not"


def test_a_document_says_algorithms_and_subproblems_where_it_has_them() -> None:
    wrong = Subproblem(ProblemType.CAA, "no", from_text("a.internal"))
    general = Subproblem(ProblemType.MALFORMED, "neither")
    document = Problem(
        ProblemType.COMPOUND, "several", subproblems=[wrong, general], algorithms=("ES256", "EdDSA")
    ).to_json()
    assert document["algorithms"] == ["ES256", "EdDSA"]
    assert document["subproblems"] == [
        {"type": URN + "caa", "detail": "no", "identifier": {"type": "dns", "value": "a.internal"}},
        # §6.7.1: "Subproblems need not all have the same type, and they do not need to match the top level type"
        {"type": URN + "malformed", "detail": "neither"},
    ]


@pytest.mark.parametrize(
    ("span", "seconds"),
    [
        (timedelta(minutes=5), "300"),
        (timedelta(seconds=1.6), "2"),
        (timedelta(milliseconds=1), "1"),
        (timedelta(0), "1"),
        (timedelta(seconds=-5), "1"),
    ],
)
def test_retry_after_is_in_whole_seconds_from_one_up(span: timedelta, seconds: str) -> None:
    problem = Problem(ProblemType.RATE_LIMITED, "slowly", headers={"Link": "<x>"}, retry_after=span)
    assert problem.headers == {"Link": "<x>", "Retry-After": seconds}


def test_headers_given_are_not_changed() -> None:
    headers = {"Link": "<x>"}
    Problem(ProblemType.RATE_LIMITED, "slowly", headers=headers, retry_after=timedelta(seconds=3))
    assert headers == {"Link": "<x>"}


@given(st.sampled_from(ProblemType), texts)
def test_every_document_is_json_that_comes_back(type: ProblemType, detail: str) -> None:
    document = Problem(type, detail, subproblems=[Subproblem(type, detail)]).to_json()
    assert from_json(to_json(document), "it") == json.loads(json.dumps(document)) == document


def identifier(name: str) -> Identifier:
    return Identifier(IdentifierType.DNS, name)


def test_what_is_wrong_with_one_identifier_is_the_problem() -> None:
    wrong = Subproblem(ProblemType.REJECTED_IDENTIFIER, "a.internal is not yours", identifier("a.internal"))
    problem = compound([wrong])
    assert (problem.type, problem.detail) == (ProblemType.REJECTED_IDENTIFIER, "a.internal is not yours")
    assert problem.subproblems == (wrong,)


def test_what_is_wrong_with_several_in_one_way_keeps_its_type() -> None:
    wrong = [Subproblem(ProblemType.CAA, f"{name} is not for us", identifier(name)) for name in ("a", "b", "c")]
    problem = compound(wrong)
    assert problem.type is ProblemType.CAA
    assert problem.detail.startswith("a is not for us")
    assert "2 more" in problem.detail
    assert problem.subproblems == tuple(wrong)


def test_what_is_wrong_in_several_ways_is_compound() -> None:
    wrong = [Subproblem(ProblemType.CAA, "no", identifier("a")), Subproblem(ProblemType.DNS, "no", identifier("b"))]
    problem = compound(wrong)
    assert problem.type is ProblemType.COMPOUND
    assert problem.type.status == 400
    assert [entry["type"] for entry in from_json(to_json(problem.to_json()), "it")["subproblems"]] == [
        URN + "caa",
        URN + "dns",
    ]
