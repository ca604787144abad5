"""Accounts, orders, authorizations and challenges as they are kept (RFC 8555 §7.1).

Each is a frozen value with verbs that return the next one; ids are kept, URLs are not. A value remembers the version
at which it was read, and `Record` carries that to the store. They are named tuples because a request makes dozens of
them, and a frozen dataclass takes ten times as long to make or to replace.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from privet.acme.challenges import ChallengeType
from privet.acme.encoding import to_json
from privet.acme.identifiers import Identifier, IdentifierType
from privet.acme.problems import Problem
from privet.acme.status import ACCOUNT, AUTHORIZATION, CHALLENGE, ORDER, Event, Status, advance
from privet.server.policy import Decision, Ruling
from privet.stores.base import Record

ProblemDocument = Mapping[str, object]
Validation = Mapping[str, Any]

# Of how many earlier keys an account remembers the thumbprints.
EARLIER_KEYS = 500


class Kind(StrEnum):
    """What the store is told these are."""

    ACCOUNT = "account"
    AUTHORIZATION = "authorization"
    EXTERNAL_ACCOUNT_KEY = "external-account-key"
    ORDER = "order"


# The index name of all authorizations that wait.
PENDING = "pending"
# The method of whoever decides without a challenge.
PERSON = "person"


class Named(Protocol):
    """Whatever can be checked for not having changed."""

    @property
    def kind(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def version(self) -> int: ...


class Account(NamedTuple):
    """An account (§7.1.2). `jwk` is its public key, `thumbprint` that key's unique name."""

    id: str
    status: Status
    jwk: Mapping[str, str]
    thumbprint: str
    contact: tuple[str, ...]
    terms_of_service_agreed: bool
    external_account: str | None
    binding: object | None
    created: datetime
    expires: datetime
    authority: str
    """The authority it is an account with. Others may share the store, and their terms are their own."""
    earlier: tuple[str, ...] = ()
    """The thumbprints of its earlier keys, newest first: records that stay may name them (dns-persist-01 §4.2)."""
    version: int = 0

    @property
    def kind(self) -> str:
        return Kind.ACCOUNT

    def to_record(self) -> Record:
        body = {
            "status": self.status,
            "jwk": self.jwk,
            "thumbprint": self.thumbprint,
            "contact": self.contact,
            "agreed": self.terms_of_service_agreed,
            "external": self.external_account,
            "binding": self.binding,
            "created": _to_seconds(self.created),
            "authority": self.authority,
            "earlier": self.earlier,
        }
        name = key_name(self.authority, self.thumbprint)
        return Record(Kind.ACCOUNT, self.id, to_json(body), self.version, unique=(name,), expires=self.expires)

    @classmethod
    def from_record(cls, record: Record) -> Account:
        body = json.loads(record.body)
        assert record.expires is not None
        return cls(
            id=record.id,
            status=Status(body["status"]),
            jwk=body["jwk"],
            thumbprint=body["thumbprint"],
            contact=tuple(body["contact"]),
            terms_of_service_agreed=body["agreed"],
            external_account=body["external"],
            binding=body["binding"],
            created=_from_seconds(body["created"]),
            expires=record.expires,
            authority=body["authority"],
            earlier=tuple(body.get("earlier", ())),
            version=record.version,
        )

    def deactivate(self) -> Account:
        return self._replace(status=advance(ACCOUNT, self.status, Event.DEACTIVATED))

    def change_key(self, jwk: Mapping[str, str], thumbprint: str) -> Account:
        earlier = (self.thumbprint, *[each for each in self.earlier if each != thumbprint])
        return self._replace(jwk=jwk, thumbprint=thumbprint, earlier=earlier[:EARLIER_KEYS])

    def lapse(self) -> Account:
        """Gone, though its record is not yet: the key is free for another account."""
        return self._replace(thumbprint=f"lapsed:{self.id}")


