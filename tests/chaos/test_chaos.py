"""Servers are killed, starved, cut off and set wrong while clients get certificates from them; then the books are
audited.

    CHAOS_SECONDS=600 CHAOS_SEED=7 python -m pytest -s tests/chaos

does it for longer (20 seconds for each store otherwise), and the same harms in the same order again. The seed and what
was done are printed. A run proves something only if clients get certificates after each harm, so it waits for that.
"""

import asyncio
import os
import random
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import httpx
import pytest
from cryptography import x509
from tests.chaos.clients import Others, Seen, Way, want
from tests.chaos.mischief import ON_FILES, ON_POSTGRESQL, Harm
from tests.chaos.servers import Replicas, Site

from privet.ca.certificates import Certificate
from privet.server.consistency import check
from privet.stores import open_store

SECONDS = float(os.environ.get("CHAOS_SECONDS", "20"))
CLIENTS = 6
pytestmark = [pytest.mark.interop, pytest.mark.timeout(SECONDS * 3 + 300)]


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.xdist_group(f"chaos-{name}")) for name in ("sqlite", "file", "postgresql")
    ]
)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    made = Replicas(tmp_path) if request.param == "postgresql" else Site(tmp_path, request.param, SECONDS)
    with made as site:
        yield site


@pytest.fixture
def seed() -> int:
    chosen = int(os.environ.get("CHAOS_SEED", random.randrange(2**32)))
    print(f"\nCHAOS_SEED={chosen} CHAOS_SECONDS={SECONDS:g}")
    return chosen


def test_whatever_happens_the_books_are_right(site: Site, seed: int, tmp_path: Path) -> None:
    seen = Seen()
    asyncio.run(live(site, Random(seed), seen, tmp_path))
    for replica in site.replicas:
        replica.stop()
        traces = [trace for said in replica.ended for trace in re.findall(r"Traceback[^\n]*\n(?:[ ].*\n)*.*\n", said)]
        print(*traces, sep="\n")
        assert traces == []
    wrong = seen.wrong + audit(site.store, seen)
    print(
        f"{len(seen.certificates)} certificates, {len(seen.accounts)} accounts; refused or failed: "
        f"{dict(seen.failures)}; requests sent twice: {dict(seen.replayed)}; wrong: {wrong}"
    )
    assert wrong == []
    assert seen.replayed["refused"]


async def live(site: Site, chance: Random, seen: Seen, folder: Path) -> None:
    end = asyncio.Event()

    def way() -> Way:
        return Way(site.sockets, seen, lambda: site.crashes, Random(chance.random()))

    async with asyncio.TaskGroup() as tasks:
        for number in range(CLIENTS):
            name = f"client-{number}"
            tasks.create_task(want(name, site.base, way, seen, Random(chance.random()), end, least=1))
        if not site.sockets:
            others = await asyncio.to_thread(other_programs, folder, site.base)
            tasks.create_task(others.want(seen, end))
        await harm(site, chance, seen)
        end.set()
    sending = way()
    for request, crashes in seen.accepted:
        with suppress(httpx.HTTPError):
            await sending.replay(request, crashes)
    await sending.aclose()


async def harm(site: Site, chance: Random, seen: Seen) -> None:
    """One harm after the other, each when clients get certificates again after the one before."""
    harms: list[Harm] = []
    begun = time.monotonic()
    await progress(seen)
    while time.monotonic() < begun + SECONDS:
        if not harms:
            harms = list(ON_POSTGRESQL if isinstance(site, Replicas) else ON_FILES)
            chance.shuffle(harms)
        done = await asyncio.to_thread(harms.pop(), site, chance)
        print(f"{time.monotonic() - begun:6.1f} s  {len(seen.certificates):5} certificates  {done}", flush=True)
        await progress(seen)


async def progress(seen: Seen) -> None:
    """Wait until clients have got certificates."""
    wanted, end = len(seen.certificates) + CLIENTS, time.monotonic() + 120
    while len(seen.certificates) < wanted:
        assert time.monotonic() < end, f"nobody gets certificates any more: {dict(seen.failures)}"
        await asyncio.sleep(0.1)


def other_programs(folder: Path, base: str) -> Others:
    root = folder / "root.pem"
    root.write_bytes(httpx.get(f"{base}/ca.pem", timeout=60).content)
    return Others(folder, f"{base}/directory", root)


def audit(url: str, seen: Seen) -> list[str]:
    """What is wrong in the store, by itself and by what clients have seen."""
    serials: set[int] = set()
    with open_store(url) as store:
        wrong = list(check(store.records(), datetime.now(UTC)))
        for der, owner in seen.certificates.items():
            serial = x509.load_der_x509_certificate(der).serial_number
            if serial in serials:
                wrong.append(f"two certificates with the serial number {serial:x} were given out")
            serials.add(serial)
            found = [Certificate.from_record(each).der for each in store.find("certificate", f"serial:{serial:x}")]
            if found != [der]:
                wrong.append(f"the certificate {serial:x} of {owner} is not on record")
        wrong += [f"the account {each} is lost" for each in seen.accounts if store.get("account", each) is None]
    return wrong
