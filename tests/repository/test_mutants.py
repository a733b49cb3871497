"""`make mutants` finds the edits that it should and draws them steadily; its table fits the sources."""

import json
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tools.mutants import __main__ as mutants  # noqa: E402
from tools.mutants import build, run, sites, survivors  # noqa: E402

FUNCTION = "fn f(&self) -> u32 {{\n    {}\n}}\n"

# Bodies of a function, and the edits of one operator that they offer.
OFFERED = [
    ("swap", "a(); b();", ["a(); b(); -> b(); a();"]),
    ("swap", "a(); b(); c()", ["a(); b(); -> b(); a();", "b(); c() -> c(); b()"]),
    ("swap", "let x = self.a(); b(x);", ["let x = self.a(); b(x); -> b(x); let x = self.a();"]),
    ("swap", "a(); if x { b(); }", ["a(); if x { b(); } -> if x { b(); } a();"]),
    # Not the order that has a name, and what stands beside it.
    ("swap", 'duty!("x", a()); c();', ['duty!("x", a()); c(); -> c(); duty!("x", a());']),
    ("swap", 'in_order!("x.y", a(), b());', []),
    ("swap", 'duty!("x.y", { a(); b(); });', ["a(); b(); -> b(); a();"]),
    # Nobody could tell.
    ("swap", "let x = 1; let y = z;", []),
    ("swap", "a(); let y = x.div_ceil(2);", []),
    ("swap", "x += 1; let y = x.min(2);", ["x += 1; let y = x.min(2); -> let y = x.min(2); x += 1;"]),
    ("swap", "a(); return b();", []),
    ("swap", "let x = || a(); let y = || b();", []),
    ("swap", "let x = || a(); b();", ["let x = || a(); b(); -> b(); let x = || a();"]),
    ("swap", "node.life.assert_alive(); a();", []),
    ("delete", "node.life.assert_alive(); unsafe { a() };", ["unsafe { a() } -> ()"]),
    ("delete", "unsafe { a(); b() };", ["unsafe { a(); b() } -> ()", "a(); ->", "b() -> ()"]),
    ("swap", 'debug_assert!(x, "text"); a();', []),
    ("swap", "#[cfg(test)] a(); b();", []),
    ("swap", 'crate::sync::operation!("name"); a();', []),
    ("delete", 'crate::sync::operation!("name");', []),
    ("delete", "a(); b()", ["a(); ->", "b() -> ()"]),
    ("delete", "x = a();", ["x = a(); ->"]),
    ("delete", "*x += 1;", ["*x += 1; ->"]),
    ("delete", "for x in y { a(x); }", ["for x in y { a(x); } -> ()", "a(x); ->"]),
    ("delete", "if x { return 1; } else { a(); }", ["a(); ->"]),
    ("delete", 'duty!("x.y", a());', []),
    ("delete", 'in_order!("x.y", a(), b());', ["a() -> ()", "b() -> ()"]),
    ("delete", 'seeded!("x.y", bug = a());', []),
    ("delete", 'debug_assert!(x); panic!("text");', []),
    ("delete", "drop(x); a();", ["drop(x); ->", "a(); ->"]),
    ("delete", "drop(x);", []),
    ("condition", "if x { a(); }", ["x -> !(x)", "x -> true", "x -> false"]),
    ("condition", "while !x { a(); }", ["!x -> x", "!x -> true", "!x -> false"]),
    ("condition", "match x { y if z => 1, _ => 2 }", ["z -> !(z)", "z -> true", "z -> false"]),
    ("condition", "x && y", ["x -> !(x)", "x -> true", "y -> !(y)", "y -> true"]),
    ("condition", "x || y", ["x -> !(x)", "x -> false", "y -> !(y)", "y -> false"]),
    # Turned is inverted.
    ("condition", "if x == y { a(); }", ["x == y -> true", "x == y -> false"]),
    ("condition", "if let Some(x) = y && z { a(); }", ["z -> !(z)", "z -> true"]),
    ("condition", 'if !guard!("x.y", z) { a(); }', []),
    ("condition", 'guard!("x.y", z && w)', ["z -> !(z)", "z -> true", "w -> !(w)", "w -> true"]),
    ("comparison", "x < y", ["x < y -> x <= y"]),
    ("comparison", "x >= y", ["x >= y -> x > y"]),
    ("comparison", "x != y", ["x != y -> x == y"]),
    ("comparison", 'guard!("x.y", x == y)', []),
    ("comparison", 'guard!("x.y", x <= y)', ["x <= y -> x < y"]),
    ("comparison", "debug_assert!(x < y);", []),
    ("constant", "x + 1", ["1 -> (1 + 1)", "1 -> (1 - 1)"]),
    ("constant", "x.fetch_add(0x10, y)", ["0x10 -> (0x10 + 1)", "0x10 -> (0x10 - 1)"]),
    ("constant", "x.0 == 0_u32", ["0_u32 -> (0_u32 + 1)"]),
    ("constant", "match x { 1 => 2, _ => y }", ["2 -> (2 + 1)", "2 -> (2 - 1)"]),
    ("constant", "const N: u32 = 1; [x; 2]", []),
    ("constant", 'ord!("x.y", Release)', []),
    ("release", "let _lock = self.a.lock(); b(); c()", ["b(); -> drop(_lock); b();"]),
    ("release", "let lock = self.a.lock(); b(&lock); c()", ["c() -> drop(lock); c()"]),
    ("release", "let Some(lock) = a.try_lock() else { return 1 }; b()", ["b() -> drop(lock); b()"]),
    ("release", "let section = crate::rcu::read(); b()", ["b() -> drop(section); b()"]),
    ("release", "let lock = self.a.lock(); b(); drop(lock); c()", ["b(); drop(lock); -> drop(lock); b();"]),
    ("release", "let lock = self.a.lock(); Ok(1)", []),
    ("release", "let x = self.read_size(); b()", []),
]  # fmt: skip


