"""`ssl.SSLContext`s for mutual TLS, from PEM in memory or from files (RFC 8446 §4.4.2, RFC 5280 §6).

The law of this module: what is asked for is checked in full or refused in one sentence. A file that is missing is an
error and never an empty trust store, nobody is asked for a password on a terminal, and a private key touches no disk
but the one where it lay, or only in a file of mode 0600 that is gone at once.
"""

import contextlib
import os
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

Source = bytes | str | os.PathLike[str]
"""PEM, or the path of a file that has it."""


class TLSConfigError(ValueError):
    """Certificates, keys and trust that make no TLS. The text says what is wrong, and shows nothing of a key."""


@dataclass(frozen=True, slots=True)
class Material:
    """What a context is made of, as bytes of PEM."""

    cert: bytes | None
    key: bytes | None = field(repr=False)
    ca: bytes | None
    crl: bytes | None
    key_password: bytes | str | None = field(repr=False)


def server_ssl_context(
    cert_pem: Source,
    key_pem: Source | None = None,
    ca_cert_pem: Source | None = None,
    *,
    crl_pem: Source | None = None,
    key_password: bytes | str | None = None,
) -> ssl.SSLContext:
    """A server's side of mutual TLS: clients have to show a certificate that leads to `ca_cert_pem`.

    Each may be PEM as bytes, or a path. Without `key_pem` the key is looked for behind the certificate. With `crl_pem`,
    revocation lists of every authority that issues to clients, a certificate is refused that is on one, or for which
    there is none.

    Raises `TLSConfigError` for what cannot be used, and `OSError` for files that cannot be read.
    """
    if ca_cert_pem is None:
        raise TLSConfigError("whom to trust is missing: give the CA certificate as ca_cert_pem")
    return server_context(read(cert_pem, key_pem, ca_cert_pem, crl_pem, key_password))


def client_ssl_context(
    cert_pem: Source | None = None,
    key_pem: Source | None = None,
    ca_cert_pem: Source | None = None,
    *,
    crl_pem: Source | None = None,
    key_password: bytes | str | None = None,
) -> ssl.SSLContext:
    """A client's side: servers have to show a certificate that leads to `ca_cert_pem`, for the name that was called.

    With `cert_pem` it shows its own. Otherwise as `server_ssl_context`.
    """
    if ca_cert_pem is None:
        raise TLSConfigError("whom to trust is missing: give the CA certificate as ca_cert_pem")
    return client_context(read(cert_pem, key_pem, ca_cert_pem, crl_pem, key_password))


def read(
    cert: Source | None,
    key: Source | None,
    ca: Source | None,
    crl: Source | None = None,
    key_password: bytes | str | None = None,
) -> Material:
    """Everything that is given, from memory and from files."""
    cert_pem = _content(cert)
    return Material(cert_pem, cert_pem if key is None else _content(key), _content(ca), _content(crl), key_password)


def path_of(source: Source | None) -> Path | None:
    """Where it lies, if it is a file. Text that is PEM itself is no path."""
    if source is None or isinstance(source, bytes) or "-----BEGIN" in os.fspath(source):
        return None
    return Path(source).expanduser()


def _content(source: Source | None) -> bytes | None:
    if source is None or isinstance(source, bytes):
        return source
    path = path_of(source)
    return os.fspath(source).encode() if path is None else path.read_bytes()


