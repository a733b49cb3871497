"""`make guards` fails where the committed page is not what it found; the models are made up."""

import importlib.util
import json
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("guards", ROOT / "tools" / "guards.py")
assert _spec is not None
assert _spec.loader is not None
guards = importlib.util.module_from_spec(_spec)
sys.modules["guards"] = guards
_spec.loader.exec_module(guards)

SOURCE = """\
impl Lock {
    pub(super) fn try_lock(&self) -> bool {
        let before = self.word.swap(1, ord!("lock.acquire", AcqRel));
        guard!("lock.was_free", before == 0)
    }
}

const fn elsewhere() {
    seeded!(
        "lock.seed.late",
        right(),
        bug = wrong()
    );
    in_order!("lock.order.last", first(), last());
}
"""

# Says that there is one model, and that it dies without any name, unless there is a file of that name.
CHECKER = """\
#!/bin/sh
here=$(dirname "$0")
if [ -n "$SPECMM_LOOM_LIST" ]; then cp "$here/models" "$SPECMM_LOOM_REPORT"; exit; fi
echo "$SPECMM_LOOM_OFF" >> "$here/tried"
echo "without $SPECMM_LOOM_OFF"
if [ -e "$here/$SPECMM_LOOM_OFF" ]; then
    echo "loom: survived"
else
    printf 'loom: died in execution 3\\nat line\\nit broke\\n'
fi
"""
NAMES = [
    "lock.acquire:acquire",
    "lock.acquire:release",
    "lock.was_free",
    "lock.seed.late",
    "lock.order.last",
]


def needed(*names):
    """The models' own list."""
    return json.dumps({"model": "a lock", "test": "lock", "needs": names, "passes": ["A", "B"]}) + "\n"


@pytest.fixture
def make_guards(tmp_path, monkeypatch, capsys):
    """Runs the tool on a house of one file."""
    source = tmp_path / "rust" / "core" / "sync" / "lock.rs"
    source.parent.mkdir(parents=True)
    source.write_text(SOURCE)
    table = [
        f"[{json.dumps(name)}]\nlinux = 'trylock'\npremise = 'one word'\n"
        for name in ("lock.acquire", "lock.was_free", "lock.order.last", "lock.seed.late")
    ]
    table[-1] += "history = 'bug 1'\n"
    (tmp_path / "guards.toml").write_text("\n".join(table))
    checker = tmp_path / "checker"
    checker.write_text(CHECKER)
    checker.chmod(0o755)
    (tmp_path / "models").write_text(needed(*NAMES))
    for name, value in {
        "ROOT": tmp_path,
        "CORE": tmp_path / "rust" / "core",
        "KNOWN": tmp_path / "guards.toml",
        "EXECUTIONS": tmp_path / "none",
        "REPORT": tmp_path / "target" / "guards.json",
        "PAGE": tmp_path / "guards.md",
    }.items():
        monkeypatch.setattr(guards, name, value)

    def run(*arguments, binary=True):
        (tmp_path / "tried").write_text("")
        monkeypatch.setattr(sys, "argv", ["guards.py", *([str(checker)] if binary else []), *arguments])
        code = guards.main()
        tried = (tmp_path / "tried").read_text().split()
        return code, capsys.readouterr().err, sorted(set(tried))

    run.folder, run.source = tmp_path, source
    return run


def test_a_page_is_written_and_then_holds(make_guards):
    code, said, _ = make_guards()
    assert code == 1
    assert "+| `lock.was_free` |" in said
    assert not (make_guards.folder / "guards.md").exists()
    code, said, tried = make_guards("--update")
    assert (code, said) == (0, "")
    assert tried == sorted(NAMES)
    page = (make_guards.folder / "guards.md").read_text()
    assert "5 killed: 2 checks and steps, 1 orders, 2 orderings. 0 justified" in page
    assert "| `lock.was_free` | sync/lock.rs, `try_lock` | trylock | one word | a lock | B |" in page
    assert "| bug 1 | `lock.seed.late` | it broke |" in page
    assert make_guards()[:2] == (0, "")
    assert make_guards(binary=False) == (0, "", [])


