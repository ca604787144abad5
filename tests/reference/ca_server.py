# "Complete Example: CA Server" of lacme's guide to a private CA, with only the name of the package changed.
# mypy: ignore-errors
# ruff: noqa
# fmt: off
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from privet import ACMEResponder, CertificateAuthority, FileStore

store = FileStore("~/.privet-ca")
ca = CertificateAuthority(store)
ca.init(cn="My Service Mesh CA", validity_days=3650)

responder = ACMEResponder(ca=ca, auto_approve=True)

async def health(request):
    return JSONResponse({"status": "ok"})

async def root_cert(request):
    return Response(
        content=ca.root_cert_pem,
        media_type="application/x-pem-file",
    )

app = Starlette(
    routes=[
        Route("/health", health),
        Route("/root-ca.pem", root_cert),
        Mount("/acme", app=responder),
    ],
)

if __name__ == "__main__":
    uvicorn.run(app, host="0.0.0.0", port=8443)
