"""Everything that reads, at once and for long, in a cache far smaller than its files; memory is watched.

    python tests/memory/soak.py [--seconds 60] [--capacity 32MiB] [--reads specmm|mmap]

Prints one line of JSON: what was done, the bound, the most of what grows beside it (each held against its own
bound: `exceeded` names those that went beyond), what all that allows, and the most that was resident beyond
what the process had before. `--reads mmap` does the reading through Python's mmap instead: it shows what the
watch would find.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import specmm

PAGE = specmm.PAGE_SIZE
FILES = 3
FILE_PAGES = 20_000
# A file with nothing in it, for reads and touches that are far apart.
SPARSE = 256 << 30
LEAF = 2 << 20
# Beside the frames: what a frame's descriptor and lists take, each index node and each page table.
FRAME, NODE, TABLE = 80, 576, 4096
# And what each thread takes: its stack, its arena, the bytes that it was given and compares.
THREAD = 1 << 20


def bounds(frames: int, threads: int, address_spaces: int) -> dict[str, int]:
    """What docs/reclaim.md says of each."""
    return {
        "xarray_nodes": 6 * (frames + max(frames // 8, 64)) + 512,
        "page_tables": frames + 64 * address_spaces,
        "bytes_in_flight": max(frames // 16 * PAGE, 1 << 20) + (128 << 10) * threads,
    }


def page_bytes(file: int, index: int) -> bytes:
    """What a page has: its own name, over and over."""
    return (file * FILE_PAGES + index + 1).to_bytes(8, "little") * (PAGE // 8)


def resident() -> int:
    """Bytes of this process in memory, mapped files included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


