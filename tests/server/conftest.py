from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from tests.wire import BASE, Wire

from privet import ACMEResponder, CertificateAuthority, MemoryStore, Store


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Clock:
    """What time it is, as a test says."""

    time: datetime = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def forward(self, **span: float) -> None:
        self.time += timedelta(**span)


@dataclass
class Scene:
    """A responder on a store, with a clock, and clients to talk to it."""

    clock: Clock
    store: Store
    ca: CertificateAuthority
    responder: ACMEResponder
    http: httpx.AsyncClient
    base: str = BASE

    def at(self, responder: ACMEResponder) -> httpx.AsyncClient:
        """A client of another responder: a replica, or the same one after a restart."""
        return httpx.AsyncClient(transport=httpx.ASGITransport(responder), base_url=self.base)

    def stranger(self) -> Wire:
        """A client without an account."""
        return Wire(self.http, self.base)

    async def account(self, **payload: Any) -> Wire:
        """A client with an account of its own."""
        wire = self.stranger()
        response = await wire.register(**payload)
        assert response.status_code == 201, response.text
        return wire


Stage = Callable[..., AbstractAsyncContextManager[Scene]]


@pytest.fixture
def stage() -> Stage:
    """Set a scene: `async with stage(auto_approve=True) as scene`."""

    @asynccontextmanager
    async def set_scene(  # type: ignore[no-untyped-def]
        *, store: Store | None = None, clock: Clock | None = None, base: str = BASE, **arguments: Any
    ):
        clock = clock or Clock()
        store = store or MemoryStore()
        ca = CertificateAuthority(store, now=clock)
        ca.init()
        responder = ACMEResponder(ca, now=clock, **arguments)
        # Exceptions come out where they happen; a responder has to answer, not raise.
        transport = httpx.ASGITransport(responder, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url=base) as http:
            yield Scene(clock, store, ca, responder, http, base)

    return set_scene
