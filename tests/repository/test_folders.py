"""tests/README.md has a row for each folder of tests, with the commands that run what is there."""

import re
import subprocess

import pytest

from samples import ROOT

PAGE = (ROOT / "tests" / "README.md").read_text()
ROWS = {row[0]: row[1] for row in re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", PAGE, re.MULTILINE)}
LISTED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "tests"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
).stdout.splitlines()
PATHS = [path.split("/")[1:] for path in LISTED if (ROOT / path).exists()]
FOLDERS = {path[0] for path in PATHS if len(path) > 1}


def test_each_folder_has_its_row_and_each_row_its_folder():
    assert len(FOLDERS) > 20
    assert sorted(ROWS) == sorted(FOLDERS)
    assert len(re.findall(r"^\| `", PAGE, re.MULTILINE)) == len(ROWS), "a folder has two rows"


@pytest.mark.parametrize("folder", sorted(FOLDERS))
def test_the_row_says_how_to_run_what_is_there(folder):
    files = [path[1] for path in PATHS if path[0] == folder and len(path) == 2]
    needed = set()
    if any(re.fullmatch(r"test_\w+\.py", name) for name in files):
        needed.add(f"make dev PYTEST=tests/{folder}")
    if "main.rs" in files:
        needed.add(f"cargo test --all-features --test {folder}")
    said = set(re.findall(r"`([^`]+)`", ROWS[folder]))
    assert said, "no command"
    ours = {command for command in said if re.match(r"make dev |cargo test ", command)}
    assert ours == needed
    assert all(command.startswith("make ") for command in said - ours)


def test_what_lies_beside_the_folders_is_said():
    beside = {path[0] for path in PATHS if len(path) == 1} - {"README.md"}
    assert {name for name in beside if f"`{name}`" not in PAGE} == set()
    assert set(re.findall(r"`(\w+\.py)`", PAGE)) == beside
