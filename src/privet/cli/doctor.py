"""`privet doctor`: why a connection or a set of files does not work, cause by cause.

The law of this module: it looks and changes nothing, and it ends with 1 if it has found what a verifier would refuse.
"""

import asyncio
import contextlib
import os
import socket
import ssl
import stat
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl, unquote, urlsplit

import typer
from cryptography import x509

from privet.cli import diagnosis, options, verifying
from privet.cli.contents import Item, Kind, certificates_of, contents_of, described
from privet.cli.diagnosis import Finding, Shown
from privet.cli.failures import Mistakes
from privet.cli.postgresql import common_name_of, quoted
from privet.cli.printing import print_json, printable
from privet.cli.startup import Answer, log_in, offers_tls
from privet.cli.stores import read_bounded, read_password
from privet.mtls.contexts import TLSConfigError
from privet.mtls.postgresql import SCHEMES

_FILES = ("sslcert", "sslkey", "sslrootcert")
_INVALID_AUTHORIZATION = "28000"
_NO_LINE = "ClientAuthentication"
"""The routine of PostgreSQL that refuses whom no line of pg_hba.conf lets in, before names are compared."""
_PATIENCE = 10.0
_WAIT_FOR_ALERT = 0.5
_NEARBY = 200
"""Files in the folders of those that were named, which may be what is missing."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is. With a PostgreSQL its own words are spoken before TLS, and after it if there is a user."""

    host: str
    port: int
    postgresql: bool = False
    user: str = ""
    database: str = ""
    files: Mapping[str, Path] = field(default_factory=dict)