def offered(text: str) -> list[sites.Edit]:
    return sites.Source("room/file.rs", text.encode()).edits()


@pytest.mark.parametrize(("operator", "body", "edits"), OFFERED)
def test_an_operator_offers_these_edits(operator, body, edits):
    found = [edit.text for edit in offered(FUNCTION.format(body)) if edit.operator == operator]
    assert (
        sorted(found) == sorted(text.strip() if text.endswith("->") else text for text in edits)
        or found == edits
    )


@pytest.mark.parametrize("body", sorted({body for _, body, _ in OFFERED}))
def test_what_an_edit_leaves_is_rust(body):
    text = FUNCTION.format(body)
    for edit in offered(text):
        edited = text[: edit.start] + edit.new + text[edit.end :]
        assert not sites.Source("room/file.rs", edited.encode()).tree.root_node.has_error, edited


def test_tests_and_what_is_for_people_are_left_alone():
    text = """
        #[cfg(all(test, not(any(specmm_loom, specmm_shuttle))))]
        mod tests { fn f() { a(); b(); } }
        #[cfg(test)]
        fn g() { a(); b(); }
        const fn h() { a(); b(); }
        impl std::fmt::Display for X { fn fmt(&self) { a(); b(); } }
        #[cfg(any(specmm_loom, specmm_shuttle))]
        fn i() { a(); b(); }
        #[cfg(specmm_shuttle)]
        impl Drop for X { fn drop(&mut self) { a(); b(); } }
        #[cfg(not(any(specmm_loom, specmm_shuttle)))]
        #[cfg_attr(any(specmm_loom, specmm_shuttle), allow(dead_code))]
        fn kept() { a(); }
    """
    assert {edit.function for edit in offered(text)} == {"kept"}


@pytest.fixture(scope="module")
def of_the_sources():
    return sites.all_edits(ROOT / "rust" / "core")


def test_the_sources_parse_and_offer_every_operator_in_every_room(of_the_sources):
    for path in sites.source_files(ROOT / "rust" / "core"):
        assert not sites.Source(path.name, path.read_bytes()).tree.root_node.has_error, path
    found = Counter((edit.file.split("/")[0], edit.operator) for edit in of_the_sources)
    for room in sites.ROOMS:
        for operator in set(sites.OPERATORS) - {"release"}:
            assert found[room, operator] > 3, (room, operator)
    assert sum(found[room, "release"] for room in sites.ROOMS) > 20
    assert len({edit.id for edit in of_the_sources}) == len(of_the_sources), "two edits have one id"


def test_what_is_outside_is_there():
    for name in sites.OUTSIDE:
        assert (ROOT / "rust" / "core" / name).exists(), name


