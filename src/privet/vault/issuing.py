"""Certificates by token: the one way from Vault's API to the signing room.

The law: the serial, the bytes to be signed and the use of the token are on record in one commit before the signature,
and the certificate is on record before anybody sees it. A private key that is made here is given out once and kept
nowhere.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from privet.acme.identifiers import BadIdentifier, Identifier, IdentifierType, from_text
from privet.acme.problems import Problem, ProblemType, Subproblem, compound
from privet.ca import keys
from privet.ca.authority import CertificateAuthority
from privet.ca.certificates import KIND as CERTIFICATE
from privet.ca.certificates import AuthorityError, Certificate, serial_name
from privet.ca.constraints import NamesRefused
from privet.ca.keys import PrivateKey, PublicKey, WeakKey
from privet.server import events
from privet.server.limits import Limits
from privet.server.rates import Count, Rates
from privet.stores.asynchronous import AsyncStore
from privet.stores.base import Conflict, Record
from privet.vault.roles import Role, Roles
from privet.vault.tokens import KIND, Token, is_requester
from privet.vault.wishes import Wish

log = logging.getLogger("privet")

# Whoever conflicts waits for a moment that doubles and is random.
_ATTEMPTS, _MOMENT = 9, 0.003


@dataclass(frozen=True, slots=True)
class Engine:
    """What every handler is given."""

    ca: CertificateAuthority
    store: AsyncStore
    roles: Roles
    limits: Limits
    rates: Rates
    now: Callable[[], datetime]
    observe: events.Observer = events.unobserved


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate, its key if it was made here, and what its owner should know."""

    certificate: Certificate
    key: PrivateKey | None = field(default=None, repr=False)
    warnings: tuple[str, ...] = ()


class Subject(NamedTuple):
    """Who a certificate is for: the alternative names, and a common name that is not the first of them."""

    identifiers: tuple[Identifier, ...]
    common_name: str | None = None


async def issue(engine: Engine, token: Token, role: Role, wish: Wish) -> Issued:
    """Make a key, unless there is a CSR, and certify it: prepare, commit, sign, commit. Raises `Problem`."""
    subject = choose_subject(role, wish)
    ttl, warnings = choose_ttl(role, wish.ttl)
    await engine.rates.take(Count(engine.limits.certificates_of_token, "certificates for this token", (token.id,)))
    if wish.csr is not None:
        key, public_key = None, wish.csr.public_key
    else:
        key = await asyncio.to_thread(keys.generate, role.key_types[0])  # a large RSA key takes its time
        public_key = key.public_key()
    prepared = _prepare(engine, token, role, public_key, subject, ttl)
    await _begin(engine, token, prepared)
    certificate = await _sign(engine, token, role, prepared._replace(version=prepared.version + 1))
    if certificate.clamped:
        warnings = (*warnings, f"the certificate ends with the authority, at {certificate.not_after.isoformat()}")
    return Issued(certificate, key, warnings)


def choose_subject(role: Role, wish: Wish) -> Subject:
    """The names, as the role allows them. Raises `Problem`, with all that it does not."""
    wrong = [objection for each in wish.alternative_names if (objection := role.objection(each))]
    subject = Subject(wish.alternative_names)
    if wish.common_name is not None:
        named = _identifier(wish.common_name)
        if named is not None and named.type is IdentifierType.IP:
            # As a common name it would pass for a DNS name.
            if named not in subject.identifiers:
                wrong.append(f"common_name is the address {named}, which goes into ip_sans")
        elif named is not None and role.objection(named) is None:
            if wish.exclude_common_name:
                subject = subject._replace(common_name=named.value)
            else:
                subject = Subject(tuple(dict.fromkeys([named, *subject.identifiers])))
        elif role.lets_client(wish.common_name):
            subject = subject._replace(common_name=wish.common_name)
        else:
            shown = named or f"{wish.common_name[:100]!a}"
            wrong.append((named and role.objection(named)) or f"{shown} is not allowed by the role {role.name!r}")
    if not wrong and not subject.identifiers and (subject.common_name is None or role.profile.server):
        wrong.append("there is no name for the certificate: say which with common_name, alt_names or ip_sans")
    if wrong:
        raise compound([Subproblem(ProblemType.MALFORMED, each) for each in wrong])
    return subject


def choose_ttl(role: Role, asked: timedelta | None) -> tuple[timedelta, tuple[str, ...]]:
    """How long it lives, as Vault decides it: for the role's lifetime, or as asked, and never for longer than its
    longest, which is said in a warning."""
    if asked is None or asked <= role.max_lifetime:
        return asked or role.lifetime, ()
    return role.max_lifetime, (f"the ttl of {asked} is longer than the {role.max_lifetime} of the role, which is used",)