def test_lines_may_move_but_not_names_nor_functions(make_guards):
    assert make_guards("--update")[0] == 0
    make_guards.source.write_text("// A line more.\n" + SOURCE)
    assert make_guards(binary=False)[:2] == (0, "")
    for before, after in (("elsewhere", "nowhere"), ("lock.seed.late", "lock.seed.later")):
        make_guards.source.write_text(SOURCE.replace(before, after))
        code, said, _ = make_guards(binary=False)
        assert code == 1
        assert "-| `lock.seed.late` | sync/lock.rs, `elsewhere` |" in said
    assert "lacks lock.seed.later" in said


def test_names_that_moved_are_updated_without_a_model(make_guards):
    assert make_guards("--update")[0] == 0
    make_guards.source.write_text(SOURCE.replace("elsewhere", "nowhere"))
    assert make_guards("--update", binary=False) == (0, "", [])
    assert make_guards()[:2] == (0, "")
    assert "sync/lock.rs, `nowhere`" in (make_guards.folder / "guards.md").read_text()


def test_one_name_is_tried_and_added_alone(make_guards):
    assert make_guards("--update")[0] == 0
    make_guards.source.write_text(SOURCE.replace("right()", 'right(), duty!("lock.new", step())'))
    (make_guards.folder / "models").write_text(needed(*NAMES, "lock.new"))
    table = make_guards.folder / "guards.toml"
    table.write_text(table.read_text() + '\n["lock.new"]\nlinux = "x"\npremise = "y"\n')
    assert make_guards(binary=False)[0] == 1
    assert make_guards("lock.new", "--update") == (0, "", ["lock.new"])
    page = (make_guards.folder / "guards.md").read_text()
    assert "6 killed: 3 checks and steps, 1 orders" in page
    assert "| bug 1 | `lock.seed.late` | it broke |" in page
    assert make_guards()[:2] == (0, "")


def test_a_survivor_fails_and_writes_nothing(make_guards):
    assert make_guards("--update")[0] == 0
    before = (make_guards.folder / "guards.md").read_text()
    (make_guards.folder / "lock.was_free").touch()
    for arguments in ([], ["--update"], ["lock.was_free", "--update"]):
        code, said, _ = make_guards(*arguments)
        assert code == 1
        assert "lock.was_free" in said
        assert "survives" in said
        assert (make_guards.folder / "guards.md").read_text() == before


def test_a_name_that_no_model_lists_keeps_its_row(make_guards):
    assert make_guards("--update")[0] == 0
    before = (make_guards.folder / "guards.md").read_text()
    (make_guards.folder / "models").write_text(needed(*(name for name in NAMES if name != "lock.was_free")))
    for arguments in ([], ["--update"], ["lock.acquire", "--update"]):
        code, said, _ = make_guards(*arguments)
        assert code == 1
        assert "lock.was_free" in said
        assert "no model needs it and no reason is given" in said
        assert (make_guards.folder / "guards.md").read_text() == before


def test_an_order_is_tried_where_values_are_newest_first(make_guards):
    assert make_guards("lock.order.last")[0] == 0
    assert make_guards("--update")[0] == 0
    page = (make_guards.folder / "guards.md").read_text()
    assert "| `lock.order.last` | sync/lock.rs, `elsewhere` | trylock | one word | a lock | B |" in page


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("arguments", [[], ["--update"], ["NAME"], ["NAME", "--update"]])
def test_whatever_survives_fails_the_run(make_guards, name, arguments):
    assert make_guards("--update")[0] == 0
    before = (make_guards.folder / "guards.md").read_text()
    (make_guards.folder / name).touch()
    code, said, tried = make_guards(*(name if word == "NAME" else word for word in arguments))
    assert (code, name in tried, f"{name} (rust/core/sync/lock.rs:" in said) == (1, True, True)
    assert (make_guards.folder / "guards.md").read_text() == before


def test_the_committed_page_has_every_name_where_it_is():
    tool = ROOT / "tools" / "guards.py"
    found = subprocess.run([sys.executable, tool], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr + f"code that moved: {tool.name} --update"
    assert re.match(r"guards: [1-9]\d+ names", found.stdout)
