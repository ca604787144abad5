"""Certificates (RFC 8555 §7.4.2, §7.6): what is downloaded, and who may revoke it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.ca.tier import Tier
from tests.certificates import Party, assert_is_ca, assert_is_leaf, openssl_verify, tls_handshake
from tests.server.conftest import Clock, Scene, Stage
from tests.wire import BASE, PrivateKey, Wire, der_of, new_key, problem_of

from privet import CertificateAuthority, FileStore, MemoryStore
from privet.acme.encoding import from_base64url, to_base64url
from privet.acme.identifiers import Identifier, IdentifierType
from privet.ca import CLIENT
from privet.ca.certificates import Certificate

pytestmark = pytest.mark.anyio


# --- downloaded ---


@pytest.mark.parametrize(
    "names",
    [["a.internal"], ["a.internal", "*.a.internal", "10.0.0.1"], ["10.0.0.1", "fd00::1"], [f"{'a' * 60}.internal"]],
)
@pytest.mark.parametrize("key", [new_key(), rsa.generate_private_key(65537, 2048)], ids=["EC", "RSA"])
async def test_the_chain_is_the_leaf_and_what_leads_to_the_root(
    stage: Stage, names: list[str], key: PrivateKey
) -> None:
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        chain = await wire.issue(*names, key=key)
        leaf, root = x509.load_pem_x509_certificates(chain)
        assert root == scene.ca.root_cert
        assert_is_ca(root)
        assert_is_leaf(leaf, issuer=root, names=names)
        assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(hours=24)
        checked = next((name for name in names if "*" not in name), None)
        openssl_verify(leaf.public_bytes(Encoding.PEM), scene.ca.root_cert_pem, name=checked, at=scene.clock())


async def test_a_tls_server_shows_it_to_a_strict_client(stage: Stage) -> None:
    async with stage(auto_approve=True, clock=Clock(datetime.now(UTC))) as scene:
        wire, key = await scene.account(), new_key()
        chain = await wire.issue("a.internal", "10.0.0.1", key=key)
        party = Party(chain, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        for name in ("a.internal", "10.0.0.1"):
            tls_handshake(party, scene.ca.root_cert_pem, name=name, client=party)


PEM_CHAIN, PKIX = "application/pem-certificate-chain", "application/pkix-cert"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, PEM_CHAIN),
        ("", PEM_CHAIN),
        ("*/*", PEM_CHAIN),
        ("application/*", PEM_CHAIN),
        (PEM_CHAIN, PEM_CHAIN),
        ("APPLICATION/PEM-Certificate-Chain", PEM_CHAIN),
        (f"text/html, {PEM_CHAIN};q=0.1", PEM_CHAIN),
        (f"{PKIX}, {PEM_CHAIN}", PEM_CHAIN),
        (PKIX, PKIX),
        (f"{PKIX};q=0.5, text/html", PKIX),
        (f"{PEM_CHAIN};q=0, {PKIX}", PKIX),
        (f"{PEM_CHAIN};q=0.000, {PKIX}", PKIX),
        ("application/pkcs7-mime", None),
        ("text/html", None),
        ("*/*;q=0", None),
        (f"{PEM_CHAIN};q=0", None),
        (";;,,==", None),
        (f"{PEM_CHAIN};q=0, */*", PKIX),
        (f"*/*, {PEM_CHAIN};q=0, {PKIX};q=0", None),
        (f"application/*;q=0, {PKIX}", PKIX),
        ("application/*;q=0, */*", None),
        ("*/*;q=0, application/*", PEM_CHAIN),
    ],
)
async def test_it_comes_as_the_client_accepts_it(stage: Stage, accept: str | None, expected: str | None) -> None:
    """RFC 8555 §7.4.2: a chain in PEM unless the client wants something else that there is."""
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        finalized = (await wire.finalize((await wire.order("a.internal")).json())).json()
        scene.http.headers.pop("accept")
        response = await wire.post(finalized["certificate"], headers={} if accept is None else {"accept": accept})
        if expected is None:
            assert problem_of(response) == (406, "malformed")
            return
        assert (response.status_code, response.headers["content-type"]) == (200, expected)
        chain = (await wire.post(finalized["certificate"])).content
        if expected == PKIX:
            assert response.content == from_base64url(der_of(chain), "it")
        else:
            assert response.content == chain
            assert chain.count(b"-----BEGIN CERTIFICATE-----") == 2


async def test_a_certificate_alone_comes_with_a_link_to_the_root_if_that_is_its_issuer(stage: Stage) -> None:
    root = Tier("root", begin=datetime(2026, 1, 1, tzinfo=UTC))
    middle = Tier("middle", root, begin=datetime(2026, 1, 1, tzinfo=UTC))
    taken_over = MemoryStore()
    CertificateAuthority(taken_over, now=Clock()).import_ca(middle.cert_pem + root.cert_pem, middle.key_pem)
    for store, links in ((MemoryStore(), [f'<{BASE}/ca.pem>;rel="up"']), (taken_over, [])):
        async with stage(store=store, auto_approve=True) as scene:
            wire = await scene.account()
            finalized = (await wire.finalize((await wire.order("a.internal")).json())).json()
            response = await wire.post(finalized["certificate"], headers={"accept": PKIX})
            assert [link for link in response.headers.get_list("link") if "up" in link] == links
            assert (await wire.post(finalized["certificate"])).headers.get_list("link") == [
                f'<{BASE}/directory>;rel="index"'
            ]


async def test_what_was_not_issued_by_acme_is_nobodys_here(stage: Stage) -> None:
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        scene.ca.issue("a.internal")
        (record,) = scene.store.find("certificate")
        assert problem_of(await wire.post(f"cert/{record.id}")) == (404, "malformed")


async def test_what_is_not_signed_yet_is_not_there(stage: Stage) -> None:
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        assert wire.kid
        name, owner = Identifier(IdentifierType.DNS, "a.internal"), wire.kid.rsplit("/", 1)[1]
        prepared = scene.ca.prepare(new_key().public_key(), [name], requester=owner)
        scene.store.commit(prepared.to_record())
        assert problem_of(await wire.post(f"cert/{prepared.id}")) == (404, "malformed")


async def test_an_order_leaves_the_files_of_an_issued_certificate_alone(stage: Stage, tmp_path: Path) -> None:
    """An ACME order wiped the key file of a directly issued certificate of the same name."""
    with FileStore(tmp_path) as store:
        async with stage(store=store, auto_approve=True) as scene:
            bundle = scene.ca.issue("a.internal")
            wire = await scene.account()
            await wire.issue("a.internal")
            assert bundle.key_path
            assert bundle.fullchain_path
            assert bundle.key_path.read_bytes() == bundle.key_pem
            assert bundle.fullchain_path.read_bytes() == bundle.fullchain_pem
            assert len(scene.ca.certificates("a.internal")) == 2


# --- revoked (lessons 5, 30) ---


@dataclass
class Cast:
    """A certificate for two names, and everybody who may want it revoked."""

    scene: Scene
    owner: Wire
    holder: Wire
    """Another account, with authorizations for both names."""
    half: Wire
    """One with an authorization for one of them."""
    stranger: Wire
    deactivated: Wire
    """The account it was issued to, in another life; deactivated since."""
    key: PrivateKey
    der: str
    theirs: str
    """The certificate of the deactivated account, for the same names."""

    def revoked(self) -> bool:
        serial = x509.load_der_x509_certificate(from_base64url(self.der, "it")).serial_number
        found = self.scene.ca.certificate(serial)
        assert found is not None
        return found.status == "revoked"


NAMES = ("a.internal", "b.internal")


@pytest.fixture
async def cast(stage: Stage):  # type: ignore[no-untyped-def]
    async with stage(auto_approve=True) as scene:
        owner, holder, half, stranger, deactivated = [await scene.account() for _ in range(5)]
        key = new_key()
        der = der_of(await owner.issue(*NAMES, key=key))
        theirs = der_of(await deactivated.issue(*NAMES))
        await holder.order(*NAMES)
        await half.order(NAMES[0], "c.internal")
        assert deactivated.kid
        await deactivated.post(deactivated.kid, {"status": "deactivated"})
        yield Cast(scene, owner, holder, half, stranger, deactivated, key, der, theirs)


def by_certificate_key(cast: Cast) -> Wire:
    """Without an account: RFC 8555 §7.6, "the key pair in the certificate"."""
    return Wire(cast.scene.http, BASE, cast.key)


def by_some_key(cast: Cast) -> Wire:
    return Wire(cast.scene.http, BASE)


def by_account_key_alone(cast: Cast) -> Wire:
    """The owner's account key as a jwk, where its kid is due."""
    return replace(cast.owner, kid=None, nonce=None)


