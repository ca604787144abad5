"""A town of hosts for validators to walk about in: a CA, a client, a neighbour and a nameserver.

Where we may, each host is a network namespace with a thread of this process in it, wired to a bridge that exists only
here: real ports, a loopback for each, and nothing of the world outside. Elsewhere they are addresses of 127.0.0.0/8.
Either way, no packet leaves the machine.
"""

import asyncio
import contextlib
import ctypes
import ipaddress
import itertools
import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from privet.validation import Networks

Value = TypeVar("Value")
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

_HOUSES = itertools.count(1)
NAMES = ("ca", "client", "neighbour", "dns")


class Host:
    """A host with an event loop of its own. `run` does something there, `serve` listens there."""

    def __init__(
        self,
        address: str,
        address6: str,
        namespace: str | None,
        new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
    ) -> None:
        self._new_loop = new_loop
        self.namespace = namespace
        self.address = address
        self.address6 = address6
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()
        assert self._ready.wait(60)

    def _live(self) -> None:
        if self.namespace is not None:
            _enter(self.namespace)
        self.loop = self._new_loop()
        self.loop.call_soon(self._ready.set)
        self.loop.run_forever()
        self.loop.close()

    def run(self, doing: Coroutine[Any, Any, Value]) -> Value:
        return asyncio.run_coroutine_threadsafe(doing, self.loop).result(60)

    @contextlib.contextmanager
    def serve(
        self, handler: Handler, port: int, *, address: str | None = None, tls: ssl.SSLContext | None = None
    ) -> Iterator["Listener"]:
        listener = Listener(handler)
        server = self.run(listener.listen(address or self.address, port, tls))
        try:
            yield listener
        finally:
            self.run(listener.close(server))

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)


class Listener:
    """What listens at a port, and how often it was called on."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.calls = 0
        self.most_at_once = 0
        self._now: set[asyncio.Task[Any]] = set()

    async def listen(self, address: str, port: int, tls: ssl.SSLContext | None) -> asyncio.Server:
        return await asyncio.start_server(self._called, address, port, ssl=tls, backlog=1000)

    async def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.calls += 1
        task = asyncio.current_task()
        assert task
        self._now.add(task)
        self.most_at_once = max(self.most_at_once, len(self._now))
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError, asyncio.IncompleteReadError):
                await self.handler(reader, writer)
        finally:
            self._now.discard(task)
            if writer.transport.is_closing():
                writer.transport.abort()
            else:
                writer.close()

    async def close(self, server: asyncio.Server) -> None:
        server.close()
        for task in self._now:
            task.cancel()
        await asyncio.gather(*self._now, return_exceptions=True)


class Town:
    """`port` says where a well-known port is: there where every host has its own, elsewhere where nobody else is."""

    def __init__(self, *, real: bool = os.environ.get("PRIVET_TOWN") != "loopback") -> None:
        self.namespaces: list[str] = []
        self.real = real and _can_make_namespaces()
        if self.real:
            hosts = self._found()
        else:
            # A street for each process, and a house for each town in it.
            seat = f"127.{77 + os.getpid() % 170}.{next(_HOUSES)}"
            hosts = [Host(f"{seat}.{number}", "::1", None) for number in range(1, len(NAMES) + 1)]
            self.seat = f"{seat}.0/24"
        self.ca, self.client, self.neighbour, self.dns = hosts

    def _found(self) -> list[Host]:
        town = f"privet{os.getpid()}"
        bridge = f"{town}-lan"
        self.namespaces = [bridge]
        lines = [f"netns add {bridge}"]
        inside = ["link add lan type bridge", "link set lan up"]
        for number, name in enumerate(NAMES, 1):
            host = f"{town}-{name}"
            self.namespaces.append(host)
            lines += [
                f"netns add {host}",
                f"link add eth0 netns {host} type veth peer name {name} netns {bridge}",
                f"-n {host} link set lo up",
                f"-n {host} addr add 10.77.0.{number}/24 dev eth0",
                f"-n {host} addr add fd77::{number}/64 dev eth0 nodad",
                f"-n {host} link set eth0 up",
            ]
            inside += [f"link set {name} master lan", f"link set {name} up"]
        for line in itertools.chain(lines, (f"-n {bridge} {line}" for line in inside)):
            subprocess.run(["ip", *line.split()], check=True, capture_output=True)
        self._wait_for_links()
        return [Host(f"10.77.0.{number}", f"fd77::{number}", f"{town}-{name}") for number, name in enumerate(NAMES, 1)]

    def _wait_for_links(self) -> None:
        """The kernel sees a carrier when it gets round to it, within a second."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            links = subprocess.run(["ip", "-n", self.namespaces[0], "-j", "link"], check=True, capture_output=True)
            if {link["operstate"] for link in json.loads(links.stdout) if link["ifname"] != "lo"} == {"UP"}:
                return
            time.sleep(0.02)
        raise RuntimeError("the links between the hosts do not come up")

    def port(self, number: int) -> int:
        return number if self.real else 20000 + number

    def networks(self, **options: Any) -> Networks:
        """What a CA of this town lets validators connect to: by default, what any CA would."""
        allow = [*options.pop("allow", ())]
        if not self.real:
            allow += [self.seat, "::1"]
        return Networks(allow=allow, **options)

    def command(self, name: str) -> list[str]:
        """What a program's command begins with to run on the host of this name."""
        if not self.real:
            return []
        return ["ip", "netns", "exec", self.namespaces[1 + NAMES.index(name)]]

    def cut_off(self, name: str, cut: bool) -> None:
        """Take a host off the net, or put it back. What is sent to it then is not answered at all."""
        state = "down" if cut else "up"
        subprocess.run(["ip", "-n", self.namespaces[0], "link", "set", name, state], check=True, capture_output=True)

    def end(self) -> None:
        for host in (self.ca, self.client, self.neighbour, self.dns):
            host.end()
        for namespace in self.namespaces:
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)


