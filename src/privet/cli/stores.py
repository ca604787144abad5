"""The store and the authority that the settings name, opened for a command; what cannot be opened is said plainly."""

import os
from pathlib import Path

from privet.ca import AuthorityError, CertificateAuthority
from privet.cli.failures import Failure
from privet.cli.settings import Settings
from privet.stores import FileStore, MemoryStore, SQLiteStore, Store, StoreError, open_store

OpenStore = MemoryStore | SQLiteStore | FileStore


def store_path(url: str) -> Path | None:
    """Where the data of a store lie, or None if they lie nowhere."""
    _, _, path = url.partition(":///")
    return Path(path).expanduser().absolute() if path else None


def open_settings_store(url: str, *, existing: bool = False) -> OpenStore:
    """Open a store; with `existing`, one that is there already. Raises `Failure`."""
    try:
        path = store_path(url)
        if existing and (path is None or not path.exists()):
            there = f"there is nothing at {path}" if path else "a store in memory ends with the process that made it"
            raise Failure(f"{there}: `privet init` or `privet serve` makes a store, and --store says which one to use")
        return open_store(url)
    except RuntimeError as error:  # no home directory
        raise Failure(f"the store {url} has no place: {error}; choose another with --store") from None
    except (StoreError, ValueError) as error:
        raise Failure(f"the store {url} cannot be opened: {_why(error, url)}") from None


def _why(error: Exception, url: str) -> str:
    path = store_path(url)
    if path is not None and isinstance(error.__cause__, OSError):
        reason = error.__cause__.strerror or str(error.__cause__)
        return f"{reason} ({error.__cause__.filename or path}); let it belong to you, or choose another with --store"
    if path is not None and path.exists() and not os.access(path, os.R_OK | os.W_OK):
        return f"{path} may not be read and written by you; run this as its owner, or choose another with --store"
    return str(error).removeprefix("the store failed: ")


def key_password(settings: Settings) -> bytes | None:
    """The password of the authority's key. Raises `Failure`."""
    return read_password(settings.key_password_file) if settings.key_password_file else None


def read_password(path: Path) -> bytes:
    try:
        password = path.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise Failure(f"the password file {path} cannot be read: {error.strerror}") from None
    if not password:
        raise Failure(f"the password file {path} is empty: write the password into its first line")
    return password


def authority_in(store: Store, name: str, password: bytes | None) -> CertificateAuthority:
    return CertificateAuthority(store, name, key_password=password)


def load_authority(store: Store, settings: Settings) -> CertificateAuthority:
    """The authority, which has to be there. Raises `Failure`."""
    ca = authority_in(store, settings.name, key_password(settings))
    try:
        if ca.load():
            return ca
    except AuthorityError as error:
        raise Failure(explain(error)) from None
    raise Failure(f"there is no authority {settings.name!r} in {settings.store}: `privet init` makes one")


def explain(error: AuthorityError) -> str:
    text = str(error)
    if "password is missing" in text:
        return f"{text}; give it with --key-password-file"
    if "a password was given" in text:
        return f"{text}; leave --key-password-file out"
    return text