def _identifier(text: str) -> Identifier | None:
    try:
        return from_text(text)
    except BadIdentifier:
        return None


def _prepare(
    engine: Engine, token: Token, role: Role, public_key: PublicKey, subject: Subject, ttl: timedelta
) -> Certificate:
    try:
        return engine.ca.prepare(
            public_key,
            subject.identifiers,
            common_name=subject.common_name,
            profile=role.profile,
            not_after=engine.now() + ttl,
            requester=token.requester,
        )
    except WeakKey as error:
        raise Problem(ProblemType.BAD_CSR, str(error)) from None
    except NamesRefused as error:
        raise compound([Subproblem(ProblemType.MALFORMED, reason, each) for each, reason in error.refused]) from None
    except ValueError as error:
        raise Problem(ProblemType.MALFORMED, str(error)) from None
    except AuthorityError as error:
        log.error("a certificate for the role %s cannot be signed: %s", role.name, error)
        raise Problem(
            ProblemType.UNAVAILABLE,
            "the authority cannot sign this now; its log says why",
            retry_after=timedelta(minutes=5),
        ) from None


async def _begin(engine: Engine, token: Token, prepared: Certificate) -> None:
    """Record what is about to be signed, with the use of the token, or with its being unchanged if nobody counts."""
    for attempt in range(_ATTEMPTS):
        try:
            if token.uses is None:
                unchanged = [Record(KIND, token.id, version=token.version)]
                return await engine.store.commit(prepared.to_record(), unchanged=unchanged)
            return await engine.store.commit(prepared.to_record(), token.use().to_record())
        except Conflict:
            # Somebody else used it, or took it back.
            await asyncio.sleep(_MOMENT * 2**attempt * secrets.randbelow(1000) / 1000)
            token = await _look_again(engine, token)
    raise _too_many()


def _too_many() -> Problem:
    detail = "too many use this token at once; try again"
    return Problem(ProblemType.UNAVAILABLE, detail, retry_after=timedelta(seconds=1))


async def _look_again(engine: Engine, token: Token) -> Token:
    record = await engine.store.get(KIND, token.id)
    if record is None:
        raise Problem(ProblemType.UNAUTHORIZED, "permission denied")
    found = Token.from_record(record)
    found.check(engine.now())
    return found


async def find(engine: Engine, serial: int) -> Certificate | None:
    """The certificate of this serial number, if a token got it from this authority."""
    records = await engine.store.find(CERTIFICATE, serial_name(serial), limit=1)
    found = Certificate.from_record(records[0]) if records else None
    if found is None or found.der is None or found.authority != engine.ca.name:
        return None
    return found if found.requester is not None and is_requester(found.requester) else None


async def revoke(engine: Engine, token: Token, serial: int) -> Certificate:
    """Revoke a certificate that this very token got; one that is revoked stays as it is. Raises `Problem`."""
    for _ in range(_ATTEMPTS):
        found = await find(engine, serial)
        if found is None or found.requester != token.requester:
            raise Problem(ProblemType.NOT_FOUND, "there is no such certificate that this token got")
        if found.revoked is not None:
            return found
        revoked = found.revoke(engine.now())
        try:
            unchanged = [Record(KIND, token.id, version=token.version)]
            await engine.store.commit(revoked.to_record(), unchanged=unchanged)
        except Conflict:
            token = await _look_again(engine, token)
        else:
            engine.observe(events.Revoked(0))
            log.info("revoked %x for token %s (%s), SHA-256 %s", serial, token.id, token.name, revoked.fingerprint)
            return revoked
    raise _too_many()


async def _sign(engine: Engine, token: Token, role: Role, prepared: Certificate) -> Certificate:
    """Sign what is on record, and record the signature."""
    try:
        signed = engine.ca.sign(prepared)
    except Exception:
        log.exception("certificate %x could not be signed", prepared.serial)
        raise Problem(ProblemType.SERVER_INTERNAL, "the certificate could not be signed; ask again") from None
    committing = engine.store.commit(signed.to_record())
    # More than one came in, so what has expired goes by itself.
    pruning = engine.store.prune(engine.ca.prune_until(), limit=10)
    committed, pruned = await asyncio.gather(committing, pruning, return_exceptions=True)
    if isinstance(committed, BaseException):
        raise committed
    if isinstance(pruned, BaseException):
        log.error("what has expired could not be pruned: %s", pruned)
    elif pruned:
        engine.observe(events.Pruned(pruned))
    engine.observe(events.Issued(signed.profile))
    log.info(
        "issued %x for %s to token %s (%s) for the role %s until %s, SHA-256 %s",
        signed.serial,
        ", ".join(signed.names),
        token.id,
        token.name,
        role.name,
        signed.not_after.isoformat(),
        signed.fingerprint,
    )
    return signed
