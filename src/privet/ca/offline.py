"""Certificates without a store: what an issuer whose key is at hand signs for nodes and for clients.

Nothing is on record afterwards but the certificate itself. The law of this module: what is issued here is like what the
authority issues, name by name and bit by bit; only the common name of a client may be any text.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography import x509

from privet.acme.identifiers import from_text
from privet.ca import keys
from privet.ca.constraints import named_by
from privet.ca.issuer import Issuer, check_common_name, new_serial
from privet.ca.keys import KeyType, PrivateKey
from privet.ca.profiles import CLIENT, DEFAULT


def certify(
    issuer: Issuer,
    names: Sequence[str],
    now: datetime,
    validity: timedelta,
    *,
    cn: str | None = None,
    client: bool = False,
    key_type: KeyType = KeyType.P256,
) -> tuple[x509.Certificate, PrivateKey]:
    """Make a key and a certificate for DNS names and IP addresses, perhaps with another common name; for servers and
    clients, or for clients alone. It ends with the issuer at the latest.

    Raises `BadIdentifier`, `NamesRefused`, `ValueError` for a common name that is none, and `AuthorityError` if the
    issuer cannot sign now.
    """
    if cn is not None:
        check_common_name(cn)
    if not names and cn is None:
        raise ValueError("a certificate needs at least one name")
    identifiers = tuple(dict.fromkeys(map(from_text, names)))
    profile = CLIENT if client else DEFAULT
    issuer.check_names([*identifiers, *(named_by(cn) if cn is not None and client else [])])
    issuer.check_usages(profile)
    begin, end, _ = issuer.span(now, None, None, validity)
    key = keys.generate(key_type)
    to_be_signed = issuer.leaf(new_serial(), begin, end, key.public_key(), identifiers, profile, cn)
    return x509.load_der_x509_certificate(issuer.sign(to_be_signed)), key
