import asyncio
import contextlib
import http.client
import itertools
import json
import os
import pwd
import re
import select
import signal
import socket
import ssl
import stat
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from tests.certificates import openssl_verify
from tests.cli.command import DATABASE, Person, Serving
from tests.wire import Wire, jwk_of, new_key, problem_of, sign

from privet import CertificateAuthority, SQLiteStore
from privet.acme.encoding import to_base64url

STORES = {"sqlite": DATABASE, "file": "file:///store", "memory": "memory:"}


def get(serving: Serving, path: str, context: ssl.SSLContext | None = None) -> httpx.Response:
    with httpx.Client(verify=context or True, trust_env=False, timeout=60) as client:
        return client.get(serving.base + path)


def with_account(serving: Serving, story: Callable[[Wire], Awaitable[None]]) -> None:
    """Let a client with an account of its own do something."""

    async def run() -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            client = Wire(http, serving.base)
            assert (await client.register()).status_code == 201
            await story(client)

    asyncio.run(run())


# --- what it says ---


def test_it_says_where_it_is_what_it_does_and_what_to_copy(person: Person) -> None:
    with person.serves("--auto-approve") as serving:
        said = serving.program.wait_for(r"(?s).*# Caddy.*\n}\n").group()
        root = person.does("root", "--json").json
        assert said.index("http://") == said.index(serving.directory), "the first address is the directory"
        assert f"root SHA-256 {root['fingerprint']}\n" in said
        assert f"data         {person.folder}/privet.db\n" in said
        assert "approval     AUTOMATIC: whoever can reach this address gets certificates for any name" in said
        assert "HTTP believes anybody who answers" in said
        assert "-k" not in said
        for client in ("curl -sS ", "certbot certonly --server ", "lego --server "):
            assert f"\n{client}{serving.directory}" in said
        assert f"ca {serving.directory}\n" in said
        assert "REQUESTS_CA_BUNDLE" not in said
        assert "_root" not in said
        assert get(serving, "/ca.pem").text == root["root_pem"]


def test_over_https_clients_need_the_root(person: Person) -> None:
    with person.serves("--tls", "--mount", "/acme") as serving:
        said = serving.program.wait_for(r"(?s).*# Caddy.*\n}\n").group()
        assert re.fullmatch(r"https://127\.0\.0\.1:\d+/acme/directory", serving.directory)
        assert f"curl -sS -o privet-root.pem -k {serving.base}/ca.pem\n" in said
        assert "curl -k believes anybody who answers, so compare the fingerprint" in said
        assert f"curl -sS --cacert privet-root.pem {serving.directory}\n" in said
        assert "\nREQUESTS_CA_BUNDLE=privet-root.pem certbot certonly" in said
        assert "\nLEGO_CA_CERTIFICATES=privet-root.pem lego" in said
        assert "ca_root privet-root.pem\n" in said
        assert get(serving, "/directory", serving.trust()).json()["newNonce"] == f"{serving.base}/new-nonce"


def test_without_auto_approval_it_says_who_decides_and_how(person: Person) -> None:
    with person.serves("--ask-person") as serving:
        store = f"--store sqlite:///{person.folder}/privet.db"
        assert serving.program.wait_for(
            rf"approval +by a person: `.*privet pending {store}` shows who waits, "
            rf"`.*privet approve {store} ID` lets them have it\n"
        )


def test_behind_a_proxy_it_says_the_address_of_the_proxy(person: Person) -> None:
    for url, mount, directory in (
        ("https://ca.example:8443", "/acme", "https://ca.example:8443/acme/directory"),
        ("https://ca.example/pki/", "/acme", "https://ca.example/pki/directory"),
    ):
        with person.serves("--port", "0", "--external-url", url, "--mount", mount) as serving:
            assert serving.directory == directory
            assert "-k" not in serving.program.wait_for(r"(?s).*# Caddy.*\n}\n").group()


