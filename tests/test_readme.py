"""The README's session, run as it is written."""

import doctest
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_the_session_answers_as_printed() -> None:
    failed, tried = doctest.testfile(
        str(README), module_relative=False, optionflags=doctest.IGNORE_EXCEPTION_DETAIL
    )
    assert tried >= 10, "the README has no session"
    assert failed == 0
