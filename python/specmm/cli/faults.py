"""`specmm faults`: a real file, faulted from several threads while one more maps and unmaps."""

import argparse
import importlib.util
import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from specmm import _core
from specmm.cli import arguments, faults_text, machine
from specmm.cli.errors import UsageError, say
from specmm.cli.faults_json import document
from specmm.cli.progress import progress
from specmm.cli.sample import sample_file

SAMPLE = 64 << 20
ROUNDS = 5
PICTURES = (".png", ".svg", ".pdf")

_DESCRIPTION = """\
Maps a real file and faults it from several threads while one more thread maps and unmaps other parts of it:
through the kernel's own mmap, and through each way of locking a fault that specmm has. The file is only
read."""


def add(commands: Any) -> None:
    """Names the options."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "faults", help="fault a real file, with and without the mmap lock", description=_DESCRIPTION
    )
    parser.set_defaults(run=run)
    add = parser.add_argument
    add("file", nargs="?", metavar="FILE", help="a file to map; it is only read (default: a temporary one)")
    add("--workload", default="fault_vs_mmap", help=f"one of {', '.join(_core.workloads())} (fault_vs_mmap)")
    add("--threads", type=_threads, metavar="N", help="faulting threads (as many as there are CPUs)")
    add(
        "--writer-rate",
        type=_rate,
        default="2000",
        metavar="N|max",
        help="pairs of mmap and munmap a second (2000)",
    )
    add(
        "--locking",
        nargs="+",
        action="extend",
        metavar="MODE",
        help=f"ways of locking beside the kernel: {', '.join(_core.rows()[1:])} (all)",
    )
    add(
        "--seconds",
        type=arguments.seconds,
        default=2.0,
        help="seconds of faulting for each row at each rate (2)",
    )
    add(
        "--length",
        type=arguments.size,
        metavar="BYTES",
        help="how much to map, such as 16MiB (the file, at most 64MiB)",
    )
    add(
        "--capacity",
        type=arguments.size,
        metavar="BYTES",
        help="bound of specmm's page cache (what the mapping needs)",
    )
    add("--json", action="store_true", help="the whole result as JSON on stdout")
    add("--plot", metavar="FILE.png", help="also a picture; needs matplotlib")


def run(options: argparse.Namespace) -> int:
    """Runs the workload and shows what came of it."""
    rows = _rows(options.locking)
    if options.workload not in _core.workloads():
        raise UsageError(f"workload {options.workload!r} is not one of {', '.join(_core.workloads())}")
    if options.plot is not None:
        _check_plot(options.plot)
    machine_found = machine.describe()
    threads = options.threads or machine_found["cpus"]
    with ExitStack() as stack:
        temporary = options.file is None
        if temporary:
            size = min(SAMPLE, options.length or SAMPLE)
            path = str(stack.enter_context(sample_file(size)))
        else:
            path = options.file
            arguments.file(path, empty="map")
        show = stack.enter_context(progress("specmm faults"))
        report = _measure(options, path, threads, rows, show)
        result = document(report, machine_found, path, machine.file_system(path), temporary=temporary)
    for warning in faults_text.warnings(result):
        say(f"specmm faults: {warning}")
    if options.plot is not None:
        from specmm.cli.faults_plot import draw

        draw(result, options.plot)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        faults_text.show(result)
        if options.plot is not None:
            print(f"\nThe picture is in {options.plot}.")
    return 0


def _measure(
    options: argparse.Namespace, path: str, threads: int, rows: list[str], show: Any
) -> dict[str, Any]:
    rates = ["0"] if options.writer_rate == "0" else ["0", options.writer_rate]
    try:
        return _core.run_faults(
            path,
            workload=options.workload,
            threads=threads,
            writer_rates=rates,
            locking=rows,
            seconds=options.seconds,
            rounds=ROUNDS,
            length=options.length,
            capacity=options.capacity,
            progress=lambda done, total, row, rate: show(
                done / total, f"now {row} with a writer at {rate}/s"
            ),
        )
    except ValueError as error:
        raise UsageError(str(error)) from None


# --- arguments


def _rows(locking: list[str] | None) -> list[str]:
    known = _core.rows()
    chosen = [mode for item in locking or known for mode in item.split(",")]
    for mode in chosen:
        if mode not in known:
            raise UsageError(f"locking {mode!r} is not one of {', '.join(known)}")
    # The kernel comes first, whoever is compared with it.
    return [row for row in known if row in chosen or row == known[0]]


def _check_plot(path: str) -> None:
    """Before the work, not after it."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib, which is not installed: pip install 'specmm[cli]'")
    if Path(path).suffix.lower() not in PICTURES:
        raise UsageError(f"--plot {path!r} does not end in one of {', '.join(PICTURES)}")
    folder = Path(path).absolute().parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"--plot {path!r}: {str(folder)!r} is not a folder that can be written to")


def _threads(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1024")
    return int(text)


def _rate(text: str) -> str:
    if text == "max" or (text.isascii() and text.isdigit() and int(text) < 1 << 32):
        return text if text == "max" else str(int(text))
    raise argparse.ArgumentTypeError(f"{text!r} is neither a number of pairs a second nor max")
