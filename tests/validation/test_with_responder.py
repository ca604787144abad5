"""The validators where they belong: behind a responder, which knows nothing of them but the protocol."""

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.routing import Mount
from tests.server.test_proofs import change_key
from tests.validation.nameserver import Nameserver
from tests.validation.scene import CANARY, Scene
from tests.validation.town import Handler, response
from tests.wire import BASE, Wire, thumbprint_of

from privet import ACMEResponder, CertificateAuthority, ChallengeValidator, Limits, MemoryStore
from privet.acme.encoding import to_base64url
from privet.validation import CAA, CheckingCAA, Retrying
from privet.validation.dns01 import account_label

PATIENT = Limits(patience=timedelta(seconds=60))
"""Whoever answers a challenge hears what came of it, however slow this machine is."""


def responder(scene: Scene) -> ACMEResponder:
    ca = CertificateAuthority(MemoryStore())
    ca.init()
    caa = CAA(["ca.internal"], resolver=scene.resolver())
    validators: dict[str, ChallengeValidator] = {
        "http-01": CheckingCAA(scene.http01(), caa),
        "dns-01": Retrying(scene.dns01(), within=0),
        "tls-alpn-01": scene.tls(),
    }
    return ACMEResponder(ca, challenge_validator=validators, limits=PATIENT)


def answers(pages: dict[str, str]) -> Handler:
    """A client's web server, which has what it was given."""

    async def handler(reader: Any, writer: Any) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
        writer.write(response(200, pages.get(path, CANARY).encode()))
        await writer.drain()

    return handler


async def challenged(wire: Wire, name: str, type: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """An order for the name, and its challenge of this type."""
    await wire.register()
    order = (await wire.order(name)).json()
    authorization = (await wire.post(order["authorizations"][0])).json()
    return order, next(each for each in authorization["challenges"] if each["type"] == type)


def test_a_certificate_is_issued_when_control_is_proved_by_http_01(scene: Scene) -> None:
    pages: dict[str, str] = {}

    async def story() -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(responder(scene)), base_url=BASE) as http:
            wire = Wire(http)
            order, challenge = await challenged(wire, "www.internal", "http-01")
            token = challenge["token"]
            pages[f"/.well-known/acme-challenge/{token}"] = f"{token}.{thumbprint_of(wire.key)}\n"
            answered = (await wire.post(challenge["url"], {})).json()
            assert answered["status"] == "valid", answered
            return (await wire.finalize(order)).status_code

    scene.nameserver.add("www.internal", "A", scene.town.client.address)
    with scene.town.client.serve(answers(pages), scene.http):
        assert scene.run(story()) == 200
    assert "CAA www.internal" in scene.nameserver.asked


def test_each_directory_has_its_own_view_of_names(scene: Scene) -> None:
    """Split horizon: inside, www.internal is the client's host; outside there is no such name. Both directories
    are of one authority."""
    pages: dict[str, str] = {}
    ca = CertificateAuthority(MemoryStore())
    ca.init()
    outside = Nameserver(scene.town.neighbour, scene.town.port(53))

    def directory(nameserver: Nameserver) -> ACMEResponder:
        resolver = scene.resolver(nameservers=[nameserver.address])
        return ACMEResponder(ca, challenge_validator={"http-01": scene.http01(resolver=resolver)}, limits=PATIENT)

    views = {"inside": scene.nameserver, "outside": outside}
    app = Starlette(routes=[Mount(f"/{view}", directory(nameserver)) for view, nameserver in views.items()])

    async def story(view: str) -> tuple[str, Mapping[str, Any]]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE) as http:
            wire = Wire(http, f"{BASE}/{view}")
            order, challenge = await challenged(wire, "www.internal", "http-01")
            token = challenge["token"]
            pages[f"/.well-known/acme-challenge/{token}"] = f"{token}.{thumbprint_of(wire.key)}"
            answered = (await wire.post(challenge["url"], {})).json()
            if answered["status"] == "valid":
                answered = (await wire.finalize(order)).json()
            return answered["status"], answered.get("error", {})

    scene.nameserver.add("www.internal", "A", scene.town.client.address)
    with outside.running(), scene.town.client.serve(answers(pages), scene.http):
        assert scene.run(story("inside")) == ("valid", {})
        status, error = scene.run(story("outside"))
    assert (status, error["type"]) == ("invalid", "urn:ietf:params:acme:error:dns")
    assert outside.asked == ["AAAA www.internal", "A www.internal"]
    assert len(ca.certificates()) == 1


