"""`privet serve --validate`: what it says, what it refuses to start with, and a client that proves control, or not."""

import asyncio
import contextlib
import pickle
import re
import shlex
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.cli.command import Person, Serving
from tests.cli.test_serve import with_account
from tests.interop.programs import free_port
from tests.wire import Wire, thumbprint_of

from privet.cli.serve.site import Files, Site, make_settings_validators
from privet.cli.settings import READERS, VALIDATED, Settings, option_name
from privet.server.limits import Limits
from privet.validation import AddressRefused, HTTP01Validator, Retrying, Validator

ADDRESS = "127.0.0.1"
URL = "https://ca.internal:8555"
PATH = "/.well-known/acme-challenge/"


@dataclass
class Client:
    """A client's web server. What it was not given it answers with something else."""

    port: int = 0
    pages: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    silent: threading.Event = field(default_factory=threading.Event)
    """While it is set, whoever asks hears nothing."""

    @contextlib.contextmanager
    def running(self) -> Iterator["Client"]:
        client = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                client.asked.append(self.path)
                while client.silent.is_set():
                    time.sleep(0.05)
                body = client.pages.get(self.path, "something else").encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        with ThreadingHTTPServer((ADDRESS, 0), Handler) as server:
            self.port = server.server_port
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()


@pytest.fixture
def client() -> Iterator[Client]:
    with Client().running() as running:
        yield running


PATIENT = ("--limit", "patience=60s")
"""Whoever answers a challenge hears what came of it, however slow this machine is."""


def validates(person: Person, port: int, *options: str) -> Serving:
    allowed = ("--validate-allow", "127.0.0.0/8", "--resolver", "127.0.0.1:9")
    return person.serves("--validate", "http-01", "--http-01-port", str(port), *allowed, *options)


async def challenged(wire: Wire) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """An order for the client's address: where it is, what it says, and the challenge that is offered."""
    ordered = await wire.order(ADDRESS)
    order = ordered.json()
    assert order["status"] == "pending"
    (challenge,) = (await wire.post(order["authorizations"][0])).json()["challenges"]
    assert challenge["type"] == "http-01"
    return ordered.headers["location"], order, challenge


@pytest.mark.parametrize("workers", ["1", "2"])
def test_who_proves_control_gets_a_certificate(person: Person, client: Client, workers: str) -> None:
    async def story(wire: Wire) -> None:
        _, order, challenge = await challenged(wire)
        token = challenge["token"]
        client.pages[PATH + token] = f"{token}.{thumbprint_of(wire.key)}"
        answered = (await wire.post(challenge["url"], {})).json()
        assert answered["status"] == "valid", answered
        assert client.asked == [PATH + token]
        finalized = (await wire.finalize(order)).json()
        assert finalized["status"] == "valid"
        assert (await wire.post(finalized["certificate"])).text.startswith("-----BEGIN CERTIFICATE-----")

    with validates(person, client.port, *PATIENT, "--workers", workers) as serving:
        with_account(serving, story)
    shown = person.does("show", ADDRESS, "--json").json
    (proof,) = shown["proofs"]
    assert (proof["method"], proof["identifier"]) == ("http-01", {"type": "ip", "value": ADDRESS})
    assert proof["steps"][-1]["target"] == f"{ADDRESS}:{client.port}"
    told = rf"proved       {ADDRESS} by http-01 at \S+, connected to {ADDRESS}:{client.port}\n"
    assert re.search(told, person.does("show", ADDRESS).out)


def test_a_wrong_answer_makes_the_order_invalid_and_says_why(person: Person, client: Client) -> None:
    async def story(wire: Wire) -> None:
        location, order, challenge = await challenged(wire)
        refused = (await wire.post(challenge["url"], {})).json()
        assert (refused["status"], refused["error"]["type"], refused["error"]["detail"]) == (
            "invalid",
            "urn:ietf:params:acme:error:incorrectResponse",
            f"http-01 for {ADDRESS} found something else than the key authorization",
        )
        assert (await wire.post(location)).json()["status"] == "invalid"
        assert (await wire.finalize(order)).status_code == 403

    with validates(person, client.port, *PATIENT) as serving:
        with_account(serving, story)
    assert person.does("list", "--json").json == []


