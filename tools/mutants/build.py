"""One build that has every drawn edit, chosen at run time.

A copy of the tree stands in target/mutants/tree. In it the body of a function becomes a `match` on the
number of the edit that this run makes: an arm for each edit of the function, which is the whole body with
the edit in it, and one for the body as it is. So an edit compiles if and only if the edited source would,
whatever it does to bindings, borrows and moves. The body as it is also marks each of its statements when it
is reached, which tells which tests meet an edit.
"""

import json
import os
import re
import shutil
import subprocess
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from .sites import Edit, Function, Source, source_files

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "target" / "mutants"
TREE = PLACE / "tree"
# Built from the copy, and put where the copy's Python finds it.
EXTENSION = TREE / "python" / "specmm" / "_core.abi3.so"
COPIED = (
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "CHANGELOG.md",
    "pyproject.toml",
    "docs",
    "python",
    "rust",
    "tests",
    "examples",
    "benches",
    "tools/surface",
)

# What the compiler warns of, or refuses for being pointless, an edit may do. No line of its own: lines stay.
LINTS = b"#![allow(warnings, clippy::all, arithmetic_overflow, overflowing_literals, unconditional_panic)]"

# Appended to the copied facade. No std facility that allocates: tests count and refuse allocations.
CHOICE = """
#[allow(unsafe_code)]
mod edits {
    use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, Ordering};
    static EDIT: AtomicU32 = AtomicU32::new(0);
    static UNSEEN: [AtomicU8; MARKS] = [const { AtomicU8::new(0) }; MARKS];
    static MET: AtomicPtr<AtomicU8> = AtomicPtr::new(UNSEEN.as_ptr().cast_mut());
    /// The edit that this run makes; 0 is none.
    #[inline]
    pub fn edit() -> u32 {
        EDIT.load(Ordering::Relaxed)
    }
    #[inline]
    pub fn met(mark: usize) {
        unsafe { &*MET.load(Ordering::Relaxed).add(mark) }.store(1, Ordering::Relaxed);
    }
    #[used]
    #[unsafe(link_section = ".init_array")]
    static BEGIN: extern "C" fn() = begin;
    extern "C" fn begin() {
        unsafe {
            let asked = libc::getenv(c"SPECMM_EDIT".as_ptr());
            if !asked.is_null() {
                let number = std::ffi::CStr::from_ptr(asked).to_str().unwrap().parse().unwrap();
                EDIT.store(number, Ordering::Relaxed);
            }
            // A file of a byte a mark: what was met is there however the process ends, and whoever it forked.
            let path = libc::getenv(c"SPECMM_EDITS_MET".as_ptr());
            if !path.is_null() {
                let file = libc::open(path, libc::O_RDWR);
                let access = libc::PROT_READ | libc::PROT_WRITE;
                let met = libc::mmap(std::ptr::null_mut(), MARKS, access, libc::MAP_SHARED, file, 0);
                assert!(met != libc::MAP_FAILED, "no file of marks");
                MET.store(met.cast(), Ordering::Relaxed);
            }
        }
    }
}
pub(crate) use edits::{edit, met};
"""


# To cargo a copy of the same version would be the same package, and a build of the one would pass for one of
# the other. The version stands in Cargo.toml once, and in Cargo.lock after the name of each of our crates.
OWN_VERSION = re.compile(rb'((?:\[workspace\.package\]|name = "specmm[^"]*")\nversion = "[0-9.]+)(")')


@dataclass(frozen=True)
class Kind:
    """One configuration of the tree, built in the folder that has its dependencies already."""

    cargo: tuple[str, ...]
    target: Path
    flags: str = ""
    #: What its tests find in the environment, and which of them are run.
    run: tuple[tuple[str, str], ...] = ()
    tests: str = ""


