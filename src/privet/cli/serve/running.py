"""Serving: sockets opened, the authority made or found, everything said, and uvicorn until a signal comes.

The law of this module: requests in flight are finished, and what was made for serving is gone afterwards.
"""

import contextlib
import logging
import logging.config
import os
import resource
import signal
import socket
import sys
from types import FrameType
from urllib.parse import urlsplit

import uvicorn

from privet.cli.failures import Failure
from privet.cli.logs import log_config
from privet.cli.printing import warn_of_end
from privet.cli.serve.greeting import greeting
from privet.cli.serve.listening import is_loopback, is_unspecified, listen, listen_at, resolve
from privet.cli.serve.protocol import Connection
from privet.cli.serve.site import GRACE, Files, Site, import_metrics
from privet.cli.serve.workers import run_workers
from privet.cli.settings import Settings

log = logging.getLogger("privet")

# Longer than clients wait between two looks at an order, so that their next request finds the connection open.
_KEEP_ALIVE = 65


def run(settings: Settings, files: Files) -> None:
    """Serve until a signal comes. Raises `Failure`."""
    logging.config.dictConfig(log_config(settings.log_level, settings.log_format))
    # Until uvicorn takes signals over there are no requests to finish, but a socket file to remove.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: sys.exit(0))
    if not os.isatty(0):  # a terminal sends it when it is closed
        signal.signal(signal.SIGHUP, _stay)
    _allow_files()
    listeners: tuple[tuple[str, int], ...]
    with contextlib.ExitStack() as stack:
        if settings.uds:
            sockets = stack.enter_context(listen_at(settings.uds, settings.uds_mode))
            address, port = "localhost", None
            listeners = ()
        else:
            sockets = stack.enter_context(listen(settings.host, settings.port, shared=settings.workers > 1))
            address, port = settings.host, sockets[0].getsockname()[1]
            listeners = tuple((each.getsockname()[0], each.getsockname()[1]) for each in sockets)
        external_url = external_url_of(settings, address, port)
        site = Site(settings, files, external_url, tls_names(settings) if settings.tls else (), listeners)
        stack.callback(site.close)
        ca = site.open()
        warn_of_end(ca, settings)
        replaced = None
        if settings.metrics:
            metrics = import_metrics()
            site.registry = stack.enter_context(
                metrics.published(settings.metrics, settings.workers, ca.issuer.not_after)
            )
            replaced = metrics.count_replaced(site.registry)
        config = uvicorn.Config(
            site.make_app,
            factory=True,
            interface="asgi3",
            lifespan="on",
            http=Connection,
            ws="none",
            workers=settings.workers,
            ssl_context_factory=site.make_context if settings.tls else None,
            proxy_headers=False,  # the site knows better whom to believe
            server_header=False,
            access_log=False,
            log_config=log_config(settings.log_level, settings.log_format),
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=GRACE,
        )
        # Last of all: whoever reads it may send a signal at once, and that must not cut short what came before.
        print(greeting(settings, files.rules, ca, external_url), flush=True)
        if settings.workers == 1:
            _run_alone(config, sockets)
        else:
            site.close()
            run_workers(config, sockets, replaced)


def _stay(number: int, frame: FrameType | None) -> None:
    """Whoever sends SIGHUP wants the server to take up something new, and not to end it."""
    log.warning("SIGHUP changes nothing: what is in files is read when privet is started")


def _allow_files() -> None:
    """Allow as many open files as the system does: each connection is one, and the usual 1024 are few for a fleet."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Some systems name a hard limit that they do not grant.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _run_alone(config: uvicorn.Config, sockets: list[socket.socket]) -> None:
    server = uvicorn.Server(config)

    def end(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn has its own handlers while it serves, and raises the signal anew for these when it has ended: then it is
    # no news, and the exit status is 0.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    server.run(sockets)
    if not server.started:
        raise Failure("the server could not start: its log above says why")


def external_url_of(settings: Settings, address: str, port: int | None) -> str:
    """The address of the responder as clients know it."""
    if settings.external_url:
        path = urlsplit(settings.external_url).path
        return settings.external_url if path else settings.external_url + settings.mount
    scheme = "https" if settings.tls else "http"
    host = f"[{address}]" if ":" in address else address
    usual = {"http": 80, "https": 443}[scheme]
    return f"{scheme}://{host}{f':{port}' if port not in (None, usual) else ''}{settings.mount}"


def tls_names(settings: Settings) -> tuple[str, ...]:
    """What the server's own certificate is for: the name clients know, the address, and what else was asked for."""
    external = (settings.external_url and urlsplit(settings.external_url).hostname) or settings.host
    addresses = resolve(settings.host)
    everywhere = any(map(is_unspecified, addresses))
    own = [] if everywhere else [settings.host]
    local = ["localhost", "127.0.0.1", "::1"] if everywhere or any(map(is_loopback, addresses)) else []
    return tuple(dict.fromkeys([external, *own, *settings.tls_name, *local]))
