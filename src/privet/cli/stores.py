"""The store and the authority that the settings name, opened for a command; what cannot be opened is said plainly."""

import contextlib
import errno
import multiprocessing
import os
import stat
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from privet.ca import AuthorityError, CertificateAuthority, KeyType, NameConstraints, keys
from privet.cli.failures import Failure, Mistakes
from privet.cli.settings import Settings
from privet.stores import OpenStore, Store, StoreError, open_store, without_password

_LONGEST_FILE = 16 * 1024 * 1024


def store_path(url: str) -> Path | None:
    """Where the data of a store lie on this machine, or None if they do not."""
    scheme, _, path = url.partition(":///")
    return Path(path).expanduser().absolute() if path and scheme in ("sqlite", "file") else None


def store_place(url: str) -> str | None:
    """Where the data of a store lie, as it may be told, or None if they lie nowhere."""
    path = store_path(url)
    return str(path) if path else without_password(url) if url != "memory:" else None


def open_settings_store(url: str, *, existing: bool = False) -> OpenStore:
    """Open a store; with `existing`, one that is there already. Raises `Failure`."""
    try:
        path = store_path(url)
        if existing and (url == "memory:" or (path and not _exists(path))):
            there = f"there is nothing at {path}" if path else "a store in memory ends with the process that made it"
            raise Failure(f"{there}: `privet init` or `privet serve` makes a store, and --store says which one to use")
        return open_store(url)
    except RuntimeError as error:  # no home directory
        raise Failure(f"the store {without_password(url)} has no place: {error}; choose another with --store") from None
    except (StoreError, ValueError, OSError) as error:
        why = _why(error, url).removeprefix(f"{without_password(url)}: ")
        raise Failure(
            f"the store {without_password(url)} cannot be opened: {why}; choose another with --store"
        ) from None


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _why(error: Exception, url: str) -> str:
    cause = error.__cause__ if isinstance(error, StoreError) and error.__cause__ else error
    reason = cause.strerror or str(cause) if isinstance(cause, OSError) else str(error)
    reason = reason.removeprefix("the store failed: ")
    path = store_path(url)
    if isinstance(cause, OSError) and cause.errno == errno.EROFS:
        return reason
    if path is not None and not os.access(path if os.access(path, os.F_OK) else path.parent, os.R_OK | os.W_OK):
        return f"{reason}; run this as the owner of {path}, or let it belong to you"
    return reason


def key_password(settings: Settings) -> bytes | None:
    """The password of the authority's key. Raises `Failure`."""
    path = settings.key_password_file
    if path is None:
        return None
    password = read_password(path)
    warn_if_open(path, "password file")
    return password


def warn_if_open(path: Path, what: str) -> None:
    with contextlib.suppress(OSError):
        # A worker need not say what its supervisor has said.
        if path.stat().st_mode & stat.S_IROTH and not multiprocessing.parent_process():
            print(f"privet: everybody here can read the {what} {path}: `chmod o-r` ends that", file=sys.stderr)


def read_file(path: Path, what: str = "") -> bytes:
    """Raises `Failure`."""
    try:
        return read_bounded(path)
    except OSError as error:
        raise Failure(f"{what}{path} cannot be read: {error.strerror}") from None


def read_bounded(path: Path) -> bytes:
    """What a file has, unless it has more than anything that is read here. Raises `OSError`."""
    with path.open("rb") as file:
        content = file.read(_LONGEST_FILE + 1)
    if len(content) > _LONGEST_FILE:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return content


def read_password(path: Path, *, longest: int = keys.LONGEST_PASSWORD) -> bytes:
    """Raises `Failure`."""
    password = read_file(path, "the password file ").rstrip(b"\r\n")
    if not password:
        raise Failure(f"the password file {path} is empty: write the password into its first line")
    if len(password) > longest:
        raise Failure(f"the password file {path} has {len(password)} octets, and a password has {longest} at most")
    return password


