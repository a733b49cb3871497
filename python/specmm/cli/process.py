"""The command as a process: Ctrl-C, and streams that are closed or lack characters."""

import io
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from specmm.cli import main
from specmm.cli.errors import say


def run() -> int:
    """Runs the command with the process's own arguments and returns its exit code."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 - to the end of the process
    if sys.stdout is None:
        say("specmm: stdout is closed")
        return 1
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file's name may have characters that the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    code = 130
    try:
        # If it is being ignored, it stays so.
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, _interrupted)
        code = _flushed(main())
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:
        _flushed(code)
    except SystemExit as done:
        # From the parser, which has printed its message.
        code = _flushed(done.code if isinstance(done.code, int) else 0)
    return code


def _interrupted(_number: int, _frame: FrameType | None) -> NoReturn:
    """The first Ctrl-C ends the command in an orderly way, a second one at once."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise KeyboardInterrupt


def _flushed(code: int) -> int:
    """Flushes the streams; returns the exit code, which is no success if output was lost."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            # Python flushes once more at exit; let that succeed.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            if stream is sys.stdout and code == 0:
                code = 128 + signal.SIGPIPE if isinstance(error, BrokenPipeError) else 1
    return code
