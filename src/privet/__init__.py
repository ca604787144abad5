"""privet: an internal certificate authority that speaks ACME."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from privet.acme.attempts import Attempt, ChallengeValidator, NotProved, Proof, Step
from privet.acme.problems import Problem, ProblemType
from privet.bundle import CertBundle
from privet.ca import AuthorityError, CertificateAuthority, KeyType, NameConstraints, NamesRefused, Profile
from privet.mtls.config import TLSConfig, build_client_ssl_context, build_server_ssl_context
from privet.mtls.contexts import TLSConfigError
from privet.mtls.live import LiveTLS
from privet.mtls.peers import CertAuthenticator, extract_peer_cn, extract_peer_sans
from privet.mtls.postgresql import postgresql_dsn
from privet.mtls.testing import generate_test_certificates
from privet.server.client_certificates import ClientCertificate
from privet.server.limits import Limits, Rate
from privet.server.policy import Applicant, CertificatePolicy, Decision, Policy, Ruling
from privet.server.responder import ACMEResponder
from privet.server.rules import BadRules, Rules
from privet.stores import Conflict, FileStore, MemoryStore, Record, SQLiteStore, Store, StoreError, open_store
from privet.vault.pki import VaultPKI
from privet.vault.roles import BadRoles, Roles

if TYPE_CHECKING:
    from privet.client.client import Client
    from privet.client.errors import ClientError
    from privet.client.handlers import ChallengeHandler
    from privet.client.renewal import RenewalManager, RenewalStatus
    from privet.client.sync import SyncClient
    from privet.client.vault import VaultClient

__all__ = [
    "ACMEResponder",
    "Applicant",
    "Attempt",
    "AuthorityError",
    "BadRoles",
    "BadRules",
    "CertAuthenticator",
    "CertBundle",
    "CertificateAuthority",
    "CertificatePolicy",
    "ChallengeHandler",
    "ChallengeValidator",
    "Client",
    "ClientCertificate",
    "ClientError",
    "Conflict",
    "Decision",
    "FileStore",
    "KeyType",
    "Limits",
    "LiveTLS",
    "MemoryStore",
    "NameConstraints",
    "NamesRefused",
    "NotProved",
    "Policy",
    "Problem",
    "ProblemType",
    "Profile",
    "Proof",
    "Rate",
    "Record",
    "RenewalManager",
    "RenewalStatus",
    "Roles",
    "Rules",
    "Ruling",
    "SQLiteStore",
    "Step",
    "Store",
    "StoreError",
    "SyncClient",
    "TLSConfig",
    "TLSConfigError",
    "VaultClient",
    "VaultPKI",
    "build_client_ssl_context",
    "build_server_ssl_context",
    "extract_peer_cn",
    "extract_peer_sans",
    "generate_test_certificates",
    "open_store",
    "postgresql_dsn",
]

# The other side of the wire brings an HTTP client along. A server has no use for it, and would wait at every start.
_CLIENT = {
    "ChallengeHandler": "privet.client.handlers",
    "Client": "privet.client.client",
    "ClientError": "privet.client.errors",
    "RenewalManager": "privet.client.renewal",
    "RenewalStatus": "privet.client.renewal",
    "SyncClient": "privet.client.sync",
    "VaultClient": "privet.client.vault",
}


def __getattr__(name: str) -> Any:
    if name not in _CLIENT:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_CLIENT[name]), name)
    return found


def __dir__() -> list[str]:
    return __all__
