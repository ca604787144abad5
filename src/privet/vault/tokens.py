"""Tokens: made by an operator for one role, counted, and taken back.

The law: the store has no token, only the hash of each, so that whoever steals it has none; and a stranger is told the
same about every token that is not his.
"""

import hashlib
import hmac
import json
import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from privet.acme.encoding import to_base64url, to_json
from privet.acme.problems import Problem, ProblemType
from privet.server import grants
from privet.server.tokens import new_secret
from privet.stores.asynchronous import AsyncStore
from privet.stores.base import ID, Record, Store, new_id

KIND = "token"
_TEXT = re.compile(rf"privet\.({ID})\.[A-Za-z0-9_-]{{43}}")
_REQUESTER = "token:"
# How long one that has ended is still in the list.
_KEPT_AFTER_END = timedelta(days=30)


class Token(NamedTuple):
    """What is known of a token: the role it is for, and the hash by which it is recognized.

    `uses` is how many certificates it is good for (None: any number, and nobody counts), `ends` until when.
    """

    id: str
    name: str
    authority: str
    role: str
    hash: str
    created: datetime
    ends: datetime | None = None
    uses: int | None = None
    used: int = 0
    revoked: datetime | None = None
    version: int = 0

    @property
    def kind(self) -> str:
        return KIND

    @property
    def requester(self) -> str:
        """What it is called on record with its certificates."""
        return f"{_REQUESTER}{self.id}"

    def to_record(self) -> Record:
        body = {
            "name": self.name,
            "authority": self.authority,
            "role": self.role,
            "hash": self.hash,
            "created": self.created.timestamp(),
            "ends": self.ends and self.ends.timestamp(),
            "uses": self.uses,
            "used": self.used,
            "revoked": self.revoked and self.revoked.timestamp(),
        }
        index = (grants.index_of(self.authority),)
        expires = self.ends and self.ends + _KEPT_AFTER_END
        return Record(KIND, self.id, to_json(body), self.version, index=index, expires=expires)

    @classmethod
    def from_record(cls, record: Record) -> "Token":
        body = json.loads(record.body)
        return cls(
            id=record.id,
            name=body["name"],
            authority=body["authority"],
            role=body["role"],
            hash=body["hash"],
            created=datetime.fromtimestamp(body["created"], UTC),
            ends=None if body["ends"] is None else datetime.fromtimestamp(body["ends"], UTC),
            uses=body["uses"],
            used=body["used"],
            revoked=None if body["revoked"] is None else datetime.fromtimestamp(body["revoked"], UTC),
            version=record.version,
        )

    def status(self, now: datetime) -> str:
        """Whether it is good, or why not: valid, revoked, expired or used up."""
        return grants.status_of(self, now)

    def take_back(self, now: datetime) -> "Token":
        return self._replace(revoked=self.revoked or now)

    def use(self) -> "Token":
        return self._replace(used=self.used + 1)

    def check(self, now: datetime) -> None:
        """Raises `Problem` unless it is good. For who has shown it, and may know what became of it."""
        if (status := self.status(now)) != "valid":
            raise Problem(ProblemType.UNAUTHORIZED, f"permission denied: the token is {status}; ask for another")


def is_requester(name: str) -> bool:
    """Whether this is what a token is called on record."""
    return name.startswith(_REQUESTER)


# --- for the operator, on the store alone ---


def create(
    store: Store,
    authority: str,
    role: str,
    name: str,
    now: datetime,
    *,
    ends: datetime | None = None,
    uses: int | None = None,
) -> tuple[Token, str]:
    """Make a token for a role; return what is known of it, and the token itself, which is shown once."""
    id = new_id(now)
    text = f"privet.{id}.{to_base64url(new_secret(32))}"
    made = Token(id, name, authority, role, _hash(authority, text), now, ends=ends, uses=uses)
    store.commit(made.to_record())
    return made._replace(version=1), text


def find_all(store: Store, authority: str) -> list[Token]:
    """The tokens of an authority, oldest first."""
    return grants.find_all(store, KIND, Token.from_record, authority)


def revoke(store: Store, token: Token, now: datetime) -> Token:
    """Take a token back: nobody gets anything with it any more."""
    return grants.revoke(store, Token.from_record, token, now)


# --- for requests ---


async def authenticate(store: AsyncStore, authority: str, text: str, now: datetime) -> Token:
    """The token that this is. Raises `Problem`."""
    match = _TEXT.fullmatch(text)
    record = await store.get(KIND, match[1]) if match else None
    token = Token.from_record(record) if record else None
    # Whatever is shown is hashed and compared, so that all that is not a token of ours takes as long.
    known = token.hash if token is not None and token.authority == authority else "0" * 64
    if not hmac.compare_digest(_hash(authority, text), known) or token is None:
        raise Problem(ProblemType.UNAUTHORIZED, "permission denied")
    token.check(now)
    return token


def _hash(authority: str, text: str) -> str:
    """What can be guessed by nobody needs no slow hash: 256 bits of it are random."""
    return hashlib.sha256(f"{text}:{authority}".encode(errors="replace")).hexdigest()
