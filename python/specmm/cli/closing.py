"""How a command ends: what its user may want to run next."""

import shlex
from collections.abc import Sequence

Step = tuple[Sequence[str], str]
"""The arguments of a command, and what it gives."""


def file(path: str) -> str:
    """A file's name as an argument: never one that looks like an option."""
    return f"./{path}" if path.startswith("-") else path


def show(steps: Sequence[Step]) -> None:
    """Prints the commands as a shell takes them, each with what it gives."""
    lines = [(shlex.join(["specmm", *arguments]), gives) for arguments, gives in steps]
    width = max(len(line) for line, _ in lines)
    print("\nNext:")
    for line, gives in lines:
        print(f"  {line.ljust(width)}  {gives}")
