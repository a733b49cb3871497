"""Draws edits of the sources, and runs each against the tests that meet it: some test must fail.

    make mutants                                     30 edits, a fresh seed, which is printed
    make mutants MUTANTS="--seed 7 --count 200"
    make mutants MUTANTS="--file cache/truncate.rs --operator swap --all"
    make mutants MUTANTS="--file mm/vma.rs --list"   what could be drawn
    make mutants MUTANTS="--id 0123456789ab"         one, with what the test said that killed it
    make mutants MUTANTS="--all --recheck"           those that tests/mutants/survivors.toml covers

An edit that survives and has no reason in tests/mutants/survivors.toml fails the run, and so does a run
that tried nothing, an entry that covers no edit, and, with --recheck, one whose edit dies.
"""

import argparse
import difflib
import fcntl
import hashlib
import json
import math
import resource
import secrets
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from .build import (
    KINDS,
    PLACE,
    PYTHON,
    REFUSED,
    ROOT,
    Binary,
    CompilerError,
    Written,
    cargo,
    function_text,
    write,
)
from .run import (
    Fate,
    NoEvidenceError,
    Records,
    Test,
    end_with_the_runs,
    judge_all,
    key_of_tree,
    meeting,
    tests_of,
)
from .sites import OPERATORS, Edit, all_edits
from .survivors import Entry, entries, ready_made, stale, told

CORE = ROOT / "rust" / "core"
# Which test killed an edit of a draw, to be tried first, null if it does not compile; and which killed the
# planted edit, by kind. `--update` writes it.
PLANTED = "planted"
KILLERS = ROOT / "tests" / "mutants" / "killers.json"

# What dies in every build: a reference too many. If so many tests that meet it let it live, a run is none.
CONTROL = ("page/refcount.rs", "PageRef::try_get", "constant", "1 -> (1 + 1)")
ENOUGH = 20


def control(edits: list[Edit]) -> Edit:
    """The planted edit."""
    for edit in edits:
        if (edit.file, edit.function, edit.operator, edit.text) == CONTROL:
            return edit
    sys.exit(f"mutants: the sources no longer have the control, {CONTROL}: name another one")


def in_drawn_order(edits: list[Edit], seed: int) -> list[Edit]:
    """By a hash of seed and edit, so that changed sources change few of the first; operators take turns."""

    def place(edit: Edit) -> str:
        return hashlib.sha256(f"{seed}:{edit.id}".encode()).hexdigest()

    turns = []
    for operator in OPERATORS:
        mine = sorted((edit for edit in edits if edit.operator == operator), key=place)
        turns += [(turn, place(edit), edit) for turn, edit in enumerate(mine)]
    return [edit for _, _, edit in sorted(turns, key=lambda one: one[:2])]


def difference(edit: Edit) -> str:
    """A small diff."""
    text = (CORE / edit.file).read_bytes()
    new = text[: edit.start] + edit.new.encode() + text[edit.end :]
    before, after = text.decode().splitlines(), new.decode().splitlines()
    name = f"rust/core/{edit.file}"
    return "\n".join(
        difflib.unified_diff(before, after, name, f"{edit.id} {edit.operator}", n=2, lineterm="")
    )


class Clock:
    """What has passed since, and what of it children had of the processors, which many may share."""

    def __init__(self) -> None:
        self.began, self.used = time.monotonic(), self._used()

    @staticmethod
    def _used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    def __str__(self) -> str:
        return f"{time.monotonic() - self.began:.0f} s, {self._used() - self.used:.0f} s of CPU"


class Refusals:
    """Edits that the compiler refused, remembered as long as their function stays."""

    def __init__(self) -> None:
        self.known = json.loads(REFUSED.read_text()) if REFUSED.exists() else {}

    @staticmethod
    def key(kind: str, edit: Edit) -> str:
        """What a refusal depends on, near enough: a build that refuses says so again."""
        return hashlib.sha256(f"{kind}{edit.id}{function_text(edit)}".encode()).hexdigest()[:16]

    def has(self, kind: str, edit: Edit) -> bool:
        """Whether it was refused."""
        return self.key(kind, edit) in self.known

    def add(self, kind: str, edits: list[Edit]) -> None:
        """Remembers."""
        self.known |= {self.key(kind, edit): edit.id for edit in edits}
        PLACE.mkdir(parents=True, exist_ok=True)
        REFUSED.write_text(json.dumps(self.known))


