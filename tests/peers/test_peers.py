"""The verdicts behind `make peers` (tests/peers/run.py): what differs is in the table, and the table true."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

PEERS = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("peers_run", PEERS / "run.py")
assert _spec is not None
assert _spec.loader is not None
peers = importlib.util.module_from_spec(_spec)
# Its dataclasses look their module up.
sys.modules["peers_run"] = peers
_spec.loader.exec_module(peers)

OUTCOMES = ("passed", "failed", "skipped", "xfailed")


def run(pages=0, **tests):
    return peers.Run({name: peers.Test(outcome, pages) for name, outcome in tests.items()})


def judge(plain, through, rows=(), served=0, whole=True):
    return peers.judge(plain, through, dict.fromkeys(rows, "because"), served, whole=whole)


def test_each_pair_of_outcomes_with_and_without_a_row():
    for before, after in itertools.product((*OUTCOMES, None), repeat=2):
        plain, through = (run(**({"t": outcome} if outcome else {})) for outcome in (before, after))
        # A failure that is there plainly too is not ours, whatever else it becomes; a test that is there in
        # one run only always is.
        ours = before != after and (before != "failed" or after is None)
        assert bool(judge(plain, through)) == ours, (before, after)
        (first, *_) = judge(plain, through) or ("",)
        assert first.startswith("t: ") == ours
        # A row is right where there is a difference that is ours, and nowhere else.
        assert (judge(plain, through, ["t"]) == []) == (ours and before != "failed"), (before, after)


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(OUTCOMES)),
    st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(OUTCOMES)),
)
def test_a_table_of_what_differs_is_the_only_one_that_passes(before, after):
    plain, through = run(**before), run(**after)
    wrong = {line.split(":")[0] for line in judge(plain, through)}
    rows = {test for test in wrong if before.get(test) != "failed"}
    assert judge(plain, through, rows) == [
        line for line in judge(plain, through) if line.split(":")[0] not in rows
    ]
    for test in "abcdef":
        assert test in wrong or judge(plain, through, rows | {test}) != judge(plain, through, rows)


def test_an_empty_run_fails():
    passes = {"a": "passed", "b": "passed"}
    assert judge(run(**passes), run(pages=1, **passes), served=2) == []
    (wrong,) = judge(run(**passes), run(pages=1, **passes), served=3)
    assert wrong.startswith("only 2 tests read")
    (wrong,) = judge(run(), run(), served=1)
    assert wrong.startswith("only 0 tests read")
    # A plain run that is none proves nothing.
    (wrong,) = judge(run(pages=1, **passes), run(pages=1, **passes), served=2)
    assert wrong.startswith("2 tests of the plain run")


def test_a_run_that_breaks_off_fails_even_if_all_passed():
    for broken in ("plain", "specmm"):
        runs = {name: run(a="passed") for name in ("plain", "specmm")}
        runs[broken].broken = "exit -11"
        (wrong,) = judge(runs["plain"], runs["specmm"])
        assert wrong == f"the {broken} run broke off: exit -11"


def test_a_part_of_a_suite_need_not_find_every_row():
    assert judge(run(a="passed"), run(a="passed"), ["b"], whole=False) == []
    assert judge(run(a="passed"), run(a="passed"), ["a"], whole=False) != []


def test_the_committed_table_has_reasons_and_the_peers_have_floors():
    rows = peers.table()
    config = tomllib.loads((PEERS / "peers.toml").read_text())
    named = {"fsspec", "zarr", "h5py", "h5netcdf", "pyzipper", "zipfile", "tarfile", "gzip", "io"}
    assert named <= config.keys()
    assert rows.keys() <= config.keys()
    for name, reasons in rows.items():
        assert reasons, name
        assert all(len(why) > 20 for why in reasons.values())
    for name, peer in config.items():
        assert peer["served"] > 0, name
        assert not peer.get("quick") or peer["quick_served"] > 0, name
        assert all(left["why"] for left in peer.get("left_out", [])), name


def test_a_test_twice_in_the_table_is_refused(tmp_path):
    table = tmp_path / "table.toml"
    table.write_text('[[io]]\nwhy = "one"\ntests = ["t"]\n[[io]]\nwhy = "other"\ntests = ["t"]\n')
    with pytest.raises(SystemExit, match="io has t twice"):
        peers.table(table)


SUITE = """
import io, os, unittest

class Suite(unittest.TestCase):
    def setUp(self):
        with open("data", "wb") as file:
            file.write(b"abc")
    def test_reads(self):
        with io.open("data", "rb") as file:
            self.assertEqual(file.read(), b"abc")
    def test_reads_text(self):
        with open("data") as file:
            self.assertEqual(file.read(), "abc")
    def test_reads_nothing(self):
        os.stat("data")
    def test_has_a_descriptor(self):
        with open("data", "rb") as file:
            file.fileno()
    def test_parts(self):
        for part in range(3):
            with self.subTest(part):
                self.assertNotEqual(part, 1)
    def test_skips(self):
        self.skipTest("now")
    @unittest.expectedFailure
    def test_is_known_to_fail(self):
        self.fail()
"""


@pytest.mark.parametrize("runner", ["unittest", "pytest"])
def test_what_a_suite_became_is_told_and_what_was_read(tmp_path, runner):
    (tmp_path / "test_planted.py").write_text(textwrap.dedent(SUITE))
    found = {}
    for adapters in ("", "files"):
        report = tmp_path / f"report-{adapters}"
        program = [str(PEERS / "recorder.py"), "test_planted"]
        if runner == "pytest":
            program = ["-m", "pytest", "-p", "recorder", "-q", "-c", "/dev/null", "--rootdir=.", "."]
        paths = [str(PEERS), str(tmp_path), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        told = {
            "SPECMM_PEERS_ADAPTERS": adapters,
            "SPECMM_PEERS_REPORT": str(report),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }
        done = subprocess.run(
            [sys.executable, *program], cwd=tmp_path, env=os.environ | told, capture_output=True, check=False
        )
        tests = [json.loads(line) for line in report.read_text().splitlines()]
        assert len(tests) == 7, done
        found[adapters] = {
            test["test"].replace("::", ".").rpartition(".")[2]: (test["outcome"], test["pages"] > 0)
            for test in tests
        }
    plain = {
        "test_reads": ("passed", False),
        "test_reads_text": ("passed", False),
        "test_reads_nothing": ("passed", False),
        "test_has_a_descriptor": ("passed", False),
        "test_parts": ("failed", False),
        "test_skips": ("skipped", False),
        "test_is_known_to_fail": ("xfailed", False),
    }
    assert found[""] == plain
    through = {"test_reads": ("passed", True), "test_reads_text": ("passed", True)}
    assert found["files"] == plain | through | {"test_has_a_descriptor": ("failed", False)}