class Work:
    """The files, and the ways to read them."""

    def __init__(self, folder: Path, capacity: str) -> None:
        self.paths = []
        for file in range(FILES):
            path = folder / f"file-{file}"
            with path.open("wb") as out:
                for index in range(FILE_PAGES):
                    out.write(page_bytes(file, index))
            self.paths.append(path)
        self.sparse = folder / "sparse"
        with self.sparse.open("wb") as out:
            out.truncate(SPARSE)
        self.cache = specmm.PageCache(capacity, frame_timeout=60)
        self.far = self.cache.open(self.sparse, ra_pages=0)
        self.files = [self.cache.open(path) for path in self.paths]
        self.mm = specmm.mm.Mm(self.cache)
        self.maps = [self.mm.mmap(file) for file in self.files]
        self.far_mm = specmm.mm.Mm(self.cache)
        self.far_map = self.far_mm.mmap(self.far)
        self.done: Counter[str] = Counter()

    def judge(self, data: bytes, file: int, index: int, within: int = 0) -> None:
        expected = page_bytes(file, index)[within:] + page_bytes(file, index + 1)
        if data != expected[: len(data)]:
            raise AssertionError(f"wrong bytes in page {index} of file {file}")

    def somewhere(self, rng: random.Random) -> tuple[int, int]:
        """One page in three is of a few hundred, the others are anywhere."""
        pages = 300 if rng.random() < 0.33 else FILE_PAGES - 1
        return rng.randrange(FILES), rng.randrange(pages)

    def scattered(self, rng: random.Random) -> None:
        file, index = self.somewhere(rng)
        within = rng.randrange(PAGE // 8) * 8
        self.judge(self.files[file].pread(8, index * PAGE + within), file, index, within)

    def in_order(self, rng: random.Random) -> None:
        file, index = self.somewhere(rng)
        for each in range(index, min(index + 300, FILE_PAGES - 1)):
            self.judge(self.files[file].pread(PAGE, each * PAGE), file, each)

    def large(self, rng: random.Random) -> None:
        file, index = self.somewhere(rng)
        data = self.files[file].pread(1 << 20, index * PAGE)
        self.judge(data[:PAGE], file, index)
        self.judge(data[-PAGE:], file, index + len(data) // PAGE - 1)

    def gather(self, rng: random.Random) -> None:
        file = rng.randrange(FILES)
        pages = [self.somewhere(rng)[1] for _ in range(200)]
        rows = self.files[file].gather([page * PAGE for page in pages], 16)
        for number, page in enumerate(pages):
            self.judge(bytes(rows[number * 16 : number * 16 + 16]), file, page)

    def mapped(self, rng: random.Random) -> None:
        file, index = self.somewhere(rng)
        self.judge(self.mm.load(self.maps[file] + index * PAGE, 16), file, index)

    def map_anew(self, rng: random.Random) -> None:
        file, index = self.somewhere(rng)
        address = self.mm.mmap(self.files[file])
        self.mm.touch(address, 400 * PAGE)
        self.judge(self.mm.load(address + index * PAGE, 8), file, index)
        self.mm.munmap(address, FILE_PAGES * PAGE)

    def pinned(self, rng: random.Random) -> None:
        pins = []
        for _ in range(20):
            file, index = self.somewhere(rng)
            pins.append((self.files[file].pin(index * PAGE, PAGE), file, index))
        self.scattered(rng)
        for pin, file, index in pins:
            self.judge(bytes(pin), file, index)

    def opened_anew(self, rng: random.Random) -> None:
        file, index = self.somewhere(rng)
        with self.cache.open(self.paths[file], ra_pages=rng.choice([0, 8, 256])) as again:
            again.advise("willneed", index * PAGE, 100 * PAGE)
            self.judge(again.pread(PAGE, index * PAGE), file, index)

    def large_windows(self, rng: random.Random) -> None:
        file, index = self.somewhere(rng)
        with self.cache.open(self.paths[file], ra_pages=rng.choice([1024, 4096, 16384])) as again:
            for each in range(index, min(index + 2000, FILE_PAGES - 1), 50):
                self.judge(again.pread(PAGE, each * PAGE), file, each)

    def far_apart(self, rng: random.Random) -> None:
        stride = rng.choice([256 << 10, LEAF, 1 << 30])
        first = rng.randrange(SPARSE // PAGE) * PAGE
        for offset in range(first, min(first + 2000 * stride, SPARSE), stride):
            if self.far.pread(8, offset) != bytes(8):
                raise AssertionError(f"wrong bytes at {offset} of the sparse file")

    def mapped_far_apart(self, rng: random.Random) -> None:
        first = rng.randrange(SPARSE // PAGE) * PAGE
        length = min(2000 * LEAF, SPARSE - first)
        self.far_mm.touch(self.far_map + first, length, stride=LEAF, write=False)

    def mapped_often(self, rng: random.Random) -> None:
        addresses = [self.far_mm.mmap(self.far, 2 * LEAF) for _ in range(50)]
        for address in addresses:
            self.far_mm.load(address + LEAF + rng.randrange(512) * PAGE, 1)
        for address in addresses:
            self.far_mm.munmap(address, 2 * LEAF)

    def dropped(self, rng: random.Random) -> None:
        time.sleep(0.3)
        rng.choice([self.cache.drop_caches, lambda: self.cache.reclaim(1000)])()

    def through_mmap(self, rng: random.Random) -> None:
        file, index = self.somewhere(rng)
        if not hasattr(self, "kernel"):
            descriptors = [os.open(path, os.O_RDONLY) for path in self.paths]
            self.kernel = [mmap.mmap(each, 0, prot=mmap.PROT_READ) for each in descriptors]
        for each in range(index, min(index + 300, FILE_PAGES - 1)):
            self.judge(self.kernel[file][each * PAGE : each * PAGE + 16], file, each)


def run(seconds: float, capacity: str, reads: str) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        work = Work(Path(folder), capacity)
        before = resident()
        most, failures = 0, []
        grown: Counter[str] = Counter()
        over = threading.Event()

        def repeat(name: str, step: Callable[[random.Random], None]) -> None:
            rng = random.Random(name)
            try:
                while not over.is_set():
                    step(rng)
                    work.done[name] += 1
            except BaseException as failure:
                failures.append(f"{name}: {failure!r}")
                over.set()

        steps = [
            work.scattered,
            work.scattered,
            work.in_order,
            work.large,
            work.gather,
            work.mapped,
            work.map_anew,
            work.pinned,
            work.opened_anew,
            work.large_windows,
            work.large_windows,
            work.far_apart,
            work.mapped_far_apart,
            work.mapped_often,
            work.dropped,
        ]
        if reads == "mmap":
            steps = [work.through_mmap]
        threads = [
            threading.Thread(target=repeat, args=(f"{step.__name__} {number}", step))
            for number, step in enumerate(steps)
        ]
        frames = work.cache.stats().capacity_frames
        # Beside those here, two that read for the cache.
        bound = bounds(frames, len(threads) + 2, address_spaces=2)

        def look() -> int:
            stats = work.cache.stats()
            for name in bound:
                grown[name] = max(grown[name], getattr(stats, name))
            return resident() - before

        for thread in threads:
            thread.start()
        began = time.monotonic()
        told = began
        while time.monotonic() - began < seconds and not over.is_set():
            most = max(most, look())
            if sys.stderr.isatty() and time.monotonic() - told > 1:
                told = time.monotonic()
                print(f"\r{told - began:6.0f} s  {most >> 20} MiB at most", end="", file=sys.stderr)
            over.wait(0.02)
        over.set()
        for thread in threads:
            thread.join()
        most = max(most, look())
        work.mm.close()
        work.far_mm.close()
        work.cache.check()
        stats = work.cache.stats()
        beside = grown["xarray_nodes"] * NODE + grown["page_tables"] * TABLE + grown["bytes_in_flight"]
        return {
            "bound": frames * PAGE,
            "grown": dict(grown),
            "exceeded": [name for name in bound if grown[name] > bound[name]],
            "allowed": frames * (PAGE + FRAME) + beside + THREAD * (len(threads) + 2),
            "most_resident": most,
            "seconds": round(time.monotonic() - began, 1),
            "evictions": stats.evictions,
            "read_bytes": stats.read_bytes,
            "done": dict(work.done),
            "failures": failures,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--capacity", default="32MiB")
    parser.add_argument("--reads", choices=["specmm", "mmap"], default="specmm")
    options = parser.parse_args()
    print(json.dumps(run(options.seconds, options.capacity, options.reads)))


if __name__ == "__main__":
    main()
