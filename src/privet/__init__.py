"""privet: an internal certificate authority that speaks ACME."""

from privet.acme.problems import Problem, ProblemType
from privet.bundle import CertBundle
from privet.ca import AuthorityError, CertificateAuthority, KeyType, NameConstraints, NamesRefused, Profile
from privet.mtls.config import TLSConfig, build_client_ssl_context, build_server_ssl_context
from privet.mtls.contexts import TLSConfigError
from privet.mtls.live import LiveTLS
from privet.mtls.peers import CertAuthenticator, extract_peer_cn, extract_peer_sans
from privet.mtls.testing import generate_test_certificates
from privet.server.limits import Limits, Rate
from privet.server.policy import Applicant, Decision, Policy
from privet.server.responder import ACMEResponder
from privet.server.validators import ChallengeValidator
from privet.stores import Conflict, FileStore, MemoryStore, Record, SQLiteStore, Store, StoreError, open_store

__all__ = [
    "ACMEResponder",
    "Applicant",
    "AuthorityError",
    "CertAuthenticator",
    "CertBundle",
    "CertificateAuthority",
    "ChallengeValidator",
    "Conflict",
    "Decision",
    "FileStore",
    "KeyType",
    "Limits",
    "LiveTLS",
    "MemoryStore",
    "NameConstraints",
    "NamesRefused",
    "Policy",
    "Problem",
    "ProblemType",
    "Profile",
    "Rate",
    "Record",
    "SQLiteStore",
    "Store",
    "StoreError",
    "TLSConfig",
    "TLSConfigError",
    "build_client_ssl_context",
    "build_server_ssl_context",
    "extract_peer_cn",
    "extract_peer_sans",
    "generate_test_certificates",
    "open_store",
]
