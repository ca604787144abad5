"""The pytest plugin: an authority, an ACME server and a node's certificate as fixtures (docs/testing.md).

It is loaded by every pytest in whose environment privet is installed. Its law: it imports nothing before a test asks
for a fixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from privet import CertificateAuthority, TLSConfig
    from privet.testing import ACMEServer


@pytest.fixture(scope="session")
def privet_ca() -> CertificateAuthority:
    """A certificate authority in memory, the same for all tests."""
    from privet import CertificateAuthority, MemoryStore

    ca = CertificateAuthority(MemoryStore())
    ca.init(cn="privet Test CA")
    return ca


@pytest.fixture
def privet_server(privet_ca: CertificateAuthority) -> Iterator[ACMEServer]:
    """An ACME server of `privet_ca` on a real port, with TLS; a new one for each test."""
    from privet.testing import ACMEServer

    with ACMEServer(privet_ca) as server:
        yield server


@pytest.fixture(scope="session")
def tls_config(privet_ca: CertificateAuthority, tmp_path_factory: pytest.TempPathFactory) -> TLSConfig:
    """The files of a node of `privet_ca`, which is localhost: for servers and for clients."""
    from privet.testing import node_certificate

    return node_certificate(privet_ca, tmp_path_factory.mktemp("privet"))
