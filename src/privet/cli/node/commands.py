"""The commands of `privet node`: bootstrap, issue, renew, status.

The law of this module: what is wrong with what was asked is said before anything is asked of a CA.
"""

import asyncio
import logging
import logging.config
import shlex
import signal
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from privet.bundle import CertBundle
from privet.ca import KeyType
from privet.ca.certificates import fingerprint as fingerprint_of
from privet.cli import options
from privet.cli.failures import Failure, Mistakes
from privet.cli.logs import log_config
from privet.cli.node import renewal
from privet.cli.node.folder import Folder, NodeSettings, write_file
from privet.cli.node.mistakes import (
    about_ca_file,
    about_external_account,
    about_key,
    about_names,
    about_owner,
    about_schedule,
    about_trust,
    about_vault,
    read_command,
    read_mode,
    read_patience,
)
from privet.cli.node.renewal import NotReloaded, told
from privet.cli.node.status import Standing, standing
from privet.cli.node.trust import install, named_root
from privet.cli.postgresql import Database, print_database, read_database
from privet.cli.printing import print_fields, print_json, printable, to_text, warn_of_wildcards
from privet.cli.stores import read_password
from privet.client.session import waiting

node = typer.Typer(rich_markup_mode="markdown")

_CA = "Whom to ask, and to trust"
_PROOF = "How control is proved"
_ACCOUNT = "The account"
_FILES = "The files, and their service"
_RENEWAL = "Renewal"

Directory = Annotated[
    str,
    typer.Option(
        "--directory",
        metavar="URL",
        help="The CA's directory, such as https://ca.internal:8555/directory.",
        rich_help_panel=_CA,
    ),
]
Fingerprint = Annotated[
    str | None,
    typer.Option(
        "--fingerprint",
        metavar="SHA256",
        help="The root's SHA-256, as `privet root` prints it where the CA is.",
        rich_help_panel=_CA,
    ),
]
Folders = Annotated[
    list[Path], typer.Argument(metavar="DIR...", help="Folders that `privet node issue --out DIR` has filled.")
]


@node.command()
def bootstrap(
    directory: Directory,
    fingerprint: Fingerprint = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the root into this file.")] = None,
    install_: Annotated[
        bool, typer.Option("--install", help="Have this system trust it, by update-ca-certificates or update-ca-trust.")
    ] = False,
    json: options.JSON = False,
) -> None:
    """Trust a CA, by the fingerprint of its root.

    ```
    privet node bootstrap --out root.pem \\
        --directory https://ca.internal:8555/directory --fingerprint 5C:0B:…
    ```

    The root is fetched from the CA, and written into a file if its fingerprint is right. Without --fingerprint it
    says what there is to compare, and writes nothing.
    """
    mistakes = about_trust(directory, fingerprint)
    if out is None and not install_ and fingerprint is not None:
        mistakes.append("say with --out FILE where the root is to be written, or --install, or both")
    if mistakes:
        raise Mistakes(mistakes)
    with told():
        root = asyncio.run(named_root(directory, fingerprint))
    if out is not None:
        out = out.expanduser().absolute()
        write_file(out, root.public_bytes(Encoding.PEM))
    installed = install(root) if install_ else None
    document = {
        "fingerprint": fingerprint_of(root),
        "subject": printable(root.subject.rfc4514_string()),
        "not_after": to_text(root.not_valid_after_utc),
        "file": out and str(out),
        "installed": installed and str(installed),
    }
    if json:
        print_json(document)
    else:
        print_fields((name.replace("_", " "), value) for name, value in document.items())


