"""What a cache holds, for people: residency as a strip, counters by cause; as text and for notebooks.

The strip stands for a whole file. Each cell shows how much of its part is there; a cell looks empty only when
nothing is, and full only when everything is.
"""

from __future__ import annotations

import html
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from specmm import _core

if TYPE_CHECKING:
    from specmm._core import File, PageCache
    from specmm._types import CacheStats

CELLS: Final = 64
"""Cells of a strip in a notebook, or in a document."""

_LEVELS: Final = "·▁▂▃▄▅▆▇█"
_ASCII: Final = ".:-=+*%@#"
_COLOUR: Final = "#2a7ab0"

# --- strips


class Residency(NamedTuple):
    """How much of a file is resident."""

    pages: int
    """Pages of the file."""
    parts: Sequence[int]
    """Resident ones in each of its equal parts; a file with fewer pages than parts has one for each."""

    @property
    def resident(self) -> int:
        """Resident ones in all."""
        return sum(self.parts)


def bounds(pages: int, count: int) -> list[int]:
    """Where at most `count` equal parts of a file begin, and where the last one ends."""
    if count < 1:
        raise ValueError(f"a strip has at least one cell: {count}")
    count = min(count, pages)
    return [pages * part // count for part in range(count + 1)] if pages else []


def cells(residency: Residency) -> list[float]:
    """The share of resident pages in each part."""
    lengths = (
        end - start for start, end in itertools.pairwise(bounds(residency.pages, len(residency.parts) or 1))
    )
    return [resident / length for resident, length in zip(residency.parts, lengths, strict=True)]


def strip(residency: Residency, *, ascii_only: bool = False) -> str:
    """One character a cell, from "·" for none to "█" for all of its pages; "." to "#" in plain ASCII."""
    levels = _ASCII if ascii_only else _LEVELS
    return "".join(levels[_level(share, len(levels) - 1)] for share in cells(residency))


def _level(share: float, top: int) -> int:
    """0 for none and `top` for all; whatever lies between is neither."""
    if share in (0.0, 1.0):
        return top * int(share)
    return min(1 + int(share * (top - 1)), top - 1)


def share(residency: Residency) -> float | None:
    """How much of a file is there; None of an empty one."""
    return residency.resident / residency.pages if residency.pages else None


# --- notebooks


def strip_html(residency: Residency) -> str:
    """The strip as a picture that any notebook shows, without scripts or styles of its own."""
    shares = cells(residency)
    bars = "".join(
        f'<rect x="{10 * at}" y="0" width="10" height="16" fill="{_COLOUR}" fill-opacity="{level:.3f}"/>'
        for at, level in enumerate(shares)
        if level
    )
    width = 10 * max(len(shares), 1)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="16" role="img" '
        f'aria-label="{_words(residency)}"><rect x="0" y="0" width="{width}" height="16" fill="none" '
        f'stroke="{_COLOUR}"/>{bars}</svg>'
    )


def stats_html(stats: CacheStats) -> str:
    """The counters by what moves them, those that are zero left out of all groups but the first."""
    rows = []
    for group, lines in _counters(stats):
        for at, (name, value, gloss) in enumerate(lines):
            head = f'<th rowspan="{len(lines)}" scope="rowgroup">{html.escape(group)}</th>' if not at else ""
            rows.append(
                f"<tr>{head}<td>{html.escape(name)}</td>"
                f'<td style="text-align:right">{value}</td><td>{html.escape(gloss)}</td></tr>'
            )
    return f"<table>{''.join(rows)}</table>"


def file_html(file: File) -> str:
    """A file: how much of it is in the cache, and where."""
    # Bytes that are no text are shown by their numbers: a document holds characters only.
    name = html.escape(os.fsdecode(file.name).encode(errors="backslashreplace").decode())
    if file.closed:
        return f"<p><b>specmm.File</b> {name}: closed</p>"
    residency = Residency(*_core.resident_in(file, CELLS))
    return (
        f"<p><b>specmm.File</b> {name}, {file.size:,} bytes: {_words(residency)}<br>"
        f"{strip_html(residency)}</p>"
    )


def cache_html(cache: PageCache) -> str:
    """A cache: how full it is, and its counters."""
    if cache.closed:
        return "<p><b>specmm.PageCache</b>: closed</p>"
    stats = cache.stats()
    return (
        f"<p><b>specmm.PageCache</b>: {stats.frames_in_use:,} of {stats.capacity_frames:,} frames in use</p>"
        + stats_html(stats)
    )


# --- counters


def _phrase(sentence: str) -> str:
    """A gloss for a column of a table."""
    return sentence[0].lower() + sentence[1:].removesuffix(".").replace("`", "")


GLOSSES: Final = {
    group: {name: _phrase(gloss) for name, gloss in glosses.items()}
    for group, glosses in _core.counter_glosses().items()
}
"""The counters of `CacheStats` by what moves them, each with what it counts."""


def abort_glosses() -> dict[str, str]:
    """The event of each abort cause with what it means."""
    glosses = _core.event_glosses().items()
    return {event: _phrase(gloss) for event, gloss in glosses if event.startswith("spf_abort_")}


def counters(stats: CacheStats) -> list[tuple[str, str, str, str]]:
    """Each counter that has something to say: group, name, value and what it counts."""
    return [(group, *line) for group, lines in _counters(stats) for line in lines]


def _counters(stats: CacheStats) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    for group, glosses in GLOSSES.items():
        lines = [
            (name, _value(getattr(stats, name)), gloss)
            for name, gloss in glosses.items()
            if group == "memory" or getattr(stats, name)
        ]
        if lines:
            yield group, lines


def _value(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f} s"


def _words(residency: Residency) -> str:
    return f"{residency.resident:,} of {residency.pages:,} pages"
