"""Our client and somebody else's server: Pebble, with its refused nonces."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from tests.client.pebble import Pebble

from privet import Client, ClientError, FileStore, KeyType, Problem, ProblemType
from privet.challenges.dns01 import DNS01Handler
from privet.challenges.http01 import HTTP01Handler
from privet.challenges.tlsalpn01 import TLSALPN01Handler

pytestmark = [pytest.mark.anyio, pytest.mark.interop, pytest.mark.xdist_group("pebble")]

EXTERNAL = ("kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W")


@pytest.fixture(scope="module")
def pebble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    with Pebble(tmp_path_factory.mktemp("pebble")) as running:
        yield running


@pytest.fixture(scope="module")
def strict_pebble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    with Pebble(tmp_path_factory.mktemp("strict"), external_accounts=dict([EXTERNAL])) as running:
        yield running


def http01(pebble: Pebble) -> HTTP01Handler:
    return HTTP01Handler(pebble.http, "127.0.0.1")


async def test_http_01(pebble: Pebble, tmp_path: Path) -> None:
    with FileStore(tmp_path) as store:
        async with Client(
            pebble.directory, store=store, ca_bundle=pebble.root, challenge_handler=http01(pebble)
        ) as client:
            bundle = await client.issue(["web.internal", "www.web.internal"])
            assert bundle.fullchain_path is not None
            assert bundle.fullchain_path.read_bytes() == bundle.fullchain_pem
            again = await client.renew(bundle)  # which a Pebble that has renewal information is told of
            assert again.serial != bundle.serial


async def test_dns_01_and_a_wildcard(pebble: Pebble) -> None:
    handler = DNS01Handler(pebble, resolver=f"127.0.0.1:{pebble.dns}", wait=0)
    async with Client(pebble.directory, ca_bundle=pebble.root, challenge_handler=handler) as client:
        bundle = await client.issue(["*.zone.internal"], key_type=KeyType.P384)
        assert bundle.domains == ("*.zone.internal",)


async def test_tls_alpn_01_for_a_name_and_an_address(pebble: Pebble) -> None:
    handler = TLSALPN01Handler(pebble.tls, "127.0.0.1")
    async with Client(pebble.directory, ca_bundle=pebble.root, challenge_handler=handler) as client:
        await client.issue("tls.internal")
        await client.issue("127.0.0.1")


@pytest.mark.parametrize("key_type", [KeyType.P256, KeyType.P384, KeyType.RSA2048])
async def test_key_change_contact_and_revocation(pebble: Pebble, key_type: KeyType) -> None:
    async with Client(
        pebble.directory,
        ca_bundle=pebble.root,
        challenge_handler=http01(pebble),
        account_key_type=key_type,
        contact="ops@web.internal.example",
    ) as client:
        first = await client.issue("a.internal")
        url = await client.account_url()
        await client.change_account_key()
        await client.update_account("mailto:team@web.internal.example")
        assert await client.account_url() == url
        second = await client.issue("a.internal")
        await client.revoke(first, "superseded")
        await client.revoke(second, "keyCompromise", key_pem=second.key_pem)
        with pytest.raises(Problem) as caught:
            await client.revoke(first)
        assert caught.value.type is ProblemType.ALREADY_REVOKED
        assert b"Revoked" in pebble.get(f"/cert-status-by-serial/{first.serial:x}")
        await client.deactivate_account()


async def test_external_account_binding(strict_pebble: Pebble) -> None:
    options: dict[str, Any] = {"ca_bundle": strict_pebble.root, "challenge_handler": http01(strict_pebble)}
    async with Client(strict_pebble.directory, **options) as client:
        with pytest.raises(ClientError, match="external account"):
            await client.issue("a.internal")
    async with Client(strict_pebble.directory, external_account=("other", "AAAA"), **options) as client:
        with pytest.raises(Problem):
            await client.issue("a.internal")
    async with Client(strict_pebble.directory, external_account=EXTERNAL, **options) as client:
        await client.issue("a.internal")


async def test_the_chain_of_another_root(pebble: Pebble) -> None:
    names = []
    for index in (0, 1):
        root = x509.load_pem_x509_certificate(pebble.get(f"/roots/{index}"))
        names.append(root.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
    async with Client(pebble.directory, ca_bundle=pebble.root, challenge_handler=http01(pebble)) as client:
        for name in names:
            bundle = await client.issue("a.internal", preferred_chain=str(name))
            chain = x509.load_pem_x509_certificates(bundle.fullchain_pem)
            assert chain[-1].issuer.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == name


async def test_a_server_that_is_not_trusted_gets_nothing(pebble: Pebble) -> None:
    async with Client(pebble.directory) as client:
        with pytest.raises(ClientError, match=r"not trusted here.*ca_fingerprint="):
            await client.issue("a.internal")


async def test_a_challenge_that_is_not_met_is_told(pebble: Pebble) -> None:
    async with Client(pebble.directory, ca_bundle=pebble.root, challenge_handler=HTTP01Handler(port=None)) as client:
        with pytest.raises(Problem) as caught:
            await client.issue("a.internal")
        assert caught.value.type is ProblemType.CONNECTION
