"""What the commands for external account keys and for tokens have in common: both are named, perhaps for a time,
perhaps for so many uses, and taken back by name or by id."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

from privet.cli.printing import to_text
from privet.server.durations import read_duration
from privet.server.grants import Grant, status_of


class Named(Grant, Protocol):
    @property
    def name(self) -> str: ...
    @property
    def authority(self) -> str: ...
    @property
    def created(self) -> datetime: ...


Given = TypeVar("Given", bound=Named)


def mistakes_of(name: str, uses: int | None) -> Iterator[str]:
    if not name.strip() or not name.isprintable() or len(name) > 100:
        yield f"--name has to be a text of at most 100 characters, not {name!r}"
    elif name.startswith("-"):
        yield f"--name must not begin with a hyphen, as {name!r} does: commands take that for an option"
    if uses is not None and uses < 1:
        yield f"--uses has to be a number from 1, not {uses}"


def read_ends(expires: str | None, now: datetime) -> tuple[datetime | None, list[str]]:
    """When --expires says that it ends, and what is wrong with that."""
    if expires is None:
        return None, []
    try:
        return now + read_duration(expires), []
    except ValueError as error:
        return None, [f"--expires {error}"]


def take_back(
    there: Sequence[Given], keys: Sequence[str], revoke: Callable[[Given], Given], what: str, listing: str
) -> tuple[list[Given], list[str]]:
    """Revoke those that have one of these names or ids; return them, and a sentence for each key that meant none."""
    meant = [each for each in there if each.id in keys or each.name in keys]
    revoked = [revoke(each) for each in meant if each.revoked is None]
    failed = []
    for key in keys:
        named = [each for each in meant if key in (each.id, each.name)]
        if not named:
            failed.append(f"there is no {what} {key}: `{listing}` shows all")
        elif all(each.revoked is not None for each in named):
            failed.append(f"the {what} {key} is revoked already")
    return revoked, failed


def grant_document(grant: Named, now: datetime, **own: object) -> dict[str, object]:
    """What is told of it as JSON: what all have, and its own."""
    return {
        "id": grant.id,
        "name": grant.name,
        "status": status_of(grant, now),
        "authority": grant.authority,
        **own,
        "created": to_text(grant.created),
        "expires": grant.ends and to_text(grant.ends),
        "uses": grant.uses,
        "used": grant.used,
        "revoked": grant.revoked and to_text(grant.revoked),
    }


def uses_text(grant: Named) -> str:
    return "any" if grant.uses is None else f"{grant.used} of {grant.uses}"


def ends_text(grant: Named) -> str:
    return to_text(grant.ends) if grant.ends else "never"
