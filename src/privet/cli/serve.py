"""`privet serve`: the settings checked, the sockets opened, the site served by uvicorn until somebody ends it.

The law of this module: whatever is wrong is said before anything is made, and requests in flight are finished.
"""

import contextlib
import logging
import logging.config
import os
import signal
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from types import FrameType
from typing import Annotated
from urllib.parse import urlsplit

import typer
import uvicorn
from uvicorn.supervisors import Multiprocess

from privet.acme.identifiers import BadIdentifier, from_text
from privet.cli import options
from privet.cli.failures import Failure
from privet.cli.greeting import greeting
from privet.cli.listening import is_loopback, is_public, is_unspecified, listen, listen_at, resolve
from privet.cli.settings import Read, Settings, read_settings
from privet.cli.site import Site

_LISTENING = "Where it listens"
_TLS = "HTTPS"
_APPROVAL = "Who gets certificates"
_AUTHORITY = "The authority"

# Seconds that requests in flight have to finish; container runtimes kill after ten.
_GRACE = 8
# Longer than clients wait between two looks at an order, so that their next request finds the connection open.
_KEEP_ALIVE = 65

LINE = "%(asctime)s %(levelname)s %(message)s"


def serve(
    context: typer.Context,
    host: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Listen here.", show_default="127.0.0.1", rich_help_panel=_LISTENING),
    ] = None,
    port: Annotated[
        str | None,
        typer.Option(metavar="PORT", help="0 takes one that is free.", show_default="8555", rich_help_panel=_LISTENING),
    ] = None,
    uds: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Listen on a Unix socket instead.", rich_help_panel=_LISTENING),
    ] = None,
    uds_mode: Annotated[
        str | None,
        typer.Option(metavar="MODE", help="Who may use the socket.", show_default="660", rich_help_panel=_LISTENING),
    ] = None,
    external_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The address clients use, if it is another (a proxy, a container). With a path, this path is where "
            "clients find it; without one, the path is that of --mount.",
            rich_help_panel=_LISTENING,
        ),
    ] = None,
    mount: Annotated[
        str | None,
        typer.Option(metavar="/PATH", help="Serve below this path, such as /acme.", rich_help_panel=_LISTENING),
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="Believe this proxy about who asks (X-Forwarded-For). May be given several times.",
            rich_help_panel=_LISTENING,
        ),
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(metavar="N", help="How many processes serve.", show_default="1", rich_help_panel=_LISTENING),
    ] = None,
    tls: Annotated[
        bool | None,
        typer.Option(
            "--tls/--no-tls",
            help="Serve HTTPS, with a certificate it issues to itself and renews while it runs.",
            show_default=False,
            rich_help_panel=_TLS,
        ),
    ] = None,
    tls_name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="One more name or address of this server in its certificate. May be given several times.",
            rich_help_panel=_TLS,
        ),
    ] = None,
    tls_validity: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="How long its own certificate lives.", show_default="24h", rich_help_panel=_TLS
        ),
    ] = None,
    plain_http: Annotated[
        bool | None,
        typer.Option(
            "--plain-http",
            help="Insist on HTTP without TLS on an address that is neither loopback nor private.",
            show_default=False,
            rich_help_panel=_TLS,
        ),
    ] = None,
    auto_approve: Annotated[
        bool | None,
        typer.Option(
            "--auto-approve/--no-auto-approve",
            help="Give everybody who asks what they ask for. Without it, requests wait for `privet approve`.",
            show_default=False,
            rich_help_panel=_APPROVAL,
        ),
    ] = None,
    approve_anybody: Annotated[
        bool | None,
        typer.Option(
            "--approve-anybody",
            help="Insist on --auto-approve on an address that is neither loopback nor private.",
            show_default=False,
            rich_help_panel=_APPROVAL,
        ),
    ] = None,
    ask_challenges: Annotated[
        bool | None,
        typer.Option(
            "--ask-challenges",
            help="With --auto-approve, go the long way round: ask for challenges and accept any answer.",
            show_default=False,
            rich_help_panel=_APPROVAL,
        ),
    ] = None,
    terms_of_service: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Terms that clients have to agree to.", rich_help_panel=_APPROVAL),
    ] = None,
    website: Annotated[
        str | None,
        typer.Option(metavar="URL", help="A page about this authority.", rich_help_panel=_APPROVAL),
    ] = None,
    validity: options.Validity = None,
    cn: options.CN = None,
    ca_validity: options.CAValidity = None,
    name: options.Name = None,
    key_password_file: options.KeyPasswordFile = None,
    store: options.StoreURL = None,
    log_level: Annotated[
        str | None,
        typer.Option(metavar="LEVEL", help="debug, info, warning or error; on stderr.", show_default="info"),
    ] = None,
    config: options.Config = None,
) -> None:
    """Serve ACME: an authority of your own for certbot, lego, Caddy and whatever else speaks RFC 8555.

    Makes the authority when it is started for the first time. Ctrl+C or SIGTERM ends it when the requests in flight
    are answered.

    Try it on this machine, over HTTP:

        privet serve --auto-approve

    For a private network, over HTTPS, under a name that clients know:

        privet serve --host 10.0.0.5 --tls --external-url https://ca.internal:8555 --auto-approve

    In a container, or behind a proxy that does TLS:

        privet serve --host 0.0.0.0 --external-url https://ca.internal

    Every option is also an environment variable (--external-url: PRIVET_EXTERNAL_URL) and a key in the file that
    --config names (external-url). An option counts more than a variable, and a variable more than the file.
    """
    read = read_settings(context.params, os.environ)
    settings = read.checked(*_contradictions(read))
    for warning in read.warnings:
        print(f"privet: {warning}", file=sys.stderr)
    run(settings)


