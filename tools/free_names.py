#!/usr/bin/env python3
"""Shows that the names of guards and orderings cost nothing: without them the library is the same assembly.

Copies the sources, builds the library's release assembly, takes every name out (`guard!("a.b", condition)`
becomes `(condition)` and so on), builds again in the same place, and compares instruction by instruction.
Control: with one guard's condition made `true` the assembly must differ.

    tools/free_names.py FOLDER      where to build; what is there of an earlier run is used again
"""

import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("Cargo.toml", "Cargo.lock", "README.md", "rust", "tests", "benches", "tools")
MACROS = "guard|duty|give_back|in_order|seeded|ord|ordered_fence"
CALL = re.compile(rf"(?:(?:crate::sync|super)::)?\b({MACROS})!\(\s*\"([a-z0-9_.]+)\",\s*")
DATA = (".ascii", ".asciz", ".quad", ".long", ".file")
# What the compiler numbers or hashes: a closure's hash depends on the macros around it, and with it the order
# of functions.
NUMBERED = re.compile(
    r"17h[0-9a-f]{16}E|(?<=\.LBB)\d+|(?<=\.Lfunc_end)\d+|(?<=\.Ltmp)\d+|(?<=\.Lanon)[.\w]+|(?<=_table)\d+"
)
ORDERING = "crate::sync::Ordering::"


def closing(text: str, start: int) -> tuple[int, list[int]]:
    """Where the call whose arguments begin at `start` ends, and its commas."""
    depth, commas = 0, []
    for at in range(start, len(text)):
        if text[at] in "([{":
            depth += 1
        elif text[at] in ")]}":
            if depth == 0:
                return at, commas
            depth -= 1
        elif text[at] == "," and depth == 0:
            commas.append(at)
    raise ValueError(f"no end: {text[start : start + 40]}")


def without_names(text: str) -> tuple[str, int]:
    """The source as if nobody had named anything, and how many names it had."""
    count = 0
    while match := CALL.search(text):
        macro, start = match[1], match.end()
        end, commas = closing(text, start)
        arguments = [text[one + 1 : other].strip() for one, other in pairwise([start - 1, *commas, end])]
        first = arguments[0]
        plain = {
            "ord": f"{ORDERING}{first}",
            "ordered_fence": f"crate::sync::fence({ORDERING}{first})",
            "give_back": f"drop({first})",
            "in_order": "({" + "; ".join(filter(None, arguments)) + ";})",
            # A bug alone leaves nothing.
            "seeded": "()" if first.startswith("bug =") else f"({first})",
        }.get(macro, f"({first})")
        # Panics keep their lines.
        lines = "\n" * (text.count("\n", match.start(), end) - plain.count("\n"))
        text = f"{text[: match.start()]}{plain}{lines}{text[end + 1 :]}"
        count += 1
    return text, count


def functions(code: list[str]) -> list[str]:
    """The functions of the assembly, each as one text, without what is numbered, in alphabetical order."""
    texts = re.split(r"\n(?=\t\.section)", NUMBERED.sub("", "\n".join(code)))
    return sorted(texts)


def assembly(folder: Path) -> list[str]:
    """The library's release code by functions, without what follows from columns of the source."""
    command = ["cargo", "rustc", "--release", "--lib", "--all-features", "--quiet", "--manifest-path"]
    command += [str(folder / "Cargo.toml"), "--target-dir", str(folder.parent / "build"), "--"]
    command += ["--emit", "asm", "-Cdebuginfo=0", "-Clto=off", "--cap-lints", "allow"]
    subprocess.run(command, check=True)
    built = (folder.parent / "build" / "release" / "deps").glob("specmm-*.s")
    newest = max(built, key=lambda path: path.stat().st_mtime)
    code = [line for line in newest.read_text().splitlines() if not line.lstrip().startswith(DATA)]
    if sum("\tlock" in line for line in code) < 20:
        sys.exit("free_names: this is not the library's code")
    return functions(code)


def main() -> int:
    """Copies, builds three times, compares."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1]).resolve() / "source"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in COPIED:
        # Times are of now: with the originals' times, cargo would take an earlier run's build for this one.
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(ROOT / name, folder / name)
    sources = [path for path in (folder / "rust" / "core").rglob("*.rs") if path.name != "guard.rs"]
    named = assembly(folder)
    count = 0
    for path in sources:
        plain, here = without_names(path.read_text())
        path.write_text(plain)
        count += here
    if count == 0:
        sys.exit("free_names: the sources have no names")
    if assembly(folder) != named:
        print("free_names: the names change the assembly", file=sys.stderr)
        return 1
    control = folder / "rust" / "core" / "page" / "refcount.rs"
    text = control.read_text()
    broken = text.replace("(count != 0)", "(true)", 1)
    if broken == text:
        sys.exit("free_names: the control's guard has gone")
    control.write_text(broken)
    if assembly(folder) == named:
        sys.exit("free_names: a guard made true does not change the assembly: this check cannot fail")
    print(f"free_names: {count} names, {len(named)} sections of assembly, the same without them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
