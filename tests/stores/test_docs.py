"""What docs/stores.md says is so, and its store of one's own is all it takes."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.certificates import openssl_verify
from tests.wire import Wire

from privet import ACMEResponder, CertificateAuthority, FileStore, SQLiteStore

PAGE = Path(__file__).parents[2] / "docs/stores.md"


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the program of the page has made, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(block, PAGE, "exec"), names)
    yield names
    names["ca"].store.store.close()


def test_a_store_of_ones_own_keeps_keys_elsewhere(names: dict[str, Any], tmp_path: Path) -> None:
    """Row L27: that is all it takes, for the authority, for its bundles and for ACME."""
    ca: CertificateAuthority = names["ca"]
    bundles = [ca.issue("by-hand.internal") for _ in range(2)]
    chain = asyncio.run(get_certificate(ACMEResponder(ca, auto_approve=True)))
    openssl_verify(chain, ca.root_cert_pem, chain_pem=chain, name="by-acme.internal")

    files = [path.read_bytes() for path in tmp_path.glob("ca.db*")]
    assert any(b"by-hand.internal" in content for content in files)
    assert not any(b"PRIVATE KEY" in content for content in files)
    assert set(names["secrets"].values()) >= {bundle.key_pem for bundle in bundles}

    with SQLiteStore(tmp_path / "ca.db") as store:
        again = CertificateAuthority(names["KeysElsewhere"](store, names["secrets"]))
        again.init()
        assert again.root_cert_pem == ca.root_cert_pem
        assert again.issue("another.internal").fullchain_pem.endswith(ca.root_cert_pem)


async def get_certificate(responder: ACMEResponder) -> bytes:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(responder), base_url="http://ca.internal") as http:
        wire = Wire(http, "http://ca.internal")
        await wire.register()
        return await wire.issue("by-acme.internal")


def test_the_password_protects_the_authoritys_key_and_not_those_it_made_for_others(tmp_path: Path) -> None:
    with FileStore(tmp_path / "folder") as store:
        ca = CertificateAuthority(store, key_password=b"a long one")
        ca.init()
        bundle = ca.issue("web.internal")
    folder = tmp_path / "folder"
    assert (folder / "ca/root/key.pem").read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert (folder / "certs/web.internal/key.pem").read_bytes() == bundle.key_pem
    assert bundle.key_pem.startswith(b"-----BEGIN PRIVATE KEY-----")
