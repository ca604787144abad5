"""What docs/policy.md shows runs as it stands there."""

import asyncio
import os
import re
import shlex
import ssl
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from tests.cli.command import Person, Serving, environment
from tests.cli.test_serve import with_account
from tests.interop.programs import Program, free_port
from tests.wire import Wire, problem_of

from privet import CertificateAuthority, FileStore, KeyType, Limits, MemoryStore, NameConstraints, Rules, SQLiteStore
from privet.acme.identifiers import from_text
from privet.ca.constraints import refusal
from privet.server import external_accounts
from privet.server.names import Names, read_text_pattern
from privet.server.policy import Applicant
from privet.server.rules import _KEYS

TEXT = (Path(__file__).parents[2] / "docs/policy.md").read_text()
(PYTHON,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
(TOML,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
SHELL = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)


def shown(*words: str) -> list[str]:
    """The one line of the page that begins so, as a shell takes it apart."""
    lines = [line for block in SHELL for line in block.replace("\\\n", " ").splitlines()]
    (found,) = [line for line in map(shlex.split, lines) if line[: len(words)] == list(words)]
    return found


@pytest.fixture
def reader(person: Person) -> Person:
    """Somebody who has done what the page says so far."""
    (person.folder / "policy.toml").write_text(TOML)
    return person


def test_the_policy_in_python_has_ten_lines() -> None:
    policy = PYTHON[PYTHON.index("class ") : PYTHON.index("\n\n\nca = ")]
    assert len([line for line in policy.splitlines() if line]) <= 10


def test_the_policy_in_python_gives_hosts_their_own_names(person: Person) -> None:
    """In FastAPI, under uvicorn as the page starts it, with real handshakes."""
    folder, port = person.folder, free_port()
    (folder / "app.py").write_text(PYTHON.replace("https://ca.internal:8555", f"https://127.0.0.1:{port}"))
    with FileStore(folder / "clients") as store:
        ca = CertificateAuthority(store)
        ca.init()
        server, host = ca.issue("127.0.0.1"), ca.issue(["host-1.internal", "10.0.0.7"], client=True)
        for name, content in {
            "server.pem": server.fullchain_pem,
            "server.key": server.key_pem,
            "clients.pem": ca.root_cert_pem,
            "host.pem": host.fullchain_pem + host.key_pem,
        }.items():
            (folder / name).write_bytes(content)

    async def story(certificate: bool) -> None:
        context = ssl.create_default_context(cafile=folder / "clients.pem")
        if certificate:
            context.load_cert_chain(folder / "host.pem")
        async with httpx.AsyncClient(verify=context, trust_env=False) as http:
            wire = Wire(http, f"https://127.0.0.1:{port}/acme")
            if not certificate:
                headers = {"X-Client-Cert": quote((folder / "host.pem").read_text())}
                refused = await wire.post("new-account", {}, headers=headers)
                assert (problem_of(refused), refused.json()["detail"]) == (
                    (403, "unauthorized"),
                    "show the certificate of your host",
                )
                return
            assert (await wire.register()).status_code == 201
            assert (await wire.issue("host-1.internal", "10.0.0.7")).startswith(b"-----BEGIN")
            refused = await wire.order("host-1.internal", "host-2.internal", "*.host-1.internal")
            assert problem_of(refused) == (403, "rejectedIdentifier")
            assert [each["identifier"]["value"] for each in refused.json()["subproblems"]] == [
                "host-2.internal",
                "*.host-1.internal",
            ]

    command = [str(port) if part == "8555" else part for part in shown("uvicorn")]
    env = environment(folder, {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)})
    with Program(sys.executable, "-m", *command, env=env, cwd=folder) as program:
        program.wait_for("Uvicorn running on")
        asyncio.run(story(certificate=True))
        asyncio.run(story(certificate=False))


def decided(rules: Rules, name: str, **about: Any) -> str:
    key = about.pop("key", None)
    key_type = about.pop("key_type", None)
    applicant = Applicant("a", (), key, about.pop("client", "10.9.9.9"), key, **about)
    (verdict,) = rules.judge(applicant, [from_text(name)], key_type)
    return verdict.decision.value if verdict.decision else "deny"


def test_the_rules_decide_what_the_page_says() -> None:
    rules = Rules.from_toml(TOML)
    assert decided(rules, "vault.internal") == decided(rules, "a.b.hsm.internal") == "deny"
    assert decided(rules, "*.internal") == "deny"
    assert decided(rules, "db-1.internal", client="10.20.0.1") == "trust"
    assert decided(rules, "db-1.internal", client="10.21.0.1") == "deny"
    for key_type, decision in ((KeyType.P256, "trust"), (KeyType.RSA2048, "deny")):
        assert decided(rules, "db-1.internal", client="::ffff:10.20.0.1", key_type=key_type) == decision
    assert decided(rules, "db-1.internal", client="10.20.0.1", lifetime=timedelta(hours=13)) == "deny"
    assert decided(rules, "shop.pay.internal") == "ask"
    assert decided(rules, "*.team-a.internal", key="team-a") == "prove"
    assert decided(rules, "a.b.team-a.internal", key="team-a") == "deny"
    assert decided(rules, "elsewhere.internal") == "deny"


def test_the_page_names_every_key_of_a_rule() -> None:
    for key in _KEYS:
        assert f"`{key}`" in TEXT


