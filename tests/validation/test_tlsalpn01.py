"""tls-alpn-01 (RFC 8737, RFC 8738): what is proved by a handshake, and every certificate that proves nothing."""

import asyncio
import hashlib
import ssl
import warnings
from collections.abc import Sequence

import pytest
from cryptography import x509
from hypothesis import example, given
from hypothesis import strategies as st
from tests.laws import outcome
from tests.validation.scene import CANARY, PROOF, Scene, patiently
from tests.validation.town import Handler, certificate, never, server_side

from privet.acme.identifiers import Identifier, IdentifierType
from privet.acme.problems import Problem, ProblemType
from privet.validation.connections import tls_with_strangers
from privet.validation.tlsalpn01 import ACME_IDENTIFIER, ALPN, check_certificate

STANDARD = "1.3.6.1.5.5.7.1.31"
DRAFT = "1.3.6.1.5.5.7.1.30.1"
DIGEST = hashlib.sha256(PROOF.encode()).digest()
NAME = "www.internal"

Extensions = Sequence[tuple[x509.ExtensionType, bool]]


def acme_identifier(value: bytes = b"\x04\x20" + DIGEST, *, oid: str = STANDARD, critical: bool = True) -> Extensions:
    return [(x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), critical)]


def answering(*names: str, extensions: Extensions | None = None, alpn: Sequence[str] = (ALPN,)) -> ssl.SSLContext:
    """A server that answers the challenge, or something like it."""
    context = server_side(*certificate(*names, extensions=acme_identifier() if extensions is None else extensions))
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    assert await reader.read(10) == b"", "nothing is ever sent to the client"


@pytest.fixture
def named(scene: Scene) -> None:
    scene.nameserver.add(NAME, "A", scene.town.client.address)


def test_the_certificate_is_shown(scene: Scene, named: None) -> None:
    asked: list[str | None] = []
    context = answering(NAME)
    context.sni_callback = lambda connection, name, context: asked.append(name)
    with scene.town.client.serve(greet, scene.https, tls=context):
        proof = scene.prove(scene.tls(), NAME)
    assert asked == [NAME]
    assert (proof.method, proof.identifier) == ("tls-alpn-01", NAME)
    assert proof.steps[-1].what == f"TLS {NAME}"
    assert proof.steps[-1].target == f"{scene.town.client.address}:{scene.https}"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3(scene: Scene, named: None, version: ssl.TLSVersion) -> None:
    context = answering(NAME)
    context.minimum_version = context.maximum_version = version
    with scene.town.client.serve(greet, scene.https, tls=context):
        scene.prove(scene.tls(), NAME)


def test_names_are_compared_without_case(scene: Scene, named: None) -> None:
    with scene.town.client.serve(greet, scene.https, tls=answering("WWW.Internal")):
        scene.prove(scene.tls(), NAME)


def test_a_server_that_knows_other_protocols_too(scene: Scene, named: None) -> None:
    with scene.town.client.serve(greet, scene.https, tls=answering(NAME, alpn=["h2", ALPN, "http/1.1"])):
        scene.prove(scene.tls(), NAME)


def test_an_ipv4_address_is_asked_for_by_its_reverse_name(scene: Scene) -> None:
    asked: list[str | None] = []
    address = scene.town.client.address
    context = answering(address)
    context.sni_callback = lambda connection, name, context: asked.append(name)
    with scene.town.client.serve(greet, scene.https, tls=context):
        proof = scene.prove(scene.tls(), address, "ip")
    assert asked == [".".join(reversed(address.split("."))) + ".in-addr.arpa"]
    assert proof.identifier_type == "ip"


def test_an_ipv6_address_is_asked_for_by_its_reverse_name(scene: Scene) -> None:
    asked: list[str | None] = []
    address = scene.town.client.address6
    context = answering(address)
    context.sni_callback = lambda connection, name, context: asked.append(name)
    with scene.town.client.serve(greet, scene.https, address=address, tls=context):
        scene.prove(scene.tls(), address, "ip")
    assert asked[0] is not None
    assert asked[0].endswith(".ip6.arpa")
    assert len(asked[0]) == 72


def test_nobody_at_the_port(scene: Scene, named: None) -> None:
    refusal = scene.refused(scene.tls(), NAME)
    assert refusal.type is ProblemType.CONNECTION
    assert "connection refused" in refusal.detail


def test_wildcards_are_not_for_tls(scene: Scene) -> None:
    refusal = scene.refused(scene.tls(), NAME, wildcard=True)
    assert refusal.type is ProblemType.MALFORMED


