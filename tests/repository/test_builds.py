"""No test runs a build that is older than the sources, and each run says which build it is of."""

import os
import re
import subprocess
from pathlib import Path

import pytest

import builds
import specmm
from programs import python
from samples import ROOT

SOURCES = ["rust/core/lib.rs", "rust/py/Cargo.toml", "Cargo.lock", "python/specmm/_raw.py", "pyproject.toml"]
PLACES = {"in place": "python/specmm", "wheel": ".venv-dev/lib/python3.11/site-packages/specmm"}


@pytest.fixture(params=PLACES)
def place(request):
    return request.param


@pytest.fixture
def tree(tmp_path, place):
    """Sources that are older than what was built of them, and a page that is newer."""
    built = {"in place": "python/specmm/_core.abi3.so", "wheel": ".venv-dev/installed"}[place]
    for when, name in [*enumerate(SOURCES, 1), (100, built), (200, "README.md"), (200, "rust/README.md")]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (when, when))
    (tmp_path / PLACES[place]).mkdir(parents=True, exist_ok=True)
    return tmp_path


def test_a_build_that_is_newer_than_its_sources_is_fresh(tree, place):
    assert builds.stale(tree / PLACES[place], tree) is None


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_that_is_newer_is_named(tree, place, source):
    os.utime(tree / source, (150, 150))
    said = builds.stale(tree / PLACES[place], tree)
    if place == "in place" and source in ("python/specmm/_raw.py", "pyproject.toml"):
        assert said is None, "it is run as it is"
    else:
        assert source in said
        assert ("make dev" if place == "in place" else "make test-python") in said


@pytest.mark.parametrize(("variable", "sources"), [("RUST", builds.IN_PLACE), ("SOURCES", builds.INSTALLED)])
def test_what_make_builds_anew_for_is_what_makes_a_build_stale(variable, sources):
    """And no page: an edit of README builds nothing."""
    known = subprocess.run(
        ["make", "-pn", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    made = set(re.search(rf"^{variable} := (.*)", known, re.MULTILINE)[1].split())
    found = {str(path.relative_to(ROOT)) for pattern in sources for path in ROOT.glob(pattern)}
    assert len(made) > 100
    assert made == found
    assert not any(path.endswith(".md") for path in made)


def test_what_is_installed_elsewhere_is_not_judged(tree, tmp_path):
    assert builds.built(tmp_path / "elsewhere" / "specmm", tree)[1] is None
    assert builds.stale(tmp_path / "elsewhere" / "specmm", tree) is None


@pytest.mark.parametrize("stale", [None, "it is stale"])
def test_a_run_says_what_it_is_of_and_refuses_what_is_stale(tmp_path, stale):
    (tmp_path / "test_nothing.py").write_text("def test_nothing(): pass\n")
    arguments = [
        "-p",
        "no:cacheprovider",
        "-p",
        "conftest",
        "-c",
        str(ROOT / "pyproject.toml"),
        str(tmp_path),
    ]
    code = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests")!r})
import builds, pytest
builds.stale = lambda package: {stale!r}
sys.exit(pytest.main({arguments!r}))
"""
    done = python("-c", code)
    if stale:
        assert done.returncode == 1
        assert stale in done.stdout + done.stderr
        assert "passed" not in done.stdout
    else:
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"specmm: {builds.built(Path(specmm.__file__).parent)[0]}, " in done.stdout
