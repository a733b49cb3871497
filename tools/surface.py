#!/usr/bin/env python3
"""Holds what users can name, in Rust and in Python, against committed lists: nothing comes or goes unseen.

    tools/surface.py             exit 1 where a surface differs from docs/surface/{rust,python}.txt
    tools/surface.py --update    write those files

Rust: what rustdoc says of the crate without features, rendered by `public-api`. Python: what the sources and
stubs of public modules say, read by `griffe`; nothing is imported. After a deliberate change:
`make lint SURFACE=--update`, and look at the difference before committing it.
"""

import argparse
import difflib
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import griffe

ROOT = Path(__file__).resolve().parent.parent
# Of rustdoc's JSON, as the version of public-api in tools/surface/Cargo.toml reads it.
FORMAT = 57
# What another line says already, or nobody asks: blocks of methods, methods of derived traits, and traits
# that the compiler implements by itself, but for those of threads.
IMPLIED = re.compile(
    r"^impl(<.*>)? specmm::\S+$|"
    r"^impl(<.*>)? !?core::(marker::(Freeze|Unpin|UnsafeUnpin|StructuralPartialEq)|panic::\S+) for "
    r"|^pub fn .*::(clone|cmp|eq|fmt|hash|partial_cmp)(<.*>)?\(&self"
)


def rust() -> list[str]:
    """Everything public of the crate."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    # A folder of its own: scripts of dependencies look at the variable, and would build anew each time.
    folder = target / "surface"
    unstable = os.environ | {"RUSTC_BOOTSTRAP": "1", "CARGO_TARGET_DIR": str(folder)}
    # Links of public documentation must not lead to what is private.
    unstable["RUSTDOCFLAGS"] = "-D warnings"
    options = ["-Zunstable-options", "--output-format", "json"]
    cargo(["rustdoc", "--quiet", "--locked", "--lib", "--", *options], unstable)
    document = folder / "doc" / "specmm.json"
    found = json.loads(document.read_text())["format_version"]
    if found != FORMAT:
        sys.exit(
            f"surface: this rustdoc writes format {found}, and tools/surface reads {FORMAT}, of Rust 1.95: "
            "run with RUSTUP_TOOLCHAIN=1.95.0, or take the version of public-api that reads yours"
        )
    shown = cargo(["run", "--quiet", "--locked", "--package", "specmm-surface", "--", str(document)])
    return in_order(line for line in shown.splitlines() if not IMPLIED.search(line))


def in_order(lines: Iterable[str]) -> list[str]:
    """Members by name, whichever block they are in."""
    groups = itertools.groupby(lines, lambda line: bool(re.match(r"pub (unsafe )?(const|fn) ", line)))
    return [line for are_members, group in groups for line in (sorted(group) if are_members else group)]


def cargo(arguments: list[str], environment: dict[str, str] | None = None) -> str:
    """Runs cargo and returns what it printed; exits if it fails, its errors shown as they are."""
    done = subprocess.run(["cargo", *arguments], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def python() -> list[str]:
    """Everything public of the package, module by module."""
    sources = [ROOT / "python"]
    package = griffe.load("specmm", search_paths=sources, resolve_aliases=True, allow_inspection=False)
    modules = {"specmm": package} | {f"specmm.{name}": module for name, module in package.modules.items()}
    return [line for path, module in sorted(modules.items()) for line in module_lines(path, module)]


def module_lines(path: str, module: griffe.Module) -> Iterator[str]:
    """What a module exports; the old names of what moved elsewhere at its end."""
    exports = sorted(map(str, module.exports or ()))
    # The model is there to be read; that it has the same names is a test's business.
    if path.split(".")[-1].startswith("_") or not exports or path == "specmm.model":
        return
    yield f"module {path}"
    for name in exports:
        yield from lines(f"{path}.{name}", module, name)
    for name, member in sorted(module.members.items()):
        if member.is_alias and not member.runtime and member.target_path.startswith("specmm.mm."):
            yield f"{path}.{name} is {member.target_path}"


def lines(path: str, parent: griffe.Module | griffe.Class, name: str) -> Iterator[str]:
    """A member, and what is in it."""
    if overloads := parent.overloads.get(name):
        for overload in overloads:
            yield f"def {overload.signature(name=path)}"
        return
    member = parent.members[name]
    if member.is_alias:
        member = member.final_target
    labels = " ".join(sorted(member.labels & {"classmethod", "staticmethod"}))
    match member.kind:
        case griffe.Kind.FUNCTION:
            yield f"{labels} def {member.signature(name=path)}".strip()
        case griffe.Kind.CLASS:
            bases = ", ".join(map(str, member.bases))
            yield f"class {path}({bases})" if bases else f"class {path}"
            for inner in dict.fromkeys([*member.members, *member.overloads]):
                is_implied = inner == "__init__" and "dataclass" in member.labels
                if (not inner.startswith("_") or inner.endswith("__")) and not is_implied:
                    yield from lines(f"{path}.{inner}", member, inner)
        case griffe.Kind.ATTRIBUTE:
            kind = "property " if "property" in member.labels else ""
            annotation = f": {member.annotation}" if member.annotation is not None else ""
            is_constant = member.value is not None and "class-attribute" in member.labels
            yield f"{kind}{path}{annotation}{f' = {member.value}' if is_constant else ''}"


SURFACES = {ROOT / "docs" / "surface" / f"{side.__name__}.txt": side for side in (rust, python)}


def difference(name: str, before: list[str], now: list[str]) -> list[str]:
    """What changed, as a reader of diffs expects it, without lines that did not."""
    sides = f"{name}, as committed", f"{name}, as the sources say"
    found = difflib.unified_diff(before, now, *sides, n=0, lineterm="")
    return [line for line in found if not line.startswith("@@")]


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools/surface.py", description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="write the lists")
    update = parser.parse_args().update
    said = []
    for file, surface in SURFACES.items():
        now = surface()
        name = str(file.relative_to(ROOT))
        if len(now) < 100:
            sys.exit(f"surface: {name} would have {len(now)} lines: the surface was not found")
        if update:
            file.write_text("\n".join(now) + "\n")
        else:
            said += difference(name, file.read_text().splitlines() if file.exists() else [], now)
    if said:
        print("\n".join(said))
        sys.exit("surface: what users can name has changed; if it should: make lint SURFACE=--update")


if __name__ == "__main__":
    main()