def test_a_wildcard_is_issued_when_control_is_proved_by_dns_01(scene: Scene) -> None:
    async def story() -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(responder(scene)), base_url=BASE) as http:
            wire = Wire(http)
            order, challenge = await challenged(wire, "*.internal", "dns-01")
            proof = f"{challenge['token']}.{thumbprint_of(wire.key)}"
            digest = to_base64url(hashlib.sha256(proof.encode()).digest())
            scene.nameserver.add("_acme-challenge.internal", "TXT", digest)
            answered = (await wire.post(challenge["url"], {})).json()
            assert answered["status"] == "valid", answered
            return (await wire.finalize(order)).status_code

    assert scene.run(story()) == 200


def test_the_client_is_told_why_not_and_nothing_else(scene: Scene) -> None:
    async def story() -> Mapping[str, Any]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(responder(scene)), base_url=BASE) as http:
            _, challenge = await challenged(wire := Wire(http), "www.internal", "http-01")
            refused = (await wire.post(challenge["url"], {})).json()
            assert refused["status"] == "invalid"
            error: Mapping[str, Any] = refused["error"]
            return error

    scene.nameserver.add("www.internal", "A", scene.town.client.address)
    with scene.town.client.serve(answers({}), scene.http):
        error = scene.run(story())
    assert error["type"] == "urn:ietf:params:acme:error:incorrectResponse"
    assert error["detail"] == "http-01 for www.internal found something else than the key authorization"


def test_a_record_that_stays_is_good_for_an_account_whatever_key_it_had(scene: Scene) -> None:
    """dns-persist-01, with the account as the client knows it; and by a later key, the record of an earlier one."""

    async def story() -> None:
        ca = CertificateAuthority(MemoryStore())
        ca.init()
        persist = scene.dns_persist()
        validators = {"dns-persist-01": CheckingCAA(persist, caa(scene))}
        app = ACMEResponder(ca, challenge_validator=validators, limits=PATIENT)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE) as http:
            wire = Wire(http)
            meta = (await http.get(f"{BASE}/directory")).json()["meta"]
            assert meta == {**persist.directory_meta, "caaIdentities": ["ca.internal"]}
            order, challenge = await challenged(wire, "*.www.internal", "dns-persist-01")
            assert set(challenge) == {"type", "url", "status", "issuerDomainNames"}
            assert challenge["issuerDomainNames"] == ["ca.internal"]
            assert wire.kid
            uri = persist.account_hash("www.internal", thumbprint_of(wire.key), wire.kid)
            record = f"ca.internal; accounturi={uri}; policy=wildcard"
            scene.nameserver.add("_validation-persist.www.internal", "TXT", f'"{record}"')
            await change_key(wire)
            assert (await wire.post(challenge["url"], {})).json()["status"] == "valid"
            assert (await wire.finalize(order)).json()["status"] == "valid"

    scene.run(story())


def test_an_account_has_a_label_of_its_own(scene: Scene) -> None:
    """dns-account-01, and CAA records that name the account and the method (RFC 8657)."""

    async def story() -> None:
        ca = CertificateAuthority(MemoryStore())
        ca.init()
        validator = CheckingCAA(scene.dns_account(), caa(scene))
        app = ACMEResponder(ca, challenge_validator={"dns-account-01": validator}, limits=PATIENT)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE) as http:
            wire = Wire(http)
            order, challenge = await challenged(wire, "www.internal", "dns-account-01")
            assert wire.kid
            issue = f"ca.internal; accounturi={wire.kid}; validationmethods=dns-account-01"
            scene.nameserver.add("www.internal", "CAA", f'0 issue "{issue}"')
            proof = f"{challenge['token']}.{thumbprint_of(wire.key)}"
            digest = to_base64url(hashlib.sha256(proof.encode()).digest())
            scene.nameserver.add(f"_{account_label(wire.kid)}._acme-challenge.www.internal", "TXT", digest)
            answered = (await wire.post(challenge["url"], {})).json()
            assert answered["status"] == "valid", answered
            assert (await wire.finalize(order)).json()["status"] == "valid"

    scene.run(story())


def caa(scene: Scene) -> CAA:
    return CAA(["ca.internal"], resolver=scene.resolver())
