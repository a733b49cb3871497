"""specmm against its reference model, over random programs; and the machine against models that are wrong."""

import faulthandler
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from differential.extremes import CALLS, EXTREMES
from differential.found import FOUND
from differential.machine import REACHED, ExtremesMachine, FaultPathMachine, FaultPlanMachine
from differential.program import run_programs
from differential.sides import BASE, PAGE, Difference
from differential.wrong import (
    WRONG,
    copy_of_the_model,
    cuts_a_pinned_page_in_place,
    forgets_anon_vma_when_merging,
    keeps_page_tables_without_entries,
    keeps_the_tail_of_a_page_that_is_cut,
    keeps_what_others_rewrote,
    maps_a_page_with_the_marker_around_a_fault,
    names_no_number,
    reads_for_a_fault_before_it_looks,
    takes_growth_for_a_rewrite,
    takes_numbers_of_any_length,
)
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
SHORTENING_SECONDS = 300 if PROFILE == "deep" else 30


def run(machine: type[FaultPathMachine], wanted: set[str] | None = None, at_least: int = 0) -> None:
    """Random programs, until one shows a difference; in long runs, until all that is wanted was reached."""
    # Many programs are no hang, also where the machine is slow.
    faulthandler.dump_traceback_later(6 * 3600 if PROFILE == "deep" else 1800, exit=True, file=sys.__stderr__)
    REACHED.clear()
    how = settings(
        max_examples=max(settings().max_examples, at_least), suppress_health_check=list(HealthCheck)
    )
    run_programs(machine, how, SHORTENING_SECONDS)
    # A short run draws other programs each time, and may miss one.
    if wanted is None or PROFILE == "dev":
        return
    for number in range(10):
        if wanted <= reached():
            return
        again = type(machine.__name__, (machine,), {"__module__": machine.__module__})
        run_programs(seed(number)(again), how, SHORTENING_SECONDS)
    assert wanted <= reached()


def reached() -> set[str]:
    return {what for what, count in REACHED.items() if count}


@pytest.mark.hypothesis
def test_specmm_and_its_model_agree_after_every_call() -> None:
    run(FaultPathMachine, ONE_THREAD_CAUSES | RECLAIM)
    assert reached() <= ONE_THREAD_CAUSES | RECLAIM


@pytest.mark.hypothesis
def test_specmm_and_its_model_agree_when_reads_go_wrong() -> None:
    run(
        FaultPlanMachine,
        {f"planned {how}" for how in ("error", "short", "interrupted", "slow")},
        at_least=60,
    )


@pytest.mark.hypothesis
def test_specmm_and_its_model_agree_on_extreme_numbers() -> None:
    """In any state, several at once."""
    run(ExtremesMachine)


@pytest.mark.parametrize("machine", [FaultPathMachine, FaultPlanMachine], ids=lambda each: each.__name__)
@pytest.mark.parametrize("program", FOUND, ids=lambda program: program.__name__)
def test_specmm_and_its_model_agree_where_they_once_did_not(
    program: Callable[[FaultPathMachine], None], machine: type[FaultPathMachine]
) -> None:
    state = machine()
    try:
        program(state)
    finally:
        state.teardown()


# --- programs that random ones seldom are


def machine_of(subject: Any, machine: type[FaultPathMachine]) -> type[FaultPathMachine]:
    """Of a model that is wrong on purpose nobody needs to be told."""
    return type("TwinMachine", (machine,), {"subject": subject, "is_quiet": True}) if subject else machine


@contextmanager
def machine_against(
    subject: Any, machine: type[FaultPathMachine] = FaultPathMachine, around: str = "4KiB"
) -> Iterator[Any]:
    """A machine with a mapping of 16 pages, private and writable, whose file has 40 and is in the cache.

    The second file is on disk.
    """
    state = machine_of(subject, machine)()
    try:
        state.set_up(
            frames=200,
            sizes=(40 * PAGE, 40 * PAGE),
            ra_pages=(32, 32),
            on_disk=True,
            lockings=("speculative", "mmap_lock"),
            around=(around, around),
            bad_pages=frozenset(),
            first=[(0, 0, 16 * PAGE, ("rw", False))],
        )
        state.both(lambda side: side.files[0].advise("willneed"))
        yield state
    finally:
        state.teardown()


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


def a_page_that_is_cut_ends_in_zeros(subject: Any) -> None:
    """What was beyond the new end does not come back when the file grows again."""
    with machine_against(subject) as machine:
        machine.truncate(file=0, size=5 * PAGE + 100)
        machine.extend(file=0, by=PAGE)
        machine.pread(file=0, index=5, byte=0, n=PAGE)


