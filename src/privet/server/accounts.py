"""Accounts (RFC 8555 §7.3): made, updated, deactivated, given another key."""

import logging

from privet.acme.encoding import from_json
from privet.acme.jws import Key, parse_inner
from privet.acme.payloads import NewAccount, read_contact, read_status
from privet.acme.problems import Problem, ProblemType
from privet.acme.status import Status
from privet.server.external_accounts import ExternalAccountKey, bind
from privet.server.permissions import permit_account
from privet.server.rates import Count, network_of
from privet.server.records import Account, Kind, Order, key_name
from privet.server.requests import read_key
from privet.server.server import Reply, Server, VerifiedRequest
from privet.server.urls import URLs
from privet.stores.base import new_id

log = logging.getLogger("privet")


async def new_account(server: Server, request: VerifiedRequest) -> Reply:
    """newAccount (§7.3): the account of this key, made if there is none yet."""
    found = await _find_account(server, request.key)
    if found is not None and server.now() < found.expires:
        return _existing(found, request)
    wish = NewAccount.read(request.payload or {})
    if wish.only_return_existing:
        raise Problem(ProblemType.ACCOUNT_DOES_NOT_EXIST, "there is no account with this key")
    if server.terms_of_service and not wish.terms_of_service_agreed:
        raise Problem(
            ProblemType.USER_ACTION_REQUIRED,
            f"agree to the terms of service first: {server.terms_of_service}",
            instance=server.terms_of_service,  # §6.7: "Visit the "instance" URL and take actions specified there"
            headers={"Link": f'<{server.terms_of_service}>;rel="terms-of-service"'},
        )
    bound = await bind(server, request, wish.external_account_binding)
    await permit_account(server, request, wish.contact, bound)
    if not request.again:
        network = network_of(request.client)
        await server.rates.take(Count(server.limits.accounts_of_network, f"new accounts from {network}"))
    now = server.now()
    account = Account(
        id=new_id(now),
        status=Status.VALID,
        jwk=request.key.jwk,
        thumbprint=request.key.thumbprint,
        contact=wish.contact,
        terms_of_service_agreed=wish.terms_of_service_agreed,
        external_account=bound.id if bound else None,
        binding=_kept(wish.external_account_binding) if bound else None,
        created=now,
        expires=now + server.limits.new_account_lifetime,
        authority=server.ca.name,
    )
    changed: list[Account | ExternalAccountKey] = [found.lapse()] if found else []
    unchanged = []
    if bound and bound.key and bound.key.uses is not None:
        changed.append(bound.key.use())
    elif bound and bound.key:
        # Nobody counts, so that many can come at once; but it is not to be revoked meanwhile.
        unchanged.append(bound.key)
    await server.commit(*changed, account, unchanged=unchanged)
    by = f" by external account key {bound.name!a} ({bound.id[:50]!a})" if bound else ""
    log.info("account %s opened from %a%s", account.id, request.client[:50], by)
    return Reply(_shown(account, request.urls), status=201, location=request.urls.to("acct", account.id))


async def account(server: Server, request: VerifiedRequest) -> Reply:
    """An account (§7.3.2 update, §7.3.6 deactivation): its own, and only its own."""
    if request.id != request.owner.id:
        raise Problem(ProblemType.NOT_FOUND, "there is no such account of yours")
    payload = request.payload or {}
    changed = request.owner
    contact, status = read_contact(payload), read_status(payload)
    if contact is not None:
        changed = changed._replace(contact=contact)
    # §7.3.2: "The server MUST ignore any updates to the "orders" field, "termsOfServiceAgreed" field, the "status"
    # field (except as allowed by Section 7.3.6), or any other fields it does not recognize."
    if status == Status.DEACTIVATED:
        changed = changed.deactivate()
    if changed != request.owner:
        await server.commit(changed)
    return Reply(_shown(changed, request.urls), location=request.urls.to("acct", changed.id))


