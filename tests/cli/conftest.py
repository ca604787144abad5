from pathlib import Path

import pytest
from tests.cli.command import Person


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


@pytest.fixture
def owner(person: Person) -> Person:
    """A person with an authority."""
    person.does("init")
    return person