# Of Python's tests those that compare with the model or look at pages, windows and counters, not those that
# work against the clock: a file or a test.
AGREE = "tests/differential/test_differential.py::test_specmm_and_its_model_agree"
SCRIPTS = (
    *(f"{AGREE}_{how}" for how in ("after_every_call", "on_extreme_numbers", "when_reads_go_wrong")),
    *(f"tests/files/test_{name}.py" for name in ("advice", "api", "gather", "pin", "raw", "store")),
    *(f"tests/files/test_{name}.py" for name in ("report", "targets", "unclosed")),
    "tests/mm/test_mm.py",
)
SUITES = ("faults", "fault_plan", "no_memory", "no_threads", "reader", "reclaim", "teardown", "workload")
KINDS = {
    "native": Kind(
        ("test", "--all-features", "--lib", *(word for suite in SUITES for word in ("--test", suite))),
        ROOT / "target",
    ),
    # Newest values first: most edits are of logic.
    "loom": Kind(
        ("test", "--profile", "loom", "--all-features", "--lib"),
        ROOT / "target" / "loom",
        "--cfg specmm_loom",
        (("SPECMM_LOOM_PASS", "B"),),
    ),
    "shuttle": Kind(
        ("test", "--profile", "loom", "--all-features", "--lib"),
        ROOT / "target" / "shuttle",
        "--cfg specmm_shuttle",
        (("SPECMM_SHUTTLE_AS_IS", "1"),),
        tests="shuttle_tests",
    ),
    # A folder of its own: the extension has one name whatever its version.
    "python": Kind(("build", "-p", "specmm-py"), PLACE / "python", run=(("SPECMM_HYPOTHESIS", "brief"),)),
}
# Environments with what the tests of Python need; the specmm that they import is the copy's.
PYTHONS = [ROOT / name / "bin" / "python" for name in (".venv-dev", ".venv-edit")]
PYTHON = next((path for path in PYTHONS if path.exists()), PYTHONS[0])


@dataclass
class Written:
    """A copied tree."""

    numbers: dict[str, int]  # id -> what SPECMM_EDIT is for it
    marks: list[str]  # the statements, in the order of their numbers
    arms: dict[str, list[tuple[int, int, str]]]  # file -> first line, last line, id
    unbuildable: list[Edit] = field(default_factory=list)


def sync_copy() -> None:
    """Copies what changed, so that cargo builds only that; sources of the core are written by `write`."""
    wanted = set()
    for name in COPIED:
        origin = ROOT / name
        for path in [origin] if origin.is_file() else sorted(origin.rglob("*")):
            if (
                path.is_file()
                and "__pycache__" not in path.parts
                and path.suffix in (".rs", ".toml", ".lock", ".md", ".json", ".txt", ".py", ".pyi")
            ):
                wanted.add(path.relative_to(ROOT))
    for path in wanted:
        if path.name in ("Cargo.toml", "Cargo.lock"):
            put(TREE / path, OWN_VERSION.sub(rb"\1-edited\2", (ROOT / path).read_bytes()))
        elif not (path.suffix == ".rs" and path.parts[:2] == ("rust", "core")):
            put(TREE / path, (ROOT / path).read_bytes())
    for path in TREE.rglob("*"):
        if path.is_file() and path.relative_to(TREE) not in wanted and path != EXTENSION:
            path.unlink()


def put(path: Path, text: bytes) -> None:
    """Writes a file unless it is as it should be."""
    if path.exists() and path.read_bytes() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)


def write(edits: list[Edit], core: Path = ROOT / "rust" / "core") -> Written:
    """Writes the core's sources into the copy, with these edits."""
    sync_copy()
    written = Written({}, [], {})
    by_body: dict[tuple[str, int], list[Edit]] = defaultdict(list)
    for number, edit in enumerate(edits, 1):
        written.numbers[edit.id] = number
        by_body[edit.file, edit.body].append(edit)
    edited = {path.relative_to(core).as_posix() for path in source_files(core)}
    texts = {}
    for path in sorted(core.rglob("*.rs")):
        short = path.relative_to(core).as_posix()
        text = path.read_bytes()
        texts[short] = with_edits(Source(short, text), by_body, written) if short in edited else text
    texts["lib.rs"] = LINTS + texts["lib.rs"]
    texts["sync/mod.rs"] += CHOICE.replace("MARKS", str(max(len(written.marks), 1))).encode()
    for short, text in texts.items():
        put(TREE / "rust" / "core" / short, text)
    return written


def with_edits(source: Source, by_body: dict[tuple[str, int], list[Edit]], written: Written) -> bytes:
    """The source with a choice in each function that has edits, and a mark before each statement."""
    out, done, arms = bytearray(), 0, []
    for function in sorted(source.functions, key=lambda one: one.node.start_byte):
        if function.is_const or function.node.start_byte < done:
            continue
        body = function.node
        out += source.text[done : body.start_byte]
        done = body.end_byte
        mine = by_body.get((source.file, body.start_byte), [])
        if function.is_opaque:
            mine = inlined(mine, written)
        marked = with_marks(source, function, mine if function.is_opaque else [], written)
        if not mine or function.is_opaque:
            out += marked
            continue
        out += b"{ match crate::sync::edit() {\n"
        for edit in mine:
            first = out.count(b"\n") + 1
            out += f"{written.numbers[edit.id]} => ".encode()
            out += (
                source.text[body.start_byte : edit.start]
                + edit.new.encode()
                + source.text[edit.end : body.end_byte]
            )
            arms.append((first, out.count(b"\n") + 1, edit.id))
            out += b"\n"
        out += b"_ => " + marked + b"\n} }"
    out += source.text[done:]
    written.arms[source.file] = arms
    return bytes(out)


