"""docs/pairs.md is what its files make of it, and holes in them are noticed; small tables are made up."""

import copy
import importlib.util
import json
import pathlib
import re
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("pairs", ROOT / "tools" / "pairs.py")
assert _spec is not None
assert _spec.loader is not None
pairs = importlib.util.module_from_spec(_spec)
sys.modules["pairs"] = pairs
_spec.loader.exec_module(pairs)

SURFACE = "\n".join(
    f"pub fn specmm::{name}(&self) -> bool"
    for name in ("File::read", "File::close", "Mm::load", "Mm::is_closed")
)
KNOWN = {
    "operation": {
        "close": {"is": ["File::close"]},
        "load": {"is": ["Mm::load"], "also": "through an entry"},
        "read": {"is": ["File::read"]},
    },
    "apart": [{"functions": ["Mm::is_closed"], "why": "it looks at one word"}],
    "reason": [{"one": ["load"], "other": ["close", "load"], "why": "they share nothing"}],
}
FOUND = {
    "loom": {("close", "close"): ["a model"], ("close", "read"): ["a model", "another"]},
    "shuttle": {
        ("close", "read"): [f"test {n}" for n in range(5)],
        ("load", "read"): ["test 0"],
        ("read", "read"): ["test 1"],
    },
}


def test_the_committed_page_is_what_the_files_make_of_it(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["pairs.py"])
    assert pairs.main() == 0, capsys.readouterr().err


def test_the_committed_table_has_both_checkers_and_all_operations():
    known, found = tomllib.loads(pairs.OPERATIONS.read_text()), pairs.load(pairs.FOUND.read_text())
    run = {name for of in found.values() for key in of for name in key}
    assert run == set(known["operation"])
    assert all(len(found[checker]) > 50 for checker in pairs.CHECKERS)
    markers = {
        name
        for path in (ROOT / "rust" / "core").rglob("*.rs")
        if "sync" not in path.parts
        for name in pairs.markers(path.read_text())
    }
    assert markers == set(known["operation"])


def test_the_tests_of_each_against_each_have_all_operations():
    source = (ROOT / "tests" / "shuttle" / "everything.rs").read_text()
    listed = source.partition("const OPERATIONS: &[&str] = &[")[2].partition("];")[0]
    assert re.findall(r'"([^"]+)"', listed) == sorted(
        tomllib.loads(pairs.OPERATIONS.read_text())["operation"]
    )


def test_what_fits_together_is_not_complained_of():
    assert pairs.complaints(KNOWN, FOUND, SURFACE) == []


def changed(where, change):
    tables = {"known": copy.deepcopy(KNOWN), "found": copy.deepcopy(FOUND), "surface": [SURFACE]}
    change(tables[where])
    return tables["known"], tables["found"], tables["surface"][0]


HOLES = {
    "a pair that nothing runs any more": (
        "found",
        lambda found: found["shuttle"].pop(("read", "read")),
        "nothing runs read against read, and no reason is given",
    ),
    "a reason that covers too little": (
        "known",
        lambda known: known["reason"][0].update(other=["load"]),
        "nothing runs close against load, and no reason is given",
    ),
    "a public function that is nowhere": (
        "surface",
        lambda surface: surface.append(surface.pop() + "\npub fn specmm::File::truncate(&self)"),
        "File::truncate is public, and neither an operation nor apart",
    ),
    "a function that is gone": (
        "surface",
        lambda surface: surface.append(surface.pop().replace("File::read(", "file_read(")),
        "File::read is not public",
    ),
    "a function that is both": (
        "known",
        lambda known: known["apart"][0]["functions"].append("File::read"),
        "File::read is both an operation and apart",
    ),
    "an operation of the sources that the table lacks": (
        "found",
        lambda found: found["loom"].update({("open", "read"): ["a model"]}),
        "the sources have an operation 'open', the table does not",
    ),
    "a reason that no pair needs": (
        "known",
        lambda known: known["reason"].append({"one": ["read"], "other": ["*"], "why": "a lock"}),
        "no pair needs the reason 'a lock'",
    ),
    "a reason whose pairs all run": (
        "found",
        lambda found: found["loom"].update({("close", "load"): ["new"], ("load", "load"): ["new"]}),
        "no pair needs the reason 'they share nothing'",
    ),
    "a reason for what is no operation": (
        "known",
        lambda known: known["reason"][0]["one"].append("store"),
        "a reason names 'store', which is no operation",
    ),
    "no functions at all": ("surface", lambda surface: surface.append(surface.pop()[:0]), "has no functions"),
}