def test_a_draw_hardly_changes_with_the_sources(of_the_sources):
    before = [edit.id for edit in mutants.in_drawn_order(of_the_sources, 7)[:200]]
    path = ROOT / "rust" / "core" / "cache" / "truncate.rs"
    changed = path.read_text().replace("fn shrink_pages", "fn unrelated() { a(); b(); }\n\nfn shrink_pages")
    others = [edit for edit in of_the_sources if edit.file != "cache/truncate.rs"]
    edited = others + sites.Source("cache/truncate.rs", changed.encode()).edits()
    after = [edit.id for edit in mutants.in_drawn_order(edited, 7)[:200]]
    assert len(set(before) - set(after)) <= 2
    assert before != [edit.id for edit in mutants.in_drawn_order(of_the_sources, 8)[:200]]
    assert {edit.operator for edit in mutants.in_drawn_order(of_the_sources, 7)[:30]} == set(sites.OPERATORS)


def test_the_control_is_there(of_the_sources):
    assert mutants.control(of_the_sources).id


def test_survivors_are_edits_of_the_sources_and_have_reasons(of_the_sources):
    gone = survivors.stale(survivors.entries(), of_the_sources)
    assert [str(entry) for entry in gone] == []


@pytest.mark.parametrize(
    "entry",
    [
        'file = "a.rs"\nfunction = "f"\nreason = " "',
        'file = "a.rs"\nfunction = "f"\nreason = "why"\noperator = "swop"',
        'file = "a.rs"\nfunction = "f"\nreason = "why"\nline = 3',
    ],
)
def test_an_entry_that_says_nothing_is_refused(entry, tmp_path):
    table = tmp_path / "survivors.toml"
    table.write_text(f"[[survivor]]\n{entry}\n")
    with pytest.raises(ValueError, match=r"survivors\.toml"):
        survivors.entries(table)


def test_a_ready_made_entry_covers_its_edit_and_no_other(tmp_path):
    for text in (FUNCTION.format("a(x, 'y', \"z\"); b();"), FUNCTION.format("if x < 1 { a(); b(); }")):
        edits = offered(text)
        for edit in edits:
            table = tmp_path / "survivors.toml"
            table.write_text(survivors.ready_made(edit).replace('reason = ""', 'reason = "why"'))
            (entry,) = survivors.entries(table)
            assert [one.id for one in edits if entry.covers(one)] == [edit.id]
            assert survivors.stale([entry], [one for one in edits if one != edit]) == [entry]


def test_an_id_names_one_of_several_edits_with_one_text(tmp_path):
    edits = [edit for edit in offered(FUNCTION.format("a(0); b(0);")) if edit.operator == "constant"]
    assert len({edit.text for edit in edits}) == 1
    assert len(edits) == 2
    table = tmp_path / "survivors.toml"
    for edit in edits:
        named = survivors.ready_made(edit).replace('reason = ""', f'id = "{edit.id}"\nreason = "why"')
        table.write_text(named)
        (entry,) = survivors.entries(table)
        assert [one.id for one in edits if entry.covers(one)] == [edit.id]


def test_an_edit_is_an_arm_of_its_function(of_the_sources):
    text = b"impl X {\n    fn f(&self) {\n        a();\n        b();\n    }\n}\n"
    source = sites.Source("room/file.rs", text)
    (swap,) = [edit for edit in source.edits() if edit.operator == "swap"]
    written = build.Written({swap.id: 1}, [], {})
    out = build.with_edits(source, {(swap.file, swap.body): [swap]}, written).decode()
    assert not sites.Source("room/file.rs", out.encode()).tree.root_node.has_error
    lines = out.splitlines()
    ((first, last, id_),) = written.arms["room/file.rs"]
    arm = " ".join(" ".join(lines[first - 1 : last]).split())
    assert (arm, id_) == ("1 => { b(); a(); }", swap.id)
    assert len(written.marks) == 2
    assert swap.statement in written.marks
    error = {
        "file_name": "rust/core/room/file.rs",
        "line_start": first + 1,
        "line_end": first + 1,
        "is_primary": True,
    }
    assert build.guilty_of({"spans": [error]}, written) == {swap.id}
    assert (
        build.guilty_of({"spans": [error | {"line_start": last + 1, "line_end": last + 1}]}, written) == set()
    )


SCRIPT = """\
#!/bin/sh
echo "running 1 test"
if [ -n "$SPECMM_EDITS_MET" ]; then
    met=$(tr '\\000' x < "$SPECMM_EDITS_MET")
    printf %s "$met" 1<> "$SPECMM_EDITS_MET"
fi
case "$SPECMM_EDIT $2" in
    "1 "*) exit 101;;
    "2 slow") exit 101;;
    "3 "*) sleep 60;;
    "5 slow") while :; do :; done;;
esac
"""


