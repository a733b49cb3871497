"""What README says in figures is what was measured and committed, and the commands that pages show exist."""

import json
import re
import shlex

import pytest

from samples import ROOT
from specmm import cli

README = (ROOT / "README.md").read_text()


def rows(table: str, heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    section = table.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return lines[2:]


def test_models_are_those_of_the_table():
    bounds = {}
    for row in json.loads((ROOT / "tests/loom/models.json").read_text()):
        bounds[row["model"]] = row["bound"]
    bounded = sorted(bound for bound in bounds.values() if bound is not None)
    assert f"{len(bounds)} models of the functions that ship" in README
    free = len(bounds) - len(bounded)
    held = f"| {free} without a bound, {len(bounded)} at {bounded[0]} to {bounded[-1]} preemptions ("
    assert held in README, held


def test_names_are_those_that_were_switched_off():
    guards = (ROOT / "docs/guards.md").read_text()
    killed, justified = map(int, re.search(r"(\d+) killed.* (\d+) justified", guards).groups())
    assert f"each of {killed + justified} names is switched off in turn: {killed} make" in README
    assert f"{justified} carry their reason" in README


def test_shuttle_draws_and_switches_off_what_is_said():
    tests = "".join(path.read_text() for path in (ROOT / "tests/shuttle").rglob("*.rs"))
    drawn = 2 * sum(int(number) for number in re.findall(r"Search::Pct\(([\d_]+)\)", tests))
    off = sum(names.count('"') // 2 for names in re.findall(r"needs: &\[(.*?)\]", tests, re.DOTALL))
    assert drawn
    assert f"{drawn:,} drawn schedules" in README, drawn
    assert off
    assert f"{off} guards switched off and caught" in README, off
    assert f"{off} guards are switched off in turn" in (ROOT / "docs/checking.md").read_text(), off


def figure(text: str) -> float:
    return float(re.search(r"[\d,]*\d(?:\.\d+)?", text).group().replace(",", ""))


def same(shown: str, measured: float) -> bool:
    """Whether a figure is the measured one, rounded to the digits that are shown."""
    digits = len(shown.partition(".")[2])
    return abs(float(shown.replace(",", "")) - measured) <= 0.5 * 10**-digits + 1e-9


def test_benchmarks_are_rows_of_run_a():
    measured = [
        (figure(row[2]), figure(row[3]), figure(row[4]))
        for row in rows((ROOT / "docs/benchmarks.md").read_text(), "Timings")
        if re.match(r"[\d.]", row[2])
    ]
    shown = rows(README, "Benchmarks")
    assert len(shown) >= 10
    assert any("loses" in row[3] for row in shown)
    for row in shown:
        number = r"[\d,]*\d(?:\.\d+)?"
        ours, ratio = re.search(number, row[1]).group(), re.search(number, row[3]).group()
        theirs = re.search(rf"({number}) ns$", row[2]).group(1)
        found = [
            each
            for each in measured
            if same(ours, each[0]) and same(theirs, each[1]) and same(ratio, each[2])
        ]
        assert found, row
        assert ("loses" in row[3]) or ("over the budget" in row[3]) or found[0][2] < 1.1, row


PAGES = [ROOT / "README.md", ROOT / "rust/README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def shown_commands():
    for page in PAGES:
        for block in re.findall(r"^```(?:console|sh)\n(.*?)^```", page.read_text(), re.M | re.S):
            for line in block.splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["specmm"]:
                    yield pytest.param(words[1:], id=f"{page.name}: {line.partition('#')[0].strip()}")


COMMANDS = list(shown_commands())


def test_commands_are_shown():
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_that_is_shown_is_one(words):
    assert cli._parser().parse_args(words).command == words[0]


def test_pictures_have_the_command_that_draws_them():
    pictures = re.findall(r"^!\[[^\]]+\]\(([^)]+)\)\n\n```console\n(.*?)^```", README, re.M | re.S)
    assert len(pictures) == README.count("![") == 1
    for path, commands in pictures:
        assert (ROOT / path).read_text().count("<path") > 10
        assert re.search(rf"^specmm .*--plot {re.escape(path.rpartition('/')[2])}$", commands, re.M)
