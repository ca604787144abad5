"""Processor time: of a server's processes, of one signature check, and of what no issuance can do without.

The law of this module: CPU here swings from minute to minute, so nothing is worth printing without the yardstick timed
in the same run.
"""

import os
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import mean

from benchmarks.load import ES256
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

TICK = 1 / os.sysconf("SC_CLK_TCK")
DIGITAL_SIGNATURE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def processor_seconds(pid: int) -> float:
    """User and system time of a process and all it started, their threads and the ended ones included."""
    seconds: dict[int, float] = {}
    children = defaultdict(list)
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):  # some process may end while we look
            # proc(5): ppid is field 4; utime, stime, cutime and cstime are 14 to 17; the first here is field 3.
            stat = (process / "stat").read_text().rpartition(")")[2].split()
            children[int(stat[1])].append(int(process.name))
            seconds[int(process.name)] = sum(int(field) for field in stat[11:15]) * TICK
    total, waiting = 0.0, [pid]
    while waiting:
        process_id = waiting.pop()
        total += seconds[process_id]
        waiting += children[process_id]
    return total


def loop_seconds(pid: int) -> float:
    """User and system time of the first thread of a process: its event loop. The others wait for the store."""
    stat = Path(f"/proc/{pid}/task/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in stat[11:13]) * TICK


def memory_mib(pid: int, *, now: bool = False) -> float:
    """The peak resident memory of the process itself, or what it is now."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:" if now else "VmHWM:")[2].split()[0]) / 1024


def cost(work: Callable[[], object], *, times: int) -> float:
    """Processor seconds of doing `work` once."""
    begun = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - begun) / times


class Yardstick:
    """One P-256 verification through cryptography, timed now and again while something else is measured."""

    def __init__(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        public, message = key.public_key(), b"x" * 400
        signature = key.sign(message, ES256)
        self.verify: Callable[[], None] = lambda: public.verify(signature, message, ES256)
        self._seen: list[float] = []

    def look(self) -> None:
        self._seen.append(cost(self.verify, times=200))

    @property
    def seconds(self) -> float:
        return mean(self._seen)


class Minimum:
    """What an issuance cannot do without: check each signed request, read the CSR, and make the certificate."""

    def __init__(self) -> None:
        self._yardstick = Yardstick()
        self._root = ec.generate_private_key(ec.SECP256R1())
        self._issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench root")])
        self._authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._root.public_key())
        self._name = x509.SubjectAlternativeName([x509.DNSName("host.bench.internal")])
        self._csr = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([]))
            .add_extension(self._name, critical=False)
            .sign(ec.generate_private_key(ec.SECP256R1()), SHA256())
            .public_bytes(Encoding.DER)
        )

    def measure(self, requests: int) -> tuple[float, float]:
        """Return its processor time in seconds and in verifies."""
        seconds = []
        for _ in range(20):
            self._yardstick.look()
            seconds.append(cost(lambda: self._issue(requests), times=25))
        return mean(seconds), mean(seconds) / self._yardstick.seconds

    def _issue(self, requests: int) -> bytes:
        for _ in range(requests):
            self._yardstick.verify()
        csr = x509.load_der_x509_csr(self._csr)
        if not csr.is_signature_valid:
            raise AssertionError("a signature made here is not valid")
        now = datetime.now(UTC)
        usages = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
        public_key = csr.public_key()
        builder = (
            x509.CertificateBuilder()
            .issuer_name(self._issuer)
            .subject_name(x509.Name([]))
            .not_valid_before(now)
            .not_valid_after(now + timedelta(days=1))
            .serial_number(x509.random_serial_number())
            .public_key(public_key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(DIGITAL_SIGNATURE, critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(csr.extensions[0].value, critical=True)
            .add_extension(self._authority_key, critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        )
        return builder.sign(self._root, SHA256()).public_bytes(Encoding.PEM)
