"""The extension module: see the package's own documentation for the names meant for users."""

from typing import Final

__all__ = ["PAGE_SIZE"]

PAGE_SIZE: Final[int]
"""Bytes in a page."""
