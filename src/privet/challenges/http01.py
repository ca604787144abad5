"""Where people look for the handler of http-01 challenges: `from privet.challenges.http01 import HTTP01Handler`."""

from privet.client.http01 import HTTP01Handler

__all__ = ["HTTP01Handler"]
