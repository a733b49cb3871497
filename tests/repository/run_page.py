"""Runs the Python sessions of a page as they are written: `python tests/repository/run_page.py PAGE`."""

import doctest
import pathlib
import re
import sys

FENCE = re.compile(r"^```(\w*)\s*$")


def sessions(text: str) -> tuple[str, list[int]]:
    """The page with everything but its Python blocks left blank, and the lines where blocks begin."""
    kept, blocks, inside = [], [], None
    for number, line in enumerate(text.splitlines(), 1):
        fence = FENCE.match(line)
        if fence:
            inside = None if inside is not None else fence.group(1)
            if inside == "python":
                blocks.append(number)
            kept.append("")
        else:
            kept.append(line if inside == "python" else "")
    return "\n".join(kept) + "\n", blocks


def run(page: pathlib.Path) -> tuple[int, int]:
    """Numbers of examples and of failures. A block that is not a session is an error: it would not be run."""
    text, blocks = sessions(page.read_text())
    lines = text.splitlines()
    for number in blocks:
        if not lines[number].startswith(">>> "):
            raise SystemExit(f"{page}:{number}: a Python block that does not begin with >>>")
    test = doctest.DocTestParser().get_doctest(text, {"__name__": "__main__"}, page.name, str(page), 0)
    runner = doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    runner.run(test)
    return runner.tries, runner.failures


if __name__ == "__main__":
    tried, failed = run(pathlib.Path(sys.argv[1]))
    print(f"{tried} examples, {failed} failed")
    sys.exit(failed > 0)
