"""For uvicorn: the client's certificate in the scope, and uvicorn's own TLS options following renewal.

    uvicorn app:app --http privet.mtls.uvicorn:Protocol \\
        --ssl-certfile node.crt --ssl-keyfile node.key --ssl-ca-certs ca.crt --ssl-cert-reqs 2

The law of this module: a connection is made with the files as they are when it is accepted, and if those cannot be
used, with the last that could.
"""

import asyncio
import functools
import logging
import ssl
from pathlib import Path
from typing import Any

from uvicorn.config import Config, create_ssl_context
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from privet.mtls.peers import tls_extension, with_tls

log = logging.getLogger("privet.mtls")


class _Telling:
    """Mixed into a protocol of uvicorn, HTTP or WebSocket: the application is told of the connection."""

    app: Any

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)  # type: ignore[misc]
        extension = tls_extension(transport.get_extra_info("ssl_object"))
        if extension is not None:
            self.app = with_tls(self.app, extension)


class Protocol(_Telling, HttpToolsProtocol):  # type: ignore[misc]
    """HTTP/1.1; WebSockets that begin on it are told as well, whichever implementation uvicorn has for them."""

    def __init__(self, config: Config, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        if self.ws_protocol_class is not None:
            self.ws_protocol_class = _telling(self.ws_protocol_class)  # type: ignore[arg-type]
        # Event loops make the protocol of a connection before its TLS, and from the same thread.
        if isinstance(config.ssl, ssl.SSLContext) and config.ssl_context_factory is None:
            _followed(config.ssl, config).look()


@functools.cache
def _telling(protocol: type[asyncio.Protocol]) -> type[asyncio.Protocol]:
    return type(protocol.__name__, (_Telling, protocol), {})


class _Files:
    """The files that uvicorn's options name, and the context that was made of them last."""

    def __init__(self, context: ssl.SSLContext, config: Config) -> None:
        self._config = config
        named = (config.ssl_certfile, config.ssl_keyfile, config.ssl_ca_certs)
        self._paths = [Path(each) for each in named if each is not None]
        self._seen: object = None
        self._newest = context
        # Whoever resumes a session shows no certificate. (TLS 1.2 remembers sessions without tickets as well, for as
        # long as the context lives, and Python cannot have it otherwise.)
        if context.verify_mode is not ssl.CERT_NONE:
            context.options |= ssl.OP_NO_TICKET
            context.num_tickets = 0

    def look(self) -> None:
        """Take up the files if they are others than at the last look."""
        try:
            states = [path.stat() for path in self._paths]
            seen = [(each.st_ino, each.st_mtime_ns, each.st_size) for each in states]
            if seen == self._seen:
                return
            self._newest = self._load()
            self._seen = seen
        except (OSError, ValueError) as error:
            log.warning("the certificate in use stays, as the new one cannot be used yet: %s", error)

    def _load(self) -> ssl.SSLContext:
        config = self._config
        return create_ssl_context(
            keyfile=config.ssl_keyfile,
            certfile=config.ssl_certfile or "",
            password=config.ssl_keyfile_password,
            ssl_version=config.ssl_version,
            cert_reqs=config.ssl_cert_reqs,
            ca_certs=config.ssl_ca_certs,
            ciphers=config.ssl_ciphers,
        )

    def __call__(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
        # Certificate, key and trusted roots come from this one; OpenSSL asks whether or not the client named a name.
        connection.context = self._newest


def _followed(context: ssl.SSLContext, config: Config) -> _Files:
    files = context.sni_callback
    if not isinstance(files, _Files):
        files = context.sni_callback = _Files(context, config)
    return files
