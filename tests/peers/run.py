"""Runs the test suites of other libraries through specmm, and holds what becomes of them against a table.

    python tests/peers/run.py                 every suite, whole
    python tests/peers/run.py quick           the part that `make ci` has time for
    python tests/peers/run.py zarr io         some of them, whole

Each suite runs twice at the same moment, plainly and with specmm underneath (`through.py`), in processes of
its own, as its authors wrote it. A test that passes plainly must pass through specmm, or stand in
differences.toml with its reason. A row there whose test does not differ, fails plainly or is not found is a
failure, and so is a run in which too few tests read anything through specmm. Python is the one whose
environment has the suites: `make peers` makes it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ARCHIVES = HERE.parents[1] / "target" / "peers"
TABLE_OF = (3, 11)
"""The Python whose own tests the table is of."""
TIMEOUT = 1500
"""Seconds for one run of one suite."""
SHOWN = 20
"""Differences of one peer that are printed with what was raised."""


@dataclass(frozen=True)
class Test:
    """What became of a test (passed, failed, skipped, xfailed), why, and the pages it read through specmm."""

    outcome: str
    pages: int = 0
    why: str = ""


@dataclass
class Run:
    """One run of a suite. broken: why it did not come to its end."""

    tests: dict[str, Test] = field(default_factory=dict)
    broken: str = ""
    seconds: float = 0


def differs(plain: Test | None, through: Test | None) -> bool:
    """Whether specmm makes a difference to a test. One that fails plainly does not tell."""
    if plain is None or through is None:
        return True
    return plain.outcome != "failed" and plain.outcome != through.outcome


def judge(plain: Run, through: Run, rows: dict[str, str], served: int, *, whole: bool) -> list[str]:
    """What is wrong with a pair of runs.

    rows: of the table, test to reason. served: how many tests at least must have read through specmm. whole:
    the suite ran whole, so that a row must find its test.
    """
    wrong = [f"the {name} run broke off: {run.broken}" for name, run in _named(plain, through) if run.broken]
    for test in sorted(plain.tests.keys() | through.tests.keys()):
        one, other = plain.tests.get(test), through.tests.get(test)
        if differs(one, other) and test not in rows:
            was = [result.outcome if result else "not there" for result in (one, other)]
            wrong.append(f"{test}: {was[0]} plainly, {was[1]} through specmm\n{other.why if other else ''}")
    for test in sorted(rows):
        one, other = plain.tests.get(test), through.tests.get(test)
        if one is None and other is None:
            wrong += [f"{test}: in the table, but there is no such test"] * whole
        elif one is not None and one.outcome == "failed":
            wrong.append(f"{test}: in the table, but it fails plainly too")
        elif not differs(one, other):
            wrong.append(f"{test}: in the table, but it does not differ any more")
    count = sum(test.pages > 0 for test in through.tests.values())
    if count < served:
        wrong.append(f"only {count} tests read through specmm, {served} must: is anything under test?")
    if read := sum(test.pages > 0 for test in plain.tests.values()):
        wrong.append(f"{read} tests of the plain run read through specmm: there is nothing to compare with")
    return wrong


def _named(plain: Run, through: Run) -> list[tuple[str, Run]]:
    return [("plain", plain), ("specmm", through)]


def table(path: Path = HERE / "differences.toml") -> dict[str, dict[str, str]]:
    """Peer to test to reason. A reason is given once for all tests that have it."""
    rows: dict[str, dict[str, str]] = {}
    for peer, groups in tomllib.loads(path.read_text()).items():
        rows[peer] = {}
        for group in groups:
            for test in group["tests"]:
                if test in rows[peer]:
                    raise SystemExit(f"{path}: {peer} has {test} twice")
                rows[peer][test] = group["why"]
    return rows


class Peer:
    def __init__(self, name: str, config: dict) -> None:
        self.name = name
        self._config = config

    def tests(self, *, quick: bool) -> list[str]:
        config = self._config
        return config.get("quick", config["tests"]) if quick else config["tests"]

    def served(self, *, quick: bool) -> int:
        return self._config["quick_served"] if quick and "quick" in self._config else self._config["served"]

    def run(self, *, plainly: bool, quick: bool) -> Run:
        config = self._config
        adapters = config.get("plainly", []) if plainly else config["adapters"]
        with tempfile.TemporaryDirectory(prefix=f"specmm-{self.name}-") as scratch:
            report, log = Path(scratch, "report"), Path(scratch, "log")
            command = [sys.executable, "-B"]
            match config["archive"]:
                case "cpython":
                    cwd = Path(scratch)
                case "here":
                    cwd = HERE
                case "installed":
                    cwd = Path(sysconfig.get_path("purelib"))
                case "source":
                    # Some write beside themselves, where the other run would meet it.
                    cwd = shutil.copytree(ARCHIVES / self.archive(), Path(scratch, self.archive()))
            if config["suite"] == "pytest":
                command += ["-m", "pytest", "-p", "recorder", "-p", "no:cacheprovider", "-q", "--rootdir=."]
                command.append(f"--basetemp={scratch}/pytest")
                for left in config.get("left_out", []):
                    one_test = "::" in left["path"]
                    command.append(f"--{'deselect' if one_test else 'ignore'}={left['path']}")
            else:
                command.append(str(HERE / "recorder.py"))
            environment = os.environ | {
                "PYTHONPATH": str(HERE),
                # For a test's children too: above an installed package stands this project's configuration.
                "PYTEST_ADDOPTS": shlex.join(config.get("options", ["-c", "/dev/null"])),
                "HYPOTHESIS_STORAGE_DIRECTORY": f"{scratch}/hypothesis",
                "SPECMM_PEERS_ADAPTERS": " ".join(adapters),
                "SPECMM_PEERS_REPORT": str(report),
                "TMPDIR": scratch,
            }
            began = time.monotonic()
            with log.open("wb") as output:
                try:
                    status = subprocess.run(
                        [*command, *self.tests(quick=quick)],
                        cwd=cwd,
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        timeout=TIMEOUT,
                        check=False,
                    ).returncode
                except subprocess.TimeoutExpired:
                    status = None
            run = Run(seconds=time.monotonic() - began)
            if report.exists():
                for line in report.read_text().splitlines():
                    entry = json.loads(line)
                    run.tests[entry["test"]] = Test(entry["outcome"], entry["pages"], entry["why"])
            # pytest exits with 1 when tests failed.
            if status not in (0, 1) or not run.tests:
                end = log.read_text(errors="replace")[-3000:]
                run.broken = f"no end in {TIMEOUT} s" if status is None else f"exit {status}"
                run.broken += f", {len(run.tests)} tests\n{end}"
            return run

    def archive(self) -> str:
        """The name of the peer's source archive in the version that is installed."""
        return f"{self.name}-{importlib.metadata.version(self.name)}"

    def fetch(self) -> None:
        """Brings the source archive of a peer whose installed package has no tests."""
        if self._config["archive"] != "source" or (ARCHIVES / self.archive()).exists():
            return
        ARCHIVES.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=ARCHIVES) as scratch:
            version = self.archive().replace(f"{self.name}-", f"{self.name}==")
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", self.name]
            subprocess.run([*pip, "--dest", scratch, version], check=True)
            (archive,) = Path(scratch).glob("*.tar.gz")
            shutil.unpack_archive(archive, scratch)
            # Whole or not at all.
            Path(scratch, self.archive()).rename(ARCHIVES / self.archive())


