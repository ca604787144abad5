"""kill -9 at every commit of an issuance by token: no certificate without its record, no use that is not counted."""

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from tests.server.conftest import Clock
from tests.vault.conftest import Scene, leaf

from privet import open_store

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
# Where it is killed, and what is on record then: statuses of certificates, and how often the token was used.
MOMENTS: list[tuple[int, str, list[str], int]] = [
    (1, "before", [], 0),
    (1, "after", ["prepared"], 1),
    (2, "before", ["prepared"], 1),
    (2, "after", ["valid"], 1),
    (0, "never", ["valid"], 1),
]


@dataclass
class Told:
    """What a process said before it ended, and how it did."""

    answers: list[dict[str, Any]]
    ended: int


def run(tasks: list[dict[str, Any]]) -> list[Told]:
    lines = "".join(json.dumps(task) + "\n" for task in tasks)
    command = [sys.executable, "-m", "tests.vault.crashing"]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, cwd=ROOT, check=True)
    told: list[Told] = []
    answers: list[dict[str, Any]] = []
    for words in map(json.loads, done.stdout.splitlines()):
        if "ended" in words:
            told.append(Told(answers, words["ended"]))
            answers = []
        else:
            answers.append(words)
    assert len(told) == len(tasks), done.stderr
    return told


@pytest.mark.parametrize("scheme", ["sqlite", "file"])
async def test_a_kill_at_every_commit_leaves_no_certificate_without_its_record(scheme: str, tmp_path: Path) -> None:
    tasks: list[dict[str, Any]] = []
    for number, (commit, when, _, _) in enumerate(MOMENTS):
        url = f"{scheme}:///{tmp_path}/{number}"
        with open_store(url) as store:
            token = Scene(store, Clock(START)).token(uses=2)
        tasks.append({"store": url, "token": token, "commit": commit, "when": when, "now": START.isoformat()})
    for task, told, (commit, _, statuses, used) in zip(tasks, run(tasks), MOMENTS, strict=True):
        assert told.ended == (-signal.SIGKILL if commit else 0)
        assert [each["status"] for each in told.answers] == ([] if commit else [200])
        with open_store(task["store"]) as store:
            after = Scene(store, Clock(START))
            found = after.certificates()
            assert [each.status for each in found] == statuses
            assert [each.used for each in after.tokens()] == [used] == [len(found)]
            for answer in told.answers:
                assert leaf(answer["data"]).public_bytes(Encoding.DER) == found[0].der
            for each in found:
                if each.der is not None:
                    x509.load_der_x509_certificate(each.der).verify_directly_issued_by(after.ca.root_cert)
            # What is left of the token is as good as ever, and nobody finishes what has lost its key.
            async with after.http:
                for left in range(used, 3):
                    response = await after.ask("issue/web", task["token"], {"common_name": "web.internal"})
                    assert response.status_code == (200 if left < 2 else 403)
            assert sorted(each.status for each in after.certificates()) == [*statuses, *["valid"] * (2 - used)]
            assert [each.used for each in after.tokens()] == [2]
