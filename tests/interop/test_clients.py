"""certbot and lego: account, issue, renew, revoke, over http and https, mounted or not, asked for challenges or not."""

from pathlib import Path
from uuid import uuid4

import pytest
from tests.interop.clients import Certbot, Client, Lego
from tests.interop.serving import Privet

pytestmark = pytest.mark.interop


@pytest.fixture(params=[Certbot, Lego], ids=lambda client: client.name)
def client(request: pytest.FixtureRequest, server: Privet, root: Path, tmp_path: Path) -> Client:
    made: Client = request.param(tmp_path / "client", server.directory, root)
    return made


@pytest.fixture
def host() -> str:
    return f"host-{uuid4().hex[:12]}.internal"


def test_several_names_are_issued_renewed_and_revoked(
    server: Privet, client: Client, root: Path, host: str, key_type: str
) -> None:
    names = [host, f"www.{host}", f"mail.{host}"]

    first = client.issue(names, key_type)
    first.check(root, names, key_type)
    account = client.accounts()
    assert len(account) == 1

    second = client.renew(names, key_type)
    second.check(root, names, key_type)
    assert second.serial != first.serial
    assert client.accounts() == account

    client.revoke(names)
    revoked = server.show(second.serial)
    assert (revoked["status"], revoked["reason"]) == ("revoked", "superseded")
    listed = server.certificates(names)
    assert [each["serial"] for each in listed] == [first.serial, second.serial]
    assert [each["status"] for each in listed] == ["valid", "revoked"]
    assert len({each["account"] for each in listed}) == 1


def test_an_address_and_a_name(server: Privet, client: Client, root: Path, host: str) -> None:
    if client.name == "lego":
        # lego 4.9 asks for {"type": "dns", "value": "127.0.0.1"}, which RFC 8738 does not allow.
        with pytest.raises(AssertionError, match="ends in a number, so it is no DNS name"):
            client.issue(["127.0.0.1"])
        return
    client.issue(["127.0.0.1", host, "::1"]).check(root, ["127.0.0.1", host, "::1"])


def test_a_wildcard(client: Client, root: Path, host: str) -> None:
    client.issue([f"*.{host}", host]).check(root, [f"*.{host}", host])


def test_everything_is_still_there_after_a_restart(server: Privet, client: Client, root: Path, host: str) -> None:
    client.issue([host])
    account, known = client.accounts(), server.listed()

    server.stop()
    server.start()

    assert [each for each in server.listed() if each in known] == known
    assert server.root().read_bytes() == root.read_bytes()
    second = client.renew([host])
    second.check(root, [host])
    assert client.accounts() == account
    client.revoke([host])
    assert [each["status"] for each in server.certificates([host])] == ["valid", "revoked"]
