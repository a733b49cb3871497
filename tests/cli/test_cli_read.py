"""`specmm read`: the same reads through specmm, mmap and os.pread."""

import json
import mmap
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from fingerprints import fingerprint
from programs import command
from specmm.cli import read, read_text
from specmm.cli.read_child import measure, offsets
from specmm.cli.read_rivals import RIVALS, BoundedMmap

SIZE = 6 << 20
QUICK = ("--seconds", "0.15", "--count", "1024")
ROW = {
    "pattern": str,
    "through": str,
    "cache": str,
    "reads": int,
    "offered": int,
    "seconds": float,
    "reads_per_s": float,
    "ratio": float,
    "ns_p50": int,
    "ns_p99": int,
    "peak_memory": int,
    "bound_held": bool,
    "minor_faults": int,
    "major_faults": int,
    "kernel_bytes": int,
}


@pytest.fixture(scope="module")
def result(user_file):
    """All patterns on a user's file, which must be left as it was."""
    before = fingerprint(user_file)
    run = command("read", user_file, "--json", *QUICK)
    assert run.returncode == 0, run.stderr
    assert fingerprint(user_file) == before
    return json.loads(run.stdout)


def rows(result, **wanted):
    found = [row for row in result["rows"] if all(row[key] == value for key, value in wanted.items())]
    assert found, wanted
    return found


# --- the result


def test_every_rival_makes_every_kind_of_read_cold_and_warm(result, user_file):
    assert result["file"]["path"] == str(user_file)
    assert result["file"]["size"] == SIZE
    assert "memory" not in result, "only a picture needs it"
    cells = [(row["cache"] == "warm", row["pattern"], row["through"]) for row in result["rows"]]
    assert cells == [(warm, p, t) for warm in (False, True) for p in read.PATTERNS for t in RIVALS]
    for row in result["rows"]:
        for key, kind in ROW.items():
            assert isinstance(row[key], kind), key
        assert row["reads"] > 0
        assert 0 <= row["ns_p50"] <= row["ns_p99"]
        low, high = row["spread"]["reads_per_s"]
        assert low <= row["reads_per_s"] <= high
        assert row["cache"] in ("cold", "miss (kernel-cached)", "warm")
    for row in rows(result, through="specmm"):
        assert row["ratio"] == 1


def test_cold_reads_of_specmm_come_from_the_store_and_warm_ones_from_its_cache(result):
    for row in rows(result, through="specmm"):
        if row["cache"] == "warm":
            assert (row["store_bytes"], row["hit_share"]) == (0, 1)
        else:
            assert row["store_bytes"] > 0
            assert row["hit_share"] < 1
    assert all(row["store_bytes"] is None for row in rows(result, through="os.pread"))


def test_mapped_reads_fault_and_no_other_rival_brings_pages_of_the_file_that_way(result):
    mapped = rows(result, through="mmap, dropped", cache="warm", pattern="random")[0]
    assert mapped["minor_faults"] + mapped["major_faults"] > 0


def test_a_mapping_is_over_the_bound_and_nobody_else_is(tmp_path):
    path = tmp_path / "long"
    path.write_bytes(os.urandom(24 << 20))
    plan = {
        "path": str(path),
        "file_size": 24 << 20,
        "size": 4096,
        "count": 6144,
        "batch": 64,
        "bound": 1 << 20,
        "seed": 1,
        "seconds": 0.3,
        "pattern": "sequential",
    }
    limit = (1 << 20) + read.SLACK
    found = {name: read._child(plan | {"rival": name}) for name in RIVALS}
    peaks = {name: max(each["cold"]["peak"], each["warm"]["peak"]) for name, each in found.items()}
    assert [name for name, peak in peaks.items() if peak > limit] == ["mmap"], peaks
    assert found["specmm"]["cold"]["reads"] * 4096 > limit


def test_a_mapping_is_dropped_whenever_its_charge_reaches_the_bound(user_file):
    dropped = []

    class Spy:
        def __init__(self, inner):
            self.inner = inner

        def madvise(self, advice):
            dropped.append(advice)
            return self.inner.madvise(advice)

        def __getitem__(self, part):
            return self.inner[part]

        def close(self):
            self.inner.close()

    rival = BoundedMmap(str(user_file), 4096, 1 << 20, "random")
    rival._map = Spy(rival._map)
    assert rival._every == 8  # 128 KiB a read: two windows of what a fault maps
    where = [n * 65536 for n in range(40)]
    rival.many(where)
    assert len(dropped) == 4
    assert rival.batch(where[:8]) == b"".join(map(rival.read, where[:8]))
    rival.close()


