"""`privet node`: a machine that trusts a CA, gets its certificate from a real server, and looks how it stands."""

import grp
import os
import pwd
import re
import shlex
import ssl
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from tests.certificates import openssl
from tests.cli.command import PRIVET, Person, Serving, environment
from tests.interop.programs import Program, free_port

from privet.cli.node.mistakes import read_command

NAMES = ("web.internal", "10.0.0.7")
FILES = ("ca.pem", "cert.pem", "fullchain.pem", "key.pem")


@pytest.fixture
def ca(tmp_path: Path) -> Person:
    (tmp_path / "ca").mkdir()
    return Person(tmp_path / "ca")


@pytest.fixture
def node(tmp_path: Path) -> Person:
    (tmp_path / "node").mkdir()
    return Person(tmp_path / "node")


@pytest.fixture
def serving(ca: Person) -> Iterator[Serving]:
    with ca.serves("--auto-approve", "--tls") as running:
        yield running


def fingerprint(ca: Person) -> str:
    return str(ca.does("root", "--json").json["fingerprint"])


def issues(node: Person, serving: Serving, *more: str | Path, names: tuple[str, ...] = NAMES) -> Any:
    """Get a certificate into the folder `web`."""
    asked = ("--directory", serving.directory, "--fingerprint", fingerprint(serving.person), "--out", "web")
    return node.does("node", "issue", *names, *asked, *more, "--json").json


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- trust ---


def test_a_root_is_written_when_its_fingerprint_is_right(ca: Person, node: Person, serving: Serving) -> None:
    right = fingerprint(ca)
    for spelled in (right, right.lower(), right.replace(":", ""), f"sha256:{right.replace(':', '').lower()}"):
        done = node.does(
            "node",
            "bootstrap",
            "--directory",
            serving.directory,
            "--fingerprint",
            spelled,
            "--out",
            "root.pem",
            "--json",
        )
        assert (done.json["fingerprint"], done.json["file"]) == (right, str(node.folder / "root.pem"))
        assert (node.folder / "root.pem").read_text() == ca.does("root").out
        assert mode(node.folder / "root.pem") == 0o644
        assert [path.name for path in node.folder.iterdir()] == ["root.pem"]
        (node.folder / "root.pem").write_text("something else")


def test_without_a_fingerprint_it_says_what_to_compare_and_writes_nothing(
    ca: Person, node: Person, serving: Serving
) -> None:
    refused = node.tries("node", "bootstrap", "--directory", serving.directory, "--out", "root.pem")
    (told,) = refused.sentences
    assert f"shows a root with the SHA-256 {fingerprint(ca)}; that may be somebody in between: compare it with" in told
    assert refused.status == 1
    assert list(node.folder.iterdir()) == []


@pytest.mark.parametrize("command", [("bootstrap",), ("issue", "web.internal")])
def test_another_root_is_refused(node: Person, serving: Serving, command: tuple[str, ...]) -> None:
    wrong = "00:" * 31 + "00"
    asked = ("--directory", serving.directory, "--fingerprint", wrong, "--out", "out")
    refused = node.tries("node", *command, *asked)
    (told,) = refused.sentences
    assert f"not {wrong}: this is another CA, or somebody in between" in told
    assert refused.status == 1
    assert not (node.folder / "out/key.pem").exists()
    assert not (node.folder / "out").is_file()


def test_a_system_without_a_trust_store_is_told_so(ca: Person, node: Person, serving: Serving) -> None:
    asked = ("--directory", serving.directory, "--fingerprint", fingerprint(ca), "--install")
    refused = node.tries("node", "bootstrap", *asked, env={"PATH": "/nowhere"})
    (told,) = refused.sentences
    assert told.startswith("this system has neither update-ca-certificates nor update-ca-trust: write the root with")


# A namespace of its own, where the system's folders are others than ours.
APART = ("unshare", "--map-root-user", "--mount", "sh", "-euc")


