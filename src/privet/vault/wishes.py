"""What a request asks for: the parameters of Vault's `issue` and `sign`, read as Vault's clients write them.

The law: any bytes give a `Wish` or a `Problem`; and what is asked for and cannot be had is refused, never left out.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from privet.acme.encoding import from_json
from privet.acme.identifiers import BadIdentifier, Identifier, IdentifierType, from_text
from privet.acme.problems import ProblemType, Subproblem, compound
from privet.ca.csr import CSR, BadCSR, from_pem, parse_csr
from privet.server.durations import read_duration

_FORMATS = ("pem", "der", "pem_bundle")
# "der" is Vault's word for the traditional form of a key, in PEM as well.
_KEY_FORMATS = ("der", "pem", "pkcs8")
_FLAGS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False, "": False}
# Nothing, as programs in Go write a duration that nobody gave them.
_NO_TIME = re.compile(r"0|(?:0[hms])+")
# Of what is wrong, so much is told at once.
_MISTAKES = 20

# How Vault writes a serial number, and what else it takes for one.
SERIAL = r"[0-9A-Fa-f]{1,2}(?:[:-]?[0-9A-Fa-f]{2}){0,19}"


class Wish(NamedTuple):
    """A certificate that is asked for. `ttl` is None where the role is to say."""

    common_name: str | None
    alternative_names: tuple[Identifier, ...]
    csr: CSR | None
    ttl: timedelta | None
    format: str
    pkcs8: bool
    exclude_common_name: bool
    """Whether the common name is not to be an alternative name as well."""
    without_root: bool


def read_wish(body: bytes, most: int, *, sign: bool) -> Wish:
    """Read a request for at most so many names; to `sign` one has a CSR. Raises `Problem`, with all that is wrong."""
    reading = _Reading(from_json(body, "the request"), most)
    csr = reading.csr() if sign else None
    common_name = reading.text("common_name")
    names = reading.dns_names("alt_names") + reading.addresses("ip_sans")
    wish = Wish(
        common_name=common_name,
        alternative_names=tuple(dict.fromkeys(names)),
        csr=csr,
        ttl=reading.duration("ttl"),
        format=reading.one_of("format", _FORMATS),
        pkcs8=reading.one_of("private_key_format", _KEY_FORMATS) == "pkcs8",
        exclude_common_name=reading.flag("exclude_cn_from_sans"),
        without_root=reading.flag("remove_roots_from_chain"),
    )
    reading.refuse_the_rest()
    if csr is not None:
        wish = _merge(wish, csr, reading)
    if len(wish.alternative_names) > most:
        reading.say(f"there are {len(wish.alternative_names)} names, and {most} are allowed in one certificate")
    reading.check()
    return wish


def read_serial(body: bytes) -> int:
    """The serial number of a certificate that is to be revoked. Raises `Problem`, with all that is wrong."""
    reading = _Reading(from_json(body, "the request"), most=1)
    text = reading.text("serial_number") or ""
    reading.refuse_the_rest()
    if not re.fullmatch(SERIAL, text):
        reading.say("serial_number has to be that of a certificate, such as 39:dd:2e:90")
    reading.check()
    return to_serial(text)


def to_serial(text: str) -> int:
    """A serial number as Vault writes it, or with hyphens, or without anything between."""
    return int(text.replace(":", "").replace("-", ""), 16)


def _merge(wish: Wish, csr: CSR, reading: "_Reading") -> Wish:
    """The names are those of the CSR. The request may repeat them, and name who has no common name there."""
    for name in wish.alternative_names:
        if name not in csr.identifiers:
            reading.say(f"{name} is not in the CSR, which has to have all names itself")
    common_name = wish.common_name
    if csr.common_name is not None:
        if common_name not in (None, csr.common_name, *(each.value for each in csr.identifiers)):
            reading.say(f"common_name is {(common_name or '')[:100]!a}, and the CSR has {csr.common_name[:100]!a}")
        common_name = csr.common_name
    # An address in a CSR's common name is an alternative name.
    addresses = [each for each in csr.identifiers if each.type is IdentifierType.IP]
    names = tuple(dict.fromkeys([*csr.alternative_names, *addresses]))
    return wish._replace(common_name=common_name, alternative_names=names)


class _Reading:
    """The parameters of a request, each looked at once, with at most so many names; and what is wrong with them."""

    def __init__(self, parameters: Mapping[str, Any], most: int) -> None:
        self._left = dict(parameters)
        self._most = most
        self._mistakes: list[str] = []

    def say(self, sentence: str) -> None:
        self._mistakes.append(sentence)

    def check(self) -> None:
        """Raises `Problem` if anything is wrong."""
        if self._mistakes:
            raise compound([Subproblem(ProblemType.MALFORMED, mistake) for mistake in self._mistakes[:_MISTAKES]])

    def text(self, name: str) -> str | None:
        """A text; None if there is none, or an empty one."""
        value = self._left.pop(name, None)
        if value is None or isinstance(value, str):
            return value or None
        self.say(f"{name} has to be a text")
        return None

    def texts(self, name: str) -> list[str]:
        """A list, or a text with commas."""
        value = self._left.pop(name, None)
        parts = value.split(",") if isinstance(value, str) else value
        if parts is None:
            return []
        if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
            self.say(f"{name} has to be a list of texts, or a text with commas between them")
            return []
        texts = list(dict.fromkeys(part.strip() for part in parts if part.strip()))
        if len(texts) > self._most:
            self.say(f"{name} has {len(texts)} names, and {self._most} are allowed in one certificate")
            return []
        return texts

    def dns_names(self, name: str) -> list[Identifier]:
        found = self._identifiers(name)
        for each in found:
            if each.type is not IdentifierType.DNS:
                self.say(f"{name} has the address {each}, which goes into ip_sans")
        return found

    def addresses(self, name: str) -> list[Identifier]:
        found = self._identifiers(name)
        for each in found:
            if each.type is not IdentifierType.IP:
                self.say(f"{name} has {each}, which is no address and goes into alt_names")
        return found

    def _identifiers(self, name: str) -> list[Identifier]:
        found = []
        for text in self.texts(name):
            try:
                found.append(from_text(text))
            except BadIdentifier as error:
                self.say(f"{name}: {error}")
        return found

    def duration(self, name: str) -> timedelta | None:
        """Seconds, or a text such as 90m; None where nothing is asked for."""
        value = self._left.pop(name, None)
        if value in (None, "", 0) and value is not False:
            return None
        if isinstance(value, str) and _NO_TIME.fullmatch(value):
            return None
        try:
            is_number = type(value) is int or (isinstance(value, str) and value.isascii() and value.isdigit())
            return read_duration(f"{value}s" if is_number else value)
        except ValueError as error:
            self.say(f"{name} {str(error)[:200]}")
            return None

    def one_of(self, name: str, known: tuple[str, ...]) -> str:
        """One of these; the first where nothing is asked for."""
        value = self.text(name) or known[0]
        if value not in known:
            self.say(f"{name} has to be one of {', '.join(known)}")
        return value

    def flag(self, name: str) -> bool:
        value = self._left.pop(name, None)
        if value is None or isinstance(value, bool):
            return bool(value)
        word = str(value).lower() if isinstance(value, str) or type(value) is int else "?"
        if word not in _FLAGS:
            self.say(f"{name} has to be true or false")
        return _FLAGS.get(word, False)

    def csr(self) -> CSR | None:
        text = self.text("csr")
        if text is None:
            self.say("csr is missing: the request to sign, in PEM")
            return None
        try:
            return parse_csr(from_pem(text.encode(errors="replace")), any_common_name=True)
        except BadCSR as error:
            self.say(str(error))
            return None

    def refuse_the_rest(self) -> None:
        """What is left is not supported. Many clients write what they do not ask for as well, and leave it empty."""
        for name, value in self._left.items():
            if value not in (None, "", [], {}, False, 0):
                self.say(f"{name[:100]!a} is not supported here, and what is asked for is not left out")