# --- the reads


def plan_for(path, **changed):
    plan = {
        "path": str(path),
        "file_size": SIZE,
        "size": 1000,
        "count": 200,
        "batch": 16,
        "bound": 32 << 20,
        "seed": 3,
        "seconds": 30,
        "pattern": "random",
    }
    return plan | changed


def test_offsets_are_drawn_from_the_seed_and_lie_in_the_file_whole(user_file):
    plan = plan_for(user_file)
    found = offsets(plan)
    assert list(found) == list(offsets(plan))
    assert list(found) != list(offsets(plan | {"seed": 4}))
    assert len(found) == 200
    assert all(0 <= offset <= SIZE - 1000 and offset % 1000 == 0 for offset in found)
    assert list(offsets(plan | {"pattern": "sequential", "count": 5})) == [0, 1000, 2000, 3000, 4000]
    assert len(offsets(plan | {"pattern": "sequential", "count": 1 << 30})) == SIZE // 1000


@pytest.mark.parametrize("pattern", read.PATTERNS)
def test_rivals_answer_the_same_bytes(user_file, pattern):
    where = [0, 5000, 5000, SIZE - 1000, 4095]
    data = user_file.read_bytes()
    for name, rival in RIVALS.items():
        opened = rival(str(user_file), 1000, 32 << 20, pattern)
        assert [opened.read(at) for at in where] == [data[at : at + 1000] for at in where], name
        assert bytes(opened.batch(where)) == b"".join(data[at : at + 1000] for at in where), name
        opened.many(where)
        opened.close()


def test_a_pass_makes_all_its_reads(user_file, monkeypatch):
    made = []

    class Recorder:
        def __init__(self, *_):
            pass

        def read(self, offset):
            made.append(offset)
            return b""

        def many(self, where):
            made.extend(where)

        def batch(self, where):
            made.extend(where)
            return b""

        def counted(self):
            return {}

        def close(self):
            pass

    monkeypatch.setitem(RIVALS, "recorder", Recorder)
    for pattern, length in (("random", 200), ("sequential", 200), ("batch", 192)):
        made.clear()
        plan = plan_for(user_file, rival="recorder", pattern=pattern, seconds=0.05)
        result = measure(plan)
        expected = list(offsets(plan))[:length]
        assert result["offered"] == result["cold"]["reads"] == length
        assert made[:length] == expected, pattern
        assert made[length : 2 * length] == expected, pattern
        assert result["warm"]["reads"] >= length
        assert len(made) == result["cold"]["reads"] + result["warm"]["reads"] + 64


def test_different_bytes_are_an_error():
    runs = {("random", "specmm"): [{"crc": 1}], ("random", "mmap"): [{"crc": 2}]}
    with pytest.raises(read.specmm.SpecmmError, match="different bytes"):
        read._compare_bytes("data.bin", runs)
    read._compare_bytes("data.bin", {("random", "specmm"): [{"crc": 1}], ("batch", "specmm"): [{"crc": 2}]})


def test_rows_are_cold_only_if_the_kernel_had_dropped_the_file():
    phase = {"reads": 10, "seconds": 1.0, "samples": [1, 2], "peak": 5 << 20}
    phase |= {"minor_faults": 0, "major_faults": 0}
    runs = [{"offered": 10, "cold": phase, "warm": phase, "kernel_share": (0.0, 0.5)}]
    found = {("random", "specmm"): runs, ("random", "mmap"): [runs[0] | {"kernel_share": (0.5, 0.5)}]}
    made = read._rows(found, SIZE, 4096, 2 << 20)
    assert [row["cache"] for row in made] == ["cold", "miss (kernel-cached)", "warm", "warm"]
    assert all(row["bound_held"] for row in made)
    assert not any(row["bound_held"] for row in read._rows(found, SIZE, 4096, 1 << 19))