def with_stolen_kid(cast: Cast) -> Wire:
    """A stranger who names the owner's account, and signs with a key of their own."""
    return replace(cast.owner, key=cast.stranger.key, nonce=None)


WHO: dict[str, tuple[Callable[[Cast], Wire], tuple[int, str] | None]] = {
    "the owner": (lambda cast: cast.owner, None),
    "the certificate's key": (by_certificate_key, None),
    "an account with all authorizations": (lambda cast: cast.holder, None),
    "an account with some": (lambda cast: cast.half, (403, "unauthorized")),
    "a stranger": (lambda cast: cast.stranger, (403, "unauthorized")),
    "a deactivated account": (lambda cast: cast.deactivated, (401, "unauthorized")),
    "some key": (by_some_key, (403, "unauthorized")),
    "the account's key without its account": (by_account_key_alone, (403, "unauthorized")),
    "a forged signature": (with_stolen_kid, (403, "unauthorized")),
}


@pytest.mark.parametrize("who", WHO)
async def test_who_may_revoke_a_certificate(cast: Cast, who: str) -> None:
    """Lesson 5, RFC 8555 §7.6: its account, its key, an account with authorizations for all its names; nobody else."""
    wire, refusal = WHO[who][0](cast), WHO[who][1]
    response = await wire.post("revoke-cert", {"certificate": cast.der})
    if refusal is None:
        assert (response.status_code, response.content) == (200, b"")
        assert response.headers["content-length"] == "0"
    else:
        assert problem_of(response) == refusal
    assert cast.revoked() == (refusal is None)


