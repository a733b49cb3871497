"""The verdicts behind `make spin` (tests/spin/run.py): only a full search counts."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

_path = Path(__file__).with_name("run.py")
_spec = importlib.util.spec_from_file_location("spin_run", _path)
assert _spec is not None
assert _spec.loader is not None
spin = importlib.util.module_from_spec(_spec)
# Its dataclasses look their module up.
sys.modules["spin_run"] = spin
_spec.loader.exec_module(spin)

FULL = """
(Spin Version 6.5.2 -- 6 December 2019)

Full statespace search for:
\tnever claim         \t+ (call_ends)
\tassertion violations\t+ (if within scope of claim)
\tacceptance   cycles \t+ (fairness enabled)
\tinvalid end states\t- (disabled by never claim)

State-vector 96 byte, depth reached 116529, errors: 0
   991555 states, stored (3.5044e+06 visited)
"""


def test_a_full_search_without_errors_holds() -> None:
    assert spin.verdict(FULL, liveness=True) == spin.HOLDS
    assert spin.verdict(FULL.replace("fairness enabled", "fairness disabled"), liveness=False) == spin.HOLDS
    assert spin.states(FULL) == 991555


@pytest.mark.parametrize(
    "report",
    [
        "",
        FULL + "error: max search depth too small\n",
        FULL + "Warning: Search not completed\n",
        FULL + "pan: out of memory\n",
        FULL.replace("fairness enabled", "fairness disabled"),
        FULL.replace("Full statespace search", "Bit statespace search"),
    ],
)
def test_anything_less_does_not(report: str) -> None:
    assert spin.verdict(report, liveness=True) != spin.HOLDS


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("assertion violated !(pending[me]) (at depth 51)", spin.ASSERTION),
        ("invalid end state (at depth 73)", spin.HANG),
        ("acceptance cycle (at depth 995)", spin.STARVATION),
        ("something new (at depth 1)", "unknown error"),
    ],
)
def test_errors_have_kinds(said: str, kind: str) -> None:
    report = f"pan:1: {said}\npan: wrote x.trail\n" + FULL.replace("errors: 0", "errors: 1")
    assert spin.verdict(report, liveness=True) == kind


def test_every_claim_has_planted_bugs_and_every_model_claims() -> None:
    assert spin.complaints_about(spin.CHECKS) == []


def test_a_table_that_says_nothing_is_refused() -> None:
    assert "no claim is made" in spin.complaints_about(())
    holding = tuple(check for check in spin.CHECKS if check.expected == spin.HOLDS)
    assert any("no bug is planted" in said for said in spin.complaints_about(holding))
