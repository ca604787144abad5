"""Three services under constant mutual TLS traffic, with certificates of seconds: all are renewed again and again, no
request fails, and a CA that is killed for a while is not missed.

In short by default; `--mesh` has it go on for three minutes, and for three more. What is counted is waited for: a slow
machine takes longer, and does not fail.
"""

import json
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.interop.programs import Program, free_port
from tests.interop.serving import Privet

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

NODES = {f"node-{number}.internal": f"127.0.77.{number}" for number in (1, 2, 3)}


class Story(NamedTuple):
    """How long certificates live, when they are renewed, how long the traffic lasts at least, and how often each node
    has to renew; and for how long the CA is dead in the middle of it, at least, in seconds.

    It stays dead until every node has missed it. `options` see to it that this is long before the first certificate
    ends: each node asks for a new one when a tenth of the old one's life is over, or a fifth.
    """

    validity: int
    options: Mapping[str, float]
    traffic: float
    renewals: int
    without_ca: float | None = None


SHORT = [Story(45, {"renewal_threshold": 0.1}, 45, 4, without_ca=0)]
LONG = [Story(30, {}, 180, 8), Story(60, {"renewal_threshold": 0.1}, 180, 12, without_ca=20)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    stories = LONG if metafunc.config.getoption("mesh") else SHORT
    ids = [f"{each.traffic:g}s" + "-partly-without-ca" * (each.without_ca is not None) for each in stories]
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
    with Privet(tmp_path / "ca", "--tls", "--validity", f"{story.validity}s") as ca:
        root = ca.root()
        services = {name: service(name, ports, ca, root, story, tmp_path / name) for name in NODES}
        try:
            for each in services.values():
                each.wait_for("^up$")
            began = time.monotonic()
            for each in services.values():
                each.process.send_signal(signal.SIGUSR1)
            # What they show in the beginning is new to the others too.
            wait_for_renewals(services, 1 + story.renewals // 2)
            if story.without_ca is not None:
                assert ca.program is not None
                heard = {name: len(each.output) for name, each in services.items()}
                ca.program.kill()
                time.sleep(story.without_ca)
                for name, each in services.items():
                    # Whoever has asked by now has most of its certificate's life left.
                    each.wait_for("(?m)^not renewed: no answer", after=heard[name], seconds=story.validity / 2)
                ca.start()
            wait_for_renewals(services, story.renewals - story.renewals // 2)
            # By now nothing that they began with is good any more, however fast that was.
            time.sleep(max(0, began + story.traffic - time.monotonic()))
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


def wait_for_renewals(services: Mapping[str, Program], number: int) -> None:
    """Wait until each has met so many certificates of each other that are new from now on, shown and called with."""
    began = {name: len(each.output) for name, each in services.items()}
    for name, each in services.items():
        for other in NODES.keys() - {name}:
            for how in ("shows", "calls"):
                after = began[name]
                for _ in range(number):
                    after = each.wait_for(f"(?m)^{other} {how} another certificate$", after=after, seconds=120).end()


def check(name: str, seen: dict[str, Any], story: Story) -> None:
    assert seen["failures"] == []
    assert seen["renewals"] >= story.renewals
    assert (seen["renewal failures"] > 0) == (story.without_ca is not None)
    others = {each for each in NODES if each != name}
    # What they show over new connections is new, on either side, and what has been open stays as it was.
    for side in ("shown", "called by"):
        assert seen[side].keys() == others
        assert min(seen[side].values()) > story.renewals
    assert seen["shown by those that stay"] == dict.fromkeys(others, 1)
