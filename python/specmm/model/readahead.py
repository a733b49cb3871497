"""Which pages to read before they are asked for (readahead.c, and the mmap half of it from filemap.c)."""

from __future__ import annotations

from .address_space import AddressSpace
from .outcomes import ReadaheadState
from .page import PAGE_SHIFT, Page

IO_PAGES = 256  # bdi->io_pages: the largest single read worth asking for
PIECE = 256  # pages that one call reads at most
MMAP_LOTSAMISS = 100  # above this many misses more than hits, a mapped file is being accessed at random
MMAP_MISS_CAP = 10 * MMAP_LOTSAMISS


def get_init_ra_size(size: int, most: int) -> int:
    """The first window for a request of `size` pages."""
    rounded = 1 << (size - 1).bit_length()
    if rounded <= most // 32:
        return rounded * 4
    if rounded <= most // 4:
        return rounded * 2
    return most


def get_next_ra_size(current: int, most: int) -> int:
    """The window after one of `current` pages."""
    if current < most // 16:
        return 4 * current
    if current <= most // 2:
        return 2 * current
    return most


class Readahead:
    """struct file_ra_state: one for each open file."""

    def __init__(self, mapping: AddressSpace, ra_pages: int) -> None:
        self.mapping = mapping
        self.start = 0
        self.size = 0
        self.async_size = 0
        self.asked_pages = ra_pages
        self.mmap_miss = 0
        self.prev_pos = -1
        self.mode_random = False  # FMODE_RANDOM, which posix_fadvise sets

    @property
    def ra_pages(self) -> int:
        """The largest window: as requested, but no more than a quarter of the cache."""
        return min(self.asked_pages, self.mapping.frames.capacity // 4)

    @property
    def io_pages(self) -> int:
        """The largest number of pages a large read may request at once."""
        return min(IO_PAGES, self.mapping.frames.capacity // 4)

    def state(self) -> ReadaheadState:
        """The state as users see it."""
        return ReadaheadState(
            self.start, self.size, self.async_size, self.ra_pages, self.mmap_miss, self.prev_pos
        )

    # --- a mapped file (filemap.c)

    def do_sync_mmap_readahead(self, index: int, *, rand: bool, seq: bool, tried: bool) -> bool:
        """The page is not in the cache. True if pages should be read, for which the lock is dropped."""
        if rand or self.ra_pages == 0:
            return False
        if seq:
            self.look_without_the_lock(tried=tried)
            self.page_cache_sync_ra(index, self.ra_pages)
            return True

        # A fault is one miss, however many passes it takes.
        if not tried and self.mmap_miss < MMAP_MISS_CAP:
            self.mmap_miss += 1
        if self.mmap_miss > MMAP_LOTSAMISS:
            return False

        self.look_without_the_lock(tried=tried)
        # mmap read-around: as much before the page as after it.
        self.start = max(0, index - self.ra_pages // 2)
        self.size = self.ra_pages
        self.async_size = self.ra_pages // 4
        self.do_page_cache_ra(self.start, self.size, self.async_size)
        return True

    def do_async_mmap_readahead(self, page: Page, *, rand: bool) -> bool:
        """The page is cached. True if it carried the marker, for which the mmap lock is dropped."""
        if rand or self.ra_pages == 0 or not page.readahead:
            return False
        self.look_without_the_lock(tried=False)
        if page.mapping is not None:
            self.page_cache_async_ra(page, self.ra_pages)
        return True

    def look_without_the_lock(self, *, tried: bool) -> None:
        """Checks whether others have changed the file; a second pass keeps its lock and does not check."""
        if not tried:
            self.mapping.follow_changes()

    def credit(self, entries: int, *, rand: bool) -> None:
        """A fault without a miss has set this many entries: each is a hit, counted once."""
        if not rand and self.ra_pages:
            self.mmap_miss = max(0, self.mmap_miss - entries)

    # --- entries of the state machine (readahead.c)

    def page_cache_sync_ra(self, index: int, req: int) -> None:
        """`index` is not in the cache, and `req` pages from it on are wanted."""
        if self.ra_pages == 0:
            return
        if self.mode_random:
            self.force_page_cache_ra(index, req)
        else:
            self.ondemand_readahead(index, req, hit=False)

    def page_cache_async_ra(self, page: Page, req: int) -> None:
        """`page` carries the marker: the reader has come near the end of what was read ahead."""
        if self.ra_pages == 0:
            return
        page.readahead = False
        page.held += 1
        self.ondemand_readahead(page.index, req, hit=True)
        page.held -= 1

    def force_page_cache_ra(self, index: int, req: int) -> None:
        """Reads just these pages: no marker, and the state does not change."""
        self.do_page_cache_ra(index, min(req, max(self.io_pages, self.ra_pages, 1)), 0)

    def will_need(self, first: int, end: int) -> None:
        """Pages [first, end), up to the limit of one call and half the cache."""
        most = min(max(IO_PAGES, self.ra_pages), max(self.mapping.frames.capacity // 2, 1))
        end = min(end, first + most)
        for index in range(first, end, max(self.io_pages, self.ra_pages, 1)):
            self.force_page_cache_ra(index, end - index)

    def ondemand_readahead(self, index: int, req: int, *, hit: bool) -> None:
        """Chooses the window from the state, the marker, the last position, or the cached pages."""
        most = self.ra_pages
        if req > most and most < self.io_pages:
            most = min(req, self.io_pages)

        if index == 0:
            self.initial_readahead(index, req, most)
        elif index in (self.start + self.size - self.async_size, self.start + self.size):
            # As expected: the next window, twice as long.
            self.start += self.size
            self.size = get_next_ra_size(self.size, most)
            self.async_size = self.size
        elif hit:
            # A marker, but not of this state: interleaved readers. Continue where the cached pages end.
            hole = index + 1
            while hole in self.mapping.pages:
                hole += 1
            if hole - index > most:
                return
            self.start = hole
            self.size = get_next_ra_size(hole - index + req, most)
            self.async_size = self.size
        elif req > most or index - (self.prev_pos >> PAGE_SHIFT) in (0, 1):
            self.initial_readahead(index, req, most)
        elif not self.try_context_readahead(index, req, most):
            # A small read somewhere: read as requested, and learn nothing from it.
            self.do_page_cache_ra(index, req, 0)
            return

        # The reader will meet this window's marker at once, so the next one is read together with it.
        if index == self.start and self.size == self.async_size:
            following = get_next_ra_size(self.size, most)
            if self.size + following <= most:
                self.async_size = following
                self.size += following
            else:
                self.size = most
                self.async_size = most // 2
        self.do_page_cache_ra(self.start, self.size, self.async_size)

    def initial_readahead(self, index: int, req: int, most: int) -> None:
        """A first read, or a large one: a new window from here."""
        self.start = index
        self.size = get_init_ra_size(req, most)
        self.async_size = self.size - req if self.size > req else self.size

    def try_context_readahead(self, index: int, req: int, most: int) -> bool:
        """The pages just before are cached: somebody reads sequentially, though not with this state."""
        history = 0
        while history < most and index - 1 - history in self.mapping.pages:
            history += 1
        if history <= req:
            return False
        if history >= index:  # since the beginning of the file
            history *= 2
        self.start = index
        self.size = min(history + req, most)
        self.async_size = 1
        return True

    # --- reading

    def read_again(self, index: int) -> None:
        """Reads again what is left of a failed window; a single page is left to its reader."""
        most = min(self.mapping.again, max(self.io_pages, self.ra_pages))
        run: list[Page] = []
        while len(run) < most:
            page = self.mapping.pages.get(index + len(run))
            if page is None or page.uptodate:
                break
            run.append(page)
        if len(run) > 1:
            self.read_run(run)

    def do_page_cache_ra(self, index: int, nr: int, lookahead: int) -> None:
        """page_cache_ra_unbounded, within the file: adds what is missing, reads each run with one call."""
        nr = min(nr, self.mapping.max_off - index)
        runs: list[list[Page]] = []
        for number in range(nr):
            if index + number in self.mapping.pages:
                continue
            page = self.mapping.add_page(index + number)
            if page is None:
                break
            page.locked = True
            page.readahead = number == nr - lookahead
            if runs and runs[-1][-1].index + 1 == page.index:
                runs[-1].append(page)
            else:
                runs.append([page])
        for run in runs:
            self.read_run(run)

    def read_run(self, run: list[Page]) -> None:
        """Nobody waits for these pages, so errors are not reported; a page that is needed is read again."""
        self.mapping.counters["readahead_pages"] += len(run)
        for first in range(0, len(run), PIECE):
            if self.mapping.read_pages(run[first : first + PIECE]) is not None:
                break
        for page in run:
            page.locked = False
