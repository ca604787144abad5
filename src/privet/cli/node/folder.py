"""The folder of a node's certificate: the files that services read, and beside them, in `.privet`, how they came about.

The laws of this module: a file is complete, with its owner and its mode, before it has its name, so a private key is
never for more eyes than it is meant for, not for a moment; and nothing is
believed of a `.privet` that somebody else made.
"""

import asyncio
import contextlib
import grp
import json
import os
import pwd
import stat
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from privet.acme.identifiers import from_text
from privet.bundle import KIND as BUNDLE
from privet.bundle import CertBundle
from privet.ca import KeyType
from privet.cli.failures import Failure
from privet.client.keeping import whole
from privet.client.schedule import Schedule
from privet.stores import Conflict, FileStore, Record, StoreError
from privet.stores.disk import Turn, sync_folder

KIND = "node"
PUBLIC = 0o644
KEY = "key.pem"
CA = "ca.pem"
_AGAIN = 0.2
_LARGEST_ID = (1 << 32) - 2


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """How a certificate was asked for, so that it is renewed in the same way. Secrets are in files of their own."""

    names: tuple[str, ...]
    directory: str
    common_name: str | None = None
    role: str | None = None
    token_file: str | None = None
    fingerprint: str | None = None
    ca_file: str | None = None
    insecure: bool = False
    http_01_port: int | None = None
    webroot: str | None = None
    dns_hook: tuple[str, ...] = ()
    tls_alpn_01_port: int | None = None
    approval_within: float | None = None
    owner: str | None = None
    mode: int = 0o600
    reload_command: tuple[str, ...] = ()
    key_type: str = KeyType.P256
    password_file: str | None = None
    traditional: bool = False
    external_account: str | None = None
    external_account_key_file: str | None = None
    profile: str | None = None
    contact: tuple[str, ...] = ()
    renewal_threshold: float = 2 / 3
    days_before_expiry: float | None = None
    reuse_key: bool = False

    @property
    def domain(self) -> str:
        """What the certificate is called in the store."""
        return self.common_name or from_text(self.names[0]).value

    @property
    def all_names(self) -> tuple[str, ...]:
        """What it is for: a common name of its own first."""
        return tuple(dict.fromkeys([self.domain, *(from_text(name).value for name in self.names)]))

    @property
    def schedule(self) -> Schedule:
        """When the certificate is due, unless the CA has an opinion."""
        return Schedule(self.renewal_threshold, self.days_before_expiry)