@pytest.mark.parametrize("who", WHO)
async def test_who_may_revoke_the_certificate_of_another(cast: Cast, who: str) -> None:
    """The same cast, and the certificate of the deactivated account: only who holds all authorizations may; the owner
    of the other certificate holds them too, since it was issued for the same names."""
    wire = WHO[who][0](cast)
    response = await wire.post("revoke-cert", {"certificate": cast.theirs})
    allowed = who in ("the owner", "an account with all authorizations")
    refusal = (401, "unauthorized") if who == "a deactivated account" else (403, "unauthorized")
    assert response.status_code == 200 if allowed else problem_of(response) == refusal
    assert not cast.revoked()


async def test_no_account_is_authorized_for_the_common_name_of_a_client(stage: Stage) -> None:
    """§7.6 wants authorizations for all identifiers in the certificate; where there are none, that is not nobody's."""
    async with stage(auto_approve=True) as scene:
        wire, key = await scene.account(), new_key()
        prepared = scene.ca.prepare(key.public_key(), [], common_name="epoch_user", profile=CLIENT)
        scene.store.commit(prepared.to_record())
        signed = scene.ca.sign(prepared._replace(version=1))
        scene.store.commit(signed.to_record())
        assert signed.der
        payload = {"certificate": to_base64url(signed.der)}
        assert problem_of(await wire.post("revoke-cert", payload)) == (403, "unauthorized")
        assert (await Wire(scene.http, scene.base, key=key).post("revoke-cert", payload)).status_code == 200


async def test_a_deactivated_account_revokes_by_the_certificates_key_alone(cast: Cast) -> None:
    """Lesson 30: revocation by a deactivated account succeeded. The key of the certificate is another matter."""
    assert cast.owner.kid
    await cast.owner.post(cast.owner.kid, {"status": "deactivated"})
    for wire in (cast.owner, by_account_key_alone(cast)):
        refused = await wire.post("revoke-cert", {"certificate": cast.der})
        assert problem_of(refused)[1] == "unauthorized"
    assert not cast.revoked()
    assert (await by_certificate_key(cast).post("revoke-cert", {"certificate": cast.der})).status_code == 200
    assert cast.revoked()


async def test_what_lacks_is_named(cast: Cast) -> None:
    refused = await cast.half.post("revoke-cert", {"certificate": cast.der})
    assert [each["identifier"]["value"] for each in refused.json()["subproblems"]] == ["b.internal"]
    refused = await cast.stranger.post("revoke-cert", {"certificate": cast.der})
    assert [each["identifier"]["value"] for each in refused.json()["subproblems"]] == list(NAMES)


@pytest.mark.parametrize("loss", ["deactivated", "expired"])
async def test_authorizations_count_while_they_are_valid(cast: Cast, loss: str) -> None:
    assert cast.holder.kid
    if loss == "deactivated":
        (url,) = (await cast.holder.post(f"{cast.holder.kid}/orders")).json()["orders"]
        order = (await cast.holder.post(url)).json()
        await cast.holder.post(order["authorizations"][1], {"status": "deactivated"})
    else:
        cast.scene.clock.forward(days=1)
        cast.holder.nonce = None
    refused = await cast.holder.post("revoke-cert", {"certificate": cast.der})
    assert problem_of(refused) == (403, "unauthorized")


