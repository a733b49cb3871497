"""The `specmm` command in a process of its own."""

import os
import subprocess
import sys


def command(*arguments, env=None, **options):
    return subprocess.run(
        [sys.executable, "-m", "specmm", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **(env or {})},
        check=False,
        **options,
    )
