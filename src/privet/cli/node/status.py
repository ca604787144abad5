"""How it stands with a node's certificate: what its services read, what renewal said last, and whether to worry.

The law of this module: it looks and changes nothing, and asks nobody.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from privet.ca.certificates import fingerprint
from privet.cli.failures import Failure
from privet.cli.node.folder import Folder
from privet.cli.printing import printable, to_text

# Renewal is due when a third of the life is left. When half of that has gone by, and it fails, somebody has to know.
_NEAR = 6


@dataclass(frozen=True, slots=True)
class Standing:
    """How it stands. `alarm` is what somebody has to look at, if there is anything."""

    folder: str
    names: tuple[str, ...]
    issuer: str
    serial: str
    fingerprint: str
    not_before: datetime
    not_after: datetime
    due: str
    error: str | None
    failures: int
    alarm: str | None

    @property
    def document(self) -> dict[str, object]:
        return {
            "folder": self.folder,
            "names": list(self.names),
            "issuer": self.issuer,
            "serial": self.serial,
            "fingerprint": self.fingerprint,
            "not_before": to_text(self.not_before),
            "not_after": to_text(self.not_after),
            "due": self.due,
            "error": self.error,
            "failures": self.failures,
            "healthy": self.alarm is None,
        }

    @property
    def fields(self) -> Iterable[tuple[str, object]]:
        yield "folder", self.folder
        yield "names", printable(", ".join(self.names))
        yield "issuer", self.issuer
        yield "valid until", to_text(self.not_after)
        yield "due", self.due
        yield "SHA-256", self.fingerprint
        yield "last error", self.error


def standing(folder: Folder, now: datetime) -> Standing:
    """Raises `Failure`."""
    settings = folder.settings()
    try:
        certificate = x509.load_pem_x509_certificate((folder.path / "cert.pem").read_bytes())
    except (OSError, ValueError):
        raise Failure(
            f"{folder.path / 'cert.pem'} is not a certificate any more: `privet node renew {folder.path}` puts it back"
        ) from None
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    renewal, live = folder.remembered("renewal"), folder.remembered("live")
    complaint = live.get("complaint")
    error = renewal.get("error")
    alarm = None
    try:
        folder.bundle(settings)
    except Failure as failure:
        alarm = str(failure)
    if end <= now:
        alarm = f"the certificate in {folder.path} ended at {to_text(end)}"
    elif error and end - now < (end - begin) / _NEAR:
        alarm = f"the certificate in {folder.path} ends at {to_text(end)}, and its renewal fails"
    elif complaint:
        alarm = f"the certificate in {folder.path} is new, but {complaint}"
    if alarm and error:
        alarm += f": {error}"
    return Standing(
        folder=str(folder.path),
        names=settings.all_names,
        issuer=printable(certificate.issuer.rfc4514_string()),
        serial=f"{certificate.serial_number:x}",
        fingerprint=fingerprint(certificate),
        not_before=begin,
        not_after=end,
        due=renewal.get("due") or to_text(settings.schedule.due(begin, end, lambda: 0.0)),
        error=error or complaint,
        failures=renewal.get("failures", 0),
        alarm=alarm,
    )
