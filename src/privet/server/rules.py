"""A policy for those who write no Python: a list of rules, read from TOML.

The law: the first rule that fits decides about a name, and what no rule fits is refused. A rule fits by the name and by
who asks; everything else it says is then a condition, and who does not meet it is refused, not handed on.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from privet.acme.identifiers import Identifier
from privet.acme.problems import Problem, ProblemType, Subproblem, compound
from privet.ca.keys import KeyType
from privet.server.durations import read_duration
from privet.server.names import (
    BadPattern,
    IPNetwork,
    Names,
    is_in,
    read_address,
    read_all,
    read_network,
    read_text_pattern,
)
from privet.server.policy import Applicant, Decision, Ruling
from privet.server.tables import (
    Mistaken,
    Reader,
    Table,
    read_count,
    read_flag,
    read_key_types,
    read_name,
    read_names,
    read_tables,
    read_texts,
)

_DECISIONS = {"allow": Decision.PROVE, "trust": Decision.TRUST, "ask": Decision.ASK, "deny": None}


class BadRules(Mistaken):
    """The rules cannot be followed. `mistakes` has a sentence for each reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule. Without a decision it denies."""

    name: str
    decision: Decision | None
    names: Names
    external_keys: tuple[str, ...] = ()
    clients: tuple[IPNetwork, ...] = ()
    client_certificates: tuple[re.Pattern[str], ...] = ()
    wildcard: bool = False
    key_types: tuple[KeyType, ...] = ()
    max_lifetime: timedelta | None = None
    max_names: int | None = None
    reason: str = ""

    @property
    def strict(self) -> bool:
        """Whether it is there to keep something from somebody: then doubts count against who asks."""
        return self.decision in (None, Decision.ASK)

    def is_for(self, applicant: Applicant) -> bool:
        return (
            self._has_key(applicant.external_account_name)
            and self._is_from(applicant.client)
            and self._has_certificate(applicant)
        )

    def is_about(self, identifier: Identifier) -> bool:
        return self.names.touch(identifier) if self.strict else self.names.cover(identifier)

    def _has_key(self, name: str | None) -> bool:
        return not self.external_keys or name in self.external_keys

    def _is_from(self, client: str) -> bool:
        if not self.clients:
            return True
        address = read_address(client)
        return self.strict if address is None else is_in(address, self.clients)

    def _has_certificate(self, applicant: Applicant) -> bool:
        if not self.client_certificates:
            return True
        shown = applicant.client_certificate
        names = [] if shown is None else [*shown.names, *([shown.common_name] if shown.common_name else [])]
        return any(pattern.fullmatch(name.lower()) for pattern in self.client_certificates for name in names)

    def objection(self, identifier: Identifier, count: int, lifetime: timedelta | None) -> str | None:
        """Why the rule that fits refuses, if it does."""
        by = f"the rule {self.name!r}"
        if self.decision is None:
            return f"{identifier} is denied by {by}{f': {self.reason}' if self.reason else ''}"
        if identifier.wildcard and not self.wildcard:
            return f"{identifier} is a wildcard, and {by} allows none"
        if self.max_names is not None and count > self.max_names:
            return f"{identifier} is one of {count} names, and {by} allows {self.max_names} in one certificate"
        if self.max_lifetime is not None and lifetime is not None and lifetime > self.max_lifetime:
            return f"{identifier} is allowed by {by} for {self.max_lifetime} at most; ask for a nearer notAfter"
        return None


class Verdict(NamedTuple):
    """What becomes of a name: the decision (None: refused, with the reason) and the rule that made it, if one did."""

    identifier: Identifier
    decision: Decision | None
    rule: Rule | None
    reason: str = ""
    problem: ProblemType = ProblemType.REJECTED_IDENTIFIER


class Rules:
    """A `Policy` and `CertificatePolicy` that follows rules."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)

    @classmethod
    def from_toml(cls, text: str, where: str = "the policy") -> "Rules":
        """Read them, in full. Raises `BadRules`."""
        tables, mistakes = read_tables(text, "rule", where)
        rules: list[Rule] = []
        for table in tables:
            rule = _read(table)
            if rule is not None:
                rules.append(rule)
            mistakes += table.mistakes
        if mistakes:
            raise BadRules(mistakes)
        return cls(rules)

    def judge(
        self, applicant: Applicant, identifiers: Sequence[Identifier], key_type: KeyType | None = None
    ) -> Iterator[Verdict]:
        """What becomes of each name."""
        ours = [rule for rule in self.rules if rule.is_for(applicant)]
        for identifier in identifiers:
            rule = next((rule for rule in ours if rule.is_about(identifier)), None)
            if rule is None:
                yield Verdict(identifier, None, None, f"{identifier} is allowed by no rule")
                continue
            reason = rule.objection(identifier, len(identifiers), applicant.lifetime)
            if reason is not None:
                yield Verdict(identifier, None, rule, reason)
            elif key_type is not None and rule.key_types and key_type not in rule.key_types:
                types = " or ".join(rule.key_types)
                reason = f"{identifier} is allowed by the rule {rule.name!r} for keys of type {types}, not {key_type}"
                yield Verdict(identifier, None, rule, reason, ProblemType.BAD_CSR)
            else:
                yield Verdict(identifier, rule.decision, rule)

    def allow_account(self, applicant: Applicant) -> None:
        """An account is for those who may have something with it."""
        if any(rule.decision and rule.is_for(applicant) for rule in self.rules):
            return
        if applicant.external_account is None and any(rule.decision and rule.external_keys for rule in self.rules):
            raise Problem(
                ProblemType.EXTERNAL_ACCOUNT_REQUIRED, "no rule is for you without an external account key; ask for one"
            )
        raise Problem(ProblemType.UNAUTHORIZED, "no rule here is for you")

    def allow_order(self, applicant: Applicant, identifiers: Sequence[Identifier]) -> dict[Identifier, Ruling]:
        return {
            verdict.identifier: Ruling(verdict.decision, verdict.rule.name)
            for verdict in _allowed(self.judge(applicant, identifiers))
            if verdict.decision and verdict.rule
        }

    def allow_certificate(
        self, applicant: Applicant, identifiers: Sequence[Identifier], key_type: KeyType
    ) -> timedelta | None:
        verdicts = _allowed(self.judge(applicant, identifiers, key_type))
        lifetimes = [each.rule.max_lifetime for each in verdicts if each.rule and each.rule.max_lifetime]
        return min(lifetimes, default=None)


