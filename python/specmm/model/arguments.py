"""Checks of arguments: a bad one raises before anything is counted or changed."""

import operator
import re

from .page import PAGE_SIZE

MAX_BYTES = 1 << 44  # 16 TiB, the largest file
UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}


def natural(what: str, value: int, most: int | None = None) -> int:
    """An int that is not negative and at most `most`."""
    number = operator.index(value)
    if number < 0:
        raise ValueError(f"{what} {number} is negative")
    if most is not None and number > most:
        raise ValueError(f"{what} {number} is above {most}")
    return number


def byte_count(what: str, value: int | str) -> int:
    """An int, or a string as "64MiB"."""
    if not isinstance(value, str):
        return natural(what, value)
    match = re.fullmatch(r"\s*(\d+)\s*([A-Za-z]*)\s*", value)
    if match is None or match[2].upper() not in UNITS:
        raise ValueError(f"{what} {value!r} is not a size as '64MiB'")
    return int(match[1]) * UNITS[match[2].upper()]


def page_aligned(what: str, value: int) -> int:
    """A multiple of the page."""
    number = natural(what, value)
    if number % PAGE_SIZE:
        raise ValueError(f"{what} {number:#x} is not a multiple of {PAGE_SIZE}")
    return number


def choice(what: str, value: str, choices: tuple[str, ...]) -> str:
    """One of the words."""
    if not isinstance(value, str):
        raise TypeError(f"{what} {value!r} is not a string")
    if value not in choices:
        raise ValueError(f"{what} {value!r} is none of {', '.join(choices)}")
    return value
