"""Workers: processes that serve together, and the one that keeps as many of them as were asked for.

The law of this module: a worker that ends is replaced, however long that takes, and the log tells of it; only where
none could start at all is that the end.
"""

import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import resource_tracker
from types import MappingProxyType

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from privet.cli.failures import Failure
from privet.cli.serve.listening import spread

log = logging.getLogger("privet")

# How many looks, of a second or so each, a worker may leave unanswered. It is silent while it starts, which takes a
# small machine that starts several of them far longer than the five seconds that uvicorn would wait.
_PATIENCE = 30
# How long a look waits for an answer, in seconds: meanwhile no signal is heeded.
_LOOK = 0.5
# How many looks, of half a second each, until the next try, when what took a worker's place could not start.
_PAUSE = 10


def run_workers(config: uvicorn.Config, sockets: list[socket.socket], replaced: Callable[[], None] | None) -> None:
    """Serve with several processes until a signal comes; `replaced` is called for each that is replaced. Raises
    `Failure`."""
    supervisor = _Supervisor(config, spread(sockets))
    supervisor.replaced = replaced
    supervisor.run()
    if supervisor.gave_up:
        raise Failure("a worker could not start: its log above says why")


class _Supervisor(Multiprocess):
    gave_up = False
    replaced: Callable[[], None] | None = None
    _first: frozenset[Process] = frozenset()
    _unanswered: Mapping[Process, int] = MappingProxyType({})
    """How many looks of late. Time is no measure: all of them, with this one, may have been stopped for a while."""

    def init_processes(self) -> None:
        with _deaf():
            super().init_processes()
        self._first = frozenset(self.processes)

    def restart_all(self) -> None:
        with _deaf():
            super().restart_all()

    def terminate_all(self) -> None:
        # Whoever connects from now on is to be told at once, and not when the last worker has ended.
        for listening in self.sockets:
            listening.close()
        super().terminate_all()

    def keep_subprocess_alive(self) -> None:
        self._unanswered = looks = {worker: self._unanswered.get(worker, 0) + 1 for worker in self.processes}
        for place, worker in enumerate(self.processes):
            if self.should_exit.is_set():
                return
            if worker.process.is_alive():
                if worker.ping(_LOOK):
                    looks[worker] = 0
                elif looks[worker] > _PATIENCE:
                    log.warning("the worker %s does not answer any more: another replaces it", worker.pid)
                    self._replace(place)
            elif self.signal_queue:
                return  # systemd, and Ctrl+C, tell all processes at once, and some are quicker to end
            elif worker.exitcode != STARTUP_FAILURE:
                log.warning("the worker %s %s: another replaces it", worker.pid, _end(worker.exitcode))
                self._replace(place)
            elif all(each in self._first and each.exitcode == STARTUP_FAILURE for each in self.processes):
                self.gave_up = True
                self.should_exit.set()
            elif looks[worker] > _PAUSE:
                self._replace(place)

    def _replace(self, place: int) -> None:
        before = self.processes[place]
        before.kill()  # if it is not dead yet
        before.join()
        self.processes[place] = Process(self.config, self.sockets)
        with _deaf():
            self.processes[place].start()
        if self.replaced is not None:
            self.replaced()


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Have who is started meanwhile never hear of Ctrl+C, which is the supervisor's to heed: it would interrupt them in
    whatever they begin with."""
    resource_tracker.ensure_running()  # which lets the signal through again, if it is only started later
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(exitcode: int | None) -> str:
    """How a process has ended."""
    if exitcode is None or exitcode >= 0:
        return f"has ended with status {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    by = f"was killed by {name}"
    return f"{by}, as the system does where memory is short" if -exitcode == signal.SIGKILL else by
