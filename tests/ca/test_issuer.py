from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from tests.certificates import assert_is_ca, assert_is_leaf, openssl_verify

from privet.acme.identifiers import from_text
from privet.ca import keys
from privet.ca.certificates import AuthorityError
from privet.ca.issuer import Issuer, make_root, new_serial
from privet.ca.keys import KeyType
from privet.ca.profiles import CLIENT, DEFAULT
from privet.ca.tbs import to_pem

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
ROOTS = {key_type: make_root(keys.generate(key_type), f"{key_type} root", NOON, 10 * DAY) for key_type in KeyType}
ROOT = ROOTS[KeyType.P256]


@pytest.mark.parametrize("key_type", KeyType)
def test_a_root_is_a_ca_and_openssl_says_so(key_type: KeyType) -> None:
    root = ROOTS[key_type]
    assert_is_ca(root.chain[0], cn=f"{key_type} root")
    openssl_verify(root.chain_pem, root.chain_pem, purpose="any", at=NOON)


def test_a_root_began_an_hour_ago_and_lives_exactly_as_long_as_was_asked() -> None:
    (root,) = make_root(keys.generate(KeyType.P256), "root", NOON + timedelta(microseconds=999_999), 3650 * DAY).chain
    assert root.not_valid_before_utc == NOON - timedelta(hours=1)
    assert root.not_valid_after_utc - root.not_valid_before_utc == 3650 * DAY


@pytest.mark.parametrize("cn", ["", "x" * 65])
def test_a_root_needs_a_name_that_fits(cn: str) -> None:
    with pytest.raises(ValueError, match="length"):
        make_root(keys.generate(KeyType.P256), cn, NOON, DAY)


@pytest.mark.parametrize("client", [False, True])
@pytest.mark.parametrize("leaf_type", [KeyType.P256, KeyType.P384, KeyType.RSA2048, KeyType.ED25519])
@pytest.mark.parametrize("root_type", KeyType)
def test_every_kind_of_root_signs_every_kind_of_leaf(root_type: KeyType, leaf_type: KeyType, client: bool) -> None:
    root, key = ROOTS[root_type], keys.generate(leaf_type).public_key()
    names = ["worker-1.internal", "*.w.internal", "10.0.0.1", "2001:db8::1"]
    to_be_signed = root.leaf(
        new_serial(), NOON, NOON + DAY, key, [from_text(name) for name in names], CLIENT if client else DEFAULT
    )
    leaf = x509.load_der_x509_certificate(root.sign(to_be_signed))
    assert leaf.tbs_certificate_bytes == to_be_signed
    assert leaf.public_key() == key
    assert_is_leaf(leaf, issuer=root.chain[0], names=names, client=client)
    for name in names[:1] + names[2:]:
        openssl_verify(
            to_pem(root.sign(to_be_signed)),
            root.chain_pem,
            name=name,
            purpose="sslclient" if client else "sslserver",
            at=NOON + timedelta(hours=1),
        )


@pytest.mark.parametrize(
    "names",
    [
        ["10.0.0.1", "a.internal"],
        ["2001:db8::1"],
        [f"{'a' * 56}.internal"],  # 65 characters, one more than a common name may have
        [f"{'a' * 55}.internal"],  # 64
        [f"{'a' * 63}.{'b' * 63}.{'c' * 63}.internal"],
    ],
)
def test_only_a_dns_name_that_fits_becomes_the_common_name(names: list[str]) -> None:
    key = keys.generate(KeyType.P256).public_key()
    der = ROOT.sign(ROOT.leaf(new_serial(), NOON, NOON + DAY, key, [from_text(name) for name in names], DEFAULT))
    assert_is_leaf(x509.load_der_x509_certificate(der), issuer=ROOT.chain[0], names=names)
    openssl_verify(to_pem(der), ROOT.chain_pem, name=names[0], at=NOON)


def test_serial_numbers_are_positive_random_and_of_128_bits() -> None:
    serials = {new_serial() for _ in range(1000)}
    assert len(serials) == 1000
    assert all(0 < serial < 2**128 for serial in serials)
    assert max(serials) > 2**127


# --- when a certificate begins and ends ---


