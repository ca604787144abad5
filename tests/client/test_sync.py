"""The client without `await`, where a person ends it."""

import signal
import sys
from datetime import timedelta
from pathlib import Path

from tests.interop.programs import Program

from privet import Limits
from privet.testing import ACMEServer

PATIENT = """
import sys
from privet import SyncClient

class Proof:
    challenge_type = "http-01"
    async def present(self, identifier, token, key_authorization):
        print("up", flush=True)
    async def cleanup(self, identifier, token, key_authorization):
        print("down", flush=True)

directory, ca_bundle = sys.argv[1:]
with SyncClient(directory, ca_bundle=ca_bundle, challenge_handler=Proof(), patience=7200) as client:
    print(client, flush=True)
    client.issue("a.internal")
"""


def test_whoever_interrupts_it_waits_for_nobody_and_leaves_no_proof_behind(tmp_path: Path) -> None:
    """The server says that it is to be asked again in an hour."""
    (tmp_path / "patient.py").write_text(PATIENT)
    slow = Limits(patience=timedelta(seconds=0.05), retry_after=timedelta(hours=1))
    with ACMEServer(limits=slow) as server:
        server.slow_validation(3600)
        with Program(sys.executable, tmp_path / "patient.py", server.directory_url, server.ca_bundle) as program:
            program.wait_for(f"<SyncClient of {server.directory_url}>")
            program.wait_for("up")
            program.process.send_signal(signal.SIGINT)
            program.wait_for("down")
            program.wait_for("KeyboardInterrupt")
            assert program.process.wait(60) == -signal.SIGINT


HASTY = """
import os, signal, sys, threading, time
from privet import SyncClient

def interrupt(event, arguments):
    if event == "socket.__new__" and threading.current_thread() is not threading.main_thread() and not done:
        done.append(event)  # the client's event loop is being made
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)

done = []
with SyncClient("https://127.0.0.1:1/directory") as client:
    sys.addaudithook(interrupt)
    client.account_url()
"""


def test_whoever_interrupts_it_while_it_starts_need_not_do_so_again(tmp_path: Path) -> None:
    (tmp_path / "hasty.py").write_text(HASTY)
    with Program(sys.executable, tmp_path / "hasty.py") as program:
        program.wait_for("KeyboardInterrupt")
        assert program.process.wait(60) == -signal.SIGINT