def _can_make_namespaces() -> bool:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    probe = f"privet{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", probe], check=False, capture_output=True).returncode == 0
    if made:
        subprocess.run(["ip", "netns", "del", probe], check=True, capture_output=True)
    return made


def _enter(namespace: str) -> None:
    """Move this thread, and only this thread, into a network namespace."""
    with Path("/run/netns", namespace).open() as file:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(file.fileno(), 0x40000000):  # CLONE_NEWNET
            raise OSError(ctypes.get_errno(), "setns")


async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take the call, and say nothing until the other side gives up."""
    while await reader.read(4096):
        pass


def says(data: bytes) -> Handler:
    """Hear the request, say this, and hang up."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()

    return handler


def says_for_ever(first: bytes, again: bytes, pause: float = 0) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(first)
        while True:
            writer.write(again)
            await writer.drain()
            await asyncio.sleep(pause)

    return handler


class Site:
    """A web server with a page for each path, and a memory of what was asked of it."""

    def __init__(self, pages: dict[str, bytes]) -> None:
        self.pages = pages
        self.requests: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.requests.append(request)
        writer.write(self.pages.get(request.split(" ")[1], response(404, b"not here")))
        await writer.drain()


def self_signed(*names: str) -> ssl.SSLContext:
    """A server's side of TLS, with a certificate that nobody vouches for."""
    return server_side(*certificate(*names))


def certificate(*names: str, extensions: Sequence[tuple[x509.ExtensionType, bool]] = ()) -> tuple[bytes, bytes]:
    """A certificate and its key in PEM, with the names as they are asked for, none for none."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "whoever")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2026, 1, 2, tzinfo=UTC))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([general_name(name) for name in names]), False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    signed = builder.sign(key, hashes.SHA256())
    return (
        signed.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def server_side(certificate: bytes, key: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(certificate + key)
        file.flush()
        context.load_cert_chain(file.name)
    return context


def response(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} So", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@contextlib.asynccontextmanager
async def datagrams(
    address: str, port: int, received: Callable[[bytes, tuple[str, int]], list[bytes]]
) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()

    class Protocol(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, sender: Any) -> None:
            for answer in received(data, sender[:2]):
                self.transport.sendto(answer, sender)

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    transport, _ = await loop.create_datagram_endpoint(Protocol, local_addr=(address, port), family=family)
    try:
        yield
    finally:
        transport.close()
