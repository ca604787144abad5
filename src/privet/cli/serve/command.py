"""`privet serve`: its options, and what must not be said together.

The law of this module: whatever is wrong is said before anything is made.
"""

import os
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from privet.acme.challenges import STANDARD
from privet.acme.identifiers import BadIdentifier, Identifier, from_text
from privet.ca.constraints import NameConstraints, refusal
from privet.cli import options
from privet.cli.failures import Failure
from privet.cli.policies import read_rules
from privet.cli.serve.listening import is_loopback, is_public, is_unspecified, resolve
from privet.cli.serve.proxy import UNIX
from privet.cli.serve.running import run, tls_names
from privet.cli.serve.site import Files, tls_mistake
from privet.cli.serve.tls import read_client_ca
from privet.cli.settings import VALIDATED, Read, Settings, option_name, read_settings
from privet.cli.stores import ca_files_mistakes, name_constraints
from privet.cli.tokens import read_roles
from privet.server.policy import Decision
from privet.validation import Resolver

_LISTENING = "Where it listens"
_TLS = "HTTPS"
_APPROVAL = "Who gets certificates"
_VALIDATION = "How control is proved"
_AUTHORITY = "The authority"
_ABOUT_VALIDATION = ("validate_within", "resolver", "validate_allow", "validate_deny", "http_01_port", "caa")


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
            help="Believe this proxy about who asks (X-Forwarded-For): an address, a network, or unix for whoever "
            "comes by --uds. May be given several times.",
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
    client_ca: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Let clients show certificates of the CA in FILE, for the policy to know them by. Who shows none is "
            "anybody; who shows another is refused.",
            rich_help_panel=_TLS,
        ),
    ] = None,
    plain_http: Annotated[
        bool | None,
        typer.Option(
            "--plain-http",
            help="Insist on HTTP without TLS on an address that is neither loopback nor private, or for --roles on one "
            "that is not loopback.",
            show_default=False,
            rich_help_panel=_TLS,
        ),
    ] = None,
    auto_approve: Annotated[
        bool | None,
        typer.Option(
            "--auto-approve/--no-auto-approve",
            help="Give everybody who asks what they ask for, without any proof.",
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
    ask_person: Annotated[
        bool | None,
        typer.Option(
            "--ask-person",
            help="Let every request wait for `privet approve`, and ask for no other proof.",
            show_default=False,
            rich_help_panel=_APPROVAL,
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Let the rules in this TOML file say who may ask for what; `privet policy check FILE` reads them.",
            rich_help_panel=_APPROVAL,
        ),
    ] = None,
    require_eab: Annotated[
        bool | None,
        typer.Option(
            "--require-eab/--no-require-eab",
            help="Make accounts only for those who bind an external account key; `privet eab create` makes one.",
            show_default=False,
            rich_help_panel=_APPROVAL,
        ),
    ] = None,
    roles: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Serve Vault's PKI API as well, to whoever has a token for one of the roles in this TOML file; "
            "`privet token create` makes one.",
            rich_help_panel=_APPROVAL,
        ),
    ] = None,
    validate: Annotated[
        str | None,
        typer.Option(
            metavar="TYPES",
            help="How control of names is to be proved, unless --auto-approve or --ask-person decides: one or more of "
            f"{', '.join(VALIDATED)}.",
            show_default=",".join(STANDARD),
            rich_help_panel=_VALIDATION,
        ),
    ] = None,
    validate_within: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="How long a validation may take, with all its tries.",
            show_default="60s",
            rich_help_panel=_VALIDATION,
        ),
    ] = None,
    reuse_authorizations: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="How long after a proof its account need not prove the same name again.",
            show_default="not at all",
            rich_help_panel=_VALIDATION,
        ),
    ] = None,
    caa: Annotated[
        bool | None,
        typer.Option(
            "--caa/--no-caa",
            help="After each proof, look whether the CAA records of the name allow it.",
            show_default=False,
            rich_help_panel=_VALIDATION,
        ),
    ] = None,
    caa_identity: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="What CAA records and those of dns-persist-01 call this authority. May be given several times.",
            show_default="the name in --external-url",
            rich_help_panel=_VALIDATION,
        ),
    ] = None,
    resolver: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="Look names up at this nameserver (ADDRESS, ADDRESS:PORT or [V6]:PORT). May be given several times.",
            show_default="those of /etc/resolv.conf",
            rich_help_panel=_VALIDATION,
        ),
    ] = None,
    validate_allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CIDR",
            help="Connect to these addresses as well: loopback, link-local and others that are refused otherwise. May "
            "be given several times; the narrowest network decides.",
            rich_help_panel=_VALIDATION,
        ),
    ] = None,
    validate_deny: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CIDR",
            help="Do not connect to these addresses. May be given several times.",
            rich_help_panel=_VALIDATION,
        ),
    ] = None,
    http_01_port: Annotated[
        str | None,
        typer.Option(
            metavar="PORT",
            help="In a lab, where http-01 looks instead. RFC 8555 wants port 80.",
            show_default="80",
            rich_help_panel=_VALIDATION,
        ),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Another ceiling, rate or lifetime: open-orders=200, orders-of-account=1000/1h, order-lifetime=12h; "
            "docs/limits.md lists them. May be given several times.",
            show_default="generous ones",
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
    permit: options.Permit = None,
    exclude: options.Exclude = None,
    name: options.Name = None,
    key_password_file: options.KeyPasswordFile = None,
    ca_cert: options.CACert = None,
    ca_key: options.CAKey = None,
    store: options.StoreURL = None,
    log_level: Annotated[
        str | None,
        typer.Option(metavar="LEVEL", help="debug, info, warning or error; on stderr.", show_default="info"),
    ] = None,
    log_format: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT", help="text, or json with a request id in each line and answer.", show_default="text"
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS:PORT", help="Serve metrics for Prometheus there, at /metrics, over HTTP."),
    ] = None,
    config: options.Config = None,
) -> None:
    """Serve ACME: an authority of your own for certbot, lego, Caddy and whatever else speaks RFC 8555.

    Makes the authority when it is started for the first time. Ctrl+C or SIGTERM ends it when the requests in flight
    are answered.

    Try it on this machine, over HTTP:

    ```
    privet serve --auto-approve
    ```

    For a private network, over HTTPS, under a name that clients know:

    ```
    privet serve --host 10.0.0.5 --tls --external-url https://ca.internal:8555
    ```

    Clients have to prove that they control the names they ask for. With --auto-approve nobody has to prove anything,
    and with --ask-person you decide about every request yourself.

    In a container, or behind a proxy that does TLS:

    ```
    privet serve --host 0.0.0.0 --external-url https://ca.internal
    ```

    Every option is also an environment variable (--external-url: PRIVET_EXTERNAL_URL) and a key in the file that
    --config names (external-url). An option counts more than a variable, and a variable more than the file.
    """
    read = read_settings(context.params, os.environ)
    files, unreadable = _read_files(read.settings)
    settings = read.checked(*_contradictions(read, files), *unreadable)
    for warning in read.warnings:
        print(f"privet: {warning}", file=sys.stderr)
    run(settings, files)


