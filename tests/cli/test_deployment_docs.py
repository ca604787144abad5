"""What docs/deployment.md shows works as it stands there. Its containers are tried in tests/container."""

import json
import os
import re
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from tests.cli.command import Person
from tests.interop.programs import Program, free_port, need

from privet.acme.challenges import ChallengeType
from privet.acme.problems import ProblemType
from privet.cli.serve.metrics import Metrics, count_replaced

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/deployment.md").read_text()


def block(language: str, line: str) -> str:
    """The one block of code with this in it."""
    (found,) = [each for each in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if line in each]
    return str(found)


def get(url: str) -> httpx.Response:
    with httpx.Client(trust_env=False, timeout=60) as client:
        return client.get(url)


def test_the_secrets_are_made_as_the_compose_file_says() -> None:
    head = [line for line in (ROOT / "docker-compose.ha.yml").read_text().splitlines() if line.startswith("#   ")]
    page = block("sh", "mkdir -p secrets").splitlines()
    assert [line.removeprefix("#   ") for line in head] == [line.removesuffix(" --detach --wait") for line in page]


def test_what_it_calls_services_and_variables_is_there() -> None:
    for file in re.findall(r"docker-compose\.\w+\.yml", PAGE):
        assert (ROOT / file).exists()
    services = set(re.findall(r"^  ([\w-]+):", (ROOT / "docker-compose.ha.yml").read_text(), re.MULTILINE))
    assert {"privet-1", "privet-2", "certificate", "nginx"} <= services
    for file in ("docker-compose.yml", "docker-compose.ha.yml"):
        for variable in ("PRIVET_EXTERNAL_URL", "PRIVET_PUBLISH"):
            assert f"${{{variable}:-" in (ROOT / file).read_text()
            assert variable in PAGE


def test_the_images_below_are_those_it_names_and_can_be_others() -> None:
    named = dict(re.findall(r"\$\{(\w+_IMAGE):-(\S+)\}", (ROOT / "docker-compose.ha.yml").read_text()))
    assert set(named) == set(re.findall(r"^(\w+_IMAGE)=", PAGE, re.MULTILINE))
    for variable, image in named.items():
        assert f"`{image}`" in PAGE
        assert f"{variable}={image.partition(':')[0]}@sha256:" in PAGE
    python = f"PYTHON_IMAGE: ${{PYTHON_IMAGE:-{named['PYTHON_IMAGE']}}}"
    assert python in (ROOT / "docker-compose.yml").read_text()
    assert f"ARG PYTHON_IMAGE={named['PYTHON_IMAGE']}\n" in (ROOT / "Dockerfile").read_text()


async def _get(app: Any, path: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ca.internal") as client:
        return await client.get(path)


@pytest.mark.anyio
async def test_the_application_with_a_health_check() -> None:
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(block("python", "find_faults"), "deployment.md", "exec"), names)
    ready = await _get(names["app"], "/ready")
    assert (ready.status_code, ready.json()) == (200, {"reasons": []})
    assert (await _get(names["app"], "/acme/directory")).status_code == 200


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_every_metric_is_in_the_table_with_its_labels() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    count_replaced(registry)
    made = {name for name in registry._names_to_collectors if not re.search("_(created|bucket|count|sum)$", name)}
    made = {name for name in made if f"{name}_total" not in made} | {"privet_authority_expires_days"}
    table = dict(re.findall(r"^\| `(privet_\w+)(?:\{([\w,]+)\})?` \|", PAGE, re.MULTILINE))
    assert made == set(table)
    for name, labels in table.items():
        if name in registry._names_to_collectors:
            assert ",".join(registry._names_to_collectors[name]._labelnames) == labels  # type: ignore[attr-defined]


def test_alerts_ask_for_what_there_is() -> None:
    table = dict(re.findall(r"^\| `(privet_\w+)(?:\{([\w,]+)\})?` \|", PAGE, re.MULTILINE))
    asked = re.findall(r"(privet_\w+?)(?:_count|_bucket)?(?:\{(\w+)=~?\"([^\"]+)\"\})?(?=[\[ )])", PAGE)
    assert len(asked) >= 7
    for name, label, value in asked:
        assert name in table
        assert not label or label in table[name].split(",")
        if label == "type":
            known = {type.value[0] for type in ProblemType} | {str(type) for type in ChallengeType}
            assert value in known


