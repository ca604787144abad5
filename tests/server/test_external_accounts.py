"""External account keys of the store: bound, counted, restricted, taken back, and kept from who steals the store."""

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.server.conftest import Scene, Stage
from tests.server.test_policy import Convinced, Plain
from tests.server.test_records import TIMES
from tests.wire import Wire, bind, problem_of

from privet import ACMEResponder, CertificateAuthority, Decision, KeyType, MemoryStore, Ruling, SQLiteStore, Store
from privet.acme.encoding import to_base64url
from privet.ca import keys
from privet.server import external_accounts
from privet.server.external_accounts import ExternalAccountKey
from privet.server.records import Authorization
from privet.server.rules import Rules

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "privet.db") as store:
        yield store


def make(scene: Scene, name: str = "team-a", **options: Any) -> tuple[ExternalAccountKey, bytes]:
    return external_accounts.create(scene.store, scene.ca, name, scene.clock(), **options)


async def opened(scene: Scene, key: ExternalAccountKey, secret: bytes) -> tuple[Wire, httpx.Response]:
    """Somebody who tries to open an account with a key."""
    wire = scene.stranger()
    binding = bind(key.id, secret, wire.url("new-account"), wire.key)
    return wire, await wire.register(externalAccountBinding=binding)


async def member(scene: Scene, **options: Any) -> tuple[Wire, ExternalAccountKey]:
    """Somebody with an account that is bound to a key."""
    key, secret = make(scene, **options)
    wire, response = await opened(scene, key, secret)
    assert response.status_code == 201, response.text
    return wire, key


def current(scene: Scene, key: ExternalAccountKey) -> ExternalAccountKey:
    (found,) = [each for each in external_accounts.find_all(scene.store, key.authority) if each.id == key.id]
    return found


KEYS = st.builds(
    ExternalAccountKey,
    id=st.text(min_size=1),
    name=st.text(),
    authority=st.text(),
    sealed=st.binary(),
    created=TIMES,
    allow=st.lists(st.text(), max_size=2).map(tuple),
    trust=st.lists(st.text(), max_size=2).map(tuple),
    wildcard=st.booleans(),
    ends=st.none() | TIMES,
    uses=st.none() | st.integers(1, 99),
    used=st.integers(0, 99),
    revoked=st.none() | TIMES,
    version=st.integers(0, 9),
)


@given(KEYS)
def test_a_key_is_read_back_as_it_was_written(made: ExternalAccountKey) -> None:
    assert ExternalAccountKey.from_record(made.to_record()) == made


async def test_an_account_is_opened_with_a_key_of_the_store(stage: Stage) -> None:
    policy = Plain()
    async with stage(policy=policy, external_account_required=True) as scene:
        assert (await scene.http.get("/directory")).json()["meta"] == {"externalAccountRequired": True}
        assert problem_of(await scene.stranger().post("new-account", {})) == (403, "externalAccountRequired")
        wire, key = await member(scene)
        assert wire.kid
        assert "externalAccountBinding" in (await wire.post(wire.kid)).json()
        await wire.order("a.internal")
        told = [(each.external_account, each.external_account_name) for each, _ in policy.asked]
        assert told == [(key.id, "team-a")] * 2


async def test_keys_of_the_store_and_of_the_constructor_live_side_by_side(stage: Stage) -> None:
    async with stage(auto_approve=True, external_account_keys={"kid-1": b"secret"}) as scene:
        wire, _ = await member(scene, allow=["a.internal"])
        other = scene.stranger()
        binding = bind("kid-1", b"secret", other.url("new-account"), other.key)
        assert (await other.register(externalAccountBinding=binding)).status_code == 201
        assert (await other.order("b.internal")).status_code == 201
        assert problem_of(await wire.order("b.internal")) == (403, "rejectedIdentifier")


# --- what a key does not do ---


