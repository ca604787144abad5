"""dns-01 (RFC 8555 §8.4) and dns-account-01 (draft-ietf-acme-dns-account-label-03): a digest in a TXT record."""

import base64
import hashlib
import hmac
from datetime import datetime
from typing import ClassVar

from privet.acme.attempts import Attempt, Clock
from privet.acme.encoding import to_base64url
from privet.acme.identifiers import Identifier
from privet.acme.problems import Problem, ProblemType
from privet.validation.resolver import LookupFailed, Resolver
from privet.validation.trail import Trail, utc_now
from privet.validation.validator import Validator


class DNS01Validator(Validator):
    """Looks for the TXT record `_acme-challenge.IDENTIFIER`. There may be several; one has to be right."""

    method: ClassVar[str] = "dns-01"
    for_wildcards: ClassVar[bool] = True

    def __init__(self, *, resolver: Resolver | None = None, timeout: float = 10.0, now: Clock = utc_now) -> None:
        super().__init__(timeout=timeout, now=now)
        self.resolver = resolver or Resolver()

    def record_name(self, attempt: Attempt, identifier: Identifier) -> str:
        return f"_acme-challenge.{identifier}"

    async def look(self, attempt: Attempt, identifier: Identifier, trail: Trail) -> datetime | None:
        name = self.record_name(attempt, identifier)
        texts = await look_up_texts(self.resolver, name, trail)
        expected = to_base64url(hashlib.sha256(attempt.key_authorization.encode()).digest()).encode()
        if not any(hmac.compare_digest(text, expected) for text in texts):
            found = "the TXT record is" if len(texts) == 1 else f"none of the {len(texts)} TXT records is"
            not_ = " not" if len(texts) == 1 else ""
            raise Problem(
                ProblemType.INCORRECT_RESPONSE, f"{found}{not_} the digest of the key authorization, at {name}"
            )
        return None


class DNSAccount01Validator(DNS01Validator):
    """Looks for the TXT record `_LABEL._acme-challenge.IDENTIFIER`, whose label is the account's own, so that several
    accounts can prove control of one name at once. Needs to be told the account's URL: `Attempt.account`."""

    method: ClassVar[str] = "dns-account-01"

    def record_name(self, attempt: Attempt, identifier: Identifier) -> str:
        if attempt.account is None:
            raise Problem(ProblemType.SERVER_INTERNAL, f"{self.method} was not told which account asks")
        return f"_{account_label(attempt.account)}._acme-challenge.{identifier}"


def account_label(account: str) -> str:
    """The label that stands for an account's URL: the base32 of the first ten bytes of its SHA-256."""
    return base64.b32encode(hashlib.sha256(account.encode()).digest()[:10]).decode().lower()


async def look_up_texts(resolver: Resolver, name: str, trail: Trail) -> tuple[bytes, ...]:
    """The TXT records, at least one. Raises `Problem`."""
    try:
        return await resolver.texts(name, trail)
    except LookupFailed as failure:
        raise Problem(ProblemType.DNS, f"{name} could not be looked up: {failure}") from None
