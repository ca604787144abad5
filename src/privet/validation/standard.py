"""Validators for the types of challenge somebody names, put together as most will want them."""

from collections.abc import Collection, Mapping, Sequence

from privet.acme.attempts import Clock
from privet.acme.problems import ProblemType
from privet.validation.caa import CAA, CheckingCAA
from privet.validation.dns01 import DNS01Validator, DNSAccount01Validator
from privet.validation.dnspersist01 import DNSPersist01Validator
from privet.validation.gates import Gate
from privet.validation.http01 import HTTP01Validator
from privet.validation.networks import Networks
from privet.validation.resolver import Resolver
from privet.validation.retries import PASSING, Retrying
from privet.validation.tlsalpn01 import TLSALPN01Validator
from privet.validation.trail import utc_now
from privet.validation.validator import Validator, Wrapper

# A host that answers wrongly will do so again; a nameserver may just not have heard yet.
_PASSING_FOR_HOSTS = PASSING - {ProblemType.INCORRECT_RESPONSE}


def make_validators(
    types: Collection[str],
    *,
    resolver: Resolver | None = None,
    networks: Networks | None = None,
    gate: Gate | None = None,
    http_port: int = 80,
    tls_port: int = 443,
    issuers: Sequence[str] = (),
    account_hash_prefix: str | None = None,
    check_caa: bool = False,
    retry_within: float = 40.0,
    now: Clock = utc_now,
) -> Mapping[str, Validator | Wrapper]:
    """A validator for each type, all with the same resolver, networks and gate, and each tried again for a while.

    dns-persist-01 needs `issuers`, the domain names we go by, and `account_hash_prefix`; `check_caa` needs `issuers`.
    Raises `ValueError` in one sentence for what does not go together.
    """
    resolver, networks, gate = resolver or Resolver(), networks or Networks(), gate or Gate()
    caa = CAA(issuers, resolver=resolver) if check_caa else None
    validators: dict[str, Validator | Wrapper] = {}
    for type in types:
        passing = PASSING if type.startswith("dns-") else _PASSING_FOR_HOSTS
        inner: Validator
        match type:
            case "http-01":
                inner = HTTP01Validator(resolver=resolver, networks=networks, gate=gate, port=http_port, now=now)
            case "dns-01":
                inner = DNS01Validator(resolver=resolver, now=now)
            case "tls-alpn-01":
                inner = TLSALPN01Validator(resolver=resolver, networks=networks, gate=gate, port=tls_port, now=now)
            case "dns-account-01":
                inner = DNSAccount01Validator(resolver=resolver, now=now)
            case "dns-persist-01":
                if account_hash_prefix is None:
                    raise ValueError("dns-persist-01 needs an account_hash_prefix")
                inner = DNSPersist01Validator(issuers, account_hash_prefix, resolver=resolver, now=now)
            case _:
                known = "http-01, dns-01, tls-alpn-01, dns-account-01 and dns-persist-01"
                raise ValueError(f"there is no validator for {type!a}; there are {known}")
        retrying = Retrying(inner, within=retry_within, passing=passing, now=now)
        validators[type] = retrying if caa is None else CheckingCAA(retrying, caa, now=now)
    return validators
