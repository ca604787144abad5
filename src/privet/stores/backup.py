"""A backup: all records of a store in one encrypted file, from which any other store can be filled.

    age, with a password          stores/age.py; `age --decrypt` opens it
      gzip
        {"format": 1, "taken": …}                     one JSON document per line
        {"kind": …, "id": …, "version": …, "body": …, "unique": […], "index": […], "expires": …, "files": {…}}
        …                                             in order of kind and id; what is empty is left out
        {"records": 12, "sha256": …}                  how many there were, and the digest of their lines

Each byte of a body or a file is the character of its number. The law of this module: what is read is a backup from its
first line to its last, or `StoreError`.
"""

import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, BinaryIO

from privet.stores.age import seal, unseal
from privet.stores.base import NO_FILES, Record, StoreError

FORMAT = 1

_GZIP = 31  # what zlib calls it
_PARTS = 1 << 16


class Tally:
    """What went by: how many records of each kind, and a digest of them all."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.last: Record | None = None
        self._digest = hashlib.sha256()

    @property
    def records(self) -> int:
        return self.kinds.total()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def count(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yield the records, and remember what they were."""
        for record in records:
            self.add(record, _line(_to_json(record)))
            yield record

    def add(self, record: Record, line: bytes) -> None:
        self.kinds[record.kind] += 1
        self.last = record
        self._digest.update(line)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tally) and (self.kinds, self.sha256) == (other.kinds, other.sha256)

    __hash__ = None  # type: ignore[assignment]


def write_backup(file: BinaryIO, records: Iterable[Record], password: bytes, now: datetime, tally: Tally) -> None:
    """Write a backup taken `now`; `tally` follows it. Raises what `records` and `file` raise."""

    def lines() -> Iterator[bytes]:
        yield _line({"format": FORMAT, "taken": now.astimezone(UTC).isoformat()})
        for record in records:
            line = _line(_to_json(record))
            tally.add(record, line)
            yield line
        yield _line({"records": tally.records, "sha256": tally.sha256})

    file.writelines(seal(_compressed(lines()), password))


class Backup:
    """A backup that is being read: its records once, from the first to the last, and `taken`, when it was made.

    `tally` follows the reading. Raises `StoreError` if it is none, has another password, is damaged, cut short, or of
    a newer privet.
    """

    def __init__(self, file: BinaryIO, password: bytes) -> None:
        self.tally = Tally()
        self._lines = _lines(_expanded(unseal(file, password)))
        head = _parse(next(self._lines, b""))
        if head.get("format") != FORMAT:
            raise StoreError(f"it has the format {head.get('format')}, and this privet knows {FORMAT}")
        try:
            self.taken = datetime.fromisoformat(head["taken"])
        except (KeyError, TypeError, ValueError):
            raise StoreError("it does not say when it was taken") from None

    def records(self) -> Iterator[Record]:
        for line in self._lines:
            document = _parse(line)
            if "records" in document:
                if (document["records"], document.get("sha256")) != (self.tally.records, self.tally.sha256):
                    raise StoreError("its records are not those that were written")
                if next(self._lines, None) is not None:
                    raise StoreError("something follows its end")
                return
            record = _from_json(document)
            self.tally.add(record, line)
            yield record
        raise StoreError("it has no end")


def _to_json(record: Record) -> dict[str, object]:
    document = {
        "kind": record.kind,
        "id": record.id,
        "version": record.version,
        "body": record.body.decode("latin-1"),
        "unique": record.unique,
        "index": record.index,
        "expires": record.expires and record.expires.astimezone(UTC).isoformat(),
        "files": {name: record.files[name].decode("latin-1") for name in sorted(record.files)},
    }
    return {name: value for name, value in document.items() if value}


def _from_json(document: dict[str, Any]) -> Record:
    try:
        files = {name: content.encode("latin-1") for name, content in document.get("files", {}).items()}
        return Record(
            kind=document.get("kind", ""),
            id=document.get("id", ""),
            body=document.get("body", "").encode("latin-1"),
            version=document["version"],
            unique=tuple(document.get("unique", ())),
            index=tuple(document.get("index", ())),
            expires=datetime.fromisoformat(document["expires"]) if "expires" in document else None,
            files=MappingProxyType(files) if files else NO_FILES,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"it has a record that is none: {type(error).__name__}") from None


_encode = json.JSONEncoder(separators=(",", ":")).encode


def _line(document: dict[str, object]) -> bytes:
    return _encode(document).encode() + b"\n"


def _parse(line: bytes) -> dict[str, Any]:
    try:
        document = json.loads(line)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise StoreError("it has something in it that is no record")
    return document


def _compressed(parts: Iterable[bytes]) -> Iterator[bytes]:
    compressor = zlib.compressobj(1, wbits=_GZIP)
    for part in parts:
        if some := compressor.compress(part):
            yield some
    yield compressor.flush()


def _expanded(parts: Iterable[bytes]) -> Iterator[bytes]:
    expander = zlib.decompressobj(_GZIP)
    try:
        for part in parts:
            while part:
                yield expander.decompress(part, _PARTS)
                part = expander.unconsumed_tail
        yield expander.flush()
    except zlib.error:
        raise StoreError("what is in it is not compressed as backups are") from None
    if not expander.eof or expander.unused_data:
        raise StoreError("what is in it is not compressed as backups are")


def _lines(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a text, each with its end; the last may lack it."""
    rest = b""
    for part in parts:
        first, *others = part.split(b"\n")
        if not others:
            rest += first
            continue
        yield rest + first + b"\n"
        *whole, rest = others
        for line in whole:
            yield line + b"\n"
    if rest:
        yield rest