def test_logs_are_a_line_for_what_happened_with_its_time(person: Person) -> None:
    async def story(client: Wire) -> None:
        issued = x509.load_pem_x509_certificates(await client.issue("web.internal"))[0]
        await client.post("revoke-cert", {"certificate": to_base64url(issued.public_bytes(Encoding.DER)), "reason": 4})
        await client.post("new-order", {"identifiers": []})

    with person.serves("--auto-approve") as serving:
        with_account(serving, story)
        said = serving.stop()
    (listed,) = person.does("list", "--json").json
    called = f"SHA-256 {listed['fingerprint']}\\n"
    time = r"\n\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ INFO "
    assert len(re.findall(time + r"account [0-9a-v]+ opened from '127\.0\.0\.1'\n", said)) == 1
    issued = rf"issued {listed['serial']} for web\.internal to account \S+ until \S+, "
    assert len(re.findall(time + issued + called, said)) == 1
    assert len(re.findall(time + rf"revoked {listed['serial']}, reason 4, " + called, said)) == 1
    assert len(re.findall(time + r"refused POST '/new-order' from '127\.0\.0\.1': malformed: ", said)) == 1


# --- serving ---


@pytest.mark.parametrize("store", STORES)
def test_certificates_are_issued_and_everything_is_still_there_after_a_restart(tmp_path: Path, store: str) -> None:
    person = Person(tmp_path, STORES[store])
    chains: list[bytes] = []

    async def story(client: Wire) -> None:
        chains.append(await client.issue("web.internal", "10.0.0.7"))

    with person.serves("--auto-approve", "--validity", "90m") as serving:
        with_account(serving, story)
        root = get(serving, "/ca.pem").content
    openssl_verify(chains[0], root, name="web.internal")
    leaf = x509.load_pem_x509_certificate(chains[0])
    assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).total_seconds() == 90 * 60
    if store != "memory":
        (listed,) = person.does("list", "--json").json
        assert listed["serial"] == f"{leaf.serial_number:x}"
        with person.serves() as again:
            assert get(again, "/ca.pem").content == root


def test_people_who_come_by_find_a_page_and_everything_else_is_a_problem(person: Person) -> None:
    with person.serves("--mount", "/acme") as serving, httpx.Client(trust_env=False, timeout=60) as http:
        site = serving.base.removesuffix("/acme")
        for path in ("/", "/acme", "/acme/"):
            page = http.get(site + path)
            assert (page.status_code, page.headers["content-type"]) == (200, "text/plain; charset=utf-8")
            assert serving.directory in page.text
            assert http.head(site + path).headers["content-length"] == str(len(page.content))
        for path in ("/directory", "/acmedirectory", "/acme/nothing"):
            nothing = http.get(site + path)
            assert problem_of(nothing)[0] == 404
            assert nothing.headers["link"] == f'<{serving.directory}>;rel="index"'
            assert http.head(site + path).headers["content-length"] == nothing.headers["content-length"]
        assert problem_of(http.post(site + "/acme/directory"))[0] == 415
        assert "server" not in http.get(serving.directory).headers


def test_several_workers_serve_one_store(person: Person) -> None:
    async def story(client: Wire) -> None:
        chains = await asyncio.gather(*[one(client) for _ in range(8)])
        assert len(set(chains)) == 8

    async def one(client: Wire) -> bytes:
        # A connection each, so that they come to different workers.
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            return await Wire(http, client.base, client.key, client.kid).issue("web.internal")

    with person.serves("--auto-approve", "--workers", "2") as serving:
        with_account(serving, story)
    assert len(person.does("list", "--json").json) == 8


def test_a_worker_that_dies_is_replaced(person: Person) -> None:
    with person.serves("--workers", "2") as serving:
        assert get(serving, "/directory").status_code == 200
        before = workers(serving.program.process.pid)
        for pid in before:
            ended = os.pidfd_open(pid)
            os.kill(pid, signal.SIGKILL)
            select.select([ended], [], [])
            os.close(ended)
        assert get(serving, "/directory").status_code == 200, "the socket waits for a worker"
        assert not before & workers(serving.program.process.pid)
        for pid in before:
            serving.program.wait_for(f"WARNING the worker {pid} was killed by SIGKILL.*: another replaces it")


