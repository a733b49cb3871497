"""The pages of one file (struct address_space and its inode; filemap.c, truncate.c)."""

from __future__ import annotations

import errno
from collections import Counter
from typing import TYPE_CHECKING

from .errors import ChangedError, expect
from .page import PAGE_SIZE, Page, pages_for
from .store import Change, Look, Store
from .vmscan import Vmscan

if TYPE_CHECKING:
    from .vma import Vma


AGAIN_MOST = 256  # of what a read noted as the most to ask for again


class AddressSpace:
    """What all opens of one file share: its size, its pages, its mappings."""

    def __init__(self, vmscan: Vmscan, counters: Counter[str], store: Store, size: int) -> None:
        self.vmscan = vmscan
        self.frames = vmscan.frames
        self.counters = counters  # the cache's, see CacheStats
        self.store = store
        self.seen = store.look()  # when its bytes were last known to be those of the pages
        self.epoch = 0  # how often a change was found
        self.i_size = size
        self.pages: dict[int, Page] = {}
        self.shadows: dict[int, int] = {}  # where evicted pages were, and how old the cache was
        self.i_mmap: list[Vma] = []
        self.open_files = 0
        self.again = 0  # pages that are asked for at once where a window failed

    @property
    def max_off(self) -> int:
        """The first page index beyond the end of the file."""
        return pages_for(self.i_size)

    # --- adding pages

    def add_page(self, index: int) -> Page | None:
        """add_to_page_cache_lru: a new page, not up to date yet; None when there is no frame."""
        expect(index not in self.pages and index < self.max_off, "a page added twice, or beyond the end")
        page = self.vmscan.alloc_page(index)
        if page is not None:
            self.pages[index] = page
            page.mapping = self
            shadow = self.shadows.pop(index, None)
            if shadow is not None:
                self.vmscan.refault(page, shadow)
        return page

    def add_page_waiting(self, index: int) -> Page | None:
        """The same, where it may wait for a frame."""
        page = self.add_page(index)
        while page is None and self.vmscan.wait_for_frame():
            page = self.add_page(index)
        return page

    def read_pages(self, run: list[Page]) -> OSError | None:
        """One read of the store for a run of pages. After an error all stay in the cache, not up to date."""
        offset = run[0].index * PAGE_SIZE
        expected = self.seen
        wanted = min(len(run) * PAGE_SIZE, self.i_size - offset)
        self.counters["reads"] += 1
        try:
            data = self.store.read(offset, wanted)
        except OSError as error:
            self.counters["read_errors"] += 1
            self.again = len(run) // 2
            return error
        self.again = min(max(self.again, 2 * len(run)), AGAIN_MOST)
        self.counters["read_bytes"] += wanted
        if self.change_since(expected) in (Change.TOUCHED, Change.WRITTEN):
            return ChangedError(errno.ESTALE, "the file was rewritten while it was read", self.store.name)

        # The last page reads as zeros past the end of the file.
        data = data.ljust(len(run) * PAGE_SIZE, b"\0")
        for number, page in enumerate(run):
            page.data[:] = data[number * PAGE_SIZE : (number + 1) * PAGE_SIZE]
            page.uptodate = True
        return None

    # --- dropping pages

    def delete_page(self, page: Page) -> None:
        """delete_from_page_cache: nobody maps it any more. A pinned page keeps its frame."""
        del self.pages[page.index]
        page.mapping = None
        if not page.pins:
            self.frames.give_back(page)

    def invalidate(self, first: int, end: int) -> int:
        """invalidate_mapping_pages: drops pages in [first, end) that nobody maps; returns how many."""
        within = [page for page in self.pages.values() if first <= page.index < end]
        doomed = [page for page in within if not (page.entries or page.pins or page.held)]
        for page in doomed:
            self.delete_page(page)
        self.counters["dropped"] += len(doomed)
        return len(doomed)

    @property
    def in_use(self) -> bool:
        """Whether the file is open or mapped."""
        return self.open_files > 0 or bool(self.i_mmap)

    def put(self) -> None:
        """iput: with the last user, the pages are dropped."""
        if not self.in_use:
            for page in list(self.pages.values()):
                self.delete_page(page)
            self.shadows.clear()
            self.store.close()

    def change_since(self, before: Look | None) -> Change:
        """What others did to the store since a check, if it can tell."""
        look = self.store.look()
        return Change.NONE if look is None or before is None else look.since(before)

    def follow_changes(self) -> None:
        """Before a read: checks whether somebody else has changed the store."""
        if self.store.look() != self.seen:
            self.revalidate()

    def revalidate(self, *, drop: bool = False) -> None:
        """Follows what somebody else did to the store: if it was rewritten, no page is valid any more."""
        look = self.store.look()
        if drop or self.change_since(self.seen) in (Change.TOUCHED, Change.WRITTEN):
            self.counters["invalidated"] += len(self.pages)
            for page in list(self.pages.values()):
                page.unmap()
                self.delete_page(page)
            self.shadows.clear()
            self.epoch += 1
        self.seen = look
        if look is not None:
            self.follow_size(look.size)

    def follow_size(self, size: int) -> None:
        """Somebody else changed the size: after the old end, a partial page no longer holds zeros."""
        partial = self.pages.get(self.i_size // PAGE_SIZE)
        if size > self.i_size and self.i_size % PAGE_SIZE and partial is not None:
            partial.unmap()
            self.delete_page(partial)
        if size != self.i_size:
            self.set_size(size)

    def set_size(self, size: int) -> None:
        """truncate_setsize: first the size, then the entries, private copies included, then the pages."""
        before, self.i_size = self.i_size, size
        if size >= before:
            return
        for vma in self.i_mmap:
            first = vma.first_page + max(0, self.max_off - vma.pgoff)
            vma.page_table.zap(first, vma.end_page)
        for page in [page for page in self.pages.values() if page.index >= self.max_off]:
            self.delete_page(page)
        self.shadows = {index: age for index, age in self.shadows.items() if index < self.max_off}

        # A page that is cut in two is zeroed past the end, where a later extension will show it.
        # A pinned page keeps its bytes instead, and leaves the file.
        partial, tail = self.pages.get(size // PAGE_SIZE), size % PAGE_SIZE
        if partial is not None and tail and partial.pins:
            partial.unmap()
            self.delete_page(partial)
        elif partial is not None and tail:
            partial.data[tail:] = bytes(PAGE_SIZE - tail)