def inlined(edits: list[Edit], written: Written) -> list[Edit]:
    """Of a function whose body must stay one: those that are an expression each and lie apart."""
    kept: list[Edit] = []
    for edit in edits:
        is_expression = edit.operator in ("condition", "comparison", "constant")
        if is_expression and all(edit.end <= other.start or other.end <= edit.start for other in kept):
            kept.append(edit)
        else:
            written.unbuildable.append(edit)
    return kept


def with_marks(source: Source, function: Function, edits: list[Edit], written: Written) -> bytes:
    """The body as it is, with a mark before each statement."""
    body, puts = function.node, []
    for place, name in source.places(function):
        written.marks.append(name)
        puts.append((place.start_byte, 0, place.start_byte, f"crate::sync::met({len(written.marks) - 1});"))
    for edit in edits:
        choice = (
            f"(if crate::sync::edit() == {written.numbers[edit.id]} {{ {edit.new} }} else {{ {edit.old} }})"
        )
        puts.append((edit.start, 1, edit.end, choice))
    out, done = bytearray(), body.start_byte
    for start, _, end, new in sorted(puts):
        out += source.text[done:start] + new.encode()
        done = end
    return bytes(out + source.text[done : body.end_byte])


@dataclass
class Binary:
    """A test binary."""

    kind: str
    target: str
    path: Path


class CompilerError(Exception):
    """The copy does not compile, for a reason outside the edits."""


def cargo(name: str, written: Written) -> tuple[list[Binary], set[str]]:
    """Builds, or returns the edits that the compiler refuses."""
    kind = KINDS[name]
    environment = os.environ | {"CARGO_TARGET_DIR": str(kind.target), "CARGO_TERM_COLOR": "never"}
    if kind.flags:
        environment["RUSTFLAGS"] = kind.flags
    command = [
        "cargo",
        *kind.cargo,
        *(["--no-run"] if kind.cargo[0] == "test" else []),
        "--message-format=json",
    ]
    done = subprocess.run(command, cwd=TREE, env=environment, capture_output=True, text=True, check=False)
    binaries, refused, elsewhere = [], set(), []
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message["reason"] == "compiler-artifact" and message.get("executable"):
            binaries.append(Binary(name, message["target"]["name"], Path(message["executable"])))
        if message["reason"] == "compiler-message" and message["message"]["level"] == "error":
            guilty = guilty_of(message["message"], written)
            refused |= guilty
            if not guilty and message["message"]["spans"]:
                elsewhere.append(message["message"]["rendered"])
    if done.returncode == 0:
        return (scripts(kind) if name == "python" else binaries), set()
    if refused:
        return [], refused
    raise CompilerError("\n".join(elsewhere) or done.stderr)


def scripts(kind: Kind) -> list[Binary]:
    """The tests of Python, with the extension where they find it."""
    EXTENSION.unlink(missing_ok=True)
    shutil.copy(kind.target / "debug" / "lib_core.so", EXTENSION)
    return [Binary("python", script, TREE / script) for script in SCRIPTS]


def guilty_of(message: dict, written: Written) -> set[str]:
    """The edits in which an error lies; in a macro, where that was called."""
    guilty = set()
    for span in message["spans"]:
        if not span["is_primary"]:
            continue
        while True:
            file = span["file_name"].removeprefix("rust/core/")
            for first, last, id_ in written.arms.get(file, []):
                if first <= span["line_start"] and span["line_end"] <= last:
                    guilty.add(id_)
            if not span.get("expansion"):
                break
            span = span["expansion"]["span"]
    return guilty


REFUSED = PLACE / "refused.json"


def function_text(edit: Edit, core: Path = ROOT / "rust" / "core") -> str:
    """What a refusal depends on, near enough."""
    text = (core / edit.file).read_bytes()
    return re.sub(r"\s+", " ", text[edit.body : edit.body + 4000].decode(errors="replace"))
