"""Programs of a few lines that the tests run in an interpreter of their own."""

import signal
import subprocess
import sys
import time


def run(code: str, *arguments: object) -> str:
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
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
