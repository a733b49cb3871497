"""`make loom` refuses a report that is not whole and notices a model that changed; the models are made up."""

import importlib.util
import json
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("models", ROOT / "tools" / "models.py")
assert _spec is not None
assert _spec.loader is not None
models = importlib.util.module_from_spec(_spec)
sys.modules["models"] = models
_spec.loader.exec_module(models)

MARKS = "\n".join(
    models.BEGIN.format(name) + "\n\n" + models.END.format(name) for name in ("claim", "models", "rows")
)


def said_of(name, bound, **more):
    return {"model": name, "test": f"models::{name}", "rows": [1], "needs": [], "bound": bound} | more


def a_run():
    """The lines of a report of two models, and the binary's list."""
    report = []
    for name, bound, many in (("a lock", None, 40), ("a queue", 2, 400)):
        for pass_ in ("A", "B"):
            explored = {"executions": many, "threads": 2, "outcomes": 3, "outcomes_hash": "f00d"}
            explored |= {"reached": {"taken": many, "met": 7}, "seconds": 0.5}
            report.append(said_of(name, bound, **{"pass": pass_}, **explored))
        report.append(said_of(name, bound, passed=True))
    listed = [said_of("a lock", None, passes=["A", "B"]), said_of("a queue", 2, passes=["A", "B"])]
    return report, listed


@pytest.fixture
def make_loom(tmp_path, monkeypatch, capsys):
    """Runs the tool on what is said of a house with two models."""
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "lock.rs").write_text('name: "a lock"\nname: "a queue"\n')
    (tmp_path / "pairs.md").write_text("| pair | models |\n|---|---|\n| T, T | a lock; a queue |\n\nEnd.\n")
    (tmp_path / "page.md").write_text(MARKS)
    (tmp_path / "next.json").write_text('{"a queue": {"bound": 3, "seconds": 70}}')
    names = {"TABLE": "models.json", "NEXT": "next.json", "PAGE": "page.md", "PAIRS": "pairs.md"}
    for name, file in names.items():
        monkeypatch.setattr(models, name, tmp_path / file)
    monkeypatch.setattr(models, "SOURCES", sources)

    def run(run, *arguments):
        for name, each in zip(("report", "list"), run, strict=True):
            (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in each))
        files = [str(tmp_path / "report"), str(tmp_path / "list")]
        monkeypatch.setattr(sys, "argv", ["models.py", *files, *arguments])
        return models.main(), capsys.readouterr().err

    run.folder = tmp_path
    return run


def committed(make_loom):
    return [(make_loom.folder / name).read_text() for name in ("models.json", "page.md", "next.json")]


def test_what_a_run_explored_is_written_and_then_holds(make_loom):
    assert make_loom(a_run())[0] == 1
    assert make_loom(a_run(), "--update") == (0, "")
    assert make_loom(a_run()) == (0, "")
    page = (make_loom.folder / "page.md").read_text()
    assert "| a lock | 1 | 2 | none |  | 40 | 40 |  |  |  | small | 0 | 1 |" in page
    assert "| a queue | 1 | 2 | 2 | 70 s | 400 | 400 |  |  |  |  | 0 | 1 |" in page
    assert "| [1](invariants.md#row-1) | a lock; a queue |" in page
    claim = " ".join(page.split())
    assert "1 models explored to completion with no preemption bound and 1 with one (1 at 2 preempt" in claim
    assert "2 have 2 threads: 1 without a bound and 1 at 2." in claim
    assert "440 executions if each model counts once, by its largest pass, and 880 if each pass" in claim
    assert "1 models have fewer than 100 executions" in claim


# What a change of a model, or of what ships, can show in.
CHANGES = [
    ("executions", 41),
    ("threads", 3),
    ("outcomes", 4),
    ("outcomes_hash", "beef"),
    ("reached", {"taken": 40, "met": 8}),
    ("reached", {"taken": 40}),
    ("needs", ["lock.acquire"]),
    ("rows", [1, 2]),
]


@pytest.mark.parametrize(("key", "value"), CHANGES)
def test_each_difference_is_noticed(make_loom, key, value):
    assert make_loom(a_run(), "--update")[0] == 0
    report, listed = a_run()
    report[0][key] = value
    code, said = make_loom((report, listed))
    assert code == 1
    assert f"a lock, pass A: {key} " in said


def without(lines, **keys):
    return [line for line in lines if any(line.get(key) != value for key, value in keys.items())]


def shrunken(report, listed):
    """Each way in which a report may be less than a whole run."""
    yield "a model", without(report, model="a lock"), listed, "a lock, pass A, did not run"
    yield "a pass", without(report, model="a lock", **{"pass": "B"}), listed, "a lock, pass B, did not run"
    yield "the end", without(report, model="a lock", passed=True), listed, "a lock did not pass"
    yield "a filtered list", report, without(listed, model="a lock"), "which is not on the list"
    both = (without(report, model="a lock"), without(listed, model="a lock"))
    yield "report and list", *both, "a lock is in the sources"
    twice = [*report, report[0]]
    yield "twice", twice, listed, "a lock, pass A, ran 2 times"
    deeper = [line | {"bound": 3} if line["model"] == "a queue" else line for line in report]
    yield "another bound", deeper, listed, "ran at bound 3, which is not on the list"