class Challenge(NamedTuple):
    """One way to prove control (§7.1.5).

    `thumbprint` is that of the key the account had when it answered: the key authorization belongs to that key, also
    when the account has changed it since. Whoever validates holds the challenge until `lease`.
    """

    type: ChallengeType
    token: str
    status: Status = Status.PENDING
    thumbprint: str | None = None
    lease: datetime | None = None
    validated: datetime | None = None
    error: ProblemDocument | None = None

    def answer(self, thumbprint: str, lease: datetime | None) -> Challenge:
        status = advance(CHALLENGE, self.status, Event.ANSWERED)
        return self._replace(status=status, thumbprint=self.thumbprint or thumbprint, lease=lease)

    def validate(self, now: datetime) -> Challenge:
        status = advance(CHALLENGE, self.status, Event.VALIDATED)
        return self._replace(status=status, validated=now, lease=None)

    def refuse(self, problem: Problem) -> Challenge:
        status = advance(CHALLENGE, self.status, Event.REFUSED)
        return self._replace(status=status, error=problem.to_json(), lease=None)

    def to_json(self) -> list[object]:
        lease, validated = _to_seconds_or_none(self.lease), _to_seconds_or_none(self.validated)
        since = (self.thumbprint, lease, validated, self.error)
        return [self.type, self.token, self.status, *(() if since == _NOTHING else since)]

    @classmethod
    def from_json(cls, value: Sequence[Any]) -> Challenge:
        type, token, status, *since = value
        thumbprint, lease, validated, error = since or _NOTHING
        return cls(
            type=ChallengeType(type),
            token=token,
            status=Status(status),
            thumbprint=thumbprint,
            lease=_from_seconds_or_none(lease),
            validated=_from_seconds_or_none(validated),
            error=error,
        )


class Authorization(NamedTuple):
    """That an account controls an identifier, or how it may prove it (§7.1.4)."""

    id: str
    status: Status
    account: str
    identifier: Identifier
    challenges: tuple[Challenge, ...]
    created: datetime
    expires: datetime
    ahead: bool = False
    """Made by newAuthz, to be taken up by orders that come later (§7.4.1)."""
    client: str = ""
    """The address that asked, for the person who decides."""
    order: str | None = None
    """The order it was made for."""
    validation: Validation | None = None
    """What was done to find out, and by whom: `Proof.to_json()`, or the steps up to a refusal. Never for the client."""
    ruling: Ruling = Ruling(Decision.PROVE)
    """What the policy decided, and by which rule."""
    version: int = 0

    @property
    def kind(self) -> str:
        return Kind.AUTHORIZATION

    def to_record(self) -> Record:
        body = {
            "status": self.status,
            "account": self.account,
            "identifier": [self.identifier.type, self.identifier.value],
            "challenges": [challenge.to_json() for challenge in self.challenges],
            "created": _to_seconds(self.created),
            "ahead": self.ahead,
            "client": self.client,
            "order": self.order,
            "validation": self.validation,
            "ruling": _from_ruling(self.ruling),
        }
        index = [authorized_name(self.account, self.identifier)]
        if self.status is Status.PENDING:
            index += [PENDING, f"pending:{self.account}"]
        if self.status is Status.VALID and self.proof is not None:
            index.append(proved_name(self.account, self.identifier))
        if self.ahead and self.status in (Status.PENDING, Status.VALID):
            index.append(f"ahead:{self.account}")
        return Record(
            Kind.AUTHORIZATION, self.id, to_json(body), self.version, index=tuple(index), expires=self.expires
        )

    @classmethod
    def from_record(cls, record: Record) -> Authorization:
        body = json.loads(record.body)
        assert record.expires is not None
        return cls(
            id=record.id,
            status=Status(body["status"]),
            account=body["account"],
            identifier=_identifier(body["identifier"]),
            challenges=tuple(map(Challenge.from_json, body["challenges"])),
            created=_from_seconds(body["created"]),
            expires=record.expires,
            ahead=body["ahead"],
            client=body["client"],
            order=body.get("order"),
            validation=body.get("validation"),
            ruling=_ruling(body.get("ruling", _UNKNOWN)),
            version=record.version,
        )

    def challenge(self, type: str) -> Challenge | None:
        return next((challenge for challenge in self.challenges if challenge.type == type), None)

    def with_challenge(self, challenge: Challenge) -> Authorization:
        """The same with one challenge replaced; its outcome, if it has one, is the authorization's (§7.1.6)."""
        challenges = tuple(challenge if each.type is challenge.type else each for each in self.challenges)
        status = self.status
        if challenge.status is Status.VALID:
            status = advance(AUTHORIZATION, status, Event.VALIDATED)
        elif challenge.status is Status.INVALID:
            status = advance(AUTHORIZATION, status, Event.REFUSED)
        return self._replace(challenges=challenges, status=status)

    def decide(self, challenge: Challenge, validation: Validation, expires: datetime | None = None) -> Authorization:
        """The same with a challenge that is decided, what led to that, and until when it is good."""
        return self.with_challenge(challenge)._replace(validation=validation, expires=expires or self.expires)

    def deactivate(self) -> Authorization:
        return self._replace(status=advance(AUTHORIZATION, self.status, Event.DEACTIVATED))

    def settle(self, now: datetime) -> Authorization:
        """What it is by this hour: nothing stays pending or valid past its expiry."""
        if now < self.expires or (self.status, Event.EXPIRED) not in AUTHORIZATION:
            return self
        return self._replace(status=advance(AUTHORIZATION, self.status, Event.EXPIRED))

    @property
    def error(self) -> ProblemDocument | None:
        return next((challenge.error for challenge in self.challenges if challenge.error), None)

    @property
    def proof(self) -> Validation | None:
        """What was proved, when, by which method and with which steps; None if nothing was, or nothing had to be."""
        return self.validation if self.validation is not None and "validated" in self.validation else None

    def proved_by(self, now: datetime, within: timedelta) -> str | None:
        """The method by which it was proved no longer ago than this, if it is good still."""
        validated = next((each.validated for each in self.challenges if each.validated), None)
        if self.proof is None or validated is None or self.settle(now).status is not Status.VALID:
            return None
        return str(self.proof["method"]) if now < validated + within else None


