"""Authorizations and challenges (RFC 8555 §7.4.1, §7.5): offered, answered, given up, made ahead."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from tests.server.conftest import Stage
from tests.wire import BASE, Wire, problem_of

from privet import Limits
from privet.acme.challenges import TOKEN

pytestmark = pytest.mark.anyio


class Yes:
    """A validator that is easily convinced."""

    async def validate(self, identifier: str, identifier_type: str, token: str, key_authorization: str) -> bool:
        return True


async def authorization_for(wire: Wire, name: str) -> tuple[str, dict[str, Any]]:
    """The URL and the object of the authorization in a new order for this name."""
    (url,) = (await wire.order(name)).json()["authorizations"]
    return url, (await wire.post(url)).json()


# --- what is offered ---


@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("a.internal", {"http-01", "dns-01", "tls-alpn-01"}),
        ("*.a.internal", {"dns-01"}),
        ("10.0.0.1", {"http-01", "tls-alpn-01"}),
        ("fd00::1", {"http-01", "tls-alpn-01"}),
    ],
)
async def test_challenges_are_offered_as_the_identifier_permits(stage: Stage, name: str, types: set[str]) -> None:
    """RFC 8738 §7: no dns-01 for addresses; RFC 8555 §8.3, RFC 8737 §3: wildcards by dns-01 alone."""
    async with stage() as scene:
        wire = await scene.account()
        url, authorization = await authorization_for(wire, name)
        assert {challenge["type"] for challenge in authorization["challenges"]} == types
        for challenge in authorization["challenges"]:
            assert challenge.keys() == {"type", "url", "status", "token"}
            assert challenge["status"] == "pending"
            assert challenge["url"].startswith(f"{BASE}/chall/")
        assert authorization["status"] == "pending"
        assert authorization["expires"] == (scene.clock() + timedelta(days=1)).isoformat().replace("+00:00", "Z")
        assert url.startswith(f"{BASE}/authz/")


async def test_a_wildcard_is_proved_by_its_base(stage: Stage) -> None:
    """RFC 8555 §7.1.4: the base name, and `wildcard` true; for all others the member is absent."""
    async with stage() as scene:
        wire = await scene.account()
        _, wild = await authorization_for(wire, "*.a.internal")
        assert (wild["identifier"], wild["wildcard"]) == ({"type": "dns", "value": "a.internal"}, True)
        _, tame = await authorization_for(wire, "a.internal")
        assert "wildcard" not in tame


async def test_every_challenge_has_a_token_of_its_own(stage: Stage) -> None:
    """RFC 8555 §8.1: at least 128 bits, and nobody learns one from another."""
    async with stage() as scene:
        wire = await scene.account()
        tokens = []
        for _ in range(10):
            _, authorization = await authorization_for(wire, "a.internal")
            tokens += [challenge["token"] for challenge in authorization["challenges"]]
        assert len(set(tokens)) == 30
        assert all(TOKEN.fullmatch(token) for token in tokens)


async def test_only_what_somebody_can_validate_is_offered(stage: Stage) -> None:
    async with stage(challenge_validator={"http-01": Yes()}) as scene:
        wire = await scene.account()
        _, authorization = await authorization_for(wire, "a.internal")
        assert [challenge["type"] for challenge in authorization["challenges"]] == ["http-01"]
        refused = await wire.order("*.a.internal", "b.internal", "*.b.internal")
        assert problem_of(refused) == (403, "rejectedIdentifier")
        rejected = [each["identifier"]["value"] for each in refused.json()["subproblems"]]
        assert rejected == ["*.a.internal", "*.b.internal"]
        assert problem_of(await wire.order("*.a.internal")) == (403, "rejectedIdentifier")


# --- answering ---


async def test_looking_at_a_challenge_does_not_answer_it(stage: Stage) -> None:
    """RFC 8555 §7.5.1: `{}` says that the client is ready; a POST-as-GET says nothing."""
    async with stage(challenge_validator=Yes()) as scene:
        wire = await scene.account()
        url, authorization = await authorization_for(wire, "a.internal")
        challenge = authorization["challenges"][0]
        assert (await wire.post(challenge["url"])).json() == challenge
        assert (await wire.post(url)).json()["status"] == "pending"
        answered = await wire.post(challenge["url"], {"keyAuthorization": "of old drafts", "status": "invalid"})
        assert answered.status_code == 200
        assert answered.json() == challenge | {
            "status": "valid",
            "validated": scene.clock().isoformat().replace("+00:00", "Z"),
        }


async def test_a_valid_authorization_shows_how_it_was_proved(stage: Stage) -> None:
    """RFC 8555 §7.1.4: "For valid authorizations, the challenge that was validated"."""
    async with stage(challenge_validator=Yes()) as scene:
        wire = await scene.account()
        url, authorization = await authorization_for(wire, "a.internal")
        answered = (await wire.post(authorization["challenges"][1]["url"], {})).json()
        proved = (await wire.post(url)).json()
        assert (proved["status"], proved["challenges"]) == ("valid", [answered])


async def test_a_challenge_that_is_valid_can_be_answered_again(stage: Stage) -> None:
    """It gets the challenge, not an error: some clients do that; so does one whose sibling was met."""
    async with stage(challenge_validator=Yes()) as scene:
        wire = await scene.account()
        _, authorization = await authorization_for(wire, "a.internal")
        first, second, _ = authorization["challenges"]
        answered = await wire.post(first["url"], {})
        again = await wire.post(first["url"], {})
        assert (again.status_code, again.json()) == (200, answered.json())
        sibling = await wire.post(second["url"], {})
        assert (sibling.status_code, sibling.json()["status"]) == (200, "pending")


async def test_there_are_no_challenges_of_other_types(stage: Stage) -> None:
    async with stage() as scene:
        wire = await scene.account()
        _, authorization = await authorization_for(wire, "*.a.internal")
        url = authorization["challenges"][0]["url"]
        for other in ("http-01", "dns-02", ""):
            assert problem_of(await wire.post(url.replace("dns-01", other), {})) == (404, "malformed")
            assert problem_of(await wire.post(url.replace("dns-01", other))) == (404, "malformed")


# --- given up ---


@pytest.mark.parametrize("arguments", [{}, {"challenge_validator": Yes()}], ids=["by a person", "by a validator"])
async def test_the_challenge_of_a_deactivated_authorization_is_answered_no_more(
    stage: Stage, arguments: dict[str, Any]
) -> None:
    """Lesson 29: it hung the server for good."""
    async with stage(**arguments) as scene:
        wire = await scene.account()
        url, authorization = await authorization_for(wire, "a.internal")
        gone = await wire.post(url, {"status": "deactivated"})
        assert (gone.status_code, gone.json()["status"]) == (200, "deactivated")
        for challenge in authorization["challenges"]:
            assert problem_of(await wire.post(challenge["url"], {})) == (400, "malformed")
            assert (await wire.post(challenge["url"])).json()["status"] == "pending"
        # Giving it up again changes nothing; taking it back is not possible.
        assert (await wire.post(url, {"status": "deactivated"})).json() == gone.json()
        assert problem_of(await wire.post(url, {"status": "pending"})) == (400, "malformed")
        assert (await wire.post(url)).json() == gone.json()


async def test_a_valid_authorization_can_be_given_up(stage: Stage) -> None:
    """RFC 8555 §7.5.2: "MUST NOT treat deactivated authorization objects as sufficient"."""
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        order = (await wire.order("a.internal")).json()
        assert (await wire.post(order["authorizations"][0], {"status": "deactivated"})).json()[
            "status"
        ] == "deactivated"
        assert problem_of(await wire.finalize(order)) == (403, "orderNotReady")


@pytest.mark.parametrize("status", ["valid", "invalid", "expired", "revoked", "nonsense", "", 7, ["deactivated"]])
async def test_no_other_status_can_be_asked_for(stage: Stage, status: object) -> None:
    async with stage() as scene:
        wire = await scene.account()
        url, before = await authorization_for(wire, "a.internal")
        assert problem_of(await wire.post(url, {"status": status})) == (400, "malformed")
        assert (await wire.post(url, {})).json() == before


async def test_an_expired_authorization_is_answered_no_more(stage: Stage) -> None:
    async with stage(challenge_validator=Yes()) as scene:
        wire = await scene.account()
        pending, authorization = await authorization_for(wire, "a.internal")
        valid, proved = await authorization_for(wire, "b.internal")
        await wire.post(proved["challenges"][0]["url"], {})
        scene.clock.forward(days=1)
        wire.nonce = None
        challenge = authorization["challenges"][0]["url"]
        assert problem_of(await wire.post(challenge, {})) == (400, "malformed")
        assert (await wire.post(pending)).json()["status"] == "invalid"
        assert (await wire.post(valid)).json()["status"] == "expired"
        assert problem_of(await wire.post(valid, {"status": "deactivated"})) == (400, "malformed")


# --- ahead of an order (newAuthz) ---


async def test_an_identifier_is_authorized_ahead_of_its_orders(stage: Stage) -> None:
    """RFC 8555 §7.4.1: what was proved once serves the orders that come later."""
    async with stage(challenge_validator=Yes()) as scene:
        wire = await scene.account()
        made = await wire.post("new-authz", {"identifier": {"type": "dns", "value": "a.internal"}})
        assert (made.status_code, made.json()["status"]) == (201, "pending")
        url = made.headers["location"]
        assert made.json() == (await wire.post(url)).json()
        await wire.post(made.json()["challenges"][0]["url"], {})
        for _ in range(2):
            order = (await wire.order("a.internal")).json()
            assert (order["status"], order["authorizations"]) == ("ready", [url])
            assert (await wire.finalize(order)).json()["status"] == "valid"
        mixed = (await wire.order("a.internal", "b.internal", "*.a.internal")).json()
        assert mixed["status"] == "pending"
        assert mixed["authorizations"][0] == url
        assert len(set(mixed["authorizations"])) == 3
        # To others it is nothing.
        other = await scene.account()
        assert (await other.order("a.internal")).json()["status"] == "pending"


async def test_one_that_is_still_pending_is_taken_up_as_well(stage: Stage) -> None:
    async with stage(challenge_validator=Yes()) as scene:
        wire = await scene.account()
        made = await wire.post("new-authz", {"identifier": {"type": "ip", "value": "10.0.0.1"}})
        ordered = await wire.order("10.0.0.1")
        assert ordered.json()["status"] == "pending"
        assert ordered.json()["authorizations"] == [made.headers["location"]]
        await wire.post(made.json()["challenges"][0]["url"], {})
        assert (await wire.post(ordered.headers["location"])).json()["status"] == "ready"


async def test_what_is_proved_goes_before_what_is_not(stage: Stage) -> None:
    async with stage(challenge_validator=Yes()) as scene:
        wire = await scene.account()
        identifier = {"identifier": {"type": "dns", "value": "a.internal"}}
        made = []
        for _ in range(3):
            made.append(await wire.post("new-authz", identifier))
            scene.clock.forward(seconds=1)
        await wire.post(made[1].json()["challenges"][0]["url"], {})
        order = (await wire.order("a.internal")).json()
        assert (order["status"], order["authorizations"]) == ("ready", [made[1].headers["location"]])


async def test_what_is_given_up_or_expired_is_taken_up_by_nobody(stage: Stage) -> None:
    async with stage(challenge_validator=Yes()) as scene:
        wire = await scene.account()
        for name in ("a.internal", "b.internal"):
            made = await wire.post("new-authz", {"identifier": {"type": "dns", "value": name}})
            await wire.post(made.json()["challenges"][0]["url"], {})
            assert (await wire.order(name)).json()["status"] == "ready"
            if name == "a.internal":
                await wire.post(made.headers["location"], {"status": "deactivated"})
            else:
                scene.clock.forward(days=1)
                wire.nonce = None
            assert (await wire.order(name)).json()["status"] == "pending"


async def test_an_order_lives_no_longer_than_what_it_relies_on(stage: Stage) -> None:
    async with stage(challenge_validator=Yes()) as scene:
        wire = await scene.account()
        made = await wire.post("new-authz", {"identifier": {"type": "dns", "value": "a.internal"}})
        await wire.post(made.json()["challenges"][0]["url"], {})
        scene.clock.forward(minutes=50)
        ordered = await wire.order("a.internal", "b.internal")
        assert ordered.json()["expires"] == made.json()["expires"]


async def test_authorizations_of_an_order_serve_that_order_alone(stage: Stage) -> None:
    async with stage(challenge_validator=Yes()) as scene:
        wire = await scene.account()
        url, authorization = await authorization_for(wire, "a.internal")
        await wire.post(authorization["challenges"][0]["url"], {})
        again = (await wire.order("a.internal")).json()
        assert again["status"] == "pending"
        assert again["authorizations"] != [url]


@pytest.mark.parametrize(
    ("payload", "status", "type"),
    [
        ({}, 400, "malformed"),
        ({"identifier": None}, 400, "malformed"),
        ({"identifier": []}, 400, "malformed"),
        ({"identifier": {"type": "dns"}}, 400, "malformed"),
        ({"identifier": {"type": "dns", "value": "-.internal"}}, 400, "malformed"),
        ({"identifier": {"type": "dns", "value": "10.0.0.1"}}, 400, "malformed"),
        ({"identifier": {"type": "dns", "value": "*.a.internal"}}, 400, "malformed"),
        ({"identifier": {"type": "email", "value": "a@example.org"}}, 400, "unsupportedIdentifier"),
    ],
)
async def test_what_cannot_be_authorized_ahead(stage: Stage, payload: object, status: int, type: str) -> None:
    """RFC 8555 §7.4.1: not a wildcard, because the identifier is that of the authorization."""
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        assert problem_of(await wire.post("new-authz", payload)) == (status, type)
        assert scene.store.find("authorization") == []


@pytest.mark.parametrize("arguments", [{"auto_approve": True}, {}], ids=["trusted", "pending"])
async def test_so_many_may_be_made_ahead_and_no_more(stage: Stage, arguments: dict[str, Any]) -> None:
    """Also where they are born valid: a looping client cannot fill the disk."""
    async with stage(limits=Limits(authorizations_ahead=3), **arguments) as scene:
        wire = await scene.account()

        async def make(number: int) -> Any:
            return await wire.post("new-authz", {"identifier": {"type": "dns", "value": f"a{number}.internal"}})

        made = [await make(number) for number in range(3)]
        assert [each.status_code for each in made] == [201] * 3
        refused = await make(3)
        assert problem_of(refused) == (429, "rateLimited")
        assert int(refused.headers["retry-after"]) > 0
        await wire.post(made[0].headers["location"], {"status": "deactivated"})
        scene.clock.forward(seconds=1)  # for which nobody counts again
        assert (await make(3)).status_code == 201
        assert problem_of(await make(4)) == (429, "rateLimited")
        scene.clock.forward(days=1)
        wire.nonce = None
        assert (await make(4)).status_code == 201


async def test_an_authorization_may_be_born_valid(stage: Stage) -> None:
    """RFC 8555 §7.1.3 allows it where the server knows better; each challenge then says when, as it has to."""
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        _, authorization = await authorization_for(wire, "a.internal")
        assert authorization["status"] == "valid"
        now = scene.clock().isoformat().replace("+00:00", "Z")
        assert {(each["status"], each["validated"]) for each in authorization["challenges"]} == {("valid", now)}


async def test_what_has_expired_hides_nothing_that_was_made_ahead(stage: Stage) -> None:
    """Also before it is pruned."""
    async with stage(limits=Limits(authorizations_ahead=5, nonce_lifetime=timedelta(days=9))) as scene:
        wire = await scene.account()

        async def make(name: str) -> httpx.Response:
            return await wire.post("new-authz", {"identifier": {"type": "dns", "value": name}})

        for number in range(5):
            assert (await make(f"old-{number}.internal")).status_code == 201
        scene.clock.forward(days=1)
        for number in range(5):
            assert (await make(f"new-{number}.internal")).status_code == 201
        scene.clock.forward(seconds=1)
        assert problem_of(await make("new-5.internal")) == (429, "rateLimited")
        newest = max(await scene.responder.pending(), key=lambda each: each.created)
        await scene.responder.approve(newest.id)
        assert (await wire.order(str(newest.identifier))).json()["status"] == "ready"
