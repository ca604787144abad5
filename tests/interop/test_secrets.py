"""What is secret stays out of the log, in either format and at its most talkative, while certbot and a program made for
Vault get certificates and are refused."""

import json
from pathlib import Path

import httpx
import pytest
from tests.cli.command import Person
from tests.interop.clients import Certbot
from tests.interop.programs import free_port

pytestmark = pytest.mark.interop

PASSWORD = "correct-horse-battery-staple"
ROLES = '[[role]]\nname = "web"\nnames = ["*.web.internal"]\n'


@pytest.mark.parametrize("format", ["text", "json"])
def test_no_secret_is_in_the_log(tmp_path: Path, format: str) -> None:
    person, folder = Person(tmp_path), tmp_path
    (folder / "password").write_text(PASSWORD + "\n")
    (folder / "roles.toml").write_text(ROLES)
    key = ("--key-password-file", str(folder / "password"))
    person.does("init", *key)
    account = person.does("eab", "create", "--name", "a", "--allow", "*.internal", "--json", *key).json
    token = person.does(
        *("token", "create", "--role", "web", "--roles", folder / "roles.toml", "--json"),
    ).json["token"]
    metrics = f"127.0.0.1:{free_port()}"
    with person.serves(
        *("--require-eab", "--auto-approve", "--ask-challenges", "--roles", folder / "roles.toml"),
        *("--log-level", "debug", "--log-format", format, "--metrics", metrics, *key),
    ) as serving:
        (folder / "root.pem").write_text(person.does("root").out)
        certbot = Certbot(folder / "certbot", serving.directory, folder / "root.pem")
        binding = ("--eab-kid", account["id"], "--eab-hmac-key", account["hmac_key"])
        certbot.run(
            "certonly", "--agree-tos", "--register-unsafely-without-email", *binding,
            "--manual", "--manual-auth-hook", "true", "-d", "a.internal",
        )  # fmt: skip
        wish = json.dumps({"common_name": "a.web.internal"})
        url = f"{serving.base}/v1/pki/issue/web"
        with httpx.Client(trust_env=False, timeout=60) as client:
            made = client.post(url, content=wish, headers={"X-Vault-Token": token})
            assert made.status_code == 200
            # Refused, and so logged, with what is nearly a secret in all places where one could be.
            damaged = {"X-Vault-Token": token[:-1], "X-Request-ID": token}
            assert client.post(url, content=wish, headers=damaged).status_code == 403
            twice = {**damaged, "Authorization": f"Bearer {token}"}
            assert client.post(url, content=wish, headers=twice).status_code == 400
            counted = client.get(f"http://{metrics}/metrics").text
        serving.program.wait_for("refused ")
        log = serving.stop()
    assert "a.internal" in log
    assert "a.web.internal" in log
    private = made.json()["data"]["private_key"].splitlines()[1]
    for secret in (PASSWORD, account["hmac_key"], token, token[:-1], private, "PRIVATE KEY"):
        assert secret not in log
        assert secret not in counted
