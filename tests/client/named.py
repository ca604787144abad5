"""A BIND that serves one zone on 127.0.0.1 and takes updates signed with its key."""

import base64
import secrets
from pathlib import Path
from typing import Self

from tests.interop.programs import Program, free_port, need

CONFIGURATION = """
key "acme" {{ algorithm hmac-sha256; secret "{secret}"; }};
controls {{ }};
options {{
    directory "{folder}"; pid-file none; session-keyfile none; lock-file none; managed-keys-directory "{folder}";
    listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
    recursion no; dnssec-validation no; empty-zones-enable no; notify no;
}};
zone "{zone}" {{ type primary; file "{folder}/zone"; update-policy {{ grant acme zonesub TXT; }}; }};
"""
ZONE = """$TTL 60
@ IN SOA ns you 1 3600 600 86400 60
@ IN NS ns
ns IN A 127.0.0.1
"""


class Named:
    def __init__(self, folder: Path, zone: str) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.secret = base64.b64encode(secrets.token_bytes(32)).decode()
        (folder / "zone").write_text(ZONE)
        self._configuration = folder / "named.conf"
        self._configuration.write_text(
            CONFIGURATION.format(secret=self.secret, folder=folder, port=self.port, zone=zone)
        )

    def __enter__(self) -> Self:
        self._program = Program(need("named"), "-g", "-c", self._configuration, "-n", "1")
        self._program.wait_for(r"\brunning\n")
        return self

    def __exit__(self, *_: object) -> None:
        self._program.stop()