CERTIFICATES: dict[str, tuple[Sequence[str], Extensions, str]] = {
    "without the extension": ([NAME], [], "no acmeIdentifier extension"),
    "with the draft's extension": ([NAME], acme_identifier(oid=DRAFT), "no acmeIdentifier extension"),
    "with an extension that is not critical": ([NAME], acme_identifier(critical=False), "not marked critical"),
    "with another digest": ([NAME], acme_identifier(b"\x04\x20" + DIGEST[::-1]), "another digest"),
    "with the digest alone": ([NAME], acme_identifier(DIGEST), "another digest"),
    "with the key authorization itself": ([NAME], acme_identifier(PROOF.encode()), "another digest"),
    "with more than the digest": ([NAME], acme_identifier(b"\x04\x20" + DIGEST + b"\0"), "another digest"),
    "with a length in two bytes": ([NAME], acme_identifier(b"\x04\x81\x20" + DIGEST), "another digest"),
    "with an empty extension": ([NAME], acme_identifier(b""), "another digest"),
    "for two names": ([NAME, f"{CANARY}.internal"], acme_identifier(), "2 subject alternative names"),
    "for the name twice": ([NAME, NAME], acme_identifier(), "2 subject alternative names"),
    "for the name and an address": ([NAME, "10.77.0.2"], acme_identifier(), "2 subject alternative names"),
    "for another name": ([f"{CANARY}.internal"], acme_identifier(), "another name"),
    "for a name that begins alike": ([f"{NAME}.{CANARY}"], acme_identifier(), "another name"),
    "for a wildcard": (["*.internal"], acme_identifier(), "another name"),
    "for a wildcard of its own": ([f"*.{NAME}"], acme_identifier(), "another name"),
    "for the name with a dot behind": ([f"{NAME}."], acme_identifier(), "another name"),
    "for the name with a space": ([f"{NAME} "], acme_identifier(), "another name"),
    "for the name with a NUL and more": ([f"{NAME}\0.{CANARY}"], acme_identifier(), "another name"),
    "for the name above": (["internal"], acme_identifier(), "another name"),
    "for an address": (["10.77.0.2"], acme_identifier(), "another name"),
    "for nobody": ([], acme_identifier(), "no subject alternative name"),
}


@pytest.mark.parametrize(("names", "extensions", "words"), CERTIFICATES.values(), ids=CERTIFICATES)
def test_a_certificate(scene: Scene, named: None, names: Sequence[str], extensions: Extensions, words: str) -> None:
    with scene.town.client.serve(greet, scene.https, tls=answering(*names, extensions=extensions)):
        refusal = scene.refused(scene.tls(), NAME)
    assert refusal.type is ProblemType.INCORRECT_RESPONSE
    assert words in refusal.detail


OTHER_NAMES = {
    "a mail address": x509.RFC822Name(f"you@{NAME}"),
    "a URL": x509.UniformResourceIdentifier(f"https://{NAME}/"),
    "the name as a URL": x509.UniformResourceIdentifier(NAME),
    "a directory's name": x509.DirectoryName(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])),
    "something else": x509.OtherName(x509.ObjectIdentifier(STANDARD), b"\x0c\x0c" + NAME.encode()),
}


@pytest.mark.parametrize("name", OTHER_NAMES.values(), ids=OTHER_NAMES)
def test_a_name_of_another_kind(scene: Scene, named: None, name: x509.GeneralName) -> None:
    context = answering(extensions=[(x509.SubjectAlternativeName([name]), False), *acme_identifier()])
    with scene.town.client.serve(greet, scene.https, tls=context):
        refusal = scene.refused(scene.tls(), NAME)
    assert refusal.type is ProblemType.INCORRECT_RESPONSE


def test_nobody_has_us_shake_hands_again_and_again() -> None:
    assert tls_with_strangers(ALPN).options & ssl.OP_NO_RENEGOTIATION


def test_a_certificate_for_the_name_that_an_address_looks_like(scene: Scene) -> None:
    """The address as a DNS name proves nothing (RFC 8738 §6 wants an iPAddress), nor does the name of the SNI."""
    address = scene.town.client.address
    for name in (x509.DNSName(address), x509.DNSName(".".join(reversed(address.split("."))) + ".in-addr.arpa")):
        context = answering(extensions=[(x509.SubjectAlternativeName([name]), False), *acme_identifier()])
        with scene.town.client.serve(greet, scene.https, tls=context):
            refusal = scene.refused(scene.tls(), address, "ip")
        assert "another name or address" in refusal.detail


