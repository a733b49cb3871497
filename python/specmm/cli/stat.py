"""`specmm stat`: how much of a file is in memory, in the kernel's page cache and in one of specmm's."""

import argparse
import dataclasses
import itertools
import json
import random
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import Any

import specmm
from specmm import _core, _report
from specmm.cli import arguments, closing, figures, machine
from specmm.cli.errors import UsageError
from specmm.cli.progress import progress
from specmm.cli.table import Table

PATTERNS = ("random", "sequential")
CAPACITY = 64 << 20
COUNT = 4096
SIZE = 4096

# The rest of a strip's line: its name and its share.
_MARGIN = len("kernel before") + 14

# Pages that the kernel is asked about at a time: some tens of milliseconds.
_SLICE = 1 << 18

_DESCRIPTION = """\
Shows which parts of a file are in the kernel's page cache. With --reads, first makes reads through a page
cache of specmm's and then shows what each of the two caches holds, with specmm's counters by cause. (A cache
of specmm's belongs to one process, so without reads there is none to look at.) The file is never written
to."""


def add(commands: Any) -> None:
    """Names the options."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "stat",
        help="show how much of a file is in memory, and the counters of reads",
        description=_DESCRIPTION,
    )
    parser.set_defaults(run=run)
    add = parser.add_argument
    add("file", metavar="FILE", help="the file to look at")
    add("--reads", choices=PATTERNS, help="first make such reads through specmm (none)")
    add(
        "--count", type=arguments.count, metavar="N", help=f"how many reads ({COUNT}; sequential: to the end)"
    )
    add("--size", type=arguments.size, default=SIZE, metavar="BYTES", help=f"the size of a read ({SIZE})")
    add(
        "--capacity",
        type=arguments.size,
        default=CAPACITY,
        metavar="BYTES",
        help="the memory limit of specmm's page cache (64MiB)",
    )
    add(
        "--seed",
        type=arguments.seed,
        default=1,
        help="the seed that offsets of random reads are drawn from (1)",
    )
    add("--json", action="store_true", help="print the result as JSON")


def run(options: argparse.Namespace) -> int:
    """Makes the reads, if any, and shows what is cached where."""
    path = options.file
    size = arguments.file(path, empty="show")
    width = max(80, shutil.get_terminal_size((110, 24)).columns)
    cells = _report.CELLS if options.json else min(width - _MARGIN, 96)
    result: dict[str, Any] = {"file": {"path": path, "fstype": machine.file_system(path)}}
    stats = None
    with progress("specmm stat") as show:
        if options.reads is None:
            strips = {"kernel": _kernel(path, size, cells, show)}
        else:
            strips = {"kernel before": _kernel(path, size, cells, show)}
            strips["specmm"], stats, result["reads"] = _read(options, cells, show)
            strips["kernel after"] = _kernel(path, arguments.file(path, empty="show"), cells, show)
    result["file"]["size"] = arguments.file(path, empty="show")
    result["residency"] = {name.replace(" ", "_"): _summary(strip) for name, strip in strips.items()}
    result["stats"] = None if stats is None else dataclasses.asdict(stats)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        _show(result, strips, stats, width)
        closing.show(_next(options))
    return 0


def _next(options: argparse.Namespace) -> list[closing.Step]:
    file = closing.file(options.file)
    other = "sequential" if options.reads == "random" else "random"
    limit = [] if options.reads is None else ["--capacity", str(options.capacity)]
    return [
        (["stat", file, "--reads", other, *limit], f"what specmm's cache holds after {other} reads"),
        (["read", file], "how fast reads are, and in how much memory, beside mmap and os.pread"),
    ]


def _kernel(path: str, size: int, cells: int, show: Any) -> _report.Residency:
    """What the kernel holds, asked for in slices: it takes a byte for each page."""
    pages = -(-size // specmm.PAGE_SIZE)
    parts = []
    for start, end in itertools.pairwise(_report.bounds(pages, cells)):
        resident = 0
        for first in range(start, end, _SLICE):
            show(first / pages, f"{first:,} of the kernel's {pages:,} pages looked at")
            resident += _core.kernel_residency(path, first, min(_SLICE, end - first)).count(1)
        parts.append(resident)
    return _report.Residency(pages, parts)


def _read(
    options: argparse.Namespace, cells: int, show: Any
) -> tuple[_report.Residency, specmm.CacheStats, dict[str, Any]]:
    """Makes the reads; returns the residency and counters right after them, and what was read."""
    try:
        cache = specmm.PageCache(options.capacity)
    except ValueError as error:
        raise UsageError(str(error)) from None
    with cache, cache.open(options.file) as file:
        file.advise(options.reads)
        began = time.monotonic()
        done = length = 0
        count, offsets = _offsets(options, file.size)
        for done, offset in enumerate(offsets, 1):
            length += len(file.pread(options.size, offset))
            if done % 256 == 0:
                show(done / count, f"{done} of {count} reads")
        seconds = time.monotonic() - began
        # What readahead has started counts as well.
        cache.settle()
        reads = {
            "pattern": options.reads,
            "count": done,
            "size": options.size,
            "bytes": length,
            "seconds": seconds,
            "capacity": options.capacity,
        }
        return _report.Residency(*_core.resident_in(file, cells)), cache.stats(), reads


def _offsets(options: argparse.Namespace, size: int) -> tuple[int, Iterator[int]]:
    """How many reads there are, and where they begin."""
    slots = -(-size // options.size)
    if options.reads == "sequential":
        count = min(options.count or slots, slots)
        return count, (slot * options.size for slot in range(count))
    draw = random.Random(options.seed)  # noqa: S311 - offsets, not secrets
    count = options.count or COUNT
    return count, (draw.randrange(slots) * options.size for _ in range(count))


def _summary(strip: _report.Residency) -> dict[str, Any]:
    return {
        "pages": strip.pages,
        "resident": strip.resident,
        "cells": [round(each, 4) for each in _report.cells(strip)],
    }


# --- the text


def _show(
    result: dict[str, Any],
    strips: dict[str, _report.Residency],
    stats: specmm.CacheStats | None,
    width: int,
) -> None:
    file = result["file"]
    pages = strips["kernel" if stats is None else "specmm"].pages
    print(
        f"{file['path']}, {file['fstype']}: {figures.size(file['size'])}, {pages:,} pages; opened read-only."
    )
    if stats is not None:
        reads = result["reads"]
        print(
            f"{reads['count']:,} {reads['pattern']} reads of {figures.size(reads['size'])} through specmm, "
            f"limit {figures.size(reads['capacity'])}: {figures.nanoseconds(reads['seconds'] * 1e9)}."
        )
    print()
    for line in _strips(strips):
        print(line)
    if stats is None:
        note = (
            "This is the kernel's page cache, which all processes share. A cache of specmm's belongs to one "
            "process and starts empty: --reads random or --reads sequential shows what it holds after such "
            "reads."
        )
    else:
        note = (
            "Bytes are cached twice: specmm's copy is under the limit and ends with the process; the "
            "kernel's is shared by all processes. Reads of what the kernel already held did not wait for a "
            "disk."
        )
    print("\n" + textwrap.fill(note, width))
    if stats is not None:
        print()
        rows = [[name, value, gloss] for _group, name, value, gloss in _report.counters(stats)]
        Table(["counter", "value", "what it counts"], rows, gloss=True).show()


def _strips(strips: dict[str, _report.Residency]) -> Iterator[str]:
    """The strips one below the other, with one legend."""
    name_width = max(map(len, strips))
    ascii_only = not _encodes("·█")
    for name, strip in strips.items():
        told = figures.share(_report.share(strip))
        drawn = _report.strip(strip, ascii_only=ascii_only)
        yield f"{name.ljust(name_width)}  |{drawn}|  {told}"
    each = -(-strip.pages // max(len(drawn), 1))
    none, whole = (".", "#") if ascii_only else ("·", "█")
    size = figures.size(each * specmm.PAGE_SIZE)
    yield f"{''.ljust(name_width)}   a cell is {size} or less; {none} none of it, {whole} all"


def _encodes(text: str) -> bool:
    """Whether the encoding of stdout has these characters."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
