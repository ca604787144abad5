"""Lists of tables in TOML, such as rules and roles, as people write them into files.

The law: they are read in full and every mistake is told, and what means nothing is a mistake.
"""

import difflib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from privet.ca.keys import KeyType
from privet.server.names import BadPattern, Names

Reader = Callable[[object], object]


class Mistaken(ValueError):  # noqa: N818 - its text is for whoever wrote them
    """What was written cannot be followed. `mistakes` has a sentence for each reason."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)


class Table:
    """One table, and what is wrong with it. `word` is what it is: a rule, a role."""

    def __init__(self, table: Mapping[str, object], word: str, number: int, where: str) -> None:
        self._table = table
        self.name = table.get("name")
        named = f" ({self.name})" if isinstance(self.name, str) and self.name.isprintable() else ""
        self._place = f"{word} {number}{named} in {where}"
        self.mistakes: list[str] = []

    def __contains__(self, key: str) -> bool:
        return key in self._table

    def say(self, sentence: str) -> None:
        self.mistakes.append(f"{self._place} {sentence}")

    def check_keys(self, known: Mapping[str, object]) -> None:
        """Tell of keys that mean nothing."""
        for key in self._table:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
                self.say(f"has {key!a}, which means nothing; {meant}")
        if "name" not in self._table:
            self.say("needs a name, for messages and records to call it by")

    def read(self, known: Mapping[str, tuple[str, Reader]]) -> dict[str, Any]:
        """The value of each key, by the field that it becomes; those that cannot be read are mistakes."""
        values = {}
        for key, (field, read) in known.items():
            if key in self._table:
                try:
                    values[field] = read(self._table[key])
                except ValueError as error:
                    self.say(f"has {key}, which {error}")
        return values


def read_tables(text: str, word: str, where: str) -> tuple[list[Table], list[str]]:
    """The tables of a document that has no others, and what is wrong with it as a whole."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return [], [f"{where} is not TOML: {error}"]
    mistakes = [
        f"{name!a} in {where} means nothing there; it is a list of [[{word}]]" for name in document if name != word
    ]
    found = document.get(word, [])
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        return [], [*mistakes, f"{word} in {where} has to be written as [[{word}]], with two brackets"]
    if not found:
        return [], [*mistakes, f"{where} has no [[{word}]], so that nobody would get anything"]
    tables = [Table(each, word, number, where) for number, each in enumerate(found, 1)]
    names: list[object] = []
    for table in tables:
        if table.name is not None and table.name in names:
            table.say(f"has the name of another {word}")
        names.append(table.name)
    return tables, mistakes


# --- readers: the value, or ValueError with the rest of a sentence that begins with "has KEY, which" ---


def read_name(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > 100:
        raise ValueError(f"has to be a text of at most 100 characters, not {value!r}")
    return value


def read_texts(value: object) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
        raise ValueError(f"has to be a list of texts with something in it, not {value!r}")
    return value


def read_names(value: object) -> Names:
    try:
        return Names(read_texts(value))
    except BadPattern as error:
        raise ValueError(f"has a name that is none: {error}") from None


def read_key_types(value: object) -> tuple[KeyType, ...]:
    try:
        return tuple(map(KeyType, read_texts(value)))
    except ValueError:
        raise ValueError(f"has to be a list of {', '.join(KeyType)}, not {value!r}") from None


def read_flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"has to be true or false, not {value!r}")
    return value


def read_count(value: object) -> int:
    if type(value) is not int or not 1 <= value <= 1000:
        raise ValueError(f"has to be a number from 1 to 1000, not {value!r}")
    return value
