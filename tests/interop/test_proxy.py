"""nginx in front of privet, at another path, on a port and on a Unix socket: clients know the address that was told."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.interop.clients import Certbot, Lego
from tests.interop.programs import Program, free_port, need
from tests.interop.serving import Privet

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("proxy")]


@contextmanager
def nginx(folder: Path, port: int, *upstreams: str) -> Iterator[None]:
    """nginx on `port`, passing what lies under /pki/ on, in turn if there are several, with a Host header of its own
    making."""
    folder.mkdir()
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    servers = " ".join(f"server {upstream};" for upstream in upstreams)
    (folder / "nginx.conf").write_text(f"""
        {"user root;" if os.geteuid() == 0 else ""}
        daemon off;
        worker_processes 1;
        pid {folder}/nginx.pid;
        error_log stderr notice;
        events {{}}
        http {{
            access_log off;
            {temporary}
            upstream privet {{ {servers} keepalive 4; }}
            server {{
                listen 127.0.0.1:{port};
                location /pki/ {{
                    proxy_pass http://privet/;
                    proxy_http_version 1.1;
                    proxy_set_header Connection "";
                }}
            }}
        }}
    """)
    with Program(need("nginx"), "-e", "stderr", "-c", folder / "nginx.conf", "-p", folder) as running:
        running.wait_for("start worker process ")
        yield


@pytest.mark.parametrize("client", [Certbot, Lego], ids=lambda client: client.name)
def test_behind_a_proxy(tmp_path: Path, client: type[Certbot | Lego]) -> None:
    front, back = free_port(), free_port()
    privet = Privet(tmp_path, "--port", str(back), "--external-url", f"http://localhost:{front}/pki")
    with nginx(tmp_path / "nginx", front, f"127.0.0.1:{back}"), privet:
        _works(privet, client, tmp_path)


def test_on_a_unix_socket(tmp_path: Path) -> None:
    front = free_port()
    # The path of a socket has 107 characters at most, and tmp_path may take most of them.
    with tempfile.TemporaryDirectory() as short:
        path = f"{short}/privet.sock"
        privet = Privet(tmp_path, "--uds", path, "--external-url", f"http://localhost:{front}/pki")
        with nginx(tmp_path / "nginx", front, f"unix:{path}"), privet:
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
