"""`privet token`: tokens made, listed and revoked, beside a running server; and `privet serve --roles`."""

import re
import shlex
import sqlite3
import subprocess
from pathlib import Path

import httpx
import pytest
from tests.cli.command import Person, Serving, environment

ROLES = """
[[role]]
name = "web"
names = ["*.web.internal"]

[[role]]
name = "epoch"
common-names = ["epoch_user"]
usages = ["client"]
"""


@pytest.fixture
def keeper(owner: Person) -> Person:
    """An owner with roles."""
    (owner.folder / "roles.toml").write_text(ROLES)
    return owner


def issue(serving: Serving, role: str, token: str, name: str) -> httpx.Response:
    url = f"{serving.base}/v1/pki/issue/{role}"
    return httpx.post(url, headers={"X-Vault-Token": token}, json={"common_name": name}, trust_env=False)


def test_a_token_is_made_used_listed_and_revoked_while_a_server_runs(keeper: Person) -> None:
    with keeper.serves("--roles", "roles.toml") as serving:
        options = ("--role", "web", "--name", "ci", "--expires", "7d", "--uses", "2", "--roles", "roles.toml")
        made = keeper.does("token", "create", *options, "--json").json
        token = made.pop("token")
        assert (made["status"], made["role"], made["uses"], made["used"]) == ("valid", "web", 2, 0)
        assert issue(serving, "web", token, "a.web.internal").status_code == 200

        listed = keeper.does("token", "list")
        (found,) = keeper.does("token", "list", "--json").json
        assert (found["used"], found["name"], found["id"]) == (1, "ci", made["id"])
        assert "token" not in found
        assert token.rpartition(".")[2] not in listed.out
        assert re.search(rf"^{made['id']}  ci    valid    1 of 2     \S+  web$", listed.out, re.MULTILINE)

        assert keeper.does("token", "revoke", "ci").out == f"revoked ci ({made['id']})\n"
        refused = issue(serving, "web", token, "a.web.internal")
        assert (refused.status_code, refused.json()) == (
            403,
            {"errors": ["permission denied: the token is revoked; ask for another"]},
        )
        again = keeper.tries("token", "revoke", "ci", "nobody")
        assert again.status == 1
        assert again.sentences == [
            "the token ci is revoked already",
            "there is no token nobody: `privet token list` shows all",
        ]
        assert token.rpartition(".")[2] not in serving.program.output
    (certificate,) = keeper.does("list", "--json").json
    assert certificate["account"] == f"token:{made['id']}"


def test_the_certificate_of_a_client_is_on_record_by_its_common_name(keeper: Person) -> None:
    with keeper.serves("--roles", "roles.toml") as serving:
        token = keeper.does("token", "create", "--role", "epoch", "--json").json["token"]
        assert issue(serving, "epoch", token, "epoch_user").status_code == 200
    (listed,) = keeper.does("list", "epoch_user", "--json").json
    assert listed["names"] == ["epoch_user"]
    assert keeper.does("list").out.splitlines()[1].endswith("  epoch_user")
    assert keeper.does("show", "epoch_user", "--json").json["serial"] == listed["serial"]
    assert keeper.does("revoke", listed["serial"]).out == f"revoked {listed['serial']} for epoch_user\n"


def test_the_server_says_how_a_token_is_made(keeper: Person) -> None:
    with keeper.serves("--roles", "roles.toml") as serving:
        found = re.search(
            r"^  roles +those in (\S+), by Vault's PKI API at (\S+); `(.*)` makes", serving.program.output, re.MULTILINE
        )
        assert found
        assert found[1] == str(keeper.folder / "roles.toml")
        assert found[2] == f"{serving.base}/v1/pki"
        command = shlex.split(found[3].replace("NAME", "web"))
        done = subprocess.run(
            [*command, "--json"], env=environment(keeper.folder), cwd="/", capture_output=True, check=True
        )
        assert b'"role": "web"' in done.stdout
    with keeper.serves() as serving:
        assert "roles" not in serving.program.output
        answer = httpx.get(f"{serving.base}/v1/sys/health", trust_env=False)
        assert answer.status_code == 404, "there is one door where nobody asked for another"


def test_it_is_where_the_responder_is(keeper: Person) -> None:
    with keeper.serves("--roles", "roles.toml", "--mount", "/acme") as serving:
        assert httpx.get(f"{serving.base}/v1/pki/ca/pem", trust_env=False).text == keeper.does("root").out
        outside = httpx.get(f"http://127.0.0.1:{serving.port}/v1/pki/ca/pem", trust_env=False)
        assert outside.status_code == 404


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ["--role", "a/b"],
            "--role has to be a name of letters, digits, _ . and -, as it is part of an address, not 'a/b'",
        ),
        (["--role", "wbe"], "there is no role wbe in roles.toml: there are web, epoch"),
        (["--role", "web", "--name", ""], "--name has to be a text of at most 100 characters, not ''"),
        (["--role", "web", "--name", "-a"], "--name must not begin with a hyphen, as '-a' does: "),
        (["--role", "web", "--expires", "soon"], "--expires has to be a duration such as 90m, 24h or 7d, not 'soon'"),
        (["--role", "web", "--uses", "0"], "--uses has to be a number from 1, not 0"),
        (["--role", "web", "--roles", "none.toml"], "the roles none.toml cannot be read: No such file or directory"),
    ],
)
def test_mistakes_are_a_sentence_each(keeper: Person, options: list[str], sentence: str) -> None:
    refused = keeper.tries("token", "create", *options, env={"PRIVET_ROLES": "roles.toml"})
    (told,) = refused.sentences
    assert told.startswith(sentence)
    assert refused.status == 2
    assert keeper.does("token", "list", "--json").json == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--store", "memory:"], "--roles wants tokens, which nobody can bring into --store memory: choose "),
        (
            ["--host", "10.255.255.1"],
            "HTTP on 10.255.255.1 shows the tokens and private keys of --roles to whoever is ",
        ),
        (["--host", "0.0.0.0", "--external-url", "http://ca.internal"], "HTTP on 0.0.0.0 can be changed on its way: "),
    ],
)
def test_roles_are_not_served_where_that_is_not_safe(keeper: Person, options: list[str], sentence: str) -> None:
    (told,) = keeper.tries("serve", "--roles", "roles.toml", *options).sentences
    assert told.startswith(sentence)


def test_roles_that_mean_nothing_are_told_one_by_one(keeper: Person) -> None:
    (keeper.folder / "roles.toml").write_text(
        '[[role]]\nname = "a b"\nname_ = 1\n[[role]]\nname = "b"\nnames = ["a..b"]'
    )
    told = keeper.tries("serve", "--roles", "roles.toml")
    assert told.status == 2
    assert [each.partition(" in roles.toml ")[2] for each in told.sentences] == [
        "has 'name_', which means nothing; did you mean name?",
        "has name, which has to be a name of letters, digits, _ . and -, as it is part of an address, not 'a b'",
        "needs names or common-names: what may be in its certificates",
        "has names, which has a name that is none: 'a..b' is not a valid DNS name: it has an empty label",
    ]


def test_a_stolen_database_gives_no_token_away(keeper: Person) -> None:
    token = keeper.does("token", "create", "--role", "web", "--json").json["token"]
    path = Path(keeper.folder, "privet.db")
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    content = b"".join(each.read_bytes() for each in keeper.folder.glob("privet.db*"))
    assert token.split(".")[1].encode() in content
    assert token.split(".")[2].encode() not in content
