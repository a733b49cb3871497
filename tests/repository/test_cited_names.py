"""What a page, a docstring or a comment cites exists: files, headings, rows, sections, models, guards, names.

Nothing here knows where a thing lives: names are looked up in the sources as they are. Names of Linux and of
other projects are listed in tests/repository/foreign_names.txt; each of those is cited, and none is ours.
"""

import ast
import io
import json
import re
import subprocess
import tokenize
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOREIGN = ROOT / "tests" / "repository" / "foreign_names.txt"
# Other people's words, and what was once true: neither read nor a source of names.
LEFT_OUT = ("LICENSE", "CHANGELOG", "Cargo.lock")
NAME = r"[A-Za-z_]\w*"


@cache
def tree() -> tuple[str, ...]:
    """Every file of the repository, new ones included."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return tuple(path for path in listed if (ROOT / path).is_file())


@cache
def read(path: str) -> str:
    return (ROOT / path).read_text(errors="replace")


def of(*endings: str) -> list[str]:
    found = [path for path in tree() if path.endswith(endings) and not path.startswith(LEFT_OUT)]
    assert found, f"no files end in {endings}"
    return found


# --- what is said: pages without their code blocks, comments and docstrings


def without_blocks(page: str) -> str:
    return re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)


def python_prose(source: str) -> tuple[str, str]:
    """Comments and docstrings, and the rest."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                docstrings.update(range(value.lineno, (value.end_lineno or value.lineno) + 1))
    lines = source.splitlines()
    said = {
        token.start[0]: token.string.lstrip("#")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    prose = [line if number in docstrings else said.get(number, "") for number, line in enumerate(lines, 1)]
    code = [
        re.sub(r"(^|\s)#.*", "", line) for number, line in enumerate(lines, 1) if number not in docstrings
    ]
    return "\n".join(prose), "\n".join(code)


def other_prose(source: str, mark: str) -> tuple[str, str]:
    """The same of what has comments up to the end of the line; an example in a doc comment is code."""
    prose, code = [], []
    fenced = False
    for line in source.splitlines():
        before, found, comment = line.partition(mark)
        whole = bool(found) and not before.strip()
        comment = comment.lstrip("/!")
        fence = whole and comment.lstrip().startswith("```")
        fenced ^= fence
        inside = found and not fence and not (whole and fenced) and not re.search(r"[\"':]$", before)
        prose.append(comment if inside else "")
        code.append(before if inside else comment if whole else line)
    return "\n".join(prose), "\n".join(code)


@cache
def split(path: str) -> tuple[str, str]:
    """What a file says to its readers, and what it does."""
    text = read(path)
    if path.endswith(".md"):
        return without_blocks(text), "\n".join(re.findall(r"^```.*?^```", text, re.MULTILINE | re.DOTALL))
    if path.endswith((".py", ".pyi")):
        return python_prose(text)
    if path.endswith(".rs"):
        return other_prose(text, "//")
    if path.endswith(".pml"):
        comments = re.findall(r"/\*.*?\*/", text, re.DOTALL)
        return "\n".join(comments), re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    return other_prose(text, "#")


@cache
def speakers() -> tuple[str, ...]:
    return tuple(of(".md", ".py", ".pyi", ".rs", ".pml", ".toml"))


def quoted(prose: str) -> list[str]:
    """What stands in backquotes, within a paragraph."""
    paragraphs = re.split(r"\n\s*\n", prose)
    return [
        code
        for paragraph in paragraphs
        for code in re.findall(r"`([^`]+)`", re.sub(r"``+.*?``+", "", re.sub(r"\n\s*", " ", paragraph)))
    ]


# --- what is there


@cache
def words() -> frozenset[str]:
    """Every identifier of the code, the names of files, and the words of tables that generate code."""
    found: set[str] = set()
    for path in tree():
        if path.startswith(LEFT_OUT):
            continue
        found.update(re.findall(NAME, path))
        # This file plants names that do not exist.
        if not path.endswith((".md", ".txt", ".json", Path(__file__).name)):
            found.update(re.findall(NAME, split(path)[1]))
    return frozenset(found)


@cache
def defined() -> frozenset[str]:
    """What Rust and Python define: functions, types, variants, fields, constants, macros, modules."""
    found: set[str] = set()
    for path in of(".rs", ".py", ".pyi"):
        found.update(Path(path).parts)
        found.add(Path(path).stem)
        code = split(path)[1]
        found.update(
            re.findall(
                rf"\b(?:fn|struct|enum|trait|type|mod|const|static|def|class|macro_rules!)\s+({NAME})", code
            )
        )
        found.update(re.findall(rf"^\s*(?:pub\S*\s+)?({NAME})\s*(?:[:=(,{{]|$)", code, re.MULTILINE))
    return frozenset(found)


@cache
def foreign() -> dict[str, str]:
    """Names that are not ours, each with whose it is."""
    owner, found = "", {}
    for line in FOREIGN.read_text().splitlines():
        if line.startswith("# "):
            owner = line[2:]
        for name in line.split() if not line.startswith("#") else ():
            assert name not in found, f"{name} stands twice in {FOREIGN.name}"
            found[name] = owner
    return found


@cache
def guards() -> frozenset[str]:
    call = r"\b(?:guard|duty|give_back|seeded|in_order|ord|ordered_fence)!\(\s*\"([a-z0-9_.]+)\""
    found = {name for path in of(".rs") for name in re.findall(call, split(path)[1])}
    assert found
    return frozenset(found)


@cache
def models() -> frozenset[str]:
    """Names of models: those of the table, to which `make loom` holds the sources."""
    (table,) = of("/models.json")
    return frozenset(row["model"] for row in json.loads(read(table)))


@cache
def anchors(path: str) -> frozenset[str]:
    """What a link into a page can name: headings as GitHub spells them, and marks."""
    headings = re.findall(r"^#+ (.*)$", without_blocks(read(path)), re.MULTILINE)
    spelled = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return frozenset(spelled | set(re.findall(r"<a id=\"([^\"]+)\">", read(path))))


@cache
def numbers(page: str, pattern: str) -> frozenset[str]:
    (path,) = [path for path in tree() if path.endswith(page)]
    found = frozenset(re.findall(pattern, read(path), re.MULTILINE))
    assert found, f"{page} has no {pattern}"
    return found


# --- what is cited: each kind yields what it met, and whether that is there

Cited = Iterator[tuple[str, bool]]


def alternatives(path: str) -> list[str]:
    """Braces in a path make several of it."""
    braces = re.search(r"\{([^}]*)\}", path)
    return [path.replace(braces[0], each, 1) for each in braces[1].split(",")] if braces else [path]


def files(path: str, prose: str) -> Cited:
    written = r"(?<![\w/.:@-])([\w{},*./-]+\.(?:rs|md|py|pyi|toml|pml))(?![\w/])"
    for name in {each for whole in re.findall(written, prose) for each in alternatives(whole.strip(","))}:
        plain = re.sub(r"^(\.*/)*", "", name)
        patterns = (plain, f"*/{plain}")
        yield (
            name,
            plain in foreign()
            or (ROOT / plain).exists()
            or any(fnmatch(there, pattern) for there in tree() for pattern in patterns),
        )


def links(path: str, prose: str) -> Cited:
    if not path.endswith(".md"):
        return
    plain = re.sub(r"`[^`]*`", "", prose)
    for link in re.findall(r"\]\(([^)\s]+)\)", plain) + re.findall(
        r"^\[[^\]]+\]: (\S+)$", prose, re.MULTILINE
    ):
        if re.match(r"https?:|mailto:", link):
            continue
        where, _, anchor = link.partition("#")
        target = (ROOT / path).parent / where if where else ROOT / path
        there = target.exists()
        yield link, there and (not anchor or anchor in anchors(str(target.resolve().relative_to(ROOT))))


def numbered(path: str, prose: str) -> Cited:
    """Rows and seeded bugs of invariants.md, sections and bugs of fault-path.md."""
    many = r"\d+b?(?:(?:, | and | to |, and )\d+b?)*"
    kinds = (
        ("row", rf"\b[Rr]ows? ({many})", "docs/invariants.md", r"<a id=\"row-(\d+)\">"),
        ("section", rf"\b[Ss]ections? ({many})", "docs/fault-path.md", r"^## (\d+b?)\."),
        ("seeded", r"\bseeded (\d+[ab]?)", "docs/invariants.md", r"<a id=\"seeded-(\w+)\">"),
        ("20", r"\[?\b20(\.\d+)\b", "docs/fault-path.md", r"<a id=\"bug(-\d+)\">"),
    )
    for kind, said, page, written in kinds:
        there = numbers(page, written)
        for each in re.findall(said, prose):
            if each.startswith("."):
                # `20.9` is a bug where guards are listed, and a number elsewhere.
                if path.endswith(("guards.toml", "guards.md")):
                    yield f"20{each}", each.replace(".", "-") in there
                continue
            for number in re.findall(r"\d+[ab]?", each):
                yield f"{kind} {number}", number in there


def targets(path: str, prose: str) -> Cited:
    there = numbers("Makefile", r"^([a-z][\w-]*):")
    for name in {name for code in quoted(prose) for name in re.findall(r"^make ([a-z][\w-]*)", code)}:
        yield f"make {name}", name in there


def model_names(path: str, prose: str) -> Cited:
    """The columns of tables that name models."""
    for table in re.findall(r"(?:^\|.*\n)+", prose + "\n", re.MULTILINE):
        head, _, *rows = (
            [cell.strip() for cell in line.strip("| \n").split(" | ")] for line in table.splitlines()
        )
        for column in {"models", "killed by", "model"} & set(head):
            at = head.index(column) - len(head)
            for name in (name for row in rows for name in row[at].split("; ")):
                if name not in ("", "-"):
                    yield name, name in models()


def names(path: str, prose: str) -> Cited:
    """Identifiers in backquotes. A guard is one name; of a method's path each part is defined somewhere."""
    for code in quoted(prose):
        plain = re.sub(r"(['\"]).*?\1", "", code)
        elsewhere = r"(std|core|loom|proptest)::|[iu](8|16|32|64|128)::|(python|make|cargo|pip) "
        if re.match(elsewhere, plain) or re.search(r"\.[ch]$", plain):
            continue
        if re.sub(r":(acquire|release|seqcst)$", "", plain) in guards():
            yield code, True
            continue
        method = re.fullmatch(rf"({NAME}(?:::{NAME})*)::({NAME})(?:\(.*\))?", plain)
        if method:
            # A path of single letters shows a form.
            for name in (name for name in [*method[1].split("::"), method[2]] if len(name) > 1):
                yield name, name in defined() or name in foreign()
            continue
        called = re.fullmatch(rf"({NAME})\(\)", plain)
        there = defined() if called else words()
        for name in re.findall(rf"(?:(?<![\w.%-])|(?<=\.))({NAME})", plain):
            if len(name) > 2:
                yield name, name in there or name in foreign()


KINDS = {
    "files": files,
    "links": links,
    "numbers": numbered,
    "targets": targets,
    "models": model_names,
    "names": names,
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_cited_is_there(kind):
    cited = [(path, *each) for path in speakers() for each in KINDS[kind](path, split(path)[0])]
    assert len(cited) >= 20, f"hardly any {kind} are cited: the search is broken"
    missing = sorted({f"{path}: {name}" for path, name, there in cited if not there})
    assert not missing, "cited, and not there:\n" + "\n".join(missing)


@pytest.mark.parametrize(
    ("kind", "said", "missing"),
    [
        (
            "files",
            "`cache/no_such.rs`, tests/repository/test_docs.py, `tests/{conftest,nobody}.py`",
            ["cache/no_such.rs", "tests/nobody.py"],
        ),
        (
            "links",
            "[a](guards.md#sync), [b](guards.md#sink), [c](nowhere.md)",
            ["guards.md#sink", "nowhere.md"],
        ),
        ("numbers", "Rows 3 and 99, section 17b, section 21, seeded 9a, seeded 9c", ["99", "21", "9"]),
        ("targets", "`make guards`, `make gards`", ["make gards"]),
        (
            "models",
            "| row | models |\n|---|---|\n| 1 | two writers of the sequence; two readers |\n",
            ["two readers"],
        ),
        (
            "names",
            "`filemap_fault`, `filemap_defect`, `Vmas::publish`, `Vmas::no_such`",
            ["filemap_defect", "no_such"],
        ),
        ("names", "`seq.end.release`, `seq.end.relese`, `pread()`, `preed()`", ["relese", "preed"]),
    ],
)
def test_what_is_not_there_is_found(kind, said, missing):
    found = [name for name, there in KINDS[kind]("docs/planted.md", said) if not there]
    assert sorted(name.split(" ")[-1] for name in found) == sorted(name.split(" ")[-1] for name in missing)


def test_foreign_names_are_cited_and_not_ours():
    cited = {name for path in speakers() for kind in (names, files) for name, _ in kind(path, split(path)[0])}
    assert sorted(set(foreign()) - cited) == [], "nobody cites these"
    assert sorted(name for name in foreign() if name in defined()) == [], "these are ours"
