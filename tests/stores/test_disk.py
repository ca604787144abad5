"""Files that were there before us, and may be read by more than their owner."""

import stat
from pathlib import Path

import pytest

from privet.stores import Record, SQLiteStore, StoreError, open_store


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("before", [0o644, 0o660, 0o604])
def test_a_file_of_ours_that_others_may_open_is_taken_from_them(on_disk: str, tmp_path: Path, before: int) -> None:
    with open_store(on_disk) as store:
        store.commit(Record("order", "1"))
    paths = [path for path in tmp_path.rglob("*") if path.is_file()]
    for path in paths:
        path.chmod(before)
    with open_store(on_disk) as store:
        assert store.get("order", "1")
        assert {path: mode(path) for path in paths} == dict.fromkeys(paths, 0o600)


def test_a_database_that_was_touched_first_is_private(tmp_path: Path) -> None:
    database = tmp_path / "database"
    database.touch(0o644)
    with SQLiteStore(database) as store:
        store.commit(Record("order", "1"))
        assert {path.name: mode(path) for path in tmp_path.iterdir()} == dict.fromkeys(
            ("database", "database-wal", "database-shm", "database-lock"), 0o600
        )


def test_the_side_files_of_a_database_that_was_not_closed_are_private(tmp_path: Path) -> None:
    database = tmp_path / "database"
    with SQLiteStore(database) as store:
        store.commit(Record("order", "1"))
        for path in tmp_path.iterdir():
            path.chmod(0o644)
        with SQLiteStore(database):
            assert {mode(path) for path in tmp_path.iterdir()} == {0o600}


def test_a_mode_that_cannot_be_changed_is_told(on_disk: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(on_disk).close()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            path.chmod(0o644)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.chmod", refuse)
    with pytest.raises(StoreError, match=r"^others may open .*, and that cannot be changed: Operation not permitted$"):
        open_store(on_disk)
