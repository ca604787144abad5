"""What a CA says when it is asked: what time it is there, and when it wants a certificate to be renewed.

The law of this module: it asks for what everybody may read, and signs nothing.
"""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import httpx
from cryptography import x509

from privet.acme.problems import Problem
from privet.client.ari import renewal_info
from privet.client.errors import ClientError
from privet.client.schedule import RenewalInfo
from privet.client.session import Session, date_of
from privet.client.trust import system_trust, trust_in

_PATIENCE = 10.0


class Answer(NamedTuple):
    """`here` is the time at which the CA was asked. `complaint` is why there is no more to say."""

    here: datetime
    there: datetime | None = None
    info: RenewalInfo | None = None
    complaint: str | None = None


async def ask(
    directory: str, certificate: x509.Certificate | None, ca: Path | None, now: Callable[[], datetime]
) -> Answer:
    """Ask the CA whose directory this is, believing it by the roots in the file `ca`, or by the system's."""
    there = None
    asked = now()
    try:
        trust = system_trust() if ca is None else trust_in(ca)
        async with httpx.AsyncClient(verify=trust, timeout=_PATIENCE, trust_env=False) as http:
            session = Session(directory, http, allow_insecure=True, timeout=_PATIENCE, patience=_PATIENCE, now=now)
            asked = now()
            there = date_of((await session.get(directory)).headers)
            info = None if certificate is None else await renewal_info(session, certificate, now())
    except (ClientError, Problem) as error:
        return Answer(asked, there, complaint=" ".join(str(error).split()))
    return Answer(asked, there, info)
