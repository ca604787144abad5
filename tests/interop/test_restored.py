"""A store that was restored from a backup of before their time: how certbot, lego and our own client go on."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.interop.clients import Certbot, Lego
from tests.interop.programs import run
from tests.interop.serving import PRIVET, Privet

from privet import Client, FileStore

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("restored")]


def test_clients_go_on_when_their_accounts_are_gone(tmp_path: Path) -> None:
    server = Privet(tmp_path / "server")
    server.folder.mkdir()
    server.privet("init")
    (tmp_path / "password").write_text("correct horse battery\n")
    password = ("--backup-password-file", str(tmp_path / "password"))
    server.privet("backup", str(tmp_path / "backup"), *password)

    async def own() -> None:
        with FileStore(tmp_path / "own") as store:
            async with Client(server.directory, allow_insecure=True, store=store) as client:
                await client.issue("own.internal")

    with server:
        root = server.root()
        for name in ("certbot", "lego"):
            (tmp_path / name).mkdir()
        certbot = Certbot(tmp_path / "certbot", server.directory, root)
        lego = Lego(tmp_path / "lego", server.directory, root)
        certbot.issue(["certbot.internal"])
        lego.issue(["lego.internal"])
        asyncio.run(own())
    server.store = f"sqlite:///{tmp_path / 'restored.db'}"
    run(*PRIVET, "restore", tmp_path / "backup", "--store", server.store, *password)
    with server:
        assert server.root().read_bytes() == root.read_bytes()
        asyncio.run(own())
        refused(lambda: certbot.renew(["certbot.internal"]))
        refused(lambda: lego.renew(["lego.internal"]))
        shutil.rmtree(tmp_path / "certbot/config/accounts")
        shutil.rmtree(tmp_path / "lego/accounts")
        certbot.renew(["certbot.internal"]).check(root, ["certbot.internal"])
        lego.issue(["lego.internal"]).check(root, ["lego.internal"])
        assert len(server.listed()) == 3


def refused(call: Callable[[], object]) -> None:
    with pytest.raises(AssertionError, match="ended with 1"):
        call()
