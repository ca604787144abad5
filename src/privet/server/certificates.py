"""Certificates (RFC 8555 §7.4.2, §7.6): downloaded, and revoked by whoever may."""

import logging
from datetime import datetime

from cryptography import x509

from privet.acme.identifiers import Identifier
from privet.acme.payloads import Revocation
from privet.acme.problems import Problem, ProblemType, Subproblem, compound
from privet.acme.status import Status
from privet.ca.certificates import KIND, Certificate, serial_name
from privet.server.events import Revoked
from privet.server.records import Account, Authorization, Kind, authorized_name
from privet.server.server import Reply, Server, VerifiedRequest

log = logging.getLogger("privet")

PEM_CHAIN = "application/pem-certificate-chain"
DER = "application/pkix-cert"


async def certificate(server: Server, request: VerifiedRequest) -> Reply:
    """A certificate with what leads from it to the root (§7.4.2)."""
    found = None if request.record is None else server.read(Certificate, request.record)
    if found is None or found.der is None or found.requester != request.owner.id:
        raise Problem(ProblemType.NOT_FOUND, "there is no such certificate of yours")
    if _accepts(request.accept, PEM_CHAIN):
        return Reply(server.ca.fullchain_pem(found), content_type=PEM_CHAIN)
    if _accepts(request.accept, DER):
        # §7.4.2: what has room for one certificate SHOULD come with a link to its issuer; the root has a URL.
        up = [(request.urls.to("ca.pem"), "up")] if server.ca.chain_pem == server.ca.root_cert_pem else []
        return Reply(found.der, content_type=DER, links=tuple(up))
    raise Problem(ProblemType.NOT_ACCEPTABLE, f"certificates are sent as {PEM_CHAIN} or {DER}")


async def revoke(server: Server, request: VerifiedRequest) -> Reply:
    """revokeCert (§7.6): by the account it was issued to, by one that holds authorizations for all its names, or by
    the certificate's own key."""
    wish = Revocation.read(request.payload or {})
    try:
        posted = x509.load_der_x509_certificate(wish.certificate)
        serial = posted.serial_number
    except Exception:  # a stranger's bytes; the parser's exceptions are many
        raise Problem(ProblemType.MALFORMED, "certificate is not an X.509 certificate in DER") from None
    found = await _find(server, serial, wish.certificate)
    if request.account is None:
        if posted.public_key() != request.key.public_key:
            raise Problem(ProblemType.UNAUTHORIZED, "the request is signed with another key than the certificate's")
    elif found.requester != request.account.id:
        await _check_authorized(server, request.account, found)
    if found.revoked is not None:
        raise Problem(ProblemType.ALREADY_REVOKED, "the certificate is revoked already")
    await server.commit(found.revoke(server.now(), wish.reason), unchanged=[request.account] if request.account else [])
    server.observe(Revoked(wish.reason))
    log.info("revoked %x, reason %d, SHA-256 %s", found.serial, wish.reason, found.fingerprint)
    return Reply()


async def _find(server: Server, serial: int, der: bytes) -> Certificate:
    """The record of exactly these bytes: a certificate that merely has the serial of one of ours is not ours."""
    records = await server.store.find(KIND, serial_name(serial), limit=1)
    found = Certificate.from_record(records[0]) if records else None
    if found is None or found.der != der or found.authority != server.ca.name:
        raise Problem(ProblemType.NOT_FOUND, "the certificate is not one that was issued here")
    return found


async def _check_authorized(server: Server, account: Account, found: Certificate) -> None:
    """§7.6: another account may revoke if it holds valid authorizations for all identifiers in the certificate."""
    if found.common_name is not None:
        raise Problem(ProblemType.UNAUTHORIZED, "no account is authorized for the common name of this certificate")
    now = server.now()
    lacking = [
        Subproblem(ProblemType.UNAUTHORIZED, f"no valid authorization of yours for {identifier}", identifier)
        for identifier in found.identifiers
        if not await _holds(server, account, identifier, now)
    ]
    if lacking:
        raise compound(lacking)


async def _holds(server: Server, account: Account, identifier: Identifier, now: datetime) -> bool:
    """Whether one of the account's authorizations for this identifier is valid."""
    after = ""
    while records := await server.store.find(
        Kind.AUTHORIZATION, authorized_name(account.id, identifier), after=after, limit=100
    ):
        if any(Authorization.from_record(record).settle(now).status is Status.VALID for record in records):
            return True
        after = records[-1].id
    return False


def _accepts(accept: str, media_type: str) -> bool:
    """Whether an Accept header lets this type through (RFC 9110 §12.5.1); without one, everything goes."""
    if not accept.strip():
        return True
    allowed = {}
    for entry in accept.lower().split(","):
        name, *parameters = [part.strip() for part in entry.split(";")]
        allowed[name] = not any(map(_is_zero, parameters))
    # "The most specific reference has precedence."
    family = media_type.split("/")[0] + "/*"
    return next((allowed[name] for name in (media_type, family, "*/*") if name in allowed), False)


def _is_zero(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return name.strip() == "q" and value.strip().rstrip("0") in ("", ".", "0.")
