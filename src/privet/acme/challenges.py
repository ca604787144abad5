"""Challenges (RFC 8555 §8, RFC 8737, RFC 8738): which ways of proving control an identifier has."""

import re
from enum import StrEnum

from privet.acme.identifiers import Identifier, IdentifierType

# RFC 8555 §8.1: at least 128 bits of entropy, in the base64url alphabet.
TOKEN = re.compile(r"[A-Za-z0-9_-]{22,}")


class ChallengeType(StrEnum):
    HTTP_01 = "http-01"
    DNS_01 = "dns-01"
    TLS_ALPN_01 = "tls-alpn-01"


def challenge_types(identifier: Identifier) -> tuple[ChallengeType, ...]:
    """The challenges that can prove control of this identifier."""
    if identifier.wildcard:
        # Serving one name says nothing about all names beside it, so wildcards are dns-01's alone (§8.3, RFC 8737 §3).
        return (ChallengeType.DNS_01,)
    if identifier.type is IdentifierType.IP:
        # RFC 8738 §7: dns-01 must not be used for addresses.
        return (ChallengeType.HTTP_01, ChallengeType.TLS_ALPN_01)
    return (ChallengeType.HTTP_01, ChallengeType.DNS_01, ChallengeType.TLS_ALPN_01)


def key_authorization(token: str, thumbprint: str) -> str:
    """What the holder of the account key puts where we will look for it (§8.1)."""
    return f"{token}.{thumbprint}"
