"""Durations as people write them: 90m, 24h, 7d."""

import re
from datetime import timedelta

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def read_duration(value: object) -> timedelta:
    """Raises `ValueError` with the rest of a sentence that begins with what the value is for."""
    text = str(value).replace(" ", "")
    if not re.fullmatch(r"(\d+(\.\d+)?[smhdw])+", text):
        raise ValueError(f"has to be a duration such as 90m, 24h or 7d, not {value!r}")
    try:
        total = sum(
            (timedelta(**{_UNITS[unit]: float(number)}) for number, unit in re.findall(r"([\d.]+)(\w)", text)),
            timedelta(),
        )
    except OverflowError:
        total = timedelta.max
    if not timedelta(seconds=1) <= total <= timedelta(days=36500):
        raise ValueError(f"has to be between a second and a century, not {value!r}")
    return total
