"""Runs tests: as the sources are, which says how long each takes and what it meets, then with an edit."""

import contextlib
import hashlib
import json
import math
import os
import re
import resource
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from .build import KINDS, PLACE, PYTHON, TREE, Binary
from .sites import Edit

# Tests of the checkers themselves, and tests that read sources rather than run them.
NOT_OURS = re.compile(r"::canaries::|^loom_history::|^shuttle_harness::")
# A test hangs if it uses this many times the processor that it does with the sources as they are, or takes
# this many times as long, which on a busy machine says little: at least so many seconds.
TIMES, CPU_SECONDS, SECONDS = 8, 5, 30
# To see what a test meets it runs so long at most; one that takes longer is tried last.
RECORDED, DEAR = 15, 600
JOBS = os.cpu_count() or 2
# Runs under way, each a process group of its own.
ALIVE: set[int] = set()
# Where threads and clocks are real.
REAL = ("native", "python")


@dataclass
class Test:
    """One test of one binary."""

    binary: Binary
    name: str
    seconds: float = 0.0
    cpu: float = 0.0  # of those seconds
    met: set[str] = field(default_factory=set)

    @property
    def told(self) -> str:
        """As people and files name it."""
        return f"{self.binary.kind} {self.binary.target} {self.name}"


@dataclass
class End:
    """How a run ended."""

    how: str  # passed, failed, hung
    seconds: float
    cpu: float
    output: str


def tests_of(binary: Binary) -> list[Test]:
    """Those in a binary; of Python, each file is one."""
    if binary.kind == "python":
        return [Test(binary, "all")]
    listed = subprocess.run(
        [binary.path, "--list", "--format", "terse"], cwd=TREE, capture_output=True, text=True, check=True
    )
    names = [line.removesuffix(": test") for line in listed.stdout.splitlines() if line.endswith(": test")]
    return [
        Test(binary, name) for name in names if KINDS[binary.kind].tests in name and not NOT_OURS.search(name)
    ]


def kill(group: int) -> None:
    """A run and what it started."""
    ALIVE.discard(group)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def end_with_the_runs(*_: object) -> None:
    """For signals that end the tool: nothing it started goes on."""
    for group in list(ALIVE):
        kill(group)
    os._exit(130)


