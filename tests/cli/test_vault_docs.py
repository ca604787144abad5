"""What docs/vault.md shows runs as it stands there."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from tests.cli.command import Person, Serving, environment
from tests.wire import Wire

from privet.vault import tokens
from privet.vault.pki import RESOURCES
from privet.vault.roles import _KEYS, Roles

TEXT = (Path(__file__).parents[2] / "docs/vault.md").read_text()
(TOML,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
HVAC, MOUNTED = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
SERVE, TOKENS, CURL = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def reader(person: Person) -> Person:
    """Somebody who has done what the page says so far."""
    (person.folder / "roles.toml").write_text(TOML)
    return person


@pytest.fixture
def serving(reader: Person) -> Iterator[Serving]:
    with reader.serves(*shlex.split(SERVE)[2:]) as running:
        (reader.folder / "root.pem").write_text(reader.does("root").out)
        yield running


def run(reader: Person, serving: Serving, token: str, *command: str) -> str:
    named = {"VAULT_ADDR": serving.base, "VAULT_TOKEN": token, "VAULT_CACERT": str(reader.folder / "root.pem")}
    done = subprocess.run(
        command, env=environment(reader.folder, named), cwd=reader.folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_can_be_followed(reader: Person, serving: Serving) -> None:
    create, listing, revoke = (shlex.split(line)[1:] for line in TOKENS.splitlines())
    token = reader.does(*create, "--json").json["token"]
    assert " ci " in reader.does(*listing).out
    certificate = x509.load_pem_x509_certificate(run(reader, serving, token, sys.executable, "-c", HVAC).encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.web.internal"]
    answer = json.loads(run(reader, serving, token, "sh", "-ec", CURL))
    assert answer["data"]["certificate"].startswith("-----BEGIN CERTIFICATE-----")
    assert reader.does(*revoke).out.startswith("revoked ci ")
    assert "permission denied" in run(reader, serving, token, "sh", "-ec", CURL)
    (last,) = reader.does("token", "list", "--json").json
    assert last["status"] == "revoked"


def test_the_roles_allow_what_the_page_says() -> None:
    roles = Roles.from_toml(TOML)
    assert roles.names == ("web", "database")
    web, database = (roles.get(name) for name in roles.names)
    assert web is not None
    assert database is not None
    assert (web.lifetime.total_seconds(), web.max_lifetime.total_seconds()) == (12 * 3600, 72 * 3600)
    assert [database.lets_client(each) for each in ("epoch_user", "report-7", "EPOCH_USER", "report-7.x")] == [
        True,
        True,
        False,
        False,
    ]


def test_the_page_names_every_key_of_a_role_and_every_address() -> None:
    for key in _KEYS:
        assert f"| `{key}` |" in TEXT
    for resource in RESOURCES:
        path = re.sub(r"\(.*\)", "SERIAL" if "cert/(" in resource.path.pattern else "ROLE", resource.path.pattern)
        assert f"/{path}`" in TEXT or f"`{path.removeprefix('v1/pki/')}`" in TEXT, path


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_both_doors_are_mounted_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(MOUNTED, "vault.md", "exec"), names)
    now, ca, store = datetime.now(UTC), names["ca"], names["ca"].store
    (call,) = re.findall(r"`privet\.vault\.(tokens\.create\(.*?\))`", TEXT)
    token, text = eval(call, {"tokens": tokens, "store": store, "ca": ca, "now": now})
    assert token.role == "web"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(names["app"]), base_url="http://ca.internal") as http:
        headers = {"X-Vault-Token": text}
        got = await http.post("/vault/v1/pki/issue/web", headers=headers, json={"common_name": "a.web.internal"})
        assert got.status_code == 200
        wire = Wire(http, "http://ca.internal/acme")
        await wire.register()
        await wire.issue("b.web.internal")
    assert {each.names for each in ca.certificates()} == {("a.web.internal",), ("b.web.internal",)}
    store.close()
