"""Pebble, Let's Encrypt's server for tests: strict, forgetful, and refusing one good nonce in twenty as it does by
default."""

import json
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import httpx
from tests.interop.programs import Program, free_port, need

from privet import CertificateAuthority, MemoryStore


class Pebble:
    def __init__(self, folder: Path, *, external_accounts: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.port, self.management = free_port(), free_port()
        self.http, self.tls, self.dns, self.challtestsrv = free_port(), free_port(), free_port(), free_port()
        self.directory = f"https://127.0.0.1:{self.port}/dir"
        ca = CertificateAuthority(MemoryStore())
        ca.init()
        own = ca.issue("127.0.0.1")
        (folder / "cert.pem").write_bytes(own.fullchain_pem)
        (folder / "key.pem").write_bytes(own.key_pem)
        self.root = ca.root_cert_pem
        configuration: dict[str, Any] = {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{self.management}",
            "certificate": str(folder / "cert.pem"),
            "privateKey": str(folder / "key.pem"),
            "httpPort": self.http,
            "tlsPort": self.tls,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": external_accounts is not None,
            "externalAccountMACKeys": dict(external_accounts or {}),
        }
        (folder / "pebble.json").write_text(json.dumps({"pebble": configuration}))

    def __enter__(self) -> Self:
        pebble = need("pebble", source="Debian's pebble package")
        challtestsrv = need("pebble-challtestsrv", source="Debian's pebble package")
        self._zone = Program(
            challtestsrv,
            *("-dns01", f"127.0.0.1:{self.dns}", "-management", f"127.0.0.1:{self.challtestsrv}"),
            *("-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""),
        )
        self._pebble = Program(
            pebble,
            *("-config", self.folder / "pebble.json", "-dnsserver", f"127.0.0.1:{self.dns}", "-strict"),
            env={"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_ALTERNATE_ROOTS": "1", "PEBBLE_CHAIN_LENGTH": "2"},
        )
        self._pebble.wait_for("ACME directory available")
        for port in (self.port, self.management):  # it says so before it listens
            self._pebble.wait_for_port(port)
        return self

    def __exit__(self, failure: object, *_: object) -> None:
        self._pebble.stop()
        self._zone.stop()
        if failure:
            print(self._pebble.output)

    def get(self, path: str) -> bytes:
        """From Pebble's management interface."""
        trust = ssl.create_default_context(cadata=self.root.decode())
        answer = httpx.get(f"https://127.0.0.1:{self.management}{path}", verify=trust, trust_env=False)
        answer.raise_for_status()
        return answer.content

    # As a provider for dns-01, pebble-challtestsrv is told by HTTP.

    async def add(self, name: str, value: str) -> None:
        await self._tell("set-txt", {"host": f"{name}.", "value": value})

    async def remove(self, name: str, value: str) -> None:
        await self._tell("clear-txt", {"host": f"{name}."})

    async def _tell(self, verb: str, what: Mapping[str, str]) -> None:
        async with httpx.AsyncClient(trust_env=False) as http:
            (await http.post(f"http://127.0.0.1:{self.challtestsrv}/{verb}", json=what)).raise_for_status()
