import re
import ssl
from ipaddress import ip_network

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from tests.ca.tier import DAY, NOON, Clock, Tier, smuggled
from tests.certificates import Party, assert_is_ca, assert_is_leaf, make_csr, openssl_verify, tls_handshake

from privet.acme.identifiers import from_text
from privet.ca import AuthorityError, CertificateAuthority, KeyType, NameConstraints, NamesRefused, keys, offline
from privet.ca.issuer import Issuer, make_root, new_serial
from privet.ca.profiles import CLIENT, DEFAULT
from privet.ca.tbs import to_pem
from privet.stores import MemoryStore

DNS, IP = x509.DNSName, x509.IPAddress


def root_with(constraints: NameConstraints | None) -> Issuer:
    return make_root(keys.generate(KeyType.P256), "root", NOON, 10 * DAY, constraints)


def certify(issuer: Issuer, *names: str, client: bool = False) -> bytes:
    """A certificate as it would be if nobody looked at the names."""
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    profile = CLIENT if client else DEFAULT
    return to_pem(issuer.sign(issuer.leaf(new_serial(), NOON, NOON + DAY, key, [*map(from_text, names)], profile)))


def verifiers_accept(issuer: Issuer, *names: str, client: bool = False) -> bool:
    leaf, root = certify(issuer, *names, client=client), issuer.chain[-1].public_bytes(Encoding.PEM)
    purpose = "sslclient" if client else "sslserver"
    try:
        openssl_verify(leaf, root, chain_pem=issuer.chain_pem, purpose=purpose, at=NOON)
    except AssertionError as error:
        if "subtree violation" in str(error):
            return False
        raise
    return True


NAMES = [
    "internal", "db.internal", "a.b.internal", "notinternal", "internal.example", "*.internal", "*.db.internal",
    "10.0.0.1", "10.255.255.255", "11.0.0.1", "fd00::1", "fe80::1", "corp.example", "a.corp.example",
]  # fmt: skip


@pytest.mark.parametrize(
    ("constraints", "allowed"),
    [
        (
            NameConstraints(["internal"]),
            {"internal", "db.internal", "a.b.internal", "*.internal", "*.db.internal"},
        ),
        (NameConstraints(["DB.internal"]), {"db.internal", "*.db.internal"}),
        (NameConstraints([".corp.example"]), {"a.corp.example"}),
        (NameConstraints(["10.0.0.0/8"]), {"10.0.0.1", "10.255.255.255"}),
        (NameConstraints(["fd00::/8", "10.0.0.1"]), {"fd00::1", "10.0.0.1"}),
        (NameConstraints(["corp.example", "fd00::/8"]), {"corp.example", "a.corp.example", "fd00::1"}),
        (NameConstraints(["internal"], ["b.internal", "internal.example"]),
            {"internal", "db.internal", "*.db.internal"}),
        (NameConstraints([], ["internal", "10.0.0.0/8", "fe80::/10"]),
            {"notinternal", "internal.example", "11.0.0.1", "fd00::1", "corp.example", "a.corp.example"}),
        (NameConstraints(["10.0.0.0/8"], ["10.0.0.0/24", "internal"]), {"10.255.255.255"}),
    ],
    ids=lambda value: "" if isinstance(value, set) else str(value),
)  # fmt: skip
def test_what_is_refused_here_is_what_verifiers_refuse(constraints: NameConstraints, allowed: set[str]) -> None:
    issuer = root_with(constraints)
    assert_is_ca(issuer.chain[0], constraints=constraints.to_extension())
    for name in NAMES:
        accepted = issuer.refusal(from_text(name)) is None
        assert accepted == (name in allowed), name
        if accepted or not name.startswith("*."):
            assert verifiers_accept(issuer, name) == accepted, name


@pytest.mark.parametrize("client", [False, True])
def test_one_name_outside_spoils_the_certificate(client: bool) -> None:
    issuer = root_with(NameConstraints(["internal"]))
    assert verifiers_accept(issuer, "a.internal", "b.internal", client=client)
    for other in ("a.example", "10.0.0.1", "::1"):
        assert not verifiers_accept(issuer, "a.internal", other, client=client)


