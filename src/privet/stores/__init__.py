"""Where everything is kept: the four verbs of `Store`, and the stores that keep them."""

from importlib import import_module
from pathlib import Path

from privet.stores.asynchronous import AsyncStore
from privet.stores.base import Batch, Conflict, OpenStore, Record, Store, StoreError, new_id
from privet.stores.file import FileStore
from privet.stores.memory import MemoryStore
from privet.stores.sqlite import SQLiteStore
from privet.stores.urls import is_networked, without_password

__all__ = [
    "AsyncStore",
    "Batch",
    "Conflict",
    "FileStore",
    "MemoryStore",
    "OpenStore",
    "Record",
    "SQLiteStore",
    "Store",
    "StoreError",
    "new_id",
    "open_store",
    "without_password",
]


def open_store(url: str) -> OpenStore:
    """Open the store a URL names: `memory:`, `sqlite:///PATH` or `file:///PATH` (a fourth slash: an absolute path), or
    `postgresql://USER@HOST/DATABASE` as libpq reads it.

    Raises `ValueError` if the URL names none, and `StoreError` if it cannot be opened.
    """
    if url == "memory:":
        return MemoryStore()
    if is_networked(url):
        try:
            # Only here: psycopg is an extra, and takes a tenth of a second that nobody else should wait for.
            postgres = import_module("privet.stores.postgres")
        except ImportError:
            raise StoreError("PostgreSQL takes psycopg, which is missing: pip install 'privet[postgres]'") from None
        store: OpenStore = postgres.PostgresStore(url)
        return store
    scheme, _, path = url.partition(":///")
    if scheme == "sqlite" and path:
        return SQLiteStore(Path(path))
    if scheme == "file" and path:
        return FileStore(Path(path))
    raise ValueError(
        f"{without_password(url)!r} names no store; write memory:, sqlite:///PATH, file:///PATH or postgresql://USER@HOST/DATABASE"
    )
