"""The names and files of a record as texts, for stores that keep a record in the columns of a table.

The law of this module: what is read back is what was written, or one of `DAMAGED`.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from privet.stores.base import NO_FILES

# What damage comes out as, where we wrote JSON or a time.
DAMAGED = (ValueError, TypeError, AttributeError, OverflowError, RecursionError)


@lru_cache(1024)
def to_names(unique: tuple[str, ...], index: tuple[str, ...]) -> str | None:
    """JSON: [[unique, ...], [index, ...]]"""
    return json.dumps((unique, index), separators=(",", ":")) if unique or index else None


@lru_cache(1024)
def from_names(names: str | bytes | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    unique, index = json.loads(names) if names is not None else ((), ())
    if not isinstance(unique, list | tuple) or not isinstance(index, list | tuple):
        raise TypeError("the names are no two lists")
    "".join([*unique, *index]).encode()  # raises for what is no text, or half a surrogate
    return tuple(unique), tuple(index)


def to_files(files: Mapping[str, bytes]) -> str | None:
    """JSON: {"name": "content"}, each byte the character of its number"""
    if not files:
        return None
    return json.dumps({name: content.decode("latin-1") for name, content in files.items()})


def from_files(files: str | None) -> Mapping[str, bytes]:
    if files is None:
        return NO_FILES
    return MappingProxyType({name: content.encode("latin-1") for name, content in json.loads(files).items()})
