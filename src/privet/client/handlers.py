"""Challenge handlers: whoever puts a proof where the CA looks for it (RFC 8555 §8).

The law of this module: a token has the alphabet of base64url before it becomes part of a path or of a name.
"""

import hashlib
import re
from typing import Protocol

from privet.acme.encoding import to_base64url
from privet.client.errors import ClientError

ANY = "any"
"""In place of a type of challenge: whichever there is."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,512}")


class ChallengeHandler(Protocol):
    """Meets challenges of one type. Asked for nothing, it does nothing: no port is opened before the first `present`.

    `identifier` is the name or address to be proved, a wildcard's without its `*.`. Both raise whatever they like; a
    `cleanup` that raises stops nothing.
    """

    @property
    def challenge_type(self) -> str:
        """The type of challenge that is met: "http-01", "dns-01", "tls-alpn-01", or another."""
        ...

    async def present(self, identifier: str, token: str, key_authorization: str) -> None:
        """Put the proof in its place. Once this returns, the CA can find it there."""
        ...

    async def cleanup(self, identifier: str, token: str, key_authorization: str) -> None:
        """Take it away again."""
        ...


class Approval:
    """For a CA where a person decides: answers whatever challenge there is, and proves nothing. Give the client the
    `patience` that people need."""

    challenge_type = ANY

    async def present(self, identifier: str, token: str, key_authorization: str) -> None:
        pass

    async def cleanup(self, identifier: str, token: str, key_authorization: str) -> None:
        pass


def check_token(token: str) -> str:
    """The token, if it is one (§8.1). Raises `ClientError`."""
    if not _TOKEN.fullmatch(token):
        raise ClientError("the server sent a token that is not base64url; nothing is done with it")
    return token


def dns_digest(key_authorization: str) -> str:
    """What dns-01 wants in its TXT record (§8.4)."""
    return to_base64url(hashlib.sha256(key_authorization.encode()).digest())
