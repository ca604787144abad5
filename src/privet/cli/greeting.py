"""What `privet serve` says when it starts: where it is, what it does with requests, and lines to copy for its clients.

The law of this module: what is printed to be copied works as it is printed.
"""

import shlex
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from privet.ca import CertificateAuthority
from privet.cli.settings import DEFAULT_STORE, Settings
from privet.cli.stores import store_path
from privet.validation import Resolver

ROOT = "privet-root.pem"

_PROOFS = {
    "http-01": "http-01 (a file fetched from port {http})",
    "dns-01": "dns-01 (a TXT record)",
    "tls-alpn-01": "tls-alpn-01 (a certificate shown on port 443)",
}


def greeting(settings: Settings, ca: CertificateAuthority, external_url: str) -> str:
    path = store_path(settings.store)
    facts = [
        ("directory", f"{external_url}/directory"),
        ("root SHA-256", ca.fingerprint),
        ("data", path or "in memory: gone when this ends"),
        *([("policy", f"the rules in {settings.policy.absolute()}")] if settings.policy else []),
        ("approval", _approval(settings)),
        *([("client CA", settings.client_ca.absolute())] if settings.client_ca else []),
        *(_validation(settings) if settings.validate else ()),
    ]
    return "\n".join(
        [
            f"privet {version('privet')}",
            *[f"  {name:<12} {fact}" for name, fact in facts],
            *_trust(settings, external_url),
            *_clients(settings, external_url),
            "",
        ]
    )


def _trust(settings: Settings, external_url: str) -> Iterator[str]:
    """How to get the root certificate, and to know that it is ours."""
    if settings.uds:
        where = f"--unix-socket {shlex.quote(str(settings.uds.absolute()))} http://localhost{settings.mount}/ca.pem"
        warning = "The socket is this machine's own:"
    else:
        where = f"{'-k ' if settings.tls else ''}{shlex.quote(f'{external_url}/ca.pem')}"
        unsafe = "curl -k" if settings.tls else "HTTP"
        warning = f"{unsafe} believes anybody who answers, so compare the fingerprint with the one above:"
        if external_url.startswith("https:") and not settings.tls:
            warning = "What does HTTPS in front of this needs a certificate that clients trust already:"
    yield ""
    yield f"# The root certificate. {warning}"
    yield f"curl -sS -o {ROOT} {where}"
    yield f"openssl x509 -in {ROOT} -noout -fingerprint -sha256"
    if settings.store != "memory:":
        yield "# On this machine there is nothing to compare:"
        yield f"{_command(settings, 'root')} > {ROOT}"


def _clients(settings: Settings, external_url: str) -> Iterator[str]:
    """What to say to each client."""
    directory = shlex.quote(f"{external_url}/directory")
    if settings.uds and not settings.external_url:
        yield ""
        yield "# ACME clients come through a web server in front; say its address with --external-url."
        return
    # Only where HTTPS is ours do clients need our root for it.
    yield ""
    yield "# curl"
    yield f"curl -sS {f'--cacert {ROOT} ' if settings.tls else ''}{directory}"
    yield ""
    if settings.require_eab:
        yield "# Clients need an external account key. This makes one, and prints what to say to certbot and lego:"
        yield f"{_command(settings, 'eab create')} --external-url {shlex.quote(external_url)} --name NAME"
        return
    proof = _certbot(settings)
    if proof is None:
        yield "# certbot knows no tls-alpn-01."
    else:
        yield "# certbot"
        yield (
            f"{f'REQUESTS_CA_BUNDLE={ROOT} ' if settings.tls else ''}certbot certonly --server {directory} "
            "--config-dir certbot --work-dir certbot --logs-dir certbot --agree-tos "
            f"--register-unsafely-without-email {proof} -d web.internal"
        )
    yield ""
    yield "# lego"
    yield (
        f"{f'LEGO_CA_CERTIFICATES={ROOT} ' if settings.tls else ''}lego --server {directory} "
        f"--path lego --email you@example.com --accept-tos {_lego(settings)} --domains web.internal run"
    )
    yield ""
    if settings.validate and not {"http-01", "tls-alpn-01"} & set(settings.validate):
        yield "# Caddy needs a plugin for your nameserver: https://caddyserver.com/docs/modules/"
        return
    yield "# Caddy: a Caddyfile for `caddy run`"
    if not settings.validate or settings.http_01_port != 80:
        yield "{"
        yield f"    http_port {settings.http_01_port if settings.validate else 8080}"
        if not settings.validate:
            yield "    https_port 8443"
        yield "}"
    yield "web.internal {"
    yield "    tls {"
    yield f"        ca {external_url}/directory"
    if settings.tls:
        yield f"        ca_root {ROOT}"
    yield "    }"
    yield '    respond "Hello from {host}"'
    yield "}"


def _certbot(settings: Settings) -> str | None:
    """How certbot proves what it is asked to prove, if it can."""
    if not settings.validate:
        return "--non-interactive --manual --manual-auth-hook true"
    if "http-01" in settings.validate:
        port = settings.http_01_port
        return f"--non-interactive --standalone{f' --http-01-port {port}' if port != 80 else ''}"
    # It says what to publish, and waits until that is done.
    return "--manual --preferred-challenges dns" if "dns-01" in settings.validate else None


def _lego(settings: Settings) -> str:
    if not settings.validate:
        return "--http --http.port 127.0.0.1:0"
    if "http-01" in settings.validate:
        return f"--http{f' --http.port :{settings.http_01_port}' if settings.http_01_port != 80 else ''}"
    return "--tls" if "tls-alpn-01" in settings.validate else "--dns manual"


def _validation(settings: Settings) -> Iterator[tuple[str, str]]:
    """Who is asked about names, and where validators go."""
    yield "nameservers", ", ".join(map(str, Resolver(settings.resolver or None).nameservers))
    allowed = "".join(f"; allowed: {network}" for network in settings.validate_allow)
    denied = "".join(f"; denied: {network}" for network in settings.validate_deny)
    yield "connects to", f"no loopback, link-local or metadata address, and not itself{allowed}{denied}"


def _approval(settings: Settings) -> str:
    if settings.validate:
        proofs = " or ".join(_PROOFS[type].format(http=settings.http_01_port) for type in settings.validate)
        return f"by proof of control of every name: {proofs}"
    if settings.auto_approve:
        return "AUTOMATIC: whoever can reach this address gets certificates for any name, and nobody checks"
    if settings.store == "memory:":
        return "by a person, which takes a store that others can open: choose one with --store"
    look, decide = _command(settings, "pending"), _command(settings, "approve")
    return f"by a person: `{look}` shows who waits, `{decide} ID` lets them have it"


def _command(settings: Settings, command: str) -> str:
    """A command of ours that reaches the same authority, from any folder."""
    parts = [*_program(), *command.split()]
    if settings.store != DEFAULT_STORE:
        scheme = settings.store.partition(":")[0]
        parts += ["--store", f"{scheme}:///{store_path(settings.store)}"]
    if settings.name != "root" and command == "root":
        parts += ["--name", settings.name]
    if command == "eab create":
        parts += ["--authority", settings.name] if settings.name != "root" else []
        password = settings.key_password_file
        parts += ["--key-password-file", str(password.absolute())] if password else []
    return shlex.join(parts)


def _program() -> list[str]:
    """What this program is called here."""
    own = Path(sys.argv[0])
    if own.name == "__main__.py":
        return [sys.executable, "-m", "privet"]
    found = shutil.which("privet")
    return ["privet"] if found and Path(found).samefile(own) else [str(own.absolute())]
