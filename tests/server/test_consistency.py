"""What the books say, when each record is as it should be and when they do not belong together."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest

from privet import CertificateAuthority, MemoryStore
from privet.acme.identifiers import from_text
from privet.acme.status import Status
from privet.ca import CLIENT, KeyType, keys
from privet.ca.certificates import KEPT_AFTER_EXPIRY, Certificate
from privet.server.consistency import check
from privet.server.records import Order
from privet.stores import Record

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture(scope="module")
def ca() -> CertificateAuthority:
    made = CertificateAuthority(MemoryStore())
    made.init()
    return made


def told(ca: CertificateAuthority, *more: Certificate | Order | Record, now: datetime = NOW) -> list[str]:
    """What is said of the authority with these."""
    records: Iterable[Record] = [each if isinstance(each, Record) else each.to_record() for each in more]
    return list(check([*ca.store.find("ca"), *sorted(records, key=lambda each: (each.kind, each.id))], now))


def made(ca: CertificateAuthority, request: str | None = None, name: str = "a.internal") -> Certificate:
    key = keys.generate(KeyType.P256).public_key()
    return ca.sign(ca.prepare(key, [from_text(name)], requester="1", request=request))


def order(certificate: Certificate | None, id: str = "1", status: Status = Status.VALID) -> Order:
    return Order(
        id=id,
        status=status,
        account="1",
        identifiers=(from_text("a.internal"),),
        authorizations=(),
        not_before=None,
        not_after=None,
        expires=NOW + timedelta(days=1),
        certificate=certificate.id if certificate else None,
        kept_until=certificate.not_after + KEPT_AFTER_EXPIRY if certificate else None,
    )


def test_a_certificate_and_its_order(ca: CertificateAuthority) -> None:
    certificate = made(ca, "1")
    assert told(ca, certificate, order(certificate)) == []


@pytest.mark.parametrize("name", ["*.a.internal", "10.0.0.1", "fd00::1", "bücher.internal"])
def test_names_of_all_kinds(ca: CertificateAuthority, name: str) -> None:
    assert told(ca, made(ca, name=name)) == []


def test_a_client_with_a_common_name_alone(ca: CertificateAuthority) -> None:
    key = keys.generate(KeyType.P256).public_key()
    certificate = ca.sign(ca.prepare(key, [], common_name="epoch_user", profile=CLIENT))
    assert told(ca, certificate) == []
    assert told(ca, certificate._replace(common_name="postgres")) == [
        f"the certificate {certificate.serial:x} has another common name on it: 'epoch_user'"
    ]
    both = ca.sign(ca.prepare(key, [from_text("a.internal")], common_name="epoch_user", profile=CLIENT))
    assert told(ca, both) == []


def test_what_is_about_to_be_signed(ca: CertificateAuthority) -> None:
    prepared = ca.prepare(keys.generate(KeyType.P256).public_key(), [from_text("a.internal")], request="1")
    assert told(ca, prepared, order(prepared, status=Status.PROCESSING)) == []
    (sentence,) = told(ca, prepared, order(prepared))
    assert sentence == f"the order 1 is valid, and its certificate {prepared.serial:x} is prepared"
    assert told(ca, prepared._replace(tbs=None, request=None)) == [
        f"the certificate {prepared.serial:x} is prepared, and what is to be signed is not on record"
    ]


def test_one_of_both_is_missing(ca: CertificateAuthority) -> None:
    certificate = made(ca, "1")
    assert told(ca, order(certificate)) == [
        f"the order 1 is valid, and its certificate {certificate.id} is not on record"
    ]
    assert told(ca, order(None)) == ["the order 1 has to have a certificate, and names none"]
    alone = [
        f"the certificate {certificate.serial:x} was made for the order 1, which is not on record or does not name it"
    ]
    assert told(ca, certificate) == alone


def test_what_may_be_pruned_goes_one_after_the_other(ca: CertificateAuthority) -> None:
    certificate = made(ca, "1")
    later = certificate.not_after + KEPT_AFTER_EXPIRY
    assert told(ca, certificate, now=later) == told(ca, order(certificate), now=later) == []


def test_two_of_one(ca: CertificateAuthority) -> None:
    one, two = made(ca, "1"), made(ca, "1")
    assert "the order 1 has 2 certificates" in told(ca, one, two, order(one))
    twin = one._replace(id="twin")
    found = told(ca, one, twin, order(one))
    assert f"the serial number {one.serial:x} is that of 2 certificates" in found
    assert any("both have the unique name" in sentence for sentence in found)


def test_a_signature_that_is_none_and_a_record_that_hides(ca: CertificateAuthority) -> None:
    certificate = made(ca)
    assert certificate.der
    forged = certificate._replace(der=certificate.der[:-1] + bytes([certificate.der[-1] ^ 1]))
    begin = f"the certificate {certificate.serial:x}"
    assert told(ca, forged) == [f"{begin} is not signed by the authority 'root'"]
    assert told(ca, certificate._replace(authority="other")) == [
        f"{begin} belongs to the authority 'other', which is not in the store"
    ]
    assert told(ca, certificate._replace(der=None)) == [f"{begin} is valid, and itself not on record"]
    assert told(ca, certificate._replace(not_before=NOW)) == [f"{begin} has another span on it"]
    hidden = certificate.to_record()._replace(unique=(), expires=NOW)
    assert told(ca, hidden) == [
        f"{begin} cannot be found by its serial number",
        f"{begin} may be forgotten before it ends",
    ]
    assert told(ca, Record("order", "1", b"nothing"), Record("account", "1", b"[]")) == [
        "account 1 cannot be read: AssertionError",
        "order 1 cannot be read: JSONDecodeError",
    ]
