"""Programs of the owner's: one that changes a zone, one that tells a service of its certificate.

The law of this module: no shell reads a command; its end is waited for and not that of what it leaves running, and no
longer than was said; of its words the last are kept, however many there are.
"""

import asyncio
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import BinaryIO

from privet.client.errors import ClientError

_LAST = 500


async def run_program(
    what: str, command: Sequence[str], *, patience: float, env: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Run a program, and return its exit status and what it said last. Raises `ClientError`, which begins with `what`,
    if it cannot be run or does not end within so many seconds; then it is killed."""
    # A file and no pipe, which would be open as long as a service that was started here has it.
    with tempfile.TemporaryFile() as said:
        try:
            process = await asyncio.create_subprocess_exec(
                *command, env=env, stdin=asyncio.subprocess.DEVNULL, stdout=said, stderr=asyncio.subprocess.STDOUT
            )
        except OSError as error:
            raise ClientError(f"{what} cannot be run: {error.strerror}") from None
        try:
            async with asyncio.timeout(patience):
                status = await process.wait()
        except TimeoutError:
            raise ClientError(f"{what} did not end within {patience:g} seconds") from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        return status, _last(said)


def _last(said: BinaryIO) -> str:
    length = said.seek(0, os.SEEK_END)
    said.seek(max(0, length - 4 * _LAST))
    return " ".join(said.read().decode(errors="replace").split())[-_LAST:]
