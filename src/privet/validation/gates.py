"""How many may be validated at once: in all, and at one place.

The law: who waits for a place holds none, but for the one at its target, so that many validations of one slow host
take up no more than that host's share.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from weakref import WeakKeyDictionary


class Gate:
    """Lets `total` through at once, and `per_target` to the same target. May be shared by validators."""

    def __init__(self, *, total: int = 500, per_target: int = 20) -> None:
        if total < 1 or per_target < 1:
            raise ValueError("a gate lets at least one through")
        self.total = total
        self.per_target = per_target
        # A semaphore belongs to one event loop; we may be used in several.
        self._rooms: WeakKeyDictionary[asyncio.AbstractEventLoop, _Room] = WeakKeyDictionary()

    @contextlib.asynccontextmanager
    async def enter(self, target: str) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        room = self._rooms.get(loop)
        if room is None:
            room = self._rooms[loop] = _Room(self.total)
        place = room.places.get(target)
        if place is None:
            place = room.places[target] = _Place(self.per_target)
        place.users += 1
        try:
            async with place.free, room.free:
                yield
        finally:
            place.users -= 1
            if not place.users:
                del room.places[target]


class _Place:
    def __init__(self, places: int) -> None:
        self.free = asyncio.Semaphore(places)
        self.users = 0


class _Room:
    def __init__(self, places: int) -> None:
        self.free = asyncio.Semaphore(places)
        self.places: dict[str, _Place] = {}