def doctor(
    address: Annotated[
        str | None,
        typer.Argument(
            metavar="[HOST:PORT|URL]",
            help="A server to connect to, and to look at: HOST:PORT, https://HOST, postgresql://USER@HOST/DATABASE.",
        ),
    ] = None,
    cert: Annotated[
        Path | None,
        typer.Option(metavar="FILE", readable=False, help="A certificate; to show to the server if there is one."),
    ] = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE", readable=False, help="Its private key.")] = None,
    ca: Annotated[
        Path | None, typer.Option(metavar="FILE", readable=False, help="The CA certificates that are to be trusted.")
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The name or address that it is called by.")] = None,
    password_file: Annotated[
        Path | None,
        typer.Option("--password-file", metavar="FILE", help="The password that the key is encrypted with."),
    ] = None,
    directory: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The directory of the CA: to compare clocks, and to ask whether --cert is to be renewed.",
        ),
    ] = None,
    json: options.JSON = False,
) -> None:
    """Find out what is wrong with a server's or a client's certificate, and say what to do about it.

    ```
    privet doctor node-1.internal:8443 \\
        --ca ca.crt --cert node.crt --key node.key
    privet doctor --cert client.crt --key client.key --ca ca.crt \\
        --directory https://ca.internal:8555/directory
    privet doctor postgresql://epoch_user@db.internal/production \\
        --cert fullchain.pem --key key.pem --ca ca.pem
    ```
    """
    if not (address or cert or key or ca or directory):
        raise Mistakes(["say what to look at: HOST:PORT, or files with --cert, --key and --ca"])
    where = _address(address) if address else None
    if where:
        own, its_key, trusted = map(where.files.get, _FILES)
        cert, key, ca = cert or own, key or its_key, ca or trusted
    for each in (where.host if where else None, name):
        _check_host(each)
    password = read_password(password_file) if password_file else None
    findings = list(_look(where, cert, key, ca, name, password, directory))
    if ca and not any(finding.problem for finding in findings):
        findings += _last_word(where, cert, key, ca, name, password)
    problems = [finding for finding in findings if finding.problem]
    if json:
        print_json({"well": not problems, "findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            print(f"{'problem' if finding.problem else 'note'}: {finding.cause}")
            print(f"    {printable(finding.says)}")  # it quotes what strangers wrote
            print(f"    → {printable(finding.do)}")
        if not problems:
            print("nothing is wrong with what was looked at")
    if problems:
        raise typer.Exit(1)


def _look(
    address: Address | None,
    cert: Path | None,
    key: Path | None,
    ca: Path | None,
    name: str | None,
    password: bytes | None,
    directory: str | None,
) -> Iterator[Finding]:
    now = datetime.now(UTC)
    near = _nearby([path for path in (cert, key, ca) if path])
    anchors: list[x509.Certificate] = []
    if ca:
        items = yield from _file(ca, Kind.CERTIFICATE)
        anchors = certificates_of(items)
        for anchor in anchors:
            yield from diagnosis.times(Shown([anchor], str(ca)), now)
    own = None
    if cert and (chain := certificates_of((yield from _file(cert, Kind.CERTIFICATE)))):
        own = Shown(chain, str(cert))
        yield from diagnosis.times(own, now)
        if anchors:
            yield from diagnosis.trust(own, anchors, _certificates(near))
        if name and not address:
            yield from diagnosis.name(own, name)
        yield from diagnosis.use(own, server=False if address else True if name else None)
    keyed = False
    if path := key or (cert if own and _has_key(cert) else None):
        yield from _permissions(path)
        keys = [item for item in (yield from _file(path, Kind.KEY, password)) if item.kind is Kind.KEY]
        for item in keys[:1]:
            yield from _key(item, path)
            keyed = item.value is not None
            if own and item.value is not None:
                yield from diagnosis.key(own, item.value, str(path), _keys(near))
    if address:
        shown = yield from _server(address, name or address.host, own if keyed else None, cert, path, password)
        if shown:
            yield from diagnosis.times(shown, now)
            if anchors:
                yield from diagnosis.trust(shown, anchors, _certificates(near))
            yield from diagnosis.name(shown, name or address.host)
            yield from diagnosis.use(shown, server=True)
    if (own or address) and not ca:
        yield Finding(
            "no-ca",
            "no CA was given, so nobody has looked whether the certificate is one to be trusted",
            "name the CA certificates with --ca",
            problem=False,
        )
    if directory:
        yield from _ca(directory, own, ca if anchors else None)


def _last_word(
    address: Address | None, cert: Path | None, key: Path | None, ca: Path, name: str | None, password: bytes | None
) -> Iterator[Finding]:
    """What OpenSSL says where nothing is wrong that we have a name for."""
    with contextlib.suppress(OSError, TLSConfigError):
        if address:
            where = f"{address.host}:{address.port}"
            yield from verifying.of_server(lambda: _begin_tls(address), where, name or address.host, ca)
    with contextlib.suppress(OSError, TLSConfigError):
        if cert and (key or _has_key(cert)):
            leaf = certificates_of(contents_of(read_bounded(cert)))[0]
            server = not address and (name is not None or "servers" in diagnosis.uses(leaf))
            yield from verifying.of_files(cert, key, password, ca, server=server, name=name)


def _begin_tls(address: Address) -> socket.socket:
    """A connection on which TLS is to begin."""
    plain = socket.create_connection((address.host, address.port), timeout=_PATIENCE)
    if address.postgresql:
        offers_tls(plain)
    return plain


def _ca(directory: str, own: Shown | None, ca: Path | None) -> Iterator[Finding]:
    """Ask the CA, with the client that nothing else here needs."""
    asking = import_module("privet.cli.node.asking")
    answer = asyncio.run(asking.ask(directory, own and own.leaf, ca, lambda: datetime.now(UTC)))
    yield from diagnosis.clock(answer.here, answer.there, directory)
    if answer.complaint is not None:
        yield Finding(
            "ca-does-not-answer",
            f"the CA at {directory} does not say what it was asked: {answer.complaint}",
            "see whether the URL is that of its directory, whether it runs, and whether --ca has its root",
        )
    elif own is not None and answer.info is not None:
        window = answer.info.start, answer.info.end
        yield from diagnosis.renewal(own, window, answer.info.explanation_url, answer.here)


def _file(path: Path, kind: Kind, password: bytes | None = None) -> Generator[Finding, None, list[Item]]:
    """Read a file that is to have something of this kind. Yields findings, and returns what it has."""
    try:
        items = contents_of(read_bounded(path), password)
    except PermissionError:
        yield Finding(
            "not-readable",
            f"{path} may not be read by this user, {_user()}",
            f"run this as the user of the service; if that is the one, `chown` and `chmod {_modes(kind)}` the file",
        )
        return []
    except OSError as error:
        yield Finding("not-there", f"{path} cannot be read: {error.strerror}", "see whether its name is right")
        return []
    of_kind = [item for item in items if item.kind is kind]
    if not of_kind:
        yield Finding("wrong-file", f"{path} is {described(items)}, and not {kind.value}", "name the right file")
    elif kind is Kind.CERTIFICATE:
        for item in of_kind:
            if item.problem:
                yield Finding("damaged", f"a certificate in {path} cannot be read: {item.problem}", "copy it anew")
            elif item.form == "DER":
                does = f"convert it: openssl x509 -inform DER -in {path} -out {path.with_suffix('.pem')}"
                yield Finding("not-pem", f"{path} is in DER, and most programs want PEM", does, problem=False)
    return items


def _key(item: Item, path: Path) -> Iterator[Finding]:
    if item.encrypted and item.value is None and "missing" in (item.problem or ""):
        yield Finding(
            "password-missing",
            f"the key in {path} is encrypted, and no password was given",
            "--password-file says which file has it; programs have a setting of their own for it",
        )
    elif item.encrypted and item.value is None:
        yield Finding(
            "wrong-password",
            f"the password does not open the key in {path} (or the file is damaged); OpenSSL says `bad decrypt`",
            "find the right one; a password file must have nothing but the password in its first line",
        )
    elif item.value is None:
        yield Finding("damaged", f"the key in {path} cannot be used: {item.problem}", "copy it anew, or make another")
    if item.form.startswith("traditional"):
        yield Finding(
            "key-format",
            f"the key in {path} is in the traditional format and not in PKCS#8, which some programs insist on",
            f"where it is refused: openssl pkcs8 -topk8 {'' if item.encrypted else '-nocrypt '}-in {path} -out new.key",
            problem=False,
        )


def _permissions(path: Path) -> Iterator[Finding]:
    try:
        status = path.stat()
    except OSError:
        return
    mode = stat.S_IMODE(status.st_mode)
    # As libpq has it: a key of root's may be for a group as well.
    allowed = 0o640 if status.st_uid == 0 else 0o600
    if mode & ~allowed & 0o077:
        yield Finding(
            "key-permissions",
            f"others may open the key in {path}: its mode is {mode:04o}, and PostgreSQL and ssh refuse such keys",
            f"chmod 600 {path}, and think about making a new key, as this one may have been read",
        )


def _server(
    address: Address, name: str, own: Shown | None, cert: Path | None, key: Path | None, password: bytes | None
) -> Generator[Finding, None, Shown | None]:
    """Connect as a client that believes everything, to see what is shown, and show our own. Yields findings, returns
    what was shown."""
    where = f"{address.host}:{address.port}"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if own and cert:
        try:
            context.load_cert_chain(cert, key, password=password or "")
        except (ssl.SSLError, OSError):
            own = None  # what is wrong with it was said
    try:
        plain = socket.create_connection((address.host, address.port), timeout=_PATIENCE)
    except OSError as error:
        why = error.strerror or str(error) or "no answer"
        yield Finding("unreachable", f"nothing answers at {where}: {why}", "see whether it runs, and where it listens")
        return None
    with plain:
        try:
            if address.postgresql and (finding := _no_tls(offers_tls(plain), where)):
                yield finding
                return None
            tls = context.wrap_socket(plain, server_hostname=name)
        except ssl.SSLError as error:
            yield _refusal(error, where, shows=own is not None) or Finding(
                "no-tls", f"{where} does not speak TLS as we do: {error.reason}", "see whether it is the right port"
            )
            return None
        except OSError:
            yield Finding("no-tls", f"{where} hangs up when TLS begins", "see whether it is the right port")
            return None
        with tls:
            chain = _chain(tls)
            shown = Shown(chain, where) if chain else None
            if shown is None:
                yield Finding(
                    "damaged", f"the certificate of {where} cannot be read", "have it issued anew; OpenSSL may read it"
                )
            # With TLS 1.3 a server says only afterwards that it does not like a client's certificate.
            try:
                if address.user and (own or not cert):  # with one that cannot be shown, only what was said follows
                    yield from _about_login(log_in(tls, address.user, address.database), address, own)
                else:
                    tls.settimeout(_WAIT_FOR_ALERT)
                    tls.recv(1)
            except TimeoutError:
                pass
            except ssl.SSLError as error:
                if finding := _refusal(error, where, shows=own is not None):
                    yield finding
            except OSError:
                pass
            return shown


def _refusal(error: ssl.SSLError, where: str, *, shows: bool) -> Finding | None:
    """What a server's alert says about us."""
    reason = error.reason or ""
    if "ALERT" not in reason:
        return None
    if not shows and ("CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason):
        return Finding(
            "client-certificate-missing",
            f"{where} wants to see a client's certificate",
            "show one with --cert and --key; if you did, see what is said of it above",
        )
    causes = {
        "UNKNOWN_CA": "it does not trust the authority that issued it, or the chain is incomplete",
        "CERTIFICATE_EXPIRED": "it says it has expired; if that is not so, its clock is wrong",
        "CERTIFICATE_REVOKED": "it says it was revoked",
        "BAD_CERTIFICATE": "it cannot be verified",
        "CERTIFICATE_UNKNOWN": "it cannot be verified",
        "UNSUPPORTED_CERTIFICATE": "it is not for clients",
        "DECRYPT_ERROR": "it cannot be verified",
    }
    for alert, why in causes.items():
        if alert in reason:
            return Finding(
                "client-certificate-refused",
                f"{where} refuses the certificate that it was shown: {why}",
                "compare the CA file of the server with the issuer of the certificate (`privet cert info`)",
            )
    return None


def _no_tls(offered: bool | None, where: str) -> Finding | None:
    """What is to be said of a PostgreSQL that does not begin TLS."""
    if offered:
        return None
    if offered is None:
        return Finding(
            "no-tls", f"what answers at {where} is no PostgreSQL", "see whether it is the right port; 5432 is usual"
        )
    return Finding(
        "no-tls",
        f"the PostgreSQL at {where} does not offer TLS",
        "set ssl = on, ssl_cert_file and ssl_key_file in postgresql.conf, and read its log after a reload",
    )


def _about_login(answer: Answer, address: Address, own: Shown | None) -> Iterator[Finding]:
    """Whether PostgreSQL lets the user in, and by what."""
    who = f"{printable(address.user)} at {address.host}:{address.port}"
    if answer.asks:
        yield Finding(
            "no-certificate-login",
            f"PostgreSQL asks {who} for a password, or the like",
            "the first line of pg_hba.conf that fits is not for certificates; the method for those is `cert`",
            problem=False,
        )
    if answer.refusal is None:
        return
    says = f"PostgreSQL refuses {who}: {printable(answer.refusal)}"
    common_name = common_name_of(own.leaf) if own else None
    if answer.code != _INVALID_AUTHORIZATION:
        yield Finding("login-refused", says, "the server's log says more")
    elif own is None:
        yield Finding("client-certificate-missing", says, "show one with --cert and --key, or sslcert and sslkey")
    elif common_name is None:
        yield Finding(
            "user-mismatch",
            f"{says}; {own.where} has no common name, and PostgreSQL looks at nothing else",
            f"have a certificate issued for {printable(address.user)}",
        )
    elif common_name != address.user and answer.routine != _NO_LINE:
        yield Finding(
            "user-mismatch",
            f"{says}; the common name of {own.where} is {common_name!a}",
            f"have a certificate issued for {printable(address.user)}, or map the name: map=privet in pg_hba.conf, and "
            f"`privet {quoted(common_name)} {quoted(address.user)}` in pg_ident.conf",
        )
    else:
        yield Finding(
            "login-refused", says, "see which line of pg_hba.conf fits; changes count after SELECT pg_reload_conf()"
        )


def _chain(tls: ssl.SSLSocket) -> list[x509.Certificate]:
    # Public from Python 3.13 on; before, the same is there below.
    below: Any = tls if hasattr(tls, "get_unverified_chain") else getattr(tls, "_sslobj", None)
    if hasattr(below, "get_unverified_chain"):
        found = below.get_unverified_chain() or []
        ders = [each if isinstance(each, bytes) else ssl.PEM_cert_to_DER_cert(each.public_bytes()) for each in found]
    else:
        ders = [tls.getpeercert(binary_form=True) or b""]
    return certificates_of([item for der in ders for item in contents_of(der)])


def _address(text: str) -> Address:
    if text.partition("://")[0] in SCHEMES:
        return _postgresql(text)
    if text.startswith("https://"):
        return _https(text)
    host, _, port = text.rstrip("/").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        about_files = "; for a file there are --cert, --key and --ca" if Path(text).exists() else ""
        raise Mistakes([f"{text} is no HOST:PORT, such as node-1.internal:8443 or [::1]:8443{about_files}"])
    return Address(host.removeprefix("[").removesuffix("]"), int(port))


def _https(text: str) -> Address:
    host, port = _place(text, 443)
    if not host:
        raise Mistakes([f"{text} does not say where it is: https://HOST:PORT does"])
    return Address(host, port)


def _place(url: str, usual: int) -> tuple[str | None, int]:
    """The host and the port in a URL; no host if it has none, or is none."""
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.port or usual
    except ValueError:
        return None, usual


def _check_host(name: str | None) -> None:
    """Raises `Mistakes` for what no system could look up."""
    if name == "":
        raise Mistakes(["the name that it is called by is empty: leave it out, or say it"])
    try:
        (name or "").encode("idna")
    except UnicodeError:
        raise Mistakes([f"{printable(name or '')} is no name of a host: its parts have 1 to 63 characters"]) from None


def _postgresql(text: str) -> Address:
    host, port = _place(text, 5432)
    if not host:
        raise Mistakes(["the URL does not say where it is: postgresql://USER@HOST:PORT/DATABASE does"])
    parts = urlsplit(text)
    files = {name: Path(value) for name, value in parse_qsl(parts.query) if name in _FILES and value}
    user, database = unquote(parts.username or ""), unquote(parts.path.removeprefix("/"))
    return Address(host, port, postgresql=True, user=user, database=database, files=files)


def _has_key(path: Path | None) -> bool:
    return path is not None and b"PRIVATE KEY-----" in read_bounded(path)


def _nearby(paths: Sequence[Path]) -> list[tuple[str, Item]]:
    """What lies in the same folders."""
    found: list[tuple[str, Item]] = []
    for folder in dict.fromkeys(path.parent for path in paths):
        try:
            files = sorted(folder.iterdir())[:_NEARBY]
        except OSError:
            continue
        for file in files:
            try:
                if file.is_file() and file.stat().st_size < 64 * 1024:
                    found += [(str(file), item) for item in contents_of(file.read_bytes())]
            except OSError:
                continue
    return found


def _certificates(near: Sequence[tuple[str, Item]]) -> list[tuple[str, x509.Certificate]]:
    return [(path, item.value) for path, item in near if isinstance(item.value, x509.Certificate)]


def _keys(near: Sequence[tuple[str, Item]]) -> list[tuple[str, object]]:
    return [(path, item.value) for path, item in near if item.kind is Kind.KEY and item.value is not None]


def _modes(kind: Kind) -> str:
    return "600" if kind is Kind.KEY else "644"


def _user() -> str:
    return f"uid {os.geteuid()}"
