"""tls-alpn-01 (RFC 8737, RFC 8738 §6): the proof is in a certificate made for nothing else.

The law of `check_certificate`: any bytes pass or are a `Problem`, and only a certificate for this one identifier with
this one digest passes.
"""

import hashlib
import hmac
import ipaddress
from datetime import datetime
from typing import ClassVar

from cryptography import x509

from privet.acme.attempts import Attempt, Clock
from privet.acme.identifiers import Identifier, IdentifierType
from privet.acme.problems import Problem, ProblemType
from privet.validation.connections import Connector, Place, tls_with_strangers
from privet.validation.gates import Gate
from privet.validation.networks import Networks
from privet.validation.resolver import Resolver
from privet.validation.trail import Trail, utc_now
from privet.validation.validator import Validator

ALPN = "acme-tls/1"
# RFC 8737 §6.1. Drafts had 1.3.6.1.5.5.7.1.30.1; it proves nothing.
ACME_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")


class TLSALPN01Validator(Validator):
    """Makes a TLS connection with the protocol `acme-tls/1`, and looks at the certificate. It need not be signed by
    anybody in particular."""

    method: ClassVar[str] = "tls-alpn-01"
    for_addresses: ClassVar[bool] = True

    def __init__(
        self,
        *,
        resolver: Resolver | None = None,
        networks: Networks | None = None,
        gate: Gate | None = None,
        port: int = 443,
        timeout: float = 10.0,
        connect_timeout: float = 3.0,
        now: Clock = utc_now,
    ) -> None:
        super().__init__(timeout=timeout, now=now)
        self.connector = Connector(resolver, networks, gate, connect_timeout=connect_timeout)
        self.port = port
        self._tls = tls_with_strangers(ALPN)

    async def look(self, attempt: Attempt, identifier: Identifier, trail: Trail) -> datetime | None:
        name = identifier.value
        server_name = name
        if identifier.type is IdentifierType.IP:
            # RFC 8738 §6: addresses cannot be in a server name indication, so their reverse names are.
            server_name = ipaddress.ip_address(name).reverse_pointer
        place = Place(name, self.port)
        async with self.connector.connect(
            place, f"TLS {server_name}", trail, tls=self._tls, server_name=server_name
        ) as connection:
            if connection.tls.selected_alpn_protocol() != ALPN:
                raise Problem(
                    ProblemType.TLS, f"{name} made a TLS connection without choosing the protocol {ALPN} (ALPN)"
                )
            certificate = connection.tls.getpeercert(binary_form=True)
        check_certificate(certificate or b"", identifier, attempt.key_authorization)
        return None


def check_certificate(der: bytes, identifier: Identifier, key_authorization: str) -> None:
    """Raises `Problem` unless it is as RFC 8737 §3 says."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        extensions = certificate.extensions
        names = list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        raise _wrong(identifier, "has no subject alternative name") from None
    except Exception:  # whatever the parser thinks of bytes a stranger sent
        raise _wrong(identifier, "cannot be read") from None
    if len(names) != 1:
        raise _wrong(identifier, f"has {len(names)} subject alternative names; it must be for the identifier alone")
    if not _is_for(names[0], identifier):
        raise _wrong(identifier, "is for another name or address")
    try:
        extension = extensions.get_extension_for_oid(ACME_IDENTIFIER)
    except x509.ExtensionNotFound:
        raise _wrong(identifier, f"has no acmeIdentifier extension ({ACME_IDENTIFIER.dotted_string})") from None
    if not extension.critical:
        raise _wrong(identifier, "has an acmeIdentifier extension that is not marked critical")
    # §3: Authorization ::= OCTET STRING (SIZE (32)), in DER: one way to write it.
    expected = b"\x04\x20" + hashlib.sha256(key_authorization.encode()).digest()
    if not hmac.compare_digest(extension.value.public_bytes(), expected):
        raise _wrong(identifier, "has another digest than that of the key authorization")


def _is_for(name: x509.GeneralName, identifier: Identifier) -> bool:
    if identifier.type is IdentifierType.IP:
        return isinstance(name, x509.IPAddress) and name.value == ipaddress.ip_address(identifier.value)
    # §3: "The comparison of dNSNames MUST be case insensitive".
    return isinstance(name, x509.DNSName) and name.value.lower() == identifier.value


def _wrong(identifier: Identifier, what: str) -> Problem:
    return Problem(ProblemType.INCORRECT_RESPONSE, f"the certificate that {identifier} showed for tls-alpn-01 {what}")
