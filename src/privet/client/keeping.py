"""The current certificate of a name: the one bundle of it that lies in the store.

The law of this module: a bundle is replaced as a whole, by whoever comes last.
"""

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime

from cryptography import x509

from privet.acme.problems import Problem
from privet.bundle import KIND, CertBundle
from privet.ca import keys
from privet.client.errors import ClientError
from privet.client.issued import read_chain
from privet.client.schedule import Schedule
from privet.stores.base import Conflict, Record, Store

log = logging.getLogger("privet.client")


def keep(store: Store, bundle: CertBundle) -> CertBundle:
    """Make a bundle the current one of its first name, whoever else does that at the same time."""
    while True:
        record = store.get(KIND, bundle.domain)
        try:
            store.commit(bundle.to_record(record.version if record else 0))
        except Conflict:
            continue
        return bundle.located(store)


def whole(record: Record) -> CertBundle | None:
    """The bundle that a record has; None if it is damaged: if certificates or key cannot be read, or are not those of
    each other. Of a key with a password it is only seen that nothing is missing at its end."""
    try:
        bundle = CertBundle.from_record(record)
        certificate = read_chain(bundle.fullchain_pem).certificate
        same = certificate == x509.load_pem_x509_certificate(bundle.cert_pem)
        if b"ENCRYPTED" in bundle.key_pem:
            fits = bundle.key_pem.rstrip().endswith(b" PRIVATE KEY-----")
        else:
            key = keys.from_pem(bundle.key_pem).public_key()
            fits = keys.spki(key) == keys.spki(certificate.public_key())
        return bundle if same and fits else None
    except (ValueError, KeyError, TypeError, ClientError):
        return None


def span_of(bundle: CertBundle) -> tuple[datetime, datetime]:
    certificate = x509.load_pem_x509_certificate(bundle.cert_pem)
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc


async def ensure(
    stored: CertBundle | None, issue: Callable[[], Awaitable[CertBundle]], now: datetime, fraction: float = 2 / 3
) -> CertBundle:
    """What is stored, if it has lived for less than this part of its life, else a new one; and if none is to be had,
    what is stored as long as it is valid."""
    if stored is None or stored.expires_at <= now:
        return await issue()
    try:
        if now >= Schedule(fraction).due(*span_of(stored), lambda: 0.0):
            return await issue()
    except (ClientError, Problem) as error:
        log.warning(
            "no new certificate for %s, the old one is good until %s: %s", stored.domain, stored.expires_at, error
        )
    return stored
