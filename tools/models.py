#!/usr/bin/env python3
"""Holds what the models explored against the committed table: a model that silently changes is noticed.

    tools/models.py REPORT LIST             exit 1 where a run differs from tests/loom/models.json
    tools/models.py REPORT LIST --update    write that file and the tables of docs/checking.md
    tools/models.py --next-bound BINARY [TEST...]
                                            how long each bounded model takes with one preemption more, into
                                            tests/loom/next_bounds.json: those not known yet, or those named

LIST is what the binary says of its own models. A report in which one of them did not run, ran in part, failed
or ran with another bound is refused, also by --update. What a pass explores depends on the code alone: the
number of executions, the threads, the results its histories came to and the executions that reached each
coverage point. So every difference is a change. After a deliberate one: `make loom MODELS=--update`, and look
at the difference before committing it.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "tests" / "loom" / "models.json"
NEXT = ROOT / "tests" / "loom" / "next_bounds.json"
SOURCES = ROOT / "tests" / "loom"
PAGE = ROOT / "docs" / "checking.md"
PAIRS = ROOT / "docs" / "concurrency.md"
BEGIN, END = "<!-- written by `make loom MODELS=--update`: {} -->", "<!-- end of {} -->"
PASSES = {"A": "A", "B": "B", "C": "C", "StaleCas": "stale CAS", "Twin": "twin"}

# A model whose largest pass has fewer executions is called small.
SMALL = 100
# A bound may stay if the whole model takes at least this long at the next one, in seconds of CPU.
CHEAP, CHEAP_AT_2 = 5, 10
# How long a model may try the next bound.
CAP = 40


def lines(path: Path) -> list[dict]:
    """The lines of a report or of a list."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    if not found:
        sys.exit(f"models: {path} is empty: no model ran")
    return found


def passes(report: list[dict]) -> list[dict]:
    """The report's lines that tell of a pass, without what time makes of them."""
    rows = [{k: v for k, v in line.items() if k != "seconds"} for line in report if "pass" in line]
    return sorted(rows, key=lambda row: (row["test"], list(PASSES).index(row["pass"])))


def at(bound: int | None) -> str:
    """A bound, in words."""
    return "without a bound" if bound is None else f"at bound {bound}"


def missing(report: list[dict], listed: list[dict], expected: list[dict]) -> list[str]:
    """Why the report is not one of a whole run that succeeded."""
    ran = Counter((line["model"], line["pass"], line["bound"]) for line in report if "pass" in line)
    passed = {line["model"] for line in report if "passed" in line}
    meant = {(line["model"], pass_, line["bound"]) for line in listed for pass_ in line["passes"]}
    models = {line["model"] for line in listed}
    shown = "{0}, pass {1}, {2}".format
    said = [shown(*key[:2], f"ran {times} times") for key, times in ran.items() if times > 1]
    for model, pass_, bound in sorted(meant - ran.keys(), key=str):
        said.append(shown(model, pass_, f"did not run {at(bound)}"))
    for model, pass_, bound in sorted(ran.keys() - meant, key=str):
        said.append(shown(model, pass_, f"ran {at(bound)}, which is not on the list"))
    said += [f"{model} did not pass" for model in sorted(models - passed)]
    sources = "\n".join(path.read_text() for path in sorted(SOURCES.rglob("*.rs")))
    said += [
        f"{model} is in the sources and in {TABLE.name}, but not on the list"
        for model in sorted({row["model"] for row in expected} - models)
        if json.dumps(model) in sources
    ]
    return said


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
            keys = dict.fromkeys([*row, *before])
            changed = [f"{k} {before.get(k)} -> {row.get(k)}" for k in keys if before.get(k) != row.get(k)]
            said.append(f"{name}: {'; '.join(changed)}")
    said += [f"{model}, pass {pass_}: is gone" for model, pass_ in by_key]
    return said


def by_model(rows: list[dict]) -> dict[str, dict]:
    """One row for each model, with the points that some execution reaches and some does not."""
    models: dict[str, dict] = {}
    for row in rows:
        model = models.setdefault(row["model"], dict(row, threads=0, counts={}, reached={}))
        model["threads"] = max(model["threads"], row["threads"])
        model["counts"][row["pass"]] = row["executions"]
        for point, times in row["reached"].items():
            model["reached"][point] = model["reached"].get(point, 0) + times
    for model in models.values():
        all_ = sum(model["counts"].values())
        model["conditional"] = sorted(point for point, times in model["reached"].items() if times < all_)
        model["largest"] = max(model["counts"].values())
    return models


