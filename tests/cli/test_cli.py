"""The `specmm` command, as a user runs it."""

import json
import os

import pytest

import specmm
from fingerprints import fingerprint
from programs import command
from specmm import cli

SIZE = 8 << 20
QUICK = ("--seconds", "0.5", "--threads", "2")
RUN_KEYS = {
    "locking": str,
    "workload": str,
    "threads": int,
    "writer_rate": int,
    "seconds": float,
    "faults": int,
    "faults_per_s": float,
    "ns_p50": float,
    "ns_p99": float,
    "ns_p999": float,
    "ns_max": float,
    "commits": int,
    "events": dict,
}


@pytest.fixture(scope="module")
def result(user_file):
    """The default workload and writer rate on a user's file, which must be left as it was."""
    before = fingerprint(user_file)
    run = command("faults", user_file, "--json", *QUICK)
    assert run.returncode == 0, run.stderr
    assert fingerprint(user_file) == before
    return json.loads(run.stdout)


# --- the result


def test_json_has_the_documented_shape(result, user_file):
    assert result["machine"]["cpus"] >= 1
    assert result["file"]["path"] == str(user_file)
    assert result["file"]["size"] == SIZE
    assert isinstance(result["file"]["fstype"], str)
    cells = [(run["writer_rate"], run["locking"]) for run in result["runs"]]
    assert cells == [(rate, row) for rate in (0, 2000) for row in ("kernel", "mmap_lock", "speculative")]
    for run in result["runs"]:
        for key, kind in RUN_KEYS.items():
            assert isinstance(run[key], kind), key
        assert run["workload"] == "fault_vs_mmap"
        assert run["faults"] > 0
        assert 0 < run["ns_p50"] <= run["ns_p99"] <= run["ns_p999"] <= run["ns_max"]
        low, high = run["spread"]["faults_per_s"]
        assert low <= run["faults_per_s"] <= high
        assert len(run["rounds"]) == 5


def test_every_attempt_is_a_commit_or_an_abort_with_a_cause(result):
    for run in result["runs"]:
        if run["locking"] == "kernel":
            assert run["events"] == {}
            assert run["speculative_share"] is None
            continue
        events = run["events"]
        causes = sum(count for name, count in events.items() if name.startswith("spf_abort_"))
        assert events["spf_attempt"] == events["spf_commit"] + events["spf_abort"]
        assert events["spf_abort"] == causes
        assert run["commits"] == events["spf_commit"]
        assert run["lock_acquisitions"] == events["mmap_lock_read"] + events["mmap_lock_write"]
        assert run["faults"] <= events["pgfault"]


def test_speculation_commits_beside_the_writer_and_aborts_for_many_reasons(result):
    busy = next(
        run for run in result["runs"] if run["locking"] == "speculative" and run["writer_rate"] == 2000
    )
    assert busy["commits"] > 0
    assert busy["speculative_share"] > 0.5
    assert sum(each["pairs"] for each in busy["rounds"]) > 0
    causes = {name for name, count in busy["events"].items() if name.startswith("spf_abort_") and count}
    assert len(causes) >= 5, causes
    # What the workload does on purpose: fresh tables, a first private write, readahead in the cold pass.
    assert {"spf_abort_pud", "spf_abort_pmd", "spf_abort_anon_vma", "spf_abort_file_readahead"} <= causes


def test_the_lock_is_taken_by_every_fault_in_one_mode_and_by_few_in_the_other(result):
    by_name = {run["locking"]: run for run in result["runs"] if run["writer_rate"] == 0}
    locked, speculative = by_name["mmap_lock"], by_name["speculative"]
    assert locked["lock_acquisitions"] >= locked["events"]["pgfault"]
    assert locked["commits"] == 0
    assert speculative["lock_acquisitions"] < speculative["events"]["pgfault"] / 2


@pytest.mark.parametrize("workload", ["fault_read_shared", "page_fault2"])
def test_other_workloads_run(user_file, workload):
    run = command("faults", user_file, "--json", "--workload", workload, *QUICK, "--writer-rate", "max")
    assert run.returncode == 0, run.stderr
    runs = json.loads(run.stdout)["runs"]
    assert [each["writer_rate"] for each in runs] == [0, 0, 0, "max", "max", "max"]
    assert all(each["workload"] == workload and each["faults"] > 0 for each in runs)


def test_files_of_any_size_are_mapped(tmp_path):
    path = tmp_path / "small"
    for size in (1, 4096, 70_000):
        path.write_bytes(b"x" * size)
        run = command("faults", path, "--json", "--seconds", "0.05", "--threads", "3")
        assert run.returncode == 0, run.stderr
        assert json.loads(run.stdout)["file"]["size"] == size


