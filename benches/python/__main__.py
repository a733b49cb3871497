"""Reads of 4 KiB from Python, beside what people would pick: times by pyperf, ratios of this run, memory.

    python benches/python [--only WORD] [--fast] [-o results.json] [--markdown]

`hot`: all pages cached by whoever caches, under a bound that holds them. `cold`: nothing cached in the
process, the file dropped from the kernel's page cache before each sample. `skewed`: a bound of a quarter of
the file, nine reads in ten from a tenth of it, in a steady state; pages that are not cached come from the
kernel's cache. `rows`: 256 rows of 4 KiB in one call where there is one.
"""

import os
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

import pyperf

sys.path.insert(0, str(Path(__file__).parent))
from memory import measure as measure_memory
from rivals import RIVALS, SIZE, Specmm
from table import show

FILE = 64 << 20
ROOMY = 96 << 20
TIGHT = 16 << 20
PAGES = FILE // SIZE
READS = 512
ROWS = 256
BATCHES = 32
SCENARIOS = {
    "hot random": ("random", ROOMY),
    "hot sequential": ("sequential", ROOMY),
    "cold random": ("random", ROOMY),
    "cold sequential": ("sequential", ROOMY),
    "skewed": ("random", TIGHT),
}


def offsets(scenario, seed):
    draw = random.Random(seed)
    if scenario.endswith("sequential"):
        return [at * SIZE for at in range(READS)]
    if scenario == "skewed":
        # The hot tenth lies all over the file.
        hot = random.Random(0).sample(range(PAGES), PAGES // 10)
        return [
            SIZE * (draw.choice(hot) if draw.random() < 0.9 else draw.randrange(PAGES))
            for _ in range(8 * READS)
        ]
    return [SIZE * draw.randrange(PAGES) for _ in range(READS)]


def drop(path):
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def run_through(read, where):
    for offset in where:
        read(offset)


def in_threads(count, work):
    """Seconds from the moment all threads are ready until the last has done its work."""
    if count == 1:
        began = time.perf_counter()
        work(0)
        return time.perf_counter() - began
    gate = threading.Barrier(count + 1)
    threads = [threading.Thread(target=lambda n=n: (gate.wait(), work(n))) for n in range(count)]
    for thread in threads:
        thread.start()
    gate.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


# --- what pyperf times; each function answers seconds for so many loops


def hot(loops, rival, path, scenario, threads):
    pattern, bound = SCENARIOS[scenario]
    reader = RIVALS[rival](path, bound, pattern)
    lists = [offsets(scenario, seed) for seed in range(threads)]

    def work(n):
        for _ in range(loops):
            run_through(reader.read, lists[n])

    # In the threads that read: some rivals keep a cache for each.
    warmed = threading.Barrier(threads)

    def warm_then_work(n):
        run_through(reader.read, lists[n])
        warmed.wait()
        began[n] = time.perf_counter()
        work(n)
        ended[n] = time.perf_counter()

    began, ended = [0.0] * threads, [0.0] * threads
    in_threads(threads, warm_then_work)
    reader.close()
    return max(ended) - min(began)


def cold(loops, rival, path, scenario):
    pattern, bound = SCENARIOS[scenario]
    where = offsets(scenario, 1)
    total = 0.0
    for _ in range(loops):
        drop(path)
        reader = RIVALS[rival](path, bound, pattern)
        began = time.perf_counter()
        run_through(reader.read, where)
        total += time.perf_counter() - began
        reader.close()
    return total


def rows(loops, rival, path, threads):
    import numpy as np

    # Many batches one after the other, or the processor's own caches would serve them all.
    draw = random.Random(1)
    batches = [
        np.array([draw.randrange(PAGES) for _ in range(ROWS)], dtype=np.int64)
        for _ in range(BATCHES * threads)
    ]
    if rival == "specmm":
        reader = Specmm(path, ROOMY, "random")
        gather = reader.file.gather
        outs = [np.empty((ROWS, SIZE), dtype=np.uint8) for _ in range(threads)]

        def once(n, batch):
            gather(batch * SIZE, SIZE, out=outs[n])

    elif rival == "np.memmap, fancy":
        table = np.memmap(path, dtype=np.uint8, mode="r").reshape(-1, SIZE)

        def once(_n, batch):
            table[batch]

    elif rival == "np.memmap, take":
        table = np.memmap(path, dtype=np.uint8, mode="r").reshape(-1, SIZE)
        outs = [np.empty((ROWS, SIZE), dtype=np.uint8) for _ in range(threads)]

        def once(n, batch):
            np.take(table, batch, axis=0, out=outs[n], mode="clip")

    else:
        fd = os.open(path, os.O_RDONLY)
        outs = [memoryview(bytearray(ROWS * SIZE)) for _ in range(threads)]

        def once(n, batch):
            out = outs[n]
            for at, page in enumerate(batch.tolist()):
                os.preadv(fd, [out[at * SIZE : at * SIZE + SIZE]], page * SIZE)

    def work(n):
        for _ in range(loops):
            for batch in batches[n::threads]:
                once(n, batch)

    for batch in batches:
        once(0, batch)
    return in_threads(threads, work)


# --- the run


def main():
    runner = pyperf.Runner(values=3, processes=4, warmups=1, min_time=0.05, add_cmdline_args=_to_worker)
    runner.argparser.add_argument("--file", help="where the bytes are (a temporary file)")
    runner.argparser.add_argument("--only", default="", help="only rows whose name contains this")
    runner.argparser.add_argument("--markdown", action="store_true", help="a table for a page of docs")
    options = runner.parse_args()
    if options.worker or options.file is not None:
        _all(runner, options)
        return
    with tempfile.TemporaryDirectory(prefix="specmm-bench-") as folder:
        options.file = str(Path(folder, "data.bin"))
        with Path(options.file).open("wb") as file:
            file.write(os.urandom(FILE))
            file.flush()
            os.fsync(file.fileno())
        found = _all(runner, options)
        memory = {name: measure_memory(name, options.file, TIGHT) for name in RIVALS}
    show(found, memory, TIGHT, markdown=options.markdown)


def _to_worker(command, options):
    command.extend(("--file", options.file))
    if options.only:
        command.extend(("--only", options.only))


def _all(runner, options):
    """Every row by its name: pyperf gives None in a worker for all but its own."""
    found = {}

    def bench(name, *rest, **more):
        if options.only in name:
            result = runner.bench_time_func(name, *rest, **more)
            if result is not None:
                found[name] = result

    for scenario in SCENARIOS:
        for rival in RIVALS:
            if scenario.startswith("cold"):
                bench(f"{scenario}, {rival}", cold, rival, options.file, scenario, inner_loops=READS)
                continue
            for threads in (1, 2) if scenario != "hot sequential" else (1,):
                # What each of the threads reads counts.
                reads = threads * (8 * READS if scenario == "skewed" else READS)
                name = f"{scenario}, {rival}" + (", 2 threads" if threads == 2 else "")
                bench(name, hot, rival, options.file, scenario, threads, inner_loops=reads)
    for threads in (1, 2):
        for rival in ("specmm", "np.memmap, fancy", "np.memmap, take", "os.preadv"):
            name = f"rows, {rival}" + (", 2 threads" if threads == 2 else "")
            bench(name, rows, rival, options.file, threads, inner_loops=threads * BATCHES * ROWS)
    return found


if __name__ == "__main__":
    main()
