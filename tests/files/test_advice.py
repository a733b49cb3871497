"""What each advice changes, by counters and residency: none of it is measured in time."""

import threading

import pytest

import specmm
from samples import PAGE

PAGES = 128


class Log:
    """A store that keeps which pages were read, one range for each read."""

    def __init__(self) -> None:
        self.reads: list[tuple[int, int]] = []

    def read_at(self, offset: int, n: int) -> bytes:
        self.reads.append((offset // PAGE, -(-n // PAGE)))
        return bytes(n)

    @property
    def pages(self) -> list[int]:
        return sorted(first + page for first, count in self.reads for page in range(count))


@pytest.fixture
def store():
    return Log()


@pytest.fixture
def file(cache, store):
    with cache.open_store(store, PAGES * PAGE) as file:
        yield file


def resident(file) -> list[int]:
    return [page for page, there in enumerate(file.residency()) if there]


def scan(cache, file, pages: int) -> None:
    for page in range(pages):
        file.pread(PAGE, page * PAGE)
        cache.settle()


def test_without_advice_a_scan_reads_ahead_in_growing_windows(cache, store, file):
    scan(cache, file, 40)
    assert max(count for _, count in store.reads) == 32
    assert len(store.reads) < 10
    assert max(resident(file)) > 40


def test_random_reads_nothing_ahead(cache, store, file):
    file.advise("random")
    scan(cache, file, 20)
    file.pread(PAGE + 1, 50 * PAGE)
    cache.settle()
    assert store.pages == resident(file) == [*range(20), 50, 51]
    assert file.readahead_state.size == 0, "there is no window"
    file.advise("normal")
    scan(cache, file, 26)
    assert len(resident(file)) > 28


def test_sequential_doubles_the_window(cache, store, file):
    file.advise("sequential")
    assert file.readahead_state.ra_pages == 64
    scan(cache, file, 80)
    assert max(count for _, count in store.reads) == 64
    file.advise("normal")
    assert file.readahead_state.ra_pages == 32


def test_sequential_holds_for_this_open_alone(cache, path):
    with cache.open(path) as file, cache.open(path) as other:
        file.advise("sequential")
        assert (file.readahead_state.ra_pages, other.readahead_state.ra_pages) == (64, 32)


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, None, range(PAGES)),
        (10 * PAGE, 5 * PAGE, range(10, 15)),
        (10 * PAGE + 1, 5 * PAGE, range(10, 16)),
        (120 * PAGE, 1 << 30, range(120, PAGES)),
        (10 * PAGE, 0, []),
        (PAGES * PAGE, None, []),
    ],
)
def test_willneed_has_the_range_there_before_any_read(cache, store, file, offset, length, expected):
    before = cache.stats()
    file.advise("willneed", offset, length)
    cache.settle()
    assert resident(file) == store.pages == list(expected)
    reads = len(store.reads)
    for page in expected:
        file.pread(PAGE, page * PAGE)
    assert len(store.reads) == reads, "reading it reads nothing more"
    after = cache.stats()
    assert after.misses == before.misses
    assert after.hits - before.hits == len(expected)


def test_willneed_serves_faults_too(cache, store, file):
    file.advise("willneed", 0, 16 * PAGE)
    cache.settle()
    reads = len(store.reads)
    with specmm.mm.Mm(cache, fault_around=PAGE) as mm:
        report = mm.touch(mm.mmap(file), 16 * PAGE)
    assert (report.touches, report.major) == (16, 0)
    assert len(store.reads) == reads


def test_willneed_does_not_ask_for_more_than_there_is_room(store):
    with specmm.PageCache(16 * PAGE) as cache, cache.open_store(store, PAGES * PAGE) as file:
        file.advise("willneed")
        cache.settle()
        assert 0 < len(resident(file)) <= 16
        assert 0 in resident(file), "the beginning was not pushed out again"


@pytest.mark.parametrize(
    ("offset", "length", "gone"),
    [
        (0, None, range(PAGES)),
        (10 * PAGE, 5 * PAGE, range(10, 15)),
        # Pages that the range holds only part of stay.
        (10 * PAGE + 1, 5 * PAGE, range(11, 15)),
        (120 * PAGE, 1 << 30, range(120, PAGES)),
        (10 * PAGE + 1, PAGE - 2, []),
    ],
)
def test_dontneed_drops_the_range_and_a_later_read_reads_again(cache, store, file, offset, length, gone):
    file.advise("willneed")
    cache.settle()
    frames = cache.stats().frames_in_use
    file.advise("dontneed", offset, length)
    assert resident(file) == [page for page in range(PAGES) if page not in gone]
    assert frames - cache.stats().frames_in_use == len(gone), "the frames are free again"
    store.reads.clear()
    file.advise("random")
    for page in range(PAGES):
        file.pread(PAGE, page * PAGE)
    assert store.pages == list(gone)


def test_dontneed_leaves_what_is_mapped(cache, store, file):
    file.advise("willneed", 0, 8 * PAGE)
    cache.settle()
    with specmm.mm.Mm(cache, fault_around=PAGE) as mm:
        mm.load(mm.mmap(file) + 3 * PAGE, 1)
        file.advise("dontneed")
        assert resident(file) == [3]
    file.advise("dontneed")
    assert resident(file) == []


def test_what_a_range_needs_is_read_without_the_mmap_lock():
    begun, go_on = threading.Event(), threading.Event()

    class Slow:
        def read_at(self, offset: int, n: int) -> bytes:
            begun.set()
            assert go_on.wait(60)
            return bytes(n)

    with specmm.PageCache("1MiB", io="inline") as cache, specmm.mm.Mm(cache) as mm:
        file, other = (cache.open_store(each, PAGES * PAGE) for each in (Slow(), Log()))
        addr = mm.mmap(file)
        reader = threading.Thread(target=mm.madvise, args=(addr, 8 * PAGE, "willneed"))
        reader.start()
        try:
            assert begun.wait(60)
            # Each of these takes it for writing; the mapping that is read for goes.
            mm.mmap(other)
            mm.munmap(addr, PAGES * PAGE)
            assert reader.is_alive()
        finally:
            go_on.set()
            reader.join()
        assert resident(file) == list(range(8))
