"""What may be wrong with what `privet node` is asked for, a sentence for each mistake.

The law of this module: it looks at files and asks nobody.
"""

import os
import re
import shlex
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from privet.acme.identifiers import BadIdentifier, from_text
from privet.cli.failures import Failure
from privet.cli.node.folder import read_owner
from privet.cli.postgresql import Database
from privet.client.errors import ClientError
from privet.client.schedule import Schedule
from privet.client.signing import ExternalAccount
from privet.client.trust import read_fingerprint, trust_in
from privet.server.durations import read_duration

_SHELL = {";", "&", "&&", "|", "||", ">", ">>", "<"}
_QUOTED = re.compile(r"""\\.|'[^']*'|"(?:\\.|[^"\\])*\"""", re.DOTALL)
"""What a shell would leave alone."""


def about_trust(
    directory: str, fingerprint: str | None, insecure: bool = False, where: str = "--directory"
) -> list[str]:
    mistakes = []
    try:
        parts = urlsplit(directory)
        known = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        known = False
    if not known:
        example = "https://ca.internal:8555" + "/directory" * (where == "--directory")
        mistakes.append(f"{where} has to be a URL such as {example}, not {directory!r}")
    elif insecure and parts.scheme == "https":
        mistakes.append(f"--insecure is for plain http, and {where} is https: leave it out")
    if fingerprint is not None:
        try:
            read_fingerprint(fingerprint)
        except ClientError as error:
            mistakes.append(f"--fingerprint: {error}")
    return mistakes


def about_ca_file(path: Path | None) -> list[str]:
    try:
        if path is not None:
            trust_in(path)
    except ClientError as error:
        return [str(error).replace("the ca_bundle", f"the --ca-file {path}")]
    return []


def about_schedule(renewal_threshold: float, days_before_expiry: float | None) -> list[str]:
    try:
        Schedule(renewal_threshold, days_before_expiry)
    except ValueError as error:
        return [f"--renewal-threshold or --days-before-expiry: {error}"]
    return []


def about_owner(owner: str | None) -> list[str]:
    try:
        if owner is not None:
            read_owner(owner)
    except Failure as failure:
        return [str(failure)]
    return []


def about_key(bits: int, owner: str | None, database: Database | None) -> list[str]:
    """What a client of PostgreSQL would say of the mode of its key."""
    roots = os.geteuid() == 0 and (owner or "").partition(":")[0] in ("", "0", "root")
    if database is None or bits < 0 or not bits & ~(0o640 if roots else 0o600):
        return []
    if bits & 0o040 and not roots:
        return ["--mode lets a group read the key, and PostgreSQL's clients refuse such a key unless it is root's"]
    return ["--mode lets a group write to the key, and PostgreSQL's clients refuse such a key"]


def about_vault(vault: str | None, role: str | None, token_file: Path | None, by_acme: bool) -> list[str]:
    if vault is None:
        given = role is not None or token_file is not None
        return ["--role and --token-file are for --vault URL"] if given else []
    if role is None or token_file is None:
        return ["--vault goes with --role and --token-file: `privet token create --role NAME` makes a token at the CA"]
    if by_acme:
        return ["with --vault a token says who asks: leave out what is for ACME, proofs, accounts, contacts, profiles"]
    try:
        token_file.read_bytes()
    except OSError as error:
        return [f"the --token-file {token_file} cannot be read: {error.strerror}"]
    return []


def about_names(names: list[str]) -> list[str]:
    mistakes = []
    for name in names:
        try:
            from_text(name)
        except BadIdentifier as error:
            mistakes.append(str(error))
    return mistakes


def about_external_account(kid: str | None, file: Path | None) -> list[str]:
    if kid is None and file is None:
        return []
    if kid is None or file is None:
        return ["--external-account and --external-account-key-file go together: give both"]
    try:
        ExternalAccount.read(kid, file.read_text("ascii").strip())
    except OSError as error:
        return [f"the --external-account-key-file {file} cannot be read: {error.strerror}"]
    except (ClientError, ValueError):
        return [f"the --external-account-key-file {file} does not hold a key in base64url"]
    return []


def read_patience(text: str | None, mistakes: list[str]) -> float | None:
    """A duration in seconds."""
    try:
        return None if text is None else read_duration(text).total_seconds()
    except ValueError as error:
        mistakes.append(f"--approval-within {error}")
        return None


def read_mode(text: str, mistakes: list[str]) -> int:
    try:
        bits = int(text, 8)
    except ValueError:
        bits = -1
    # Its owner reads it, and whoever is neither that nor in the group does not.
    if bits & ~0o660 or not bits & 0o400:
        mistakes.append(f"--mode has to be a mode that keeps others out, such as 0600 or 0640, not {text!r}")
    return bits


def read_command(option: str, text: str | None, mistakes: list[str]) -> tuple[str, ...]:
    """A command as words, its program by a whole path where it was a path, so that it is found from anywhere."""
    if text is None:
        return ()
    try:
        words = shlex.split(text)
    except ValueError:
        words = []
    if not words:
        mistakes.append(f"{option} cannot be read: {text!r} is not a program with its arguments")
        return ()
    bare = _QUOTED.sub("x", text).split()
    if shells := [word for word in bare if word in _SHELL or word.endswith(";")]:
        mistakes.append(f"{option} is run without a shell, and {shells[0]!r} is for one: say sh -c '…'")
        return ()
    found = shutil.which(words[0])
    if found is None:
        mistakes.append(f"{option}: there is no program {words[0]!r} here; it is run without a shell")
        return ()
    return (os.path.abspath(found) if os.sep in words[0] else words[0], *words[1:])  # noqa: PTH100 - links stay
