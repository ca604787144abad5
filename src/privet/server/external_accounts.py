"""External account keys (RFC 8555 §7.3.4): made by an operator, bound to accounts, counted, and taken back.

The law: a use is counted in the commit that makes the account, so that it is counted once; and a stranger, who has no
secret, is told the same about every key. The secret itself is needed to verify a MAC, so it is kept, encrypted under a
key that follows from the authority's own.
"""

import json
import logging
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from privet.acme.encoding import from_base64url, from_json, to_base64url, to_json
from privet.acme.identifiers import Identifier
from privet.acme.jws import Key, parse_binding
from privet.acme.problems import Problem, ProblemType
from privet.ca.authority import CertificateAuthority
from privet.server import grants
from privet.server.grants import index_of
from privet.server.names import Names
from privet.server.policy import Decision, Ruling
from privet.server.records import Account, Kind
from privet.server.server import Server, VerifiedRequest
from privet.server.tokens import new_secret
from privet.stores.base import ID, Record, Store, new_id

log = logging.getLogger("privet")

_ID = re.compile(ID)
_PURPOSE = b"privet: external account keys"


class ExternalAccountKey(NamedTuple):
    """A key by which somebody known elsewhere opens accounts here.

    `allow` and `trust` are the names its accounts may order, with and without proof; with neither, whatever the policy
    lets them. `uses` is how many accounts may be opened with it (None: any number, and nobody counts), `ends` until
    when. Neither concerns accounts that are there; `revoked` does.
    """

    id: str
    name: str
    authority: str
    sealed: bytes
    created: datetime
    allow: tuple[str, ...] = ()
    trust: tuple[str, ...] = ()
    wildcard: bool = False
    ends: datetime | None = None
    uses: int | None = None
    used: int = 0
    revoked: datetime | None = None
    version: int = 0

    @property
    def kind(self) -> str:
        return Kind.EXTERNAL_ACCOUNT_KEY

    @property
    def rule(self) -> str:
        """What its trust is called on record."""
        return f"external account key {self.name}"

    def to_record(self) -> Record:
        body = {
            "name": self.name,
            "authority": self.authority,
            "sealed": to_base64url(self.sealed),
            "created": self.created.timestamp(),
            "allow": self.allow,
            "trust": self.trust,
            "wildcard": self.wildcard,
            "ends": self.ends and self.ends.timestamp(),
            "uses": self.uses,
            "used": self.used,
            "revoked": self.revoked and self.revoked.timestamp(),
        }
        # It stays: accounts may do what it says for as long as they live.
        return Record(self.kind, self.id, to_json(body), self.version, index=(index_of(self.authority),))

    @classmethod
    def from_record(cls, record: Record) -> "ExternalAccountKey":
        body = json.loads(record.body)
        return cls(
            id=record.id,
            name=body["name"],
            authority=body["authority"],
            sealed=from_base64url(body["sealed"], "sealed"),
            created=datetime.fromtimestamp(body["created"], UTC),
            allow=tuple(body["allow"]),
            trust=tuple(body["trust"]),
            wildcard=body["wildcard"],
            ends=None if body["ends"] is None else datetime.fromtimestamp(body["ends"], UTC),
            uses=body["uses"],
            used=body["used"],
            revoked=None if body["revoked"] is None else datetime.fromtimestamp(body["revoked"], UTC),
            version=record.version,
        )

    def status(self, now: datetime) -> str:
        """Whether accounts can be opened with it, or why not: valid, revoked, expired or used up."""
        return grants.status_of(self, now)

    def take_back(self, now: datetime) -> "ExternalAccountKey":
        return self._replace(revoked=self.revoked or now)

    def use(self) -> "ExternalAccountKey":
        return self._replace(used=self.used + 1)

    def objections(self, identifiers: Iterable[Identifier]) -> Iterator[tuple[Identifier, str]]:
        """Which of these its accounts may not order, and why."""
        if not self.allow and not self.trust:
            return
        names = Names([*self.allow, *self.trust])
        for identifier in identifiers:
            if not names.cover(identifier):
                yield identifier, f"{identifier} is not among the names of the external account key {self.name!r}"
            elif identifier.wildcard and not self.wildcard:
                yield identifier, f"{identifier} is a wildcard, and the external account key {self.name!r} allows none"

    def rule_on(self, rulings: Mapping[Identifier, Ruling]) -> Mapping[Identifier, Ruling]:
        """What it makes of what the policy decided: it spares a proof, and never a person."""
        trusted = Names(self.trust)
        return {
            identifier: Ruling(Decision.TRUST, self.rule)
            if ruling.decision is Decision.PROVE and trusted.cover(identifier)
            else ruling
            for identifier, ruling in rulings.items()
        }


# --- for the operator, on the store alone ---


