"""Draws edits of the sources, and runs each against the tests that meet it: some test must fail.

    make mutants                                     30 edits, a fresh seed, which is printed
    make mutants MUTANTS="--seed 7 --count 200"
    make mutants MUTANTS="--file cache/truncate.rs --operator swap --all"
    make mutants MUTANTS="--id 0123456789ab"         one, with what each test said
    make mutants MUTANTS="--file mm/vma.rs --list"   what could be drawn

Exits with 1 if an edit survives that tests/mutants/survivors.toml gives no reason for, or if nothing ran.
"""

import argparse
import difflib
import hashlib
import json
import secrets
import sys
import time
from collections import Counter

from build import KINDS, PLACE, REFUSED, ROOT, Binary, Written, cargo, function_text, write
from sites import OPERATORS, Edit, all_edits

from run import Fate, Test, cached, judge_all, key_of_tree, tests_of

CORE = ROOT / "rust" / "core"


def in_drawn_order(edits: list[Edit], seed: int) -> list[Edit]:
    """By a hash of seed and edit, so that a change of the sources changes few of the first; operators take turns."""

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
    name = f"rust/core/{edit.file}"
    lines = difflib.unified_diff(
        text.decode().splitlines(),
        new.decode().splitlines(),
        name,
        f"{edit.id} {edit.operator}",
        n=2,
        lineterm="",
    )
    return "\n".join(lines)


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


def built(
    order: list[Edit], count: int, kinds: list[str]
) -> tuple[list[Edit], list[Edit], Written, list[Binary]]:
    """Builds the first `count` that compile, in every kind. Returns them, those refused on the way, the copy and its binaries."""
    refusals = Refusals()
    while True:
        chosen, refused = [], []
        for edit in order:
            if any(refusals.has(kind, edit) for kind in kinds):
                refused.append(edit)
                continue
            chosen.append(edit)
            if len(chosen) == count:
                break
        written = write(chosen)
        binaries: list[Binary] = []
        again = False
        for kind in kinds:
            began = time.monotonic()
            made, guilty = cargo(KINDS[kind], written)
            print(f"mutants: {kind}: {len(guilty)} refused in {time.monotonic() - began:.0f} s", flush=True)
            if guilty:
                refusals.add(kind, [edit for edit in chosen if edit.id in guilty])
                again = True
                break
            binaries += made
        if not again:
            return chosen, refused, written, binaries


def meeting(edits: list[Edit], tests: list[Test]) -> dict[str, list[Test]]:
    """The tests that meet each edit."""
    return {edit.id: [test for test in tests if edit.statement in test.met] for edit in edits}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
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
        "--stale", action="store_true", help="believe what was recorded before the last change"
    )
    arguments = parser.parse_args()
    edits = [edit for edit in all_edits(CORE) if wanted(edit, arguments)]
    if arguments.list:
        for edit in edits:
            print(edit.id, edit.operator, edit.file, edit.function, edit.text)
        return 0
    seed = secrets.randbelow(1 << 32) if arguments.seed is None else arguments.seed
    print(f"mutants: seed {seed}, {len(edits)} edits to draw from")
    count = len(edits) if arguments.all or arguments.id else arguments.count
    kinds = arguments.kind or list(KINDS)
    chosen, refused, written, binaries = built(in_drawn_order(edits, seed), count, kinds)
    tests = [test for binary in binaries for test in tests_of(binary)]
    began, wrong = time.monotonic(), []
    for kind in kinds:
        wrong += cached(
            kind,
            key_of_tree(),
            [test for test in tests if test.binary.kind == kind],
            written,
            stale=arguments.stale,
        )
    if wrong:
        sys.exit("mutants: " + "\n".join(wrong))
    print(f"mutants: {len(tests)} tests pass without an edit ({time.monotonic() - began:.0f} s)", flush=True)
    met = meeting(chosen, tests)
    fates = []
    for fate in judge_all(chosen, written.numbers, met, {}):
        fates.append(fate)
        show(fate)
    summary(fates, refused)
    if not fates:
        sys.exit("mutants: nothing ran")
    return 1 if any(fate.killed_by is None for fate in fates) else 0


def wanted(edit: Edit, arguments: argparse.Namespace) -> bool:
    """Whether the command line asks for it."""
    return (
        (not arguments.id or edit.id in arguments.id)
        and (
            not arguments.file
            or any(edit.file == file or edit.file.startswith(f"{file}/") for file in arguments.file)
        )
        and (not arguments.function or edit.function in arguments.function)
        and (not arguments.operator or edit.operator in arguments.operator)
    )


def show(fate: Fate) -> None:
    """One line for one that died, a diff for one that lives."""
    edit = fate.edit
    if fate.killed_by:
        print(
            f"  {edit.id} {edit.operator:10} {edit.file} {edit.function}: {fate.how} {fate.killed_by} ({fate.seconds:.1f} s)",
            flush=True,
        )
        return
    print(
        f"  {edit.id} {edit.operator:10} {edit.file} {edit.function}: SURVIVES {fate.tried} tests ({fate.seconds:.1f} s)"
    )
    print(difference(edit), flush=True)


def summary(fates: list[Fate], refused: list[Edit]) -> None:
    """By operator."""
    ran, died = (
        Counter(fate.edit.operator for fate in fates),
        Counter(fate.edit.operator for fate in fates if fate.killed_by),
    )
    no = Counter(edit.operator for edit in refused)
    for operator in OPERATORS:
        print(
            f"mutants: {operator:10} {died[operator]:4} of {ran[operator]:4} die, {no[operator]:4} do not compile"
        )
    print(f"mutants: {sum(died.values())} of {len(fates)} die")


if __name__ == "__main__":
    sys.exit(main())
