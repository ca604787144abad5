"""A file that only grows, a line for each commit with its checksum: what `FileStore` holds to be facts.

The law of this module: a line counts when it is there whole. Half a line at the end is a commit that never was; a bad
line anywhere else is damage, and is never read over.
"""

import json
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from privet.stores.base import StoreError, batched
from privet.stores.disk import open_private, sync_folder

FORMAT = 1

Change = dict[str, Any]


class Journal:
    """What has been committed, as far as `read` has come. Whoever reads or appends holds a lock among processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open_private(path, os.O_APPEND)
        status = os.fstat(self._file)
        if not status.st_size:
            sync_folder(path.parent)
        self._inode = status.st_ino
        self._size = 0
        self.lines = 0

    @property
    def replaced(self) -> bool:
        """Whether somebody has put a shorter journal in its place."""
        return self._status().st_ino != self._inode

    @property
    def stale(self) -> bool:
        """Whether somebody has committed since we read. Needs no lock."""
        status = self._status()
        return status.st_size != self._size or status.st_ino != self._inode

    def _status(self) -> os.stat_result:
        if self._file < 0:
            raise OSError("it is closed")
        return self._path.stat()

    def read(self) -> Iterator[Change]:
        """Yield what has been appended since the last time."""
        with open(self._file, "rb", closefd=False) as file:
            file.seek(self._size)
            for line in file:
                change = _parse(line)
                if change is None:
                    if file.read(1):
                        raise StoreError(f"{self._path} is damaged in line {self.lines + 1}")
                    os.ftruncate(self._file, self._size)
                    return
                if not self.lines and change.get("format") != FORMAT:
                    raise StoreError(f"{self._path} is from a newer privet: it has another format than {FORMAT}")
                self._size += len(line)
                self.lines += 1
                yield change

    def append(self, changes: Iterable[Change], *, durable: bool) -> None:
        """Append all of the changes, or raise and leave none of them."""
        lines = [_line(change) for change in changes]
        if not self.lines:
            lines.insert(0, _line({"format": FORMAT}))
        text = b"".join(lines)
        try:
            if os.write(self._file, text) != len(text):
                raise StoreError(f"{self._path} cannot grow any further; is the disk full?")
            if durable:
                os.fdatasync(self._file)
        except BaseException:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(text)
        self.lines += len(lines)

    def rewrite(self, changes: Iterable[Change]) -> None:
        """Put a journal of these changes alone in the place of this one."""
        path = self._path.with_name(f"{self._path.name}.new")
        path.unlink(missing_ok=True)
        new = Journal(path)
        try:
            for some in batched(changes, 1000):
                new.append(some, durable=False)
            new.append([], durable=True)
            path.replace(self._path)
            sync_folder(self._path.parent)
        except BaseException:
            path.unlink(missing_ok=True)  # a disk may have been full with it
            raise
        finally:
            new.close()

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


def _line(change: Change) -> bytes:
    text = json.dumps(change, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _parse(line: bytes) -> Change | None:
    checksum, _, text = line[:-1].partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text):
        return None
    change: Change = json.loads(text)
    return change
