"""The same on uvloop, which is what `privet serve` runs on: sockets, TLS and time limits are its own there."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import uvloop
from tests.validation.scene import DIGEST, PATH, PROOF, Scene
from tests.validation.test_tlsalpn01 import answering, greet
from tests.validation.town import Host, Site, Town, never, response, says, self_signed

from privet.acme.problems import ProblemType


class UvTown(Town):
    """The same town, with another CA on the CA's host."""

    def __init__(self, town: Town) -> None:
        self.__dict__ |= town.__dict__
        self.ca = Host(town.ca.address, town.ca.address6, town.ca.namespace, uvloop.new_event_loop)


@pytest.fixture
def uv(scene: Scene) -> Iterator[Scene]:
    town = UvTown(scene.town)
    try:
        yield replace(scene, town=town)
    finally:
        town.ca.end()


def test_http_01_with_a_redirect_to_https(uv: Scene) -> None:
    uv.nameserver.add("www.internal", "A", uv.town.client.address)
    away = response(302, Location=uv.url("www.internal", "/x", "https"))
    with (
        uv.town.client.serve(Site({PATH: away}), uv.http),
        uv.town.client.serve(says(response(200, PROOF.encode())), uv.https, tls=self_signed("www.internal")),
    ):
        proof = uv.prove(uv.http01(), "www.internal")
    assert proof.steps[-1].target == f"{uv.town.client.address}:{uv.https}"


def test_tls_alpn_01(uv: Scene) -> None:
    uv.nameserver.add("www.internal", "A", uv.town.client.address)
    with uv.town.client.serve(greet, uv.https, tls=answering("www.internal")):
        uv.prove(uv.tls(), "www.internal")
    with uv.town.client.serve(greet, uv.https, tls=answering("www.internal", alpn=["h2"])):
        assert uv.refused(uv.tls(), "www.internal").type is ProblemType.TLS


def test_tls_alpn_01_for_an_address(uv: Scene) -> None:
    with uv.town.client.serve(greet, uv.https, tls=answering(uv.town.client.address)):
        uv.prove(uv.tls(), uv.town.client.address, "ip")


def test_dns_01_by_udp_and_by_tcp(uv: Scene) -> None:
    uv.nameserver.add("_acme-challenge.www.internal", "TXT", DIGEST)
    uv.prove(uv.dns01(), "www.internal")
    uv.nameserver.add("_acme-challenge.www.internal", "TXT", *(f'"{"x" * 250}{number}"' for number in range(20)))
    uv.prove(uv.dns01(), "www.internal")
    uv.nameserver.answering["_acme-challenge.www.internal"] = lambda query, tcp: []
    assert "no usable answer" in uv.refused(uv.dns01(resolver=uv.resolver(timeout=0.1)), "www.internal").detail


@pytest.mark.parametrize("method", ["http-01", "tls-alpn-01"])
def test_silence_and_nobody(uv: Scene, method: str) -> None:
    uv.nameserver.add("www.internal", "A", uv.town.client.address)
    make = uv.http01 if method == "http-01" else uv.tls
    assert "connection refused" in uv.refused(make(), "www.internal").detail
    with uv.town.client.serve(never, uv.http), uv.town.client.serve(never, uv.https):
        assert "took longer" in uv.refused(make(timeout=0.4), "www.internal").detail


def test_a_forbidden_address(uv: Scene) -> None:
    uv.nameserver.add("evil.internal", "A", "169.254.169.254")
    assert uv.refused(uv.http01(), "evil.internal").type is ProblemType.CONNECTION
