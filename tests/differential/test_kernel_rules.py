"""specmm and the kernel that runs this test, where both have the same rule; and vectors without a kernel.

specmm's rules are those of Linux 5.12, or departures that its documents name. Where a later kernel has
another, the step is set apart, each with its reason; enough must be left. Wrong models stand in for specmm,
to show that a wrong rule is found.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

import specmm
from differential.kernel_compared import (
    ACCESSES,
    APART,
    END,
    PIECES,
    RESIDENT,
    STEPS,
    Mappings,
    Readers,
    Step,
    again,
    runs,
)
from differential.kernel_rules import PAGE, KernelFile, Unfit
from differential.wrong import copy_of_the_model
from samples import Store
from specmm import model


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the kernel is to read alone."""
    path = tmp_path_factory.mktemp("kernel") / "data.bin"
    path.write_bytes(random.Random(10).randbytes(END))
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return path


@pytest.fixture(scope="module")
def twin(path: Path) -> Path:
    """The same for specmm, which reads it through the kernel."""
    return Path(shutil.copy(path, path.with_name("twin.bin")))


@pytest.fixture(scope="module")
def kernel(path: Path) -> Iterator[KernelFile]:
    try:
        file = KernelFile(path)
        _ = file.io_pages
    except Unfit as reason:
        # What cannot be asked: tmpfs reads nothing, older kernels have no cachestat(2).
        pytest.skip(str(reason))
    if file.ra_pages < 32:
        # The vectors' windows would not fit.
        pytest.skip(f"the windows of this device have {file.ra_pages} pages")
    yield file
    file.close()


# --- drawn programs

# What is met is told at the step that differs. To make it shorter would take minutes.
AS_DRAWN = settings(phases=[Phase.explicit, Phase.reuse, Phase.generate])

# A load meets the marker of a folio of several pages after the window has moved.
MARKER_IN_A_MAPPING = [("scan", 2, 0, PAGE), ("touch", 2308, 0, 1), ("touch", 4, 0, 1)]

OVER_A_HOLE = (
    [(("r", True), 5, 0), (None, 3, 0), (("r", False), 5, 40)],
    [(100, 1)],
    [("willneed", (0, 0), 13)],
)