@node.command()
def issue(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where cert.pem, fullchain.pem, key.pem and ca.pem are written.")
    ],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", help="DNS names, wildcards, and IP addresses.")
    ] = None,
    postgres: options.PostgreSQL = None,
    profile: Annotated[str | None, typer.Option(metavar="NAME", help="One of the profiles that the CA offers.")] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep what is there if it is young, and was asked for in the same way.")
    ] = False,
    directory: Annotated[
        str | None,
        typer.Option(
            "--directory",
            metavar="URL",
            help="The CA's directory, such as https://ca.internal:8555/directory.",
            rich_help_panel=_CA,
        ),
    ] = None,
    fingerprint: Fingerprint = None,
    ca_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Trust the roots in this file, and these alone.", rich_help_panel=_CA),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure", help="Use plain http, where anybody on the way can answer for the CA.", rich_help_panel=_CA
        ),
    ] = False,
    vault: Annotated[
        str | None,
        typer.Option(
            "--vault",
            metavar="URL",
            help="Ask by Vault's PKI API instead, with --role and --token-file, at https://ca.internal:8555.",
            rich_help_panel=_CA,
        ),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(
            "--role", metavar="NAME", help="With --vault: the role that the token is for.", rich_help_panel=_CA
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file", metavar="FILE", help="With --vault: the file that has the token.", rich_help_panel=_CA
        ),
    ] = None,
    http_01: Annotated[
        bool,
        typer.Option(
            "--http-01",
            help="Prove control by answering on port 80, or on --http-01-port.",
            rich_help_panel=_PROOF,
        ),
    ] = False,
    http_01_port: Annotated[
        int | None,
        typer.Option(
            "--http-01-port",
            metavar="PORT",
            min=1,
            max=65535,
            help="The port that port 80 is forwarded to.",
            rich_help_panel=_PROOF,
        ),
    ] = None,
    webroot: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Prove control by files in a folder that a web server shows.",
            rich_help_panel=_PROOF,
        ),
    ] = None,
    dns_hook: Annotated[
        str | None,
        typer.Option(
            metavar="PROGRAM",
            help="Prove control by records in DNS: PROGRAM present NAME VALUE, and PROGRAM cleanup NAME VALUE.",
            rich_help_panel=_PROOF,
        ),
    ] = None,
    tls_alpn_01: Annotated[
        bool,
        typer.Option(
            "--tls-alpn-01",
            help="Prove control by answering on port 443, or on --tls-alpn-01-port.",
            rich_help_panel=_PROOF,
        ),
    ] = False,
    tls_alpn_01_port: Annotated[
        int | None,
        typer.Option(
            "--tls-alpn-01-port",
            metavar="PORT",
            min=1,
            max=65535,
            help="The port that port 443 is forwarded to.",
            rich_help_panel=_PROOF,
        ),
    ] = None,
    approval_within: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="Prove nothing, where a person at the CA decides, and wait so long for that: 10m, 24h.",
            rich_help_panel=_PROOF,
        ),
    ] = None,
    external_account: Annotated[
        str | None,
        typer.Option(metavar="KID", help="The id of the key by which the CA lets you in.", rich_help_panel=_ACCOUNT),
    ] = None,
    external_account_key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file with that key, in base64url.", rich_help_panel=_ACCOUNT),
    ] = None,
    contact: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EMAIL",
            help="Whom the CA may write to. May be given several times.",
            rich_help_panel=_ACCOUNT,
        ),
    ] = None,
    owner: Annotated[
        str | None,
        typer.Option(metavar="USER[:GROUP]", help="Whom the files are to belong to; for root.", rich_help_panel=_FILES),
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            metavar="MODE",
            help="The mode of key.pem: 0600, or 0640 to let a group read it.",
            rich_help_panel=_FILES,
        ),
    ] = "0600",
    reload_command: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Run this when there is a new certificate, now and later, without a shell.",
            rich_help_panel=_FILES,
        ),
    ] = None,
    key_type: options.KeyKind = KeyType.P256,
    password_file: options.PasswordFile = None,
    traditional: options.Traditional = False,
    renewal_threshold: Annotated[
        float,
        typer.Option(
            metavar="PART",
            help="Renew after this part of its life, such as 0.5, unless the CA says when.",
            show_default="two thirds",
            rich_help_panel=_RENEWAL,
        ),
    ] = 2 / 3,
    days_before_expiry: Annotated[
        float | None,
        typer.Option(
            metavar="DAYS", help="Renew so long before its end, but not in its first half.", rich_help_panel=_RENEWAL
        ),
    ] = None,
    reuse_key: Annotated[
        bool,
        typer.Option(
            "--reuse-key",
            help="Keep the key when it is renewed, for those who pin it, or connect at any time.",
            rich_help_panel=_RENEWAL,
        ),
    ] = False,
    json: options.JSON = False,
) -> None:
    """Get a certificate, and write it where a service reads it.

    ```
    privet node issue web.internal 10.0.0.7 --out /etc/web \\
        --directory https://ca.internal:8555/directory --fingerprint 5C:0B:… \\
        --reload-command 'nginx -s reload'
    ```

    ```
    privet node issue db.internal --out /etc/postgresql/tls --owner postgres \\
        --directory https://ca.internal:8555/directory --ca-file root.pem \\
        --http-01 --reload-command 'systemctl reload postgresql'
    ```

    With --postgres it says how to connect. By --vault the user of a database is a certificate's common name; by ACME,
    which knows no users, the server maps the first name to it.

    ```
    privet node issue --out /etc/epoch/certs --reuse-key \\
        --postgres postgresql://epoch_user@db.internal/production \\
        --vault https://ca.internal:8555 --fingerprint 5C:0B:… \\
        --role database --token-file token
    ```

    What was asked for is kept in DIR/.privet, so that `privet node renew DIR` needs no options. A service that could
    not be told is a warning, and exit status 3.
    """
    names = names or []
    database, mistakes = read_database(postgres)
    where, server = ("--vault", vault) if vault is not None else ("--directory", directory)
    if server is None or (vault is not None and directory is not None):
        mistakes.append("say whom to ask: with --directory URL by ACME, or with --vault URL by a token")
        server = ""
    else:
        mistakes += about_trust(server, fingerprint, insecure, where)
    if fingerprint is not None and ca_file is not None:
        mistakes.append("--fingerprint and --ca-file both say whom to trust: leave one of them out")
    if server.lower().startswith("http:") and not insecure:
        mistakes.append(
            f"{where} is not https, so anybody on the way could answer for the CA: use https with --fingerprint, or "
            "say --insecure on a network you trust"
        )
    mistakes += about_schedule(renewal_threshold, days_before_expiry)
    mistakes += about_names(names) + about_external_account(external_account, external_account_key_file)
    proofs = (http_01, http_01_port, webroot, dns_hook, tls_alpn_01, tls_alpn_01_port, approval_within)
    patience = read_patience(approval_within, mistakes)
    mistakes += about_vault(vault, role, token_file, any((*proofs, external_account, profile, contact)))
    if not names and (database is None or vault is None):
        mistakes.append("say which names the certificate is for; only by --vault can a --postgres do without")
    if password_file is not None:
        read_password(password_file)
    mistakes += about_ca_file(ca_file)
    if webroot is not None and not webroot.is_dir():
        mistakes.append(f"--webroot: there is no folder {webroot}")
    mistakes += about_owner(owner)
    bits = read_mode(mode, mistakes)
    mistakes += about_key(bits, owner, database)
    hook = read_command("--dns-hook", dns_hook, mistakes)
    reload = read_command("--reload-command", reload_command, mistakes)
    if mistakes:
        raise Mistakes(mistakes)
    settings = NodeSettings(
        names=tuple(names),
        directory=f"{vault.rstrip('/')}/" if vault is not None else server,
        common_name=database.user if database and vault is not None else None,
        role=role,
        token_file=_absolute(token_file),
        fingerprint=fingerprint,
        ca_file=_absolute(ca_file),
        insecure=insecure,
        http_01_port=http_01_port or (80 if http_01 else None),
        webroot=_absolute(webroot),
        dns_hook=hook,
        tls_alpn_01_port=tls_alpn_01_port or (443 if tls_alpn_01 else None),
        approval_within=patience,
        owner=owner,
        mode=bits,
        reload_command=reload,
        key_type=key_type,
        password_file=_absolute(password_file),
        traditional=traditional,
        external_account=external_account,
        external_account_key_file=_absolute(external_account_key_file),
        profile=profile,
        contact=tuple(contact or ()),
        renewal_threshold=renewal_threshold,
        days_before_expiry=days_before_expiry,
        reuse_key=reuse_key,
    )
    _warn_in_sentences()
    warn_of_wildcards(names)
    with Folder.make(out) as folder:
        try:
            bundle = asyncio.run(renewal.get(folder, settings, keep=keep))
        except NotReloaded:
            _print_issued(folder, folder.bundle(settings), database, json)
            raise
        _print_issued(folder, bundle, database, json)


