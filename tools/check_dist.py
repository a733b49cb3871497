"""Looks into the wheel and the sdist of a folder: what must be there is, and nothing that must not be.

    python tools/check_dist.py target/dist

Exit code 1 with a line for each thing that is wrong.
"""

import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

WHEEL = re.compile(r"specmm-[^-]+-cp311-abi3-(?P<platforms>[a-z0-9_.]+)\.whl")
MANYLINUX = re.compile(r"manylinux_(\d+)_(\d+)_")

IN_WHEEL = (
    "specmm/__init__.py",
    "specmm/_core.abi3.so",
    "specmm/_core.pyi",
    "specmm/py.typed",
    "specmm/cli/__init__.py",
    "specmm/model/__init__.py",
)
IN_METADATA = ("METADATA", "WHEEL", "entry_points.txt", "licenses/LICENSE-APACHE", "licenses/LICENSE-MIT")
IN_SDIST = (
    "PKG-INFO",
    "Cargo.lock",
    "Cargo.toml",
    "pyproject.toml",
    "README.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "python/specmm/_core.pyi",
    "python/specmm/py.typed",
    "rust/core/lib.rs",
    "rust/py/Cargo.toml",
    "rust/py/lib.rs",
)


def wheel(path: Path) -> Iterator[str]:
    """What is wrong with a wheel."""
    named = WHEEL.fullmatch(path.name)
    if named is None:
        yield "its name is not that of an abi3 wheel for CPython 3.11 and later"
        return
    promised = MANYLINUX.search(named["platforms"])
    if promised is None:
        yield f"it is for {named['platforms']}, which is no manylinux"
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        info = next((name.split("/")[0] for name in names if name.endswith(".dist-info/WHEEL")), "none")
        wanted = (*IN_WHEEL, *(f"{info}/{name}" for name in IN_METADATA))
        yield from (f"{name} is missing" for name in wanted if name not in names)
        modules = [name for name in names if name.endswith(".so")]
        if modules != ["specmm/_core.abi3.so"]:
            yield f"its extension modules are {modules}, not _core.abi3.so alone"
            return
        yield from (f"{name} does not belong there" for name in names if "__pycache__" in name)
        code = archive.read(modules[0])
        tags = re.findall(r"^Tag: (\S+)$", archive.read(f"{info}/WHEEL").decode(), re.MULTILINE)
        yield from (f"its tag {tag} names one Python" for tag in tags if not tag.startswith("cp311-abi3-"))
    # Each symbol of the C library carries the version that brought it.
    needed = {(int(major), int(minor)) for major, minor in re.findall(rb"GLIBC_(\d+)\.(\d+)", code)}
    if not needed:
        yield "its module needs no C library, which cannot be"
    elif promised is not None and max(needed) > (limit := (int(promised[1]), int(promised[2]))):
        yield f"its module needs glibc {max(needed)}, its name promises {limit}"


def sdist(path: Path) -> Iterator[str]:
    """What is wrong with an sdist."""
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    yield from (f"{name} is missing" for name in IN_SDIST if name not in names)
    strange = [name for name in names if name.endswith((".so", ".pyc")) or name.startswith("target/")]
    yield from (f"{name} does not belong there" for name in strange)


def main(folder: str) -> int:
    """Checks one wheel and one sdist."""
    failed = False
    for pattern, check in (("*.whl", wheel), ("*.tar.gz", sdist)):
        found = list(Path(folder).glob(pattern))
        if len(found) != 1:
            print(f"check_dist: {folder} holds {len(found)} of {pattern}, not one", file=sys.stderr)
            failed = True
        for path in found:
            for wrong in check(path):
                print(f"check_dist: {path.name}: {wrong}", file=sys.stderr)
                failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
