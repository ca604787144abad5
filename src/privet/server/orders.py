"""Orders (RFC 8555 §7.4): made, shown, finalized.

The law: an order is signed for once. The certificate's serial and the bytes to be signed are committed together with
the order's `processing`, the certificate together with its `valid`; whoever is cut short between the two leaves an
order that anybody can finish, with that same serial and those same bytes.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from privet.acme.identifiers import Identifier
from privet.acme.jws import Key
from privet.acme.payloads import NewOrder, read_finalize
from privet.acme.problems import Problem, ProblemType, Subproblem, compound
from privet.acme.status import Status
from privet.ca.certificates import KEPT_AFTER_EXPIRY, KIND, AuthorityError, Certificate
from privet.ca.csr import CSR, BadCSR, parse_csr
from privet.ca.keys import WeakKey
from privet.server.accounts import keep_for_longer
from privet.server.authorizations import check_pending, count_order, make_authorization, take_up_all, to_rfc3339
from privet.server.events import Issued
from privet.server.permissions import log_rulings, permit_certificate, permit_identifiers
from privet.server.policy import Decision, Ruling
from privet.server.records import PERSON, Account, Authorization, Kind, Order, proved_name, settle
from privet.server.server import Reply, Server, VerifiedRequest
from privet.server.urls import URLs
from privet.stores.base import Conflict, Record, new_id

log = logging.getLogger("privet")

# Each of them wants more than the one before.
_DEMANDS = (Decision.TRUST, Decision.PROVE, Decision.ASK)


async def new_order(server: Server, request: VerifiedRequest) -> Reply:
    """newOrder (§7.4): the order, with an authorization for each identifier."""
    wish = NewOrder.read(request.payload or {}, server.limits.identifiers)
    useful_until = _check_span(server, wish)
    account = request.owner
    now = server.now()
    id = new_id(now)
    lifetime = wish.not_after - (wish.not_before or now) if wish.not_after else None
    rulings, unchanged = await permit_identifiers(
        server, request, wish.identifiers, profile=server.profile.name, lifetime=lifetime
    )
    await server.check_room(
        Kind.ORDER, f"open:{account.id}", server.limits.open_orders, "orders of this account are open; finish some"
    )
    if not request.again:
        await server.rates.take(*count_order(server.limits, account, wish.identifiers, request.client))
    there = await _find_authorized(server, account, rulings)
    reused = [there[identifier] for identifier in wish.identifiers if identifier in there]
    new = {identifier: rulings[identifier] for identifier in wish.identifiers if identifier not in there}
    made = _make_authorizations(server, request, new, id)
    if pending := sum(each.status is Status.PENDING for each in made):
        await check_pending(server, account, adding=pending)
    by_identifier = {each.identifier: each for each in [*reused, *made]}
    authorizations = [by_identifier[identifier] for identifier in wish.identifiers]
    order = Order(
        id=id,
        status=Status.PENDING,
        account=account.id,
        identifiers=wish.identifiers,
        authorizations=tuple(each.id for each in authorizations),
        not_before=wish.not_before,
        not_after=wish.not_after,
        expires=min([now + server.limits.order_lifetime, useful_until, *(each.expires for each in reused)]),
        shared=tuple(each.id for each in reused),
        rulings=tuple(rulings[identifier] for identifier in wish.identifiers),
    )
    longer = keep_for_longer(server, account)
    if longer is None:
        await server.commit(order, *made, unchanged=[account, *reused, *unchanged])
    else:
        await server.commit(order, *made, longer, unchanged=[*reused, *unchanged])
    log_rulings(account.id, rulings)
    return _reply(settle(order, authorizations, now), request.urls, status=201)


async def order(server: Server, request: VerifiedRequest) -> Reply:
    """An order (§7.4): what it is by now. One whose signing was cut short is finished here."""
    found, _ = await _load_order(server, request)
    if found.status is Status.PROCESSING:
        found = await _take_over(server, found)
    waiting = found.status is Status.PROCESSING
    return _reply(found, request.urls, retry_after=server.limits.retry_after if waiting else None)


async def finalize(server: Server, request: VerifiedRequest) -> Reply:
    """finalize (§7.4): the one way from the protocol to the signing room."""
    found, authorizations = await _load_order(server, request)
    if found.status is not Status.READY:
        raise Problem(ProblemType.ORDER_NOT_READY, f"the order is {found.status}, not ready")
    csr = check_csr(read_finalize(request.payload or {}), found.identifiers, request.key)
    lifetime = found.not_after - (found.not_before or server.now()) if found.not_after else None
    await _check_rulings(server, request, found, lifetime)
    validity, unchanged = await permit_certificate(server, request, found.identifiers, csr.public_key, lifetime)
    try:
        certificate = server.ca.prepare(
            csr.public_key,
            found.identifiers,
            profile=server.profile,
            not_before=found.not_before,
            not_after=found.not_after,
            validity=validity,
            requester=found.account,
            request=found.id,
        )
    except WeakKey as error:
        raise Problem(ProblemType.BAD_CSR, str(error)) from None
    except AuthorityError as error:
        log.error("order %s cannot be signed: %s", found.id, error)
        raise Problem(
            ProblemType.UNAVAILABLE,
            "the authority cannot sign this now; its log says why",
            retry_after=timedelta(minutes=5),
        ) from None
    begun = found.begin(
        certificate.id,
        server.now(),
        kept_until=certificate.not_after + KEPT_AFTER_EXPIRY,
        proofs=tuple(each.proof for each in authorizations if each.proof),
    )
    begun, certificate = await server.commit(begun, certificate, unchanged=[request.owner, *authorizations, *unchanged])
    return _reply(await _sign(server, begun, certificate), request.urls)


async def _check_rulings(server: Server, request: VerifiedRequest, found: Order, lifetime: timedelta | None) -> None:
    """Ask the policy again, which may decide otherwise by now, or about whoever finalizes from elsewhere. Raises
    `Problem` if it wants more than it did."""
    rulings, _ = await permit_identifiers(
        server, request, found.identifiers, profile=server.profile.name, lifetime=lifetime
    )
    more = [
        Subproblem(ProblemType.UNAUTHORIZED, f"more is wanted for {identifier} than when it was ordered", identifier)
        for identifier, then in zip(found.identifiers, found.rulings, strict=True)
        if _DEMANDS.index(rulings[identifier].decision) > _DEMANDS.index(then.decision)
    ]
    if more:
        raise compound(more)


def check_csr(der: bytes, names: Sequence[Identifier], account_key: Key) -> CSR:
    """The request's key and names, if they are the order's names exactly (§7.4). Raises `Problem` (badCSR)."""
    try:
        csr = parse_csr(der)
    except BadCSR as error:
        raise Problem(ProblemType.BAD_CSR, str(error)) from None
    if csr.public_key == account_key.public_key:
        # §11.1: a certificate's key in the hands of a server is not to be an account's.
        raise Problem(ProblemType.BAD_CSR, "the CSR is for the account's own key; make another for the certificate")
    missing, surplus = set(names) - set(csr.identifiers), set(csr.identifiers) - set(names)
    if missing or surplus:
        lacking = [Subproblem(ProblemType.BAD_CSR, f"the CSR does not name {each}", each) for each in sorted(missing)]
        extra = [Subproblem(ProblemType.BAD_CSR, f"the CSR also names {each}", each) for each in sorted(surplus)]
        raise compound(lacking + extra)
    return csr


async def _sign(server: Server, begun: Order, certificate: Certificate) -> Order:
    """Sign what is on record, and record the signature."""
    try:
        signed = server.ca.sign(certificate)
    except Exception:
        log.exception("order %s could not be signed", begun.id)
        failed = begun.failed(Problem(ProblemType.SERVER_INTERNAL, "the certificate could not be signed; order anew"))
        await server.commit(failed)
        return failed
    issued = begun.issued()
    try:
        await server.commit(issued, signed)
    except Conflict:
        # Another process took it over and was faster. What it recorded is the certificate; our signature is dropped.
        return await _reload(server, begun)
    server.observe(Issued(signed.profile))
    log.info(
        "issued %x for %s to account %s until %s, SHA-256 %s",
        signed.serial,
        ", ".join(map(str, signed.identifiers)),
        signed.requester,
        signed.not_after.isoformat(),
        signed.fingerprint,
    )
    return issued


async def _take_over(server: Server, found: Order) -> Order:
    """Finish an order whose signing began long enough ago that nobody can be at it any more."""
    now = server.now()
    if found.started is None or found.certificate is None or now < found.started + server.limits.signing:
        return found
    record = await server.store.get(KIND, found.certificate)
    if record is None:
        raise Problem(ProblemType.SERVER_INTERNAL, "the order is damaged; order anew")
    try:
        (taken,) = await server.commit(found.resume(now))
    except Conflict:
        return await _reload(server, found)
    return await _sign(server, taken, server.read(Certificate, record))


async def _reload(server: Server, found: Order) -> Order:
    record = await server.store.get(Kind.ORDER, found.id)
    return found if record is None else server.read(Order, record)


async def _load_order(server: Server, request: VerifiedRequest) -> tuple[Order, list[Authorization]]:
    """The order, settled, if it is the account's own; to everybody else it is not there."""
    found = None if request.record is None else server.read(Order, request.record)
    if found is None or found.account != request.owner.id:
        raise Problem(ProblemType.NOT_FOUND, "there is no such order of yours")
    if found.status is not Status.PENDING:
        return found, []
    came = request.authorizations
    loading = {id: server.store.get(Kind.AUTHORIZATION, id) for id in found.authorizations if id not in came}
    records = [await loading[id] if id in loading else came[id] for id in found.authorizations]
    there = await take_up_all(server, request, [server.read(Authorization, each) for each in records if each])
    gone = [None] * (len(records) - len(there))
    return settle(found, [*there, *gone], server.now()), list(there)


