"""Hit ratio of reclaim beside LRU, S3-FIFO and others, on made-up traces: counts, the same in each run.

    python benches/python/hit_ratio.py [--requests N] [--json]

A trace is a list of page numbers. specmm reads eight bytes of each page from a file in a cache of so many
frames, without readahead; the others (libcachesim) are asked for an object of that number. Belady is the best
that can be.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator

import libcachesim
import numpy as np

import specmm

PAGE = specmm.PAGE_SIZE
PAGES = 20_000
SEED = 20261123


class Zeros:
    """A store that has only zeros."""

    def read_at(self, offset: int, n: int) -> bytes:
        return bytes(n)


def zipf(alpha: float) -> Callable[[np.random.Generator, int, int], np.ndarray]:
    """Pages of unequal fame, in no order."""

    def trace(rng: np.random.Generator, n: int, _frames: int) -> np.ndarray:
        fame = 1 / np.arange(1, PAGES + 1) ** alpha
        return rng.permutation(PAGES)[rng.choice(PAGES, size=n, p=fame / fame.sum())]

    return trace


def scan_and_zipf(rng: np.random.Generator, n: int, frames: int) -> np.ndarray:
    """Somebody looks things up while somebody else reads everything from end to end."""
    looked_up = zipf(1.0)(rng, n, frames)
    scan = PAGES + np.arange(n)
    return np.where(rng.random(n) < 0.5, looked_up, scan)


def scan_and_loop(rng: np.random.Generator, n: int, frames: int) -> np.ndarray:
    """A loop over three quarters of the cache, and now and then a scan of twice the cache."""
    loop = np.arange(frames * 3 // 4)
    pieces, length, scanned = [], 0, PAGES
    while length < n:
        scan = np.arange(scanned, scanned + 2 * frames)
        scanned += 2 * frames
        pieces += [loop, loop, loop, scan]
        length += sum(map(len, pieces[-4:]))
    return np.concatenate(pieces)[:n]


def loop_beyond(rng: np.random.Generator, n: int, frames: int) -> np.ndarray:
    """A loop over a tenth more than the cache: LRU's worst case."""
    return np.arange(n) % (frames * 11 // 10)


def shift(rng: np.random.Generator, n: int, frames: int) -> np.ndarray:
    """Half a cache of pages is used for a while, then another half, and so on."""
    part = frames // 2
    begin = np.arange(n) // (part * 20) * part
    return begin % PAGES + rng.integers(0, part, size=n)


TRACES = {
    "zipf 0.8": zipf(0.8),
    "zipf 1.0": zipf(1.0),
    "zipf 1.2": zipf(1.2),
    "scan beside zipf 1.0": scan_and_zipf,
    "loop of 0.75, scan of 2 caches": scan_and_loop,
    "loop of 1.1 caches": loop_beyond,
    "working set that moves": shift,
}
RIVALS = ("LRU", "S3FIFO", "Clock", "TwoQ", "Belady")


def of_specmm(trace: np.ndarray, frames: int) -> float:
    """The share of reads that hit."""
    with specmm.PageCache(frames * PAGE, io="inline") as cache:
        file = cache.open_store(Zeros(), int(trace.max() + 1) * PAGE, ra_pages=0)
        for page in trace.tolist():
            file.pread(8, page * PAGE)
        stats = cache.stats()
        assert stats.hits + stats.misses == len(trace)
        return stats.hits / len(trace)


def of_rival(name: str, trace: np.ndarray, frames: int) -> float:
    """The same of a policy of libcachesim."""
    cache = getattr(libcachesim, name)(cache_size=frames)
    later: dict[int, int] = {}
    # When each page is asked for next, which only Belady looks at.
    following = np.full(len(trace), np.iinfo(np.int64).max)
    for at in range(len(trace) - 1, -1, -1):
        page = int(trace[at])
        following[at] = later.get(page, following[at])
        later[page] = at
    hits = 0
    for at, page in enumerate(trace.tolist()):
        request = libcachesim.Request()
        request.obj_id, request.obj_size, request.clock_time = page + 1, 1, at
        request.next_access_vtime = int(following[at])
        hits += cache.get(request)
    return hits / len(trace)


def rows(requests: int) -> Iterator[dict[str, object]]:
    for name, make in TRACES.items():
        for frames in (200, 2000):
            trace = make(np.random.default_rng(SEED), requests, frames)
            found: dict[str, object] = {"trace": name, "frames": frames, "specmm": of_specmm(trace, frames)}
            found |= {rival: of_rival(rival, trace, frames) for rival in RIVALS}
            yield found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=200_000, metavar="N", help="of each trace")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each row")
    options = parser.parse_args()
    names = ("specmm", *RIVALS)
    if not options.json:
        print(f"| trace | frames | {' | '.join(names)} |")
        print(f"|---|--:|{'--:|' * len(names)}")
    for row in rows(options.requests):
        if options.json:
            print(json.dumps(row), flush=True)
        else:
            shares = " | ".join(f"{row[name]:.3f}" for name in names)
            print(f"| {row['trace']} | {row['frames']} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
