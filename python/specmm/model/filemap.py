"""Reading through the cache, and the file half of a fault (filemap.c)."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import ChangedError, OutOfFramesError
from .outcomes import Abort, VmFault
from .page import PAGE_SIZE, Page, pages_for
from .readahead import Readahead


@dataclass
class Filemap:
    """What filemap_fault leaves in the struct vm_fault."""

    result: VmFault
    page: Page | None = None
    abort: Abort | None = None
    missed: bool = False  # the page was not in the cache
    error: OSError | None = None  # why SIGBUS


def filemap_fault_speculative(ra: Readahead, index: int) -> Filemap:
    """filemap_fault without the mmap lock: only what needs no waiting; the end of file is not judged."""
    page = ra.mapping.pages.get(index)
    if page is None:
        return Filemap(VmFault.RETRY, abort=Abort.FILE_MISS)
    if page.readahead:  # the marker stays for the classic path
        return Filemap(VmFault.RETRY, abort=Abort.FILE_READAHEAD)
    if not page.uptodate:
        return Filemap(VmFault.RETRY, abort=Abort.FILE_NOT_UPTODATE)
    if index >= ra.mapping.max_off:
        return Filemap(VmFault.RETRY, abort=Abort.FILE_EOF)
    return Filemap(VmFault.LOCKED, page)


def filemap_fault(ra: Readahead, index: int, *, rand: bool, seq: bool, tried: bool) -> Filemap:
    """filemap_fault under the mmap lock, which a first pass drops for I/O and then returns RETRY.

    A pass with `tried` drops nothing: it reads where it stands, so it always comes to an end.
    """
    mapping = ra.mapping
    if index >= mapping.max_off:
        return Filemap(VmFault.SIGBUS)

    found = Filemap(VmFault(0), mapping.pages.get(index))
    dropped = False
    if found.page is not None:
        if not tried:
            dropped = ra.do_async_mmap_readahead(found.page, rand=rand)
    else:
        found.missed = True
        found.result = VmFault.MAJOR
        submitted = ra.do_sync_mmap_readahead(index, rand=rand, seq=seq, tried=tried)
        dropped = submitted and not tried
        found.page = mapping.pages.get(index)
        if found.page is None and not dropped:
            found.page = mapping.add_page(index)

    # Nothing waits under the lock, and no file is checked; without the lock, the file is checked first.
    if not tried and not dropped and (found.page is None or not found.page.uptodate):
        dropped = True
        mapping.follow_changes()
    if dropped:
        if index >= mapping.max_off:
            found.result |= VmFault.RETRY
            return found
        found.page = mapping.pages.get(index)
    if found.page is None:
        # Without the lock it may wait for a frame.
        found.page = mapping.add_page_waiting(index)
        dropped = True
    if found.page is None:
        found.result |= VmFault.OOM
        return found

    # page_not_uptodate: this page alone. A first pass only has it read; the next one judges.
    if not found.page.uptodate:
        error = mapping.read_pages([found.page])
        if isinstance(error, ChangedError):
            mapping.follow_changes()
            return Filemap(VmFault.RETRY, missed=found.missed)
        if error is not None and not dropped:
            return Filemap(VmFault.SIGBUS, missed=found.missed, error=error)

    found.result |= VmFault.RETRY if dropped else VmFault.LOCKED
    return found


def filemap_read(ra: Readahead, n: int, offset: int) -> bytes | None:
    """filemap_read: short only at the end of the file, nothing at all when a page cannot be read.

    None: the file was found to have changed.
    """
    mapping = ra.mapping
    end = min(offset + n, mapping.i_size)
    if offset >= end:
        return b""

    epoch = mapping.epoch
    first, last = offset // PAGE_SIZE, pages_for(end) - 1
    hit = all(is_at_hand(mapping.pages.get(index)) for index in range(first, last + 1))
    data = bytearray()
    for index in range(first, last + 1):
        if not is_at_hand(mapping.pages.get(index)):
            mapping.follow_changes()
            if mapping.epoch != epoch:
                return None
        req = last - index + 1
        page = filemap_get_page(ra, index, req)
        data += page.data
        mapping.vmscan.touch(page)
        # A pure hit leaves no trace: it takes no lock and writes nothing that another thread reads.
        if not hit:
            ra.prev_pos = min((index + 1) * PAGE_SIZE, end)
    return bytes(data[offset - first * PAGE_SIZE : end - first * PAGE_SIZE])


def is_at_hand(page: Page | None) -> bool:
    """Whether it can be read without the store."""
    return page is not None and page.uptodate and not page.readahead


def filemap_get_page(ra: Readahead, index: int, req: int) -> Page:
    """The page, up to date; `req` pages from it on are wanted. Nobody may change the file meanwhile."""
    mapping = ra.mapping
    page = mapping.pages.get(index)
    mapping.counters["hits" if page is not None and page.uptodate else "misses"] += 1
    if page is None:
        ra.page_cache_sync_ra(index, req)
        page = mapping.pages.get(index) or mapping.add_page_waiting(index)
    if page is None:
        raise OutOfFramesError(f"all {mapping.frames.capacity} frames are in use")
    if page.readahead:
        ra.page_cache_async_ra(page, req)
    if not page.uptodate:
        ra.read_again(index)
    if not page.uptodate:
        error = mapping.read_pages([page])
        if error is not None:
            raise error
    return page
