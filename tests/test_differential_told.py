"""What differs is told at once and with lines that repeat it, and the search for something shorter ends."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).parent
REPEATED = r"To repeat it:\n\n(.*?teardown\(\)\n)"
TOLD = re.compile(r"WrongMachine fails after (\d+) steps.*?" + REPEATED, re.DOTALL)
SHORTER = re.compile(r"WrongMachine fails in (\d+) steps as well.*?" + REPEATED, re.DOTALL)


def planted(seconds: float) -> subprocess.Popen[str]:
    """A run of pytest, capturing as by default, that finds a difference and makes it shorter for so long."""
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "differential_planted.py"],
        cwd=TESTS,
        env=os.environ | {"SHORTENING_SECONDS": str(seconds)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def is_repeated_by(lines: str) -> bool:
    again = subprocess.run(
        [sys.executable, "-c", lines], cwd=TESTS, stderr=subprocess.PIPE, text=True, timeout=120, check=False
    )
    return again.returncode == 1 and "differential_sides.Difference: " in again.stderr


def test_a_difference_is_told_before_it_is_made_shorter() -> None:
    run = planted(seconds=3600)
    told = ""
    try:
        assert run.stderr is not None
        for line in run.stderr:
            told += line
            if TOLD.search(told):
                break
        assert run.poll() is None, "it is being made shorter"
    finally:
        run.kill()
        run.communicate()
    found = TOLD.search(told)
    assert found is not None, told
    assert "\nDifference: " in told
    assert is_repeated_by(found[2])


def test_making_it_shorter_has_an_end() -> None:
    start = time.monotonic()
    run = planted(seconds=2)
    _, told = run.communicate(timeout=280)
    took = time.monotonic() - start
    assert run.returncode == 1
    first, shorter = TOLD.search(told), SHORTER.search(told)
    assert first is not None, told
    assert shorter is not None, told
    assert int(shorter[1]) <= int(first[1])
    assert is_repeated_by(shorter[2])
    assert took < 60, f"{took} s"