def create(
    store: Store,
    ca: CertificateAuthority,
    name: str,
    now: datetime,
    *,
    allow: Iterable[str] = (),
    trust: Iterable[str] = (),
    wildcard: bool = False,
    ends: datetime | None = None,
    uses: int | None = None,
) -> tuple[ExternalAccountKey, bytes]:
    """Make a key for accounts with this authority; return it, and the secret, which is shown once.

    Raises `BadPattern` for a name that is none.
    """
    allow, trust = Names(allow).patterns, Names(trust).patterns
    secret, id = new_secret(32), new_id(now)
    made = ExternalAccountKey(
        id, name, ca.name, _seal(ca, id, secret), now, allow, trust, wildcard=wildcard, ends=ends, uses=uses
    )
    store.commit(made.to_record())
    return made._replace(version=1), secret


def find_all(store: Store, authority: str) -> list[ExternalAccountKey]:
    """The keys of an authority, oldest first."""
    return grants.find_all(store, Kind.EXTERNAL_ACCOUNT_KEY, ExternalAccountKey.from_record, authority)


def revoke(store: Store, key: ExternalAccountKey, now: datetime) -> ExternalAccountKey:
    """Take a key back: no account is opened with it, and those that were get no more certificates."""
    return grants.revoke(store, ExternalAccountKey.from_record, key, now)


# --- for requests ---


class Bound(NamedTuple):
    """What a binding proved: the key's id and name, and the key itself if it is one of the store."""

    id: str
    name: str
    key: ExternalAccountKey | None


async def bind(server: Server, request: VerifiedRequest, binding: object | None) -> Bound | None:
    """Check an external account binding. Raises `Problem`."""
    if binding is None:
        if server.external_account_required:
            raise Problem(
                ProblemType.EXTERNAL_ACCOUNT_REQUIRED, "an external account key is needed; ask for one, and bind it"
            )
        return None
    if not await _has_keys(server):
        return None  # "servers ... that do not require it ... ignore": nothing is granted because of it
    jws = parse_binding(binding)
    assert jws.kid is not None
    secret = server.external_account_keys(jws.kid) if server.external_account_keys else None
    found = await _find(server, jws.kid) if secret is None else None
    if found is not None:
        secret = _open(server.ca, found)
    # As much work for a key that is not there, and the same words.
    jws.verify_mac(secret or secrets.token_bytes(32))
    if (
        jws.url != request.url
        or Key.from_jwk(from_json(jws.payload, "the binding")).thumbprint != request.key.thumbprint
    ):
        raise Problem(ProblemType.MALFORMED, "the external account binding is for another url or another key")
    if found is None:
        return Bound(jws.kid, jws.kid, None)
    # Who gets here has the secret, and may know what became of it.
    if (status := found.status(server.now())) != "valid":
        raise Problem(ProblemType.UNAUTHORIZED, f"the external account key is {status}; ask for another")
    return Bound(found.id, found.name, found)


async def find_bound(server: Server, account: Account) -> Bound | None:
    """The key that the account is bound to. Raises `Problem` if it was taken back, or if there has to be one."""
    id = account.external_account
    if id is None:
        if server.external_account_required:
            raise Problem(
                ProblemType.EXTERNAL_ACCOUNT_REQUIRED,
                "this account is bound to no external account key, and one is needed by now; make another account",
            )
        return None
    found = await _find(server, id)
    gone = found is None and (server.external_account_keys is None or server.external_account_keys(id) is None)
    if gone or (found is not None and found.revoked is not None):
        raise Problem(ProblemType.UNAUTHORIZED, "the external account key of this account is revoked; ask for another")
    return Bound(id, found.name if found else id, found)


async def _has_keys(server: Server) -> bool:
    if server.external_account_required or server.external_account_keys is not None:
        return True
    return bool(await server.store.find(Kind.EXTERNAL_ACCOUNT_KEY, index_of(server.ca.name), limit=1))


async def _find(server: Server, id: str) -> ExternalAccountKey | None:
    record = await server.store.get(Kind.EXTERNAL_ACCOUNT_KEY, id) if _ID.fullmatch(id) else None
    found = None if record is None else server.read(ExternalAccountKey, record)
    return found if found is not None and found.authority == server.ca.name else None


# --- the secret ---


def _seal(ca: CertificateAuthority, id: str, secret: bytes) -> bytes:
    nonce = secrets.token_bytes(12)
    return nonce + AESGCM(ca.secret(_PURPOSE)).encrypt(nonce, secret, _bound_to(ca.name, id))


def _open(ca: CertificateAuthority, key: ExternalAccountKey) -> bytes | None:
    nonce, sealed = key.sealed[:12], key.sealed[12:]
    try:
        return AESGCM(ca.secret(_PURPOSE)).decrypt(nonce, sealed, _bound_to(key.authority, key.id))
    except (InvalidTag, ValueError):
        log.error("external account key %s was made under another key of the authority, and is of no use", key.id)
        return None


def _bound_to(authority: str, id: str) -> bytes:
    return f"{id}:{authority}".encode()