def test_reads_of_what_the_kernel_cannot_drop_are_not_called_cold(user_file):
    with user_file.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert len(mapped[:]) == SIZE  # the kernel keeps pages that somebody has mapped
        run = command("read", user_file, "--json", "--reads", "random", *QUICK)
    assert run.returncode == 0, run.stderr
    caches = {row["cache"] for row in json.loads(run.stdout)["rows"]}
    assert caches == {"miss (kernel-cached)", "warm"}


def test_of_a_long_file_windows_are_looked_at(tmp_path):
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(2 << 30)
    pages = (2 << 30) // 4096
    assert read._kernel_share(str(path), 2 << 30) == 0
    # The third window, and what lies between it and the next.
    with path.open("r+b") as file:
        file.seek(pages * 2 // 64 * 4096)
        file.write(bytes(6 << 20))
    assert read._kernel_share(str(path), 2 << 30) == pytest.approx(1 / 64, rel=0.5)


# --- what people read


def test_text_says_how_the_limit_is_kept_and_who_won(user_file):
    before = fingerprint(user_file)
    run = command("read", user_file, *QUICK, "--reads", "random")
    assert run.returncode == 0, run.stderr
    assert fingerprint(user_file) == before
    words = " ".join(run.stdout.split())
    for part in ("opened read-only", "MADV_DONTNEED", "cgroup", "vs specmm", "within limit", "peak cold"):
        assert part in words, part
    assert "sequential specmm" not in words
    closing = " ".join(run.stdout.strip().split("\n\n")[-2].split())
    assert closing.startswith("Fastest: cold random ")
    assert "Within the memory limit: specmm" in closing


def test_the_closing_sentence_is_true_whoever_wins():
    def row(through, cache, ratio, low, high, held=True):
        spread = {"reads_per_s": [low, high]}
        return {"pattern": "random", "through": through, "cache": cache, "ratio": ratio} | {
            "spread": spread,
            "bound_held": held,
        }

    lost = [row("specmm", "cold", 1, 9, 11), row("mmap", "cold", 3, 29, 31, held=False)]
    won = [row("specmm", "warm", 1, 29, 31), row("mmap", "warm", 0.5, 14, 16, held=False)]
    assert read_text.meaning({"rows": lost + won}) == (
        "Fastest: cold random mmap (3x specmm); warm random specmm (2x mmap). "
        "Within the memory limit: specmm; over it: mmap."
    )
    even = [row("specmm", "warm", 1, 20, 31), row("mmap", "warm", 0.9, 14, 30)]
    assert "warm random specmm and mmap." in read_text.meaning({"rows": lost + even})


# --- how it ends


def test_ctrl_c_ends_it_and_its_child_at_once(user_file):
    with subprocess.Popen(
        [sys.executable, "-m", "specmm", "read", str(user_file), "--seconds", "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as run:
        time.sleep(2)
        sent = time.monotonic()
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=30)
    assert time.monotonic() - sent < 5
    assert run.returncode == 130
    assert (out, "Traceback" in err) == ("", False)
    with pytest.raises(ProcessLookupError):
        os.killpg(run.pid, 0)


def test_progress_is_shown_on_stderr(user_file):
    """Twelve processes take longer than a second."""
    slow = command("read", user_file, "--json", "--seconds", "0.15", "--reads", "random")
    assert "specmm read: " in slow.stderr
    json.loads(slow.stdout)  # nothing but JSON


def test_a_file_that_shrinks_ends_it_with_an_error(tmp_path):
    path = tmp_path / "shrinks"
    path.write_bytes(os.urandom(SIZE))
    with subprocess.Popen(
        [sys.executable, "-m", "specmm", "read", str(path), "--seconds", "9", "--reads", "random"],
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        time.sleep(2)
        os.truncate(path, 4096)
        _, err = run.communicate(timeout=60)
    assert run.returncode == 1, err
    assert "shrinks" in err
    assert "Traceback" not in err


def test_a_mapping_killed_by_sigbus_is_told_as_such(tmp_path):
    path = tmp_path / "shrinks"
    path.write_bytes(os.urandom(SIZE))
    shrink = threading.Timer(2, os.truncate, (path, 4096))
    shrink.start()
    with pytest.raises(read.specmm.SpecmmError, match="mmap was killed by SIGBUS"):
        read._child(plan_for(path, rival="mmap", seconds=20))
    shrink.join()
