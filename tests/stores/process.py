"""What another process does to a store while a test looks on: `python process.py VERB URL ...`, one line per deed.

It waits for a line on its standard input before it begins, so that several begin together.
"""

import itertools
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from privet.stores import Conflict, FileStore, Record, Store, open_store

PAST = datetime(2000, 1, 1, tzinfo=UTC)

KEY = b"-----BEGIN PRIVATE KEY-----\n%d\n"


def race(store: Store, name: str) -> None:
    """Try to be the first to write each of fifty orders, and count together with the others."""
    for number in range(50):
        try:
            store.commit(Record("order", str(number), name.encode(), unique=(f"name:{number}",)))
            print("won", number, flush=True)
        except Conflict:
            pass
        while True:
            try:
                count = store.get("counter", "") or Record("counter", "", b"0")
                store.commit(count._replace(body=b"%d" % (int(count.body) + 1)), durable=number % 2 == 0)
                break
            except Conflict:
                pass


def issue(store: Store) -> None:
    """Commit step after step, and say so after each, until somebody puts an end to it."""
    while True:
        print("stored", step(store), flush=True)


def step(store: Store) -> int:
    """One commit of everything a store has to keep together; the number in each part of it is the same."""
    order = store.get("order", "1") or Record("order", "1")
    bundle = store.get("certs", "*.internal") or Record("certs", "*.internal")
    number = order.version + 1
    store.commit(
        order._replace(body=b"%d" % number, index=(f"step:{number}",)),
        bundle._replace(body=b'{"number":%d}' % number, files={"cert.pem": b"%d" % number, "key.pem": KEY % number}),
        Record("certificate", f"{number:06}", b"%d" % number, unique=(f"serial:{number}",)),
        Record("old", f"{number:06}", index=("old",), unique=(f"{number}",), expires=PAST, files={"cert.pem": b"old"}),
    )
    return number


def check(store: Store, *, tidy: bool = True) -> int:
    """Return the number of the last step; any part that is older or newer than the rest is an error. A store is tidy
    once somebody has opened it since whoever wrote to it was killed."""
    order, bundle = store.get("order", "1"), store.get("certs", "*.internal")
    number = order.version if order else 0
    if order or bundle:
        assert order
        assert bundle
        assert (order.body, order.index) == (b"%d" % number, (f"step:{number}",))
        assert (bundle.version, bundle.body) == (number, b'{"number":%d}' % number)
        assert bundle.files == {"cert.pem": b"%d" % number, "key.pem": KEY % number}
        assert store.find("order", f"step:{number}") == [order]
        assert store.find("order", f"step:{number - 1}") == []
    certificates = store.find("certificate", limit=1_000_000)
    assert [int(certificate.body) for certificate in certificates] == list(range(1, number + 1))
    assert all(store.find("certificate", f"serial:{one}") for one in (1, number) if number)
    assert not store.find("certificate", f"serial:{number + 1}")
    old = store.find("old")
    assert store.find("old", "old") == old
    assert [record.id for record in old] == [f"{one:06}" for one in range(number - len(old) + 1, number + 1)]
    assert all(record.files == {"cert.pem": b"old"} for record in old)
    assert store.find("old", f"{number}") == old[-1:]
    assert store.find("old", f"{number - len(old)}") == []
    if isinstance(store, FileStore):
        check_files(store, tidy)
    return number


def check_files(store: FileStore, tidy: bool) -> None:
    """What people and other programs see is what the store says; and in a tidy one nothing else is left lying about."""
    root = store.path_of("", "", "").parents[2]
    versions = set()
    for record in store.find("certs") + store.find("old"):
        for name, content in record.files.items():
            assert store.path_of(record.kind, record.id, name).read_bytes() == content
        versions.add(store.path_of(record.kind, record.id, "cert.pem").resolve().parent)
    there = {path for path in root.glob(".versions/*/*/*") if path.exists()}
    assert versions == there if tidy else versions <= there
    assert len(list(root.glob("[!.]*/*"))) == len(versions)


def kill_everywhere(url: str, verb: str) -> None:
    """Kill a process at each step of a deed, and see that what it leaves is the old or the new, whole, and usable."""
    FileStore.slack = 10
    with open_store(url) as store:
        before = [step(store) for _ in range(2)][-1]
        if verb == "compact":
            assert isinstance(store, FileStore)
            for number in range(50):
                if store._journal.lines < 2 * len(store._picture.records) + FileStore.slack:
                    store.commit(Record("noise", "1", b"%d" % number, version=number), durable=False)
    prepared, place = Path(url.partition("://")[2]), Path(f"{url.partition('://')[2]}.tried")
    for killed_at in itertools.count(1):
        shutil.copytree(prepared, place, symlinks=True) if prepared.is_dir() else shutil.copy(prepared, place)
        child = os.fork()
        if not child:
            do_and_die(f"{url}.tried", verb, killed_at)
        _, status = os.waitpid(child, 0)
        assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL
        with open_store(f"{url}.tried") as store:
            after = check(store)
            assert after == before or (after == before + 1 and verb == "commit")
            assert len(store.find("old")) == after or (not store.find("old") and verb == "prune")
            store.commit(Record("usable", "still"), durable=False)
        shutil.rmtree(place) if prepared.is_dir() else place.unlink()
        if status == 0:
            print("steps", killed_at, flush=True)
            return


def kill_filling(url: str) -> None:
    """Kill a process at each step of filling a store, and see that all is there or nothing, and that it can be done
    again."""
    with open_store(f"{url}.source") as source:
        number = [step(source) for _ in range(2)][-1]
        records = list(source.records())
    place = Path(f"{url.partition('://')[2]}.tried")
    for killed_at in itertools.count(1):
        child = os.fork()
        if not child:
            do_and_die(f"{url}.tried", "fill", killed_at, records)
        _, status = os.waitpid(child, 0)
        assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL
        with open_store(f"{url}.tried") as store:
            found = list(store.records())
            assert found in ([], records)
            if not found:
                assert status != 0
                store.fill(records)
            assert check(store) == number
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        if status == 0:
            print("steps", killed_at, flush=True)
            return


def do_and_die(url: str, verb: str, number: int, records: Sequence[Record] = ()) -> None:
    """Do one deed, and die before its call of this number into the system or into SQLite."""
    steps = itertools.count(1)

    def die(frame: object, event: str, called: object) -> None:
        module = getattr(called, "__module__", None) or type(getattr(called, "__self__", None)).__module__
        if event == "c_call" and module in ("posix", "fcntl", "_io", "sqlite3") and next(steps) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    if verb == "open":
        sys.setprofile(die)
        open_store(url)
    else:
        store = open_store(url)
        sys.setprofile(die)
        if verb == "prune":
            store.prune(PAST)
        elif verb == "fill":
            store.fill(records)
        elif verb == "compact":
            noise = store.get("noise", "1")
            assert noise
            store.commit(noise)
        else:
            step(store)
    os._exit(0)


if __name__ == "__main__":
    deed, url, *arguments = sys.argv[1:]
    sys.stdin.readline()
    if (deed, arguments) == ("kill", ["fill"]):
        kill_filling(url)
    elif deed == "kill":
        kill_everywhere(url, *arguments)
    else:
        with open_store(url) as opened:
            if deed == "race":
                race(opened, *arguments)
            else:
                issue(opened)
