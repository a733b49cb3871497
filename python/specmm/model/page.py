"""Pages, and the frames they live in (mm_types.h, page_alloc.c)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .errors import expect

if TYPE_CHECKING:
    from .address_space import AddressSpace
    from .page_table import Entry, PageTable

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
    mapping: AddressSpace | None = None  # the file it is a page of
    locked: bool = False  # PG_locked: it is being read
    held: int = 0  # references of calls that are under way
    pins: int = 0  # FOLL_PIN: its bytes must stay
    referenced: bool = False  # PG_referenced: used since reclaim last looked
    active: bool = False  # PG_active: used again

    def mapped_by(self) -> list[Entry]:
        """The entries that map it."""
        found = [table.get(number) for table, number in self.entries]
        return [entry for entry in found if entry is not None]

    def clear_young(self) -> int:
        """page_referenced: through how many entries it was used since the last check."""
        used = [entry for entry in self.mapped_by() if entry.accessed]
        for entry in used:
            entry.accessed = False
        return len(used)

    def unmap(self) -> None:
        """try_to_unmap."""
        for table, number in list(self.entries):
            table.zap(number, number + 1)

    def mark_accessed(self) -> None:
        """mark_page_accessed: for an entry that was used and then removed."""
        self.active = self.active or self.referenced
        self.referenced = True


class Frames:
    """All memory there is. Pages of files may use every frame, private copies at most half of them."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.in_use = 0
        self.private = 0
        self.inactive: list[Page] = []  # pages of files, the oldest first: used once, as far as is known
        self.active: list[Page] = []  # used again
        self.pinned: list[Page] = []  # on neither list

    def take(self, index: int, *, private: bool = False) -> Page | None:
        """A zeroed page, or None when there is no frame for it."""
        if self.in_use == self.capacity:
            return None
        if private and self.private == self.capacity // 2:
            return None
        self.in_use += 1
        self.private += private
        page = Page(index, private)
        if not private:
            self.inactive.append(page)
        return page

    def give_back(self, page: Page) -> None:
        """Frees the frame, which can be reused at once."""
        expect(not page.entries and not page.pins, "a page in use was freed")
        for pages in (self.inactive, self.active):
            if page in pages:
                pages.remove(page)
        self.in_use -= 1
        self.private -= page.private

    def pin(self, page: Page) -> None:
        """Adds a pin: reclaim does not see the page."""
        if not page.pins:
            (self.active if page in self.active else self.inactive).remove(page)
            self.pinned.append(page)
        page.pins += 1

    def unpin(self, page: Page) -> None:
        """Removes a pin; a page that left its file meanwhile is freed with the last one."""
        page.pins -= 1
        if not page.pins:
            self.pinned.remove(page)
            self.inactive.append(page)
            if page.mapping is None:
                self.give_back(page)