@pytest.mark.parametrize(
    ("prepare", "look"),
    [
        (
            "command -v update-ca-certificates >/dev/null || exit 77; mount -t tmpfs none /usr/local/share; "
            "mount -t tmpfs none /etc/ssl/certs",
            "cat /etc/ssl/certs/ca-certificates.crt",
        ),
        (
            "mount -t tmpfs none /etc; mkdir /etc/bin; "
            "printf '#!/bin/sh\\ntest $1 = extract; /bin/cat /etc/pki/ca-trust/source/anchors/*' "
            "> /etc/bin/update-ca-trust; "
            "/bin/chmod 755 /etc/bin/update-ca-trust; PATH=/etc/bin",
            "/bin/cat /etc/pki/ca-trust/source/anchors/privet-*.pem",
        ),
    ],
    ids=["debian", "fedora"],
)
def test_the_system_trusts_it(ca: Person, node: Person, serving: Serving, prepare: str, look: str) -> None:
    if subprocess.run([*APART, "mount -t tmpfs none /mnt"], capture_output=True).returncode:
        pytest.skip("no namespaces can be made here")
    command = shlex.join([*PRIVET, "node", "bootstrap", "--directory", serving.directory, "--fingerprint"])
    done = subprocess.run(
        [*APART, f"{prepare}; {command} {fingerprint(ca)} --install >&2; {look}"],
        env=environment(node.folder),
        cwd=node.folder,
        capture_output=True,
        text=True,
    )
    if done.returncode == 77:
        pytest.skip("there is no update-ca-certificates here")
    assert done.returncode == 0, done.stderr
    assert ca.does("root").out.strip() in done.stdout
    assert list(node.folder.iterdir()) == []


# --- a certificate ---


def test_a_certificate_is_written_where_a_service_reads_it(ca: Person, node: Person, serving: Serving) -> None:
    issued = issues(node, serving)
    web = node.folder / "web"
    assert issued["names"] == list(NAMES)
    assert issued["files"] == {name.removesuffix(".pem"): str(web / name) for name in FILES[1:] + FILES[:1]}
    assert sorted(path.name for path in web.iterdir()) == [".privet", *FILES]
    assert {name: mode(web / name) for name in FILES} == dict.fromkeys(FILES, 0o644) | {"key.pem": 0o600}
    assert mode(web / ".privet") == 0o700
    assert (web / "ca.pem").read_text() == ca.does("root").out
    openssl("verify", "-x509_strict", "-CAfile", web / "ca.pem", web / "cert.pem")
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(web / "fullchain.pem", web / "key.pem")
    assert [each["names"] for each in ca.does("list", "--json").json if "localhost" not in each["names"]] == [
        list(NAMES)
    ]


def test_over_plain_http_when_that_is_said(ca: Person, node: Person) -> None:
    with ca.serves("--auto-approve") as serving:
        asked = ("web.internal", "--directory", serving.directory, "--out", "web")
        refused = node.tries("node", "issue", *asked)
        (told,) = refused.sentences
        assert told.startswith("--directory is not https, so anybody on the way could answer for the CA: use https ")
        node.does("node", "issue", *asked, "--insecure")
        assert (node.folder / "web/ca.pem").read_text() == ca.does("root").out


def test_with_a_file_of_roots(ca: Person, node: Person, serving: Serving) -> None:
    asked = ("web.internal", "--directory", serving.directory, "--out", "web")
    refused = node.tries("node", "issue", *asked)
    assert "say whom to trust with --fingerprint or --ca-file" in refused.sentences[0]
    (node.folder / "roots.pem").write_text(ca.does("root").out)
    node.does("node", "issue", *asked, "--ca-file", "roots.pem")
    assert (node.folder / "web/ca.pem").read_text() == ca.does("root").out


def test_control_is_proved_on_a_port(ca: Person, node: Person) -> None:
    port = str(free_port())
    options = ("--validate", "http-01", "--http-01-port", port, "--validate-allow", "127.0.0.0/8")
    with ca.serves("--tls", *options, "--resolver", "127.0.0.1:9") as serving:
        asked = ("127.0.0.1", "--directory", serving.directory, "--fingerprint", fingerprint(ca), "--out", "web")
        refused = node.tries("node", "issue", *asked)
        (told,) = refused.sentences
        assert told.endswith("--tls-alpn-01, --dns-hook, or --approval-within where a person decides")
        node.does("node", "issue", *asked, "--http-01-port", port)
        assert node.does("node", "renew", "web", "--force", "--json").json[0]["renewed"] is True
        (proof,) = ca.does("show", "127.0.0.1", "--json").json["proofs"]
        assert proof["method"] == "http-01"


