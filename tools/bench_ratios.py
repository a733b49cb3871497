#!/usr/bin/env python3
"""The benches' figures as ratios, beside the budgets of the design: reads what criterion left.

    tools/bench_ratios.py [target/criterion] [--since SECONDS] [--markdown]

A ratio compares two figures of one run on one machine. It is shown twice: of the medians, and of the fastest
samples, which other work on the machine disturbed least; a verdict needs both to agree. A row with `LOSES`
misses its budget; a row without a budget is there to be honest about.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """`ours` against `beside` in one group; `scaling`: how much more two threads do than one."""

    group: str
    ours: str
    beside: str
    at_most: float | None = None
    at_least: float | None = None
    scaling: bool = False


@dataclass(frozen=True)
class Time:
    """Nanoseconds of one operation."""

    median: float
    fastest: float


SMALL, LARGE = "copy-out 8 bytes of 100 pages", "copy-out 8 bytes of 65536 pages"
PAGE_SMALL, PAGE_LARGE = "copy-out 4096 bytes of 100 pages", "copy-out 4096 bytes of 65536 pages"
ONE_PAGE, AROUND, PRIVATE = "fault, read, one page", "fault, read, 16 pages around", "fault, private write"

ROWS = (
    Row(SMALL, "specmm", "quick_cache of pages", at_most=1 / 5),
    Row(SMALL, "specmm", "quick_cache of numbers", at_most=1 / 5),
    Row(LARGE, "specmm", "quick_cache of pages", at_most=1 / 3),
    Row(LARGE, "specmm", "quick_cache of numbers", at_most=1 / 3),
    Row(SMALL, "specmm", "kernel pread"),
    Row(LARGE, "specmm", "kernel pread"),
    Row(SMALL, "specmm", "kernel mmap"),
    Row(LARGE, "specmm", "kernel mmap"),
    Row(PAGE_SMALL, "specmm", "kernel pread"),
    Row(PAGE_LARGE, "specmm", "kernel pread"),
    Row(PAGE_SMALL, "specmm", "kernel mmap"),
    Row(PAGE_LARGE, "specmm", "kernel mmap"),
    Row(PAGE_SMALL, "specmm", "quick_cache of pages"),
    Row(PAGE_LARGE, "specmm", "quick_cache of pages"),
    Row("copy-out 8 bytes of one page", "threads/2", "threads/1", at_least=1.9, scaling=True),
    Row("lookup 100", "find_get_page", "own 2 RMWs"),
    Row("lookup 65536", "find_get_page", "own 2 RMWs"),
    Row(ONE_PAGE, "speculative, 1 thread", "own 6 RMWs", at_most=1.25),
    Row(ONE_PAGE, "mmap_lock, 1 thread", "own 8 RMWs"),
    Row(ONE_PAGE, "speculative, 1 thread", "mmap_lock, 1 thread"),
    Row(ONE_PAGE, "speculative, 2 threads", "speculative, 1 thread of 2", at_least=1.8, scaling=True),
    Row(ONE_PAGE, "mmap_lock, 2 threads", "mmap_lock, 1 thread of 2", scaling=True),
    Row(AROUND, "speculative, 1 thread", "own 66 RMWs"),
    Row(AROUND, "speculative, 1 thread", "kernel, 1 thread"),
    Row(AROUND, "speculative, 2 threads", "speculative, 1 thread of 2", at_least=1.8, scaling=True),
    Row(AROUND, "kernel, 2 threads", "kernel, 1 thread of 2", scaling=True),
    Row(PRIVATE, "speculative, 1 thread", "own 11 RMWs"),
    Row(PRIVATE, "speculative, 1 thread", "mmap_lock, 1 thread"),
    Row(PRIVATE, "speculative, 2 threads", "speculative, 1 thread of 2", scaling=True),
    Row("page lock", "specmm, 1 thread", "own 2 RMWs"),
    Row("page lock", "specmm, 1 thread", "parking_lot, 1 thread"),
    Row("page lock", "specmm, 2 threads", "parking_lot, 2 threads"),
    Row("page lock", "specmm, 1 thread", "std, 1 thread"),
    Row("rwsem reader", "specmm, 1 thread", "parking_lot, 1 thread"),
    Row("rwsem reader", "specmm, 2 threads", "parking_lot, 2 threads"),
    Row("rwsem reader", "specmm, 1 thread", "std, 1 thread"),
    Row("rwsem writer", "specmm, 1 thread", "parking_lot, 1 thread"),
    Row("rwsem writer", "specmm, 2 threads", "parking_lot, 2 threads"),
    Row("rwsem writer", "specmm, 1 thread", "std, 1 thread"),
)


def read_times(folder: Path, since: float) -> dict[tuple[str, str], Time]:
    """Every figure that criterion wrote after `since`, by group and function."""
    times = {}
    for path in folder.glob("**/new/benchmark.json"):
        if path.stat().st_mtime < since:
            continue
        benchmark = json.loads(path.read_text())
        function = "/".join(part for part in (benchmark["function_id"], benchmark["value_str"]) if part)
        sample = json.loads(path.with_name("sample.json").read_text())
        each = [time / iterations for time, iterations in zip(sample["times"], sample["iters"], strict=True)]
        times[benchmark["group_id"], function] = Time(statistics.median(each), min(each))
    return times


def judge(row: Row, ratios: tuple[float, float], busy: bool) -> str:
    """What the budget says to both ratios: a verdict that only one of them supports is none.

    Two threads are not judged on a busy machine: in its fastest sample they did not overlap.
    """
    if row.at_most is None and row.at_least is None:
        return ""
    if row.scaling and busy:
        return "undecided: machine busy"
    met = {
        (row.at_most is None or ratio <= row.at_most) and (row.at_least is None or ratio >= row.at_least)
        for ratio in ratios
    }
    return "undecided" if len(met) == 2 else "ok" if met == {True} else "LOSES"


def table(times: dict[tuple[str, str], Time], busy: bool) -> list[list[str]]:
    """A line for each row whose two figures are there."""
    lines = []
    for row in ROWS:
        ours, beside = times.get((row.group, row.ours)), times.get((row.group, row.beside))
        if ours is None or beside is None:
            continue
        factor = 2 if row.scaling else 1

        def ratio(ours: float, beside: float, row: Row = row, factor: int = factor) -> float:
            return factor * beside / ours if row.scaling else ours / beside

        fastest = ratio(ours.fastest, beside.fastest)
        medians = ratio(ours.median, beside.median)
        budget = f"<= {row.at_most:.2f}" if row.at_most else f">= {row.at_least:.2f}" if row.at_least else ""
        lines.append(
            [
                row.group,
                f"{row.ours} / {row.beside}" if not row.scaling else f"{row.ours}: work done, 1 thread = 1",
                f"{ours.fastest:.1f}",
                f"{beside.fastest:.1f}",
                f"{medians:.2f}",
                f"{fastest:.2f}",
                budget,
                judge(row, (medians, fastest), busy),
            ]
        )
    return lines


def machine() -> str:
    """The processor, its cores, the kernel, the compiler."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    command = ["rustc", "--version"]
    rustc = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[1]
    load = os.getloadavg()[0]
    return f"{model}, {os.cpu_count()} CPUs, Linux {platform.release()}, rustc {rustc}; load {load:.1f}"


