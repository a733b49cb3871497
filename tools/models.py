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
BEGIN, END = "<!-- table of models: written by `make loom MODELS=--update` -->", "<!-- end of table -->"
PASSES = {"A": "A", "B": "B", "C": "C", "StaleCas": "stale CAS", "Twin": "twin"}


def read(report: Path) -> list[dict]:
    """The report's lines, one for each pass of each model, without what time makes of them."""
    rows = [json.loads(line) for line in report.read_text().splitlines()]
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
        models.setdefault(row["model"], row)[row["pass"]] = row["executions"]
    out = ["| model | rows | bound | " + " | ".join(PASSES.values()) + " | kills |"]
    out.append("|---|---|---|" + "---|" * (len(PASSES) + 1))
    for name, row in models.items():
        bound = "none" if row["bound"] is None else f"{row['bound']} preemptions"
        counts = " | ".join(f"{row[pass_]:,}" if pass_ in row else "" for pass_ in PASSES)
        out.append(
            f"| {name} | {', '.join(map(str, row['rows']))} | {bound} | {counts} | {len(row['needs'])} |"
        )
    unbounded = sum(row["bound"] is None for row in models.values())
    executions = sum(row[pass_] for row in models.values() for pass_ in PASSES if pass_ in row)
    out += [
        "",
        f"{len(models)} models, {unbounded} of them without a bound; {executions:,} executions in all.",
    ]
    return "\n".join(out)


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
        before, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{table(rows)}\n\n{END}{rest.split(END)[1]}")
        return 0
    said = differences(rows, json.loads(TABLE.read_text()))
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
