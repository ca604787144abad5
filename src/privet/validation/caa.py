"""CAA (RFC 8659) with the account and the method (RFC 8657): whether the owner of a name lets us certify it.

One search for each name, from the name itself upwards. The law: no records are a yes; records we cannot get, cannot
read or do not understand are a no.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from privet.acme.attempts import Attempt, ChallengeValidator, Clock, NotProved, Proof, Prover, prove
from privet.acme.problems import Problem, ProblemType
from privet.validation.dnspersist01 import read_issuers
from privet.validation.issue_values import read_issue_value
from privet.validation.resolver import LookupFailed, Resolver
from privet.validation.trail import Trail, utc_now
from privet.validation.validator import Wrapper

CRITICAL = 0x80  # RFC 8659 §4.1
# What there is to understand. `iodef` asks for a report that we do not send, `issuemail` (RFC 9495) is not about us.
_KNOWN = frozenset({b"issue", b"issuewild", b"issuemail", b"iodef"})
_METHODS = re.compile(r"(?:[A-Za-z0-9-]+(?:,[A-Za-z0-9-]+)*)?")


class Property(NamedTuple):
    """A CAA record."""

    flags: int
    tag: bytes
    value: bytes


class CAA:
    """The CAA records of names, and what they mean for us: `issuers` are the domain names we go by, those in the
    directory's `caaIdentities`. Raises `ValueError` for what is no domain name."""

    def __init__(self, issuers: Sequence[str], *, resolver: Resolver | None = None) -> None:
        self.issuers = read_issuers(issuers)
        self.resolver = resolver or Resolver()

    async def find(self, name: str, trail: Trail) -> tuple[str, Sequence[Property]]:
        """The records that count for a name, and where they are; an empty name if there are none (RFC 8659 §3).
        Raises `Problem`."""
        domain = name
        while domain:
            try:
                found = await self.resolver.caa(domain, trail)
            except LookupFailed as failure:
                raise Problem(
                    ProblemType.DNS, f"the CAA records of {domain} could not be looked up: {failure}"
                ) from None
            if found:
                return domain, [Property(*each) for each in found]
            domain = domain.partition(".")[2]
        return "", ()

    async def check(self, attempt: Attempt, method: str, trail: Trail) -> str:
        """Return where the records are that let us certify the name (empty: there are none). Raises `Problem`."""
        if attempt.identifier_type != "dns":
            return ""  # RFC 8659 is about domain names
        domain, properties = await self.find(attempt.identifier, trail)
        objection = judge(properties, self.issuers, wildcard=attempt.wildcard, account=attempt.account, method=method)
        if objection is not None:
            raise Problem(ProblemType.CAA, f"the CAA records of {domain} do not allow {attempt.name}: {objection}")
        return domain


def judge(
    properties: Sequence[Property], issuers: Sequence[str], *, wildcard: bool, account: str | None, method: str
) -> str | None:
    """Why these records forbid it; None if they do not."""
    tags = [each.tag.lower() for each in properties]
    # §4.5: a critical property that is not understood may forbid anything.
    if any(each.flags & CRITICAL and tag not in _KNOWN for each, tag in zip(properties, tags, strict=True)):
        return "one of them is critical and not known here"
    # §4.3: for a wildcard, issuewild counts in place of issue, if there is one.
    relevant = b"issuewild" if wildcard and b"issuewild" in tags else b"issue"
    values = [each.value for each, tag in zip(properties, tags, strict=True) if tag == relevant]
    if not values:
        return None
    objection = f"none of them names this issuer ({' or '.join(issuers)})"
    for value in map(read_issue_value, values):
        # §4.2: what is malformed names nobody.
        if value is None or value.issuer not in issuers:
            continue
        accounts, methods = value.all("accounturi"), value.all("validationmethods")
        # RFC 8657 §3: another account, or a parameter given twice, cannot be satisfied. Compared as strings.
        if accounts and accounts != [account]:
            objection = "they name another account"
        elif methods and not (len(methods) == 1 and _METHODS.fullmatch(methods[0]) and method in methods[0].split(",")):
            objection = f"they do not allow {method}"
        else:
            return None
    return objection


class CheckingCAA(Wrapper):
    """A validator, and after it CAA: what it proves is good if the records allow it too. Records that name an account
    allow nobody if we are not told who asks."""

    def __init__(
        self, validator: ChallengeValidator | Prover, caa: CAA, *, method: str = "", now: Clock = utc_now
    ) -> None:
        super().__init__(validator, method=method, now=now)
        if not self.method:
            raise ValueError("the method is needed: records may name those they allow")
        self.caa = caa

    @property
    def directory_meta(self) -> Mapping[str, object]:
        """RFC 8555 §7.1.1: "hostnames that the ACME server recognizes as referring to itself"."""
        return {**super().directory_meta, "caaIdentities": list(self.caa.issuers)}

    async def prove(self, attempt: Attempt) -> Proof:
        proof = await prove(self.validator, attempt, method=self.method, now=self.now)
        trail = Trail(proof.steps, attempt.account or "")
        try:
            domain = await self.caa.check(attempt, proof.method, trail)
        except Problem as problem:
            raise NotProved.from_problem(problem, proof.method, trail.steps) from None
        return replace(proof, caa=domain, steps=trail.steps)
