"""Three services under constant mutual TLS traffic, with certificates of seconds: all are renewed again and again, no
request fails, and a CA that is killed for a while is not missed.

In short by default; `--mesh` has it go on for three minutes, with certificates of thirty seconds.
"""

import json
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.interop.programs import Program, free_port
from tests.interop.serving import Privet

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

NODES = {f"node-{number}.internal": f"127.0.77.{number}" for number in (1, 2, 3)}


class Story(NamedTuple):
    """How long certificates live, when they are renewed, how long the traffic lasts, and how often each node has to
    have renewed by then; and for how long in the middle of it the CA is dead, in seconds.

    Who is to do without a CA for so long has to have renewed as long before the end: `options` see to it.
    """

    validity: int
    options: Mapping[str, float]
    traffic: float
    renewals: int
    without_ca: float = 0


SHORT = [Story(30, {"renewal_threshold": 0.25}, 45, 4, without_ca=6)]
LONG = [Story(30, {}, 180, 8), Story(30, {"renewal_threshold": 0.1}, 180, 8, without_ca=20)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    stories = LONG if metafunc.config.getoption("mesh") else SHORT
    ids = [f"{each.traffic:g}s" + f"-{each.without_ca:g}s-without-ca" * bool(each.without_ca) for each in stories]
    metafunc.parametrize("story", stories, ids=ids)


def service(name: str, ports: Mapping[str, int], ca: Privet, root: Path, story: Story, folder: Path) -> Program:
    folder.mkdir()
    told = {
        "name": name,
        "address": NODES[name],
        "port": ports[name],
        "directory": ca.directory,
        "root": str(root),
        "options": story.options,
        "peers": {each: f"https://{NODES[each]}:{ports[each]}/" for each in NODES if each != name},
    }
    return Program(sys.executable, "-W", "error", Path(__file__).with_name("service.py"), json.dumps(told), cwd=folder)


def test_all_are_renewed_and_no_request_fails(story: Story, tmp_path: Path) -> None:
    ports = {name: free_port() for name in NODES}
    pause = threading.Event().wait
    with Privet(tmp_path / "ca", "--tls", "--validity", f"{story.validity}s") as ca:
        root = ca.root()
        services = {name: service(name, ports, ca, root, story, tmp_path / name) for name in NODES}
        try:
            for each in services.values():
                each.wait_for("^up$")
            for each in services.values():
                each.process.send_signal(signal.SIGUSR1)
            pause((story.traffic - story.without_ca) / 2)
            if story.without_ca:
                assert ca.program is not None
                ca.program.kill()
                pause(story.without_ca)
                ca.start()
            pause((story.traffic - story.without_ca) / 2)
            for each in services.values():
                each.process.send_signal(signal.SIGUSR2)
            seen = {name: json.loads(each.wait_for(r"(?m)^\{.*\}$").group()) for name, each in services.items()}
        finally:
            for each in services.values():
                each.stop()
    print(json.dumps(seen, indent=2))
    for name, each in services.items():
        assert each.process.returncode == -signal.SIGTERM, each.output  # as uvicorn ends
        assert "Traceback" not in each.output, each.output
        check(name, seen[name], story)


def check(name: str, seen: dict[str, Any], story: Story) -> None:
    assert seen["failures"] == []
    assert seen["requests"] > 2 * story.traffic, "the traffic was constant"
    assert seen["renewals"] >= story.renewals
    assert (seen["renewal failures"] > 0) == (story.without_ca > 0)
    others = {each for each in NODES if each != name}
    # What they show over new connections is new, on either side, and what has been open stays as it was.
    for side in ("shown", "called by"):
        assert seen[side].keys() == others
        assert min(seen[side].values()) >= story.renewals
    assert seen["shown by those that stay"] == dict.fromkeys(others, 1)