def run(test: Test, *, number: int = 0, met: Path | None = None, most: float = math.inf) -> End:
    """One test in a process of its own, as long as it may take: what is not known yet may take its time."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("SPECMM_", "LOOM_"))
    }
    environment |= {"SPECMM_EDIT": str(number), "RUST_BACKTRACE": "0", **dict(KINDS[test.binary.kind].run)}
    if met is not None:
        environment["SPECMM_EDITS_MET"] = str(met)
    command = [test.binary.path, "--exact", test.name, "--test-threads=1", "--include-ignored"]
    if test.binary.kind == "python":
        environment["PYTHONPATH"] = str(TREE / "python")
        command = [PYTHON, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", test.binary.path]
    began = time.monotonic()
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            command,
            cwd=TREE,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        ALIVE.add(process.pid)
        if test.cpu:
            most = min(most, max(CPU_SECONDS, TIMES * test.cpu))
        if most < math.inf:
            _, hard = resource.getrlimit(resource.RLIMIT_CPU)
            resource.prlimit(process.pid, resource.RLIMIT_CPU, (int(most) + 1, hard))
        code, cpu = ended(process, began + max(SECONDS, TIMES * (test.seconds or DEAR)))
        output.seek(0)
        text = output.read()[-4000:]
    seconds = time.monotonic() - began
    ran = re.search(r"^running 1 test$", text, re.MULTILINE) or len(text) >= 4000
    if code == 0 and not ran and test.binary.kind != "python":
        raise RuntimeError(f"{test.told} ran nothing:\n{text}")
    hung = (None, -signal.SIGKILL, -signal.SIGXCPU)
    return End("hung" if code in hung else "failed" if code else "passed", seconds, cpu, text)


def ended(process: subprocess.Popen, deadline: float) -> tuple[int | None, float]:
    """How a process ended, with the processor time that it used; None if it had to be ended."""
    done, status, usage = os.wait4(process.pid, os.WNOHANG)
    nap = 0.001
    while not done and time.monotonic() < deadline:
        time.sleep(nap)
        nap = min(2 * nap, 0.05)
        done, status, usage = os.wait4(process.pid, os.WNOHANG)
    # What it started dies with it.
    kill(process.pid)
    if not done:
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode if done else None, usage.ru_utime + usage.ru_stime


class NoEvidenceError(Exception):
    """A test fails as the sources are: what it says of an edit is no evidence."""


class Records:
    """How long each test takes as the sources are, and which statements it meets.

    Kept from run to run, since only two things depend on them: which tests an edit is tried in, and when one
    of them hangs. That the sources pass a test is made sure of anew before it counts that an edit does not.
    """

    def __init__(self, marks: list[str], key: str, path: Path = PLACE / "records.json") -> None:
        self.marks, self.key, self.path = marks, key, path
        self.known = json.loads(path.read_text()) if path.exists() else {}
        self.mutex = threading.Lock()
        self.turns: dict[str, threading.Lock] = {}

    def fill(self, tests: list[Test]) -> int:
        """Looks the tests up; runs those that are not known, and says how many."""
        fresh = [test for test in tests if test.told not in self.known]
        try:
            with ThreadPoolExecutor(JOBS) as pool:
                list(pool.map(lambda test: self.take(test, RECORDED), fresh))
        finally:
            self.save()
        for test in tests:
            about = self.known[test.told]
            test.seconds, test.cpu, test.met = about["seconds"], about["cpu"], set(about["met"])
        return len(fresh)

    def take(self, test: Test, most: float = math.inf) -> None:
        """Runs one as the sources are, perhaps only to see what it meets in so many seconds."""
        test.cpu, test.seconds = 0.0, 0.0
        with tempfile.NamedTemporaryFile() as met:
            met.truncate(len(self.marks))
            end = run(test, met=Path(met.name), most=most)
            if end.how == "failed" or (end.how == "hung" and most == math.inf):
                raise NoEvidenceError(f"{test.told} {end.how} without an edit:\n{end.output}")
            seen = Path(met.name).read_bytes()
        # Of what did not end nothing is known but that it is dear.
        is_known = end.how == "passed"
        self.known[test.told] = {
            "key": self.key if is_known else "",
            "seconds": round(end.seconds, 3) if is_known else DEAR,
            "cpu": round(end.cpu, 3) if is_known else DEAR,
            "met": sorted(name for name, byte in zip(self.marks, seen, strict=True) if byte),
        }

    def verify(self, test: Test, cpu: float) -> None:
        """That the sources of today do not fail it, at least for some times as long as an edit took to."""
        with self.mutex:
            turn = self.turns.setdefault(test.told, threading.Lock())
        with turn:
            if self.known[test.told]["key"] != self.key:
                known = self.known[test.told]
                self.take(Test(test.binary, test.name), max(CPU_SECONDS, TIMES * cpu))
                if not self.known[test.told]["key"]:
                    self.known[test.told] = known
                self.save()

    def renew(self, test: Test) -> bool:
        """How long it takes today, if that was not known: what is longer now than it was does not hang."""
        with self.mutex:
            turn = self.turns.setdefault(test.told, threading.Lock())
        with turn:
            if self.known[test.told]["key"] in ("", self.key):
                return False
            self.take(Test(test.binary, test.name), RECORDED)
            test.seconds, test.cpu = self.known[test.told]["seconds"], self.known[test.told]["cpu"]
            return True

    def save(self) -> None:
        """For the next run."""
        with self.mutex:
            self.path.write_text(json.dumps(self.known))


def meeting(edit: Edit, tests: list[Test], hint: str | None = None) -> list[Test]:
    """The tests that meet an edit's statement; if none is known to, its function, or its file.

    What killed it before comes first, whatever is known of it, then the cheapest.
    """
    found = [test for test in tests if edit.statement in test.met]
    for parts in (2, 1):
        if not found:
            place = "|".join(edit.statement.split("|")[:parts]) + "|"
            found = [test for test in tests if any(one.startswith(place) for one in test.met)]
    found += [test for test in tests if test.told == hint and test not in found]
    return sorted(found, key=lambda test: (test.told != hint, test.cpu))


def key_of_tree() -> str:
    """What recorded marks and times depend on: the sources, not the edits."""
    digest = hashlib.sha256()
    root = TREE.parents[2]
    for folder in ("rust", "tests"):
        for path in sorted((root / folder).rglob("*.rs")):
            if path.is_file():
                digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


@dataclass
class Fate:
    """What became of an edit."""

    edit: Edit
    killed_by: str | None = None
    how: str = ""
    tried: int = 0
    left: int = 0  # tests that met it and were too dear
    seconds: float = 0.0
    output: str = ""


def judge(edit: Edit, number: int, tests: list[Test], records: Records, budget: float = math.inf) -> Fate:
    """Runs tests up to the first that fails, or until the budget is spent."""
    fate = Fate(edit)
    spent = 0.0
    for test in tests:
        spent += test.cpu
        if spent > budget:
            fate.left += 1
            continue
        end = run(test, number=number)
        if end.how == "hung" and records.renew(test):
            end = run(test, number=number)
        fate.tried += 1
        fate.seconds += end.seconds
        if end.how != "passed" and (test.binary.kind not in REAL or fails_again(test, number)):
            records.verify(test, end.cpu)
            fate.killed_by, fate.how, fate.output = test.told, end.how, end.output
            break
    return fate


def fails_again(test: Test, number: int) -> bool:
    """Real threads and clocks may fail a test once on a busy machine."""
    return run(test, number=number).how != "passed"


def judge_all(
    edits: list[Edit],
    numbers: dict[str, int],
    to_try: dict[str, list[Test]],
    records: Records,
    budget: float = math.inf,
) -> Iterator[Fate]:
    """All of them, as they end."""
    with ThreadPoolExecutor(JOBS) as pool:
        jobs = [
            pool.submit(judge, edit, numbers[edit.id], to_try[edit.id], records, budget) for edit in edits
        ]
        for job in as_completed(jobs):
            yield job.result()
