"""Whether the records of a store are what they should be, and belong together.

The law of this module: it looks at every record once, and holds none of them, so that there may be millions.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from privet.ca.certificates import KIND as CERTIFICATE
from privet.ca.certificates import Certificate, serial_name
from privet.server.external_accounts import ExternalAccountKey
from privet.server.records import Account, Authorization, Kind, Order
from privet.stores.base import Record

# What was seen, in a database of SQLite's own that is gone afterwards: what does not fit into memory lies on disk.
_SEEN = """
    CREATE TABLE certificate (
        id TEXT PRIMARY KEY, serial TEXT, request TEXT, status TEXT, kept INTEGER  -- 0 once it may be pruned
    );
    CREATE INDEX certificate_serial ON certificate (serial);
    CREATE INDEX certificate_request ON certificate (request);
    CREATE TABLE request (id TEXT PRIMARY KEY, certificate TEXT, status TEXT, kept INTEGER);
    CREATE TABLE name (kind TEXT, name TEXT, id TEXT, PRIMARY KEY (kind, name)) WITHOUT ROWID;
"""

# Questions about all of them, each with the sentence that an answer is told in.
_QUESTIONS = (
    (
        "SELECT serial, count(*) FROM certificate GROUP BY serial HAVING count(*) > 1",
        "the serial number {} is that of {} certificates",
    ),
    (
        "SELECT request, count(*) FROM certificate WHERE request IS NOT NULL GROUP BY request HAVING count(*) > 1",
        "the order {} has {} certificates",
    ),
    (
        """SELECT request.id, request.status, request.certificate FROM request
        LEFT JOIN certificate ON certificate.id = request.certificate
        WHERE request.certificate IS NOT NULL AND request.kept AND certificate.id IS NULL""",
        "the order {} is {}, and its certificate {} is not on record",
    ),
    (
        "SELECT id FROM request WHERE status IN ('valid', 'processing') AND certificate IS NULL",
        "the order {} has to have a certificate, and names none",
    ),
    (
        """SELECT certificate.serial, certificate.request FROM certificate
        LEFT JOIN request ON request.id = certificate.request
        WHERE certificate.request IS NOT NULL AND certificate.kept
            AND (request.id IS NULL OR request.certificate IS NOT certificate.id)""",
        "the certificate {} was made for the order {}, which is not on record or does not name it",
    ),
    (
        """SELECT request.id, request.status, certificate.serial, certificate.status FROM request
        JOIN certificate ON certificate.id = request.certificate
        WHERE (request.status = 'valid') <> (certificate.status <> 'prepared')""",
        "the order {} is {}, and its certificate {} is {}",
    ),
)


def check(records: Iterable[Record], now: datetime) -> Iterator[str]:
    """Yield a sentence for each thing that is wrong with the records of a store, which come in order of kind and id.

    Every certificate is read, compared with its record, and its signature verified; serial numbers and unique names
    are there once; orders and certificates name each other.
    """
    with contextlib.closing(sqlite3.connect("")) as seen:
        seen.executescript(_SEEN)
        issuers: dict[str, x509.Certificate] = {}
        for record in records:
            for name in record.unique:
                taken = seen.execute("SELECT id FROM name WHERE kind = ? AND name = ?", (record.kind, name)).fetchone()
                if taken:
                    yield f"{record.kind} {record.id} and {taken[0]} both have the unique name {name}"
                else:
                    seen.execute("INSERT INTO name VALUES (?, ?, ?)", (record.kind, name, record.id))
            try:
                yield from _check_one(record, now, issuers, seen)
            except Exception as error:  # whatever comes of bytes that are not what they should be
                yield f"{record.kind} {record.id} cannot be read: {type(error).__name__}"
        for question, sentence in _QUESTIONS:
            for answer in seen.execute(question):
                yield sentence.format(*answer)


def _check_one(
    record: Record, now: datetime, issuers: dict[str, x509.Certificate], seen: sqlite3.Connection
) -> Iterator[str]:
    kept = record.expires is None or record.expires > now
    match record.kind:
        case "ca":
            issuers[record.id] = x509.load_pem_x509_certificates(record.files["cert.pem"])[0]
        case _ if record.kind == CERTIFICATE:
            found = Certificate.from_record(record)
            facts = (found.id, f"{found.serial:x}", found.request, found.status, kept)
            seen.execute("INSERT INTO certificate VALUES (?, ?, ?, ?, ?)", facts)
            for wrong in _check_certificate(record, found, issuers):
                yield f"the certificate {found.serial:x} {wrong}"
        case Kind.ORDER:
            order = Order.from_record(record)
            seen.execute(
                "INSERT INTO request VALUES (?, ?, ?, ?)", (order.id, order.certificate, str(order.status), kept)
            )
        case _ if record.kind in _READERS:
            _READERS[record.kind](record)


_READERS: Mapping[str, Callable[[Record], object]] = {
    Kind.ACCOUNT: Account.from_record,
    Kind.AUTHORIZATION: Authorization.from_record,
    Kind.EXTERNAL_ACCOUNT_KEY: ExternalAccountKey.from_record,
}


def _check_certificate(record: Record, found: Certificate, issuers: dict[str, x509.Certificate]) -> Iterator[str]:
    """Yield the ends of sentences that begin with the certificate."""
    if serial_name(found.serial) not in record.unique:
        yield "cannot be found by its serial number"
    if record.expires is None or record.expires < found.not_after:
        yield "may be forgotten before it ends"
    if found.status == "prepared":
        if not found.tbs:
            yield "is prepared, and what is to be signed is not on record"
        return
    if not found.der:
        yield f"is {found.status}, and itself not on record"
        return
    certificate = x509.load_der_x509_certificate(found.der)
    told = _names(certificate)
    if certificate.serial_number != found.serial:
        yield f"has another serial number on it: {certificate.serial_number:x}"
    if told != {identifier.value for identifier in found.identifiers}:
        yield f"has other names on it: {', '.join(sorted(told))}"
    for cn in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME):
        if cn.value not in found.names:
            yield f"has another common name on it: {cn.value!a}"
    if (certificate.not_valid_before_utc, certificate.not_valid_after_utc) != (found.not_before, found.not_after):
        yield "has another span on it"
    if (issuer := issuers.get(found.authority)) is None:
        yield f"belongs to the authority {found.authority!r}, which is not in the store"
        return
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        yield f"is not signed by the authority {found.authority!r}"


def _names(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()  # a client's, with a common name alone
    return {str(each.value) for each in names}
