"""Profiles: what kinds of certificates there are, as data.

The law of this module: nothing about a certificate but its names, its key and its span is decided elsewhere.
"""

from dataclasses import dataclass
from datetime import timedelta

from cryptography.x509 import ObjectIdentifier
from cryptography.x509.oid import ExtendedKeyUsageOID

from privet.ca.keys import KeyType


@dataclass(frozen=True, slots=True)
class Profile:
    """How long its certificates live if nobody says otherwise, what they are for, and for which keys."""

    name: str
    validity: timedelta
    usages: tuple[ObjectIdentifier, ...]
    key_types: frozenset[KeyType] = frozenset(KeyType)

    @property
    def server(self) -> bool:
        return ExtendedKeyUsageOID.SERVER_AUTH in self.usages


# Both usages, because a service behind mutual TLS is a server to some and a client to others with one certificate.
DEFAULT = Profile("default", timedelta(hours=24), (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH))
CLIENT = Profile("client", timedelta(hours=24), (ExtendedKeyUsageOID.CLIENT_AUTH,))
