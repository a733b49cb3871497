"""specmm and its reference model, side by side: after each call, all that shows is compared.

`FaultPathMachine` is a hypothesis state machine to run as it is or to subclass: `subject` is what is held
against the model (the installed specmm, unless said otherwise), `make_store` makes what is below its files.

    run_state_machine_as_test(FaultPathMachine)

Steps name files and mappings by small numbers, taken modulo what exists, so that any sequence of steps is a
valid program, and a failing one can be made shorter. The model says where the mappings lie.
"""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import precondition

from differential.draws import (
    BAD_PAGES,
    BYTES,
    EXTREME_CALLS,
    FILES,
    INDEXES,
    KINDS,
    LENGTHS,
    LONG,
    MMS,
    PLACES,
    READS,
    SIZES,
    SPANS,
    WRITES,
    Place,
)
from differential.extremes import CALLS, named
from differential.program import ProgramMachine, initialize, rule
from differential.refused import CLOSED, REFUSED
from differential.sides import BASE, PAGE, Difference, PatternStore, Side, content, differences, tell
from specmm import model

# What aborted the speculative faults of the subject, over all runs of all machines in this process.
REACHED: Counter[str] = Counter()
MAPPED = precondition(lambda self: any(mm.vmas.sorted for mm in self.model.mms))


