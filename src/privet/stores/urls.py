"""The addresses of stores, as they may be told: the law of this module is that no password is in what it returns."""

NETWORKED = ("postgresql", "postgres")


def is_networked(url: str) -> bool:
    """Whether this is the address of a database that others may use as well, on this machine or another."""
    return url.partition("://")[0] in NETWORKED and "://" in url


def without_secrets(url: str) -> str:
    """The same address without user, password and options; nothing is left of one that is written wrongly."""
    if not is_networked(url):
        return url
    head, _, options = url.partition("://")[2].partition("?")
    return f"postgresql://{'…' if '@' in options else head.rpartition('@')[2]}"
