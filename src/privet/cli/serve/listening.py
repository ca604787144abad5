"""Where the server listens: the addresses a host name stands for, who may reach them, and the sockets.

The law of this module: a socket that is returned takes connections already, and a socket file is removed by whoever
made it.
"""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import cast

from privet.cli.failures import Failure

_BACKLOG = 2048
# How many sockets a worker has of its own, beside the one that is common to all.
_OWN = 4


def resolve(host: str) -> list[str]:
    """The addresses that a host name or an address stands for here. Raises `Failure` if there are none."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise Failure(f"--host {host} is neither an address nor a name that can be resolved: {reason}") from None
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def is_public(address: str) -> bool:
    """Whether anybody may be able to reach it: a global address, or every address this machine has."""
    ip = ip_address(address)
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return ip.is_unspecified or ip.is_global


def is_loopback(address: str) -> bool:
    return ip_address(address).is_loopback


def is_unspecified(address: str) -> bool:
    return ip_address(address).is_unspecified


@contextlib.contextmanager
def listen(host: str, port: int, *, shared: bool = False) -> Iterator[list[socket.socket]]:
    """Listen on every address of a host; port 0 takes one that is free. `shared` ones are for `spread`. Raises
    `Failure`."""
    sockets: list[socket.socket] = []
    refused: Failure | None = None
    with contextlib.ExitStack() as opened:
        for address in resolve(host):
            try:
                if shared:  # whoever shares a port does not notice that somebody else has it
                    with _bind(address, port, False) as alone:
                        port = alone.getsockname()[1]
                listening = opened.enter_context(_listen(address, port, shared))
            except OSError as error:
                refused = Failure(_reason(error, address, port))
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise refused from None
                continue  # such as ::1 where there is no IPv6
            port = listening.getsockname()[1]
            sockets.append(listening)
        if not sockets and refused:
            raise refused
        yield sockets


class _Beside:
    """In the supervisor nothing but an address; in a worker that it is sent to, another socket that is bound there. The
    worker listens when it serves: if it cannot, nobody has come to it in vain."""

    def __init__(self, listening: socket.socket) -> None:
        self._at = listening.getsockname()[:2]

    def __reduce__(self) -> tuple[object, ...]:
        return _bind, (*self._at, True)

    def close(self) -> None:
        pass


def spread(sockets: list[socket.socket]) -> list[socket.socket]:
    """What workers are given to serve, so that all of them are asked. Where they wait at one socket, whoever is awake
    already takes all who connect, and keeps them for as long as they stay; so each listens by some of its own as well,
    among which the kernel spreads connections. They go when the worker goes, and what is common to all remains."""
    beside = [_Beside(each) for each in sockets for _ in range(_OWN) if each.family != socket.AF_UNIX]
    return [*sockets, *cast("list[socket.socket]", beside)]


def _listen(address: str, port: int, shared: bool) -> socket.socket:
    listening = _bind(address, port, shared)
    try:
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


def _bind(address: str, port: int, shared: bool) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((address, port))
    except BaseException:
        bound.close()
        raise
    return bound


def _reason(error: OSError, address: str, port: int) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"{address} port {port} is in use by another program: stop it, or choose another with --port"
        case errno.EACCES:
            return f"you may not listen on port {port}: choose one above 1023 with --port"
        case errno.EADDRNOTAVAIL:
            return f"{address} is no address of this machine: choose one that is with --host"
        case _:
            return f"cannot listen on {address} port {port}: {error.strerror}; choose others with --host and --port"


@contextlib.contextmanager
def listen_at(path: Path, mode: int) -> Iterator[list[socket.socket]]:
    """Listen on a Unix socket, made with this mode and removed at the end. Raises `Failure`."""
    _remove_stale(path)
    with socket.socket(socket.AF_UNIX) as listening:
        umask = os.umask(0o777 & ~mode)
        try:
            listening.bind(str(path))
        except OSError as error:
            reason = error.strerror or str(error)
            raise Failure(f"cannot listen on the socket {path}: {reason}; choose another with --uds") from None
        finally:
            os.umask(umask)
        made = path.stat().st_ino
        try:
            listening.listen(_BACKLOG)
            listening.setblocking(False)
            yield [listening]
        finally:
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == made:
                    path.unlink()


def _remove_stale(path: Path) -> None:
    """Remove the socket file of a server that was killed; leave one that somebody listens on, and anything else."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise Failure(f"{path} exists and is no socket: choose another path with --uds")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        path.unlink()
        return
    except OSError as error:
        raise Failure(f"cannot listen on the socket {path}: {error}; choose another with --uds") from None
    raise Failure(f"another program listens on the socket {path}: stop it, or choose another with --uds")
