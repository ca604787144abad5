"""The addresses of stores, as they may be told: the law of this module is that no password is in what it returns."""

import re

_ON_DISK = ("memory:", "sqlite:", "file:")


def is_networked(url: str) -> bool:
    """Whether this is the address of a database that others may use as well, from this machine or another."""
    return url.startswith(("postgresql://", "postgres://"))


def without_password(url: str) -> str:
    """The same address without a password; nothing is left of one in which it cannot be told where that ends."""
    if url.startswith(_ON_DISK):
        return url
    scheme, colon, rest = url.partition("://")
    place, _, options = rest.partition("?")
    if not colon or "@" in options:
        return "…" if "@" in url else url
    user, at, host = place.rpartition("@")
    if re.search(r":(?![0-9]*([,/]|$))", re.sub(r"\[[^]]*\]", "", host)):  # what is there may be no port
        return "…"
    kept = [each for each in options.split("&") if each and "password" not in each and "secret" not in each]
    return f"{scheme}://{user.partition(':')[0]}{at}{host}{'?' if kept else ''}{'&'.join(kept)}"