def test_a_person_decides_and_is_waited_for(ca: Person, node: Person) -> None:
    with ca.serves("--tls", "--ask-person") as serving:
        asked = ("web.internal", "--directory", serving.directory, "--fingerprint", fingerprint(ca), "--out", "web")
        privet = (sys.executable, "-u", "-m", "privet", "node", "issue", *asked, "--approval-within", "5m")
        with Program(*privet, cwd=node.folder, env={"PRIVET_STORE": ""}) as waits:
            waits.wait_for("the CA's decision about 'web.internal' is still pending; that is waited for, 300 s at most")
            (found,) = ca.does("pending", "--json").json
            ca.does("approve", found["id"])
            waits.wait_for("valid until")
    assert certificate(node.folder / "web/cert.pem")


def test_control_is_proved_by_files_that_a_web_server_shows(ca: Person, node: Person) -> None:
    port = str(free_port())
    html = node.folder / "html"
    html.mkdir()
    options = ("--validate", "http-01", "--http-01-port", port, "--validate-allow", "127.0.0.0/8")
    server = Program(sys.executable, "-u", "-m", "http.server", port, "-b", "127.0.0.1", "-d", html)
    with ca.serves("--tls", *options, "--resolver", "127.0.0.1:9") as serving, server:
        server.wait_for("Serving HTTP on")
        asked = ("127.0.0.1", "--directory", serving.directory, "--fingerprint", fingerprint(ca), "--out", "web")
        node.does("node", "issue", *asked, "--webroot", "html")
        server.wait_for(r'"GET /\.well-known/acme-challenge/\S+ HTTP/1.1" 200')
    assert [path for path in html.rglob("*") if path.is_file()] == []


def test_a_hook_that_fails_is_a_sentence(ca: Person, node: Person) -> None:
    hook = node.folder / "hook"
    hook.write_text('#!/bin/sh\necho "$1 $2: no such zone" >&2\nexit 4\n')
    hook.chmod(0o755)
    with ca.serves("--tls", "--validate", "dns-01", "--resolver", "127.0.0.1:9") as serving:
        asked = ("web.invalid", "--directory", serving.directory, "--fingerprint", fingerprint(ca), "--out", "web")
        refused = node.tries("node", "issue", *asked, "--dns-hook", "./hook")
    left, told = refused.sentences
    assert left.startswith(f"a proof for web.invalid could not be cleaned up: the hook {hook} ended with 4 for ")
    assert (
        f"the hook {hook} ended with 4 for _acme-challenge.web.invalid: present _acme-challenge.web.invalid: " in told
    )


def test_an_external_account_key_lets_a_node_in(owner: Person) -> None:
    person = owner
    key = person.does("eab", "create", "--name", "web", "--json").json
    file = person.folder / "eab.key"
    file.write_text(key["hmac_key"] + "\n")
    with person.serves("--auto-approve", "--require-eab", "--tls") as serving:
        asked = ("a.internal", "--directory", serving.directory, "--fingerprint", fingerprint(person), "--out", "web")
        refused = person.tries("node", "issue", *asked)
        assert refused.sentences[0].endswith("give it with --external-account and --external-account-key-file")
        half = person.tries("node", "issue", *asked, "--external-account", key["id"])
        assert half.sentences == ["--external-account and --external-account-key-file go together: give both"]
        person.does("node", "issue", *asked, "--external-account", key["id"], "--external-account-key-file", file)
        file.unlink()
        person.does("node", "renew", "web", "--force")
    settings = "".join(path.read_text() for path in (person.folder / "web/.privet").rglob("*") if path.is_file())
    assert key["hmac_key"] not in settings


