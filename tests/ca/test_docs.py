"""What docs/authority.md shows runs as it stands there."""

import re
from pathlib import Path
from typing import Any

TEXT = (Path(__file__).parents[2] / "docs/authority.md").read_text()


def test_the_page_runs() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(block, "docs/authority.md", "exec"), names)
    assert names["refused"] == ["web.example", "x.secret.internal"]
