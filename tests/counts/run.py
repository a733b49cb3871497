"""Counts the instructions of hot operations under callgrind and compares them with what is committed.

Wall time on a shared machine says little; the same program executes the same instructions every time. So
counts are what may be asserted, and timings are not.

    python tests/counts/run.py PROGRAM            exit 1 if something is dearer than in expected.json
    python tests/counts/run.py PROGRAM --update   write expected.json

Three things are checked: that no count exceeds its committed value (`compare`), that a hit's cost does not
grow with what is resident (`broken_budgets`), and, first of all, that a wasteful twin is caught.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

EXPECTED = Path(__file__).with_name("expected.json")

OPERATIONS = (
    "lookup_1000",
    "lookup_65536",
    "lookup_1000000",
    "copy_out_1000",
    "copy_out_65536",
    "copy_out_1000000",
    "copy_out_page",
    "miss",
    "fault_speculative",
    "fault_speculative_around",
    "fault_speculative_private",
    "fault_mmap_lock",
    "fault_mmap_lock_around",
)

# The index has 64 slots a node: 1,000 pages need two levels, 65,536 three, 1,000,000 four.
LEVELS = {"1000": 2, "65536": 3, "1000000": 4}
PER_LEVEL = 8

# Counts move with the compiler. What another one makes of the code is compared too, but loosely.
SAME_COMPILER = 0.03
OTHER_COMPILER = 0.25

CONTROL, CONTROL_OF = "control", "lookup_65536"


def compare(measured: dict[str, float], expected: dict[str, float], tolerance: float) -> list[str]:
    """What became dearer than `tolerance` allows, or is not to be compared at all."""
    complaints = []
    for name, count in measured.items():
        if name not in expected:
            complaints.append(f"{name}: {count:.1f} instructions, but nothing is committed for it")
        elif count > expected[name] * (1 + tolerance):
            ratio = count / expected[name]
            complaints.append(
                f"{name}: {count:.1f} instructions, {ratio:.2f} times the committed {expected[name]:.1f}"
            )
    complaints += [f"{name}: committed, but not measured" for name in expected if name not in measured]
    return complaints


def broken_budgets(measured: dict[str, float]) -> list[str]:
    """Where a hit's cost grows with the pages resident by more than the tree's height explains."""
    complaints = []
    for operation in ("lookup", "copy_out"):
        base = measured[f"{operation}_1000"]
        for pages, levels in LEVELS.items():
            allowed = base + PER_LEVEL * (levels - LEVELS["1000"])
            count = measured[f"{operation}_{pages}"]
            if count > allowed + 0.5:
                complaints.append(
                    f"{operation}: {count:.1f} instructions among {pages} pages, {base:.1f} among 1000; "
                    f"{PER_LEVEL} more a level would be {allowed:.1f}"
                )
    return complaints


def instructions(program: Path, operation: str) -> float:
    """Instructions of one `operation`, by callgrind."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind.out"
        command = [
            "valgrind",
            "--tool=callgrind",
            "--toggle-collect=*::counted_*",
            f"--callgrind-out-file={out}",
            str(program),
            operation,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
        totals = [line for line in out.read_text().splitlines() if line.startswith("totals: ")]
        count = int(totals[0].split()[1])
        if count == 0:
            raise RuntimeError(f"{operation}: no instruction was collected; is a counted_ function inlined?")
        return count / int(done.stdout.split()[0])


def compiler() -> str:
    """The compiler's version, without its date."""
    version = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True)
    return " ".join(version.stdout.split()[:2])


def main() -> int:
    """Runs everything; the exit code."""
    parser = argparse.ArgumentParser(description="instructions of hot operations")
    parser.add_argument("program", type=Path, help="the built example `counts`")
    parser.add_argument("--update", action="store_true", help="commit to what is measured now")
    arguments = parser.parse_args()
    names = (CONTROL, *OPERATIONS)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = dict(
            zip(names, pool.map(lambda name: instructions(arguments.program, name), names), strict=True)
        )
    control = counts.pop(CONTROL)
    if not compare({CONTROL_OF: control}, {CONTROL_OF: counts[CONTROL_OF]}, SAME_COMPILER):
        print(
            f"counts: the wasteful twin ({control:.1f}) passes for {CONTROL_OF}: this check cannot fail",
            file=sys.stderr,
        )
        return 1
    if arguments.update:
        content = {
            "compiler": compiler(),
            "instructions": {name: round(count, 1) for name, count in counts.items()},
        }
        EXPECTED.write_text(json.dumps(content, indent=2) + "\n")
        print(f"counts: {EXPECTED.name} written")
    committed = json.loads(EXPECTED.read_text())
    same = committed["compiler"] == compiler()
    tolerance = SAME_COMPILER if same else OTHER_COMPILER
    print(f"instructions an operation now ({compiler()}) and as committed ({committed['compiler']})")
    for name, count in counts.items():
        before = committed["instructions"].get(name, float("nan"))
        cheaper = "  cheaper: run `make counts COUNTS=--update`" if count < before * (1 - tolerance) else ""
        print(f"  {name:28}{count:10.1f}{before:10.1f}{cheaper}")
    complaints = compare(counts, committed["instructions"], tolerance) + broken_budgets(counts)
    for complaint in complaints:
        print(f"counts: {complaint}", file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
