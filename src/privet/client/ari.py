"""Renewal information (RFC 9773): when a server would like a certificate to be renewed.

The law of this module: what makes no sense counts as no answer.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from cryptography import x509

from privet.client.issued import certificate_id
from privet.client.schedule import RenewalInfo
from privet.client.session import Session, retry_after, text_of


async def renewal_info(session: Session, certificate: x509.Certificate, now: datetime) -> RenewalInfo | None:
    """What the server suggests for a certificate of its own; None if it suggests nothing, or nothing sensible. Raises
    `Problem` and `ClientError`."""
    directory = await session.directory()
    id = certificate_id(certificate)
    if directory.renewal_info is None or id is None:
        return None
    reply = await session.get(f"{directory.renewal_info.rstrip('/')}/{id}")
    document = reply.json()
    window = document.get("suggestedWindow")
    start, end = _times(window) if isinstance(window, dict) else (None, None)
    # §4.2: a window that ends before it starts counts as no answer.
    if start is None or end is None or end <= start:
        return None
    return RenewalInfo(start, end, text_of(document, "explanationURL") or None, retry_after(reply.headers, now))


def _times(window: Mapping[str, Any]) -> tuple[datetime | None, datetime | None]:
    return _time(window.get("start")), _time(window.get("end"))


def _time(value: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
        return None if time is None or time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