@pytest.fixture
def tests(tmp_path, monkeypatch):
    """Two tests of a binary that fails with edit 1, in one test with edit 2, and hangs with edit 3."""
    path = tmp_path / "binary"
    path.write_text(SCRIPT)
    path.chmod(0o755)
    monkeypatch.setattr(run, "TREE", tmp_path)
    monkeypatch.setattr(run, "SECONDS", 5)
    monkeypatch.setattr(run, "CPU_SECONDS", 0)
    binary = build.Binary("loom", "binary", path)
    return [run.Test(binary, "quick", 0.1, 0.01), run.Test(binary, "slow", 0.1, 0.05)]


@pytest.mark.parametrize(
    ("number", "killed_by", "how", "tried"),
    [
        (1, "quick", "failed", 1),
        (2, "slow", "failed", 2),
        (3, "quick", "hung", 1),
        (5, "slow", "hung", 2),
        (4, None, "", 2),
    ],
)
def test_the_first_test_that_fails_or_hangs_kills(tests, tmp_path, number, killed_by, how, tried):
    records = run.Records([], "key", tmp_path / "records.json")
    records.known = {test.told: {"key": "key", "seconds": 0.1, "cpu": test.cpu, "met": []} for test in tests}
    (edit,) = [edit for edit in offered(FUNCTION.format("a(); b()")) if edit.operator == "swap"]
    fate = run.judge(edit, number, tests, records)
    assert (fate.killed_by and fate.killed_by.split()[-1], fate.how, fate.tried) == (killed_by, how, tried)


def test_a_test_that_has_become_longer_does_not_hang(tests, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "SECONDS", 0)
    tests[0].binary.path.write_text("#!/bin/sh\necho 'running 1 test'\nsleep 2\n")
    records = run.Records([], "today", tmp_path / "records.json")
    about = {"key": "before", "seconds": 0.1, "cpu": 0.01, "met": []}
    records.known = {test.told: about for test in tests}
    (edit,) = [edit for edit in offered(FUNCTION.format("a(); b()")) if edit.operator == "swap"]
    assert run.judge(edit, 3, tests, records).killed_by is None
    assert all(records.known[test.told]["seconds"] > 1 for test in tests)


def test_what_a_test_meets_is_recorded_once(tests, tmp_path):
    (edit,) = [edit for edit in offered(FUNCTION.format("a(); b()")) if edit.operator == "swap"]
    for runs in (2, 0):
        assert run.Records([edit.statement], "key", tmp_path / "records.json").fill(tests) == runs
        assert [test.met for test in tests] == [{edit.statement}, {edit.statement}]
        assert run.meeting(edit, tests) == sorted(tests, key=lambda test: test.cpu)


def test_a_new_statement_runs_in_the_tests_of_its_function(tests):
    (edit,) = [edit for edit in offered(FUNCTION.format("a(); b()")) if edit.operator == "swap"]
    tests[0].met, tests[1].met = {"room/file.rs|f|0|other|0"}, {"room/file.rs|g|0|other|0"}
    assert run.meeting(edit, tests) == tests[:1]
    tests[0].met = {"elsewhere.rs|f|0|other|0"}
    assert run.meeting(edit, tests) == tests[1:]


def test_a_test_that_fails_without_an_edit_is_no_evidence(tests, tmp_path):
    (edit,) = [edit for edit in offered(FUNCTION.format("a(); b()")) if edit.operator == "swap"]
    run.Records([edit.statement], "before", tmp_path / "records.json").fill(tests)
    tests[0].binary.path.write_text("#!/bin/sh\necho 'running 1 test'\nexit 101\n")
    with pytest.raises(run.NoEvidenceError, match="failed without an edit"):
        run.judge(edit, 1, tests, run.Records([edit.statement], "after", tmp_path / "records.json"))


def test_a_test_that_is_not_there_is_no_evidence(tests):
    tests[0].binary.path.write_text("#!/bin/sh\necho 'running 0 tests'\n")
    with pytest.raises(RuntimeError, match="ran nothing"):
        run.run(tests[0])


def test_the_hints_name_edits_of_the_sources(of_the_sources):
    known = json.loads(mutants.KILLERS.read_text())
    assert known.pop(mutants.PLANTED).keys() <= build.KINDS.keys()
    assert known.keys() <= {edit.id for edit in of_the_sources}


