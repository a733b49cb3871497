"""The `specmm` command's first step: until it can exit cleanly, Ctrl-C ends it as the signal does.

The package is imported before any of the command's code, and takes long enough to be interrupted, which
Python would report with a traceback. A program that imports the package is not affected.
"""

import os
import signal
import sys


def _is_command() -> bool:
    """Whether this process is `specmm` or `python -m specmm`."""
    if not getattr(sys, "argv", None):
        return False
    if sys.argv[0] == "-m":
        return ("-m", "specmm") in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
    return os.path.basename(sys.argv[0]) == "specmm"  # noqa: PTH119 - quickly


if _is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