def _make_authorizations(
    server: Server, request: VerifiedRequest, rulings: Mapping[Identifier, Ruling], order: str
) -> list[Authorization]:
    """New authorizations for these identifiers, or one problem that names all that cannot have one."""
    made: list[Authorization] = []
    wrong: list[Subproblem] = []
    expires = server.now() + server.limits.order_lifetime
    for identifier, ruling in rulings.items():
        try:
            made.append(
                make_authorization(server, request.owner, identifier, ruling, expires, request.client, order=order)
            )
        except Problem as problem:
            wrong.append(Subproblem(problem.type, problem.detail, identifier))
    if wrong:
        raise compound(wrong)
    return made


async def _find_authorized(
    server: Server, account: Account, rulings: Mapping[Identifier, Ruling]
) -> dict[Identifier, Authorization]:
    """What the account need not prove, or wait for, again: as long as the policy decides as it did then."""
    if all(ruling.decision is Decision.TRUST for ruling in rulings.values()):
        return {}
    ahead = await _authorized_ahead(server, account, rulings)
    if not server.limits.authorization_reuse:
        return ahead
    finding = [
        _find_proved(server, account, identifier, ruling.decision)
        for identifier, ruling in rulings.items()
        if identifier not in ahead and ruling.decision is not Decision.TRUST
    ]
    return ahead | {each.identifier: each for each in await asyncio.gather(*finding) if each}