def test_the_group_of_the_tool_is_in_the_tests_group():
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    assert {"include-group": "mutants"} in groups["dev"]


@pytest.fixture
def make_mutants(tests, tmp_path, monkeypatch, of_the_sources):
    """The tool on two edits of the sources, which the binary above calls 1 and 4."""
    some = [edit for edit in of_the_sources if edit.operator == "swap"][:2]
    planted = mutants.control(of_the_sources)
    statements = [edit.statement for edit in (*some, planted)]

    def build_nothing(order, count, kinds, planted):
        numbers = {some[0].id: 1, some[1].id: 4, planted.id: make.planted}
        written = build.Written(numbers, statements, {})
        return mutants.Built(order[:count], [], written, tests)

    def make(*arguments, hints=None):
        (tmp_path / "killers.json").write_text(json.dumps(hints or {}))
        for test in tests:
            test.met = set(statements)
        known = {test.told: {"key": "", "seconds": 0.1, "cpu": 0.01, "met": statements} for test in tests}
        (tmp_path / "records.json").write_text(json.dumps(known))
        ids = [word for edit in some for word in ("--id", edit.id)]
        monkeypatch.setattr(sys, "argv", ["mutants", "--kind", "loom", *ids, *arguments])
        return mutants.main()

    monkeypatch.setattr(mutants, "build", build_nothing)
    monkeypatch.setattr(mutants, "PLACE", tmp_path)
    monkeypatch.setattr(mutants, "KILLERS", tmp_path / "killers.json")
    monkeypatch.setattr(run.Records.__init__, "__defaults__", (tmp_path / "records.json",))
    monkeypatch.setattr(mutants, "entries", list)
    make.edits, make.planted = some, 1
    return make


def test_a_survivor_fails_the_run_and_gets_an_entry(make_mutants, capsys):
    assert make_mutants() == 1
    out, told = capsys.readouterr()
    dies, lives = make_mutants.edits
    assert f"{dies.id} swap       {dies.file} {dies.function}: failed loom binary quick" in out
    assert f"{lives.id} swap       {lives.file} {lives.function}: SURVIVES 2 tests" in out
    assert told.strip().startswith(survivors.ready_made(lives))
    assert "1 survive without a reason" in told


def test_a_survivor_with_a_reason_is_not_run(make_mutants, monkeypatch, capsys):
    dies, lives = make_mutants.edits
    entry = survivors.Entry(lives.file, lives.function, "why", text=lives.text)
    monkeypatch.setattr(mutants, "entries", lambda: [entry])
    assert make_mutants() == 0
    assert lives.id not in capsys.readouterr().out
    assert make_mutants("--recheck") == 0
    entry = survivors.Entry(dies.file, dies.function, "why", text=dies.text)
    assert make_mutants("--recheck") == 1, "its reason is wrong"
    gone = survivors.Entry(dies.file, "no_function", "why")
    monkeypatch.setattr(
        mutants, "entries", lambda: [entry, survivors.Entry(lives.file, lives.function, "why"), gone]
    )
    assert make_mutants() == 1, "an entry covers nothing"


def test_killers_are_written_and_tried_first(make_mutants, tmp_path, capsys):
    assert make_mutants("--update") == 1
    dies, lives = make_mutants.edits
    written = json.loads((tmp_path / "killers.json").read_text())
    assert written == {"planted": {"loom": "loom binary quick"}, dies.id: "loom binary quick"}
    assert make_mutants("--id", dies.id, hints=written | {lives.id: "loom binary slow"}) == 1
    capsys.readouterr()


def test_the_planted_edit_is_sought_beyond_the_tests_of_the_run(make_mutants, capsys):
    """Here the run needs only the test that lets it live."""
    make_mutants.planted = 2
    make_mutants(hints=dict.fromkeys([edit.id for edit in make_mutants.edits], "loom binary quick"))
    assert "the planted edit dies in loom binary slow" in capsys.readouterr().out


def test_without_a_planted_edit_that_dies_there_is_no_run(make_mutants, tests):
    tests[0].binary.path.write_text("#!/bin/sh\necho 'running 1 test'\n")
    with pytest.raises(SystemExit, match="the planted edit survives 2 tests"):
        make_mutants()


def test_nothing_drawn_is_no_run(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mutants", "--file", "no/such.rs"])
    with pytest.raises(SystemExit, match="nothing to draw from"):
        mutants.main()