def test_reads_and_advice_bring_the_pages_that_the_kernel_brings(kernel: KernelFile, twin: Path) -> None:
    done: Counter[str] = Counter()

    # Long programs over windows of megabytes: half as many.
    @settings(AS_DRAWN, max_examples=settings().max_examples // 2)
    @example(MARKER_IN_A_MAPPING)
    @given(STEPS)
    def compare(steps: list[Step]) -> None:
        again(lambda: done.update(read(kernel, twin, specmm, steps)))

    compare()
    # Enough is left.
    assert {"touch", "windows", "windows after a marker", "willneed", "dontneed"} <= done.keys(), done
    assert done["pread"] >= 100, done


def test_faults_set_the_entries_that_the_kernel_sets(kernel: KernelFile, twin: Path) -> None:
    done: Counter[str] = Counter()

    # A range with a hole is rarely drawn: it is always among them.
    @AS_DRAWN
    @example(*OVER_A_HOLE, "speculative")
    @example(*OVER_A_HOLE, "mmap_lock")
    @given(PIECES, RESIDENT, ACCESSES, st.sampled_from(["speculative", "mmap_lock"]))
    def compare(pieces: Any, resident: Any, accesses: Any, locking: str) -> None:
        if any(kind is not None for kind, _, _ in pieces):
            again(lambda: done.update(fault(kernel, twin, specmm, pieces, resident, accesses, locking)))

    compare()
    for what in ("around", "load", "store", "dontneed", "willneed"):
        assert done[what] >= 10, done
    assert done["willneed over a hole"] >= 2, done


def read(kernel: KernelFile, twin: Path, subject: Any, steps: list[Step]) -> Counter[str]:
    with contextlib.ExitStack() as stack:
        readers = Readers(kernel, twin, subject, stack)
        for step in steps:
            readers.run(step)
        return readers.done


def fault(
    kernel: KernelFile,
    twin: Path,
    subject: Any,
    pieces: Any,
    resident: Any,
    accesses: Any,
    locking: str = "speculative",
) -> Counter[str]:
    with contextlib.ExitStack() as stack:
        mappings = Mappings(kernel, twin, subject, pieces, locking, stack)
        mappings.read(resident)
        for step in accesses:
            mappings.run(step)
        return mappings.done


# --- vectors


def programs(kernel: KernelFile) -> dict[str, tuple[Callable[..., Counter[str]], Any]]:
    """One for each rule."""
    most = max(kernel.ra_pages, kernel.io_pages)
    first_alone = [(("rw", False), 1, 0), (("r", True), 16, 1)]
    at_the_leaf = [(("rw", False), 490, 0), (("r", True), 16, 0)]
    return {
        "around from a clamped start": (fault, (first_alone, [(0, 40)], [("load", (1, 0), 1)])),
        "around up to the end of the leaf": (fault, (at_the_leaf, [(0, 40)], [("load", (1, 0), 1)])),
        "two pages further": (read, ([("pread", 716, 0, PAGE), ("pread", 718, 0, PAGE)],)),
        "more than a call reads": (read, ([("willneed", 0, 0, (most + 1) * PAGE)],)),
        "each mapping of a range": (fault, OVER_A_HOLE),
    }


def counts_from_the_aligned_start(wrong: Any) -> None:
    right = wrong.memory.Fault.do_fault_around

    def around(self: Any) -> int:
        end, pages = self.vma.end, self.fault_around_pages
        self.vma.end = min(end, (self.number // pages + 1) * pages * PAGE)
        try:
            return int(right(self))
        finally:
            self.vma.end = end

    wrong.memory.Fault.do_fault_around = around


def goes_on_into_the_next_leaf(wrong: Any) -> None:
    wrong.memory.LEAF = 40


def remembers_the_last_byte(wrong: Any) -> None:
    right = wrong.file.filemap_read

    def filemap_read(ra: Any, n: int, offset: int) -> bytes:
        data = bytes(right(ra, n, offset))
        ra.prev_pos = offset + len(data) - 1
        return data

    wrong.file.filemap_read = filemap_read


def reads_all_that_is_needed(wrong: Any) -> None:
    def will_need(self: Any, first: int, end: int) -> None:
        for index in range(first, end):
            self.force_page_cache_ra(index, 1)

    wrong.readahead.Readahead.will_need = will_need


def stops_at_a_hole(wrong: Any) -> None:
    right = wrong.mm.Mm.will_need

    def will_need(self: Any, start: int, end: int) -> None:
        self.vmas.covering(start, end)
        right(self, start, end)

    wrong.mm.Mm.will_need = will_need


WRONG = {
    "around from a clamped start": counts_from_the_aligned_start,
    "around up to the end of the leaf": goes_on_into_the_next_leaf,
    "two pages further": remembers_the_last_byte,
    "more than a call reads": reads_all_that_is_needed,
    "each mapping of a range": stops_at_a_hole,
}


@pytest.mark.parametrize("rule", WRONG)
def test_a_wrong_rule_is_found(kernel: KernelFile, twin: Path, rule: str) -> None:
    run, arguments = programs(kernel)[rule]
    for right in (specmm, model):
        done = run(kernel, twin, right, *arguments)
        if any(what.startswith(APART) for what in done):
            # Here the kernel has a later rule at this place, so that a wrong one of ours would not be seen.
            pytest.skip(f"set apart on this kernel: {dict(done)}")
    wrong = copy_of_the_model(f"specmm_model_{WRONG[rule].__name__}")
    WRONG[rule](wrong)
    with pytest.raises(AssertionError, match="subject, kernel"):
        run(kernel, twin, wrong, *arguments)


@pytest.fixture(params=[specmm, model], ids=["specmm", "model"])
def subject(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def cache(subject: Any) -> Iterator[Any]:
    with subject.PageCache("32MiB", io="inline") as cache:
        yield cache


@pytest.fixture
def file(cache: Any) -> Iterator[Any]:
    with cache.open_store(Store(lambda offset, n: bytes(n)), 1000 * PAGE) as file:
        yield file


def test_fault_around_counts_from_where_its_window_begins(subject: Any, cache: Any, file: Any) -> None:
    file.advise("willneed", 0, 40 * PAGE)
    with subject.Mm(cache) as mm:
        mm.mmap(file, PAGE, prot="rw", shared=False)
        addr = mm.mmap(file, 16 * PAGE, PAGE)
        mm.load(addr, 1)
        assert runs(mm.pagemap(addr, 16 * PAGE)) == [(0, 16)]
        # An unclamped one is aligned as ever.
        addr = mm.mmap(file, 40 * PAGE, prot="r", shared=False)
        mm.load(addr + 20 * PAGE, 1)
        assert runs(mm.pagemap(addr, 40 * PAGE)) == [(15, 16)]


def test_fault_around_ends_with_the_leaf_table_and_the_file(subject: Any, cache: Any, file: Any) -> None:
    file.advise("willneed", 980 * PAGE)
    with subject.Mm(cache) as mm:
        mm.mmap(file, 490 * PAGE, prot="rw", shared=False)  # up to 6 pages before the end of the leaf
        addr = mm.mmap(file, 30 * PAGE, 980 * PAGE)
        mm.load(addr, 1)
        assert runs(mm.pagemap(addr, 30 * PAGE)) == [(0, 6)]
        mm.load(addr + 6 * PAGE, 1)
        assert runs(mm.pagemap(addr, 30 * PAGE)) == [(0, 20)]


def test_a_read_of_the_page_after_the_next_begins_a_window(file: Any) -> None:
    assert file.readahead_state.prev_pos == -1
    file.pread(PAGE, 716 * PAGE)
    assert file.readahead_state.prev_pos == 717 * PAGE
    assert runs(file.residency()) == [(716, 1)]
    file.pread(PAGE, 718 * PAGE)
    state = file.readahead_state
    assert (state.start, state.size, state.async_size, state.prev_pos) == (718, 4, 3, 719 * PAGE)
    assert runs(file.residency()) == [(716, 1), (718, 4)]


def test_a_first_read_anywhere_but_at_the_start_is_read_as_it_is(file: Any) -> None:
    file.pread(PAGE, PAGE)
    assert runs(file.residency()) == [(1, 1)]


def test_what_a_read_has_read_counts_for_its_own_rest(file: Any) -> None:
    file.advise("willneed", 100 * PAGE, PAGE)
    file.pread(2 * PAGE, 100 * PAGE)
    state = file.readahead_state
    assert (state.start, state.size, state.async_size, state.prev_pos) == (101, 4, 3, 102 * PAGE)


@pytest.mark.parametrize(("ra_pages", "most"), [(32, 256), (0, 256), (255, 256), (257, 257), (300, 300)])
def test_willneed_reads_so_much_a_call(cache: Any, ra_pages: int, most: int) -> None:
    with cache.open_store(Store(lambda offset, n: bytes(n)), 1000 * PAGE, ra_pages=ra_pages) as file:
        file.advise("willneed", 0, (most + 1) * PAGE)
        assert runs(file.residency()) == [(0, most)]
        file.advise("willneed", most * PAGE)
        assert runs(file.residency()) == [(0, 2 * most)]
        file.advise("willneed", 990 * PAGE, 1 << 40)
        assert runs(file.residency()) == [(0, 2 * most), (990, 10)]


def test_willneed_of_a_range_reads_for_each_of_its_mappings(subject: Any, cache: Any, file: Any) -> None:
    with subject.Mm(cache) as mm:
        addr = mm.mmap(file, 300 * PAGE, 10 * PAGE)
        mm.mmap(file, 300 * PAGE, 500 * PAGE, prot="rw", shared=False)
        mm.madvise(addr + PAGE, 500 * PAGE, "willneed")
        assert runs(file.residency()) == [(11, 256), (500, 201)]
        assert not any(mm.pagemap(addr, 600 * PAGE)), "nothing is mapped by it"
        file.advise("dontneed")
        mm.munmap(addr + 100 * PAGE, 50 * PAGE)
        with pytest.raises(ValueError, match="0x"):
            mm.madvise(addr + 98 * PAGE, 54 * PAGE, "willneed")
        assert runs(file.residency()) == [(108, 2), (160, 2)], "what is mapped is read"
        with pytest.raises(ValueError, match="0x"):
            mm.madvise(addr + 100 * PAGE, PAGE, "willneed")
        assert runs(file.residency()) == [(108, 2), (160, 2)]


def test_willneed_beyond_the_end_of_the_file_reads_nothing(subject: Any, cache: Any, file: Any) -> None:
    with subject.Mm(cache) as mm:
        addr = mm.mmap(file, 50 * PAGE, 980 * PAGE)
        mm.madvise(addr + 20 * PAGE, 30 * PAGE, "willneed")
        assert not any(file.residency())
        mm.madvise(addr + 19 * PAGE, 31 * PAGE, "willneed")
        assert runs(file.residency()) == [(999, 1)]


def test_willneed_of_a_mapping_outlives_its_file(subject: Any, cache: Any, file: Any) -> None:
    with subject.Mm(cache, fault_around=PAGE) as mm:
        addr = mm.mmap(file, 8 * PAGE)
        before = cache.stats().reads
        file.close()
        mm.madvise(addr, 8 * PAGE, "willneed")
        assert cache.stats().reads == before + 1
        assert mm.touch(addr, 8 * PAGE).major == 0
