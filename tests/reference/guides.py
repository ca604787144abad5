"""The blocks of other people's guides, and how they are run."""

import ast
import inspect
import re
import types
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and code of each block of a page, in its order."""
    return re.findall(r"```(\w+)\n(.*?)```", (HERE / page).read_text(), re.DOTALL)


async def run(block: str, names: dict[str, Any]) -> None:
    """A block as it stands, `async with` and `await` included."""
    code = compile(block, "guide", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    made = types.FunctionType(code, names)()
    if inspect.iscoroutine(made):
        await made
