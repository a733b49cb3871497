"""The extension module: see the package's own documentation for the names meant for users."""

from typing import Final

PAGE_SIZE: Final[int]
"""Bytes in a page."""
