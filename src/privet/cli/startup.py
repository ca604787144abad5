"""The first words that are spoken with a PostgreSQL: for TLS, and for a user to be let in. No more is said.

Speaks for "Message Flow" in PostgreSQL's documentation of its protocol. The law of this module: whatever a server
answers is read within bounds, and is an `Answer`, or an `OSError`.
"""

import socket
import struct
from dataclasses import dataclass

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_PROTOCOL = 3 << 16
_TERMINATE = b"X" + struct.pack("!i", 4)
_MOST = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether a user is let in, is asked for something else such as a password, or is refused, and why. `routine` is
    the part of the server that refuses, which has the same name in every language."""

    refusal: str | None = None
    code: str | None = None
    routine: str | None = None
    asks: bool = False


_NO_POSTGRESQL = Answer(refusal="it answers something that is not PostgreSQL's protocol")


def offers_tls(plain: socket.socket) -> bool | None:
    """Ask for TLS, which may begin if this is true; None from what is no PostgreSQL. Raises `OSError`."""
    plain.sendall(_SSL_REQUEST)
    return {b"S": True, b"N": False}.get(plain.recv(1))


def log_in(connection: socket.socket, user: str, database: str) -> Answer:
    """Ask to be let in, and leave again. Raises `OSError`."""
    wanted = {"user": user} | ({"database": database} if database else {})
    body = b"".join(f"{name}\0{value}\0".encode() for name, value in wanted.items()) + b"\0"
    connection.sendall(struct.pack("!ii", len(body) + 8, _PROTOCOL) + body)
    left = _MOST
    while True:
        kind, length = struct.unpack("!ci", _read(connection, 5))
        left -= length
        if length < 4 or left < 0:
            return _NO_POSTGRESQL
        message = _read(connection, length - 4)
        match kind:
            case b"E":  # ErrorResponse: before a yes, or behind it, as for a database that is not there
                fields = {chr(part[0]): part[1:].decode(errors="replace") for part in message.split(b"\0") if part}
                return Answer(fields.get("M", "it does not say why"), fields.get("C"), fields.get("R"))
            case b"R" if message[:4] != bytes(4):  # Authentication, by something else than what it has seen
                return Answer(asks=True)
            case b"Z":  # ReadyForQuery
                connection.sendall(_TERMINATE)
                return Answer()


def _read(connection: socket.socket, length: int) -> bytes:
    read = b""
    while len(read) < length:
        more = connection.recv(length - len(read))
        if not more:
            raise ConnectionResetError("it hangs up")
        read += more
    return read
