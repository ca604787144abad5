"""Answers as Vault writes them: a certificate in the form that was asked for, a token, an error."""

import base64
import uuid
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from privet.acme.problems import Problem
from privet.ca import keys
from privet.ca.authority import CertificateAuthority
from privet.ca.certificates import Certificate
from privet.ca.keys import PrivateKey
from privet.ca.tbs import to_pem
from privet.server.server import Reply
from privet.vault.issuing import Issued
from privet.vault.tokens import Token
from privet.vault.wishes import Wish


def to_secret(data: dict[str, object], warnings: tuple[str, ...] = ()) -> Reply:
    """What Vault calls a secret. There is no lease: a certificate ends by itself."""
    document = {
        "request_id": str(uuid.uuid4()),
        "lease_id": "",
        "renewable": False,
        "lease_duration": 0,
        "data": data,
        "wrap_info": None,
        "warnings": list(warnings) or None,
        "auth": None,
    }
    return Reply(document)


def to_errors(problem: Problem) -> Reply:
    errors = [each.detail for each in problem.subproblems] or [problem.detail]
    return Reply({"errors": errors}, status=problem.type.status, headers=tuple(problem.headers.items()))


def issued_secret(ca: CertificateAuthority, issued: Issued, wish: Wish) -> Reply:
    certificate = issued.certificate
    assert certificate.der is not None
    chain = [each.public_bytes(Encoding.DER) for each in ca.issuer.chain]
    encode = _to_base64 if wish.format == "der" else _to_pem
    above = [encode(der) for der in (chain[:-1] if wish.without_root else chain)]
    own = encode(certificate.der)
    data: dict[str, object] = {
        "certificate": own,
        "issuing_ca": encode(chain[0]),
        "ca_chain": above,
        "serial_number": colons(certificate.serial),
        "expiration": int(certificate.not_after.timestamp()),
    }
    if wish.format == "pem_bundle":
        # The key in it is in the traditional form, whatever private_key_format says of the other.
        key = [] if issued.key is None else [_key_text(issued.key, der=False, pkcs8=False)]
        data["certificate"] = "\n".join([*key, own, *above])
    if issued.key is not None:
        data["private_key"] = _key_text(issued.key, der=wish.format == "der", pkcs8=wish.pkcs8)
        data["private_key_type"] = _key_type(issued.key)
    return to_secret(data, issued.warnings)


def certificate_secret(pem: bytes, chain_pem: bytes, revoked: datetime | None = None) -> Reply:
    """A certificate that is on record, or the authority's own."""
    return to_secret(
        {"certificate": pem.decode().strip(), "ca_chain": chain_pem.decode().strip(), **_revocation(revoked)}
    )


def revoked_secret(certificate: Certificate) -> Reply:
    return to_secret({**_revocation(certificate.revoked), "state": "revoked"})


def _revocation(revoked: datetime | None) -> dict[str, object]:
    return {
        "revocation_time": 0 if revoked is None else int(revoked.timestamp()),
        "revocation_time_rfc3339": "" if revoked is None else _to_text(revoked),
    }


def token_secret(token: Token, now: datetime) -> Reply:
    """What a token is told of itself; Vault's zeros stand for "without end"."""
    data: dict[str, object] = {
        "accessor": token.id,
        "display_name": token.name,
        "policies": [token.role],
        "type": "service",
        "renewable": False,
        "orphan": True,
        "creation_time": int(token.created.timestamp()),
        "expire_time": token.ends and _to_text(token.ends),
        "ttl": 0 if token.ends is None else int((token.ends - now) / timedelta(seconds=1)),
        "num_uses": 0 if token.uses is None else token.uses - token.used,
    }
    return to_secret(data)


def colons(serial: int) -> str:
    """A serial number as Vault writes it: octets with colons between."""
    return serial.to_bytes((serial.bit_length() + 7) // 8, "big").hex(":")


def _to_pem(der: bytes) -> str:
    return to_pem(der).decode().strip()


def _to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _key_text(key: PrivateKey, *, der: bool, pkcs8: bool) -> str:
    if der:
        return _to_base64(keys.to_der(key, traditional=not pkcs8))
    return keys.to_pem(key, traditional=not pkcs8).decode().strip()


def _key_type(key: PrivateKey) -> str:
    match key:
        case ec.EllipticCurvePrivateKey():
            return "ec"
        case rsa.RSAPrivateKey():
            return "rsa"
        case _:
            return "ed25519"


def _to_text(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
