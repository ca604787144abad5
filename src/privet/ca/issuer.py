"""The issuer: a private key with the certificates that vouch for it, its own first and the root last.

Speaks for RFC 5280 §4.1, §4.2 and §6.1. Pure: no store, no clock. Its law: what it signs is valid only while everything
above it is, and says of itself exactly what its profile says.
"""

import functools
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from privet.acme.identifiers import Identifier, IdentifierType
from privet.ca import keys, tbs
from privet.ca.certificates import AuthorityError
from privet.ca.constraints import (
    NameConstraints,
    NamesRefused,
    about_subjects,
    constraints_of,
    lets_subject,
    not_understood,
    refusal,
)
from privet.ca.keys import SIGNATURE_ALGORITHMS, KeyType, PrivateKey, PublicKey, check_public_key
from privet.ca.profiles import Profile

# Clocks differ: a leaf begins a little in the past; a root, which everybody has to accept first, an hour. What lives
# for a short time only begins earlier by a part of that.
LEAF_HEAD_START = timedelta(minutes=5)
ROOT_HEAD_START = timedelta(hours=1)
_HEAD_START_PART = 24
SHORTEST_ROOT = timedelta(minutes=1)
_LONGEST_COMMON_NAME = 64  # RFC 5280 appendix A.1

# What may be critical: known to OpenSSL and to Go, and heeded here or of no concern to our leaves. RFC 5280 §4.2 has
# verifiers refuse any other.
_KNOWN = (
    x509.BasicConstraints,
    x509.CertificatePolicies,
    x509.CRLDistributionPoints,
    x509.ExtendedKeyUsage,
    x509.InhibitAnyPolicy,
    x509.KeyUsage,
    x509.NameConstraints,
    x509.SubjectAlternativeName,
)
_USAGES = {ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth", ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth"}

_T = TypeVar("_T", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True)
class Issuer:
    key: PrivateKey = field(repr=False)
    chain: tuple[x509.Certificate, ...]
    chain_pem: bytes
    not_before: datetime
    not_after: datetime
    algorithm: bytes
    name: bytes
    authority_key_identifier: bytes
    constraints: tuple[x509.NameConstraints, ...]
    usages: frozenset[x509.ObjectIdentifier]
    """Those of server and client that all its certificates allow."""

    @staticmethod
    def from_pem(cert_pem: bytes, key_pem: bytes, password: bytes | None) -> "Issuer":
        """Read what `of` puts together. Raises `AuthorityError` for that, and if it cannot be read."""
        try:
            return Issuer.of(keys.from_pem(key_pem, password), x509.load_pem_x509_certificates(cert_pem))
        except AuthorityError:
            raise
        except keys.BadKey as error:
            raise AuthorityError(f"the key of the CA cannot be used: {error}") from None
        except Exception:
            # as with CSRs: the parser has many exceptions for bytes that make no sense
            raise AuthorityError("the certificate of the CA cannot be read: it is damaged, or not in PEM") from None

    @staticmethod
    def of(key: PrivateKey, chain: Sequence[x509.Certificate]) -> "Issuer":
        """Raises `AuthorityError` if they do not belong together, or do not vouch for certificates."""
        _check_chain(chain)
        own = chain[0]
        key_type = check_public_key(key.public_key())
        if keys.spki(key.public_key()) != _spki(own):
            raise AuthorityError("the private key does not belong to the CA certificate")
        return Issuer(
            key=key,
            chain=tuple(chain),
            chain_pem=b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain),
            not_before=max(certificate.not_valid_before_utc for certificate in chain),
            not_after=min(certificate.not_valid_after_utc for certificate in chain),
            algorithm=SIGNATURE_ALGORITHMS[key_type],
            name=own.subject.public_bytes(),
            authority_key_identifier=tbs.extension(_authority_key_identifier(own)),
            constraints=constraints_of(chain),
            usages=frozenset(_USAGES).intersection(*map(_usages, chain)),
        )

    @property
    def strict(self) -> bool:
        """Whether it has what strict verifiers insist on; `openssl req -x509` leaves out the key usage."""
        return all(
            _value(certificate, x509.KeyUsage) and _value(certificate, x509.SubjectKeyIdentifier)
            for certificate in self.chain
        )

    def check_time(self, now: datetime) -> None:
        """Raises `AuthorityError` unless this is the time of all its certificates."""
        for certificate in self.chain:
            begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
            if now < begin:
                raise AuthorityError(f"{_shown(certificate)} begins at {begin} and cannot sign at {now}")
            if now >= end:
                raise AuthorityError(f"{_shown(certificate)} ended at {end} and cannot sign at {now}")

    def refusal(self, identifier: Identifier) -> str | None:
        """Why verifiers would refuse a certificate for this name, if they would."""
        return next((reason for each in self.constraints if (reason := refusal(each, identifier))), None)

    def check_names(self, identifiers: Sequence[Identifier]) -> None:
        """Raises `NamesRefused` if there are names that may not be certified, with all of them."""
        refused = [(each, reason) for each in identifiers if (reason := self.refusal(each))]
        if refused:
            raise NamesRefused(refused)

    def check_usages(self, profile: Profile) -> None:
        """Raises `AuthorityError` if verifiers would refuse a certificate of this profile for any use."""
        if not self.usages.intersection(profile.usages):
            raise AuthorityError(
                f"the authority is for {' and '.join(_USAGES[each] for each in self.usages)} alone, by its extended "
                f"key usage, and the profile {profile.name!r} is not"
            )

    def span(
        self, now: datetime, not_before: datetime | None, not_after: datetime | None, validity: timedelta
    ) -> tuple[datetime, datetime, bool]:
        """When a certificate asked for now begins and ends, and whether that is less than what was asked.

        Raises `AuthorityError` if it could never be valid.
        """
        self.check_time(now)
        head_start = min(LEAF_HEAD_START, (not_after - now if not_after else validity) / _HEAD_START_PART)
        try:
            begin = _whole_seconds(not_before or now - head_start)
            end = _whole_seconds(not_after or begin + validity)
        except OverflowError:
            raise AuthorityError("a certificate cannot be valid beyond the year 9999") from None
        inside = max(begin, self.not_before), min(end, self.not_after)
        if not inside[0] < inside[1] or end <= now:
            raise AuthorityError(
                f"a certificate from {begin} to {end} is never valid: it is now {now}, "
                f"and the authority is valid from {self.not_before} to {self.not_after}"
            )
        return *inside, inside != (begin, end)

    def leaf(
        self,
        serial: int,
        not_before: datetime,
        not_after: datetime,
        public_key: PublicKey,
        identifiers: Sequence[Identifier],
        profile: Profile,
        cn: str | None = None,
    ) -> bytes:
        """The TBSCertificate of an end entity. With a `cn`, that is its common name, and there need be no names.

        Raises `AuthorityError` if it would have no name at all.
        """
        # A common name that does not fit is left out. An IP address stays out as well: some clients read every common
        # name as a DNS name. And where the authority is told which subjects it may certify, an empty one is always
        # among them (RFC 5280 §4.2.1.10).
        if cn is None and identifiers[0].type == IdentifierType.DNS:
            cn = identifiers[0].value if len(identifiers[0].value) <= _LONGEST_COMMON_NAME else None
        if any(map(about_subjects, self.constraints)):
            cn = None
        if cn is None and not identifiers:
            raise AuthorityError("the authority is told which subjects it may certify, and this would have no name")
        spki = keys.spki(public_key)
        return tbs.tbs_certificate(
            serial=serial,
            algorithm=self.algorithm,
            issuer=self.name,
            not_before=not_before,
            not_after=not_after,
            subject=tbs.common_name(cn),
            spki=spki,
            extensions=(
                _purpose(check_public_key(public_key), profile),
                self.authority_key_identifier,
                tbs.subject_key_identifier(spki),
                # RFC 5280 §4.2.1.6: critical if the subject is empty
                *([tbs.subject_alternative_name(identifiers, critical=cn is None)] if identifiers else []),
            ),
        )

    def sign(self, to_be_signed: bytes) -> bytes:
        """The certificate, in DER."""
        return tbs.certificate(to_be_signed, self.algorithm, keys.sign(self.key, to_be_signed))