class Elsewhere(httpx.AsyncHTTPTransport):
    """Takes requests to another place than they were signed for, as something in front of several servers does."""

    def __init__(self) -> None:
        super().__init__()
        self.port = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(host=ADDRESS, port=self.port)
        return await super().handle_async_request(request)


def test_what_a_killed_server_was_validating_is_taken_up_by_another(person: Person, client: Client) -> None:
    """Two servers on one store. The one that began is killed, without a word; whoever asks the other gets an answer."""
    url = "http://ca.internal:8555"
    options = ("--external-url", url, "--validate-within", "10s", "--port")
    first, second = free_port(), free_port()

    async def story() -> None:
        way = Elsewhere()
        async with httpx.AsyncClient(transport=way, timeout=60) as http:
            way.port = first
            wire = Wire(http, url)
            assert (await wire.register()).status_code == 201
            location, order, challenge = await challenged(wire)
            token = challenge["token"]
            answered = await wire.post(challenge["url"], {})
            assert (answered.json()["status"], answered.headers["retry-after"]) == ("processing", "2")
            deadline = time.monotonic() + 120
            while not client.asked:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            begun.program.kill()
            way.port = second
            client.pages[PATH + token] = f"{token}.{thumbprint_of(wire.key)}"
            client.silent.clear()
            # The lease of whoever was killed has to end first.
            while (looked := (await wire.post(location)).json())["status"] == "pending":
                assert time.monotonic() < deadline
                await asyncio.sleep(0.5)
            assert looked["status"] == "ready", looked
            assert (await wire.finalize(order)).json()["status"] == "valid"

    client.silent.set()
    with validates(person, client.port, *options, str(second)):
        begun = validates(person, client.port, *options, str(first))
        try:
            asyncio.run(story())
        finally:
            begun.program.stop()
    assert len(client.asked) == 2
    (proof,) = person.does("show", ADDRESS, "--json").json["proofs"]
    assert proof["method"] == "http-01"


def test_validators_do_not_come_to_the_server_itself() -> None:
    settings = Settings(validate=("http-01",), resolver=("10.0.0.53",), validate_allow=("127.0.0.0/8",))
    site = Site(settings, Files(), "http://127.0.0.1:8555", (), (("127.0.0.1", 8555),))
    validators = make_settings_validators(settings, URL, pickle.loads(pickle.dumps(site)).listeners)
    assert validators is not None
    wrapped = validators["http-01"]
    assert isinstance(wrapped, Retrying)
    assert isinstance(wrapped.validator, HTTP01Validator)
    networks = wrapped.validator.connector.networks
    networks.check("127.0.0.1", 80)
    with pytest.raises(AddressRefused, match="where this server itself listens"):
        networks.check("127.0.0.1", 8555)


def test_validators_have_time_enough() -> None:
    validators = make_settings_validators(Settings(validate=VALIDATED, resolver=("10.0.0.53",)), URL, ())
    assert validators is not None
    for wrapped in validators.values():
        assert isinstance(wrapped, Retrying)
        assert isinstance(wrapped.validator, Validator)
        assert wrapped.within + wrapped.validator.timeout < Limits().validation.total_seconds()


