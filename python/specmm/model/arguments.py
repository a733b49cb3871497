"""Checks of arguments: a bad one raises before anything is counted or changed, and is named with its value.

First every argument of a call is converted to a number, in order; then the object of the call must be open;
then the numbers are checked.
"""

import math
import operator
import re

from .page import PAGE_SIZE

MAX_BYTES = 1 << 44  # 16 TiB, the largest file
MAX_RA_PAGES = 1 << 18  # 1 GiB
UNITS = {"": 1, "B": 1}
UNITS |= {unit + "iB": 1 << 10 * power for power, unit in enumerate("KMGT", 1)}
UNITS |= {unit + "B": 1000**power for power, unit in enumerate("KMGT", 1)}


def natural(what: str, value: object) -> int:
    """Any integer from 0 to 2**63 - 1, of whatever type."""
    try:
        number = operator.index(value)  # type: ignore[arg-type] # whether it is one is asked here
    except TypeError:
        raise TypeError(f"{what} must be an integer, not {type(value).__name__}: {value!r}") from None
    if number < 0:
        raise ValueError(f"{what} must not be negative: {number}")
    if number >> 63:
        raise ValueError(f"{what} is out of range: {number}")
    return number


def natural_or_none(what: str, value: object) -> int | None:
    """The same, or None."""
    return None if value is None else natural(what, value)


def at_most(what: str, number: int, most: int) -> None:
    """Raises ValueError if a number is larger than `most`."""
    if number > most:
        raise ValueError(f"{what} {number} exceeds {most}")


def pages_ahead(what: str, value: object) -> int:
    """A number of pages, of 32 bits."""
    number = natural(what, value)
    if number >> 32:
        raise ValueError(f"{what} is out of range: {number}")
    return number


def byte_count(what: str, value: object) -> int:
    """A number of bytes, or a string such as "64MiB" or "10MB"."""
    if not isinstance(value, str):
        return natural(what, value)
    match = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", value.strip(), re.ASCII)
    size = int(match[1]) * UNITS.get(match[2], 0) if match else 0
    if match is None or match[2] not in UNITS or size >> 64:
        raise ValueError(f"{what} must be bytes or a size such as '64MiB': {value!r}")
    return size


def seconds(what: str, value: object) -> float:
    """A number of seconds, from 0 to less than 2**64."""
    try:
        number = math.ldexp(value, 0)  # type: ignore[arg-type] # a float, if it can be one, but no string
    except Exception:
        raise TypeError(f"{what} must be a number of seconds: {value!r}") from None
    if not 0 <= number < 1 << 64:
        raise ValueError(f"{what} must be a number of seconds, 0 or more: {value!r}")
    return number


def page_aligned(what: str, number: int) -> None:
    """Raises ValueError unless a number is a multiple of the page size."""
    if number % PAGE_SIZE:
        raise ValueError(f"{what} {number:#x} is not a multiple of {PAGE_SIZE}")


def flag(what: str, value: object) -> bool:
    """A bool, or numpy's."""
    kind = type(value)
    if not (kind is bool or (kind.__module__ == "numpy" and kind.__name__ in ("bool", "bool_"))):
        raise TypeError(f"{what} must be a bool, not {kind.__name__}: {value!r}")
    return bool(value)


def choice(what: str, value: str, choices: tuple[str, ...]) -> str:
    """One of the choices."""
    if not isinstance(value, str):
        raise TypeError(f"{what} {value!r} is not a string")
    if value not in choices:
        raise ValueError(f"{what} {value!r} is none of {', '.join(choices)}")
    return value
