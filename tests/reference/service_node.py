# "Complete Example: Service Node" of lacme's guide to a private CA, with only the name of the package changed.
# mypy: ignore-errors
# ruff: noqa
# fmt: off
import asyncio
from privet import Client, FileStore
from privet.challenges.http01 import HTTP01Handler
from privet.mtls import client_ssl_context, server_ssl_context

CA_DIRECTORY = "http://localhost:8443/acme/directory"
ROOT_CA_PEM = "root-ca.pem"
NODE_IDENTITY = "worker-1.internal"

async def main():
    store = FileStore("~/.privet-node")
    handler = HTTP01Handler()

    async with Client(
        directory_url=CA_DIRECTORY,
        allow_insecure=True,
        store=store,
        challenge_handler=handler,
    ) as client:
        bundle = await client.issue(NODE_IDENTITY)

        with open(ROOT_CA_PEM, "rb") as f:
            ca_cert_pem = f.read()

        srv_ctx = server_ssl_context(
            cert_pem=bundle.fullchain_pem,
            key_pem=bundle.key_pem,
            ca_cert_pem=ca_cert_pem,
        )
        cli_ctx = client_ssl_context(
            cert_pem=bundle.cert_pem,
            key_pem=bundle.key_pem,
            ca_cert_pem=ca_cert_pem,
        )

        def on_renewed(new_bundle):
            print(f"Renewed: {new_bundle.domain}")

        task = await client.auto_renew(
            interval_hours=12,
            days_before_expiry=1,
            on_renewed=on_renewed,
        )

        try:
            await asyncio.sleep(3600)
        finally:
            task.cancel()

asyncio.run(main())
