"""A folder that people read: what lies where, who may read it, and what happens when they lend a hand."""

import os
import resource
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from privet.stores import Batch, FileStore, Record, StoreError

BUNDLE = Record(
    "certs", "web.internal", b'{"a":1}', files={"cert.pem": b"cert", "fullchain.pem": b"chain", "key.pem": b"k"}
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "folder"


@contextmanager
def no_file_can_be_opened() -> Iterator[None]:
    """What a process finds that has as many files open as it may."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def tree(folder: Path) -> dict[str, bytes]:
    """What a person sees: every file that is not hidden, links followed."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for kind in folder.glob("[!.]*")
        for path in ([*kind.glob("*/*")] if kind.is_dir() else [kind])
    }


class TestLayout:
    def test_a_record_with_files_is_a_folder_with_files(self, file: FileStore, folder: Path) -> None:
        file.commit(BUNDLE, Record("ca", "turnstone", files={"cert.pem": b"ca", "key.pem": b"secret"}))
        assert tree(folder) == {
            "ca/turnstone/cert.pem": b"ca",
            "ca/turnstone/key.pem": b"secret",
            "certs/web.internal/cert.pem": b"cert",
            "certs/web.internal/fullchain.pem": b"chain",
            "certs/web.internal/key.pem": b"k",
            "certs/web.internal/meta.json": b'{"a":1}',
        }

    def test_its_path_stays_the_same_when_it_changes(self, file: FileStore, folder: Path) -> None:
        file.commit(BUNDLE)
        path = file.path_of("certs", "web.internal", "key.pem")
        assert path == folder / "certs/web.internal/key.pem"
        file.commit(BUNDLE._replace(version=1, files={"key.pem": b"new"}))
        assert path.read_bytes() == b"new"
        assert set(tree(folder)) == {"certs/web.internal/key.pem", "certs/web.internal/meta.json"}

    def test_a_reader_in_the_middle_of_a_change_has_files_that_belong_together(
        self, file: FileStore, folder: Path
    ) -> None:
        file.commit(BUNDLE)
        inside = os.open(folder / "certs/web.internal", os.O_RDONLY)
        key = os.open("key.pem", os.O_RDONLY, dir_fd=inside)
        file.commit(BUNDLE._replace(version=1, files={"key.pem": b"new"}))
        assert os.read(key, 100) == b"k"
        os.close(key)
        os.close(inside)

    @pytest.mark.parametrize(
        ("id", "name"),
        [
            ("worker-1.internal", "worker-1.internal"),
            ("*.internal", "%2A.internal"),
            ("::1", "%3A%3A1"),
            ("..", "%2E."),
            (".hidden", "%2Ehidden"),
            ("a/../../b", "a%2F..%2F..%2Fb"),
            ("bücher", "b%C3%BCcher"),
            ("a" * 200, "a" * 200),
        ],
    )
    def test_names_that_are_no_file_names_are_escaped(self, file: FileStore, folder: Path, id: str, name: str) -> None:
        file.commit(Record("certs", id, files={"cert.pem": b"cert"}))
        assert set(tree(folder)) == {f"certs/{name}/cert.pem"}
        assert file.path_of("certs", id, "cert.pem").read_bytes() == b"cert"

    def test_names_too_long_for_a_file_are_kept_apart(self, file: FileStore) -> None:
        long = ["a" * 300, "a" * 300 + "b", "ü" * 100]
        file.commit(*(Record("certs", id, id.encode(), files={"cert.pem": id.encode()}) for id in long))
        assert {record.id: record.body.decode() for record in file.find("certs")} == {id: id for id in long}

    def test_everything_is_for_its_owner_alone(self, tmp_path: Path) -> None:
        mask = os.umask(0)
        try:
            with FileStore(tmp_path / "new" / "folder") as store:
                store.commit(BUNDLE, Record("order", "1"))
        finally:
            os.umask(mask)
        for path in [tmp_path / "new", *(tmp_path / "new").rglob("*")]:
            if not path.is_symlink():
                assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path

    def test_what_is_in_files_is_nowhere_else(self, file: FileStore, folder: Path) -> None:
        file.commit(BUNDLE._replace(files={"key.pem": b"a secret"}))
        file.commit(BUNDLE._replace(version=1, files={"key.pem": b"another"}))
        assert all(b"a secret" not in path.read_bytes() for path in folder.rglob("*") if path.is_file())
        assert b"another" not in (folder / ".journal").read_bytes()

    def test_a_record_that_went_takes_its_folder_with_it(self, file: FileStore, folder: Path) -> None:
        now = datetime(2026, 3, 1, tzinfo=UTC)
        file.commit(BUNDLE._replace(expires=now))
        file.prune(now)
        assert tree(folder) == {}
        assert [path for path in folder.rglob("*") if path.is_file()] == [folder / ".lock", folder / ".journal"]

    def test_the_name_of_the_body_is_taken(self, file: FileStore) -> None:
        with pytest.raises(StoreError, match=r"meta\.json"):
            file.commit(BUNDLE._replace(files={"meta.json": b"{}"}))
        with pytest.raises(StoreError, match=r"meta\.json"):
            file.fill([BUNDLE._replace(version=1, files={"meta.json": b"{}"})])
        assert list(file.records()) == []
        assert file.get("certs", "web.internal") is None

    def test_the_tilde_is_the_home_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        with FileStore("~/.privet-ca") as store:
            store.commit(BUNDLE)
        assert (tmp_path / ".privet-ca/certs/web.internal/key.pem").exists()


