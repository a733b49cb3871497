"""The model against the specification's own figures: readahead windows, and what a mapped misses come to."""

import pytest

import specmm.model as model
from specmm.model.readahead import IO_PAGES, get_init_ra_size, get_next_ra_size

PAGE = model.PAGE_SIZE


class Zeros:
    """A store of any size."""

    def read_at(self, offset: int, n: int) -> bytes:
        return bytes(n)


def a_file(pages: int = 4096, *, capacity: str = "64MiB") -> model.File:
    cache = model.PageCache(capacity)
    return cache.open_store(Zeros(), pages * PAGE)


def a_mapping(file: model.File) -> tuple[model.Mm, int]:
    mm = model.Mm(file.cache, fault_around=PAGE)
    return mm, mm.mmap(file)


def window(file: model.File) -> tuple[int, int, int]:
    state = file.readahead_state
    return state.start, state.size, state.async_size


def markers(file: model.File) -> list[int]:
    return sorted(page.index for page in file.f_mapping.pages.values() if page.readahead)


def test_first_window_of_a_request() -> None:
    windows = {size: get_init_ra_size(size, 32) for size in (1, 2, 3, 4, 5, 8, 9, 32)}
    assert windows == {1: 4, 2: 4, 3: 8, 4: 8, 5: 16, 8: 16, 9: 32, 32: 32}


def test_next_window() -> None:
    windows = {size: get_next_ra_size(size, 32) for size in (1, 2, 4, 8, 16, 32)}
    assert windows == {1: 4, 2: 4, 4: 8, 8: 16, 16: 32, 32: 32}


def test_sequential_reads_of_one_page_double_the_window_up_to_the_largest() -> None:
    file = a_file()
    told = []
    for index in range(100):
        before = window(file)
        file.pread(PAGE, index * PAGE)
        if window(file) != before:
            told.append((*window(file), markers(file)))
    assert told == [
        (0, 4, 3, [1]),
        (4, 8, 8, [4]),
        (12, 16, 16, [12]),
        (28, 32, 32, [28]),
        (60, 32, 32, [60]),
        (92, 32, 32, [92]),
        (124, 32, 32, [124]),
    ]
    assert file.readahead_state.prev_pos == 93 * PAGE  # the rest were pure hits


def test_sequential_faults_start_with_read_around_and_go_on_by_the_marker() -> None:
    file = a_file()
    mm, addr = a_mapping(file)
    told = []
    for index in range(100, 160):
        before = window(file)
        mm.load(addr + index * PAGE, 1)
        if window(file) != before:
            told.append((index, *window(file), markers(file)))
    assert told == [
        (100, 84, 32, 8, [108]),
        (108, 116, 32, 32, [116]),
        (116, 148, 32, 32, [148]),
        (148, 180, 32, 32, [180]),
    ]


def test_a_sequential_mapping_reads_its_first_window_at_once() -> None:
    file = a_file()
    mm, addr = a_mapping(file)
    mm.madvise(addr, PAGE, "sequential")
    mm.load(addr, 1)
    assert window(file) == (0, 32, 16)
    assert markers(file) == [16]


def test_a_sequential_mapping_that_starts_in_the_middle_reads_one_window_and_learns_nothing() -> None:
    file = a_file()
    mm, addr = a_mapping(file)
    mm.madvise(addr + 1000 * PAGE, PAGE, "sequential")
    mm.load(addr + 1000 * PAGE, 1)
    assert window(file) == (0, 0, 0)
    assert markers(file) == []
    assert file.residency(1000, 33) == bytes([1] * 32 + [0])
    assert file.readahead_state.mmap_miss == 0


