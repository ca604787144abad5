"""base64url and JSON as RFC 8555 §6.1 and RFC 7515 §2 want them: one spelling for one value.

The law: any bytes give a value or a `Problem`.
"""

import binascii
import json
import math
from collections.abc import Callable
from json.scanner import make_scanner
from typing import Any

from privet.acme.problems import Problem, ProblemType

# binascii knows the standard alphabet alone, and only bytes have a quick translate.
_TO_STANDARD, _TO_URL = bytes.maketrans(b"-_+/", b"+/\0\0"), bytes.maketrans(b"+/", b"-_")
# What the last character may be, by how many there are beyond a multiple of four: one that leaves no spare bits set.
_LAST = (b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", b"", b"AQgw", b"AEIMQUYcgkosw048")


def to_base64url(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).rstrip(b"=").translate(_TO_URL).decode()


def from_base64url(text: object, what: str) -> bytes:
    """Decode, refusing padding, other alphabets, and spare bits that would give one value two spellings."""
    if not isinstance(text, str):
        raise Problem(ProblemType.MALFORMED, f"{what} must be a string of base64url")
    try:
        encoded = text.encode("ascii").translate(_TO_STANDARD)
        beyond = len(encoded) % 4
        if encoded[-1:] in _LAST[beyond]:
            return binascii.a2b_base64(encoded + b"=="[: -beyond % 4], strict_mode=True)
    except ValueError:
        pass
    raise Problem(ProblemType.MALFORMED, f"{what} is not base64url without padding, as RFC 7515 writes it")


def from_json(data: bytes, what: str) -> dict[str, Any]:
    """Read a JSON object, refusing members given twice: two readers could each take another one."""
    try:
        text = data.decode("utf-8").strip(_WHITESPACE)
        value, end = _scan(text, 0)
        if end != len(text):
            raise ValueError("something follows the object")
    except (ValueError, RecursionError, StopIteration):
        raise Problem(ProblemType.MALFORMED, f"{what} is not a JSON object with each member once, in UTF-8") from None
    if not isinstance(value, dict):
        raise Problem(ProblemType.MALFORMED, f"{what} must be a JSON object")
    return value


def to_json(value: object) -> bytes:
    return _encode(value).encode()


def make_encode(make_encoder: Callable[..., Any] | None) -> Callable[[object], str]:
    """How JSON is written: all ASCII, no spaces, no NaN. CPython's encoder is made once here, which json.JSONEncoder
    does anew for every call; where there is none, that one does."""
    if make_encoder is None:
        return json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode
    encode = make_encoder(None, None, json.encoder.encode_basestring_ascii, None, ":", ",", False, False, False)
    return lambda value: "".join(encode(value, 0))


_encode = make_encode(getattr(json.encoder, "c_make_encoder", None))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a member is given twice")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    # What is too large for a float would become an infinity, which JSON cannot say again.
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number is too large")
    return number


# decode() itself goes through regular expressions for the whitespace around, which costs as much as the rest.
_scan: Callable[[str, int], tuple[Any, int]] = make_scanner(
    json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite)  # type: ignore[arg-type]
)
_WHITESPACE = " \t\n\r"  # RFC 8259 §2