class FaultPathMachine(ProgramMachine):
    """Two files, two address spaces, few frames."""

    subject: ClassVar[Any] = None  # a module or namespace with PageCache and Mm; None: specmm

    def make_store(self, seed: int, size: int) -> Any:
        """The store below a file. Each side gets one of its own; it must log its reads in `reads`."""
        return PatternStore(seed, size)

    # --- set-up

    @initialize(
        frames=st.sampled_from([3, 5, 12, 24, 40, 64, 200, 1, 300, 1100]),
        sizes=st.tuples(SIZES, SIZES),
        ra_pages=st.tuples(*[st.sampled_from([32, 32, 16, 8, 5, 1, 0, 300])] * 2),
        on_disk=st.booleans(),
        lockings=st.sampled_from([("speculative", "mmap_lock"), ("speculative", "speculative")]),
        around=st.tuples(*[st.sampled_from(["4KiB", "64KiB", "16KiB", "4KiB", "2MiB"])] * 2),
        bad_pages=BAD_PAGES,
        first=st.lists(st.tuples(MMS, FILES, LENGTHS, KINDS), min_size=1, max_size=4),
    )
    def set_up(
        self,
        frames: int,
        sizes: tuple[int, int],
        ra_pages: tuple[int, int],
        on_disk: bool,
        lockings: tuple[str, str],
        around: tuple[str, str],
        bad_pages: frozenset[int],
        first: list[tuple[int, int, int, tuple[str, bool]]],
    ) -> None:
        subject = self.subject or importlib.import_module("specmm")
        self.folder = tempfile.mkdtemp()
        self.sides = [
            Side(each, frames, Path(self.folder, name), self.make_store, len(lockings))
            for each, name in ((model, "model"), (subject, "specmm"))
        ]
        self.model = self.sides[0]
        self.seeds = 0
        self.changes = 0  # to the file on disk
        self.top = BASE  # the highest address that was ever mapped
        for mm, (locking, fault_around) in enumerate(zip(lockings, around, strict=True)):
            self.both(lambda side, args=(mm, locking, fault_around): side.new_mm(*args))
        self.open_store(sizes[0], ra_pages[0])
        if on_disk:
            for side in self.sides:
                side.path.write_bytes(content(99, 0, sizes[1]))
            self.both(lambda side: side.open_path("r+b", ra_pages[1]))
        else:
            self.open_store(sizes[1], ra_pages[1])
        self.set_bad_pages(0, bad_pages, "error")
        for mm, file, length, kind in first:
            self.map(mm, file, length, 0, kind)

    def open_store(self, size: int, ra_pages: int) -> None:
        self.seeds += 1
        self.both(lambda side: side.open_store(self.seeds, size, ra_pages))

    def both(self, call: Callable[[Side], object], more: Callable[[Exception], object] | None = None) -> Any:
        """The same call to both. What each answers or raises must be equal, and all that shows afterwards."""
        told = [tell(lambda side=side: call(side), more) for side in self.sides]
        if told[0] != told[1]:
            raise Difference(f"answer: specmm {told[1]!r}, model {told[0]!r}")
        ours, theirs = (side.observe(self.top) for side in self.sides)
        found = differences(theirs, ours)
        if found:
            raise Difference("\n".join(found))
        return told[0]

    def finish(self) -> None:
        if not hasattr(self, "sides"):
            return
        try:
            for side in self.sides[1:]:
                self.count_reclaim(side.cache.stats())
                for mm in side.mms:
                    self.count(mm)
            for side in self.sides:
                side.close()
        finally:
            shutil.rmtree(self.folder)

    def count_reclaim(self, stats: Any) -> None:
        for name in (
            "evictions",
            "dropped",
            "refaults",
            "refaults_activated",
            "activations",
            "deactivations",
        ):
            REACHED[name] += getattr(stats, name)
        REACHED["invalidated"] += stats.invalidated

    def count(self, mm: Any) -> None:
        for event, count in mm.vm_events().items():
            if event.startswith("spf_abort_"):
                REACHED[event.removeprefix("spf_abort_").upper()] += count

    # --- what the small numbers stand for

    def file(self, number: int) -> int:
        """An open file."""
        choices = [index for index, file in enumerate(self.model.files) if not file.closed]
        return choices[number % len(choices)]

    def mm(self, number: int) -> int:
        """An address space that maps something, if one does."""
        return number if self.model.mms[number].vmas.sorted else 1 - number

    def address(self, mm: int, place: Place, *, write: bool = False) -> int:
        """Where the file has bytes, and for a write, where writing is allowed; a stray may lie elsewhere."""
        which, page, byte, stray = place
        vmas = self.model.mms[mm].vmas.sorted
        if not vmas or (stray and which % 2):
            start = vmas[-1].end if vmas else BASE
            return start + (page % 64) * PAGE + byte
        if not stray:
            vmas = [vma for vma in vmas if vma.flags.write or not write] or vmas
        vma = vmas[which % len(vmas)]
        length = vma.end - vma.start
        if not stray:
            length = max(PAGE, min(length, (vma.file.f_mapping.max_off - vma.pgoff) * PAGE))
        return vma.start + (page * PAGE + byte) % length

    def span(self, mm: int, place: Place, length: int) -> tuple[int, int]:
        """A range that begins in a mapping, or if `length` is 0, all that is mapped there in one piece."""
        start = self.address(mm, place) // PAGE * PAGE
        if length:
            return start, length
        mapped = {vma.end: vma.start for vma in self.model.mms[mm].vmas}
        holding = self.model.mms[mm].vmas.find(start)
        if holding is None:
            return start, PAGE
        start, end = holding.start, holding.end
        while start in mapped:
            start = mapped[start]
        starts = {low: high for high, low in mapped.items()}
        while end in starts:
            end = starts[end]
        return start, end - start

    # --- files

    @rule(
        file=FILES, index=INDEXES, byte=BYTES, n=st.sampled_from([1, 10, PAGE, 3 * PAGE, 20 * PAGE + 7, LONG])
    )
    def pread(self, file: int, index: int, byte: int, n: int) -> None:
        at = self.file(file)
        self.both(lambda side: side.files[at].pread(n, index * PAGE + byte))

    @rule(file=FILES, times=st.integers(1, 6), n=st.sampled_from([1000, PAGE, 2 * PAGE, 5 * PAGE, LONG]))
    def pread_on(self, file: int, times: int, n: int) -> None:
        """From where the last read ended."""
        at = self.file(file)
        for _ in range(times):
            offset = max(0, self.model.files[at].readahead_state.prev_pos)
            self.both(lambda side, offset=offset: side.preadinto(at, n, offset))

    @rule(
        file=FILES,
        rows=st.lists(st.tuples(INDEXES, BYTES), max_size=40),
        length=st.sampled_from([8, 1, 100, PAGE, 2 * PAGE + 10, 0, LONG]),
        stray=st.booleans(),
        into=st.booleans(),
    )
    def gather(self, file: int, rows: list[tuple[int, int]], length: int, stray: bool, into: bool) -> None:
        at = self.file(file)
        offsets = [index * PAGE + byte for index, byte in rows]
        if not stray:
            offsets = [each % max(1, self.model.files[at].size - length) for each in offsets]
        self.both(lambda side: side.gather(at, offsets, length, into))

    @precondition(lambda self: len(self.model.pins) < 12)
    @rule(file=FILES, index=INDEXES, byte=BYTES, n=st.sampled_from([1, 8, 100, PAGE - 1, PAGE, PAGE + 1]))
    def pin(self, file: int, index: int, byte: int, n: int) -> None:
        at = self.file(file)
        self.both(lambda side: side.pin(at, index * PAGE + byte, n))

    @precondition(lambda self: self.model.pins)
    @rule(which=st.integers(0, 11), all_others=st.booleans())
    def release(self, which: int, all_others: bool) -> None:
        keep = which % len(self.model.pins)
        for number in range(len(self.model.pins)):
            if (number == keep) != all_others:
                self.both(lambda side, number=number: side.pins[number].release())

    @rule(pages=st.sampled_from([1, 2, 5, 40]))
    def reclaim(self, pages: int) -> None:
        self.both(lambda side: side.cache.reclaim(pages))

    @rule(file=FILES, size=st.one_of(SIZES, st.sampled_from([-PAGE, -100, -1])))
    def truncate(self, file: int, size: int) -> None:
        """To a size, or to so much less."""
        at = self.file(file)
        to = size if size >= 0 else max(0, self.model.files[at].size + size)
        self.both(lambda side: side.files[at].truncate(to))

    @rule(file=FILES, by=st.sampled_from([50, PAGE, 10 * PAGE, 460 * PAGE]))
    def extend(self, file: int, by: int) -> None:
        """Also to more than a leaf table spans, of which all but the beginning is a hole."""
        at = self.file(file)
        to = min(self.model.files[at].size + by, 600 * PAGE)
        self.both(lambda side: side.files[at].truncate(to))

    @rule(
        file=FILES,
        advice=st.sampled_from(["normal", "random", "sequential", "willneed", "willneed", "dontneed"]),
        index=INDEXES,
        byte=BYTES,
        length=st.one_of(st.none(), st.integers(0, 30 * PAGE), st.just(LONG)),
    )
    def advise(self, file: int, advice: str, index: int, byte: int, length: int | None) -> None:
        at = self.file(file)
        self.both(lambda side: side.files[at].advise(advice, index * PAGE + byte, length))

    @rule(file=FILES, index=INDEXES, times=st.integers(1, 4), speculative=st.booleans())
    def filemap_fault(self, file: int, index: int, times: int, speculative: bool) -> None:
        at = self.file(file)
        for number in range(times):
            self.both(lambda side, n=number: side.files[at].filemap_fault(index + n, speculative=speculative))

    @rule(file=FILES, first=INDEXES, count=st.one_of(st.none(), INDEXES))
    def residency(self, file: int, first: int, count: int | None) -> None:
        at = self.file(file)
        self.both(lambda side: side.files[at].residency(first, count))

    @precondition(lambda self: len(self.model.files) < 6)
    @rule(file=FILES, ra_pages=st.sampled_from([32, 4]), mode=st.sampled_from(["rb", "r+b", "r+"]))
    def open_again(self, file: int, ra_pages: int, mode: str) -> None:
        """A file on disk shares its pages with its other opens; of a store this makes one more file."""
        at = file % len(self.model.files)
        if self.model.stores[at] is None:
            self.both(lambda side: side.open_path(mode, ra_pages))
        else:
            self.open_store(self.model.files[at].f_mapping.i_size, ra_pages)

    @precondition(lambda self: sum(not file.closed for file in self.model.files) > 1)
    @rule(file=FILES)
    def close_file(self, file: int) -> None:
        at = self.file(file)
        self.both(lambda side: side.files[at].close())

    @precondition(lambda self: None in self.model.stores)
    @rule(file=FILES, size=SIZES)
    def change_outside(self, file: int, size: int) -> None:
        """Somebody else sets the size of the file on disk; a store has nothing to say about it."""
        at = self.file(file)
        if self.model.stores[at] is None:
            self.others(lambda side: os.truncate(side.path, size))
        self.both(lambda side: side.files[at].revalidate())

    @precondition(lambda self: None in self.model.stores)
    @rule(
        how=st.sampled_from(["rewrite", "append", "rewrite", "append", "cut", "chmod", "restore", "longer"]),
        by=st.sampled_from([1, 100, PAGE, 5 * PAGE + 3]),
    )
    def others_change(self, how: str, by: int) -> None:
        """Somebody else does something to the file on disk and says nothing. Both sides notice alike."""
        self.changes += 1
        seed = 100 + self.changes
        for side in self.sides:
            before = side.path.stat()
            size = before.st_size
            with side.path.open("r+b") as file:
                match how:
                    case "rewrite" | "restore":
                        file.write(content(seed, 0, size))
                    case "append":
                        file.seek(0, os.SEEK_END)
                        file.write(content(seed, size, by))
                    case "longer":  # taken for growth
                        file.write(content(seed, 0, size + by))
                    case "cut":
                        file.truncate(max(0, size - by))
            match how:
                case "chmod":
                    side.path.chmod(0o600 + self.changes % 2 * 0o40)
                case "restore":
                    os.utime(side.path, ns=(before.st_atime_ns, before.st_mtime_ns))
                case _:
                    os.utime(side.path, (self.changes, self.changes))
            # The ctime is the system's, and may not tick between two changes.
            while side.path.stat().st_ctime_ns == before.st_ctime_ns:
                side.path.chmod(0o600)

    def others(self, change: Callable[[Side], object]) -> None:
        """By a clock of our own: the system's may tick between two changes for one side only."""
        self.changes += 1
        for side in self.sides:
            change(side)
            os.utime(side.path, (self.changes, self.changes))

    @precondition(lambda self: None in self.model.stores)
    @rule(file=FILES, drop=st.booleans())
    def revalidate(self, file: int, drop: bool) -> None:
        at = self.file(file)
        self.both(lambda side: side.files[at].revalidate(drop=drop))

    @rule(
        file=FILES,
        pages=BAD_PAGES,
        failure=st.sampled_from(["error", "error", "short", "long", "exception"]),
    )
    def set_bad_pages(self, file: int, pages: frozenset[int], failure: str) -> None:
        """From now on reads of these pages, and no others, fail."""
        at = self.file(file)
        for side in self.sides:
            if side.stores[at] is not None:
                side.stores[at].bad = dict.fromkeys(pages, failure)

    @precondition(lambda self: self.model.cache.frames.in_use * 2 > self.model.cache.frames.capacity)
    @rule()
    def drop_caches(self) -> None:
        self.both(lambda side: side.cache.drop_caches())
        self.both(lambda side: side.cache.settle())

    # --- mappings

    @precondition(lambda self: sum(len(mm.vmas.sorted) for mm in self.model.mms) < 12)
    @rule(
        mm=MMS,
        file=FILES,
        length=st.one_of(LENGTHS, LENGTHS, LENGTHS, st.sampled_from([None, None, 1 << 30])),
        index=st.one_of(st.just(0), st.integers(0, 12)),
        kind=KINDS,
    )
    def mmap(self, mm: int, file: int, length: int | None, index: int, kind: tuple[str, bool]) -> None:
        self.map(mm, file, length, index, kind)

    def map(self, mm: int, file: int, length: int | None, index: int, kind: tuple[str, bool]) -> None:
        at, (prot, shared) = self.file(file), kind
        self.both(
            lambda side: side.mms[mm].mmap(side.files[at], length, index * PAGE, prot=prot, shared=shared)
        )
        self.top = max([self.top, *(vma.end for vma in self.model.mms[mm].vmas)])

    @MAPPED
    @rule(mm=MMS, place=PLACES, length=st.one_of(SPANS, st.just(4 << 20), st.just(2 << 30)))
    def munmap(self, mm: int, place: Place, length: int) -> None:
        mm = self.mm(mm)
        span = self.span(mm, place, length)
        self.both(lambda side: side.mms[mm].munmap(*span))

    @MAPPED
    @rule(mm=MMS, place=PLACES, length=SPANS, prot=st.sampled_from(["r", "rw"]))
    def mprotect(self, mm: int, place: Place, length: int, prot: str) -> None:
        mm = self.mm(mm)
        span = self.span(mm, place, length)
        self.both(lambda side: side.mms[mm].mprotect(*span, prot))

    @MAPPED
    @rule(
        mm=MMS,
        place=PLACES,
        length=SPANS,
        advice=st.sampled_from(
            ["normal", "random", "sequential", "dontneed", "dontneed", "willneed", "willneed"]
        ),
    )
    def madvise(self, mm: int, place: Place, length: int, advice: str) -> None:
        mm = self.mm(mm)
        span = self.span(mm, place, length)
        self.both(lambda side: side.mms[mm].madvise(*span, advice))

    @MAPPED
    @rule(mm=MMS, place=PLACES)
    def unite(self, mm: int, place: Place) -> None:
        """Takes back whatever divided the mappings of a stretch, so that they merge if they can."""
        mm = self.mm(mm)
        span = self.span(mm, place, 0)
        self.both(lambda side: side.mms[mm].madvise(*span, "normal"))
        self.both(lambda side: side.mms[mm].mprotect(*span, "rw"))

    @MAPPED
    @rule(mm=MMS)
    def munmap_everything(self, mm: int) -> None:
        mm = self.mm(mm)
        self.both(lambda side: side.mms[mm].munmap(BASE, self.top - BASE or PAGE))

    @precondition(lambda self: any(mm.events["pgfault"] > 20 for mm in self.model.mms))
    @rule(
        mm=MMS, locking=st.sampled_from(["speculative", "mmap_lock"]), around=st.sampled_from([PAGE, 65536])
    )
    def start_afresh(self, mm: int, locking: str, around: int) -> None:
        """The address space ends, another begins."""
        self.count(self.sides[1].mms[mm])
        self.both(lambda side: side.new_mm(mm, locking, around))

    # --- access

    @MAPPED
    @rule(mm=MMS, program=READS)
    def read(self, mm: int, program: list[tuple[str, Place, int]]) -> None:
        self.run_program(mm, program, write=False)

    @MAPPED
    @rule(mm=MMS, program=WRITES)
    def write(self, mm: int, program: list[tuple[str, Place, int]]) -> None:
        self.run_program(mm, program, write=True)

    def run_program(self, mm: int, program: list[tuple[str, Place, int]], *, write: bool) -> None:
        mm = self.mm(mm)
        for access, place, n in program:
            addr = self.address(mm, place, write=write)
            self.both(lambda side, args=(access, addr, n): self.access(side.mms[mm], *args, write=write))

    def access(self, mm: Any, access: str, addr: int, n: int, *, write: bool) -> object:
        match access:
            case "fault":
                return mm.fault(addr, write=write)
            case "load":
                return mm.load(addr, n)
            case "store":
                return mm.store(addr, content(98, addr, n))
        # More than a page: so many bytes; less: one byte in so many pages.
        return mm.touch(addr, n if n >= PAGE else n * PAGE, stride=PAGE if n < PAGE else 3000, write=write)

    # --- what must be refused, some of it before the lock is counted

    @rule(mm=MMS, file=FILES, what=st.sampled_from(sorted(REFUSED)))
    def refused(self, mm: int, file: int, what: str) -> None:
        at = self.file(file)
        told = self.both(lambda side: REFUSED[what](side, side.mms[mm], side.files[at]))
        # To a file that is open for reading only, no size is right.
        if told[0] not in ("ValueError", "TypeError", "UnsupportedOperation", "OSError"):
            raise Difference(f"{what}: {told!r}")

    @precondition(lambda self: any(file.closed for file in self.model.files))
    @rule(mm=MMS, which=FILES, what=st.sampled_from(sorted(CLOSED)))
    def closed(self, mm: int, which: int, what: str) -> None:
        choices = [index for index, file in enumerate(self.model.files) if file.closed]
        at = choices[which % len(choices)]
        told = self.both(lambda side: CLOSED[what](side.mms[mm], side.files[at]))
        if told[0] != "ClosedError":
            raise Difference(f"{what} of a closed file: {told!r}")


