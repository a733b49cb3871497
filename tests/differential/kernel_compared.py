"""The same program run by specmm, or what stands in for it, and by the running kernel, step by step."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from differential.kernel_rules import PAGE, KernelFile, KernelMm
from specmm import model

PAGES = 4096
END = PAGES * PAGE - 1000  # of the file, whose last page is not whole
BASE = 0x10000  # where mappings begin
APART = "set apart:"


def runs(residency: bytes) -> list[tuple[int, int]]:
    """First page and length of each stretch that is there."""
    found, at = [], 0
    for there, pages in itertools.groupby(residency):
        length = sum(1 for _ in pages)
        if there:
            found.append((at, length))
        at += length
    return found


def same(step: object, subject: bytes, kernel: bytes) -> None:
    """Both show the same pages, in the same way."""
    if subject != kernel:
        raise AssertionError(f"{step}: subject, kernel: {runs(subject)}, {runs(kernel)}")


def again(run: Callable[[], object]) -> None:
    """Runs a comparison, and what differs a few times more: the kernel drops pages for reasons of its own."""
    for _ in range(3):
        with contextlib.suppress(AssertionError):
            run()
            return
    run()


# --- which pages a read, or advice, brings

READS = st.tuples(
    st.just("pread"),
    st.one_of(st.integers(0, 40), st.integers(0, PAGES - 1), st.integers(PAGES - 30, PAGES - 1)),
    st.sampled_from([0, 0, 0, 1, 100, PAGE - 1]),
    st.one_of(
        st.sampled_from([1, 100, PAGE, PAGE, PAGE]), st.integers(1, 20).map(lambda pages: pages * PAGE)
    ),
)
# From where the last read ended, or this many pages further.
READS_ON = st.tuples(
    st.just("on"),
    st.sampled_from([0, 0, 0, 1, 1, 2, 3, 4, 8, -1]),
    st.just(0),
    st.sampled_from([1, 1000, PAGE, PAGE, 2 * PAGE, 5 * PAGE]),
)
# Page by page, on to the markers.
SCANS = st.tuples(st.just("scan"), st.integers(2, 9), st.just(0), st.just(PAGE))
ADVICE = st.tuples(
    st.sampled_from(["willneed", "willneed", "dontneed", "random", "normal", "sequential"]),
    st.one_of(st.integers(0, 60), st.integers(0, PAGES + 5)),
    st.sampled_from([0, 0, 1, 100, PAGE - 1]),
    st.one_of(
        st.integers(1, 20 * PAGE), st.sampled_from([0, PAGE, 257 * PAGE, 3000 * PAGE, PAGES * PAGE, 1 << 40])
    ),
)
# A page of a mapping of the whole file, whose misses read around it; or how that is used.
TOUCHES = st.tuples(
    st.sampled_from(["touch", "touch", "touch", "touch", "mapped"]),
    st.one_of(st.integers(0, 40), st.integers(0, PAGES - 1), st.integers(PAGES - 30, PAGES - 1)),
    st.just(0),
    st.just(1),
)
STEPS = st.lists(st.one_of(READS, READS_ON, SCANS, READS, ADVICE, TOUCHES), min_size=10, max_size=30)
Step = tuple[str, int, int, int]


class Readers:
    """The same open file thrice: the kernel's, specmm's, and the model's, which shows its markers."""

    def __init__(self, kernel: KernelFile, twin: Path, subject: Any, stack: contextlib.ExitStack) -> None:
        kernel.reopen()
        self.kernel = kernel
        frames = max(8 * kernel.ra_pages, 2 * PAGES)
        caches = [
            stack.enter_context(each.PageCache(frames * PAGE, io="inline")) for each in (subject, model)
        ]
        self.subject, self.model = (
            stack.enter_context(cache.open(twin, ra_pages=kernel.ra_pages)) for cache in caches
        )
        self.kernel_mm = stack.enter_context(contextlib.closing(KernelMm()))
        self.kernel_mm.mmap(kernel, BASE, PAGES * PAGE, 0, prot="r", shared=True)
        self.mms = [
            stack.enter_context(each.Mm(cache)) for each, cache in zip((subject, model), caches, strict=True)
        ]
        for mm, file in zip(self.mms, (self.subject, self.model), strict=True):
            assert mm.mmap(file, PAGES * PAGE) == BASE
        self.pattern = "normal"  # of the mapping
        self.order = 0  # of the folios of the window, in kernels that have them
        self.largest = 0  # of those
        self.is_over = False
        self.at = -1  # after the last read: the kernel's prev_pos, which hits move too
        self.done: Counter[str] = Counter()

    def run(self, step: Step) -> None:
        what, page, byte, n = step
        offset = page * PAGE + byte
        if self.is_over:
            return
        if what == "scan":
            for _ in range(page):
                self.run(("on", 0, 0, n))
            return
        if what == "on":
            what, offset = "pread", max(0, max(self.at, 0) + offset)
        if what == "mapped":
            self.pattern = ("normal", "random", "sequential")[page % 3]
            self.madvise(self.pattern)
            return
        if what == "pread":
            reason = self.apart(offset, n, as_it_is=self.model.f_ra.mode_random)
        elif what == "touch":
            # Only those of a sequential mapping look at the state. None moves the position.
            reason = self.apart(offset, 1, as_it_is=self.pattern != "sequential")
        else:
            reason = self.apart_advice(what, offset, n)
        if reason is not None:
            self.done[f"{APART} {reason}"] += 1
            return
        if what in ("pread", "touch") and not self.foresee(what, offset, n):
            self.done[f"{APART} a window after a marker ends with a folio of a size that grows"] += 1
            self.is_over = True
            return
        if what == "pread":
            data = os.pread(self.kernel.fd, n, offset)
            assert self.subject.pread(n, offset) == data, step
            if data:
                self.at = offset + len(data)
        elif what == "touch":
            self.kernel_mm.touch(BASE + offset, write=False)
            self.mms[0].load(BASE + offset, 1)
            # What else is mapped by now depends on when its read ended; and what is mapped cannot be dropped.
            self.madvise("dontneed")
        else:
            self.kernel.settle()
            self.kernel.advise(what, offset, n)
            for file in (self.subject, self.model):
                file.advise(what, offset, n or None)
        self.done[what] += 1
        same(step, self.subject.residency(), self.kernel.residency())

    def foresee(self, what: str, offset: int, n: int) -> bool:
        """The step as the model does it. Whether the kernel's window, of folios, ends where it does."""
        before, page = self.window(), self.model.f_mapping.pages.get(offset // PAGE)
        was_marked = page is not None and page.readahead
        if what == "pread":
            self.model.pread(n, offset)
        else:
            self.mms[1].load(BASE + offset, 1)
        if before == self.window():
            return True
        self.done["windows"] += 1
        self.done["windows after a marker"] += was_marked
        # Each of these has folios four times as large as the one before (6.16).
        self.order = self.order + 2 if was_marked else 0
        self.largest = max(self.largest, self.order)
        start, size, _ = self.window()
        return start % (1 << self.order) == (start + size) % (1 << self.order) == 0

    def window(self) -> tuple[int, int, int]:
        return self.model.f_ra.start, self.model.f_ra.size, self.model.f_ra.async_size

    def madvise(self, advice: str) -> None:
        for mm in (self.kernel_mm, *self.mms):
            mm.madvise(BASE, PAGES * PAGE, advice)

    def apart(self, offset: int, n: int, *, as_it_is: bool) -> str | None:
        """Why a read is not compared, if it is not. `as_it_is`: its misses do not ask the state; marks do."""
        state, pages = self.model.f_ra, self.model.f_mapping.pages
        first, last = offset // PAGE, min(offset + n - 1, END - 1) // PAGE
        marked = [index for index in range(first, last + 1) if index in pages and pages[index].readahead]
        missing = [index for index in range(first, last + 1) if index not in pages]
        behind = range(max(0, first + 1 - (1 << self.largest)), first)
        if any(index in pages and pages[index].readahead for index in behind):
            return "a marker is that of its whole folio"
        if marked and first != last:
            return "later kernels look at the marker of the last page of a batch alone"
        if marked and state.size > state.ra_pages:
            return "a window of later kernels does not shrink when the largest does"
        if marked and first == state.start + state.size != state.start + state.size - state.async_size:
            return "later kernels expect no marker after the window"
        if marked and all(index in pages for index in range(first + 1, first + 1 + state.ra_pages)):
            return "there is no hole to go on from"
        if missing and missing[0] > first and not as_it_is:
            return "what a read has read already does not count for its own rest in later kernels"
        expected = (state.start + state.size - state.async_size, state.start + state.size)
        # Where the next page is missing, or since where none is, decides what is read.
        searches = (marked and first not in expected) or (missing and first - 1 in pages)
        if searches and self.largest and (marked or not as_it_is):
            return "a search for a hole over folios of several pages ends elsewhere"
        if missing and first > 0 and first in expected and not as_it_is:
            return "a miss where the next window was expected is any miss to later kernels"
        ours, theirs = ((first - (at // PAGE)) in (0, 1) for at in (state.prev_pos, self.at))
        if missing and first > 0 and ours != theirs and not as_it_is:
            return "hits do not move prev_pos here"
        return None

    def apart_advice(self, advice: str, offset: int, n: int) -> str | None:
        """The same for advice."""
        if advice == "dontneed" and END < offset + n < PAGES * PAGE:
            return "a range that ends after the file has its last page here"
        if advice == "dontneed" and self.largest:
            return "of a folio that is needed in part nothing is dropped"
        most = [max(each, self.model.f_ra.ra_pages) for each in (256, self.kernel.io_pages)]
        if advice == "willneed" and most[0] != most[1] and (n == 0 or n > min(most) * PAGE):
            return "this device's largest request is not the one of 1 MiB"
        return None


# --- which entries a fault sets, and what advice for mappings reads

MIDDLE = st.integers(0, 60)
LAST = st.integers(PAGES - 40, PAGES - 1)
PIECES = st.lists(
    st.tuples(
        st.sampled_from([("r", True), ("r", True), ("r", False), ("rw", False), None, None]),
        # The first leaf table ends 496 pages after where mappings begin.
        st.one_of(st.integers(1, 20), st.integers(1, 70), st.integers(470, 500)),
        st.one_of(MIDDLE, MIDDLE, LAST),
    ),
    min_size=1,
    max_size=6,
)
RESIDENT = st.lists(
    st.tuples(st.one_of(MIDDLE, st.integers(0, 600), LAST), st.integers(1, 60)), min_size=1, max_size=8
)
PLACE = st.tuples(st.integers(0, 5), st.one_of(st.integers(0, 20), st.integers(0, 500)))
ACCESSES = st.lists(
    st.tuples(
        st.sampled_from(["load", "load", "load", "load", "store", "dontneed", "willneed", "mprotect"]),
        PLACE,
        st.integers(1, 100),
    ),
    min_size=5,
    max_size=30,
)


class Mappings:
    """The same mappings twice, in which a miss reads one page: what a window brings is compared above."""

    def __init__(
        self,
        kernel: KernelFile,
        twin: Path,
        subject: Any,
        pieces: list[Any],
        locking: str,
        stack: contextlib.ExitStack,
    ) -> None:
        kernel.reopen()
        self.kernel, self.kernel_mm = kernel, stack.enter_context(contextlib.closing(KernelMm()))
        cache = stack.enter_context(subject.PageCache(2 * PAGES * PAGE, io="inline"))
        self.file = stack.enter_context(cache.open(twin, ra_pages=kernel.ra_pages))
        self.mm = stack.enter_context(subject.Mm(cache, locking=locking))
        self.pieces: list[tuple[int, int, int, str]] = []  # address, pages, page of the file, prot
        self.done: Counter[str] = Counter()
        holes = []
        for kind, pages, index in pieces:
            prot, shared = kind or ("r", True)
            addr = self.mm.mmap(self.file, pages * PAGE, index * PAGE, prot=prot, shared=shared)
            if kind is None:
                holes.append((addr, pages * PAGE))
            else:
                self.kernel_mm.mmap(kernel, addr, pages * PAGE, index * PAGE, prot=prot, shared=shared)
                self.pieces.append((addr, pages, index, prot))
        self.top = addr + pages * PAGE
        for hole in holes:
            self.mm.munmap(*hole)
            self.kernel_mm.munmap(*hole)
        for addr, pages, _, _ in self.pieces:
            self.madvise(addr, pages * PAGE, "random")

    def read(self, resident: list[tuple[int, int]]) -> None:
        for first, count in resident:
            self.kernel.advise("willneed", first * PAGE, count * PAGE)
            self.file.advise("willneed", first * PAGE, count * PAGE)
        self.kernel.settle()

    def madvise(self, addr: int, length: int, advice: str) -> None:
        if self.kernel_mm.madvise(addr, length, advice):
            self.mm.madvise(addr, length, advice)
            self.done[advice] += 1
        elif advice == "willneed":
            with contextlib.suppress(ValueError):
                self.mm.madvise(addr, length, advice)
                raise AssertionError(f"no hole in {length} bytes at {addr:#x}")
            self.done["willneed over a hole"] += 1
        else:
            raise AssertionError(f"{advice} of {length} bytes at {addr:#x} is refused")

    def run(self, step: tuple[str, tuple[int, int], int]) -> None:
        what, (which, page), pages = step
        start, length, index, prot = self.pieces[which % len(self.pieces)]
        page %= length
        addr = start + page * PAGE
        before = self.mm.pagemap(BASE, self.top - BASE)
        match what:
            case "load" | "store":
                write = what == "store" and prot == "rw"
                if index + page >= PAGES:
                    return  # SIGBUS
                self.kernel_mm.touch(addr, write=write)
                self.mm.touch(addr, 1, write=write)
            case "mprotect":
                if prot == "rw" or before.count(0) != len(before):
                    return  # once there are private copies, mappings merge by a rule of their own
                pages = min(pages, length - page)
                self.kernel_mm.mprotect(addr, pages * PAGE, "r")
                self.mm.mprotect(addr, pages * PAGE, "r")
            case "dontneed":
                self.madvise(addr, min(pages, length - page) * PAGE, what)
            case "willneed":
                self.madvise(addr, pages * PAGE, what)
        self.kernel.settle()
        self.done[what] += 1
        mapped = bytes(bits & 5 for bits in self.mm.pagemap(BASE, self.top - BASE))
        kernel = self.kernel_mm.mapped(BASE, self.top - BASE)
        self.done["around"] += len(mapped) - mapped.count(0) - (len(before) - before.count(0)) > 1
        same(step, mapped, kernel)
        same(step, self.file.residency(), self.kernel.residency())
