"""What clients send, read exactly: any JSON object gives a value or a problem."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.laws import documents, outcome, texts

from privet.acme.encoding import to_base64url
from privet.acme.identifiers import Identifier, IdentifierType
from privet.acme.payloads import (
    NewAccount,
    NewOrder,
    Payload,
    Revocation,
    read_contact,
    read_finalize,
    read_new_authorization,
    read_status,
)
from privet.acme.problems import Problem, ProblemType


def read_order(payload: Payload) -> NewOrder:
    return NewOrder.read(payload, most=100)


READERS: list[Callable[[Payload], object]] = [
    NewAccount.read,
    read_order,
    Revocation.read,
    read_contact,
    read_finalize,
    read_new_authorization,
    read_status,
]
MEMBERS = """contact termsOfServiceAgreed onlyReturnExisting externalAccountBinding identifiers identifier notBefore
    notAfter certificate reason csr status type value"""
LIKELY = st.sampled_from(
    [
        "mailto:admin@example.org",
        "2026-03-01T12:00:00Z",
        "deactivated",
        "valid",
        "a.internal",
        {"type": "dns", "value": "a.internal"},
        {"type": "ip", "value": "::1"},
        {"type": "dns", "value": "*.a.internal"},
        True,
        1,
        "MAA",
    ]
)


def refused(type: ProblemType, call: Callable[[Payload], object], payload: Payload) -> Problem:
    with pytest.raises(Problem) as refusal:
        call(payload)
    assert refusal.value.type is type, refusal.value
    return refusal.value


def dns(value: object) -> dict[str, object]:
    return {"type": "dns", "value": value}


@given(
    st.sampled_from(READERS),
    st.dictionaries(
        st.sampled_from(MEMBERS.split()) | texts, LIKELY | documents | st.lists(LIKELY | documents, max_size=4)
    ),
)
def test_any_object_gives_a_value_or_a_problem(read: Callable[[Payload], object], payload: dict[str, object]) -> None:
    value = outcome(read, payload)
    assert not isinstance(value, Problem) or value.type.status in (400, 403)


@pytest.mark.parametrize("read", [NewAccount.read, read_contact, read_status])
def test_an_empty_object_and_unknown_members_are_fine(read: Callable[[Payload], object]) -> None:
    """§7.3, §7.4: "the server MUST ignore any ... unrecognized" members."""
    assert read({}) == read({"fish": [1, {"\ud800": 2}], "orders": "x"})


# newAccount


def test_an_account_is_read_as_it_stands() -> None:
    account = NewAccount.read(
        {
            "contact": ["mailto:a@example.org", "MAILTO:b@[IPv6:::1]"],
            "termsOfServiceAgreed": True,
            "onlyReturnExisting": True,
            "externalAccountBinding": {"protected": ""},
        }
    )
    assert account == NewAccount(("mailto:a@example.org", "MAILTO:b@[IPv6:::1]"), True, True, {"protected": ""})
    assert NewAccount.read({}) == NewAccount((), False, False, None)


@pytest.mark.parametrize("member", ["termsOfServiceAgreed", "onlyReturnExisting"])
@pytest.mark.parametrize("value", [None, 1, 0, "true", [], {}])
def test_a_flag_is_true_or_false(member: str, value: object) -> None:
    refused(ProblemType.MALFORMED, NewAccount.read, {member: value})


@pytest.mark.parametrize(
    "url",
    [
        "mailto:a@example.org",
        "mailto:first.last+tag@example.org",
        "mailto:o'brien!#$*/=^_`{|}~-@example.org",
        "mailto:a@localhost",
        "mailto:a@[192.0.2.1]",
        "MailTo:a@example.org",
    ],
)
def test_a_mailto_url_of_one_address_is_a_contact(url: str) -> None:
    assert read_contact({"contact": [url]}) == (url,)


@pytest.mark.parametrize(
    "url",
    [
        "mailto:",
        "mailto:a",
        "mailto:@example.org",
        "mailto:a@",
        "mailto:a@example.org,b@example.org",  # §7.3: "MUST NOT contain ... more than one addr-spec"
        "mailto:a@example.org?subject=x",  # §7.3: "MUST NOT contain "hfields""
        "mailto:a@example.org\r\nBcc: b@example.org",
        "mailto:a b@example.org",
        "mailto:a%2Cb@example.org",
        "mailto:a@exa mple.org",
        "mailto:\u00e9@example.org",
        "mailto:a@example.org\0",
        "mailto:a@example.org\n",
        "mailto:" + "a" * 65 + "@example.org",
        "mailto:a@" + "a" * 254,
        "mailto:\ud800@example.org",
    ],
)
def test_what_is_not_one_address_is_invalid(url: str) -> None:
    problem = refused(ProblemType.INVALID_CONTACT, read_contact, {"contact": ["mailto:a@example.org", url]})
    assert problem.detail.isprintable()


@pytest.mark.parametrize(
    "url", ["tel:+15551234", "https://example.org", "", "mailto", "a@example.org", "\ud800:", "x" * 9999]
)
def test_other_schemes_are_unsupported(url: str) -> None:
    problem = refused(ProblemType.UNSUPPORTED_CONTACT, read_contact, {"contact": [url]})
    assert problem.detail.isprintable()
    assert len(problem.detail) < 250


@pytest.mark.parametrize("contact", ["mailto:a@example.org", {}, 7, [7], [None], ["mailto:a@example.org", []]])
def test_contacts_are_a_list_of_texts(contact: object) -> None:
    refused(ProblemType.INVALID_CONTACT, read_contact, {"contact": contact})


def test_contacts_can_be_none_and_cannot_be_many() -> None:
    assert read_contact({}) is None
    assert read_contact({"contact": []}) == ()
    many = [f"mailto:a{number}@example.org" for number in range(11)]
    assert read_contact({"contact": many[:10]}) == tuple(many[:10])
    refused(ProblemType.INVALID_CONTACT, read_contact, {"contact": many})


# newOrder


def test_an_order_is_read_as_it_stands() -> None:
    order = read_order(
        {
            "identifiers": [
                dns("B.internal"),
                {"type": "ip", "value": "10.0.0.1"},
                dns("*.a.internal"),
                dns("b.INTERNAL"),
            ],
            "notBefore": "2026-03-01T13:00:00+01:00",
            "notAfter": "2026-03-02T12:00:00.5Z",
        }
    )
    # one name in two spellings is one identifier, where it was first mentioned
    assert order.identifiers == (
        Identifier(IdentifierType.DNS, "b.internal"),
        Identifier(IdentifierType.IP, "10.0.0.1"),
        Identifier(IdentifierType.DNS, "*.a.internal"),
    )
    assert order.not_before == datetime(2026, 3, 1, 12, tzinfo=UTC)
    # certificates know whole seconds
    assert order.not_after == datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize("identifiers", [None, [], {}, "a.internal", dns("a.internal"), 7, True])
def test_an_order_has_a_list_of_identifiers(identifiers: object) -> None:
    refused(ProblemType.MALFORMED, read_order, {"identifiers": identifiers})
    refused(ProblemType.MALFORMED, read_order, {})


@pytest.mark.parametrize(
    "entry",
    [
        "a.internal",
        None,
        [],
        {},
        {"type": "dns"},
        {"value": "a.internal"},
        dns(None),
        dns(7),
        dns(["a.internal"]),
        dns(""),
        dns("."),
        dns("a..internal"),
        dns("a.internal."),
        dns(".a.internal"),
        dns("-a.internal"),
        dns("a-.internal"),
        dns("a_b.internal"),
        dns("a b.internal"),
        dns("a.internal\0"),
        dns("a.internal\n"),
        dns("a" * 64 + ".internal"),
        dns("a." * 127 + "a"),
        dns("b\u00fccher.internal"),
        dns("xn--a.internal"),
        dns("*"),
        dns("*."),
        dns("a.*.internal"),
        dns("*.*.internal"),
        dns("*a.internal"),
        dns("10.0.0.1"),
        dns("1"),
        dns("0x7f.1"),
        dns("::1"),
        dns("\ud800.internal"),
        {"type": "ip", "value": "a.internal"},
        {"type": "ip", "value": "10.0.0.01"},
        {"type": "ip", "value": "10.0.0.0/8"},
        {"type": "ip", "value": "::0001"},
        {"type": "ip", "value": "FE80::1"},
        {"type": "ip", "value": "fe80::1%eth0"},
        {"type": "ip", "value": "::ffff:10.0.0.1"},
        {"type": "ip", "value": "\u0661.0.0.1"},
    ],
)
def test_what_is_no_identifier_is_malformed(entry: object) -> None:
    problem = refused(ProblemType.MALFORMED, read_order, {"identifiers": [dns("a.internal"), entry]})
    assert len(problem.subproblems) == 1
    assert problem.detail.isprintable()
    refused(ProblemType.MALFORMED, read_new_authorization, {"identifier": entry})


@pytest.mark.parametrize("type", ["email", "DNS", "Ip", "dns ", "", "TNAuthList", "permanent-identifier", "\ud800"])
def test_an_unknown_type_is_unsupported(type: str) -> None:
    """Lesson 2."""
    entry = {"type": type, "value": "a.internal"}
    problem = refused(ProblemType.UNSUPPORTED_IDENTIFIER, read_order, {"identifiers": [dns("a.internal"), entry]})
    assert problem.detail.isprintable()
    refused(ProblemType.UNSUPPORTED_IDENTIFIER, read_new_authorization, {"identifier": entry})


def test_identifiers_too_many_are_counted_and_not_read() -> None:
    """Or a small request for nonsense would bring megabytes of subproblems."""
    assert read_order({"identifiers": [dns("a.internal")] * 100}).identifiers
    problem = refused(ProblemType.MALFORMED, read_order, {"identifiers": [0] * 101})
    assert problem.detail == "101 identifiers in one order; 100 are allowed"
    assert not problem.subproblems


def test_whatever_is_wrong_is_named() -> None:
    """§6.7.1: one answer for all that is wrong."""
    entries = [dns("a.internal"), dns("b_1.internal"), {"type": "email", "value": "a@b"}, dns("c_1.internal")]
    problem = refused(ProblemType.COMPOUND, read_order, {"identifiers": entries})
    assert [each.type for each in problem.subproblems] == [
        ProblemType.MALFORMED,
        ProblemType.UNSUPPORTED_IDENTIFIER,
        ProblemType.MALFORMED,
    ]
    assert ["b_1" in problem.subproblems[0].detail, "c_1" in problem.subproblems[2].detail] == [True, True]


# RFC 3339


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-03-01T12:00:00Z", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01t12:00:00z", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01T12:00:00.000Z", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01T12:00:00.123456789Z", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01T12:00:00+00:00", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01T12:00:00-05:30", datetime(2026, 3, 1, 17, 30, tzinfo=UTC)),
        ("2026-02-28T23:59:59-00:00", datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC)),
        ("9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_time_is_read_as_rfc_3339_writes_it(text: str, time: datetime) -> None:
    assert read_order({"identifiers": [dns("a.internal")], "notAfter": text}).not_after == time


@pytest.mark.parametrize(
    "value",
    [
        "",
        "tomorrow",
        "2026-03-01",
        "2026-03-01T12:00:00",  # no offset
        "2026-03-01 12:00:00Z",  # "applications ... may choose" a space; RFC 8555 chose RFC 3339's T
        "2026-03-01T12:00Z",
        "2026-03-01T12Z",
        "20260301T120000Z",
        "2026-W09-7T12:00:00Z",
        "2026-060T12:00:00Z",
        "2026-03-01T12:00:00,5Z",
        "2026-03-01T12:00:00.Z",
        "2026-03-01T24:00:00Z",
        "2026-03-01T12:00:00+0100",
        "2026-03-01T12:00:00+01",
        "2026-03-01T12:00:00+01:00:30",
        "2026-03-01T12:00:00+24:00",
        "2026-02-29T12:00:00Z",
        "2026-13-01T12:00:00Z",
        "0000-01-01T00:00:00Z",
        "02026-03-01T12:00:00Z",
        " 2026-03-01T12:00:00Z",
        "2026-03-01T12:00:00Z\n",
        "2026-03-01T12:00:00Z\0",
        "\u0662026-03-01T12:00:00Z",
        "2026-03-01\ud80012:00:00Z",
        "0001-01-01T00:00:00+01:00",  # before the first year
        "9999-12-31T23:59:59-01:00",  # after the last
        1772366400,
        1772366400.5,
        True,
        ["2026-03-01T12:00:00Z"],
        {},
    ],
)
@pytest.mark.parametrize("member", ["notBefore", "notAfter"])
def test_what_is_no_time_of_rfc_3339_is_malformed(member: str, value: object) -> None:
    problem = refused(ProblemType.MALFORMED, read_order, {"identifiers": [dns("a.internal")], member: value})
    assert member in problem.detail


@given(
    st.datetimes(timezones=st.integers(-1439, 1439).map(lambda offset: timezone(timedelta(minutes=offset)))),
    st.booleans(),
)
def test_any_time_comes_back(aware: datetime, lower: bool) -> None:
    assume(1 < aware.year < 9999)  # elsewhere UTC may have no year for it
    text = aware.isoformat().lower() if lower else aware.isoformat()
    read = read_order({"identifiers": [dns("a.internal")], "notBefore": text}).not_before
    assert read == aware.replace(microsecond=0)
    assert read is not None
    assert read.tzinfo is UTC


@given(st.text("0123456789-:TZ.+ W", max_size=30) | texts)
def test_any_text_gives_a_time_or_a_problem(text: str) -> None:
    order = outcome(read_order, {"identifiers": [dns("a.internal")], "notBefore": text})
    assert isinstance(order, NewOrder) or order.type is ProblemType.MALFORMED


# newAuthz


def test_an_identifier_is_authorized_ahead_unless_it_is_a_wildcard() -> None:
    """§7.4.1: "the server ... MUST NOT" make wildcard authorizations this way."""
    assert read_new_authorization({"identifier": dns("A.internal")}) == Identifier(IdentifierType.DNS, "a.internal")
    refused(ProblemType.MALFORMED, read_new_authorization, {"identifier": dns("*.a.internal")})
    refused(ProblemType.MALFORMED, read_new_authorization, {})


# finalize, revokeCert, status


def test_a_csr_is_base64url() -> None:
    assert read_finalize({"csr": to_base64url(b"\x30\x00")}) == b"\x30\x00"
    for value in (None, 7, "MAA=", "MA==", "-----BEGIN CERTIFICATE REQUEST-----", ["MAA"]):
        refused(ProblemType.MALFORMED, read_finalize, {"csr": value})
    refused(ProblemType.MALFORMED, read_finalize, {})


def test_a_revocation_has_a_certificate_and_perhaps_a_reason() -> None:
    assert Revocation.read({"certificate": "MAA"}) == Revocation(b"\x30\x00", 0)
    for reason in (0, 1, 3, 4, 5, 9):
        assert Revocation.read({"certificate": "MAA", "reason": reason}).reason == reason
    refused(ProblemType.MALFORMED, Revocation.read, {})
    refused(ProblemType.MALFORMED, Revocation.read, {"certificate": "MAA="})
    refused(ProblemType.MALFORMED, Revocation.read, {"certificate": None})


@pytest.mark.parametrize("reason", [2, 6, 7, 8, 10, 11, -1, 255, 10**4000, 1.0, True, False, "1", None, [], {}])
def test_reasons_that_no_client_may_give_are_refused(reason: object) -> None:
    """RFC 5280 §5.3.1; the everyday list."""
    refused(ProblemType.BAD_REVOCATION_REASON, Revocation.read, {"certificate": "MAA", "reason": reason})


def test_a_status_is_a_text() -> None:
    assert read_status({}) is None
    assert read_status({"status": "deactivated"}) == "deactivated"
    assert read_status({"status": "\ud800"}) == "\ud800"
    values: list[object] = [7, True, [], {}, ["deactivated"]]
    for value in values:
        refused(ProblemType.MALFORMED, read_status, {"status": value})
