"""What all tests share."""

import pytest


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name a test after its argument where that is a long text, such as PEM made a moment ago: tests that run in
    parallel need the same names in every process."""
    return argname if isinstance(val, str | bytes) and len(val) > 50 else None