def test_a_young_certificate_is_kept_when_that_is_wanted(node: Person, serving: Serving) -> None:
    def serial(*more: str) -> int:
        issues(node, serving, *more)
        return certificate(node.folder / "web/cert.pem").serial_number

    first = serial()
    assert serial("--keep") == first
    assert serial("--keep", "--key-type", "P-384") != first
    second = serial()
    assert second != first
    (node.folder / "web/cert.pem").unlink()
    node.does("node", "renew", "web")
    assert certificate(node.folder / "web/cert.pem").serial_number == second, "what is missing is put back"


def test_when_to_renew_and_with_which_key_can_be_said(node: Person, serving: Serving) -> None:
    def life(*more: str) -> tuple[float, bytes]:
        """The part of its life after which it is due, and its key."""
        issues(node, serving, *more)
        node.does("node", "renew", "web")  # nothing is due, and it says what will be
        (found,) = node.does("node", "status", "web", "--json").json
        begin, due, end = (datetime.fromisoformat(found[each]) for each in ("not_before", "due", "not_after"))
        return round((due - begin) / (end - begin), 2), (node.folder / "web/key.pem").read_bytes()

    # And a tenth of what is left later, at most, so that not all come at once.
    assert 0.66 <= life()[0] <= 0.7
    assert 0.75 <= life("--days-before-expiry", "0.25")[0] <= 0.78
    part, key = life("--renewal-threshold", "0.1", "--reuse-key")
    assert 0.1 <= part <= 0.19
    node.does("node", "renew", "web", "--force")
    assert (node.folder / "web/key.pem").read_bytes() == key, "it is the same key"
    issues(node, serving)
    again = (node.folder / "web/key.pem").read_bytes()
    node.does("node", "renew", "web", "--force")
    assert key != again != (node.folder / "web/key.pem").read_bytes(), "it is another each time"


def test_a_service_is_told(node: Person, serving: Serving) -> None:
    told = node.folder / "it is told"
    script = node.folder / "reload"
    script.write_text(f'#!/bin/sh\nopenssl x509 -noout -serial -in web/cert.pem >> "{told}"\n')
    script.chmod(0o755)
    issues(node, serving, "--reload-command", "./reload 'now; please'")
    assert len(told.read_text().splitlines()) == 1
    node.does("node", "renew", "web")
    assert len(told.read_text().splitlines()) == 1, "nothing was due"
    node.does("node", "renew", "web", "--force")
    _, _, last = told.read_text().splitlines()[-1].partition("serial=")
    assert int(last, 16) == certificate(node.folder / "web/cert.pem").serial_number


def test_a_service_that_could_not_be_told_is_a_warning_and_told_again(
    ca: Person, node: Person, serving: Serving
) -> None:
    asked = ("web.internal", "--directory", serving.directory, "--fingerprint", fingerprint(ca), "--out", "web")
    warned = node.tries("node", "issue", *asked, "--reload-command", "ls there")
    (told,) = warned.sentences
    web = node.folder / "web"
    assert told.startswith(f"the certificate is in {web}, but the reload command 'ls there' ended with 2: ls: ")
    assert warned.status == 3
    assert f"key          {web}/key.pem\n" in warned.out
    assert node.tries("node", "status", "web").status == 1
    assert node.tries("node", "renew", "web").status == 3
    (node.folder / "there").touch()
    node.does("node", "renew", "web")
    node.does("node", "status", "web")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_files_belong_to_whom_they_are_for(node: Person, serving: Serving) -> None:
    user = pwd.getpwnam("nobody")
    group = grp.getgrgid(0).gr_name
    issues(node, serving, "--owner", f"nobody:{group}", "--mode", "0640")
    for name in FILES:
        found = (node.folder / "web" / name).stat()
        assert (found.st_uid, found.st_gid) == (user.pw_uid, 0)
    assert mode(node.folder / "web/key.pem") == 0o640
    issues(node, serving, "--keep", "--owner", "nobody")
    found = (node.folder / "web/key.pem").stat()
    assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (user.pw_gid, 0o600)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another")
