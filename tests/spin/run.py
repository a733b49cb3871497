"""Searches the models beside this file with spin: every claim must hold, every planted bug must be found.

    python tests/spin/run.py                  everything
    python tests/spin/run.py --show SWITCH    the steps by which the bug planted with -DSWITCH is found

Exit 1 if a claim fails, a search is not complete, or a bug survives. A claim is `safe` (assertions and
invalid end states) or the name of an ltl formula, searched under weak fairness. A search counts only if spin
says that it was full. The bugs come first: a claim that no planted bug breaks is refused.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

MODELS = Path(__file__).parent
SAFE = "safe"

HOLDS, ASSERTION, HANG, STARVATION = "holds", "assertion", "hang", "starvation"


@dataclass(frozen=True)
class Check:
    """One search: a claim, a planted bug, or a flaw that is known and not mended."""

    model: str
    claim: str
    defines: str
    expected: str = HOLDS
    flaw: bool = False

    @property
    def kind(self) -> str:
        """What is searched for."""
        return "flaw" if self.flaw else "claim" if self.expected == HOLDS else "planted"


# With HOLDS: the claims. Otherwise planted bugs, and premises left out (BARGING, TRUNCATE_FOREVER), each with
# how it must show. The headers of the models say what the switches mean, and what the flaw is.
CHECKS = (
    Check("page_lock", SAFE, "TIMES=2 NO_RECHECK", HANG),
    Check("page_lock", SAFE, "TIMES=2 NO_QUEUE_LOCK", HANG),
    Check("page_lock", SAFE, "TIMES=2 UNLOCK_BLIND", HANG),
    Check("page_lock", SAFE, "TIMES=2 READ_THEN_CLEAR", HANG),
    Check("page_lock", SAFE, "TIMES=2 FORGET_WAITERS", HANG),
    Check("page_lock", SAFE, "TIMES=2 CLEAR_OUTSIDE", HANG),
    Check("page_lock", SAFE, "TIMES=2 WAKE_THEN_TELL", HANG),
    Check("page_lock", SAFE, "TIMES=1 PAGES=2 LOCKERS=4 IGNORE_PAGE", ASSERTION),
    Check("page_lock", SAFE, "TIMES=2 HAND_OVER_UNTAKEN", ASSERTION),
    Check("page_lock", SAFE, "TIMES=2 LOCKERS=2 LEAVERS=1 LEAVE_QUEUED", HANG),
    Check("page_lock", SAFE, "TIMES=2 LOCKERS=2 LEAVERS=1 LEAVE_TOLD", HANG),
    Check("page_lock", "served", "LOCKERS=2 NO_HAND_OFF", STARVATION),
    Check("page_lock", "look_ends", "LOCKERS=1 LOOKERS=1 UNLOCK_BLIND", STARVATION),
    Check("rcu", SAFE, "NO_SCAN", ASSERTION),
    Check("rcu", SAFE, "OLD_TICKET", ASSERTION),
    Check("rcu", SAFE, "TAKE_THEN_BATCH", ASSERTION),
    Check("rcu", SAFE, "NUMBER_LATE", ASSERTION),
    Check("rcu", SAFE, "RUN_OUTSIDE", ASSERTION),
    Check("rcu", SAFE, "COUNT_AFTER_PUSH", ASSERTION),
    Check("rcu", SAFE, "BARRIER_IS_SYNCHRONIZE", ASSERTION),
    Check("rcu", "call_ends", "WAIT_FOR_EVEN", STARVATION),
    Check("rcu", "call_ends", "BARGING", STARVATION),
    Check("rcu", "work_runs", "WAIT_FOR_EVEN", STARVATION),
    Check("retry", SAFE, "WRITER ATTEMPT_TWICE", ASSERTION),
    Check("retry", SAFE, "WRITER NO_GRANT_AT_THE_DOOR", HANG),
    Check("retry", SAFE, "WRITER WRITER_LEAVES_SILENTLY", HANG),
    Check("retry", "fault_ends", "WRITER SPECULATE_FOREVER", STARVATION),
    Check("retry", "fault_ends", "WRITER NO_QUEUE", STARVATION),
    Check("retry", "fault_ends", "NEVER_TRIED", STARVATION),
    Check("retry", "fault_ends", "AGAIN_AT_ANY_ERROR", STARVATION),
    Check("retry", "fault_ends", "TRUNCATE_FOREVER", STARVATION),
    Check("retry", "write_ends", "FAULTS=2 WRITER READERS_PASS_BY", STARVATION),
    Check("retry", "write_ends", "WRITER READER_LEAVES_SILENTLY", STARVATION),
    Check("lookup", SAFE, "COUNT_ROUNDS SPIN_IN_PLACE", ASSERTION),
    Check("lookup", SAFE, "COUNT_ROUNDS SAME_SLOT_AGAIN", ASSERTION),
    Check("lookup", "lookup_ends", "SPIN_IN_PLACE", STARVATION),
    Check("queue", SAFE, "NO_NOTIFY", HANG),
    Check("queue", SAFE, "CLOSER STOP_FIRST", HANG),
    Check("queue", "read_ends", "NO_NOTIFY", STARVATION),
    Check("queue", "read_ends", "OTHERS_FIRST", STARVATION),
    Check("queue", "close_ends", "CLOSER QUEUE_WHEN_STOPPED", STARVATION),
    Check("queue", "close_ends", "CLOSER TELL_FIRST", STARVATION),
    Check("queue", "close_ends", "CLOSER NOT_TOLD", STARVATION),
    Check("page_lock", "served", "LOCKERS=3", STARVATION, flaw=True),
    Check("page_lock", "served", "LOCKERS=3 CLEAR_IN_QUEUE"),
    Check("retry", "write_ends", "FAULTS=2 WRITER"),
    Check("page_lock", "served", "LOCKERS=2"),
    Check("page_lock", SAFE, "TIMES=2 CLEAR_IN_QUEUE"),
    Check("page_lock", "look_ends", "LOCKERS=2 LOOKERS=1"),
    Check("page_lock", SAFE, "TIMES=2"),
    Check("page_lock", SAFE, "TIMES=2 LOCKERS=2 LEAVERS=1"),
    Check("page_lock", "served", "LOCKERS=1 LEAVERS=1"),
    Check("page_lock", SAFE, "TIMES=2 LOCKERS=2 LOOKERS=1"),
    Check("page_lock", SAFE, "TIMES=1 PAGES=2 LOCKERS=4"),
    Check("retry", "fault_ends", "FAULTS=2 TRUNCATIONS=1"),
    Check("retry", "fault_ends", "WRITER TRUNCATIONS=1 IO"),
    Check("retry", SAFE, "FAULTS=2 WRITER"),
    Check("retry", SAFE, "WRITER TRUNCATIONS=2 IO"),
    Check("rcu", "call_ends", ""),
    Check("rcu", "work_runs", ""),
    Check("rcu", SAFE, ""),
    Check("lookup", SAFE, "COUNT_ROUNDS"),
    Check("lookup", "lookup_ends", ""),
    Check("queue", SAFE, "CLOSER"),
    Check("queue", "read_ends", ""),
    Check("queue", "read_ends", "CLOSER"),
    Check("queue", "close_ends", "CLOSER"),
)

# Deeper than any of these searches goes; one that reaches it is refused.
DEPTH = 3_000_000
# Partial-order reduction is left on for safety only: under fairness nothing is left out.
COMPILE = {True: ["-DSAFETY", "-DNOCLAIM"], False: ["-DNOREDUCE", "-DNFAIR=3"]}

SHOWS = {
    "assertion violated": ASSERTION,
    "invalid end state": HANG,
    "acceptance cycle": STARVATION,
}
NOT_FULL = ("max search depth too small", "Search not completed", "out of memory", "VECTORSZ", "aborted")


@dataclass(frozen=True)
class Result:
    """What a search came to."""

    verdict: str
    states: int = 0
    seconds: float = 0.0
    trail: str = ""


def verdict(report: str, liveness: bool) -> str:
    """What pan's report says: HOLDS only after a full search of the right kind."""
    errors = re.search(r"errors: (\d+)", report)
    if errors is None:
        return "no report"
    if int(errors[1]) > 0:
        shown = re.findall(r"^pan:\d+: (.*)$", report, re.MULTILINE)
        return next((what for said, what in SHOWS.items() if shown and said in shown[0]), "unknown error")
    for said in NOT_FULL:
        if said in report:
            return f"not full: {said}"
    needed = "fairness enabled" if liveness else "assertion violations\t+"
    asked_for = needed in report and "Full statespace search for" in report
    return HOLDS if asked_for else "not the search asked for"