def table(rows: list[dict], next_bounds: dict[str, dict]) -> str:
    """The table of docs/checking.md."""
    head = ["model", "rows", "threads", "bound", "next bound", *PASSES.values(), "size", "kills", "points"]
    out = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, model in by_model(rows).items():
        further = next_bounds.get(name)
        cells = [
            name,
            ", ".join(map(str, model["rows"])),
            str(model["threads"]),
            "none" if model["bound"] is None else str(model["bound"]),
            f"{further['seconds']} s" if further else "",
            *(f"{model['counts'][pass_]:,}" if pass_ in model["counts"] else "" for pass_ in PASSES),
            "small" if model["largest"] < SMALL else "",
            str(len(model["needs"])),
            str(len(model["conditional"])),
        ]
        out.append(f"| {' | '.join(cells)} |")
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


def at_which_bounds(models: list[dict]) -> str:
    """How many of the models have no bound, and how many each bound."""
    count = Counter(model["bound"] for model in models)
    said = [f"{count.pop(None)} without a bound"] if None in count else []
    said += [f"{number} at {bound}" for bound, number in sorted(count.items())]
    return " and ".join(filter(None, [", ".join(said[:-1]), *said[-1:]]))


def claim(rows: list[dict]) -> str:
    """How many models of which size, in a few sentences."""
    models = list(by_model(rows).values())
    free = [model for model in models if model["bound"] is None]
    bounded = [model for model in models if model["bound"] is not None]
    said = (
        f"{len(free)} models explored to completion with no preemption bound and {len(bounded)} with one"
        f" ({at_which_bounds(bounded)} preemptions), each in four passes, the smallest in five."
    )
    for threads in sorted({model["threads"] for model in models}):
        of = [model for model in models if model["threads"] == threads]
        said += f" {len(of)} have {threads} threads: {at_which_bounds(of)}."
    largest, all_ = sum(model["largest"] for model in models), sum(row["executions"] for row in rows)
    small = sum(model["largest"] < SMALL for model in models)
    said += (
        f" That is {largest:,} executions if each model counts once, by its largest pass, and {all_:,}"
        f" if each pass counts. {small} models have fewer than {SMALL} executions in their largest"
        " pass; the table calls them small."
    )
    return wrapped(said)


def wrapped(text: str) -> str:
    """Lines of at most 110 characters."""
    out = [""]
    for word in text.split():
        if len(out[-1]) + len(word) > 110:
            out.append("")
        out[-1] += f" {word}" if out[-1] else word
    return "\n".join(out)


def replaced(text: str, name: str, content: str) -> str:
    """The text with what stands between a name's two marks exchanged."""
    begin, end = BEGIN.format(name), END.format(name)
    before, rest = text.split(begin)
    return f"{before}{begin}\n\n{content}\n\n{end}{rest.split(end)[1]}"


def unknown_pairs(rows: list[dict]) -> list[str]:
    """Models that docs/concurrency.md names and that are not."""
    models = {row["model"] for row in rows}
    named_in = PAIRS.read_text().split("| models |", 1)[1].split("\n\n", 1)[0]
    named = [line.rstrip(" |").rsplit(" | ", 1)[1].split("; ") for line in named_in.splitlines()[2:]]
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


def known_next_bounds(models: list[dict]) -> dict[str, dict]:
    """What was measured of the bounds that follow those of today."""
    known = json.loads(NEXT.read_text()) if NEXT.exists() else {}
    bounds = {model["model"]: model["bound"] for model in models if model["bound"] is not None}
    return {
        name: known[name]
        for name, bound in sorted(bounds.items())
        if name in known and known[name]["bound"] == bound + 1
    }


def bounds_to_raise(rows: list[dict]) -> list[str]:
    """Bounded models of which the next bound is cheap."""
    known, said = known_next_bounds(rows), []
    for name, model in by_model(rows).items():
        if model["bound"] is None or name not in known:
            continue
        further = f"bound {model['bound'] + 1}"
        seconds, cheap = known[name]["seconds"], CHEAP if model["bound"] > 2 else CHEAP_AT_2
        if isinstance(seconds, int) and seconds < cheap:
            said.append(f"{name}: {further} takes {seconds} s only: raise it")
    return said


def bounds_not_measured(rows: list[dict]) -> list[str]:
    """Bounded models of which nobody has measured the next bound."""
    known = known_next_bounds(rows)
    return [
        f"{name}: bound {model['bound'] + 1} was not measured: make loom-bounds"
        for name, model in by_model(rows).items()
        if model["bound"] is not None and name not in known
    ]


def write_next_bounds(known: dict[str, dict]) -> None:
    """The file of what was measured, a line for each model."""
    each = [f"{json.dumps(name)}: {json.dumps(row)}" for name, row in sorted(known.items())]
    NEXT.write_text("{\n" + ",\n".join(each) + "\n}\n" if each else "{}\n")


def seconds_at_the_next_bound(binary: Path, test: str) -> int | str:
    """One model with one preemption more, in seconds of CPU: other work does not lengthen them."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (CAP, CAP + 5))

    environment = os.environ | {"SPECMM_LOOM_MORE": "1"}
    environment.pop("SPECMM_LOOM_REPORT", None)
    with tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen(
            [binary, test, "--exact"],
            env=environment,
            stdout=said,
            stderr=subprocess.STDOUT,
            preexec_fn=limit,
        )
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read()
    spent = used.ru_utime + used.ru_stime
    if child.returncode < 0 and spent >= CAP - 1:
        return f"> {CAP}"
    if child.returncode != 0 or "1 passed" not in text:
        sys.exit(f"models: {test} fails at the next bound:\n{text}")
    return max(1, math.ceil(spent))


def measure(binary: Path, tests: list[str]) -> int:
    """Fills in tests/loom/next_bounds.json."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "list"
        environment = os.environ | {"SPECMM_LOOM_LIST": "1", "SPECMM_LOOM_REPORT": str(report)}
        command = [binary, "models::", "open_question::"]
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
        models = [model for model in lines(report) if model["bound"] is not None]
    known = known_next_bounds(models)
    if unknown := set(tests) - {model["test"] for model in models}:
        sys.exit(f"models: no bounded model is {', '.join(sorted(unknown))}")
    chosen = [model for model in models if (model["test"] in tests if tests else model["model"] not in known)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        measured = pool.map(lambda model: seconds_at_the_next_bound(binary, model["test"]), chosen)
        for model, seconds in zip(chosen, measured, strict=True):
            known[model["model"]] = {"bound": model["bound"] + 1, "seconds": seconds}
            print(f"models: {model['model']}: {seconds} s at bound {model['bound'] + 1}", flush=True)
            write_next_bounds(known)
    write_next_bounds(known)
    return 0


def hold(report: list[dict], listed: list[dict], *, update: bool) -> int:
    """Holds a run against the table, or writes the table anew."""
    expected = json.loads(TABLE.read_text()) if TABLE.exists() else []
    if refused := missing(report, listed, expected):
        for line in refused:
            print(f"models: {line}", file=sys.stderr)
        print("models: that was no whole run, so it says nothing of the table", file=sys.stderr)
        return 1
    rows = passes(report)
    if update:
        TABLE.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
        known = known_next_bounds(rows)
        write_next_bounds(known)
        text = PAGE.read_text()
        for name, content in (
            ("claim", claim(rows)),
            ("models", table(rows, known)),
            ("rows", rows_table(rows)),
        ):
            text = replaced(text, name, content)
        PAGE.write_text(text)
    changed = differences(rows, rows if update else expected)
    said = (
        changed + twice_named(rows) + unknown_pairs(rows) + bounds_to_raise(rows) + bounds_not_measured(rows)
    )
    for line in said:
        print(f"models: {line}", file=sys.stderr)
    if changed:
        hint = "if this is meant, `make loom MODELS=--update` and commit the difference"
        print(f"models: {hint}", file=sys.stderr)
    if said:
        return 1
    print(f"models: {len(rows)} passes explored what tests/loom/models.json says")
    return 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--next-bound", action="store_true")
    parser.add_argument("files", nargs="+", help="REPORT and LIST, or BINARY and tests")
    arguments = parser.parse_args()
    if arguments.next_bound:
        return measure(Path(arguments.files[0]), arguments.files[1:])
    if len(arguments.files) != 2:
        parser.error("a report and a list")
    report, listed = map(Path, arguments.files)
    return hold(lines(report), lines(listed), update=arguments.update)


if __name__ == "__main__":
    sys.exit(main())
