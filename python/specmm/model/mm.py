"""An address space, as users see it (mmap.c, mprotect.c, madvise.c)."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .arguments import byte_count, choice, flag, natural, natural_or_none, page_aligned
from .errors import BusError, ClosedError, OutOfFramesError, SegmentationError
from .fault import FaultHandler
from .outcomes import EVENTS, FaultOutcome, TouchReport, VmFault
from .page import PAGE_SHIFT, PAGE_SIZE, pages_for
from .page_table import ADDRESS_SPACE_END, LEAF, Entry, PageTable
from .vma import Vma, VmaList, VmFlags

if TYPE_CHECKING:
    from .cache import PageCache
    from .file import File


class Mm:
    """struct mm_struct: mappings, page table, events."""

    def __init__(
        self, cache: PageCache, *, locking: str = "speculative", fault_around: int | str = "64KiB"
    ) -> None:
        around = byte_count("fault_around", fault_around)
        cache.check_open()
        self.locking = choice("locking", locking, ("mmap_lock", "speculative"))
        if not PAGE_SIZE <= around <= PAGE_SIZE << LEAF or around & (around - 1):
            raise ValueError(f"fault_around {around} is not a power of two from 4 KiB to 2 MiB")
        self.cache = cache
        self.closed = False
        self.vmas = VmaList()
        self.page_table = PageTable(cache.frames)
        self.events: Counter[str] = Counter()
        self.faults = FaultHandler(
            self.vmas, self.page_table, self.events, locking == "speculative", around // PAGE_SIZE
        )
        cache.mms.append(self)

    # --- mappings: each call takes the mmap lock once, as soon as its arguments are valid

    def mmap(
        self, file: File, length: int | None = None, offset: int = 0, *, prot: str = "r", shared: bool = True
    ) -> int:
        """Maps the file at the lowest address that has room. The range may exceed the file."""
        length, offset = natural_or_none("length", length), natural("offset", offset)
        shared = flag("shared", shared)
        file.check_open()
        self.check_open()
        choice("prot", prot, ("r", "rw"))
        if file.cache is not self.cache:
            raise ValueError(f"{file.name!r} belongs to another cache")
        page_aligned("offset", offset)
        if length is None:
            length = file.size - offset
            if length <= 0:
                raise ValueError(f"offset {offset} is at or after the end of the file, {file.size}")
        _, length = page_range(0, length)
        if prot == "rw" and shared:
            raise io.UnsupportedOperation("a shared mapping cannot be writable yet")

        self.events["mmap_lock_write"] += 1
        start = self.vmas.unmapped_area(length)
        flags = VmFlags(write=prot == "rw", shared=shared)
        vma = Vma(start, start + length, offset >> PAGE_SHIFT, file, flags, self.page_table)
        self.vmas.add(vma)
        self.vmas.merge(vma.start, vma.end)
        return start

    def munmap(self, addr: int, length: int) -> None:
        """Unmaps whatever is mapped in the range, which must not be empty."""
        addr, length = natural("addr", addr), natural("length", length)
        self.check_open()
        start, end = page_range(addr, length)
        self.events["mmap_lock_write"] += 1
        if not self.vmas.overlapping(start, end):
            raise ValueError(f"nothing is mapped in {start:#x}..{end:#x}")
        doomed = self.vmas.split_out(start, end)
        for vma in doomed:
            self.vmas.remove(vma)
        self.page_table.zap(start >> PAGE_SHIFT, end >> PAGE_SHIFT)
        for mapping in {vma.file.f_mapping for vma in doomed}:
            mapping.put()

    def mprotect(self, addr: int, length: int, prot: str) -> None:
        """Allows or forbids writing. Read-only entries stay read-only until a write faults."""
        addr, length = natural("addr", addr), natural("length", length)
        self.check_open()
        write = choice("prot", prot, ("r", "rw")) == "rw"
        start, end = page_range(addr, length)
        self.events["mmap_lock_write"] += 1
        if write and any(vma.flags.shared for vma in self.vmas.covering(start, end)):
            raise io.UnsupportedOperation("a shared mapping cannot be writable yet")
        self.change_flags(start, end, write=write)
        if not write:
            self.page_table.write_protect(start >> PAGE_SHIFT, end >> PAGE_SHIFT)

    def madvise(self, addr: int, length: int, advice: str) -> None:
        """How the range will be accessed, or that its pages are not needed now."""
        addr, length = natural("addr", addr), natural("length", length)
        self.check_open()
        choice("advice", advice, ("normal", "random", "sequential", "dontneed", "willneed"))
        start, end = page_range(addr, length)
        if advice == "dontneed":
            self.events["mmap_lock_read"] += 1
            self.vmas.covering(start, end)
            self.page_table.zap(start >> PAGE_SHIFT, end >> PAGE_SHIFT)
        elif advice == "willneed":
            self.will_need(start, end)
        else:
            self.events["mmap_lock_write"] += 1
            self.change_flags(start, end, rand_read=advice == "random", seq_read=advice == "sequential")

    def will_need(self, start: int, end: int) -> None:
        """madvise_willneed: reads what is mapped, across holes, and only then reports the holes."""
        at = start
        for vma in self.vmas.overlapping(start, end):
            self.events["mmap_lock_read"] += 1  # which is dropped to read
            first, last = max(vma.start, start) >> PAGE_SHIFT, (min(vma.end, end) >> PAGE_SHIFT) - 1
            vma.file.f_ra.will_need(vma.index(first), vma.index(last) + 1)
            at = min(vma.end, end)
        self.events["mmap_lock_read"] += at < end  # to see that nothing follows
        self.vmas.covering(start, end)

    def change_flags(self, start: int, end: int, **changes: bool) -> None:
        """mprotect_fixup and madvise_behavior: split, change, merge. A hole raises before any of it."""
        self.vmas.covering(start, end)
        for vma in self.vmas.split_out(start, end):
            vma.flags = replace(vma.flags, **changes)
        self.vmas.merge(start, end)

    # --- access

    def load(self, addr: int, n: int) -> bytes:
        """Reads as a program would."""
        addr, n = natural("addr", addr), natural("n", n)
        self.check_open()
        data = bytearray()
        for address, length in pieces(addr, n):
            entry, _ = self.access(address, write=False)
            at = address % PAGE_SIZE
            data += entry.page.data[at : at + length]
        return bytes(data)

    def store(self, addr: int, data: bytes) -> None:
        """Writes as a program would: pages written before a fault that fails stay written."""
        addr, rest = natural("addr", addr), memoryview(data).cast("B")
        self.check_open()
        for address, length in pieces(addr, len(rest)):
            entry, _ = self.access(address, write=True)
            at = address % PAGE_SIZE
            entry.page.data[at : at + length] = rest[:length]
            rest = rest[length:]

    def touch(self, addr: int, length: int, *, stride: int = PAGE_SIZE, write: bool = False) -> TouchReport:
        """Accesses one byte every `stride` bytes. A write stores the byte that is already there."""
        addr, length, stride = natural("addr", addr), natural("length", length), natural("stride", stride)
        write = flag("write", write)
        self.check_open()
        if stride == 0:
            raise ValueError("stride is 0")
        within_address_space(addr, length, addr + length)
        addresses = range(addr, addr + length, stride)
        faults = [outcome for each in addresses for outcome in self.access(each, write=write)[1]]
        return TouchReport(
            len(addresses),
            len(faults),
            sum(outcome.major for outcome in faults),
            sum(outcome.abort is not None for outcome in faults),
        )

    def access(self, address: int, *, write: bool) -> tuple[Entry, list[FaultOutcome]]:
        """The entry that allows the access, and the faults it took, which may be none."""
        outcomes: list[FaultOutcome] = []
        while True:
            entry = self.page_table.get(address >> PAGE_SHIFT)
            if entry is not None and (entry.writable or not write):
                entry.accessed = True
                return entry, outcomes
            outcome, error = self.faults.handle(address, write=write)
            self.judge(address, outcome.result, error, write=write)
            outcomes.append(outcome)

    def judge(self, address: int, result: VmFault, error: OSError | None, *, write: bool) -> None:
        """The exception for a fault that failed."""
        if result & VmFault.SIGSEGV:
            raise SegmentationError(
                f"{address:#x} is not mapped, or not for {'writing' if write else 'reading'}"
            )
        if result & VmFault.OOM:
            raise OutOfFramesError(f"no frame of {self.cache.frames.capacity}, or no private one")
        if result & VmFault.SIGBUS:
            (vma,) = self.vmas.covering(address, address + 1)
            index = vma.index(address >> PAGE_SHIFT)
            offset = index * PAGE_SIZE + address % PAGE_SIZE
            raise BusError(index, offset, vma.file.f_mapping.i_size) from error

    def fault(self, addr: int, *, write: bool = False) -> FaultOutcome:
        """One fault; failures are in its result."""
        addr, write = natural("addr", addr), flag("write", write)
        self.check_open()
        outcome, _ = self.faults.handle(addr, write=write)
        return outcome

    # --- inspection

    def pagemap(self, addr: int, length: int) -> bytes:
        """One byte per page: 1 present, 2 writable, 4 private copy."""
        addr, length = natural("addr", addr), natural("length", length)
        self.check_open()
        page_aligned("addr", addr)
        within_address_space(addr, length, addr + length)
        first, end = addr >> PAGE_SHIFT, pages_for(addr + length)
        shown = bytearray(end - first)
        for number, entry in self.page_table.present(first, end):
            shown[number - first] = 1 | entry.writable << 1 | entry.page.private << 2
        return bytes(shown)

    def vm_events(self) -> dict[str, int]:
        """All events, zeros included."""
        return {event: self.events[event] for event in EVENTS}

    # --- the end

    def close(self) -> None:
        """exit_mmap."""
        if not self.closed:
            for vma in list(self.vmas):
                self.munmap(vma.start, vma.end - vma.start)
            self.cache.mms.remove(self)
            self.closed = True

    def check_open(self) -> None:
        """Every call except `close` and `vm_events` needs the address space open."""
        if self.closed:
            raise ClosedError("the address space is closed")
        self.cache.check_open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def page_range(addr: int, length: int) -> tuple[int, int]:
    """The page-aligned range; ValueError if it is none."""
    page_aligned("addr", addr)
    if length == 0:
        raise ValueError("length is 0")
    end = addr + pages_for(length) * PAGE_SIZE
    within_address_space(addr, length, end)
    return addr, end


def within_address_space(addr: int, length: int, end: int) -> None:
    """Raises ValueError for a range that leaves the address space."""
    if end > ADDRESS_SPACE_END:
        raise ValueError(f"{length} bytes at {addr:#x} leave the address space of {ADDRESS_SPACE_END:#x}")


def pieces(addr: int, n: int) -> Iterator[tuple[int, int]]:
    """The parts of a range that lie in one page each."""
    end = addr + n
    within_address_space(addr, n, end)
    while addr < end:
        length = min(PAGE_SIZE - addr % PAGE_SIZE, end - addr)
        yield addr, length
        addr += length
