"""Histories made wrong: each corruption is one that no order can explain, whatever else happened.

Stored and appended words are each unlike all others (`TAGS`), and a file's first words each tell their place.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace

from linearizable.recording import TAGS, Recording
from linearizable.search import Operation
from linearizable.specification import PLACES, READS, WORD, word

History = Sequence[Operation]
Corruption = Callable[[Recording], Iterator[list[Operation]]]


def number(answer: Hashable) -> int:
    """What a word says; 0 is no word."""
    return int.from_bytes(answer, "little") if isinstance(answer, bytes) else 0


def is_tag(answer: Hashable) -> bool:
    """Whether a word was stored or appended."""
    return number(answer) > TAGS


def with_answers(history: History, answers: dict[int, Hashable]) -> list[Operation]:
    """The history with other answers."""
    return [replace(each, answer=answers[at]) if at in answers else each for at, each in enumerate(history)]


def reads(history: History, *kinds: str) -> list[tuple[int, Operation]]:
    """Reads that were answered with a word, and where they are."""
    return [
        (at, each)
        for at, each in enumerate(history)
        if each.call[0] in (kinds or READS) and len(each.answer if isinstance(each.answer, bytes) else b"")
    ]


def stores(history: History) -> dict[int, Operation]:
    """The stores that were made, by what they stored."""
    return {number(each.call[2]): each for each in history if each.call[0] == "store" and each.answer is None}


def another_words_value(recording: Recording) -> Iterator[list[Operation]]:
    """A read sees the first value of another place, which nobody ever copies."""
    for at, read in reads(recording.history):
        other = next(place for place in PLACES if place != read.call[1])
        yield with_answers(recording.history, {at: word(other // WORD)})


def stale_value(recording: Recording) -> Iterator[list[Operation]]:
    """A read sees a store that another had overwritten, all in turn."""
    history = recording.history
    for old, new in itertools.permutations(stores(history).values(), 2):
        if old.call[1] == new.call[1] and old.precedes(new):
            for at, read in reads(history, "private load"):
                if read.call[1] == new.call[1] and new.precedes(read):
                    yield with_answers(history, {at: old.call[2]})


def new_then_old(recording: Recording) -> Iterator[list[Operation]]:
    """Two reads, one after the other, of two stores, one after the other: their answers are swapped."""
    history = recording.history
    stored = stores(history)
    seen = [(at, read) for at, read in reads(history, "private load") if number(read.answer) in stored]
    for (first, one), (second, two) in itertools.permutations(seen, 2):
        old, new = stored[number(one.answer)], stored[number(two.answer)]
        if one.call == two.call and one.precedes(two) and old.precedes(new):
            yield with_answers(history, {first: two.answer, second: one.answer})


def truncation_undone(recording: Recording) -> Iterator[list[Operation]]:
    """A read found the end of the file, and whatever truncation can explain it is taken away."""
    history = recording.history
    for read in history:
        if read.call[0] == "pread" and read.answer == b"" and len(recording.start.content) > offset_of(read):
            truncations = [each for each in history if each.call[0] in ("truncate", "begin", "end")]
            causes = [each for each in truncations if size_of(each) <= offset_of(read)]
            yield [each for each in history if each not in causes]


def offset_of(read: Operation) -> int:
    offset = read.call[1]
    assert isinstance(offset, int)
    return offset


def size_of(truncation: Operation) -> int:
    size = truncation.call[-1]
    assert isinstance(size, int)
    return size


def out_of_the_future(recording: Recording) -> Iterator[list[Operation]]:
    """A read responds before that was invoked which wrote what it saw."""
    history = recording.history
    writers = {number(each.call[-1]): each for each in history if each.call[0] == "store"}
    for each in history:
        match each.call:
            case ("append", bytes(data)):
                writers[number(data[:WORD])] = each
    for at, read in reads(history):
        if is_tag(read.answer):
            written = writers[number(read.answer)].invoked
            early = replace(read, invoked=written - 2, responded=written - 1)
            yield [early if place == at else each for place, each in enumerate(history)]


def size_that_never_was(recording: Recording) -> Iterator[list[Operation]]:
    """An access past the end tells a size that is no multiple of a word, as all sizes are."""
    for at, each in enumerate(recording.history):
        match each.answer:
            case ("BusError", (index, offset, int(size)), cause):
                yield with_answers(recording.history, {at: ("BusError", (index, offset, size - 1), cause)})


CORRUPTIONS: list[Corruption] = [
    another_words_value,
    stale_value,
    new_then_old,
    truncation_undone,
    out_of_the_future,
    size_that_never_was,
]
