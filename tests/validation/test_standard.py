"""Validators by the names of their types."""

import pytest
from tests.validation.scene import CANARY, PATH, PROOF, Scene
from tests.validation.town import response, says

from privet import ACMEResponder, CertificateAuthority, MemoryStore
from privet.acme.problems import ProblemType
from privet.validation import CheckingCAA, Resolver, Retrying, make_validators

RESOLVER = Resolver(["127.0.0.1"])
ALL = ["http-01", "dns-01", "tls-alpn-01", "dns-account-01", "dns-persist-01"]
NAMED = {"issuers": ["ca.internal"], "account_hash_prefix": "https://ca.internal/h/"}


def test_each_type_gets_the_validator_that_knows_it() -> None:
    validators = make_validators(ALL, resolver=RESOLVER, **NAMED)  # type: ignore[arg-type]
    assert list(validators) == ALL
    assert {type: validator.method for type, validator in validators.items()} == {type: type for type in ALL}
    assert all(isinstance(validator, Retrying) for validator in validators.values())
    assert validators["dns-persist-01"].challenge_fields == {"issuerDomainNames": ["ca.internal"]}


def test_a_responder_takes_them_as_they_are() -> None:
    ca = CertificateAuthority(MemoryStore())
    ca.init()
    ACMEResponder(ca, challenge_validator=make_validators(["http-01", "dns-01", "tls-alpn-01"], resolver=RESOLVER))


def test_caa_goes_around_all_of_them() -> None:
    validators = make_validators(ALL, resolver=RESOLVER, check_caa=True, **NAMED)  # type: ignore[arg-type]
    assert all(isinstance(validator, CheckingCAA) for validator in validators.values())


@pytest.mark.parametrize(
    ("types", "options", "words"),
    [
        (["http-02"], {}, "there is no validator for 'http-02'; there are http-01, dns-01"),
        (["dns-persist-01"], {}, "needs an account_hash_prefix"),
        (["dns-persist-01"], {"account_hash_prefix": "https://x/"}, "one to ten domain names"),
        (["http-01"], {"check_caa": True}, "one to ten domain names"),
    ],
)
def test_what_does_not_go_together_is_said(types: list[str], options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_validators(types, resolver=RESOLVER, **options)  # type: ignore[arg-type]


def test_a_host_that_answers_wrongly_is_told_at_once(scene: Scene) -> None:
    """Only nameservers are slow to hear of things; a 404 is not waited out."""
    validators = make_validators(
        ["http-01"], resolver=scene.resolver(), networks=scene.town.networks(), http_port=scene.http
    )
    scene.nameserver.add("www.internal", "A", scene.town.client.address)
    with scene.town.client.serve(says(response(404, CANARY.encode())), scene.http) as called:
        refusal = scene.refused(validators["http-01"], "www.internal")
    assert refusal.type is ProblemType.INCORRECT_RESPONSE
    assert called.calls == 1
    with scene.town.client.serve(says(response(200, PROOF.encode())), scene.http):
        proof = scene.prove(validators["http-01"], "www.internal")
    assert proof.steps[-1].what.endswith(PATH)
