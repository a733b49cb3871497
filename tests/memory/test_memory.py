"""Resident memory never exceeds the bound, whatever is read and however; and the watch would notice."""

import faulthandler
import json
import os
import sys

import soak
from programs import python

# An hour in the deep run, minutes in CI.
SECONDS = {"deep": 3600, "ci": 120}.get(os.environ.get("SPECMM_HYPOTHESIS", "dev"), 5)


def run(seconds: float, reads: str) -> dict:
    done = python(soak.__file__, "--seconds", seconds, "--reads", reads, timeout=None)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_resident_memory_stays_within_the_bound():
    # A long run is no hang: pytest's own time-out is lifted.
    faulthandler.dump_traceback_later(SECONDS + 600, exit=True, file=sys.__stderr__)
    done = run(SECONDS, "specmm")
    assert done["failures"] == []
    assert done["exceeded"] == [], done
    assert done["most_resident"] <= done["allowed"], done
    assert all(count > 0 for count in done["grown"].values()), done
    # The cache was full and went on: what was read is many times what it holds.
    assert done["evictions"] > done["bound"] // 4096
    assert all(count > 0 for count in done["done"].values())
    assert len(done["done"]) == 15


def test_the_watch_notices_what_mmap_takes():
    done = run(5, "mmap")
    assert done["failures"] == []
    assert done["most_resident"] > done["allowed"], done
