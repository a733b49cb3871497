#!/usr/bin/env python3
"""Which public operations were run against which, under loom and under shuttle: docs/pairs.md.

    tools/pairs.py loom REPORT       what the models ran, held against tests/pairs/found.json
    tools/pairs.py shuttle REPORT    the same for the tests under shuttle
    tools/pairs.py                   no run: whether docs/pairs.md is what those files make of it

With --update the files are written instead. A pair counts if both operations were running in two threads
at one moment of one execution (rust/core/sync/running.rs). tests/pairs/operations.toml says which public
functions each operation stands for, and for each pair that nothing runs, why.
"""

import argparse
import json
import re
import sys
import tomllib
from collections import Counter
from itertools import combinations_with_replacement
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOUND = ROOT / "tests" / "pairs" / "found.json"
OPERATIONS = ROOT / "tests" / "pairs" / "operations.toml"
SURFACE = ROOT / "docs" / "surface" / "rust.txt"
PAGE = ROOT / "docs" / "pairs.md"
CHECKERS = ("loom", "shuttle")

# Types whose functions are operations on something that threads share.
SHARED = ("File", "FileReader", "Mm", "PageCache", "Pinned")
# As many models as a cell names; the file has all.
SHOWN = 2

Pair = tuple[str, str]


def pair(one: str, other: str) -> Pair:
    """Two operations in the order of the alphabet."""
    return (one, other) if one <= other else (other, one)


def ran(report: Path) -> dict[Pair, list[str]]:
    """Which models or tests ran each pair."""
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    told = [line for line in lines if "pairs" in line]
    if not told:
        sys.exit(f"pairs: {report} tells of no pairs: nothing ran")
    found: dict[Pair, set[str]] = {}
    for line in told:
        for one, other in line["pairs"]:
            found.setdefault(pair(one, other), set()).add(line["model"])
    return {key: sorted(models) for key, models in sorted(found.items())}


def load(text: str) -> dict[str, dict[Pair, list[str]]]:
    """What a file of pairs says."""
    return {
        checker: {pair(*key.split(" | ")): models for key, models in pairs.items()}
        for checker, pairs in json.loads(text).items()
    }