@dataclass
class Built:
    """What was drawn and compiles in every kind asked for, and what was drawn and does not."""

    chosen: list[Edit]
    refused: list[Edit]
    written: Written
    tests: list[Test]


def build(order: list[Edit], count: int, kinds: list[str], planted: Edit) -> Built:
    """Builds the first `count` that compile."""
    refusals = Refusals()
    while True:
        chosen: list[Edit] = []
        refused: list[Edit] = []
        for edit in order:
            if len(chosen) == count:
                break
            (refused if any(refusals.has(kind, edit) for kind in kinds) else chosen).append(edit)
        written = write([*chosen, *([] if planted in chosen else [planted])])
        refused += [edit for edit in chosen if edit in written.unbuildable]
        chosen = [edit for edit in chosen if edit not in written.unbuildable]
        binaries: list[Binary] = []
        for kind in kinds:
            began = Clock()
            made, guilty = cargo(kind, written)
            if guilty:
                refusals.add(kind, [edit for edit in chosen if edit.id in guilty])
                print(f"mutants: {kind}: the compiler refuses {len(guilty)} ({began})", flush=True)
                break
            print(f"mutants: {kind} is built ({began})", flush=True)
            binaries += made
        else:
            return Built(chosen, refused, written, [test for binary in binaries for test in tests_of(binary)])


def look_up(records: Records, tests: list[Test]) -> None:
    """What is known of these tests; the others run as the sources are, and must pass."""
    began = Clock()
    fresh = records.fill(tests)
    if fresh:
        print(f"mutants: {fresh} tests pass without an edit ({began})", flush=True)


def plant(
    built: Built, tests: list[Test], planted: Edit, records: Records, hints: dict[str, str]
) -> dict[str, str]:
    """The planted edit must die in each kind that is about to be used, or the run would find nothing.

    Returns what killed it, by kind; a hint is tried first, then the tests of this run, then any.
    """
    killers = {}
    for kind in sorted({test.binary.kind for test in tests}):
        hint, tried = hints.get(kind), 0
        mine = [test for test in built.tests if test.binary.kind == kind]
        for test in sorted(mine, key=lambda one: (one.told != hint, one not in tests, one.cpu)):
            if test not in tests:
                look_up(records, [test])
            if planted.statement not in test.met:
                continue
            (fate,) = judge_all([planted], built.written.numbers, {planted.id: [test]}, records)
            if fate.killed_by:
                killers[kind] = fate.killed_by
                print(f"mutants: {kind}: the planted edit dies in {fate.killed_by}", flush=True)
                break
            tried += 1
            if tried == ENOUGH:
                break
        if kind not in killers:
            sys.exit(f"mutants: {kind}: the planted edit survives {tried} tests: {told(planted)}")
    return killers


