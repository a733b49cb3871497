"""Pictures of results: what `specmm read --plot` draws, and text that stays inside whatever its length."""

import json

import pytest

from programs import command
from specmm import _report
from specmm.cli import faults_plot, picture, read, read_plot
from specmm.cli.read_rivals import RIVALS
from specmm.cli.read_trace import BOUNDS

pytest.importorskip("matplotlib")

MIB = 1 << 20
SIZE = 16 * MIB
# Words, words that are too long for any line, and what would be formulas.
NAMES = [kind * n for kind in ("proc essor ", "$a_{b}^ \\% ") for n in (1, 100)] + ["M" * 25, "M" * 1000]


def faults_result(cpu, mode, rate):
    def run(locking, rate):
        causes = ("pmd", "file_locked")
        events = {f"spf_abort_{name}": 0 for name in _all_causes()} | {"spf_attempt": 1000}
        events |= {f"spf_abort_{name}": 7 for name in causes}
        figures = {"ns_p50": 400, "ns_p99": 3_000, "ns_p999": 50_000, "speculative_share": 0.9}
        curve = [[0.5, 400], [0.9, 900], [0.99, 3_000], [0.999, 50_000]]
        about = {"locking": locking, "writer_rate": rate, "workload": "fault_vs_mmap", "threads": 2}
        return about | figures | {"events": events, "latency_curve": curve}

    return {
        "runs": [run(locking, at) for at in (0, rate) for locking in ("kernel", "mmap_lock", mode)],
        "machine": machine(cpu),
        "file": {"mapped": 64 * MIB},
    }


def _all_causes():
    return [event.removeprefix("spf_abort_") for event in _report.abort_glosses()]


def machine(cpu):
    return {"cpu": cpu, "cpus": 2, "kernel": "Linux 6.18", "specmm": "0.1.0"}


def read_result(cpu, bound):
    memory = {name: [[0, 0], [8 * bound, bound if name == "specmm" else 8 * bound]] for name in RIVALS}
    return {"memory": memory, "bound": bound, "reads": {"size": 4096}, "machine": machine(cpu)}


def cut(figure):
    """What does not lie inside: of all that is drawn, the figure; of what heads axes, their width."""
    figure.draw_without_rendering()
    whole, drawn = figure.bbox_inches, figure.get_tightbbox()
    found = []
    if drawn.x0 < -0.01 or drawn.y0 < -0.01 or drawn.x1 > whole.x1 + 0.01 or drawn.y1 > whole.y1 + 0.01:
        found.append(f"{drawn} in {whole}")
    for axes in figure.axes:
        room = axes.get_window_extent()
        # A layout that gave up leaves nothing of them.
        assert room.height > whole.height * figure.dpi / 4
        texts = (axes.title, axes._left_title, axes.xaxis.label)
        found += [each.get_text() for each in texts if each.get_window_extent().width > room.width + 1]
    return found


@pytest.mark.parametrize("cpu", NAMES)
@pytest.mark.parametrize(("mode", "rate"), [("speculative", 2000), ("a_mode_with_a_long_name", "max")])
def test_text_of_faults_stays_inside_the_picture(cpu, mode, rate):
    figure = faults_plot.drawn(faults_result(cpu, mode, rate))
    assert len(figure.axes) == 2
    assert cut(figure) == []


@pytest.mark.parametrize("cpu", NAMES)
def test_text_of_reads_stays_inside_the_picture(cpu):
    assert cut(read_plot.drawn(read_result(cpu, 1 << 40))) == []


@pytest.mark.parametrize("title", NAMES)
def test_a_title_of_any_length_is_whole_and_inside(title):
    with picture.figure((13, 6), title, title) as figure:
        figure.subplots().set_title(title, loc="left").set_parse_math(False)
    assert cut(figure) == []
    # Lines break at blanks or within words. Nothing is lost, unless the text would fill the picture.
    for each in (figure._suptitle, figure.axes[0]._left_title):
        lines, letters = each.get_text().splitlines(), "".join(each.get_text().split())
        if letters.endswith("…"):
            assert len(lines) == 4
            assert len(title) >= 400
        assert "".join(title.split()).startswith(letters.removesuffix("…"))
        assert letters.endswith("…") or letters == "".join(title.split())


def test_text_that_is_not_fitted_is_found(monkeypatch):
    monkeypatch.setattr(picture, "_fit", lambda _: None)
    assert len(cut(faults_plot.drawn(faults_result("M" * 200, "a_mode_with_a_long_name", "max")))) == 2
    assert len(cut(read_plot.drawn(read_result("M" * 200, 16 * MIB)))) == 1


def test_read_draws_the_memory_that_each_rival_held(user_file, tmp_path):
    target = tmp_path / "memory.svg"
    options = ("--capacity", "1MiB", "--reads", "random", "--count", "64", "--seconds", "0.05")
    run = command("read", user_file, *options, "--plot", target, "--json")
    assert run.returncode == 0, run.stderr
    assert target.read_bytes().startswith(b"<?xml")
    found = json.loads(run.stdout)
    assert list(found["memory"]) == list(RIVALS)
    for points in found["memory"].values():
        done = [at for at, _ in points]
        assert done == sorted(set(done))
        assert done[0] == 0
        assert done[-1] == BOUNDS * MIB
    peaks = {name: max(held for _, held in points) for name, points in found["memory"].items()}
    assert MIB / 2 < peaks["specmm"] <= MIB + read.SLACK
    assert peaks["os.pread"] <= read.SLACK
    assert peaks["mmap"] > (BOUNDS - 1) * MIB


def test_plot_is_checked_before_the_work(user_file):
    for target, named in (("x.txt", "x.txt"), ("/no/such/folder/x.png", "/no/such/folder")):
        run = command("read", user_file, "--plot", target, "--seconds", "60")
        assert run.returncode == 2
        assert named in run.stderr
