"""No thread waits while it holds the interpreter: other threads go on, and nothing waits for itself."""

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import specmm
from samples import PAGE

CAPACITY = "4MiB"
PATIENCE = 30  # seconds; only a hang takes that long


class Gate:
    """A store whose reads wait until somebody opens the gate."""

    def __init__(self) -> None:
        self.reached = threading.Semaphore(0)
        self.open = threading.Event()

    def read_at(self, offset: int, n: int) -> bytes:
        self.reached.release()
        assert self.open.wait(PATIENCE), "the gate was never opened"
        return bytes([offset // PAGE % 256]) * n

    def truncate(self, size: int) -> None:
        """The gate has any size."""


class Slow:
    def read_at(self, offset: int, n: int) -> bytes:
        time.sleep(0.002)
        return bytes(n)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as pool:
        yield pool


@pytest.mark.parametrize("use", ["pread", "load", "touch"])
def test_a_busy_thread_goes_on_beside_cold_reads(cache, use):
    pages = 200
    done = threading.Event()
    spins = 0

    def spin() -> None:
        nonlocal spins
        while not done.is_set():
            spins += 1

    with cache.open_store(Slow(), pages * PAGE, ra_pages=0) as file, specmm.mm.Mm(cache) as mm:
        address = mm.mmap(file)
        busy = threading.Thread(target=spin)
        busy.start()
        try:
            match use:
                case "pread":
                    for page in range(pages):
                        file.pread(PAGE, page * PAGE)
                case "load":
                    for page in range(pages):
                        mm.load(address + page * PAGE, 1)
                case "touch":
                    mm.touch(address, pages * PAGE)
        finally:
            done.set()
            busy.join()
    # The reads take 0.4 s at least, and the interpreter is free for nearly all of it.
    assert spins > 100_000


class Paced:
    """A store whose every read lasts until a busy thread has made a thousand steps more."""

    STEPS = 1000

    def __init__(self) -> None:
        self.steps = 0
        self.wanted: int | None = None  # None: first another caller has to come
        self.reads = 0
        self.reached = threading.Semaphore(0)
        self.changed = threading.Condition()

    def step(self) -> None:
        with self.changed:
            self.steps += 1
            self.changed.notify_all()

    def another_comes(self) -> None:
        with self.changed:
            self.wanted = self.steps + self.STEPS

    def read_at(self, offset: int, n: int) -> bytes:
        self.reached.release()
        with self.changed:
            went_on = self.changed.wait_for(
                lambda: self.wanted is not None and self.steps >= self.wanted, PATIENCE
            )
            assert went_on, "the busy thread stands still"
            self.wanted = None
            self.reads += 1
        return bytes([offset // PAGE % 256]) * n


def use_page(use: str, file: specmm.File, mm: specmm.mm.Mm, address: int, page: int) -> bytes:
    """The first byte of a page, in one of the ways there are."""
    match use:
        case "pread":
            return file.pread(1, page * PAGE)
        case "preadinto":
            found = bytearray(1)
            file.preadinto(found, page * PAGE)
            return found
        case "gather":
            return file.gather([page * PAGE], 1)
        case "pin":
            with file.pin(page * PAGE, 1) as pin:
                return bytes(pin)
        case "raw":
            raw = file.as_raw()
            raw.seek(page * PAGE)
            return raw.read(1)
        case "touch":
            mm.touch(address + page * PAGE, 1)
        case "fault":
            mm.fault(address + page * PAGE)
    return mm.load(address + page * PAGE, 1)


@pytest.mark.parametrize("use", ["pread", "preadinto", "gather", "pin", "raw", "load", "touch", "fault"])
def test_a_busy_thread_keeps_its_pace_beside_cold_reads(cache, pool, use):
    """One thread reads a page, this one waits for it inside the core, and a third one's steps end the read.

    Whoever kept the interpreter meanwhile would keep the third one from its steps: nothing would ever end.
    """
    pages = 8
    store = Paced()
    done = threading.Event()

    def busy() -> None:
        while not done.is_set():
            store.step()

    with (
        cache.open_store(store, pages * PAGE, ra_pages=0) as file,
        specmm.mm.Mm(cache, fault_around=PAGE) as mm,
    ):
        address = mm.mmap(file)
        pool.submit(busy)
        try:
            for page in range(pages):
                first = pool.submit(use_page, use, file, mm, address, page)
                assert store.reached.acquire(timeout=PATIENCE)
                store.another_comes()
                assert use_page(use, file, mm, address, page) == bytes([page])
                assert first.result(PATIENCE) == bytes([page])
        finally:
            done.set()
    assert store.reads == pages
    assert store.steps >= pages * Paced.STEPS


@pytest.mark.parametrize("locking", ["speculative", "mmap_lock"])
def test_many_wait_for_one_page(cache, pool, locking):
    """Each waits for the page that the first one reads; none may keep the interpreter from the reader."""
    gate = Gate()
    with cache.open_store(gate, 8 * PAGE, ra_pages=0) as file, specmm.mm.Mm(cache, locking=locking) as mm:
        address = mm.mmap(file) + PAGE
        buffer = bytearray(10)
        waiting = [
            pool.submit(file.pread, 10, PAGE),
            pool.submit(file.preadinto, buffer, PAGE),
            pool.submit(mm.load, address, 10),
            pool.submit(mm.touch, address, PAGE),
            pool.submit(mm.fault, address),
            pool.submit(file.filemap_fault, 1, speculative=False),
            pool.submit(file.pread, 10, PAGE),
        ]
        assert gate.reached.acquire(timeout=PATIENCE)
        time.sleep(0.05)  # the others come to wait
        gate.open.set()
        results = [future.result(PATIENCE) for future in waiting]
    assert results[0] == results[2] == results[6] == b"\1" * 10 == buffer
    assert results[3].touches == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda cache, file, mm, address: file.truncate(PAGE),
        lambda cache, file, mm, address: cache.settle(),
        lambda cache, file, mm, address: cache.stats(),
        lambda cache, file, mm, address: cache.drop_caches(),
        lambda cache, file, mm, address: file.advise("dontneed"),
        lambda cache, file, mm, address: file.residency(),
        lambda cache, file, mm, address: file.readahead_state,
        lambda cache, file, mm, address: file.close(),
        lambda cache, file, mm, address: mm.mmap(file),
        lambda cache, file, mm, address: mm.munmap(address, PAGE),
        lambda cache, file, mm, address: mm.madvise(address, PAGE, "dontneed"),
        lambda cache, file, mm, address: mm.pagemap(address, PAGE),
        lambda cache, file, mm, address: mm.close(),
        lambda cache, file, mm, address: cache.close(),
    ],
)
@pytest.mark.parametrize("read", ["pread", "load"])
def test_whatever_is_called_during_a_read_leaves_the_interpreter_free(pool, call, read):
    gate = Gate()
    cache = specmm.PageCache("4MiB")
    file = cache.open_store(gate, 64 * PAGE)
    mm = specmm.mm.Mm(cache)
    address = mm.mmap(file)
    reading = pool.submit(file.pread, 10, 0) if read == "pread" else pool.submit(mm.load, address, 10)
    assert gate.reached.acquire(timeout=PATIENCE)
    calling = pool.submit(call, cache, file, mm, address)
    time.sleep(0.02)  # long enough to come to wait, if it waits at all
    gate.open.set()
    calling.result(PATIENCE)
    try:
        assert reading.result(PATIENCE) in (b"\0" * 10, b"")
    except specmm.SpecmmError as error:
        # What was taken away from under the read is missing there.
        assert isinstance(error, specmm.ClosedError | specmm.SegmentationError | specmm.BusError)
    pool.submit(cache.close).result(PATIENCE)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_the_last_reference_may_go_while_a_worker_reads():
    """Dropping the cache joins workers, and a worker waits for the interpreter."""
    gate = Gate()
    cache = specmm.PageCache("4MiB")
    file = cache.open_store(gate, 64 * PAGE)
    opener = threading.Timer(0.05, gate.open.set)
    reader = threading.Thread(target=file.pread, args=(10, 0))
    reader.start()
    assert gate.reached.acquire(timeout=PATIENCE)
    opener.start()
    del file, cache
    reader.join(PATIENCE)
    assert not reader.is_alive()
    opener.join()
    gc.collect()


def test_threads_read_different_pages_at_a_time(cache, pool):
    """Reads of different pages do not wait for each other."""
    gate = Gate()
    with cache.open_store(gate, 8 * PAGE, ra_pages=0) as file:
        reading = [pool.submit(file.pread, 1, page * PAGE) for page in range(4)]
        for _ in reading:
            assert gate.reached.acquire(timeout=PATIENCE)
        gate.open.set()
        assert [future.result(PATIENCE) for future in reading] == [b"\0", b"\1", b"\2", b"\3"]