def make_root(
    key: PrivateKey, cn: str, now: datetime, validity: timedelta, constraints: NameConstraints | None = None
) -> Issuer:
    """A new self-signed root. Raises `ValueError` if `cn` is no common name, and for a span that is none."""
    if validity < SHORTEST_ROOT:
        raise ValueError("a root has to live for a minute at least")
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, cn)])
    begin = _whole_seconds(now - min(ROOT_HEAD_START, validity / _HEAD_START_PART))
    try:
        end = begin + validity
    except OverflowError:
        raise ValueError("a root cannot be valid beyond the year 9999") from None
    spki = keys.spki(key.public_key())
    algorithm = SIGNATURE_ALGORITHMS[check_public_key(key.public_key())]
    to_be_signed = tbs.tbs_certificate(
        serial=new_serial(),
        algorithm=algorithm,
        issuer=name.public_bytes(),
        not_before=begin,
        not_after=_whole_seconds(end),
        subject=name.public_bytes(),
        spki=spki,
        extensions=(
            tbs.extension(x509.BasicConstraints(ca=True, path_length=None), critical=True),
            tbs.extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True),
            # RFC 5280 §4.2.1.10: MUST be critical
            *([tbs.extension(constraints.to_extension(), critical=True)] if constraints else []),
            tbs.subject_key_identifier(spki),
            tbs.extension(x509.AuthorityKeyIdentifier(tbs.key_identifier(spki), None, None)),
        ),
    )
    der = tbs.certificate(to_be_signed, algorithm, keys.sign(key, to_be_signed))
    return Issuer.of(key, [x509.load_der_x509_certificate(der)])


def check_common_name(cn: str) -> None:
    """Raises `ValueError` for what is no common name."""
    if not (0 < len(cn) <= _LONGEST_COMMON_NAME and cn.isprintable()):
        raise ValueError(f"a common name has 1 to {_LONGEST_COMMON_NAME} printable characters, and {cn[:80]!r} has not")