def test_who_may_not_give_files_away_is_told_before_anything_is_asked() -> None:
    asked = ("web.internal", "--directory", "https://127.0.0.1:1/directory", "--out", "web", "--owner", "root")
    with tempfile.TemporaryDirectory() as home:  # where others may enter
        os.chown(home, 65534, 65534)
        refused = Person(Path(home)).tries("node", "issue", *asked, nobody=True)
    assert refused.sentences == ["only root can give files to root: run this as root, or leave --owner out"]


def test_a_key_is_never_for_other_eyes(node: Person, serving: Serving) -> None:
    """Whatever the umask: files are watched from when they are made to when they have their names."""
    asked = ("web.internal", "--directory", serving.directory, "--fingerprint", fingerprint(serving.person))
    command = shlex.join([*PRIVET, "node", "issue", *asked, "--out", "web", "--mode", "0640"])
    trace = subprocess.run(
        ["sh", "-c", f"umask 000; exec strace -f -e trace=openat,fchmod,chmod -o trace {command}"],
        env=environment(node.folder),
        cwd=node.folder,
        capture_output=True,
        text=True,
    )
    if trace.returncode == 127:
        pytest.skip("strace is not installed")
    assert trace.returncode == 0, trace.stderr
    made = re.findall(r'openat\(.*key\.pem".*O_CREAT.*, (0\d+)\)', (node.folder / "trace").read_text())
    assert made
    assert set(made) == {"0600"}
    assert mode(node.folder / "web/key.pem") == 0o640


def test_a_key_that_was_opened_to_others_or_is_a_link_is_put_right(node: Person, serving: Serving) -> None:
    issues(node, serving, "--reload-command", "touch told")
    key, elsewhere = node.folder / "web/key.pem", node.folder / "elsewhere"
    right = key.read_bytes()
    key.chmod(0o644)
    node.does("node", "renew", "web")
    assert mode(key) == 0o600
    elsewhere.write_bytes(right)
    for target in (elsewhere, node.folder / "nowhere"):
        key.unlink()
        key.symlink_to(target)
        node.does("node", "renew", "web", "--force")
        assert not key.is_symlink()
        assert mode(key) == 0o600
    assert elsewhere.read_bytes() == right, "nothing is written through a link"
    key.unlink()
    key.mkdir()
    refused = node.tries("node", "renew", "web")
    assert refused.sentences == [f"{key} cannot be replaced: Is a directory"]
    told = node.tries("node", "status", "web")
    assert (told.status, told.sentences) == (
        1,
        [f"the certificate in {node.folder}/web is new, but {refused.sentences[0]}"],
    )
    key.rmdir()
    node.does("node", "renew", "web")
    node.does("node", "status", "web")


@pytest.mark.parametrize("tls", [True, False])
def test_what_is_young_is_kept_while_the_ca_is_down(ca: Person, node: Person, tls: bool) -> None:
    with ca.serves("--auto-approve", *["--tls"] * tls) as serving:
        trust = ("--fingerprint", fingerprint(ca)) if tls else ("--insecure",)
        asked = ("web.internal", "--directory", serving.directory, *trust, "--out", "web", "--keep")
        node.does("node", "issue", *asked)
    before = {name: (node.folder / "web" / name).read_bytes() for name in FILES}
    assert before["ca.pem"].decode() == ca.does("root").out
    (node.folder / "web/ca.pem").unlink()
    node.does("node", "issue", *asked)
    assert {name: (node.folder / "web" / name).read_bytes() for name in FILES} == before


def test_a_certificate_of_another_ca_at_the_same_place_is_not_kept(ca: Person, node: Person) -> None:
    options = ("--auto-approve", "--tls", "--port", str(free_port()))
    kept = []
    for more in ((), ("--name", "anew")):
        with ca.serves(*options, *more) as serving:
            root = ca.does("root", *more, "--json").json["fingerprint"]
            asked = ("--directory", serving.directory, "--fingerprint", root, "--out", "web", "--keep")
            for _ in range(2):
                node.does("node", "issue", "web.internal", *asked)
                kept.append(certificate(node.folder / "web/cert.pem").serial_number)
        trust = certificate(node.folder / "web/ca.pem")
        certificate(node.folder / "web/cert.pem").verify_directly_issued_by(trust)
    assert kept[0] == kept[1] != kept[2] == kept[3]


