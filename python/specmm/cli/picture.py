"""Pictures of results: one style for all of them, and text that stays inside whatever its length."""

import importlib
import importlib.util
import os
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from specmm.cli.errors import UsageError

KINDS = (".png", ".svg", ".pdf")

HELP = f"as a picture ({', '.join(kind[1:] for kind in KINDS)}); needs matplotlib"

# Okabe and Ito's colours, which colour-blind people can tell apart.
GREY, ORANGE, BLUE, GREEN, PINK, YELLOW = "#999999", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00"

_STYLE = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}
_DPI = 150

# Pixels of a figure's width that its title and caption leave free, all together.
_MARGIN = 40

# Lines of a text at most, so that there is room for what it is about; and how one ends that was longer.
_LINES = 4
_CUT = " …"

# Letters that fit into any line.
_FEW = 4


def check(path: str) -> None:
    """Refuses a picture that could not be written, before the measurement rather than after it."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib, which is not installed: pip install 'specmm[cli]'")
    if Path(path).suffix.lower() not in KINDS:
        raise UsageError(f"--plot {path!r} does not end in one of {', '.join(KINDS)}")
    folder = Path(path).absolute().parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"--plot {path!r}: {str(folder)!r} is not a folder that can be written to")


@contextmanager
def figure(size: tuple[float, float], title: str, caption: str) -> Iterator[Any]:
    """An empty figure under a title. When the block ends, lines of text that are too long are broken."""
    with importlib.import_module("matplotlib").rc_context(_STYLE):
        made: Any = importlib.import_module("matplotlib.figure").Figure(
            figsize=size, dpi=_DPI, layout="constrained"
        )
        # Of a processor's name nothing is a formula.
        made.suptitle(title, fontsize=14, fontweight="bold").set_parse_math(False)
        made.supxlabel(caption, fontsize=9, color="#555555").set_parse_math(False)
        yield made
        _fit(made)


def save(drawn: Any, path: str) -> None:
    """Writes the file, in the format that its name says."""
    drawn.savefig(path, dpi=_DPI)


def _fit(drawn: Any) -> None:
    """The layout makes room for the height of text, not for its width."""
    across = drawn.bbox.width - _MARGIN
    for text in (drawn._suptitle, drawn._supxlabel):
        _break_lines(text, across)
    # How wide axes are is known after a first layout; text of one long line would disturb that.
    labels = [(axes, text, text.get_text()) for axes in drawn.axes for text in _labels(axes)]
    for _, text, _ in labels:
        text.set_text("")
    drawn.draw_without_rendering()
    for axes, text, said in labels:
        text.set_text(said)
        _break_lines(text, axes.get_window_extent().width)


def _labels(axes: Any) -> tuple[Any, ...]:
    """The texts that head axes or stand below them."""
    return axes.title, axes._left_title, axes._right_title, axes.xaxis.label


def _break_lines(text: Any, width: float) -> None:
    """Breaks a text into lines of at most so many pixels, long words included; what is left over is cut."""
    said = text.get_text()
    fits, too_long = _FEW, len(said) + 1
    if text.get_window_extent().width <= width:
        return
    while too_long - fits > 1:
        tried = (fits + too_long) // 2
        text.set_text(textwrap.fill(said, tried))
        fits, too_long = (tried, too_long) if text.get_window_extent().width <= width else (fits, tried)
    text.set_text(textwrap.fill(said, fits, max_lines=_LINES, placeholder=_CUT))
