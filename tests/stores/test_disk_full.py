"""The disk is full: who asks is told, what was promised is there, and with room again all goes on."""

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from privet.stores import Conflict, Record, Store, StoreError, open_store

Full = Callable[[], AbstractContextManager[None]]


@pytest.fixture(params=["limit", "device"])
def full(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Full]]:
    """A folder, and what makes it full for a while: a limit on the size of files, or a device with no room left."""
    if request.param == "limit":
        yield tmp_path, limited
        return
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small device")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "privet", tmp_path], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield tmp_path, lambda: filled(tmp_path)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@contextmanager
def limited() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    ballast = folder / "ballast"
    size = 1 << 20
    with ballast.open("wb", buffering=0) as file:
        while size:
            try:
                file.write(b"\0" * size)
            except OSError:
                size //= 2
    try:
        yield
    finally:
        ballast.unlink()


@pytest.mark.parametrize("scheme", ["file", "sqlite"])
@pytest.mark.parametrize("files", [{}, {"cert.pem": b"cert" * 1000, "key.pem": b"key" * 1000}], ids=["body", "files"])
def test_a_full_disk(full: tuple[Path, Full], scheme: str, files: dict[str, bytes]) -> None:
    folder, is_full = full
    url = f"{scheme}:///{folder}/store"
    with open_store(url) as store:
        store.commit(Record("certs", "a", b"before", files=files), Record("order", "a", b"before", unique=("name",)))
        promised = 0
        with is_full():
            while not (failure := failure_of(commit, store, promised + 1, files)):
                promised += 1
        assert "store" in str(failure)  # it says which file
        look(store, promised, files)
        with is_full():
            look(store, promised, files)
            assert store.get("order", "b") is None
            with pytest.raises(Conflict):
                store.commit(Record("order", "a"))
        with open_store(url) as another:
            look(another, promised, files)
        commit(store, promised + 1, files)
        look(store, promised + 1, files)
    with open_store(url) as store:
        look(store, promised + 1, files)


def commit(store: Store, number: int, files: dict[str, bytes]) -> None:
    order = Record("order", f"{number:03}", b"x" * 5000, unique=(f"name:{number}",))
    store.commit(order, Record("certs", f"{number:03}", b"{}", files=files))


def failure_of(call: Callable[..., None], *arguments: object) -> StoreError | None:
    try:
        call(*arguments)
    except StoreError as failure:
        return failure
    return None


def look(store: Store, promised: int, files: dict[str, bytes]) -> None:
    names = [*(f"{number:03}" for number in range(1, promised + 1)), "a"]
    assert [record.id for record in store.find("order", limit=2000)] == names
    bundles = store.find("certs", limit=2000)
    assert [record.id for record in bundles] == names
    assert all(record.files == files for record in bundles)
    assert [record.id for record in store.find("order", "name")] == ["a"]
    assert store.find("order", f"name:{promised + 1}") == []


@pytest.mark.parametrize("scheme", ["file", "sqlite"])
def test_a_full_disk_at_the_start(full: tuple[Path, Full], scheme: str) -> None:
    folder, is_full = full
    url = f"{scheme}:///{folder}/there/store"

    def start() -> None:
        with open_store(url) as store:
            store.commit(Record("order", "1", b"x" * 100_000))

    (folder / "there").mkdir()
    with is_full():
        assert failure_of(start)
    start()
