"""Wherever a stranger first meets the project, it opens with the same sentence."""

import re
import tomllib

import pytest

import specmm
from programs import command
from samples import ROOT

SENTENCE = "Read large files under a memory limit you set: a page cache inside your process, in place of mmap"


def words(text: str) -> str:
    return " ".join(text.split())


def after_title(text: str) -> str:
    return words(re.sub(r"\A# specmm\n", "", text)).replace("**", "")


def in_crate_docs(text: str) -> str:
    return words("\n".join(line.removeprefix("//!") for line in text.splitlines()))


PLACES = {
    "README.md": lambda: after_title((ROOT / "README.md").read_text()),
    "the crate's README": lambda: after_title((ROOT / "rust/README.md").read_text()),
    "the crate's documentation": lambda: in_crate_docs((ROOT / "rust/core/lib.rs").read_text()),
    "the package's documentation": lambda: words(specmm.__doc__),
    "help": lambda: words(command("--help").stdout.partition("\n\n")[2]),
}


@pytest.mark.parametrize("place", PLACES)
def test_it_opens_with_the_sentence(place):
    assert PLACES[place]().startswith(f"{SENTENCE}.")


def test_registries_show_the_sentence():
    crate = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert crate["description"] == package["description"] == SENTENCE
    # crates.io takes five keywords.
    assert len(crate["keywords"]) <= 5
