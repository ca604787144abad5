"""The current certificate of a name: the one bundle of it that lies in the store.

The law of this module: a bundle is replaced as a whole, by whoever comes last.
"""

from datetime import datetime

from cryptography import x509

from privet.bundle import KIND, CertBundle
from privet.stores.base import Conflict, Store


def keep(store: Store, bundle: CertBundle) -> CertBundle:
    """Make a bundle the current one of its first name, whoever else does that at the same time."""
    while True:
        record = store.get(KIND, bundle.domain)
        try:
            store.commit(bundle.to_record(record.version if record else 0))
        except Conflict:
            continue
        return bundle.located(store)


def span_of(bundle: CertBundle) -> tuple[datetime, datetime]:
    certificate = x509.load_pem_x509_certificate(bundle.cert_pem)
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc
