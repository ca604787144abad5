"""nginx in front of privet, at another path, on a port and on a Unix socket: clients know the address that was told."""

import tempfile
from pathlib import Path

import pytest
from tests.interop.clients import Certbot, Lego
from tests.interop.nginx import Nginx
from tests.interop.programs import free_port
from tests.interop.serving import Privet

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("proxy")]


@pytest.mark.parametrize("client", [Certbot, Lego], ids=lambda client: client.name)
def test_behind_a_proxy(tmp_path: Path, client: type[Certbot | Lego]) -> None:
    front, back = free_port(), free_port()
    privet = Privet(tmp_path, "--port", str(back), "--external-url", f"http://localhost:{front}/pki")
    with Nginx(tmp_path / "nginx", front, f"127.0.0.1:{back}"), privet:
        _works(privet, client, tmp_path)


def test_on_a_unix_socket(tmp_path: Path) -> None:
    front = free_port()
    # The path of a socket has 107 characters at most, and tmp_path may take most of them.
    with tempfile.TemporaryDirectory() as short:
        path = f"{short}/privet.sock"
        privet = Privet(tmp_path, "--uds", path, "--external-url", f"http://localhost:{front}/pki")
        with Nginx(tmp_path / "nginx", front, f"unix:{path}"), privet:
            _works(privet, Lego, tmp_path)


def _works(privet: Privet, client: type[Certbot | Lego], folder: Path) -> None:
    assert privet.directory.endswith("/pki/directory")
    root = privet.root()
    made = client(folder / "client", privet.directory, root)
    names = ["behind.internal", "a-proxy.internal"]
    made.issue(names).check(root, names)
    made.renew(names).check(root, names)
    made.revoke(names)
    assert [each["status"] for each in privet.listed()] == ["valid", "revoked"]
