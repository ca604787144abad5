"""What stores on disk have in common: private folders, names that outlive a power cut, and taking turns.

The law of this module: what it makes is readable by its owner alone, from the moment it exists; and so is a file of
ours that it opens, whatever it was before.
"""

import contextlib
import fcntl
import os
import stat
from pathlib import Path
from typing import Self

from privet.stores.base import StoreError


class Turn:
    """A lock among processes. The kernel wakes whoever waits, and a process that is killed has let go."""

    def __init__(self, path: Path) -> None:
        self._file = open_private(path)

    def __enter__(self) -> Self:
        if self._file < 0:
            raise OSError("it is closed")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        return self

    def take(self) -> bool:
        """Take it if nobody has it, and say whether that was so."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


def open_private(path: Path, flags: int = 0) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)
    try:
        keep_private(path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def keep_private(path: Path) -> None:
    """Take a file of ours from all others: it may have been made by another program, or come from a backup.

    By its name, because closing any descriptor of a database takes away the locks that SQLite has on it.
    """
    status = path.stat()
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_mode & 0o077:
        try:
            path.chmod(0o600)
        except OSError as error:
            raise StoreError(f"others may open {path}, and that cannot be changed: {error.strerror}") from error


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, unless they are there."""
    if not folder.is_dir():
        make_folder(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
