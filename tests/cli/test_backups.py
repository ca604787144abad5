"""A store copied while a server runs, brought back into any other kind of store, and looked through."""

import asyncio
import contextlib
import errno
import json
import os
import pty
import signal
import sqlite3
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from tests.cli.command import DATABASE, PRIVET, Person, environment
from tests.interop.postgresql import PostgreSQL
from tests.interop.programs import Program
from tests.wire import Wire, problem_of, sign

from privet import ACMEResponder, CertificateAuthority, Client, FileStore, MemoryStore
from privet.ca.certificates import Certificate
from privet.cli.backups import take_name
from privet.cli.failures import Failure
from privet.stores import OpenStore, Record, open_store

PASSWORD = "correct horse battery\n"


def password_file(person: Person, name: str, password: str) -> None:
    path = person.folder / name
    path.write_text(password)
    path.chmod(0o600)


@pytest.fixture
def keeper(owner: Person) -> Person:
    """A person with an authority, some certificates, and the password of a backup in a file."""
    password_file(owner, "password", PASSWORD)
    owner.does("issue", "a.internal", "10.0.0.1")
    owner.does("issue", "*.b.internal", "--wildcard")
    owner.does("issue", "client.internal", "--client")
    return owner


def saved(person: Person, name: str = "backup") -> Path:
    person.does("backup", name, "--backup-password-file", "password")
    return person.folder / name


def records(url: str) -> list[Record]:
    with open_store(url) as store:
        return list(store.records())


