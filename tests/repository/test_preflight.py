"""`tools/preflight` names each thing a machine lacks, with one line on how to get it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from samples import ROOT

PREFLIGHT = ROOT / "tools" / "preflight"

# What the script itself uses; everything else on the PATH of these tests is a fake.
REAL = ["cut", "mktemp", "rm", "uname"]

GOOD = {
    "git": "exit 0",
    "make": "exit 0",
    "cc": "exit 0",
    "python3": 'case "$2" in *version_info*) echo 3.11 ;; esac',
    "rustc": "echo 'rustc 1.85.0 (4d91de4e4 2025-02-17)'",
    "cargo": "echo 'cargo 1.85.0 (d73d2caf9 2024-12-31)'",
}


def preflight(folder: Path, *arguments: str, **changed: str | None) -> tuple[int, list[str]]:
    """Exit code and complaints on a machine that has GOOD with some tools `changed` (None: missing)."""
    for name in REAL:
        real = shutil.which(name)
        assert real is not None
        (folder / name).symlink_to(real)
    for name, body in (GOOD | changed).items():
        if body is not None:
            fake = folder / name
            fake.write_text(f"#!/bin/sh\n{body}\n")
            fake.chmod(0o755)
    done = subprocess.run(
        [PREFLIGHT, *arguments], env={"PATH": str(folder)}, capture_output=True, text=True, check=False
    )
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()


def test_a_machine_with_everything_passes_in_silence(tmp_path: Path) -> None:
    assert preflight(tmp_path) == (0, [])


@pytest.mark.parametrize(
    ("tool", "body", "complaint", "remedy"),
    [
        ("git", None, "git is missing", "apt-get install git"),
        ("make", None, "make is missing", "apt-get install make"),
        ("cc", None, "cc (a C compiler) is missing", "apt-get install gcc libc6-dev"),
        ("cc", "exit 1", "cc cannot build a program", "apt-get install gcc libc6-dev"),
        ("python3", None, "python3 is missing", "apt-get install python3 python3-venv"),
        ("python3", "echo 3.9", "python3 is 3.9, need 3.11 or newer", "make PYTHON=python3.12"),
        ("python3", "exit 127", "python3 is not working, need 3.11 or newer", "make PYTHON=python3.12"),
        (
            "python3",
            'case "$2" in *version_info*) echo 3.11 ;; *ensurepip*) exit 1 ;; esac',
            "python3 has no venv",
            "apt-get install python3-venv",
        ),
        ("rustc", None, "rustc is missing, need 1.85 or newer", "https://rustup.rs"),
        ("rustc", "echo 'rustc 1.63.0'", "rustc is 1.63.0, need 1.85 or newer", "https://rustup.rs"),
        ("rustc", "exit 1", "rustc is not working, need 1.85 or newer", "https://rustup.rs"),
        ("cargo", None, "cargo is missing, need 1.85 or newer", "https://rustup.rs"),
        ("cargo", "echo 'cargo 1.65.0'", "cargo is 1.65.0, need 1.85 or newer", "https://rustup.rs"),
    ],
)
def test_what_is_missing_or_too_old_is_named_in_one_line(
    tmp_path: Path, tool: str, body: str | None, complaint: str, remedy: str
) -> None:
    code, lines = preflight(tmp_path, **{tool: body})
    assert code == 1
    assert len(lines) == 1
    assert lines[0].startswith(f"preflight: {complaint}. ")
    assert remedy in lines[0]


def test_an_interpreter_without_tests_of_its_own_is_named(tmp_path: Path) -> None:
    python = 'case "$2" in *version_info*) echo 3.11 ;; *test_zipfile*) exit 1 ;; esac'
    (tmp_path / "with").mkdir()
    assert preflight(tmp_path / "with", "cpython-tests") == (0, [])
    (tmp_path / "without").mkdir()
    code, (line,) = preflight(tmp_path / "without", "cpython-tests", python3=python)
    assert code == 1
    assert line.startswith("preflight: python3 has no tests of its own (test.test_io")
    assert "apt-get install libpython3-testsuite" in line


def test_everything_missing_is_named_at_once(tmp_path: Path) -> None:
    code, lines = preflight(tmp_path, **dict.fromkeys(GOOD))
    assert code == 1
    assert len(lines) == len(GOOD)


def test_newer_versions_pass(tmp_path: Path) -> None:
    newer = {"rustc": "echo 'rustc 2.0.0-nightly'", "cargo": "echo 'cargo 1.100.0'"}
    newer["python3"] = 'case "$2" in *version_info*) echo 4.0 ;; esac'
    assert preflight(tmp_path, **newer) == (0, [])


def test_rustup_is_told_to_update_where_there_is_one(tmp_path: Path) -> None:
    _, lines = preflight(tmp_path, rustup="exit 0", rustc="echo 'rustc 1.63.0'")
    assert lines == ["preflight: rustc is 1.63.0, need 1.85 or newer. Get it: rustup update stable"]


@pytest.mark.parametrize(
    ("tool", "remedy"),
    [
        ("valgrind", "apt-get install valgrind"),
        ("rustfmt", "rustup component add rustfmt"),
        ("clippy", "rustup component add clippy"),
    ],
)
def test_tools_asked_for_by_name_are_checked(tmp_path: Path, tool: str, remedy: str) -> None:
    cargo = 'case "$1" in clippy) exit 1 ;; *) echo "cargo 1.85.0" ;; esac'
    code, lines = preflight(tmp_path, tool, cargo=cargo)
    assert code == 1
    assert lines == [f"preflight: {tool} is missing. Get it: {remedy}"]
