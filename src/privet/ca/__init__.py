"""The signing room. It knows keys, names and certificates; it has never heard of accounts and orders."""

from privet.ca.authority import CertificateAuthority
from privet.ca.certificates import AuthorityError, Certificate, WrongStatus
from privet.ca.constraints import NameConstraints, NamesRefused
from privet.ca.csr import CSR, BadCSR, parse_csr
from privet.ca.keys import BadKey, KeyType, WeakKey, check_public_key
from privet.ca.profiles import CLIENT, DEFAULT, Profile

__all__ = [
    "CLIENT",
    "CSR",
    "DEFAULT",
    "AuthorityError",
    "BadCSR",
    "BadKey",
    "Certificate",
    "CertificateAuthority",
    "KeyType",
    "NameConstraints",
    "NamesRefused",
    "Profile",
    "WeakKey",
    "WrongStatus",
    "check_public_key",
    "parse_csr",
]
