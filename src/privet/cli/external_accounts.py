"""`privet eab`: external account keys, made, listed and revoked, also while a server runs.

The law of this module: a secret is printed once, when it is made, and what is printed to be copied works.
"""

import os
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

import typer

from privet.acme.encoding import to_base64url
from privet.cli import options
from privet.cli.failures import Failure
from privet.cli.grants import ends_text, grant_document, mistakes_of, read_ends, take_back, uses_text
from privet.cli.printing import print_fields, print_json, printable
from privet.cli.serve.running import external_url_of
from privet.cli.settings import Settings, read_settings
from privet.cli.stores import reading, signing
from privet.server import external_accounts
from privet.server.external_accounts import ExternalAccountKey
from privet.server.names import BadPattern, Names

eab = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="External account keys: who may open an account, and for which names.",
)


@eab.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Option(metavar="NAME", help="What it is called in rules, in lists and on record.")],
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Names its accounts may order. May be given several times."),
    ] = None,
    trust: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Names its accounts may order without proof. May be given several times."),
    ] = None,
    wildcard: Annotated[bool, typer.Option("--wildcard", help="Allow wildcards for these names as well.")] = False,
    expires: Annotated[
        str | None, typer.Option(metavar="DURATION", help="How long accounts can be opened with it.")
    ] = None,
    uses: Annotated[int | None, typer.Option(metavar="N", help="How many accounts can be opened with it.")] = None,
    authority: options.Authority = None,
    key_password_file: options.KeyPasswordFile = None,
    ca_cert: options.CACert = None,
    ca_key: options.CAKey = None,
    external_url: Annotated[
        str | None, typer.Option(metavar="URL", help="The address of the server as clients know it, for the examples.")
    ] = None,
    store: options.StoreURL = None,
    json: options.JSON = False,
    config: options.Config = None,
) -> None:
    """Make a key, and print it with its secret, once.

    ```
    privet eab create --name team-a --allow '*.team-a.internal' \\
        --expires 7d --uses 1
    ```
    """
    read = read_settings(context.params | {"name": authority}, os.environ)
    now = datetime.now(UTC)
    ends, mistakes = read_ends(expires, now)
    mistakes = [*mistakes_of(name, uses), *_about_names(allow or [], trust or [], wildcard), *mistakes]
    settings = read.checked(*mistakes)
    with signing(settings) as ca:
        made, secret = external_accounts.create(
            ca.store, ca, name, now, allow=allow or (), trust=trust or (), wildcard=wildcard, ends=ends, uses=uses
        )
    document = _document(made, now) | {"hmac_key": to_base64url(secret), "directory": _directory(settings)}
    if json:
        print_json(document)
    else:
        _print(document)


@eab.command("list")
def list_(
    context: typer.Context,
    authority: options.Authority = None,
    store: options.StoreURL = None,
    json: options.JSON = False,
    config: options.Config = None,
) -> None:
    """List the keys, oldest first, without their secrets.

    ```
    privet eab list
    ```
    """
    settings = read_settings(context.params | {"name": authority}, os.environ).checked()
    now = datetime.now(UTC)
    with reading(settings) as (ca, _):
        found = external_accounts.find_all(ca.store, ca.name)
    if json:
        print_json([_document(each, now) for each in found])
        return
    width = max([4, *(len(each.name) for each in found)])
    print(f"{'ID':<40}  {'NAME':<{width}}  {'STATUS':<7}  {'USES':<9}  {'EXPIRES':<20}  NAMES")
    for each in found:
        uses, ends = uses_text(each), ends_text(each)
        names = ", ".join([*each.allow, *(f"{name} (trusted)" for name in each.trust)]) or "any"
        print(f"{each.id}  {printable(each.name):<{width}}  {each.status(now):<7}  {uses:<9}  {ends:<20}  {names}")


@eab.command()
def revoke(
    context: typer.Context,
    keys: Annotated[list[str], typer.Argument(metavar="ID|NAME...", help="As `privet eab list` shows them.")],
    authority: options.Authority = None,
    store: options.StoreURL = None,
    json: options.JSON = False,
    config: options.Config = None,
) -> None:
    """Take keys back. Nobody opens an account with them, and accounts that are bound to them get no more certificates.
    Certificates they have stay valid: `privet revoke` is for those. By a name, all keys of that name are meant.

    ```
    privet eab revoke team-a
    ```
    """
    settings = read_settings(context.params | {"name": authority}, os.environ).checked()
    now = datetime.now(UTC)
    with reading(settings) as (ca, _):
        there = external_accounts.find_all(ca.store, ca.name)
        revoked, failed = take_back(
            there,
            keys,
            lambda each: external_accounts.revoke(ca.store, each, now),
            "external account key",
            "privet eab list",
        )
    if json:
        print_json([_document(each, now) for each in revoked])
    else:
        for each in revoked:
            print(f"revoked {printable(each.name)} ({each.id})")
    if failed:
        raise Failure("\n".join(failed))


def _about_names(allow: list[str], trust: list[str], wildcard: bool) -> Iterator[str]:
    for option, patterns in (("--allow", allow), ("--trust", trust)):
        for pattern in patterns:
            try:
                Names([pattern])
            except BadPattern as error:
                yield f"{option} has a name that is none: {error}"
    if wildcard and not allow and not trust:
        yield "--wildcard is about --allow and --trust: without them the policy alone says what is allowed"


def _directory(settings: Settings) -> str:
    return f"{external_url_of(settings, settings.host, settings.port)}/directory"


def _document(key: ExternalAccountKey, now: datetime) -> dict[str, object]:
    return grant_document(key, now, allow=key.allow, trust=key.trust, wildcard=key.wildcard)


def _print(document: dict[str, object]) -> None:
    kid, secret, directory = (str(document[key]) for key in ("id", "hmac_key", "directory"))
    print_fields([("key id", kid), ("HMAC key", secret)])
    server = shlex.quote(directory)
    print(f"""
The HMAC key is not shown again.

# certbot
certbot register --server {server} --eab-kid {kid} --eab-hmac-key {secret} \\
    --non-interactive --agree-tos --register-unsafely-without-email

# lego
lego --server {server} --eab --kid {kid} --hmac {secret} \\
    --email you@example.com --accept-tos --http --domains web.internal run""")
