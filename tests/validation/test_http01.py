"""http-01 (RFC 8555 §8.3): what is proved, from host to host, and what is not."""

import pytest
from tests.validation.scene import NOW, PATH, PROOF, Scene
from tests.validation.town import Site, response, says, self_signed

from privet.acme.problems import ProblemType
from privet.validation import Attempt

GOOD = response(200, PROOF.encode())


def test_the_key_authorization_is_fetched_from_the_host_itself(scene: Scene) -> None:
    scene.nameserver.add("www.internal", "A", scene.town.client.address)
    with scene.town.client.serve(says(GOOD), scene.http):
        proof = scene.prove(scene.http01(), "www.internal")
    assert (proof.identifier, proof.identifier_type, proof.method) == ("www.internal", "dns", "http-01")
    assert proof.validated == NOW
    asked = [(step.what, step.target) for step in proof.steps]
    assert ("A www.internal", scene.nameserver.address) in asked
    fetched = proof.steps[-1]
    assert fetched.what == f"GET {scene.url('www.internal')}"
    assert fetched.target == f"{scene.town.client.address}:{scene.http}"
    if scene.town.real:
        assert fetched.source.startswith(f"{scene.town.ca.address}:")
    assert proof.to_json()["steps"] == [step.to_json() for step in proof.steps]


def test_the_request_is_plain_and_says_who_is_asked(scene: Scene) -> None:
    scene.nameserver.add("www.internal", "A", scene.town.client.address)
    site = Site({PATH: GOOD})
    with scene.town.client.serve(site, scene.http):
        scene.prove(scene.http01(), "www.internal")
    lines = site.requests[0].split("\r\n")
    assert lines[0] == f"GET {PATH} HTTP/1.1"
    assert lines[1] == f"Host: {scene.url('www.internal', '/')[7:-1]}"
    assert "Accept-Encoding: identity" in lines
    assert "Connection: close" in lines


def test_it_speaks_the_simple_protocol_too(scene: Scene) -> None:
    scene.nameserver.add("www.internal", "A", scene.town.client.address)
    with scene.town.client.serve(says(GOOD), scene.http):
        assert scene.run(scene.http01().validate("www.internal", "dns", PATH.rpartition("/")[2], PROOF)) is True


@pytest.mark.parametrize("end", ["\n", "\r\n", "  \t\r\n\n"])
def test_white_space_after_the_key_authorization_is_forgiven(scene: Scene, end: str) -> None:
    scene.nameserver.add("www.internal", "A", scene.town.client.address)
    with scene.town.client.serve(says(response(200, (PROOF + end).encode())), scene.http):
        scene.prove(scene.http01(), "www.internal")


def test_an_ipv4_address_is_asked_itself(scene: Scene) -> None:
    site = Site({PATH: GOOD})
    with scene.town.client.serve(site, scene.http):
        proof = scene.prove(scene.http01(), scene.town.client.address, "ip")
    assert proof.identifier_type == "ip"
    assert not scene.nameserver.asked
    assert f"Host: {scene.town.client.address}" in site.requests[0]


def test_an_ipv6_address_is_asked_itself(scene: Scene) -> None:
    site = Site({PATH: GOOD})
    with scene.town.client.serve(site, scene.http, address=scene.town.client.address6):
        scene.prove(scene.http01(), scene.town.client.address6, "ip")
    assert f"Host: [{scene.town.client.address6}]" in site.requests[0]


def test_a_host_with_ipv6_alone_is_reached(scene: Scene) -> None:
    scene.nameserver.add("six.internal", "AAAA", scene.town.client.address6)
    with scene.town.client.serve(says(GOOD), scene.http, address=scene.town.client.address6):
        scene.prove(scene.http01(), "six.internal")


def test_ipv4_is_tried_when_nobody_is_there_by_ipv6(scene: Scene) -> None:
    scene.nameserver.add("both.internal", "AAAA", scene.town.client.address6)
    scene.nameserver.add("both.internal", "A", scene.town.client.address)
    with scene.town.client.serve(says(GOOD), scene.http):
        proof = scene.prove(scene.http01(), "both.internal")
    assert [step.target for step in proof.steps if step.what.startswith("GET")] == [
        f"[{scene.town.client.address6}]:{scene.http}",
        f"{scene.town.client.address}:{scene.http}",
    ]


