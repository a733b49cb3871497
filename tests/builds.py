"""Which specmm the tests run: an installed wheel, or the sources with an extension built in place."""

from pathlib import Path

from samples import ROOT

# What goes into a build, by where a test may meet it; in place, Python's sources are run as they are.
IN_PLACE = ("rust/**/*.rs", "rust/**/Cargo.toml", "Cargo.toml", "Cargo.lock")
INSTALLED = (*IN_PLACE, "python/**/*.py", "python/**/*.pyi", "python/**/py.typed", "pyproject.toml")


def built(package: Path, root: Path = ROOT) -> tuple[str, Path | None, tuple[str, ...]]:
    """What to call the build that a package belongs to, the file that is as old as it, and its sources."""
    if package.is_relative_to(root / "python"):
        (extension,) = package.glob("_core.*so")
        return "built in place", extension, IN_PLACE
    for environment in root.glob(".venv*"):
        if package.is_relative_to(environment):
            return f"the wheel in {environment.name}", environment / "installed", INSTALLED
    return "installed elsewhere", None, ()


def newer(than: Path, sources: tuple[str, ...], root: Path = ROOT) -> list[str]:
    """The sources that changed after a build."""
    age = than.stat().st_mtime
    found = [path for pattern in sources for path in root.glob(pattern)]
    return sorted(str(path.relative_to(root)) for path in found if path.stat().st_mtime > age)


def stale(package: Path, root: Path = ROOT) -> str | None:
    """Why a run would test something else than the sources, and what to do about it."""
    name, build, sources = built(package, root)
    changed = newer(build, sources, root) if build else []
    if not changed:
        return None
    command = "make dev" if sources == IN_PLACE else "make test-python (or make dev)"
    return f"specmm is {name}, and older than {', '.join(changed[:3])}: {command} builds it anew"
