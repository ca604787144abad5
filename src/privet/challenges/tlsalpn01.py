"""Where people look for the handler of tls-alpn-01: `from privet.challenges.tlsalpn01 import TLSALPN01Handler`."""

from privet.client.tlsalpn01 import TLSALPN01Handler

__all__ = ["TLSALPN01Handler"]
