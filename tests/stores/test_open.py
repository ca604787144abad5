from pathlib import Path

import pytest

from privet.stores import FileStore, MemoryStore, SQLiteStore, open_store
from privet.stores.postgres import PostgresStore


def test_each_scheme_opens_its_store(tmp_path: Path) -> None:
    for url, store_type in {
        "memory:": MemoryStore,
        f"file:///{tmp_path}/folder": FileStore,
        f"sqlite:///{tmp_path}/database": SQLiteStore,
    }.items():
        with open_store(url) as store:
            assert type(store) is store_type
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "database", "database-lock"}


def test_postgresql_is_one_of_them(database: str) -> None:
    for url in (database, database.replace("postgresql:", "postgres:")):
        with open_store(url) as store:
            assert type(store) is PostgresStore


def test_three_slashes_are_relative_and_the_tilde_is_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    open_store("sqlite:///data/privet.db").close()
    open_store("sqlite:///~/privet.db").close()
    open_store("file:///~/folder").close()
    assert (tmp_path / "data/privet.db").is_file()
    assert (tmp_path / "home/privet.db").is_file()
    assert (tmp_path / "home/folder").is_dir()


@pytest.mark.parametrize(
    "url", ["", "memory", "sqlite:", "sqlite://", "sqlite:///", "sqlite://host/path", "mysql://host/db", "/path"]
)
def test_what_names_no_store_is_refused_with_what_would(url: str) -> None:
    with pytest.raises(ValueError, match="names no store; write memory:, sqlite:///PATH, file:///PATH or postgresql:"):
        open_store(url)