KINDS = [pytest.param(*rest, id=kind) for kind, *rest in shrunken(*a_run())]


@pytest.mark.parametrize(("report", "listed", "expected"), KINDS)
@pytest.mark.parametrize("arguments", [[], ["--update"]])
def test_what_is_not_whole_is_refused(make_loom, report, listed, expected, arguments):
    assert make_loom(a_run(), "--update")[0] == 0
    before = committed(make_loom)
    code, said = make_loom((report, listed), *arguments)
    assert code == 1
    assert expected in said
    assert committed(make_loom) == before


def test_nothing_is_refused(make_loom):
    for empty in (([], a_run()[1]), (a_run()[0], [])):
        with pytest.raises(SystemExit, match="no model ran"):
            make_loom(empty, "--update")


def test_a_model_that_left_the_sources_leaves_the_table(make_loom):
    assert make_loom(a_run(), "--update")[0] == 0
    (make_loom.folder / "sources" / "lock.rs").write_text('name: "a queue"\n')
    (make_loom.folder / "pairs.md").write_text("| pair | models |\n|---|---|\n| T, T | a queue |\n\nEnd.\n")
    fewer = tuple(without(lines, model="a lock") for lines in a_run())
    code, said = make_loom(fewer)
    assert (code, "a lock, pass A: is gone" in said) == (1, True)
    assert make_loom(fewer, "--update") == (0, "")
    assert "a lock" not in (make_loom.folder / "models.json").read_text()


def test_a_bound_that_is_cheap_to_raise_fails(make_loom):
    file = make_loom.folder / "next.json"
    assert make_loom(a_run(), "--update")[0] == 0
    for known, failed, expected in (
        ({"a queue": {"bound": 3, "seconds": 9}}, 1, "a queue: bound 3 takes 9 s only"),
        ({"a queue": {"bound": 4, "seconds": 70}}, 1, "a queue: bound 3 was not measured"),
        ({}, 1, "a queue: bound 3 was not measured"),
    ):
        file.write_text(json.dumps(known))
        code, said = make_loom(a_run())
        assert (code, expected in said) == (failed, True)
    file.write_text('{"a queue": {"bound": 3, "seconds": "> 120"}}')
    assert make_loom(a_run()) == (0, "")
    # Above 2, less is cheap.
    report, listed = ([line | {"bound": line["bound"] and 3} for line in lines] for lines in a_run())
    for seconds, code in ((4, 1), (5, 0), (9, 0)):
        file.write_text(json.dumps({"a queue": {"bound": 4, "seconds": seconds}}))
        assert make_loom((report, listed), "--update")[0] == code


CHECKER = """\
#!/bin/sh
here=$(dirname "$0")
if [ -n "$SPECMM_LOOM_LIST" ]; then cp "$here/list" "$SPECMM_LOOM_REPORT"; exit; fi
echo "$1 $SPECMM_LOOM_MORE" >> "$here/tried"
if [ -e "$here/endless" ]; then while :; do :; done; fi
if [ -e "$here/failing" ]; then echo '0 passed; 1 failed'; exit 1; fi
echo 'test result: ok. 1 passed; 0 failed'
"""


def test_bounded_models_are_tried_at_the_next_bound(make_loom, monkeypatch):
    folder = make_loom.folder
    checker, known = folder / "checker", folder / "next.json"
    checker.write_text(CHECKER)
    checker.chmod(0o755)
    (folder / "list").write_text("".join(json.dumps(line) + "\n" for line in a_run()[1]))

    def run(*tests):
        (folder / "tried").write_text("")
        monkeypatch.setattr(sys, "argv", ["models.py", "--next-bound", str(checker), *tests])
        assert models.main() == 0
        return (folder / "tried").read_text().splitlines(), json.loads(known.read_text())

    assert run() == ([], {"a queue": {"bound": 3, "seconds": 70}})
    assert run("models::a queue") == (["models::a queue 1"], {"a queue": {"bound": 3, "seconds": 1}})
    known.write_text('{"a queue": {"bound": 2, "seconds": 70}, "gone": {"bound": 3, "seconds": 1}}')
    assert run() == (["models::a queue 1"], {"a queue": {"bound": 3, "seconds": 1}})
    (folder / "failing").touch()
    with pytest.raises(SystemExit, match="fails at the next bound"):
        run("models::a queue")
    with pytest.raises(SystemExit, match="no bounded model is models::a lock"):
        run("models::a lock")
    (folder / "endless").touch()
    monkeypatch.setattr(models, "CAP", 1)
    assert run("models::a queue")[1] == {"a queue": {"bound": 3, "seconds": "> 1"}}
