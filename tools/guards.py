#!/usr/bin/env python3
"""Switches off every named guard, order and ordering in turn: some model must fail without it.

Reads the names from the sources, what is known of each from tests/loom/guards.toml, and which models need
it from the models themselves. Writes target/guards.json, with the steps of each counterexample, and holds
what it found against docs/guards.md. Exits with 1 if they differ, if a name survives without a reason, if a
reason is given for one that dies, or if names and tables disagree.

    tools/guards.py BINARY              every name, in the models that list it, up to the first that fails
    tools/guards.py BINARY NAME...      these names only, with the counterexample
    tools/guards.py BINARY --all        every name in every model that meets it, to the end;
                                        writes target/guards-all.json
    tools/guards.py                     no model: only whether docs/guards.md has every name where it is

With --update docs/guards.md is written anew from what was tried; what it says of other names stays, unless
they moved or are gone.
"""

import argparse
import difflib
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
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
# Newest values first for checks, steps and their order, stale reads first for orderings.
LOGIC = ["B", "A", "C", "StaleCas", "Twin"]
PASSES = {"logic": LOGIC, "order": LOGIC, "ordering": ["A", "C", "B", "StaleCas", "Twin"]}
# What a macro of rust/core/sync/guard.rs names: a check or a step, the order of two steps, an ordering.
KINDS = {"in_order": "order", "ord": "ordering", "ordered_fence": "ordering"}

CALL = re.compile(
    r"\b(?P<macro>guard|duty|give_back|in_order|seeded|ord|ordered_fence)!\(\s*\"(?P<name>[a-z0-9_.]+)\",(?=(?P<rest>[^;]{0,40}))"
)
FUNCTION = re.compile(r"^( *)(?:pub(?:\([a-z ]+\))? )?(?:const )?(?:unsafe )?fn (\w+)", re.MULTILINE)


@dataclass
class Mutant:
    """One name, or one half of a name, that can be switched off."""

    name: str
    kind: str
    file: str
    line: int
    function: str
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

    @property
    def place(self) -> str:
        """Where it is, in words that hold while the code around it moves."""
        return f"{self.file.removeprefix('rust/core/')}, `{self.function}`"


def parts(macro: str, rest: str) -> list[str]:
    """What can be taken from a name: acquire-release has two halves, a full fence goes or is weakened."""
    if macro == "ord" and rest.strip().startswith("AcqRel"):
        return [":acquire", ":release"]
    if macro == "ordered_fence" and rest.strip().startswith("SeqCst"):
        return ["", ":seqcst"]
    return [""]


def function_around(text: str, at: int) -> str:
    """The function in which a call stands: the nearest one above that is indented less."""
    line = text.rfind("\n", 0, at) + 1
    indent = len(text[line:at]) - len(text[line:at].lstrip())
    for match in reversed(list(FUNCTION.finditer(text, 0, at))):
        if len(match[1]) < indent:
            return match[2]
    raise ValueError(f"in no function: {text[line : at + 40]}")


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
                kind = KINDS.get(macro, "logic")
                file = str(path.relative_to(ROOT))
                for part in parts(macro, match["rest"]):
                    name, function = match["name"] + part, function_around(text, match.start())
                    found.append(Mutant(name, kind, file, line, function, macro))
    return found


def complaints_about(mutants: list[Mutant], known: dict) -> list[str]:
    """Joins names and table; what does not fit together."""
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
    return wrong


