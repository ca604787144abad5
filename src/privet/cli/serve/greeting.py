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
from privet.cli.printing import names_text
from privet.cli.settings import DEFAULT_STORE, Settings, option_name
from privet.cli.stores import store_place
from privet.server.policy import Decision
from privet.server.rules import Rules
from privet.validation import Resolver

ROOT = "privet-root.pem"

_PROOFS = {
    "http-01": "http-01 (a file fetched from port {http})",
    "dns-01": "dns-01 (a TXT record)",
    "tls-alpn-01": "tls-alpn-01 (a certificate shown on port 443)",
    "dns-account-01": "dns-account-01 (a TXT record of the account's own)",
    "dns-persist-01": "dns-persist-01 (a TXT record that stays)",
}


def greeting(settings: Settings, rules: Rules | None, ca: CertificateAuthority, external_url: str) -> str:
    facts = [
        ("directory", f"{external_url}/directory"),
        ("root SHA-256", ca.fingerprint),
        *([("names", names)] if (names := names_text(ca.issuer.chain)) else []),
        ("data", store_place(settings.store) or "in memory: gone when this ends"),
        *([("policy", f"the rules in {settings.policy.absolute()}")] if settings.policy else []),
        ("approval", _approval(settings, rules)),
        *([("roles", _roles(settings, external_url))] if settings.roles else []),
        *([("client CA", settings.client_ca.absolute())] if settings.client_ca else []),
        *(_validation(settings, external_url) if settings.methods else ()),
        *([("metrics", _metrics(*settings.metrics))] if settings.metrics else []),
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
        yield f"# certbot knows no {' and no '.join(settings.methods)}."
    else:
        yield "# certbot"
        yield (
            f"{f'REQUESTS_CA_BUNDLE={ROOT} ' if settings.tls else ''}certbot certonly --server {directory} "
            "--config-dir certbot --work-dir certbot --logs-dir certbot --agree-tos "
            f"--register-unsafely-without-email {proof} -d web.internal"
        )
    yield ""
    proof = _lego(settings)
    if proof is None:
        yield f"# lego knows no {' and no '.join(settings.methods)}."
    else:
        yield "# lego"
        yield (
            f"{f'LEGO_CA_CERTIFICATES={ROOT} ' if settings.tls else ''}lego --server {directory} "
            f"--path lego --email you@example.com --accept-tos {proof} --domains web.internal run"
        )
    yield ""
    if settings.methods and not {"http-01", "tls-alpn-01"} & set(settings.methods):
        yield "# Caddy needs a plugin for your nameserver: https://caddyserver.com/docs/modules/"
        return
    yield "# Caddy: a Caddyfile for `caddy run`"
    if not settings.methods or settings.http_01_port != 80:
        yield "{"
        yield f"    http_port {settings.http_01_port if settings.methods else 8080}"
        if not settings.methods:
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
    if not settings.methods:
        return "--non-interactive --manual --manual-auth-hook true"
    if "http-01" in settings.methods:
        port = settings.http_01_port
        return f"--non-interactive --standalone{f' --http-01-port {port}' if port != 80 else ''}"
    # It says what to publish, and waits until that is done.
    return "--manual --preferred-challenges dns" if "dns-01" in settings.methods else None


def _lego(settings: Settings) -> str | None:
    """The same for lego."""
    if not settings.methods:
        return "--http --http.port 127.0.0.1:0"
    if "http-01" in settings.methods:
        return f"--http{f' --http.port :{settings.http_01_port}' if settings.http_01_port != 80 else ''}"
    if "tls-alpn-01" in settings.methods:
        return "--tls"
    return "--dns manual" if "dns-01" in settings.methods else None


def _validation(settings: Settings, external_url: str) -> Iterator[tuple[str, str]]:
    """Who is asked about names, and where validators go."""
    yield "nameservers", ", ".join(map(str, Resolver(settings.resolver or None).nameservers))
    allowed = "".join(f"; allowed: {network}" for network in settings.validate_allow)
    denied = "".join(f"; denied: {network}" for network in settings.validate_deny)
    yield "connects to", f"no loopback, link-local or metadata address, and not itself{allowed}{denied}"
    if settings.caa or "dns-persist-01" in settings.methods:
        about = "CAA records are looked up" if settings.caa else "in the records of dns-persist-01"
        yield "known as", f"{', '.join(settings.identities(external_url))}; {about}"
    if settings.reuse_authorizations:
        yield "reuse", f"what was proved need not be proved again for {settings.reuse_authorizations}"


def _approval(settings: Settings, rules: Rules | None) -> str:
    """Who gets what, and how; nothing that rules or keys make untrue."""
    if settings.auto_approve:
        who = "whoever can reach this address gets certificates for any name"
        if settings.require_eab:
            who = "whoever has an external account key gets certificates for any name that the key allows"
        return f"AUTOMATIC: {who}, and nobody checks"
    proofs = " or ".join(_PROOFS[type].format(http=settings.http_01_port) for type in settings.methods)
    look, decide = _command(settings, "pending"), _command(settings, "approve")
    person = f"by a person: `{look}` shows who waits, `{decide} ID` lets them have it"
    proved = f"by proof of control of every name: {proofs}" if settings.methods else person
    if settings.require_eab:
        way = f"by proof of control: {proofs}" if settings.methods else person
        proved = f"what an external account key trusts without proof, the rest {way}"
    if rules is None:
        return proved
    decisions = {rule.decision for rule in rules.rules}
    ways = {
        Decision.PROVE: proved.replace(" of every name", ""),
        Decision.TRUST: "without proof what a rule trusts",
        Decision.ASK: person,
    }
    said = dict.fromkeys(way for decision, way in ways.items() if decision in decisions)
    return f"what the rules allow: {', or '.join(said)}" if said else "the rules allow nothing"


def _metrics(address: str, port: int) -> str:
    return f"http://{f'[{address}]' if ':' in address else address}:{port}/metrics"


def _roles(settings: Settings, external_url: str) -> str:
    assert settings.roles is not None
    make = f"{_command(settings, 'token create')} --external-url {shlex.quote(external_url)} --role NAME"
    return f"those in {settings.roles.absolute()}, by Vault's PKI API at {external_url}/v1/pki; `{make}` makes a token"


def _command(settings: Settings, command: str) -> str:
    """A command of ours that reaches the same authority, from any folder."""
    parts = [*_program(), *command.split()]
    if settings.store != DEFAULT_STORE:
        place = store_place(settings.store) or settings.store
        scheme = settings.store.partition(":")[0]
        # A password stays out: whoever copies this has it where libpq looks, or adds it.
        parts += ["--store", f"{scheme}:///{place}" if place.startswith("/") else place]
    if settings.name != "root" and command == "root":
        parts += ["--name", settings.name]
    if settings.name != "root" and command != "root":
        parts += ["--authority", settings.name]
    if command == "eab create":
        for name in ("key_password_file", "ca_cert", "ca_key"):
            path = getattr(settings, name)
            parts += [f"--{option_name(name)}", str(path.absolute())] if path else []
    return shlex.join(parts)


def _program() -> list[str]:
    """What this program is called here."""
    own = Path(sys.argv[0])
    if own.name == "__main__.py":
        return [sys.executable, "-m", "privet"]
    found = shutil.which("privet")
    return ["privet"] if found and Path(found).samefile(own) else [str(own.absolute())]
