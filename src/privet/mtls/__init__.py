"""Mutual TLS for the nodes: contexts, contexts that follow renewal, and who is at the other end."""

from privet.mtls.config import TLSConfig, build_client_ssl_context, build_server_ssl_context
from privet.mtls.contexts import TLSConfigError, client_ssl_context, server_ssl_context
from privet.mtls.live import LiveTLS
from privet.mtls.peers import CertAuthenticator, extract_peer_cn, extract_peer_sans

__all__ = [
    "CertAuthenticator",
    "LiveTLS",
    "TLSConfig",
    "TLSConfigError",
    "build_client_ssl_context",
    "build_server_ssl_context",
    "client_ssl_context",
    "extract_peer_cn",
    "extract_peer_sans",
    "server_ssl_context",
]
