"""Whether a server can do what it is for: keep what it is told, and sign.

The law of this module: what it answers is for everybody to read, so it names no path, no host and no error; the log
does.
"""

import asyncio
import logging
from collections.abc import Iterator

from privet.ca.certificates import AuthorityError
from privet.server.server import Server
from privet.stores.base import StoreError

log = logging.getLogger("privet")

_PATIENCE = 5.0


async def find_faults(server: Server) -> tuple[str, ...]:
    """What is in the way of issuing a certificate now, in sentences; nothing if all is well."""
    return (*await _about_store(server), *_about_authority(server))


async def _about_store(server: Server) -> tuple[str, ...]:
    """Spend a nonce, as each request does: whoever cannot write that can issue nothing."""
    try:
        async with asyncio.timeout(_PATIENCE):
            if not server.nonces.ready:
                await server.nonces.load()
            await server.spend(server.nonces.make())
    except TimeoutError:
        log.warning("not ready: the store has not answered within %g seconds", _PATIENCE)
        return (f"the store has not answered within {_PATIENCE:g} seconds",)
    except StoreError as error:
        log.warning("not ready: %s", error)
        return ("the store cannot keep anything now",)
    return ()


def _about_authority(server: Server) -> Iterator[str]:
    try:
        server.ca.check_time()
    except AuthorityError as error:
        yield str(error)
        return
    if server.ca.not_after < server.now() + server.profile.validity:
        yield f"the authority ends at {server.ca.not_after}, before a certificate for {server.profile.validity} would"
