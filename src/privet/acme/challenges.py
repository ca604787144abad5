"""Challenges (RFC 8555 §8, RFC 8737, RFC 8738, and two drafts): which ways of proving control an identifier has."""

import re
from enum import StrEnum

from privet.acme.identifiers import Identifier, IdentifierType

# RFC 8555 §8.1: at least 128 bits of entropy, in the base64url alphabet.
TOKEN = re.compile(r"[A-Za-z0-9_-]{22,}")


class ChallengeType(StrEnum):
    HTTP_01 = "http-01"
    DNS_01 = "dns-01"
    TLS_ALPN_01 = "tls-alpn-01"
    DNS_ACCOUNT_01 = "dns-account-01"
    """draft-ietf-acme-dns-account-label-03"""
    DNS_PERSIST_01 = "dns-persist-01"
    """draft-ietf-acme-dns-persist-02"""

    @property
    def has_token(self) -> bool:
        """Whether its challenge shows a token: a record that stays does not depend on one."""
        return self is not ChallengeType.DNS_PERSIST_01


# What clients know, and what is offered if nobody names types.
STANDARD = (ChallengeType.HTTP_01, ChallengeType.DNS_01, ChallengeType.TLS_ALPN_01)
# Records in DNS. Serving one name says nothing about all names beside it, so wildcards are theirs alone (§8.3,
# RFC 8737 §3); and addresses are none of theirs (RFC 8738 §7).
_IN_DNS = (ChallengeType.DNS_01, ChallengeType.DNS_ACCOUNT_01, ChallengeType.DNS_PERSIST_01)


def challenge_types(identifier: Identifier) -> tuple[ChallengeType, ...]:
    """The challenges that can prove control of this identifier."""
    if identifier.wildcard:
        return _IN_DNS
    if identifier.type is IdentifierType.IP:
        return tuple(type for type in ChallengeType if type not in _IN_DNS)
    return tuple(ChallengeType)


def key_authorization(token: str, thumbprint: str) -> str:
    """What the holder of the account key puts where we will look for it (§8.1)."""
    return f"{token}.{thumbprint}"
