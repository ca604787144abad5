"""What meets challenges on a node's side: a module for each type."""

from privet.client.handlers import Approval, ChallengeHandler

__all__ = ["Approval", "ChallengeHandler"]
