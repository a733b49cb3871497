"""The edits that may survive, each with its reason: tests/mutants/survivors.toml."""

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .build import ROOT
from .sites import OPERATORS, Edit, flat

TABLE = ROOT / "tests" / "mutants" / "survivors.toml"
KEYS = {"file", "function", "operator", "text", "id", "reason"}


@dataclass(frozen=True)
class Entry:
    """One reason, and the edits that it covers."""

    file: str
    function: str
    reason: str
    operators: tuple[str, ...] = OPERATORS
    text: str | None = None
    #: Of several edits with one text the one that is meant.
    id: str | None = None

    def covers(self, edit: Edit) -> bool:
        """The text is what stands in the source, or that and what is put there."""
        return (
            (edit.file, edit.function) == (self.file, self.function)
            and edit.operator in self.operators
            and (self.text is None or self.text in (flat(edit.old), edit.text))
            and self.id in (None, edit.id)
        )

    def __str__(self) -> str:
        return f"{self.file}, {self.function}, {' or '.join(self.operators)}: {self.text or 'any text'}"


def entries(table: Path = TABLE) -> list[Entry]:
    """All of them."""
    found = []
    for row in tomllib.loads(table.read_text()).get("survivor", []):
        if strange := row.keys() - KEYS:
            raise ValueError(f"{table.name}: an entry has no {', '.join(strange)}: {row}")
        operators = row.get("operator", list(OPERATORS))
        operators = [operators] if isinstance(operators, str) else operators
        if strange := set(operators) - set(OPERATORS):
            raise ValueError(f"{table.name}: no operator is called {', '.join(strange)}: {row}")
        if not row.get("reason", "").strip():
            raise ValueError(f"{table.name}: no reason is given: {row}")
        text = flat(row["text"]) if "text" in row else None
        found.append(
            Entry(row["file"], row["function"], row["reason"], tuple(operators), text, row.get("id"))
        )
    return found


def stale(known: Iterable[Entry], edits: list[Edit]) -> list[Entry]:
    """Entries that cover no edit of the sources."""
    return [entry for entry in known if not any(entry.covers(edit) for edit in edits)]


def ready_made(edit: Edit) -> str:
    """An entry that lacks only its reason."""
    quotes = "'" if "'" not in edit.text else "'''"
    return "\n".join(
        [
            "[[survivor]]",
            f'file = "{edit.file}"',
            f'function = "{edit.function}"',
            f'operator = "{edit.operator}"',
            f"text = {quotes}{edit.text}{quotes}",
            'reason = ""',
        ]
    )


def told(edit: Edit) -> str:
    """One line for lists."""
    return re.sub(r"\s+", " ", f"{edit.id} {edit.operator} {edit.file} {edit.function}: {edit.text}")
