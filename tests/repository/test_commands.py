"""Commands that pages show can be typed: targets and their variables, suites, modules and paths are there."""

import itertools
import re
import shlex
from collections.abc import Iterator
from functools import cache

import pytest

from samples import ROOT

PAGES = ["README.md", "CONTRIBUTING.md", "rust/README.md", "tests/README.md"]
PAGES += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
OURS = ("make", "cargo", ".venv", "tools/", "PYTHONPATH=", "SPECMM_")
MAKEFILE = (ROOT / "Makefile").read_text()
RULE = re.compile(r"^([\w./-]+(?: [\w./-]+)*):(?!=)(.*)\n((?:\t.*\n|\n(?=\t))*)", re.MULTILINE)
RULES = {target: rule for rule in RULE.finditer(MAKEFILE) for target in rule[1].split()}
SETTING = re.compile(r"[A-Z]+=")
# Where cargo finds what an option names.
CARGO = {"--test": "tests/{}/main.rs", "--bench": "benches/{}.rs", "--example": "examples/{}.rs"}


def commands(text: str) -> Iterator[str]:
    """Lines of blocks that are no sessions, and what stands in backquotes."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if language in ("console", "sh", ""):
            yield from block.replace("\\\n", " ").splitlines()
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from (" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose))


def shown(text: str) -> list[list[str]]:
    told = [shlex.split(command, comments=True) for command in commands(text) if command.startswith(OURS)]
    return [words for words in told if len(words) > 1]


def recipe(target: str) -> str:
    """What a target runs, its prerequisites included."""
    rule = RULES.get(target)
    needed = rule[2].split("|")[0].split() if rule else []
    return (rule[0] if rule else "") + "".join(map(recipe, needed))


def is_there(path: str) -> bool:
    return any(ROOT.glob(path.split("::")[0].rstrip("/")))


@cache
def modules() -> frozenset[str]:
    """Modules and functions of Rust."""
    sources = [path.read_text() for folder in ("rust", "tests") for path in (ROOT / folder).rglob("*.rs")]
    return frozenset(name for text in sources for name in re.findall(r"\b(?:mod|fn) (\w+)", text))


def no_modules(path: str) -> Iterator[str]:
    """Parts of a filter of tests that filter everything out."""
    for part in path.split("::"):
        if not part.isupper() and not any(part in name for name in modules()):
            yield f"no {part}"


def wrong_with_make(words: list[str]) -> Iterator[str]:
    targets = [word for word in words if not SETTING.match(word)]
    settings = dict(word.split("=", 1) for word in words if SETTING.match(word))
    yield from (f"no target {target}" for target in targets if target not in RULES)
    text = "".join(map(recipe, targets))
    yield from (f"{name} is not read" for name in settings if f"$({name})" not in text)
    tests = [word for word in shlex.split(settings.get("PYTEST", "")) if word.startswith("tests/")]
    yield from (f"no {path}" for path in tests if not is_there(path))
    filters = f"{settings.get('QUICK', '')} {settings.get('SHUTTLE', '')}".split()
    yield from itertools.chain(*(no_modules(path) for path in filters if not path.startswith("-")))


def wrong_with_cargo(words: list[str]) -> Iterator[str]:
    for option, value in itertools.pairwise(words):
        if option in CARGO and not is_there(CARGO[option].format(value)):
            yield f"no {value} for {option}"
        if option == "--lib" and not value.startswith("-"):
            yield from no_modules(value)


def wrong_with(words: list[str]) -> list[str]:
    """What is not there of what a command names."""
    program, *words = itertools.dropwhile(re.compile(r"[A-Z_]+=").match, words)
    if program == "make":
        return [*wrong_with_make(words)]
    if program == "cargo":
        return [*wrong_with_cargo(words)]
    paths = [word for word in (program, *words) if re.match(r"(tests|tools|benches|docs)/", word)]
    return [f"no {path}" for path in paths if not is_there(path)]


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_tells_to_type_is_there(page):
    said = [(words, each) for words in shown((ROOT / page).read_text()) for each in wrong_with(words)]
    assert said == []


def test_commands_are_found():
    counts = {page: len(shown((ROOT / page).read_text())) for page in PAGES}
    assert counts["CONTRIBUTING.md"] >= 15
    assert counts["tests/README.md"] >= 25
    assert counts["README.md"] >= 3


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("make test", []),
        ("make tset", ["no target tset"]),
        ("make dev PYTEST='tests/mm -k no/such -x'", []),
        ("make dev PYTEST=tests/no_such", ["no tests/no_such"]),
        ("make dev PYTESTS=tests/mm", ["PYTESTS is not read"]),
        ("make test PYTEST=tests/mm", []),
        ("make bench QUICK=faults", ["QUICK is not read"]),
        ("make loom-quick QUICK='mm::models::no_such --nocapture'", ["no no_such"]),
        ("make guards GUARDS=NAME", []),
        ("cargo test --all-features --test faults", []),
        ("cargo test --all-features --test no_such", ["no no_such for --test"]),
        ("cargo test --lib no_such", ["no no_such"]),
        (".venv-edit/bin/python tools/no_such.py > docs/no.md", ["no tools/no_such.py", "no docs/no.md"]),
        ("tools/no_such --update", ["no tools/no_such"]),
    ],
)
def test_what_is_not_there_is_found(command, said):
    for page in (f"```console\n{command}\n```\n", f"so `{command}` it is"):
        (words,) = shown(page)
        assert wrong_with(words) == said
