"""Renewal by an authority in this process, without ACME.

The law of this module: names, usages, lifetime and kind of key stay what they were.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Protocol

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from privet.bundle import KIND as BUNDLE
from privet.bundle import CertBundle
from privet.ca import keys
from privet.ca.keys import KeyType
from privet.client.keeping import span_of
from privet.client.schedule import RenewalInfo
from privet.stores.base import Store

_PAGE = 100


class Issued(Protocol):
    """What an authority knows of a certificate."""

    @property
    def status(self) -> str: ...
    @property
    def requester(self) -> str | None: ...


class Authority(Protocol):
    """The part of a `CertificateAuthority` that renewal needs."""

    @property
    def store(self) -> Store: ...

    def issue(
        self,
        names: Sequence[str],
        *,
        common_name: str | None,
        client: bool,
        validity_hours: float,
        key_type: KeyType,
        key_pem: bytes | None,
        wildcard: bool,
    ) -> CertBundle: ...

    def certificate(self, serial: int) -> Issued | None: ...


class Direct:
    """Renews what an authority has issued itself."""

    def __init__(self, ca: Authority) -> None:
        self._ca = ca
        self.store = ca.store

    async def owned(self) -> Sequence[str]:
        return await asyncio.to_thread(self._find)

    def _find(self) -> list[str]:
        found: list[str] = []
        after = ""
        while records := self.store.find(BUNDLE, after=after, limit=_PAGE):
            after = records[-1].id
            for record in records:
                with suppress(ValueError, KeyError):  # a folder that somebody else put there
                    issued = self._ca.certificate(CertBundle.from_record(record).serial)
                    # What was ordered by ACME is renewed by whoever ordered it; what was revoked was not to go on.
                    if issued is not None and issued.requester is None and issued.status == "valid":
                        found.append(record.id)
        return found

    async def renew(self, bundle: CertBundle, *, rotate_key: bool) -> CertBundle:
        return await asyncio.to_thread(self._issue, bundle, rotate_key)

    def _issue(self, bundle: CertBundle, rotate_key: bool) -> CertBundle:
        begin, end = span_of(bundle)
        return self._ca.issue(
            bundle.domains,
            common_name=bundle.common_name,
            client=_for_clients_alone(bundle),
            validity_hours=(end - begin) / timedelta(hours=1),
            key_type=keys.check_public_key(keys.from_pem(bundle.key_pem).public_key()),
            key_pem=None if rotate_key else bundle.key_pem,
            wildcard=True,
        )

    async def renewal_info(self, bundle: CertBundle) -> RenewalInfo | None:
        return None


def _for_clients_alone(bundle: CertBundle) -> bool:
    certificate = x509.load_pem_x509_certificate(bundle.cert_pem)
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return ExtendedKeyUsageOID.SERVER_AUTH not in usages
