"""Looking names up (RFC 1034, RFC 1035): at the nameservers we were told, with an end to everything.

Names are looked up as they are: no search list, no hosts file. What is sent and received is ours; dnspython reads and
writes the messages. The law: any answer at all is records or a `LookupFailed`, and an answer to another question
counts for nothing. DNSSEC is the nameserver's business: one that validates says SERVFAIL.
"""

import asyncio
import contextlib
import ipaddress
import os
import socket
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import NamedTuple, TypeVar

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.CAA
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.TXT
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA

from privet.validation.gates import Gate
from privet.validation.networks import IPAddress
from privet.validation.trail import Trail

Rdata = TypeVar("Rdata", bound=dns.rdata.Rdata)

RESOLV_CONF = Path("/etc/resolv.conf")

# What survives every path unfragmented (DNS flag day 2020); more comes by TCP.
_PAYLOAD = 1232
# So many datagrams that answer something else, and somebody is guessing.
_STRAYS = 50


class LookupFailed(Exception):  # noqa: N818 - its text is for a person
    """No answer that could be used. The text says why, without the name, and without a byte of any answer."""


class NoSuchName(LookupFailed):
    """The name does not exist, or has no records of the kind."""


class Nameserver(NamedTuple):
    address: str
    port: int

    def __str__(self) -> str:
        return shown(self.address, self.port)


class Answer(NamedTuple):
    """What one message says about a name."""

    records: tuple[dns.rdata.Rdata, ...]
    alias: dns.name.Name | None
    """The name that has to be asked about next: the message's aliases lead there, and end."""
    aliases: int
    exists: bool


