"""Go honours the name constraints of our roots as OpenSSL and Python do; lego is the Go program at hand."""

import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from tests.ca.tier import smuggled
from tests.certificates import Party
from tests.interop.programs import need

from privet import CertificateAuthority, MemoryStore, NameConstraints

pytestmark = pytest.mark.interop


class Nothing(BaseHTTPRequestHandler):
    """A server that has nothing: whoever gets that far has accepted its certificate."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(party: Party, folder: Path) -> Iterator[int]:
    (folder / "server.pem").write_bytes(party.fullchain_pem + party.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    with HTTPServer(("127.0.0.1", 0), Nothing) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("constraints", "host", "complaint"),
    [
        (NameConstraints(["localhost"]), "localhost", None),
        (NameConstraints(["127.0.0.0/8"]), "127.0.0.1", None),
        (NameConstraints(["internal"]), "localhost", "is not permitted by any constraint"),
        (NameConstraints([".localhost"]), "localhost", "is not permitted by any constraint"),
        (NameConstraints(["127.0.0.0/8"]), "localhost", "is excluded by constraint"),
        (NameConstraints(["localhost"]), "127.0.0.1", "is excluded by constraint"),
        (NameConstraints(excluded=["localhost"]), "localhost", "is excluded by constraint"),
    ],
    ids=str,
)
def test_go_refuses_what_the_root_does_not_allow(
    tmp_path: Path, constraints: NameConstraints, host: str, complaint: str | None
) -> None:
    ca = CertificateAuthority(MemoryStore())
    ca.init(name_constraints=constraints)
    (tmp_path / "root.pem").write_bytes(ca.root_cert_pem)
    lego = [need("lego"), "--path", str(tmp_path / "lego"), "--email", "you@example.com", "--accept-tos", "--http"]
    with serving(smuggled(ca, host), tmp_path) as port:
        asked = subprocess.run(
            [*lego, "--server", f"https://{host}:{port}/directory", "--domains", "web.internal", "run"],
            env={"LEGO_CA_CERTIFICATES": str(tmp_path / "root.pem"), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    said = asked.stdout + asked.stderr
    assert asked.returncode != 0
    assert (complaint or "404") in said, said
    assert ("x509:" in said) == (complaint is not None), said