@pytest.mark.parametrize("alpn", [(), ("h2", "http/1.1"), ("acme-tls/2",)], ids=["none", "web", "another version"])
def test_a_server_that_does_not_choose_the_protocol(scene: Scene, named: None, alpn: Sequence[str]) -> None:
    with scene.town.client.serve(greet, scene.https, tls=answering(NAME, alpn=alpn)):
        refusal = scene.refused(scene.tls(), NAME)
    assert refusal.type is ProblemType.TLS


def test_tls_1_1(scene: Scene, named: None) -> None:
    async def version(context: ssl.SSLContext) -> str:
        _, writer = await asyncio.open_connection(scene.town.client.address, scene.https, ssl=context)
        found: ssl.SSLObject = writer.get_extra_info("ssl_object")
        writer.transport.abort()
        return found.version() or ""

    server, careless = answering(NAME), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    careless.check_hostname = False
    careless.verify_mode = ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for context in (server, careless):
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.set_ciphers("ALL:@SECLEVEL=0")
        server.maximum_version = ssl.TLSVersion.TLSv1_1
    with scene.town.client.serve(greet, scene.https, tls=server):
        assert scene.run(version(careless)) == "TLSv1.1"
        refusal = scene.refused(scene.tls(), NAME)
    assert refusal.type is ProblemType.TLS
    assert "the TLS handshake" in refusal.detail


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)


async def speak_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(f"HTTP/1.1 400 {CANARY}\r\n\r\n".encode())
    await reader.read()


async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x16\x03\x03\xff\xff")
    while True:
        writer.write(b"\0")
        await writer.drain()
        await asyncio.sleep(0.05)


HANDSHAKES: dict[str, tuple[Handler, ProblemType]] = {
    "silence": (never, ProblemType.CONNECTION),
    "hanging up": (hang_up, ProblemType.TLS),
    "plain text": (speak_http, ProblemType.TLS),
    "a record that trickles": (trickle, ProblemType.TLS),
}


@pytest.mark.parametrize(("handler", "type"), HANDSHAKES.values(), ids=HANDSHAKES)
def test_instead_of_a_handshake(scene: Scene, named: None, handler: Handler, type: ProblemType) -> None:
    with scene.town.client.serve(handler, scene.https):
        refusal = scene.refused(scene.tls(timeout=0.5 if handler is never else 30), NAME)
    assert refusal.type is type


def test_a_certificate_without_end(scene: Scene, named: None) -> None:
    """A hundred thousand names are one certificate too, if a library lets it through."""
    names = [f"{number}.{CANARY}.internal" for number in range(3000)]
    with scene.town.client.serve(greet, scene.https, tls=answering(*names)):
        refusal = scene.refused(scene.tls(), NAME)
    assert refusal.type in (ProblemType.INCORRECT_RESPONSE, ProblemType.TLS)


GOOD, _ = certificate(NAME, extensions=acme_identifier())
GOOD_DER = ssl.PEM_cert_to_DER_cert(GOOD.decode())
IDENTIFIER = Identifier(IdentifierType.DNS, NAME)


def test_the_good_one_is_good() -> None:
    check_certificate(GOOD_DER, IDENTIFIER, PROOF)
    assert ACME_IDENTIFIER.dotted_string == STANDARD


@patiently
@given(st.binary(max_size=600))
@example(b"")
@example(b"\x30\x80")
def test_any_bytes_are_a_certificate_or_a_problem(data: bytes) -> None:
    assert isinstance(outcome(check_certificate, data, IDENTIFIER, PROOF), Problem)


@patiently
@given(st.data())
def test_a_good_certificate_bent_anywhere_never_proves_something_else(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(GOOD_DER) - 1))
    byte = data.draw(st.integers(0, 255))
    bent = GOOD_DER[:place] + bytes([byte]) + GOOD_DER[place + 1 :]
    other = Identifier(IdentifierType.DNS, "other.internal")
    assert isinstance(outcome(check_certificate, bent, other, PROOF), Problem)
    found = outcome(check_certificate, bent, IDENTIFIER, PROOF)
    assert found is None or isinstance(found, Problem)


@patiently
@given(st.integers(0, len(GOOD_DER) - 1))
def test_a_good_certificate_cut_short_proves_nothing(length: int) -> None:
    assert isinstance(outcome(check_certificate, GOOD_DER[:length], IDENTIFIER, PROOF), Problem)
