"""What the tests of validators begin with: a town, a nameserver, a token, and validators.

Their time limits are long, for a machine may be busy; a test in which somebody is silent says how long it waits.
"""

import base64
import hashlib
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from tests.validation.nameserver import Nameserver
from tests.validation.town import Town

from privet.validation import (
    Attempt,
    DNS01Validator,
    DNSAccount01Validator,
    DNSPersist01Validator,
    HTTP01Validator,
    NotProved,
    Proof,
    Prover,
    Resolver,
    TLSALPN01Validator,
)

patiently = settings(deadline=None)
"""Laws hold on a busy machine as well."""

Value = TypeVar("Value")

TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ"
KEY = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
PROOF = f"{TOKEN}.{KEY}"
DIGEST = base64.urlsafe_b64encode(hashlib.sha256(PROOF.encode()).digest()).rstrip(b"=").decode()
ACCOUNT = "https://ca.internal/acct/123"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PATH = f"/.well-known/acme-challenge/{TOKEN}"
CANARY = "canary5f3a"
"""What a hostile server puts wherever it can; no problem may repeat it."""


@dataclass
class Scene:
    town: Town
    nameserver: Nameserver

    @property
    def http(self) -> int:
        return self.town.port(80)

    @property
    def https(self) -> int:
        return self.town.port(443)

    def resolver(self, **options: Any) -> Resolver:
        return Resolver(**{"nameservers": [self.nameserver.address], "timeout": 10, "lifetime": 30, **options})

    def http01(self, **options: Any) -> HTTP01Validator:
        defaults: dict[str, Any] = {
            "resolver": self.resolver(),
            "networks": self.town.networks(),
            "port": self.http,
            "redirect_ports": [self.http, self.https],
            "timeout": 30,
            "connect_timeout": 10,
            "now": lambda: NOW,
        }
        return HTTP01Validator(**{**defaults, **options})

    def tls(self, **options: Any) -> TLSALPN01Validator:
        defaults: dict[str, Any] = {
            "resolver": self.resolver(),
            "networks": self.town.networks(),
            "port": self.https,
            "timeout": 30,
            "connect_timeout": 10,
            "now": lambda: NOW,
        }
        return TLSALPN01Validator(**{**defaults, **options})

    def dns01(self, **options: Any) -> DNS01Validator:
        return DNS01Validator(**{"resolver": self.resolver(), "timeout": 30, "now": lambda: NOW, **options})

    def dns_account(self, **options: Any) -> DNSAccount01Validator:
        return DNSAccount01Validator(**{"resolver": self.resolver(), "timeout": 30, "now": lambda: NOW, **options})

    def dns_persist(self, **options: Any) -> DNSPersist01Validator:
        defaults: dict[str, Any] = {
            "issuers": ["ca.internal"],
            "account_hash_prefix": "https://ca.internal/account-hash/",
            "resolver": self.resolver(),
            "timeout": 30,
            "now": lambda: NOW,
        }
        return DNSPersist01Validator(**{**defaults, **options})

    def url(self, host: str, path: str = "", scheme: str = "http") -> str:
        """Where the host answers, in this town."""
        port = self.http if scheme == "http" else self.https
        usual = {"http": 80, "https": 443}[scheme] == port
        return f"{scheme}://{host}{'' if usual else f':{port}'}{path or PATH}"

    def run(self, doing: Coroutine[Any, Any, Value]) -> Value:
        """Do something on the CA's host."""
        return self.town.ca.run(doing)

    def prove(self, validator: Prover, identifier: str, identifier_type: str = "dns", **context: Any) -> Proof:
        """Let the validator try from the CA's host."""
        context = {"token": TOKEN, "key_authorization": PROOF, "account": ACCOUNT, **context}
        return self.run(validator.prove(Attempt(identifier, identifier_type, **context)))

    def refused(self, validator: Prover, identifier: str, identifier_type: str = "dns", **context: Any) -> NotProved:
        """The refusal; one clear sentence, with nothing in it of what the other side said."""
        with pytest.raises(NotProved) as caught:
            self.prove(validator, identifier, identifier_type, **context)
        refusal = caught.value
        assert CANARY not in refusal.detail
        assert "\n" not in refusal.detail
        assert len(refusal.detail) < 400
        return refusal