@dataclass
class Draw:
    """A draw on its way: what is undecided, and what became of the others."""

    known: list[Entry]
    planted: Edit
    arguments: argparse.Namespace
    undecided: list[Edit] = field(default_factory=list)
    fates: dict[str, Fate] = field(default_factory=dict)
    refused: list[Edit] = field(default_factory=list)
    covered: list[Edit] = field(default_factory=list)
    killers_of_planted: dict[str, str] = field(default_factory=dict)

    def run(self, order: list[Edit], count: int, hints: dict[str, str | None]) -> None:
        """All of Rust, then Python; if it is known of all what killed them before, that first and alone."""
        kinds = self.arguments.kind or list(KINDS)
        refused = {id_ for id_, test in hints.items() if test is None}
        first = [edit for edit in order if edit.id not in refused][:count]
        killers = {
            edit.id: test for edit in order if (test := hints.get(edit.id)) and test.split()[0] in kinds
        }
        used = {killers[edit.id].split()[0] for edit in first if edit.id in killers}
        if used and all(edit.id in killers or self._is_covered(edit) for edit in first):
            self.refused = [edit for edit in order[: order.index(first[-1])] if edit.id in refused]
            self._stage(first, count, sorted(used), killers, only=True)
            order, count = self.undecided, len(self.undecided)
        for is_last in (False, True):
            some = [kind for kind in kinds if (kind == "python") == is_last]
            if some and order:
                self._stage(order, count, some, killers)
                order, count = self.undecided, len(self.undecided)

    def _stage(
        self, order: list[Edit], count: int, kinds: list[str], killers: dict[str, str], *, only: bool = False
    ) -> None:
        built = build(order, count, kinds, self.planted)
        self.refused += built.refused
        if not self.arguments.recheck:
            self.covered += [edit for edit in built.chosen if self._is_covered(edit)]
        to_run = [edit for edit in built.chosen if edit not in self.covered]
        tests, records = built.tests, Records(built.written.marks, key_of_tree())
        if only:
            used = {killers.get(edit.id) for edit in to_run}
            tests = [test for test in tests if test.told in used]
        look_up(records, tests)
        to_try = {edit.id: meeting(edit, tests, killers.get(edit.id)) for edit in to_run}
        if only:
            to_try = {
                id_: [test for test in mine if test.told == killers.get(id_)] for id_, mine in to_try.items()
            }
        self.killers_of_planted |= plant(built, tests, self.planted, records, self.killers_of_planted)
        for fate in judge_all(to_run, built.written.numbers, to_try, records, self.arguments.budget):
            before = self.fates.get(fate.edit.id, Fate(fate.edit))
            fate.tried, fate.left = fate.tried + before.tried, fate.left + before.left
            fate.seconds += before.seconds
            self.fates[fate.edit.id] = fate
            show(fate)
        killed = {id_ for id_, fate in self.fates.items() if fate.killed_by}
        self.undecided = [edit for edit in built.chosen if edit.id not in killed and edit not in self.covered]

    def _is_covered(self, edit: Edit) -> bool:
        return any(entry.covers(edit) for entry in self.known)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="make mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, help="decides which are drawn; without it a fresh one")
    parser.add_argument("--count", type=int, default=30, help="how many are drawn that compile (30)")
    parser.add_argument("--all", action="store_true", help="every edit, instead of a draw")
    parser.add_argument(
        "--file", action="append", help="only of this file or folder, such as cache/truncate.rs"
    )
    parser.add_argument("--function", action="append", help="only in this function")
    parser.add_argument("--operator", action="append", choices=OPERATORS, help="only of this kind")
    parser.add_argument("--id", action="append", help="this one")
    parser.add_argument("--list", action="store_true", help="only show what could be drawn")
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="only tests of this build")
    parser.add_argument(
        "--recheck", action="store_true", help="only those that an entry covers: none may die"
    )
    parser.add_argument("--update", action="store_true", help="remember which test killed each")
    parser.add_argument("--budget", type=float, default=math.inf, help="seconds of tests for each, at most")
    parser.add_argument("--record", action="store_true", help="find out anew which tests meet what")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end_with_the_runs)
    known, offered = entries(), all_edits(CORE)
    gone = stale(known, offered)
    for entry in gone:
        print(f"mutants: an entry covers no edit: {entry}", file=sys.stderr)
    if not PYTHON.exists() and "python" in (arguments.kind or KINDS) and not arguments.list:
        rust = " ".join(f"--kind {kind}" for kind in KINDS if kind != "python")
        sys.exit(f"mutants: no environment has what Python's tests need: make dev, or {rust}")
    PLACE.mkdir(parents=True, exist_ok=True)
    edits = [edit for edit in offered if wanted(edit, arguments)]
    if arguments.recheck:
        edits = [edit for edit in edits if any(entry.covers(edit) for entry in known)]
    if arguments.list:
        for edit in edits:
            print(told(edit))
        return 0
    if not edits:
        sys.exit("mutants: there is nothing to draw from")
    seed = secrets.randbelow(1 << 32) if arguments.seed is None else arguments.seed
    # One run at a time: they share the builds.
    with (PLACE / "lock").open("w") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)
        return carry_out(edits, seed, Draw(known, control(offered), arguments), gone)


