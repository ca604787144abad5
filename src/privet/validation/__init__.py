"""Validation (RFC 8555 §8): finding out for ourselves whether a challenge has been met, on a private network, without
becoming a way into it."""

from privet.acme.attempts import Attempt, NotProved, Proof, Prover, Step, prove
from privet.validation.caa import CAA, CheckingCAA
from privet.validation.dns01 import DNS01Validator, DNSAccount01Validator
from privet.validation.dnspersist01 import DNSPersist01Validator
from privet.validation.gates import Gate
from privet.validation.http01 import HTTP01Validator
from privet.validation.networks import AddressRefused, Networks
from privet.validation.resolver import LookupFailed, NoSuchName, Resolver
from privet.validation.retries import Retrying
from privet.validation.standard import make_validators
from privet.validation.tlsalpn01 import TLSALPN01Validator
from privet.validation.validator import Validator, Wrapper

__all__ = [
    "AddressRefused",
    "Attempt",
    "CAA",
    "CheckingCAA",
    "DNS01Validator",
    "DNSAccount01Validator",
    "DNSPersist01Validator",
    "Gate",
    "HTTP01Validator",
    "LookupFailed",
    "Networks",
    "NoSuchName",
    "NotProved",
    "Proof",
    "Prover",
    "Resolver",
    "Retrying",
    "Step",
    "TLSALPN01Validator",
    "Validator",
    "Wrapper",
    "make_validators",
    "prove",
]
