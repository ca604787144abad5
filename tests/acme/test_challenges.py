"""Challenges: which an identifier has, and what the holder of the key puts where we look for it."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privet.acme.challenges import STANDARD, TOKEN, ChallengeType, challenge_types, key_authorization
from privet.acme.encoding import to_base64url
from privet.acme.identifiers import from_text

HTTP_01, DNS_01, TLS_ALPN_01 = STANDARD
DNS_ACCOUNT_01, DNS_PERSIST_01 = ChallengeType.DNS_ACCOUNT_01, ChallengeType.DNS_PERSIST_01


@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("a.internal", set(ChallengeType)),
        ("*.a.internal", {DNS_01, DNS_ACCOUNT_01, DNS_PERSIST_01}),  # RFC 8555 §8.3, RFC 8737 §3
        ("10.0.0.1", {HTTP_01, TLS_ALPN_01}),  # RFC 8738 §7: "dns-01 ... MUST NOT be used"
        ("fd00::1", {HTTP_01, TLS_ALPN_01}),
    ],
)
def test_an_identifier_has_the_challenges_that_can_prove_it(name: str, types: set[ChallengeType]) -> None:
    assert set(challenge_types(from_text(name))) == types
    assert len(challenge_types(from_text(name))) == len(types)


def test_the_key_authorization_of_rfc_8555() -> None:
    """§8.3, with the digest that §8.4 puts into a TXT record."""
    proof = key_authorization(
        "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0", "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"
    )
    assert proof == "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"
    digest = hashlib.sha256(proof.encode()).digest()
    assert to_base64url(digest) == "LPsIwTo7o8BoG0-vjCyGQGBWSVIPxI-i_X336eUOQZo"


@given(st.binary(min_size=17))
def test_random_octets_enough_are_a_token(octets: bytes) -> None:
    """§8.1: "at least 128 bits of entropy", in the base64url alphabet."""
    assert TOKEN.fullmatch(to_base64url(octets))


@pytest.mark.parametrize(
    "token", ["", "a" * 21, "a" * 30 + "=", "a" * 30 + "/", "a" * 30 + "\n", "../" * 10, "a" * 30 + "."]
)
def test_what_is_no_token(token: str) -> None:
    assert not TOKEN.fullmatch(token)
