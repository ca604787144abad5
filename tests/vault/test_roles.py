"""Roles as they are written into a file, and what they allow."""

import contextlib
import pickle
from datetime import timedelta

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from privet import BadRoles, KeyType, Roles
from privet.acme.identifiers import from_text
from privet.vault.roles import Role

HOUR = timedelta(hours=1)


def role(text: str) -> Role:
    found = Roles.from_toml(f'[[role]]\nname = "a"\n{text}').get("a")
    assert found is not None
    return found


def mistakes(text: str) -> list[str]:
    with pytest.raises(BadRoles) as raised:
        Roles.from_toml(text, "roles.toml")
    return list(raised.value.mistakes)


def test_a_role_has_what_it_says_and_defaults_for_the_rest() -> None:
    plain = role('names = ["*.internal"]')
    assert (plain.lifetime, plain.max_lifetime, plain.wildcard) == (24 * HOUR, 24 * HOUR, False)
    assert plain.key_types == tuple(KeyType)
    assert plain.key_types[0] is KeyType.P256
    assert plain.profile.usages == (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
    assert plain.profile.name == "role a"
    assert not plain.lets_client("a.internal")

    client = role('common-names = ["epoch_user"]\nusages = ["client"]\nkey-types = ["Ed25519"]')
    assert client.profile.usages == (ExtendedKeyUsageOID.CLIENT_AUTH,)
    assert client.profile.key_types == {KeyType.ED25519}
    assert client.lets_client("epoch_user")
    assert client.objection(from_text("a.internal")) == "a.internal is not allowed by the role 'a'"


@pytest.mark.parametrize(
    ("text", "lifetime", "longest"),
    [
        ("", 24, 24),
        ('lifetime = "1h"', 1, 1),
        ('max-lifetime = "2h"', 2, 2),
        ('max-lifetime = "72h"', 24, 72),
        ('lifetime = "36h"', 36, 36),
        ('lifetime = "1h"\nmax-lifetime = "3h"', 1, 3),
    ],
)
def test_how_long_certificates_live(text: str, lifetime: int, longest: int) -> None:
    found = role(f'names = ["a"]\n{text}')
    assert (found.lifetime, found.max_lifetime) == (lifetime * HOUR, longest * HOUR)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", ["roles.toml has no [[role]], so that nobody would get anything"]),
        ("[[role]\n", ["roles.toml is not TOML: "]),
        ("[role]\nname = 'a'", ["role in roles.toml has to be written as [[role]], with two brackets"]),
        (
            "[[rule]]\nname = 'a'",
            ["'rule' in roles.toml means nothing there; it is a list of [[role]]", "roles.toml has no"],
        ),
        ("[[role]]\nnames = ['a']", ["role 1 in roles.toml needs a name, for messages and records to call it by"]),
        (
            "[[role]]\nname = 'a'",
            ["role 1 (a) in roles.toml needs names or common-names: what may be in its certificates"],
        ),
        (
            "[[role]]\nname = 'a/b'\nnames = ['a']",
            ["role 1 (a/b) in roles.toml has name, which has to be a name of letters"],
        ),
        (
            "[[role]]\nname = 'a'\nnames = []",
            ["role 1 (a) in roles.toml has names, which has to be a list of texts with"],
        ),
        (
            "[[role]]\nname = 'a'\ncommon-names = ['u']",
            ["role 1 (a) in roles.toml has common-names, which are for clients alone: say usages"],
        ),
        (
            "[[role]]\nname = 'a'\ncommon-names = ['u']\nusages = ['server', 'client']",
            ["role 1 (a) in roles.toml has common-names, which are for clients alone"],
        ),
        (
            "[[role]]\nname = 'a'\ncommon-names = ['*']\nusages = ['client']",
            ["role 1 (a) in roles.toml has common-names, which has a name that is none: '*' alone"],
        ),
        (
            "[[role]]\nname = 'a'\nnames = ['a']\nusages = ['email']",
            ["role 1 (a) in roles.toml has usages, which has to be a list of server and client"],
        ),
        (
            "[[role]]\nname = 'a'\nnames = ['a']\nlifetime = '2h'\nmax-lifetime = '1h'",
            ["role 1 (a) in roles.toml has a lifetime that is longer than its max-lifetime"],
        ),
        (
            "[[role]]\nname = 'a'\nnames = ['a']\nttl = '2h'",
            ["role 1 (a) in roles.toml has 'ttl', which means nothing; there are name, names, "],
        ),
        (
            "[[role]]\nname = 'a'\nnames = ['a']\n[[role]]\nname = 'a'\nnames = ['b']",
            ["role 2 (a) in roles.toml has the name of another role"],
        ),
    ],
)
def test_every_mistake_is_told(text: str, sentences: list[str]) -> None:
    told = mistakes(text)
    assert len(told) == len(sentences), told
    for one, sentence in zip(told, sentences, strict=True):
        assert one.startswith(sentence), one


@given(st.text(max_size=100))
@settings(deadline=None)
def test_any_text_gives_roles_or_their_mistakes(text: str) -> None:
    for whole in (text, f'[[role]]\nname = "a"\n{text}'):
        with contextlib.suppress(BadRoles):
            Roles.from_toml(whole)


def test_roles_travel_to_workers() -> None:
    roles = pickle.loads(pickle.dumps(Roles.from_toml('[[role]]\nname = "a"\nnames = ["*.internal", "10.0.0.0/8"]')))
    found = roles.get("a")
    assert found.objection(from_text("x.internal")) is None
    assert found.objection(from_text("10.1.1.1")) is None
    assert roles.get("b") is None
