"""What `privet serve` says when it starts: where it is, what it does with requests, and lines to copy for its clients.

The law of this module: what is printed to be copied works as it is printed.
"""

import shlex
from collections.abc import Iterator
from importlib.metadata import version

from privet.ca import CertificateAuthority
from privet.cli.settings import DEFAULT_STORE, Settings
from privet.cli.stores import store_path

ROOT = "privet-root.pem"


def greeting(settings: Settings, ca: CertificateAuthority, external_url: str) -> str:
    return "\n".join(_lines(settings, ca, external_url))


def _lines(settings: Settings, ca: CertificateAuthority, url: str) -> Iterator[str]:
    directory = f"{url}/directory"
    path = store_path(settings.store)
    yield f"privet {version('privet')}"
    yield f"  directory    {directory}"
    yield f"  root SHA-256 {ca.fingerprint}"
    yield f"  data         {path or 'in memory: gone when this ends'}"
    yield f"  approval     {_approval(settings)}"
    yield ""
    secure = url.startswith("https:")
    at_socket = f"--unix-socket {shlex.quote(str(settings.uds.absolute()))} " if settings.uds else ""
    insecure = "-k " if secure and not settings.uds else ""
    yield f"# The root certificate. {_unauthenticated(secure)}"
    yield f"curl -sS {insecure}{at_socket}-o {ROOT} {url}/ca.pem"
    yield f"openssl x509 -in {ROOT} -noout -fingerprint -sha256   # has to print the fingerprint above"
    if path is not None:
        yield f"{_root_command(settings)} > {ROOT}   # on this machine, and nothing to compare"
    yield ""
    yield "# curl"
    yield f"curl -sS {f'--cacert {ROOT} ' if insecure else ''}{at_socket}{directory}"
    if settings.uds:
        yield ""
        yield "# ACME clients reach a Unix socket through a web server in front of it, at its own address:"
        yield "# say which one with --external-url." if settings.external_url is None else f"# {url}"
        if settings.external_url is None:
            yield ""
            return
    yield ""
    yield "# certbot"
    trust = f"REQUESTS_CA_BUNDLE={ROOT} " if secure else ""
    yield (
        f"{trust}certbot certonly --server {directory} --config-dir certbot --work-dir certbot --logs-dir certbot "
        "--non-interactive --agree-tos --register-unsafely-without-email --manual --manual-auth-hook true "
        "-d web.internal"
    )
    yield ""
    yield "# lego"
    trust = f"LEGO_CA_CERTIFICATES={ROOT} " if secure else ""
    yield (
        f"{trust}lego --server {directory} --path lego --email you@example.com --accept-tos "
        "--http --http.port 127.0.0.1:0 --domains web.internal run"
    )
    yield ""
    yield "# Caddy: a Caddyfile for `caddy run`"
    yield "{"
    yield "    http_port 8080"
    yield "    https_port 8443"
    yield "}"
    yield "web.internal {"
    yield "    tls {"
    yield f"        ca {directory}"
    if secure:
        yield f"        ca_root {ROOT}"
    yield "    }"
    yield '    respond "Hello from {host}"'
    yield "}"
    yield ""


def _approval(settings: Settings) -> str:
    if not settings.auto_approve:
        return f"by a person: `{_command(settings, 'pending')}` shows who waits, `privet approve ID` lets them have it"
    return "AUTOMATIC: whoever can reach this address gets certificates for any name, and nobody checks"


def _unauthenticated(secure: bool) -> str:
    if secure:
        return "`curl -k` believes anybody who answers, so compare the fingerprint:"
    return "HTTP believes anybody who answers, so compare the fingerprint:"


def _root_command(settings: Settings) -> str:
    return _command(settings, "root")


def _command(settings: Settings, command: str) -> str:
    parts = ["privet", command]
    if settings.store != DEFAULT_STORE:
        parts += ["--store", settings.store]
    if settings.name != "root":
        parts += ["--name", settings.name]
    return shlex.join(parts)