def name_constraints(settings: Settings) -> NameConstraints | None:
    """What the root is to be for alone. Raises `Mistakes`."""
    if not settings.permit and not settings.exclude:
        return None
    try:
        return NameConstraints(settings.permit, settings.exclude)
    except ValueError as error:
        raise Mistakes([f"--permit and --exclude contradict each other: {error}"]) from None


def ca_files_mistakes(settings: Settings) -> Iterator[str]:
    """What is wrong with how the authority's files are given."""
    if bool(settings.ca_cert) != bool(settings.ca_key):
        yield "--ca-cert and --ca-key belong together: the certificate of the authority, and its key"
    elif settings.ca_cert and (settings.permit or settings.exclude):
        yield "--permit and --exclude are for an authority that privet makes, and --ca-cert is made already"


def _use_files(ca: CertificateAuthority, settings: Settings) -> bool:
    """Take the authority from files, if they are given. Raises `Failure` and `AuthorityError`."""
    if mistakes := list(ca_files_mistakes(settings)):
        raise Mistakes(mistakes)
    if settings.ca_cert is None or settings.ca_key is None:
        return False
    pems = read_file(settings.ca_cert, "the certificate "), read_file(settings.ca_key, "the key ")
    warn_if_open(settings.ca_key, "key")
    ca.use(*pems)
    return True


def init_authority(store: Store, settings: Settings, key_type: KeyType = KeyType.P256) -> CertificateAuthority:
    """The authority, made if it is not there. Raises `Failure`."""
    ca = CertificateAuthority(store, settings.name, key_password=key_password(settings))
    try:
        if not _use_files(ca, settings):
            ca.init(
                settings.cn,
                settings.ca_validity / timedelta(days=1),
                key_type=key_type,
                name_constraints=name_constraints(settings),
            )
    except AuthorityError as error:
        raise Failure(_hint(error)) from None
    return ca


def load_authority(store: Store, settings: Settings) -> CertificateAuthority:
    """The authority, which has to be there. Raises `Failure`."""
    ca = CertificateAuthority(store, settings.name, key_password=key_password(settings))
    try:
        if _use_files(ca, settings) or ca.load():
            return ca
    except AuthorityError as error:
        raise Failure(_hint(error)) from None
    raise _missing(settings)


def check_time(ca: CertificateAuthority) -> None:
    """Raises `Failure` unless the authority can sign now."""
    try:
        ca.check_time()
    except AuthorityError as error:
        raise Failure(
            f"{error}: look at this machine's clock, or make another authority with --name and let clients trust its "
            "root"
        ) from None


@contextlib.contextmanager
def signing(settings: Settings) -> Iterator[CertificateAuthority]:
    """The authority with its key, in a store; both have to be there. Raises `Failure`."""
    with open_settings_store(settings.store, existing=True) as store:
        ca = load_authority(store, settings)
        check_time(ca)
        yield ca


@contextlib.contextmanager
def reading(settings: Settings) -> Iterator[tuple[CertificateAuthority, bytes]]:
    """The authority without its key, which nobody needs for looking things up, and the certificates that lead from it
    to the root. Raises `Failure`."""
    with open_settings_store(settings.store, existing=True) as store:
        record = store.get("ca", settings.name)
        if record is None:
            raise _missing(settings)
        yield CertificateAuthority(store, settings.name), record.files["cert.pem"]


def _missing(settings: Settings) -> Failure:
    return Failure(
        f"there is no authority {settings.name!r} in {without_password(settings.store)}: `privet init` makes one"
    )


def _hint(error: AuthorityError) -> str:
    text = str(error)
    if "password is missing" in text:
        return f"{text}; give it with --key-password-file"
    if "its key is not in the store" in text:
        return f"{text}; say where it is with --ca-cert and --ca-key"
    if "with another certificate than that" in text:
        return f"{text} in --ca-cert; choose another name with --name, or another store with --store"
    if "has another password" in text:
        return f"{text}; --key-password-file says which file has it"
    if "other name constraints" in text:
        return f"{text} than --permit and --exclude say: leave them out, or make another authority with --name"
    if "a password was given" in text:
        return f"{text}; leave --key-password-file out"
    return text
