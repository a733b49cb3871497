"""The sessions of README and pages, run as they are written, each page in a process of its own."""

import pathlib
import re

import pytest

import run_page
from programs import python
from samples import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WITH_SESSIONS = [page for page in PAGES if "```python" in page.read_text()]


def name(page: pathlib.Path) -> str:
    return str(page.relative_to(ROOT))


# What a reader is told to do by these must work.
TEACHING = [
    page
    for page in PAGES
    if re.match(r"README|docs/(clients/|coming|errors|in-a|processes|quickstart|reclaim|tuning)", name(page))
]


@pytest.mark.parametrize("page", WITH_SESSIONS, ids=name)
def test_a_page_answers_as_printed(page):
    answer = python("-W", "error", run_page.__file__, page, timeout=120)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    tried = re.match(r"(\d+) examples, 0 failed", answer.stdout.splitlines()[-1])
    assert tried, answer.stdout
    assert int(tried.group(1)) >= 3


def test_pages_that_teach_have_sessions():
    assert len(TEACHING) >= 3, "they moved"
    assert [name(page) for page in TEACHING if page not in WITH_SESSIONS] == []


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (">>> 1 + 1\n3\n>>> 2\n2\n", "2 examples, 1 failed"),
        (">>> 1 / 0\n", "1 examples, 1 failed"),
        ("import os\n", "does not begin with >>>"),
    ],
)
def test_a_wrong_page_is_found(tmp_path, page, said):
    (tmp_path / "page.md").write_text(
        f"# A page\n\n>>> not.run\n\n```text\n>>> nor.this\n```\n\n```python\n{page}```\n"
    )
    answer = python(run_page.__file__, tmp_path / "page.md")
    assert answer.returncode == 1
    assert said in answer.stdout + answer.stderr