def complaints_about_models(mutants: list[Mutant], models: list[dict]) -> list[str]:
    """Joins names and models; what does not fit together."""
    wrong = []
    by_name = {mutant.name: mutant for mutant in mutants}
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
                if ended == "undecided":
                    late = f"{model['model']}, pass {pass_}, did not end within {SECONDS} s"
                    print(f"guards: {mutant.name}: {late}", file=sys.stderr)
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
        "function": mutant.function,
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
    kinds = Counter(mutant.kind for mutant in killed)
    out = [
        "# Every guard, switched off",
        "",
        "Written by `make guards GUARDS=--update`. Each name stands in the source at a check or a step of",
        "the protocol, at two steps whose order matters, or at an ordering of the memory model. With that",
        "one thing switched off (of two steps, the second comes first) the model named beside it fails in",
        "the pass given. `target/guards.json` has the steps of each failing execution, and",
        "`make guards GUARDS=NAME` prints them. What the passes are: [checking.md](checking.md).",
        "",
        "A bug called `seeded N` is one of [invariants.md](invariants.md#seeded-bugs), and `20.N` one of",
        "[section 20 of fault-path.md](fault-path.md#20-bugs-that-speculative-fault-code-has-had).",
        "A name that ends in `:acquire` or `:release` is an acquire-release ordering without that half;",
        "`:seqcst` is a full fence made acquire-release.",
        "",
        f"{len(killed)} killed: {kinds['logic']} checks and steps, {kinds['order']} orders,"
        f" {kinds['ordering']} orderings. {len(redundant)} justified without a kill.",
    ]
    for room in ROOMS:
        rows = [mutant for mutant in killed if mutant.file.startswith(f"rust/core/{room}/")]
        if not rows:
            continue
        out += ["", f"## {room}", ""]
        out += [
            "| name | where | Linux | premise | killed by | pass |",
            "|---|---|---|---|---|---|",
        ]
        for mutant in rows:
            out.append(
                f"| `{mutant.name}` | {mutant.place} | {mutant.linux} | {mutant.premise} |"
                f" {mutant.killed_by} | {mutant.pass_} |"
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
            out.append(f"| `{mutant.name}` | {mutant.place} | {mutant.redundant} |")
    return "\n".join(line.replace(" |  | ", " | - | ") for line in out) + "\n"


def take_from(text: str, mutants: list[Mutant]) -> None:
    """Fills in what the page says of names that were not tried."""
    killed, _, told = text.partition("## Bugs of history")
    kills = dict(re.findall(r"^\| `([^`]+)` \|.* \| ([^|]+ \| [^|]+) \|$", killed, re.MULTILINE))
    reasons = dict(re.findall(r"^\|[^`]+\| `([^`]+)` \| (.*) \|$", told, re.MULTILINE))
    for mutant in mutants:
        if mutant.name in kills and not mutant.killed_by and not mutant.redundant:
            mutant.killed_by, mutant.pass_ = kills[mutant.name].split(" | ")
            mutant.why = reasons.get(mutant.name)


def settle(mutants: list[Mutant], *, update: bool) -> int:
    """Holds the page against what was found, or writes it anew. Not 0 if it differs or lacks a name."""
    untried = [mutant.name for mutant in mutants if not (mutant.killed_by or mutant.redundant)]
    for name in untried:
        told = f"{PAGE.name} lacks {name}: make guards GUARDS='{name} --update'"
        print(f"guards: {told}", file=sys.stderr)
    found = page(mutants)
    if update:
        PAGE.write_text(found)
        return len(untried)
    written = PAGE.read_text() if PAGE.exists() else ""
    if written == found:
        return len(untried)
    before, after = written.splitlines(), found.splitlines()
    for line in difflib.unified_diff(before, after, PAGE.name, "found", n=0, lineterm=""):
        print(line, file=sys.stderr)
    print("guards: if this is meant, the same with --update, and commit the difference", file=sys.stderr)
    return 1


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
    parser.add_argument("binary", type=Path, nargs="?", help="the test binary built with --cfg specmm_loom")
    parser.add_argument("names", nargs="*", help="names to try, instead of all")
    parser.add_argument("--all", action="store_true", help="the full product of names, models and passes")
    parser.add_argument("--update", action="store_true", help="write docs/guards.md anew")
    arguments = parser.parse_args()
    mutants = names_in_sources()
    wrong = complaints_about(mutants, tomllib.loads(KNOWN.read_text()))
    survivors = 0
    if arguments.binary is not None:
        checker = Checker(arguments.binary)
        models = checker.models()
        wrong += complaints_about_models(mutants, models)
        if arguments.all:
            check_all(checker, mutants, models)
        elif arguments.names:
            survivors = show(checker, mutants, arguments.names)
        else:
            survivors = check_listed(checker, mutants)
            REPORT.parent.mkdir(exist_ok=True)
            REPORT.write_text(json.dumps([row(mutant) for mutant in mutants], indent=1) + "\n")
    for complaint in wrong:
        print(f"guards: {complaint}", file=sys.stderr)
    if arguments.all or (arguments.names and not arguments.update):
        return 1 if wrong or survivors else 0
    if survivors == 0 and (arguments.binary is None or arguments.names):
        take_from(PAGE.read_text() if PAGE.exists() else "", mutants)
    # A name that survived, or that no model lists any more, must not lose its row: then nothing is written.
    is_sound = not (wrong or survivors)
    if arguments.update and not is_sound:
        print(f"guards: {PAGE.name} is not written", file=sys.stderr)
    differs = settle(mutants, update=arguments.update and is_sound) if survivors == 0 else 0
    killed = sum(mutant.killed_by is not None for mutant in mutants)
    justified = sum(mutant.redundant is not None for mutant in mutants)
    print(f"guards: {len(mutants)} names: {killed} killed, {justified} justified, {survivors} survive")
    return 1 if wrong or survivors or differs else 0


if __name__ == "__main__":
    sys.exit(main())
