"""`privet issue`, `list`, `show` and `revoke`: certificates, with and without ACME."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from operator import attrgetter
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509

from privet.acme.identifiers import BadIdentifier, from_text
from privet.acme.reasons import REVOCATION_REASONS
from privet.bundle import CertBundle
from privet.ca import (
    AuthorityError,
    BadCSR,
    Certificate,
    CertificateAuthority,
    KeyType,
    WeakKey,
    keys,
)
from privet.ca.issuer import check_common_name
from privet.cli import options
from privet.cli.failures import Failure
from privet.cli.postgresql import Database, print_database, read_database
from privet.cli.printing import (
    certificate_document,
    print_fields,
    print_json,
    print_json_list,
    printable,
    status_of,
    to_text,
    warn_of_wildcards,
)
from privet.cli.settings import Settings, read_settings
from privet.cli.stores import read_file, read_password, reading, signing
from privet.server.records import Kind, Order, Validation

Force = Annotated[bool, typer.Option("--force", help="Replace files that are there already.")]


class Status(StrEnum):
    PREPARED = "prepared"
    VALID = "valid"
    REVOKED = "revoked"
    EXPIRED = "expired"


def issue(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", help="DNS names and IP addresses; the first one names it.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write cert.pem, fullchain.pem and key.pem into this folder. Without it, a folder named after the "
            "first name; with a file:/// store, they are where the store keeps them.",
        ),
    ] = None,
    force: Force = False,
    csr: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certify the key and the names of this CSR instead.")
    ] = None,
    client: Annotated[bool, typer.Option("--client", help="For use by clients alone.")] = False,
    cn: Annotated[
        str | None,
        typer.Option(
            "--cn", metavar="TEXT", help="The common name of a client's certificate: any text, such as a user."
        ),
    ] = None,
    postgres: options.PostgreSQL = None,
    wildcard: Annotated[bool, typer.Option("--wildcard", help="Allow names such as *.internal.")] = False,
    key_type: options.KeyKind = KeyType.P256,
    password_file: options.PasswordFile = None,
    traditional: options.Traditional = False,
    validity: options.Validity = None,
    name: options.Name = None,
    key_password_file: options.KeyPasswordFile = None,
    ca_cert: options.CACert = None,
    ca_key: options.CAKey = None,
    store: options.StoreURL = None,
    json: options.JSON = False,
    config: options.Config = None,
) -> None:
    """Issue a certificate, and make its key, without ACME. Works beside a running server.

    ```
    privet issue web.internal 10.0.0.7 --out /etc/web/tls --validity 7d
    privet issue --postgres postgresql://epoch_user@db.internal/production \\
        --out /etc/epoch/certs
    ```

    With --postgres it is a client's, its common name is the user's, the root is beside it as ca.pem, and what is
    printed says how to connect. With --password-file only the files in the folder are encrypted, and not the store.
    """
    database, mistakes = read_database(postgres)
    client = client or database is not None
    mistakes += _mistakes(names or [], csr, wildcard, postgres or cn)
    mistakes += _about_common_name(cn, client, csr, database)
    settings = read_settings(context.params, os.environ).checked(*mistakes)
    common_name = database.user if database else cn
    request = read_file(csr) if csr else None
    password = read_password(password_file) if password_file else None
    with signing(settings) as ca:
        path_of = getattr(ca.store, "path_of", None)
        in_store = path_of and not (out or csr or database or password or traditional)
        named = [common_name] if common_name else names or [(csr or Path()).stem]
        folder = None if in_store else out or _folder(named)
        if folder:
            parts = ["cert", "fullchain", *([] if csr else ["key"]), *(["ca"] if database else [])]
            _check_folder(folder, force, parts)
        bundle = _issue(ca, settings, names or [], common_name, request, client, wildcard, key_type)
        if folder:
            if bundle.key_pem and (password or traditional):
                key = keys.from_pem(bundle.key_pem)
                bundle = replace(bundle, key_pem=keys.to_pem(key, password, traditional=traditional))
            paths = _write(folder, bundle, ca.root_cert_pem if database else b"")
        else:
            assert path_of is not None
            paths = {part: path_of("certs", bundle.domain, f"{part}.pem") for part in ("cert", "fullchain", "key")}
    certificate = x509.load_pem_x509_certificate(bundle.cert_pem)
    warn_of_wildcards(bundle.domains)
    told = database.document(folder or Path(), certificate) if database else None
    _print_issued(bundle, paths, told, json)


def list_(
    context: typer.Context,
    identifier: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Only certificates for this DNS name or IP address.")
    ] = None,
    status: Annotated[Status | None, typer.Option(help="Only certificates of this status.")] = None,
    name: options.Name = None,
    store: options.StoreURL = None,
    json: options.JSON = False,
    config: options.Config = None,
) -> None:
    """List the certificates on record, oldest first: those of ACME accounts, and those issued here.

    A certificate stays on record for a week after its end.

    ```
    privet list --status valid
    ```
    """
    settings = read_settings(context.params, os.environ).checked()
    now = datetime.now(UTC)
    with reading(settings) as (ca, _):
        found = (each for each in _all(ca, identifier) if status in (None, status_of(each, now)))
        if json:
            print_json_list(certificate_document(each, now) for each in found)
            return
        print(f"{'SERIAL':<32}  {'STATUS':<8}  {'VALID UNTIL':<20}  NAMES")
        for each in found:
            names = printable(", ".join(each.names))
            print(f"{each.serial:<32x}  {status_of(each, now):<8}  {to_text(each.not_after):<20}  {names}")


def show(
    context: typer.Context,
    certificate: Annotated[
        str, typer.Argument(metavar="SERIAL|NAME", help="A serial number, or a name for its newest certificate.")
    ],
    name: options.Name = None,
    store: options.StoreURL = None,
    json: options.JSON = False,
    config: options.Config = None,
) -> None:
    """Show one certificate: what is on record about it, and itself with what leads to the root, in PEM.

    ```
    privet show web.internal
    ```
    """
    settings = read_settings(context.params, os.environ).checked()
    now = datetime.now(UTC)
    with reading(settings) as (ca, chain_pem):
        found = _find(ca, certificate)
        chain = (found.cert_pem + chain_pem).decode() if found.der else None
        document = certificate_document(found, now)
        order = _order_of(ca, found)
        allowed, proofs = _allowed(order), order.proofs if order else ()
        if json:
            print_json(document | {"order": found.request, "allowed": allowed, "proofs": proofs, "fullchain": chain})
            return
        names = printable(", ".join(found.names))
        print_fields((key.replace("_", " "), value) for key, value in (document | {"names": names}).items())
        print_fields(
            ("allowed", f"{each['name']}: {each['decision']} by {printable(each['rule'])}")
            for each in allowed
            if each["rule"]
        )
        print_fields(("proved", _told(proof)) for proof in proofs)
        print(f"\n{chain}" if chain else "\nIt is not signed yet.")


def revoke(
    context: typer.Context,
    serials: Annotated[list[str], typer.Argument(metavar="SERIAL...", help="As `privet list` shows them.")],
    reason: Annotated[
        str,
        typer.Option(
            metavar="REASON", help=", ".join(f"{text} ({number})" for number, text in REVOCATION_REASONS.items())
        ),
    ] = REVOCATION_REASONS[0],
    name: options.Name = None,
    store: options.StoreURL = None,
    json: options.JSON = False,
    config: options.Config = None,
) -> None:
    """Revoke certificates. It cannot be undone.

    ```
    privet revoke 497f76095e7097b0f12fd348569e305d --reason keyCompromise
    ```
    """
    read = read_settings(context.params, os.environ)
    mistakes = [
        f"{each} is no serial number: `privet show {each}` shows that of the newest certificate of a name"
        for each in serials
        if _serial(each) is None
    ]
    number = _reason(reason)
    if number is None:
        known = ", ".join(f"{number} ({text})" for number, text in REVOCATION_REASONS.items())
        mistakes.append(f"--reason {reason} is none that is usable; these are: {known}")
    settings = read.checked(*mistakes)
    failed = []
    revoked: list[Certificate] = []
    with reading(settings) as (ca, _):
        for each in serials:
            try:
                revoked.append(ca.revoke(_serial(each) or 0, number or 0))
            except AuthorityError as error:
                failed.append(str(error))
            else:
                if not json:
                    print(f"revoked {revoked[-1].serial:x} for {printable(', '.join(revoked[-1].names))}")
    if json:
        now = datetime.now(UTC)
        print_json([certificate_document(each, now) for each in revoked])
    if failed:
        raise Failure("\n".join(failed))


def _mistakes(names: Sequence[str], csr: Path | None, wildcard: bool, common_name: str | None) -> Iterator[str]:
    if (bool(names) == bool(csr) and not common_name) or (names and csr):
        yield "say which names the certificate is for, or which CSR has them with --csr; one of both"
    for name in names:
        try:
            if from_text(name).wildcard and not wildcard:
                yield f"{name} is a wildcard: add --wildcard if that is meant"
        except BadIdentifier as error:
            yield str(error)


def _about_common_name(cn: str | None, client: bool, csr: Path | None, database: Database | None) -> Iterator[str]:
    if (cn is not None or database) and csr:
        yield "a CSR has its common name and its key already: leave --cn and --postgres out"
    if cn is None:
        return
    if database:
        yield "--cn and --postgres both say what the common name is: leave --cn out"
    elif not client:
        yield "--cn is for clients' certificates: add --client"
    try:
        check_common_name(cn)
    except ValueError as error:
        yield f"--cn: {error}"


def _issue(
    ca: CertificateAuthority,
    settings: Settings,
    names: Sequence[str],
    common_name: str | None,
    csr: bytes | None,
    client: bool,
    wildcard: bool,
    key_type: KeyType,
) -> CertBundle:
    hours = settings.validity / timedelta(hours=1)
    if csr is None:
        return ca.issue(
            names,
            common_name=common_name,
            client=client,
            wildcard=wildcard,
            key_type=key_type,
            validity_hours=hours,
        )
    try:
        return ca.issue_from_csr(csr, client=client, wildcard=wildcard, validity_hours=hours)
    except BadIdentifier as error:
        hint = ": add --wildcard if that is meant" if "wildcard" in str(error) else ""
        raise Failure(f"the CSR is refused: {str(error).partition(';')[0]}{hint}") from None
    except (BadCSR, WeakKey) as error:
        raise Failure(f"the CSR is refused: {error}") from None


def _print_issued(
    bundle: CertBundle, paths: Mapping[str, Path], database: Mapping[str, str] | None, json: bool
) -> None:
    names = list(dict.fromkeys([bundle.domain, *bundle.domains]))
    if json:
        document: dict[str, object] = {"serial": f"{bundle.serial:x}", "names": names}
        document |= {"not_after": to_text(bundle.expires_at), "files": {part: str(paths[part]) for part in paths}}
        print_json(document | ({"postgresql": database} if database else {}))
        return
    print_fields(
        [
            ("issued", f"{bundle.serial:x}"),
            ("for", printable(", ".join(names))),
            ("valid until", to_text(bundle.expires_at)),
            *paths.items(),
        ]
    )
    if database:
        print_database(database)


def _folder(names: Sequence[str]) -> Path:
    return Path(str(names[0]).replace("*", "_").replace("/", "_"))


def _check_folder(folder: Path, force: bool, parts: Sequence[str]) -> None:
    """Find out before a certificate is issued in vain. Raises `Failure`."""
    for part in parts:
        if not force and (folder / f"{part}.pem").exists():
            raise Failure(f"{folder / part}.pem exists: replace it with --force, or choose another folder with --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise Failure(f"cannot write into {folder}: {error.strerror}; choose another folder with --out") from None


def _write(folder: Path, bundle: CertBundle, root_pem: bytes = b"") -> dict[str, Path]:
    """Write each file as a whole, the key first."""
    contents = {"key": bundle.key_pem, "cert": bundle.cert_pem, "fullchain": bundle.fullchain_pem, "ca": root_pem}
    paths = {}
    for part, content in contents.items():
        if not content:
            continue  # the key of a CSR, a root that nobody asked for
        paths[part] = folder / f"{part}.pem"
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:  # 0600
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                if part != "key":
                    os.fchmod(file.fileno(), 0o644)
                Path(file.name).replace(paths[part])
            except OSError as error:
                with contextlib.suppress(OSError):
                    Path(file.name).unlink()
                raise Failure(
                    f"cannot write {paths[part]}: {error.strerror}; the certificate {bundle.serial:x} is on record, "
                    "revoke it if you issue another"
                ) from None
    return paths


def _all(ca: CertificateAuthority, name: str | None = None) -> Iterator[Certificate]:
    after = ""
    while found := ca.certificates(name, after=after, limit=500):
        yield from found
        after = found[-1].id


def _find(ca: CertificateAuthority, text: str) -> Certificate:
    serial = _serial(text)
    found = ca.certificate(serial) if serial is not None else None
    if found is None:
        with contextlib.suppress(BadIdentifier):
            found = max(_all(ca, text), key=attrgetter("id"), default=None)
    if found is None:
        raise Failure(f"there is no certificate with the serial number or the name {text}: `privet list` shows all")
    return found


def _order_of(ca: CertificateAuthority, certificate: Certificate) -> Order | None:
    record = ca.store.get(Kind.ORDER, certificate.request) if certificate.request else None
    return Order.from_record(record) if record else None


def _told(proof: Validation) -> str:
    name = f"{'*.' if proof['wildcard'] else ''}{proof['identifier']['value']}"
    targets = ", ".join(dict.fromkeys(step["target"] for step in proof["steps"] if step["source"]))
    by = f"{proof['method']} ({proof['by']})" if "by" in proof else proof["method"]
    return printable(f"{name} by {by} at {proof['validated']}{targets and f', connected to {targets}'}")


def _allowed(order: Order | None) -> list[dict[str, str]]:
    """By which decision and rule an account was allowed each name."""
    if order is None:
        return []
    return [
        {"name": identifier.value, "decision": ruling.decision.value, "rule": ruling.rule}
        for identifier, ruling in zip(order.identifiers, order.rulings, strict=True)
    ]


def _serial(text: str) -> int | None:
    """A serial number as we print it, or as openssl does."""
    digits = text.lower().removeprefix("0x").replace(":", "")
    return int(digits, 16) if re.fullmatch(r"[0-9a-f]{1,40}", digits) else None


def _reason(text: str) -> int | None:
    names = {name.lower(): number for number, name in REVOCATION_REASONS.items()}
    numbers = {str(number): number for number in REVOCATION_REASONS}
    return (names | numbers).get(text.lower())
