"""`specmm read`: the same reads of a file through specmm, mmap and os.pread, under one memory limit."""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import specmm
from specmm import _core
from specmm.cli import arguments, closing, machine, picture, read_plot, read_text
from specmm.cli.errors import UsageError
from specmm.cli.progress import progress
from specmm.cli.read_child import SAMPLE_EVERY
from specmm.cli.read_rivals import RIVALS

PATTERNS = ("random", "sequential", "batch")
ROUNDS = 3
CAPACITY = 16 << 20
COUNT = 10_000
SIZE = 4096
BATCH = 64
SECONDS = 0.5

# A run may hold this much more for tables, threads and buffers, and still be within the limit.
SLACK = 4 << 20

# No read is called cold if the kernel's page cache holds a larger share of the file than this.
_WARM = 0.01

# Longer files are sampled: so many windows of so many pages.
_WHOLE = 1 << 18
_WINDOW = 1 << 10
_WINDOWS = 64

_DESCRIPTION = """\
Makes the same reads of a file through specmm, os.pread and mmap, each in its own process, and reports speed
and memory against one limit. Each makes its reads cold, with the file dropped from the kernel's page cache,
and then again, warm. mmap is measured twice: as most programs use it, and with its pages dropped
(MADV_DONTNEED) whenever they could reach the limit. The file is never written to."""


def add(commands: Any) -> None:
    """Names the options."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "read", help="measure reads of a file through specmm, mmap and os.pread", description=_DESCRIPTION
    )
    parser.set_defaults(run=run)
    add = parser.add_argument
    add("file", metavar="FILE", help="the file to read")
    add(
        "--reads",
        nargs="+",
        action="extend",
        choices=PATTERNS,
        metavar="PATTERN",
        help=f"which kinds of reads: {', '.join(PATTERNS)} (all)",
    )
    add(
        "--count",
        type=arguments.count,
        default=COUNT,
        metavar="N",
        help=f"how many reads of each kind ({COUNT})",
    )
    add("--size", type=arguments.size, default=SIZE, metavar="BYTES", help=f"the size of a read ({SIZE})")
    add("--batch", type=arguments.count, default=BATCH, metavar="N", help=f"reads in a batch ({BATCH})")
    add(
        "--capacity",
        type=arguments.size,
        default=CAPACITY,
        metavar="BYTES",
        help="the memory limit, such as 64MiB (16MiB)",
    )
    add("--seed", type=arguments.seed, default=1, help="the seed that offsets are drawn from (1)")
    add(
        "--seconds",
        type=arguments.seconds,
        default=SECONDS,
        help=f"at most so many seconds of reading for each row, in {ROUNDS} rounds ({SECONDS})",
    )
    add("--json", action="store_true", help="print the whole result as JSON")
    add(
        "--plot",
        metavar="FILE.svg",
        help=f"also draw the memory held over a read of the file, {picture.HELP}",
    )


def run(options: argparse.Namespace) -> int:
    """Measures every rival on every pattern and shows what came of it."""
    path = os.path.realpath(options.file)
    size = arguments.file(options.file, empty="read")
    before = _version(path)
    if options.size > size:
        raise UsageError(f"--size {options.size} is more than {options.file!r} has: {size} bytes")
    if options.capacity < specmm.PAGE_SIZE:
        raise UsageError(f"--capacity {options.capacity} holds no page of {specmm.PAGE_SIZE} bytes")
    if options.batch > options.count:
        raise UsageError(f"--batch {options.batch} is more than --count {options.count}")
    if options.plot is not None:
        picture.check(options.plot)
    patterns = [each for each in PATTERNS if each in (options.reads or PATTERNS)]
    plan = {
        "path": path,
        "file_size": size,
        "size": options.size,
        "count": options.count,
        "batch": options.batch,
        "bound": options.capacity,
        "seed": options.seed,
        "seconds": options.seconds / ROUNDS,
    }
    # Rounds are interleaved, so that whatever else the machine does is spread over all cells.
    cells = [(pattern, rival) for pattern in patterns for rival in RIVALS]
    found: dict[tuple[str, str], list[dict[str, Any]]] = {cell: [] for cell in cells}
    with progress("specmm read") as show:
        for number in range(ROUNDS * len(cells)):
            pattern, rival = cells[number % len(cells)]
            show(number / (ROUNDS * len(cells)), f"now {pattern} reads through {rival}")
            found[pattern, rival].append(_one(plan | {"pattern": pattern, "rival": rival}))
            _unchanged(path, before)
        memory = _memory(plan) if options.plot is not None else None
    _compare_bytes(path, found)
    result = {
        "machine": machine.describe(),
        "file": {"path": options.file, "size": size, "fstype": machine.file_system(path)},
        "bound": options.capacity,
        "slack": SLACK,
        "reads": {key: plan[key] for key in ("count", "size", "batch", "seed")},
        "timing": {"rounds": ROUNDS, "sample_every": SAMPLE_EVERY, "seconds": options.seconds},
        "rows": _rows(found, size, options.size, options.capacity),
    }
    if memory is not None:
        result["memory"] = memory
        read_plot.draw(result, options.plot)
    if options.json:
        print(json.dumps(result, indent=2))
        return 0
    read_text.show(result)
    if options.plot is not None:
        print(f"\nThe picture is in {options.plot}.")
    closing.show(list(_next(options)))
    return 0


def _next(options: argparse.Namespace) -> Iterator[closing.Step]:
    if options.plot is None:
        yield (
            ["read", closing.file(options.file), "--plot", "memory.svg"],
            "memory over the course of the reads, as a picture",
        )
    yield (
        ["stat", closing.file(options.file), "--reads", "random"],
        "what stays cached, and the counters by cause",
    )
    yield (
        ["read", closing.file(options.file), "--capacity", str(4 * options.capacity)],
        "the same under four times the limit",
    )


# --- one measurement


def _one(plan: dict[str, Any]) -> dict[str, Any]:
    """One rival on one pattern in a process of its own, from a kernel's cache without the file."""
    path, size = plan["path"], plan["file_size"]
    _drop(path)
    before = _kernel_share(path, size)
    answer: dict[str, Any] = _child(plan)
    answer["kernel_share"] = (before, _kernel_share(path, size))
    return answer


