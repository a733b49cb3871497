"""What real threads see of specmm is linearizable: in some order the model answers their calls as it did."""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import specmm
from differential.sides import PAGE, tell
from linearizable.corruptions import CORRUPTIONS, Corruption
from linearizable.recording import TAGS, WORKLOADS, Recording, Workload, noise, on_disk, record
from linearizable.search import Call, Operation, Search, SearchLimit, brute_force
from linearizable.specification import (
    LIMIT,
    MOST,
    READS,
    Reference,
    Specification,
    State,
    Subject,
    as_steps,
    explain,
    looks,
    original,
    word,
)

# Histories of each workload, and how many of them are made wrong in all ways.
HISTORIES, CORRUPTED = {"dev": (8, 4), "ci": (40, 8), "deep": (1000, 40)}[
    os.environ.get("SPECMM_HYPOTHESIS", "dev")
]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    path = tmp_path_factory.mktemp("histories") / "file"
    return [record(path, workload, seed) for seed in range(HISTORIES) for workload in WORKLOADS]


def told(history: list[Operation]) -> str:
    """A history, to be read by a person."""
    lines = [
        f"{each.invoked:5} {each.responded:5}  {str(each.call)[:60]} -> {each.answer!r}" for each in history
    ]
    return "\n".join(sorted(lines))


# --- specmm


def test_histories_of_real_threads_are_linearizable(recorded: list[Recording]) -> None:
    seen: Counter[str] = Counter()
    for recording in recorded:
        specification = Specification()
        order = explain(recording.start, recording.history, specification)
        assert order is not None, f"{recording.name}, {recording.start}:\n{told(recording.history)}"
        assert sorted(map(repr, order)) == sorted(map(repr, recording.history))
        seen["overlaps"] += recording.overlaps()
        seen[recording.name] += changes(recording.start, order, specification)
        seen["places seen to change"] += places_seen_to_change(recording.history)
        seen["errors"] += sum(isinstance(each.answer, tuple) for each in recording.history)

    # The histories were not empty: on the average each of them had so much of all this.
    assert seen["overlaps"] > 20 * len(recorded)
    assert all(seen[workload.name] > 10 * HISTORIES for workload in WORKLOADS), seen
    assert seen["places seen to change"] > 3 * len(recorded)
    assert seen["errors"] > len(recorded)


def changes(start: State, order: list[Operation], specification: Specification) -> int:
    """How often the state changed on the way."""
    states, count = {start}, 0
    for each in order:
        after = {one for state in states for one in specification.step(state, each.call, each.answer)}
        count += not after <= states
        states = after
    return count


def places_seen_to_change(history: list[Operation]) -> int:
    """Calls that were answered differently at different times."""
    answers = {(each.call, each.answer) for each in history if each.call[0] in READS}
    return sum(count > 1 for count in Counter(call for call, _ in answers).values())


# --- the checker finds what is wrong


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda corruption: corruption.__name__)
def test_a_corrupted_history_is_rejected(recorded: list[Recording], corruption: Corruption) -> None:
    rejected = 0
    for number, recording in enumerate(recorded[: CORRUPTED * len(WORKLOADS)]):
        wrong = list(corruption(recording))
        specification = Specification()
        for history in random.Random(number).sample(wrong, min(2, len(wrong))):
            assert explain(recording.start, history, specification) is None, told(history)
            rejected += 1
    assert rejected >= CORRUPTED


class StaleReads(Subject):
    """Keeps what it has read, and does not hear of truncation."""

    def do(self, kind: str, *arguments: Any) -> Any:
        if kind != "pread":
            return super().do(kind, *arguments)
        kept = self.__dict__.setdefault("kept", {})
        if arguments not in kept:
            kept[arguments] = super().do(kind, *arguments)
        return kept[arguments]


class LateTruncation(Subject):
    """Truncates soon after it said that it had."""

    def do(self, kind: str, *arguments: Any) -> Any:
        if kind != "truncate":
            return super().do(kind, *arguments)
        late = threading.Timer(0.0002, super().do, (kind, *arguments))
        late.start()
        self.__dict__.setdefault("late", []).append(late)
        return None

    def close(self) -> None:
        for late in self.__dict__.get("late", []):
            late.join()
        super().close()


