"""Certificates over days, with a clock that the tests set: nothing here sleeps."""

import asyncio
import json
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.client.scene import BASE, Answer, Clock, Scene, on, problem, rewritten, stage

from privet import (
    CertBundle,
    CertificateAuthority,
    FileStore,
    KeyType,
    MemoryStore,
    Problem,
    Profile,
    RenewalManager,
    Store,
)
from privet.acme.encoding import from_base64url
from privet.ca import keys
from privet.ca.profiles import DEFAULT
from privet.client.keeping import span_of

pytestmark = pytest.mark.anyio

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


async def live(manager: RenewalManager, clock: Clock, span: timedelta) -> None:
    """Let the manager run for so long."""
    end, over = clock() + span, asyncio.Event()

    async def sleep(seconds: float) -> None:
        clock.time += timedelta(seconds=seconds)
        if clock.time >= end:
            over.set()
            await asyncio.Event().wait()

    manager._sleep = sleep
    task = manager.start()
    await asyncio.wait([task, asyncio.ensure_future(over.wait())], return_when=asyncio.FIRST_COMPLETED)
    assert not task.done(), "renewal never ends by itself"
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def manager_of(scene: Scene, client: Any = None, **options: Any) -> RenewalManager:
    who = {"ca": scene.ca} if client is None else {"client": client}
    return RenewalManager(**{**who, "now": scene.clock, "sleep": scene.clock.sleep, **options})


class TestByACME:
    async def test_a_certificate_is_kept_valid_for_a_week(self) -> None:
        renewed: list[CertBundle] = []
        async with stage() as scene, scene.client() as client:
            first = await client.issue(["a.internal", "10.0.0.1"], key_type=KeyType.P384)
            manager = manager_of(scene, client, on_renewed=renewed.append)
            await live(manager, scene.clock, 7 * DAY)
            assert 9 <= len(renewed) <= 11  # every 16 hours, a little later now and then
            last = renewed[-1]
            assert last.domains == first.domains
            assert last.expires_at > scene.clock()
            assert len({bundle.key_pem for bundle in [first, *renewed]}) == len(renewed) + 1
            assert keys.check_public_key(keys.from_pem(last.key_pem).public_key()) is KeyType.P384
            (status,) = manager.status()
            assert (status.domain, status.failures, status.error, status.expired) == ("a.internal", 0, None, False)

    async def test_the_key_is_kept_by_choice(self) -> None:
        renewed: list[CertBundle] = []
        async with stage() as scene, scene.client() as client:
            first = await client.issue("a.internal")
            manager = manager_of(scene, client, on_renewed=renewed.append, rotate_key=False)
            await live(manager, scene.clock, DAY)
            assert [bundle.key_pem for bundle in renewed] == [first.key_pem]

    async def test_days_before_expiry_does_not_renew_a_short_certificate_at_every_sweep(self) -> None:
        async with stage() as scene, scene.client() as client:
            await client.issue("a.internal")
            await live(manager_of(scene, client, days_before_expiry=1), scene.clock, 2 * DAY)
            assert len(scene.ca.certificates()) - 1 in (3, 4)  # each half a day, or a little later

    async def test_certificates_of_half_a_minute_never_lapse(self) -> None:
        profile = Profile("short", timedelta(seconds=30), DEFAULT.usages)
        async with stage(profile=profile) as scene, scene.client() as client:
            current = [await client.issue("a.internal")]

            def on_renewed(bundle: CertBundle) -> None:
                assert scene.clock() < current[-1].expires_at
                current.append(bundle)

            await live(manager_of(scene, client, on_renewed=on_renewed), scene.clock, timedelta(minutes=10))
            assert len(current) >= 25

    async def test_auto_renew_is_a_task_that_ends_with_the_client(self) -> None:
        async with stage() as scene:
            async with scene.client() as client:
                await client.issue("a.internal")
                task = await client.auto_renew(interval_hours=12, days_before_expiry=1)
                await asyncio.sleep(0)
                assert client.renewal is not None
                assert client.renewal.healthy
            assert task.cancelled()

    async def test_a_fraction_by_its_other_name(self) -> None:
        async with stage() as scene, scene.client() as client:
            bundle = await client.issue("a.internal")
            manager = manager_of(scene, client, renewal_threshold=0.25, random=lambda: 0.0)
            await manager.sweep()
            begin, end = span_of(bundle)
            assert manager.status()[0].due == begin + (end - begin) / 4

    async def test_profile_and_chain_are_asked_for_again(self) -> None:
        async with stage() as scene, scene.client() as client:
            scene.way.changes.append(rewritten("/directory", meta={"profiles": {"short": "six hours"}}))
            bundle = await client.issue("a.internal", profile="short")
            scene.way.requests.clear()
            await client.renew(bundle)
            (order,) = [each for each in scene.way.requests if each.url.path == "/new-order"]
            assert b"profile" in _payload(order)


