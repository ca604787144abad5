"""What can go wrong for a client: a server that refuses says so in a `Problem`; all else is a `ClientError`.

The law of this module: whatever a server sends as a problem document gives a `Problem`, and loses nothing on the way.
"""

import os
import socket
import ssl
from collections.abc import Mapping
from typing import Any

from privet.acme.identifiers import Identifier, IdentifierType
from privet.acme.problems import URN, Problem, ProblemType, Subproblem


class ClientError(Exception):
    """The certificate could not be had, for a reason no server gave. The text says what to do."""


def reason_of(error: BaseException) -> str:
    """Why nobody answered, in a few words: the system's, which libraries wrap in others that say less."""
    found, inner = error, error
    for _ in range(10):
        if isinstance(inner, TimeoutError) or (isinstance(inner, OSError) and inner.errno is not None):
            found = inner
        # The cause; of several the first; or what was put into another exception.
        within = [inner.__cause__, *(inner.exceptions if isinstance(inner, BaseExceptionGroup) else inner.args)]
        cause = next((each for each in within if isinstance(each, BaseException)), None)
        if cause is None:
            break
        inner = cause
    match found:
        case TimeoutError(errno=None):
            return "it takes too long"
        case ssl.SSLCertVerificationError():
            return str(found.verify_message)
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER" | "HTTP_REQUEST" | "RECORD_LAYER_FAILURE"):
            return "what is there does not speak TLS"
        case ssl.SSLError(reason=str(reason)):
            return f"TLS failed: {reason.replace('_', ' ').lower()}"
        case ssl.SSLError() | socket.gaierror() if found.strerror:  # their numbers are not the system's
            return str(found.strerror)
        case OSError(errno=int(number)) if number > 0:
            return os.strerror(number)
    return str(error) or type(error).__name__


def untrusted(url: str, error: BaseException) -> ClientError | None:
    """What to say if it was the server's certificate."""
    if "CERTIFICATE_VERIFY_FAILED" not in str(error):
        return None
    return ClientError(
        f"the certificate of {url} is not trusted here ({reason_of(error)}); give the CA's root as ca_bundle=, or its "
        "ca_fingerprint="
    )


class ReceivedProblem(Problem):
    """A server's refusal (RFC 8555 §6.7). `type` is the nearest that is known here; `urn`, `status` and `document` are
    what the server said."""

    def __init__(
        self, type: ProblemType, urn: str, status: int, document: Mapping[str, Any], headers: Mapping[str, str]
    ) -> None:
        instance = document.get("instance")
        super().__init__(
            type,
            _text(document.get("detail")) or _text(document.get("title")) or f"the server answered {status}",
            subproblems=tuple(_subproblems(document.get("subproblems"))),
            algorithms=[each for each in _list(document.get("algorithms")) if isinstance(each, str)],
            instance=instance if isinstance(instance, str) else None,
            headers=headers,
        )
        self.urn = urn
        self.status = status
        self.document = document

    def __str__(self) -> str:
        lines = [f"{self.urn.removeprefix(URN)}: {self.detail}"]
        for each in self.subproblems:
            about = f"{each.identifier}: " if each.identifier else ""
            lines.append(f"{about}{each.type.value[0]}: {each.detail}")
        return "; ".join(lines)


def received_problem(document: object, status: int, headers: Mapping[str, str] | None = None) -> ReceivedProblem:
    """Read a problem document, or whatever came in its place."""
    found = document if isinstance(document, dict) else {}
    urn = _text(found.get("type")) or "about:blank"
    return ReceivedProblem(_type(urn, status), urn, status, found, headers or {})


def _type(urn: str, status: int) -> ProblemType:
    """The type of this URN; of two, the one with this status. Of others, which §6.7 lets servers have, by status."""
    known = [each for each in ProblemType if each.urn == urn]
    if known:
        return next((each for each in known if each.status == status), known[0])
    if status == 429:
        return ProblemType.RATE_LIMITED
    if status >= 500:
        return ProblemType.SERVER_INTERNAL
    return {401: ProblemType.ACCOUNT_NOT_VALID, 403: ProblemType.UNAUTHORIZED, 404: ProblemType.NOT_FOUND}.get(
        status, ProblemType.MALFORMED
    )


def _subproblems(value: object) -> list[Subproblem]:
    found = []
    for each in _list(value)[:1000]:
        if isinstance(each, dict):
            urn = _text(each.get("type"))
            status = each.get("status")
            kind = _type(urn, status if isinstance(status, int) else 400)
            detail = _text(each.get("detail")) or urn
            found.append(Subproblem(kind, detail, _identifier(each.get("identifier"))))
    return found


def _identifier(value: object) -> Identifier | None:
    """The identifier as the server wrote it. It is only shown, so it need not be one we would accept."""
    if not isinstance(value, dict) or not isinstance(value.get("value"), str):
        return None
    type = IdentifierType.IP if value.get("type") == IdentifierType.IP else IdentifierType.DNS
    return Identifier(type, _text(value["value"]))


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    """Text that may be shown: a server must not move anybody's cursor, nor fill their log."""
    if not isinstance(value, str):
        return ""
    shown = "".join(character if character.isprintable() else " " for character in value[:4000])
    return shown.strip()
