"""Interpreters of their own: programs of a few lines, and the `specmm` command."""

import os
import signal
import subprocess
import sys
import time


def python(*arguments: object, timeout: float | None = 60, env: dict[str, str] | None = None, **options):
    """What became of the interpreter, run with these arguments."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **(env or {})},
        check=False,
        **options,
    )


def command(*arguments: object, **options):
    """What became of the command, run with these arguments."""
    return python("-m", "specmm", *arguments, timeout=120, **options)


def run(code: str, *arguments: object) -> str:
    """What a program prints, which must end well and say nothing on stderr."""
    done = python("-W", "error", "-c", code, *arguments)
    # In full: a program's traceback is what tells.
    print(f"exit code {done.returncode}", done.stderr, sep="\n", end="")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def interrupted(code: str, *arguments: object) -> None:
    """Runs a program that says "ready" and then does something long; interrupts it, and it says what came."""
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout.readline() == "ready\n"
            time.sleep(0.3)  # it comes to the long part
            child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=60)
        finally:
            child.kill()
    assert (child.returncode, out, err) == (0, "interrupted\n", "")
