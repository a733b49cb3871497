"""`specmm check`: random programs through specmm and its reference model, compared after every step."""

import argparse
import json
import secrets
import time
from typing import Any

from specmm.cli import arguments, check_program, closing
from specmm.cli.progress import progress

_DESCRIPTION = """\
Runs random programs (reads, mappings, loads, stores, faults, truncations) step by step through specmm and
through its reference model in plain Python. After every step results, bytes, residency, page-table entries,
readahead state and event counters must agree, and the cache must pass its self-check."""


def add(commands: Any) -> None:
    """Names the options."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "check", help="compare specmm with its reference model on random programs", description=_DESCRIPTION
    )
    parser.set_defaults(run=run)
    parser.add_argument("--seconds", type=_seconds, default=5.0, help="how long to run (5)")
    parser.add_argument(
        "--seed", type=arguments.seed, help="repeat the programs of this seed (default: a fresh seed)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(options: argparse.Namespace) -> int:
    """Runs programs until time runs out or something differs."""
    seed = secrets.randbits(32) if options.seed is None else options.seed
    began = time.monotonic()
    tally = check_program.Tally()
    difference = None
    with progress("specmm check") as show:
        while difference is None and (spent := time.monotonic() - began) < options.seconds:
            show(spent / options.seconds, f"{tally.steps} steps compared")
            difference = check_program.run(seed, tally)
            tally.programs += 1
            seed += 1
    result: dict[str, Any] = {
        "programs": tally.programs,
        "steps": tally.steps,
        "audits": tally.steps,
        "last_seed": seed - 1,
        "calls": dict(sorted(tally.calls.items())),
        "aborts": dict(sorted(tally.aborts.items())),
        "difference": difference,
    }
    if options.json:
        print(json.dumps(result, indent=2))
    elif difference is None:
        print(
            f"{tally.programs} random programs, {tally.steps} steps: after every step specmm and its model "
            "agreed on results, bytes, residency, entries, readahead state and events, and the self-check "
            "passed."
        )
        print("Calls: " + ", ".join(f"{name} {count}" for name, count in result["calls"].items()) + ".")
        print("Aborts: " + ", ".join(f"{name} {count}" for name, count in result["aborts"].items()) + ".")
    else:
        print(f"specmm and its model differ:\n{difference}")
    if not options.json:
        closing.show(_next(seed, difference))
    return 0 if difference is None else 1


def _next(seed: int, difference: str | None) -> list[closing.Step]:
    if difference is not None:
        return [(["check", "--seed", str(seed - 1), "--seconds", "1"], "repeats it; please report it")]
    return [
        (["check", "--seconds", "60"], "other programs, for longer"),
        (["faults"], "the same fault path on a real file, timed beside the kernel's"),
    ]


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds <= 86400.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds
