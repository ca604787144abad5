# "Step 4: Service Nodes Request Certificates" of lacme's guide to a private CA, with only the name of the package changed.
# mypy: ignore-errors
# ruff: noqa
# fmt: off
import asyncio
from privet import Client, FileStore
from privet.challenges.http01 import HTTP01Handler

CA_DIRECTORY = "http://ca-server:8443/acme/directory"

async def main():
    store = FileStore("~/.privet-node")
    handler = HTTP01Handler()

    async with Client(
        directory_url=CA_DIRECTORY,
        allow_insecure=True,  # HTTP on trusted network
        store=store,
        challenge_handler=handler,
    ) as client:
        bundle = await client.issue("worker-1.internal")
        print(f"Certificate issued, expires {bundle.expires_at}")

asyncio.run(main())
