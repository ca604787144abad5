"""`privet node renew --daemon`: certificates that live for seconds, an nginx that shows them, and what is killed."""

import itertools
import os
import signal
import ssl
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from tests.cli.command import PRIVET, Person, environment
from tests.cli.test_serve import handshake
from tests.interop.programs import Program, free_port, need


@pytest.fixture
def ca(tmp_path: Path) -> Person:
    (tmp_path / "ca").mkdir()
    person = Person(tmp_path / "ca")
    person.does("init")
    return person


@pytest.fixture
def node(tmp_path: Path) -> Person:
    (tmp_path / "node").mkdir()
    return Person(tmp_path / "node")


def fingerprint(ca: Person) -> str:
    return str(ca.does("root", "--json").json["fingerprint"])


def starts(node: Person, *arguments: str | Path) -> Program:
    return Program(*PRIVET, "node", *arguments, env=environment(node.folder), cwd=node.folder)


def until(happened: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 90
    while not happened():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.05)  # between two looks


def serial(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


@contextmanager
def nginx(folder: Path, port: int, tls: Path) -> Iterator[str]:
    """nginx with a certificate from `tls`, and the command that reloads it."""
    folder.mkdir()
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    (folder / "nginx.conf").write_text(f"""
        {"user root;" if os.geteuid() == 0 else ""}
        daemon off;
        worker_processes 1;
        pid {folder}/nginx.pid;
        error_log stderr notice;
        events {{}}
        http {{
            access_log off;
            {"".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)}
            server {{
                listen 127.0.0.1:{port} ssl;
                ssl_certificate {tls}/fullchain.pem;
                ssl_certificate_key {tls}/key.pem;
            }}
        }}
    """)
    command = (need("nginx"), "-e", "stderr", "-c", str(folder / "nginx.conf"), "-p", str(folder))
    with Program(*command) as running:
        running.wait_for("start worker process ")
        yield " ".join([*command, "-s", "reload"])


@pytest.mark.interop
def test_nginx_shows_the_next_certificate_without_a_restart(ca: Person, node: Person) -> None:
    web = node.folder / "web"
    port = free_port()
    with ca.serves("--auto-approve", "--tls", "--validity", "40s") as serving:
        # Renewed long before they end: every handshake is verified, expiry included.
        asked = ("--directory", serving.directory, "--fingerprint", fingerprint(ca), "--renewal-threshold", "0.2")
        node.does("node", "issue", "web.internal", *asked, "--out", "web")
        with nginx(node.folder / "nginx", port, web) as reload:
            trust = ssl.create_default_context(cafile=str(web / "ca.pem"))
            node.does("node", "issue", "web.internal", *asked, "--out", "web", "--keep", "--reload-command", reload)
            node.does("node", "issue", "other.internal", *asked, "--out", "other")
            first = handshake(port, trust, "web.internal").serial_number
            others = serial(node.folder / "other/cert.pem")
            daemon = starts(node, "renew", "web", "other", "--daemon")
            with daemon:
                # For a moment after a reload, nginx's old worker still answers as well.
                until(lambda: handshake(port, trust, "web.internal").serial_number != first, "nginx with the next")
                until(lambda: serial(node.folder / "other/cert.pem") != others, "the other folder")
                daemon.wait_for(r"Z INFO renewed the certificate for web\.internal until ")
                assert daemon.stop() == 0
            assert "Traceback" not in daemon.output
            assert node.does("node", "status", "web", "--json").json[0]["error"] is None


def test_a_ca_that_is_down_when_it_starts_ends_nothing(ca: Person, node: Person) -> None:
    options = ("--auto-approve", "--tls", "--validity", "8s", "--port", str(free_port()))
    with ca.serves(*options) as serving:
        asked = ("--directory", serving.directory, "--fingerprint", fingerprint(ca), "--out", "web")
        node.does("node", "issue", "web.internal", *asked)
    first = serial(node.folder / "web/cert.pem")
    with starts(node, "renew", "web", "--daemon") as daemon:
        daemon.wait_for(r"WARNING the certificate for web\.internal was not renewed \(attempt 2\): the root cannot be ")
        until(lambda: node.tries("node", "status", "web").status == 1, "a status that says so")
        (told,) = node.tries("node", "status", "web", "--json").sentences
        assert str(node.folder / "web") in told
        assert "the root cannot be fetched from " in told
        with ca.serves(*options):
            until(lambda: serial(node.folder / "web/cert.pem") != first, "a certificate from the CA that is back")
            until(lambda: node.tries("node", "status", "web").status == 0, "a status that says so")
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.output


def test_who_is_killed_before_the_service_was_told_tells_it_when_started_again(ca: Person, node: Person) -> None:
    told = node.folder / "told"
    script = node.folder / "reload"
    script.write_text(f"#!/bin/sh\necho told >> {told}\ntest ! -e {node.folder}/slow || exec sleep 600\n")
    script.chmod(0o755)

    def times() -> int:
        return len(told.read_text().splitlines())

    with ca.serves("--auto-approve", "--tls") as serving:
        asked = ("--directory", serving.directory, "--fingerprint", fingerprint(ca), "--out", "web")
        node.does("node", "issue", "web.internal", *asked, "--reload-command", "./reload")
        assert times() == 1
        (node.folder / "slow").touch()
        renewal = starts(node, "renew", "web", "--force")
        until(lambda: times() == 2, "a reload that does not end")
        renewal.kill()
        (node.folder / "slow").unlink()
        with starts(node, "renew", "web", "--daemon") as daemon:
            daemon.wait_for(f"INFO the certificate is in {node.folder}/web, and its service was told")
            assert times() == 3
            assert daemon.stop() == 0
        node.does("node", "renew", "web")
        assert times() == 3, "once is enough"


def test_who_is_killed_while_it_writes_leaves_nothing_behind(ca: Person, node: Person) -> None:
    """A crash in between leaves the store with the new certificate, and the folder with the old one, or parts."""
    with ca.serves("--auto-approve", "--tls") as serving:
        asked = ("--directory", serving.directory, "--fingerprint", fingerprint(ca), "--out", "web")
        node.does("node", "issue", "web.internal", *asked)
        web = node.folder / "web"
        old = {path.name: path.read_bytes() for path in web.glob("*.pem")}
        node.does("node", "renew", "web", "--force")
        new = {path.name: path.read_bytes() for path in web.glob("*.pem")}
        (web / "key.pem").write_bytes(old["key.pem"])
        (web / ".privet/new/key.pem").write_bytes(b"half of a k")
    node.tries("node", "renew", "web")
    assert {path.name: path.read_bytes() for path in web.glob("*.pem")} == new
    assert list((web / ".privet/new").iterdir()) == []


def test_killed_at_any_step_the_next_one_mends_it(ca: Person, node: Person) -> None:
    """At every change on the disk, from the first to the last: afterwards key and certificate belong together, and the
    service knows."""
    web, told = node.folder / "web", node.folder / "told"
    script = node.folder / "reload"
    script.write_text(f"#!/bin/sh\nopenssl x509 -noout -serial -in {web}/cert.pem > {told}\n")
    script.chmod(0o755)
    with ca.serves("--auto-approve", "--tls") as serving:
        asked = ("--directory", serving.directory, "--fingerprint", fingerprint(ca), "--out", "web")
        node.does("node", "issue", "web.internal", *asked, "--reload-command", "./reload")
        trust = ssl.create_default_context(cafile=str(web / "ca.pem"))
        for step in itertools.count(1):
            killed = node.tries("node", "renew", "web", "--force", dies_at=step)
            assert stat.S_IMODE((web / "key.pem").stat().st_mode) == 0o600
            if killed.status == 0:
                break
            assert killed.status == -signal.SIGKILL
            node.does("node", "renew", "web")
            node.does("node", "status", "web")
            trust.load_cert_chain(web / "fullchain.pem", web / "key.pem")  # or it would be a mismatch
            assert (web / "fullchain.pem").read_bytes().startswith((web / "cert.pem").read_bytes())
            assert int(told.read_text().strip().removeprefix("serial="), 16) == serial(web / "cert.pem")
            assert list((web / ".privet/new").iterdir()) == []
        assert step > 20, "there were steps to be killed at"


def test_two_daemons_on_one_folder_renew_once_and_tell_the_service_once(ca: Person, node: Person) -> None:
    told = node.folder / "told"
    script = node.folder / "reload"
    # It takes its time, so that the other daemon comes upon a certificate that nobody has been told of yet.
    script.write_text(f"#!/bin/sh\nopenssl x509 -noout -serial -in {node.folder}/web/cert.pem >> {told}\nsleep 1.5\n")
    script.chmod(0o755)
    with ca.serves("--auto-approve", "--tls", "--validity", "30s") as serving:
        asked = ("--directory", serving.directory, "--fingerprint", fingerprint(ca), "--out", "web")
        sooner = ("--renewal-threshold", "0.2")
        node.does("node", "issue", "web.internal", *asked, *sooner, "--reload-command", "./reload")
        with starts(node, "renew", "web", "--daemon") as one, starts(node, "renew", "web", "--daemon") as other:
            until(lambda: len(told.read_text().splitlines()) >= 4, "three renewals")
            assert (one.stop(), other.stop()) == (0, 0)
    serials = [line.removeprefix("serial=").lower().lstrip("0") for line in told.read_text().splitlines()]
    assert len(set(serials[:3])) == 3, "each once"
    issued = [each["serial"] for each in ca.does("list", "web.internal", "--json").json]
    assert issued[:3] == serials[:3]
    assert len(issued) <= len(set(serials)) + 1, "who was stopped may have had one more"
    assert "Traceback" not in one.output + other.output


def test_a_folder_without_a_certificate_is_a_sentence(node: Person) -> None:
    refused = node.tries("node", "renew", "web", "--daemon")
    assert refused.sentences[0].startswith("there is no certificate of `privet node issue` in ")
    assert node.tries("node", "renew", "web", "--daemon", "--force").sentences == [
        "--daemon stays, so it cannot be combined with --force"
    ]
