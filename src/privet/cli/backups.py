"""`privet backup`, `restore` and `check`: a store as a whole, copied, brought back, and looked through.

The law of this module: what is said to be copied has been read back and compared, and what failed leaves nothing that
could be taken for a copy.
"""

import contextlib
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from privet.cli import options
from privet.cli.failures import Failure
from privet.cli.printing import print_fields, print_json, printable, to_text
from privet.cli.settings import Settings, read_settings
from privet.cli.stores import open_settings_store, read_password, store_place, warn_if_open
from privet.server import nonces
from privet.server.consistency import check as check_records
from privet.stores import Conflict, Record, StoreError, without_password
from privet.stores.backup import Backup, Tally, write_backup
from privet.stores.disk import sync_folder

_SHORTEST_PASSWORD, _LONGEST_PASSWORD = 8, 1 << 16

File = Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")]


def backup(
    context: typer.Context,
    file: File,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there already.")] = False,
    backup_password_file: options.BackupPasswordFile = None,
    store: options.StoreURL = None,
    json: options.JSON = False,
    config: options.Config = None,
) -> None:
    """Copy everything in the store into one encrypted file: the authority, certificates, accounts, orders.

    It works beside a running server, which is not disturbed; the copy is of one moment. It is read back before it
    gets its name. Everything is in it that an authority needs, so keep its password elsewhere.

    ```
    privet backup /backups/privet-$(date +%F) \\
        --backup-password-file /etc/privet/backup-password
    ```
    """
    settings = read_settings(context.params, os.environ).checked()
    with _of_the_copy(file):
        if file.exists() and not force:
            raise _is_there(file)
        if file.exists() and not file.is_file():
            raise Failure(f"{file} is no file that a backup could replace: choose another name")
    now = datetime.now(UTC)
    with open_settings_store(settings.store, existing=True) as opened:
        password = _password(settings, new=True)
        tally = Tally()
        with _new_file(file, replace=force) as writing:
            write_backup(writing, _shown("copied", opened.records()), password, now, tally)
            if not tally.records:
                raise Failure(f"there is nothing in {without_password(settings.store)}: --store says which one to copy")
            writing.flush()
            os.fsync(writing.fileno())
            size = writing.tell()
            writing.seek(0)
            if _read_back(writing, password) != tally:
                raise Failure(f"{file} is not what was written to it: look at that disk, and choose another place")
    document = {"file": str(file), "store": store_place(settings.store), "taken": to_text(now), "bytes": size}
    _print(document, tally, json)


def restore(
    context: typer.Context,
    file: File,
    backup_password_file: options.BackupPasswordFile = None,
    store: options.StoreURL = None,
    json: options.JSON = False,
    config: options.Config = None,
) -> None:
    """Fill a store with what is in a backup: any kind of store, whichever kind the backup is of.

    Nothing may be in it yet. All of the backup is stored or nothing is, and what was stored is read back and compared.

    ```
    privet restore /backups/privet-2026-03-01 \\
        --store postgresql://privet@db.internal/privet
    ```
    """
    settings = read_settings(context.params, os.environ).checked()
    place = without_password(settings.store)
    if settings.store == "memory:":
        raise Failure("a store in memory ends with this command: say with --store where everything is to be kept")
    wanted, found = Tally(), Tally()
    try:
        reading = file.open("rb")
    except OSError as error:
        raise Failure(f"the backup {file} cannot be read: {error.strerror}") from None
    with reading:
        with _of_the_backup(file):
            copy = Backup(reading, _password(settings, new=False))
        with open_settings_store(settings.store) as opened:
            try:
                opened.fill(_shown("stored", wanted.count(_good_again(_read(file, copy)))))
            except Conflict:
                raise Failure(
                    f"there is something in {place} already: say with --store another place, where nothing is yet"
                ) from None
            for _ in _shown("compared", found.count(opened.records())):
                pass
    if found != wanted:
        raise Failure(
            f"what is in {place} now is not what was written to it: use it for nothing, unless a server was started on "
            "it in this moment"
        )
    _print({"file": str(file), "store": store_place(settings.store), "taken": to_text(copy.taken)}, wanted, json)


def check(
    context: typer.Context,
    store: options.StoreURL = None,
    json: options.JSON = False,
    config: options.Config = None,
) -> None:
    """Look through everything in the store, and say what is wrong with it. Works beside a running server.

    Each certificate is compared with its record, and its signature verified; serial numbers are there once; an order
    has one certificate, and both are on record. It changes nothing. With something wrong, or with nothing in the
    store, the exit status is 1.

    ```
    privet check
    ```
    """
    settings = read_settings(context.params, os.environ).checked()
    tally = Tally()
    wrong = 0
    with open_settings_store(settings.store, existing=True) as opened:
        findings = _findings(_shown("checked", tally.count(opened.records())), tally)
        if json:
            found = list(findings)
            print_json({"records": tally.records, "kinds": dict(tally.kinds), "wrong": found})
            wrong = len(found)
        else:
            for sentence in findings:
                print(printable(sentence))
                wrong += 1
            _print({"store": store_place(settings.store)}, tally, json)
    if wrong:
        raise Failure(f"{wrong} {'thing is' if wrong == 1 else 'things are'} wrong in the store")


