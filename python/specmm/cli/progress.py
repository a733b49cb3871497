"""Progress on stderr, for what takes longer than a second."""

import importlib
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from specmm.cli.errors import say

Show = Callable[[float, str], None]

_PATIENCE = 1.0
_EVERY = 5.0


def has_rich() -> bool:
    """Whether tables and progress can be drawn; plain text otherwise."""
    return importlib.util.find_spec("rich") is not None


@contextmanager
def progress(title: str) -> Iterator[Show]:
    """Yields a function to call with the share that is done and with what is being done now."""
    if has_rich() and sys.stderr.isatty():
        with _bar(title) as show:
            yield show
    else:
        yield _lines(title)


@contextmanager
def _bar(title: str) -> Iterator[Show]:
    rich: Any = importlib.import_module("rich.progress")
    console: Any = importlib.import_module("rich.console").Console(stderr=True)
    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.TimeRemainingColumn(),
        rich.TextColumn("{task.fields[now]}"),
    )
    with rich.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=1.0, now="")
        yield lambda done, now: bar.update(task, completed=done, now=now)


def _lines(title: str) -> Show:
    """A line after a second, then one every few seconds."""
    last = time.monotonic() - _EVERY + _PATIENCE

    def show(done: float, now: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _EVERY:
            last = time.monotonic()
            say(f"{title}: {done:.0%} done, {now}")

    return show
