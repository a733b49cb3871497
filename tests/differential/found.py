"""Programs on which the two sides once differed, each as short as it got, for any of the machines."""

from __future__ import annotations

from typing import Any

from differential.machine import FaultPathMachine, FaultPlanMachine


def set_up(state: FaultPathMachine, **told: Any) -> None:
    """Two files in 200 frames, but for what is told."""
    plain = {
        "frames": 200,
        "sizes": (103463, 110315),
        "ra_pages": (32, 32),
        "on_disk": False,
        "lockings": ("speculative", "mmap_lock"),
        "around": ("4KiB", "4KiB"),
        "bad_pages": frozenset(),
        "first": [],
    }
    state.set_up(**(plain | told))


def the_page_of_a_private_copy_goes_when_its_turn_comes(state: FaultPathMachine) -> None:
    """The entry's reference to it waited for a grace period, and reclaim took the page for one in use."""
    lengths = [(0, 0, 20480), (0, 0, 192512), (1, 0, 4096), (1, 3, 16384)]
    set_up(state, frames=40, ra_pages=(5, 32), first=[(*each, ("rw", False)) for each in lengths])
    state.read(mm=0, program=[("fault", (0, 517, 0, False), 1)])
    state.write(mm=1, program=[("fault", (3, 0, 0, False), 1)])
    state.write(mm=0, program=[("touch", (5, 12, 0, False), 12288)])
    state.write(mm=1, program=[("fault", (0, 0, 0, False), 1)])
    state.write(mm=0, program=[("touch", (0, 0, 0, False), 8)])


def a_read_of_more_than_a_call_does_at_once(state: FaultPathMachine) -> None:
    """It is made of reads of 1 MiB, and readahead does not see beyond each."""
    set_up(state)
    state.extend(file=1, by=460 * 4096)
    state.pread(file=1, index=0, byte=0, n=1 << 40)


def one_frame_keeps_its_shadow(state: FaultPathMachine) -> None:
    """A node was noted as one with shadows only each time that its page came and went: 64 notes, one node."""
    how = {"lockings": ("speculative", "speculative"), "around": ("64KiB", "2MiB"), "on_disk": True}
    set_up(state, frames=1, sizes=(143110, 122823), ra_pages=(300, 5), **how)
    state.pread_on(file=3, times=5, n=1228809)
    state.pread_on(file=0, times=3, n=1228809)
    state.filemap_fault(file=4, index=28, times=3, speculative=False)
    state.open_again(file=3, ra_pages=32, mode="r+b")
    state.gather(file=4, rows=[(14, 1), (21, 0)], length=8, stray=True, into=False)


def a_second_pass_reads_where_it_stands(state: FaultPathMachine) -> None:
    """It gave the lock back because the store might stall, though the caller was to read it itself."""
    around = ("2MiB", "16KiB")
    first = [(0, 0, 94208, ("rw", False))]
    set_up(state, frames=64, sizes=(57344, 313), ra_pages=(5, 16), on_disk=True, around=around, first=first)
    if isinstance(state, FaultPlanMachine):
        state.plan_fault(file=2, ahead=1, how="short", for_ever=False)
    state.read(mm=0, program=[("fault", (3, 80, 0, False), 8)])
    if isinstance(state, FaultPlanMachine):
        state.plan_fault(file=2, ahead=4, how="interrupted", for_ever=False)
    state.read(mm=0, program=[("load", (5, 31, 0, False), 20489)])


FOUND = [
    the_page_of_a_private_copy_goes_when_its_turn_comes,
    a_read_of_more_than_a_call_does_at_once,
    one_frame_keeps_its_shadow,
    a_second_pass_reads_where_it_stands,
]
