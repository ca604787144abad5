"""`privet health`: whether a server is there and ready, for container runtimes and for people.

The law of this module: the exit status is 0 only for a server that said, by itself, that it is ready.
"""

import contextlib
import json
import os
import socket
import ssl
import sys
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Annotated
from urllib.parse import urlsplit

import typer

from privet.cli import options
from privet.cli.failures import Failure
from privet.cli.printing import print_json, printable
from privet.cli.serve.listening import is_unspecified, resolve
from privet.cli.serve.running import tls_names
from privet.cli.settings import Settings, read_settings
from privet.cli.stores import reading

_PATIENCE = 8.0
_LONGEST = 64 * 1024


def health(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Argument(metavar="[URL]", help="The server, such as https://ca.internal:8555.", show_default="this one"),
    ] = None,
    store: options.StoreURL = None,
    config: options.Config = None,
    as_json: options.JSON = False,
) -> None:
    """Ask a server whether it is ready to issue certificates. Exits with 0 if it is, and with 1 if it is not.

    ```
    privet health https://ca.internal:8555
    ```

    Without a URL it asks the server that the same environment and configuration file start on this machine, so that a
    container can check itself:

    ```
    HEALTHCHECK CMD ["privet", "health"]
    ```
    """
    settings = read_settings({"store": store, "config": config}, os.environ).checked()
    reasons = _ask(url, settings)
    if as_json:
        print_json({"ready": not reasons, "reasons": reasons})
    elif not reasons:
        print("ready")
    if reasons:
        if not as_json:
            print(*(f"privet: not ready: {reason}" for reason in reasons), sep="\n", file=sys.stderr)
        raise typer.Exit(1)


def _ask(url: str | None, settings: Settings) -> list[str]:
    """What the server says is in the way; or that it says nothing. Raises `Failure` if it cannot be asked."""
    base = (url or _own_url(settings)).rstrip("/")
    try:
        connection = _connection(base, settings if url is None else None)
        with contextlib.closing(connection):
            connection.request("GET", f"{urlsplit(base).path}/health/ready")
            answer = connection.getresponse()
            said = json.loads(answer.read(_LONGEST))
        if answer.status == 200 and said["status"] == "ready":
            return []
        return [printable(str(reason)) for reason in said["reasons"]] or ["it does not say why"]
    except (OSError, HTTPException) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        return [f"{base} cannot be asked: {printable(why)}"]
    except (ValueError, LookupError, TypeError):
        return [f"{base} does not answer as privet does"]


def _connection(base: str, own: Settings | None) -> HTTPConnection:
    """To the server at this URL. Our own is reached by its socket, and trusted by the root in its store."""
    try:
        parts = urlsplit(base)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # for a port that is none, when it is looked at
        known = False
    if not known:
        raise Failure(f"{base} is no address of a server: write one such as https://ca.internal:8555")
    if parts.scheme == "https":
        trust = _own_trust(own) if own else ssl.create_default_context()
        secure = HTTPSConnection(parts.hostname or "", parts.port, timeout=_PATIENCE, context=trust)
        if own:
            # By the name it is known by: the authority may not be allowed to certify the address it listens at.
            plain = socket.create_connection((parts.hostname, parts.port), _PATIENCE)
            secure.sock = trust.wrap_socket(plain, server_hostname=tls_names(own)[0])
        return secure
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=_PATIENCE)
    if own and own.uds:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(_PATIENCE)
        connection.sock.connect(str(own.uds))
    return connection


def _own_url(settings: Settings) -> str:
    host = settings.host
    if any(map(is_unspecified, resolve(host))):
        host = "127.0.0.1"
    host = f"[{host}]" if ":" in host else host
    return "http://localhost" if settings.uds else f"{'https' if settings.tls else 'http'}://{host}:{settings.port}"


def _own_trust(settings: Settings) -> ssl.SSLContext:
    """The authority's own root: it is what the server's certificate comes from."""
    with reading(settings) as (_, chain_pem):
        return ssl.create_default_context(cadata=chain_pem.decode())
