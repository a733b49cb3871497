"""What grows beside the frames has a bound: page tables, index nodes, bytes in flight.

What counts is how far apart pages are, how often they are mapped, and how large windows are.
"""

import random
import threading
import time

import pytest

import specmm
from programs import run
from samples import PAGE, Store

LEAF = 2 << 20
FRAMES = 256
CAPACITY = FRAMES * PAGE


def zeros(_offset: int, n: int) -> bytes:
    return bytes(n)


@pytest.fixture
def file(cache):
    return cache.open_store(Store(zeros), 1 << 44, ra_pages=0)


def tables(cache) -> int:
    return cache.stats().page_tables


def nodes(cache) -> int:
    return cache.stats().xarray_nodes


# --- page tables


@pytest.mark.parametrize("stride", [LEAF, 1 << 30, 1 << 34])
def test_page_tables_of_evicted_pages_go_back(cache, file, mm, stride):
    address = mm.mmap(file, 1 << 40)
    most = 0
    for at in range(0, min(2000 * stride, 1 << 40), stride):
        mm.load(address + at, 1)
        most = max(most, tables(cache))
    # A leaf has an entry, and an entry a page; three tables a page when those are so far apart.
    assert most <= 3 * FRAMES
    assert most >= min(FRAMES // 4, (1 << 40) // stride)
    cache.reclaim(FRAMES)
    assert tables(cache) == 0
    cache.check()


def sparse(mm, address: int) -> None:
    """Touches pages in five leaves, the first twice."""
    for leaf in (0, 1, 2, 700, 1024, 0):
        mm.load(address + leaf * LEAF + 3 * PAGE, 1)


def drop_entries(mm, file, cache, address):
    mm.madvise(address, 2048 * LEAF, "dontneed")


def truncate(mm, file, cache, address):
    file.truncate(0)


def evict(mm, file, cache, address):
    cache.reclaim(FRAMES)


def unmap(mm, file, cache, address):
    mm.munmap(address, 2048 * LEAF)


def close(mm, file, cache, address):
    mm.close()


@pytest.mark.parametrize("end", [drop_entries, truncate, evict, unmap, close])
def test_empty_page_tables_go_back_whoever_empties_them(cache, mm, end):
    store = Store(zeros)
    store.truncate = lambda _size: None
    file = cache.open_store(store, 1 << 40, ra_pages=0)
    address = mm.mmap(file, 2048 * LEAF)
    sparse(mm, address)
    assert tables(cache) >= 5
    cache.check()
    end(mm, file, cache, address)
    assert tables(cache) == 0
    cache.check()
    file.close()


def test_entries_beside_cleared_ones_keep_their_tables(cache, file, mm):
    address = mm.mmap(file, 4 * LEAF)
    mm.load(address, 1)
    mm.load(address + PAGE, 1)
    mm.load(address + LEAF, 1)
    before = tables(cache)
    mm.madvise(address, PAGE, "dontneed")
    assert tables(cache) == before
    mm.madvise(address + PAGE, PAGE, "dontneed")
    assert tables(cache) == before - 1
    assert mm.pagemap(address + LEAF, PAGE) == b"\1"


def test_faults_that_fail_leave_no_tables(cache, mm):
    file = cache.open_store(Store(zeros), PAGE, ra_pages=0)
    address = mm.mmap(file, 1 << 40)
    for at in range(LEAF, 1 << 40, 1 << 32):
        with pytest.raises(specmm.BusError):
            mm.load(address + at, 1)
    assert tables(cache) == 0
    file.close()


def test_page_tables_of_a_page_that_is_mapped_often_are_bounded(cache, file):
    with specmm.mm.Mm(cache) as mm, specmm.mm.Mm(cache) as other:
        beside = other.mmap(file)
        other.load(beside, 1)
        for _ in range(3000):
            mm.load(mm.mmap(file, 2 * LEAF) + LEAF, 1)
            assert tables(cache) <= FRAMES + 8
        assert cache.stats().frames_in_use <= 2
        cache.check()
        other.load(beside, 1)
    assert tables(cache) == 0


def test_private_copies_keep_their_tables(cache, file):
    with specmm.mm.Mm(cache) as mm:
        written = []
        for number in range(100):
            written.append(mm.mmap(file, 2 * LEAF, prot="rw", shared=False) + LEAF)
            mm.store(written[-1], bytes([number]))
        for _ in range(1000):
            mm.load(mm.mmap(file, 2 * LEAF) + LEAF, 1)
        assert tables(cache) <= FRAMES + 8
        assert [mm.load(at, 1)[0] for at in written] == list(range(100))


REPLACED = """
import pathlib
import specmm
cache = specmm.PageCache("1MiB")
file = cache.open_store(type("Store", (), {"read_at": lambda _, offset, n: bytes(n)})(), 1 << 30)
statm = pathlib.Path("/proc/self/statm")
resident = lambda: int(statm.read_text().split()[1]) * 4096
mm, most = specmm.mm.Mm(cache), 0
before = resident()
for number in range(9000):
    mm.mmap(file, 4096, number % 7 * 8192)
    most = max(most, resident() - before)
print(most)
"""


def test_replaced_arrays_of_mappings_do_not_pile_up():
    most = int(run(REPLACED))
    # 9,000 mappings take 7 MB; they took 40 while the arrays of 256 changes waited.
    assert most < 16 << 20


# --- index nodes


def test_shadows_far_apart_keep_few_nodes(cache, file):
    for number in range(8 * FRAMES):
        file.pread(1, number * LEAF)
    cache.settle()
    # A leaf for each page, 64 with shadows only, those above, and what waits for a grace period.
    assert nodes(cache) <= (FRAMES + 64) * (1 + 1 / 8) + 300
    cache.check()
    assert cache.stats().shadows <= 64 + 32


def test_dropped_pages_leave_few_nodes(cache, file):
    for number in range(4 * FRAMES):
        # Two pages a node: one is evicted and leaves a shadow, one is dropped.
        file.pread(1, number * LEAF)
        file.pread(1, (number - FRAMES // 4) % FRAMES * LEAF + PAGE)
    cache.drop_caches()
    cache.check()
    assert nodes(cache) <= 64 * (1 + 1 / 8) + 8


def test_nodes_of_files_that_nobody_closed_go_too(cache):
    for _ in range(300):
        file = cache.open_store(Store(zeros), 1 << 40, ra_pages=0)
        for number in range(10):
            file.pread(1, number * LEAF)
        with pytest.warns(ResourceWarning, match="unclosed file"):
            del file
    assert nodes(cache) <= 10 * 2 + 300 + 50


# --- bytes in flight


def test_a_large_window_is_read_in_pieces():
    reads = []

    def read_at(offset, n):
        reads.append((offset, n))
        return bytes(n)

    with specmm.PageCache("64MiB", io="inline") as cache:
        file = cache.open_store(Store(read_at), 1 << 30, ra_pages=4096)
        file.advise("willneed", 0, 16 << 20)
        stats = cache.stats()
        assert stats.bytes_in_flight == 0
        assert reads == [(offset, 1 << 20) for offset in range(0, 16 << 20, 1 << 20)]
        assert (stats.reads, stats.read_bytes, stats.frames_in_use) == (16, 16 << 20, 4096)
        cache.check()


def test_bytes_in_flight_are_capped_and_told():
    go_on = threading.Event()
    begun = []

    def read_at(_offset, n):
        begun.append(n)
        go_on.wait(60)
        return bytes(n)

    with specmm.PageCache("64MiB", io="threads") as cache:
        # Each store that may stall has workers of its own.
        files = [cache.open_store(Store(read_at), 1 << 30, ra_pages=4096) for _ in range(8)]
        for file in files:
            file.advise("willneed", 0, 8 << 20)
        deadline = time.monotonic() + 60
        while len(begun) < len(files) and time.monotonic() < deadline:
            time.sleep(0.01)
        told = cache.stats().bytes_in_flight
        go_on.set()
        assert told == sum(begun[: len(files)])
        # A 16th of the capacity, and 128 KiB for each reader that came too late for that.
        assert 2 << 20 <= told <= (4 << 20) + 8 * (128 << 10)
        cache.settle()
        assert cache.stats().bytes_in_flight == 0
        cache.check()


def test_pages_before_the_piece_that_failed_are_there():
    rng = random.Random()
    bad = rng.randrange(4096) * PAGE
    calls = []

    def read_at(offset, n):
        calls.append((offset, n))
        if offset <= bad < offset + n:
            raise OSError(5, "bad")
        return bytes(n)

    with specmm.PageCache("64MiB", io="inline") as cache:
        file = cache.open_store(Store(read_at), 16 << 20, ra_pages=4096)
        file.advise("willneed", 0, 16 << 20)
        failed = next((k for k, (offset, n) in enumerate(calls) if offset <= bad < offset + n), None)
        assert failed == len(calls) - 1, f"bad page at {bad}"
        # Readable page by page, but for the one.
        with pytest.raises(OSError, match="bad"):
            file.pread(1, bad)
        before = len(calls)
        file.pread(calls[failed][0], 0)
        assert len(calls) == before, "what was read before the failure is there"
        cache.check()