class Folder:
    """A folder with a certificate. `with` closes it."""

    def __init__(self, path: Path, store: FileStore) -> None:
        self.path = path
        self.store = store

    @classmethod
    def make(cls, path: Path) -> Self:
        """Open a folder, made if it is not there. Raises `Failure`."""
        path = path.expanduser().absolute()
        try:
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            raise Failure(f"the folder {path} cannot be made: {error.strerror}") from None
        return cls._open(path)

    @classmethod
    def find(cls, path: Path) -> Self:
        """Open a folder that `privet node issue` has filled. Raises `Failure`."""
        path = path.expanduser().absolute()
        try:
            (path / ".privet").lstat()
        except PermissionError:
            raise Failure(f"{path} cannot be looked into; run this as the user who ran `privet node issue`") from None
        except OSError:
            raise Failure(
                f"there is no certificate of `privet node issue` in {path}: `privet node issue NAME --directory URL "
                f"--out {path}` gets one"
            ) from None
        return cls._open(path)

    @classmethod
    def _open(cls, path: Path) -> Self:
        private = path / ".privet"
        try:
            with contextlib.suppress(FileExistsError):
                private.mkdir(mode=0o700)
            # Whoever can write into the folder could bring a `.privet` along, and with it a command for us to run.
            above, found = path.stat(), private.lstat()
            if above.st_uid not in (0, os.geteuid()) or above.st_mode & (0o002 if os.geteuid() else 0o022):
                raise Failure(
                    f"others may change what is in {path}, and so what is run in your name: let it belong to you, and "
                    "let nobody else write there; --owner is for the files in it"
                )
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                raise Failure(f"{private} belongs to somebody else; run this as the user who ran `privet node issue`")
            private.chmod(0o700)
            return cls(path, FileStore(private))
        except (OSError, StoreError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise Failure(f"{private} cannot be used: {reason}; run this as a user who may write there") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    # --- how it came about ---

    def settings(self) -> NodeSettings:
        """Raises `Failure`."""
        document = self.remembered("settings")
        known = {field.name for field in fields(NodeSettings)}
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in document.items()
            if name in known
        }
        try:
            return NodeSettings(**given)
        except TypeError:
            raise Failure(f"`privet node issue` has not got a certificate into {self.path} yet: run it again") from None

    def keep_settings(self, settings: NodeSettings) -> None:
        self.remember("settings", asdict(settings))

    def bundle(self, settings: NodeSettings) -> CertBundle:
        """The certificate that is current. Raises `Failure`."""
        record = self.store.get(BUNDLE, settings.domain)
        if record is None:
            raise Failure(f"the certificate for {settings.domain} is gone from {self.path}: run `privet node issue`")
        bundle = whole(record)
        if bundle is None:
            raise Failure(
                f"the certificate or the key in {self.path}/.privet is damaged: run `privet node issue` again, as when "
                "you got it; what lies beside it is left alone"
            )
        return bundle

    def remembered(self, what: str) -> dict[str, Any]:
        record = self.store.get(KIND, what)
        return json.loads(record.body) if record is not None else {}

    def remember(self, what: str, document: Mapping[str, object]) -> None:
        body = json.dumps(document).encode()
        while True:
            record = self.store.get(KIND, what) or Record(KIND, what)
            if record.version and record.body == body:
                return
            try:
                self.store.commit(record._replace(body=body))
            except Conflict:
                continue
            return

    # --- what services read ---

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A turn at what services read, which one process has at a time. Raises `Failure`."""
        private = self.path / ".privet"
        try:
            turn = Turn(private / "new.lock")
        except (OSError, StoreError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise Failure(f"nothing can be written into {private}: {reason}") from None
        with contextlib.closing(turn):  # which ends the turn as well
            while not turn.take():  # noqa: ASYNC110 - another process has it; in a thread SIGTERM would have to wait
                await asyncio.sleep(_AGAIN)
            yield

    def holds(self, files: Mapping[str, bytes], settings: NodeSettings) -> bool:
        """Whether these files are what lies in the folder, the key for those it is meant for alone."""
        try:
            key = (self.path / KEY).lstat()
            return _is_for(key, settings) and all(
                (self.path / name).read_bytes() == content for name, content in files.items()
            )
        except OSError:
            return False

    def check_writable(self, settings: NodeSettings) -> None:
        """Find out beforehand whether files can be written and given to their owner. Raises `Failure`."""
        with self._writing() as place:
            _write(place / "probe", b"", settings.owner, 0o600)
            try:
                (place / "probe").rename(self.path / ".privet-probe")
                (self.path / ".privet-probe").unlink()
            except OSError as error:
                raise Failure(f"nothing can be written into {self.path}: {error.strerror}") from None

    def swap(self, files: Mapping[str, bytes], settings: NodeSettings) -> None:
        """Write all of the files, then give them their names, in a turn of one's own. Raises `Failure`."""
        with self._writing() as place:
            for name, content in files.items():
                _write(place / name, content, settings.owner, settings.mode if name == KEY else PUBLIC)
            try:
                for name in files:
                    (place / name).rename(self.path / name)
                sync_folder(self.path)
            except OSError as error:
                raise Failure(f"{self.path / name} cannot be replaced: {error.strerror}") from None

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Path]:
        """A place for new files. What one that was killed has left goes away."""
        place = self.path / ".privet" / "new"
        try:
            place.mkdir(mode=0o700, exist_ok=True)
            for left in place.iterdir():
                left.unlink()
        except OSError as error:
            raise Failure(f"nothing can be written into {place.parent}: {error.strerror}") from None
        yield place


def write_file(path: Path, content: bytes, mode: int = PUBLIC) -> None:
    """Write a file as a whole, in the place of what was there. Raises `Failure`."""
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with contextlib.suppress(FileNotFoundError):
            new.unlink()
        _write(new, content, None, mode)
        new.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink()
        raise Failure(f"{path} cannot be written: {error.strerror}") from None


def _write(path: Path, content: bytes, owner: str | None, mode: int) -> None:
    user, group = read_owner(owner) if owner else (-1, -1)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            if owner:
                try:
                    os.fchown(file.fileno(), user, group)
                except PermissionError:
                    raise Failure(
                        f"only root can give files to {owner}: run this as root, or leave --owner out"
                    ) from None
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}") from None


def _is_for(key: os.stat_result, settings: NodeSettings) -> bool:
    """Whether a key is a file of the owner and the mode that were asked for."""
    user, group = read_owner(settings.owner) if settings.owner else (-1, -1)
    return key.st_mode == stat.S_IFREG | settings.mode and user in (-1, key.st_uid) and group in (-1, key.st_gid)


def read_owner(owner: str) -> tuple[int, int]:
    """`USER`, `USER:GROUP` or `:GROUP`, by name or number, as numbers; -1 for what stays as it is. A user's group is
    the first one of that user, unless it is named. Raises `Failure`."""
    user, colon, group = owner.partition(":")
    if not (user or group) or (colon and not group):
        raise Failure(f"--owner has to be USER, USER:GROUP or :GROUP, not {owner!r}")
    uid = gid = -1
    if user:
        try:
            known = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
            uid, gid = known.pw_uid, known.pw_gid
        except KeyError:
            if not user.isdecimal():
                raise Failure(f"--owner: there is no user {user!r} here") from None
            uid = int(user)
    if group:
        try:
            gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
        except KeyError:
            raise Failure(f"--owner: there is no group {group!r} here") from None
    if max(uid, gid) > _LARGEST_ID:
        raise Failure(f"--owner: {max(uid, gid)} is larger than the number of any user or group")
    return uid, gid
