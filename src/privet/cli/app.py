"""The commands, put together."""

import platform
import ssl
from importlib.metadata import version as version_of
from typing import Annotated

import typer

from privet.cli import options
from privet.cli.approvals import approve, pending, refuse
from privet.cli.authority import import_ca, init, root
from privet.cli.backups import backup, check, restore
from privet.cli.certificates import issue, list_, revoke, show
from privet.cli.certs import cert
from privet.cli.doctor import doctor
from privet.cli.external_accounts import eab
from privet.cli.health import health
from privet.cli.node import node
from privet.cli.policies import policy
from privet.cli.printing import print_json
from privet.cli.serve.command import serve
from privet.cli.tokens import token

app = typer.Typer(
    name="privet",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_CERTIFICATES = "Certificates"
_APPROVAL = "Requests that wait for a person"
_AUTHORITY = "The authority"
_STORE = "The store"
_FILES = "Files, without store and server"

app.command(rich_help_panel="The server")(serve)
app.command(rich_help_panel="The server")(health)
app.add_typer(policy, name="policy", rich_help_panel="The server")
app.add_typer(eab, name="eab", rich_help_panel="The server")
app.add_typer(token, name="token", rich_help_panel="The server")
app.command(rich_help_panel=_CERTIFICATES)(issue)
app.command("list", rich_help_panel=_CERTIFICATES)(list_)
app.command(rich_help_panel=_CERTIFICATES)(show)
app.command(rich_help_panel=_CERTIFICATES)(revoke)
app.add_typer(node, name="node", rich_help_panel="Certificates for this machine")
app.command(rich_help_panel=_APPROVAL)(pending)
app.command(rich_help_panel=_APPROVAL)(approve)
app.command(rich_help_panel=_APPROVAL)(refuse)
app.command(rich_help_panel=_AUTHORITY)(init)
app.command("import-ca", rich_help_panel=_AUTHORITY)(import_ca)
app.command(rich_help_panel=_AUTHORITY)(root)
app.command(rich_help_panel=_STORE)(backup)
app.command(rich_help_panel=_STORE)(restore)
app.command(rich_help_panel=_STORE)(check)
app.command(rich_help_panel=_FILES)(doctor)
app.add_typer(cert, name="cert", rich_help_panel=_FILES)


@app.command(rich_help_panel="privet")
def version(json: options.JSON = False) -> None:
    """Print the version of privet, and of what it stands on."""
    versions = {
        "privet": version_of("privet"),
        "python": platform.python_version(),
        "cryptography": version_of("cryptography"),
        "openssl": ssl.OPENSSL_VERSION,
    }
    if json:
        print_json(versions)
    else:
        print(f"privet {versions['privet']}")


def _version(asked: bool) -> None:
    if asked:
        version()
        raise typer.Exit


@app.callback()
def _privet(
    asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """An internal certificate authority that speaks ACME.

    Begin with `privet serve --auto-approve`: it makes an authority, serves it on this machine, and prints what
    certbot, lego, Caddy and curl need to get certificates from it.
    """
