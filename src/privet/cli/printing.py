"""How certificates, authorities and authorizations are printed: for people in columns, for programs as JSON."""

import json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from privet.acme.reasons import REVOCATION_REASONS
from privet.ca import Certificate, CertificateAuthority
from privet.ca.certificates import fingerprint
from privet.ca.constraints import constraints_of, to_texts
from privet.cli.settings import Settings
from privet.cli.stores import store_place


def print_json(document: object) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False))


def print_json_list(documents: Iterable[object]) -> None:
    """Print a list without holding it: there may be a million certificates."""
    before = "["
    for document in documents:
        print(before, json.dumps(document, ensure_ascii=False), sep="\n  ", end="")
        before = ","
    print("[]" if before == "[" else "\n]")


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    for name, value in fields:
        if value is not None:
            print(f"{name:<12} {value}")


def printable(text: str) -> str:
    """What a stranger wrote, without what would move a terminal's cursor."""
    return "".join(character if character.isprintable() else "?" for character in text)


def to_text(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def status_of(certificate: Certificate, now: datetime) -> str:
    """Its status, or that its time is over."""
    return "expired" if certificate.status == "valid" and now >= certificate.not_after else certificate.status


def certificate_document(certificate: Certificate, now: datetime) -> dict[str, object]:
    return {
        "serial": f"{certificate.serial:x}",
        "names": list(certificate.names),
        "status": status_of(certificate, now),
        "not_before": to_text(certificate.not_before),
        "not_after": to_text(certificate.not_after),
        "profile": certificate.profile,
        "authority": certificate.authority,
        "account": certificate.requester,
        "revoked": certificate.revoked and to_text(certificate.revoked),
        "reason": REVOCATION_REASONS.get(certificate.reason) if certificate.reason is not None else None,
        "clamped": certificate.clamped,
        "fingerprint": certificate.fingerprint,
    }


def warn_of_end(ca: CertificateAuthority, settings: Settings) -> None:
    """Say so when the authority cannot cover a whole certificate any more."""
    if ca.not_after - datetime.now(UTC) < settings.validity:
        print(
            f"privet: the authority {ca.name!r} ends at {to_text(ca.not_after)}, and its certificates with it, however "
            "long they were to live: make another with --name before that, and let clients trust its root as well",
            file=sys.stderr,
        )


def warn_of_wildcards(names: Iterable[str]) -> None:
    """Say so when a certificate is to have a name that many programs do not find in it."""
    for name in names:
        if name.startswith("*.") and name.count(".") == 1:
            print(
                f"privet: OpenSSL, and with it Python, curl and nginx, takes {printable(name)} for no wildcard, as it "
                "has a single label behind its star; *.mesh.internal would be one",
                file=sys.stderr,
            )


def authority_document(name: str, chain_pem: bytes, store: str) -> dict[str, object]:
    chain = x509.load_pem_x509_certificates(chain_pem)
    return {
        "name": name,
        "subject": chain[0].subject.rfc4514_string(),
        "root": chain[-1].subject.rfc4514_string(),
        "fingerprint": fingerprint(chain[-1]),
        "not_after": to_text(min(certificate.not_valid_after_utc for certificate in chain)),
        "names": names_text(chain),
        "data": store_place(store),
        "root_pem": chain[-1].public_bytes(Encoding.PEM).decode(),
    }


def print_authority(document: dict[str, object]) -> None:
    print_fields(
        [
            ("authority", document["name"]),
            ("subject", document["subject"]),
            ("root SHA-256", document["fingerprint"]),
            ("valid until", document["not_after"]),
            ("names", document["names"]),
            ("data", document["data"]),
        ]
    )


def names_text(chain: Iterable[x509.Certificate]) -> str | None:
    """Which names an authority may certify; None if all."""
    parts: list[str] = []
    for each in constraints_of(chain):
        permitted, excluded = to_texts(each.permitted_subtrees), to_texts(each.excluded_subtrees)
        parts += [f"only {', '.join(permitted)}"] if permitted else []
        parts += [f"not {', '.join(excluded)}"] if excluded else []
    return "; ".join(parts) or None