def states(report: str) -> int:
    """States stored."""
    found = re.search(r"^\s*(\d+) states, stored", report, re.MULTILINE)
    return int(found[1]) if found else 0


def call(*command: str, folder: str) -> str:
    """Runs a command that must succeed; what it printed."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def search(check: Check, steps: bool = False) -> Result:
    """Builds the search and runs it, all in a folder of its own; with `steps`, tells the counterexample."""
    start = time.monotonic()
    source = str(MODELS / f"{check.model}.pml")
    defines = [f"-D{define}" for define in check.defines.split()]
    safe = check.claim == SAFE
    with tempfile.TemporaryDirectory() as folder:
        call("spin", "-a", *defines, source, folder=folder)
        # Bugs are found soon: compiling would be most of it.
        level = "-O2" if check.kind == "claim" else "-O0"
        # Breadth first, the steps that are told are the fewest.
        shortest = ["-DBFS"] if steps and safe else []
        call("cc", level, "-w", *COMPILE[safe], *shortest, "-o", "pan", "pan.c", folder=folder)
        options = [] if safe else ["-a", "-f", "-N", check.claim]
        # The exit code says nothing; the report does.
        done = subprocess.run(
            ["./pan", f"-m{DEPTH}", *options], cwd=folder, capture_output=True, text=True, check=False
        )
        report = done.stdout + done.stderr
        came = verdict(report, liveness=not safe)
        trail = Path(folder) / f"{check.model}.pml.trail"
        if came in SHOWS.values() and not trail.exists():
            came = "error without a trail"
        told = call("spin", "-p", "-k", str(trail), *defines, source, folder=folder) if steps else ""
    return Result(came, states(report), time.monotonic() - start, told)


def complaints_about(checks: tuple[Check, ...]) -> list[str]:
    """Why a table would say nothing: it is empty, or has a claim that nothing was planted against."""
    claimed = {(check.model, check.claim) for check in checks if check.kind == "claim"}
    planted = {(check.model, check.claim) for check in checks if check.kind == "planted"}
    searched = {check.model for check in checks}
    complaints = [] if claimed else ["no claim is made"]
    complaints += [
        f"{model}: no bug is planted against {claim}" for model, claim in sorted(claimed - planted)
    ]
    complaints += [f"{model}: {claim} is not claimed" for model, claim in sorted(planted - claimed)]
    left_out = (path for path in sorted(MODELS.glob("*.pml")) if path.stem not in searched)
    return complaints + [f"{path.name} is not searched" for path in left_out]


def show(switch: str) -> int:
    """Prints the counterexample of one planted bug."""
    for check in CHECKS:
        if check.expected != HOLDS and switch in check.defines.split():
            print(search(check, steps=True).trail)
            return 0
    print(f"spin: no bug is planted with {switch}", file=sys.stderr)
    return 1


def main() -> int:
    """Runs everything; the exit code."""
    parser = argparse.ArgumentParser(description="liveness models")
    parser.add_argument("--show", metavar="SWITCH", help="print the counterexample of this planted bug")
    arguments = parser.parse_args()
    if arguments.show:
        return show(arguments.show)
    complaints = complaints_about(CHECKS)
    # Stable: planted bugs first, in the order of the table.
    checks = sorted(CHECKS, key=lambda check: check.kind != "planted")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for check, result in zip(checks, pool.map(search, checks), strict=True):
            right = result.verdict == check.expected
            said = result.verdict if right else f"{result.verdict}  WRONG"
            print(
                f"{check.kind:8}{check.model:10}{check.claim:12}{check.defines:42}"
                f"{result.states:10} states{result.seconds:7.1f} s  {said}",
                flush=True,
            )
            if not right:
                complaints.append(
                    f"{check.model} {check.claim} ({check.defines}): {result.verdict}, not {check.expected}"
                )
    for complaint in complaints:
        print(f"spin: {complaint}", file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