def _contradictions(read: Read) -> Iterator[str]:
    """What is wrong with settings that are fine by themselves."""
    settings, unread = read.settings, read.unread
    if settings.ask_challenges and not settings.auto_approve and not unread & {"auto_approve"}:
        yield "--ask-challenges is about --auto-approve: without it challenges are asked anyway, so leave it out"
    if settings.store == "memory:" and settings.workers > 1 and not unread & {"store"}:
        yield "--store memory: is for one process, and --workers makes more: choose sqlite:///PATH"
    if settings.uds:
        if settings.tls:
            yield "--tls has no use on a Unix socket: the web server in front of it does TLS"
        return
    try:
        addresses = resolve(settings.host)
    except Failure as failure:
        yield str(failure)
        return
    public = any(map(is_public, addresses))
    if public and settings.auto_approve and not settings.approve_anybody:
        yield (
            f"--auto-approve on {settings.host} gives certificates for any name to anybody who can reach it: listen on "
            "a private address with --host, or insist with --approve-anybody"
        )
    proxied = (settings.external_url or "").startswith("https:")
    if public and not settings.tls and not settings.plain_http and not proxied:
        yield (
            f"HTTP on {settings.host} can be changed on its way: serve HTTPS with --tls, say which https address a "
            "proxy in front has with --external-url, or insist with --plain-http"
        )
    if any(map(is_unspecified, addresses)) and not settings.external_url and not unread & {"external_url"}:
        example = f"{'https' if settings.tls else 'http'}://ca.internal:{settings.port or 8555}"
        yield (
            f"{settings.host} is no address that clients could use: say the one they do, "
            f"such as --external-url {example}"
        )
    if settings.tls and not unread & {"external_url"}:
        for name in _tls_names(settings):
            try:
                from_text(name)
            except BadIdentifier as error:
                yield f"HTTPS needs a certificate for the name in --external-url or --host: {error}"


def run(settings: Settings) -> None:
    """Serve until a signal comes. Raises `Failure`."""
    logging.config.dictConfig(_logging(settings.log_level))
    # Until uvicorn takes signals over there are no requests to finish, but a socket file to remove.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    with contextlib.ExitStack() as stack:
        if settings.uds:
            sockets = stack.enter_context(listen_at(settings.uds, settings.uds_mode))
            address, port = "localhost", None
        else:
            sockets = stack.enter_context(listen(settings.host, settings.port))
            address, port = settings.host, sockets[0].getsockname()[1]
        external_url = _external_url(settings, address, port)
        site = Site(settings, external_url, _tls_names(settings) if settings.tls else ())
        stack.callback(site.close)
        ca = site.open()
        print(greeting(settings, ca, external_url), flush=True)
        config = uvicorn.Config(
            site.make_app,
            factory=True,
            interface="asgi3",
            lifespan="on",
            ws="none",
            workers=settings.workers,
            ssl_context_factory=site.make_context if settings.tls else None,
            proxy_headers=bool(settings.trusted_proxy),
            forwarded_allow_ips=list(settings.trusted_proxy),
            server_header=False,
            access_log=False,
            log_config=_logging(settings.log_level),
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=_GRACE,
        )
        if settings.workers == 1:
            _run_alone(config, sockets)
        else:
            site.close()
            _run_workers(config, sockets)


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


def _run_workers(config: uvicorn.Config, sockets: list[socket.socket]) -> None:
    supervisor = _Supervisor(config, sockets)
    supervisor.run()
    if any(process.exitcode == uvicorn.config.STARTUP_FAILURE for process in supervisor.processes):
        raise Failure("a worker could not start: its log above says why")


class _Supervisor(Multiprocess):
    def terminate_all(self) -> None:
        # Whoever connects from now on is to be told at once, and not when the last worker has ended.
        for listening in self.sockets:
            listening.close()
        super().terminate_all()


def _external_url(settings: Settings, address: str, port: int | None) -> str:
    """The address of the responder as clients know it."""
    if settings.external_url:
        path = urlsplit(settings.external_url).path
        return settings.external_url if path else settings.external_url + settings.mount
    scheme = "https" if settings.tls else "http"
    host = f"[{address}]" if ":" in address else address
    usual = {"http": 80, "https": 443}[scheme]
    return f"{scheme}://{host}{f':{port}' if port not in (None, usual) else ''}{settings.mount}"


def _tls_names(settings: Settings) -> tuple[str, ...]:
    """What the server's own certificate is for: the name clients know, the address, and what else was asked for."""
    external = (settings.external_url and urlsplit(settings.external_url).hostname) or settings.host
    addresses = resolve(settings.host)
    everywhere = any(map(is_unspecified, addresses))
    own = [] if everywhere else [settings.host]
    local = ["localhost", "127.0.0.1", "::1"] if everywhere or any(map(is_loopback, addresses)) else []
    return tuple(dict.fromkeys([external, *own, *settings.tls_name, *local]))


def _logging(level: str) -> dict[str, object]:
    """A line with its time for everything worth one, on stderr; uvicorn speaks up only when something is wrong."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": UTCFormatter, "format": LINE}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"}},
        "root": {"level": level.upper(), "handlers": ["stderr"]},
        "loggers": {"uvicorn": {"level": "WARNING"}},
    }


class UTCFormatter(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