def new_serial() -> int:
    """128 random bits: never zero, never negative, shorter than the 20 octets of RFC 5280 §4.1.2.2."""
    return secrets.randbits(128) or 1


@functools.cache
def _purpose(key_type: KeyType, profile: Profile) -> bytes:
    """The extensions of an end entity that say what it is for."""
    # RFC 5480 §3, RFC 8410 §5: keys for EC and Ed25519 signatures encipher nothing; RSA ones did, up to TLS 1.2.
    key_usage = _key_usage(digital_signature=True, key_encipherment=key_type.rsa and profile.server)
    return b"".join(
        (
            tbs.extension(x509.BasicConstraints(ca=False, path_length=None), critical=True),
            tbs.extension(key_usage, critical=True),
            tbs.extension(x509.ExtendedKeyUsage(profile.usages)),
        )
    )


def _key_usage(
    *,
    digital_signature: bool = False,
    key_encipherment: bool = False,
    key_cert_sign: bool = False,
    crl_sign: bool = False,
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_encipherment=key_encipherment,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_key_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """RFC 5280 §4.2.1.1: the issuer's own subject key identifier, where it has one."""
    own = _value(issuer, x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier(own.digest if own else tbs.key_identifier(_spki(issuer)), None, None)


def _check_chain(chain: Sequence[x509.Certificate]) -> None:
    """Check certificates that others may have made as those will who verify ours. Raises `AuthorityError`."""
    for below, certificate in enumerate(chain):
        shown = _shown(certificate)
        _check_extensions(certificate)
        constraints, usage = _value(certificate, x509.BasicConstraints), _value(certificate, x509.KeyUsage)
        if constraints is None or not constraints.ca:
            raise AuthorityError(f"{shown} is not a CA: it lacks CA:TRUE in its basic constraints")
        # RFC 5280 §6.1.4 (n): only a key usage that is present restricts
        if usage is not None and not usage.key_cert_sign:
            raise AuthorityError(f"{shown} must not sign certificates: it lacks keyCertSign in its key usage")
        if constraints.path_length is not None and constraints.path_length < below:
            raise AuthorityError(f"{shown} must not have {below} CAs below it: its path length is too short")
        try:
            check_public_key(certificate.public_key())
            certificate.verify_directly_issued_by(chain[min(below + 1, len(chain) - 1)])
        except keys.WeakKey as error:
            raise AuthorityError(f"the key of {shown} is refused: {error}") from None
        except (ValueError, TypeError, InvalidSignature):
            raise AuthorityError(
                f"{shown} was not issued by the next certificate, and is no root: "
                "give the CA's certificate first, then each one's issuer up to the root"
            ) from None
        # RFC 5280 §6.1.3 (b): a certificate that a CA issued to itself is exempt
        if certificate.subject != certificate.issuer and not all(
            lets_subject(each, certificate.subject) for each in constraints_of(chain[below + 1 :])
        ):
            raise AuthorityError(f"{shown} has a subject that the name constraints above it forbid")
    if not frozenset(_USAGES).intersection(*map(_usages, chain)):
        # RFC 5280 §4.2.1.12 lets anyExtendedKeyUsage stand for all; OpenSSL does not, and Python with it.
        limited = " and ".join(_shown(each) for each in chain if len(_usages(each)) < len(_USAGES))
        raise AuthorityError(
            f"{limited} must not vouch for servers or clients: no usage is left of serverAuth and clientAuth by the "
            "extended key usage"
        )


def _check_extensions(certificate: x509.Certificate) -> None:
    """Raises `AuthorityError` for what verifiers will heed and we cannot."""
    shown = _shown(certificate)
    try:
        extensions = list(certificate.extensions)
    except Exception as error:  # as with CSRs: the parser has many
        raise AuthorityError(f"{shown} has an extension that cannot be read: {error}") from None
    for extension in extensions:
        match extension.value:
            case x509.NameConstraints() as constraints:
                if wrong := not_understood(constraints, certificate.tbs_certificate_bytes):
                    raise AuthorityError(f"{shown} has name constraints that are not understood: {wrong}")
            case x509.PolicyConstraints(require_explicit_policy=None):
                pass
            case x509.PolicyConstraints():
                raise AuthorityError(f"{shown} requires policies of all certificates below it, and ours name none")
            case value if extension.critical and not isinstance(value, _KNOWN):
                raise AuthorityError(
                    f"{shown} has a critical extension that verifiers refuse or that is not understood here: "
                    f"{extension.oid.dotted_string}"
                )


def _usages(certificate: x509.Certificate) -> frozenset[x509.ObjectIdentifier]:
    """Those of server and client that verifiers will allow below this certificate."""
    named = _value(certificate, x509.ExtendedKeyUsage)
    return frozenset(_USAGES) if named is None else frozenset(_USAGES).intersection(named)


def _shown(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string()


def _value(certificate: x509.Certificate, kind: type[_T]) -> _T | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _spki(certificate: x509.Certificate) -> bytes:
    return keys.spki(certificate.public_key())


def _whole_seconds(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(microsecond=0)