@pytest.mark.parametrize(
    ("name", "refused"),
    [("*.internal", True), ("*.secret.internal", True), ("*.db.internal", False), ("*.other", False)],
)
def test_a_wildcard_that_stands_for_an_excluded_name_is_refused(name: str, refused: bool) -> None:
    """OpenSSL takes the asterisk for a label like any other, and lets the first one through."""
    issuer = root_with(NameConstraints(excluded=["secret.internal"]))
    assert (issuer.refusal(from_text(name)) is not None) == refused


def test_a_wildcard_beside_what_is_excluded_below_is_fine() -> None:
    issuer = root_with(NameConstraints(excluded=[".secret.internal", "a.b.internal"]))
    assert issuer.refusal(from_text("*.internal")) is None


@pytest.fixture
def ca() -> CertificateAuthority:
    ca = CertificateAuthority(MemoryStore(), now=Clock())
    ca.init(name_constraints=NameConstraints(["internal", "10.0.0.0/8"], ["secret.internal"]))
    return ca


def test_an_authority_issues_what_it_may_and_names_all_that_it_may_not(ca: CertificateAuthority) -> None:
    names = ["a.internal", "10.0.0.7"]
    bundle = ca.issue(names)
    assert_is_leaf(x509.load_pem_x509_certificate(bundle.cert_pem), issuer=ca.root_cert, names=names)
    for name in names:
        openssl_verify(bundle.cert_pem, ca.root_cert_pem, name=name, at=NOON)
    with pytest.raises(NamesRefused) as caught:
        ca.issue(["a.example", "a.internal", "x.secret.internal", "fd00::1"])
    assert [str(each) for each, _ in caught.value.refused] == ["a.example", "x.secret.internal", "fd00::1"]
    assert [reason for _, reason in caught.value.refused] == [
        "a.example is not among what this authority may certify: internal",
        "x.secret.internal is among what this authority must not certify: secret.internal",
        "fd00::1 is not among what this authority may certify: 10.0.0.0/8",
    ]
    assert len(ca.certificates()) == 1


def test_a_csr_is_no_way_around(ca: CertificateAuthority) -> None:
    key = keys.generate(KeyType.P256)
    for csr in (make_csr(key, ["a.internal"], cn="a.example"), make_csr(key, ["a.internal", "192.168.0.1"])):
        with pytest.raises(NamesRefused):
            ca.issue_from_csr(csr, client=True)


def test_a_type_of_which_nothing_is_permitted_is_excluded_in_words_everybody_understands() -> None:
    names = NameConstraints(["internal"], ["10.0.0.0/8"]).to_extension()
    assert names == x509.NameConstraints([DNS("internal")], [IP(ip_network("0.0.0.0/0")), IP(ip_network("::/0"))])
    addresses = NameConstraints(["10.0.0.0/8"], ["internal"]).to_extension()
    assert addresses == x509.NameConstraints([IP(ip_network("10.0.0.0/8"))], [DNS("")])
    issuer = root_with(NameConstraints(["10.0.0.0/8"]))
    assert issuer.refusal(from_text("a.example")) == (
        "a.example is among what this authority must not certify: any DNS name"
    )


def test_python_honours_the_constraints() -> None:
    # TLS looks at the real clock, so this root is one of today.
    ca = CertificateAuthority(MemoryStore())
    ca.init(name_constraints=NameConstraints(["internal"]))
    good = ca.issue("a.internal")
    party = Party(good.fullchain_pem, good.key_pem)
    tls_handshake(party, ca.root_cert_pem, name="a.internal", client=party)
    for name in ("a.example", "10.0.0.1"):
        bad = smuggled(ca, name)
        with pytest.raises(ssl.SSLError, match="subtree violation"):
            tls_handshake(bad, ca.root_cert_pem, name=name)
    with pytest.raises(ssl.SSLError):
        tls_handshake(party, ca.root_cert_pem, name="a.internal", client=smuggled(ca, "a.example"))


@pytest.mark.parametrize(("permitted", "understood"), [("internal", True), (".internal", False)])
def test_a_leading_dot_is_not_understood_by_everybody(permitted: str, understood: bool) -> None:
    """cryptography has a verifier of its own, and refuses every certificate below such a root."""
    ca = CertificateAuthority(MemoryStore())
    ca.init(name_constraints=NameConstraints([permitted]))
    leaf = x509.load_pem_x509_certificate(ca.issue("a.internal").cert_pem)
    verifier = PolicyBuilder().store(Store([ca.root_cert])).build_server_verifier(DNS("a.internal"))
    if understood:
        assert verifier.verify(leaf, []) == [leaf, ca.root_cert]
    else:
        with pytest.raises(VerificationError, match="malformed DNS name constraint"):
            verifier.verify(leaf, [])