def _allowed(verdicts: Iterator[Verdict]) -> list[Verdict]:
    """All of them, if all are allowed. Raises `Problem`, which names all that are not."""
    found = list(verdicts)
    wrong = [Subproblem(each.problem, each.reason, each.identifier) for each in found if each.decision is None]
    if wrong:
        raise compound(wrong)
    return found


def _read(table: Table) -> Rule | None:
    """The rule, if nothing is wrong with it."""
    table.check_keys(_KEYS)
    verbs = [verb for verb in _DECISIONS if verb in table]
    if len(verbs) != 1:
        table.say(f"needs one of {', '.join(_DECISIONS)}, and has {' and '.join(verbs) or 'none'}")
    for key in ("wildcard", "key-types", "max-lifetime", "max-names"):
        if key in table and verbs == ["deny"]:
            table.say(f"has {key}, which means nothing where everything is denied")
    if "reason" in table and verbs and verbs != ["deny"]:
        table.say("has a reason, which is for rules that deny")
    values = table.read(_KEYS)
    if table.mistakes:
        return None
    names = next(values.pop("names:" + verb) for verb in verbs)
    return Rule(decision=_DECISIONS[verbs[0]], names=names, **values)


def _external_keys(value: object) -> tuple[str, ...]:
    keys = read_texts(value)
    for key in keys:
        if "*" in key or "?" in key:
            raise ValueError(f"takes names of keys as they are, without * and ?, not {key!a}")
    return tuple(keys)


def _networks(value: object) -> tuple[IPNetwork, ...]:
    try:
        return tuple(read_all(read_texts(value), read_network))
    except BadPattern as error:
        raise ValueError(f"has a network that is none: {error}") from None


def _certificates(value: object) -> tuple[re.Pattern[str], ...]:
    try:
        return tuple(read_all(read_texts(value), read_text_pattern))
    except BadPattern as error:
        raise ValueError(f"has a name that is none: {error}") from None


# What a rule may have: the field it becomes, and how it is read.
_KEYS: Mapping[str, tuple[str, Reader]] = {
    "name": ("name", read_name),
    **{verb: (f"names:{verb}", read_names) for verb in _DECISIONS},
    "external-key": ("external_keys", _external_keys),
    "client": ("clients", _networks),
    "client-certificate": ("client_certificates", _certificates),
    "wildcard": ("wildcard", read_flag),
    "key-types": ("key_types", read_key_types),
    "max-lifetime": ("max_lifetime", read_duration),
    "max-names": ("max_names", read_count),
    "reason": ("reason", read_name),
}
