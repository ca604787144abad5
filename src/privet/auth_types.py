"""Where programs written for haystack-py look for `CertAuthenticator`."""

from privet.mtls.peers import CertAuthenticator

__all__ = ["CertAuthenticator"]