@pytest.mark.parametrize(
    ("validity", "head_start"),
    [
        (DAY, timedelta(minutes=5)),
        (timedelta(hours=2), timedelta(minutes=5)),
        (timedelta(hours=1), timedelta(minutes=2, seconds=30)),
        (timedelta(seconds=24), timedelta(seconds=1)),
    ],
)
def test_a_leaf_begins_a_little_in_the_past_and_its_span_is_what_was_asked(
    validity: timedelta, head_start: timedelta
) -> None:
    begin, end, clamped = ROOT.span(NOON, None, None, validity)
    assert begin == NOON - head_start
    assert end - begin == validity
    assert not clamped


def test_times_asked_for_are_the_times_given() -> None:
    begin, end = NOON + timedelta(hours=1), NOON + timedelta(hours=2)
    assert ROOT.span(NOON, begin, end, DAY) == (begin, end, False)
    assert ROOT.span(NOON, begin, None, DAY) == (begin, begin + DAY, False)
    assert ROOT.span(NOON, None, end, DAY) == (NOON - timedelta(minutes=5), end, False)
    elsewhere = timezone(timedelta(hours=2))
    assert ROOT.span(NOON, begin.astimezone(elsewhere), end.astimezone(elsewhere), DAY) == (begin, end, False)


def test_a_leaf_is_cut_off_where_its_issuer_ends_and_says_so() -> None:
    assert ROOT.span(NOON, None, None, 20 * DAY) == (NOON - timedelta(minutes=5), ROOT.not_after, True)
    assert ROOT.span(NOON, NOON - DAY, NOON + DAY, DAY) == (ROOT.not_before, NOON + DAY, True)
    almost_over = ROOT.not_after - timedelta(minutes=1)
    assert ROOT.span(almost_over, None, None, DAY)[1:] == (ROOT.not_after, True)


@pytest.mark.parametrize("now", [-timedelta(seconds=3601), 10 * DAY - timedelta(hours=1), 20 * DAY])
def test_an_issuer_signs_only_in_its_own_time(now: timedelta) -> None:
    with pytest.raises(AuthorityError, match="cannot sign at"):
        ROOT.span(NOON + now, None, None, DAY)


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        (NOON + DAY, NOON + timedelta(hours=1)),
        (NOON + DAY, NOON + DAY),
        (None, NOON),
        (None, NOON - DAY),
        (NOON - DAY, NOON - timedelta(seconds=1)),
        (NOON + 30 * DAY, None),
        (NOON - 30 * DAY, NOON - 20 * DAY),
        (NOON + timedelta(hours=1), NOON + timedelta(hours=1, microseconds=1)),
    ],
)
def test_times_at_which_a_certificate_would_never_be_valid_are_refused(
    begin: datetime | None, end: datetime | None
) -> None:
    with pytest.raises(AuthorityError, match="is never valid"):
        ROOT.span(NOON, begin, end, DAY)


moments = st.datetimes(datetime(2026, 5, 1), datetime(2026, 7, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(
    now=moments,
    begin=st.none() | moments,
    end=st.none() | moments,
    validity=st.timedeltas(timedelta(0), 400 * DAY),
)
def test_no_span_leaves_that_of_the_issuer(
    now: datetime, begin: datetime | None, end: datetime | None, validity: timedelta
) -> None:
    try:
        not_before, not_after, clamped = ROOT.span(now, begin, end, validity)
    except AuthorityError:
        return
    assert ROOT.not_before <= not_before < not_after <= ROOT.not_after
    assert not_after > now
    assert not_before.microsecond == not_after.microsecond == 0
    if not clamped:
        whole = timedelta(seconds=1)
        assert begin is None or timedelta(0) <= begin - not_before < whole
        assert end is None or timedelta(0) <= end - not_after < whole
        assert end is not None or timedelta(0) <= validity - (not_after - not_before) < whole


def test_a_key_and_a_certificate_that_do_not_belong_together_make_no_issuer() -> None:
    with pytest.raises(AuthorityError, match="does not belong"):
        Issuer.of(keys.generate(KeyType.P256), ROOT.chain)


def test_the_key_is_not_in_the_repr() -> None:
    assert "key=" not in repr(ROOT).replace("public_key=", "")
