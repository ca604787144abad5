"""`privet eab`: keys made, listed and revoked, beside a running server."""

import asyncio
import re
import shlex
import sqlite3
import subprocess
from collections.abc import Awaitable, Callable

import httpx
import pytest
from tests.cli.command import Person, Serving, environment
from tests.wire import Wire, bind, problem_of

from privet.acme.encoding import from_base64url


def with_stranger(serving: Serving, story: Callable[[Wire], Awaitable[None]]) -> None:
    async def run() -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            await story(Wire(http, serving.base))

    asyncio.run(run())


async def opens(wire: Wire, key: dict[str, str]) -> httpx.Response:
    secret = from_base64url(key["hmac_key"], "hmac_key")
    return await wire.register(externalAccountBinding=bind(key["id"], secret, wire.url("new-account"), wire.key))


def test_a_key_is_made_used_listed_and_revoked_while_a_server_runs(owner: Person) -> None:
    options = ("--allow", "*.team-a.internal", "--trust", "x.team-a.internal", "--expires", "7d", "--uses", "1")

    async def story(wire: Wire) -> None:
        assert problem_of(await wire.post("new-account", {})) == (403, "externalAccountRequired")
        key = owner.does("eab", "create", "--name", "team-a", *options, "--json").json
        assert (key["status"], key["uses"], key["used"], key["authority"]) == ("valid", 1, 0, "root")
        assert (key["allow"], key["trust"]) == (["*.team-a.internal"], ["x.team-a.internal"])
        assert (await opens(wire, key)).status_code == 201
        assert problem_of(await opens(Wire(wire.http, wire.base), key)) == (403, "unauthorized")

        (order, refused) = [await wire.order(name) for name in ("x.team-a.internal", "x.team-b.internal")]
        assert order.json()["status"] == "ready"
        assert problem_of(refused) == (403, "rejectedIdentifier")
        assert (await wire.finalize(order.json())).json()["status"] == "valid"

        listed = owner.does("eab", "list")
        (found,) = owner.does("eab", "list", "--json").json
        assert "hmac_key" not in found
        assert key["hmac_key"] not in listed.out
        assert (found["status"], found["used"], found["id"]) == ("used up", 1, key["id"])
        assert re.search(
            rf"^{key['id']}  team-a  used up  1 of 1 .*\*\.team-a\.internal, x\.team-a\.internal \(trusted\)$",
            listed.out,
            re.MULTILINE,
        )

        assert owner.does("eab", "revoke", "team-a").out == f"revoked team-a ({key['id']})\n"
        assert problem_of(await wire.order("x.team-a.internal")) == (403, "unauthorized")
        again = owner.tries("eab", "revoke", "team-a", key["id"], "nobody")
        assert again.status == 1
        assert again.sentences == [
            "the external account key team-a is revoked already",
            f"the external account key {key['id']} is revoked already",
            "there is no external account key nobody: `privet eab list` shows all",
        ]

    with owner.serves("--require-eab") as serving:
        assert httpx.get(serving.directory, trust_env=False).json()["meta"] == {"externalAccountRequired": True}
        with_stranger(serving, story)
        assert "hmac" not in serving.program.output.lower()
    shown = owner.does("show", "x.team-a.internal", "--json").json["allowed"]
    assert shown == [{"name": "x.team-a.internal", "decision": "trust", "rule": "external account key team-a"}]


def test_who_waits_for_a_person_is_known_by_the_key(owner: Person) -> None:
    async def story(wire: Wire) -> None:
        assert (await opens(wire, key)).status_code == 201
        await wire.order("web.internal")
        (waiting,) = owner.does("pending", "--json").json
        assert (waiting["external_account"], waiting["contact"]) == ("team-a", [])
        assert owner.does("pending").out.endswith("  web.internal  (key team-a)\n")
        await wire.post(str(wire.kid), {"contact": ["mailto:you@example.com"]})
        assert owner.does("pending").out.endswith("  web.internal  (key team-a, mailto:you@example.com)\n")

    key = owner.does("eab", "create", "--name", "team-a", "--json").json
    with owner.serves("--require-eab", "--ask-person") as serving:
        with_stranger(serving, story)