class LostStores(Subject):
    """Forgets some stores."""

    def do(self, kind: str, *arguments: Any) -> Any:
        if kind == "store" and arguments[1][0] % 5 == 0:
            return None
        return super().do(kind, *arguments)


@pytest.mark.parametrize(
    ("kind", "name"),
    [(StaleReads, "file"), (StaleReads, "mapped"), (LateTruncation, "file"), (LostStores, "private")],
)
def test_a_planted_bug_is_found(tmp_path: Path, kind: type[Subject], name: str) -> None:
    (workload,) = (each for each in WORKLOADS if each.name == name)
    recordings = (record(tmp_path / "file", workload, seed, kind=kind) for seed in range(10))
    assert any(explain(recording.start, recording.history) is None for recording in recordings)


def test_a_search_that_takes_too_long_is_no_verdict() -> None:
    stores = [
        Operation(("store", 0, word(TAGS + number)), None, number, 100 + number) for number in range(12)
    ]
    reads = [Operation(("private load", 0), word(TAGS + number), 200 + number, 300) for number in range(2)]
    search = Search(Specification().step, State(original(MOST)), 500, looks)
    with pytest.raises(SearchLimit, match="more than 500 places for 14 operations"):
        search.linearize(stores + reads)


# --- histories with a known verdict, in words of a file of two pages

FIRST, SECOND = word(0), word(1)
ZERO = bytes(8)
A, B = word(TAGS + 1), word(TAGS + 2)
PAST = ("BusError", (1, PAGE, PAGE), None)  # what a mapping says of page 1 when one page is left
Row = tuple[Call, Hashable, int, int]

