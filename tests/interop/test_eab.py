"""certbot and lego open accounts with external account keys, by their own options and as `privet eab create` prints."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.interop.clients import Certbot
from tests.interop.programs import ELSEWHERE, HERE, need, run
from tests.interop.serving import Privet
from tests.interop.test_printed import printed

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("eab")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Privet]:
    with Privet(tmp_path_factory.mktemp("eab"), "--require-eab", "--ask-challenges") as running:
        yield running


def eab(server: Privet, *arguments: str) -> str:
    return server.privet("eab", *arguments)


def make_key(server: Privet, *options: str) -> dict[str, Any]:
    key: dict[str, Any] = json.loads(eab(server, "create", "--json", *options))
    return key


def with_certbot(server: Privet, folder: Path, key: dict[str, Any] | None, name: str) -> None:
    options = ["--eab-kid", key["id"], "--eab-hmac-key", key["hmac_key"]] if key else []
    Certbot(folder, server.directory, server.root()).run(
        "certonly", "--agree-tos", "--register-unsafely-without-email", *options,
        "--manual", "--manual-auth-hook", "true", "-d", name,
    )  # fmt: skip


def with_lego(server: Privet, folder: Path, key: dict[str, Any] | None, name: str) -> None:
    options = ["--eab", "--kid", key["id"], "--hmac", key["hmac_key"]] if key else []
    run(
        need("lego"), "--server", server.directory, *options, "--path", folder, "--email", "you@example.com",
        "--accept-tos", "--http", "--http.port", "127.0.0.1:0", "--domains", name, "run",
        env={"LEGO_CA_CERTIFICATES": str(server.root())},
    )  # fmt: skip


def with_certbots_file(server: Privet, folder: Path, key: dict[str, Any] | None, name: str) -> None:
    """Where `ps` shows no secret."""
    file = folder.parent / f"{folder.name}.ini"
    file.write_text(f"eab-kid = {key['id']}\neab-hmac-key = {key['hmac_key']}\n" if key else "")
    Certbot(folder, server.directory, server.root()).run(
        "certonly", "--agree-tos", "--register-unsafely-without-email", "--config", str(file),
        "--manual", "--manual-auth-hook", "true", "-d", name,
    )  # fmt: skip


CLIENTS = pytest.mark.parametrize(
    "client",
    [with_certbot, with_lego, with_certbots_file],
    ids=["certbot", "lego", "certbot's file"],
)


@CLIENTS
def test_a_key_lets_a_client_in_once_and_to_its_names(server: Privet, tmp_path: Path, client: Any) -> None:
    team = f"{client.__name__.replace('_', '-')}.internal"
    key = make_key(server, "--name", team, "--allow", f"*.{team}", "--uses", "1", "--expires", "1d")
    client(server, tmp_path / "one", key, f"web.{team}")
    (certificate,) = server.certificates([f"web.{team}"])
    assert certificate["status"] == "valid"
    with pytest.raises(AssertionError, match=r"is not among the names of the external account key"):
        client(server, tmp_path / "one", key, "web.other.internal")
    with pytest.raises(AssertionError, match=r"the external account key is used up"):
        client(server, tmp_path / "two", key, f"mail.{team}")
    (found,) = [each for each in json.loads(eab(server, "list", "--json")) if each["name"] == team]
    assert (found["status"], found["used"]) == ("used up", 1)


@CLIENTS
def test_without_a_key_nobody_gets_in(server: Privet, tmp_path: Path, client: Any) -> None:
    with pytest.raises(AssertionError, match=r"(?i)external account|EAB"):
        client(server, tmp_path / "client", None, "web.internal")


@CLIENTS
def test_with_another_ones_secret_nobody_gets_in(server: Privet, tmp_path: Path, client: Any) -> None:
    one, other = make_key(server, "--name", "one"), make_key(server, "--name", "other")
    with pytest.raises(AssertionError, match=r"is not signed with the key it names"):
        client(server, tmp_path / "client", one | {"hmac_key": other["hmac_key"]}, "web.internal")


@CLIENTS
def test_who_has_a_revoked_key_renews_nothing(server: Privet, tmp_path: Path, client: Any) -> None:
    name = f"{client.__name__.replace('_', '-')}-revoked.internal"
    key = make_key(server, "--name", name)
    client(server, tmp_path / "client", key, name)
    eab(server, "revoke", name)
    with pytest.raises(AssertionError, match=r"the external account key of this account is revoked"):
        client(server, tmp_path / "client", key, f"www.{name}")


def test_the_printed_lines_work(server: Privet, tmp_path: Path) -> None:
    folder = tmp_path / "stranger"
    folder.mkdir()
    url = server.directory.removesuffix("/directory")
    said = eab(server, "create", "--name", "printed", "--external-url", url)
    env = {"HOME": str(folder), "PATH": os.pathsep.join((HERE, ELSEWHERE))}
    # As printed but for where certbot keeps what it has, and for the port of lego, which somebody else may have.
    folders = " ".join(f"--{each}-dir {folder / each}" for each in ("config", "work", "logs"))
    run("bash", "-euc", f"{printed(said, 'certbot')} {folders}", env=env, cwd=folder)
    assert list((folder / "config/accounts").rglob("regr.json"))
    lego = printed(said, "lego").replace("--http ", "--http --http.port 127.0.0.1:0 ")
    run("bash", "-euc", lego, env=env, cwd=folder)
    assert list(folder.rglob("web.internal.crt"))