class Order(NamedTuple):
    """An order (§7.1.3). Kept as pending, processing, valid or invalid; whether it is ready, `settle` derives."""

    id: str
    status: Status
    account: str
    identifiers: tuple[Identifier, ...]
    authorizations: tuple[str, ...]
    not_before: datetime | None
    not_after: datetime | None
    expires: datetime
    certificate: str | None = None
    """The certificate's id, from the moment it is about to be signed."""
    started: datetime | None = None
    """When the signing began, so that somebody else can finish it if it never ended."""
    error: ProblemDocument | None = None
    kept_until: datetime | None = None
    """A valid order is kept as long as its certificate."""
    shared: tuple[str, ...] = ()
    """Those of its authorizations that were there before it."""
    proofs: tuple[Validation, ...] = ()
    """What its authorizations were proved by when it was finalized: kept as long as the certificate."""
    rulings: tuple[Ruling, ...] = ()
    """What the policy decided about each of its identifiers: kept here too, since the order outlives its
    authorizations."""
    version: int = 0

    @property
    def kind(self) -> str:
        return Kind.ORDER

    def to_record(self) -> Record:
        body = {
            "status": self.status,
            "account": self.account,
            "identifiers": [[identifier.type, identifier.value] for identifier in self.identifiers],
            "authorizations": self.authorizations,
            "expires": _to_seconds(self.expires),
        }
        usual = self.rulings == (_USUAL,) * len(self.identifiers)
        perhaps = {
            "notBefore": _to_seconds_or_none(self.not_before),
            "notAfter": _to_seconds_or_none(self.not_after),
            "certificate": self.certificate,
            "started": _to_seconds_or_none(self.started),
            "error": self.error,
            "shared": self.shared,
            "proofs": self.proofs,
            "rulings": None if usual else [_from_ruling(ruling) for ruling in self.rulings],
        }
        # There is an order for each certificate on record, so what says nothing is left out.
        body |= {name: value for name, value in perhaps.items() if value not in (None, ())}
        index: tuple[str, ...] = (f"account:{self.account}",)
        if self.status not in (Status.VALID, Status.INVALID):
            index += (f"open:{self.account}", *map(sharing_name, self.shared))
        return Record(
            Kind.ORDER, self.id, to_json(body), self.version, index=index, expires=self.kept_until or self.expires
        )

    @classmethod
    def from_record(cls, record: Record) -> Order:
        body = json.loads(record.body)
        get = body.get
        return cls(
            id=record.id,
            status=Status(body["status"]),
            account=body["account"],
            identifiers=tuple(map(_identifier, body["identifiers"])),
            authorizations=tuple(body["authorizations"]),
            not_before=_from_seconds_or_none(get("notBefore")),
            not_after=_from_seconds_or_none(get("notAfter")),
            expires=_from_seconds(body["expires"]),
            certificate=get("certificate"),
            started=_from_seconds_or_none(get("started")),
            error=get("error"),
            kept_until=record.expires,
            shared=tuple(get("shared", ())),
            proofs=tuple(get("proofs", ())),
            rulings=tuple(map(_ruling, get("rulings", [_UNKNOWN] * len(body["identifiers"])))),
            version=record.version,
        )

    def refuse(self, authorization: Authorization) -> Order:
        """Without one of its authorizations it cannot be fulfilled any more (§7.1.6)."""
        return self._replace(status=advance(ORDER, self.status, Event.REFUSED), error=authorization.error)

    def begin(
        self, certificate: str, now: datetime, kept_until: datetime, proofs: tuple[Validation, ...] = ()
    ) -> Order:
        """About to be signed, once: the certificate's id is on record before the signature exists.

        From here on the record stays as long as the certificate's own, so that it can always be finished.
        """
        status = advance(ORDER, self.status, Event.FINALIZED)
        return self._replace(status=status, certificate=certificate, started=now, kept_until=kept_until, proofs=proofs)

    def resume(self, now: datetime) -> Order:
        """Taken over from whoever began to sign and was not heard of again."""
        return self._replace(started=now)

    def issued(self) -> Order:
        return self._replace(status=advance(ORDER, self.status, Event.ISSUED), started=None)

    def failed(self, problem: Problem) -> Order:
        return self._replace(status=advance(ORDER, self.status, Event.FAILED), error=problem.to_json(), started=None)


