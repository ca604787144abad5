"""Two servers on one database: what one was about to find out when it was killed, the other one finds out."""

import asyncio

import httpx
from tests.cli.command import Person, Serving
from tests.interop.programs import free_port
from tests.wire import Wire, thumbprint_of

URL = "http://ca.internal:8555"
ADDRESS = "127.0.0.1"
PATIENCE = 60


class To(httpx.AsyncHTTPTransport):
    """Takes requests to this server, whatever address clients know."""

    def __init__(self, serving: Serving, port: int) -> None:
        super().__init__()
        self.serving = serving
        self.port = port

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(host=ADDRESS, port=self.port)
        return await super().handle_async_request(request)


class SlowHost:
    """A client's host: says nothing until it is let, and then the right thing."""

    def __init__(self) -> None:
        self.asked = 0
        self.reached = asyncio.Event()
        self.speaks = asyncio.Event()
        self.answer = b""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        self.reached.set()
        await self.speaks.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(self.answer), self.answer))
        writer.close()


def test_a_validation_whose_server_was_killed_is_taken_up_by_another(person: Person) -> None:
    async def story() -> None:
        slow = SlowHost()
        async with await asyncio.start_server(slow, ADDRESS, 0) as host:
            port = host.sockets[0].getsockname()[1]
            proofs = ("--validate", "http-01", "--http-01-port", str(port), "--validate-allow", ADDRESS)
            options = (*proofs, "--resolver", "127.0.0.1:9", "--validate-within", "8s", "--external-url", URL)
            first, second = free_port(), free_port()
            killed = person.serves(*options, "--port", str(first))
            with person.serves(*options, "--port", str(second)) as serving:
                try:
                    await play(slow, To(killed, first), To(serving, second))
                finally:
                    killed.program.stop()

    asyncio.run(story())
    (proof,) = person.does("show", ADDRESS, "--json").json["proofs"]
    assert proof["method"] == "http-01"


async def play(slow: SlowHost, killed: To, other: To) -> None:
    async with httpx.AsyncClient(transport=killed, timeout=PATIENCE) as http:
        wire = Wire(http, URL)
        await wire.register()
        order = (await wire.order(ADDRESS)).json()
        (challenge,) = (await wire.post(order["authorizations"][0])).json()["challenges"]
        slow.answer = f"{challenge['token']}.{thumbprint_of(wire.key)}".encode()
        answered = await wire.post(challenge["url"], {})
        assert (answered.json()["status"], answered.headers["retry-after"]) == ("processing", "2")
        await asyncio.wait_for(slow.reached.wait(), PATIENCE)
        killed.serving.program.kill()
    slow.speaks.set()
    async with httpx.AsyncClient(transport=other, timeout=PATIENCE) as http, asyncio.timeout(PATIENCE):
        there = Wire(http, URL, wire.key, wire.kid)
        look = await there.post(challenge["url"])
        assert (look.json()["status"], slow.asked) == ("processing", 1), "the lease of the dead one holds for a while"
        while (look := await there.post(order["authorizations"][0])).json()["status"] == "pending":
            assert look.headers["retry-after"] == "2"
            await asyncio.sleep(0.5)
        assert (look.json()["status"], slow.asked) == ("valid", 2)
        assert (await there.finalize(order)).json()["status"] == "valid"
