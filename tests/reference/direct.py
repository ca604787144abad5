# "CA-Direct Renewal (Same Process)" of lacme's guide to a private CA, with only the name of the package changed; the
# block stands in a program that is there already, and so it does here.
# mypy: ignore-errors
# ruff: noqa
# fmt: off
import asyncio

async def main():
    from privet import CertificateAuthority, RenewalManager, FileStore

    store = FileStore("~/.privet")
    ca = CertificateAuthority(store)
    ca.init()

    # Issue initial cert
    ca.issue("api.internal")

    # Renew directly — no ACME responder or network needed
    manager = RenewalManager(ca=ca, store=store, days_before_expiry=1)
    task = manager.start()

    await manager.sweep()
    print(manager.healthy, manager.status()[0].domain, manager.status()[0].due)

asyncio.run(main())