def test_it_says_what_is_proved_and_how(person: Person) -> None:
    """Who says nothing else has it proved."""
    every = ("--resolver", "10.0.0.53", "--resolver", "[fd00::53]:5353")
    with person.serves(*every, "--validate-deny", "10.9.0.0/24") as serving:
        said = serving.program.wait_for(r"(?s).*# Caddy.*\n}\n").group()
    assert (
        "approval     by proof of control of every name: http-01 (a file fetched from port 80) or dns-01 (a TXT "
        "record) or tls-alpn-01 (a certificate shown on port 443)\n"
        "  nameservers  10.0.0.53:53, [fd00::53]:5353\n"
        "  connects to  no loopback, link-local or metadata address, and not itself; denied: 10.9.0.0/24\n"
    ) in said
    assert " --standalone -d web.internal\n" in said
    assert " --http --domains web.internal run\n" in said
    assert "http_port" not in said


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        (
            ("http-01", "--http-01-port", "5002"),
            ["--standalone --http-01-port 5002", "--http.port :5002", "port 5002)"],
        ),
        (("tls-alpn-01",), ["# certbot knows no tls-alpn-01.", " --tls --domains"]),
        (("dns-01",), ["--preferred-challenges dns", " --dns manual ", "# Caddy needs a plugin"]),
        (
            ("dns-account-01,dns-persist-01", "--caa-identity", "ca.internal", "--caa-identity", "PKI.internal"),
            [
                "# certbot knows no dns-account-01 and no dns-persist-01.",
                "# lego knows no dns-account-01 and no dns-persist-01.",
                "# Caddy needs a plugin",
                "known as     ca.internal, pki.internal; in the records of dns-persist-01\n",
            ],
        ),
        (
            ("http-01", "--caa", "--external-url", "https://ca.internal/acme", "--reuse-authorizations", "8h"),
            [
                "known as     ca.internal; CAA records are looked up\n",
                "reuse        what was proved need not be proved again for 8:00:00\n",
            ],
        ),
    ],
)
def test_what_is_to_be_copied_proves_what_is_asked_for(
    person: Person, options: tuple[str, ...], lines: list[str]
) -> None:
    with person.serves("--validate", *options, "--resolver", "10.0.0.53") as serving:
        said = serving.program.wait_for(r"(?s).*# Caddy.*\n").group()
        for line in lines:
            assert line in said


ABOUT = "is about proofs, and --auto-approve asks for none: leave one of them out"
BY_NAME = "records in DNS have to call this authority by a name: say which, such as --caa-identity ca.internal"
TYPES = "--validate has to be one or more of http-01,dns-01,tls-alpn-01,dns-account-01,dns-persist-01, with commas "


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--validate http-1", TYPES),
        ("--validate http-01,", TYPES),
        ("--validate none", TYPES),
        (
            "--validate http-01 --auto-approve",
            "--validate wants a proof from those whom --auto-approve asks for none: leave one of them out",
        ),
        (
            "--validate http-01 --validate-allow 10.0.0.1/8",
            "--validate-allow has a network that is none: '10.0.0.1/8' is not a network such as 10.0.0.0/8, ",
        ),
        ("--validate http-01 --validate-deny storage", "--validate-deny has a network that is none: 'storage' is not "),
        (
            "--validate http-01 --resolver ns.internal",
            "--resolver has a nameserver that is none: 'ns.internal' is not a nameserver such as 10.0.0.53 or ",
        ),
        ("--validate http-01 --http-01-port 0", "--http-01-port has to be a number from 1 to 65535, not '0'"),
        (
            "--validate dns-01 --http-01-port 81",
            "--http-01-port is about http-01, which --validate does not name: leave it out",
        ),
        ("--auto-approve --resolver 10.0.0.53", f"--resolver {ABOUT}"),
        ("--auto-approve --validate-allow 10.0.0.0/8", f"--validate-allow {ABOUT}"),
        ("--auto-approve --validate-deny 10.0.0.0/8", f"--validate-deny {ABOUT}"),
        ("--auto-approve --validate-within 5s", f"--validate-within {ABOUT}"),
        ("--auto-approve --http-01-port 81", f"--http-01-port {ABOUT}"),
        ("--auto-approve --caa --external-url https://ca.internal", f"--caa {ABOUT}"),
        ("--auto-approve --reuse-authorizations 8h", f"--reuse-authorizations {ABOUT}"),
        (
            "--ask-person --http-01-port 81",
            "--http-01-port is about proofs, and --ask-person asks for none: leave one of them out",
        ),
        (
            "--ask-person --validate http-01",
            "--validate wants a proof from those whom --ask-person asks for none: leave one of them out",
        ),
        (
            "--ask-person --auto-approve",
            "--ask-person lets a person decide what --auto-approve gives to everybody: leave one of them out",
        ),
        ("--caa", f"--caa: {BY_NAME}"),
        ("--caa --external-url http://10.0.0.5:8555", f"--caa: {BY_NAME}"),
        ("--caa --external-url http://localhost:8555", f"--caa: {BY_NAME}"),
        ("--validate dns-persist-01 --caa", f"--caa and dns-persist-01: {BY_NAME}"),
        ("--caa --caa-identity 10.0.0.1", "--caa-identity has to be one to ten domain names: '10.0.0.1' ends in"),
        ("--caa --caa-identity *.internal", "--caa-identity has to be one to ten domain names: an issuer is a domain"),
        (
            "--caa-identity ca.internal",
            "--caa-identity is about --caa and dns-persist-01: ask for one of them, or leave it out",
        ),
        (
            "--auto-approve --caa-identity ca.internal",
            "--caa-identity is about --caa and dns-persist-01: ask for one of them, or leave it out",
        ),
    ],
)
def test_mistakes_are_a_sentence_each_and_nothing_is_made(person: Person, options: str, sentence: str) -> None:
    refused = person.tries("serve", *options.split())
    (told,) = refused.sentences
    assert told.startswith(sentence)
    assert refused.status == 2
    assert list(person.folder.iterdir()) == [], "nothing was made"