def server_context(
    material: Material,
    *,
    minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
    kind: type[ssl.SSLContext] = ssl.SSLContext,
) -> ssl.SSLContext:
    """One for a server; with a CA, client certificates are required."""
    if material.cert is None:
        raise TLSConfigError("a server needs a certificate to show")
    context = kind(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = minimum
    context.options |= ssl.OP_NO_RENEGOTIATION
    _present(context, material)
    if material.ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        # Whoever resumes a session shows no certificate: neither its end nor its revocation would be noticed.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        _trust(context, material.ca, material.crl)
    elif material.crl is not None:
        raise TLSConfigError("revocation lists without a CA certificate: give the CA whose clients are to be let in")
    return context


def client_context(
    material: Material,
    *,
    minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
    kind: type[ssl.SSLContext] = ssl.SSLContext,
) -> ssl.SSLContext:
    """One for a client; without a CA, it trusts what the system trusts."""
    context = kind(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = minimum
    context.options |= ssl.OP_NO_RENEGOTIATION
    # RFC 9525 §6.3: names are alternative names, and a common name is only a text.
    context.hostname_checks_common_name = False
    if material.cert is not None:
        _present(context, material)
    elif material.key is not None:
        raise TLSConfigError("a private key without its certificate: give both")
    if material.ca is not None:
        _trust(context, material.ca, material.crl)
    elif material.crl is not None:
        raise TLSConfigError("revocation lists without a CA certificate: give the CA whose servers are to be trusted")
    else:
        context.load_default_certs()
    return context


def _present(context: ssl.SSLContext, material: Material) -> None:
    """Have the context show this certificate."""
    assert material.cert is not None
    assert material.key is not None
    password = material.key_password
    with file_of(material.cert) as cert, file_of(material.key) as key:
        try:
            # A function, because OpenSSL asks on the terminal where there is none.
            context.load_cert_chain(cert, key, password=_no_password if password is None else password)
        except ssl.SSLError as error:
            raise TLSConfigError(_why_not(material, error)) from None


def _no_password() -> str:
    raise TLSConfigError("the private key is encrypted and its password is missing: give it as key_password")


def _why_not(material: Material, error: ssl.SSLError) -> str:
    if b"-----BEGIN CERTIFICATE" not in (material.cert or b""):
        return "there is no certificate in PEM where one is to be shown"
    if b"PRIVATE KEY-----" not in (material.key or b""):
        return "there is no private key in PEM: give its file, or put it behind the certificate"
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the private key does not belong to the certificate: one of the two files is of another time or name"
    if material.key_password is not None and b"ENCRYPTED" in (material.key or b""):
        return "the private key cannot be read: its password is another, or it is damaged"
    return f"certificate and private key cannot be used: {(error.reason or 'damaged').replace('_', ' ').lower()}"


def _trust(context: ssl.SSLContext, ca: bytes, crl: bytes | None) -> None:
    with file_of(ca) as path:
        _load(context, path, "there is no certificate in PEM among those to trust")
    if not context.cert_store_stats()["x509"]:
        raise TLSConfigError("there is no certificate in PEM among those to trust")
    # As Python 3.13 has it: what is trusted is trusted, be it a root or not.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if _is_strict(ca):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    else:
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if crl is not None:
        before = context.cert_store_stats()["crl"]
        with file_of(crl) as path:
            _load(context, path, "there is no revocation list in PEM where one was promised")
        if context.cert_store_stats()["crl"] == before:
            raise TLSConfigError("there is no revocation list in PEM where one was promised")
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def _load(context: ssl.SSLContext, path: str, otherwise: str) -> None:
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        raise TLSConfigError(otherwise) from None


def _is_strict(ca: bytes) -> bool:
    """Whether strict verification could accept anything that these issue.

    It insists on key usage and subject key identifier in every CA, and `openssl req -x509` leaves out the former: such
    a CA would be trusted in vain.
    """
    try:
        certificates = x509.load_pem_x509_certificates(ca)
        return all(_has_what_strict_wants(certificate.extensions) for certificate in certificates)
    except Exception:  # OpenSSL reads what cryptography does not; strict is the safe side
        return True


def _has_what_strict_wants(extensions: x509.Extensions) -> bool:
    critical = {type(extension.value): extension.critical for extension in extensions}
    return critical.get(x509.BasicConstraints, False) and {x509.KeyUsage, x509.SubjectKeyIdentifier} <= critical.keys()


@contextlib.contextmanager
def file_of(content: bytes) -> Iterator[str]:
    """A path by which OpenSSL can read this: of memory where the system can, and otherwise of a file that nobody else
    can open and that is gone at once."""
    descriptor = _in_memory(content)
    if descriptor is not None:
        try:
            yield _path(descriptor)
        finally:
            os.close(descriptor)
        return
    with tempfile.NamedTemporaryFile(prefix="privet-") as file:  # 0600 from the moment it exists
        file.write(content)
        file.flush()
        yield file.name


def _in_memory(content: bytes) -> int | None:
    """A file in memory that can be opened by its path; None where there is no such thing."""
    if not hasattr(os, "memfd_create"):
        return None
    try:
        descriptor = os.memfd_create("privet", os.MFD_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)
    if os.access(_path(descriptor), os.R_OK):
        return descriptor
    os.close(descriptor)  # /proc is not there, or not for us
    return None


def _path(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"
