"""nginx in front of privet, at another path, as docs/postgresql.md says."""

import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.interop.programs import Program, need

PAGE = (Path(__file__).parents[2] / "docs/postgresql.md").read_text()
# How that page tells nginx to go on to the next replica, and what it says of each.
(NEXT,) = re.findall(r"proxy_next_upstream [^;]+;", PAGE)
(OF_EACH,) = set(re.findall(r"server [0-9.]+:8555 ([^;]+);", PAGE))


class Nginx:
    """nginx on `port`, passing what lies under /pki/ on, in turn if there are several, with a Host header of its own
    making. With `keep_alive=False` it closes each connection after one answer."""

    def __init__(self, folder: Path, port: int, *upstreams: str, keep_alive: bool = True) -> None:
        self.folder = folder
        self.port = port
        self.upstreams: Sequence[str] = upstreams
        self._keep_alive = keep_alive

    def __enter__(self) -> Self:
        self.folder.mkdir()
        self._write()
        command = [need("nginx"), "-e", "stderr", "-c", str(self.folder / "nginx.conf"), "-p", str(self.folder)]
        self._program = Program(*command)
        self._program.wait_for("start worker process ")
        return self

    def __exit__(self, *_: object) -> None:
        self._program.stop()

    def pass_to(self, *upstreams: str) -> None:
        """Pass to these from now on, as `nginx -s reload` does; return when nobody is asked who was before."""
        self.upstreams = upstreams
        self._write()
        said = len(self._program.output)
        self._program.process.send_signal(signal.SIGHUP)
        self._program.wait_for("worker process [0-9]+ exited with code 0", after=said)

    def answers(self) -> list[tuple[int, str]]:
        """Each answer it gave: its status, and what was asked."""
        lines = [line.split(" ", 1) for line in (self.folder / "access").read_text().splitlines()]
        return [(int(status), asked) for status, asked in lines]

    def _write(self) -> None:
        folder = self.folder
        temporary = "".join(
            f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        servers = " ".join(f"server {upstream} {OF_EACH};" for upstream in self.upstreams)
        (folder / "nginx.conf").write_text(f"""
            {"user root;" if os.geteuid() == 0 else ""}
            daemon off;
            worker_processes 1;
            pid {folder}/nginx.pid;
            error_log stderr notice;
            events {{}}
            http {{
                log_format asked "$status $request_method $uri by $upstream_addr $upstream_status";
                access_log {folder}/access asked;
                {temporary}
                upstream privet {{ {servers} {"keepalive 4;" if self._keep_alive else ""} }}
                server {{
                    listen 127.0.0.1:{self.port};
                    {"" if self._keep_alive else "keepalive_timeout 0;"}
                    location /pki/ {{
                        proxy_pass http://privet/;
                        proxy_http_version 1.1;
                        proxy_set_header Connection "";
                        {NEXT}
                    }}
                }}
            }}
        """)