@node.command()
def renew(
    folders: Folders,
    daemon: Annotated[
        bool, typer.Option("--daemon", help="Stay, and renew whenever something is due, until SIGTERM comes.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Renew what is not due, too.")] = False,
    json: options.JSON = False,
) -> None:
    """Renew what is due, as it was asked for.

    ```
    privet node renew /etc/web /etc/postgresql/tls
    privet node renew /etc/web --daemon
    ```

    It is due when the CA suggests it, else after two thirds of its life, or when `privet node issue` was told with
    --renewal-threshold or --days-before-expiry. After a renewal the reload command is run; one that failed is run
    again. With --daemon a CA that is down is asked again, ever more often the less time is left.
    """
    if daemon and (force or json):
        raise Mistakes([f"--daemon stays, so it cannot be combined with {'--force' if force else '--json'}"])
    with ExitStack() as end:
        if daemon:
            logging.config.dictConfig(log_config("info"))
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until there is something to end first
            opened = [end.enter_context(Folder.find(path)) for path in folders]
            asyncio.run(renewal.keep_renewed(opened))
            return
        _warn_in_sentences()
        failures: list[Failure] = []
        documents = []
        for path in folders:
            try:
                with Folder.find(path) as folder:
                    renewed = False
                    try:
                        renewed = asyncio.run(renewal.renew(folder, force=force))
                    except Failure as failure:
                        failures.append(failure)
                    found = standing(folder, datetime.now(UTC))
                    documents.append(found.document | {"renewed": renewed})
                    if not json:
                        what = "renewed" if renewed else "unchanged"
                        names, until = printable(", ".join(found.names)), to_text(found.not_after)
                        print(f"{what:<12} {folder.path}, for {names} until {until}")
            except Failure as failure:
                failures.append(failure)
        if json:
            print_json(documents)
        _raise(failures)