class Resolver:
    """Looks names up at `nameservers`: addresses, perhaps with a port (`10.0.0.53`, `10.0.0.53:5353`,
    `[fd00::53]:5353`); by default those of /etc/resolv.conf.

    A nameserver that does not answer within `timeout` seconds, or answers with an error, is followed by the next one,
    and once more by all of them; a look-up with all its aliases ends after `lifetime` seconds. Raises `ValueError` for
    what is no nameserver.
    """

    def __init__(
        self,
        nameservers: Iterable[str] | None = None,
        *,
        port: int = 53,
        timeout: float = 2.0,
        lifetime: float = 8.0,
        max_aliases: int = 8,
        gate: Gate | None = None,
    ) -> None:
        if isinstance(nameservers, str):
            raise ValueError("nameservers is a list of addresses")
        texts = system_nameservers() if nameservers is None else list(nameservers)
        if not texts:
            raise ValueError("a resolver needs a nameserver")
        self.nameservers = tuple(read_nameserver(text, port) for text in texts)
        self.timeout = timeout
        self.lifetime = lifetime
        self.max_aliases = max_aliases
        self._gate = gate or Gate(total=500, per_target=250)

    async def addresses(self, name: str, trail: Trail) -> tuple[IPAddress, ...]:
        """The IPv6 and IPv4 addresses of a name. Raises `LookupFailed`."""
        failures: list[LookupFailed] = []

        async def of_kind(kind: type[dns.rdtypes.IN.A.A] | type[dns.rdtypes.IN.AAAA.AAAA]) -> list[IPAddress]:
            try:
                return [ipaddress.ip_address(record.address) for record in await self._look_up(name, kind, trail)]
            except LookupFailed as failure:
                failures.append(failure)
                return []

        six, four = await asyncio.gather(of_kind(dns.rdtypes.IN.AAAA.AAAA), of_kind(dns.rdtypes.IN.A.A))
        found = [*six, *four]
        if found:
            return tuple(found)
        # One kind of record that could not be had may be the one there is; only if both are known to be missing is
        # the name known to have no address.
        if failures:
            raise next((each for each in failures if not isinstance(each, NoSuchName)), failures[0])
        raise NoSuchName("it has no address (no A or AAAA record)")

    async def texts(self, name: str, trail: Trail) -> tuple[bytes, ...]:
        """The TXT records of a name, the strings of each joined. Raises `LookupFailed`."""
        records = await self._look_up(name, dns.rdtypes.ANY.TXT.TXT, trail)
        if not records:
            raise NoSuchName("there is no TXT record")
        return tuple(b"".join(record.strings) for record in records)

    async def caa(self, name: str, trail: Trail) -> tuple[tuple[int, bytes, bytes], ...]:
        """The CAA records of a name: flags, tag, value. None if there are none, or no such name. Raises
        `LookupFailed`."""
        try:
            records = await self._look_up(name, dns.rdtypes.ANY.CAA.CAA, trail)
        except NoSuchName:
            return ()
        return tuple((record.flags, record.tag, record.value) for record in records)

    async def _look_up(self, name: str, kind: type[Rdata], trail: Trail) -> list[Rdata]:
        try:
            async with asyncio.timeout(self.lifetime):
                return await self._follow(name, kind, trail)
        except TimeoutError:
            raise LookupFailed(f"the nameservers took longer than {self.lifetime:g} s") from None

    async def _follow(self, name: str, kind: type[Rdata], trail: Trail) -> list[Rdata]:
        type = dns.rdatatype.from_text(kind.__name__)
        try:
            asked = dns.name.from_text(name)
        except dns.exception.DNSException:
            raise LookupFailed("it is too long for a name, or is none") from None
        seen = {asked}
        aliases = 0
        while True:
            answer = await self._ask(asked, type, trail)
            aliases += answer.aliases
            if aliases > self.max_aliases:
                raise LookupFailed(f"it leads through more than {self.max_aliases} aliases")
            if answer.alias is None:
                break
            asked = answer.alias
            if asked in seen:
                raise LookupFailed("its aliases (CNAME records) lead in a circle")
            seen.add(asked)
        if not answer.exists:
            raise NoSuchName("there is no such name" if not aliases else "it is an alias of a name that is not there")
        return [record for record in answer.records if isinstance(record, kind)]

    async def _ask(self, name: dns.name.Name, type: dns.rdatatype.RdataType, trail: Trail) -> Answer:
        """Ask one nameserver after the other, and then once more: datagrams get lost."""
        failure = LookupFailed("no nameserver answered")
        for nameserver in self.nameservers * 2:
            trail.add(f"{type.name} {name.to_text(omit_final_dot=True)}", str(nameserver))
            async with self._gate.enter(str(nameserver), trail.asker):
                try:
                    async with asyncio.timeout(self.timeout):
                        return read_answer(await exchange(nameserver, name, type), name, type)
                except LookupFailed as error:
                    failure = LookupFailed(f"the nameserver {nameserver} {error}")
                except TimeoutError:
                    failure = LookupFailed(f"the nameserver {nameserver} gave no usable answer in {self.timeout:g} s")
                except OSError as error:
                    failure = LookupFailed(f"the nameserver {nameserver} cannot be reached: {why(error)}")
        raise failure


async def exchange(nameserver: Nameserver, name: dns.name.Name, type: dns.rdatatype.RdataType) -> dns.message.Message:
    """One question and the answer to it: by UDP, and by TCP if it is too long for that."""
    query = dns.message.make_query(name, type, use_edns=0, payload=_PAYLOAD)
    message = await _by_udp(nameserver, query)
    if message.flags & dns.flags.TC:
        message = await _by_tcp(nameserver, query)
        if message.flags & dns.flags.TC:
            raise LookupFailed("cut its answer short by TCP as well")
    return message


async def _by_udp(nameserver: Nameserver, query: dns.message.Message) -> dns.message.Message:
    loop = asyncio.get_running_loop()
    with _socket(nameserver, socket.SOCK_DGRAM) as sock:
        # Connected, so the kernel drops what comes from elsewhere, and says when nobody is there.
        sock.connect(nameserver)
        await loop.sock_sendall(sock, query.to_wire())
        for _ in range(_STRAYS):
            message = read_message(await loop.sock_recv(sock, 65535), query)
            if message is not None:
                return message
    raise LookupFailed("was drowned out by answers to other questions")


async def _by_tcp(nameserver: Nameserver, query: dns.message.Message) -> dns.message.Message:
    async with _stream(nameserver) as (reader, writer):
        wire = query.to_wire()
        writer.write(len(wire).to_bytes(2, "big") + wire)
        try:
            length = int.from_bytes(await reader.readexactly(2), "big")
            message = read_message(await reader.readexactly(length), query)
        except asyncio.IncompleteReadError:
            raise LookupFailed("broke off its answer") from None
    if message is None:
        raise LookupFailed("sent something else than the answer")
    return message