def _read_files(settings: Settings) -> tuple[Files, list[str]]:
    """What the files say that the settings name, and what is wrong with them. They are read here and nowhere else: a
    file may be a pipe, and what comes into it later was checked by nobody."""
    rules = client_ca = roles = None
    mistakes: list[str] = []
    try:
        rules = read_rules(settings.policy) if settings.policy else None
    except Failure as failure:
        mistakes += str(failure).splitlines()
    try:
        client_ca = read_client_ca(settings.client_ca) if settings.client_ca and settings.tls else None
    except Failure as failure:
        mistakes.append(str(failure))
    try:
        roles = read_roles(settings.roles) if settings.roles else None
    except Failure as failure:
        mistakes += str(failure).splitlines()
    return Files(rules, client_ca, roles), mistakes


def _contradictions(read: Read, files: Files) -> Iterator[str]:
    """What is wrong with settings that are fine by themselves."""
    settings, unread = read.settings, read.unread
    if settings.ask_challenges and not settings.auto_approve and not unread & {"auto_approve"}:
        yield "--ask-challenges is about --auto-approve: without it challenges are asked anyway, so leave it out"
    yield from _about_validation(settings, unread)
    if not unread & {"ca_cert", "ca_key"}:
        yield from ca_files_mistakes(settings)
    constraints = None
    try:
        constraints = name_constraints(settings)
    except Failure as failure:
        yield str(failure)
    yield from _about_policy(settings, files, unread)
    if settings.store == "memory:" and settings.workers > 1 and not unread & {"store"}:
        yield "--store memory: is for one process, and --workers makes more: choose sqlite:///PATH"
    if UNIX in settings.trusted_proxy and not settings.uds and not unread & {"uds"}:
        yield f"--trusted-proxy {UNIX} is about --uds: name the address of the proxy"
    if settings.uds and settings.trusted_proxy and UNIX not in settings.trusted_proxy:
        yield f"on a Unix socket nobody has an address: say --trusted-proxy {UNIX} to believe whoever may open it"
    if settings.client_ca and not settings.tls and not unread & {"tls"}:
        yield "--client-ca is about --tls: without it nobody shows a certificate"
    if settings.roles and settings.store == "memory:" and not unread & {"store"}:
        yield "--roles wants tokens, which nobody can bring into --store memory: choose sqlite:///PATH"
    if not settings.uds:
        yield from _about_address(settings, unread, constraints)
    elif settings.tls:
        yield "--tls has no use on a Unix socket: the web server in front of it does TLS"


