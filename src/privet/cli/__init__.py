"""privet on the command line."""

import sys

from privet.acme.identifiers import BadIdentifier
from privet.ca import AuthorityError
from privet.cli.app import app
from privet.cli.failures import Failure
from privet.stores import StoreError

__all__ = ["main"]


def main() -> None:
    """Run the command that the arguments name. What can be expected to fail ends with a sentence, not a traceback."""
    try:
        app()
    except (Failure, StoreError, AuthorityError, BadIdentifier) as failure:
        for sentence in str(failure).splitlines():
            print(f"privet: {sentence}", file=sys.stderr)
        sys.exit(getattr(failure, "status", 1))