def test_what_is_to_be_proved_may_be_in_the_environment_or_in_the_file(person: Person) -> None:
    (person.folder / "privet.toml").write_text('resolver = ["10.0.0.53"]\nvalidate-allow = ["127.0.0.0/8"]\n')
    with person.serves("--config", "privet.toml", env={"PRIVET_VALIDATE": "dns-01, http-01"}) as serving:
        said = serving.program.wait_for(r"connects to .*\n").string
        assert "every name: dns-01 (a TXT record) or http-01 (" in said
        assert "allowed: 127.0.0.0/8" in said


DOCS = (Path(__file__).parents[2] / "docs/validation.md").read_text()
TOLD = [row.split(" | ")[1] for row in DOCS.split("| you want | say |\n")[1].split("\n\n")[0].splitlines()[1:]]
TOLD = [options for cell in TOLD for options in re.findall("`(--[^`]+)`", cell)]


@pytest.mark.parametrize("options", TOLD)
def test_what_the_page_says_to_say_can_be_said(person: Person, options: str) -> None:
    words = shlex.split(options.replace("NAME", "ca.internal"))
    about = ["--caa"] if words[0] == "--caa-identity" else []
    with person.serves(*words, *about, "--external-url", "http://ca.internal:8555") as serving:
        assert serving.directory == "http://ca.internal:8555/directory"


def test_the_page_names_every_option() -> None:
    assert {options.split()[0] for options in TOLD} == {
        f"--{option_name(name)}"
        for name in READERS
        if name.startswith(("validate", "caa"))
        or name in ("auto_approve", "ask_person", "resolver", "http_01_port")
        or name == "reuse_authorizations"
    }


def test_the_directory_tells_what_records_in_dns_need(person: Person) -> None:
    """RFC 8555 §7.1.1, draft-ietf-acme-dns-persist-02 §3.2: and what it says stays with the address."""
    options = ("--validate", "dns-persist-01,http-01", "--caa", "--external-url", "https://ca.internal/acme")
    port = free_port()
    with person.serves(*options, "--port", str(port)) as serving:
        serving.program.wait_for(r"# Caddy")
        meta = httpx.get(f"http://127.0.0.1:{port}/directory", trust_env=False, timeout=60).json()["meta"]
    assert meta == {
        "issuerDomainNames": ["ca.internal"],
        "accountHashPrefix": "https://ca.internal/acme/account-hash/",
        "caaIdentities": ["ca.internal"],
    }
