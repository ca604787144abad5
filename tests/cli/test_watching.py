"""What an operator watches: health, metrics, and logs for machines."""

import json
import os
import re
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from tests.cli.command import Person
from tests.cli.test_serve import workers
from tests.interop.programs import free_port

from privet import MemoryStore, SyncClient


def get(url: str, headers: dict[str, str] | None = None) -> tuple[int, str, str | None]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {})) as answer:
            return answer.status, answer.read().decode(), answer.headers["X-Request-ID"]
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), error.headers["X-Request-ID"]


def issue(directory: str, names: Sequence[str]) -> None:
    with SyncClient(directory, allow_insecure=True, store=MemoryStore()) as client:
        for name in names:
            client.issue(name)


def counted(metrics: str, sample: str) -> float:
    found = re.search(rf"^{re.escape(sample)} (\S+)$", metrics, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_a_server_says_that_it_lives_and_that_it_is_ready(person: Person) -> None:
    with person.serves("--auto-approve", "--mount", "/acme") as serving:
        base = serving.directory.removesuffix("/acme/directory")
        assert get(f"{base}/health/live")[:2] == (200, '{"status":"live"}')
        assert get(f"{base}/health/ready")[:2] == (200, '{"status":"ready"}')
        assert person.does("health", base).out == "ready\n"
        assert person.does("health", base, "--json").json == {"ready": True, "reasons": []}


def test_a_server_whose_authority_is_about_to_end_is_not_ready(person: Person) -> None:
    with person.serves("--auto-approve", "--ca-validity", "12h") as serving:
        base = serving.directory.removesuffix("/directory")
        status, body, _ = get(f"{base}/health/ready")
        assert status == 503
        (reason,) = json.loads(body)["reasons"]
        assert "the authority ends at" in reason
        asked = person.tries("health", base)
        assert (asked.status, asked.sentences) == (1, [f"not ready: {reason}"])
        assert person.tries("health", base, "--json").json == {"ready": False, "reasons": [reason]}


@pytest.mark.parametrize("secure", [False, True])
def test_a_container_checks_itself_with_the_settings_it_serves_with(person: Person, secure: bool) -> None:
    env = {"PRIVET_PORT": str(free_port()), "PRIVET_AUTO_APPROVE": "true", "PRIVET_TLS": str(secure).lower()}
    before = person.tries("health", env=env)
    assert before.status == 1
    with person.serves("--port", env["PRIVET_PORT"], env=env):
        assert person.does("health", env=env).out == "ready\n"
    after = person.tries("health", env=env)
    assert after.status == 1
    assert "cannot be asked" in after.sentences[0]


def test_the_health_of_a_server_on_a_socket(person: Person) -> None:
    env = {"PRIVET_UDS": str(person.folder / "privet.sock")}
    with person.serves("--auto-approve", env=env):
        assert person.does("health", env=env).out == "ready\n"


def test_who_answers_in_another_way_is_not_ready(person: Person, tmp_path: Path) -> None:
    with person.serves("--auto-approve") as serving:
        asked = person.tries("health", serving.directory)
        assert (asked.status, len(asked.sentences)) == (1, 1)
    for url in ("http://", "ftp://127.0.0.1", "http://127.0.0.1:1", "https://127.0.0.1:1", "http://[", "x" * 50):
        assert person.tries("health", url).status == 1
    for url in ("http://", "ftp://127.0.0.1", "http://127.0.0.1:99999", "https://ca.internal:0", "http://["):
        (sentence,) = person.tries("health", url).sentences
        assert "is no address of a server" in sentence


@pytest.mark.parametrize(
    ("status", "body"), [(503, b'{"status":"not ready","reasons":[]}'), (200, b'{"status":"not ready","reasons":[]}')]
)
def test_who_is_not_ready_and_does_not_say_why_is_not_ready(person: Person, status: int, body: bytes) -> None:
    class Odd(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

    with HTTPServer(("127.0.0.1", 0), Odd) as odd:
        threading.Thread(target=odd.handle_request, daemon=True).start()
        asked = person.tries("health", f"http://127.0.0.1:{odd.server_port}")
    assert (asked.status, asked.sentences) == (1, ["not ready: it does not say why"])


@pytest.mark.parametrize("workers", [1, 2])
def test_metrics_add_up_over_all_workers(person: Person, workers: int) -> None:
    port = free_port()
    options = ("--auto-approve", "--workers", str(workers), "--metrics", f"127.0.0.1:{port}")
    with person.serves(*options) as serving:
        for number in range(6):  # a connection each, so that all workers have some
            issue(serving.directory, [f"host-{number}.internal"])
        get(serving.directory.replace("directory", "nothing"))
        _, metrics, _ = get(f"http://127.0.0.1:{port}/metrics")
    assert counted(metrics, 'privet_certificates_issued_total{profile="default"}') == 6
    assert counted(metrics, 'privet_refusals_total{type="malformed"}') == 1
    answered = 'privet_request_duration_seconds_count{resource="finalize",status="200"}'
    assert counted(metrics, answered) == 6
    assert counted(metrics, "privet_store_duration_seconds_count") > 6
    assert 3640 < counted(metrics, "privet_authority_expires_days") <= 3650
    assert "internal" not in metrics.replace("serverInternal", "")


def test_metrics_are_nowhere_without_being_asked_for(person: Person) -> None:
    with person.serves("--auto-approve") as serving:
        assert get(serving.directory.replace("directory", "metrics"))[0] == 404


def test_metrics_where_nobody_can_listen(person: Person) -> None:
    with person.serves("--auto-approve") as serving:
        port = serving.directory.rsplit(":", 1)[1].partition("/")[0]
        done = person.tries("serve", "--auto-approve", "--port", "0", "--metrics", f"127.0.0.1:{port}")
        assert (done.status, len(done.sentences)) == (1, 1)
        assert "choose another with --metrics" in done.sentences[0]
    for wrong in ("9464", "localhost:9464", "127.0.0.1:0", "127.0.0.1:x", ":9464"):
        done = person.tries("serve", "--auto-approve", "--metrics", wrong)
        assert (done.status, len(done.sentences)) == (2, 1)


def test_logs_for_machines_say_which_request_they_are_about(person: Person) -> None:
    with person.serves("--auto-approve", "--log-format", "json", "--trusted-proxy", "127.0.0.1") as serving:
        issue(serving.directory, ["a.internal"])
        made = get(serving.directory)[2]
        assert made is not None
        said = get(serving.directory.replace("directory", "nothing"), {"X-Request-ID": "proxy-7"})[2]
        odd = get(serving.directory, {"X-Request-ID": "a b"})[2]
        serving.program.wait_for("there is nothing here")
        output = serving.program.output
    assert re.fullmatch("[0-9a-f]{16}", made)
    assert said == "proxy-7"
    assert odd is not None
    assert re.fullmatch("[0-9a-f]{16}", odd)
    lines = [json.loads(line) for line in output.splitlines() if line.startswith('{"')]
    assert all(line.keys() == {"timestamp", "severity", "body", "attributes"} for line in lines)
    (refused,) = [line for line in lines if "there is nothing here" in line["body"]]
    assert refused["attributes"]["request.id"] == "proxy-7"
    (issued,) = [line for line in lines if line["body"].startswith("issued ")]
    assert issued["severity"] == "INFO"
    assert issued["attributes"]["request.id"] not in (made, "proxy-7")


def test_a_strangers_request_id_is_not_taken(person: Person) -> None:
    with person.serves("--auto-approve", "--log-format", "json") as serving:
        assert get(serving.directory, {"X-Request-ID": "mine"})[2] != "mine"


@pytest.mark.parametrize("format", ["text", "json"])
def test_no_secret_is_in_the_log(person: Person, tmp_path: Path, format: str) -> None:
    password = tmp_path / "password"
    password.write_text("correct horse battery staple\n")
    key = ("--key-password-file", str(password))
    person.does("init", *key)
    made = person.does("eab", "create", "--name", "team-a", "--allow", "*.internal", "--json", *key).json
    # Without network names to look up, whoever is bound is trusted by a rule.
    rules = tmp_path / "policy.toml"
    rules.write_text('[[rule]]\nname = "everybody"\ntrust = ["*.internal"]\n')
    options = ("--require-eab", "--policy", str(rules), "--log-format", format, "--log-level", "debug", *key)
    with person.serves(*options) as serving:
        binding = (made["id"], made["hmac_key"])
        with SyncClient(
            serving.directory, allow_insecure=True, store=MemoryStore(), external_account=binding
        ) as client:
            client.issue("web.internal")
        serving.program.wait_for("issued ")
        output = serving.program.output
    for secret in ("correct horse", made["hmac_key"], "PRIVATE KEY"):
        assert secret not in output


def test_secrets_come_in_files(person: Person, tmp_path: Path) -> None:
    """As containers get them: PRIVET_…_FILE for any setting."""
    secret = tmp_path / "store"
    secret.write_text(f"sqlite:///{tmp_path}/elsewhere.db\n")
    env = {"PRIVET_STORE": "", "PRIVET_STORE_FILE": str(secret)}
    person.does("init", env=env)
    assert (tmp_path / "elsewhere.db").exists()
    both = person.tries("init", env={"PRIVET_STORE": "memory:", "PRIVET_STORE_FILE": str(secret)})
    assert (both.status, both.sentences) == (
        2,
        ["PRIVET_STORE and PRIVET_STORE_FILE are about the same setting: leave one of them out"],
    )
    nowhere = tmp_path / "nowhere"
    gone = person.tries("init", env={"PRIVET_STORE": "", "PRIVET_STORE_FILE": str(nowhere)})
    assert gone.status == 2
    assert gone.sentences == [
        f"the file {nowhere} that PRIVET_STORE_FILE names cannot be read: No such file or directory"
    ]


def test_what_is_in_a_file_is_not_told(person: Person, tmp_path: Path) -> None:
    secret = tmp_path / "store"
    secret.write_text("correct horse battery staple")
    done = person.tries("init", env={"PRIVET_STORE": "", "PRIVET_STORE_FILE": str(secret)})
    assert done.status == 2
    assert done.sentences[0].startswith("PRIVET_STORE_FILE has to be sqlite:///PATH, file:///PATH")
    assert "horse" not in done.err


def test_a_server_whose_authority_may_certify_names_alone_is_asked_by_its_name(person: Person) -> None:
    env = {
        "PRIVET_PORT": str(free_port()),
        "PRIVET_TLS": "true",
        "PRIVET_EXTERNAL_URL": "https://ca.internal",
        "PRIVET_PERMIT": "internal",
    }
    with person.serves("--auto-approve", "--port", env["PRIVET_PORT"], env=env):
        assert person.does("health", env=env).out == "ready\n"


def test_asking_for_health_all_the_time_costs_the_store_little(person: Person) -> None:
    port = free_port()
    with person.serves("--auto-approve", "--metrics", f"127.0.0.1:{port}") as serving:
        for _ in range(300):
            assert get(serving.directory.replace("directory", "health/ready"))[0] == 200
        _, metrics, _ = get(f"http://127.0.0.1:{port}/metrics")
    # One look a second; a slow machine takes some seconds for these.
    assert counted(metrics, "privet_store_duration_seconds_count") < 150


def test_what_a_killed_worker_has_counted_still_counts(person: Person) -> None:
    port = free_port()
    with person.serves("--auto-approve", "--workers", "2", "--metrics", f"127.0.0.1:{port}") as serving:
        supervisor = serving.program.process.pid
        issue(serving.directory, ["before.internal"])
        before = workers(supervisor)
        for worker in before:
            os.kill(worker, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while len(workers(supervisor) - before) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        issue(serving.directory, ["after.internal"])
        _, metrics, _ = get(f"http://127.0.0.1:{port}/metrics")
    assert counted(metrics, 'privet_certificates_issued_total{profile="default"}') == 2
    assert counted(metrics, "privet_workers_replaced_total") == 2
