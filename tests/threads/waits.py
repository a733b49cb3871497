"""What waits for a store: every call that may, stores that do not answer, and the ways to end the wait.

Run as a program it makes each call once, in a cache of its own, and prints what came of it as a line of JSON.
test_waits.py runs it for every store and way at a time.

    python tests/threads/waits.py STORE WAY
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import specmm

SIZE = 64 * specmm.PAGE_SIZE
BEGIN = 0.08
"""Seconds after which a wait is ended from outside, and which a store with a time-out has."""

WAYS = ("ctrl-c", "timeout", "close")


class Store:
    """Zeros; a read sleeps until it is woken, if that is ever, for at most `patience` seconds."""

    def __init__(self, patience: float | None) -> None:
        self.patience = patience
        self.reached = threading.Event()
        self.woken = threading.Event()

    def read_at(self, offset: int, n: int) -> bytes:
        self.reached.set()
        self.woken.wait(self.patience)
        return bytes(n)

    def truncate(self, size: int) -> None:
        """Any size is right."""


class Sleeping(Store):
    def read_at(self, offset: int, n: int) -> bytes:
        self.reached.set()
        if not self.woken.is_set():
            time.sleep(30)
        return bytes(n)


class Raising(Store):
    def read_at(self, offset: int, n: int) -> bytes:
        self.reached.set()
        raise ConnectionError("gone")


STORES: dict[str, Callable[[], Store]] = {
    "sleeps": lambda: Sleeping(None),
    "never": lambda: Store(None),
    "late": lambda: Store(0.25),
    "raises": lambda: Raising(None),
}


def mapped(cache: specmm.PageCache, file: specmm.File) -> tuple[specmm.mm.Mm, int]:
    mm = specmm.mm.Mm(cache)
    return mm, mm.mmap(file)


def fault(cache: specmm.PageCache, file: specmm.File) -> object:
    mm, address = mapped(cache, file)
    return mm.fault(address)


def load(cache: specmm.PageCache, file: specmm.File) -> object:
    mm, address = mapped(cache, file)
    return mm.load(address, 1)


def store(cache: specmm.PageCache, file: specmm.File) -> object:
    mm = specmm.mm.Mm(cache)
    return mm.store(mm.mmap(file, prot="rw", shared=False), b"x")


beside: list[threading.Thread] = []


def beside_a_load(
    change: Callable[[specmm.mm.Mm, int], object], cache: specmm.PageCache, file: specmm.File
) -> object:
    """Changes an address space in which another thread waits for a page."""
    mm, address = mapped(cache, file)

    def load() -> None:
        with contextlib.suppress(specmm.SpecmmError, TimeoutError):
            mm.load(address, 1)

    beside.append(threading.Thread(target=load))
    beside[-1].start()
    time.sleep(0.02)
    return change(mm, address)


def touch(cache: specmm.PageCache, file: specmm.File) -> object:
    mm, address = mapped(cache, file)
    return mm.touch(address, SIZE)


# Those that bring pages, and so wait for them.
READS: dict[str, Callable[[specmm.PageCache, specmm.File], object]] = {
    "pread": lambda cache, file: file.pread(10, 5000),
    "pread of all": lambda cache, file: file.pread(SIZE, 0),
    "preadinto": lambda cache, file: file.preadinto(bytearray(100_000), 0),
    "gather": lambda cache, file: file.gather([0, 20_000], 10),
    "pin": lambda cache, file: file.pin(0, 10),
    "raw": lambda cache, file: file.as_raw().read(10),
    "filemap_fault": lambda cache, file: file.filemap_fault(0, speculative=False),
    "fault": fault,
    "load": load,
    "store": store,
    "touch": touch,
}
# Those that are called while a read is under way.
OTHERS: dict[str, Callable[[specmm.PageCache, specmm.File], object]] = {
    "advise": lambda cache, file: file.advise("willneed"),
    "truncate": lambda cache, file: file.truncate(0),
    "grow": lambda cache, file: file.truncate(2 * SIZE),
    "revalidate": lambda cache, file: file.revalidate(),
    "residency": lambda cache, file: file.residency(),
    "settle": lambda cache, file: cache.settle(),
    "check": lambda cache, file: cache.check(),
    "stats": lambda cache, file: cache.stats(),
    "reclaim": lambda cache, file: cache.reclaim(10),
    "drop_caches": lambda cache, file: cache.drop_caches(),
    "dontneed": lambda cache, file: file.advise("dontneed"),
    "munmap": partial(beside_a_load, lambda mm, address: mm.munmap(address, SIZE)),
    "mprotect": partial(beside_a_load, lambda mm, address: mm.mprotect(address, SIZE, "r")),
    "close of the address space": partial(beside_a_load, lambda mm, address: mm.close()),
    "close of the file": lambda cache, file: file.close(),
    "close of the cache": lambda cache, file: cache.close(),
}


def ending(way: str, cache: specmm.PageCache, file: specmm.File, done: threading.Event) -> None:
    """Ends the wait of the main thread, unless it is over by then."""
    if done.wait(BEGIN):
        return
    if way == "ctrl-c":
        os.kill(os.getpid(), signal.SIGINT)
    elif way == "close":
        file.close()
        cache.close()


@contextlib.contextmanager
def ended_by(way: str, cache: specmm.PageCache, file: specmm.File) -> Iterator[None]:
    done = threading.Event()
    thread = threading.Thread(target=ending, args=(way, cache, file, done))
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def one(name: str, kind: str, way: str) -> dict[str, object]:
    made = STORES[kind]()
    cache = specmm.PageCache("1MiB")
    file = cache.open_store(made, SIZE, name=kind, timeout=BEGIN if way == "timeout" else None)
    call = READS.get(name) or OTHERS[name]
    if name in OTHERS:
        file.advise("willneed", 0, 1)
        assert made.reached.wait(10)
    start = time.monotonic()
    try:
        with ended_by(way, cache, file):
            call(cache, file)
        came = "returned"
    except BaseException as error:
        came = type(error).__name__
    seconds = time.monotonic() - start
    # Who was asleep comes back, harmlessly; but for those in `time.sleep`, which the process leaves behind.
    made.woken.set()
    if kind != "sleeps" and not cache.closed:
        for thread in beside:
            thread.join()
        limit = time.monotonic() + 10
        while cache.stats().reads_abandoned:
            assert time.monotonic() < limit, "an abandoned read never came back"
            time.sleep(0.005)
        cache.settle()
        cache.check()
        if kind != "raises" and not file.closed:
            assert file.pread(file.size, 0) == bytes(file.size)
            cache.check()
    start = time.monotonic()
    cache.close()
    for thread in beside:
        thread.join()
    return {"call": name, "came": came, "seconds": seconds, "closing": time.monotonic() - start}


if __name__ == "__main__":
    for name in [*READS, *OTHERS]:
        print(json.dumps(one(name, *sys.argv[1:])), flush=True)
    print(json.dumps({"exit": time.time()}), flush=True)