def test_chosen_modes_stand_beside_the_kernel(user_file):
    run = command(
        "faults", user_file, "--json", "--seconds", "0.1", "--writer-rate", "0", "--locking", "mmap_lock"
    )
    assert run.returncode == 0, run.stderr
    assert [each["locking"] for each in json.loads(run.stdout)["runs"]] == ["kernel", "mmap_lock"]


# --- what people read


def test_text_says_how_it_was_timed_and_what_it_means(user_file):
    run = command("faults", user_file, *QUICK)
    assert run.returncode == 0, run.stderr
    words = " ".join(run.stdout.split())
    for part in (
        "One fault in 64",
        "zapped",
        "medians of 5 interleaved rounds",
        "max",
        "took no lock",
        "locks taken",
    ):
        assert part in words, part
    assert "an upper page table is missing" in words, "causes come with a gloss"
    closing = run.stdout.strip().split("\n\n")[-2]
    assert closing.startswith("Beside a thread that maps and unmaps 2000 times a second")
    assert closing.count(". ") == 0, "one sentence"


def test_more_threads_than_cpus_are_warned_of(user_file):
    cpus = len(os.sched_getaffinity(0))
    run = command("faults", user_file, "--json", "--seconds", "0.1", "--threads", cpus + 1)
    assert run.returncode == 0
    assert f"{cpus + 1} faulting threads" in run.stderr
    json.loads(run.stdout)  # nothing but JSON


def test_without_a_file_a_temporary_one_is_made_and_deleted(tmp_path):
    run = command("faults", "--seconds", "0.1", "--length", "1MiB", env={"TMPDIR": str(tmp_path)})
    assert run.returncode == 0, run.stderr
    assert "No FILE given" in run.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_long_file_is_mapped_in_part_which_is_said(tmp_path):
    path = tmp_path / "long"
    with path.open("wb") as file:
        file.truncate(80 << 20)
    run = command("faults", path, "--seconds", "0.1", "--threads", "1")
    assert run.returncode == 0, run.stderr
    assert "the first 64 MiB of 80 MiB mapped" in run.stdout


def test_without_the_extra_text_is_plain_and_plot_names_what_is_missing(user_file, tmp_path):
    hide = tmp_path / "sitecustomize.py"
    hide.write_text(
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, package=None: "
        "None if name in ('rich', 'matplotlib') else find(name, package)\n"
        "sys.modules['rich'] = sys.modules['matplotlib'] = None\n"
    )
    env = {"PYTHONPATH": str(tmp_path)}
    run = command("faults", user_file, "--seconds", "0.1", env=env)
    assert run.returncode == 0, run.stderr
    assert "locking" in run.stdout
    assert "\x1b" not in run.stdout
    run = command("faults", user_file, "--plot", tmp_path / "out.png", env=env)
    assert run.returncode == 2
    assert "matplotlib" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_plot_is_a_picture(user_file, tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "out.png"
    run = command("faults", user_file, *QUICK, "--plot", picture)
    assert run.returncode == 0, run.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")


# --- the rest


def test_version():
    run = command("--version")
    assert (run.returncode, run.stdout) == (0, f"specmm {specmm.__version__}\n")


def test_check_agrees_with_the_model():
    run = command("check", "--seconds", "2", "--seed", "1", "--json")
    assert run.returncode == 0, run.stdout
    found = json.loads(run.stdout)
    assert found["difference"] is None
    assert found["steps"] > 0


def test_check_says_what_differs(capsys, monkeypatch):
    monkeypatch.setattr("specmm.cli.check_program.model.Mm.load", lambda *_: b"something else")
    assert cli.main(["check", "--seconds", "20", "--seed", "1"]) == 1
    out = capsys.readouterr().out
    assert "something else" in out
    assert "--seed" in out


def test_the_sentence_is_honest_when_speculation_does_not_win():
    from specmm.cli.faults_meaning import sentence

    def run(locking, ns, speed, share=None):
        figures = {"ns_p99": ns, "ns_p999": ns, "faults_per_s": speed}
        return {
            "locking": locking,
            "writer_rate": 2000,
            "speculative_share": share,
            **figures,
            "rounds": [figures] * 5,
        }

    lost = sentence({"runs": [run("mmap_lock", 1000, 2e6), run("speculative", 3000, 1e6, 0.9)]})
    assert "longer (3.00 us against 1.00 us, in 5 of 5 rounds)" in lost
    assert lost.endswith("speculation did not pay here.")
    won = sentence({"runs": [run("mmap_lock", 3000, 1e6), run("speculative", 1000, 2e6, 0.9)]})
    assert "90.00 % of the speculative faults took no lock" in won
    assert won.endswith("speculation kept going where the lock stalled.")
    even = sentence({"runs": [run("mmap_lock", 1000, 1e6), run("speculative", 1000, 1e6, 0.9)]})
    assert even.endswith("this run shows no winner.")