def test_a_folder_may_be_a_link(node: Person, serving: Serving) -> None:
    (node.folder / "real").mkdir()
    (node.folder / "web").symlink_to("real")
    issues(node, serving)
    node.does("node", "renew", "web", "--force")
    assert mode(node.folder / "real/key.pem") == 0o600


# --- how it stands ---


def test_status_says_how_it_stands(node: Person, serving: Serving) -> None:
    issues(node, serving)
    (found,) = node.does("node", "status", "web", "--json").json
    shown = certificate(node.folder / "web/cert.pem")
    assert (found["names"], found["issuer"]) == (list(NAMES), "CN=privet Internal CA")
    assert found["serial"] == f"{shown.serial_number:x}"
    assert found["fingerprint"] == shown.fingerprint(hashes.SHA256()).hex(":").upper()
    assert (found["error"], found["healthy"]) == (None, True)
    assert found["not_before"] < found["due"] < found["not_after"]
    told = node.does("node", "status", "web").out
    assert re.search(r"^names +web\.internal, 10\.0\.0\.7$", told, re.MULTILINE)
    assert re.search(rf"^due +{found['due']}$", told, re.MULTILINE)


def test_a_ca_that_is_down_is_a_sentence_and_the_folder_stays_as_it_is(ca: Person, node: Person) -> None:
    with ca.serves("--auto-approve", "--tls") as serving:
        issues(node, serving)
    before = (node.folder / "web/cert.pem").read_bytes()
    refused = node.tries("node", "renew", "web", "nothing", "--force")
    assert refused.status == 1
    assert "the root cannot be fetched from " in refused.sentences[0]
    assert refused.sentences[1].startswith(f"there is no certificate of `privet node issue` in {node.folder}/nothing:")
    assert (node.folder / "web/cert.pem").read_bytes() == before
    node.does("node", "status", "web")


@pytest.mark.parametrize("name", ["key.pem", "cert.pem", "fullchain.pem", "meta.json"])
def test_half_a_file_is_put_nowhere(node: Person, serving: Serving, name: str) -> None:
    """A disk that was restored in part, or a person with an editor."""
    issues(node, serving)
    web = node.folder / "web"
    before = {path.name: path.read_bytes() for path in web.glob("*.pem")}
    kept = web / ".privet/certs/web.internal" / name
    kept.write_bytes(kept.read_bytes()[:-30])
    for command in (("renew", "web"), ("renew", "web", "--force"), ("status", "web")):
        refused = node.tries("node", *command)
        assert refused.status == 1
        assert any(f"key in {web}/.privet is damaged: run `privet node issue`" in each for each in refused.sentences)
        assert {path.name: path.read_bytes() for path in web.glob("*.pem")} == before
    issues(node, serving, "--keep")
    assert (web / "key.pem").read_bytes() != before["key.pem"]
    node.does("node", "status", "web")


def test_somebody_else_s_state_is_not_believed(node: Person, serving: Serving, tmp_path: Path) -> None:
    issues(node, serving)
    private = node.folder / "web/.privet"
    private.rename(tmp_path / "elsewhere")
    private.symlink_to(tmp_path / "elsewhere")
    refused = node.tries("node", "renew", "web")
    assert refused.sentences == [
        f"{private} belongs to somebody else; run this as the user who ran `privet node issue`"
    ]


def test_what_was_begun_and_not_got_is_said_once(node: Person) -> None:
    node.tries("node", "issue", "a.internal", *HTTPS)
    for command in ("renew", "status"):
        refused = node.tries("node", command, "web")
        said = f"`privet node issue` has not got a certificate into {node.folder}/web yet: run it again"
        assert (refused.status, refused.sentences) == (1, [said])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
@pytest.mark.parametrize(("owner", "bits"), [(65534, 0o755), (0, 0o777), (0, 0o775)])
def test_a_folder_that_others_may_change_is_none_for_root(
    node: Person, serving: Serving, owner: int, bits: int
) -> None:
    issues(node, serving)
    web = node.folder / "web"
    os.chown(web, owner, -1)
    web.chmod(bits)
    refused = node.tries("node", "renew", "web")
    (told,) = refused.sentences
    assert told.startswith(f"others may change what is in {web}, and so what is run in your name: let it belong to you")


