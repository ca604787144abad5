"""What a responder tells whoever counts, and whether it says that it can do its work."""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import pytest
from tests.server.conftest import Clock, Stage
from tests.wire import der_of

from privet import ACMEResponder, CertificateAuthority, MemoryStore, Record, StoreError
from privet.server.events import Answered, Event, Issued, Pruned, Revoked, Stored, Validated

pytestmark = pytest.mark.anyio


class Seen(list[Event]):
    def __call__(self, event: Event) -> None:
        self.append(event)

    def of(self, type: Callable[..., Event]) -> list[Any]:
        return [each for each in self if isinstance(each, type)]  # type: ignore[arg-type]


class Full(MemoryStore):
    """A store on a disk that is full from some moment on."""

    full = False

    def commit(self, *records: Record, unchanged: Sequence[Record] = (), durable: bool = True) -> None:
        if self.full:
            raise StoreError("/secret/path: the disk is full")
        super().commit(*records, unchanged=unchanged, durable=durable)


class Yes:
    async def validate(self, identifier: str, identifier_type: str, token: str, key_authorization: str) -> bool:
        return True


async def test_one_issuance_is_told_from_its_first_request_to_its_revocation(stage: Stage) -> None:
    seen = Seen()
    async with stage(challenge_validator=Yes(), observe=seen) as scene:
        wire = await scene.account()
        order = await wire.order("a.internal")
        authorization = (await wire.post(order.json()["authorizations"][0])).json()
        await wire.post(authorization["challenges"][0]["url"], {})
        finalized = await wire.finalize(order.json())
        certificate = await wire.post(finalized.json()["certificate"])
        revocation = {"certificate": der_of(certificate.content), "reason": 4}
        assert (await wire.post(f"{scene.base}/revoke-cert", revocation)).status_code == 200
        await scene.http.get("/nothing/here")
    assert seen.of(Validated) == [Validated(authorization["challenges"][0]["type"], True)]
    assert seen.of(Issued) == [Issued("default")]
    assert seen.of(Revoked) == [Revoked(4)]
    answered = Counter((each.resource, each.status, each.problem) for each in seen.of(Answered))
    assert answered["new-order", 201, None] == answered["finalize", 200, None] == answered["cert", 200, None] == 1
    assert answered["none", 404, "malformed"] == 1
    assert all(each.seconds > 0 for each in [*seen.of(Answered), *seen.of(Stored)])
    assert len(seen.of(Stored)) >= len(answered) - 2  # the directory and what is not there ask no store


async def test_no_event_names_anybody(stage: Stage) -> None:
    """Whatever a client writes: what is counted has few values."""
    seen = Seen()
    async with stage(auto_approve=True, observe=seen) as scene:
        for path in ("/order/" + "a" * 40, "/../x", "/new-order/" + "b" * 30, "/%00", "/acct"):
            await scene.http.post(path, content=b"{}")
            await scene.http.get(path)
    assert {each.resource for each in seen.of(Answered)} <= {"none", "order", "new-order", "acct"}


async def test_pruning_is_told(stage: Stage) -> None:
    seen, clock = Seen(), Clock()
    async with stage(auto_approve=True, observe=seen, clock=clock) as scene:
        wire = await scene.account()
        clock.forward(hours=3)
        for _ in range(300):
            await wire.post(f"{scene.base}/directory")
    assert sum(each.records for each in seen.of(Pruned)) > 0


async def test_pruning_that_fails_is_a_line_in_the_log(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    class Away(MemoryStore):
        def prune(self, now: datetime, *, limit: int = 100) -> int:
            raise StoreError("there is no database")

    async with stage(auto_approve=True, store=Away()) as scene:
        wire = await scene.account()
        for _ in range(300):
            await wire.post(f"{scene.base}/directory")
    assert "what has expired could not be pruned: there is no database" in caplog.text
    assert "Traceback" not in caplog.text


async def test_a_server_is_ready_until_its_store_or_its_authority_is_not() -> None:
    clock, store = Clock(), Full()
    ca = CertificateAuthority(store, now=clock)
    ca.init(validity_days=2)
    responder = ACMEResponder(ca, auto_approve=True, now=clock)
    assert await responder.find_faults() == ()
    store.full = True
    assert await responder.find_faults() == ("the store cannot keep anything now",)
    store.full = False
    clock.forward(days=1, hours=12)
    (fault,) = await responder.find_faults()
    assert fault.startswith("the authority ends at ")
    clock.forward(days=1)
    (fault,) = await responder.find_faults()
    assert "ended at" in fault