@pytest.fixture(params=["sqlite", "file", "postgresql"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of each kind in which there is nothing."""
    if request.param == "postgresql":
        running: PostgreSQL = request.getfixturevalue("postgresql")
        return running.new_database()
    return f"{request.param}:///{tmp_path}/restored"


async def issue(directory: str, name: str, store: OpenStore | None = None) -> bytes:
    async with Client(directory, allow_insecure=True, store=store or MemoryStore()) as client:
        return (await client.issue(name)).cert_pem


def test_a_store_moves_while_it_is_served_and_the_other_goes_on_with_it(keeper: Person, target: str) -> None:
    with FileStore(keeper.folder / "node") as node:
        with keeper.serves("--auto-approve") as server:
            asyncio.run(issue(server.directory, "served.internal", node))
            made = keeper.does("backup", "backup", "--backup-password-file", "password", "--json").json
            asyncio.run(issue(server.directory, "later.internal", node))
        assert stat.S_IMODE((keeper.folder / "backup").stat().st_mode) == 0o600
        assert [path.name for path in keeper.folder.iterdir() if "backup" in path.name] == ["backup"]
        assert made["bytes"] == (keeper.folder / "backup").stat().st_size
        assert (made["kinds"]["certificate"], made["kinds"]["account"]) == (4, 1)

        moved = Person(keeper.folder, target)
        done = moved.does("restore", "backup", "--backup-password-file", "password", "--json").json
        assert done["records"] == made["records"] - 1  # all but the key of nonces
        assert done["taken"] == made["taken"]
        before = {(each["serial"], each["fingerprint"], each["status"]) for each in keeper.does("list", "--json").json}
        after = {(each["serial"], each["fingerprint"], each["status"]) for each in moved.does("list", "--json").json}
        assert len(before - after) == 1
        assert after < before
        assert moved.does("root").out == keeper.does("root").out
        assert moved.does("check", "--json").json["wrong"] == []
        with moved.serves("--auto-approve") as server:
            asyncio.run(issue(server.directory, "again.internal", node))
            moved.does("backup", "second", "--backup-password-file", "password")
        assert len(moved.does("list", "--json").json) == 5
    back = Person(keeper.folder, f"sqlite:///{keeper.folder}/back.db")
    back.does("restore", "second", "--backup-password-file", "password")
    assert back.does("list", "--json").json == moved.does("list", "--json").json
    assert moved.does("check", "--json").json["wrong"] == []


def test_versions_stay_and_what_was_spent_stays_spent(keeper: Person, tmp_path: Path) -> None:
    with keeper.serves("--auto-approve") as server:
        asyncio.run(issue(server.directory, "served.internal"))
    before = records(f"sqlite:///{keeper.folder}/privet.db")
    assert {"nonce-key", "spent-nonce", "account"} <= {record.kind for record in before}
    assert {record.version for record in before} >= {1, 2}
    saved(keeper)
    Person(keeper.folder, f"sqlite:///{tmp_path}/again").does("restore", "backup", "--backup-password-file", "password")
    assert records(f"sqlite:///{tmp_path}/again") == [record for record in before if record.kind != "nonce-key"]


def test_a_nonce_that_was_spent_after_the_backup_is_not_good_again(keeper: Person) -> None:
    restored = Person(keeper.folder, "sqlite:///restored.db")

    async def replayed() -> None:
        with open_store(f"sqlite:///{keeper.folder}/privet.db") as store:
            async with on(store) as http:
                wire = Wire(http)
                await wire.register()
                keeper.does("backup", "backup", "--backup-password-file", "password")
                await wire.order("first.internal")
                request = sign(wire.key, await wire.header(f"{wire.base}/new-order"), order_for("replayed.internal"))
                assert (await wire.send("new-order", request)).status_code == 201
        restored.does("restore", "backup", "--backup-password-file", "password")
        with open_store(f"sqlite:///{keeper.folder}/restored.db") as store:
            async with on(store) as http:
                again = Wire(http, key=wire.key, kid=wire.kid)
                assert problem_of(await again.send("new-order", request)) == (400, "badNonce")
                assert (await again.order("later.internal")).status_code == 201

    asyncio.run(replayed())


def on(store: OpenStore) -> httpx.AsyncClient:
    ca = CertificateAuthority(store)
    ca.init()
    return httpx.AsyncClient(transport=httpx.ASGITransport(ACMEResponder(ca, auto_approve=True)))


def order_for(name: str) -> dict[str, object]:
    return {"identifiers": [{"type": "dns", "value": name}]}


def test_nothing_is_restored_over_something(keeper: Person) -> None:
    saved(keeper)
    before = records(f"sqlite:///{keeper.folder}/privet.db")
    refused = keeper.tries("restore", "backup", "--backup-password-file", "password")
    assert (refused.status, refused.sentences) == (
        1,
        ["there is something in sqlite:///privet.db already: say with --store another place, where nothing is yet"],
    )
    assert records(f"sqlite:///{keeper.folder}/privet.db") == before


def test_a_backup_is_not_written_over(keeper: Person) -> None:
    first = saved(keeper).read_bytes()
    refused = keeper.tries("backup", "backup", "--backup-password-file", "password")
    assert refused.sentences == ["backup exists: choose another name, or replace it with --force"]
    assert (keeper.folder / "backup").read_bytes() == first
    keeper.does("backup", "backup", "--backup-password-file", "password", "--force")
    assert (keeper.folder / "backup").read_bytes() != first
    os.mkfifo(keeper.folder / "pipe")
    refused = keeper.tries("backup", "pipe", "--backup-password-file", "password", "--force")
    assert refused.sentences == ["pipe is no file that a backup could replace: choose another name"]
    assert (keeper.folder / "pipe").is_fifo()


def test_of_two_backups_at_once_one_gets_the_name(keeper: Person) -> None:
    """Both have seen that nobody has it; the password, which is asked for then, comes by a pipe."""
    with contextlib.ExitStack() as stack:
        pipes, programs = [], []
        for name in ("one", "two"):
            os.mkfifo(keeper.folder / name, 0o600)
            command = (*PRIVET, "backup", "backup", "--backup-password-file", name)
            env = environment(keeper.folder, {"PRIVET_STORE": DATABASE})
            programs.append(stack.enter_context(Program(*command, cwd=keeper.folder, env=env)))
            pipes.append(stack.enter_context((keeper.folder / name).open("w")))  # once somebody reads
        for pipe in pipes:
            pipe.write(PASSWORD)
            pipe.close()
        statuses = [program.process.wait(60) for program in programs]
        loser = programs[statuses.index(1)]
        loser.stop()
    assert sorted(statuses) == [0, 1]
    assert loser.output == "privet: backup exists: choose another name, or replace it with --force\n"
    assert [path.name for path in keeper.folder.iterdir() if "backup" in path.name] == ["backup"]
    Person(keeper.folder, "sqlite:///other.db").does("restore", "backup", "--backup-password-file", "password")


def test_where_a_file_has_one_name_a_backup_takes_no_other_name_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")  # as on FAT

    monkeypatch.setattr(os, "link", link)
    for name in ("first", "second"):
        (tmp_path / name).write_text(name)
    take_name(tmp_path / "first", tmp_path / "backup")
    with pytest.raises(Failure, match="backup exists: choose another name, or replace it with --force"):
        take_name(tmp_path / "second", tmp_path / "backup")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"backup": "first", "second": "second"}


FOREIGN = "not encrypted in the way backups of privet are, with a password alone"
DAMAGES: list[tuple[Callable[[bytes], bytes], str]] = [
    (lambda data: data[:-1], "cut short or damaged at its end"),
    (lambda data: data[:200], "cut short or damaged at its end"),
    (lambda data: data[:120], "damaged at its beginning"),
    (lambda data: data[:100], FOREIGN),
    (lambda data: data[:-100] + bytes([data[-100] ^ 1]) + data[-99:], "cut short or damaged at its end"),
    (lambda data: data + b"\0", "cut short or damaged at its end"),
    (lambda data: b"", "no backup of privet"),
    (lambda data: b"SQLite format 3\0" + data, "no backup of privet"),
    (
        lambda data: data.replace(b" 17\n", b" 30\n"),
        "not encrypted in the way backups of privet are, with a password alone",
    ),
    (lambda data: data.replace(b"--- ", b"--- A"), "damaged at its beginning"),
]


def test_a_damaged_backup_is_told_and_leaves_nothing(keeper: Person) -> None:
    path = saved(keeper)
    whole = path.read_bytes()
    other = Person(keeper.folder, "sqlite:///other.db")
    for damage, sentence in DAMAGES:
        path.write_bytes(damage(whole))
        refused = other.tries("restore", "backup", "--backup-password-file", "password")
        assert (refused.status, refused.sentences) == (1, [f"the backup backup cannot be restored: it is {sentence}"])
        assert records(f"sqlite:///{keeper.folder}/other.db") == []


def test_passwords(keeper: Person) -> None:
    saved(keeper)
    other = Person(keeper.folder, "sqlite:///other.db")
    password_file(keeper, "wrong", "wrong horse battery")
    refused = other.tries("restore", "backup", "--backup-password-file", "wrong")
    assert refused.sentences == ["the backup backup cannot be restored: it was made with another password"]
    assert not (keeper.folder / "other.db").exists()
    password_file(keeper, "short", "1234567\n")
    assert "too short" in keeper.tries("backup", "other", "--backup-password-file", "short").sentences[0]
    password_file(keeper, "lines", "correct horse\nbattery staple\n")
    assert "more than one line" in keeper.tries("backup", "other", "--backup-password-file", "lines").sentences[0]
    assert "cannot be read" in keeper.tries("backup", "other", "--backup-password-file", "none").sentences[0]
    assert "is missing" in keeper.tries("backup", "other").sentences[0]
    assert not (keeper.folder / "other").exists()
    (keeper.folder / "password").chmod(0o644)
    done = other.does("restore", "backup", env={"PRIVET_BACKUP_PASSWORD_FILE": "password"})
    assert done.sentences == ["everybody here can read the password file password: `chmod o-r` ends that"]


def test_a_person_is_asked_for_the_password_and_sees_how_far_it_is(keeper: Person) -> None:
    def typed(*arguments: str, answers: int) -> str:
        child, terminal = pty.fork()
        if not child:
            os.chdir(keeper.folder)
            os.execve(PRIVET[0], [*PRIVET, *arguments], environment(keeper.folder))
        said = b""
        while True:
            try:
                said += os.read(terminal, 1000)
            except OSError:
                break
            if answers and said.endswith(b": "):
                os.write(terminal, PASSWORD.encode())
                answers -= 1
                said += b"\n"
        assert os.waitpid(child, 0)[1] == 0, said
        return said.decode()

    said = typed("backup", "typed", "--store", "sqlite:///privet.db", answers=2)
    assert "compared " in said
    assert PASSWORD.strip() not in said
    assert "stored " in typed("restore", "typed", "--store", "sqlite:///other.db", answers=1)


def test_places_where_nothing_can_be_written_or_read(keeper: Person) -> None:
    told = keeper.tries("backup", "nowhere/backup", "--backup-password-file", "password").sentences
    assert told == ["nowhere/backup cannot be written: No such file or directory; choose another place"]
    told = keeper.tries("backup", "a" * 300, "--backup-password-file", "password").sentences
    assert told == [f"{'a' * 300} cannot be written: File name too long; choose another place"]
    told = keeper.tries("restore", "nothing", "--backup-password-file", "password").sentences
    assert told == ["the backup nothing cannot be read: No such file or directory"]
    saved(keeper)
    memory = Person(keeper.folder, "memory:")
    assert "ends with this command" in memory.tries("restore", "backup").sentences[0]
    assert "ends with the process" in memory.tries("backup", "other").sentences[0]
    assert "there is nothing at" in Person(keeper.folder, "sqlite:///none.db").tries("check").sentences[0]


def test_a_backup_that_is_ended_leaves_no_file(keeper: Person) -> None:
    with open_store(f"sqlite:///{keeper.folder}/privet.db") as store:
        for page in range(5):
            store.commit(*(Record("noise", f"{page:02}{number:04}", b"x" * 500) for number in range(1000)))
    command = (*PRIVET, "backup", "backup", "--force", "--backup-password-file", "password")
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            continue  # under nohup: what is started here ignores it as well, as it should
        for _ in range(20):  # now and then it is done before it hears of it
            (keeper.folder / "backup").unlink(missing_ok=True)
            env = environment(keeper.folder, {"PRIVET_STORE": DATABASE})
            with Program(*command, cwd=keeper.folder, env=env) as ended:
                while not list(keeper.folder.glob(".backup.*")) and ended.process.poll() is None:
                    pass
                ended.process.send_signal(number)
                if status := ended.process.wait(60):
                    break
        assert status == 128 + number
        assert [path.name for path in keeper.folder.iterdir() if "backup" in path.name] == []


LYING = """
import os, sys
from privet.cli import main

def lie(descriptor):  # and say that all is on the disk
    {lie}

os.fsync = lie
sys.argv = ["privet", "backup", "backup", "--backup-password-file", "password"]
main()
"""


@pytest.mark.parametrize(
    "lie",
    [
        "os.pwrite(descriptor, bytes(8), os.fstat(descriptor).st_size - 100)",
        "os.truncate(descriptor, os.fstat(descriptor).st_size - 1)",
        "data = open('other', 'rb').read(); os.truncate(descriptor, len(data)); os.pwrite(descriptor, data, 0)",
    ],
)
def test_a_disk_that_keeps_something_else_is_found_out(keeper: Person, lie: str) -> None:
    saved(keeper, "other")
    keeper.does("issue", "more.internal")
    env = environment(keeper.folder, {"PRIVET_STORE": DATABASE})
    with Program(sys.executable, "-c", LYING.format(lie=lie), cwd=keeper.folder, env=env) as program:
        assert program.process.wait(60) == 1
        program.stop()
    assert program.output == (
        "privet: backup is not what was written to it: look at that disk, and choose another place\n"
    )
    assert [path.name for path in keeper.folder.iterdir() if "backup" in path.name] == []


def test_nothing_is_no_backup(keeper: Person, target: str) -> None:
    open_store(target).close()
    refused = Person(keeper.folder, target).tries("backup", "backup", "--backup-password-file", "password")
    assert refused.status == 1
    assert refused.sentences[0].startswith("there is nothing in ")
    assert [path.name for path in keeper.folder.iterdir() if "backup" in path.name] == []


def test_a_restore_that_is_killed_leaves_nothing_and_can_be_done_again(keeper: Person, target: str) -> None:
    with open_store(f"sqlite:///{keeper.folder}/privet.db") as store:
        for page in range(20):
            store.commit(*(Record("noise", f"{page:02}{number:04}", b"x" * 500) for number in range(1000)))
    saved(keeper)
    moved = Person(keeper.folder, target)
    command = (*PRIVET, "restore", "backup", "--backup-password-file", "password")
    with Program(*command, cwd=keeper.folder, env=environment(keeper.folder, {"PRIVET_STORE": target})) as restoring:
        open_store(target).close()  # until it can be opened, and perhaps until it has been filled
        restoring.kill()
    found = records(target)
    if not found:
        moved.does("restore", "backup", "--backup-password-file", "password")
        found = records(target)
    assert found == [record for record in records(f"sqlite:///{keeper.folder}/privet.db") if record.kind != "nonce-key"]


class TestCheck:
    def test_a_sound_store(self, keeper: Person) -> None:
        with keeper.serves("--auto-approve") as server:
            asyncio.run(issue(server.directory, "served.internal"))
        said = keeper.does("check")
        assert "certificate" in said.out
        found = keeper.does("check", "--json").json
        assert found["wrong"] == []
        assert found["kinds"]["certificate"] == 4
        assert found["kinds"]["order"] == 1

    def test_nothing_is_not_sound(self, keeper: Person, target: str) -> None:
        """Whoever looks through the wrong store, or one that lost everything, is not to hear that all is well."""
        open_store(target).close()
        empty = Person(keeper.folder, target)
        said = empty.tries("check")
        assert said.status == 1
        assert said.out.startswith("there is nothing in it: --store says which one to look through\n")
        assert said.sentences == ["1 thing is wrong in the store"]
        assert empty.tries("check", "--json").json["wrong"] == [said.out.splitlines()[0]]

    def spoil(self, keeper: Person, change: str, kind: str = "certificate") -> list[str]:
        """Change the newest record of a kind in the database by hand, and return what is said about it."""
        with keeper.serves("--auto-approve") as server:
            asyncio.run(issue(server.directory, "served.internal"))
        with sqlite3.connect(keeper.folder / "privet.db") as database:
            row = f"(SELECT max(number) FROM record WHERE kind = '{kind}')"
            database.execute(f"UPDATE record SET {change} WHERE number = {row}")
        database.close()
        done = keeper.tries("check")
        assert done.status == 1
        assert done.sentences[-1].endswith("wrong in the store")
        wrong: list[str] = keeper.tries("check", "--json").json["wrong"]
        assert all(sentence in done.out for sentence in wrong)
        return wrong

    def test_a_certificate_that_cannot_be_read(self, keeper: Person) -> None:
        assert any("cannot be read" in sentence for sentence in self.spoil(keeper, "body = CAST('{' AS BLOB)"))

    def test_an_order_whose_certificate_is_gone(self, keeper: Person) -> None:
        found = self.spoil(keeper, "kind = 'other'")
        (sentence,) = [sentence for sentence in found if "not on record" in sentence]
        assert sentence.startswith("the order ")

    def test_a_certificate_whose_order_is_gone(self, keeper: Person) -> None:
        (sentence,) = self.spoil(keeper, "kind = 'other'", "order")
        assert "which is not on record or does not name it" in sentence

    def test_a_certificate_with_another_name_serial_or_signature(self, keeper: Person) -> None:
        saved(keeper)
        with open_store(f"sqlite:///{keeper.folder}/privet.db") as store:
            one, two, _ = (Certificate.from_record(each) for each in store.find("certificate"))
            assert one.der
            assert two.der
            body = json.loads(one.to_record().body)
            swapped = Certificate.from_record(
                one.to_record()._replace(
                    body=json.dumps({**body, "der": json.loads(two.to_record().body)["der"]}).encode()
                )
            )
            store.commit(swapped.to_record())
        wrong = "\n".join(keeper.tries("check", "--json").json["wrong"])
        assert f"{one.serial:x} has another serial number on it: {two.serial:x}" in wrong
        assert f"{one.serial:x} has other names on it: *.b.internal" in wrong

    def test_a_certificate_of_a_stranger(self, keeper: Person) -> None:
        other = Person(keeper.folder, "sqlite:///stranger.db")
        other.does("init")
        with (
            open_store(f"sqlite:///{keeper.folder}/privet.db") as store,
            open_store(f"sqlite:///{keeper.folder}/stranger.db") as stranger,
        ):
            (foreign,) = stranger.find("ca")
            own = store.get("ca", "root")
            assert own
            store.commit(own._replace(files=foreign.files))
        wrong = keeper.tries("check", "--json").json["wrong"]
        assert len(wrong) == 3
        assert all(sentence.endswith("is not signed by the authority 'root'") for sentence in wrong)

    def test_two_certificates_of_one_order(self, keeper: Person) -> None:
        with keeper.serves("--auto-approve") as server:
            asyncio.run(issue(server.directory, "served.internal"))
        with open_store(f"sqlite:///{keeper.folder}/privet.db") as store:
            (order,) = store.find("order")
            record = store.find("certificate")[0]
            body = json.loads(record.body)
            store.commit(record._replace(body=json.dumps({**body, "request": order.id}).encode()))
        wrong = keeper.tries("check", "--json").json["wrong"]
        assert f"the order {order.id} has 2 certificates" in wrong
