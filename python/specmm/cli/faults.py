"""`specmm faults`: faults a real file from several threads while another thread maps and unmaps."""

import argparse
import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from specmm import _core
from specmm.cli import arguments, closing, faults_plot, faults_text, machine, picture
from specmm.cli.errors import UsageError, say
from specmm.cli.faults_json import document
from specmm.cli.progress import progress
from specmm.cli.sample import sample_file

SAMPLE = 64 << 20
ROUNDS = 5

_DESCRIPTION = """\
For those who study page faults. Maps a real file and faults it from several threads while another thread
maps and unmaps other parts of it: through the kernel's own mmap, and through specmm with and without the mmap
lock. Compares how long a fault takes, and says why speculation gave up. The file is never written to."""


def add(commands: Any) -> None:
    """Names the options."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "faults",
        help="fault a real file with and without the mmap lock, beside the kernel",
        description=_DESCRIPTION,
    )
    parser.set_defaults(run=run)
    add = parser.add_argument
    add("file", nargs="?", metavar="FILE", help="the file to map (default: a temporary one)")
    add("--workload", default="fault_vs_mmap", help=f"one of {', '.join(_core.workloads())} (fault_vs_mmap)")
    add("--threads", type=_threads, metavar="N", help="faulting threads (one for each CPU)")
    add(
        "--writer-rate",
        type=_rate,
        default="2000",
        metavar="N|max",
        help="pairs of mmap and munmap a second, by the other thread (2000)",
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
        help="how much to map, such as 16MiB (the whole file, up to 64MiB)",
    )
    add(
        "--capacity",
        type=arguments.size,
        metavar="BYTES",
        help="the memory limit of specmm's page cache (what the mapping needs)",
    )
    add("--json", action="store_true", help="print the whole result as JSON")
    add("--plot", metavar="FILE.png", help=f"also draw the result, {picture.HELP}")


def run(options: argparse.Namespace) -> int:
    """Runs the workload and shows the result."""
    rows = _rows(options.locking)
    if options.workload not in _core.workloads():
        raise UsageError(f"workload {options.workload!r} is not one of {', '.join(_core.workloads())}")
    if options.plot is not None:
        picture.check(options.plot)
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
        faults_plot.draw(result, options.plot)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        faults_text.show(result)
        if options.plot is not None:
            print(f"\nThe picture is in {options.plot}.")
        closing.show(list(_next(options)))
    return 0


def _next(options: argparse.Namespace) -> Iterator[closing.Step]:
    faults = ["faults", *([] if options.file is None else [closing.file(options.file)])]
    if options.plot is None:
        yield [*faults, "--plot", "faults.png"], "latencies and causes, as a picture"
    if options.writer_rate != "max":
        yield [*faults, "--writer-rate", "max"], "beside a thread that maps and unmaps without pause"
    yield ["check"], "the same fault path against its reference model"


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
    # The kernel comes first, whatever else was chosen.
    return [row for row in known if row in chosen or row == known[0]]


def _threads(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1024")
    return int(text)


def _rate(text: str) -> str:
    if text == "max" or (text.isascii() and text.isdigit() and int(text) < 1 << 32):
        return text if text == "max" else str(int(text))
    raise argparse.ArgumentTypeError(f"{text!r} is neither a number of pairs a second nor max")