def _about_address(settings: Settings, unread: frozenset[str], constraints: NameConstraints | None) -> Iterator[str]:
    """About who can reach the server, and what they could do then."""
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
    elif settings.roles and not (settings.tls or settings.plain_http or proxied or all(map(is_loopback, addresses))):
        yield (
            f"HTTP on {settings.host} shows the tokens and private keys of --roles to whoever is on the way: serve "
            "HTTPS with --tls, say which https address a proxy in front has with --external-url, or insist with "
            "--plain-http"
        )
    if any(map(is_unspecified, addresses)) and not settings.external_url and not unread & {"external_url"}:
        example = f"{'https' if settings.tls else 'http'}://ca.internal:{settings.port or 8555}"
        yield (
            f"{settings.host} is no address that clients could use: say the one they do, "
            f"such as --external-url {example}"
        )
    if settings.tls and not unread & {"external_url"}:
        in_doubt = unread & {"host", "tls_name", "permit", "exclude"}
        yield from _about_own_names(settings, None if in_doubt else constraints)


def _about_own_names(settings: Settings, constraints: NameConstraints | None) -> Iterator[str]:
    """About the names in the server's own certificate, before there is a root for good that may not certify them."""
    names: dict[str, Identifier] = {}
    for name in tls_names(settings):
        try:
            names[name] = from_text(name)
        except BadIdentifier as error:
            yield f"HTTPS needs a certificate for the name in --external-url or --host: {error}"
    if constraints:
        extension = constraints.to_extension()
        refused = {name: reason for name, each in names.items() if (reason := refusal(extension, each))}
        if mistake := tls_mistake(settings, tls_names(settings), refused):
            yield mistake


def _about_policy(settings: Settings, files: Files, unread: frozenset[str]) -> Iterator[str]:
    if settings.require_eab and settings.store == "memory:":
        yield "--require-eab wants keys, which nobody can bring into --store memory: choose sqlite:///PATH"
    if settings.policy and settings.auto_approve:
        yield "--policy says who may have what, and --auto-approve gives everybody everything: leave one of them out"
    asks = ["--ask-person"] if settings.ask_person else []
    if files.rules and any(rule.decision is Decision.ASK for rule in files.rules.rules):
        asks.append("--policy")
    if asks and settings.store == "memory:" and not unread & {"store"}:
        yield (
            f"{' and '.join(asks)} would let requests wait for a person, who cannot look into --store memory: choose "
            "sqlite:///PATH"
        )


def _about_validation(settings: Settings, unread: frozenset[str]) -> Iterator[str]:
    decides = [f"--{option_name(name)}" for name in ("auto_approve", "ask_person") if getattr(settings, name)]
    if len(decides) == 2:
        yield "--ask-person lets a person decide what --auto-approve gives to everybody: leave one of them out"
    elif settings.validate and decides:
        yield f"--validate wants a proof from those whom {decides[0]} asks for none: leave one of them out"
    elif not settings.methods and not unread & {"validate"}:
        for name in _ABOUT_VALIDATION:
            if getattr(settings, name) != getattr(Settings(), name):
                yield f"--{option_name(name)} is about proofs, and {decides[0]} asks for none: leave one of them out"
    if settings.reuse_authorizations and settings.auto_approve:
        yield "--reuse-authorizations is about proofs, and --auto-approve asks for none: leave one of them out"
    if settings.http_01_port != 80 and settings.methods and "http-01" not in settings.methods:
        yield "--http-01-port is about http-01, which --validate does not name: leave it out"
    yield from _about_identities(settings, unread)
    if settings.methods and not settings.resolver and not unread & {"resolver"}:
        try:
            Resolver()
        except ValueError as error:
            yield f"/etc/resolv.conf names a nameserver that is none: {error}; choose one with --resolver"


def _about_identities(settings: Settings, unread: frozenset[str]) -> Iterator[str]:
    """About what records in DNS call us: a name, which `localhost` or an address is not."""
    wanted = [name for name, is_on in (("--caa", settings.caa), ("dns-persist-01", _persists(settings))) if is_on]
    if settings.caa_identity and not wanted and not unread & {"validate", "caa"}:
        yield "--caa-identity is about --caa and dns-persist-01: ask for one of them, or leave it out"
    if wanted and settings.methods and not unread & {"caa_identity", "external_url"}:
        own = settings.identities(settings.external_url or f"http://{settings.host}")
        if not own or own == ("localhost",):
            yield (
                f"{' and '.join(wanted)}: records in DNS have to call this authority by a name: say which, such as "
                "--caa-identity ca.internal"
            )


def _persists(settings: Settings) -> bool:
    return "dns-persist-01" in settings.methods