def main() -> int:
    peers = {
        name: Peer(name, config) for name, config in tomllib.loads((HERE / "peers.toml").read_text()).items()
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"quick, or some of {', '.join(peers)}")
    asked = parser.parse_args().peers
    quick = asked == ["quick"]
    if unknown := [name for name in asked if name not in peers and not quick]:
        parser.error(f"no such peer: {', '.join(unknown)}; there are {', '.join(peers)}")
    rows = table()
    if unknown := rows.keys() - peers.keys():
        parser.error(f"differences.toml has rows of {', '.join(sorted(unknown))}")
    chosen = [
        peer
        for name, peer in peers.items()
        if (quick and peer.tests(quick=True)) or name in asked or not asked
    ]
    for peer in chosen:
        peer.fetch()
    failed = []
    # What takes longest comes first in the file, after what takes no time.
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        runs = [
            (peer, [pool.submit(peer.run, plainly=plainly, quick=quick) for plainly in (True, False)])
            for peer in chosen
        ]
        for peer, futures in runs:
            plain, through = (future.result() for future in futures)
            known = rows.get(peer.name, {})
            wrong = judge(plain, through, known, peer.served(quick=quick), whole=not quick)
            outcomes = [test.outcome for test in through.tests.values()]
            print(
                f"{peer.name}: {len(outcomes)} tests, {outcomes.count('passed')} passed through specmm, "
                f"{sum(test.pages > 0 for test in through.tests.values())} read through it, "
                f"{sum(test.outcome == 'failed' for test in plain.tests.values())} fail plainly, "
                f"{len(known)} differ for reasons known; {plain.seconds:.0f} and {through.seconds:.0f} s",
                flush=True,
            )
            for line in wrong[:SHOWN]:
                print("    " + line.replace("\n", "\n        "))
            if wrong:
                failed.append(peer.name)
                print(f"{peer.name}: {len(wrong)} things are wrong")
    if failed and sys.version_info[:2] != TABLE_OF:
        print(f"The table is of Python {'.'.join(map(str, TABLE_OF))}'s tests: make PYTHON=...")
    print(f"{len(chosen) - len(failed)} passed, {len(failed)} failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
