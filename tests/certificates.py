"""What every certificate we make has to be: named extension by extension, bit by bit; then judged by `openssl verify`
and by a TLS handshake with the flags that Python 3.13 sets."""

import ssl
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from privet.ca.keys import PrivateKey

KEY_USAGE_BITS = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
)


def assert_is_ca(
    cert: x509.Certificate, *, cn: str | None = None, constraints: x509.NameConstraints | None = None
) -> None:
    """A self-signed root that signs certificates and revocation lists, perhaps for some names alone, and says nothing
    else."""
    _assert_sound(cert, issuer=cert)
    assert cert.subject == cert.issuer
    assert len(list(cert.subject)) == 1
    if cn is not None:
        assert cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == cn
    expected: list[tuple[type[x509.ExtensionType], bool]] = (
        [] if constraints is None else [(x509.NameConstraints, True)]
    )
    basic_constraints, key_usage, ski, aki, *more = _extensions(
        cert,
        (x509.BasicConstraints, True),
        (x509.KeyUsage, True),
        (x509.SubjectKeyIdentifier, False),
        (x509.AuthorityKeyIdentifier, False),
        *expected,
    )
    assert more == ([] if constraints is None else [constraints])
    assert basic_constraints == x509.BasicConstraints(ca=True, path_length=None)
    assert _bits(key_usage) == {"key_cert_sign", "crl_sign"}
    assert isinstance(ski, x509.SubjectKeyIdentifier)
    assert ski.digest
    assert aki == x509.AuthorityKeyIdentifier(ski.digest, None, None)


def assert_is_leaf(
    cert: x509.Certificate,
    *,
    issuer: x509.Certificate,
    names: Sequence[str],
    client: bool = False,
    cn: str | None = None,
) -> None:
    """An end entity for exactly these names; `client` says it is for clients alone, `cn` that it has another common
    name than the first of them."""
    _assert_sound(cert, issuer=issuer)
    assert cert.not_valid_before_utc >= issuer.not_valid_before_utc
    assert cert.not_valid_after_utc <= issuer.not_valid_after_utc
    if cn is None and not _is_ip(names[0]) and len(names[0]) <= 64:
        cn = names[0]
    assert [(a.oid, a.value) for a in cert.subject] == ([(NameOID.COMMON_NAME, cn)] if cn is not None else [])
    expected: list[tuple[type[x509.ExtensionType], bool]] = [(x509.SubjectAlternativeName, cn is None)] if names else []
    basic_constraints, key_usage, extended, aki, ski, *san = _extensions(
        cert,
        (x509.BasicConstraints, True),
        (x509.KeyUsage, True),
        (x509.ExtendedKeyUsage, False),
        (x509.AuthorityKeyIdentifier, False),
        (x509.SubjectKeyIdentifier, False),
        *expected,
    )
    assert basic_constraints == x509.BasicConstraints(ca=False, path_length=None)
    enciphers = isinstance(cert.public_key(), rsa.RSAPublicKey) and not client
    assert _bits(key_usage) == {"digital_signature"} | ({"key_encipherment"} if enciphers else set())
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    assert extended == x509.ExtendedKeyUsage(both[1:] if client else both)
    issuer_ski = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert aki == x509.AuthorityKeyIdentifier(issuer_ski.digest, None, None)
    assert isinstance(ski, x509.SubjectKeyIdentifier)
    assert ski.digest not in (b"", issuer_ski.digest)
    assert san == ([x509.SubjectAlternativeName([general_name(name) for name in names])] if names else [])


def _assert_sound(cert: x509.Certificate, *, issuer: x509.Certificate) -> None:
    assert cert.version is x509.Version.v3
    assert 1 <= cert.serial_number < 2**128
    assert cert.not_valid_before_utc < cert.not_valid_after_utc
    cert.verify_directly_issued_by(issuer)
    issuer_key = issuer.public_key()
    match issuer_key:
        case ed25519.Ed25519PublicKey():
            assert cert.signature_hash_algorithm is None
        case ec.EllipticCurvePublicKey(curve=ec.SECP384R1()):
            assert isinstance(cert.signature_hash_algorithm, hashes.SHA384)
        case _:
            assert isinstance(cert.signature_hash_algorithm, hashes.SHA256)
    assert cert.public_bytes(Encoding.DER) == x509.load_pem_x509_certificate(
        cert.public_bytes(Encoding.PEM)
    ).public_bytes(Encoding.DER)


