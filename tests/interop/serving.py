"""A real `privet serve` with a store on disk, as other people's programs meet it."""

import hashlib
import json
import re
import ssl
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from tests.interop.programs import Program, free_port, run

PRIVET = (sys.executable, "-m", "privet")


class Privet:
    """`privet serve --store sqlite:///FOLDER/privet.db OPTIONS`, on the same port each time it is started."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        store: str = "",
        auto_approve: bool = True,
        command: Sequence[str] = PRIVET,
    ) -> None:
        self.folder = folder
        self.command = command
        self.options = list(options)
        self.store = store or f"sqlite:///{folder / 'privet.db'}"
        if auto_approve:
            self.options.append("--auto-approve")
        if "--uds" not in options and "--port" not in options:
            self.options += ["--port", str(free_port())]
        self.program: Program | None = None
        self.directory = ""
        self._read = 0

    def start(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._read = 0
        self.program = Program(*self.command, "serve", "--store", self.store, *self.options, cwd=self.folder)
        self.directory = self.program.wait_for(r"https?://\S+/directory\b").group()
        return self

    def said(self) -> str:
        """What the server has printed since this was last asked."""
        assert self.program is not None
        output = self.program.output
        new, self._read = output[self._read :], len(output)
        return new

    def stop(self) -> None:
        assert self.program is not None
        assert self.program.stop() == 0, f"privet did not end well:\n{self.program.output}"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, failure: object, *_: object) -> None:
        assert self.program is not None
        if failure:
            print(self.program.output)
            self.program.stop()
        else:
            self.stop()

    def root(self) -> Path:
        """Fetch the root certificate as a newcomer does: unverified, then compared with the printed fingerprint."""
        path = self.folder / "root.pem"
        url = self.directory.removesuffix("directory") + "ca.pem"
        with urllib.request.urlopen(url, context=ssl._create_unverified_context()) as answer:
            pem = answer.read()
        assert self.program is not None
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.decode())).hexdigest()
        assert digest in re.sub("[^0-9a-f]", "", self.program.output.lower())
        path.write_bytes(pem)
        return path

    def privet(self, *arguments: str) -> str:
        return run(*PRIVET, *arguments, "--store", self.store, cwd=self.folder)

    def listed(self) -> list[dict[str, Any]]:
        """What `privet list --json` says."""
        certificates: list[dict[str, Any]] = json.loads(self.privet("list", "--json"))
        return certificates

    def certificates(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """The certificates for exactly these names, in the order in which they were issued."""
        return [each for each in self.listed() if sorted(each["names"]) == sorted(names)]

    def show(self, serial: str) -> dict[str, Any]:
        certificate: dict[str, Any] = json.loads(self.privet("show", "--json", serial))
        return certificate
