"""An open file, as users see it (struct file; fadvise.c, truncate.c)."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .address_space import AddressSpace
from .arguments import MAX_BYTES, at_most, choice, flag, natural, natural_or_none
from .errors import BusError, ClosedError
from .filemap import filemap_fault, filemap_fault_speculative, filemap_get_page, filemap_read, is_at_hand
from .outcomes import FilemapFault, ReadaheadState, VmFault
from .page import PAGE_SIZE, Page, pages_for
from .readahead import Readahead
from .store import Store

if TYPE_CHECKING:
    from .cache import PageCache

LONG = 1 << 20  # bytes that are read without a look at what else the program is to do

ADVICE = ("normal", "random", "sequential", "willneed", "dontneed")


class Pinned:
    """Bytes that do not change until they are released."""

    def __init__(self, file: File, page: Page, within: int, length: int) -> None:
        self.file = file
        self.page = page
        self.within = slice(within, within + length)
        self.released = False

    def __bytes__(self) -> bytes:
        return bytes(self.page.data[self.within])

    def release(self) -> None:
        """Ends the pin."""
        if not self.released:
            self.released = True
            self.file.pins.remove(self)
            self.file.f_mapping.frames.unpin(self.page)


class File:
    """One open of a file: its own readahead state, over pages that all opens share."""

    def __init__(
        self, cache: PageCache, mapping: AddressSpace, store: Store, name: str, mode: str, ra_pages: int
    ) -> None:
        self.cache = cache
        self.f_mapping = mapping
        self.f_ra = Readahead(mapping, ra_pages)
        self.open_ra_pages = ra_pages
        self.advice = "normal"
        self.store = store  # what this open may truncate; pages are read through the mapping's
        self.name = name
        self.mode = mode
        self.closed = False
        self.pins: list[Pinned] = []
        mapping.open_files += 1

    @property
    def size(self) -> int:
        """i_size, in bytes."""
        self.check_open()
        return self.f_mapping.i_size

    @property
    def readahead_state(self) -> ReadaheadState:
        """Current state of readahead."""
        self.check_open()
        return self.f_ra.state()

    # --- reading

    def pread(self, n: int, offset: int) -> bytes:
        """Like os.pread: short only at the end of the file."""
        n, offset = natural("n", n), natural("offset", offset)
        self.check_open()
        at_most("offset", offset, MAX_BYTES)
        return self.read(n, offset)

    def read(self, n: int, offset: int) -> bytes:
        """A long read is several, between which a program can be interrupted: readahead sees each alone."""
        self.look_at_the_end(n, offset)
        while True:
            data = self.read_parts(n, offset)
            if data is not None:
                return data

    def read_parts(self, n: int, offset: int) -> bytes | None:
        """One try; None: the file has changed, and everything must be read again."""
        n = min(n, max(0, self.f_mapping.i_size - offset))
        data = b""
        for at in range(0, n, LONG):
            part = filemap_read(self.f_ra, min(LONG, n - at), offset + at)
            if part is None:
                return None
            data += part
        return data

    def look_at_the_end(self, n: int, offset: int) -> None:
        """A read past the known end checks the file first: it may have grown."""
        if n and offset + n > self.f_mapping.i_size:
            self.f_mapping.follow_changes()

    def preadinto(self, buffer: bytearray | memoryview, offset: int) -> int:
        """The same, into a buffer; returns how many bytes."""
        view = memoryview(buffer).cast("B")
        data = self.pread(len(view), offset)
        view[: len(data)] = data
        return len(data)

    def gather(
        self, offsets: Iterable[int], length: int, *, out: bytearray | memoryview | None = None
    ) -> bytearray | memoryview:
        """Many preads, one after the other; BusError with the offset for a range past the end of the file."""
        length = natural("length", length)
        wanted = [natural("offset", offset) for offset in offsets]
        for offset in wanted:
            at_most("offset", offset, MAX_BYTES)
        if len(wanted) * length >> 63:
            raise MemoryError(f"{len(wanted)} reads of {length} bytes")
        self.check_open()
        if out is None and wanted:
            self.look_at_the_end(length, 0)
            if length > self.f_mapping.i_size:
                raise BusError(wanted[0] // PAGE_SIZE, wanted[0], self.f_mapping.i_size)
        result = bytearray(len(wanted) * length) if out is None else out
        view = memoryview(result).cast("B")
        if len(view) != len(wanted) * length:
            raise ValueError(f"out has {len(view)} bytes, not {len(wanted)} * {length}")
        while not self.gather_into(view, wanted, length):
            pass
        return result

    def gather_into(self, view: memoryview, wanted: list[int], length: int) -> bool:
        """One try; False: the file has changed, and everything must be read again."""
        for number, offset in enumerate(wanted):
            self.look_at_the_end(length, offset)
            size = self.f_mapping.i_size
            if length and offset + length > size:
                raise BusError(offset // PAGE_SIZE, offset, size)
            row = self.read_parts(length, offset)
            if row is None:
                return False
            view[number * length :][:length] = row
        return True

    def pin(self, offset: int, length: int) -> Pinned:
        """A snapshot of bytes of one page, whose frame it keeps."""
        offset, length = natural("offset", offset), natural("length", length)
        self.check_open()
        at_most("offset", offset, MAX_BYTES)
        most = PAGE_SIZE - offset % PAGE_SIZE
        if not 1 <= length <= most:
            raise ValueError(f"length {length} at offset {offset} is not 1 to {most}, the rest of the page")
        mapping, index = self.f_mapping, offset // PAGE_SIZE
        self.look_at_the_end(length, offset)
        if offset + length > mapping.i_size:
            raise BusError(index, offset, mapping.i_size)
        if not is_at_hand(mapping.pages.get(index)):
            mapping.follow_changes()
        if offset + length > mapping.i_size:
            raise BusError(index, offset, mapping.i_size)
        try:
            page = filemap_get_page(self.f_ra, index, 1)
        except OSError as error:
            raise BusError(index, offset, mapping.i_size) from error
        mapping.frames.pin(page)
        mapping.vmscan.touch(page)
        pinned = Pinned(self, page, offset % PAGE_SIZE, length)
        self.pins.append(pinned)
        return pinned

    # --- the fault on this file alone

    def filemap_fault(self, index: int, *, speculative: bool = True) -> FilemapFault:
        """One attempt, or passes until the page is there or cannot be. Sets no entry, so gives no credit."""
        index, speculative = natural("index", index), flag("speculative", speculative)
        self.check_open()
        if speculative:
            attempt = filemap_fault_speculative(self.f_ra, index)
            return FilemapFault(attempt.result, attempt.abort)
        rand, seq = self.advice == "random", self.advice == "sequential"
        one = filemap_fault(self.f_ra, index, rand=rand, seq=seq, tried=False)
        major = one.result & VmFault.MAJOR
        while one.result & VmFault.RETRY:
            one = filemap_fault(self.f_ra, index, rand=rand, seq=seq, tried=True)
            major |= one.result & VmFault.MAJOR
        return FilemapFault(one.result | major, None)

    # --- advice, size, residency

    def advise(self, advice: str, offset: int = 0, length: int | None = None) -> None:
        """generic_fadvise: the first three apply to this open and ignore the range."""
        offset, length = natural("offset", offset), natural_or_none("length", length)
        self.check_open()
        if advice == "hugepage":
            raise io.UnsupportedOperation("huge pages do not exist yet")
        choice("advice", advice, ADVICE)
        at_most("offset", offset, MAX_BYTES)
        size = self.f_mapping.i_size
        end = size if length is None else offset + length
        match advice:
            case "willneed":
                self.f_mapping.follow_changes()
                size = self.f_mapping.i_size
                end = size if length is None else offset + length
                if offset < min(end, size):
                    self.f_ra.will_need(offset // PAGE_SIZE, pages_for(min(end, size)))
            case "dontneed":
                # The last page counts as whole if the range reaches the end of the file.
                end_page = pages_for(size) if end >= size else end // PAGE_SIZE
                self.f_mapping.invalidate(pages_for(offset), end_page)
            case _:
                self.advice = advice
                self.f_ra.mode_random = advice == "random"
                if advice != "random":
                    self.f_ra.asked_pages = self.open_ra_pages * (2 if advice == "sequential" else 1)

    def truncate(self, size: int) -> None:
        """ftruncate: the store first; if it refuses, nothing has changed."""
        size = natural("size", size)
        self.check_open()
        if self.mode == "rb":
            raise OSError(errno.EINVAL, "open for reading only", self.name)
        at_most("size", size, MAX_BYTES)
        self.f_mapping.follow_changes()  # what others did before
        self.store.truncate(size)
        self.f_mapping.set_size(size)
        self.f_mapping.seen = self.f_mapping.store.look()

    def revalidate(self, *, drop: bool = False) -> int:
        """Follows what somebody else did to the file, if the store can tell; drops all pages if asked."""
        drop = flag("drop", drop)
        self.check_open()
        self.f_mapping.revalidate(drop=drop)
        return self.f_mapping.i_size

    def residency(self, first: int = 0, count: int | None = None) -> bytes:
        """mincore: one byte per page up to the end of the file, 1 = in the cache and up to date."""
        first, count = natural("first", first), natural_or_none("count", count)
        self.check_open()
        end = self.f_mapping.max_off
        if count is not None:
            end = min(end, first + count)
        found = (self.f_mapping.pages.get(index) for index in range(first, end))
        return bytes(page is not None and page.uptodate for page in found)

    # --- the end

    def close(self) -> None:
        """fput: mappings outlive it."""
        if not self.closed:
            if self.pins:
                raise BufferError(f"{self.name!r} has {len(self.pins)} pins")
            self.closed = True
            self.store.close()
            self.f_mapping.open_files -= 1
            self.f_mapping.put()

    def check_open(self) -> None:
        """Every call except `close`, `name` and `mode` needs the file open."""
        if self.closed:
            raise ClosedError(f"{self.name!r} is closed")
        self.cache.check_open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
