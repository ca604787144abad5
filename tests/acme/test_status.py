"""The states of RFC 8555 §7.1.6, walked from birth to the end."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import privet
from privet.acme.status import (
    ACCOUNT,
    AUTHORIZATION,
    CHALLENGE,
    ORDER,
    Event,
    IllegalTransition,
    Status,
    Table,
    advance,
)

# Where each begins, and where it ends. An authorization may be born valid, "if the server ... has a policy" (§7.1.6
# leaves how authorizations become valid ahead of an order open), and its challenges with it.
BORN: dict[str, set[Status]] = {
    "account": {Status.VALID},
    "order": {Status.PENDING},
    "authorization": {Status.PENDING, Status.VALID},
    "challenge": {Status.PENDING, Status.VALID},
}
TABLES: dict[str, Table] = {
    "account": ACCOUNT,
    "order": ORDER,
    "authorization": AUTHORIZATION,
    "challenge": CHALLENGE,
}
FINAL: dict[str, set[Status]] = {
    "account": {Status.DEACTIVATED, Status.REVOKED},
    "order": {Status.VALID, Status.INVALID},
    "authorization": {Status.INVALID, Status.EXPIRED, Status.DEACTIVATED, Status.REVOKED},
    "challenge": {Status.VALID, Status.INVALID},
}
# §7.1.2, §7.1.3, §7.1.4, §8: "Possible values are ..."
POSSIBLE: dict[str, set[Status]] = {
    "account": {Status.VALID, Status.DEACTIVATED, Status.REVOKED},
    "order": {Status.PENDING, Status.READY, Status.PROCESSING, Status.VALID, Status.INVALID},
    "authorization": {
        Status.PENDING,
        Status.VALID,
        Status.INVALID,
        Status.DEACTIVATED,
        Status.EXPIRED,
        Status.REVOKED,
    },
    "challenge": {Status.PENDING, Status.PROCESSING, Status.VALID, Status.INVALID},
}
OBJECTS = list(TABLES)


def reachable(table: Table, born: set[Status]) -> set[Status]:
    reached: set[Status] = set()
    coming = set(born)
    while coming:
        reached |= coming
        coming = {after for (before, _), after in table.items() if before in coming} - reached
    return reached


@pytest.mark.parametrize("name", OBJECTS)
def test_what_can_be_reached_is_what_the_rfc_lists(name: str) -> None:
    assert reachable(TABLES[name], BORN[name]) == POSSIBLE[name]


@pytest.mark.parametrize("name", OBJECTS)
def test_nothing_leaves_a_terminal_state_and_nothing_else_is_one(name: str) -> None:
    left = {before for before, _ in TABLES[name]}
    assert left.isdisjoint(FINAL[name])
    assert POSSIBLE[name] - left == FINAL[name]


@pytest.mark.parametrize("name", OBJECTS)
def test_every_state_leads_to_an_end(name: str) -> None:
    for status in POSSIBLE[name]:
        assert reachable(TABLES[name], {status}) & FINAL[name]


@pytest.mark.parametrize("name", OBJECTS)
def test_there_is_no_way_back(name: str) -> None:
    """Only `processing` may come again, for a validation taken up again (§8.2)."""
    for (before, _), after in TABLES[name].items():
        assert before == after == Status.PROCESSING or before not in reachable(TABLES[name], {after})


@pytest.mark.parametrize("name", OBJECTS)
def test_advance_is_the_table_and_nothing_more(name: str) -> None:
    for status in Status:
        for event in Event:
            after = TABLES[name].get((status, event))
            if after is None:
                with pytest.raises(IllegalTransition, match=f"{status} does not answer to {event}"):
                    advance(TABLES[name], status, event)
            else:
                assert advance(TABLES[name], status, event) is after


def test_an_order_can_become_invalid_until_it_is_final() -> None:
    """§7.1.6: "If an error occurs at any of these stages, the order moves to the "invalid" state. The order also moves
    to the "invalid" state if it expires or one of its authorizations enters a final state other than "valid".\""""
    for status in (Status.PENDING, Status.READY):
        assert ORDER[status, Event.EXPIRED] is Status.INVALID
        assert ORDER[status, Event.REFUSED] is Status.INVALID
    assert ORDER[Status.PROCESSING, Event.FAILED] is Status.INVALID


def test_processing_does_not_expire() -> None:
    """What has a serial on record is finished, however late."""
    assert (Status.PROCESSING, Event.EXPIRED) not in ORDER


def test_every_event_happens_somewhere() -> None:
    assert {event for table in TABLES.values() for _, event in table} == set(Event)


# Only `advance` makes statuses: read from the source, as nobody would notice otherwise


def calls() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef, ast.Call]]:
    for path in sorted(Path(privet.__file__).parent.joinpath("server").glob("*.py")):
        tree = ast.parse(path.read_text())
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for node in ast.walk(function):
                    if isinstance(node, ast.Call):
                        yield path.name, function, node


def name_of(function: ast.expr) -> str:
    match function:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


def is_advance(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and name_of(node.func) == "advance"


def assigned(function: ast.AST, name: str) -> list[ast.expr]:
    return [
        node.value
        for node in ast.walk(function)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id == name
    ]


def test_what_changes_has_its_status_from_advance() -> None:
    changes = [
        (place, function, keyword.value)
        for place, function, call in calls()
        if name_of(call.func) in ("replace", "_replace")
        for keyword in call.keywords
        if keyword.arg == "status"
    ]
    assert len(changes) >= 12, "the test has lost sight of what it watches"
    for place, function, value in changes:
        values = assigned(function, value.id) if isinstance(value, ast.Name) else [value]
        kept = [each for each in values if isinstance(each, ast.Attribute) and each.attr == "status"]
        made = [each for each in values if is_advance(each)]
        assert made, f"{place}: {function.name} changes a status without advance"
        assert len(made) + len(kept) == len(values), f"{place}: {function.name} makes a status of its own"


def test_what_is_made_is_born_in_a_state_to_be_born_in() -> None:
    births: dict[str, set[str]] = {name: set() for name in OBJECTS}
    for place, function, call in calls():
        made = name_of(call.func)
        if made.lower() in births and made.istitle():
            status = next((keyword.value for keyword in call.keywords if keyword.arg == "status"), None)
            if made == "Challenge":
                status = status or call.args[2]
            assert status is not None, f"{place}: {function.name}"
            values = assigned(function, status.id) if isinstance(status, ast.Name) else [status]
            births[made.lower()] |= {
                node.attr.lower()
                for value in values
                for node in ast.walk(value)
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Status"
            }
    assert births == {name: {str(status) for status in BORN[name]} for name in OBJECTS}
