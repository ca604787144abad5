"""The value of a CAA `issue` property (RFC 8659 §4.2), which dns-persist-01's records are written in as well.

The law: any bytes are an `IssueValue` or None, and None is what the grammar does not allow.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

_LABEL = r"[A-Za-z0-9](?:-*[A-Za-z0-9])*"
_ISSUER = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*)?")
_TAG = re.compile(_LABEL)
_VALUE = re.compile(r"[\x21-\x3a\x3c-\x7e]*")
_SPACE = " \t"


class IssueValue(NamedTuple):
    issuer: str
    """The issuer's domain name in lower case; empty where nobody is meant."""
    parameters: Sequence[tuple[str, str]]
    """Tag, in lower case, and value, as they come."""

    def all(self, tag: str) -> list[str]:
        return [value for each, value in self.parameters if each == tag]


def read_issue_value(data: bytes) -> IssueValue | None:
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        return None
    first, *others = [part.strip(_SPACE) for part in text.split(";")]
    if not _ISSUER.fullmatch(first):
        return None
    # A semicolon with nothing behind it is allowed after the issuer's name, and nowhere else.
    if others == [""]:
        others = []
    parameters = []
    for part in others:
        tag, equals, value = part.partition("=")
        tag, value = tag.rstrip(_SPACE), value.lstrip(_SPACE)
        if not (equals and _TAG.fullmatch(tag) and _VALUE.fullmatch(value)):
            return None
        parameters.append((tag.lower(), value))
    return IssueValue(first.lower(), parameters)
