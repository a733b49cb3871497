"""Pages, and the frames they live in (mm_types.h, page_alloc.c)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .errors import expect

if TYPE_CHECKING:
    from .page_table import PageTable

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT


def pages_for(size: int) -> int:
    """DIV_ROUND_UP(size, PAGE_SIZE): how many pages hold that many bytes."""
    return -(-size // PAGE_SIZE)


@dataclass(eq=False)
class Page:
    """One frame's worth of bytes: a page of a file, or somebody's private copy of one."""

    index: int
    private: bool
    uptodate: bool = False
    readahead: bool = False  # PG_readahead, the marker: who meets it reads the next window
    data: bytearray = field(default_factory=lambda: bytearray(PAGE_SIZE))
    entries: set[tuple[PageTable, int]] = field(default_factory=set)  # where it is mapped


class Frames:
    """All memory there is. Pages of files may use every frame, private copies at most half of them."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.in_use = 0
        self.private = 0

    def take(self, index: int, *, private: bool = False) -> Page | None:
        """A zeroed page, or None when there is no frame for it."""
        if self.in_use == self.capacity:
            return None
        if private and self.private == self.capacity // 2:
            return None
        self.in_use += 1
        self.private += private
        return Page(index, private)

    def give_back(self, page: Page) -> None:
        """The frame is free for the next taker at once."""
        expect(not page.entries, "a mapped page was freed")
        self.in_use -= 1
        self.private -= page.private