async def test_pending_authorizations_do_not_count(stage: Stage) -> None:
    async with stage(auto_approve=True, ask_challenges=True) as scene:
        bundle = scene.ca.issue("a.internal")
        wire = await scene.account()
        der = der_of(bundle.cert_pem)
        order = (await wire.order("a.internal")).json()
        assert problem_of(await wire.post("revoke-cert", {"certificate": der})) == (403, "unauthorized")
        authorization = (await wire.post(order["authorizations"][0])).json()
        await wire.post(authorization["challenges"][0]["url"], {})
        assert (await wire.post("revoke-cert", {"certificate": der})).status_code == 200


async def test_a_name_is_not_its_wildcard(stage: Stage) -> None:
    async with stage(auto_approve=True) as scene:
        owner, other = await scene.account(), await scene.account()
        wild, tame = der_of(await owner.issue("*.a.internal")), der_of(await owner.issue("a.internal"))
        await other.order("a.internal")
        assert problem_of(await other.post("revoke-cert", {"certificate": wild})) == (403, "unauthorized")
        assert (await other.post("revoke-cert", {"certificate": tame})).status_code == 200


async def test_a_valid_authorization_is_found_among_many(stage: Stage) -> None:
    """A client that has ordered the same name hundreds of times has not lost it."""
    async with stage(auto_approve=True, ask_challenges=True) as scene:
        wire = await scene.account()
        der = der_of(scene.ca.issue("a.internal").cert_pem)
        for _ in range(120):
            ordered = await wire.order("a.internal")
            scene.clock.forward(seconds=1)
        assert problem_of(await wire.post("revoke-cert", {"certificate": der})) == (403, "unauthorized")
        authorization = (await wire.post(ordered.json()["authorizations"][0])).json()
        await wire.post(authorization["challenges"][0]["url"], {})
        assert (await wire.post("revoke-cert", {"certificate": der})).status_code == 200


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)])
async def test_certificate_keys_of_every_kind_revoke(stage: Stage, key: PrivateKey) -> None:
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        der = der_of(await wire.issue("a.internal", key=key))
        response = await Wire(scene.http, BASE, key).post("revoke-cert", {"certificate": der})
        assert response.status_code == 200


async def test_an_ed25519_key_revokes_its_certificate(stage: Stage) -> None:
    async with stage(auto_approve=True) as scene:
        wire, key = await scene.account(), ed25519.Ed25519PrivateKey.generate()
        der = der_of(await wire.issue("a.internal", key=key))
        assert (await Wire(scene.http, BASE, key).post("revoke-cert", {"certificate": der})).status_code == 200


@pytest.mark.parametrize("reason", [0, 1, 3, 4, 5, 9, None])
async def test_a_reason_is_kept(cast: Cast, reason: int | None) -> None:
    given = {} if reason is None else {"reason": reason}
    response = await cast.owner.post("revoke-cert", {"certificate": cast.der, **given})
    assert response.status_code == 200
    serial = x509.load_der_x509_certificate(from_base64url(cast.der, "it")).serial_number
    found = cast.scene.ca.certificate(serial)
    assert found is not None
    assert (found.status, found.reason, found.revoked) == ("revoked", reason or 0, cast.scene.clock())


@pytest.mark.parametrize("reason", [2, 6, 7, 8, 10, 11, -1, 1.0, 1.5, True, False, "1", None, [1], 10**30])
async def test_other_reasons_are_no_reasons(cast: Cast, reason: object) -> None:
    """RFC 8555 §7.6: badRevocationReason; which reasons are allowed is in the detail."""
    refused = await cast.owner.post("revoke-cert", {"certificate": cast.der, "reason": reason})
    assert problem_of(refused) == (400, "badRevocationReason")
    assert "0, 1, 3, 4, 5, 9" in refused.json()["detail"]
    assert not cast.revoked()


async def test_a_certificate_is_revoked_once(cast: Cast) -> None:
    async def revoke(wire: Wire) -> httpx.Response:
        return await wire.post("revoke-cert", {"certificate": cast.der})

    wires = [replace(cast.owner, nonce=None), replace(cast.holder, nonce=None), by_certificate_key(cast)] * 3
    answers = await asyncio.gather(*[revoke(replace(wire)) for wire in wires])
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 8
    assert {problem_of(answer) for answer in answers if answer.is_error} == {(400, "alreadyRevoked")}
    assert problem_of(await revoke(cast.owner)) == (400, "alreadyRevoked")
    # Who may not revoke it does not learn that somebody has.
    assert problem_of(await revoke(cast.stranger)) == (403, "unauthorized")


