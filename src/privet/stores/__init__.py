"""Where everything is kept: the four verbs of `Store`, and the stores that keep them."""

from pathlib import Path

from privet.stores.asynchronous import AsyncStore
from privet.stores.base import Batch, Conflict, Record, Store, StoreError, new_id
from privet.stores.file import FileStore
from privet.stores.memory import MemoryStore
from privet.stores.sqlite import SQLiteStore

__all__ = [
    "AsyncStore",
    "Batch",
    "Conflict",
    "FileStore",
    "MemoryStore",
    "Record",
    "SQLiteStore",
    "Store",
    "StoreError",
    "new_id",
    "open_store",
]


def open_store(url: str) -> MemoryStore | SQLiteStore | FileStore:
    """Open the store a URL names: `memory:`, `sqlite:///PATH` or `file:///PATH` (a fourth slash: an absolute path).

    Raises `ValueError` if the URL names none, and `StoreError` if it cannot be opened.
    """
    if url == "memory:":
        return MemoryStore()
    scheme, _, path = url.partition(":///")
    if scheme == "sqlite" and path:
        return SQLiteStore(Path(path))
    if scheme == "file" and path:
        return FileStore(Path(path))
    raise ValueError(f"{url!r} names no store; write memory:, sqlite:///PATH or file:///PATH")
