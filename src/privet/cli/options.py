"""The options that several commands share. What `settings` reads is text here, as it was typed."""

from pathlib import Path
from typing import Annotated

import typer

from privet.ca import KeyType
from privet.cli.settings import DEFAULT_STORE

_KEY = "The key"

Config = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Take settings from this TOML file; its keys are the names of the options, and its paths begin at its "
        "folder.",
    ),
]
StoreURL = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="Where everything is kept: sqlite:///PATH, file:///PATH or postgresql://USER@HOST/DATABASE.",
        show_default=DEFAULT_STORE,
    ),
]
Name = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="The authority's name in the store.", show_default="root")
]
Authority = Annotated[
    str | None,
    typer.Option("--authority", metavar="NAME", help="The authority's name in the store.", show_default="root"),
]
KeyPasswordFile = Annotated[
    str | None,
    typer.Option("--key-password-file", metavar="FILE", help="Encrypt the authority's key with the password in FILE."),
]
CACert = Annotated[
    str | None,
    typer.Option(
        "--ca-cert",
        metavar="FILE",
        help="Be the authority with this certificate, followed by those that lead to its root, and with --ca-key.",
    ),
]
CAKey = Annotated[
    str | None,
    typer.Option(
        "--ca-key",
        metavar="FILE",
        help="The authority's private key, which then is not in the store; --key-password-file decrypts it.",
    ),
]
BackupPasswordFile = Annotated[
    str | None,
    typer.Option(
        "--backup-password-file",
        metavar="FILE",
        help="The password of the backup is in FILE. Without it, you are asked for it.",
    ),
]
CN = Annotated[
    str | None,
    typer.Option(
        "--cn", metavar="TEXT", help="The root's common name, when it is made.", show_default="privet Internal CA"
    ),
]
CAValidity = Annotated[
    str | None,
    typer.Option(
        "--ca-validity", metavar="DURATION", help="How long the root lives, when it is made.", show_default="3650d"
    ),
]
KeyKind = Annotated[
    KeyType,
    typer.Option(
        "--key-type",
        case_sensitive=False,
        metavar="KIND",
        help=f"The kind of key to make: {', '.join(KeyType)}.",
        rich_help_panel=_KEY,
    ),
]
Permit = Annotated[
    list[str] | None,
    typer.Option(
        "--permit",
        metavar="NAME|CIDR",
        help="The root, when it is made, is for these names and networks alone: internal (and all below), .internal "
        "(only what is below), 10.0.0.0/8. May be given several times.",
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="NAME|CIDR",
        help="The root, when it is made, is not for these names and networks. May be given several times.",
    ),
]
Validity = Annotated[
    str | None,
    typer.Option(
        "--validity", metavar="DURATION", help="How long certificates live: 90m, 24h, 7d.", show_default="24h"
    ),
]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--password-file",
        metavar="FILE",
        help="Encrypt the new key with the password in FILE.",
        rich_help_panel=_KEY,
    ),
]
Traditional = Annotated[
    bool,
    typer.Option(
        "--traditional",
        help="Write the new key in OpenSSL's traditional format, where it has one, not PKCS#8.",
        rich_help_panel=_KEY,
    ),
]
PostgreSQL = Annotated[
    str | None,
    typer.Option(
        "--postgres",
        metavar="USER|URL",
        help="For this user of a PostgreSQL, epoch_user or postgresql://epoch_user@db.internal/production; "
        "says how to connect.",
    ),
]
JSON = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
