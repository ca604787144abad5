"""`privet policy check` and `try`: what the rules in a file say, before a server follows them."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from privet.acme.challenges import challenge_types
from privet.acme.identifiers import BadIdentifier, Identifier, from_text
from privet.acme.problems import Problem
from privet.ca import KeyType
from privet.cli import options
from privet.cli.failures import Failure, Mistakes
from privet.cli.printing import print_json
from privet.cli.settings import read_validate
from privet.server.client_certificates import ClientCertificate
from privet.server.durations import read_duration
from privet.server.names import read_address
from privet.server.policy import Applicant, Decision
from privet.server.rules import Rules, Verdict
from privet.server.tables import Mistaken

policy = typer.Typer(
    no_args_is_help=True, rich_markup_mode="markdown", help="Look at the rules for `privet serve --policy`."
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="Rules in TOML.")]

Followed = TypeVar("Followed")

_WORDS = {Decision.PROVE: "allowed", Decision.TRUST: "trusted", Decision.ASK: "asks a person", None: "refused"}


def read_rules(path: Path) -> Rules:
    """The rules in a file. Raises `Failure` with a sentence for each mistake."""
    return read_rules_of(path, "policy", Rules.from_toml)


def read_rules_of(path: Path, what: str, read: Callable[[str, str], Followed]) -> Followed:
    """What a file has that is to be followed: a policy, or roles. Raises `Failure` with a sentence for each mistake."""
    try:
        return read(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise Failure(f"the {what} {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise Failure(f"the {what} {path} is not TOML: {error}") from None
    except Mistaken as error:
        raise Mistakes(error.mistakes) from None


@policy.command()
def check(file: File, json: options.JSON = False) -> None:
    """Read rules in full, and tell every mistake.

    ```
    privet policy check policy.toml
    ```
    """
    rules = read_rules(file).rules
    if json:
        print_json({"rules": [rule.name for rule in rules]})
    else:
        print(f"{file} is in order: {len(rules)} rule{'' if len(rules) == 1 else 's'}")


@policy.command("try")
def try_(
    file: File,
    name: Annotated[
        list[str], typer.Option(metavar="NAME", help="A name or an address to order. May be given several times.")
    ],
    external_key: Annotated[
        str | None, typer.Option(metavar="NAME", help="The external account key that the account is bound to.")
    ] = None,
    client: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Where the request comes from; '' for an address that nobody knows.",
            show_default="127.0.0.1",
        ),
    ] = None,
    client_certificate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A name in the certificate that the client shows. May be given several times."
        ),
    ] = None,
    key_type: Annotated[
        KeyType | None,
        typer.Option(case_sensitive=False, metavar="KIND", help=f"The key in the CSR: {', '.join(KeyType)}."),
    ] = None,
    lifetime: Annotated[
        str | None, typer.Option(metavar="DURATION", help="The lifetime that the order asks for.")
    ] = None,
    validate: Annotated[
        str | None,
        typer.Option(
            metavar="TYPES", help="As `privet serve --validate` has it: look whether the names can be proved so."
        ),
    ] = None,
    json: options.JSON = False,
) -> None:
    """Tell what would become of an order, and by which rule. The status is 1 if it would be refused.

    It looks at the rules alone: not at the names that an external account key has itself, at the names that the
    authority may certify (--permit), at how long certificates live (--validity) or at rates; and at challenges only
    with --validate.

    ```
    privet policy try policy.toml --name web.team-a.internal \\
        --external-key team-a --client 10.1.2.3
    ```
    """
    identifiers, wrong = _identifiers(name)
    address = "127.0.0.1" if client is None else client
    if address and read_address(address) is None:
        wrong.append(f"--client has to be an address, or '' for one that nobody knows, not {client!r}")
    asked = None
    if lifetime is not None:
        try:
            asked = read_duration(lifetime)
        except ValueError as error:
            wrong.append(f"--lifetime {error}")
    types = None
    if validate is not None:
        try:
            types = read_validate(validate)
        except ValueError as error:
            wrong.append(f"--validate {error}")
    try:
        rules = read_rules(file)
    except Mistakes as mistakes:
        raise Mistakes([*wrong, *mistakes.sentences]) from None
    if wrong:
        raise Mistakes(wrong)
    applicant = _applicant(external_key, address, client_certificate or [], asked)
    refusal = _refusal(rules, applicant)
    verdicts = [_proved(verdict, types) for verdict in rules.judge(applicant, identifiers, key_type)]
    if json:
        names = [_document(verdict) for verdict in verdicts]
        print_json({"client": address or None, "account": refusal or "allowed", "names": names})
    else:
        print(f"client: {address or 'unknown'}{'' if client is not None else ' (--client says another)'}")
        _print(refusal, verdicts)
    if refusal or any(verdict.decision is None for verdict in verdicts):
        raise typer.Exit(1)


def _identifiers(names: list[str]) -> tuple[list[Identifier], list[str]]:
    found: dict[Identifier, None] = {}
    wrong = []
    for name in names:
        try:
            found[from_text(name)] = None
        except BadIdentifier as error:
            wrong.append(f"--name {error}")
    return list(found), wrong


def _applicant(key: str | None, client: str, certificate: list[str], lifetime: timedelta | None) -> Applicant:
    shown = ClientCertificate(None, tuple(each.lower() for each in certificate), "", "") if certificate else None
    return Applicant("", (), key, client, key, shown, "default", lifetime)


def _refusal(rules: Rules, applicant: Applicant) -> str | None:
    """Why there would be no account to order with."""
    try:
        rules.allow_account(applicant)
    except Problem as problem:
        return problem.detail
    return None


def _proved(verdict: Verdict, types: tuple[str, ...] | None) -> Verdict:
    """The verdict, unless a proof is wanted and none of these types of challenge is one."""
    if types is None or verdict.decision is not Decision.PROVE or {*types} & {*challenge_types(verdict.identifier)}:
        return verdict
    return verdict._replace(decision=None, reason=f"{verdict.identifier} cannot be proved by {' or '.join(types)}")


def _document(verdict: Verdict) -> dict[str, object]:
    return {
        "name": verdict.identifier.value,
        "decision": verdict.decision.value if verdict.decision else "deny",
        "rule": verdict.rule.name if verdict.rule else None,
        "reason": verdict.reason or None,
    }


def _print(refusal: str | None, verdicts: list[Verdict]) -> None:
    if refusal:
        print(f"no account: {refusal}")
    width = max(len(verdict.identifier.value) for verdict in verdicts)
    for verdict in verdicts:
        by = verdict.reason or f"by the rule {verdict.rule.name!r}" if verdict.rule else verdict.reason
        print(f"{verdict.identifier.value:<{width}}  {_WORDS[verdict.decision]:<13}  {by}")
