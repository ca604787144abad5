"""`privet policy`, and `privet serve --policy`: rules looked at, rules followed, and who shows a certificate."""

import asyncio
import os
import re
import select
import signal
import ssl
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from tests.cli.command import Person, Serving
from tests.cli.test_serve import with_account, workers
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
        "client: 127.0.0.1 (--client says another)\n"
        "web.internal     asks a person  by the rule 'rest'\n"
        "secret.internal  refused        secret.internal is denied by the rule 'secrets': ask the security team\n"
    )
    (ruler.folder / "keys.toml").write_text('[[rule]]\nname = "a"\nallow = ["**"]\nexternal-key = ["team-a"]\n')
    done = ruler.tries("policy", "try", "keys.toml", "--name", "web.internal", "--client", "")
    assert done.out == (
        "client: unknown\n"
        "no account: no rule is for you without an external account key; ask for one\n"
        "web.internal  refused        web.internal is allowed by no rule\n"
    )
    wrong = ruler.tries(
        "policy", "try", "policy.toml", "--name", "a..b", "--lifetime", "long", "--client", "host", "--validate", "x"
    )
    assert wrong.sentences == [
        "--name 'a..b' is not a valid DNS name: it has an empty label",
        "--client has to be an address, or '' for one that nobody knows, not 'host'",
        "--lifetime has to be a duration such as 90m, 24h or 7d, not 'long'",
        "--validate has to be one or more of http-01,dns-01,tls-alpn-01,dns-account-01,dns-persist-01, with commas "
        "between, not 'x'",
    ]


def test_whether_names_could_be_proved_is_tried_on_request(person: Person) -> None:
    (person.folder / "policy.toml").write_text("""
        [[rule]]
        name = "all"
        allow = ["**", "10.0.0.0/8"]
        wildcard = true
    """)
    names = ("--name", "web.internal", "--name", "*.internal", "--name", "10.0.0.7")
    tried = ("policy", "try", "policy.toml", *names, "--json")
    assert {each["decision"] for each in person.does(*tried).json["names"]} == {"prove"}
    for types, decisions in (
        ("http-01", ["prove", "deny", "prove"]),
        ("dns-01,dns-persist-01", ["prove", "prove", "deny"]),
        ("http-01,dns-01", ["prove", "prove", "prove"]),
    ):
        done = person.tries(*tried, "--validate", types)
        assert [each["decision"] for each in done.json["names"]] == decisions
        assert done.status == ("deny" in decisions)
    assert done.json["client"] == "127.0.0.1"
    told = person.tries("policy", "try", "policy.toml", "--name", "*.internal", "--validate", "http-01,tls-alpn-01")
    assert told.out.endswith("*.internal  refused        *.internal cannot be proved by http-01 or tls-alpn-01\n")


def test_what_waits_for_a_person_is_nothing_for_a_store_that_nobody_can_open(ruler: Person) -> None:
    for option, name in ((["--policy", "policy.toml"], "--policy"), (["--ask-person"], "--ask-person")):
        refused = ruler.tries("serve", *option, "--store", "memory:")
        assert (refused.status, refused.sentences) == (
            2,
            [
                f"{name} would let requests wait for a person, who cannot look into --store memory: choose "
                "sqlite:///PATH"
            ],
        )


# --- a server that follows them ---


def approval(person: Person, *options: str) -> str:
    with person.serves(*options) as serving:
        return serving.program.wait_for(r"approval +(.*)\n").group(1)


def test_a_server_says_no_more_than_rules_and_keys_let_be_true(ruler: Person) -> None:
    command = rf"`.*privet {{}} --store sqlite:///{ruler.folder}/privet.db{{}}`"
    person = f"by a person: {command.format('pending', '')} shows who waits, {command.format('approve', ' ID')} lets "
    rules = approval(ruler, "--policy", "policy.toml")
    assert re.match(f"what the rules allow: without proof what a rule trusts, or {person}", rules)
    (ruler.folder / "allow.toml").write_text('[[rule]]\nname = "a"\nallow = ["*.internal"]\nclient = ["10.0.0.0/8"]')
    assert approval(ruler, "--policy", "allow.toml", "--validate", "dns-01") == (
        "what the rules allow: by proof of control: dns-01 (a TXT record)"
    )
    assert approval(ruler, "--require-eab", "--validate", "dns-01") == (
        "what an external account key trusts without proof, the rest by proof of control: dns-01 (a TXT record)"
    )
    assert approval(ruler, "--require-eab", "--auto-approve") == (
        "AUTOMATIC: whoever has an external account key gets certificates for any name that the key allows, and nobody "
        "checks"
    )
    (ruler.folder / "deny.toml").write_text('[[rule]]\nname = "a"\ndeny = ["**"]')
    assert approval(ruler, "--policy", "deny.toml") == "the rules allow nothing"


def test_rules_are_those_of_the_start_until_a_restart(ruler: Person) -> None:
    """Whatever becomes of the file: when a worker dies, and when SIGHUP asks for new ones."""

    async def story(wire: Wire) -> None:
        assert (await wire.order("web.example")).status_code == 403
        assert (await wire.order("web.internal")).status_code == 201

    def end(pids: set[int], by: int, to: set[int]) -> None:
        watched = [os.pidfd_open(pid) for pid in pids]
        for pid in to:
            os.kill(pid, by)
        for each in watched:
            select.select([each], [], [])
            os.close(each)

    file = ruler.folder / "policy.toml"
    with ruler.serves("--policy", "policy.toml", "--workers", "2") as serving:
        with_account(serving, story)
        first = workers(serving.program.process.pid)
        file.write_text('[[rule]]\nname = "all"\nallow = ["**.example"]\n')
        end(first, signal.SIGKILL, to=first)
        with_account(serving, story)
        second = workers(serving.program.process.pid)
        assert not first & second
        file.unlink()
        end(second, signal.SIGHUP, to={serving.program.process.pid})
        with_account(serving, story)


def test_one_process_stays_when_it_is_sent_sighup(ruler: Person) -> None:
    async def story(wire: Wire) -> None:
        assert (await wire.order("web.internal")).status_code == 201

    with ruler.serves("--policy", "policy.toml") as serving:
        serving.program.process.send_signal(signal.SIGHUP)
        serving.program.wait_for("WARNING SIGHUP changes nothing: what is in files is read when privet is started")
        with_account(serving, story)


def test_rules_may_come_by_a_pipe(ruler: Person) -> None:
    """As a shell's <(…) makes one, which is empty when it is read again."""
    pipe = ruler.folder / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(RULES,))
    writer.start()
    with ruler.serves("--policy", "pipe", "--workers", "2") as serving:
        writer.join()
        assert httpx.get(serving.directory, trust_env=False).status_code == 200


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
