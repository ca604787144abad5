"""A PostgreSQL of our own: made, started, stopped, killed, and followed by a standby.

It lies in a folder of its own directly below the temporary one, for PostgreSQL does not run as root: then it belongs to
the user that Debian's package made.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Self

import psycopg
from tests.interop.programs import ELSEWHERE, free_port, need

BINARIES = os.pathsep.join(
    [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)] + [ELSEWHERE]
)
_QUICK = "-c fsync=off -c max_connections=200 -c listen_addresses=127.0.0.1"


class PostgreSQL:
    """`password` is asked for by TCP and is the superuser's; without one, everybody on this machine is trusted."""

    def __init__(self, *, options: str = _QUICK, password: str = "") -> None:
        self._initdb = need("initdb", path=BINARIES, source="the postgresql-15 package")
        self._as = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.geteuid() == 0 else []
        self.folder = Path(tempfile.mkdtemp(prefix="privet-postgresql-"))
        self.folder.chmod(0o700)
        self.data = self.folder / "data"
        self.port = free_port()
        self.password = password
        self.options = f"{options} -k {self.folder} -p {self.port}"
        self._numbers = count(1)

    def make(self) -> Self:
        secret = self.folder / "password"
        secret.write_text(self.password or "none")
        if self._as:
            shutil.chown(self.folder, "postgres", "postgres")
            shutil.chown(secret, "postgres", "postgres")
        how = "scram-sha-256" if self.password else "trust"
        self._run("initdb", "-D", self.data, "-U", "postgres", "-A", how, f"--pwfile={secret}", "-E", "UTF8", "-N")
        return self

    def start(self) -> Self:
        self._run("pg_ctl", "-D", self.data, "-l", self.folder / "log", "-o", self.options, "-w", "start")
        return self

    def stop(self, mode: str = "fast") -> None:
        """Stop it: "fast" ends every session, "immediate" is what a crash is like."""
        self._run("pg_ctl", "-D", self.data, "-m", mode, "-w", "stop")

    def speak_tls(self, settings: Mapping[str, str | Path], rules: str, maps: str = "") -> None:
        """Have it speak TLS by these settings, and let in, beside the superuser of this machine, whom the rules say."""
        (self.data / "pg_hba.conf").write_text(f"host all postgres 127.0.0.1/32 trust\n{rules}\n")
        (self.data / "pg_ident.conf").write_text(f"{maps}\n")
        for name, value in {**settings, "ssl": "on"}.items():
            self.do(f"ALTER SYSTEM SET {name} = '{value}'")
        self.do("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 60
        while self.do("SHOW ssl") != [("on",)]:
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.05)  # between two looks

    @property
    def user(self) -> str:
        """Whom its files have to belong to."""
        return "postgres" if self._as else pwd.getpwuid(os.geteuid()).pw_name

    def reload(self) -> str:
        """The command that has it read its files again."""
        psql = need("psql", path=f"{ELSEWHERE}{os.pathsep}{BINARIES}", source="the postgresql package")
        where = f"host=127.0.0.1 port={self.port} user=postgres sslmode=disable"
        return f"{psql} '{where}' -c 'SELECT pg_reload_conf()'"

    def promote(self) -> None:
        self._run("pg_ctl", "-D", self.data, "-w", "promote")

    def standby(self) -> "PostgreSQL":
        """Another one that follows this one, started."""
        other = PostgreSQL(password=self.password)
        if other._as:
            shutil.chown(other.folder, "postgres", "postgres")
        source = ["-h", str(self.folder), "-p", str(self.port), "-U", "postgres", "-c", "fast", "-N"]
        other._run("pg_basebackup", "-D", other.data, *source, "-R", "-X", "stream")
        return other.start()

    def remove(self) -> None:
        with suppress(AssertionError):
            self.stop("immediate")
        shutil.rmtree(self.folder)

    def __enter__(self) -> Self:
        return self.make().start()

    def __exit__(self, *_: object) -> None:
        self.remove()

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        secret = f":{self.password}" if self.password else ""
        return f"postgresql://{user}{secret}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"test_{next(self._numbers)}"
        self.do(f"CREATE DATABASE {name}")
        return self.url(name)

    def do(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        writing = "-c default_transaction_read_only=off"
        with psycopg.connect(self.url(database), autocommit=True, options=writing) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _run(self, program: str, *arguments: str | Path) -> None:
        # What is started here outlives the program that starts it, and must not hold a pipe of ours.
        command = [*self._as, str(Path(self._initdb).with_name(program)), *map(str, arguments)]
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.folder, timeout=120
            )
            output.seek(0)
            assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{output.read()}"
