"""Contexts that go over to a renewed certificate, and to other roots, while they are in use.

A context is given to a server once, and asked for each connection. So the one that is given out stays, and hands each
new connection to the newest that was made: whole ones, put in place in one step, from whichever thread. The law of this
module: every connection is of one time, with a certificate, its key and the trust that belong together; what cannot be
used changes nothing.
"""

import contextlib
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from privet.mtls.contexts import Material, Source, TLSConfigError, client_context, path_of, read, server_context

log = logging.getLogger("privet.mtls")

_SETTINGS = (
    "check_hostname",
    "verify_mode",
    "minimum_version",
    "maximum_version",
    "options",
    "num_tickets",
    "post_handshake_auth",
    "keylog_filename",
)


class LiveContext(ssl.SSLContext):
    """A context that has each connection made by the newest. Programs may set it up as they do any other."""

    _newest: ssl.SSLContext | None = None
    _alpn: tuple[str, ...] | None = None
    _ciphers: str | None = None

    def supersede(self, newest: ssl.SSLContext) -> None:
        """From now on, connections are made by this one, set up as this is."""
        for name in _SETTINGS:
            value = getattr(self, name)
            if value is not None and getattr(newest, name) != value:
                setattr(newest, name, value)
        if self._alpn is not None:
            newest.set_alpn_protocols(self._alpn)
        if self._ciphers is not None:
            newest.set_ciphers(self._ciphers)
        self._newest = newest

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        self._alpn = tuple(alpn_protocols)
        super().set_alpn_protocols(self._alpn)
        if self._newest is not None:
            self._newest.set_alpn_protocols(self._alpn)

    def set_ciphers(self, cipherlist: str, /) -> None:
        super().set_ciphers(cipherlist)
        self._ciphers = cipherlist
        if self._newest is not None:
            self._newest.set_ciphers(cipherlist)

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        newest = self._newest
        return super().wrap_bio(*args, **kwargs) if newest is None else newest.wrap_bio(*args, **kwargs)

    def wrap_socket(self, sock: socket.socket, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        newest = self._newest
        # A socket that listens asks for every connection it accepts, and should go on asking here.
        if newest is None or sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return super().wrap_socket(sock, *args, **kwargs)
        return newest.wrap_socket(sock, *args, **kwargs)


class Renewed(Protocol):
    """What a renewal brings: a `privet.CertBundle`, or what looks like one."""

    @property
    def fullchain_pem(self) -> bytes: ...
    @property
    def key_pem(self) -> bytes: ...


class LiveTLS:
    """Mutual TLS that follows renewal: `server_context` and `client_context` stay the same objects, connections made
    after a change use what is new, and those that are open stay as they are.

    What it is made of are PEM or paths, as for `server_ssl_context`. Tell it of a renewal with `on_renewed`, of other
    trust with `replace`, or let it look at its files with `following`. `on_change` is called after each change.

    Raises `TLSConfigError` for what cannot be used, and `OSError` for files that cannot be read.
    """

    def __init__(
        self,
        cert_pem: Source,
        key_pem: Source | None = None,
        ca_cert_pem: Source | None = None,
        *,
        crl_pem: Source | None = None,
        key_password: bytes | str | None = None,
        minimum_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
        on_change: Callable[["LiveTLS"], object] | None = None,
    ) -> None:
        if ca_cert_pem is None:
            raise TLSConfigError("whom to trust is missing: give the CA certificate as ca_cert_pem")
        self.on_change = on_change
        self._sources = (cert_pem, key_pem, ca_cert_pem, crl_pem)
        self._key_password = key_password
        self._minimum = minimum_version
        self._turn = threading.Lock()
        self._seen = _look(self._sources)
        self._material = read(*self._sources, key_password)
        self._server = server_context(self._material, minimum=minimum_version, kind=LiveContext)
        self._client = client_context(self._material, minimum=minimum_version, kind=LiveContext)

    @property
    def server_context(self) -> ssl.SSLContext:
        return self._server

    @property
    def client_context(self) -> ssl.SSLContext:
        return self._client

    @property
    def material(self) -> Material:
        """What is in use now, for programs that make no use of Python's contexts."""
        return self._material

    def on_renewed(self, bundle: Renewed) -> None:
        """Go over to a renewed certificate: `client.auto_renew(on_renewed=live.on_renewed)`."""
        self.replace(cert_pem=bundle.fullchain_pem, key_pem=bundle.key_pem)

    def replace(
        self,
        *,
        cert_pem: Source | None = None,
        key_pem: Source | None = None,
        ca_cert_pem: Source | None = None,
        crl_pem: Source | None = None,
    ) -> None:
        """Go over to what is given, and keep the rest. A certificate comes with its key; trust is replaced as a whole,
        so that a new root beside the old one is both of them.

        Raises what the constructor raises; then everything stays as it was.
        """
        with self._turn:
            cert, key, ca, crl = self._sources
            if cert_pem is not None:
                cert, key = cert_pem, key_pem
            elif key_pem is not None:
                raise TLSConfigError("a private key without its certificate: give both")
            sources = (cert, key, ca if ca_cert_pem is None else ca_cert_pem, crl if crl_pem is None else crl_pem)
            seen = _look(sources)
            self._take(read(*sources, self._key_password))
            self._sources, self._seen = sources, seen
        self._tell()

    def refresh(self) -> bool:
        """Look whether a file is another than the one that is in use, and go over to what it has; say whether it did.

        Raises what the constructor raises, for example while only one of two files is replaced; then everything stays
        as it was, and the next look tries again.
        """
        with self._turn:
            seen = _look(self._sources)
            material = self._material if seen == self._seen else read(*self._sources, self._key_password)
            if changed := material != self._material:
                self._take(material)
            self._seen = seen
        if changed:
            self._tell()
        return changed

    @contextlib.contextmanager
    def following(self, every: float = 10.0) -> Iterator["LiveTLS"]:
        """Look at the files every so many seconds, in a thread, until the block ends."""
        over = threading.Event()
        thread = threading.Thread(target=self._follow, args=(every, over), name="privet-tls", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            over.set()
            thread.join()

    def _follow(self, every: float, over: threading.Event) -> None:
        said = ""
        while not over.wait(every):
            try:
                self.refresh()
                said = ""
            except (OSError, ValueError) as error:
                if said != str(error):
                    said = str(error)
                    log.warning("the certificate in use stays, as the new one cannot be used yet: %s", error)
            except Exception:
                log.exception("whoever was told of a new certificate failed; it is in use all the same")

    def _take(self, material: Material) -> None:
        server = server_context(material, minimum=self._minimum)
        client = client_context(material, minimum=self._minimum)
        assert isinstance(self._server, LiveContext)
        assert isinstance(self._client, LiveContext)
        self._server.supersede(server)
        self._client.supersede(client)
        self._material = material

    def _tell(self) -> None:
        if self.on_change is not None:
            self.on_change(self)


def _look(sources: Iterable[Source | None]) -> tuple[object, ...]:
    """What tells a file from the one that was there before it."""
    return tuple(_state(path) for source in sources if (path := path_of(source)) is not None)


def _state(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size