def _payload(request: httpx.Request) -> bytes:
    return from_base64url(json.loads(request.content)["payload"], "the payload")


class TestOwnership:
    async def test_a_node_renews_its_own_certificates_in_a_store_that_nodes_share(self) -> None:
        """Three nodes, one store: elsewhere each renewed them all, 175 times in 14 minutes."""
        store = MemoryStore()
        async with stage() as scene:
            clients = [scene.client(store=store) for _ in range(3)]
            renewed: list[list[str]] = [[], [], []]
            for number, client in enumerate(clients):
                await client.issue(f"node-{number}.internal")
            scene.clock.forward(hours=18)
            for number, client in enumerate(clients):
                manager = manager_of(scene, client)
                renewed[number] = [bundle.domain for bundle in await manager.sweep()]
                assert [status.domain for status in manager.status()] == [f"node-{number}.internal"]
            assert renewed == [["node-0.internal"], ["node-1.internal"], ["node-2.internal"]]
            for client in clients:
                await client.aclose()

    async def test_names_say_so_instead(self) -> None:
        store = MemoryStore()
        async with stage() as scene:
            async with scene.client(store=store) as client:
                await client.issue("a.internal", key_type=KeyType.P384)
            scene.clock.forward(hours=18)
            async with scene.client(store=store) as client:
                manager = manager_of(scene, client, names=["A.internal", "missing.internal"])
                (bundle,) = await manager.sweep()
                assert keys.check_public_key(keys.from_pem(bundle.key_pem).public_key()) is KeyType.P384
                missing = manager.status()[1]
                assert missing.error == "there is no certificate for missing.internal in the store; issue it first"
                assert missing.expired

    @pytest.mark.parametrize("kind", ["memory", "file"])
    async def test_two_processes_with_one_store_renew_once_and_both_hear_of_it(self, kind: str, tmp_path: Path) -> None:
        stores: list[Store]
        stores = [MemoryStore()] * 2 if kind == "memory" else [FileStore(tmp_path), FileStore(tmp_path)]
        heard: list[list[int]] = [[], []]
        async with stage() as scene:
            clients = [scene.client(store=store) for store in stores]
            for client in clients:
                await client.ensure("a.internal")
            managers = [
                manager_of(scene, client, on_renewed=lambda bundle, to=to: to.append(bundle.serial))
                for client, to in zip(clients, heard, strict=True)
            ]
            await asyncio.gather(*(manager.sweep() for manager in managers))
            scene.clock.forward(hours=18)
            await asyncio.gather(*(manager.sweep() for manager in managers))
            scene.clock.forward(minutes=2)
            await asyncio.gather(*(manager.sweep() for manager in managers))
            assert len(scene.ca.certificates()) == 2
            assert len(heard[0]) == 1
            assert heard[0] == heard[1]
            for client in clients:
                await client.aclose()
        for store in stores:
            if isinstance(store, FileStore):
                store.close()

    async def test_who_was_renewed_for_meanwhile_looks_again_before_it_asks(self) -> None:
        """The other process began later and was done before this one had the lease."""
        store = MemoryStore()
        async with stage() as scene, scene.client(store=store) as one, scene.client(store=store) as other:
            await one.issue("a.internal")
            scene.clock.forward(hours=20)
            quick = manager_of(scene, other, names=["a.internal"])

            class Slow:
                def __init__(self) -> None:
                    self.store, self.owned, self.renew = one.store, one.owned, one.renew

                async def renewal_info(self, bundle: CertBundle) -> None:
                    assert len(await quick.sweep()) == 1

            told: list[CertBundle] = []
            slow = manager_of(scene, Slow(), names=["a.internal"], on_renewed=told.append)
            assert await slow.sweep() == []
            assert len(scene.ca.certificates()) == 2
            assert [each.serial for each in told] == [max(scene.ca.certificates(), key=lambda c: c.not_before).serial]

    async def test_a_process_that_died_with_the_lease_is_not_waited_for_long(self) -> None:
        store = MemoryStore()
        async with stage() as scene, scene.client(store=store) as client:
            await client.issue("a.internal")
            scene.clock.forward(hours=18)
            dead = manager_of(scene, client)
            assert await dead._lease("a.internal", timedelta(minutes=10)) is not None
            manager = manager_of(scene, client)
            assert await manager.sweep() == []
            await live(manager, scene.clock, timedelta(minutes=12))
            assert len(scene.ca.certificates()) == 2


