"""The blocks of docs/mtls.md, as files and as commands."""

import re
from pathlib import Path

TEXT = (Path(__file__).parents[2] / "docs/mtls.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def program(name: str, language: str = "python") -> str:
    """The block that begins with this name."""
    (block,) = [block for block in blocks(language) if block.startswith(f"# {name}\n")]
    return block


def command(beginning: str) -> str:
    """The first command that begins so, in one line."""
    lines = [line for block in blocks("sh") for line in block.replace("\\\n", " ").splitlines()]
    return next(line for line in lines if line.startswith(beginning))


def names() -> list[str]:
    return [found for block in blocks("python") if (found := block.partition("\n")[0]).endswith(".py")]
