"""Arguments that several commands take. Errors name the offending value."""

import argparse
import os

from specmm import _core
from specmm.cli.errors import UsageError


def size(text: str) -> int:
    """Bytes, more than 0, as a number or with a unit."""
    try:
        found = _core.parse_size(text)
    except ValueError:
        found = 0
    if found == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 16777216 or 16MiB")
    return found


def seconds(text: str) -> float:
    """Seconds, more than 0, at most an hour."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0.0 < found <= 3600.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0 and up to 3600")
    return found


def count(text: str) -> int:
    """A whole number from 1 on."""
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= 1 << 32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def seed(text: str) -> int:
    """A whole number."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def file(path: str, *, empty: str) -> int:
    """The size of a regular file that can be read and is not empty.

    empty: what an empty file leaves nothing to do: "there is nothing to <empty>".
    """
    try:
        with os.fdopen(_core.open_regular(path), "rb") as opened:
            size = os.fstat(opened.fileno()).st_size
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{path!r} cannot be read: {reason}") from None
    if size == 0:
        raise UsageError(f"{path!r} is empty: there is nothing to {empty}")
    return size