def test_a_worker_that_cannot_be_replaced_yet_is_replaced_later(person: Person) -> None:
    """Meanwhile the others serve; and what is away for a moment is not made anew."""
    with person.serves("--workers", "2") as serving:
        root = get(serving, "/ca.pem").content
        wait_for_both(serving)
        away = {path: person.folder / f"away-{path.name}" for path in person.folder.glob("privet.db*")}
        for path, elsewhere in away.items():
            path.rename(elsewhere)
        one, other = workers(serving.program.process.pid)
        os.kill(one, signal.SIGKILL)
        serving.program.wait_for("ERROR a worker cannot start: there is nothing at")
        assert get(serving, "/ca.pem").content == root
        assert not list(person.folder.glob("privet.db*"))
        for path, elsewhere in away.items():
            elsewhere.rename(path)
        wait_for_both(serving)
        assert other in workers(serving.program.process.pid)
        assert get(serving, "/ca.pem").content == root


def test_a_worker_that_hangs_is_replaced(person: Person) -> None:
    with person.serves("--workers", "2") as serving:
        wait_for_both(serving)
        before = workers(serving.program.process.pid)
        hung = min(before)
        os.kill(hung, signal.SIGSTOP)
        serving.program.wait_for(
            f"WARNING the worker {hung} does not answer any more: another replaces it", seconds=180
        )
        while len(workers(serving.program.process.pid) - {hung}) < 2:
            time.sleep(0.05)  # it is about to start
        assert workers(serving.program.process.pid) & before == before - {hung}


def test_workers_that_have_all_gone_come_back_when_they_can(person: Person) -> None:
    with person.serves("--workers", "2") as serving:
        root = get(serving, "/ca.pem").content
        wait_for_both(serving)
        away = {path: person.folder / f"away-{path.name}" for path in person.folder.glob("privet.db*")}
        for path, elsewhere in away.items():
            path.rename(elsewhere)
        for pid in workers(serving.program.process.pid):
            os.kill(pid, signal.SIGKILL)
        failed = serving.program.wait_for("ERROR a worker cannot start: there is nothing at")
        serving.program.wait_for("ERROR a worker cannot start: there is nothing at", after=failed.end())
        for path, elsewhere in away.items():
            elsewhere.rename(path)
        assert get(serving, "/ca.pem").content == root, "whoever comes meanwhile waits"