class TestHelpingHands:
    """People, and programs that keep their files in the same places."""

    def put(self, folder: Path) -> None:
        (folder / "ca/root").mkdir(parents=True)
        (folder / "ca/root/cert.pem").write_bytes(b"cert")
        (folder / "ca/root/key.pem").write_bytes(b"key")
        (folder / "certs/a.internal").mkdir(parents=True)
        (folder / "certs/a.internal/cert.pem").write_bytes(b"cert")
        (folder / "certs/a.internal/meta.json").write_bytes(b"{}")
        (folder / "account.key").write_bytes(b"account")

    def test_what_was_there_before_is_adopted(self, folder: Path) -> None:
        self.put(folder)
        with FileStore(folder) as store:
            root = Record("ca", "root", version=1, files={"cert.pem": b"cert", "key.pem": b"key"})
            assert store.get("ca", "root") == root
            assert store.find("ca") == [root]
            assert store.find("certs") == [Record("certs", "a.internal", b"{}", 1, files={"cert.pem": b"cert"})]
        assert (folder / "account.key").read_bytes() == b"account"

    def test_what_comes_later_is_adopted_when_it_is_asked_for(self, file: FileStore, folder: Path) -> None:
        assert file.get("ca", "root") is None
        self.put(folder)
        root = file.get("ca", "root")
        assert root == Record("ca", "root", version=1, files={"cert.pem": b"cert", "key.pem": b"key"})

    def test_what_was_adopted_can_be_changed_like_all_else(self, folder: Path) -> None:
        self.put(folder)
        with FileStore(folder) as store:
            store.commit(Record("ca", "root", b"{}", 1, files={"cert.pem": b"new", "key.pem": b"new"}))
            assert tree(folder)["ca/root/key.pem"] == b"new"
        with FileStore(folder) as store:
            assert store.get("ca", "root") == Record(
                "ca", "root", b"{}", 2, files={"cert.pem": b"new", "key.pem": b"new"}
            )
            assert store.get("certs", "a.internal")

    def test_what_a_person_edits_is_what_is_read(self, file: FileStore, folder: Path) -> None:
        file.commit(BUNDLE)
        (folder / "certs/web.internal/cert.pem").write_bytes(b"edited")
        bundle = file.get("certs", "web.internal")
        assert bundle
        assert bundle.files["cert.pem"] == b"edited"

    def test_a_link_that_a_person_removed_comes_back(self, file: FileStore, folder: Path) -> None:
        file.commit(BUNDLE)
        (folder / "certs/web.internal").unlink()
        assert file.get("certs", "web.internal") == BUNDLE._replace(version=1)
        with FileStore(folder):
            assert tree(folder)["certs/web.internal/key.pem"] == b"k"

    def test_folders_outlive_a_lost_journal(self, file: FileStore, folder: Path) -> None:
        file.commit(BUNDLE)
        file.commit(BUNDLE._replace(version=1))
        (folder / ".journal").unlink()
        with FileStore(folder) as store:
            assert store.get("certs", "web.internal") == BUNDLE._replace(version=2)
            store.commit(BUNDLE._replace(version=2, files={"key.pem": b"new"}))
            assert tree(folder)["certs/web.internal/key.pem"] == b"new"

    def test_a_file_that_is_missing_is_named(self, file: FileStore, folder: Path) -> None:
        file.commit(BUNDLE)
        (folder / "certs/web.internal/key.pem").unlink()
        with pytest.raises(StoreError, match=r"key\.pem"):
            file.get("certs", "web.internal")