@node.command()
def status(folders: Folders, json: options.JSON = False) -> None:
    """Show how it stands with certificates.

    ```
    privet node status /etc/web
    ```

    Exit status 1 says that somebody has to look: one has ended, its renewal has failed and the end is near, or a new
    one is not in its place or its service was not told of it.
    """
    now = datetime.now(UTC)
    failures: list[Failure] = []
    found: list[Standing] = []
    for path in folders:
        try:
            with Folder.find(path) as folder:
                found.append(standing(folder, now))
        except Failure as failure:
            failures.append(failure)
    if json:
        print_json([each.document for each in found])
    else:
        for number, each in enumerate(found):
            print("\n" * (number > 0), end="")
            print_fields(each.fields)
    _raise(failures + [Failure(each.alarm) for each in found if each.alarm])


class _Sentences(logging.Handler):
    """What is worth a warning, as everything else is said here: without a traceback."""

    def emit(self, record: logging.LogRecord) -> None:
        cause = record.exc_info[1] if record.exc_info else None
        why = f": {renewal.to_sentence(cause)}" if isinstance(cause, Exception) else ""
        print(f"privet: {record.getMessage()}{why}", file=sys.stderr)


def _warn_in_sentences() -> None:
    logging.getLogger("privet").addHandler(_Sentences(logging.WARNING))
    waiting.setLevel(logging.INFO)
    waiting.addHandler(_Sentences(logging.INFO))
    logging.getLogger("privet.renewal").propagate = False  # what it would warn of is how the command fails
    logging.getLogger("privet.renewal").addHandler(logging.NullHandler())


def _raise(failures: list[Failure]) -> None:
    """All of them, with the exit status of the worst: a service that was not told is not as bad as no certificate."""
    if failures:
        together = Failure("\n".join(dict.fromkeys(map(str, failures))))
        together.status = min(failure.status for failure in failures)
        raise together


def _print_issued(folder: Folder, bundle: CertBundle, database: Database | None, json: bool) -> None:
    files = {name: folder.path / name for name in ("cert.pem", "fullchain.pem", "key.pem", "ca.pem")}
    document: dict[str, object] = {
        "names": list(dict.fromkeys([bundle.domain, *bundle.domains])),
        "not_after": to_text(bundle.expires_at),
        "files": {name.removesuffix(".pem"): str(path) for name, path in files.items() if path.exists()},
    }
    told = database and database.document(folder.path, x509.load_pem_x509_certificate(bundle.cert_pem))
    if json:
        print_json(document | ({"postgresql": told} if told else {}))
        return
    names = printable(", ".join(dict.fromkeys([bundle.domain, *bundle.domains])))
    print_fields([("names", names), ("valid until", document["not_after"])])
    print_fields((path.stem, path) for path in files.values() if path.exists())
    if told:
        print_database(told)
    print(f"\nTo keep it renewed:\n  privet node renew {shlex.quote(str(folder.path))} --daemon")


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.expanduser().absolute())
