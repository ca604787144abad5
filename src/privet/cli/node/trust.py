"""Trust in a CA, once: its root, known by its fingerprint, as a file and in the system's trust store.

The law of this module: nothing is written that has not the fingerprint which the person gave.
"""

import shutil
import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from privet.ca.certificates import fingerprint as fingerprint_of
from privet.cli.failures import Failure
from privet.cli.node.folder import write_file
from privet.client.trust import fetch_root, fetch_roots

# The program that takes a folder of roots into the system's trust, and the folder: Debian's, then Fedora's.
_SYSTEMS = (
    (("update-ca-certificates",), Path("/usr/local/share/ca-certificates"), ".crt"),
    (("update-ca-trust", "extract"), Path("/etc/pki/ca-trust/source/anchors"), ".pem"),
)


async def named_root(directory: str, fingerprint: str | None) -> x509.Certificate:
    """The root with this fingerprint. Raises `Failure` without one, with what is there to be compared."""
    if fingerprint is not None:
        return await fetch_root(directory, fingerprint)
    shown = " and ".join(fingerprint_of(root) for root in await fetch_roots(directory))
    raise Failure(
        f"whoever answers for {directory} shows a root with the SHA-256 {shown}; that may be somebody in between: "
        "compare it with what `privet root` prints where the CA is, and if they are the same, give it with "
        "--fingerprint. Nothing was written"
    )


def install(root: x509.Certificate) -> Path:
    """Take a root into the system's trust store, and return where it lies. Raises `Failure`."""
    for command, folder, ending in _SYSTEMS:
        program = shutil.which(command[0])
        if program is None:
            continue
        path = folder / f"privet-{fingerprint_of(root).replace(':', '')[:16].lower()}{ending}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Failure(f"{folder} cannot be made: {error.strerror}; --install is for root") from None
        write_file(path, root.public_bytes(Encoding.PEM))
        done = subprocess.run(  # noqa: S603 - the system's own
            [program, *command[1:]], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).split())[-500:]
            raise Failure(f"{path} is there, but {command[0]} ended with {done.returncode}: {said}")
        return path
    raise Failure(
        "this system has neither update-ca-certificates nor update-ca-trust: write the root with --out, and add that "
        "file to what your programs trust"
    )
