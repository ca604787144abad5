"""What is kept of accounts, orders and authorizations: read back as it was written, and settled by the clock."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privet.acme.challenges import ChallengeType
from privet.acme.identifiers import Identifier, IdentifierType
from privet.acme.problems import Problem, ProblemType
from privet.acme.status import ACCOUNT, AUTHORIZATION, CHALLENGE, ORDER, IllegalTransition, Status, Table
from privet.server.policy import Decision, Ruling
from privet.server.records import Account, Authorization, Challenge, Order, settle

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER, PAST = NOW + timedelta(days=1), NOW - timedelta(seconds=1)
NAME = Identifier(IdentifierType.DNS, "a.internal")
NO = Problem(ProblemType.DNS, "there is no a.internal")


def authorization(status: Status = Status.PENDING, *, expires: datetime = LATER, **changes: Any) -> Authorization:
    made = Authorization(
        id="a1",
        status=status,
        account="c1",
        identifier=NAME,
        challenges=(Challenge(ChallengeType.HTTP_01, "one"), Challenge(ChallengeType.DNS_01, "two")),
        created=NOW,
        expires=expires,
    )
    return made._replace(**changes)


def order(status: Status = Status.PENDING, **changes: Any) -> Order:
    made = Order(
        id="o1",
        status=status,
        account="c1",
        identifiers=(NAME,),
        authorizations=("a1", "a2"),
        not_before=None,
        not_after=None,
        expires=LATER,
    )
    return made._replace(**changes)


def account(status: Status = Status.VALID, **changes: Any) -> Account:
    made = Account(
        id="c1",
        status=status,
        jwk={"kty": "EC"},
        thumbprint="print",
        contact=("mailto:a@example.org",),
        terms_of_service_agreed=True,
        external_account=None,
        binding=None,
        created=NOW,
        expires=LATER,
        authority="root",
    )
    return made._replace(**changes)


# --- written and read back ---

TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001
    lambda time: time.replace(microsecond=time.microsecond // 1000 * 1000)
)
MAYBE = st.none() | TIMES
ERRORS = st.none() | st.just(NO.to_json())
IDENTIFIERS = st.sampled_from([NAME, Identifier(IdentifierType.IP, "10.0.0.1"), Identifier(IdentifierType.IP, "::1")])
CHALLENGES = st.builds(
    Challenge,
    type=st.sampled_from(ChallengeType),
    token=st.text(),
    status=st.sampled_from([Status.PENDING, *CHALLENGE.values()]),
    thumbprint=st.none() | st.text(),
    lease=MAYBE,
    validated=MAYBE,
    error=ERRORS,
)
VALIDATIONS = st.none() | st.dictionaries(st.text(), st.text(), max_size=3)
RULINGS = st.builds(Ruling, st.sampled_from(Decision), st.text())
AUTHORIZATIONS = st.builds(
    Authorization,
    id=st.text(min_size=1),
    status=st.sampled_from([Status.PENDING, *AUTHORIZATION.values()]),
    account=st.text(),
    identifier=IDENTIFIERS,
    challenges=st.lists(CHALLENGES, max_size=3).map(tuple),
    created=TIMES,
    expires=TIMES,
    ahead=st.booleans(),
    client=st.text(),
    order=st.none() | st.text(),
    validation=VALIDATIONS,
    ruling=RULINGS,
    version=st.integers(0, 9),
)
ORDERS = st.builds(
    Order,
    id=st.text(min_size=1),
    status=st.sampled_from([Status.PENDING, Status.PROCESSING, Status.VALID, Status.INVALID]),
    account=st.text(),
    identifiers=st.lists(IDENTIFIERS, max_size=3).map(tuple),
    authorizations=st.lists(st.text(), max_size=3).map(tuple),
    not_before=MAYBE,
    not_after=MAYBE,
    expires=TIMES,
    certificate=st.none() | st.text(),
    started=MAYBE,
    error=ERRORS,
    kept_until=TIMES,
    shared=st.lists(st.text(), max_size=3).map(tuple),
    proofs=st.lists(st.dictionaries(st.text(), st.text(), max_size=3), max_size=3).map(tuple),
    rulings=st.lists(RULINGS, max_size=3).map(tuple),
    version=st.integers(0, 9),
)
ACCOUNTS = st.builds(
    Account,
    id=st.text(min_size=1),
    status=st.sampled_from([Status.VALID, Status.DEACTIVATED, Status.REVOKED]),
    jwk=st.dictionaries(st.text(), st.text(), max_size=3),
    thumbprint=st.text(),
    contact=st.lists(st.text(), max_size=3).map(tuple),
    terms_of_service_agreed=st.booleans(),
    external_account=st.none() | st.text(),
    binding=st.none() | st.dictionaries(st.text(), st.text(), max_size=3),
    created=TIMES,
    expires=TIMES,
    authority=st.text(),
    earlier=st.lists(st.text(), max_size=3).map(tuple),
    version=st.integers(0, 9),
)


@given(AUTHORIZATIONS)
def test_an_authorization_is_read_back_as_it_was_written(made: Authorization) -> None:
    assert Authorization.from_record(made.to_record()) == made


@given(ORDERS)
def test_an_order_is_read_back_as_it_was_written(made: Order) -> None:
    assert Order.from_record(made.to_record()) == made


@given(ACCOUNTS)
def test_an_account_is_read_back_as_it_was_written(made: Account) -> None:
    assert Account.from_record(made.to_record()) == made


def test_records_from_before_there_were_rulings_are_read() -> None:
    for made in (authorization(), order(rulings=(Ruling(Decision.PROVE),), kept_until=LATER)):
        record = made.to_record()
        body = {key: value for key, value in json.loads(record.body).items() if not key.startswith("ruling")}
        assert type(made).from_record(record._replace(body=json.dumps(body).encode())) == made


# --- names in the store ---


@pytest.mark.parametrize(
    ("made", "names"),
    [
        (authorization(), {"c1:a.internal", "pending", "pending:c1"}),
        (authorization(ahead=True), {"c1:a.internal", "pending", "pending:c1", "ahead:c1"}),
        (authorization(Status.VALID, ahead=True), {"c1:a.internal", "ahead:c1"}),
        (authorization(Status.VALID), {"c1:a.internal"}),
        (authorization(Status.DEACTIVATED, ahead=True), {"c1:a.internal"}),
        (order(), {"account:c1", "open:c1"}),
        (order(Status.PROCESSING), {"account:c1", "open:c1"}),
        (order(Status.VALID), {"account:c1"}),
        (order(Status.INVALID), {"account:c1"}),
    ],
)
def test_what_waits_and_what_is_open_is_found_by_name(made: Authorization | Order, names: set[str]) -> None:
    assert set(made.to_record().index) == names
    assert made.to_record().unique == ()


def test_a_key_has_one_account_with_each_authority() -> None:
    (name,) = account().to_record().unique
    assert account(id="c2").to_record().unique == (name,)
    assert account(authority="other").to_record().unique != (name,)
    assert account().lapse().to_record().unique != (name,)
    assert account().lapse().to_record().unique != account(id="c2").lapse().to_record().unique


def test_an_order_is_kept_until_it_expires_or_as_long_as_its_certificate() -> None:
    """Lesson 24."""
    assert order().to_record().expires == LATER
    ready = settle(order(), [authorization(Status.VALID)] * 2, NOW)
    begun = ready.begin("cert", NOW, LATER + timedelta(days=7))
    for kept in (begun, begun.resume(LATER), begun.issued(), begun.failed(NO)):
        assert kept.to_record().expires == LATER + timedelta(days=7)
        assert Order.from_record(kept.to_record()).expires == LATER


# --- what an order is by its authorizations and the clock ---

STATUSES = [Status.PENDING, Status.VALID, Status.INVALID, Status.DEACTIVATED, Status.EXPIRED, Status.REVOKED, None]


@pytest.mark.parametrize(("one", "two"), list(product(STATUSES, STATUSES)))
def test_a_pending_order_is_what_its_authorizations_make_of_it(one: Status | None, two: Status | None) -> None:
    """RFC 8555 §7.1.6; an authorization that is gone (None) counts as refused."""
    authorizations = [None if each is None else authorization(each) for each in (one, two)]
    expected = Status.INVALID
    if {one, two} == {Status.VALID}:
        expected = Status.READY
    elif {one, two} <= {Status.VALID, Status.PENDING}:
        expected = Status.PENDING
    assert settle(order(), authorizations, NOW).status is expected
    # Past its expiry it is invalid whatever they are.
    assert settle(order(), authorizations, LATER).status is Status.INVALID


def test_settling_looks_at_the_clock_of_each_authorization() -> None:
    valid, pending = authorization(Status.VALID, expires=PAST), authorization(expires=PAST)
    assert (valid.settle(NOW).status, pending.settle(NOW).status) == (Status.EXPIRED, Status.INVALID)
    assert valid.settle(PAST - timedelta(seconds=1)) == valid
    assert settle(order(), [authorization(Status.VALID), valid], NOW).status is Status.INVALID
    for final in (Status.INVALID, Status.DEACTIVATED, Status.REVOKED, Status.EXPIRED):
        assert authorization(final, expires=PAST).settle(NOW).status is final


@pytest.mark.parametrize("status", [Status.PROCESSING, Status.VALID, Status.INVALID])
def test_what_has_been_decided_is_settled(status: Status) -> None:
    """`processing` and `valid` orders never become anything else for what happens to their authorizations."""
    decided = order(status)
    assert settle(decided, [authorization(Status.DEACTIVATED), None], LATER + timedelta(days=100)) == decided


def test_an_invalid_order_carries_the_error_of_its_authorization() -> None:
    refused = authorization().challenges[1].answer("print", None).refuse(NO)
    invalid = authorization().with_challenge(refused)
    assert invalid.status is Status.INVALID
    assert settle(order(), [authorization(), invalid], NOW).error == NO.to_json()


def test_settling_writes_nothing_and_changes_nothing_else() -> None:
    before = order()
    after = settle(before, [authorization(Status.VALID)] * 2, NOW)
    assert after._replace(status=before.status) == before


# --- verbs ---


def test_a_challenge_keeps_the_key_that_answered_it_first() -> None:
    """Lesson 8."""
    answered = Challenge(ChallengeType.HTTP_01, "token").answer("old", NOW)
    again = answered.answer("new", LATER)
    assert (answered.thumbprint, again.thumbprint, again.lease) == ("old", "old", LATER)
    for decided in (again.validate(NOW), again.refuse(NO)):
        assert decided.lease is None
        with pytest.raises(IllegalTransition):
            decided.answer("new", None)


def test_a_challenge_decides_its_authorization() -> None:
    answered = authorization().challenges[0].answer("print", None)
    assert authorization().with_challenge(answered).status is Status.PENDING
    valid = authorization().with_challenge(answered.validate(NOW))
    assert (valid.status, valid.challenges[0].validated, valid.challenges[1].status) == (
        Status.VALID,
        NOW,
        Status.PENDING,
    )
    with pytest.raises(IllegalTransition):
        authorization(Status.DEACTIVATED).with_challenge(answered.validate(NOW))


@pytest.mark.parametrize("status", Status)
def test_no_verb_does_what_its_table_does_not_say(status: Status) -> None:
    challenge = Challenge(ChallengeType.HTTP_01, "token", status)
    verbs: dict[str, tuple[Table, str, Callable[[], Any]]] = {
        "deactivate account": (ACCOUNT, "deactivated", lambda: account(status).deactivate()),
        "deactivate": (AUTHORIZATION, "deactivated", lambda: authorization(status).deactivate()),
        "begin": (ORDER, "finalized", lambda: order(status).begin("cert", NOW, LATER)),
        "issued": (ORDER, "issued", lambda: order(status).issued()),
        "failed": (ORDER, "failed", lambda: order(status).failed(NO)),
        "answer": (CHALLENGE, "answered", lambda: challenge.answer("print", None)),
        "validate": (CHALLENGE, "validated", lambda: challenge.validate(NOW)),
        "refuse": (CHALLENGE, "refused", lambda: challenge.refuse(NO)),
    }
    for table, event, verb in verbs.values():
        expected = {before: after for (before, on), after in table.items() if on == event}.get(status)
        if expected is None:
            with pytest.raises(IllegalTransition):
                verb()
        else:
            assert verb().status is expected
