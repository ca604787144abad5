"""Caddy, Debian's and the current one: it gets its certificates, serves pages with them, and renews them."""

import socket
import ssl
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
from tests.certificates import strict_context
from tests.interop.clients import Caddy, Certbot
from tests.interop.serving import Privet

pytestmark = pytest.mark.interop


@pytest.fixture(params=["debian", "current"])
def caddy(request: pytest.FixtureRequest, server: Privet, root: Path, tmp_path: Path) -> Iterator[Caddy]:
    made = Caddy(tmp_path / "caddy", server.directory, root, debian=request.param == "debian")
    yield made
    made.stop()


def fetch(port: int, name: str, root: Path) -> str:
    """A page from a server on this machine that proves to be `name` to somebody who trusts the root alone."""
    context = strict_context(ssl.Purpose.SERVER_AUTH, root.read_bytes())
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with (
                socket.create_connection(("127.0.0.1", port)) as connection,
                context.wrap_socket(connection, server_hostname=name) as tls,
            ):
                tls.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
                return b"".join(iter(partial(tls.recv, 65536), b"")).decode()
        except ssl.SSLError as error:
            # Caddy says that it has a certificate a moment before it uses it.
            if error.reason != "TLSV1_ALERT_INTERNAL_ERROR":
                raise
            time.sleep(0.1)
    raise AssertionError(f"Caddy has no certificate for {name}")


def test_pages_are_served_renewed_and_revoked(
    server: Privet, caddy: Caddy, root: Path, tmp_path: Path, key_type: str
) -> None:
    host = f"host-{uuid4().hex[:12]}.internal"
    names = [host, f"www.{host}", "127.0.0.1"]
    if "--ask-challenges" not in server.options:
        # Caddy proves a wildcard only with a plug-in for somebody's DNS, but here nothing has to be proved.
        names.append(f"*.wild-{host}")

    if caddy.name == "caddy 2.6":
        # With several sites and no account, it makes one for each of them at once, and may keep the key of one beside
        # the URL of another. So it gets its account with one site.
        caddy.start([f"first-{host}"], key_type)
        caddy.issued(f"first-{host}")
        caddy.stop()
    caddy.start(names, key_type)
    first = {name: caddy.issued(name) for name in names}
    for name in names:
        first[name].check(root, [name], key_type)
        page = name.replace("*", "any")
        assert f"a page for {page}" in fetch(caddy.port, page, root)
    account = caddy.accounts()
    assert len(account) == 1

    caddy.stop()
    caddy.start(names, key_type, due=True)
    second = {name: caddy.issued(name, "renewed") for name in names}
    for name in names:
        second[name].check(root, [name], key_type)
        assert second[name].serial != first[name].serial
    assert caddy.accounts() == account
    assert len(server.certificates([host])) == 2

    # Caddy has no command to revoke; the certificate's own key may do it (RFC 8555 §7.6), from any program.
    caddy.stop()
    Certbot(tmp_path / "certbot", server.directory, root).revoke_with_key(*caddy.files(host))
    assert server.show(second[host].serial)["status"] == "revoked"