async def orders(server: Server, request: VerifiedRequest) -> Reply:
    """The orders of an account (§7.1.2.1), a page at a time."""
    if request.id != request.owner.id:
        raise Problem(ProblemType.NOT_FOUND, "there is no such account of yours")
    page = server.limits.orders_page
    after = request.query.get("after", "")
    records = await server.store.find(Kind.ORDER, f"account:{request.id}", after=after, limit=page)
    found = [Order.from_record(record) for record in records]
    now = server.now()
    # "It SHOULD NOT include orders in the invalid state": what lies past its expiry unfinished is one of those.
    listed = [
        order
        for order in found
        if order.status in (Status.VALID, Status.PROCESSING) or (order.status is Status.PENDING and now < order.expires)
    ]
    links: tuple[tuple[str, str], ...] = ()
    if len(records) == page:
        links = ((f"{request.urls.to('acct', request.id)}/orders?after={records[-1].id}", "next"),)
    return Reply({"orders": [request.urls.to("order", order.id) for order in listed]}, links=links)


async def key_change(server: Server, request: VerifiedRequest) -> Reply:
    """keyChange (§7.3.5): signed by the old key outside and by the new one inside."""
    inner = parse_inner(dict(request.payload or {}))
    new_key = read_key(inner.jwk)
    inner.verify(new_key)
    if inner.url != request.url:
        raise Problem(ProblemType.MALFORMED, "the url of the inner JWS must be that of the outer one")
    change = from_json(inner.payload, "the key change")
    account = request.owner
    if change.get("account") != request.urls.to("acct", account.id):
        raise Problem(ProblemType.MALFORMED, "the key change is for another account than the one that signs it")
    old_key = change.get("oldKey")
    if not isinstance(old_key, dict) or {name: old_key.get(name) for name in account.jwk} != account.jwk:
        raise Problem(ProblemType.MALFORMED, "oldKey is not the account's key")
    holder = await _find_account(server, new_key)
    if holder is not None and server.now() < holder.expires:
        raise Problem(
            ProblemType.CONFLICT,
            "the new key belongs to an account already",
            headers={"Location": request.urls.to("acct", holder.id)},
        )
    changed = account.change_key(new_key.jwk, new_key.thumbprint)
    await server.commit(*([holder.lapse()] if holder else []), changed)
    return Reply(_shown(changed, request.urls), location=request.urls.to("acct", account.id))


async def _find_account(server: Server, key: Key) -> Account | None:
    """The account that has this key, or had it when it expired."""
    records = await server.store.find(Kind.ACCOUNT, key_name(server.ca.name, key.thumbprint), limit=1)
    return Account.from_record(records[0]) if records else None


def keep_for_longer(server: Server, account: Account) -> Account | None:
    """The account with its life prolonged, if it is time for that: seldom, so that it costs nothing."""
    lifetime = server.limits.account_lifetime
    now = server.now()
    if account.expires - now > lifetime / 2:
        return None
    return account._replace(expires=now + lifetime)


def _existing(account: Account, request: VerifiedRequest) -> Reply:
    if account.status is not Status.VALID:
        raise Problem(ProblemType.ACCOUNT_NOT_VALID, f"the account of this key is {account.status}")
    return Reply(_shown(account, request.urls), location=request.urls.to("acct", account.id))


def _kept(binding: object) -> dict[str, object]:
    """What of a binding is shown again (§7.1.2): the message, and nothing that came along inside of it."""
    assert isinstance(binding, dict)
    return {name: binding[name] for name in ("protected", "payload", "signature")}


def _shown(account: Account, urls: URLs) -> dict[str, object]:
    document: dict[str, object] = {
        "status": account.status,
        "contact": account.contact,
        "termsOfServiceAgreed": account.terms_of_service_agreed,
        "orders": f"{urls.to('acct', account.id)}/orders",
    }
    if account.binding is not None:
        document["externalAccountBinding"] = account.binding
    return document