def test_no_more_than_four_addresses_are_tried(scene: Scene) -> None:
    seat = scene.town.client.address.rpartition(".")[0]
    scene.nameserver.add("many.internal", "A", *(f"{seat}.2" if n == 9 else f"{seat}.{n + 100}" for n in range(10)))
    refusal = scene.refused(scene.http01(connect_timeout=0.05), "many.internal")
    assert len([step for step in refusal.steps if step.what.startswith("GET")]) == 4


@pytest.mark.parametrize(
    "spoken",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n"
        % (PROOF[:16].encode(), len(PROOF) - 16, PROOF[16:].encode()),
        b"HTTP/1.0 200 OK\r\n\r\n" + PROOF.encode(),
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + GOOD,
    ],
    ids=["chunked", "without a length, as HTTP/1.0", "after interim responses"],
)
def test_http_as_servers_speak_it(scene: Scene, spoken: bytes) -> None:
    scene.nameserver.add("www.internal", "A", scene.town.client.address)
    with scene.town.client.serve(says(spoken), scene.http):
        scene.prove(scene.http01(), "www.internal")


def test_redirects_are_followed_to_other_hosts_by_name_by_address_and_by_https(scene: Scene) -> None:
    scene.nameserver.add("www.internal", "A", scene.town.client.address)
    scene.nameserver.add("acme.internal", "CNAME", "neighbour.internal.")
    scene.nameserver.add("neighbour.internal", "A", scene.town.neighbour.address)
    first = Site(
        {
            PATH: response(301, Location="/moved?to=here"),
            "/moved?to=here": response(302, Location=scene.url("acme.internal", "/1")),
            "/3": response(308, Location=scene.url(f"[{scene.town.neighbour.address6}]", "/4", "https")),
        }
    )
    second = Site({"/1": response(307, Location=scene.url("acme.internal", "/2", "https"))})
    third = Site({"/2": response(302, Location=scene.url(scene.town.client.address, "/3"))})
    fourth = Site({"/4": GOOD})
    neighbour = scene.town.neighbour
    tls = self_signed("who.cares")
    with (
        scene.town.client.serve(first, scene.http),
        neighbour.serve(second, scene.http),
        neighbour.serve(third, scene.https, tls=tls),
        neighbour.serve(fourth, scene.https, address=neighbour.address6, tls=tls),
    ):
        proof = scene.prove(scene.http01(), "www.internal")
    fetched = [step.what.removeprefix("GET ") for step in proof.steps if step.what.startswith("GET")]
    assert fetched == [
        scene.url("www.internal"),
        scene.url("www.internal", "/moved?to=here"),
        scene.url("acme.internal", "/1"),
        scene.url("acme.internal", "/2", "https"),
        scene.url(scene.town.client.address, "/3"),
        scene.url(f"[{neighbour.address6}]", "/4", "https"),
    ]


def test_a_lab_may_have_its_own_port(scene: Scene) -> None:
    scene.nameserver.add("www.internal", "A", scene.town.client.address)
    with scene.town.client.serve(says(GOOD), 5002):
        proof = scene.prove(scene.http01(port=5002), "www.internal")
    assert proof.steps[-1].target.endswith(":5002")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (response(404, b"nothing here"), "the status 404 instead of 200"),
        (response(200, PROOF[:-1].encode()), "something else than the key authorization"),
        (response(200, b" " + PROOF.encode()), "something else than the key authorization"),
        (response(200, b""), "something else than the key authorization"),
        (response(206, PROOF.encode()), "the status 206"),
        (response(303, Location="/x"), "the status 303"),
        (response(302), "redirected to nowhere"),
    ],
    ids=["not found", "cut short", "space in front", "nothing", "a part", "see other", "redirect to nowhere"],
)
def test_anything_else_is_an_incorrect_response(scene: Scene, answer: bytes, words: str) -> None:
    scene.nameserver.add("www.internal", "A", scene.town.client.address)
    with scene.town.client.serve(says(answer), scene.http):
        refusal = scene.refused(scene.http01(), "www.internal")
    assert refusal.type is ProblemType.INCORRECT_RESPONSE
    assert words in refusal.detail
    assert refusal.steps[-1].target == f"{scene.town.client.address}:{scene.http}"


def test_nobody_at_the_port_is_a_connection_problem_that_says_where(scene: Scene) -> None:
    scene.nameserver.add("www.internal", "A", scene.town.client.address)
    refusal = scene.refused(scene.http01(), "www.internal")
    assert refusal.type is ProblemType.CONNECTION
    assert refusal.detail == (
        f"www.internal at {scene.town.client.address} could not be connected to on port {scene.http}: "
        "connection refused"
    )


