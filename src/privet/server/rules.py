"""A policy for those who write no Python: a list of rules, read from TOML.

The law: the first rule that fits decides about a name, and what no rule fits is refused. A rule fits by the name and by
who asks; everything else it says is then a condition, and who does not meet it is refused, not handed on.
"""

import difflib
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from privet.acme.identifiers import Identifier
from privet.acme.problems import Problem, ProblemType, Subproblem, compound
from privet.ca.keys import KeyType
from privet.server.durations import read_duration
from privet.server.names import BadPattern, IPNetwork, Names, is_in, read_address, read_network, read_text_pattern
from privet.server.policy import Applicant, Decision, Ruling

_DECISIONS = {"allow": Decision.PROVE, "trust": Decision.TRUST, "ask": Decision.ASK, "deny": None}


class BadRules(ValueError):  # noqa: N818 - its text is for whoever wrote them
    """The rules cannot be followed. `mistakes` has a sentence for each reason."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)


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
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise BadRules([f"{where} is not TOML: {error}"]) from None
        mistakes = [
            f"{name!a} in {where} means nothing there; a policy is a list of [[rule]]"
            for name in document
            if name != "rule"
        ]
        tables = document.get("rule", [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise BadRules([*mistakes, f"rule in {where} has to be written as [[rule]], with two brackets"])
        if not tables:
            raise BadRules([*mistakes, f"{where} has no [[rule]], so that nobody would get anything"])
        rules: list[Rule] = []
        names: list[object] = []
        for number, table in enumerate(tables, 1):
            reading = _Reading(table, number, where)
            rule = reading.read()
            if (name := table.get("name")) in names:
                reading.say("has the name of another rule")
            names += [name] if name is not None else []
            if rule is not None:
                rules.append(rule)
            mistakes += reading.mistakes
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


class _Reading:
    """One table on its way to a rule, and what is wrong with it."""

    def __init__(self, table: Mapping[str, object], number: int, where: str) -> None:
        self._table = table
        name = table.get("name")
        named = f" ({name})" if isinstance(name, str) and name.isprintable() else ""
        self._place = f"rule {number}{named} in {where}"
        self.mistakes: list[str] = []

    def say(self, sentence: str) -> None:
        self.mistakes.append(f"{self._place} {sentence}")

    def read(self) -> Rule | None:
        """The rule, if nothing is wrong with it."""
        for key in self._table:
            if key not in _KEYS:
                near = difflib.get_close_matches(key, _KEYS, n=1)
                self.say(f"has {key!a}, which means nothing; " + (f"did you mean {near[0]}?" if near else _KNOWN))
        verbs = [verb for verb in _DECISIONS if verb in self._table]
        if len(verbs) != 1:
            self.say(f"needs one of {', '.join(_DECISIONS)}, and has {' and '.join(verbs) or 'none'}")
        if "name" not in self._table:
            self.say("needs a name, for messages and records to call it by")
        for key in ("wildcard", "key-types", "max-lifetime", "max-names"):
            if key in self._table and verbs == ["deny"]:
                self.say(f"has {key}, which means nothing where everything is denied")
        if "reason" in self._table and verbs and verbs != ["deny"]:
            self.say("has a reason, which is for rules that deny")
        values = {field: self._read(key, read) for key, (field, read) in _KEYS.items() if key in self._table}
        if self.mistakes:
            return None
        names = next(values.pop("names:" + verb) for verb in verbs)
        return Rule(decision=_DECISIONS[verbs[0]], names=names, **values)

    def _read(self, key: str, read: Callable[[object], object]) -> Any:
        try:
            return read(self._table[key])
        except ValueError as error:
            self.say(f"has {key}, which {error}")


def _name(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > 100:
        raise ValueError(f"has to be a text of at most 100 characters, not {value!r}")
    return value


def _texts(value: object) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
        raise ValueError(f"has to be a list of texts with something in it, not {value!r}")
    return value


def _names(value: object) -> Names:
    try:
        return Names(_texts(value))
    except BadPattern as error:
        raise ValueError(f"has a name that is none: {error}") from None


def _external_keys(value: object) -> tuple[str, ...]:
    keys = _texts(value)
    for key in keys:
        if "*" in key or "?" in key:
            raise ValueError(f"takes names of keys as they are, without * and ?, not {key!a}")
    return tuple(keys)


def _networks(value: object) -> tuple[IPNetwork, ...]:
    try:
        return tuple(map(read_network, _texts(value)))
    except BadPattern as error:
        raise ValueError(f"has a network that is none: {error}") from None


def _certificates(value: object) -> tuple[re.Pattern[str], ...]:
    try:
        return tuple(map(read_text_pattern, _texts(value)))
    except BadPattern as error:
        raise ValueError(f"has a name that is none: {error}") from None


def _key_types(value: object) -> tuple[KeyType, ...]:
    try:
        return tuple(map(KeyType, _texts(value)))
    except ValueError:
        raise ValueError(f"has to be a list of {', '.join(KeyType)}, not {value!r}") from None


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"has to be true or false, not {value!r}")
    return value


def _count(value: object) -> int:
    if type(value) is not int or not 1 <= value <= 1000:
        raise ValueError(f"has to be a number from 1 to 1000, not {value!r}")
    return value


# What a rule may have: the field it becomes, and how it is read.
_KEYS: Mapping[str, tuple[str, Callable[[object], object]]] = {
    "name": ("name", _name),
    **{verb: (f"names:{verb}", _names) for verb in _DECISIONS},
    "external-key": ("external_keys", _external_keys),
    "client": ("clients", _networks),
    "client-certificate": ("client_certificates", _certificates),
    "wildcard": ("wildcard", _flag),
    "key-types": ("key_types", _key_types),
    "max-lifetime": ("max_lifetime", read_duration),
    "max-names": ("max_names", _count),
    "reason": ("reason", _name),
}
_KNOWN = f"there are {', '.join(_KEYS)}"
