"""The client for scripts: the same verbs without `await`, carried out by an event loop in a thread of its own.

The law of this module: it does nothing itself.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from privet.client.client import Client
from privet.client.renewal import RenewalManager

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def _without_await(
    verb: Callable[Concatenate[Client, _Arguments], Awaitable[_Result]],
) -> "Callable[Concatenate[SyncClient, _Arguments], _Result]":
    def call(self: "SyncClient", /, *args: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        begun: list[asyncio.Future[_Result]] = []

        async def carry_out() -> _Result:
            begun.append(asyncio.ensure_future(verb(self.client, *args, **options)))
            return await begun[0]

        future = self.portal.start_task_soon(carry_out)
        try:
            return future.result()
        except BaseException:
            if not future.done():  # Ctrl-C: nobody waits any more, and what was put up is taken down
                self.portal.call(_end, begun)
            raise

    call.__doc__ = verb.__doc__
    return call


async def _end(tasks: Sequence[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class SyncClient:
    """A `Client`, with its arguments, for use without an event loop: `with SyncClient(url) as client`.

    Callbacks of `auto_renew` are called in the client's own thread.
    """

    def __init__(self, directory_url: str, **options: Any) -> None:
        self.client = Client(directory_url, **options)
        self._end = ExitStack()
        self._portal: BlockingPortal | None = None

    def __repr__(self) -> str:
        return f"<SyncClient of {self.client.directory_url}>"

    @property
    def portal(self) -> BlockingPortal:
        if self._portal is None:
            # From another thread: after Ctrl-C in this one, anyio would wait for the end of what has only begun.
            with ThreadPoolExecutor(1) as starter:
                starter.submit(self._start).result()
        assert self._portal is not None
        return self._portal

    def _start(self) -> None:
        self._portal = self._end.enter_context(start_blocking_portal("asyncio"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End renewal, close connections, and end the thread."""
        if self._portal is not None:
            self._portal.call(self.client.aclose)
            self._end.close()
            self._portal = None

    @property
    def renewal(self) -> RenewalManager | None:
        """What `auto_renew` started last."""
        return self.client.renewal

    issue = _without_await(Client.issue)
    ensure = _without_await(Client.ensure)
    revoke = _without_await(Client.revoke)
    renew = _without_await(Client.renew)
    renewal_info = _without_await(Client.renewal_info)
    auto_renew = _without_await(Client.auto_renew)
    account_url = _without_await(Client.account_url)
    update_account = _without_await(Client.update_account)
    change_account_key = _without_await(Client.change_account_key)
    deactivate_account = _without_await(Client.deactivate_account)