def a_pin_keeps_its_bytes_when_its_page_is_cut(subject: Any) -> None:
    """The page leaves the file instead."""
    with machine_against(subject) as machine:
        machine.pin(file=0, index=5, byte=0, n=PAGE)
        machine.truncate(file=0, size=5 * PAGE + 100)


def the_marker_stays_for_the_fault_that_meets_it(subject: Any) -> None:
    """Fault-around maps what is around it."""
    with machine_against(subject, around="64KiB") as machine:
        machine.both(lambda side: side.files[0].advise("dontneed"))
        machine.pread(file=0, index=0, byte=0, n=PAGE)
        machine.both(lambda side: side.mms[0].fault(BASE))
        told = machine.both(lambda side: side.mms[0].pagemap(BASE, 5 * PAGE))
        assert told == bytes([1, 0, 1, 1, 0])


def what_others_change_is_followed(subject: Any) -> None:
    """By faults and reads alike, whatever they find first."""
    with machine_against(subject) as machine:
        machine.map(0, 1, 40 * PAGE, 0, ("r", True))
        address = machine.model.mms[0].vmas.sorted[-1].start
        for how in ("rewrite", "append", "restore", "append", "rewrite"):
            machine.both(lambda side: side.mms[0].load(address, 8))
            machine.pread(file=1, index=3, byte=0, n=2 * PAGE)
            machine.others_change(how=how, by=PAGE)
            machine.both(lambda side: side.mms[0].fault(address + 35 * PAGE))
            # Past the end: both look.
            told = machine.both(lambda side: side.files[1].pread(100 * PAGE, 0))
            assert told == machine.model.path.read_bytes()


PROGRAMS = [
    mappings_that_merge_share_their_anon_vma,
    page_tables_live_as_long_as_a_mapping_in_their_span,
    a_page_that_is_cut_ends_in_zeros,
    a_pin_keeps_its_bytes_when_its_page_is_cut,
    the_marker_stays_for_the_fault_that_meets_it,
    what_others_change_is_followed,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_specmm_and_its_model_agree_where(program: Callable[[Any], None]) -> None:
    program(None)


# --- the ends of every number that a call takes


@pytest.mark.parametrize("what", CALLS)
def test_specmm_and_its_model_agree_on_each_extreme_number(what: str) -> None:
    call_with_each_extreme(what, None)


def call_with_each_extreme(what: str, subject: Any) -> None:
    """In each place of the call, the others plain, on either kind of file."""
    places = len(CALLS[what].plain)
    alone = [
        (what, tuple(name if at == place else None for at in range(places)))
        for place in range(places)
        for name in EXTREMES
    ]
    for file in (0, 1):
        with machine_against(subject, ExtremesMachine) as machine:
            machine.extreme(mm=0, file=file, calls=alone)


# --- positive controls: a copy of the model with one thing wrong is found out


def run_against(twin: ModuleType, examples: int) -> None:
    """A fixed series of programs, without the work of making a failing one short."""
    run_state_machine_as_test(
        machine_of(twin, FaultPathMachine),
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


@pytest.mark.parametrize(
    ("wrong", "program"),
    [
        (forgets_anon_vma_when_merging, mappings_that_merge_share_their_anon_vma),
        (keeps_the_tail_of_a_page_that_is_cut, a_page_that_is_cut_ends_in_zeros),
        (keeps_page_tables_without_entries, page_tables_live_as_long_as_a_mapping_in_their_span),
        (cuts_a_pinned_page_in_place, a_pin_keeps_its_bytes_when_its_page_is_cut),
        (maps_a_page_with_the_marker_around_a_fault, the_marker_stays_for_the_fault_that_meets_it),
        (keeps_what_others_rewrote, what_others_change_is_followed),
        (reads_for_a_fault_before_it_looks, what_others_change_is_followed),
        (takes_growth_for_a_rewrite, what_others_change_is_followed),
    ],
)
def test_a_model_that_is_wrong_is_found_out_by_the_program_for_it(
    wrong: Callable[[Any], None], program: Callable[[Any], None]
) -> None:
    twin = copy_of_the_model(f"twin_that_{wrong.__name__}")
    wrong(twin)
    with pytest.raises(Difference):
        program(twin)


@pytest.mark.parametrize(
    "wrong", [takes_numbers_of_any_length, names_no_number], ids=lambda wrong: wrong.__name__
)
def test_a_model_that_is_wrong_about_numbers_is_found_out(wrong: Callable[[Any], None]) -> None:
    twin = copy_of_the_model(f"twin_that_{wrong.__name__}")
    wrong(twin)
    with pytest.raises(Difference):
        call_with_each_extreme("pread", twin)


def test_a_copy_that_is_right_is_not_reported() -> None:
    twin = copy_of_the_model("twin_that_is_right")
    run_against(twin, 10)
    for program in PROGRAMS:
        program(twin)
