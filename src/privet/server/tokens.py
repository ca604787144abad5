"""Secrets and tokens: random bytes that people write in base64url, on command lines and as the names of files.

The law: none begins with a hyphen there, because programs take what does for an option.
"""

import secrets

from privet.acme.encoding import to_base64url


def new_secret(length: int) -> bytes:
    """Random bytes. A sixty-fourth of all values is left out, which costs a fiftieth of a bit."""
    while to_base64url(secret := secrets.token_bytes(length)).startswith("-"):
        pass
    return secret


def new_token() -> str:
    """A challenge's token (RFC 8555 §8.1), 192 random bits."""
    return to_base64url(new_secret(24))
