"""A service of the mesh: it gets its certificate from the CA, keeps it renewed, serves HTTPS, and calls the others.

    python service.py '{"name": …, "address": …, "port": …, "directory": …, "root": …, "options": …, "peers": …}'

It says `up` when it serves, calls the others from SIGUSR1 to SIGUSR2, then says what it has seen, and ends at SIGTERM.
Meanwhile each renewal, each that failed, and each certificate of another that it had not met before is a line.
"""

import asyncio
import json
import signal
import socket
import ssl
import sys
import time
from typing import Any

import httpx
import uvicorn
from cryptography import x509

from privet import CertAuthenticator, CertBundle, Client, FileStore
from privet.mtls import LiveTLS

_BETWEEN = 0.1
"""How long it rests after it has called everybody, in seconds."""


def serial_of(pem: bytes) -> str:
    return f"{x509.load_pem_x509_certificate(pem).serial_number:x}"


def meet(serial: str, met: set[str], whose: str) -> None:
    """Remember a certificate, and say so when it is a new one."""
    if serial not in met:
        met.add(serial)
        print(whose, "another certificate", flush=True)


class Service:
    """What it has seen: which certificates the others have shown, and what has failed."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told
        self.renewals = 0
        self.requests = 0
        self.failures: list[str] = []
        self.renewal_failures = 0
        self.slowest = 0.0
        self.shown: dict[str, set[str]] = {name: set() for name in told["peers"]}
        self.kept: dict[str, set[str]] = {name: set() for name in told["peers"]}
        self.called_by: dict[str, set[str]] = {}

    async def run(self) -> None:
        told, loop = self.told, asyncio.get_running_loop()
        begin, over = asyncio.Event(), asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, begin.set)
        loop.add_signal_handler(signal.SIGUSR2, over.set)
        with FileStore("store") as store:
            async with Client(told["directory"], store=store, ca_bundle=told["root"]) as client:
                bundle = await client.issue([told["name"], told["address"]])
                live = LiveTLS(bundle.fullchain_pem, bundle.key_pem, told["root"])

                def on_renewed(renewed: CertBundle) -> None:
                    live.on_renewed(renewed)
                    self.renewals += 1
                    print(f"renewed until {renewed.expires_at:%H:%M:%S}", flush=True)

                def on_error(name: str, error: Exception) -> None:
                    self.renewal_failures += 1
                    print(f"not renewed: {error}", flush=True)

                await client.auto_renew(on_renewed=on_renewed, on_error=on_error, **told["options"])
                server = uvicorn.Server(
                    uvicorn.Config(
                        CertAuthenticator(self, allowed_sans={*told["peers"]}),
                        lifespan="off",
                        log_level="warning",
                        timeout_keep_alive=3600,
                        http="privet.mtls.uvicorn:Protocol",
                        ssl_context_factory=lambda config, default: live.server_context,
                    )
                )
                listening = socket.create_server((told["address"], told["port"]))
                serving = asyncio.create_task(server.serve([listening]))
                print("up", flush=True)
                await begin.wait()
                await asyncio.gather(*(self.call(name, url, live, over) for name, url in told["peers"].items()))
                print(json.dumps(self.seen), flush=True)
                await serving

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        certificate = scope["extensions"]["tls"]["client_cert_chain"][0].encode()
        names = x509.load_pem_x509_certificate(certificate).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
        caller = names.value.get_values_for_type(x509.DNSName)[0]
        meet(serial_of(certificate), self.called_by.setdefault(caller, set()), f"{caller} calls")
        body = json.dumps({"i am": self.told["name"], "you are": caller}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def call(self, name: str, url: str, live: LiveTLS, over: asyncio.Event) -> None:
        """Call one of the others again and again: over one connection that stays, and over a new one each time."""
        options: dict[str, Any] = {"verify": live.client_context, "timeout": 60, "trust_env": False}
        stays, anew = httpx.Limits(keepalive_expiry=None), httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(limits=stays, **options) as one, httpx.AsyncClient(limits=anew, **options) as each:
            while not over.is_set():
                await self._ask(one, name, url, self.kept[name], "keeps")
                await self._ask(each, name, url, self.shown[name], "shows")
                await asyncio.sleep(_BETWEEN)

    async def _ask(self, http: httpx.AsyncClient, name: str, url: str, serials: set[str], how: str) -> None:
        began = time.monotonic()
        self.requests += 1
        try:
            answer = await http.get(url)
            assert answer.json() == {"i am": name, "you are": self.told["name"]}, answer.text
            tls = answer.extensions["network_stream"].get_extra_info("ssl_object")
            shown = ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True)).encode()
            meet(serial_of(shown), serials, f"{name} {how}")
        except Exception as error:
            self.failures.append(f"{name}: {error!r}")
            print("failed:", self.failures[-1], flush=True)
        self.slowest = max(self.slowest, time.monotonic() - began)

    @property
    def seen(self) -> dict[str, Any]:
        def counted(found: dict[str, set[str]]) -> dict[str, int]:
            return {name: len(serials) for name, serials in sorted(found.items())}

        return {
            "renewals": self.renewals,
            "renewal failures": self.renewal_failures,
            "requests": self.requests,
            "failures": self.failures,
            "slowest": round(self.slowest, 2),
            "shown": counted(self.shown),
            "shown by those that stay": counted(self.kept),
            "called by": counted(self.called_by),
        }


if __name__ == "__main__":
    asyncio.run(Service(json.loads(sys.argv[1])).run())