def carry_out(edits: list[Edit], seed: int, draw: Draw, gone: list[Entry]) -> int:
    """Draws, runs and judges."""
    arguments = draw.arguments
    print(f"mutants: seed {seed}, {len(edits)} edits to draw from", flush=True)
    count = len(edits) if arguments.all or arguments.id else arguments.count
    began = Clock()
    hints = json.loads(KILLERS.read_text()) if KILLERS.exists() else {}
    draw.killers_of_planted = hints.pop(PLANTED, {})
    if arguments.update:
        hints = {id_: test for id_, test in hints.items() if test}
    if arguments.record:
        (PLACE / "records.json").unlink(missing_ok=True)
    try:
        draw.run(in_drawn_order(edits, seed), count, hints)
    except (NoEvidenceError, CompilerError) as why:
        sys.exit(f"mutants: {why}")
    if arguments.id:
        for fate in draw.fates.values():
            print(difference(fate.edit), fate.output, sep="\n")
    if arguments.update:
        killers = {edit.id: None for edit in draw.refused}
        killers |= {id_: fate.killed_by for id_, fate in draw.fates.items() if fate.killed_by}
        written = {PLANTED: draw.killers_of_planted, **dict(sorted(killers.items()))}
        KILLERS.write_text(json.dumps(written, indent=1) + "\n")
    return verdict(draw, gone, arguments, began)


def wanted(edit: Edit, arguments: argparse.Namespace) -> bool:
    """Whether the command line asks for it."""
    files = arguments.file or []
    return (
        (not arguments.id or edit.id in arguments.id)
        and (not files or any(edit.file == file or edit.file.startswith(f"{file}/") for file in files))
        and (not arguments.function or edit.function in arguments.function)
        and (not arguments.operator or edit.operator in arguments.operator)
    )


def show(fate: Fate) -> None:
    """What killed it, or that nothing has yet, and then what it is."""
    edit = fate.edit
    left = f" of {fate.tried + fate.left}" if fate.left else ""
    place = f"  {edit.id} {edit.operator:10} {edit.file} {edit.function}:"
    if fate.killed_by:
        print(f"{place} {fate.how} {fate.killed_by} ({fate.seconds:.1f} s)", flush=True)
    else:
        print(
            f"{place} SURVIVES {fate.tried} tests{left} ({fate.seconds:.1f} s)\n{difference(edit)}\n",
            flush=True,
        )


def verdict(draw: Draw, gone: list[Entry], arguments: argparse.Namespace, began: Clock) -> int:
    """What was found, by operator; not 0 if something is left to do."""
    fates = list(draw.fates.values())
    alive = [fate for fate in fates if not fate.killed_by]
    ran = Counter(fate.edit.operator for fate in fates)
    died = Counter(fate.edit.operator for fate in fates if fate.killed_by)
    covered = Counter(edit.operator for edit in draw.covered)
    refused = Counter(edit.operator for edit in draw.refused)
    for operator in OPERATORS:
        print(
            f"mutants: {operator:10} {died[operator]:4} of {ran[operator]:4} die,"
            f" {covered[operator]:4} have a reason, {refused[operator]:4} do not compile"
        )
    if not fates and not draw.covered:
        sys.exit("mutants: nothing ran")
    if arguments.recheck:
        for fate in fates:
            if fate.killed_by:
                print(
                    f"mutants: has a reason but dies in {fate.killed_by}: {told(fate.edit)}", file=sys.stderr
                )
        return 1 if sum(died.values()) or gone else 0
    for fate in alive:
        print(f"\n{ready_made(fate.edit)}", file=sys.stderr)
    print(f"mutants: {len(alive)} survive without a reason ({began})", file=sys.stderr)
    return 1 if alive or gone else 0


if __name__ == "__main__":
    sys.exit(main())