async def _find_proved(
    server: Server, account: Account, identifier: Identifier, decision: Decision
) -> Authorization | None:
    """The newest authorization that was proved a short enough time ago, by what counts here as a proof today."""
    now, offered = server.now(), {PERSON, *(server.validators or {})}
    newest, after = None, ""
    while records := await server.store.find(
        Kind.AUTHORIZATION, proved_name(account.id, identifier), after=after, limit=100
    ):
        for each in (server.read(Authorization, record) for record in records):
            proved = each.proved_by(now, server.limits.authorization_reuse) in offered
            if each.identifier == identifier and each.ruling.decision is decision and proved:
                newest = each
        after = records[-1].id
    return newest


async def _authorized_ahead(
    server: Server, account: Account, rulings: Mapping[Identifier, Ruling]
) -> dict[Identifier, Authorization]:
    """What the account has been authorized for by newAuthz, ahead of this order (§7.4.1), in the way that the policy
    wants now: what is not trusted any more has to be proved."""
    now, page, after = server.now(), server.limits.authorizations_ahead, ""
    records: list[Record] = []
    while found_some := await server.store.find(
        Kind.AUTHORIZATION, f"ahead:{account.id}", after=after, limit=page
    ):  # what has expired is not pruned yet, perhaps
        records += found_some
        if len(found_some) < page:
            break
        after = found_some[-1].id
    found = [server.read(Authorization, record).settle(now) for record in records]
    found.sort(key=lambda each: each.status is Status.VALID)  # what is proved goes before what is not
    return {
        each.identifier: each
        for each in found
        if each.status in (Status.VALID, Status.PENDING)
        and (ruling := rulings.get(each.identifier)) is not None
        and ruling.decision is each.ruling.decision is not Decision.TRUST
    }


