"""specmm against its reference model, over random programs; and the machine against models that are wrong."""

import faulthandler
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from differential import REACHED, FaultPathMachine, FaultPlanMachine
from differential_sides import BASE, PAGE, Difference
from specmm import model

# Every cause that needs no race. FILE_EOF needs one: the page has to leave the file between lookup and test.
ONE_THREAD_CAUSES = {
    "UNMAPPED",
    "NO_SPECULATE",
    "ACCESS_ERROR",
    "PUD",
    "PMD",
    "ANON_VMA",
    "NO_FRAME",
    "FILE_MISS",
    "FILE_READAHEAD",
    "FILE_NOT_UPTODATE",
}


# What reclaim did, by the counters' names.
RECLAIM = {
    "evictions",
    "dropped",
    "refaults",
    "refaults_activated",
    "activations",
    "deactivations",
    "invalidated",
}

PROFILE = os.environ.get("SPECMM_HYPOTHESIS", "dev")


def test_specmm_and_its_model_agree_after_every_call() -> None:
    # Neither many programs nor making a failing one short, which may take minutes, is a hang.
    faulthandler.dump_traceback_later(6 * 3600 if PROFILE == "deep" else 900, exit=True, file=sys.__stderr__)
    REACHED.clear()
    phases = [phase for phase in Phase if phase != Phase.explain]
    run_state_machine_as_test(
        FaultPathMachine, settings=settings(phases=phases, suppress_health_check=list(HealthCheck))
    )
    reached = {cause for cause, count in REACHED.items() if count}
    assert reached <= ONE_THREAD_CAUSES | RECLAIM
    # A short run draws other programs each time, and may miss one.
    if PROFILE != "dev":
        assert reached == ONE_THREAD_CAUSES | RECLAIM


def test_specmm_and_its_model_agree_when_reads_go_wrong() -> None:
    REACHED.clear()
    run_state_machine_as_test(
        FaultPlanMachine,
        settings=settings(
            max_examples=max(settings().max_examples, 60), suppress_health_check=list(HealthCheck)
        ),
    )
    fired = {how for how, count in REACHED.items() if how.startswith("planned") and count}
    assert fired
    if PROFILE != "dev":
        assert fired == {f"planned {how}" for how in ("error", "short", "interrupted", "slow")}


# --- programs that random ones seldom are


@contextmanager
def machine_against(subject: Any) -> Iterator[FaultPathMachine]:
    """A machine with a mapping of 16 pages, private and writable, whose file has 40 and is in the cache."""
    machine: FaultPathMachine = type("Machine", (FaultPathMachine,), {"subject": subject})()
    try:
        machine.set_up(
            frames=200,
            sizes=(40 * PAGE, 0),
            ra_pages=(32, 32),
            on_disk=False,
            lockings=("speculative", "mmap_lock"),
            around=("4KiB", "4KiB"),
            bad_pages=frozenset(),
            first=[(0, 0, 16 * PAGE, ("rw", False))],
        )
        machine.both(lambda side: side.files[0].advise("willneed"))
        yield machine
    finally:
        machine.teardown()


def mappings_that_merge_share_their_anon_vma(subject: Any) -> None:
    """One half prepared for private copies, the other not: after they merge, all of it is."""
    with machine_against(subject) as machine:
        machine.both(lambda side: side.mms[0].load(BASE, 1))
        machine.both(lambda side: side.mms[0].madvise(BASE + 8 * PAGE, 8 * PAGE, "random"))
        told = machine.both(lambda side: side.mms[0].fault(BASE + 9 * PAGE, write=True))
        assert told["abort"] == "ANON_VMA"
        machine.both(lambda side: side.mms[0].madvise(BASE, 16 * PAGE, "normal"))
        told = machine.both(lambda side: side.mms[0].fault(BASE + PAGE, write=True))
        assert told == {"result": model.VmFault.LOCKED, "abort": None, "major": False}


def page_tables_live_as_long_as_a_mapping_in_their_span(subject: Any) -> None:
    """A leaf goes with its last mapping, an upper table with its last leaf's."""
    with machine_against(subject) as machine:

        def abort_at(number: int) -> object:
            return machine.both(lambda side: side.mms[0].fault(number * PAGE))["abort"]

        def map_pages(pages: int) -> None:
            machine.map(0, 0, pages * PAGE, 0, ("r", True))

        # Pages 16 to 31 are mapped. On to the end of the first leaf, and two pages into the second.
        assert abort_at(16) == "PUD"
        map_pages(480)
        map_pages(2)
        assert abort_at(511) == "FILE_MISS"
        assert abort_at(512) == "PMD"

        # The second leaf goes with its mapping, the first stays with the two at its ends.
        machine.both(lambda side: side.mms[0].munmap(512 * PAGE, 2 * PAGE))
        machine.both(lambda side: side.mms[0].munmap(20 * PAGE, 470 * PAGE))
        assert abort_at(17) is None
        map_pages(470)
        map_pages(2)
        assert abort_at(20) is None
        assert abort_at(512) == "PMD"

        machine.both(lambda side: side.mms[0].munmap(BASE, 1 << 30))
        map_pages(1)
        assert abort_at(16) == "PUD"


PROGRAMS = [mappings_that_merge_share_their_anon_vma, page_tables_live_as_long_as_a_mapping_in_their_span]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_specmm_and_its_model_agree_where(program: Callable[[Any], None]) -> None:
    program(None)


# --- positive controls: a copy of the model with one thing wrong is found out


def forgets_the_marker(twin: Any) -> None:
    right = twin.readahead.Readahead.do_page_cache_ra
    twin.readahead.Readahead.do_page_cache_ra = lambda self, index, nr, _: right(self, index, nr, 0)