def test_alerts_about_nothing_hear_of_what_was_never_counted() -> None:
    """In Prometheus a sum of nothing is no zero, but nothing at all, and compares with nothing."""
    expressions = re.findall(r"^\| [^`|]+ \| `(.+)` \|$", PAGE, re.MULTILINE)
    about_nothing = [each for each in expressions if "== 0" in each]
    assert len(about_nothing) == 2
    assert all(re.match(r"\(sum\(\w+\(\S+\)\) or vector\(0\)\) == 0", each) for each in about_nothing)


def test_log_lines_look_as_they_do_on_the_page(person: Person) -> None:
    (shown,) = map(json.loads, block("json", "timestamp").splitlines())
    with person.serves("--auto-approve", "--log-format", "json") as serving:
        get(f"{serving.base}/nothing")
        line = json.loads(serving.program.wait_for(r"\{.*there is nothing here.*\}\n").group())
    assert line.keys() == shown.keys()
    assert line["attributes"].keys() == shown["attributes"].keys()
    assert re.sub("[0-9]", "0", line["timestamp"]) == re.sub("[0-9]", "0", shown["timestamp"])


def test_probes_ask_for_what_is_answered(person: Person) -> None:
    paths = re.findall(r"path: (\S+),", block("yaml", "livenessProbe"))
    assert len(paths) == 2
    with person.serves("--auto-approve", "--mount", "/acme") as serving:
        base = serving.base.removesuffix("/acme")
        assert [get(base + path).status_code for path in paths] == [200, 200]
        own, other = block("sh", "privet health http").splitlines()
        assert own == "privet health"
        command = other.replace("http://127.0.0.1:8555", base).split()
        assert person.does(*command[1:]).json == {"ready": True, "reasons": []}


def test_metrics_are_where_the_page_says(person: Person) -> None:
    (options,) = re.findall("privet serve (.*--metrics.*)\n", PAGE)
    port = str(free_port())
    with person.serves(*options.replace("9464", port).split()) as serving:
        (url,) = re.findall(r"Prometheus reads `(\S+)`", PAGE)
        assert f"metrics      {url.replace('9464', port)}\n" in serving.program.output
        assert "privet_authority_expires_days 36" in get(url.replace("9464", port)).text


@pytest.mark.interop
def test_behind_nginx_on_one_machine(person: Person) -> None:
    folder, port = person.folder, free_port()
    (issue,) = re.findall("`privet (issue .*?)`", PAGE)
    person.does("init")
    person.does(*issue.replace("/etc/nginx", str(folder)).split())
    options = re.findall("privet serve (--uds .*)\n", PAGE)[0].replace("/run/privet", str(folder)).split()
    page = block("nginx", "privet.sock").replace("/run/privet", str(folder)).replace("/etc/nginx", str(folder))
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    (folder / "nginx.conf").write_text(
        f"{'user root;' if os.geteuid() == 0 else ''} daemon off; pid {folder}/pid; events {{}}\n"
        f"http {{ access_log off; {''.join(f'{kind}_temp_path {folder}/{kind};' for kind in kinds)}\n"
        f"{page.replace('listen 443 ssl', f'listen 127.0.0.1:{port} ssl')} }}"
    )
    trust = ssl.create_default_context(cadata=person.does("root").out)
    with person.serves(*options, "--log-format", "json") as serving:
        assert serving.directory == "https://ca.internal/directory"
        nginx = Program(need("nginx"), "-e", "stderr", "-c", folder / "nginx.conf", "-p", folder)
        try:
            nginx.wait_for_port(port)
            with httpx.Client(verify=trust, trust_env=False, timeout=60) as client:
                answer = client.get(f"https://127.0.0.1:{port}/directory", extensions=_NAME)
                assert answer.json()["newOrder"] == "https://ca.internal/new-order"
                assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"]), "nginx's own"
                assert client.get(f"https://127.0.0.1:{port}/health/ready", extensions=_NAME).status_code == 404
        finally:
            nginx.stop()


_NAME = {"sni_hostname": "ca.internal"}