class TestJournal:
    def test_it_is_read_by_the_next_process(self, folder: Path) -> None:
        record = Record("order", "1", b"\xff{}", unique=("a",), index=("b",), expires=datetime(2026, 3, 1, tzinfo=UTC))
        with FileStore(folder) as store:
            store.commit(record, BUNDLE)
        with FileStore(folder) as store:
            assert store.find("order", "b") == store.find("order", "a") == [record._replace(version=1)]
            assert store.get("certs", "web.internal") == BUNDLE._replace(version=1)

    def test_another_process_sees_what_was_committed(self, file: FileStore, folder: Path) -> None:
        with FileStore(folder) as another:
            file.commit(Record("order", "1"), BUNDLE)
            assert another.get("order", "1") == Record("order", "1", version=1)
            another.commit(Record("order", "1", b"theirs", 1), BUNDLE._replace(version=1, body=b"theirs"))
            assert [record.body for record in file.find("order")] == [b"theirs"]
            bundle = file.get("certs", "web.internal")
            assert bundle
            assert bundle.body == b"theirs"

    @pytest.mark.parametrize("end", [1, 10, 60])
    def test_half_a_line_at_the_end_never_was(self, folder: Path, end: int) -> None:
        with FileStore(folder) as store:
            store.commit(Record("order", "1"))
            store.commit(Record("order", "2"), Record("order", "3"))
        journal = folder / ".journal"
        journal.write_bytes(journal.read_bytes()[:-end])
        with FileStore(folder) as store:
            assert [record.id for record in store.find("order")] == ["1"]
            store.commit(Record("order", "4"))
        with FileStore(folder) as store:
            assert [record.id for record in store.find("order")] == ["1", "4"]

    def test_damage_is_not_read_over(self, folder: Path) -> None:
        with FileStore(folder) as store:
            store.commit(Record("order", "1", b"ready"))
            store.commit(Record("order", "2", b"ready"))
        journal = folder / ".journal"
        journal.write_bytes(journal.read_bytes().replace(b"ready", b"valid", 1))
        with pytest.raises(StoreError, match=r"\.journal is damaged in line 2"):
            FileStore(folder)

    def test_one_from_a_newer_privet_is_refused(self, folder: Path) -> None:
        with FileStore(folder) as store:
            store.commit(Record("order", "1"))
        journal = folder / ".journal"
        line = b'{"format":2}'
        journal.write_bytes(b"%08x %s\n" % (zlib.crc32(line), line))
        with pytest.raises(StoreError, match="newer privet"):
            FileStore(folder)

    def test_it_does_not_grow_without_end(self, file: FileStore, folder: Path) -> None:
        file.slack = 50
        with FileStore(folder) as another:
            file.commit(BUNDLE)
            for number in range(500):
                file.commit(Record("order", "1", b"x" * 1000, version=number), durable=False)
            assert (folder / ".journal").stat().st_size < 70_000
            for store in (file, another):
                assert store.get("order", "1") == Record("order", "1", b"x" * 1000, 500)
                assert store.get("certs", "web.internal") == BUNDLE._replace(version=1)
            another.commit(Record("order", "1", version=500))
            assert file.get("order", "1") == Record("order", "1", version=501)

    def test_what_was_adopted_is_not_written_into_it(self, folder: Path) -> None:
        (folder / "ca/root").mkdir(parents=True)
        (folder / "ca/root/cert.pem").write_bytes(b"cert")
        with FileStore(folder) as store:
            store.slack = 0
            for number in range(10):
                store.commit(Record("order", "1", version=number))
        assert b"root" not in (folder / ".journal").read_bytes()


class TestTooManyOpenFiles:
    def test_a_journal_that_cannot_be_opened_now_is_opened_later(self, file: FileStore, folder: Path) -> None:
        with FileStore(folder) as another:
            another.slack = 0
            for number in range(10):  # puts a new journal in the place of the one that is open
                another.commit(Record("order", "1", version=number))
        with no_file_can_be_opened():
            for _ in range(2):
                with pytest.raises(StoreError, match="Too many open files"):
                    file.get("order", "1")
            with pytest.raises(StoreError, match="Too many open files"):
                file.commit(Record("order", "2"))
        assert file.get("order", "1") == Record("order", "1", version=10)
        file.commit(Record("order", "2"))

    def test_a_commit_that_failed_is_not_remembered(self, file: FileStore) -> None:
        with no_file_can_be_opened():
            outcomes = file.commit_each([Batch([Record("order", "1")]), Batch([BUNDLE])])
        assert ["Too many open files" in str(outcome) for outcome in outcomes] == [True, True]
        assert file.get("order", "1") is None
        assert file.get("certs", "web.internal") is None
        file.commit(Record("order", "1"), BUNDLE)
        assert file.get("certs", "web.internal") == BUNDLE._replace(version=1)


class TestClosed:
    def test_a_closed_store_says_so(self, folder: Path) -> None:
        store = FileStore(folder)
        store.close()
        store.close()
        with pytest.raises(StoreError, match="closed"):
            store.commit(Record("order", "1"))
        with pytest.raises(StoreError, match="closed"):
            store.get("order", "1")

    def test_a_file_in_its_place_is_a_clear_error(self, folder: Path) -> None:
        folder.write_bytes(b"")
        with pytest.raises(StoreError, match="folder"):
            FileStore(folder)
