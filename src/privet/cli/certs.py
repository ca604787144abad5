"""`privet cert`: an authority in two files, what it issues as files, and what files have in them. No store, no server.

The law of this module: nothing is overwritten unasked, and a key is for its owner alone from the moment it exists.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from privet.acme.identifiers import BadIdentifier
from privet.ca import AuthorityError, KeyType, NamesRefused, keys
from privet.ca.certificates import fingerprint
from privet.ca.issuer import Issuer, make_root
from privet.ca.keys import PrivateKey
from privet.ca.offline import certify
from privet.cli import options
from privet.cli.contents import Item, Kind, certificates_of, contents_of, described, key_type
from privet.cli.failures import Failure, Mistakes
from privet.cli.printing import names_text, print_fields, print_json, printable, to_text, warn_of_wildcards
from privet.cli.stores import read_file, read_password

cert = typer.Typer(
    name="cert",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="An authority in two files, and certificates of it, without store and server.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to write into; it is made if need be.")]
CADir = Annotated[Path, typer.Option("--ca-dir", metavar="DIR", help="The folder that has ca.crt and ca.key.")]
Days = Annotated[int, typer.Option("--validity", metavar="DAYS", min=1, max=36500, help="How long it is valid.")]
Force = Annotated[bool, typer.Option("--force", help="Replace files that are there already.")]
CAPasswordFile = Annotated[
    Path | None, typer.Option("--ca-password-file", metavar="FILE", help="The password that ca.key is encrypted with.")
]


@cert.command("create-ca")
def create_ca(
    out: Out = Path(),
    cn: Annotated[str, typer.Option("--cn", metavar="TEXT", help="Its common name.")] = "privet CA",
    validity: Days = 365,
    key_kind: options.KeyKind = KeyType.P256,
    password_file: options.PasswordFile = None,
    traditional: options.Traditional = False,
    force: Force = False,
    json: options.JSON = False,
) -> None:
    """Make a certificate authority: `ca.crt`, to be trusted by everybody, and `ca.key`, to be kept by its owner.

    ```
    privet cert create-ca --out certs/
    ```
    """
    _check(out, ("ca.crt", "ca.key"), force)
    to_pem = _writer(password_file, traditional)
    try:
        issuer = make_root(keys.generate(key_kind), cn, _now(), timedelta(days=validity))
    except ValueError as error:
        raise Mistakes([f"--cn or --validity cannot be used: {error}"]) from None
    paths = _write(out, {"ca.key": to_pem(issuer.key), "ca.crt": issuer.chain_pem}, force)
    _told(issuer.chain[0], paths, json)


@cert.command("create-node")
def create_node(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Every DNS name and IP address it is called by.")
    ],
    ca_dir: CADir = Path(),
    out: Out = Path(),
    validity: Days = 90,
    key_kind: options.KeyKind = KeyType.P256,
    password_file: options.PasswordFile = None,
    traditional: options.Traditional = False,
    ca_password_file: CAPasswordFile = None,
    force: Force = False,
    json: options.JSON = False,
) -> None:
    """Make a node's `node.crt` and `node.key`, for its servers and its clients.

    ```
    privet cert create-node 10.0.0.1 node-1.internal \\
        --ca-dir certs/ --out certs/node-1/
    ```
    """
    to_pem = _writer(password_file, traditional)
    _create("node", names, None, ca_dir, out, validity, key_kind, to_pem, ca_password_file, force, json)


@cert.command("create-client")
def create_client(
    cn: Annotated[str, typer.Argument(metavar="CN", help="Its common name: any text, such as a database user.")],
    ca_dir: CADir = Path(),
    out: Out = Path(),
    validity: Days = 90,
    key_kind: options.KeyKind = KeyType.P256,
    password_file: options.PasswordFile = None,
    traditional: options.Traditional = False,
    ca_password_file: CAPasswordFile = None,
    force: Force = False,
    json: options.JSON = False,
) -> None:
    """Make a client's `client.crt` and `client.key`, which no server can use.

    ```
    privet cert create-client my-app --ca-dir certs/ --out certs/client/
    ```
    """
    to_pem = _writer(password_file, traditional)
    _create("client", [], cn, ca_dir, out, validity, key_kind, to_pem, ca_password_file, force, json)


@cert.command()
def info(
    file: Annotated[Path, typer.Argument(metavar="FILE", readable=False, help="PEM or DER.")],
    password_file: Annotated[
        Path | None, typer.Option("--password-file", metavar="FILE", help="The password of a key that is encrypted.")
    ] = None,
    json: options.JSON = False,
) -> None:
    """Show what a file has in it: certificates, keys, requests, revocation lists. Private keys are not shown.

    ```
    privet cert info certs/node-1/node.crt
    ```
    """
    items = contents_of(read_file(file), _password(password_file))
    if items[0].kind in (Kind.EMPTY, Kind.UNKNOWN) and len(items) == 1:
        raise Failure(f"{file} is {items[0].kind.value}{f': {items[0].problem}' if items[0].problem else ''}")
    documents = [_document(item, _now()) for item in items]
    if json:
        print_json(documents)
        return
    for number, document in enumerate(documents):
        if number:
            print()
        print_fields((name.replace("_", " "), _shown(value)) for name, value in document.items())


@cert.command("list")
def list_(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to look in, and all below it.")] = Path(),
    json: options.JSON = False,
) -> None:
    """List the certificates in a folder and all below it, and mark those that have expired.

    ```
    privet cert list certs/
    ```
    """
    if not folder.is_dir():
        raise Failure(
            f"{folder} is no folder: `privet cert info {folder}` is for a file"
            if folder.exists()
            else f"there is no folder {folder}"
        )
    now = _now()
    found = [(path, each) for path, certificate in _certificates(folder) for each in [_document_of(certificate, now)]]
    if json:
        print_json([{"file": str(path), **document} for path, document in found])
        return
    width = max([4, *(len(str(path)) for path, _ in found)])
    print(f"{'FILE':<{width}}  {'STATUS':<13}  {'VALID UNTIL':<20}  NAMES")
    for path, document in found:
        status = str(document["status"])
        marked = status.upper() if status == "expired" else status
        names = _shown(document["names"]) or _shown(document["subject"])
        print(f"{path!s:<{width}}  {marked:<13}  {document['not_after']:<20}  {names}")


def _create(
    part: str,
    names: list[str],
    cn: str | None,
    ca_dir: Path,
    out: Path,
    validity: int,
    key_kind: KeyType,
    to_pem: Callable[[PrivateKey], bytes],
    ca_password_file: Path | None,
    force: bool,
    json: bool,
) -> None:
    _check(out, (f"{part}.crt", f"{part}.key"), force)
    issuer = _issuer(ca_dir, _password(ca_password_file))
    try:
        certificate, key = certify(
            issuer, names, _now(), timedelta(days=validity), cn=cn, client=part == "client", key_type=key_kind
        )
    except (BadIdentifier, NamesRefused, AuthorityError):
        raise
    except (ValueError, OverflowError) as error:
        raise Mistakes([str(error)]) from None
    # What leads to the root, and not the root, which the other end has to have.
    chain = [certificate, *(each for each in issuer.chain if each.subject != each.issuer)]
    pem = b"".join(each.public_bytes(Encoding.PEM) for each in chain)
    paths = _write(out, {f"{part}.key": to_pem(key), f"{part}.crt": pem}, force)
    warn_of_wildcards(names)
    if certificate.not_valid_after_utc == issuer.not_after:
        typer.echo(f"privet: it ends with its CA, before {validity} days are over", err=True)
    _told(certificate, paths, json)


def _issuer(folder: Path, password: bytes | None) -> Issuer:
    cert_path, key_path = folder / "ca.crt", folder / "ca.key"
    for path in (cert_path, key_path):
        if not path.exists():
            makes = f"`privet cert create-ca --out {folder}` makes an authority"
            raise Failure(f"there is no {path}: {makes}, and --ca-dir says where it is")
    certificate, key = read_file(cert_path), read_file(key_path)
    if key_path.stat().st_mode & 0o077:
        typer.echo(f"privet: others may open {key_path}, which signs for everybody: chmod 600 {key_path}", err=True)
    for path, content, kind in ((cert_path, certificate, Kind.CERTIFICATE), (key_path, key, Kind.KEY)):
        items = contents_of(content, password)
        if kind not in [item.kind for item in items]:
            raise Failure(f"{path} is {described(items)}, and not {kind.value}")
    try:
        return Issuer.from_pem(certificate, key, password)
    except AuthorityError as error:
        hint = "; --ca-password-file says which file has it" if "password" in str(error) else ""
        raise Failure(f"{folder} has no CA that can be used: {error}{hint}") from None


def _check(folder: Path, names: Iterable[str], force: bool) -> None:
    """Find out before anything is made. Raises `Failure`."""
    for name in names:
        if not force and os.path.lexists(folder / name):  # a link to nowhere is there as well
            raise _exists(folder / name)


def _exists(path: Path) -> Failure:
    return Failure(f"{path} exists: replace it with --force, or choose another folder with --out")


def _write(folder: Path, contents: Mapping[str, bytes], force: bool) -> dict[str, Path]:
    """Write each file as a whole; keys stay as private as a temporary file is."""
    paths = {}
    for name, content in contents.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".", delete=False) as file:  # 0600
                try:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                    if not name.endswith(".key"):
                        os.fchmod(file.fileno(), 0o644)
                    if force:
                        Path(file.name).rename(folder / name)
                    else:  # which fails if somebody else has put something there meanwhile
                        (folder / name).hardlink_to(file.name)
                        Path(file.name).unlink()
                    paths[name] = folder / name
                except OSError:
                    with contextlib.suppress(OSError):
                        Path(file.name).unlink()
                    raise
        except FileExistsError:
            raise _exists(folder / name) from None
        except OSError as error:
            raise Failure(f"cannot write {folder / name}: {error.strerror}; choose another folder with --out") from None
    return paths


def _told(certificate: x509.Certificate, paths: Mapping[str, Path], json: bool) -> None:
    document = _document_of(certificate, _now())
    if json:
        print_json(document | {"files": {name.partition(".")[2]: str(path) for name, path in paths.items()}})
    else:
        shown = ("subject", "names", "not_after", "fingerprint")
        print_fields((name.replace("_", " "), _shown(document[name])) for name in shown)
        print_fields((f"{name.partition('.')[2]} file", path) for name, path in paths.items())


def _writer(password_file: Path | None, traditional: bool) -> Callable[[PrivateKey], bytes]:
    """How keys are to be written. Raises `Failure`."""
    return partial(keys.to_pem, password=_password(password_file), traditional=traditional)


def _password(path: Path | None) -> bytes | None:
    return read_password(path) if path else None


def _now() -> datetime:
    return datetime.now(UTC)


def _certificates(folder: Path) -> Iterator[tuple[Path, x509.Certificate]]:
    for path in sorted(folder.rglob("*")):
        try:
            if not path.is_file() or path.stat().st_size > 1024 * 1024:
                continue
            content = path.read_bytes()
        except OSError as error:
            typer.echo(f"privet: {path} cannot be read: {error.strerror}", err=True)
            continue
        yield from ((path, certificate) for certificate in certificates_of(contents_of(content)))


def _shown(value: object) -> object:
    return printable(", ".join(map(str, value)) if isinstance(value, list) else str(value)) if value else None


def _document(item: Item, now: datetime) -> dict[str, object]:
    kind = {"kind": item.kind.value.partition(" ")[2], "form": item.form}
    match item.value:
        case x509.Certificate():
            return kind | _document_of(item.value, now)
        case x509.CertificateSigningRequest() as csr:
            return kind | {
                "subject": csr.subject.rfc4514_string(),
                "names": _names(csr.extensions),
                "key": key_type(csr.public_key()),
                "signature": "good" if csr.is_signature_valid else "not that of its key",
            }
        case x509.CertificateRevocationList() as crl:
            return kind | {
                "issuer": crl.issuer.rfc4514_string(),
                "from": to_text(crl.last_update_utc),
                "next": crl.next_update_utc and to_text(crl.next_update_utc),
                "revoked": str(len(crl)),
            }
        case None:
            return kind | {"encrypted": "yes" if item.encrypted else None, "problem": item.problem}
        case key:
            digest = x509.SubjectKeyIdentifier.from_public_key(key).digest.hex(":")  # type: ignore[arg-type]
            encrypted = "yes" if item.encrypted else None
            return kind | {"key": key_type(key), "encrypted": encrypted, "key_id": digest}


def _document_of(certificate: x509.Certificate, now: datetime) -> dict[str, object]:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    extensions = certificate.extensions
    values = {type(each.value): each.value for each in extensions}
    basic, usage = values.get(x509.BasicConstraints), values.get(x509.ExtendedKeyUsage)
    is_ca = isinstance(basic, x509.BasicConstraints) and basic.ca
    uses = list(usage) if isinstance(usage, x509.ExtendedKeyUsage) else []
    public_key = certificate.public_key()
    return {
        "subject": certificate.subject.rfc4514_string() or "(empty)",
        "names": _names(extensions),
        "issuer": certificate.issuer.rfc4514_string(),
        "serial": f"{certificate.serial_number:x}",
        "not_before": to_text(begin),
        "not_after": to_text(end),
        "status": "expired" if now >= end else "valid" if now >= begin else "not valid yet",
        "ca": "yes" if is_ca else None,
        "certifies": names_text([certificate]),
        "uses": [_USES.get(each.dotted_string, each.dotted_string) for each in uses],
        "key": key_type(public_key),
        "key_id": x509.SubjectKeyIdentifier.from_public_key(public_key).digest.hex(":"),
        "fingerprint": fingerprint(certificate),
    }


_USES = {"1.3.6.1.5.5.7.3.1": "serverAuth", "1.3.6.1.5.5.7.3.2": "clientAuth"}


def _names(extensions: x509.Extensions) -> list[str]:
    found = [each.value for each in extensions if isinstance(each.value, x509.SubjectAlternativeName)]
    return [str(name.value) for names in found for name in names]