def credits_an_aborted_attempt(twin: Any) -> None:
    right = twin.fault.FaultHandler.speculative_attempt

    def wrong(self: Any, address: int, *, write: bool) -> Any:
        attempt = right(self, address, write=write)
        if attempt.abort is not None:
            self.credit(address, 1)
        return attempt

    twin.fault.FaultHandler.speculative_attempt = wrong


def credits_a_fault_that_missed(twin: Any) -> None:
    right = twin.fault.FaultHandler.classic_pass

    def wrong(self: Any, address: int, **how: bool) -> Any:
        one = right(self, address, **how)
        one.missed = False
        return one

    twin.fault.FaultHandler.classic_pass = wrong


def keeps_the_tail_of_a_page_that_is_cut(twin: Any) -> None:
    right = twin.address_space.AddressSpace.set_size

    def wrong(self: Any, size: int) -> None:
        page = self.pages.get(size // model.PAGE_SIZE)
        before = bytes(page.data) if page is not None else b""
        right(self, size)
        if page is not None and size % model.PAGE_SIZE:
            page.data[:] = before

    twin.address_space.AddressSpace.set_size = wrong


def maps_a_page_with_the_marker_around_a_fault(twin: Any) -> None:
    right = twin.memory.Fault.do_fault_around

    def wrong(self: Any) -> int:
        pages = self.vma.file.f_mapping.pages.values()
        marked = [page for page in pages if page.readahead]
        for page in marked:
            page.readahead = False
        try:
            return right(self)
        finally:
            for page in marked:
                page.readahead = True

    twin.memory.Fault.do_fault_around = wrong


def keeps_page_tables_when_unmapping(twin: Any) -> None:
    twin.page_table.PageTable.free_tables = lambda *_: None
    twin.cache.PageCache.check_mm = lambda _, mm: [
        entry.page for table in mm.page_table.leaves.values() for entry in table.values()
    ]


def forgets_anon_vma_when_merging(twin: Any) -> None:
    right = twin.vma.VmaList.merge

    def wrong(self: Any, start: int, end: int) -> None:
        before = {vma.start: vma.anon_vma for vma in self}
        right(self, start, end)
        for vma in self:
            vma.anon_vma = before[vma.start]

    twin.vma.VmaList.merge = wrong
    twin.cache.PageCache.check = lambda _: None  # which would find it at once


def takes_the_newest_page(twin: Any) -> None:
    def wrong(pages: list[Any], most: int) -> list[Any]:
        taken, pages[:] = (
            pages[len(pages) - min(most, len(pages)) :],
            pages[: len(pages) - min(most, len(pages))],
        )
        return taken

    twin.vmscan.isolate = wrong


def counts_every_piece_of_a_page(twin: Any) -> None:
    right = twin.vmscan.Vmscan.touch

    def wrong(self: Any, page: Any) -> None:
        self.last_touched = None
        right(self, page)

    twin.vmscan.Vmscan.touch = wrong


def gives_no_second_chance_to_what_is_mapped(twin: Any) -> None:
    twin.page.Page.clear_young = lambda _: 0


def forgets_what_was_evicted(twin: Any) -> None:
    twin.vmscan.Vmscan.refault = lambda *_: None


def cuts_a_pinned_page_in_place(twin: Any) -> None:
    right = twin.address_space.AddressSpace.set_size

    def wrong(self: Any, size: int) -> None:
        page = self.pages.get(size // model.PAGE_SIZE)
        pins = page.pins if page is not None else 0
        if page is not None:
            page.pins = 0
        right(self, size)
        if page is not None:
            page.pins = pins

    twin.address_space.AddressSpace.set_size = wrong


WRONG = [
    takes_the_newest_page,
    counts_every_piece_of_a_page,
    gives_no_second_chance_to_what_is_mapped,
    forgets_what_was_evicted,
    cuts_a_pinned_page_in_place,
    forgets_the_marker,
    credits_an_aborted_attempt,
    credits_a_fault_that_missed,
    keeps_the_tail_of_a_page_that_is_cut,
    maps_a_page_with_the_marker_around_a_fault,
    keeps_page_tables_when_unmapping,
]


def copy_of_the_model(name: str) -> ModuleType:
    """Another module made from the same source, so that what is changed in it is not changed in the model."""
    origin = Path(str(model.__file__))
    spec = importlib.util.spec_from_file_location(
        name, origin, submodule_search_locations=[str(origin.parent)]
    )
    assert spec is not None
    assert spec.loader is not None
    twin = importlib.util.module_from_spec(spec)
    sys.modules[name] = twin
    spec.loader.exec_module(twin)
    return twin


def run_against(twin: ModuleType, examples: int) -> None:
    """A fixed series of programs, without the work of making a failing one short."""
    machine = type("TwinMachine", (FaultPathMachine,), {"subject": twin})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_a_model_that_is_wrong_is_found_out(wrong: Callable[[Any], None]) -> None:
    twin = copy_of_the_model(f"twin_that_{wrong.__name__}")
    wrong(twin)
    with pytest.raises(Difference):
        run_against(twin, 400)


def test_a_model_that_forgets_anon_vma_when_merging_is_found_out_by_the_program_for_it() -> None:
    twin = copy_of_the_model("twin_that_forgets_anon_vma")
    forgets_anon_vma_when_merging(twin)
    with pytest.raises(Difference):
        mappings_that_merge_share_their_anon_vma(twin)


def test_a_copy_that_is_right_is_not_reported() -> None:
    twin = copy_of_the_model("twin_that_is_right")
    run_against(twin, 10)
    for program in PROGRAMS:
        program(twin)