async def test_to_a_stranger_all_keys_are_alike(stage: Stage) -> None:
    """Unknown, revoked, expired, used up, or good: who has no secret learns nothing. Who has it may know."""
    async with stage(auto_approve=True) as scene:
        made = {
            "valid": make(scene),
            "revoked": make(scene),
            "expired": make(scene, ends=scene.clock() + timedelta(minutes=1)),
            "used up": make(scene, uses=1),
        }
        await opened(scene, *made["used up"])
        external_accounts.revoke(scene.store, made["revoked"][0], scene.clock())
        scene.clock.forward(minutes=1)
        unknown = made["valid"][0]._replace(id="0" * 40)
        answers = [(await opened(scene, key, b"guess"))[1] for key in (unknown, *(key for key, _ in made.values()))]
        assert {problem_of(answer) for answer in answers} == {(403, "unauthorized")}
        assert len({answer.text for answer in answers}) == 1
        for status, (key, secret) in made.items():
            assert current(scene, key).status(scene.clock()) == status
            _, answer = await opened(scene, key, secret)
            if status == "valid":
                assert answer.status_code == 201
            else:
                assert problem_of(answer) == (403, "unauthorized")
                assert answer.json()["detail"] == f"the external account key is {status}; ask for another"


@pytest.mark.parametrize("kid", ["", ".", "..", "../ca", "x" * 40, "0" * 41, "A" * 40, "\ud800", "a/b", "root"])
async def test_ids_that_are_none_are_unknown(stage: Stage, kid: str) -> None:
    async with stage(auto_approve=True) as scene:
        key, secret = make(scene)
        _, answer = await opened(scene, key._replace(id=kid), secret)
        assert problem_of(answer) == (403, "unauthorized")


async def test_a_key_is_for_one_authority(stage: Stage) -> None:
    """Authorities share a store, and not their keys: not even one of the same key pair under another name."""
    async with stage(auto_approve=True) as scene:
        record = scene.store.get("ca", "root")
        assert record
        scene.store.commit(record._replace(id="other", version=0))
        other = CertificateAuthority(scene.store, "other", now=scene.clock)
        other.load()
        key, secret = external_accounts.create(scene.store, other, "team-a", scene.clock())
        make(scene)
        _, answer = await opened(scene, key, secret)
        assert problem_of(answer) == (403, "unauthorized")
        assert [each.authority for each in external_accounts.find_all(scene.store, "root")] == ["root"]
        # And whoever can write to the store cannot pass one key's secret off as another's.
        forged = key._replace(authority="root", version=key.version)
        scene.store.commit(forged.to_record())
        _, answer = await opened(scene, key, secret)
        assert problem_of(answer) == (403, "unauthorized")


