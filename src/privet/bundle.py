"""A certificate with what is needed to use it: its chain, its private key, and where they lie as files.

The law of this module: the private key is in a bundle and in its files, and never in its repr or in its metadata.
"""

import hashlib
import json
import ssl
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

from privet.stores.base import Record, Store

KIND = "certs"


@runtime_checkable
class FilePaths(Protocol):
    """A store whose files have paths."""

    def path_of(self, kind: str, id: str, file: str) -> Path: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CertBundle:
    """The current certificate of `domain`: its first name, or a common name of its own. The paths are there where the
    store keeps files."""

    domain: str
    domains: tuple[str, ...]
    cert_pem: bytes = field(repr=False)
    fullchain_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)
    expires_at: datetime
    serial: int
    fullchain_path: Path | None = None
    key_path: Path | None = None

    @property
    def fingerprint(self) -> str:
        """The certificate's SHA-256, as people compare it."""
        return digest(ssl.PEM_cert_to_DER_cert(self.cert_pem.decode()))

    @property
    def common_name(self) -> str | None:
        """The common name, where it is not the first of the names: such as the user of a database."""
        return None if self.domain in self.domains[:1] else self.domain

    @property
    def files(self) -> dict[str, bytes]:
        return {"cert.pem": self.cert_pem, "fullchain.pem": self.fullchain_pem, "key.pem": self.key_pem}

    def located(self, store: Store) -> "CertBundle":
        """The same bundle, with the paths it has in this store."""
        if not isinstance(store, FilePaths):
            return self
        return replace(
            self,
            fullchain_path=store.path_of(KIND, self.domain, "fullchain.pem"),
            key_path=store.path_of(KIND, self.domain, "key.pem"),
        )

    def to_record(self, version: int = 0) -> Record:
        """The record that replaces the one of this version."""
        meta = {
            "domain": self.domain,
            "domains": self.domains,
            "expires_at": self.expires_at.isoformat(),
            "serial": f"{self.serial:x}",
        }
        return Record(KIND, self.domain, json.dumps(meta).encode(), version, files=self.files)

    @staticmethod
    def from_record(record: Record) -> "CertBundle":
        meta = json.loads(record.body)
        return CertBundle(
            domain=meta["domain"],
            domains=tuple(meta["domains"]),
            cert_pem=record.files["cert.pem"],
            fullchain_pem=record.files["fullchain.pem"],
            key_pem=record.files["key.pem"],
            expires_at=datetime.fromisoformat(meta["expires_at"]),
            serial=int(meta["serial"], 16),
        )


def digest(der: bytes) -> str:
    """The SHA-256 of a certificate in DER, in hexadecimal with colons: what logs and records call it by."""
    return hashlib.sha256(der).digest().hex(":").upper()
