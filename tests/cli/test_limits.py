"""Limits as an operator writes them, and what docs/limits.md says of them."""

import asyncio
import re
import tomllib
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from tests.cli.command import Person
from tests.wire import Wire

from privet import Limits, Rate
from privet.cli.limits import NAMES, set_limits
from privet.cli.settings import read_settings

PAGE = Path(__file__).parents[2] / "docs" / "limits.md"


def test_each_kind_of_limit() -> None:
    limits = set_limits(
        Limits(), ["open-orders=200", " orders-of-account = 1000 / 90m ", "order-lifetime=12h", "patience=0.5m"]
    )
    assert limits == Limits(
        open_orders=200,
        orders_of_account=Rate(1000, timedelta(minutes=90)),
        order_lifetime=timedelta(hours=12),
        patience=timedelta(seconds=30),
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("open-order=1", "'open-order' is no limit; did you mean open-orders?"),
        ("zzz=1", f"'zzz' is no limit; there are {', '.join(NAMES)}"),
        ("", f"'' is no limit; there are {', '.join(NAMES)}"),
        ("open-orders", "'open-orders' has no value; write open-orders=VALUE"),
        ("open-orders=", "open-orders has to be a number from 1 to 999999999, not ''"),
        ("open-orders=0", "open-orders has to be a number from 1 to 999999999, not '0'"),
        ("open-orders=-5", "open-orders has to be a number from 1 to 999999999, not '-5'"),
        ("open-orders=1e3", "open-orders has to be a number from 1 to 999999999, not '1e3'"),
        ("orders-of-account=5", "orders-of-account has to be so many in so long, such as 500/24h, not '5'"),
        ("orders-of-account=5/", "orders-of-account has to be a duration such as 90m, 24h or 7d, not ''"),
        ("orders-of-account=/1h", "orders-of-account has to be a number from 1 to 999999999, not ''"),
        ("signing=5", "signing has to be a duration such as 90m, 24h or 7d, not '5'"),
        ("validation=5s", "'validation' is said by --validate-within"),
        ("authorization-reuse=5s", "'authorization-reuse' is said by --reuse-authorizations"),
    ],
)
def test_what_is_no_limit_is_told_in_a_sentence(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
        set_limits(Limits(), [text])
    (mistake,) = read_settings({"limit": [text or " "]}, {}).mistakes
    assert mistake.startswith("--limit has ")


def test_workers_count_together(person: Person) -> None:
    """The free share of each process is one order here."""

    async def loop(base: str) -> list[int]:
        statuses = []
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            wire = Wire(http, base)
            assert (await wire.register()).status_code == 201
            for _ in range(12):
                async with httpx.AsyncClient(trust_env=False, timeout=60) as wire.http:  # any worker may take it
                    statuses.append((await wire.order("a.internal")).status_code)
        return statuses

    limit = ("--limit", "orders-for-same-names=4/24h")
    with person.serves("--auto-approve", "--workers", "2", *limit) as serving:
        statuses = asyncio.run(loop(serving.base))
    assert set(statuses) == {201, 429}
    assert 4 <= statuses.count(201) <= 4 + 2


def test_a_limit_is_said_once() -> None:
    with pytest.raises(ValueError, match="open-orders is there twice"):
        set_limits(Limits(), ["open-orders=5", "open-orders=6"])


def test_the_page_lists_them_all_with_what_is_usual() -> None:
    listed = dict(re.findall(r"^\| `([a-z-]+)` \| `([^`]+)` \|", PAGE.read_text(), re.MULTILINE))
    assert listed.keys() == set(NAMES)
    assert set_limits(Limits(), [f"{name}={value}" for name, value in listed.items()]) == Limits()


def test_a_server_keeps_to_the_limits_as_the_page_writes_them(person: Person) -> None:
    (toml,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (person.folder / "privet.toml").write_text(toml.replace("open-orders=200", "open-orders=2"))

    async def story(base: str) -> list[int]:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            wire = Wire(http, base)
            assert (await wire.register()).status_code == 201
            return [(await wire.order(f"{number}.internal")).status_code for number in range(3)]

    with person.serves("--auto-approve", "--config", "privet.toml") as serving:
        assert asyncio.run(story(serving.base)) == [201, 201, 429]


def test_the_examples_of_the_page() -> None:
    toml, python = (re.search(rf"```{kind}\n(.*?)```", PAGE.read_text(), re.DOTALL) for kind in ("toml", "python"))
    assert toml
    assert python
    texts = tomllib.loads(toml[1])["limit"]
    assert set_limits(Limits(), texts).order_lifetime == timedelta(hours=12)
    names: dict[str, object] = {}
    exec(python[1], names)
    assert names["limits"] == set_limits(Limits(), texts[:2])