LEGAL: dict[str, list[Row]] = {
    "nothing at all": [],
    "one after the other": [(("store", 0, A), None, 0, 1), (("private load", 0), A, 2, 3)],
    "a read beside a store may miss it": [(("store", 0, A), None, 0, 9), (("private load", 0), FIRST, 1, 2)],
    "a read beside a store may see it": [(("store", 0, A), None, 0, 9), (("private load", 0), A, 1, 2)],
    "two readers at once may disagree": [
        (("store", 0, A), None, 0, 9),
        (("private load", 0), A, 1, 5),
        (("private load", 0), FIRST, 2, 6),
    ],
    "two stores at once, in either order": [
        (("store", 0, A), None, 0, 9),
        (("store", 0, B), None, 1, 8),
        (("private load", 0), A, 10, 11),
    ],
    "the end is the end": [(("truncate", 0), None, 0, 1), (("pread", 0), b"", 2, 3)],
    "zeros after shorter and longer": [
        (("truncate", PAGE), None, 0, 1),
        (("truncate", 2 * PAGE), None, 2, 3),
        (("pread", PAGE), ZERO, 4, 5),
        (("load", PAGE), ZERO, 6, 7),
    ],
    "a mapping may be cut off after the size": [
        (("truncate", PAGE), None, 0, 9),
        (("pread", PAGE), b"", 1, 2),
        (("load", PAGE), word(PAGE // 8), 3, 4),
        (("load", PAGE), PAST, 5, 6),
    ],
    "a copy that is cut off may be stored to until then": [
        (("store", PAGE, A), None, 0, 1),
        (("truncate", PAGE), None, 2, 19),
        (("size",), PAGE, 3, 4),
        (("store", PAGE, B), None, 5, 6),
        (("private load", PAGE), B, 7, 8),
        (("truncate", 2 * PAGE), None, 20, 21),
        (("private load", PAGE), ZERO, 22, 23),
    ],
    "what is given up is the file's again": [
        (("store", 0, A), None, 0, 1),
        (("dontneed", 0), None, 2, 3),
        (("private load", 0), FIRST, 4, 5),
    ],
    "a private store is nobody else's": [(("store", 0, A), None, 0, 1), (("load", 0), FIRST, 2, 3)],
}

ILLEGAL: dict[str, list[Row]] = {
    "a value nobody wrote": [(("private load", 0), A, 0, 1)],
    "another word's value": [(("pread", 0), SECOND, 0, 1)],
    "a lost store": [(("store", 0, A), None, 0, 1), (("private load", 0), FIRST, 2, 3)],
    "a read from the future": [(("private load", 0), A, 0, 1), (("store", 0, A), None, 2, 3)],
    "new, then old": [
        (("store", 0, A), None, 0, 9),
        (("private load", 0), A, 1, 2),
        (("private load", 0), FIRST, 3, 4),
    ],
    "an order that nobody can share": [
        (("store", 0, A), None, 0, 9),
        (("store", 0, B), None, 0, 9),
        (("private load", 0), A, 10, 11),
        (("private load", 0), B, 12, 13),
    ],
    "bytes past the end": [(("truncate", 0), None, 0, 1), (("pread", 0), FIRST, 2, 3)],
    "the end without a truncation": [(("pread", 0), b"", 0, 1)],
    "what was cut off comes back": [
        (("truncate", PAGE), None, 0, 1),
        (("truncate", 2 * PAGE), None, 2, 3),
        (("pread", PAGE), word(PAGE // 8), 4, 5),
    ],
    "a mapping that still shows what was cut off": [
        (("truncate", PAGE), None, 0, 1),
        (("load", PAGE), word(PAGE // 8), 2, 3),
    ],
    "what was not cut off is gone meanwhile": [
        (("truncate", PAGE), None, 0, 9),
        (("load", 0), ("BusError", (0, 0, PAGE), None), 1, 2),
    ],
    "the size, before the truncation": [(("size",), PAGE, 0, 1), (("truncate", PAGE), None, 2, 3)],
    "the size, to and fro": [
        (("truncate", PAGE), None, 0, 9),
        (("size",), PAGE, 1, 2),
        (("size",), 2 * PAGE, 3, 4),
    ],
    "past an end that never was": [
        (("truncate", PAGE), None, 0, 1),
        (("load", PAGE), ("BusError", (1, PAGE, PAGE + 8), None), 2, 3),
    ],
    "a copy that outlives its page": [
        (("store", PAGE, A), None, 0, 1),
        (("truncate", PAGE), None, 2, 3),
        (("truncate", 2 * PAGE), None, 4, 5),
        (("private load", PAGE), A, 6, 7),
    ],
    "given up, and still there": [
        (("store", 0, A), None, 0, 1),
        (("dontneed", 0), None, 2, 3),
        (("private load", 0), A, 4, 5),
    ],
    "a private store that others see": [(("store", 0, A), None, 0, 1), (("pread", 0), A, 2, 3)],
    "a failure that nothing explains": [(("pread", 0), ("OSError", (5, "file")), 0, 1)],
}


def verdict(rows: list[Row]) -> bool:
    history = as_steps(itertools.starmap(Operation, rows))
    assert brute_force(history, Specification().step, State(original(2 * PAGE))) == (
        explain(State(original(2 * PAGE)), history) is not None
    )
    return explain(State(original(2 * PAGE)), history) is not None


@pytest.mark.parametrize("name", LEGAL)
def test_a_legal_history(name: str) -> None:
    assert verdict(LEGAL[name])


@pytest.mark.parametrize("name", ILLEGAL)
def test_an_illegal_history(name: str) -> None:
    assert not verdict(ILLEGAL[name])


def test_for_readers_of_the_file_alone_truncation_is_one_step() -> None:
    rows = LEGAL["a mapping may be cut off after the size"]
    assert explain(State(original(2 * PAGE)), list(itertools.starmap(Operation, rows))) is None


# --- the checker against the definition


def register(state: int, call: Call, answer: Hashable) -> list[int]:
    """One number: read, written, exchanged if it is the one expected, or drawn from two."""
    match call:
        case ("read",):
            return [state] if answer == state else []
        case ("write", int(value)):
            return [value]
        case ("exchange", old, int(value)):
            return ([value] if answer else []) if state == old else ([] if answer else [state])
        case ("either", int(one), int(other)):
            return [one, other]
    raise AssertionError(call)


VALUES = st.integers(0, 2)
CALLS: st.SearchStrategy[tuple[Call, Hashable]] = st.one_of(
    st.tuples(st.just(("read",)), VALUES),
    st.tuples(st.tuples(st.just("write"), VALUES), st.none()),
    st.tuples(st.tuples(st.just("exchange"), VALUES, VALUES), st.booleans()),
    st.tuples(st.tuples(st.just("either"), VALUES, VALUES), st.none()),
)


@st.composite
def tiny_histories(draw: st.DrawFn) -> list[Operation]:
    calls = draw(st.lists(CALLS, max_size=6))
    moments = draw(st.permutations(range(2 * len(calls))))
    spans = [sorted(moments[2 * number : 2 * number + 2]) for number in range(len(calls))]
    return [Operation(*each, *span) for each, span in zip(calls, spans, strict=True)]


@pytest.mark.hypothesis
def test_the_search_agrees_with_brute_force() -> None:
    verdicts: Counter[bool] = Counter()

    @given(tiny_histories())
    def agree(history: list[Operation]) -> None:
        search = Search(register, 0, LIMIT, lambda call: call == ("read",))
        order = search.linearize(history)
        assert (order is not None) == brute_force(history, register, 0), told(history)
        if order is not None:
            assert sorted(map(repr, order)) == sorted(map(repr, history))
            assert not any(later.precedes(one) for one, later in itertools.combinations(order, 2))
        verdicts[order is not None] += len(history) > 2

    agree()
    assert verdicts[True] > 0
    assert verdicts[False] > 0


# --- the projection against the model that it is taken from


@given(
    rng=st.randoms(use_true_random=False),
    workload=st.sampled_from(WORKLOADS),
    length=st.integers(1, 40),
)
def test_the_state_is_all_that_answers_depend_on(
    tmp_path_factory: pytest.TempPathFactory, rng: random.Random, workload: Workload, length: int
) -> None:
    state = State(original(rng.choice(workload.sizes())))
    program = workload.program(rng, length, itertools.count(TAGS))
    specification = Specification()
    model = Reference(state)
    real = on_disk(Subject, tmp_path_factory.getbasetemp() / "projected", state.content, rng)
    # A run that draws too much ends anywhere.
    with real.cache:
        for call in program:
            if call[0] == "noise":
                seed = rng.getrandbits(32)
                noise(model, random.Random(seed))
                noise(real, random.Random(seed))
                continue
            answer, state = specification.tell(state, call)
            assert answer == model.perform(call) == real.perform(call)
            assert state == model.state()
        model.close()
        real.close()


# --- windows too narrow for histories, held open


class Gate:
    """A store whose n-th read waits until it is let go; the file may be cut meanwhile."""

    def __init__(self, held: int, fails: int = 0) -> None:
        self.size = PAGE
        self.held = held
        self.fails = fails
        self.reads = 0
        self.reached = threading.Event()
        self.cut = threading.Event()
        self.open = threading.Event()

    def read_at(self, offset: int, n: int) -> bytes:
        self.reads += 1
        if self.reads == self.fails:
            raise OSError(5, "once")
        if self.reads == self.held:
            self.reached.set()
            assert self.open.wait(30)
        return original(PAGE)[offset : min(offset + n, self.size)]

    def truncate(self, size: int) -> None:
        self.size = size
        self.cut.set()


@pytest.mark.parametrize("sizes", [[800], [800, PAGE]], ids=["shorter", "shorter and longer"])
@pytest.mark.parametrize("mapped", [False, True])
def test_a_read_beside_a_truncation_in_its_page(mapped: bool, sizes: list[int]) -> None:
    """The word was in the file all the time: that the store has become shorter is no failure."""
    # A fault forgives a first failure, so its second read is the one to hold.
    gate = Gate(held=2, fails=1) if mapped else Gate(held=1)
    answers: list[Hashable] = []
    with specmm.PageCache("1MiB", io="inline") as cache, specmm.mm.Mm(cache) as mm:
        file = cache.open_store(gate, PAGE, ra_pages=0)
        addr = mm.mmap(file)

        def read() -> None:
            answers.append(tell(lambda: mm.load(addr, 8) if mapped else file.pread(8, 0)))

        threads = [threading.Thread(target=read)]
        threads[0].start()
        assert gate.reached.wait(30)
        for size in sizes:
            threads.append(threading.Thread(target=file.truncate, args=(size,)))
            threads[-1].start()
            assert gate.cut.wait(30)
        time.sleep(0.02)  # the second one now waits for the first, which waits for the read
        gate.open.set()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive(), "hangs"
        assert answers == [FIRST]
