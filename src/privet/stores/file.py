"""Records in a folder that people and other programs can read: keys and certificates as files, the rest in a journal.

    ca/root/{cert,key}.pem     a record with files; its body, if it has one, is meta.json beside them
    .versions/ca/root/3/       where these really are: ca/root is a link, so they are replaced as a whole
    .journal                   one line per commit, without the contents of files
    .lock                      held while somebody commits, or reads what others have committed

The law of this module: a commit is a fact once its line is in the journal, and a line speaks only of files that are
there. So a kill between any two steps leaves the old or the new, and a link that lags behind is set right by whoever
comes next.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from threading import RLock
from types import MappingProxyType
from urllib.parse import quote, unquote

from privet.stores.base import NO_FILES, Batch, Conflict, Outcome, Record, StoreError
from privet.stores.disk import Turn, make_folder, open_private, sync_folder
from privet.stores.journal import Change, Journal
from privet.stores.memory import Picture
from privet.stores.together import Together

_BODY = "meta.json"
_ADOPTED = "0"  # the version folder of what was there before the first commit

Key = tuple[str, str]


class FileStore(Together):
    """A `Store` in a folder, for several processes. What has no files is held in memory as well.

    A folder that a person or another program has put there is a record, too, at version 1.
    """

    slack = 1000
    """How many lines the journal may have that say nothing any more, before it is written anew."""

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self._root = Path(path).expanduser().absolute()
        self._lock = RLock()
        self._loaded = False  # whether the picture is what the journal says, as far as it has been read
        with _failures(), contextlib.ExitStack() as undo:
            make_folder(self._root)
            self._turn = Turn(self._root / ".lock")
            undo.callback(self._turn.close)
            self._journal = Journal(self._root / ".journal")
            undo.callback(lambda: self._journal.close())
            with self._turn:
                self._load()
                self._tidy()
            undo.pop_all()

    def get(self, kind: str, id: str) -> Record | None:
        with _failures(), self._lock:
            self._look()
            return self._filled((kind, id))

    def find(self, kind: str, name: str | None = None, *, after: str = "", limit: int = 100) -> list[Record]:
        with _failures(), self._lock:
            self._look()
            found = [self._filled((kind, record.id)) for record in self._picture.find(kind, name, after, limit)]
            return [record for record in found if record]

    def prune(self, now: datetime, *, limit: int = 100) -> int:
        with _failures(), self._lock, self._turn:
            self._catch_up()
            with self._or_load_again():
                gone = self._picture.expired(now, limit)
                if gone:
                    self._journal.append([{"gone": gone}], durable=False)
                    self._settle(self._drop(gone))
                    self._compact()
                return len(gone)

    def records(self) -> Iterator[Record]:
        with _failures(), self._lock, self._turn:
            self._catch_up()
            found = [self._read_files((record.kind, record.id)) for record in self._picture.all()]
        for record in found:
            assert record is not None
            yield record

    def fill(self, records: Iterable[Record]) -> None:
        def changes() -> Iterator[Change]:
            picture = Picture()
            for record in map(picture.add, records):
                _check_names(record)
                touched.add((record.kind, record.id))
                yield {"put": [_to_json(self._write_files(record) if record.files else record)]}

        touched: set[Key] = set()
        with _failures(), self._writer, self._lock, self._turn:
            self._catch_up()
            if self._picture.records:
                raise Conflict("there is something in the store")
            with self._or_load_again(touched):
                self._journal.rewrite(changes())
                self._load()

    def path_of(self, kind: str, id: str, file: str) -> Path:
        """Where a file of a record is. The path stays the same when the record changes."""
        return self._link((kind, id)) / _safe(file)

    def close(self) -> None:
        with self._writer, self._lock:
            self._journal.close()
            self._turn.close()

    def _write(self, batches: list[Batch]) -> list[Outcome]:
        try:
            with _failures(), self._lock, self._turn:
                self._catch_up()
                touched: set[Key] = set()
                with self._or_load_again(touched):
                    return self._write_alone(batches, touched)
        except StoreError as error:
            return [error] * len(batches)

    @contextlib.contextmanager
    def _or_load_again(self, touched: Iterable[Key] = ()) -> Iterator[None]:
        """When something fails, forget what had been got ready for the journal and is not in it."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError, StoreError):  # whoever comes next will load it
                self._load()
                self._settle(touched)
            raise

    def _write_alone(self, batches: list[Batch], touched: set[Key]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        changes = []
        for batch in batches:
            try:
                for record in batch.records:
                    _check_names(record)
                records = self._picture.advance(batch.records, batch.unchanged)
            except (Conflict, StoreError) as error:
                outcomes.append(error)
                continue
            touched |= {(record.kind, record.id) for record in records if record.files}
            records = [self._write_files(record) if record.files else record for record in records]
            changes.append({"put": [_to_json(record) for record in records]})
            touched |= self._put(records)
            outcomes.append(None)
        if changes:
            self._journal.append(changes, durable=any(batch.durable for batch in batches))
            self._settle(touched)
            self._compact()
        return outcomes

    # The picture: what the journal says, others' lines included, with the names of files but not what is in them

    def _look(self) -> None:
        if not self._loaded or self._journal.stale:
            with self._turn:
                self._catch_up()

    def _catch_up(self) -> None:
        if not self._loaded or self._journal.replaced:
            self._load()
        else:
            self._read_on()

    def _read_on(self) -> None:
        touched: set[Key] = set()
        for change in self._journal.read():
            touched |= self._put(map(_from_json, change.get("put", ())))
            touched |= self._drop((kind, id) for kind, id in change.get("gone", ()))
        self._settle(touched)

    def _load(self) -> None:
        self._loaded = False
        old, self._journal = self._journal, Journal(self._root / ".journal")
        old.close()
        self._picture = Picture()
        self._adopted: set[Key] = set()
        self._read_on()
        for home in self._root.glob(f".versions/*/*/{_ADOPTED}"):
            self._point((unquote(home.parts[-3]), unquote(home.parts[-2])), _ADOPTED)
        for folder in self._root.glob("[!.]*/[!.]*"):
            self._adopt((unquote(folder.parts[-2]), unquote(folder.parts[-1])))
        self._loaded = True

    def _adopt(self, key: Key) -> None:
        """Take up a folder that the journal does not know, if there is one."""
        link = self._link(key)
        if key not in self._picture.records and link.is_dir():
            files = {unquote(file.name): b"" for file in link.iterdir() if file.is_file() and file.name[0] != "."}
            version = max(1, int(link.readlink().name)) if self._is_ours(link) else 1
            self._picture.put(Record(*key, version=version, files=files))
            self._adopted.add(key)

    def _put(self, records: Iterable[Record]) -> set[Key]:
        """Return the keys of those that have files, or had."""
        touched = set()
        for record in records:
            key = (record.kind, record.id)
            old = self._picture.records.get(key)
            if record.files or (old and old.files):
                touched.add(key)
            self._picture.put(record)
            self._adopted.discard(key)
        return touched

    def _drop(self, keys: Iterable[Key]) -> set[Key]:
        touched = set()
        for key in keys:
            if self._picture.records[key].files:
                touched.add(key)
            self._picture.drop(*key)
        return touched

    def _compact(self) -> None:
        records = self._picture.records
        if self._journal.lines > 2 * len(records) + self.slack:
            with contextlib.suppress(OSError, StoreError):  # the long journal is as good
                self._journal.rewrite(
                    {"put": [_to_json(record)]} for key, record in records.items() if key not in self._adopted
                )
                self._load()

    # Files

    def _link(self, key: Key) -> Path:
        return self._root / _safe(key[0]) / _safe(key[1])

    def _home(self, key: Key) -> Path:
        return self._root / ".versions" / _safe(key[0]) / _safe(key[1])

    def _is_ours(self, link: Path) -> bool:
        return link.is_symlink() and link.readlink().parts[:2] == ("..", ".versions")

    def _filled(self, key: Key) -> Record | None:
        with contextlib.suppress(FileNotFoundError):
            record = self._read_files(key)
            if record is None or not record.files or not self._journal.stale:
                return record
        with self._turn:  # somebody has changed it while we read
            self._catch_up()
            with contextlib.suppress(FileNotFoundError):
                return self._read_files(key)
            self._load()  # or taken it away by hand
            return self._read_files(key)

    def _read_files(self, key: Key) -> Record | None:
        if key not in self._picture.records:
            self._adopt(key)
        record = self._picture.records.get(key)
        if record is None or not record.files:
            return record
        folder = self._link(key) if key in self._adopted else self._home(key) / str(record.version)
        files = {name: (folder / _safe(name)).read_bytes() for name in record.files}
        return record._replace(body=files.pop(_BODY, b""), files=MappingProxyType(files))

    def _write_files(self, record: Record) -> Record:
        """Write the folder of a version that nothing refers to yet; return the record as the picture has it."""
        key = (record.kind, record.id)
        files = {**record.files, _BODY: record.body} if record.body else record.files
        link, home = self._link(key), self._home(key)
        make_folder(link.parent)
        make_folder(home)
        if key in self._adopted and link.is_dir() and not link.is_symlink():
            link.rename(home / _ADOPTED)
            self._point(key, _ADOPTED)
        folder = home / str(record.version)
        shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder)
        for name, content in files.items():
            with os.fdopen(open_private(folder / _safe(name)), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        sync_folder(folder)
        return record._replace(body=b"", files=dict.fromkeys(files, b""))

    def _point(self, key: Key, version: str) -> None:
        """Make the link of a record lead to a version, in one step. A folder that stands in its place stays."""
        link, target = self._link(key), Path("..", ".versions", _safe(key[0]), _safe(key[1]), version)
        if not (link.is_symlink() and link.readlink() == target) and (link.is_symlink() or not link.exists()):
            new = self._home(key) / "link"
            new.unlink(missing_ok=True)
            new.symlink_to(target)
            new.replace(link)

    def _settle(self, touched: Iterable[Key]) -> None:
        """Make the folders of these records what the picture says. A failure here is for the next to mend."""
        for key in touched:
            record, home = self._picture.records.get(key), self._home(key)
            with contextlib.suppress(OSError):
                current = _ADOPTED
                if record is None or not record.files:
                    current = ""
                    if self._is_ours(self._link(key)):
                        self._link(key).unlink()
                elif key not in self._adopted:
                    current = str(record.version)
                    self._point(key, current)
                for old in home.iterdir():
                    if old.name != current:
                        shutil.rmtree(old)
                if not current:
                    home.rmdir()

    def _tidy(self) -> None:
        """Remove what somebody who was cut short had written before it came to be a fact."""
        (self._root / ".journal.new").unlink(missing_ok=True)
        kept = {self._home(key) for key, record in self._picture.records.items() if record.files}
        for home in self._root.glob(".versions/*/*"):
            if home not in kept:
                shutil.rmtree(home)


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"the store failed: {error}") from error


