#!/usr/bin/env python3
"""Holds what the models explored against the committed table: a model that silently shrinks is noticed.

    tools/models.py REPORT             exit 1 where a whole run differs from tests/loom/models.json
    tools/models.py REPORT --update    write that file and the table in docs/checking.md

The number of executions of a pass depends on the code alone, so every difference is a change of what is
explored. After a deliberate change: `make loom MODELS=--update`, and look at the difference before
committing it.
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "tests" / "loom" / "models.json"
PAGE = ROOT / "docs" / "checking.md"
PAIRS = ROOT / "docs" / "concurrency.md"
BEGIN, END = "<!-- written by `make loom MODELS=--update`: {} -->", "<!-- end of {} -->"
PASSES = {"A": "A", "B": "B", "C": "C", "StaleCas": "stale CAS", "Twin": "twin"}


def read(report: Path) -> list[dict]:
    """The report's lines, one for each pass of each model, without what time makes of them."""
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    rows = [line for line in lines if "pass" in line]
    if not rows:
        sys.exit(f"models: {report} is empty: no model ran")
    for row in rows:
        del row["seconds"]
    return sorted(rows, key=lambda row: (row["test"], list(PASSES).index(row["pass"])))


def differences(found: list[dict], expected: list[dict]) -> list[str]:
    """What changed, in words."""
    by_key = {(row["model"], row["pass"]): row for row in expected}
    said = []
    for row in found:
        before = by_key.pop((row["model"], row["pass"]), None)
        name = f"{row['model']}, pass {row['pass']}"
        if before is None:
            said.append(f"{name}: new")
        elif before != row:
            changed = [f"{key} {before.get(key)} -> {row[key]}" for key in row if before.get(key) != row[key]]
            said.append(f"{name}: {'; '.join(changed)}")
    said += [f"{model}, pass {pass_}: did not run" for model, pass_ in by_key]
    return said


def table(rows: list[dict]) -> str:
    """The table of docs/checking.md."""
    models: dict[str, dict] = {}
    for row in rows:
        models.setdefault(row["model"], dict(row))[row["pass"]] = row["executions"]
    out = ["| model | rows | bound | " + " | ".join(PASSES.values()) + " | kills |"]
    out.append("|---|---|---|" + "---|" * (len(PASSES) + 1))
    for name, row in models.items():
        bound = "none" if row["bound"] is None else f"{row['bound']} preemptions"
        counts = " | ".join(f"{row[pass_]:,}" if pass_ in row else "" for pass_ in PASSES)
        out.append(
            f"| {name} | {', '.join(map(str, row['rows']))} | {bound} | {counts} | {len(row['needs'])} |"
        )
    return "\n".join(out)


def rows_table(rows: list[dict]) -> str:
    """Which models exercise each row of the invariants."""
    by_row: dict[int, list[str]] = {}
    for row in rows:
        for number in row["rows"]:
            names = by_row.setdefault(number, [])
            if row["model"] not in names:
                names.append(row["model"])
    out = ["| row | models |", "|---|---|"]
    out += [
        f"| [{number}](invariants.md#row-{number}) | {'; '.join(names)} |"
        for number, names in sorted(by_row.items())
    ]
    return "\n".join(out)


def claim(rows: list[dict]) -> str:
    """How many models, in one sentence."""
    bounds = {row["model"]: row["bound"] for row in rows}
    unbounded = sum(bound is None for bound in bounds.values())
    executions = sum(row["executions"] for row in rows)
    few, many = min(filter(None, bounds.values())), max(filter(None, bounds.values()))
    return (
        f"{unbounded} models explored to completion with no preemption bound and"
        f" {len(bounds) - unbounded} at a bound of\n{few} to {many}, each in four passes, the smallest in"
        f" five: {executions:,} executions."
    )


def replaced(text: str, name: str, content: str) -> str:
    """The text with what stands between a name's two marks exchanged."""
    begin, end = BEGIN.format(name), END.format(name)
    before, rest = text.split(begin)
    return f"{before}{begin}\n\n{content}\n\n{end}{rest.split(end)[1]}"


def unknown_pairs(rows: list[dict]) -> list[str]:
    """Models that docs/concurrency.md names and that are not."""
    models = {row["model"] for row in rows}
    table = PAIRS.read_text().split("| models |", 1)[1].split("\n\n", 1)[0]
    named = [line.rstrip(" |").rsplit(" | ", 1)[1].split("; ") for line in table.splitlines()[2:]]
    if not named:
        sys.exit(f"models: {PAIRS.name} names no models")
    return [
        f"{PAIRS.name} names {name!r}, which is no model"
        for names in named
        for name in names
        if name not in models
    ]


def twice_named(rows: list[dict]) -> list[str]:
    """Models of one name."""
    tests: dict[str, set[str]] = {}
    for row in rows:
        tests.setdefault(row["model"], set()).add(row["test"])
    return [f"{name} is the name of {' and '.join(sorted(of))}" for name, of in tests.items() if len(of) > 1]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path)
    parser.add_argument("--update", action="store_true")
    arguments = parser.parse_args()
    rows = read(arguments.report)
    if arguments.update:
        TABLE.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
        text = PAGE.read_text()
        for name, content in (("claim", claim(rows)), ("models", table(rows)), ("rows", rows_table(rows))):
            text = replaced(text, name, content)
        PAGE.write_text(text)
    said = differences(rows, json.loads(TABLE.read_text())) + twice_named(rows) + unknown_pairs(rows)
    for line in said:
        print(f"models: {line}", file=sys.stderr)
    if said:
        print(
            "models: if this is meant, `make loom MODELS=--update` and commit the difference", file=sys.stderr
        )
        return 1
    print(f"models: {len(rows)} passes explored what tests/loom/models.json says")
    return 0


if __name__ == "__main__":
    sys.exit(main())
