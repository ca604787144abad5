"""`privet init`, `import-ca` and `root`: the authority itself."""

import os
from pathlib import Path
from typing import Annotated

import typer

from privet.ca import AuthorityError, CertificateAuthority, KeyType
from privet.cli import options
from privet.cli.failures import Failure
from privet.cli.printing import authority_document, print_authority, print_json, warn_of_end
from privet.cli.settings import read_settings
from privet.cli.stores import (
    init_authority,
    key_password,
    name_constraints,
    open_settings_store,
    read_file,
    read_password,
    reading,
)


def init(
    context: typer.Context,
    cn: options.CN = None,
    ca_validity: options.CAValidity = None,
    key_type: options.KeyKind = KeyType.P256,
    permit: options.Permit = None,
    exclude: options.Exclude = None,
    name: options.Name = None,
    key_password_file: options.KeyPasswordFile = None,
    ca_cert: options.CACert = None,
    ca_key: options.CAKey = None,
    store: options.StoreURL = None,
    json: options.JSON = False,
    config: options.Config = None,
) -> None:
    """Make the authority: its key and its root certificate. Safe to repeat: one that is there stays as it is.

    `privet serve` does this by itself when it is started for the first time. Do it here to choose the kind of key,
    or to issue certificates without a server:

    ```
    privet init --cn "Example Internal CA" --key-type P-384
    ```

    An authority that everybody may trust without a worry, because programs accept nothing else from it (RFC 5280
    name constraints):

    ```
    privet init --permit internal --permit 10.0.0.0/8
    ```
    """
    settings = read_settings(context.params, os.environ).checked()
    name_constraints(settings)  # before there is a store
    with open_settings_store(settings.store) as store_:
        ca = init_authority(store_, settings, key_type)
        warn_of_end(ca, settings)
        document = authority_document(ca.name, ca.chain_pem, settings.store)
        (print_json if json else print_authority)(document)


def import_ca(
    context: typer.Context,
    certificate: Annotated[
        Path,
        typer.Argument(
            metavar="CERTIFICATE", help="The CA's certificate in PEM, followed by those that lead to its root, if any."
        ),
    ],
    key: Annotated[Path, typer.Argument(metavar="KEY", help="Its private key in PEM.")],
    password_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The password that KEY is encrypted with.")
    ] = None,
    name: options.Name = None,
    key_password_file: options.KeyPasswordFile = None,
    store: options.StoreURL = None,
    json: options.JSON = False,
    config: options.Config = None,
) -> None:
    """Take over a CA that exists already. Nothing is overwritten: an authority of this name must not be there yet.

    ```
    privet import-ca ca.crt ca.key --password-file password.txt
    ```
    """
    settings = read_settings(context.params, os.environ).checked()
    pems = read_file(certificate), read_file(key)
    password = read_password(password_file) if password_file else None
    with open_settings_store(settings.store) as store_:
        ca = CertificateAuthority(store_, settings.name, key_password=key_password(settings))
        try:
            ca.import_ca(*pems, password)
        except AuthorityError as error:
            raise Failure(_hint(str(error))) from None
        document = authority_document(ca.name, ca.chain_pem, settings.store)
        (print_json if json else print_authority)(document)


def root(
    context: typer.Context,
    name: options.Name = None,
    store: options.StoreURL = None,
    json: options.JSON = False,
    config: options.Config = None,
) -> None:
    """Print the root certificate, which is what everybody has to trust.

    ```
    privet root > privet-root.pem
    ```
    """
    settings = read_settings(context.params, os.environ).checked()
    with reading(settings) as (ca, chain_pem):
        document = authority_document(ca.name, chain_pem, settings.store)
    if json:
        print_json(document)
    else:
        print(document["root_pem"], end="")


def _hint(text: str) -> str:
    if "password is missing" in text or "has another password" in text:
        return f"{text}; --password-file says which file has it"
    if "there already is" in text:
        return f"{text}: choose another name with --name, or another store with --store"
    return text
