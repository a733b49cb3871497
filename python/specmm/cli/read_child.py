"""One measurement of `specmm read`, in its own process so that the peak of memory is that of one rival.

Reads the plan as JSON from stdin and writes the figures as JSON to stdout. All reads are made once with
nothing cached in the process ("cold"), then over and over ("warm").
"""

import array
import gc
import json
import random
import resource
import signal
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from specmm.cli.read_rivals import RIVALS, Rival

SAMPLE_EVERY = 16
"""One read (or batch) in so many is timed on its own."""

_SAMPLES = 20_000

# Reads whose bytes the parent compares between rivals.
_COMPARED = 64


def offsets(plan: dict[str, Any]) -> Sequence[int]:
    """Where the reads begin: the same for every rival, and each lies in the file as a whole."""
    size, slots = plan["size"], plan["file_size"] // plan["size"]
    if plan["pattern"] == "sequential":
        return array.array("q", range(0, min(plan["count"], slots) * size, size))
    draw = random.Random(plan["seed"])  # noqa: S311 - offsets, not secrets
    return array.array("q", (draw.randrange(slots) * size for _ in range(plan["count"])))


class _Pass:
    """The figures of passes over the offsets, some of whose reads are timed on their own."""

    def __init__(self, clock_ns: int) -> None:
        self.reads = 0
        self.elapsed = 0
        # A fixed number, the latest ones: memory must not grow while it is measured.
        self._samples = array.array("q", [0]) * _SAMPLES
        self._taken = 0
        self._clock = clock_ns

    def samples(self) -> list[int]:
        """Nanoseconds of the reads or batches that were timed on their own, sorted."""
        return sorted(self._samples[: self._taken])

    def run(self, steps: Sequence[Any], one: Any, many: Any, each: int, until: int) -> bool:
        """Makes the reads; False if time ran out first. `steps`: offsets, or batches of `each` of them."""
        clock = time.perf_counter_ns
        began = clock()
        try:
            for at in range(0, len(steps), SAMPLE_EVERY):
                before = clock()
                one(steps[at])
                after = clock()
                self._samples[self._taken % _SAMPLES] = max(after - before - self._clock, 0)
                self._taken += 1
                rest = steps[at + 1 : at + SAMPLE_EVERY]
                many(rest)
                self.reads += (1 + len(rest)) * each
                if after > until:
                    return False
        finally:
            self.elapsed += clock() - began
        return True


def measure(plan: dict[str, Any]) -> dict[str, Any]:
    """The figures of one rival on one pattern."""
    where = offsets(plan)
    steps: Sequence[Any] = where
    each = 1
    if plan["pattern"] == "batch":
        each = plan["batch"]
        steps = [where[at : at + each] for at in range(0, len(where) - each + 1, each)]
    clock_ns = _clock_ns()
    # What the interpreter already holds is not the rival's.
    gc.collect()
    gc.disable()
    results: dict[str, Any] = {"offered": len(steps) * each}
    passes = {name: _Pass(clock_ns) for name in ("cold", "warm")}
    before = _Usage(None)
    rival = RIVALS[plan["rival"]](plan["path"], plan["size"], plan["bound"], plan["pattern"])
    one, many = (rival.batch, _batches(rival)) if each > 1 else (rival.read, rival.many)
    for name, figures in passes.items():
        _reset_peak()
        until = time.perf_counter_ns() + int(plan["seconds"] * 1e9)
        while figures.run(steps, one, many, each, until) and name == "warm":
            if time.perf_counter_ns() > until:
                break
        # Warm passes repeat only what the cold one has read.
        steps = steps[: figures.reads // each] if name == "cold" else steps
        after = _Usage(rival)
        results[name] = {
            "reads": figures.reads,
            "seconds": figures.elapsed / 1e9,
            "samples": figures.samples(),
            "peak": after.peak - before.resident,
            **after.since(before),
        }
        before = _Usage(rival, resident=before.resident)
    results["crc"] = zlib.crc32(b"".join(map(rival.read, where[:_COMPARED])))
    rival.close()
    return results


def _batches(rival: Rival) -> Any:
    def many(batches: Sequence[Sequence[int]]) -> None:
        for batch in batches:
            rival.batch(batch)

    return many


class _Usage:
    """What the process and the rival have used so far."""

    def __init__(self, rival: Rival | None, *, resident: int | None = None) -> None:
        status = dict(_status())
        self.peak = status["VmHWM"]
        self.resident = status["VmRSS"] if resident is None else resident
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self._counts: dict[str, int] = {"minor_faults": usage.ru_minflt, "major_faults": usage.ru_majflt}
        disk = _disk_bytes()
        if disk is not None:
            self._counts["disk_bytes"] = disk
        self._counts |= {} if rival is None else rival.counted()

    def since(self, before: "_Usage") -> dict[str, int]:
        return {name: count - before._counts.get(name, 0) for name, count in self._counts.items()}


def _status() -> Iterator[tuple[str, int]]:
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("VmHWM", "VmRSS"):
            yield name, int(value.split()[0]) << 10


def resident() -> int:
    """Bytes of memory that the process holds."""
    return dict(_status())["VmRSS"]


def _reset_peak() -> None:
    """Makes the peak that of what follows; where that is not allowed, it stays that of everything so far."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _disk_bytes() -> int | None:
    """Bytes fetched from the disk for this process, readahead included; None where that is not counted."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return None
    return int(dict(line.split(": ") for line in lines)["read_bytes"])


def _clock_ns() -> int:
    """What reading the clock adds to a timed read."""
    clock = time.perf_counter_ns
    return min(-(clock() - clock()) for _ in range(1000))


def serve(function: Callable[[dict[str, Any]], Any]) -> None:
    """Reads the plan and writes what the function makes of it."""
    # Whoever started this process says what an interrupt means.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        answer: dict[str, Any] = {"result": function(json.load(sys.stdin))}
    except (OSError, ValueError, MemoryError) as error:
        answer = {"error": f"{type(error).__name__}: {error}", "errno": getattr(error, "errno", None)}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    serve(measure)
