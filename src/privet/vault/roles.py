"""Roles: what who has a token may have, as data read from TOML.

The law: what a role does not name is refused. A common name that is no DNS name is for clients alone, because verifiers
take the common name of a server that has no other for its host.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta

from cryptography.x509.oid import ExtendedKeyUsageOID

from privet.acme.identifiers import Identifier
from privet.ca.keys import KeyType
from privet.ca.profiles import Profile
from privet.server.durations import read_duration
from privet.server.names import BadPattern, Names, read_text_pattern
from privet.server.tables import Mistaken, Reader, Table, read_flag, read_key_types, read_names, read_tables, read_texts

_USAGES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}
_LIFETIME = timedelta(hours=24)
NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"


class BadRoles(Mistaken):
    """The roles cannot be followed. `mistakes` has a sentence for each reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """`names` are for alternative names, and for a common name among them; `common_names` are patterns of what a
    client may be called besides, such as the user of a database, and case counts in them. Keys that are made here are
    of the first of the `key_types`. A certificate lives for `lifetime` if nobody says otherwise."""

    name: str
    names: Names = field(default_factory=lambda: Names(()))
    common_names: tuple[re.Pattern[str], ...] = ()
    usages: tuple[str, ...] = tuple(_USAGES)
    wildcard: bool = False
    key_types: tuple[KeyType, ...] = tuple(KeyType)
    lifetime: timedelta = _LIFETIME
    max_lifetime: timedelta = _LIFETIME

    @property
    def profile(self) -> Profile:
        usages = tuple(oid for usage, oid in _USAGES.items() if usage in self.usages)
        return Profile(profile_name(self.name), self.max_lifetime, usages, frozenset(self.key_types))

    def objection(self, identifier: Identifier) -> str | None:
        """Why it refuses an alternative name, if it does."""
        if not self.names.cover(identifier):
            return f"{identifier} is not allowed by the role {self.name!r}"
        if identifier.wildcard and not self.wildcard:
            return f"{identifier} is a wildcard, and the role {self.name!r} allows none"
        return None

    def lets_client(self, common_name: str) -> bool:
        """Whether a client may be called so."""
        return any(pattern.fullmatch(common_name) for pattern in self.common_names)


def profile_name(role: str) -> str:
    """What the certificates of a role have as their profile on record."""
    return f"role {role}"


class Roles:
    def __init__(self, roles: Iterable[Role]) -> None:
        self._roles = {role.name: role for role in roles}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._roles)

    def get(self, name: str) -> Role | None:
        return self._roles.get(name)

    @classmethod
    def from_toml(cls, text: str, where: str = "the roles") -> "Roles":
        """Read them, in full. Raises `BadRoles`."""
        tables, mistakes = read_tables(text, "role", where)
        roles = []
        for table in tables:
            role = _read(table)
            if role is not None:
                roles.append(role)
            mistakes += table.mistakes
        if mistakes:
            raise BadRoles(mistakes)
        return cls(roles)


def _read(table: Table) -> Role | None:
    """The role, if nothing is wrong with it."""
    table.check_keys(_KEYS)
    values = table.read(_KEYS)
    if "names" not in table and "common-names" not in table:
        table.say("needs names or common-names: what may be in its certificates")
    if "common-names" in table and values.get("usages") != ("client",):
        table.say('has common-names, which are for clients alone: say usages = ["client"]')
    lifetime, longest = values.get("lifetime"), values.get("max_lifetime")
    if lifetime is None:
        values["lifetime"] = min(longest or _LIFETIME, _LIFETIME)
    elif longest is not None and lifetime > longest:
        table.say("has a lifetime that is longer than its max-lifetime")
    values["max_lifetime"] = longest or values["lifetime"]
    return None if table.mistakes else Role(**values)


def check_name(value: object) -> str:
    """Raises `ValueError`, with the rest of a sentence, for what is no name of a role."""
    if not isinstance(value, str) or not re.fullmatch(NAME, value):
        raise ValueError(f"has to be a name of letters, digits, _ . and -, as it is part of an address, not {value!r}")
    return value


def _common_names(value: object) -> tuple[re.Pattern[str], ...]:
    try:
        return tuple(read_text_pattern(text, any_case=False) for text in read_texts(value))
    except BadPattern as error:
        raise ValueError(f"has a name that is none: {error}") from None


def _usages(value: object) -> tuple[str, ...]:
    usages = tuple(dict.fromkeys(read_texts(value)))
    if not set(usages) <= set(_USAGES):
        raise ValueError(f"has to be a list of {' and '.join(_USAGES)}, not {value!r}")
    return usages


# What a role may have: the field it becomes, and how it is read.
_KEYS: dict[str, tuple[str, Reader]] = {
    "name": ("name", check_name),
    "names": ("names", read_names),
    "common-names": ("common_names", _common_names),
    "usages": ("usages", _usages),
    "wildcard": ("wildcard", read_flag),
    "key-types": ("key_types", read_key_types),
    "lifetime": ("lifetime", read_duration),
    "max-lifetime": ("max_lifetime", read_duration),
}
