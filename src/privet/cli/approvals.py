"""`privet pending`, `approve` and `refuse`: a person decides, on the store of a server that may be running."""

import asyncio
import os
import pwd
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from privet.cli import options
from privet.cli.failures import Failure
from privet.cli.printing import print_json, printable, to_text
from privet.cli.settings import Settings, read_settings
from privet.cli.stores import open_settings_store
from privet.server import approval, external_accounts
from privet.server.approval import NotPending
from privet.server.records import Account, Authorization, Kind
from privet.stores import AsyncStore

IDs = Annotated[list[str], typer.Argument(metavar="ID...", help="As `privet pending` shows them.")]


def pending(
    context: typer.Context,
    authority: options.Authority = None,
    store: options.StoreURL = None,
    json: options.JSON = False,
    config: options.Config = None,
) -> None:
    """List the requests that wait for somebody to decide, oldest first: who asks, from where, for which name.

    ```
    privet pending
    privet approve ID
    ```
    """
    settings = read_settings(context.params | {"name": authority}, os.environ).checked()
    with open_settings_store(settings.store, existing=True) as opened:

        async def look(store: AsyncStore) -> list[tuple[Authorization, Account | None]]:
            waiting = await approval.pending(store, datetime.now(UTC), authority=settings.name)
            return [(each, await _asker(store, each)) for each in waiting]

        with AsyncStore(opened) as asynchronous:
            found = asyncio.run(look(asynchronous))
        keys = {key.id: key.name for key in external_accounts.find_all(opened, settings.name)}
    if json:
        print_json([_document(each) | _asked_by(account, keys) for each, account in found])
        return
    width = max([len(each.id) for each, _ in found], default=2)
    print(f"{'ID':<{width}}  {'SINCE':<20}  {'FROM':<15}  NAME")
    for each, account in found:
        known = _known_as(account, keys) if account else []
        who = f"  ({printable(', '.join(known))})" if known else ""
        who += f"  by {printable(each.ruling.rule)}" if each.ruling.rule else ""
        client = printable(each.client) or "-"
        print(f"{each.id:<{width}}  {to_text(each.created):<20}  {client:<15}  {each.identifier}{who}")


def approve(
    context: typer.Context,
    ids: IDs,
    authority: options.Authority = None,
    store: options.StoreURL = None,
    json: options.JSON = False,
    config: options.Config = None,
) -> None:
    """Let those who wait have what they asked for. The client that waits learns of it when it next asks.

    ```
    privet approve 06h1vt4lodq12s7cla935tp7
    ```
    """
    settings = read_settings(context.params | {"name": authority}, os.environ).checked()

    async def decide(store: AsyncStore, id: str) -> Authorization:
        return await approval.approve(store, id, datetime.now(UTC), authority=settings.name, by=_person())

    _decide(settings, ids, json, decide, "approved")


def refuse(
    context: typer.Context,
    ids: IDs,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why: the client is told.")] = "",
    authority: options.Authority = None,
    store: options.StoreURL = None,
    json: options.JSON = False,
    config: options.Config = None,
) -> None:
    """Refuse those who wait, and with each its order.

    ```
    privet refuse 06h1vt4lodq12s7cla935tp7 --reason "ask the network team first"
    ```
    """

    settings = read_settings(context.params | {"name": authority}, os.environ).checked()

    async def decide(store: AsyncStore, id: str) -> Authorization:
        return await approval.refuse(store, id, datetime.now(UTC), reason, authority=settings.name, by=_person())

    _decide(settings, ids, json, decide, "refused")


def _decide(
    settings: Settings,
    ids: Sequence[str],
    json: bool,
    decide: Callable[[AsyncStore, str], Coroutine[Any, Any, Authorization]],
    done: str,
) -> None:
    decided = []
    failed = []
    with open_settings_store(settings.store, existing=True) as opened, AsyncStore(opened) as store:
        for id in ids:
            try:
                found = asyncio.run(decide(store, id))
            except NotPending as error:
                failed.append(f"{error}: `privet pending` shows what waits")
                continue
            decided.append(_document(found))
            if not json:
                print(f"{done} {found.identifier} ({id})")
    if json:
        print_json(decided)
    if failed:
        raise Failure("\n".join(failed))


def _person() -> str:
    """Who decides, as far as this machine knows."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # in a container, perhaps
        user = str(os.getuid())
    return os.environ.get("SUDO_USER", user) if user == "root" else user


async def _asker(store: AsyncStore, authorization: Authorization) -> Account | None:
    record = await store.get(Kind.ACCOUNT, authorization.account)
    return Account.from_record(record) if record else None


def _document(authorization: Authorization) -> dict[str, object]:
    return {
        "id": authorization.id,
        "status": authorization.status,
        "identifier": authorization.identifier.to_json(),
        "account": authorization.account,
        "client": authorization.client or None,
        "decision": authorization.ruling.decision.value,
        "rule": authorization.ruling.rule or None,
        "created": to_text(authorization.created),
        "expires": to_text(authorization.expires),
    }


def _asked_by(account: Account | None, keys: Mapping[str, str]) -> dict[str, object]:
    if account is None:
        return {}
    id = account.external_account
    key = None if id is None else keys.get(id, id)
    return {"contact": account.contact, "external_account": key, "authority": account.authority}


def _known_as(account: Account, keys: Mapping[str, str]) -> list[str]:
    """By what a person may know who asks: the name of the key that was handed out, and what the client says itself."""
    id = account.external_account
    return ([] if id is None else [f"key {keys.get(id, id)}"]) + list(account.contact)
