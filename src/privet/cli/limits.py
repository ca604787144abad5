"""Limits as an operator writes them: `open-orders=200`, `orders-of-account=1000/1h`, `order-lifetime=12h`.

What can be said is what `Limits` has; docs/limits.md lists it.
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import fields, replace
from datetime import timedelta

from privet.server.durations import read_duration
from privet.server.limits import Limits, Rate

# These have options of their own, which more depends on.
_ELSEWHERE = {"validation": "--validate-within", "authorization_reuse": "--reuse-authorizations"}
NAMES = tuple(each.name.replace("_", "-") for each in fields(Limits) if each.name not in _ELSEWHERE)


def set_limits(limits: Limits, texts: Iterable[str]) -> Limits:
    """Return the limits with those changed that are named. Raises `ValueError`, in the rest of a sentence."""
    changes: dict[str, int | Rate | timedelta] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        field = name.replace("-", "_")
        if field in _ELSEWHERE:
            raise ValueError(f"{name!r} is said by {_ELSEWHERE[field]}")
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, 1)
            meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(NAMES)}"
            raise ValueError(f"{name!r} is no limit; {meant}")
        if field in changes:
            raise ValueError(f"{name} is there twice")
        if not equals:
            raise ValueError(f"{name!r} has no value; write {name}=VALUE")
        changes[field] = _read(name, getattr(limits, field), value)
    return replace(limits, **changes)  # type: ignore[arg-type]


def _read(name: str, usual: object, value: str) -> int | Rate | timedelta:
    """A value of the kind that is usual."""
    if isinstance(usual, Rate):
        most, slash, period = value.partition("/")
        if not slash:
            raise ValueError(f"{name} has to be so many in so long, such as 500/24h, not {value!r}")
        return Rate(_number(name, most), _duration(name, period))
    return _number(name, value) if isinstance(usual, int) else _duration(name, value)


def _number(name: str, text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text.strip()):
        raise ValueError(f"{name} has to be a number from 1 to 999999999, not {text!r}")
    return int(text)


def _duration(name: str, text: str) -> timedelta:
    try:
        return read_duration(text)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None
