"""What a process creates once, at its first need: a child of a fork at that moment must not wait for it.

All static data of the extension module that may be such a cell is walked, by the names in its symbol table.
Those of Rust's standard library are left out: the lock of the environment is only ever taken to read, and
that of stderr is taken to print a panic.
"""

import ast
import re
import subprocess
from pathlib import Path

import pytest

import specmm
from programs import run

CORE = Path(specmm._core.__file__)
SOURCES = Path(__file__).parents[2] / "rust"

FORK_SAFE = {
    "Imported": "set with the GIL",
    "Name": "set with the GIL",
    "PerProcess": "a child creates its own",
    "Reserve": "atomics",
    "Slots": "atomics, and a child gives all of its parent's slots back",
    "Slot": "atomics; nobody's",
    "Numbers": "atomic",
    **{f"Atomic{of}": "atomic" for of in ("Bool", "Ptr", "U32", "U64", "Usize")},
    "Tally": "atomic",
}
"""The types of static data that are right whenever a fork comes."""

NOT_MET = {
    r"pyo3::internal::state::POOL": "no reference is dropped without the GIL (rust/py/later.rs)",
    r"PyTracebackMethods>::format::INTERNED": "a panic would be a bug",
}

FILLED = """
import ctypes, sys
places = [(int(at), int(size)) for at, size in (each.split(":") for each in sys.argv[2:])]
library = ctypes.CDLL(sys.argv[1])
with open("/proc/self/maps") as maps:
    base = min(int(line.split("-")[0], 16) for line in maps if line.rstrip().endswith(sys.argv[1]))
now = lambda: [ctypes.string_at(base + at, size) for at, size in places]
before = now()
import specmm
print([was != becomes for was, becomes in zip(before, now())])
"""


def of_types() -> dict[tuple[str, str], str]:
    """The types of the static data in our sources, by module and name."""
    found = {}
    static = re.compile(r"^\s*(?:pub(?:\(\w+\))? )?static (\w+): (?:\$?\w+::)*(\w+)", re.MULTILINE)
    for path in SOURCES.rglob("*.rs"):
        module = path.parent.name if path.stem in ("mod", "lib") else path.stem
        found.update({(module, name): type_ for name, type_ in static.findall(path.read_text())})
    return found


def cells() -> dict[str, tuple[int, int]]:
    """Where the data of the module and of pyo3 is, with its size."""
    listing = subprocess.run(
        ["nm", "--demangle", "--print-size", CORE], check=True, capture_output=True, text=True
    ).stdout
    found = {}
    for line in listing.splitlines():
        match = re.fullmatch(r"(\w+) (\w+) [bBdD] (.*)", line)
        # Not constant tables, nor what each thread has for itself.
        if (
            match
            and re.search(r"\b(pyo3|_core|specmm|once_cell)\b", match[3])
            and not re.search(r"_PYO3_DEF|::ITEMS|RUST_STD_INTERNAL_VAL|^anon\.|\bstd::", match[3])
        ):
            found[f"{match[3]} {match[1]}"] = (int(match[1], 16), int(match[2], 16))
    return found


def is_fork_safe(cell: str, types: dict[tuple[str, str], str]) -> bool:
    *path, name = re.findall(r"\w+", cell.rpartition(" ")[0])
    # `name!` makes one at each place where it is used.
    known = {types.get((module, name)) for module in [*path, "imported"]}
    return bool(known & FORK_SAFE.keys()) or any(re.search(pattern, cell) for pattern in NOT_MET)


def unsafe(cells: dict[str, bool], types: dict[tuple[str, str], str]) -> list[str]:
    """Those of `cells` that an import leaves unfilled, and that a fork may meet half filled."""
    return [cell for cell, filled in cells.items() if not filled and not is_fork_safe(cell, types)]


@pytest.fixture(scope="module")
def filled() -> dict[str, bool]:
    places = cells()
    if not places:
        pytest.skip("this build was stripped of its symbols")
    answers = run(FILLED, CORE, *(f"{at}:{size}" for at, size in places.values()))
    return dict(zip(places, ast.literal_eval(answers), strict=True))


def test_an_import_fills_what_a_fork_could_meet_half_filled(filled):
    assert unsafe(filled, of_types()) == []


def test_the_walk_finds_what_is_there(filled):
    """Cells of each kind, filled and not."""
    for name, is_filled in {
        "pyo3::interpreter_lifecycle::START": True,
        "argument_extraction_error::INTERNED": True,
        "_core::file::File as .*TYPE_OBJECT": True,
        "specmm::cache::patience::SHOULD_GIVE_UP": True,
        "PyTracebackMethods>::format::INTERNED": False,
        "_core::store::PyStore as specmm::store::Store.*NAME": False,
        "_core::worker::DOOR": False,
    }.items():
        found = [filled[cell] for cell in filled if re.search(name, cell)]
        assert found and all(each == is_filled for each in found), (name, found)


@pytest.mark.parametrize(
    "cell", ["_core::store::failed::INTERNED 1c8", "pyo3::types::list::TYPE 10", "specmm::rcu::FIRST 8"]
)
def test_a_cell_that_nobody_vouches_for_is_reported(cell):
    """`pyo3::intern!`, a type that pyo3 imports at its first need, and a lock of the standard library's."""
    assert unsafe(
        {cell: False, "_core::worker::DOOR 10": False}, of_types() | {("rcu", "FIRST"): "OnceLock"}
    ) == [cell]
    assert unsafe({cell: True}, of_types()) == []
