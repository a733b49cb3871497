"""Calls under a limit on the address space, each in a child.

    python tests/memory/memory_limits.py SEED COUNT

Prints one line a child: what was called, under how many bytes more than the process had, and how it ended.
"""

import math
import os
import random
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import specmm

PAGE = specmm.PAGE_SIZE
FINE = 0
REFUSED = 3
WRONG = 4


class Zeros:
    """A store of any size."""

    def read_at(self, _offset: int, n: int) -> bytes:
        return bytes(n)


def log_uniform(draw: random.Random, low: float, high: float) -> int:
    return int(math.exp(draw.uniform(math.log(low), math.log(high))))


def create(draw: random.Random) -> None:
    caches = [
        specmm.PageCache(log_uniform(draw, PAGE, 1 << 42), io="inline") for _ in range(draw.randint(1, 4))
    ]
    for cache in caches:
        cache.check()


def prepare(draw: random.Random) -> None:
    """Two caches made before there is a limit; their workers begin under it."""
    for capacity in (1 << 20, 1 << 30):
        kept.append(specmm.PageCache(capacity, io=draw.choice(["inline", "threads"])))


def opened(draw: random.Random) -> specmm.File:
    """A sparse file in one of those, or in a cache made under the limit."""
    if draw.random() < 0.5:
        kept.append(specmm.PageCache(log_uniform(draw, 1 << 20, 1 << 30), io="inline"))
    else:
        kept.append(draw.choice(kept))
    return kept[-1].open_store(Zeros(), 1 << 44, ra_pages=draw.choice([0, 32, 4096]))


def willneed(draw: random.Random) -> None:
    opened(draw).advise("willneed", 0, log_uniform(draw, PAGE, 1 << 30))


def gather(draw: random.Random) -> None:
    rows = log_uniform(draw, 1, 1 << 12)
    opened(draw).gather([draw.randrange(1 << 43) for _ in range(rows)], log_uniform(draw, 1, 1 << 20))


def gather_from_range(draw: random.Random) -> None:
    opened(draw).gather(range(log_uniform(draw, 1, 1 << 22)), 1)


def reads(draw: random.Random) -> None:
    file = opened(draw)
    for _ in range(8):
        file.pread(log_uniform(draw, 1, 1 << 26), draw.randrange(1 << 43))


def sparse_reads(draw: random.Random) -> None:
    file = opened(draw)
    for _ in range(log_uniform(draw, 1, 1 << 12)):
        file.pread(1, draw.randrange(1 << 43))


def touches(draw: random.Random) -> None:
    file = opened(draw)
    mm = specmm.mm.Mm(kept[-1])
    address = mm.mmap(file)
    mm.touch(address, 1 << 44, stride=log_uniform(draw, 1 << 32, 1 << 38))
    mm.munmap(address, 1 << 44)
    mm.close()


def stores(draw: random.Random) -> None:
    file = opened(draw)
    mm = specmm.mm.Mm(kept[-1])
    address = mm.mmap(file, prot="rw", shared=False)
    mm.touch(address, 1 << 44, stride=log_uniform(draw, 1 << 32, 1 << 38), write=True)


def loads(draw: random.Random) -> None:
    file = opened(draw)
    mm = specmm.mm.Mm(kept[-1])
    mm.load(mm.mmap(file), log_uniform(draw, 1, 1 << 26))


def tells(draw: random.Random) -> None:
    file = opened(draw)
    mm = specmm.mm.Mm(kept[-1])
    address = mm.mmap(file)
    file.residency(0, log_uniform(draw, 1, 1 << 28))
    mm.pagemap(address, PAGE * log_uniform(draw, 1, 1 << 28))


def pieces(draw: random.Random) -> None:
    file = opened(draw)
    mm = specmm.mm.Mm(kept[-1])
    address = mm.mmap(file, 1 << 32)
    for piece in range(0, log_uniform(draw, 1, 1 << 10), 2):
        mm.madvise(address + piece * PAGE, PAGE, "random")


kept: list[specmm.PageCache] = []
CALLS: list[Callable[[random.Random], None]] = [
    create,
    willneed,
    gather,
    gather_from_range,
    reads,
    sparse_reads,
    touches,
    stores,
    loads,
    tells,
    pieces,
]


def address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def child(call: Callable[[random.Random], None], draw: random.Random, room: int) -> int:
    prepare(draw)
    limit = address_space() + room
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        call(draw)
        code = FINE
    except (MemoryError, OSError, specmm.SpecmmError):
        code = REFUSED
    except BaseException:  # a panic is none of Exception
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        traceback.print_exc()
        return WRONG
    for cache in kept:
        cache.check()
    return code


def main(seed: int, count: int) -> None:
    for number in range(seed, seed + count):
        draw = random.Random(number)
        call = draw.choice(CALLS)
        room = log_uniform(draw, 64 << 10, 64 << 20)
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            code = WRONG
            try:
                code = child(call, draw, room)
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        print(number, call.__name__, room, os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
