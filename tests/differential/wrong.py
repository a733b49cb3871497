"""Copies of the reference model, each wrong in one thing, which the differential machine must find out."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from specmm import model


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


def keeps_page_tables_without_entries(twin: Any) -> None:
    twin.page_table.PageTable.free_if_empty = lambda *_: None
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


def keeps_what_others_rewrote(twin: Any) -> None:
    twin.address_space.AddressSpace.follow_changes = lambda _: None
    twin.address_space.AddressSpace.change_since = lambda *_: twin.store.Change.NONE


def reads_for_a_fault_before_it_looks(twin: Any) -> None:
    twin.readahead.Readahead.look_without_the_lock = lambda *_, **__: None


def takes_growth_for_a_rewrite(twin: Any) -> None:
    right = twin.store.Look.since

    def wrong(self: Any, before: Any) -> Any:
        change = right(self, before)
        return twin.store.Change.WRITTEN if change is twin.store.Change.GROWN else change

    twin.store.Look.since = wrong


def takes_numbers_of_any_length(twin: Any) -> None:
    twin.file.natural = lambda _, value: int(value)


def names_no_number(twin: Any) -> None:
    right = twin.file.natural

    def wrong(what: str, value: Any) -> int:
        try:
            return int(right(what, value))
        except ValueError:
            raise ValueError(what) from None

    twin.file.natural = wrong


# What random programs meet soon.
WRONG = [
    takes_the_newest_page,
    counts_every_piece_of_a_page,
    gives_no_second_chance_to_what_is_mapped,
    forgets_what_was_evicted,
    forgets_the_marker,
    credits_an_aborted_attempt,
    credits_a_fault_that_missed,
]
