"""What differs is told at once and with lines that repeat it, and the search for something shorter ends."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

TESTS = Path(__file__).parents[1]
REPEATED = r"To repeat it:\n\n(.*?teardown\(\)\n)"
TOLD = re.compile(r"WrongMachine fails after (\d+) steps.*?" + REPEATED, re.DOTALL)
SHORTER = re.compile(r"WrongMachine fails in (\d+) steps as well.*?" + REPEATED, re.DOTALL)


def planted(folder: Path, seconds: float) -> subprocess.Popen[str]:
    """A run of pytest, capturing as by default, that finds a difference and makes it shorter for so long."""
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "differential/planted.py"],
        cwd=TESTS,
        env=os.environ | {"SHORTENING_SECONDS": str(seconds), "TMPDIR": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_until_told(stream: IO[str]) -> str:
    told = ""
    while not TOLD.search(told):
        line = stream.readline()
        assert line, told
        told += line
    return told


def is_repeated_by(lines: str, folder: Path) -> bool:
    again = subprocess.run(
        [sys.executable, "-c", lines],
        cwd=TESTS,
        env=os.environ | {"TMPDIR": str(folder)},
        stderr=subprocess.PIPE,
        text=True,
        timeout=200,
        check=False,
    )
    return again.returncode == 1 and "differential.sides.Difference: " in again.stderr


def test_a_difference_is_told_before_it_is_made_shorter(tmp_path: Path) -> None:
    with planted(tmp_path, seconds=3600) as run:
        assert run.stderr is not None
        try:
            told = read_until_told(run.stderr)
            assert run.poll() is None, "it is being made shorter"
        finally:
            run.kill()
    found = TOLD.search(told)
    assert found is not None
    assert "\nDifference: " in told
    assert is_repeated_by(found[2], tmp_path)


def test_making_it_shorter_has_an_end(tmp_path: Path) -> None:
    with planted(tmp_path, seconds=2) as run:
        assert run.stderr is not None
        told = read_until_told(run.stderr)
        start = time.monotonic()
        told += run.stderr.read()
        took = time.monotonic() - start
    assert run.returncode == 1
    first, shorter = TOLD.search(told), SHORTER.search(told)
    assert first is not None
    assert shorter is not None, told
    assert int(shorter[1]) <= int(first[1])
    assert is_repeated_by(shorter[2], tmp_path)
    assert took < 60, f"{took} s"
