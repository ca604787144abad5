"""privet on the command line."""

import errno
import io
import os
import sys

from privet.acme.identifiers import BadIdentifier
from privet.ca import AuthorityError
from privet.cli.app import app
from privet.cli.failures import Failure
from privet.stores import StoreError

__all__ = ["main"]


def main() -> None:
    """Run the command that the arguments name. What can be expected to fail ends with a sentence, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # not every terminal has every letter
    try:
        try:
            app()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what is left at the end
        print(f"privet: what was to be printed cannot be written: {error.strerror}", file=sys.stderr)
        sys.exit(1)
    except (Failure, StoreError, AuthorityError, BadIdentifier) as failure:
        for sentence in str(failure).splitlines():
            print(f"privet: {sentence}", file=sys.stderr)
        sys.exit(getattr(failure, "status", 1))
