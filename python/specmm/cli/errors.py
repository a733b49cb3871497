"""Mistakes of the user's, and messages on stderr."""

import contextlib
import sys


class UsageError(Exception):
    """An invalid argument, which the message names. The command exits with code 2."""


def say(line: str) -> None:
    """Writes a line to stderr. A stderr that cannot be written to does not stop the command."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)
