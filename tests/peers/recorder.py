"""What became of each test of a peer, and whether specmm served it. Runs in the peer's process.

A plugin of pytest; as a program it runs a module of unittest: `recorder.py test.test_io`. SPECMM_PEERS_REPORT
names the file to write, a line of JSON a test; SPECMM_PEERS_ADAPTERS the adapters, without which the run is a
plain one.
"""

from __future__ import annotations

import json
import os
import sys
import unittest
from typing import Any

import pytest

import through
from specmm._default import default_cache

ADAPTERS = os.environ["SPECMM_PEERS_ADAPTERS"].split()
through.apply(ADAPTERS)


def served() -> int:
    """Pages that the process-wide cache has given so far, found or fetched."""
    stats = default_cache().stats()
    return stats.hits + stats.misses


class Report:
    def __init__(self) -> None:
        # Opened at the lowest level: `open` may be replaced.
        self._fd = os.open(os.environ["SPECMM_PEERS_REPORT"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._pid = os.getpid()

    def add(self, test: str, outcome: str, pages: int, why: str) -> None:
        # A test that forks may leave a child that goes on here.
        if os.getpid() == self._pid:
            line = json.dumps({"test": test, "outcome": outcome, "pages": pages, "why": why[-2000:]})
            os.write(self._fd, line.encode() + b"\n")


class Plugin:
    """Of pytest: a test is what its worst phase is."""

    def __init__(self) -> None:
        self._report = Report()
        self._outcomes: dict[str, tuple[str, str]] = {}

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: Any) -> Any:
        before = served()
        result = yield
        outcome, why = self._outcomes.pop(item.nodeid, ("lost", ""))
        self._report.add(item.nodeid, outcome, served() - before, why)
        return result

    def pytest_runtest_logreport(self, report: Any) -> None:
        outcome = "xfailed" if hasattr(report, "wasxfail") and report.skipped else report.outcome
        so_far = self._outcomes.get(report.nodeid, ("passed", ""))
        if so_far[0] != "failed" and outcome != "passed":
            self._outcomes[report.nodeid] = (outcome, str(report.longrepr))
        else:
            self._outcomes[report.nodeid] = so_far


class Result(unittest.TestResult):
    """Of unittest: a test is what its worst part is."""

    def __init__(self) -> None:
        super().__init__()
        self._report = Report()

    def startTest(self, test: Any) -> None:  # noqa: N802
        super().startTest(test)
        self._before, self._outcome, self._why = served(), "passed", ""

    def stopTest(self, test: Any) -> None:  # noqa: N802
        super().stopTest(test)
        self._report.add(test.id(), self._outcome, served() - self._before, self._why)

    def _became(self, outcome: str, why: str = "") -> None:
        if self._outcome != "failed":
            self._outcome, self._why = outcome, why

    def addError(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addError(test, err)
        if isinstance(test, unittest.TestCase):
            self._became("failed", self.errors[-1][1])
        else:
            # Of a class or a module, whose tests do not begin.
            self._report.add(str(test), "failed", 0, self.errors[-1][1])

    def addFailure(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addFailure(test, err)
        self._became("failed", self.failures[-1][1])

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:  # noqa: N802
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._became("failed", self._exc_info_to_string(err, test))

    def addSkip(self, test: Any, reason: str) -> None:  # noqa: N802
        super().addSkip(test, reason)
        if isinstance(test, unittest.TestCase):
            self._became("skipped", reason)

    def addExpectedFailure(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addExpectedFailure(test, err)
        self._became("xfailed")

    def addUnexpectedSuccess(self, test: Any) -> None:  # noqa: N802
        super().addUnexpectedSuccess(test)
        self._became("failed", "passed unexpectedly")


def pytest_configure(config: Any) -> None:
    config.pluginmanager.register(Plugin(), "specmm-peers")


def main(modules: list[str]) -> None:
    import test.support

    # Nothing that takes long or much of the machine: as Python's own runner has it unless asked.
    test.support.use_resources = []
    suite = unittest.TestSuite(unittest.defaultTestLoader.loadTestsFromName(name) for name in modules)
    suite.run(Result())


if __name__ == "__main__":
    main(sys.argv[1:])
