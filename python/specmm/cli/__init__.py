"""The `specmm` command.

`specmm read` measures reads of a file beside mmap and os.pread, and `specmm stat` shows how much of it is in
memory. `specmm faults` faults a real file with and without the mmap lock, beside the kernel, and
`specmm check` compares specmm with its reference model on random programs. Each subcommand is a module with
`add(subparsers)`, which defines its options, and `run(options)`, which returns the exit code. In text, though
not in JSON, each ends with what to run next (`closing`).

Exit codes: 0 success, 1 an error or a difference, 2 an invalid argument, 130 interrupted.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import specmm
from specmm.cli import check, faults, read, stat
from specmm.cli.errors import UsageError, say


class _Parser(argparse.ArgumentParser):
    """Reports a mistake in one line; `--help` has the rest."""

    def error(self, message: str) -> NoReturn:
        say(f"{self.prog}: {message}; see {self.prog} --help")
        self.exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="specmm",
        description="Read large files under a memory limit you set: "
        "a page cache inside your process, in place of mmap.",
        epilog='Start with "specmm read FILE". '
        'From Python: specmm.PageCache("64MiB").open(FILE).pread(length, offset)',
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"specmm {specmm.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (read, stat, faults, check):
        command.add(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    prog = "specmm"
    before = signal.getsignal(signal.SIGTERM)
    try:
        options = _parser().parse_args(arguments)
        prog = f"specmm {options.command}"
        signal.signal(signal.SIGTERM, _terminated)
        code: int = options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        say(f"{prog}: interrupted")
        return 130
    except BrokenPipeError:
        # Nobody reads our output any more.
        return 128 + signal.SIGPIPE
    except (UsageError, OSError, specmm.SpecmmError) as error:
        say(f"{prog}: {error}")
        return 2 if isinstance(error, UsageError) else 1
    finally:
        signal.signal(signal.SIGTERM, before)
    return code


def _terminated(number: int, _frame: object) -> NoReturn:
    """Exits through Python, so that temporary files are deleted."""
    sys.exit(128 + number)
