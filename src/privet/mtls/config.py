"""`TLSConfig`: where a node's certificate, its key and its trust lie, as one frozen value that everything takes.

The law of this module: it can be shown, compared and logged; the password is not in its repr, and keys are not in it.
"""

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

from privet.mtls.contexts import Material, TLSConfigError, client_context, read, server_context
from privet.mtls.live import LiveTLS

StrPath = str | os.PathLike[str]


@dataclass(frozen=True, init=False)
class TLSConfig:
    """The files of a node, or two contexts of one's own. Nothing is read before a context is asked for.

    `server_context` and `client_context` are those of mutual TLS. Whoever gives a context is responsible for what it
    checks.
    """

    certificate_path: StrPath | None
    private_key_path: StrPath | None
    ca_certificates_path: StrPath | None
    key_password: bytes | str | None = field(repr=False)
    revocation_lists_path: StrPath | None
    _given: tuple[ssl.SSLContext | None, ssl.SSLContext | None] = field(repr=False, init=False)

    def __init__(
        self,
        certificate_path: StrPath | None = None,
        private_key_path: StrPath | None = None,
        ca_certificates_path: StrPath | None = None,
        key_password: bytes | str | None = None,
        revocation_lists_path: StrPath | None = None,
        *,
        server_context: ssl.SSLContext | None = None,
        client_context: ssl.SSLContext | None = None,
    ) -> None:
        vars(self).update(
            certificate_path=certificate_path,
            private_key_path=private_key_path,
            ca_certificates_path=ca_certificates_path,
            key_password=key_password,
            revocation_lists_path=revocation_lists_path,
            _given=(server_context, client_context),
        )

    @classmethod
    def from_paths(
        cls,
        certfile: StrPath,
        cafile: StrPath,
        keyfile: StrPath | None = None,
        *,
        key_password: bytes | str | None = None,
        crlfile: StrPath | None = None,
    ) -> Self:
        """For mutual TLS; without `keyfile` the key is in `certfile`. The files are read here.

        Raises `TLSConfigError` for what cannot be used, and `OSError` for files that cannot be read.
        """
        tls = cls(certfile, keyfile, cafile, key_password, crlfile)
        _ = tls.server_context, tls.client_context
        return tls

    @cached_property
    def server_context(self) -> ssl.SSLContext:
        """For a server whose clients have to show a certificate."""
        given, _ = self._given
        if given is not None:
            return given
        if self.ca_certificates_path is None:
            raise TLSConfigError("whom to trust is missing: give ca_certificates_path")
        return server_context(self._read())

    @cached_property
    def client_context(self) -> ssl.SSLContext:
        """For a client that shows its certificate, if it has one."""
        _, given = self._given
        return client_context(self._read()) if given is None else given

    def live(self, on_change: Callable[[LiveTLS], object] | None = None) -> LiveTLS:
        """The same, following renewal. Raises what `from_paths` raises."""
        if self.certificate_path is None:
            raise TLSConfigError("there is nothing to follow: give certificate_path")
        return LiveTLS(
            self.certificate_path,
            self.private_key_path,
            self.ca_certificates_path,
            crl_pem=self.revocation_lists_path,
            key_password=self.key_password,
            on_change=on_change,
        )

    def _read(self) -> Material:
        return read(
            self.certificate_path,
            self.private_key_path,
            self.ca_certificates_path,
            self.revocation_lists_path,
            self.key_password,
        )


def build_client_ssl_context(tls: TLSConfig) -> ssl.SSLContext:
    """A client's context for TLS 1.3: it shows its certificate where there is one, and trusts the CA, or where there is
    none what the system trusts.

    Raises `TLSConfigError` for what cannot be used, and `OSError` for files that cannot be read.
    """
    return client_context(tls._read(), minimum=ssl.TLSVersion.TLSv1_3)


def build_server_ssl_context(tls: TLSConfig) -> ssl.SSLContext:
    """A server's context for TLS 1.3: with a CA, clients have to show a certificate of it.

    Raises `TLSConfigError` for what cannot be used, and `OSError` for files that cannot be read.
    """
    return server_context(tls._read(), minimum=ssl.TLSVersion.TLSv1_3)