HEAD = ["group", "what", "ns", "beside, ns", "ratio of medians", "of fastest", "budget", ""]


def main() -> int:
    """Prints the table; the exit code."""
    parser = argparse.ArgumentParser(description="the benches' figures as ratios")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("target/criterion"))
    parser.add_argument("--since", type=float, default=0, help="leave out what was measured before (seconds)")
    parser.add_argument("--markdown", action="store_true", help="as a table for a document")
    arguments = parser.parse_args()
    busy = os.getloadavg()[0] > (os.cpu_count() or 1)
    lines = table(read_times(arguments.folder, arguments.since), busy)
    if not lines:
        print(f"bench_ratios: nothing measured lies in {arguments.folder}: run `make bench`", file=sys.stderr)
        return 1
    print(machine())
    print("ns: the fastest sample of each; a verdict needs both ratios to agree")
    if arguments.markdown:
        print("\n| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD))
        for line in lines:
            print("| " + " | ".join(line) + " |")
    else:
        widths = [max(len(line[at]) for line in [HEAD, *lines]) for at in range(len(HEAD))]
        for line in [HEAD, *lines]:
            cells = (
                cell.ljust(width) if at < 2 else cell.rjust(width)
                for at, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            print("  ".join(cells).rstrip())
    verdicts = [line[-1] for line in lines if line[-1]]
    met, lost = verdicts.count("ok"), verdicts.count("LOSES")
    print(f"\nbudgets: {met} met, {lost} missed, {len(verdicts) - met - lost} undecided; none is asserted")
    return 0


if __name__ == "__main__":
    sys.exit(main())
