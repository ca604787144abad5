import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privet.acme.identifiers import from_text
from privet.acme.reasons import REVOCATION_REASONS
from privet.ca.certificates import STATUS, Certificate, WrongStatus

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)

PREPARED = Certificate(
    id="0abc",
    serial=0x1234,
    identifiers=(from_text("a.internal"), from_text("10.0.0.1")),
    not_before=NOON,
    not_after=NOON + timedelta(hours=24),
    profile="default",
    authority="root",
    tbs=b"to be signed",
    requester="account",
    request="order",
)

times = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
certificates = st.builds(
    Certificate,
    id=st.text(min_size=1),
    status=st.sampled_from(["prepared", "valid", "revoked"]),
    serial=st.integers(1, 2**128 - 1),
    identifiers=st.lists(
        st.sampled_from(["a.internal", "*.b.internal", "10.0.0.1", "::1"]).map(from_text), min_size=1
    ).map(tuple),
    not_before=times,
    not_after=times,
    profile=st.text(),
    authority=st.text(),
    tbs=st.none() | st.binary(min_size=1),
    der=st.none() | st.binary(min_size=1),
    requester=st.none() | st.text(),
    request=st.none() | st.text(),
    revoked=st.none() | times,
    reason=st.none() | st.sampled_from(sorted(REVOCATION_REASONS)),
    clamped=st.booleans(),
    version=st.integers(0, 9),
    files=st.dictionaries(st.text(min_size=1), st.binary()),
)


@given(certificates)
def test_what_is_read_from_a_record_is_what_was_written(certificate: Certificate) -> None:
    assert Certificate.from_record(certificate.to_record()) == certificate


def test_a_record_is_found_by_serial_and_by_name_and_kept_for_a_week_after_the_end() -> None:
    record = PREPARED.to_record()
    assert (record.kind, record.id, record.version) == ("certificate", "0abc", 0)
    assert record.unique == ("serial:1234",)
    assert record.index == ("name:a.internal", "name:10.0.0.1")
    assert record.expires == PREPARED.not_after + timedelta(days=7)


def test_a_record_is_readable_by_a_person() -> None:
    assert json.loads(PREPARED.to_record().body) == {
        "status": "prepared",
        "serial": "1234",
        "identifiers": [["dns", "a.internal"], ["ip", "10.0.0.1"]],
        "not_before": "2026-06-01T12:00:00+00:00",
        "not_after": "2026-06-02T12:00:00+00:00",
        "profile": "default",
        "authority": "root",
        "tbs": "dG8gYmUgc2lnbmVk",
        "requester": "account",
        "request": "order",
    }


def test_a_certificate_is_prepared_then_valid_then_revoked() -> None:
    valid = PREPARED.signed(b"certificate")
    assert (valid.status, valid.tbs, valid.der) == ("valid", None, b"certificate")
    revoked = valid.revoke(NOON, 4)
    assert (revoked.status, revoked.revoked, revoked.reason) == ("revoked", NOON, 4)
    assert revoked._replace(status="valid", revoked=None, reason=None) == valid


@pytest.mark.parametrize("status", ["prepared", "valid", "revoked"])
def test_a_status_changes_along_its_table_and_in_no_other_way(status: str) -> None:
    certificate = PREPARED._replace(status=status)
    events: dict[str, Callable[[], Certificate]] = {
        "signed": lambda: certificate.signed(b"certificate"),
        "revoked": lambda: certificate.revoke(NOON),
    }
    for event, happen in events.items():
        if (status, event) in STATUS:
            assert happen().status == STATUS[status, event]
        else:
            with pytest.raises(WrongStatus, match=f"certificate 1234 is {status}; it cannot be {event}"):
                happen()


@pytest.mark.parametrize("reason", [-1, 2, 6, 7, 8, 10, 11])
def test_reasons_that_are_not_for_leaves_are_refused(reason: int) -> None:
    with pytest.raises(ValueError, match=rf"{reason} is not a usable revocation reason; usable are 0 \(unspecified\)"):
        PREPARED.signed(b"certificate").revoke(NOON, reason)


def test_what_is_not_signed_has_no_pem() -> None:
    with pytest.raises(WrongStatus):
        _ = PREPARED.cert_pem


def test_neither_key_nor_octets_are_in_the_repr() -> None:
    shown = repr(PREPARED._replace(der=b"certificate", files={"key.pem": b"s3cret"}))
    assert "s3cret" not in shown
    assert "to be signed" not in shown
    assert "a.internal" in shown
