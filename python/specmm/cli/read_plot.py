"""The memory that each way of reading holds, as a picture beside the limit."""

from typing import Any

from specmm.cli import figures, picture

Points = list[list[int]]

_COLOURS = {
    "specmm": picture.BLUE,
    "mmap": picture.ORANGE,
    "mmap, dropped": picture.YELLOW,
    "os.pread": picture.GREY,
}
_MIB = 1 << 20


def draw(result: dict[str, Any], path: str) -> None:
    """Writes the picture."""
    picture.save(drawn(result), path)


def drawn(result: dict[str, Any]) -> Any:
    """The picture as a figure of matplotlib's."""
    memory: dict[str, Points] = result["memory"]
    bound = result["bound"]
    with picture.figure((10, 5), _finding(memory, bound), _caption(result)) as figure:
        axes = figure.subplots()
        axes.axhline(bound / _MIB, color="black", linestyle="--", linewidth=1.2, label="the limit")
        # specmm last, so that nothing lies over it.
        for name in reversed(memory):
            axes.plot(
                [done / _MIB for done, _ in memory[name]],
                [held / _MIB for _, held in memory[name]],
                color=_COLOURS[name],
                linewidth=2.6 if name == "specmm" else 1.6,
                label=f"{name}: at most {_size(_peak(memory[name]))}",
            )
        axes.set_xlabel("read of the file so far (MiB)")
        axes.set_ylabel("memory of the process (MiB)")
        axes.set_xlim(0)
        axes.set_ylim(0)
        axes.grid(visible=True, alpha=0.3)
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], labels[::-1], frameon=False, loc="upper left", fontsize=10)
    return figure


def _peak(points: Points) -> int:
    return max(held for _, held in points)


def _finding(memory: dict[str, Points], bound: int) -> str:
    read = max(done for points in memory.values() for done, _ in points)
    ours, mapped = _peak(memory["specmm"]), _peak(memory["mmap"])
    return (
        f"{_size(read)} of a file read under a limit of {_size(bound)}: "
        f"specmm holds {_size(ours)}, mmap {_size(mapped)}"
    )


def _size(value: int) -> str:
    """Whole MiB where there are any: nobody reads more off a picture."""
    return figures.size(round(value / _MIB) * _MIB if value >= _MIB else value)


def _caption(result: dict[str, Any]) -> str:
    machine = result["machine"]
    return (
        f"Sequential reads of {figures.size(result['reads']['size'])}, one process a line; resident memory "
        "beyond the interpreter's, tables included. The kernel may reclaim what mmap holds; until it does, "
        f"that counts as the process's. {machine['cpu']}, {machine['kernel']}, specmm {machine['specmm']}"
    )
