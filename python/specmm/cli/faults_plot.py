"""The result of `specmm faults` as a picture: how long faults take, and why speculation gave up."""

from typing import Any

from specmm import _report
from specmm.cli import figures, picture

Run = dict[str, Any]

_COLOURS = {"kernel": picture.GREY, "mmap_lock": picture.ORANGE, "speculative": picture.BLUE}
_OTHERS = (picture.GREEN, picture.PINK, picture.YELLOW)
_MARKED = ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"), (0.9999, "p99.99"))


def draw(result: dict[str, Any], path: str) -> None:
    """Writes the picture."""
    picture.save(drawn(result), path)


def drawn(result: dict[str, Any]) -> Any:
    """The picture as a figure of matplotlib's."""
    with picture.figure((13, 6), _finding(result["runs"]), _caption(result)) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        _latencies(left, result["runs"])
        _causes(right, result["runs"])
    return figure


def _latencies(axes: Any, runs: list[Run]) -> None:
    """The tail on the right: the part of the faults that is slower shrinks by a decade a step."""
    rates = [run["writer_rate"] for run in runs]
    names = list(dict.fromkeys(run["locking"] for run in runs))
    for run in runs:
        points = [(1 - quantile, max(ns, 1)) for quantile, ns in run["latency_curve"] if quantile >= 0.5]
        if not points:
            continue
        busiest = run["writer_rate"] == rates[-1]
        axes.plot(
            [slower for slower, _ in points],
            [ns / 1e3 for _, ns in points],
            color=_COLOURS.get(run["locking"], _OTHERS[names.index(run["locking"]) % len(_OTHERS)]),
            linestyle="-" if busiest else ":",
            linewidth=2.4 if busiest else 1.4,
            label=f"{run['locking']}, {_writer(run)}",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.invert_xaxis()
    marked = [(1 - quantile, name) for quantile, name in _MARKED]
    axes.set_xticks([at for at, _ in marked], [name for _, name in marked])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda microseconds, _: figures.nanoseconds(microseconds * 1e3, digits=1))
    axes.set_xlabel("percentile of the timed faults")
    axes.set_ylabel("latency of a fault (ns, us, ms)")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    axes.set_title("How long a fault takes", loc="left")


def _causes(axes: Any, runs: list[Run]) -> None:
    """Of the speculative faults of the busiest run, how many gave up, by cause."""
    runs = [run for run in runs if run["events"].get("spf_attempt")]
    if not runs:
        axes.text(0.5, 0.5, "no speculative row", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    run = runs[-1]
    axes.set_title(f"Why speculation gave up ({run['locking']}, {_writer(run)})", loc="left")
    attempts = run["events"]["spf_attempt"]
    causes = [(run["events"][event], event.removeprefix("spf_abort_")) for event in _report.abort_glosses()]
    shown = sorted((count, cause) for count, cause in causes if count)
    bars = axes.barh(
        [cause for _, cause in shown],
        [count / attempts * 1e6 for count, _ in shown],
        color=_COLOURS["speculative"],
    )
    axes.bar_label(bars, [f"{count:,}" for count, _ in shown], padding=3, fontsize=9)
    axes.set_xscale("log")
    axes.margins(x=0.25)
    axes.set_xlabel("aborts per million attempts (the bars show counts)")


def _writer(run: Run) -> str:
    rate = run["writer_rate"]
    return "no writer" if rate == 0 else "writer without pause" if rate == "max" else f"{rate} maps/s"


def _finding(runs: list[Run]) -> str:
    busiest = [run for run in runs if run["writer_rate"] == runs[-1]["writer_rate"]]
    by_name = {run["locking"]: run for run in busiest}
    last = busiest[-1]
    beside = "" if last["writer_rate"] == 0 else "Beside a thread that maps and unmaps, "
    speculative, locked = by_name.get("speculative"), by_name.get("mmap_lock")
    if speculative is None or locked is None:
        said = f"{last['locking']}: 99 in 100 faults take at most {figures.nanoseconds(last['ns_p99'])}"
    else:
        said = (
            f"{figures.share(speculative['speculative_share'])} of faults take no lock; "
            f"p99.9 is {figures.nanoseconds(speculative['ns_p999'])}, "
            f"with the lock {figures.nanoseconds(locked['ns_p999'])}"
        )
    return beside + said


def _caption(result: dict[str, Any]) -> str:
    first, machine = result["runs"][0], result["machine"]
    return (
        f"{first['workload']}, {first['threads']} faulting threads, "
        f"{figures.size(result['file']['mapped'])} mapped; "
        f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['kernel']}, specmm {machine['specmm']}"
    )