def _memory(plan: dict[str, Any]) -> dict[str, Any]:
    """What each rival holds as the file is read from its start; see `read_trace`."""
    found = {}
    for rival in RIVALS:
        _drop(plan["path"])
        found[rival] = _child(plan | {"pattern": "sequential", "rival": rival}, "read_trace")
    return found


def _child(plan: dict[str, Any], module: str = "read_child") -> Any:
    # Only this interpreter may know which folder the package is in.
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-P", "-m", f"specmm.cli.{module}"]
    child = subprocess.Popen(  # noqa: S603 - this interpreter, our own module
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )
    try:
        out, err = child.communicate(json.dumps(plan))
    finally:
        child.kill()
        child.wait()
    if child.returncode == -signal.SIGINT:
        raise KeyboardInterrupt
    if child.returncode == -signal.SIGBUS:
        raise specmm.SpecmmError(
            f"{plan['path']!r} lost pages while it was read: {plan['rival']} was killed by SIGBUS, "
            "where specmm raises BusError"
        )
    if child.returncode != 0:
        last = err.strip().rpartition("\n")[2]
        raise specmm.SpecmmError(
            f"the process that read through {plan['rival']} ended with code {child.returncode}: {last}"
        )
    answer: dict[str, Any] = json.loads(out)
    if "error" in answer:
        raise specmm.SpecmmError(f"{plan['pattern']} reads through {plan['rival']}: {answer['error']}")
    return answer["result"]


