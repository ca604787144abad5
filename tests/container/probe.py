"""What a client sees of a server in a container: it is ready, it issues, and it is the same one after a restart.

    python -m tests.container.probe URL FILE

FILE keeps the root between two looks. Run by whatever starts the containers, in the network where they are reached.
"""

import ssl
import sys
import urllib.request
from pathlib import Path

from privet import MemoryStore, SyncClient


def probe(url: str, kept: Path) -> None:
    unknown = ssl.create_default_context()
    unknown.check_hostname, unknown.verify_mode = False, ssl.CERT_NONE  # as on the first contact, before it is trusted
    with urllib.request.urlopen(f"{url}/ca.pem", context=unknown) as answer:
        root = answer.read()
    if not kept.exists():
        kept.write_bytes(root)
    assert kept.read_bytes() == root, "another authority than before"
    trust = ssl.create_default_context(cadata=root.decode())
    with urllib.request.urlopen(f"{url}/health/ready", context=trust) as answer:
        assert answer.status == 200
    plain = url.startswith("http:")
    with SyncClient(
        f"{url}/directory", ca_bundle=None if plain else kept, allow_insecure=plain, store=MemoryStore()
    ) as client:
        for _ in range(4):  # by whichever replica
            assert client.issue("web.internal").domain == "web.internal"


if __name__ == "__main__":
    probe(sys.argv[1], Path(sys.argv[2]))
    print("issued")
