"""What a user can get wrong, and how anything is said beside the result."""

import contextlib
import sys


class UsageError(Exception):
    """An argument that cannot work; the message names it. The command ends with code 2."""


def say(line: str) -> None:
    """Writes a line to stderr. Whether anybody can read it makes no difference to the command."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)
