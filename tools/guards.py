#!/usr/bin/env python3
"""Switches off every named guard and every named ordering in turn: some model must fail without it.

Reads the names from the sources, what is known of each from tests/loom/guards.toml, and which models need
it from the models themselves. Writes target/guards.json (with the steps of each counterexample) and
docs/guards.md. Exits with 1 if a name survives without a reason, if a reason is given for one that dies, or
if names and tables disagree.

    tools/guards.py BINARY              every name, in the models that list it, up to the first that fails
    tools/guards.py BINARY NAME...      these names only, with the counterexample; writes nothing
    tools/guards.py BINARY --all        every name in every model that meets it, to the end;
                                        writes target/guards-all.json
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "rust" / "core"
ROOMS = ("sync", "rcu", "xarray", "page", "cache", "mm")
KNOWN = ROOT / "tests" / "loom" / "guards.toml"
EXECUTIONS = ROOT / "tests" / "loom" / "models.json"
REPORT = ROOT / "target" / "guards.json"
REPORT_ALL = ROOT / "target" / "guards-all.json"
PAGE = ROOT / "docs" / "guards.md"

# At worst a run with something switched off explores the whole model; one that takes longer decides nothing.
SECONDS = 300
# Newest values first for logic, stale reads first for orderings.
PASSES = {"logic": ["B", "A", "C", "StaleCas", "Twin"], "ordering": ["A", "C", "B", "StaleCas", "Twin"]}

CALL = re.compile(
    r"\b(?P<macro>guard|duty|give_back|in_order|seeded|ord|ordered_fence)!\(\s*\"(?P<name>[a-z0-9_.]+)\",(?=(?P<rest>[^;]{0,40}))"
)


@dataclass
class Mutant:
    """One name, or one half of a name, that can be switched off."""

    name: str
    kind: str
    file: str
    line: int
    macro: str
    linux: str = ""
    premise: str = ""
    history: str = ""
    redundant: str | None = None
    models: list[dict] = field(default_factory=list)
    killed_by: str | None = None
    pass_: str | None = None
    executions: int | None = None
    why: str | None = None
    counterexample: list[str] | None = None


def parts(macro: str, rest: str) -> list[str]:
    """What can be taken from a name: acquire-release has two halves, a full fence goes or is weakened."""
    if macro == "ord" and rest.strip().startswith("AcqRel"):
        return [":acquire", ":release"]
    if macro == "ordered_fence" and rest.strip().startswith("SeqCst"):
        return ["", ":seqcst"]
    return [""]


def names_in_sources() -> list[Mutant]:
    """Every mutant the sources offer, in the order of the files."""
    found: list[Mutant] = []
    for room in ROOMS:
        for path in sorted((CORE / room).rglob("*.rs")):
            if path.name == "guard.rs":
                continue
            text = path.read_text()
            for match in CALL.finditer(text):
                line = text.count("\n", 0, match.start()) + 1
                macro = match["macro"]
                kind = "ordering" if macro in ("ord", "ordered_fence") else "logic"
                file = str(path.relative_to(ROOT))
                for part in parts(macro, match["rest"]):
                    found.append(Mutant(match["name"] + part, kind, file, line, macro))
    return found


def complaints_about(mutants: list[Mutant], known: dict, models: list[dict]) -> list[str]:
    """Joins names, table and models; what does not fit together."""
    wrong = []
    by_name: dict[str, Mutant] = {}
    for mutant in mutants:
        if mutant.name in by_name:
            wrong.append(f"{mutant.name} names two places: {by_name[mutant.name].file} and {mutant.file}")
        by_name[mutant.name] = mutant
        base = mutant.name.split(":")[0]
        about = known.get(base, {}) | known.get(mutant.name, {})
        if not {"linux", "premise"} <= about.keys():
            wrong.append(f"{KNOWN.name} does not say Linux's name and the premise of {base}")
        mutant.linux, mutant.premise = about.get("linux", ""), about.get("premise", "")
        mutant.history, mutant.redundant = about.get("history", ""), about.get("redundant")
    bases = {mutant.name.split(":")[0] for mutant in mutants}
    strangers = [name for name in known if name.split(":")[0] not in bases]
    wrong += [f"{KNOWN.name} speaks of {name}, which no source has" for name in strangers]
    for model in models:
        for name in model["needs"]:
            if name in by_name:
                by_name[name].models.append(model)
            else:
                wrong.append(f"{model['model']} needs {name}, which no source has")
    for mutant in mutants:
        if not mutant.models and not mutant.redundant:
            where = f"{mutant.file}:{mutant.line}"
            wrong.append(f"{mutant.name} ({where}): no model needs it and no reason is given")
        if mutant.models and mutant.redundant:
            wrong.append(f"{mutant.name} is called redundant, but {mutant.models[0]['model']} needs it")
    return wrong


class Checker:
    """The model checker's binary."""

    def __init__(self, binary: Path) -> None:
        self.binary = binary

    def models(self) -> list[dict]:
        """What each model says of itself, cheapest first."""
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "models"
            environment = os.environ | {"SPECMM_LOOM_LIST": "1", "SPECMM_LOOM_REPORT": str(report)}
            subprocess.run([self.binary, "models::"], env=environment, stdout=subprocess.DEVNULL, check=True)
            models = [json.loads(line) for line in report.read_text().splitlines()]
        if not models:
            sys.exit("guards: the binary has no models")
        cost: dict[str, int] = {}
        if EXECUTIONS.exists():
            for row in json.loads(EXECUTIONS.read_text()):
                cost[row["model"]] = max(cost.get(row["model"], 0), row["executions"])
        return sorted(models, key=lambda model: (cost.get(model["model"], 0), model["model"]))

    def run(self, model: dict, name: str, pass_: str, trace: int | None = None) -> tuple[str, str]:
        """One pass of one model without `name`: how it ended, and what it printed."""
        environment = os.environ | {"SPECMM_LOOM_OFF": name, "SPECMM_LOOM_PASS": pass_, "RUST_BACKTRACE": "0"}
        if trace is not None:
            environment["SPECMM_LOOM_TRACE"] = str(trace)
        try:
            done = subprocess.run(
                [self.binary, model["test"], "--exact", "--nocapture"],
                env=environment,
                text=True,
                capture_output=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "undecided", ""
        text = done.stdout
        if f"without {name}" not in text:
            sys.exit(f"guards: {model['model']} without {name} did not begin:\n{done.stderr}")
        if "is not on the way of" in text:
            return "not met", text
        if "loom: survived" in text:
            return "survived", text
        if "loom: died" in text:
            return "died", text
        sys.exit(f"guards: {model['model']} without {name} ended strangely:\n{text}\n{done.stderr}")

    def kill(self, mutant: Mutant) -> None:
        """Tries the models that need it until one fails, then asks that one for the steps."""
        for model in mutant.models:
            for pass_ in PASSES[mutant.kind]:
                if pass_ not in model["passes"]:
                    continue
                ended, text = self.run(model, mutant.name, pass_)
                if ended != "died":
                    continue
                number = re.search(r"loom: died in execution (\d+)", text)
                if number is None:
                    sys.exit(f"guards: no execution is named in\n{text}")
                mutant.killed_by, mutant.pass_ = model["model"], pass_
                mutant.executions = int(number[1])
                mutant.why = reason(text)
                _, traced = self.run(model, mutant.name, pass_, trace=mutant.executions)
                mutant.counterexample = [*steps(traced), mutant.why]
                return


def reason(text: str) -> str:
    """The panic's message, on one line."""
    after = text.split("loom: died", 1)[1].splitlines()
    lines = [line for line in after[2:] if line and not line.startswith(("step:", "loom:"))]
    return " ".join(lines[0].split())[:200] if lines else " ".join(after[1].split())[:200]


def steps(text: str) -> list[str]:
    """What the threads did once the operations began: short paths, small names in place of addresses."""
    found = re.findall(r"^step: (.*)$", text, re.MULTILINE)
    begun = next((at for at, step in enumerate(found) if " | begins " in step), 0)
    names: dict[str, str] = {}
    out = []
    for step in found[begun:]:
        short = re.sub(r"\S*?((?:rust/core|tests/loom)/[\w/]+\.rs)(?!\S*\.rs)", r"\1", step)
        out.append(re.sub(r"0x[0-9a-f]{7,}", lambda m: names.setdefault(m[0], f"#{len(names) + 1}"), short))
    return out


def row(mutant: Mutant) -> dict:
    """The mutant as target/guards.json has it."""
    return {
        "name": mutant.name,
        "kind": mutant.kind,
        "file": mutant.file,
        "line": mutant.line,
        "linux": mutant.linux,
        "premise": mutant.premise,
        "history": mutant.history,
        "killed_by": mutant.killed_by,
        "pass": mutant.pass_,
        "executions": mutant.executions,
        "why": mutant.why,
        "counterexample": mutant.counterexample,
        "redundant": mutant.redundant,
    }


def linked(history: str) -> str:
    """The bugs that a name stands for, each linked to the page that describes it."""
    seeded = re.sub(r"seeded (\w+)", r"[seeded \1](invariants.md#seeded-\1)", history)
    return re.sub(r"\b20\.(\d+)", r"[20.\1](fault-path.md#bug-\1)", seeded)


def page(mutants: list[Mutant]) -> str:
    """docs/guards.md."""
    killed = [mutant for mutant in mutants if mutant.killed_by]
    redundant = [mutant for mutant in mutants if mutant.redundant]
    orderings = sum(mutant.kind == "ordering" for mutant in killed)
    out = [
        "# Every guard, switched off",
        "",
        "Written by `make guards`. Each name stands in the source at a check, a step or an ordering of",
        "the protocol. With that one thing switched off, the model named beside it fails in the pass and",
        "execution given. `target/guards.json` has the steps of each failing execution, and",
        "`make guards GUARDS=NAME` prints them. What the passes are: [checking.md](checking.md).",
        "",
        "A bug called `seeded N` is one of [invariants.md](invariants.md#seeded-bugs), and `20.N` one of",
        "[section 20 of fault-path.md](fault-path.md#20-bugs-that-speculative-fault-code-has-had).",
        "A name that ends in `:acquire` or `:release` is an acquire-release ordering without that half;",
        "`:seqcst` is a full fence made acquire-release.",
        "",
        f"{len(killed)} killed: {len(killed) - orderings} checks and steps, {orderings} orderings."
        f" {len(redundant)} justified without a kill.",
    ]
    for room in ROOMS:
        rows = [mutant for mutant in killed if mutant.file.startswith(f"rust/core/{room}/")]
        if not rows:
            continue
        out += ["", f"## {room}", ""]
        out += [
            "| name | where | Linux | premise | killed by | pass, execution |",
            "|---|---|---|---|---|---|",
        ]
        for mutant in rows:
            where = f"{mutant.file.removeprefix('rust/core/')}:{mutant.line}"
            out.append(
                f"| `{mutant.name}` | {where} | {mutant.linux} | {mutant.premise} | {mutant.killed_by} |"
                f" {mutant.pass_}, {mutant.executions} |"
            )
    out += ["", "## Bugs of history", ""]
    out += ["| bug | name | how the model fails |", "|---|---|---|"]
    told = [mutant for mutant in killed if mutant.history]
    history = sorted(
        told, key=lambda m: (m.history.split()[0], [int(n) for n in re.findall(r"\d+", m.history)])
    )
    out += [f"| {linked(m.history)} | `{m.name}` | {m.why} |" for m in history]
    if redundant:
        out += ["", "## Justified without a kill", "", "| name | where | why it stays |", "|---|---|---|"]
        for mutant in redundant:
            where = f"{mutant.file.removeprefix('rust/core/')}:{mutant.line}"
            out.append(f"| `{mutant.name}` | {where} | {mutant.redundant} |")
    return "\n".join(line.replace(" |  | ", " | - | ") for line in out) + "\n"


def check_listed(checker: Checker, mutants: list[Mutant]) -> int:
    """Every name in the models that list it."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(checker.kill, [mutant for mutant in mutants if mutant.models]))
    survivors = [mutant for mutant in mutants if mutant.models and not mutant.killed_by]
    for mutant in survivors:
        listed = ", ".join(model["model"] for model in mutant.models)
        print(f"guards: {mutant.name} ({mutant.file}:{mutant.line}) survives: {listed}", file=sys.stderr)
    return len(survivors)


def show(checker: Checker, mutants: list[Mutant], names: list[str]) -> int:
    """Some names, with their counterexamples."""
    chosen = [mutant for mutant in mutants if mutant.name in names or mutant.name.split(":")[0] in names]
    unknown = (
        set(names) - {mutant.name for mutant in chosen} - {mutant.name.split(":")[0] for mutant in chosen}
    )
    if unknown:
        sys.exit(f"guards: no source has {', '.join(sorted(unknown))}")
    survivors = check_listed(checker, chosen)
    for mutant in chosen:
        print(f"{mutant.name}: {mutant.file}:{mutant.line}")
        if mutant.counterexample is None:
            print(f"  {mutant.redundant or 'no model kills it'}")
            continue
        print(f"  dies in {mutant.killed_by}, pass {mutant.pass_}, execution {mutant.executions}")
        for step in mutant.counterexample:
            print(f"    {step}")
    return survivors


def check_all(checker: Checker, mutants: list[Mutant], models: list[dict]) -> None:
    """The full product: every name in every pass of every model."""
    jobs = [(mutant, model, pass_) for mutant in mutants for model in models for pass_ in model["passes"]]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ends = pool.map(lambda job: checker.run(job[1], job[0].name, job[2])[0], jobs)
        rows = [
            {"name": mutant.name, "model": model["model"], "pass": pass_, "ended": ended}
            for (mutant, model, pass_), ended in zip(jobs, ends, strict=True)
            if ended != "not met"
        ]
    REPORT_ALL.write_text(json.dumps(rows, indent=1) + "\n")
    died = {row["name"] for row in rows if row["ended"] == "died"}
    for mutant in mutants:
        if mutant.redundant and mutant.name in died:
            print(f"guards: {mutant.name} is called redundant but dies", file=sys.stderr)
    print(
        f"guards: {len(rows)} runs, {len(died)} of {len(mutants)} names die; {REPORT_ALL.relative_to(ROOT)}"
    )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("binary", type=Path, help="the test binary built with --cfg specmm_loom")
    parser.add_argument("names", nargs="*", help="names to try, instead of all")
    parser.add_argument("--all", action="store_true", help="the full product of names, models and passes")
    arguments = parser.parse_args()
    checker = Checker(arguments.binary)
    mutants, models = names_in_sources(), checker.models()
    wrong = complaints_about(mutants, tomllib.loads(KNOWN.read_text()), models)
    if arguments.names:
        return 1 if show(checker, mutants, arguments.names) else 0
    for complaint in wrong:
        print(f"guards: {complaint}", file=sys.stderr)
    if arguments.all:
        check_all(checker, mutants, models)
        return 1 if wrong else 0
    survivors = check_listed(checker, mutants)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps([row(mutant) for mutant in mutants], indent=1) + "\n")
    PAGE.write_text(page(mutants))
    killed = sum(mutant.killed_by is not None for mutant in mutants)
    justified = sum(mutant.redundant is not None for mutant in mutants)
    print(f"guards: {len(mutants)} names: {killed} killed, {justified} justified, {survivors} survive")
    return 1 if wrong or survivors else 0


if __name__ == "__main__":
    sys.exit(main())
