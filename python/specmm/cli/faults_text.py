"""The result of `specmm faults` as text: how it was measured, the tables, and a sentence that sums up."""

import shutil
import textwrap
from collections.abc import Iterator
from typing import Any

from specmm import _core, _report
from specmm.cli import figures
from specmm.cli.faults_meaning import sentence
from specmm.cli.table import Table

Result = dict[str, Any]


def warnings(result: Result) -> Iterator[str]:
    """What makes the figures worse than they need be."""
    cpus, threads = result["machine"]["cpus"], result["runs"][0]["threads"]
    writer = any(run["writer_rate"] != 0 for run in result["runs"])
    if threads + writer > cpus:
        others = " and the writer" if writer else ""
        advice = f"; --threads {cpus - 1} leaves one for the writer" if writer and cpus > 1 else ""
        yield (
            f"{threads} faulting thread{'s' * (threads != 1)}{others} share {cpus} CPU{'s' * (cpus != 1)}, "
            f"so the slowest faults are those that waited for a CPU{advice}"
        )


def show(result: Result) -> None:
    """Prints everything."""
    width = max(80, shutil.get_terminal_size((110, 24)).columns)
    for paragraph in _head(result):
        print(textwrap.fill(paragraph, width, break_long_words=False, break_on_hyphens=False))
    print()
    Table(_HEADINGS, [_row(run) for run in result["runs"]], left=2).show()
    for note in _notes(result):
        print("\n" + textwrap.fill(note, width))
    causes = _causes(result)
    if causes.rows:
        print("\nWhy speculation gave up and took the lock (cold passes and the writer's faults included):\n")
        causes.show()
    print("\n" + textwrap.fill(sentence(result), width))


def _head(result: Result) -> Iterator[str]:
    file, machine, timing = result["file"], result["machine"], result["timing"]
    first = result["runs"][0]
    workload, threads, rounds = first["workload"], first["threads"], len(first["rounds"])
    if file["temporary"]:
        made = figures.size(file["size"])
        yield f"No FILE given: a temporary one of {made} was made on {file['fstype']} and then deleted."
    whole = file["mapped"] >= file["size"]
    part = "all" if whole else f"the first {figures.size(file['mapped'])} of"
    # All that is mapped stays cached, so that no fault waits for a disk or for reclaim.
    why = "" if whole else "; --length maps more"
    size = figures.size(file["size"])
    yield f"{file['path']}, {file['fstype']}: {part} {size} mapped, opened read-only{why}."
    yield f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['kernel']}, specmm {machine['specmm']}."
    pinned = ", one to a CPU" if timing["pinned"] else ""
    yield (
        f"{workload}: {_core.workloads()[workload]}; {threads} thread{'s' * (threads != 1)}{pinned}. "
        f"The writer {timing['pair']}."
    )
    renewed = "munmap and mmap" if workload == "page_fault2" else "madvise(DONTNEED)"
    yield (
        f"How it is timed: page-table entries are zapped with {renewed}, then faulted in again by one touch "
        f"every {figures.size(timing['stride'])}, which is what one fault maps. Zapping and the first, cold "
        f"pass are not timed. One fault in {timing['sample_every']} is, less {timing['clock_ns']} ns for "
        f"reading the clock. Figures are medians of {rounds} interleaved rounds (min-max); max is the "
        "slowest of all."
    )


def _notes(result: Result) -> Iterator[str]:
    """Where the faults of one row cannot be compared with the others'."""
    rounds = [each for run in result["runs"] if run["locking"] == "kernel" for each in run["rounds"]]
    touches = sum(each["touches"] for each in rounds)
    faults = sum(each["faults"] for each in rounds)
    if touches and faults < 0.95 * touches:
        yield (
            f"The kernel took {faults / touches:.2f} faults a touch: where its page cache holds large "
            "folios, one fault maps more than a touch asks for, so its faults/s count fewer, longer faults."
        )


_HEADINGS = (
    "locking",
    "writer/s",
    "faults/s",
    "(min-max)",
    "p50",
    "p99",
    "p99.9",
    "max",
    "took no lock",
    "locks taken",
)


def _row(run: dict[str, Any]) -> list[str]:
    low, high = run["spread"]["faults_per_s"]
    locks = run["lock_acquisitions"]
    return [
        run["locking"],
        _writer(run),
        figures.count(run["faults_per_s"]),
        f"({figures.count(low)}-{figures.count(high)})",
        *(figures.nanoseconds(run[name]) for name in ("ns_p50", "ns_p99", "ns_p999", "ns_max")),
        figures.share(run["speculative_share"]),
        "-" if locks is None else figures.count(locks),
    ]


def _writer(run: dict[str, Any]) -> str:
    """The rate asked for, and the rate reached if that is lower."""
    rate, reached = run["writer_rate"], run["writer_pairs_per_s"]
    if rate == 0 or (rate != "max" and reached > 0.9 * rate):
        return str(rate)
    return f"{rate} (got {figures.count(reached)})"


def _causes(result: Result) -> Table:
    """Abort causes by rate, with what they mean. Modes that do not speculate have none."""
    runs = [run for run in result["runs"] if run["events"].get("spf_attempt")]
    glosses = _report.abort_glosses()
    rows = []
    for event, gloss in glosses.items():
        counts = [run["events"][event] for run in runs]
        if any(counts):
            cause = event.removeprefix("spf_abort_")
            rows.append([cause, *(f"{count:,}" for count in counts), gloss])
    several = len({run["locking"] for run in runs}) > 1
    headings = [
        f"{run['locking']} at {run['writer_rate']}" if several else f"at {run['writer_rate']}/s"
        for run in runs
    ]
    return Table(["cause", *headings, "what it means"], rows, gloss=True)