# --- init ---


def test_the_same_constraints_may_be_said_at_every_start_and_need_not_be(ca: CertificateAuthority) -> None:
    again = CertificateAuthority(ca.store, now=Clock())
    again.init()
    again.init(name_constraints=NameConstraints(["10.0.0.0/8", "INTERNAL", "internal"], ["secret.internal"]))
    assert again.root_cert == ca.root_cert
    with pytest.raises(NamesRefused):
        again.issue("a.example")


def test_an_authority_that_is_there_does_not_silently_keep_other_constraints(ca: CertificateAuthority) -> None:
    with pytest.raises(AuthorityError, match="is there already, and has other name constraints"):
        CertificateAuthority(ca.store, now=Clock()).init(name_constraints=NameConstraints(["internal"]))
    free = CertificateAuthority(MemoryStore(), now=Clock())
    free.init()
    with pytest.raises(AuthorityError, match="other name constraints"):
        free.init(name_constraints=NameConstraints(["internal"]))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "empty label"),
        (".", "empty label"),
        ("..internal", "empty label"),
        ("*.internal", "write .internal for all that is below internal"),
        ("10.0.0.1/8", "has host bits set"),
        ("10.0.0.0/33", "is no network"),
        (".10.0.0.1", "neither a name nor a network"),
        ("under_score", "characters other than"),
        ("300.0.0.1", "ends in a number"),
    ],
)
def test_what_is_neither_a_name_nor_a_network_is_refused(text: str, complaint: str) -> None:
    for wrong in ({"permitted": [text]}, {"excluded": [text]}):
        with pytest.raises(ValueError, match=complaint):
            NameConstraints(**wrong)


def test_constraints_that_say_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="permit or exclude something"):
        NameConstraints()
    with pytest.raises(ValueError, match="are lists"):
        NameConstraints("internal")


def test_names_are_read_as_people_write_them() -> None:
    constraints = NameConstraints(["Bücher.example", "fd00::7"]).to_extension()
    assert constraints.permitted_subtrees == [DNS("xn--bcher-kva.example"), IP(ip_network("fd00::7/128"))]


# --- other people's CAs ---


def test_the_constraints_of_a_whole_chain_hold() -> None:
    root = Tier("root", says=[x509.NameConstraints([DNS("internal"), DNS("example")], None)])
    middle = Tier("middle", root, says=[x509.NameConstraints([DNS("team.internal")], [IP(ip_network("::/0"))])])
    ca = CertificateAuthority(MemoryStore(), now=Clock())
    ca.import_ca(middle.cert_pem + root.cert_pem, middle.key_pem)
    for name, allowed in {
        "a.team.internal": True,
        "a.internal": False,
        "a.example": False,
        "10.0.0.1": True,
        "::1": False,
    }.items():
        assert (ca.issuer.refusal(from_text(name)) is None) == allowed, name
        assert verifiers_accept(ca.issuer, name) == allowed, name


def test_constraints_of_types_we_never_certify_are_no_hindrance() -> None:
    mail = x509.NameConstraints([x509.RFC822Name("example.com"), x509.UniformResourceIdentifier("example.com")], None)
    ca = CertificateAuthority(MemoryStore(), now=Clock())
    ca.import_ca((root := Tier("root", says=[mail])).cert_pem, root.key_pem)
    openssl_verify(ca.issue("a.internal").cert_pem, root.cert_pem, name="a.internal", at=NOON)


@pytest.mark.parametrize(
    ("permitted", "excluded", "accepted"),
    [
        ([], ["middle"], False),
        ([], ["Middle "], False),
        ([], ["other"], True),
        (["MIDDLE"], [], True),
        (["other"], [], False),
        (["other", "middle"], ["other"], True),
    ],
)
def test_an_intermediate_whose_own_subject_is_forbidden_is_no_ca(
    permitted: list[str], excluded: list[str], accepted: bool
) -> None:
    subtrees = [
        [x509.DirectoryName(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, cn)])) for cn in names] or None
        for names in (permitted, excluded)
    ]
    root = Tier("root", says=[x509.NameConstraints(*subtrees)])
    middle = Tier("middle", root)
    ca = CertificateAuthority(MemoryStore(), now=Clock())
    if accepted:
        ca.import_ca(middle.cert_pem + root.cert_pem, middle.key_pem)
        assert verifiers_accept(ca.issuer, "a.internal")
    else:
        with pytest.raises(AuthorityError, match="CN=middle has a subject that the name constraints above it forbid"):
            ca.import_ca(middle.cert_pem + root.cert_pem, middle.key_pem)