def _extensions(cert: x509.Certificate, *expected: tuple[type[x509.ExtensionType], bool]) -> list[x509.ExtensionType]:
    """The values of the extensions, which must be these, each with this criticality, and no others."""
    there = {type(extension.value): extension for extension in cert.extensions}
    assert len(there) == len(cert.extensions)
    assert {kind: extension.critical for kind, extension in there.items()} == dict(expected)
    return [there[kind].value for kind, _ in expected]


def _bits(value: x509.ExtensionType) -> set[str]:
    assert isinstance(value, x509.KeyUsage)
    return {bit for bit in KEY_USAGE_BITS if getattr(value, bit)}


def _is_ip(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def general_name(name: str) -> x509.GeneralName:
    return x509.IPAddress(ip_address(name)) if _is_ip(name) else x509.DNSName(name)


def openssl(*arguments: str | Path, input: bytes | None = None) -> bytes:
    done = subprocess.run(["openssl", *map(str, arguments)], input=input, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    return done.stdout


def openssl_verify(
    cert_pem: bytes,
    root_pem: bytes,
    *,
    chain_pem: bytes = b"",
    name: str | None = None,
    purpose: str = "sslserver",
    at: datetime | None = None,
) -> None:
    """`openssl verify -x509_strict`; what it refuses is an AssertionError with its words."""
    with _files(cert=cert_pem, root=root_pem, chain=chain_pem) as paths:
        options: list[str | Path] = ["-x509_strict", "-no-CApath", "-no-CAstore", "-purpose", purpose]
        options += ["-CAfile", paths["root"]]
        if chain_pem:
            options += ["-untrusted", paths["chain"]]
        if name is not None:
            options += ["-verify_ip" if _is_ip(name) else "-verify_hostname", name]
        if at is not None:
            options += ["-attime", str(int(at.timestamp()))]
        openssl("verify", *options, paths["cert"])


@dataclass(frozen=True)
class Party:
    """One side of a handshake: what it presents."""

    fullchain_pem: bytes
    key_pem: bytes


def strict_context(purpose: ssl.Purpose, root_pem: bytes) -> ssl.SSLContext:
    """Python's default context as 3.13 makes it, trusting this root alone."""
    context = ssl.create_default_context(purpose, cadata=root_pem.decode())
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def tls_handshake(server: Party, root_pem: bytes, *, name: str, client: Party | None = None) -> None:
    """The server shows its certificate for `name` to a client that trusts the root; with `client`, both show one.

    Raises `ssl.SSLError` when either refuses the other.
    """
    server_context = strict_context(ssl.Purpose.CLIENT_AUTH, root_pem)
    _present(server_context, server)
    client_context = strict_context(ssl.Purpose.SERVER_AUTH, root_pem)
    if client is not None:
        server_context.verify_mode = ssl.CERT_REQUIRED
        _present(client_context, client)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    waiting = [
        client_context.wrap_bio(down, up, server_hostname=name),
        server_context.wrap_bio(up, down, server_side=True),
    ]
    while waiting:
        for side in waiting.copy():
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass


def _present(context: ssl.SSLContext, party: Party) -> None:
    with _files(chain=party.fullchain_pem, key=party.key_pem) as paths:
        context.load_cert_chain(paths["chain"], paths["key"])


@contextmanager
def _files(**contents: bytes) -> Iterator[dict[str, Path]]:
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.pem" for name in contents}
        for name, content in contents.items():
            paths[name].write_bytes(content)
        yield paths


def make_csr(
    key: PrivateKey | ec.EllipticCurvePrivateKey,
    names: Sequence[str | x509.GeneralName] = (),
    *,
    cn: str | None = None,
    extensions: Sequence[x509.ExtensionType] = (),
    algorithm: hashes.HashAlgorithm | None = None,
) -> bytes:
    """A CSR in DER, as a client with cryptography makes it."""
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, cn)] if cn is not None else []
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if names:
        san = [general_name(name) if isinstance(name, str) else name for name in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(san), critical=False)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    hash = None if isinstance(key, ed25519.Ed25519PrivateKey) else algorithm or hashes.SHA256()
    return builder.sign(key, hash).public_bytes(Encoding.DER)  # type: ignore[arg-type]


def same_key(one: x509.Certificate, public_key: object) -> bool:
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return one.public_key().public_bytes(*spki) == public_key.public_bytes(*spki)  # type: ignore[attr-defined, no-any-return]
