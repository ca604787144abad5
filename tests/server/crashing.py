"""Processes that die: this one forks a child for every line it is given, and says what it was told before it died.

A child is a responder with a client inside. Its store counts commits, and kills the process before or after one of
them, as the kernel would (lesson 19).
"""

import asyncio
import json
import mmap
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import httpx
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from tests.wire import BASE, PrivateKey, Wire, csr, new_key, sign

from privet import ACMEResponder, CertificateAuthority, Record, Store, open_store
from privet.acme.encoding import to_base64url

NAME = "a.internal"
Task = Mapping[str, Any]


class Convinced:
    """A validator that finds what it looks for."""

    async def validate(self, identifier: str, identifier_type: str, token: str, key_authorization: str) -> bool:
        return True


class Fatal:
    """A store that is not survived: the process ends before or after a certain commit."""

    def __init__(self, store: Store, commit: int, when: str) -> None:
        self._store = store
        self._commit = commit
        self._when = when
        self._commits = 0

    def get(self, kind: str, id: str) -> Record | None:
        return self._store.get(kind, id)

    def find(self, kind: str, name: str | None = None, *, after: str = "", limit: int = 100) -> list[Record]:
        return self._store.find(kind, name, after=after, limit=limit)

    def commit(self, *records: Record, unchanged: Sequence[Record] = (), durable: bool = True) -> None:
        self._commits += 1
        if self._commits == self._commit and self._when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        self._store.commit(*records, unchanged=unchanged, durable=durable)
        if self._commits == self._commit and self._when == "after":
            os.kill(os.getpid(), signal.SIGKILL)

    def prune(self, now: datetime, *, limit: int = 100) -> int:
        return self._store.prune(now, limit=limit)


class Speaker(Wire):
    """A client that says aloud what it sends and what it gets."""

    async def send(self, path: str, message: object, *, headers: Mapping[str, str] | None = None) -> httpx.Response:
        tell({"sent": self.url(path), "message": message})
        response = await super().send(path, message, headers=headers)
        told = {"status": response.status_code, "location": response.headers.get("location"), "body": response.text}
        tell({"answered": self.url(path), "message": message, **told})
        return response


def tell(what: object) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


async def whole_story(wire: Wire, task: Task) -> None:
    """From the account to the certificate."""
    await wire.register()
    order = (await wire.order(NAME)).json()
    authorization = (await wire.post(order["authorizations"][0])).json()
    await wire.post(authorization["challenges"][0]["url"], {})
    finalized = (await wire.finalize(order, csr(NAME))).json()
    await wire.post(finalized["certificate"])


async def look(wire: Wire, task: Task) -> None:
    """Look at an order, which finishes it if somebody else began to."""
    found = (await wire.post(task["order"])).json()
    await wire.post(found["certificate"])


async def compete(wire: Wire, task: Task) -> None:
    """Finalize each order in the very moment in which another process does, or look at it."""
    me, turns = task["me"], task["turns"]
    for turn, (url, finalize) in enumerate(task["orders"]):
        where, payload = (finalize, {"csr": to_base64url(csr(NAME))}) if finalize else (url, None)
        message = sign(wire.key, await wire.header(where), payload)
        turns[2 * turn + me] = 1
        deadline = time.monotonic() + 60
        while not turns[2 * turn + 1 - me]:
            os.sched_yield()
            assert time.monotonic() < deadline, "the other one is gone"
        await wire.send(where, message)


STORIES: Mapping[str, Callable[[Wire, Task], Awaitable[None]]] = {
    "whole story": whole_story,
    "look": look,
    "compete": compete,
}


async def live(task: Task) -> None:
    now = datetime.fromisoformat(task["now"])
    store = open_store(task["store"])
    ca = CertificateAuthority(store, now=lambda: now)
    assert ca.load()
    fatal = Fatal(store, task.get("commit", 0), task.get("when", ""))
    responder = ACMEResponder(ca, fatal, challenge_validator=Convinced(), now=lambda: now, external_url=BASE)
    key = load_pem_private_key(task["key"].encode(), None) if "key" in task else new_key()
    assert isinstance(key, PrivateKey)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(responder), base_url=BASE) as http:
        await STORIES[task["story"]](Speaker(http, key=key, kid=task.get("kid")), task)
    store.close()


def fork(task: Task) -> int:
    child = os.fork()
    if not child:
        failed = 1
        try:
            asyncio.run(live(task))
            failed = 0
        finally:
            sys.stderr.flush()
            os._exit(failed)
    return child


def main() -> None:
    for line in sys.stdin:
        task = json.loads(line)
        if task["story"] == "compete":
            turns = mmap.mmap(-1, 2 * len(task["orders"]))
            children = [fork(task | {"me": me, "turns": turns}) for me in (0, 1)]
        else:
            children = [fork(task)]
        tell({"ended": [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]})


if __name__ == "__main__":
    main()
