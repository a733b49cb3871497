"""What a busy second thread does while the first reads pages that are not cached, beside what it does alone.

    python benches/python/pace.py [--seconds 3] [--megabytes 512]

The first thread reads eight bytes of random pages of a file that was dropped from the kernel's page cache,
through specmm, os.pread and mmap in turn; the second counts. A fault of an mmap keeps the interpreter while
it waits for the disk.
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import specmm

PAGE = specmm.PAGE_SIZE
ROUNDS = 5


def pace(read: Callable[[int], object] | None, pages: list[int], seconds: float) -> tuple[float, float]:
    """Steps of the second thread and reads of the first, a second."""
    over = threading.Event()
    steps = 0

    def count() -> None:
        nonlocal steps
        while not over.is_set():
            steps += 1

    second = threading.Thread(target=count)
    began = time.perf_counter()
    second.start()
    done = 0
    if read is None:
        time.sleep(seconds)
    else:
        for page in pages:
            read(page * PAGE)
            done += 1
            if time.perf_counter() - began > seconds:
                break
    spent = time.perf_counter() - began
    over.set()
    second.join()
    return steps / spent, done / spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3, help="for each way of reading")
    parser.add_argument(
        "--megabytes", type=int, default=512, help="of the file, made in the temporary folder"
    )
    options = parser.parse_args()
    size = options.megabytes << 20
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "data")
        with path.open("wb") as out:
            for _ in range(options.megabytes):
                out.write(os.urandom(1 << 20))
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        mapped = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
        mapped.madvise(mmap.MADV_RANDOM)
        cache = specmm.PageCache("64MiB")
        file = cache.open(path)
        file.advise("random")
        ways = {
            "alone": None,
            "specmm": lambda offset: file.pread(8, offset),
            "os.pread": lambda offset: os.pread(descriptor, 8, offset),
            "mmap": lambda offset: mapped[offset : offset + 8],
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        rng = random.Random(1)
        for number in range(ROUNDS):
            for name, read in ways.items():
                print(f"round {number + 1}/{ROUNDS} {name:10}", end="\r", file=sys.stderr)
                mapped.madvise(mmap.MADV_DONTNEED)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                cache.drop_caches()
                pages = rng.sample(range(size // PAGE), size // PAGE)
                found[name].append(pace(read, pages, options.seconds / ROUNDS))
        alone = statistics.median(steps for steps, _ in found["alone"])
        print("| reads through | reads a second | steps of the second thread, of those it makes alone |")
        print("|---|--:|--:|")
        for name, rounds in found.items():
            steps, reads = (statistics.median(each) for each in zip(*rounds, strict=True))
            print(f"| {name} | {reads:,.0f} | {steps / alone:.2f} |")


if __name__ == "__main__":
    main()
