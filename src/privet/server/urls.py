"""URLs: made here from ids when a reply is written, and taken apart here when a request names one.

The law: a URL that a client signs is compared with the one we would advertise (RFC 8555 §6.4), never with one that is
put together from what the client sent, unless nobody told us our address.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")
# Ids are made by `new_id`, and a challenge's has its type behind it.
ID = re.compile(r"[0-9a-z.-]{1,64}")


@dataclass(frozen=True, slots=True)
class URLs:
    """The addresses of one responder's resources."""

    base: str
    index: bytes = field(init=False)
    """The link that every answer carries (§7.1)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", f'<{self.base}/directory>;rel="index"'.encode())

    def to(self, resource: str, id: str = "") -> str:
        return f"{self.base}/{resource}/{id}" if id else f"{self.base}/{resource}"

    def id_of(self, resource: str, url: str) -> str | None:
        """The id in a URL of ours, or None if it is another's, or of another resource."""
        prefix = f"{self.base}/{resource}/"
        id = url[len(prefix) :]
        return id if url.startswith(prefix) and ID.fullmatch(id) else None


def read_base(text: str) -> str:
    """An address as clients know it: no query, no fragment, no trailing slash. Raises `ValueError`."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if "?" in text or "#" in text:  # even when nothing follows: what is put behind them is no path
        raise ValueError(f"has to be an address without a query or a fragment, not {text!r}")
    if not good or parts.username is not None or not text.isprintable() or " " in text:
        raise ValueError(f"has to be an address such as https://ca.internal or https://ca.internal/acme, not {text!r}")
    if text.rstrip("/").endswith("/directory"):
        raise ValueError(f"has to be the address above the directory: leave /directory out of {text!r}")
    return text.rstrip("/")


def derive_base(scope: Mapping[str, object]) -> str:
    """Our address as this request has it. For tests and first steps: a Host header is written by whoever asks."""
    host = next((value.decode("latin-1") for name, value in _headers(scope) if name == b"host"), "")
    if not _HOST.fullmatch(host):
        server = scope.get("server")
        host = f"{server[0]}:{server[1]}" if isinstance(server, tuple | list) and server[1] else "localhost"
    return f"{scope.get('scheme', 'http')}://{host}{scope.get('root_path', '')}".rstrip("/")


def relative_path(scope: Mapping[str, object]) -> str:
    """The path below where we are mounted, cut at a slash."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    if root and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    return path.removeprefix("/")


def _headers(scope: Mapping[str, object]) -> list[tuple[bytes, bytes]]:
    headers = scope.get("headers")
    return list(headers) if isinstance(headers, list | tuple) else []
