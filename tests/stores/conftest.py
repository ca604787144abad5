from collections.abc import Iterator
from pathlib import Path

import pytest

from privet.stores import FileStore, MemoryStore, SQLiteStore, Store, open_store

URLS = {"memory": "memory:", "file": "file:///{}/folder", "sqlite": "sqlite:///{}/database"}


@pytest.fixture(params=URLS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Each store in turn, empty."""
    with open_store(URLS[request.param].format(tmp_path)) as store:
        yield store


@pytest.fixture(params=["file", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of each store that outlives its process, nothing there yet."""
    return URLS[request.param].format(tmp_path)


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[FileStore]:
    with FileStore(tmp_path / "folder") as store:
        yield store


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[SQLiteStore]:
    with SQLiteStore(tmp_path / "database") as store:
        yield store