def dump(found: dict[str, dict[Pair, list[str]]]) -> str:
    """A file of pairs: one line each."""
    parts = []
    for checker in CHECKERS:
        lines = [f"  {json.dumps(' | '.join(key))}: {json.dumps(of)}" for key, of in found[checker].items()]
        parts.append(f" {json.dumps(checker)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def differences(found: dict[Pair, list[str]], expected: dict[Pair, list[str]], *, drawn: bool) -> list[str]:
    """What changed, in words. Which of the tests whose schedules are `drawn` met a pair is chance."""
    said = []
    for key in sorted(found.keys() | expected.keys()):
        now, before = set(found.get(key, [])), set(expected.get(key, []))
        if drawn:
            now, before = ({"some test"} if models else set() for models in (now, before))
        said += [f"{' and '.join(key)}: {model} runs them now" for model in sorted(now - before)]
        said += [f"{' and '.join(key)}: {model} runs them no more" for model in sorted(before - now)]
    ran, known = ({model for of in pairs.values() for model in of} for pairs in (found, expected))
    gone = sorted(known - ran) if drawn else []
    return said + [f"{model}, of which the table tells, ran no pair" for model in gone]


def public_functions(surface: str) -> set[str]:
    """Functions and methods of the types that threads share, as `File::pread`."""
    names = re.findall(r"^pub (?:unsafe )?fn specmm::(\w+)::(\w+)\(", surface, re.MULTILINE)
    return {f"{type_}::{name}" for type_, name in names if type_ in SHARED}


def markers(source: str) -> set[str]:
    """The operations that a file of Rust marks."""
    return set(re.findall(r'\boperation!\("([^"]+)"\)', source))


def reasons(known: dict) -> dict[Pair, str]:
    """Why nothing runs a pair: each pair at its first reason."""
    operations = list(known["operation"])
    why: dict[Pair, str] = {}
    for reason in known.get("reason", []):
        first, second = (
            operations if names == ["*"] else names for names in (reason["one"], reason["other"])
        )
        for one in first:
            for other in second:
                why.setdefault(pair(one, other), reason["why"])
    return why


def complaints(known: dict, found: dict[str, dict[Pair, list[str]]], surface: str) -> list[str]:
    """What does not fit together: functions, operations, pairs, reasons."""
    operations = known["operation"]
    wrong = []
    of: dict[str, list[str]] = {}
    for name, about in operations.items():
        for function in about["is"]:
            of.setdefault(function, []).append(name)
    apart = {function for row in known["apart"] for function in row["functions"]}
    public = public_functions(surface)
    if not public:
        wrong.append(f"{SURFACE.name} has no functions")
    wrong += [
        f"{function} is public, and neither an operation nor apart"
        for function in sorted(public - of.keys() - apart)
    ]
    wrong += [f"{function} is not public" for function in sorted((of.keys() | apart) - public)]
    wrong += [f"{function} is both an operation and apart" for function in sorted(of.keys() & apart)]
    run = {key for pairs in found.values() for key in pairs}
    strangers = {name for key in run for name in key} - operations.keys()
    wrong += [f"the sources have an operation {name!r}, the table does not" for name in sorted(strangers)]
    why = reasons(known)
    for reason in known.get("reason", []):
        for name in {*reason["one"], *reason["other"]} - {"*"} - operations.keys():
            wrong.append(f"a reason names {name!r}, which is no operation")
    for key in combinations_with_replacement(sorted(operations), 2):
        if key not in run and key not in why:
            wrong.append(f"nothing runs {key[0]} against {key[1]}, and no reason is given")
    for reason in known.get("reason", []):
        mine = reasons({"operation": operations, "reason": [reason]})
        if mine and not any(why.get(key) == reason["why"] and key not in run for key in mine):
            wrong.append(f"no pair needs the reason {reason['why']!r}")
    return wrong


def shown(models: list[str], breadth: Counter[str]) -> str:
    """A cell: the models that are about the fewest pairs, and how many more there are."""
    more = len(models) - SHOWN
    narrow = sorted(models, key=lambda model: (breadth[model], model))
    return "; ".join(narrow[:SHOWN]) + (f"; {more} more" if more > 0 else "")


def page(known: dict, found: dict[str, dict[Pair, list[str]]]) -> str:
    """docs/pairs.md."""
    operations, why = sorted(known["operation"]), reasons(known)
    keys = list(combinations_with_replacement(operations, 2))
    counted = {checker: sum(key in found[checker] for key in keys) for checker in CHECKERS}
    either = sum(any(key in found[checker] for checker in CHECKERS) for key in keys)
    out = [
        "# Which operations run against which",
        "",
        "Written by `make loom MODELS=--update` and `make shuttle PAIRS=--update`. A model or test runs two",
        "operations against each other if, at some moment of some execution, two threads were inside of",
        "them; `rust/core/sync/running.rs` measures it. What an operation calls is a part of it, except for",
        "fault-around, readahead, reclaim and waits for a frame, which count wherever they run. What must",
        "not happen between two operations, and what prevents it, is in [concurrency.md](concurrency.md);",
        "the models and tests are described in [checking.md](checking.md#the-models).",
        "",
        f"{len(operations)} operations make {len(keys)} pairs: loom runs {counted['loom']} of them, shuttle"
        f" {counted['shuttle']}, one or the other {either}."
        + (" Each of the others has its reason." if either < len(keys) else "")
        + " A pair stands under the first of its operations in the alphabet.",
        "",
        "## The operations",
        "",
        "| operation | public functions |",
        "|---|---|",
    ]
    for name in operations:
        functions = ", ".join(f"`{function}`" for function in known["operation"][name]["is"])
        also = known["operation"][name].get("also", "")
        out.append(f"| {name} | {'; '.join(filter(None, [functions, also]))} |")
    out += [
        "",
        "These public functions are no operations:",
        "",
        "| functions | why |",
        "|---|---|",
    ]
    for row in known["apart"]:
        out.append(f"| {', '.join(f'`{function}`' for function in row['functions'])} | {row['why']} |")
    breadth = {
        checker: Counter(model for of in found[checker].values() for model in of) for checker in CHECKERS
    }
    for at, name in enumerate(operations):
        out += ["", f"## {name[0].upper()}{name[1:]}", "", "| against | loom | shuttle |", "|---|---|---|"]
        idle: dict[str, list[str]] = {}
        for other in operations[at:]:
            key = pair(name, other)
            cells = [shown(found[checker].get(key, []), breadth[checker]) for checker in CHECKERS]
            if any(cells):
                out.append(f"| {other} | {' | '.join(cells)} |")
            else:
                idle.setdefault(why.get(key, "no reason"), []).append(other)
        if idle:
            out += ["", "Nothing runs it against:", ""]
            out += [f"- {', '.join(others)}: {reason}" for reason, others in idle.items()]
    return "\n".join(re.sub(r"\|  (?=\|)", "| - ", line) for line in out) + "\n"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checker", choices=CHECKERS, nargs="?")
    parser.add_argument("report", type=Path, nargs="?")
    parser.add_argument("--update", action="store_true")
    arguments = parser.parse_args()
    if (arguments.checker is None) != (arguments.report is None):
        parser.error("a checker and its report, or neither")
    found = load(FOUND.read_text())
    said = []
    if arguments.checker is not None:
        now = ran(arguments.report)
        if arguments.update:
            found[arguments.checker] = now
            FOUND.write_text(dump(found))
        said += differences(now, found[arguments.checker], drawn=arguments.checker == "shuttle")
    known = tomllib.loads(OPERATIONS.read_text())
    said += complaints(known, found, SURFACE.read_text())
    written = page(known, found)
    if arguments.update:
        PAGE.write_text(written)
    elif not PAGE.exists() or PAGE.read_text() != written:
        said.append(f"{PAGE.name} is not what these files make of it")
    for line in said:
        print(f"pairs: {line}", file=sys.stderr)
    if said:
        print("pairs: if this is meant, the same with --update, and commit the difference", file=sys.stderr)
        return 1
    print(f"pairs: {sum(map(len, found.values()))} pairs, as {FOUND.relative_to(ROOT)} says")
    return 0


if __name__ == "__main__":
    sys.exit(main())
