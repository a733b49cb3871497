"""`specmm stat`: what is in memory of a file."""

import json

from fingerprints import fingerprint
from programs import command
from samples import PAGE

PAGES = 1000
SIZE = PAGES * PAGE


def stat(path, *options):
    before = fingerprint(path)
    run = command("stat", path, *options)
    assert run.returncode == 0, run.stderr
    assert fingerprint(path) == before
    return run.stdout


def test_without_reads_it_is_the_kernels_cache(user_file):
    user_file.read_bytes()
    found = json.loads(stat(user_file, "--json"))
    assert found["stats"] is None
    assert "reads" not in found
    assert found["file"]["size"] == SIZE
    assert list(found["residency"]) == ["kernel"]
    kernel = found["residency"]["kernel"]
    assert (kernel["pages"], kernel["resident"], kernel["cells"]) == (PAGES, PAGES, [1.0] * 64)


def test_sequential_reads_fill_the_front_of_the_strip(user_file):
    found = json.loads(stat(user_file, "--reads", "sequential", "--count", "100", "--json"))
    assert list(found["residency"]) == ["kernel_before", "specmm", "kernel_after"]
    mine = found["residency"]["specmm"]
    assert 100 <= mine["resident"] < PAGES
    filled = [at for at, share in enumerate(mine["cells"]) if share]
    assert filled == list(range(len(filled)))
    assert found["reads"]["bytes"] == 100 * PAGE
    stats = found["stats"]
    assert stats["hits"] + stats["misses"] == 100
    assert stats["read_bytes"] == mine["resident"] * PAGE


def test_sequential_reads_go_to_the_end_unless_told_otherwise(user_file):
    found = json.loads(stat(user_file, "--reads", "sequential", "--size", "100000", "--json"))
    assert found["reads"]["bytes"] == SIZE
    assert found["residency"]["specmm"]["resident"] == PAGES


def test_a_cache_smaller_than_the_file_holds_its_end(user_file):
    found = json.loads(stat(user_file, "--reads", "sequential", "--capacity", "1MiB", "--json"))
    mine = found["residency"]["specmm"]
    assert found["reads"]["bytes"] == SIZE
    assert 0 < mine["resident"] <= 256
    assert mine["cells"][0] == 0.0
    assert mine["cells"][-1] > 0
    assert found["stats"]["evictions"] >= PAGES - 256


def test_random_reads_are_those_of_the_seed(user_file):
    options = ("--reads", "random", "--count", "50", "--json")
    strips = [
        json.loads(stat(user_file, *options, "--seed", seed))["residency"]["specmm"]["cells"]
        for seed in ("1", "1", "2")
    ]
    assert strips[0] == strips[1] != strips[2]
    assert 0 < json.loads(stat(user_file, *options))["residency"]["specmm"]["resident"] <= 50


def test_text_has_strips_a_legend_and_glosses(user_file):
    user_file.read_bytes()
    shown = stat(user_file)
    assert "kernel  |████" in shown
    assert "none of it" in shown
    assert "belongs to one process" in " ".join(shown.split())
    shown = stat(user_file, "--reads", "sequential", "--count", "500")
    [line] = [line for line in shown.splitlines() if line.startswith("specmm ")]
    drawn = line.split("|")[1]
    assert drawn.startswith("████")
    assert drawn.endswith("····")
    assert "pages that a read found in the cache" in shown
    assert "read_errors" not in shown


def test_a_terminal_that_knows_only_ascii_gets_ascii(user_file):
    run = command("stat", user_file, "--reads", "random", env={"PYTHONIOENCODING": "ascii"})
    assert run.returncode == 0, run.stderr
    assert run.stdout.isascii()
    assert "|####" in run.stdout