@pytest.mark.parametrize(("where", "change", "expected"), HOLES.values(), ids=HOLES)
def test_each_hole_is_found(where, change, expected):
    assert any(expected in said for said in pairs.complaints(*changed(where, change)))


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs the tool on a report, over the small tables."""
    (tmp_path / "surface.txt").write_text(SURFACE)
    (tmp_path / "found.json").write_text(pairs.dump(FOUND))
    lines = ["[[apart]]\nfunctions = ['Mm::is_closed']\nwhy = 'it looks at one word'\n"]
    lines += [f"[operation.{name}]\nis = {about['is']}\n" for name, about in KNOWN["operation"].items()]
    for row in KNOWN["reason"]:
        lines += ["[[reason]]\n", *(f"{key} = {json.dumps(of)}\n" for key, of in row.items())]
    (tmp_path / "operations.toml").write_text("".join(lines))
    files = {"FOUND": "found.json", "OPERATIONS": "operations.toml"}
    files |= {"SURFACE": "surface.txt", "PAGE": "pairs.md"}
    for name, file in files.items():
        monkeypatch.setattr(pairs, name, tmp_path / file)
    monkeypatch.setattr(pairs, "ROOT", tmp_path)

    def call(*arguments, report=()):
        (tmp_path / "report").write_text("".join(json.dumps(line) + "\n" for line in report))
        files = [str(tmp_path / "report")] if arguments[:1] in (("loom",), ("shuttle",)) else []
        monkeypatch.setattr(sys, "argv", ["pairs.py", *arguments[:1], *files, *arguments[1:]])
        return pairs.main(), capsys.readouterr().err

    call.folder = tmp_path
    return call


REPORT = [
    {"model": "a model", "passed": True},
    {"model": "a model", "pairs": [["close", "close"], ["read", "close"]]},
    {"model": "another", "pairs": [["close", "read"]]},
]


def test_a_run_is_held_against_what_was_found(run):
    assert "pairs.md is not what these files make of it" in run()[1]
    assert run("--update") == (0, "")
    assert run("loom", report=REPORT) == (0, "")
    code, said = run("loom", report=REPORT[:2])
    assert (code, "close and read: another runs them no more" in said) == (1, True)
    more = [*REPORT, {"model": "new", "pairs": [["load", "load"]]}]
    code, said = run("loom", report=more)
    assert (code, "load and load: new runs them now" in said) == (1, True)
    assert run("loom", "--update", report=more) == (0, "")
    assert run("loom", report=more) == (0, "")
    with pytest.raises(SystemExit, match="tells of no pairs"):
        run("shuttle", report=[{"model": "a model", "passed": True}])


def test_which_test_met_a_pair_is_chance_but_not_that_some_did(run):
    assert run("--update") == (0, "")
    tests = [{"model": f"test {n}", "pairs": [["close", "read"]]} for n in range(1, 5)]
    met = [*tests, {"model": "test 0", "pairs": [["load", "read"], ["read", "read"], ["close", "read"]]}]
    assert run("shuttle", report=met) == (0, "")
    code, said = run("shuttle", report=[*tests, {"model": "test 0", "pairs": [["load", "read"]]}])
    assert (code, "read and read: some test runs them no more" in said) == (1, True)
    code, said = run("shuttle", report=met[1:])
    assert (code, "test 1, of which the table tells, ran no pair" in said) == (1, True)


def test_an_update_does_not_hide_a_hole(run):
    assert run("--update") == (0, "")
    code, said = run("loom", "--update", report=[*REPORT[:2], {"model": "another", "pairs": []}])
    assert (code, said) == (0, "")
    code, said = run("shuttle", "--update", report=[{"model": "test 0", "pairs": [["load", "read"]]}])
    assert (code, "nothing runs read against read" in said) == (1, True)


def test_the_page_says_who_runs_what(run):
    assert run("--update") == (0, "")
    page = (run.folder / "pairs.md").read_text()
    assert "3 operations make 6 pairs: loom runs 2 of them, shuttle 3, one or the other 4." in page
    # Those that are about the fewest pairs first.
    assert "| read | another; a model | test 2; test 3; 3 more |" in page
    assert "| read | - | test 1 |" in page
    assert "- load: they share nothing" in page
    assert "| `Mm::is_closed` | it looks at one word |" in page
