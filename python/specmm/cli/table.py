"""Tables: drawn by rich on a terminal, aligned with spaces elsewhere."""

import dataclasses
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from specmm.cli.progress import has_rich


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of text under a heading each; the first `left` columns and the last one if `gloss` are words."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    gloss: bool = False

    def _is_left(self, column: int) -> bool:
        return column < self.left or (self.gloss and column == len(self.headings) - 1)

    def plain(self) -> str:
        """Aligned with spaces."""
        lines = [self.headings, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.headings))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if self._is_left(column) else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )

    def show(self) -> None:
        """Prints it."""
        if not (has_rich() and sys.stdout.isatty()):
            print(self.plain())
            return
        drawn: Any = importlib.import_module("rich.table").Table(
            box=importlib.import_module("rich.box").SIMPLE
        )
        for column, heading in enumerate(self.headings):
            drawn.add_column(
                heading, justify="left" if self._is_left(column) else "right", no_wrap=column == 0
            )
        text: Any = importlib.import_module("rich.text").Text
        for row in self.rows:
            drawn.add_row(*map(text, row))
        importlib.import_module("rich.console").Console().print(drawn)
