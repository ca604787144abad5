"""privet: an internal certificate authority that speaks ACME."""

from privet.acme.problems import Problem, ProblemType
from privet.bundle import CertBundle
from privet.ca import AuthorityError, CertificateAuthority, KeyType, NameConstraints, NamesRefused, Profile
from privet.client.client import Client
from privet.client.errors import ClientError
from privet.client.handlers import ChallengeHandler
from privet.client.renewal import RenewalManager, RenewalStatus
from privet.client.sync import SyncClient
from privet.server.limits import Limits, Rate
from privet.server.policy import Applicant, Decision, Policy
from privet.server.responder import ACMEResponder
from privet.server.validators import ChallengeValidator
from privet.stores import Conflict, FileStore, MemoryStore, Record, SQLiteStore, Store, StoreError, open_store

__all__ = [
    "ACMEResponder",
    "Applicant",
    "AuthorityError",
    "CertBundle",
    "CertificateAuthority",
    "ChallengeHandler",
    "ChallengeValidator",
    "Client",
    "ClientError",
    "Conflict",
    "Decision",
    "FileStore",
    "KeyType",
    "Limits",
    "MemoryStore",
    "NameConstraints",
    "NamesRefused",
    "Policy",
    "Problem",
    "ProblemType",
    "Profile",
    "Rate",
    "Record",
    "RenewalManager",
    "RenewalStatus",
    "SQLiteStore",
    "Store",
    "StoreError",
    "SyncClient",
    "open_store",
]
