"""The real command, in a process of its own, as a person or a program runs it."""

import atexit
import functools
import json
import os
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.interop.programs import Program

PRIVET = (sys.executable, "-m", "privet")
DATABASE = "sqlite:///privet.db"


def environment(folder: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a person whose home is this folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PRIVET_")}
    return {**kept, "HOME": str(folder), "COLUMNS": "200", "NO_COLOR": "1", **(more or {})}


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a command."""

    status: int
    out: str
    err: str

    @property
    def sentences(self) -> list[str]:
        """What went wrong: a line each, and nothing else on stderr."""
        lines = self.err.splitlines()
        assert all(line.startswith("privet: ") for line in lines), self.err
        return [line.removeprefix("privet: ") for line in lines]

    @property
    def json(self) -> Any:
        return json.loads(self.out)


# Files belong to nobody else, so that only root has to become another.
_NOBODY = 65534 if os.geteuid() == 0 else None


class Nursery:
    """Where commands are run without waiting for an interpreter each (see `nursery`)."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("nursery.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(self._end)

    def run(self, job: Mapping[str, object]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(job), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def _end(self) -> None:
        self._process.communicate()


@functools.cache
def _nursery() -> Nursery:
    return Nursery()


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody in a folder, with a store in it."""

    folder: Path
    store: str = DATABASE

    def tries(
        self,
        command: str,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        nobody: bool = False,
        dies_at: int | None = None,
    ) -> Done:
        """Run `privet COMMAND …`, however it ends; perhaps as a user who may do nothing, or killed before the change of
        this number that it makes in the folder."""
        with tempfile.TemporaryDirectory() as outputs:
            out, err = Path(outputs, "out"), Path(outputs, "err")
            job = {
                "argv": ["privet", command, *map(str, arguments)],
                "cwd": str(self.folder),
                "env": environment(self.folder, {"PRIVET_STORE": self.store, **(env or {})}),
                "out": str(out),
                "err": str(err),
                "user": _NOBODY if nobody else None,
                "dies_at": dies_at,
            }
            done = Done(_nursery().run(job), out.read_text(), err.read_text())
        assert "Traceback" not in done.err, done.err
        return done

    def does(self, command: str, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Done:
        """Run `privet COMMAND …`, which has to go well."""
        done = self.tries(command, *arguments, env=env)
        assert done.status == 0, done.err
        return done

    def serves(self, *options: str | Path, env: Mapping[str, str] | None = None) -> "Serving":
        """`privet serve …` on a port that is free, unless the options say otherwise."""
        port = [] if {"--port", "--uds"} & {str(option) for option in options} else ["--port", "0"]
        return Serving(self, [*port, *map(str, options)], env)


class Serving:
    """A running `privet serve`. At the end it is asked to stop, and has to do so well."""

    def __init__(self, person: Person, options: list[str], env: Mapping[str, str] | None) -> None:
        self.person = person
        self.program = Program(
            *PRIVET,
            "serve",
            *options,
            env=environment(person.folder, {"PRIVET_STORE": person.store, **(env or {})}),
            cwd=person.folder,
        )
        self.directory = self.program.wait_for(r"directory +(\S+/directory)\n").group(1)

    @property
    def base(self) -> str:
        return self.directory.removesuffix("/directory")

    @property
    def port(self) -> int:
        return int(self.base.split("/")[2].rpartition(":")[2])

    def trust(self) -> ssl.SSLContext:
        """A client's context that trusts nothing but the root."""
        context = ssl.create_default_context(cadata=self.person.does("root").out)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    def stop(self) -> str:
        """Stop it, and return all it said."""
        status = self.program.stop()
        assert status == 0, self.program.output
        assert "Traceback" not in self.program.output, self.program.output
        return self.program.output

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failure: object, *_: object) -> None:
        if failure:
            print(self.program.output)
            self.program.stop()
        else:
            self.stop()