def test_where_subjects_are_constrained_certificates_have_none() -> None:
    """§4.2.1.10: such a restriction is for subjects that are not empty."""
    organization = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Example")])
    root = Tier("root", says=[x509.NameConstraints([x509.DirectoryName(organization)], None)])
    ca = CertificateAuthority(MemoryStore(), now=Clock())
    ca.import_ca(root.cert_pem, root.key_pem)
    bundle = ca.issue("a.internal")
    certificate = x509.load_pem_x509_certificate(bundle.cert_pem)
    assert not list(certificate.subject)
    assert certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical
    openssl_verify(bundle.cert_pem, root.cert_pem, name="a.internal", at=NOON)
    with pytest.raises(AuthorityError, match="this would have no name"):
        ca.prepare(keys.generate(KeyType.P256).public_key(), [], common_name="epoch_user", profile=CLIENT)


def test_a_common_name_that_could_be_a_host_is_constrained_as_one() -> None:
    ca = CertificateAuthority(MemoryStore(), now=Clock())
    ca.init(name_constraints=NameConstraints(["internal"]))
    key = keys.generate(KeyType.P256).public_key()
    allowed = ("epoch_user", "postgres", "user.internal", "User_1.Internal", "user@mail.example", "two words.example")
    refused = ("user.example", "epoch_user.example", "EPOCH_USER.example", "10.0.0.7", "v1.2", "*.example")
    for cn in (*allowed, *refused):
        if cn in allowed:
            pem = ca.sign(ca.prepare(key, [], common_name=cn, profile=CLIENT)).cert_pem
            openssl_verify(pem, ca.root_cert_pem, purpose="sslclient", at=NOON)
        else:
            with pytest.raises(NamesRefused, match=re.escape(cn.lower())):
                ca.prepare(key, [], common_name=cn, profile=CLIENT)
            with pytest.raises(NamesRefused, match=re.escape(cn.lower())):
                offline.certify(ca.issuer, [], NOON, DAY, cn=cn, client=True)


def test_openssl_takes_these_common_names_for_hosts_too() -> None:
    """Which is why they are refused."""
    ca = CertificateAuthority(MemoryStore(), now=Clock())
    ca.init(name_constraints=NameConstraints(["internal"]))
    key = keys.generate(KeyType.P256).public_key()
    for cn in ("user.example", "epoch_user.example", "10.0.0.7", "v1.2"):
        der = ca.issuer.sign(ca.issuer.leaf(new_serial(), NOON, NOON + DAY, key, [], CLIENT, cn))
        with pytest.raises(AssertionError, match="permitted subtree violation"):
            openssl_verify(to_pem(der), ca.root_cert_pem, purpose="sslclient", at=NOON)


@pytest.mark.parametrize(
    ("permitted", "excluded", "left"),
    [
        (["internal"], ["internal"], False),
        (["a.internal"], ["internal"], False),
        (["a.internal"], [".internal"], False),
        ([".a.internal"], ["a.internal"], False),
        ([".internal"], [".internal"], False),
        (["Internal"], ["INTERNAL"], False),
        (["10.0.0.0/8"], ["10.0.0.0/9", "10.128.0.0/9"], False),
        (["fd00::/8"], ["fc00::/7"], False),
        (["a.internal", "10.0.0.7"], ["internal", "10.0.0.0/8"], False),
        (["internal"], [".internal"], True),
        (["internal"], ["a.internal"], True),
        (["evilinternal"], ["internal"], True),
        (["internal", "10.0.0.0/8"], ["internal"], True),
        (["10.0.0.0/8"], ["10.0.0.0/9"], True),
        (["fd00::/8"], ["0.0.0.0/0"], True),
        ([], ["internal", "0.0.0.0/0", "::/0"], True),
    ],
)
def test_constraints_leave_something_to_certify(permitted: list[str], excluded: list[str], left: bool) -> None:
    if left:
        NameConstraints(permitted, excluded)
    else:
        with pytest.raises(ValueError, match="so that the authority could certify nothing"):
            NameConstraints(permitted, excluded)
