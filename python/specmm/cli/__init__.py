"""The `specmm` command.

`specmm faults` is the main job: a real file, faulted with and without the mmap lock, beside the kernel.
`specmm read` measures reads of a file beside mmap and os.pread, `specmm stat` shows what is in memory of it.
`specmm check` runs random programs through specmm and through its reference model. Each subcommand is a
module with `add(subparsers)`, which names its options, and `run(options)`, which answers the exit code.

Exit codes: 0 done, 1 something went wrong or does not hold, 2 an argument cannot work, 130 interrupted.
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
    """Says what is wrong in one line; `--help` has the rest."""

    def error(self, message: str) -> NoReturn:
        say(f"{self.prog}: {message}")
        self.exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="specmm", description="Linux's file page-fault path as a library.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"specmm {specmm.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    faults.add(commands)
    read.add(commands)
    stat.add(commands)
    check.add(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and answers its exit code."""
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
        # Whoever read our output has gone.
        return 128 + signal.SIGPIPE
    except (UsageError, OSError, specmm.SpecmmError) as error:
        say(f"{prog}: {error}")
        return 2 if isinstance(error, UsageError) else 1
    finally:
        signal.signal(signal.SIGTERM, before)
    return code


def _terminated(number: int, _frame: object) -> NoReturn:
    """Ends in order, so that temporary files go."""
    sys.exit(128 + number)