def test_connections_are_spread_over_all_workers(person: Person) -> None:
    """Also those that come one after the other, when each worker would have time for all of them."""
    with person.serves("--workers", "2") as serving, contextlib.ExitStack() as stack:
        wait_for_both(serving)
        pids = workers(serving.program.process.pid)
        before = {pid: sockets(pid) for pid in pids}
        for _ in range(80):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", serving.port), timeout=60))
            connection.sendall(b"GET /directory HTTP/1.1\r\nhost: ca\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
        taken = [sockets(pid) - before[pid] for pid in pids]
        assert len(taken) == 2
        assert min(taken) >= 8, taken


def wait_for_both(serving: Serving) -> None:
    """Wait until both of two workers listen, each with its four sockets, beside the supervisor."""
    while listening(serving.port) < 1 + 2 * 4:
        time.sleep(0.05)


def listening(port: int) -> int:
    """How many sockets listen at a port of this machine."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(line[3] == "0A" and line[1].endswith(f":{port:04X}") for line in lines)


def sockets(pid: int) -> int:
    """How many sockets a process has."""
    count = 0
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += str(each.readlink()).startswith("socket:")
    return count


def test_a_port_of_another_server_with_workers_is_taken(person: Person) -> None:
    with person.serves("--workers", "2") as serving:
        for options in ([], ["--workers", "2"]):
            refused = person.tries("serve", "--port", str(serving.port), *options)
            assert refused.status == 1
            assert "is in use by another program" in refused.sentences[0]


def test_workers_end_when_their_supervisor_is_killed(person: Person) -> None:
    serving = person.serves("--workers", "2")
    supervisor = serving.program.process
    assert get(serving, "/directory").status_code == 200
    while len(pids := workers(supervisor.pid)) < 2:
        time.sleep(0.05)  # one has yet to start
    ends = [os.pidfd_open(pid) for pid in pids]
    supervisor.kill()
    supervisor.wait()
    for end in ends:
        select.select([end], [], [])
        os.close(end)
    refused(serving.port)
    serving.program.stop()


def workers(supervisor: int) -> set[int]:
    """The processes that serve, and not the one that keeps track of them."""
    pids = set(map(int, Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()))
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended since it was listed
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(pid)
    return found


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("tls", [[], ["--tls"]], ids=["http", "https"])
def test_a_request_in_flight_is_finished(person: Person, workers: str, tls: list[str]) -> None:
    with person.serves("--workers", workers, *tls) as serving:
        nonce = get(serving, "/new-nonce", serving.trust()).headers["replay-nonce"]
        key, url = new_key(), f"{serving.base}/new-account"
        header = {"alg": "ES256", "nonce": nonce, "url": url, "jwk": jwk_of(key)}
        body = json.dumps(sign(key, header, {"termsOfServiceAgreed": True})).encode()

        request, idle = (socket.create_connection(("127.0.0.1", serving.port)) for _ in range(2))
        if tls:
            trust = serving.trust()
            request, idle = (trust.wrap_socket(each, server_hostname="127.0.0.1") for each in (request, idle))
        with request, idle:
            request.sendall(
                f"POST /new-account HTTP/1.1\r\nHost: x\r\nContent-Type: application/jose+json\r\n"
                f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n".encode()
            )
            assert request.recv(1000).startswith(b"HTTP/1.1 100 "), "it is being read"
            serving.program.process.terminate()
            assert idle.recv(1) == b"", "those who have asked nothing are let go"
            refused(serving.port)
            request.sendall(body)
            answer = http.client.HTTPResponse(request)
            answer.begin()
            assert answer.status == 201
            assert json.loads(answer.read())["status"] == "valid"
        assert serving.program.process.wait(30) == 0


def refused(port: int) -> None:
    """Return once nobody listens there any more."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            continue  # it was closing while we came
    raise AssertionError("it still takes connections")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_ends_it_as_well(person: Person, workers: str) -> None:
    with person.serves("--workers", workers) as serving:
        assert get(serving, "/directory").status_code == 200
        serving.program.process.send_signal(signal.SIGINT)
        assert serving.program.process.wait(30) == 0
    # Of several workers one may still be at its start, and ends as it is.
    assert workers == "2" or not (person.folder / "privet.db-wal").exists(), "the database was closed"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_whoever_ends_it_at_once_hears_nothing_of_the_workers(person: Person, number: signal.Signals) -> None:
    """A terminal tells Ctrl+C to all processes, and systemd SIGTERM, when workers have hardly begun to start."""
    with person.serves("--workers", "2") as serving:
        supervisor = serving.program.process.pid
        while len(workers(supervisor)) < 2:
            pass
        greeted = serving.program.output
        os.killpg(supervisor, number)
        assert serving.program.process.wait(60) == 0
    assert serving.program.output == greeted


# --- a Unix socket ---


@pytest.mark.parametrize("options", [[], ["--workers", "2", "--uds-mode", "600", "--mount", "/acme"]])
def test_it_serves_a_unix_socket_and_removes_it(person: Person, options: list[str]) -> None:
    path = person.folder / "privet.sock"
    with person.serves("--uds", "privet.sock", *options) as serving:
        assert stat.S_IMODE(path.stat().st_mode) == (0o600 if options else 0o660)
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
            assert client.get(serving.directory).json()["newNonce"] == f"{serving.base}/new-nonce"
        second = person.tries("serve", "--uds", "privet.sock")
        assert (second.status, second.sentences) == (
            1,
            ["another program listens on the socket privet.sock: stop it, or choose another with --uds"],
        )
    assert not path.exists()


# --- its own certificate ---


def test_its_certificate_is_for_its_names(person: Person) -> None:
    with person.serves(
        "--tls", "--host", "localhost", "--external-url", "https://ca.internal:8555", "--tls-name", "other.internal"
    ) as serving:
        listening = serving.program.process.pid
        port = port_of(listening)
        for name in ("ca.internal", "other.internal", "localhost", "127.0.0.1", "::1"):
            assert handshake(port, serving.trust(), name)
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(port, serving.trust(), "another.internal")
        (own,) = person.does("list", "--json").json
        assert own["names"][0] == "ca.internal"


def handshake(port: int, context: ssl.SSLContext, name: str = "127.0.0.1") -> x509.Certificate:
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        der = secure.getpeercert(binary_form=True)
        assert der
        return x509.load_der_x509_certificate(der)


def port_of(pid: int) -> int:
    """Where a process listens."""
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            inodes.add(str(fd.readlink()))
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
            return int(fields[1].split(":")[1], 16)
    raise AssertionError("it listens nowhere")


def test_its_certificate_is_renewed_live_and_by_one_worker_for_all(person: Person) -> None:
    temporary = person.folder / "tmp"
    temporary.mkdir()
    options = ["--tls", "--tls-validity", "20s", "--workers", "2"]
    with person.serves(*options, env={"TMPDIR": str(temporary)}) as serving:
        trust = serving.trust()
        first = handshake(serving.port, trust)
        held = httpx.Client(verify=trust, trust_env=False, timeout=60)
        assert held.get(serving.directory).status_code == 200
        seen = [first.serial_number]
        deadline = time.monotonic() + 60
        # Until all workers show another one. Every handshake on the way is verified, expiry included.
        while len(set(seen[-8:])) > 1 or seen[-1] == seen[0]:
            assert time.monotonic() < deadline
            seen.append(handshake(serving.port, trust).serial_number)
            time.sleep(0.02)  # between two looks
        assert held.get(serving.directory).status_code == 200, "who was connected stays connected"
        held.close()
    begun = [datetime.fromisoformat(each["not_before"]) for each in person.does("list", "--json").json]
    gaps = [later - earlier for earlier, later in itertools.pairwise(begun)]
    assert gaps
    assert min(gaps) > timedelta(seconds=3), "one worker renews it, and not each"
    assert list(temporary.iterdir()) == []


# --- a person decides ---


@pytest.mark.parametrize("store", ["sqlite", "file"])
def test_a_person_decides_while_it_runs(tmp_path: Path, store: str) -> None:
    person = Person(tmp_path, STORES[store])

    async def story(client: Wire) -> None:
        await client.post(str(client.kid), {"contact": ["mailto:somebody@example.com"]})
        order, location = await waiting(client, "web.internal")
        _, other_location = await waiting(client, "mail.internal")
        found = person.does("pending", "--json").json
        assert [each["identifier"]["value"] for each in found] == ["web.internal", "mail.internal"]
        assert [(each["client"], each["contact"]) for each in found] == [
            ("127.0.0.1", ["mailto:somebody@example.com"])
        ] * 2
        good, bad = (each["id"] for each in found)
        assert re.search(
            rf"^{good} .* 127\.0\.0\.1 +web\.internal  \(mailto:", person.does("pending").out, re.MULTILINE
        )

        assert person.does("approve", good).out == f"approved web.internal ({good})\n"
        assert (await client.post(location)).json()["status"] == "ready"
        assert (await client.finalize(order)).json()["status"] == "valid"
        whoever = pwd.getpwuid(os.getuid()).pw_name if os.getuid() else os.environ.get("SUDO_USER", "root")
        (proof,) = person.does("show", "web.internal", "--json").json["proofs"]
        assert (proof["method"], proof["by"]) == ("person", whoever)
        assert f"web.internal by person ({whoever}) at " in person.does("show", "web.internal").out

        (refused,) = person.does("refuse", bad, "--reason", "ask first", "--json").json
        assert (refused["id"], refused["status"]) == (bad, "invalid")
        invalid = (await client.post(other_location)).json()
        assert (invalid["status"], invalid["error"]["detail"]) == ("invalid", "refused by a person: ask first")

        assert person.does("pending", "--json").json == []
        late = person.tries("approve", good, "nobody")
        assert late.status == 1
        assert late.sentences == [
            f"authorization {good} for web.internal is valid, it no longer waits: `privet pending` shows what waits",
            "there is no authorization nobody: `privet pending` shows what waits",
        ]
        assert person.tries("refuse", bad).status == 1

    with person.serves("--ask-person") as serving:
        with_account(serving, story)


def test_a_person_decides_for_one_authority(person: Person) -> None:
    """Two servers share a store; what waits at one is not decided for the other."""

    async def story(client: Wire) -> None:
        await waiting(client, "web.internal")

    with person.serves("--ask-person", "--name", "mesh") as serving:
        with_account(serving, story)
        look = re.search(r"`\S+ .*privet pending (.*)` shows", serving.program.output)
        assert look
        assert look[1].endswith(" --authority mesh")
    assert person.does("pending", "--json").json == []
    (found,) = person.does("pending", "--authority", "mesh", "--json").json
    assert found["authority"] == "mesh"
    for command in ("approve", "refuse"):
        refused = person.tries(command, found["id"])
        assert refused.status == 1
        assert "is of an account that waits for nothing here" in refused.sentences[0]
    assert person.does("approve", found["id"], env={"PRIVET_NAME": "mesh"}).out.startswith("approved web.internal ")


async def waiting(client: Wire, name: str) -> tuple[dict[str, object], str]:
    """An order that waits, with its challenge answered."""
    response = await client.order(name)
    order = response.json()
    (authorization,) = [(await client.post(url)).json() for url in order["authorizations"]]
    answered = await client.post(authorization["challenges"][0]["url"], {})
    assert answered.json()["status"] == "processing"
    assert (await client.post(response.headers["location"])).json()["status"] == "pending"
    return order, response.headers["location"]


def test_challenges_are_asked_when_that_is_wanted(person: Person) -> None:
    async def story(client: Wire) -> None:
        order = (await client.order("web.internal")).json()
        assert order["status"] == "pending"

    with person.serves("--auto-approve", "--ask-challenges") as serving:
        with_account(serving, story)


def test_terms_and_website_are_in_the_directory(person: Person) -> None:
    links = {"PRIVET_TERMS_OF_SERVICE": "https://ca.internal/terms", "PRIVET_WEBSITE": "https://ca.internal"}
    with person.serves(env=links) as serving:
        meta = get(serving, "/directory").json()["meta"]
        assert (meta["termsOfService"], meta["website"]) == tuple(links.values())


def test_a_trusted_proxy_says_who_asks(person: Person) -> None:
    async def story(client: Wire) -> None:
        client.http.headers["x-forwarded-for"] = "10.9.8.7"
        await waiting(client, "web.internal")

    with person.serves("--trusted-proxy", "127.0.0.1") as serving:
        with_account(serving, story)
        assert [each["client"] for each in person.does("pending", "--json").json] == ["10.9.8.7"]


def test_on_a_unix_socket_whoever_may_open_it_says_who_asks(person: Person) -> None:
    async def story() -> None:
        transport = httpx.AsyncHTTPTransport(uds=str(person.folder / "privet.sock"))
        async with httpx.AsyncClient(transport=transport, timeout=60) as http:
            client = Wire(http, "http://localhost")
            assert (await client.register()).status_code == 201
            http.headers["x-forwarded-for"] = "6.6.6.6, 10.9.8.7"
            await waiting(client, "web.internal")

    with person.serves("--uds", "privet.sock", "--trusted-proxy", "unix"):
        asyncio.run(story())
        assert [each["client"] for each in person.does("pending", "--json").json] == ["10.9.8.7"]


# --- an authority that ends, or is for some names alone ---


def make_authority(person: Person, **ago: float) -> None:
    """Make an authority that lives for a day, some time ago."""
    with SQLiteStore(person.folder / "privet.db") as store:
        CertificateAuthority(store, now=lambda: datetime.now(UTC) - timedelta(**ago)).init(validity_days=1)


@pytest.mark.parametrize("options", [[], ["--tls"], ["--workers", "2"]], ids=" ".join)
def test_an_authority_that_has_ended_serves_nobody(person: Person, options: list[str]) -> None:
    make_authority(person, days=1)
    refused = person.tries("serve", "--port", "0", *options)
    (sentence,) = refused.sentences
    assert re.fullmatch(
        r"CN=privet Internal CA ended at \S+ \S+ and cannot sign at .*: look at this machine's clock, or make another "
        "authority with --name and let clients trust its root",
        sentence,
    )
    assert (refused.status, refused.out) == (1, "")
    assert (
        person.tries("issue", "a.internal")
        .sentences[0]
        .endswith("or make another authority with --name and let clients trust its root")
    )


def test_an_authority_that_ends_soon_says_so(person: Person) -> None:
    make_authority(person, hours=12)
    with person.serves() as serving:
        assert re.search(r"privet: the authority 'root' ends at \S+Z, and its certificates", serving.program.output)
    with person.serves("--validity", "6h") as serving:
        assert "ends at" not in serving.program.output


def test_its_own_certificate_is_for_those_of_its_names_that_it_may_certify(person: Person) -> None:
    options = ("--tls", "--host", "127.0.0.1", "--permit", "internal")
    with person.serves(*options, "--external-url", "https://ca.internal:8555") as serving:
        assert handshake(port_of(serving.program.process.pid), serving.trust(), "ca.internal")
        assert "\n  names        only internal; not 0.0.0.0/0, ::/0\n" in serving.program.output
    (own,) = person.does("list", "--json").json
    assert own["names"] == ["ca.internal"]
    refused = person.tries("serve", "--port", "0", "--tls", "--tls-name", "a.example")
    assert refused.sentences == [
        "HTTPS needs a certificate that the authority must not make: 127.0.0.1 is among what this authority must not "
        "certify: 0.0.0.0/0; a.example is not among what this authority may certify: internal; choose another name "
        "with --external-url and --tls-name"
    ]
    assert refused.status == 1


def test_a_root_that_is_not_for_the_server_itself_is_not_made(person: Person) -> None:
    refused = person.tries("serve", "--port", "0", "--permit", "internal", "--tls")
    assert refused.sentences == [
        "HTTPS needs a certificate that the authority must not make: 127.0.0.1 is among what this authority must not "
        "certify: 0.0.0.0/0; choose another name with --external-url and --tls-name"
    ]
    assert refused.status == 2
    assert list(person.folder.iterdir()) == [], "what is in a root is there for good"
    with person.serves("--permit", "internal", "--tls", "--external-url", "https://ca.internal"):
        pass


def test_what_it_may_not_certify_is_refused_when_it_is_ordered(person: Person) -> None:
    async def story(client: Wire) -> None:
        assert problem_of(await client.order("a.example")) == (403, "rejectedIdentifier")
        assert await client.issue("a.internal")

    with person.serves("--auto-approve", env={"PRIVET_PERMIT": "internal"}) as serving:
        with_account(serving, story)


# --- what it refuses ---

PUBLIC = {
    "auto-approve": "--auto-approve on {0} gives certificates for any name to anybody who can reach it: listen on a "
    "private address with --host, or insist with --approve-anybody",
    "http": "HTTP on {0} can be changed on its way: serve HTTPS with --tls, say which https address a proxy in front "
    "has with --external-url, or insist with --plain-http",
    "url": "{0} is no address that clients could use: say the one they do, such as --external-url {1}://ca.internal:8555",
}


@pytest.mark.parametrize(
    ("options", "sentences"),
    [
        (["--host", "0.0.0.0", "--auto-approve"], ["auto-approve", "http", "url"]),
        (["--host", "::", "--auto-approve", "--tls"], ["auto-approve", "url"]),
        (["--host", "8.8.8.8", "--auto-approve"], ["auto-approve", "http"]),
        (["--host", "0.0.0.0", "--external-url", "https://ca.internal", "--auto-approve"], ["auto-approve"]),
        (["--host", "0.0.0.0", "--external-url", "http://ca.internal"], ["http"]),
        (["--host", "0.0.0.0", "--plain-http", "--auto-approve", "--approve-anybody"], ["url"]),
    ],
)
def test_what_anybody_could_reach_has_to_be_insisted_on(
    person: Person, options: list[str], sentences: list[str]
) -> None:
    refused = person.tries("serve", *options)
    scheme = "https" if "--tls" in options else "http"
    assert refused.sentences == [PUBLIC[name].format(options[1], scheme) for name in sentences]
    assert refused.status == 2
    assert list(person.folder.iterdir()) == [], "nothing was made"


def test_who_insists_gets_it(person: Person) -> None:
    options = ("--host", "0.0.0.0", "--auto-approve", "--approve-anybody", "--plain-http")
    with person.serves(*options, "--external-url", "http://ca.internal:8555") as serving:
        assert httpx.get(f"http://127.0.0.1:{port_of(serving.program.process.pid)}/directory").status_code == 200


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--ask-challenges", "--ask-challenges is about --auto-approve: without it challenges are asked anyway"),
        ("--store memory: --workers 2", "--store memory: is for one process, and --workers makes more"),
        ("--uds x --tls", "--tls has no use on a Unix socket: the web server in front of it does TLS"),
        ("--host nobody.invalid", "--host nobody.invalid is neither an address nor a name that can be resolved: "),
        ("--tls --external-url https://my_ca", "HTTPS needs a certificate for the name in --external-url or --host: "),
        (
            "--trusted-proxy *",
            "--trusted-proxy has a proxy that is none: '*' would believe anybody about anybody: name ",
        ),
        (
            "--trusted-proxy 0.0.0.0/0",
            "--trusted-proxy has a proxy that is none: '0.0.0.0/0' would believe anybody about anybody: name ",
        ),
        ("--trusted-proxy unix", "--trusted-proxy unix is about --uds: name the address of the proxy"),
        ("--uds x --trusted-proxy 10.0.0.1", "on a Unix socket nobody has an address: say --trusted-proxy unix"),
        ("--port 70000", "--port has to be a number from 0 to 65535, not '70000'"),
        ("--config nowhere", "the configuration file nowhere cannot be read: No such file or directory"),
    ],
)
def test_what_contradicts_itself_is_told(person: Person, options: str, sentence: str) -> None:
    refused = person.tries("serve", *options.split())
    (told,) = refused.sentences
    assert told.startswith(sentence)
    assert refused.status == 2
    assert list(person.folder.iterdir()) == [], "nothing was made"


def test_a_port_that_is_taken_is_told_and_nothing_is_made(person: Person) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        refused = person.tries("serve", "--port", str(port))
    assert (refused.status, refused.sentences) == (
        1,
        [f"127.0.0.1 port {port} is in use by another program: stop it, or choose another with --port"],
    )
    assert list(person.folder.iterdir()) == []


def test_settings_come_from_a_file_and_a_strange_variable_is_worth_a_word(person: Person) -> None:
    (person.folder / "privet.toml").write_text('port = 0\nmount = "/pki"\nauto-approve = true\n')
    with person.serves("--port", "0", "--config", "privet.toml", env={"PRIVET_MUONT": "/x"}) as serving:
        assert serving.base.endswith("/pki")
        assert "privet: the variable PRIVET_MUONT is no setting; did you mean PRIVET_MOUNT?" in serving.program.output
