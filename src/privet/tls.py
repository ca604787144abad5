"""Where programs written for haystack-py look for what is in `privet.mtls`."""

from privet.mtls.config import TLSConfig, build_client_ssl_context, build_server_ssl_context
from privet.mtls.peers import extract_peer_cn, extract_peer_sans
from privet.mtls.testing import generate_test_certificates

__all__ = [
    "TLSConfig",
    "build_client_ssl_context",
    "build_server_ssl_context",
    "extract_peer_cn",
    "extract_peer_sans",
    "generate_test_certificates",
]