def test_a_host_that_is_off_is_a_connection_problem(scene: Scene) -> None:
    if not scene.town.real:
        pytest.skip("without network namespaces there is no wire to cut")
    scene.nameserver.add("www.internal", "A", scene.town.client.address)
    scene.town.cut_off("client", True)
    try:
        refusal = scene.refused(scene.http01(connect_timeout=0.3), "www.internal")
    finally:
        scene.town.cut_off("client", False)
    assert refusal.type is ProblemType.CONNECTION
    assert "did not answer" in refusal.detail


def test_a_host_that_is_off_takes_no_longer_than_all_may_take(scene: Scene) -> None:
    if not scene.town.real:
        pytest.skip("without network namespaces there is no wire to cut")
    scene.nameserver.add("www.internal", "A", scene.town.client.address)
    scene.town.cut_off("client", True)
    try:
        refusal = scene.refused(scene.http01(timeout=0.3, connect_timeout=60), "www.internal")
    finally:
        scene.town.cut_off("client", False)
    assert refusal.detail == "http-01 for www.internal took longer than 0.3 s"


def test_a_name_that_is_not_there_is_a_dns_problem(scene: Scene) -> None:
    refusal = scene.refused(scene.http01(), "nowhere.internal")
    assert refusal.type is ProblemType.DNS
    assert refusal.detail == "nowhere.internal could not be looked up: there is no such name"


def test_a_name_without_an_address_is_a_dns_problem(scene: Scene) -> None:
    scene.nameserver.add("text.internal", "TXT", '"hello"')
    refusal = scene.refused(scene.http01(), "text.internal")
    assert refusal.type is ProblemType.DNS
    assert "no address" in refusal.detail


@pytest.mark.parametrize(
    ("identifier", "type", "context"),
    [
        ("www.internal", "dns", {"wildcard": True}),
        ("*.internal", "dns", {}),
        ("a_b.internal", "dns", {}),
        ("10.0.0.1", "dns", {}),
        ("::ffff:10.0.0.1", "ip", {}),
        ("www.internal", "email", {}),
        ("www.internal", "dns", {"token": "../../admin"}),
    ],
)
def test_what_http_01_cannot_prove_is_not_tried(
    scene: Scene, identifier: str, type: str, context: dict[str, object]
) -> None:
    refusal = scene.refused(scene.http01(), identifier, type, **context)
    assert refusal.type is ProblemType.MALFORMED
    assert refusal.steps == ()


def test_our_own_listeners_are_not_a_client(scene: Scene) -> None:
    """However the CA listens, and by whatever address it is called."""
    ours = scene.town.ca.address
    for listener in (ours, "0.0.0.0"):
        networks = scene.town.networks(listeners=[(listener, scene.http)])
        with scene.town.ca.serve(says(GOOD), scene.http) as listening:
            refusal = scene.refused(scene.http01(networks=networks), ours, "ip")
            assert "where this server itself listens" in refusal.detail
            assert listening.calls == 0
            named = scene.town.networks(listeners=[(listener, scene.http)], allow=[ours])
            scene.prove(scene.http01(networks=named), ours, "ip")


def test_a_network_that_is_denied_is_not_connected_to_and_the_rest_is(scene: Scene) -> None:
    scene.nameserver.add("www.internal", "A", scene.town.neighbour.address, scene.town.client.address)
    networks = scene.town.networks(deny=[scene.town.neighbour.address])
    with (
        scene.town.client.serve(says(GOOD), scene.http),
        scene.town.neighbour.serve(says(GOOD), scene.http) as denied,
    ):
        proof = scene.prove(scene.http01(networks=networks), "www.internal")
    assert denied.calls == 0
    assert proof.steps[-1].target.startswith(scene.town.client.address)


def test_problems_can_be_told_to_a_client_as_they_are(scene: Scene) -> None:
    refusal = scene.refused(scene.http01(), "nowhere.internal")
    assert refusal.to_json() == {
        "type": "urn:ietf:params:acme:error:dns",
        "detail": "nowhere.internal could not be looked up: there is no such name",
        "status": 400,
    }


def test_there_is_nothing_to_tell_clients_in_advance(scene: Scene) -> None:
    assert scene.http01().challenge_fields == {}
    assert scene.http01().directory_meta == {}


def test_an_attempt_knows_its_name() -> None:
    assert Attempt("internal", "dns", "", "", wildcard=True).name == "*.internal"