def test_by_its_name_every_key_of_it_is_revoked_and_by_its_id_one(owner: Person) -> None:
    ids = [owner.does("eab", "create", "--name", name, "--json").json["id"] for name in ("a", "a", "b", "b")]
    assert [each["id"] for each in owner.does("eab", "revoke", "a", ids[2], "--json").json] == ids[:3]
    statuses = [each["status"] for each in owner.does("eab", "list", "--json").json]
    assert statuses == ["revoked", "revoked", "revoked", "valid"]


def test_the_secret_is_printed_once_with_what_to_copy(owner: Person) -> None:
    made = owner.does("eab", "create", "--name", "team-a", "--external-url", "https://ca.internal/acme")
    kid = re.search(r"^key id +([0-9a-v]{24})$", made.out, re.MULTILINE)
    secret = re.search(r"^HMAC key +(\S{43})$", made.out, re.MULTILINE)
    assert kid
    assert secret
    assert (
        f"certbot register --server https://ca.internal/acme/directory --eab-kid {kid[1]} --eab-hmac-key {secret[1]}"
    ) in made.out
    assert f"lego --server https://ca.internal/acme/directory --eab --kid {kid[1]} --hmac {secret[1]}" in made.out
    assert "not shown again" in made.out
    database = sqlite3.connect(owner.folder / "privet.db")
    dump = "\n".join(database.iterdump()) + (owner.folder / "privet.db").read_bytes().decode("latin-1")
    database.close()
    assert kid[1] in dump
    assert secret[1] not in dump


def test_keys_belong_to_an_authority_and_want_its_password(person: Person) -> None:
    (person.folder / "password").write_text("correct horse\n")
    person.does("init", "--name", "mesh", "--key-password-file", "password")
    person.does("init")
    locked = person.tries("eab", "create", "--name", "a", "--authority", "mesh")
    assert locked.status == 1
    assert "give it with --key-password-file" in locked.sentences[0]
    person.does("eab", "create", "--name", "a", "--authority", "mesh", "--key-password-file", "password")
    assert [each["authority"] for each in person.does("eab", "list", "--authority", "mesh", "--json").json] == ["mesh"]
    assert person.does("eab", "list", "--json").json == []
    # To look and to revoke, no key is needed.
    person.does("eab", "revoke", "a", "--authority", "mesh")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--name", "-a"], "--name must not begin with a hyphen, as '-a' does: commands take that for an option"),
        (["--name", " "], "--name has to be a text of at most 100 characters, not ' '"),
        (["--name", "a", "--allow", "a..b"], "--allow has a name that is none: 'a..b' is not a valid DNS name: "),
        (["--name", "a", "--trust", "10.0.0.1/8"], "--trust has a name that is none: '10.0.0.1/8' is not a network "),
        (["--name", "a", "--expires", "soon"], "--expires has to be a duration such as 90m, 24h or 7d, not 'soon'"),
        (["--name", "a", "--uses", "0"], "--uses has to be a number from 1, not 0"),
        (["--name", "a", "--wildcard"], "--wildcard is about --allow and --trust: without them "),
    ],
)
def test_mistakes_are_a_sentence_each(owner: Person, options: list[str], sentence: str) -> None:
    refused = owner.tries("eab", "create", *options)
    (told,) = refused.sentences
    assert told.startswith(sentence)
    assert refused.status == 2
    assert owner.does("eab", "list", "--json").json == []


def test_keys_cannot_reach_a_store_in_memory(person: Person) -> None:
    refused = person.tries("serve", "--require-eab", "--store", "memory:")
    assert refused.sentences == [
        "--require-eab wants keys, which nobody can bring into --store memory: choose sqlite:///PATH"
    ]


def test_a_server_that_wants_keys_says_how_to_make_one(person: Person) -> None:
    with person.serves("--require-eab") as serving:
        said = serving.program.wait_for(r"# Clients need an external account key.*\n.*create (.*)\n")
        assert said.group(1) == (
            f"--store sqlite:///{person.folder}/privet.db --external-url {serving.base} --name NAME"
        )
        assert "certbot certonly" not in serving.program.output
        line = said.group().splitlines()[1].replace("NAME", "team-a")
        done = subprocess.run(
            shlex.split(line), cwd="/", env=environment(person.folder), capture_output=True, text=True, check=True
        )
        assert f"certbot register --server {serving.directory} --eab-kid" in done.stdout