HTTPS = ("--directory", "https://127.0.0.1:1/directory", "--out", "web")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["a..b", *HTTPS], "'a..b' is not a valid DNS name"),
        (["a.internal", *HTTPS, "--mode", "0644"], "--mode has to be a mode that keeps others out, such as 0600 or"),
        (["a.internal", *HTTPS, "--mode", "0060"], "--mode has to be a mode that keeps others out, such as 0600 or"),
        (["a.internal", *HTTPS, "--mode", "rw"], "--mode has to be a mode that keeps others out, such as 0600 or 0640"),
        (["a.internal", *HTTPS, "--owner", "no-such-user"], "--owner: there is no user 'no-such-user' here"),
        (["a.internal", *HTTPS, "--owner", "0:no-such"], "--owner: there is no group 'no-such' here"),
        (["a.internal", *HTTPS, "--owner", "4294967295"], "--owner: 4294967295 is larger than the number of any user"),
        (["a.internal", *HTTPS, "--owner", "0:99999999999"], "--owner: 99999999999 is larger than the number of any"),
        (["a.internal", *HTTPS, "--owner", "root:"], "--owner has to be USER, USER:GROUP or :GROUP, not 'root:'"),
        (["a.internal", *HTTPS, "--reload-command", "nope x"], "--reload-command: there is no program 'nope' here"),
        (["a.internal", *HTTPS, "--reload-command", "'"], "--reload-command cannot be read: "),
        (["a.internal", *HTTPS, "--dns-hook", "./nope"], "--dns-hook: there is no program './nope' here"),
        (
            ["a.internal", *HTTPS, "--reload-command", "nginx -s reload && true"],
            "--reload-command is run without a shell",
        ),
        (
            ["a.internal", *HTTPS, "--reload-command", "nginx -s reload; true"],
            "--reload-command is run without a shell",
        ),
        (["a.internal", *HTTPS, "--webroot", "nope"], "--webroot: there is no folder nope"),
        (["a.internal", *HTTPS, "--approval-within", "soon"], "--approval-within has to be a duration such as 90m"),
        (["a.internal", *HTTPS, "--ca-file", "nope"], "the --ca-file nope cannot be read: "),
        (["a.internal", *HTTPS, "--fingerprint", "5C:0B"], "--fingerprint: '5C:0B' is not the SHA-256 fingerprint of"),
        (
            ["a.internal", *HTTPS, "--renewal-threshold", "1"],
            "--renewal-threshold or --days-before-expiry: a certifica",
        ),
        (["a.internal", *HTTPS, "--days-before-expiry", "0"], "--renewal-threshold or --days-before-expiry: a certif"),
        (["a.internal", *HTTPS, "--insecure"], "--insecure is for plain http, and --directory is https: leave it out"),
        (["a.internal", "--directory", "ca.internal", "--out", "web"], "--directory has to be a URL such as https://"),
        (["a.internal", "--directory", "https://[::1", "--out", "web"], "--directory has to be a URL such as https://"),
    ],
)
def test_mistakes_are_a_sentence_each_and_nothing_is_made(node: Person, options: list[str], sentence: str) -> None:
    refused = node.tries("node", "issue", *options)
    (told,) = refused.sentences
    assert told.startswith(sentence)
    assert refused.status == 2
    assert list(node.folder.iterdir()) == []


@pytest.mark.parametrize(
    "command", ["sh -c 'true; true;'", 'sh -c "true;"', r"find . -name \* -exec true {} \;", "echo '|' ';'"]
)
def test_what_is_quoted_is_for_the_program_and_not_for_a_shell(command: str) -> None:
    mistakes: list[str] = []
    assert read_command("--reload-command", command, mistakes) == tuple(shlex.split(command))
    assert mistakes == []


# --- the users of databases ---


