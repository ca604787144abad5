"""privet: an internal certificate authority that speaks ACME."""

from privet.acme.problems import Problem, ProblemType
from privet.bundle import CertBundle
from privet.ca import AuthorityError, CertificateAuthority, KeyType, Profile
from privet.server.client_certificates import ClientCertificate
from privet.server.limits import Limits
from privet.server.policy import Applicant, CertificatePolicy, Decision, Policy, Ruling
from privet.server.responder import ACMEResponder
from privet.server.rules import BadRules, Rules
from privet.server.validators import ChallengeValidator
from privet.stores import Conflict, FileStore, MemoryStore, Record, SQLiteStore, Store, StoreError, open_store

__all__ = [
    "ACMEResponder",
    "Applicant",
    "AuthorityError",
    "BadRules",
    "CertBundle",
    "CertificateAuthority",
    "CertificatePolicy",
    "ChallengeValidator",
    "ClientCertificate",
    "Conflict",
    "Decision",
    "FileStore",
    "KeyType",
    "Limits",
    "MemoryStore",
    "Policy",
    "Problem",
    "ProblemType",
    "Profile",
    "Record",
    "Rules",
    "Ruling",
    "SQLiteStore",
    "Store",
    "StoreError",
    "open_store",
]