class TestFailures:
    async def test_a_ca_that_is_down_for_an_hour(self) -> None:
        errors: list[str] = []
        async with stage() as scene, scene.client() as client:
            await client.issue("a.internal")
            manager = manager_of(scene, client, on_error=lambda name, error: errors.append(name))
            await manager.sweep()
            due = manager.status()[0].due
            assert due is not None
            scene.clock.time = due + timedelta(minutes=1)
            scene.way.down = True
            await live(manager, scene.clock, HOUR)
            (status,) = manager.status()
            assert status.failures == len(errors) >= 4
            assert status.error is not None
            assert "the CA is down" in status.error
            assert not status.expired
            assert status.next_attempt is not None
            scene.way.down = False
            await live(manager, scene.clock, HOUR)
            (status,) = manager.status()
            assert (status.failures, status.error) == (0, None)
            assert len(scene.ca.certificates()) == 2

    async def test_it_is_never_given_up_and_tried_ever_more_often(self) -> None:
        attempts: list[datetime] = []
        async with stage() as scene, scene.client() as client:
            bundle = await client.issue("a.internal")
            scene.way.down = True
            manager = manager_of(scene, client, on_error=lambda name, error: attempts.append(scene.clock()))
            await live(manager, scene.clock, 30 * HOUR)
            left = [bundle.expires_at - at for at in attempts]
            hour = [sum((n - 1) * HOUR < each <= n * HOUR for each in left) for n in (6, 3, 1)]
            assert hour == sorted(hour)
            assert hour[-1] > 20
            assert attempts[-1] > bundle.expires_at + 5 * HOUR
            assert manager.status()[0].expired
            assert not manager.healthy
            scene.way.down = False
            await live(manager, scene.clock, timedelta(minutes=2))
            assert not manager.status()[0].expired

    async def test_retry_after_is_obeyed_as_far_as_there_is_time(self) -> None:
        async with stage() as scene, scene.client() as client:
            await client.issue("a.internal")
            scene.clock.forward(hours=17)
            scene.way.changes.append(on("/new-order", problem(429, "rateLimited", headers={"retry-after": "7200"})))
            manager = manager_of(scene, client)
            await manager.sweep()
            (status,) = manager.status()
            assert status.next_attempt == scene.clock() + 2 * HOUR
            scene.clock.forward(hours=2)
            scene.way.changes.append(on("/new-order", problem(429, "rateLimited", headers={"retry-after": "86400"})))
            await manager.sweep()
            (status,) = manager.status()
            assert status.expires_at is not None
            assert status.next_attempt is not None
            assert scene.clock() + HOUR < status.next_attempt < status.expires_at

    @pytest.mark.parametrize("asynchronous", [True, False])
    async def test_a_callback_that_raises_is_reported_and_stops_nothing(
        self, asynchronous: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        def raises(bundle: CertBundle) -> None:
            raise RuntimeError("not my day")

        async def raises_later(bundle: CertBundle) -> None:
            await asyncio.sleep(0)
            raise RuntimeError("not my day")

        async with stage() as scene, scene.client() as client:
            await client.issue("a.internal")
            manager = manager_of(scene, client, on_renewed=raises_later if asynchronous else raises)
            await live(manager, scene.clock, 2 * DAY)
            assert len(scene.ca.certificates()) >= 3
            assert "not my day" in caplog.text
            assert manager.status()[0].failures == 0

    async def test_what_others_cancel_does_not_end_renewal(self, caplog: pytest.LogCaptureFixture) -> None:
        """Whoever waits for a task that was cancelled is told so by the very exception that cancels us."""

        async def waits_for_one_that_was_cancelled(*_: object) -> None:
            task = asyncio.ensure_future(asyncio.sleep(1))
            task.cancel()
            await task

        def is_cancelled(*_: object) -> None:
            raise asyncio.CancelledError

        for callback in (waits_for_one_that_was_cancelled, is_cancelled):
            async with stage() as scene, scene.client() as client:
                await client.issue("a.internal")
                manager = manager_of(scene, client, on_renewed=callback, on_error=callback)
                await live(manager, scene.clock, 2 * DAY)
                assert len(scene.ca.certificates()) >= 3
                scene.way.down = True
                await live(manager, scene.clock, 2 * DAY)
                assert manager.status()[0].failures > 3
        assert "what it waited for was cancelled" in caplog.text

    async def test_one_whose_renewal_is_cancelled_is_tried_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with stage() as scene, scene.client() as client:
            await client.issue("a.internal")
            renew, times = client.renew, 0

            async def cancelled_at_first(bundle: CertBundle, *, rotate_key: bool = True) -> CertBundle:
                nonlocal times
                times += 1
                if times == 1:
                    raise asyncio.CancelledError
                return await renew(bundle, rotate_key=rotate_key)

            monkeypatch.setattr(client, "renew", cancelled_at_first)
            await live(manager_of(scene, client), scene.clock, 20 * HOUR)
            assert times == len(scene.ca.certificates()) == 2

    async def test_one_that_fails_does_not_keep_the_others(self) -> None:
        async with stage() as scene, scene.client() as client:
            for name in ("a.internal", "b.internal"):
                await client.issue(name)
            scene.clock.forward(hours=18)
            record = client.store.get("certs", "a.internal")
            assert record is not None
            client.store.commit(record._replace(files={**record.files, "cert.pem": b"damaged"}))
            manager = manager_of(scene, client)
            assert [bundle.domain for bundle in await manager.sweep()] == ["b.internal"]
            assert manager.status()[0].error is not None


class TestClocks:
    async def test_a_laptop_that_slept_renews_when_it_wakes(self) -> None:
        async with stage() as scene, scene.client() as client:
            await client.issue("a.internal")
            manager = manager_of(scene, client)
            naps: list[float] = []
            over = asyncio.Event()

            async def sleep(seconds: float) -> None:
                naps.append(seconds)
                # It asked for a minute, and the lid was closed for three days.
                scene.clock.forward(days=3)
                if len(naps) == 3:
                    over.set()
                    await asyncio.Event().wait()

            manager._sleep = sleep
            task = manager.start()
            await over.wait()
            task.cancel()
            assert max(naps) <= 60
            assert len(scene.ca.certificates()) == 3
            assert manager.status()[0].renewed_at is not None

    async def test_a_clock_that_was_set_back_does_not_make_it_wait_for_years(self) -> None:
        async with stage() as scene, scene.client() as client:
            await client.issue("a.internal")
            manager = manager_of(scene, client)
            right = scene.clock() + timedelta(hours=17)
            scene.clock.time = right + 3650 * DAY  # wrong: everything seems to have ended
            scene.way.down = True
            await manager.sweep()
            assert manager.status()[0].failures == 1
            scene.clock.time = right
            scene.way.down = False
            assert len(await manager.sweep()) == 1

    async def test_a_lease_from_a_wrong_clock_holds_nobody_up(self) -> None:
        async with stage() as scene, scene.client() as client:
            await client.issue("a.internal")
            right = scene.clock() + timedelta(hours=17)
            scene.clock.time = right + 3650 * DAY
            assert await manager_of(scene, client)._lease("a.internal", timedelta(minutes=10)) is not None
            scene.clock.time = right
            assert len(await manager_of(scene, client).sweep()) == 1


class TestRenewalInfo:
    def offered(self, scene: Scene, start: datetime, end: datetime, **headers: str) -> list[str]:
        """The responder is made to have renewal information (RFC 9773). Returns what is asked for."""
        asked: list[str] = []

        def inform(request: httpx.Request, answer: Answer) -> Answer:
            if request.url.path.startswith("/renewal-info/"):
                asked.append(request.url.path.removeprefix("/renewal-info/"))
                window = {"start": start.isoformat(), "end": end.isoformat()}
                body = {"suggestedWindow": window, "explanationURL": "http://ca.internal/why"}
                return 200, {"content-type": "application/json", **headers}, json.dumps(body).encode()
            return answer

        scene.way.changes += [rewritten("/directory", renewalInfo=f"{BASE}/renewal-info"), inform]
        return asked

    async def test_the_window_of_the_server_decides(self) -> None:
        async with stage() as scene, scene.client() as client:
            start = scene.clock() + 2 * HOUR
            asked = self.offered(scene, start, start + HOUR, **{"retry-after": "21600"})
            bundle = await client.issue("a.internal")
            info = await client.renewal_info(bundle)
            assert info is not None
            assert (info.start, info.end, info.retry_after) == (start, start + HOUR, 6 * HOUR)
            manager = manager_of(scene, client)
            await manager.sweep()
            due = manager.status()[0].due
            assert due is not None
            assert start <= due <= start + HOUR
            certificate = x509.load_pem_x509_certificate(bundle.cert_pem)
            assert len(asked) == 2
            assert asked[0].count(".") == 1
            scene.clock.time = due
            assert len(await manager.sweep()) == 1
            order = [each for each in scene.way.requests if each.url.path == "/new-order"][-1]
            assert json.loads(_payload(order))["replaces"] == asked[0]
            assert certificate.serial_number == bundle.serial

    async def test_a_clock_that_was_set_back_does_not_make_the_server_wait_for_its_word(self) -> None:
        async with stage() as scene, scene.client() as client:
            right = scene.clock()
            self.offered(scene, right + 2 * HOUR, right + 3 * HOUR)
            await client.issue("a.internal")
            manager = manager_of(scene, client)
            scene.clock.time = right + 3 * DAY
            scene.way.down = True
            await manager.sweep()
            scene.clock.time = right
            scene.way.down = False
            await manager.sweep()
            (status,) = manager.status()
            assert status.due is not None
            assert right + 2 * HOUR <= status.due <= right + 3 * HOUR

    async def test_a_server_that_is_down_has_not_changed_its_mind(self) -> None:
        async with stage() as scene, scene.client() as client:
            self.offered(scene, scene.clock() - 2 * HOUR, scene.clock() - HOUR)
            await client.issue("a.internal")
            manager = manager_of(scene, client)
            refused = on("/new-order", *[problem(500, "serverInternal")] * 2)
            scene.way.changes.append(refused)
            await manager.sweep()
            assert manager.status()[0].failures == 1
            scene.way.down = True
            await live(manager, scene.clock, 4 * HOUR)
            assert manager.status()[0].failures > 4
            scene.way.down = False
            await live(manager, scene.clock, timedelta(minutes=50))
            assert len(scene.ca.certificates()) == 2

    async def test_a_server_that_always_says_now_does_not_make_us_renew_for_ever(self) -> None:
        async with stage() as scene, scene.client() as client:
            self.offered(scene, scene.clock() - 2 * HOUR, scene.clock() - HOUR)
            await client.issue("a.internal")
            await live(manager_of(scene, client), scene.clock, 5 * HOUR)
            assert len(scene.ca.certificates()) <= 7

    async def test_revoked_means_now(self) -> None:
        async with stage() as scene, scene.client() as client:
            self.offered(scene, scene.clock() - 2 * HOUR, scene.clock() - HOUR)
            await client.issue("a.internal")
            assert len(await manager_of(scene, client).sweep()) == 1

    async def test_a_replacement_that_is_refused_is_ordered_without_saying_so(self) -> None:
        async with stage() as scene, scene.client() as client:
            self.offered(scene, scene.clock() - 2 * HOUR, scene.clock() - HOUR)
            bundle = await client.issue("a.internal")
            scene.way.changes.append(on("/new-order", problem(409, "alreadyReplaced")))
            await client.renew(bundle)

    async def test_a_server_that_has_enough_is_not_asked_twice(self) -> None:
        """A refusal as a replacement is tried again as an order like any other; one for the rate is none."""
        async with stage() as scene, scene.client() as client:
            self.offered(scene, scene.clock() - 2 * HOUR, scene.clock() - HOUR)
            bundle = await client.issue("a.internal")
            before = scene.way.paths().count("new-order")
            scene.way.changes.append(on("/new-order", problem(429, "rateLimited")))
            with pytest.raises(Problem, match="rateLimited"):
                await client.renew(bundle)
            assert scene.way.paths().count("new-order") == before + 1

    async def test_a_server_without_it_is_told_of_no_replacement(self) -> None:
        async with stage() as scene, scene.client() as client:
            await client.renew(await client.issue("a.internal"))
            orders = [each for each in scene.way.requests if each.url.path == "/new-order"]
            assert not any(b"replaces" in _payload(order) for order in orders)

    @pytest.mark.parametrize(
        "answer",
        [
            (404, {}, b""),
            (200, {}, b"[]"),
            (200, {}, b'{"suggestedWindow": 7}'),
            (200, {}, b'{"suggestedWindow": {"start": "soon", "end": null}}'),
            (200, {}, b'{"suggestedWindow": {"start": "2026-03-01T12:00:00", "end": "2026-03-01T13:00:00"}}'),
            (200, {}, b'{"suggestedWindow": {"start": "2026-03-01T13:00:00Z", "end": "2026-03-01T12:00:00Z"}}'),
        ],
    )
    async def test_an_answer_that_makes_no_sense_counts_as_none(self, answer: Answer) -> None:
        async with stage() as scene, scene.client() as client:
            scene.way.changes.append(rewritten("/directory", renewalInfo=f"{BASE}/renewal-info"))
            bundle = await client.issue("a.internal")
            scene.way.changes.append(on("/renewal-info/", answer))
            manager = manager_of(scene, client, random=lambda: 0.0)
            assert await manager.sweep() == []
            begin, end = span_of(bundle)
            due = manager.status()[0].due
            assert due is not None
            assert abs(due - (begin + (end - begin) * 2 / 3)) < timedelta(seconds=1)


class TestByTheAuthorityItself:
    async def test_a_six_hour_client_only_certificate_stays_one(self) -> None:
        """Elsewhere, renewal made a 24-hour certificate for servers and clients of it."""
        async with stage() as scene:
            names = ["worker-1.internal", "10.0.0.1"]
            first = scene.ca.issue(names, client=True, validity_hours=6, key_type=KeyType.P384)
            manager = manager_of(scene, store=scene.ca.store, days_before_expiry=1)
            await live(manager, scene.clock, DAY)
            record = scene.ca.store.get("certs", "worker-1.internal")
            assert record is not None
            last = CertBundle.from_record(record)
            assert last.serial != first.serial
            assert last.domains == first.domains
            certificate = x509.load_pem_x509_certificate(last.cert_pem)
            usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
            assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]
            begin, end = span_of(last)
            assert end - begin == 6 * HOUR
            assert last.expires_at > scene.clock()
            assert keys.check_public_key(keys.from_pem(last.key_pem).public_key()) is KeyType.P384
            assert len(scene.ca.certificates()) - 1 in (7, 8)

    async def test_users_whose_names_differ_in_case_are_others(self) -> None:
        async with stage() as scene:
            for user in ("alice", "Alice"):
                scene.ca.issue(common_name=user, client=True)
            scene.clock.forward(hours=18)
            (bundle,) = await manager_of(scene, names=["Alice"]).sweep()
            assert bundle.common_name == "Alice"
            both = await manager_of(scene, names=["Alice", "alice"]).sweep()
            assert [each.common_name for each in both] == ["alice"], "the other one was renewed just now"

    @pytest.mark.parametrize("rotate_key", [True, False])
    async def test_the_user_of_a_database_stays_its_user(self, rotate_key: bool) -> None:
        async with stage() as scene:
            first = scene.ca.issue(common_name="epoch_user", client=True)
            scene.clock.forward(hours=18)
            (bundle,) = await manager_of(scene, rotate_key=rotate_key, names=["epoch_user"]).sweep()
            subject = x509.load_pem_x509_certificate(bundle.cert_pem).subject
            assert subject.rfc4514_string() == "CN=epoch_user"
            assert (bundle.domain, bundle.domains) == ("epoch_user", ())
            assert (bundle.key_pem == first.key_pem) is not rotate_key
            assert bundle.serial != first.serial

    async def test_the_key_is_kept_by_choice_and_wildcards_stay(self) -> None:
        async with stage() as scene:
            first = scene.ca.issue("*.internal", wildcard=True)
            scene.clock.forward(hours=18)
            (bundle,) = await manager_of(scene, rotate_key=False).sweep()
            assert (bundle.domains, bundle.key_pem) == (("*.internal",), first.key_pem)
            scene.clock.forward(hours=18)
            (bundle,) = await manager_of(scene, rotate_key=True).sweep()
            assert bundle.key_pem != first.key_pem

    async def test_what_others_ordered_or_was_revoked_is_left_alone(self) -> None:
        async with stage() as scene:
            other = CertificateAuthority(scene.ca.store, "other", now=scene.clock)
            other.init()
            other.issue("other.internal")
            revoked = scene.ca.issue("revoked.internal")
            scene.ca.revoke(revoked.serial)
            scene.ca.issue("mine.internal")
            async with scene.client(store=scene.ca.store) as client:
                await client.issue("ordered.internal")
            scene.clock.forward(hours=18)
            assert [bundle.domain for bundle in await manager_of(scene).sweep()] == ["mine.internal"]

    async def test_two_processes_renew_once(self) -> None:
        async with stage() as scene:
            scene.ca.issue("a.internal")
            scene.clock.forward(hours=18)
            managers = [manager_of(scene) for _ in range(5)]
            renewed = await asyncio.gather(*(manager.sweep() for manager in managers))
            assert sum(map(len, renewed)) == 1

    async def test_nothing_to_renew_is_said_once(self, caplog: pytest.LogCaptureFixture) -> None:
        async with stage() as scene:
            manager = manager_of(scene)
            for _ in range(3):
                await manager.sweep()
        assert caplog.text.count("nothing to renew") == 1

    async def test_arguments_that_do_not_go_together(self) -> None:
        async with stage() as scene, scene.client() as client:
            with pytest.raises(ValueError, match="one of them"):
                RenewalManager()
            with pytest.raises(ValueError, match="one of them"):
                RenewalManager(client=client, ca=scene.ca)
            with pytest.raises(ValueError, match="leave store out"):
                RenewalManager(ca=scene.ca, store=MemoryStore())
            with pytest.raises(ValueError, match="interval_hours"):
                RenewalManager(ca=scene.ca, interval_hours=0)


def test_it_needs_a_loop() -> None:
    ca = CertificateAuthority(MemoryStore())
    ca.init()
    with pytest.raises(RuntimeError, match="no running event loop"):
        RenewalManager(ca=ca).start()