def settle(order: Order, authorizations: Sequence[Authorization | None], now: datetime) -> Order:
    """What a pending order is by its authorizations and the clock (§7.1.6): pending, ready or invalid.

    Pure, and asked every time an order is read. An authorization that is gone counts as refused.
    """
    if order.status is not Status.PENDING:
        return order
    if now >= order.expires:
        return order._replace(status=advance(ORDER, order.status, Event.EXPIRED))
    statuses = {authorization.settle(now).status if authorization else None for authorization in authorizations}
    if statuses == {Status.VALID}:
        return order._replace(status=advance(ORDER, order.status, Event.AUTHORIZED))
    if statuses <= {Status.VALID, Status.PENDING}:
        return order
    error = next((each.error for each in authorizations if each and each.error), None)
    return order._replace(status=advance(ORDER, order.status, Event.REFUSED), error=error)


def key_name(authority: str, thumbprint: str) -> str:
    """The unique name by which the account of a key is found."""
    return f"key:{thumbprint}:{authority}"


def authorized_name(account: str, identifier: Identifier) -> str:
    """The index name by which an account's authorizations for an identifier are found."""
    return f"{account}:{identifier.value}"


def proved_name(account: str, identifier: Identifier) -> str:
    """The index name by which those of them are found that were proved, and not merely trusted."""
    return f"proved:{account}:{identifier.value}"


def sharing_name(authorization: str) -> str:
    """The index name by which the open orders that took up an authorization are found."""
    return f"authorization:{authorization}"


def _identifier(value: Sequence[str]) -> Identifier:
    return Identifier(IdentifierType(value[0]), value[1])


# What records say that were written before they said it.
_UNKNOWN = ("prove", "")
_USUAL = Ruling(Decision.PROVE)
# What has come of a challenge that nobody has answered.
_NOTHING = (None, None, None, None)


def _from_ruling(ruling: Ruling) -> list[str]:
    return [ruling.decision.value, ruling.rule]


def _ruling(value: Sequence[str]) -> Ruling:
    return Ruling(Decision(value[0]), value[1])


def _to_seconds(time: datetime) -> float:
    return time.timestamp()


def _from_seconds(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _to_seconds_or_none(time: datetime | None) -> float | None:
    return None if time is None else time.timestamp()


def _from_seconds_or_none(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
