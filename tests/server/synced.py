"""A responder with a client inside, watched by strace: it says on descriptor 2 when a client has its answer."""

import asyncio
import os
import sys

import httpx
from tests.wire import BASE, Wire

from privet import ACMEResponder, CertificateAuthority, open_store


async def issue(url: str) -> None:
    store = open_store(url)
    ca = CertificateAuthority(store)
    ca.init()
    responder = ACMEResponder(ca, auto_approve=True, external_url=BASE)
    transport = httpx.ASGITransport(responder)
    async with httpx.AsyncClient(transport=transport, base_url=BASE) as http:
        wire = Wire(http)
        say("begin")
        await wire.register()
        say("new-account")
        order = (await wire.order("a.internal")).json()
        say("new-order")
        finalized = (await wire.finalize(order)).json()
        say("finalize")
        await wire.post(finalized["certificate"])
        say("certificate")
        ca.issue("b.internal")
        say("issued by hand")


def say(what: str) -> None:
    os.write(2, f"# {what}\n".encode())


if __name__ == "__main__":
    asyncio.run(issue(sys.argv[1]))
