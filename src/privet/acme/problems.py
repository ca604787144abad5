"""Problem documents (RFC 8555 §6.7, RFC 7807): every way of saying no.

One table gives each problem its URN and its HTTP status; neither is written anywhere else.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

from privet.acme.identifiers import Identifier

URN = "urn:ietf:params:acme:error:"


class ProblemType(Enum):
    """Why a request is refused: the type's name below `urn:ietf:params:acme:error:`, and the status it is sent with."""

    ACCOUNT_DOES_NOT_EXIST = ("accountDoesNotExist", 400)
    ALREADY_REVOKED = ("alreadyRevoked", 400)
    BAD_CSR = ("badCSR", 400)
    BAD_NONCE = ("badNonce", 400)
    BAD_PUBLIC_KEY = ("badPublicKey", 400)
    BAD_REVOCATION_REASON = ("badRevocationReason", 400)
    BAD_SIGNATURE_ALGORITHM = ("badSignatureAlgorithm", 400)
    CAA = ("caa", 403)
    COMPOUND = ("compound", 400)
    CONNECTION = ("connection", 400)
    DNS = ("dns", 400)
    EXTERNAL_ACCOUNT_REQUIRED = ("externalAccountRequired", 403)
    INCORRECT_RESPONSE = ("incorrectResponse", 403)
    INVALID_CONTACT = ("invalidContact", 400)
    MALFORMED = ("malformed", 400)
    ORDER_NOT_READY = ("orderNotReady", 403)
    RATE_LIMITED = ("rateLimited", 429)
    REJECTED_IDENTIFIER = ("rejectedIdentifier", 403)
    SERVER_INTERNAL = ("serverInternal", 500)
    TLS = ("tls", 400)
    UNAUTHORIZED = ("unauthorized", 403)
    UNSUPPORTED_CONTACT = ("unsupportedContact", 400)
    UNSUPPORTED_IDENTIFIER = ("unsupportedIdentifier", 400)
    USER_ACTION_REQUIRED = ("userActionRequired", 403)

    # The same types with the status that HTTP, or one sentence of the RFC, asks for.
    ACCOUNT_NOT_VALID = ("unauthorized", 401)  # §7.3.6
    CONFLICT = ("malformed", 409)  # §7.3.5: the new key already has an account
    CONTENT_TOO_LARGE = ("malformed", 413)
    METHOD_NOT_ALLOWED = ("malformed", 405)  # §6.3
    NOT_ACCEPTABLE = ("malformed", 406)
    NOT_FOUND = ("malformed", 404)
    UNAVAILABLE = ("serverInternal", 503)
    UNSUPPORTED_MEDIA_TYPE = ("malformed", 415)  # §6.2

    @property
    def urn(self) -> str:
        return URN + self.value[0]

    @property
    def status(self) -> int:
        return self.value[1]


@dataclass(frozen=True, slots=True)
class Subproblem:
    """What is wrong with one of several identifiers (RFC 8555 §6.7.1)."""

    type: ProblemType
    detail: str
    identifier: Identifier | None = None

    def to_json(self) -> dict[str, object]:
        document: dict[str, object] = {"type": self.type.urn, "detail": self.detail}
        if self.identifier:
            document["identifier"] = self.identifier.to_json()
        return document


class Problem(Exception):  # noqa: N818 - the RFC's word
    """A refusal. `detail` is one sentence for the person at the other end."""

    def __init__(
        self,
        type: ProblemType,
        detail: str,
        *,
        subproblems: Sequence[Subproblem] = (),
        algorithms: Sequence[str] = (),
        instance: str | None = None,
        headers: Mapping[str, str] | None = None,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(detail)
        self.type = type
        self.detail = detail
        self.subproblems = tuple(subproblems)
        self.algorithms = tuple(algorithms)
        self.instance = instance
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after.total_seconds())))

    def __str__(self) -> str:
        return f"{self.type.value[0]}: {self.detail}"

    def to_json(self) -> dict[str, object]:
        document: dict[str, object] = {"type": self.type.urn, "detail": self.detail, "status": self.type.status}
        if self.subproblems:
            document["subproblems"] = [subproblem.to_json() for subproblem in self.subproblems]
        if self.algorithms:
            document["algorithms"] = list(self.algorithms)
        if self.instance:
            document["instance"] = self.instance
        return document


def compound(subproblems: Sequence[Subproblem]) -> Problem:
    """Refuse completely: one problem that names everything that is wrong (RFC 8555 §6.7.1)."""
    first = subproblems[0]
    if len(subproblems) == 1:
        return Problem(first.type, first.detail, subproblems=subproblems)
    types = {subproblem.type for subproblem in subproblems}
    common = first.type if len(types) == 1 else ProblemType.COMPOUND
    return Problem(common, f"{first.detail}; and {len(subproblems) - 1} more, see subproblems", subproblems=subproblems)
