"""Real files under many threads at once: what is read was there, and at the end everything adds up.

One thread shrinks and grows a file at random places, one maps and unmaps, others load, store, touch and read.
Each byte of a file is a function of its offset and never zero; a byte that was cut off and grown again may be
zero until this test has written it back, which it does behind specmm's back, as another program would.
"""

import errno
import os
import pathlib
import random
import threading
import time
from collections.abc import Callable

import pytest

import specmm

PAGE = specmm.PAGE_SIZE
PAGES = 96
SIZE = PAGES * PAGE + 1234
KEPT = 8 * PAGE + 567  # never cut off
PATTERN = bytes(1 + (i * 31 + (i // PAGE) * 17) % 250 for i in range(SIZE))
TAG = 255  # in no file: what a private store writes
SECONDS = 20.0 if "SPECMM_DEEP" in os.environ else 1.5


def check_bytes(data: bytes, offset: int, also: bytes = b"\0") -> None:
    """Each byte is that of its offset, or one of `also` where the file was cut off meanwhile."""
    expected = PATTERN[offset : offset + len(data)]
    if data == expected:
        return
    kept = max(0, min(len(data), KEPT - offset))
    stable = set(also) - {0}
    for i, (got, wanted) in enumerate(zip(data, expected, strict=True)):
        allowed = stable if i < kept else also
        assert got == wanted or got in allowed, f"byte {got} at offset {offset + i}, not {wanted}"


class Stress:
    """Threads that each repeat one thing until the time is up; the first failure ends all."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.threads: list[threading.Thread] = []
        self.failures: list[BaseException] = []
        self.done = threading.Event()
        self.counts: dict[str, int] = {}

    def repeat(self, name: str, step: Callable[[random.Random], None]) -> None:
        rng = random.Random(f"{self.seed} {name}")
        self.counts[name] = 0

        def run() -> None:
            try:
                while not self.done.is_set():
                    step(rng)
                    self.counts[name] += 1
            except BaseException as failure:
                self.failures.append(failure)
                self.done.set()

        self.threads.append(threading.Thread(target=run, name=name))

    def run(self, seconds: float) -> None:
        for thread in self.threads:
            thread.start()
        self.done.wait(seconds)
        self.done.set()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive(), f"{thread.name} hangs"
        if self.failures:
            raise ExceptionGroup("stress", [e for e in self.failures if isinstance(e, Exception)])
        assert all(self.counts.values()), self.counts


def some_pages(rng: random.Random) -> tuple[int, int]:
    """A first page and a number of pages, all of them in the file."""
    first = rng.randrange(PAGES)
    return first, rng.randrange(1, min(20, PAGES - first) + 1)


def past_the_end(error: specmm.BusError) -> None:
    """The one failure that truncation may cause: never a read that went wrong."""
    assert error.__cause__ is None, repr(error.__cause__)
    assert error.offset >= error.size >= KEPT
    assert error.index == error.offset // PAGE


@pytest.mark.parametrize("locking", ["speculative", "mmap_lock"])
@pytest.mark.parametrize("io", ["threads", "inline"])
@pytest.mark.parametrize("fault_around", ["64KiB", "4KiB"])
def test_everything_at_once(tmp_path: pathlib.Path, locking, io, fault_around):
    cut = tmp_path / "cut"
    steady = tmp_path / "steady"
    for path in (cut, steady):
        path.write_bytes(PATTERN)
    stress = Stress(seed=len(locking) * len(io) * len(fault_around))
    cache = specmm.PageCache("8MiB", io=io)
    file = cache.open(cut, "r+b")
    other = cache.open(cut, ra_pages=4)
    quiet = cache.open(steady)
    mm = specmm.mm.Mm(cache, locking=locking, fault_around=fault_around)
    shared = mm.mmap(file, SIZE)
    mixed = mm.mmap(other, SIZE, prot="rw", shared=False)
    calm = mm.mmap(quiet)

    def load(rng: random.Random) -> None:
        offset = rng.randrange(SIZE)
        n = rng.choice([1, 8, 100, PAGE, 3 * PAGE])
        n = min(n, SIZE - offset)
        try:
            check_bytes(mm.load(shared + offset, n), offset)
        except specmm.BusError as error:
            past_the_end(error)

    def load_calm(rng: random.Random) -> None:
        offset = rng.randrange(SIZE - 8)
        assert mm.load(calm + offset, 8) == PATTERN[offset : offset + 8]

    def touch(rng: random.Random) -> None:
        first, pages = some_pages(rng)
        try:
            mm.touch(rng.choice([shared, mixed]) + first * PAGE, pages * PAGE)
        except specmm.BusError as error:
            past_the_end(error)

    def store(rng: random.Random) -> None:
        offset = rng.randrange(SIZE)
        try:
            mm.store(mixed + offset, bytes([TAG]))
            check_bytes(mm.load(mixed + offset, 1), offset, bytes([0, TAG]))
        except specmm.BusError as error:
            past_the_end(error)

    def read(rng: random.Random) -> None:
        offset = rng.randrange(SIZE)
        try:
            data = rng.choice([file, other]).pread(rng.choice([1, 100, PAGE, 5 * PAGE]), offset)
            check_bytes(data, offset)
        except OSError as error:
            # The other program never lets the file rest.
            assert error.errno == errno.ESTALE
        offset = rng.randrange(SIZE - PAGE)
        buffer = bytearray(PAGE)
        assert quiet.preadinto(buffer, offset) == PAGE
        assert buffer == PATTERN[offset : offset + PAGE]

    def truncate(rng: random.Random) -> None:
        at = rng.randrange(KEPT, SIZE)
        file.truncate(at)
        assert file.size == at
        file.truncate(SIZE)
        # Another program writes back what was lost; specmm sees it once the pages are cut off or dropped.
        with cut.open("r+b") as outside:
            outside.seek(at)
            outside.write(PATTERN[at:])

    def advise(rng: random.Random) -> None:
        first, pages = some_pages(rng)
        address = rng.choice([shared, mixed, calm]) + first * PAGE
        advice = rng.choice(["dontneed", "random", "sequential", "normal", "willneed"])
        mm.madvise(address, pages * PAGE, advice)
        rng.choice([file, other, quiet]).advise(rng.choice(["dontneed", "willneed", "random", "normal"]))
        time.sleep(0.001)

    def map_and_unmap(rng: random.Random) -> None:
        first, pages = some_pages(rng)
        address = mm.mmap(quiet, pages * PAGE, first * PAGE, prot=rng.choice(["r", "rw"]), shared=False)
        offset = rng.randrange(pages * PAGE - 8)
        start = first * PAGE + offset
        assert mm.load(address + offset, 8) == PATTERN[start : start + 8]
        if pages > 2:
            mm.mprotect(address + PAGE, PAGE, "rw")
            mm.store(address + PAGE, b"private")
            assert mm.load(address + PAGE, 7) == b"private"
            mm.munmap(address + PAGE, PAGE)
        mm.munmap(address, pages * PAGE)

    for number in range(2):
        stress.repeat(f"load {number}", load)
    stress.repeat("load calm", load_calm)
    stress.repeat("touch", touch)
    stress.repeat("store", store)
    stress.repeat("read", read)
    stress.repeat("truncate", truncate)
    stress.repeat("advise", advise)
    stress.repeat("map and unmap", map_and_unmap)
    stress.run(SECONDS)

    # Everything adds up when nothing moves.
    cache.settle()
    cache.check()
    events = mm.vm_events()
    assert events["spf_attempt"] == events["spf_commit"] + events["spf_abort"]
    causes = {name: count for name, count in events.items() if name.startswith("spf_abort_")}
    assert events["spf_abort"] == sum(causes.values())
    assert (events["spf_commit"] > 0) == (locking == "speculative")
    assert events["pgfault"] >= events["maj_flt"] + events["min_flt"] > 0

    # What was read last is what the file holds.
    assert quiet.pread(SIZE, 0) == PATTERN == mm.load(calm, SIZE)
    cache.drop_caches()
    mm.close()
    cache.drop_caches()
    assert file.pread(SIZE, 0) == cut.read_bytes() == PATTERN

    # And nothing is left behind.
    for each in (file, other, quiet):
        each.close()
    cache.settle()
    cache.check()
    stats = cache.stats()
    assert (stats.frames_in_use, stats.private_frames, stats.read_errors) == (0, 0, 0)
    assert stats.reads > 0
    cache.close()


def test_files_come_and_go(tmp_path: pathlib.Path):
    """Opens, maps and closes of the same files from all threads: only the last user lets go of the pages."""
    paths = [tmp_path / str(number) for number in range(3)]
    for path in paths:
        path.write_bytes(PATTERN)
    stress = Stress(seed=1)
    cache = specmm.PageCache("4MiB")

    def use(rng: random.Random) -> None:
        with (
            cache.open(rng.choice(paths), ra_pages=rng.choice([0, 4, 32])) as file,
            specmm.mm.Mm(cache) as mm,
        ):
            offset = rng.randrange(SIZE - 100)
            assert file.pread(100, offset) == PATTERN[offset : offset + 100]
            address = mm.mmap(file)
            file.close()
            assert mm.load(address + offset, 100) == PATTERN[offset : offset + 100]

    for number in range(6):
        stress.repeat(f"use {number}", use)
    stress.run(SECONDS)
    cache.settle()
    cache.check()
    assert cache.stats().frames_in_use == 0
    cache.close()