def _drop(path: str) -> None:
    """Asks the kernel to drop the file; pages that are dirty or that others have mapped stay."""
    fd = _core.open_regular(path)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def _kernel_share(path: str, size: int) -> float:
    """How much of the file the kernel holds; estimated from windows spread over it if it is long."""
    pages = -(-size // specmm.PAGE_SIZE)
    if pages <= _WHOLE:
        windows = [_core.kernel_residency(path)]
    else:
        windows = [_core.kernel_residency(path, pages * at // _WINDOWS, _WINDOW) for at in range(_WINDOWS)]
    seen = sum(map(len, windows))
    return sum(each.count(1) for each in windows) / seen if seen else 0.0


def _version(path: str) -> tuple[int, int]:
    found = Path(path).stat()
    return found.st_size, found.st_mtime_ns


def _unchanged(path: str, before: tuple[int, int]) -> None:
    """Reads of a file that others write to cannot be compared."""
    if _version(path) != before:
        raise specmm.SpecmmError(f"{path!r} was changed by another program while it was measured")


def _compare_bytes(path: str, found: dict[tuple[str, str], list[dict[str, Any]]]) -> None:
    """Every rival must have read the same bytes, or nothing can be compared."""
    for pattern in {pattern for pattern, _ in found}:
        sums = {run["crc"] for (of, _), runs in found.items() if of == pattern for run in runs}
        if len(sums) > 1:
            raise specmm.SpecmmError(
                f"{path!r}: {pattern} reads returned different bytes through different rivals"
            )


# --- the result


def _rows(
    found: dict[tuple[str, str], list[dict[str, Any]]], size: int, read_size: int, bound: int
) -> list[dict[str, Any]]:
    rows = []
    for phase in ("cold", "warm"):
        speeds: dict[str, float] = {}
        for (pattern, rival), runs in found.items():
            row = _row(phase, pattern, rival, runs, size, bound)
            # specmm comes first of a pattern's rivals.
            reference = speeds.setdefault(pattern, row["reads_per_s"])
            rows.append(row | {"size": read_size, "ratio": row["reads_per_s"] / reference})
    return rows


def _row(
    phase: str, pattern: str, rival: str, runs: list[dict[str, Any]], size: int, bound: int
) -> dict[str, Any]:
    rounds = [run[phase] for run in runs]
    speeds = sorted(each["reads"] / each["seconds"] for each in rounds)
    samples = sorted(sample for each in rounds for sample in each["samples"])
    is_cold = max(run["kernel_share"][0] for run in runs) <= _WARM
    peak = max(run[each]["peak"] for run in runs for each in ("cold", "warm"))
    pages = sum(each.get("hits", 0) + each.get("misses", 0) for each in rounds)
    return {
        "pattern": pattern,
        "through": rival,
        "cache": "warm" if phase == "warm" else "cold" if is_cold else "miss (kernel-cached)",
        "reads": sum(each["reads"] for each in rounds),
        "offered": runs[0]["offered"],
        "seconds": sum(each["seconds"] for each in rounds),
        "reads_per_s": statistics.median(speeds),
        "spread": {"reads_per_s": [speeds[0], speeds[-1]]},
        "ns_p50": _quantile(samples, 0.5),
        "ns_p99": _quantile(samples, 0.99),
        "timed": len(samples),
        "peak_memory": max(each["peak"] for each in rounds),
        "bound_held": peak <= bound + SLACK,
        "disk_bytes": _sum(rounds, "disk_bytes"),
        "store_bytes": _sum(rounds, "store_bytes"),
        "hit_share": sum(each["hits"] for each in rounds) / pages if pages else None,
        "minor_faults": _sum(rounds, "minor_faults"),
        "major_faults": _sum(rounds, "major_faults"),
        "kernel_bytes": round(max(run["kernel_share"][1] for run in runs) * size),
    }


def _sum(rounds: list[dict[str, Any]], name: str) -> int | None:
    """None where it is not counted."""
    return sum(each[name] for each in rounds) if all(name in each for each in rounds) else None


def _quantile(samples: list[int], part: float) -> int:
    return samples[min(int(part * len(samples)), len(samples) - 1)]