def test_a_user_of_a_database_by_acme_is_a_name_that_is_mapped(node: Person, serving: Serving) -> None:
    told = issues(node, serving, "--postgres", "epoch_user", names=("epoch-user.db.internal",))["postgresql"]
    assert told["pg_hba"] == "hostssl all epoch_user all cert clientcert=verify-full map=privet"
    assert told["pg_ident"] == "privet epoch-user.db.internal epoch_user"
    asked = ("--directory", serving.directory, "--fingerprint", fingerprint(serving.person), "--out", "web")
    for nameless in ("10.0.0.7", f"{'x' * 60}.internal"):
        (sentence,) = node.tries("node", "issue", nameless, "--postgres", "epoch_user", *asked).sentences
        assert sentence.startswith("the certificate has no common name, and PostgreSQL looks at nothing else")


def test_the_key_stays_and_is_written_as_it_was_asked_for(node: Person, serving: Serving) -> None:
    (node.folder / "secret").write_text("horse\n")
    issues(node, serving, "--reuse-key", "--traditional", "--password-file", "secret")
    first = (node.folder / "web/key.pem").read_bytes()
    assert first.startswith(b"-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED")
    assert (node.folder / "web/.privet/certs/web.internal/key.pem").read_bytes() == first
    before = certificate(node.folder / "web/cert.pem")
    node.does("node", "renew", "web", "--force")
    after = certificate(node.folder / "web/cert.pem")
    assert after.serial_number != before.serial_number
    assert after.public_key() == before.public_key()
    assert b"horse" not in b"".join(path.read_bytes() for path in (node.folder / "web").rglob("*") if path.is_file())
    issues(node, serving, "--keep", "--reuse-key", "--traditional", "--password-file", "secret")
    assert certificate(node.folder / "web/cert.pem") == after
    issues(node, serving, "--keep")
    assert (node.folder / "web/key.pem").read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")


VAULT = ("--vault", "https://ca.internal:8555")
BY_TOKEN = (*VAULT, "--role", "database", "--token-file", "token")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("a.internal",), "say whom to ask: with --directory URL by ACME, or with --vault URL by a token"),
        (("a.internal", *BY_TOKEN, "--directory", "https://ca.internal/directory"), "say whom to ask"),
        (("--postgres", "epoch_user", *VAULT), "--vault goes with --role and --token-file"),
        (
            ("--postgres", "epoch_user", *VAULT, "--role", "x", "--token-file", "no"),
            "the --token-file no cannot be read",
        ),
        (("--postgres", "epoch_user", *BY_TOKEN, "--http-01"), "with --vault a token says who asks"),
        (("--postgres", "epoch_user", "--vault", "http://ca.internal", *BY_TOKEN[2:]), "--vault is not https"),
        (("--postgres", "epoch_user", "--vault", "ca.internal", *BY_TOKEN[2:]), "--vault has to be a URL such as"),
        (BY_TOKEN, "say which names the certificate is for; only by --vault can a --postgres do without"),
        (("--postgres", "epoch_user", "--directory", "https://ca.internal/directory"), "say which names"),
        (
            ("a.internal", "--directory", "https://ca.internal/directory", "--role", "x"),
            "--role and --token-file are for",
        ),
        (("--postgres", "postgresql://db.internal/", *BY_TOKEN), "--postgres: it is not the URL of a user's database"),
        (("--postgres", "a", *BY_TOKEN, "--mode", "0640", "--owner", "nobody"), "--mode lets a group read the key"),
        (("--postgres", "a", *BY_TOKEN, "--mode", "0660"), "--mode lets a group "),
        (("--postgres", "a", *BY_TOKEN, "--password-file", "empty"), "the password file empty is empty"),
    ],
)
def test_what_cannot_be_asked_for_a_user_is_said(node: Person, options: tuple[str, ...], sentence: str) -> None:
    (node.folder / "token").write_text("s.token")
    (node.folder / "empty").touch()
    refused = node.tries("node", "issue", *options, "--out", "web")
    assert refused.status in (1, 2)
    assert any(each.startswith(sentence) for each in refused.sentences), refused.err
    assert not (node.folder / "web").exists()
