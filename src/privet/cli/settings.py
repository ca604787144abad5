"""Settings: from options, the environment and a TOML file, in this order of precedence, each read and checked here.

The law of this module: every source is checked in full before anything happens, all mistakes are told at once, and a
`Settings` that exists is in order.
"""

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from privet.acme.challenges import STANDARD, ChallengeType
from privet.acme.identifiers import from_text
from privet.ca.constraints import read_subtree
from privet.ca.issuer import SHORTEST_ROOT
from privet.cli.failures import Mistakes
from privet.cli.limits import set_limits
from privet.cli.serve.proxy import read_proxy
from privet.server.durations import read_duration
from privet.server.limits import Limits
from privet.server.urls import read_base
from privet.stores import without_password
from privet.validation.dnspersist01 import read_issuers
from privet.validation.networks import Networks
from privet.validation.resolver import read_nameserver

DEFAULT_STORE = "sqlite:///~/.privet/privet.db"
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")
VALIDATED = tuple(map(str, ChallengeType))

Reader = Callable[[object], object]


# --- readers: what a person wrote, or ValueError with the rest of a sentence that begins with the setting's name ---


def read_text(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError(f"has to be a text, not {value!r}")
    return value


def read_flag(value: object) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    word = str(value).lower()
    if word not in words:
        raise ValueError(f"has to be true or false, not {value!r}")
    return words[word]


def read_cn(value: object) -> str:
    text = read_text(value)
    if len(text) > 64 or not text.isprintable():  # RFC 5280 appendix A.1
        raise ValueError(f"has to be a name of at most 64 characters, not {value!r}")
    return text


def read_path(value: object) -> Path:
    try:
        return Path(read_text(value)).expanduser()
    except RuntimeError:
        raise ValueError(f"names a home directory that is not there: {value!r}") from None


def read_port(value: object) -> int:
    return _number(value, 0, 65535)


def read_port_of_others(value: object) -> int:
    return _number(value, 1, 65535)


def read_workers(value: object) -> int:
    return _number(value, 1, 256)


def read_mode(value: object) -> int:
    # TOML reads 0o660 as the number 432, and 660 as another that nobody means.
    if not isinstance(value, str) or not re.fullmatch(r"(0o?)?[0-7]{3}", value):
        raise ValueError(f'has to be a file mode, as a text such as "660", not {value!r}')
    return int(value, 8)


def read_store(value: object) -> str:
    text = read_text(value)
    if text != "memory:" and not re.fullmatch(r"(sqlite|file):///.+|postgres(ql)?://.+", text):
        raise ValueError(
            "has to be sqlite:///PATH, file:///PATH, postgresql://USER@HOST/DATABASE or memory:, "
            f"not {without_password(text)!r}"
        )
    return text


def read_ca_validity(value: object) -> timedelta:
    validity = read_duration(value)
    if validity < SHORTEST_ROOT:
        raise ValueError(f"has to be a minute at least, not {value!r}")
    return validity


def read_url(value: object) -> str:
    return read_base(read_text(value))


def read_link(value: object) -> str:
    text = read_text(value)
    if urlsplit(text).scheme not in ("http", "https") or not text.isprintable() or " " in text:
        raise ValueError(f"has to be an address that begins with https:// or http://, not {value!r}")
    return text


def read_mount(value: object) -> str:
    text = str(value)
    if text not in ("", "/") and not re.fullmatch(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)+/?", text):
        raise ValueError(f"has to be a path that begins with a slash, such as /acme, not {value!r}")
    return text.rstrip("/")


def read_names(value: object) -> tuple[str, ...]:
    return _list(value, "name", from_text)


def read_subtrees(value: object) -> tuple[str, ...]:
    return _list(value, "name or network", read_subtree)


def read_proxies(value: object) -> tuple[str, ...]:
    return _list(value, "proxy", read_proxy)


def read_validate(value: object) -> tuple[str, ...]:
    try:
        types = tuple(dict.fromkeys(_list(value)))
    except ValueError:
        types = ()
    if not types or not set(types) <= set(VALIDATED):
        raise ValueError(f"has to be one or more of {','.join(VALIDATED)}, with commas between, not {value!r}")
    return types


def read_resolvers(value: object) -> tuple[str, ...]:
    return _list(value, "nameserver", read_nameserver)


def read_networks(value: object) -> tuple[str, ...]:
    return _list(value, "network", lambda network: Networks(allow=[network]))


def read_caa_identity(value: object) -> tuple[str, ...]:
    try:
        return read_issuers(_list(value))
    except ValueError as error:
        raise ValueError(f"has to be one to ten domain names: {error}") from None


def read_limits(value: object) -> tuple[str, ...]:
    texts = _list(value)
    try:
        set_limits(Limits(), texts)
    except ValueError as error:
        raise ValueError(f"has a limit that is none: {error}") from None
    return texts


def read_level(value: object) -> str:
    return _one_of(LOG_LEVELS, value)


def read_format(value: object) -> str:
    return _one_of(LOG_FORMATS, value)


def read_address(value: object) -> tuple[str, int]:
    """Where to listen: an address and a port."""
    host, _, port = str(value).rpartition(":")
    try:
        return str(ip_address(host.removeprefix("[").removesuffix("]"))), _number(port, 1, 65535)
    except ValueError:
        raise ValueError(f"has to be an address and a port, such as 127.0.0.1:9464, not {value!r}") from None


def _list(value: object, what: str = "", read: Callable[[str], object] = str) -> tuple[str, ...]:
    """A list in TOML, an option given several times, or commas between in the environment; of what can be read."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) and part.strip() for part in parts):
        raise ValueError(f"has to be a list of texts, not {value!r}")
    texts = tuple(part.strip() for part in parts)
    for text in texts:
        try:
            read(text)
        except ValueError as error:
            raise ValueError(f"has a {what} that is none: {error}") from None
    return texts


def _one_of(words: Sequence[str], value: object) -> str:
    if value not in words:
        raise ValueError(f"has to be one of {', '.join(words)}, not {value!r}")
    return str(value)


def _number(value: object, least: int, most: int) -> int:
    text = str(value)
    if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
        raise ValueError(f"has to be a number from {least} to {most}, not {value!r}")
    return int(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set, for all commands, by the names it has as an option, in the environment (PRIVET_…)
    and in the file. It can be pickled, and shows no secret: only the address of a store may have a password in it."""

    store: str = field(default=DEFAULT_STORE, repr=False)
    name: str = "root"
    cn: str = "privet Internal CA"
    ca_validity: timedelta = timedelta(days=3650)
    permit: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    key_password_file: Path | None = None
    ca_cert: Path | None = None
    ca_key: Path | None = None
    backup_password_file: Path | None = None
    validity: timedelta = timedelta(hours=24)

    host: str = "127.0.0.1"
    port: int = 8555
    uds: Path | None = None
    uds_mode: int = 0o660
    external_url: str | None = None
    mount: str = ""
    trusted_proxy: tuple[str, ...] = ()
    workers: int = 1
    log_level: str = "info"
    log_format: str = "text"
    metrics: tuple[str, int] | None = None

    tls: bool = False
    tls_name: tuple[str, ...] = ()
    tls_validity: timedelta = timedelta(hours=24)
    client_ca: Path | None = None
    plain_http: bool = False

    auto_approve: bool = False
    approve_anybody: bool = False
    ask_challenges: bool = False
    ask_person: bool = False
    policy: Path | None = None
    require_eab: bool = False
    roles: Path | None = None
    validate: tuple[str, ...] = ()
    validate_within: timedelta = timedelta(seconds=60)
    resolver: tuple[str, ...] = ()
    validate_allow: tuple[str, ...] = ()
    validate_deny: tuple[str, ...] = ()
    http_01_port: int = 80
    caa: bool = False
    caa_identity: tuple[str, ...] = ()
    reuse_authorizations: timedelta = timedelta(0)
    limit: tuple[str, ...] = ()
    terms_of_service: str | None = None
    website: str | None = None

    @property
    def methods(self) -> tuple[str, ...]:
        """How control is proved: as was said, or in the usual ways unless somebody else decides."""
        if self.validate or self.auto_approve or self.ask_person:
            return self.validate
        return tuple(map(str, STANDARD))

    def identities(self, external_url: str) -> tuple[str, ...]:
        """The names that records in DNS know this authority by (RFC 8659); its own, unless others were said."""
        try:
            return self.caa_identity or read_issuers([urlsplit(external_url).hostname or ""])
        except ValueError:
            return ()


READERS: Mapping[str, Reader] = {
    "store": read_store,
    "name": read_text,
    "cn": read_cn,
    "ca_validity": read_ca_validity,
    "permit": read_subtrees,
    "exclude": read_subtrees,
    "key_password_file": read_path,
    "ca_cert": read_path,
    "ca_key": read_path,
    "backup_password_file": read_path,
    "validity": read_duration,
    "host": read_text,
    "port": read_port,
    "uds": read_path,
    "uds_mode": read_mode,
    "external_url": read_url,
    "mount": read_mount,
    "trusted_proxy": read_proxies,
    "workers": read_workers,
    "log_level": read_level,
    "log_format": read_format,
    "metrics": read_address,
    "tls": read_flag,
    "tls_name": read_names,
    "tls_validity": read_duration,
    "client_ca": read_path,
    "plain_http": read_flag,
    "auto_approve": read_flag,
    "approve_anybody": read_flag,
    "ask_challenges": read_flag,
    "ask_person": read_flag,
    "policy": read_path,
    "require_eab": read_flag,
    "roles": read_path,
    "validate": read_validate,
    "validate_within": read_duration,
    "resolver": read_resolvers,
    "validate_allow": read_networks,
    "validate_deny": read_networks,
    "http_01_port": read_port_of_others,
    "caa": read_flag,
    "caa_identity": read_caa_identity,
    "reuse_authorizations": read_duration,
    "limit": read_limits,
    "terms_of_service": read_link,
    "website": read_link,
}


@dataclass(frozen=True, slots=True)
class Read:
    """What was read: the settings, what is wrong, the names of the settings that could not be read, and what may be
    wrong."""

    settings: Settings
    mistakes: tuple[str, ...]
    unread: frozenset[str]
    warnings: tuple[str, ...]

    def checked(self, *more: str) -> Settings:
        """The settings, if nothing is wrong. Raises `Mistakes`."""
        if sentences := [*self.mistakes, *more]:
            raise Mistakes(sentences)
        return self.settings


def read_settings(options: Mapping[str, object], environment: Mapping[str, str]) -> Read:
    """Read all sources. An option that is None, or a variable that is empty, was not given."""
    file = options.get("config") or environment.get("PRIVET_CONFIG")
    path = Path(str(file))
    table, mistakes = _read_file(path) if file else ({}, [])
    beside = path.expanduser().parent if table else Path()
    values: dict[str, Any] = {}
    unread = set()
    for name, read in READERS.items():
        # The last one wins.
        try:
            variable, said = _variable(name, environment)
        except ValueError as error:
            mistakes.append(str(error))
            unread.add(name)
            continue
        for origin, value, folder in (
            (f"{option_name(name)} in {file}", table.get(name), beside),
            (variable, said, Path()),
            (f"--{option_name(name)}", _given(options.get(name)), Path()),
        ):
            if value is None:
                continue
            try:
                values[name] = _beside(folder, name, read(value))
            except ValueError as error:
                # What is in a file may be a secret, and a sentence ends with what was read.
                is_secret = origin.endswith(_FILE) and origin not in map(variable_name, READERS)
                mistakes.append(f"{origin} {str(error).partition(', not ')[0] if is_secret else error}")
                unread.add(name)
    return Read(Settings(**values), tuple(mistakes), frozenset(unread), tuple(_strangers(environment)))


def option_name(name: str) -> str:
    return name.replace("_", "-")


def variable_name(name: str) -> str:
    return f"PRIVET_{name.upper()}"


def _variable(name: str, environment: Mapping[str, str]) -> tuple[str, str | None]:
    """What the environment says, and in which variable: the setting's own, or the one that names a file with it, as
    containers get their secrets. Raises `ValueError` with a whole sentence."""
    variable = variable_name(name)
    value = environment.get(variable) or None
    if name == "port" and value and value.startswith("tcp://"):
        value = None  # Kubernetes tells the containers beside a service "privet" where it is, in this very variable.
    file = environment.get(f"{variable}{_FILE}")
    if not file:
        return variable, value
    if value is not None:
        raise ValueError(f"{variable} and {variable}{_FILE} are about the same setting: leave one of them out")
    try:
        return f"{variable}{_FILE}", Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(f"the file {file} that {variable}{_FILE} names cannot be read: {why}") from None


def _beside(folder: Path, name: str, value: object) -> object:
    """What a file names by a relative path lies where the file does: a path, or the store."""
    if isinstance(value, Path):
        return folder / value
    relative = re.fullmatch(r"(sqlite|file):///([^/~].*)", str(value)) if name == "store" and folder != Path() else None
    return f"{relative[1]}:///{folder / relative[2]}" if relative else value


def _given(option: object) -> object:
    """An option that may be given several times is empty when it was not given at all."""
    return None if option in ([], ()) else option


def _read_file(path: Path) -> tuple[dict[str, object], list[str]]:
    try:
        table = tomllib.loads(path.expanduser().read_text(encoding="utf-8"))
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        return {}, [f"the configuration file {path} cannot be read: {reason}"]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return {}, [f"the configuration file {path} is not TOML: {error}"]
    known = {option_name(name): name for name in READERS}
    found = {known[key.replace("_", "-")]: value for key, value in table.items() if key.replace("_", "-") in known}
    strangers = [key for key in table if key.replace("_", "-") not in known]
    return found, [f"{key} in {path} is no setting; {_nearest(key, known)}" for key in strangers]


def _strangers(environment: Mapping[str, str]) -> Iterator[str]:
    """Variables that look like ours and are not. Others may have their reasons for them, so they are no mistakes."""
    known = [*map(variable_name, READERS), "PRIVET_CONFIG"]
    for variable in environment:
        own = variable in known or variable.removesuffix(_FILE) in known
        if variable.startswith("PRIVET_") and not own and not _KUBERNETES.match(variable):
            yield f"the variable {variable} is no setting; {_nearest(variable, known)}"


# What a variable ends with that names a file with the value.
_FILE = "_FILE"

# What Kubernetes tells every container about a service "privet".
_KUBERNETES = re.compile(r"PRIVET_(SERVICE|PORT)_")


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else "`privet serve --help` names them all"