class FaultPlanMachine(FaultPathMachine):
    """The same over stores of which any read may go wrong: the next, the one after, or all from one on."""

    @rule(
        file=FILES,
        ahead=st.integers(1, 6),
        how=st.sampled_from(["error", "short", "interrupted", "slow"]),
        for_ever=st.booleans(),
    )
    def plan_fault(self, file: int, ahead: int, how: str, for_ever: bool) -> None:
        at = self.file(file)
        for side in self.sides:
            if side.stores[at] is not None:
                side.stores[at].plan = (len(side.stores[at].reads) + ahead, how, for_ever)

    @rule(file=FILES)
    def end_of_the_trouble(self, file: int) -> None:
        at = self.file(file)
        for side in self.sides:
            if side.stores[at] is not None:
                side.stores[at].plan = None

    def finish(self) -> None:
        if hasattr(self, "sides"):
            for store in self.sides[1].stores:
                if store is not None:
                    REACHED.update({f"planned {how}": count for how, count in store.fired.items()})
        super().finish()


class ExtremesMachine(FaultPathMachine):
    """The same with calls whose numbers lie at their extremes, in any place, in any state."""

    @rule(mm=MMS, file=FILES, calls=EXTREME_CALLS)
    def extreme(self, mm: int, file: int, calls: list[tuple[str, tuple[str | None, ...]]]) -> None:
        """Some are right."""
        at = self.file(file)
        for what, names in calls:
            call = CALLS[what]
            numbers = call.numbers(names)
            if not call.too_much(*numbers):
                self.both(
                    lambda side, call=call, numbers=numbers: call.call(
                        side, side.mms[mm], side.files[at], *numbers
                    ),
                    lambda error, numbers=numbers: named(error, numbers),
                )
