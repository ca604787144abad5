"""Vault's API on a store, with a clock, roles, and tokens."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from cryptography import x509
from tests.server.conftest import Clock

from privet import CertificateAuthority, MemoryStore, Roles, Store, VaultPKI
from privet.ca.certificates import KIND, Certificate
from privet.vault import tokens
from privet.vault.tokens import Token

ROLES = """
[[role]]
name = "web"
names = ["*.web.internal", "web.internal", "10.0.0.0/8", "fd00::/8"]
wildcard = true
max-lifetime = "72h"

[[role]]
name = "database"
common-names = ["epoch_user", "report-*"]
usages = ["client"]
lifetime = "1h"

[[role]]
name = "curves"
names = ["**.internal"]
common-names = ["**"]
usages = ["client"]
key-types = ["Ed25519", "P-384"]

[[role]]
name = "rsa"
names = ["**.internal"]
key-types = ["RSA-2048"]
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Scene:
    store: Store = field(default_factory=MemoryStore)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.ca = CertificateAuthority(self.store, now=self.clock)
        self.ca.init()
        self.http = self.at(self.replica())

    def replica(self, **arguments: Any) -> VaultPKI:
        return VaultPKI(self.ca, Roles.from_toml(ROLES), now=self.clock, **arguments)

    def at(self, app: VaultPKI) -> httpx.AsyncClient:
        # Exceptions come out where they happen: it has to answer, not raise.
        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ca.internal")

    def token(self, role: str = "web", **about: Any) -> str:
        """A new token, as its owner has it."""
        return tokens.create(self.store, self.ca.name, role, "a test", self.clock(), **about)[1]

    def tokens(self) -> list[Token]:
        return tokens.find_all(self.store, self.ca.name)

    def certificates(self) -> list[Certificate]:
        """What is on record, signed or not."""
        return [Certificate.from_record(record) for record in self.store.find(KIND)]

    async def ask(
        self, path: str, token: str | None, wish: Mapping[str, object] | bytes = b"", *, http: Any = None
    ) -> httpx.Response:
        """POST to `pki/PATH`."""
        headers = {} if token is None else {"X-Vault-Token": token}
        body: Any = {"content": wish} if isinstance(wish, bytes) else {"json": wish}
        response: httpx.Response = await (http or self.http).post(f"/v1/pki/{path}", headers=headers, **body)
        return response

    async def issue(self, role: str, token: str, **wish: object) -> dict[str, Any]:
        """The data of a certificate, which has to be issued."""
        response = await self.ask(f"issue/{role}", token, wish)
        assert response.status_code == 200, response.text
        data: dict[str, Any] = response.json()["data"]
        return data


def errors_of(response: httpx.Response) -> tuple[int, list[str]]:
    """The status of a refusal, and its sentences in Vault's form."""
    document = response.json()
    assert list(document) == ["errors"]
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    return response.status_code, document["errors"]


def leaf(data: Mapping[str, Any]) -> x509.Certificate:
    return x509.load_pem_x509_certificate(data["certificate"].encode())


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    made = Scene()
    async with made.http:
        yield made