def _findings(records: Iterable[Record], tally: Tally) -> Iterator[str]:
    yield from check_records(records, datetime.now(UTC))
    if not tally.records:  # nobody looks through a store to hear that all is well with another one
        yield "there is nothing in it: --store says which one to look through"


def _good_again(records: Iterable[Record]) -> Iterator[Record]:
    """What of a backup is to be restored: all but the key of nonces. A nonce that was spent after the backup was taken
    is not known there as spent; with another key it is no nonce any more."""
    return (record for record in records if (record.kind, record.id) != nonces.KEY)


@contextlib.contextmanager
def _of_the_backup(file: Path) -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise Failure(f"the backup {file} cannot be restored: {error}") from None
    except OSError as error:
        raise Failure(f"the backup {file} cannot be read: {error.strerror}") from None


def _read(file: Path, copy: Backup) -> Iterator[Record]:
    with _of_the_backup(file):
        yield from copy.records()


def _read_back(file: BinaryIO, password: bytes) -> Tally | None:
    """What is in a backup; None if it is none any more."""
    try:
        copy = Backup(file, password)
        for _ in _shown("compared", copy.records()):
            pass
    except StoreError:
        return None
    return copy.tally


def _password(settings: Settings, *, new: bool) -> bytes:
    """Raises `Failure`."""
    if settings.backup_password_file is not None:
        password = read_password(settings.backup_password_file, longest=_LONGEST_PASSWORD)
        warn_if_open(settings.backup_password_file, "password file")
    elif sys.stdin.isatty():
        typed: str = typer.prompt("Password of the backup", hide_input=True, confirmation_prompt=new, err=True)
        password = typed.encode()
    else:
        raise Failure("the password of the backup is missing: say with --backup-password-file which file has it")
    if new and b"\n" in password:
        raise Failure(
            "the password has more than one line, which nobody could type who opens the backup with another program: "
            "leave one of them in its file"
        )
    if new and len(password) < _SHORTEST_PASSWORD:
        raise Failure(
            f"the password is too short: take one of {_SHORTEST_PASSWORD} characters at least, since whoever has the "
            "file can try as many as they like"
        )
    return password


@contextlib.contextmanager
def _new_file(file: Path, *, replace: bool) -> Iterator[BinaryIO]:
    """A file beside this one, which takes its name at the end, or is gone. Raises `Failure`."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # and not nohup
            signal.signal(number, lambda number, frame: sys.exit(128 + number))
    with _of_the_copy(file):
        path = file.parent / f".{file.name}.{secrets.token_hex(8)}"
        try:
            # Opened once, and new: the folder may be somebody else's, who could put a link there.
            with open(path, "x+b", opener=lambda name, flags: os.open(name, flags, 0o600)) as writing:
                yield writing
            if replace:
                path.replace(file)
            else:
                take_name(path, file)
            sync_folder(file.parent)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def take_name(path: Path, file: Path) -> None:
    """Give it a name that nobody has, even if somebody has wanted the same one meanwhile. Raises `Failure`."""
    try:
        try:
            file.hardlink_to(path)
        except FileExistsError:
            raise
        except OSError:  # where a file has one name, as on FAT
            file.touch(0o600, exist_ok=False)
            path.replace(file)
        else:
            path.unlink()
    except FileExistsError:
        raise _is_there(file) from None


def _is_there(file: Path) -> Failure:
    return Failure(f"{file} exists: choose another name, or replace it with --force")


@contextlib.contextmanager
def _of_the_copy(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Failure(f"{file} cannot be written: {error.strerror}; choose another place") from None


def _shown(what: str, records: Iterable[Record]) -> Iterator[Record]:
    """Yield the records, and tell whoever sits before a terminal how many there were so far."""
    if not sys.stderr.isatty():
        yield from records
        return
    number, told = 0, time.monotonic()
    for number, record in enumerate(records, 1):
        if not number % 100 and time.monotonic() - told > 0.2:
            told = time.monotonic()
            print(f"\r{what} {number:,} records", end="", file=sys.stderr, flush=True)
        yield record
    print(f"\r{what} {number:,} records", file=sys.stderr)


def _print(document: Mapping[str, object], tally: Tally, json: bool) -> None:
    if json:
        print_json({**document, "records": tally.records, "kinds": dict(tally.kinds), "sha256": tally.sha256})
        return
    print_fields(document.items())
    print_fields([("records", tally.records), *((f"  {kind}", number) for kind, number in tally.kinds.items())])
