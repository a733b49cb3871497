"""The comparison behind `make counts` fails when it must (tests/counts/run.py)."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

_path = Path(__file__).with_name("run.py")
_spec = importlib.util.spec_from_file_location("counts_run", _path)
assert _spec is not None
assert _spec.loader is not None
counts = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(counts)


def _within_budget() -> dict[str, float]:
    return {
        f"{operation}_{pages}": base + 8 * level
        for operation, base in (("lookup", 60.0), ("copy_out", 250.0))
        for level, pages in enumerate((1000, 65536, 1000000))
    }


def test_equal_and_cheaper_counts_pass() -> None:
    assert counts.compare({"lookup": 100.0}, {"lookup": 100.0}, 0.03) == []
    assert counts.compare({"lookup": 102.9}, {"lookup": 100.0}, 0.03) == []
    assert counts.compare({"lookup": 50.0}, {"lookup": 100.0}, 0.03) == []


@pytest.mark.parametrize(
    ("measured", "expected", "said"),
    [
        ({"lookup": 103.1}, {"lookup": 100.0}, "1.03 times"),
        ({"lookup": 1.0, "fault": 1.0}, {"lookup": 1.0}, "nothing is committed"),
        ({}, {"lookup": 1.0}, "not measured"),
    ],
)
def test_dearer_new_and_missing_operations_are_reported(
    measured: dict[str, float], expected: dict[str, float], said: str
) -> None:
    (complaint,) = counts.compare(measured, expected, 0.03)
    assert said in complaint


def test_eight_instructions_a_level_are_allowed() -> None:
    assert counts.broken_budgets(_within_budget()) == []


@pytest.mark.parametrize("name", ["lookup_65536", "copy_out_1000000"])
def test_a_ninth_instruction_a_level_is_reported(name: str) -> None:
    measured = _within_budget()
    measured[name] += 1
    (complaint,) = counts.broken_budgets(measured)
    assert complaint.startswith(name.rsplit("_", 1)[0])


def test_every_operation_has_a_committed_count() -> None:
    committed = json.loads(counts.EXPECTED.read_text())
    assert set(committed["instructions"]) == set(counts.OPERATIONS)