def _check_span(server: Server, wish: NewOrder) -> datetime:
    """Return until when the order can be fulfilled.

    §7.4: "The server MUST return an error if it cannot fulfill the request as specified".
    """
    now, ends, longest = server.now(), server.ca.not_after, server.profile.validity
    not_before, not_after = wish.not_before or now, wish.not_after
    if now >= ends:
        raise Problem(
            ProblemType.UNAVAILABLE, f"this authority ended at {to_rfc3339(ends)}", retry_after=timedelta(hours=1)
        )
    if not now - timedelta(minutes=5) <= not_before <= now + longest:
        raise Problem(ProblemType.MALFORMED, f"notBefore must lie between now and {longest} from now")
    if not_after is None:
        not_after = not_before + longest
    not_after = not_after.replace(microsecond=0)  # certificates know no smaller time
    if not_after <= now:
        raise Problem(ProblemType.MALFORMED, f"notAfter {to_rfc3339(not_after)} is in the past")
    if not_after <= not_before:
        raise Problem(ProblemType.MALFORMED, "notAfter must be later than notBefore")
    if not_after - not_before > longest:
        raise Problem(ProblemType.MALFORMED, f"certificates are valid for {longest} at most; ask for a nearer notAfter")
    if (wish.not_before and wish.not_before >= ends) or (wish.not_after and wish.not_after > ends):
        raise Problem(ProblemType.MALFORMED, f"this authority itself ends at {to_rfc3339(ends)}")
    return not_after if wish.not_after or wish.not_before else now + server.limits.order_lifetime


def _reply(found: Order, urls: URLs, *, status: int = 200, retry_after: timedelta | None = None) -> Reply:
    document: dict[str, object] = {
        "status": found.status,
        "expires": to_rfc3339(found.expires),
        "identifiers": [identifier.to_json() for identifier in found.identifiers],
        "authorizations": [urls.to("authz", id) for id in found.authorizations],
        "finalize": urls.to("finalize", found.id),
    }
    if found.not_before:
        document["notBefore"] = to_rfc3339(found.not_before)
    if found.not_after:
        document["notAfter"] = to_rfc3339(found.not_after)
    if found.error:
        document["error"] = found.error
    if found.status is Status.VALID and found.certificate:
        document["certificate"] = urls.to("cert", found.certificate)
    return Reply(document, status=status, location=urls.to("order", found.id), retry_after=retry_after)
