# "Step 2: Mount the ACME Responder" of lacme's guide to a private CA, with only the name of the package changed.
# mypy: ignore-errors
# ruff: noqa
# fmt: off
from starlette.applications import Starlette
from starlette.routing import Mount, Route
from starlette.responses import JSONResponse
from privet import ACMEResponder, CertificateAuthority, FileStore

store = FileStore("~/.privet-ca")
ca = CertificateAuthority(store)
ca.init(cn="My Service Mesh CA", validity_days=3650)

# auto_approve=True: skip challenge validation on trusted networks
responder = ACMEResponder(ca=ca, auto_approve=True)

async def health(request):
    return JSONResponse({"status": "ok", "ca_initialized": ca.initialized})

app = Starlette(
    routes=[
        Route("/health", health),
        Mount("/acme", app=responder),
    ],
)