async def test_a_revoked_certificate_can_still_be_downloaded(cast: Cast) -> None:
    (url,) = (await cast.owner.post(f"{cast.owner.kid}/orders")).json()["orders"]
    certificate = (await cast.owner.post(url)).json()["certificate"]
    await cast.owner.post("revoke-cert", {"certificate": cast.der})
    assert der_of((await cast.owner.post(certificate)).content) == cast.der


def forge(cast: Cast, key: PrivateKey) -> str:
    """A certificate with the serial and the names of another one, by a CA of one's own."""
    real = x509.load_der_x509_certificate(from_base64url(cast.der, "it"))
    issuer = new_key()
    builder = (
        x509.CertificateBuilder()
        .serial_number(real.serial_number)
        .subject_name(real.subject)
        .issuer_name(real.issuer)
        .not_valid_before(real.not_valid_before_utc)
        .not_valid_after(real.not_valid_after_utc)
        .public_key(key.public_key())
    )
    for extension in real.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return to_base64url(builder.sign(issuer, SHA256()).public_bytes(Encoding.DER))


async def test_a_forged_certificate_with_a_known_serial_revokes_nothing(cast: Cast) -> None:
    """Lesson 5: signed by its own key, it would be anybody's to revoke."""
    key = new_key()
    forged = forge(cast, key)
    for wire in (Wire(cast.scene.http, BASE, key), cast.owner, cast.stranger):
        assert problem_of(await wire.post("revoke-cert", {"certificate": forged})) == (404, "malformed")
    flipped = bytearray(from_base64url(cast.der, "it"))
    flipped[-1] ^= 1
    refused = await cast.owner.post("revoke-cert", {"certificate": to_base64url(bytes(flipped))})
    assert problem_of(refused) == (404, "malformed")
    assert not cast.revoked()


async def test_the_certificate_of_another_authority_is_not_ours(cast: Cast) -> None:
    other = CertificateAuthority(cast.scene.store, "other", now=cast.scene.clock)
    other.init()
    key = new_key()
    theirs = der_of(other.issue("a.internal").cert_pem)
    root = to_base64url(cast.scene.ca.root_cert.public_bytes(Encoding.DER))
    for wire in (cast.owner, Wire(cast.scene.http, BASE, key)):
        for der in (theirs, root):
            assert problem_of(await wire.post("revoke-cert", {"certificate": der})) == (404, "malformed")
    assert [each.status for each in other.certificates()] == ["valid"]


@pytest.mark.parametrize(
    "certificate",
    [
        *(None, 7, [], {}, "", "=", "a", "MIIB", "a+b/", "ä"),
        *map(to_base64url, [b"0\x80\0\0", b"\xff" * 1000, b"0\x82\xff\xff", b"-----BEGIN CERTIFICATE-----"]),
    ],
)
async def test_what_is_no_certificate_is_malformed(cast: Cast, certificate: object) -> None:
    """Lesson 3."""
    for wire in (cast.owner, by_certificate_key(cast)):
        assert problem_of(await wire.post("revoke-cert", {"certificate": certificate})) == (400, "malformed")
        assert problem_of(await wire.post("revoke-cert", {})) == (400, "malformed")


async def test_no_byte_of_a_certificate_can_be_changed(cast: Cast) -> None:
    """Lesson 3: each gives a refusal, none an exception."""
    real = from_base64url(cast.der, "it")
    for position in range(0, len(real), 7):
        spoilt = bytearray(real)
        spoilt[position] ^= 0xFF
        refused = await cast.owner.post("revoke-cert", {"certificate": to_base64url(bytes(spoilt))})
        assert refused.status_code in (400, 404)
    assert not cast.revoked()


async def test_revoked_on_the_command_line_is_revoked_here(cast: Cast) -> None:
    """The record is one, whoever changes it."""
    serial = x509.load_der_x509_certificate(from_base64url(cast.der, "it")).serial_number
    revoked: Certificate = cast.scene.ca.revoke(serial, 4)
    assert revoked.status == "revoked"
    refused = await cast.owner.post("revoke-cert", {"certificate": cast.der})
    assert problem_of(refused) == (400, "alreadyRevoked")


async def test_revoking_while_the_account_is_deactivated(cast: Cast) -> None:
    """Whichever comes first: afterwards the account does nothing."""
    assert cast.owner.kid
    same = replace(cast.owner, nonce=None)
    asked: list[Awaitable[httpx.Response]] = [
        cast.owner.post(cast.owner.kid, {"status": "deactivated"}),
        same.post("revoke-cert", {"certificate": cast.der}),
    ]
    gone, revocation = await asyncio.gather(*asked)
    assert gone.status_code == 200
    assert revocation.status_code in (200, 401)
    assert cast.revoked() == (revocation.status_code == 200)
