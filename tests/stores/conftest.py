from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.interop.postgresql import PostgreSQL

from privet.stores import FileStore, MemoryStore, OpenStore, SQLiteStore, open_store
from privet.stores.postgres import PostgresStore

URLS = {"memory": "memory:", "file": "file:///{}/folder", "sqlite": "sqlite:///{}/database"}


@pytest.fixture
def database(postgresql: PostgreSQL) -> str:
    """The address of an empty database."""
    return postgresql.new_database()


def url_of(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("database"))
    return URLS[request.param].format(tmp_path)


@pytest.fixture(params=[*URLS, "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    """Each store in turn, empty."""
    with open_store(url_of(request, tmp_path)) as store:
        yield store


@pytest.fixture(params=["file", "sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of each store that outlives its process, nothing there yet."""
    return url_of(request, tmp_path)


@pytest.fixture(params=["file", "sqlite"])
def on_disk(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of each store in files of ours, nothing there yet."""
    return url_of(request, tmp_path)


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


@pytest.fixture
def postgres(database: str) -> Iterator[PostgresStore]:
    with PostgresStore(database) as store:
        yield store
