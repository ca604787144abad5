"""How many may be validated at once: in all, and at one place.

The law: who waits for a place holds none, but for the one at its target, so that many validations of one slow host
take up no more than that host's share. And a place that becomes free goes to the askers in turn, so that one who asks
for thousands keeps nobody waiting but himself.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from weakref import WeakKeyDictionary


class Gate:
    """Lets `total` through at once, and `per_target` to the same target. May be shared by validators."""

    def __init__(self, *, total: int = 500, per_target: int = 20) -> None:
        if total < 1 or per_target < 1:
            raise ValueError("a gate lets at least one through")
        self.total = total
        self.per_target = per_target
        # Who waits belongs to one event loop; we may be used in several.
        self._rooms: WeakKeyDictionary[asyncio.AbstractEventLoop, _Room] = WeakKeyDictionary()

    @contextlib.asynccontextmanager
    async def enter(self, target: str, asker: str = "") -> AsyncIterator[None]:
        """Wait for a place at the target, and for one in all. `asker` is for whom, an account for one."""
        loop = asyncio.get_running_loop()
        room = self._rooms.get(loop)
        if room is None:
            room = self._rooms[loop] = _Room(self.total)
        place = room.places.get(target)
        if place is None:
            place = room.places[target] = _Place(self.per_target)
        place.users += 1
        try:
            async with place.free.one(asker), room.free.one(asker):
                yield
        finally:
            place.users -= 1
            if not place.users:
                del room.places[target]


class _Places:
    """A semaphore that is fair to askers, however many things each of them asks for."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """Whose turn is next comes first; somebody is here only while no place is free."""

    @contextlib.asynccontextmanager
    async def one(self, asker: str) -> AsyncIterator[None]:
        if self._free:
            self._free -= 1
        else:
            await self._wait(asker)
        try:
            yield
        finally:
            self._give()

    async def _wait(self, asker: str) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(asker, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give()  # it was given to us at the same moment
            raise

    def _give(self) -> None:
        while self._waiting:
            asker, turns = next(iter(self._waiting.items()))
            del self._waiting[asker]
            turn = turns.popleft()
            if turns:
                self._waiting[asker] = turns  # behind all others
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class _Place:
    def __init__(self, places: int) -> None:
        self.free = _Places(places)
        self.users = 0


class _Room:
    def __init__(self, places: int) -> None:
        self.free = _Places(places)
        self.places: dict[str, _Place] = {}
