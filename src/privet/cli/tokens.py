"""`privet token`: tokens for Vault's PKI API, made, listed and revoked, also while a server runs.

The law of this module: a token is printed once, when it is made, and what is printed to be copied works.
"""

import os
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from privet.cli import options
from privet.cli.failures import Failure
from privet.cli.grants import ends_text, grant_document, mistakes_of, read_ends, take_back, uses_text
from privet.cli.policies import read_rules_of
from privet.cli.printing import print_fields, print_json, printable
from privet.cli.serve.greeting import ROOT
from privet.cli.serve.running import external_url_of
from privet.cli.settings import read_settings
from privet.cli.stores import reading
from privet.vault import tokens
from privet.vault.roles import Roles, check_name
from privet.vault.tokens import Token

token = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Tokens for programs that speak Vault's PKI API: who gets certificates of a role.",
)


def read_roles(path: Path) -> Roles:
    """The roles in a file. Raises `Failure` with a sentence for each mistake."""
    return read_rules_of(path, "roles", Roles.from_toml)


@token.command()
def create(
    context: typer.Context,
    role: Annotated[str, typer.Option(metavar="NAME", help="What it is good for: a role in the file of --roles.")],
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What it is called in lists and on record.", show_default="the role's"),
    ] = None,
    expires: Annotated[str | None, typer.Option(metavar="DURATION", help="How long it is good.")] = None,
    uses: Annotated[int | None, typer.Option(metavar="N", help="How many certificates it is good for.")] = None,
    roles: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Look whether there is such a role: the file that the server has as --roles."
        ),
    ] = None,
    authority: options.Authority = None,
    external_url: Annotated[
        str | None, typer.Option(metavar="URL", help="The address of the server as clients know it, for the examples.")
    ] = None,
    store: options.StoreURL = None,
    json: options.JSON = False,
    config: options.Config = None,
) -> None:
    """Make a token, and print it, once. It can be used for its role alone.

    ```
    privet token create --role web --expires 7d --uses 1
    ```

    Without --expires and --uses it is good until it is revoked.
    """
    read = read_settings(context.params | {"name": authority}, os.environ)
    called, now = role if name is None else name, datetime.now(UTC)
    ends, mistakes = read_ends(expires, now)
    mistakes = [*_about_role(role, read.settings.roles), *mistakes_of(called, uses), *mistakes]
    settings = read.checked(*mistakes)
    with reading(settings) as (ca, _):
        made, text = tokens.create(ca.store, ca.name, role, called, now, ends=ends, uses=uses)
    address = external_url_of(settings, settings.host, settings.port)
    if json:
        print_json(_document(made, now) | {"token": text, "address": address})
    else:
        _print(made, text, address)


@token.command("list")
def list_(
    context: typer.Context,
    authority: options.Authority = None,
    store: options.StoreURL = None,
    json: options.JSON = False,
    config: options.Config = None,
) -> None:
    """List the tokens, oldest first, by their ids: the tokens themselves are known to nobody here.

    One that has expired is in the list for another month.

    ```
    privet token list
    ```
    """
    settings = read_settings(context.params | {"name": authority}, os.environ).checked()
    now = datetime.now(UTC)
    with reading(settings) as (ca, _):
        found = tokens.find_all(ca.store, ca.name)
    if json:
        print_json([_document(each, now) for each in found])
        return
    width = max([4, *(len(each.name) for each in found)])
    print(f"{'ID':<40}  {'NAME':<{width}}  {'STATUS':<7}  {'USES':<9}  {'EXPIRES':<20}  ROLE")
    for each in found:
        print(
            f"{each.id}  {printable(each.name):<{width}}  {each.status(now):<7}  {uses_text(each):<9}  "
            f"{ends_text(each):<20}  {each.role}"
        )


@token.command()
def revoke(
    context: typer.Context,
    keys: Annotated[list[str], typer.Argument(metavar="ID|NAME...", help="As `privet token list` shows them.")],
    authority: options.Authority = None,
    store: options.StoreURL = None,
    json: options.JSON = False,
    config: options.Config = None,
) -> None:
    """Take tokens back: nobody gets a certificate with them any more. Those that were issued stay valid:
    `privet revoke` is for those. By a name, all tokens of that name are meant.

    ```
    privet token revoke web
    ```
    """
    settings = read_settings(context.params | {"name": authority}, os.environ).checked()
    now = datetime.now(UTC)
    with reading(settings) as (ca, _):
        there = tokens.find_all(ca.store, ca.name)
        revoked, failed = take_back(
            there, keys, lambda each: tokens.revoke(ca.store, each, now), "token", "privet token list"
        )
    if json:
        print_json([_document(each, now) for each in revoked])
    else:
        for each in revoked:
            print(f"revoked {printable(each.name)} ({each.id})")
    if failed:
        raise Failure("\n".join(failed))


def _about_role(role: str, path: Path | None) -> list[str]:
    """What is wrong with the name of a role, as far as it is known here what there is."""
    try:
        check_name(role)
        known = read_roles(path).names if path else (role,)
    except ValueError as error:
        return [f"--role {error}"]
    except Failure as failure:
        return str(failure).splitlines()
    return [] if role in known else [f"there is no role {role} in {path}: there are {', '.join(known)}"]


def _document(token: Token, now: datetime) -> dict[str, object]:
    return grant_document(token, now, role=token.role)


def _print(token: Token, text: str, address: str) -> None:
    fields = {"token": text, "id": token.id, "role": token.role, "uses": uses_text(token), "expires": ends_text(token)}
    print_fields(fields.items())
    own = ""
    if address.startswith("https:"):
        own = f"""
# Where HTTPS is privet's own (--tls), whoever asks needs its root: `privet root > {ROOT}`, then
# export VAULT_CACERT={ROOT}, and --cacert {ROOT} for curl
"""
    print(f"""
The token is not shown again.
{own}
# Programs made for Vault
export VAULT_ADDR={shlex.quote(address)} VAULT_TOKEN={text}

# curl
curl -sS -H "X-Vault-Token: $VAULT_TOKEN" -d '{{"common_name": "NAME"}}' $VAULT_ADDR/v1/pki/issue/{token.role}""")
