"""The result of `specmm read` as text: how it was measured, the tables, and a sentence that sums up."""

import shutil
import textwrap
from collections.abc import Iterator
from typing import Any

from specmm.cli import figures
from specmm.cli.table import Table

Result = dict[str, Any]
Row = dict[str, Any]


def show(result: Result) -> None:
    """Prints everything."""
    width = max(80, shutil.get_terminal_size((110, 24)).columns)

    def say(text: str) -> None:
        print(textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False))

    for paragraph in _head(result):
        say(paragraph)
    cold = [row for row in result["rows"] if row["cache"] != "warm"]
    warm = [row for row in result["rows"] if row["cache"] == "warm"]
    for title, rows in ((_cold_title(cold), cold), ("Warm: the same reads again.", warm)):
        print()
        say(title)
        print()
        Table(_HEADINGS, [_row(row) for row in rows], left=2).show()
    print()
    say(_memory_title(result))
    print()
    Table(_MEMORY, list(_memory(result)), left=2).show()
    print()
    say(meaning(result))


def _head(result: Result) -> Iterator[str]:
    file, machine, reads, timing = (result[key] for key in ("file", "machine", "reads", "timing"))
    yield f"{file['path']}, {file['fstype']}: {figures.size(file['size'])}, opened read-only."
    yield f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['kernel']}, specmm {machine['specmm']}."
    one = figures.size(reads["size"])
    yield (
        f"Up to {reads['count']:,} reads of {one}, the same for all: random, sequential from the start, and "
        f"random in batches of {reads['batch']}. Figures are medians of {timing['rounds']} interleaved "
        f"rounds (min-max), each in its own process; p50 and p99 come from one read (or batch) in "
        f"{timing['sample_every']}, timed on its own. Times include Python's loop."
    )
    cut = [row["pattern"] for row in result["rows"] if _is_cut(row, timing["rounds"])]
    if cut:
        yield (
            f"Time ran out before all cold reads were made ({', '.join(dict.fromkeys(cut))}); the warm reads "
            "repeat those that were. --seconds allows more."
        )


def _is_cut(row: Row, rounds: int) -> bool:
    return bool(row["cache"] != "warm" and row["reads"] < row["offered"] * rounds)


def _cold_title(rows: list[Row]) -> str:
    if all(row["cache"] == "cold" for row in rows):
        return (
            "Cold: nothing cached in the process, and the file dropped from the kernel's page cache. The "
            "disk, or the host of a virtual machine, may still cache it."
        )
    return (
        "Nothing cached in the process; but part of the file stayed in the kernel's page cache, so these are "
        "misses served by the kernel (kernel-cached), not cold reads."
    )


_HEADINGS = (
    "reads",
    "through",
    "reads/s",
    "(min-max)",
    "MB/s",
    "vs specmm",
    "p50",
    "p99",
    "from disk",
    "hits",
)


def _row(row: Row) -> list[str]:
    low, high = row["spread"]["reads_per_s"]
    size = row["size"]
    kind = row["pattern"] + (", kernel-cached" if row["cache"].startswith("miss") else "")
    return [
        kind,
        row["through"],
        figures.count(row["reads_per_s"]),
        f"({figures.count(low)}-{figures.count(high)})",
        f"{row['reads_per_s'] * size / 1e6:,.0f}",
        figures.ratio(row["ratio"]),
        figures.nanoseconds(row["ns_p50"]),
        figures.nanoseconds(row["ns_p99"]),
        "-" if row["disk_bytes"] is None else figures.size(row["disk_bytes"]),
        figures.share(row["hit_share"]),
    ]


def _memory_title(result: Result) -> str:
    return (
        f"Memory. The limit is {figures.size(result['bound'])} for the process, on top of the interpreter "
        f"and {figures.size(result['slack'])} for tables and buffers. specmm keeps to it by itself; os.pread "
        'caches nothing; "mmap, dropped" releases all its mapped pages (MADV_DONTNEED) before they could '
        'reach it; "mmap" is not limited. The kernel\'s page cache is outside this limit for all four: only '
        "a memory cgroup limits that."
    )


_MEMORY = ("reads", "through", "peak cold", "peak warm", "within limit", "left in the kernel's cache")


def _memory(result: Result) -> Iterator[list[str]]:
    pairs: dict[tuple[str, str], list[Row]] = {}
    for row in result["rows"]:
        pairs.setdefault((row["pattern"], row["through"]), []).append(row)
    for (pattern, through), (cold, warm) in pairs.items():
        yield [
            pattern,
            through,
            figures.size(max(cold["peak_memory"], 0)),
            figures.size(max(warm["peak_memory"], 0)),
            "yes" if cold["bound_held"] else "no",
            figures.size(warm["kernel_bytes"]),
        ]


def meaning(result: Result) -> str:
    """Who was fastest, and who stayed within the limit: true whoever wins."""
    parts = []
    for phase, is_warm in (("cold", False), ("warm", True)):
        rows = [row for row in result["rows"] if (row["cache"] == "warm") == is_warm]
        patterns = list(dict.fromkeys(row["pattern"] for row in rows))
        parts.append(f"{phase} {', '.join(_fastest(rows, pattern) for pattern in patterns)}")
    held = dict.fromkeys(row["through"] for row in result["rows"])
    broke = {row["through"] for row in result["rows"] if not row["bound_held"]}
    within = [name for name in held if name not in broke]
    memory = f"Within the memory limit: {', '.join(map(_named, within)) or 'none'}"
    if broke:
        memory += f"; over it: {', '.join(_named(name) for name in held if name in broke)}"
    return f"Fastest: {'; '.join(parts)}. {memory}."


def _fastest(rows: list[Row], pattern: str) -> str:
    """The fastest, by how much, and those about as fast, whose rounds overlap with it."""
    mine = sorted((row for row in rows if row["pattern"] == pattern), key=lambda row: -row["ratio"])
    best = mine[0]
    low = best["spread"]["reads_per_s"][0]
    even = [row["through"] for row in mine[1:] if row["spread"]["reads_per_s"][1] >= low]
    names = " and ".join(map(_named, [best["through"], *even]))
    if best["through"] == "specmm" or "specmm" in even:
        behind = next((row for row in mine if row["through"] not in (best["through"], *even)), None)
        if behind is None:
            return f"{pattern} {names}"
        times = figures.ratio(best["ratio"] / behind["ratio"])
        return f"{pattern} {names} ({times} {_named(behind['through'])})"
    return f"{pattern} {names} ({figures.ratio(best['ratio'])} specmm)"


def _named(rival: str) -> str:
    """A rival in a list, which has commas of its own."""
    return rival.replace(", dropped", " (dropped)")
