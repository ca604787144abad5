"""Secrets and tokens: random, and never taken for an option of a command."""

from datetime import UTC, datetime

import pytest

from privet import CertificateAuthority, MemoryStore
from privet.acme.challenges import TOKEN
from privet.acme.encoding import to_base64url
from privet.server import external_accounts
from privet.server.tokens import new_secret, new_token

# Left to chance, one in sixty-four would begin with a hyphen; that none of so many did would not happen in our lives.
MANY = 3000


@pytest.mark.parametrize("length", [16, 24, 32])
def test_no_secret_begins_with_a_hyphen(length: int) -> None:
    made = [new_secret(length) for _ in range(MANY)]
    assert {len(each) for each in made} == {length}
    assert len(set(made)) == MANY
    firsts = {to_base64url(each)[0] for each in made}
    assert "-" not in firsts
    assert len(firsts) == 63, "everything else is as likely as ever"


def test_tokens_are_what_the_rfc_wants_and_make_names_of_files() -> None:
    made = {new_token() for _ in range(MANY)}
    assert len(made) == MANY
    assert all(TOKEN.fullmatch(each) and not each.startswith("-") for each in made)


def test_no_external_account_key_begins_with_a_hyphen() -> None:
    ca = CertificateAuthority(MemoryStore())
    ca.init()
    now = datetime.now(UTC)
    made = [external_accounts.create(ca.store, ca, "team-a", now) for _ in range(MANY)]
    assert not any(key.id.startswith("-") or to_base64url(secret).startswith("-") for key, secret in made)