def _safe(text: str) -> str:
    """A file name for any text: itself where it can be, else escaped as in a URL, and cut where it is too long."""
    name = quote(text, safe="", errors="surrogatepass").replace("~", "%7E")
    if name[:1] in ("", "."):
        name = "%2E" + name[1:] if name else "%"
    if len(name) > 200:
        name = f"{name[:150]}~{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()}"
    return name


def _check_names(record: Record) -> None:
    """Raises `StoreError`."""
    if _BODY in record.files:
        raise StoreError(f"no file of a record can be called {_BODY}, which is what its body is called")


def _to_json(record: Record) -> Change:
    change = {
        "kind": record.kind,
        "id": record.id,
        "version": record.version,
        "body": record.body.decode("latin-1"),
        "unique": record.unique,
        "index": record.index,
        "expires": record.expires and record.expires.isoformat(),
        "files": tuple(record.files),
    }
    return {key: value for key, value in change.items() if value}


def _from_json(change: Change) -> Record:
    return Record(
        change.get("kind", ""),
        change.get("id", ""),
        change.get("body", "").encode("latin-1"),
        change["version"],
        tuple(change.get("unique", ())),
        tuple(change.get("index", ())),
        datetime.fromisoformat(change["expires"]) if "expires" in change else None,
        dict.fromkeys(change["files"], b"") if "files" in change else NO_FILES,
    )