def test_names_mean_what_the_page_says_of_them_side_by_side() -> None:
    names = ("internal", "a.internal", "a.b.internal", "example")

    def fitting(fits: Callable[[str], object]) -> tuple[str, ...]:
        return tuple(name for name in names if fits(name))

    def permitted(text: str) -> tuple[str, ...]:
        constraints = NameConstraints([text]).to_extension()
        return fitting(lambda name: refusal(constraints, from_text(name)) is None)

    for pattern, meant in (
        ("internal", names[:1]),
        ("**.internal", names[1:3]),
        ("*.internal", names[1:2]),
        ("**", names),
    ):
        assert f"`{pattern}`" in TEXT
        covered = Names([pattern])
        assert tuple(name for name in names if covered.cover(from_text(name))) == meant
        assert fitting(read_text_pattern(pattern).fullmatch) == meant
    assert permitted("internal") == names[:3]
    assert permitted(".internal") == names[1:3]
    assert permitted("10.0.0.0/8") == ()


def test_an_async_policy_has_as_long_as_the_page_says() -> None:
    assert Limits(policy=timedelta(seconds=10)) == Limits()


def test_the_rules_are_checked_and_tried_as_the_page_does(reader: Person) -> None:
    check = shown("privet", "policy", "check")[1:]
    assert reader.does(*check).out == "policy.toml is in order: 5 rules\n"
    one, other = [
        shlex.split(line)[1:] for block in SHELL for line in block.splitlines() if line.startswith("privet policy try")
    ]
    assert reader.does(*one).out == "client: 10.20.3.4\ndb-1.internal  trusted        by the rule 'databases'\n"
    tried = reader.tries(*other)
    assert tried.status == 1
    assert tried.out == (
        "client: 127.0.0.1 (--client says another)\n"
        "web.team-a.internal  allowed        by the rule 'team a'\n"
        "*.internal           refused        *.internal is denied by the rule 'crown jewels': the security team issues "
        "these by hand\n"
    )


def serves(reader: Person, *words: str) -> Serving:
    return reader.serves(*shown("privet", "serve", *words)[2:])


def on_this(decision: str, id: str) -> list[str]:
    """What the page says to do about a request, done about this one."""
    return [id if re.fullmatch("[0-9a-v]{24}", word) else word for word in shown("privet", decision)[1:]]


def test_a_server_follows_the_rules_as_the_page_starts_it(reader: Person) -> None:
    async def story(wire: Wire) -> None:
        assert problem_of(await wire.order("vault.internal")) == (403, "rejectedIdentifier")
        order = (await wire.order("shop.pay.internal")).json()
        authorization = (await wire.post(order["authorizations"][0])).json()
        answered = await wire.post(authorization["challenges"][0]["url"], {})
        assert (answered.json()["status"], "retry-after" in answered.headers) == ("processing", True)
        (waiting,) = reader.does(*shown("privet", "pending")[1:], "--json").json
        assert waiting["rule"] == "payments"
        reader.does(*on_this("approve", waiting["id"]))
        assert (await wire.finalize(order)).json()["status"] == "valid"
        assert reader.does("show", "shop.pay.internal", "--json").json["proofs"][0]["by"]
        await wire.order("till.pay.internal")
        (waiting,) = reader.does("pending", "--json").json
        (refused,) = reader.does(*on_this("refuse", waiting["id"]), "--json").json
        assert refused["status"] == "invalid"

    with serves(reader, "--policy", "policy.toml", "--validate") as serving:
        with_account(serving, story)


def test_clients_with_certificates_as_the_page_has_them(reader: Person) -> None:
    reader.does("init")
    (reader.folder / "clients.pem").write_text(reader.does("root").out)
    with serves(reader, "--policy", "policy.toml", "--tls") as serving:
        assert serving.directory.startswith("https://")


def test_external_account_keys_as_the_page_makes_them(reader: Person) -> None:
    (reader.folder / "password").write_text("correct horse\n")
    locked = ("--key-password-file", "password")
    reader.does("init", *locked)
    made = reader.does(*shown("privet", "eab", "create")[1:], "--json", *locked).json
    with SQLiteStore(reader.folder / "privet.db") as store:
        record = store.get("external-account-key", made["id"])
    assert record
    assert made["hmac_key"].encode() not in record.body
    assert reader.tries(*shown("privet", "eab", "create")[1:]).status == 1, "the authority's key is needed"
    with reader.serves(*shown("privet", "serve", "--require-eab")[2:], *locked) as serving:
        assert httpx.get(serving.directory, trust_env=False).json()["meta"]["externalAccountRequired"] is True
        reader.does("eab", "list")
        reader.does("eab", "revoke", "team-a")


def test_every_line_of_the_page_is_run_here() -> None:
    assert len(SHELL) == 6
    assert sum(block.replace("\\\n", "").count("\n") for block in SHELL) == 11


def test_a_key_is_made_in_python_as_the_page_says() -> None:
    (call,) = re.findall(r"`privet\.server\.(external_accounts\.create\(.*\))`", TEXT)
    store = MemoryStore()
    ca = CertificateAuthority(store)
    ca.init()
    names = {"external_accounts": external_accounts, "store": store, "ca": ca, "now": ca.not_after}
    key, secret = eval(call, names)
    assert (key.name, key.allow, len(secret)) == ("team-a", ("*.team-a.internal",), 32)
