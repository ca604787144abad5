"""The town's nameserver: answers from records that a test writes, or in whatever way a test thinks of."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from tests.validation.town import Handler, Host, datagrams

Answering = Callable[[dns.message.Message, bool], bytes | list[bytes]]
"""Query and whether it came by TCP, to the answers."""


class Nameserver:
    """Knows every record it was told of, follows aliases as a recursive one does, and remembers what it was asked."""

    def __init__(self, host: Host, port: int, *, by_tcp: Handler | None = None) -> None:
        self.by_tcp = by_tcp or self._stream
        self.sender = ("", 0)
        """Who asked last, by UDP."""
        self.host = host
        self.port = port
        self.address = f"{host.address}:{port}"
        self.records: dict[tuple[str, str], list[str]] = {}
        self.asked: list[str] = []
        self.answering: dict[str, Answering] = {}
        """Names that are answered in some other way."""

    def forget(self) -> None:
        self.records.clear()
        self.asked.clear()
        self.answering.clear()

    def add(self, name: str, type: str, *values: str) -> None:
        self.records.setdefault((name, type), []).extend(values)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        ends = contextlib.AsyncExitStack()

        async def start() -> None:
            await ends.enter_async_context(datagrams(self.host.address, self.port, self._datagram))

        self.host.run(start())
        try:
            with self.host.serve(self.by_tcp, self.port):
                yield
        finally:
            self.host.run(ends.aclose())

    def _datagram(self, data: bytes, sender: tuple[str, int]) -> list[bytes]:
        self.sender = sender
        return self._reply(data, False)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        for reply in self._reply(data, True):
            writer.write(len(reply).to_bytes(2, "big") + reply)
        await writer.drain()

    def _reply(self, data: bytes, tcp: bool) -> list[bytes]:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        self.asked.append(f"{question.rdtype.name} {name}")
        answering = self.answering.get(name, self.answer)
        answers = answering(query, tcp)
        return [answers] if isinstance(answers, bytes) else answers

    def answer(self, query: dns.message.Message, tcp: bool) -> bytes:
        reply = self.reply(query)
        wire = reply.to_wire(max_size=65535)
        if not tcp and len(wire) > 1232:
            reply = dns.message.make_response(query)
            reply.flags |= dns.flags.TC
            wire = reply.to_wire()
        return wire

    def reply(self, query: dns.message.Message) -> dns.message.Message:
        question = query.question[0]
        reply = dns.message.make_response(query, recursion_available=True)
        name = question.name
        for _ in range(20):
            text = name.to_text(omit_final_dot=True).lower()
            values = self.records.get((text, question.rdtype.name))
            if values:
                reply.answer.append(dns.rrset.from_text(name, 60, "IN", question.rdtype, *values))
                return reply
            aliases = self.records.get((text, "CNAME"))
            if not aliases:
                break
            reply.answer.append(dns.rrset.from_text(name, 60, "IN", "CNAME", *aliases))
            name = dns.name.from_text(aliases[0])
        else:
            return reply
        known = any(each == text or each.endswith(f".{text}") for each, _ in self.records)
        if not known:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        soa = "ns.internal. you.internal. 1 1 1 1 1"
        reply.authority.append(dns.rrset.from_text(".", 60, "IN", "SOA", soa))
        return reply


def fails(rcode: dns.rcode.Rcode) -> Answering:
    def answering(query: dns.message.Message, tcp: bool) -> bytes:
        reply = dns.message.make_response(query)
        reply.set_rcode(rcode)
        return reply.to_wire()

    return answering