def test_isolated_misses_read_around_a_hundred_times_and_901_hits_make_it_forget() -> None:
    apart = 64
    file = a_file(2000 * apart)
    mm, addr = a_mapping(file)

    def pages_read(index: int) -> int:
        before = file.cache.stats().readahead_pages
        mm.load(addr + index * PAGE, 1)
        return file.cache.stats().readahead_pages - before

    # Before the 100 misses are over each reads around, afterwards none does, and the count has an end.
    assert [pages_read(number * apart) for number in range(1, 101)] == [32] * 100
    assert {pages_read(number * apart) for number in range(101, 1100)} == {0}
    assert file.readahead_state.mmap_miss == 1000

    # Pages that were read around: neither the ones mapped by now nor the ones with the marker.
    present = sorted(file.f_mapping.pages.values(), key=lambda page: page.index)
    hits = [page.index for page in present if not page.entries and not page.readahead]
    for index in hits[:900]:
        mm.load(addr + index * PAGE, 1)
    assert file.readahead_state.mmap_miss == 100
    assert pages_read(1100 * apart) == 0
    assert file.readahead_state.mmap_miss == 101

    for index in hits[900:902]:
        mm.load(addr + index * PAGE, 1)
    assert file.readahead_state.mmap_miss == 99
    assert pages_read(1101 * apart) == 32


def test_901_hits_are_what_it_takes() -> None:
    file = a_file()
    mm, addr = a_mapping(file)
    for offset in range(0, file.size, IO_PAGES * PAGE):
        file.advise("willneed", offset)
    file.f_ra.mmap_miss = 1000
    for index in range(901):
        mm.load(addr + index * PAGE, 1)
    file.advise("dontneed")
    before = file.cache.stats().readahead_pages
    mm.load(addr + 2000 * PAGE, 1)
    assert file.cache.stats().readahead_pages - before == 32


def test_a_page_fault_that_misses_is_one_miss_and_no_hit_however_it_is_published() -> None:
    for fault_around in ("4KiB", "64KiB"):
        for locking in ("mmap_lock", "speculative"):
            file = a_file()
            mm = model.Mm(file.cache, locking=locking, fault_around=fault_around)
            addr = mm.mmap(file)
            mm.load(addr + 100 * PAGE, 1)
            assert file.readahead_state.mmap_miss == 1


def test_fault_around_credits_each_entry_it_sets() -> None:
    file = a_file()
    mm = model.Mm(file.cache, fault_around="64KiB")
    addr = mm.mmap(file)
    file.advise("willneed")
    file.f_ra.mmap_miss = 100
    mm.load(addr + 100 * PAGE, 1)
    assert sum(mm.pagemap(addr, 4096 * PAGE)) == 16
    assert file.readahead_state.mmap_miss == 84


def test_an_aborted_attempt_changes_no_count_of_misses() -> None:
    file = a_file()
    mm, addr = a_mapping(file)
    mm.load(addr + 100 * PAGE, 1)
    assert file.filemap_fault(108) == model.FilemapFault(model.VmFault.RETRY, model.Abort.FILE_READAHEAD)
    assert file.filemap_fault(500) == model.FilemapFault(model.VmFault.RETRY, model.Abort.FILE_MISS)
    assert file.readahead_state.mmap_miss == 1


def test_a_page_that_cannot_be_read_is_an_error_for_the_reader_and_a_bus_error_for_the_mapping() -> None:
    class Broken:
        def read_at(self, offset: int, n: int) -> bytes:
            raise OSError(5, "unreadable")

    cache = model.PageCache("1MiB")
    file = cache.open_store(Broken(), 10 * PAGE, name="broken")
    mm = model.Mm(cache)
    addr = mm.mmap(file)
    outcome = mm.fault(addr + 5)
    assert outcome == model.FaultOutcome(
        model.VmFault.SIGBUS | model.VmFault.MAJOR, model.Abort.PUD, major=False
    )
    with pytest.raises(OSError, match="unreadable") as read:
        file.pread(1, 0)
    assert read.value.filename == "broken"
    with pytest.raises(model.BusError) as load:
        mm.load(addr + 3, 1)
    assert load.value.args == (0, 3, 10 * PAGE)
    assert isinstance(load.value.__cause__, OSError)
    cache.check()
