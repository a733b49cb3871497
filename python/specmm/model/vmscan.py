"""Which pages are evicted, what they leave behind, what counts as a use (vmscan.c, workingset.c)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from .errors import InvariantError
from .page import Frames, Page

if TYPE_CHECKING:
    from .address_space import AddressSpace

SWAP_CLUSTER_MAX = 32
LOOKS = 4  # at each page in one call: each mark of use costs one, and so does taking it


class Vmscan:
    """The two lists of `frames` are scanned from the old end; a batch is a 64th of the cache."""

    def __init__(self, frames: Frames, counters: Counter[str]) -> None:
        self.frames = frames
        self.counters = counters
        self.batch = min(max(frames.capacity // 64, 1), SWAP_CLUSTER_MAX)
        self.spaces: list[AddressSpace] = []
        self.age = 0  # nonresident_age: evictions and activations so far
        self.last_touched: Page | None = None

    # --- use

    def touch(self, page: Page) -> None:
        """mark_page_accessed for a read: the first touch makes it referenced, the second active.

        Reads that go on in the page that was touched last are one touch.
        """
        if page.referenced and page.active:
            return
        last, self.last_touched = self.last_touched, page
        if not page.referenced:
            page.referenced = True
        elif last is not page:
            page.active = True

    # --- room

    def alloc_page(self, index: int, *, private: bool = False) -> Page | None:
        """A frame, for which other pages are evicted if necessary."""
        while True:
            page = self.frames.take(index, private=private)
            if page is not None:
                return page
            if private and self.frames.private >= self.frames.capacity // 2:
                return None
            if self.reclaim(self.batch) == 0 and self.frames.in_use == self.frames.capacity:
                return None

    def wait_for_frame(self) -> bool:
        """There is nobody else who might free one: one last try."""
        return self.frames.in_use < self.frames.capacity or self.reclaim(1) > 0

    def reclaim(self, target: int) -> int:
        """shrink_node: evicts up to `target` of the least recently used pages."""
        inactive, active = self.frames.inactive, self.frames.active
        looks = LOOKS * (len(active) + len(inactive))
        freed = 0
        while freed < target and looks > 0:
            aged = self.shrink_active_list() if len(active) > len(inactive) else 0
            looked, went = self.shrink_inactive_list(min(self.batch, target - freed))
            freed += went
            if aged + looked == 0:
                break
            looks -= aged + looked
        self.counters["evictions"] += freed
        return freed

    def shrink_active_list(self) -> int:
        """The oldest active pages become inactive, except those used since the last check."""
        pages = isolate(self.frames.active, self.batch)
        for page in pages:
            if self.was_used(page):
                self.frames.active.append(page)
            else:
                page.active = False
                self.frames.inactive.append(page)
                self.counters["deactivations"] += 1
        self.counters["scanned"] += len(pages)
        return len(pages)

    def was_used(self, page: Page) -> bool:
        """Clears the marks of use."""
        read, page.referenced = page.referenced, False
        if not page.entries:
            return read
        if page.locked:
            return True
        return bool(page.clear_young()) or read

    def shrink_inactive_list(self, most: int) -> tuple[int, int]:
        """Evicts what was used at most once; returns how many pages were scanned, and how many evicted."""
        pages = isolate(self.frames.inactive, most)
        doomed = []
        for page in pages:
            keep = self.judge(page)
            if keep is None:
                doomed.append(page)
            else:
                keep.append(page)
        self.make_room_for_shadows(len(doomed))
        evicted = [page for page in doomed if self.remove_mapping(page)]
        self.counters["scanned"] += len(pages)
        return len(pages), len(evicted)

    def judge(self, page: Page) -> list[Page] | None:
        """page_check_references: the list it returns to, or None if it can be evicted and is unmapped."""
        if page.locked:
            return self.frames.inactive
        young = page.clear_young()
        if page.active:
            return self.activate(page)
        if young:
            before, page.referenced = page.referenced, True
            return self.activate(page) if before or young > 1 else self.frames.inactive
        page.unmap()
        return None

    def activate(self, page: Page) -> list[Page]:
        """Moves a page to the active list and clears its marks."""
        page.referenced, page.active = False, True
        self.age += 1
        self.counters["activations"] += 1
        return self.frames.active

    def remove_mapping(self, page: Page) -> bool:
        """__remove_mapping: unless somebody holds the page, it is evicted, with a shadow in its place."""
        self.age += 1
        if page.held:
            self.frames.inactive.append(page)
            return False
        mapping = page.mapping
        if mapping is None:
            raise InvariantError("a page of no file is on a list")
        if self.shadows < self.frames.capacity:
            mapping.shadows[page.index] = self.age
        mapping.delete_page(page)
        return True

    # --- shadows

    @property
    def shadows(self) -> int:
        """How many there are in all files: never more than frames."""
        return sum(len(space.shadows) for space in self.spaces)

    def make_room_for_shadows(self, more: int) -> None:
        """Drops old shadows, which no longer say anything."""
        capacity = self.frames.capacity
        if self.shadows + more > capacity:
            for space in self.spaces:
                young = {at: age for at, age in space.shadows.items() if self.age - age <= capacity // 2}
                space.shadows = young

    def refault(self, page: Page, shadow: int) -> None:
        """workingset_refault: a page that the active list's room would have kept comes back active."""
        self.counters["refaults"] += 1
        if self.age - shadow <= len(self.frames.active):
            page.active = True
            self.frames.inactive.remove(page)
            self.frames.active.append(page)
            self.age += 1
            self.counters["refaults_activated"] += 1


def isolate(pages: list[Page], most: int) -> list[Page]:
    """Removes the oldest page from a list."""
    taken, pages[:] = pages[:most], pages[most:]
    return taken
