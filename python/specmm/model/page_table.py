"""The page table of an address space: four levels of 512, the lowest of which holds entries (memory.c)."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import expect
from .outcomes import Abort
from .page import PAGE_SHIFT, Frames, Page

BITS = 9  # 512 to a table
LEAF, PMD, PUD = BITS, 2 * BITS, 3 * BITS  # page numbers >> these: which leaf, pmd, pud table
ADDRESS_SPACE_END = 1 << (4 * BITS + PAGE_SHIFT - 1)  # user space is the lower half


@dataclass
class Entry:
    """A present entry."""

    page: Page
    writable: bool
    accessed: bool


class PageTable:
    """Pages are numbered by virtual address >> 12.

    A leaf is there while it has an entry, an upper table while it has a leaf.
    """

    def __init__(self, frames: Frames) -> None:
        self.frames = frames
        self.leaves: dict[int, dict[int, Entry]] = {}

    @property
    def count(self) -> int:
        """How many tables there are below the root."""
        return len({(bits, leaf << LEAF >> bits) for bits in (LEAF, PMD, PUD) for leaf in self.leaves})

    def missing(self, number: int) -> Abort | None:
        """What a walk that may not create tables runs into."""
        if number >> LEAF in self.leaves:
            return None
        return Abort.PMD if number >> PMD in {leaf << LEAF >> PMD for leaf in self.leaves} else Abort.PUD

    def get(self, number: int) -> Entry | None:
        """The present entry of that page."""
        return self.leaves.get(number >> LEAF, {}).get(number)

    def set(self, number: int, page: Page, *, writable: bool, accessed: bool = True) -> None:
        """do_set_pte, into an entry that is none, perhaps in a leaf that is made for it.

        What a fault is for counts as accessed.
        """
        leaf = self.leaves.setdefault(number >> LEAF, {})
        expect(number not in leaf, "an entry was overwritten")
        leaf[number] = Entry(page, writable, accessed)
        page.entries.add((self, number))

    def present(self, first: int, end: int) -> list[tuple[int, Entry]]:
        """The entries of the pages in [first, end)."""
        leaves = [leaf for leaf in sorted(self.leaves) if first >> LEAF <= leaf <= end >> LEAF]
        entries = (each for leaf in leaves for each in sorted(self.leaves[leaf].items()))
        return [(number, entry) for number, entry in entries if first <= number < end]

    def zap(self, first: int, end: int) -> None:
        """zap_pte_range: a file page stays in the cache, a private copy has no other place and is freed.

        Leaves go with their last entry.
        """
        for number, entry in self.present(first, end):
            self.clear(number)
            self.free_if_empty(number >> LEAF)
            if entry.page.private:
                self.frames.give_back(entry.page)
            elif entry.accessed:
                entry.page.mark_accessed()

    def clear(self, number: int) -> None:
        """ptep_get_and_clear."""
        entry = self.leaves[number >> LEAF].pop(number)
        entry.page.entries.remove((self, number))

    def free_if_empty(self, leaf: int) -> None:
        """free_pgtables, as soon as the last entry of a leaf is gone."""
        if not self.leaves[leaf]:
            del self.leaves[leaf]

    def write_protect(self, first: int, end: int) -> None:
        """change_protection, towards read-only."""
        for _, entry in self.present(first, end):
            entry.writable = False
