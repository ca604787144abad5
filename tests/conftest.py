"""What all tests share."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from tests.interop.postgresql import PostgreSQL

# What Hypothesis does in CI anyway: an example may take as long as this machine takes for it.
settings.register_profile("patient", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--mesh", action="store_true", help="have the mesh of tests/mesh go on for twice three minutes")


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name a test after its argument where that is a long text, such as PEM made a moment ago: tests that run in
    parallel need the same names in every process."""
    return argname if isinstance(val, str | bytes) and len(val) > 50 else None


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL for all tests, which give no data of theirs to others: each has a database of its own."""
    with PostgreSQL() as running:
        yield running
