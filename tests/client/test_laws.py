"""The law of the client: whatever a server answers, at any step, gives a value, a `Problem` or a `ClientError`."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.client.scene import BASE, Answer, rewritten, stage
from tests.client.test_client import Handler
from tests.laws import documents, texts

from privet import ClientError, Problem

STRANGE = st.sampled_from(
    [f"{BASE}/new-order", "http://elsewhere.internal/", "//x", "", "valid", "invalid", "processing", "ready", "pending"]
)
MEMBERS = documents | texts | STRANGE


def replaced(document: Any, where: list[int], value: Any) -> Any:
    """The document with a value in place of another, which is found by going down by these numbers."""
    if not where or not document or not isinstance(document, dict | list):
        return value
    first, *rest = where
    if isinstance(document, dict):
        name = sorted(document)[first % len(document)]
        return {**document, name: replaced(document[name], rest, value)}
    index = first % len(document)
    return [*document[:index], replaced(document[index], rest, value), *document[index + 1 :]]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 16), st.lists(st.integers(0, 9), min_size=1, max_size=4), MEMBERS, st.booleans())
def test_any_member_of_any_answer_may_be_anything(step: int, where: list[int], value: Any, ever_after: bool) -> None:
    count = -1

    def change(request: httpx.Request, answer: Answer) -> Answer:
        nonlocal count
        count += 1
        if not (count == step or (ever_after and count > step)) or not answer[2].startswith(b"{"):
            return answer
        body = json.dumps(replaced(json.loads(answer[2]), where, value)).encode()
        return answer[0], answer[1], body

    async def story() -> None:
        async with stage(ask_challenges=True) as scene, scene.client(challenge_handler=Handler()) as client:
            scene.way.changes += [rewritten("/directory", renewalInfo=f"{BASE}/renewal-info"), change]
            try:
                bundle = await client.issue(["a.internal", "b.internal"])
                await client.renewal_info(bundle)
                await client.renew(bundle)
                await client.change_account_key()
                await client.revoke(bundle)
            except (Problem, ClientError) as error:
                said.append(str(error))

    said: list[str] = []
    asyncio.run(story())
    assert all(said)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 14), st.binary(max_size=100), st.sampled_from([200, 201, 204, 301, 400, 403, 429, 500, 503]))
def test_any_answer_may_be_any_bytes(step: int, body: bytes, status: int) -> None:
    count = -1

    def change(request: httpx.Request, answer: Answer) -> Answer:
        nonlocal count
        count += 1
        return (status, answer[1], body) if count == step else answer

    async def story() -> None:
        async with stage(ask_challenges=True) as scene, scene.client(challenge_handler=Handler()) as client:
            scene.way.changes.append(change)
            try:
                await client.issue(["a.internal", "b.internal"])
            except (Problem, ClientError) as error:
                said.append(str(error))

    said: list[str] = []
    asyncio.run(story())
    assert all(said)


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["victim.internal", "*.a.internal", "a.internal\n", "", 7, None])
async def test_no_proof_is_given_for_what_was_not_ordered(name: object) -> None:
    handler = Handler()
    async with stage(ask_challenges=True) as scene, scene.client(challenge_handler=handler) as client:
        scene.way.changes.append(rewritten("/authz", identifier={"type": "dns", "value": name}))
        with pytest.raises(ClientError, match="which was not ordered"):
            await client.issue("a.internal")
    assert handler.story == []
