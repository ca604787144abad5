"""Renewal in real time: a real server, real clocks, certificates of seconds, renewed long before they end."""

import asyncio
from pathlib import Path

import pytest
from tests.interop.serving import Privet

from privet import CertBundle, Client

pytestmark = [pytest.mark.anyio, pytest.mark.interop]


class Renewed:
    """What was renewed so far, and a way to wait for more."""

    def __init__(self) -> None:
        self.bundles: list[CertBundle] = []
        self._news = asyncio.Condition()

    async def __call__(self, bundle: CertBundle) -> None:
        async with self._news:
            self.bundles.append(bundle)
            self._news.notify_all()

    async def more(self, count: int) -> None:
        most = len(self.bundles) + count
        async with self._news:
            await asyncio.wait_for(self._news.wait_for(lambda: len(self.bundles) >= most), 60)


async def test_certificates_are_renewed_again_and_again(tmp_path: Path) -> None:
    with Privet(tmp_path / "ca", "--validity", "20s") as server:
        async with Client(server.directory, allow_insecure=True) as client:
            first = await client.issue("a.internal")
            renewed = Renewed()
            await client.auto_renew(on_renewed=renewed, renewal_threshold=0.1)
            await renewed.more(3)
            assert client.renewal is not None
            assert client.renewal.healthy
    ends = [bundle.expires_at for bundle in [first, *renewed.bundles]]
    assert ends == sorted(ends)
    assert len({bundle.serial for bundle in [first, *renewed.bundles]}) == len(renewed.bundles) + 1


async def test_a_ca_that_was_killed_is_found_again(tmp_path: Path) -> None:
    failed = asyncio.Event()
    with Privet(tmp_path / "ca", "--validity", "20s") as server:
        async with Client(server.directory, allow_insecure=True) as client:
            await client.issue("a.internal")
            renewed = Renewed()
            await client.auto_renew(
                on_renewed=renewed, on_error=lambda name, error: failed.set(), renewal_threshold=0.1
            )
            await renewed.more(1)
            assert server.program is not None
            server.program.kill()
            await asyncio.wait_for(failed.wait(), 60)
            assert client.renewal is not None
            assert client.renewal.status()[0].error is not None
            await asyncio.to_thread(server.start)
            await renewed.more(1)
            assert client.renewal.status()[0].error is None
