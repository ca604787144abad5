"""Processes that die while they issue a certificate: a fork for each task, which says what it was answered, if it was.

A task is a line of JSON: a store, a token, and the commit before or after which the kernel kills.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import httpx
from tests.server.crashing import Fatal, tell
from tests.vault.conftest import ROLES

from privet import CertificateAuthority, Roles, VaultPKI, open_store


async def live(task: Mapping[str, Any]) -> None:
    now = datetime.fromisoformat(task["now"])
    with open_store(task["store"]) as store:
        ca = CertificateAuthority(store, now=lambda: now)
        assert ca.load()
        app = VaultPKI(ca, Roles.from_toml(ROLES), Fatal(store, task["commit"], task["when"]), now=lambda: now)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ca.internal") as http:
            wish = {"common_name": "web.internal"}
            response = await http.post("/v1/pki/issue/web", headers={"X-Vault-Token": task["token"]}, json=wish)
            tell({"status": response.status_code, "data": response.json().get("data")})


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if not child:
            failed = 1
            try:
                asyncio.run(live(json.loads(line)))
                failed = 0
            finally:
                sys.stderr.flush()
                os._exit(failed)
        tell({"ended": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])})


if __name__ == "__main__":
    main()
