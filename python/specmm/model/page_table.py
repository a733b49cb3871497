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
    """Pages are numbered by virtual address >> 12. Of upper tables only the number is kept."""

    def __init__(self, frames: Frames) -> None:
        self.frames = frames
        self.leaves: dict[int, dict[int, Entry]] = {}
        self.pmds: set[int] = set()
        self.puds: set[int] = set()

    def missing(self, number: int) -> Abort | None:
        """What a walk that may not make tables runs into."""
        if number >> PUD not in self.puds or number >> PMD not in self.pmds:
            return Abort.PUD
        if number >> LEAF not in self.leaves:
            return Abort.PMD
        return None

    def make_tables(self, number: int) -> None:
        """pud_alloc, pmd_alloc, pte_alloc: only the classic path does it."""
        self.puds.add(number >> PUD)
        self.pmds.add(number >> PMD)
        self.leaves.setdefault(number >> LEAF, {})

    def get(self, number: int) -> Entry | None:
        """The present entry of that page."""
        return self.leaves.get(number >> LEAF, {}).get(number)

    def set(self, number: int, page: Page, *, writable: bool, accessed: bool = True) -> None:
        """do_set_pte, into an entry that is none. What a fault is for counts as accessed."""
        leaf = self.leaves[number >> LEAF]
        expect(number not in leaf, "an entry was overwritten")
        leaf[number] = Entry(page, writable, accessed)
        page.entries.add((self, number))

    def present(self, first: int, end: int) -> list[tuple[int, Entry]]:
        """The entries of the pages in [first, end)."""
        leaves = [leaf for leaf in sorted(self.leaves) if first >> LEAF <= leaf <= end >> LEAF]
        entries = (each for leaf in leaves for each in sorted(self.leaves[leaf].items()))
        return [(number, entry) for number, entry in entries if first <= number < end]

    def zap(self, first: int, end: int) -> None:
        """zap_pte_range: a file page stays in the cache, a private copy has no other place and is freed."""
        for number, entry in self.present(first, end):
            self.clear(number)
            if entry.page.private:
                self.frames.give_back(entry.page)
            elif entry.accessed:
                entry.page.mark_accessed()

    def clear(self, number: int) -> None:
        """ptep_get_and_clear."""
        entry = self.leaves[number >> LEAF].pop(number)
        entry.page.entries.remove((self, number))

    def write_protect(self, first: int, end: int) -> None:
        """change_protection, towards read-only."""
        for _, entry in self.present(first, end):
            entry.writable = False

    def free_tables(self, first: int, end: int, floor: int, ceiling: int) -> None:
        """free_pgtables: of the tables that [first, end) lies in, those that span nothing but the gap.

        The gap [floor, ceiling) is what is unmapped now, from the mapping before to the one after.
        """

        def spans_gap(table: int, bits: int) -> bool:
            return floor <= table << bits and (table + 1) << bits <= ceiling

        def freed(bits: int) -> range:
            low, high = first >> bits, (end - 1 >> bits) + 1
            return range(low + (not spans_gap(low, bits)), high - (not spans_gap(high - 1, bits)))

        doomed = freed(LEAF)
        for leaf in [leaf for leaf in self.leaves if leaf in doomed]:
            expect(not self.leaves.pop(leaf), "a table with entries was freed")
        self.pmds.difference_update(freed(PMD))
        self.puds.difference_update(freed(PUD))
