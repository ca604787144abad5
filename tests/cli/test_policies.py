"""`privet policy`, and `privet serve --policy`: rules looked at, rules followed, and who shows a certificate."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from tests.cli.command import Person, Serving
from tests.cli.test_serve import with_account
from tests.wire import Wire, problem_of

RULES = """
[[rule]]
name = "secrets"
deny = ["secret.internal"]
reason = "ask the security team"

[[rule]]
name = "hosts"
trust = ["*.hosts.internal"]
client-certificate = ["host-*.internal"]

[[rule]]
name = "team a"
trust = ["*.team-a.internal", "10.0.0.0/8"]
external-key = ["team-a"]
client = ["10.1.0.0/16"]
key-types = ["P-256"]
max-lifetime = "12h"

[[rule]]
name = "rest"
ask = ["*.internal"]
"""


@pytest.fixture
def ruler(person: Person) -> Person:
    (person.folder / "policy.toml").write_text(RULES)
    return person


def test_rules_are_checked(ruler: Person) -> None:
    assert ruler.does("policy", "check", "policy.toml").out == "policy.toml is in order: 4 rules\n"
    found = ruler.does("policy", "check", "policy.toml", "--json").json
    assert found == {"rules": ["secrets", "hosts", "team a", "rest"]}


def test_every_mistake_is_told_before_a_server_starts(person: Person) -> None:
    (person.folder / "bad.toml").write_text('[[rule]]\nname = "a"\nalow = ["x"]\n')
    sentences = [
        "rule 1 (a) in bad.toml has 'alow', which means nothing; did you mean allow?",
        "rule 1 (a) in bad.toml needs one of allow, trust, ask, deny, and has none",
    ]
    for arguments in (("policy", "check", "bad.toml"), ("policy", "try", "bad.toml", "--name", "a")):
        refused = person.tries(*arguments)
        assert (refused.status, refused.sentences) == (2, sentences)
    refused = person.tries("serve", "--policy", "bad.toml", "--port", "70000")
    assert refused.status == 2
    assert refused.sentences == ["--port has to be a number from 0 to 65535, not '70000'", *sentences]
    assert [path.name for path in person.folder.iterdir()] == ["bad.toml"], "nothing was made"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "cannot be read: No such file or directory"), (b"\xff", "is not TOML: 'utf-8' codec can't decode")],
)
def test_a_policy_that_cannot_be_read_is_told(person: Person, content: bytes | None, reason: str) -> None:
    if content is not None:
        (person.folder / "policy.toml").write_bytes(content)
    for arguments in (("policy", "check", "policy.toml"), ("serve", "--policy", "policy.toml")):
        refused = person.tries(*arguments)
        assert refused.status != 0
        (sentence,) = refused.sentences
        assert sentence.startswith(f"the policy policy.toml {reason}")


def test_rules_and_automatic_approval_contradict_each_other(ruler: Person) -> None:
    refused = ruler.tries("serve", "--policy", "policy.toml", "--auto-approve")
    assert refused.sentences == [
        "--policy says who may have what, and --auto-approve gives everybody everything: leave one of them out"
    ]


def test_rules_are_tried(ruler: Person) -> None:
    def tried(*options: str) -> tuple[int, list[tuple[str, str, str | None]]]:
        done = ruler.tries("policy", "try", "policy.toml", "--json", *options)
        return done.status, [(each["name"], each["decision"], each["rule"]) for each in done.json["names"]]

    team = ("--external-key", "team-a", "--client", "10.1.2.3")
    assert tried("--name", "Web.Team-A.internal", "--name", "10.0.0.7", *team) == (
        0,
        [("web.team-a.internal", "trust", "team a"), ("10.0.0.7", "trust", "team a")],
    )
    for more in (("--key-type", "p-256"), ("--lifetime", "12h")):
        assert tried("--name", "web.team-a.internal", *team, *more)[0] == 0
    for more in (("--key-type", "RSA-2048"), ("--lifetime", "13h")):
        assert tried("--name", "web.team-a.internal", *team, *more)[0] == 1
    assert tried("--name", "web.team-a.internal", "--external-key", "team-a") == (
        1,
        [("web.team-a.internal", "deny", None)],
    )
    assert tried("--name", "web.hosts.internal", "--client-certificate", "Host-1.internal") == (
        0,
        [("web.hosts.internal", "trust", "hosts")],
    )
    assert tried("--name", "*.internal", "--name", "web.internal") == (
        1,
        [("*.internal", "deny", "secrets"), ("web.internal", "ask", "rest")],
    )


def test_what_is_tried_is_told_in_words(ruler: Person) -> None:
    done = ruler.tries("policy", "try", "policy.toml", "--name", "web.internal", "--name", "secret.internal")
    assert done.status == 1
    assert done.out == (
        "web.internal     asks a person  by the rule 'rest'\n"
        "secret.internal  refused        secret.internal is denied by the rule 'secrets': ask the security team\n"
    )
    (ruler.folder / "keys.toml").write_text('[[rule]]\nname = "a"\nallow = ["**"]\nexternal-key = ["team-a"]\n')
    done = ruler.tries("policy", "try", "keys.toml", "--name", "web.internal")
    assert done.out == (
        "no account: no rule is for you without an external account key; ask for one\n"
        "web.internal  refused        web.internal is allowed by no rule\n"
    )
    wrong = ruler.tries("policy", "try", "policy.toml", "--name", "a..b", "--lifetime", "long", "--client", "host")
    assert wrong.sentences == [
        "--name 'a..b' is not a valid DNS name: it has an empty label",
        "--client has to be an address, or '' for one that nobody knows, not 'host'",
        "--lifetime has to be a duration such as 90m, 24h or 7d, not 'long'",
    ]


# --- a server that follows them ---


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_follows_the_rules_and_tells_by_which(ruler: Person, workers: str) -> None:
    async def story(wire: Wire) -> None:
        refused = await wire.order("secret.internal", "web.example", "web.internal")
        assert problem_of(refused) == (403, "rejectedIdentifier")
        assert [each["identifier"]["value"] for each in refused.json()["subproblems"]] == [
            "secret.internal",
            "web.example",
        ]
        order = (await wire.order("web.internal")).json()
        (authorization,) = [(await wire.post(url)).json() for url in order["authorizations"]]
        assert (await wire.post(authorization["challenges"][0]["url"], {})).json()["status"] == "processing"
        (waiting,) = ruler.does("pending", "--json").json
        assert (waiting["decision"], waiting["rule"]) == ("ask", "rest")
        assert ruler.does("pending").out.endswith("web.internal  by rest\n")
        ruler.does("approve", waiting["id"])
        assert (await wire.finalize(order)).json()["status"] == "valid"

    with ruler.serves("--policy", "policy.toml", "--workers", workers) as serving:
        said = serving.program.wait_for(r"policy +the rules in (.*)\n")
        assert said.group(1) == str(ruler.folder / "policy.toml")
        with_account(serving, story)
    shown = ruler.does("show", "web.internal", "--json").json
    assert shown["allowed"] == [{"name": "web.internal", "decision": "ask", "rule": "rest"}]
    assert "allowed      web.internal: ask by rest\n" in ruler.does("show", "web.internal").out


def with_certificate(serving: Serving, files: Path | None, story: Callable[[Wire], Awaitable[None]]) -> None:
    context = serving.trust()
    if files is not None:
        context.load_cert_chain(files / "fullchain.pem", files / "key.pem")

    async def run() -> None:
        async with httpx.AsyncClient(verify=context, trust_env=False, timeout=60) as http:
            await story(Wire(http, serving.base))

    asyncio.run(run())


def test_a_server_knows_its_clients_by_their_certificates(ruler: Person) -> None:
    """Real handshakes: with a good certificate, with one of another CA, with one of the wrong name, with none."""
    for store, name in (("ours", "host-1.internal"), ("ours", "web.internal"), ("theirs", "host-1.internal")):
        other = Person(ruler.folder, f"sqlite:///{store}.db")
        other.does("init")
        other.does("issue", name, "--client", "--out", f"{store}-{name}")
    (ruler.folder / "clients.pem").write_text(Person(ruler.folder, "sqlite:///ours.db").does("root").out)

    async def trusted(wire: Wire) -> None:
        await wire.register()
        assert (await wire.issue("web.hosts.internal")).startswith(b"-----BEGIN")

    async def refused(wire: Wire) -> None:
        await wire.register()
        assert problem_of(await wire.order("web.hosts.internal")) == (403, "rejectedIdentifier")

    async def nobody(wire: Wire) -> None:
        with pytest.raises((httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError, ssl.SSLError)):
            await wire.register()

    with ruler.serves("--policy", "policy.toml", "--tls", "--client-ca", "clients.pem") as serving:
        assert serving.program.wait_for(r"client CA +(.*)\n").group(1) == str(ruler.folder / "clients.pem")
        with_certificate(serving, ruler.folder / "ours-host-1.internal", trusted)
        with_certificate(serving, ruler.folder / "ours-web.internal", refused)
        with_certificate(serving, ruler.folder / "theirs-host-1.internal", nobody)
        with_certificate(serving, None, refused)


@pytest.mark.parametrize(
    ("options", "header", "allowed"),
    [
        ((), "10.1.2.3", False),
        (("--trusted-proxy", "10.9.9.9"), "10.1.2.3", False),
        (("--trusted-proxy", "127.0.0.1"), "10.1.2.3", True),
        # What the proxy was told before it added the address it saw is the client's own invention.
        (("--trusted-proxy", "127.0.0.1"), "10.1.2.3, 192.0.2.1", False),
        (("--trusted-proxy", "127.0.0.1"), "::ffff:10.1.2.3", True),
        (("--trusted-proxy", "127.0.0.1"), "not an address", False),
    ],
)
def test_nobody_writes_himself_an_address(person: Person, options: tuple[str, ...], header: str, allowed: bool) -> None:
    (person.folder / "policy.toml").write_text("""
        [[rule]]
        name = "inside"
        trust = ["*.internal"]
        client = ["10.1.0.0/16"]

        [[rule]]
        name = "others"
        ask = ["*.example"]
    """)

    async def story(wire: Wire) -> None:
        wire.http.headers["x-forwarded-for"] = header
        answer = await wire.order("web.internal")
        assert answer.status_code == (201 if allowed else 403)

    with person.serves("--policy", "policy.toml", *options) as serving:
        with_account(serving, story)
