"""What meets challenges on a node's side: a module for each type."""

from privet.client.handlers import ChallengeHandler

__all__ = ["ChallengeHandler"]