def _socket(nameserver: Nameserver, kind: socket.SocketKind) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in nameserver.address else socket.AF_INET, kind)
    sock.setblocking(False)
    return sock


@contextlib.asynccontextmanager
async def _stream(nameserver: Nameserver) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    sock = _socket(nameserver, socket.SOCK_STREAM)
    try:
        await asyncio.get_running_loop().sock_connect(sock, nameserver)
        reader, writer = await asyncio.open_connection(sock=sock)
    except BaseException:
        sock.close()
        raise
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def read_message(wire: bytes, query: dns.message.Message) -> dns.message.Message | None:
    """The message, if it is one and answers the query: same id, same question."""
    try:
        message = dns.message.from_wire(wire, ignore_trailing=False)
        return message if query.is_response(message) else None
    except Exception:  # whatever dnspython thinks of bytes a stranger sent
        return None


def read_answer(message: dns.message.Message, name: dns.name.Name, type: dns.rdatatype.RdataType) -> Answer:
    """What the message says about the name. Raises `LookupFailed`."""
    rcode = message.rcode()
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise LookupFailed(f"answered {rcode.name if isinstance(rcode, dns.rcode.Rcode) else 'with an error'}")
    aliases = 0
    seen = {name}
    while True:
        records = _find(message, name, type)
        if records:
            return Answer(records, None, aliases, True)
        alias = next(
            (
                each
                for each in _find(message, name, dns.rdatatype.CNAME)
                if isinstance(each, dns.rdtypes.ANY.CNAME.CNAME)
            ),
            None,
        )
        if alias is None:
            break
        name = alias.target
        aliases += 1
        if name in seen:
            raise LookupFailed("answered with aliases (CNAME records) in a circle")
        seen.add(name)
    exists = rcode == dns.rcode.NOERROR
    kinds = {rrset.rdtype for rrset in message.authority}
    if exists and not aliases and dns.rdatatype.NS in kinds and dns.rdatatype.SOA not in kinds:
        # RFC 2308 §2.2: a referral. Who asks is told where to ask, and not that there is nothing.
        raise LookupFailed("refers to other nameservers, which are not asked; ask one that asks them itself")
    # A nameserver that asks others for us says how it ends: that name does not exist, or an SOA record says that it
    # has nothing of the kind (RFC 2308 §2). Otherwise it only knew the alias.
    ended = not exists or dns.rdatatype.SOA in kinds
    return Answer((), None if ended or not aliases else name, aliases, exists)


def _find(
    message: dns.message.Message, name: dns.name.Name, type: dns.rdatatype.RdataType
) -> tuple[dns.rdata.Rdata, ...]:
    return tuple(
        record
        for rrset in message.answer
        if rrset.name == name and rrset.rdtype == type and rrset.rdclass == dns.rdataclass.IN
        for record in rrset
    )


def system_nameservers(path: Path = RESOLV_CONF) -> list[str]:
    """The nameservers that resolv.conf(5) names; without any, it says, the one on this machine."""
    try:
        lines = [line.split() for line in path.read_text(errors="replace").splitlines()]
    except OSError:
        lines = []
    return [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"] or ["127.0.0.1"]


def read_nameserver(text: str, port: int = 53) -> Nameserver:
    """Raises `ValueError`."""
    address, colon, number = text.strip().rpartition(":")
    if not colon or (":" in address and not address.endswith("]")):
        address, number = text.strip(), str(port)
    address = address.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(address)
        if not (number.isascii() and number.isdigit() and 0 < int(number) < 65536):
            raise ValueError("the port is a number up to 65535")
    except ValueError as error:
        raise ValueError(f"{text!a} is not a nameserver such as 10.0.0.53 or [fd00::53]:5353: {error}") from None
    return Nameserver(address, int(number))


def shown(address: object, port: int) -> str:
    return f"[{address}]:{port}" if ":" in str(address) else f"{address}:{port}"


def why(error: OSError) -> str:
    """What the operating system has to say, and nothing else: asyncio adds the address."""
    return os.strerror(error.errno).lower() if error.errno else "it was closed"