async def test_with_another_authority_key_old_secrets_are_of_no_use(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    async with stage(auto_approve=True) as scene:
        key, secret = make(scene)
        new = CertificateAuthority(MemoryStore(), now=scene.clock)
        new.init()
        old, record = scene.store.get("ca", "root"), new.store.get("ca", "root")
        assert old
        assert record
        scene.store.commit(record._replace(version=old.version))
        scene.ca.load()
        _, answer = await opened(scene, key, secret)
        assert problem_of(answer) == (403, "unauthorized")
        assert "was made under another key of the authority" in caplog.text
        assert secret.hex() not in caplog.text


# --- exactly once ---


@pytest.mark.parametrize("uses", [1, 5])
async def test_twenty_at_once_use_a_key_as_often_as_it_may_be_used(stage: Stage, store: Store, uses: int) -> None:
    async with stage(store=store, auto_approve=True) as scene:
        key, secret = make(scene, uses=uses)
        replica = ACMEResponder(scene.ca, auto_approve=True, now=scene.clock)
        async with scene.at(replica) as other:
            wires = [Wire(scene.http if number % 2 else other, scene.base) for number in range(20)]

            async def open_one(wire: Wire) -> httpx.Response:
                binding = bind(key.id, secret, wire.url("new-account"), wire.key)
                return await wire.register(externalAccountBinding=binding)

            answers = await asyncio.gather(*map(open_one, wires))
        made = [answer for answer in answers if answer.status_code == 201]
        assert len(made) == len(scene.store.find("account")) == uses
        refused = {problem_of(answer) for answer in answers if answer.status_code != 201}
        assert refused == {(403, "unauthorized")}
        assert (current(scene, key).used, current(scene, key).status(scene.clock())) == (uses, "used up")


async def test_twenty_at_once_get_in_nobodys_way(stage: Stage, store: Store) -> None:
    async with stage(store=store, auto_approve=True) as scene:
        for uses in (None, 20):
            key, secret = make(scene, uses=uses)
            answers = await asyncio.gather(*[opened(scene, key, secret) for _ in range(20)])
            assert {answer.status_code for _, answer in answers} == {201}


async def test_who_comes_again_uses_nothing_up(stage: Stage) -> None:
    async with stage(auto_approve=True) as scene:
        key, secret = make(scene, uses=2)
        wire, _ = await opened(scene, key, secret)
        binding = bind(key.id, secret, wire.url("new-account"), wire.key)
        assert (await wire.register(externalAccountBinding=binding)).status_code == 200
        assert current(scene, key).used == 1


async def test_an_account_that_is_refused_uses_nothing_up(stage: Stage) -> None:
    no = RuntimeError("no")
    async with stage(policy=Plain(account=no)) as scene:
        key, secret = make(scene, uses=1)
        _, answer = await opened(scene, key, secret)
        assert problem_of(answer) == (500, "serverInternal")
        assert current(scene, key).used == 0


# --- names ---


async def test_a_key_says_which_names_its_accounts_may_order(stage: Stage) -> None:
    async with stage(auto_approve=True) as scene:
        wire, _ = await member(scene, allow=["*.team-a.internal", "10.1.0.0/16"])
        assert (await wire.order("web.team-a.internal", "10.1.2.3")).json()["status"] == "ready"
        refused = await wire.order(
            "web.team-a.internal", "web.team-b.internal", "a.b.team-a.internal", "10.2.0.1", "*.team-a.internal"
        )
        assert problem_of(refused) == (403, "rejectedIdentifier")
        assert {each["identifier"]["value"]: each["detail"] for each in refused.json()["subproblems"]} == {
            "web.team-b.internal": "web.team-b.internal is not among the names of the external account key 'team-a'",
            "a.b.team-a.internal": "a.b.team-a.internal is not among the names of the external account key 'team-a'",
            "10.2.0.1": "10.2.0.1 is not among the names of the external account key 'team-a'",
            "*.team-a.internal": "*.team-a.internal is a wildcard, and the external account key 'team-a' allows none",
        }
        ahead = {"identifier": {"type": "dns", "value": "web.team-b.internal"}}
        assert problem_of(await wire.post("new-authz", ahead)) == (403, "rejectedIdentifier")


async def test_a_key_may_allow_wildcards(stage: Stage) -> None:
    async with stage(auto_approve=True) as scene:
        wire, _ = await member(scene, allow=["*.team-a.internal"], wildcard=True)
        assert (await wire.order("*.team-a.internal")).json()["status"] == "ready"
        assert problem_of(await wire.order("*.x.team-a.internal")) == (403, "rejectedIdentifier")


async def test_a_key_without_names_leaves_it_to_the_policy(stage: Stage) -> None:
    policy = Rules.from_toml('[[rule]]\nname = "a"\ntrust = ["a.internal"]\nexternal-key = ["team-a"]\n')
    async with stage(policy=policy) as scene:
        wire, _ = await member(scene)
        assert (await wire.order("a.internal")).json()["status"] == "ready"
        assert problem_of(await wire.order("b.internal")) == (403, "rejectedIdentifier")
        assert problem_of(await scene.stranger().register()) == (403, "externalAccountRequired")


async def test_what_the_key_and_the_policy_refuse_is_named_together(stage: Stage) -> None:
    policy = Rules.from_toml('[[rule]]\nname = "a"\ntrust = ["a.internal", "b.internal"]\n')
    async with stage(policy=policy) as scene:
        wire, _ = await member(scene, allow=["a.internal", "c.internal"])
        refused = await wire.order("a.internal", "b.internal", "c.internal")
        assert {each["identifier"]["value"] for each in refused.json()["subproblems"]} == {"b.internal", "c.internal"}
    async with stage(policy=Plain(order=RuntimeError("no"))) as scene:
        wire, _ = await member(scene, allow=["a.internal"])
        assert (await wire.order("b.internal")).status_code >= 400


async def test_who_was_not_allowed_what_is_a_line_in_the_log(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "privet")
    async with stage(policy=Plain(order=Decision.PROVE)) as scene:
        wire, key = await member(scene, allow=["*.team-a.internal"])
        assert wire.kid
        account = wire.kid.rpartition("/")[2]
        assert f"account {account} opened from '127.0.0.1' by external account key 'team-a' ({key.id!r})" in caplog.text
        assert problem_of(await wire.order("web.team-b.internal", "db.team-b.internal")) == (403, "rejectedIdentifier")
    (line,) = [each for each in caplog.messages if each.startswith("not allowed ")]
    assert json.loads(line.removeprefix("not allowed ")) == {
        "account": account,
        "client": "127.0.0.1",
        "externalAccount": "team-a",
        "clientCertificate": None,
        "reasons": [
            f"{name} is not among the names of the external account key 'team-a'"
            for name in ("web.team-b.internal", "db.team-b.internal")
        ],
    }
    assert "refused POST '/new-order' from '127.0.0.1': rejectedIdentifier: " in caplog.text


async def test_names_a_key_trusts_are_authorized_from_birth_and_on_record(stage: Stage) -> None:
    async with stage(challenge_validator=Convinced()) as scene:
        wire, _ = await member(scene, allow=["*.team-a.internal"], trust=["x.team-a.internal"])
        ahead = await wire.post("new-authz", {"identifier": {"type": "dns", "value": "x.team-a.internal"}})
        assert (ahead.status_code, ahead.json()["status"]) == (201, "valid")
        ordered = (await wire.order("x.team-a.internal", "web.team-a.internal")).json()
        looks = [(await wire.post(url)).json()["status"] for url in ordered["authorizations"]]
        assert looks == ["valid", "pending"]
        kept = [Authorization.from_record(record) for record in scene.store.find("authorization")]
        assert {str(each.identifier): each.ruling for each in kept} == {
            "x.team-a.internal": Ruling(Decision.TRUST, "external account key team-a"),
            "web.team-a.internal": Ruling(Decision.PROVE),
        }
        alone = (await wire.order("x.team-a.internal")).json()
        assert (await wire.finalize(alone)).json()["status"] == "valid"
        # Who has no such key has to prove it.
        stranger = await scene.account()
        assert (await stranger.order("x.team-a.internal")).json()["status"] == "pending"


@pytest.mark.parametrize("policy", [Decision.ASK, Decision.PROVE, Decision.TRUST])
async def test_trust_spares_a_proof_and_never_a_person(stage: Stage, policy: Decision) -> None:
    async with stage(policy=Plain(order=policy), challenge_validator=Convinced()) as scene:
        wire, _ = await member(scene, trust=["a.internal"])
        status = "pending" if policy is Decision.ASK else "ready"
        assert (await wire.order("a.internal")).json()["status"] == status


# --- taken back ---


async def test_accounts_of_a_revoked_key_get_no_more_certificates(stage: Stage) -> None:
    async with stage(auto_approve=True) as scene:
        wire, key = await member(scene)
        begun = (await wire.order("a.internal")).json()
        chain = await wire.issue("a.internal")
        external_accounts.revoke(scene.store, key, scene.clock())
        assert problem_of(await wire.order("b.internal")) == (403, "unauthorized")
        assert problem_of(await wire.finalize(begun)) == (403, "unauthorized")
        ahead = {"identifier": {"type": "dns", "value": "b.internal"}}
        assert problem_of(await wire.post("new-authz", ahead)) == (403, "unauthorized")
        # What it has it may look at, and revoke.
        assert wire.kid
        assert (await wire.post(wire.kid)).status_code == 200
        assert chain.startswith(b"-----BEGIN")
        # Other keys of the same name are other keys.
        other, _ = await member(scene)
        assert (await other.order("b.internal")).status_code == 201


async def test_expiry_and_uses_concern_no_account_that_is_there(stage: Stage) -> None:
    async with stage(auto_approve=True) as scene:
        key, secret = make(scene, uses=1, ends=scene.clock() + timedelta(hours=1))
        wire, _ = await opened(scene, key, secret)
        scene.clock.forward(hours=2)
        wire.nonce = None
        assert (await wire.order("a.internal")).status_code == 201


async def test_an_account_whose_key_is_gone_gets_nothing(stage: Stage) -> None:
    """It was made with the constructor's keys, and these are there no more."""
    async with stage(auto_approve=True, external_account_keys={"kid-1": b"secret"}) as scene:
        wire = scene.stranger()
        binding = bind("kid-1", b"secret", wire.url("new-account"), wire.key)
        await wire.register(externalAccountBinding=binding)
        async with scene.at(ACMEResponder(scene.ca, auto_approve=True, now=scene.clock)) as http:
            elsewhere = Wire(http, scene.base, wire.key, wire.kid)
            assert problem_of(await elsewhere.order("a.internal")) == (403, "unauthorized")


async def test_a_key_that_is_revoked_while_an_order_is_made_makes_none(stage: Stage) -> None:
    """The revocation comes after the key was looked at, and before the order is written."""

    class Revoking(Plain):
        async def allow_order(self, *asked: Any) -> Decision:  # type: ignore[override]
            external_accounts.revoke(scene.store, current(scene, key), scene.clock())
            return Decision.TRUST

    async with stage(policy=Revoking()) as scene:
        wire, key = await member(scene)
        assert problem_of(await wire.order("a.internal")) == (403, "unauthorized")
        assert scene.store.find("order") == []


async def test_a_key_that_is_used_while_it_is_revoked_is_revoked_all_the_same(stage: Stage) -> None:
    async with stage(auto_approve=True) as scene:
        key, secret = make(scene, uses=3)
        await opened(scene, key, secret)
        revoked = external_accounts.revoke(scene.store, key, scene.clock())
        assert (revoked.used, revoked.status(scene.clock())) == (1, "revoked")
        assert current(scene, key) == revoked


# --- a stolen store ---


@pytest.mark.parametrize("key_type", [KeyType.P256, KeyType.RSA2048, KeyType.ED25519])
@pytest.mark.parametrize("password", [None, b"correct horse"])
async def test_the_secret_is_nowhere_in_the_store(key_type: KeyType, password: bytes | None) -> None:
    store = MemoryStore()
    ca = CertificateAuthority(store, key_password=password)
    ca.init(key_type=key_type)
    key, secret = external_accounts.create(store, ca, "team-a", ca.not_after - timedelta(days=1))
    record = store.get("external-account-key", key.id)
    assert record
    for form in (secret, secret.hex().encode(), to_base64url(secret).encode()):
        assert form not in record.body
        assert form.decode("latin-1") not in repr(key) + repr(record)
    # The same authority opens it after a restart.
    again = CertificateAuthority(store, key_password=password)
    again.load()
    assert external_accounts._open(again, key) == secret
    assert again.secret(b"one purpose") != again.secret(b"another")


def test_what_follows_from_a_key_is_always_the_same() -> None:
    for key_type in (KeyType.P256, KeyType.P384, KeyType.ED25519):
        key = keys.generate(key_type)
        read = keys.from_pem(keys.to_pem(key, b"password"), b"password")
        assert keys.derive(key, b"x") == keys.derive(read, b"x") != keys.derive(keys.generate(key_type), b"x")


async def test_where_a_key_is_needed_by_now_accounts_without_one_get_nothing(stage: Stage) -> None:
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        ordered = (await wire.order("a.internal")).json()
        strict = ACMEResponder(
            scene.ca, auto_approve=True, external_account_keys={}, external_account_required=True, now=scene.clock
        )
        async with scene.at(strict) as wire.http:
            for answer in (
                await wire.order("a.internal"),
                await wire.post("new-authz", {"identifier": {"type": "dns", "value": "a.internal"}}),
                await wire.finalize(ordered),
            ):
                assert problem_of(answer) == (403, "externalAccountRequired")
            # What it has, it may give up.
            assert wire.kid
            assert (await wire.post(wire.kid, {"status": "deactivated"})).status_code == 200


async def test_a_key_that_is_taken_out_of_the_constructors_is_revoked(stage: Stage) -> None:
    given = {"team": b"k" * 32}
    async with stage(auto_approve=True, external_account_keys=given) as scene:
        wire = scene.stranger()
        await wire.register(externalAccountBinding=bind("team", b"k" * 32, wire.url("new-account"), wire.key))
        assert await wire.issue("a.internal")
        del given["team"]
        assert problem_of(await wire.order("a.internal")) == (403, "unauthorized")
