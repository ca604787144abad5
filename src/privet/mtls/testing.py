"""An authority, a server and a client for tests, as files in a folder.

The law of this module: one call, and what it makes is good for a year and for this machine alone.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from privet.ca import KeyType, keys
from privet.ca.issuer import make_root
from privet.ca.offline import certify
from privet.mtls.config import StrPath, TLSConfig

NAMES = ("localhost", "127.0.0.1", "::1")
_DAY = timedelta(days=1)
_YEAR = 365 * _DAY


def _utc_now() -> datetime:
    return datetime.now(UTC)


def generate_test_certificates(directory: StrPath, now: Callable[[], datetime] = _utc_now) -> TLSConfig:
    """Write `ca.pem`, `server.pem`, `server.key`, `client.pem` and `client.key` into the folder, and return what the
    server needs of them.

    The server is `localhost`, `127.0.0.1` and `::1`; the key of the authority is kept nowhere.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    issuer = make_root(keys.generate(KeyType.P256), "privet Test CA", now(), _YEAR + _DAY)
    (folder / "ca.pem").write_bytes(issuer.chain_pem)
    for part, names in (("server", NAMES), ("client", ())):
        cn = f"privet Test {part.capitalize()}"
        certificate, key = certify(issuer, names, now(), _YEAR, cn=cn, client=part == "client")
        (folder / f"{part}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        private = folder / f"{part}.key"
        private.unlink(missing_ok=True)
        private.touch(0o600)
        private.write_bytes(keys.to_pem(key))
    return TLSConfig(str(folder / "server.pem"), str(folder / "server.key"), str(folder / "ca.pem"))
