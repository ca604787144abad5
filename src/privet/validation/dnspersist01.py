"""dns-persist-01 (draft-ietf-acme-dns-persist-02): a TXT record that stays, and names the account.

The record's value is written like a CAA `issue` value, and `accounturi` in it is a hash of the name, the account's key
and the account's URL, so it is good for no other account.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import ClassVar

from privet.acme.attempts import Attempt, Clock
from privet.acme.encoding import to_base64url
from privet.acme.identifiers import BadIdentifier, Identifier, from_json
from privet.acme.problems import Problem, ProblemType
from privet.validation.dns01 import look_up_texts
from privet.validation.issue_values import IssueValue, read_issue_value
from privet.validation.resolver import Resolver
from privet.validation.trail import Trail, utc_now
from privet.validation.validator import Validator

_PREFIX = re.compile(r"[a-z][a-z0-9+.-]*:[\x21-\x3a\x3c-\x7e]*", re.IGNORECASE)
_SECONDS = re.compile(r"[0-9]{1,20}")
_LAST = datetime(9999, 12, 31, tzinfo=UTC)


class DNSPersist01Validator(Validator):
    """Looks for a TXT record `_validation-persist.IDENTIFIER` that names one of `issuers`, our own domain names, and
    the account; for a wildcard it must say `policy=wildcard`. With `subdomains` a record with that policy at a name
    above is good too: then whoever may write that record decides about every name below it.

    `account_hash_prefix` begins every account's hash, and must stay as it is. Needs to be told the account's URL:
    `Attempt.account`; the hashes of its earlier keys count if they are there as well. With `account_urls` a record may
    also name the account by its URL, as the draft had it until -01 and its clients may still have it; such a record
    says nothing of the key.
    """

    method: ClassVar[str] = "dns-persist-01"
    for_wildcards: ClassVar[bool] = True

    def __init__(
        self,
        issuers: Sequence[str],
        account_hash_prefix: str,
        *,
        resolver: Resolver | None = None,
        subdomains: bool = False,
        account_urls: bool = False,
        timeout: float = 10.0,
        now: Clock = utc_now,
    ) -> None:
        super().__init__(timeout=timeout, now=now)
        self.issuers = read_issuers(issuers)
        if not _PREFIX.fullmatch(account_hash_prefix):
            raise ValueError(f"{account_hash_prefix!a} is not the beginning of a URI")
        self.account_hash_prefix = account_hash_prefix
        self._hash = re.compile(rf"{re.escape(account_hash_prefix)}sha-256/[A-Za-z0-9_-]{{43}}")
        self.resolver = resolver or Resolver()
        self.subdomains = subdomains
        self.account_urls = account_urls

    @property
    def challenge_fields(self) -> Mapping[str, object]:
        """§3.1: what the challenge object says besides."""
        return {"issuerDomainNames": list(self.issuers)}

    @property
    def directory_meta(self) -> Mapping[str, object]:
        """§3.2, §4.1: what the directory says, so that records can be made before any order."""
        return {"issuerDomainNames": list(self.issuers), "accountHashPrefix": self.account_hash_prefix}

    async def look(self, attempt: Attempt, identifier: Identifier, trail: Trail) -> datetime | None:
        if attempt.account is None:
            raise Problem(ProblemType.SERVER_INTERNAL, f"{self.method} was not told which account asks")
        first: Problem | None = None
        for name in self._names(identifier.value):
            below = attempt.wildcard or name != identifier.value
            try:
                texts = await look_up_texts(self.resolver, f"_validation-persist.{name}", trail)
                return self.judge(texts, name, below, attempt.account, thumbprints(attempt))
            except Problem as problem:
                first = first or problem
        assert first is not None
        raise first

    def _names(self, name: str) -> Iterator[str]:
        """Where to look. §6.1: a name above vouches for those below, but nobody owns all of a top-level domain."""
        yield name
        while self.subdomains and "." in (name := name.partition(".")[2]):
            yield name

    def judge(
        self, texts: Iterable[bytes], name: str, wildcard: bool, account: str, keys: Sequence[str]
    ) -> datetime | None:
        """Return until when the records at a name vouch for the account, None for no end; of several that do, the
        one that lasts longest. Raises `Problem` if none does."""
        accounts = {self.account_hash(domain, key, account) for domain in (name, "*") for key in keys}
        if self.account_urls:
            accounts.add(account)
        problems: list[Problem] = []
        ends: list[datetime | None] = []
        for value in map(read_issue_value, texts):
            # §4.3.2: what is another issuer's is ignored, whatever is in it.
            if value is not None and value.issuer in self.issuers:
                try:
                    ends.append(self._judge(value, name, wildcard, accounts))
                except Problem as problem:
                    problems.append(problem)
        if ends:
            return None if None in ends else max(end for end in ends if end is not None)
        if problems:
            raise problems[0]
        raise _refused(name, ProblemType.UNAUTHORIZED, f"is for this issuer ({' or '.join(self.issuers)})", "no")

    def _judge(self, value: IssueValue, name: str, wildcard: bool, accounts: set[str]) -> datetime | None:
        for tag in ("accounturi", "policy", "persistuntil"):
            if len(value.all(tag)) > 1:
                raise _refused(name, ProblemType.MALFORMED, f"has {tag} more than once")
        uris, policies, untils = value.all("accounturi"), value.all("policy"), value.all("persistuntil")
        if not uris or not uris[0]:
            raise _refused(name, ProblemType.MALFORMED, "has no accounturi")
        end = None
        if untils:
            if not _SECONDS.fullmatch(untils[0]):
                raise _refused(name, ProblemType.MALFORMED, "has a persistUntil that is not a number of seconds")
            end = datetime.fromtimestamp(min(int(untils[0]), int(_LAST.timestamp())), UTC)
        if not self.account_urls and not self._hash.fullmatch(uris[0]):
            raise _refused(name, ProblemType.MALFORMED, "has an accounturi that is no hash as this server wants it")
        # §4.1: simple string comparison, nothing normalized.
        if uris[0] not in accounts:
            raise _refused(name, ProblemType.UNAUTHORIZED, "names another account, or another key of it")
        if end is not None and end <= self.now():
            raise _refused(name, ProblemType.UNAUTHORIZED, "has a persistUntil that is over")
        if wildcard and [policy.lower() for policy in policies] != ["wildcard"]:
            raise _refused(name, ProblemType.UNAUTHORIZED, "is for that name alone, without policy=wildcard")
        return end

    def account_hash(self, domain: str, thumbprint: str, account: str) -> str:
        """What `accounturi` has to be (§4.1). `*` for a domain makes one that is good for all."""
        digest = hashlib.sha256(bytes([len(domain)]) + domain.encode() + thumbprint.encode() + account.encode())
        return f"{self.account_hash_prefix}sha-256/{to_base64url(digest.digest())}"


def thumbprints(attempt: Attempt) -> tuple[str, ...]:
    """The present key's, out of the key authorization, and then those of earlier keys."""
    return (attempt.key_authorization.partition(".")[2], *attempt.thumbprints)


def read_issuers(issuers: Sequence[str]) -> tuple[str, ...]:
    """§3.1: one to ten domain names, in lower case and A-labels. Raises `ValueError`."""
    if isinstance(issuers, str) or not 1 <= len(issuers) <= 10:
        raise ValueError("issuers is a list of one to ten domain names")
    try:
        names = [from_json("dns", issuer) for issuer in issuers]
    except BadIdentifier as error:
        raise ValueError(str(error)) from None
    if any(name.wildcard for name in names):
        raise ValueError("an issuer is a domain name, not a wildcard")
    return tuple(name.value for name in names)


def _refused(name: str, type: ProblemType, what: str, which: str = "the") -> Problem:
    return Problem(type, f"{which} TXT record at _validation-persist.{name} {what}")
