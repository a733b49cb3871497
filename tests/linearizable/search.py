"""Whether a history is linearizable: the search of Wing and Gong, with Lowe's memory of where it has been.

A history is linearizable if its operations can be put in one order that a sequential specification allows
and in which no operation comes before another that had responded before it was invoked. The search takes
one operation at a time from the front; it comes to the same place by many ways, so it remembers the
places: which operations are taken, and the state they led to.

The specification is a function `step(state, call, answer)`: the states that the call may lead to from
`state` when it answers so; none if it cannot. States, calls and answers are compared by value.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Call = tuple[Hashable, ...]
State = TypeVar("State", bound=Hashable)
Step = Callable[[State, Call, Hashable], Collection[State]]


@dataclass(frozen=True)
class Operation:
    """What was called, what it answered, and when: it overlaps whatever it did not wait for."""

    call: Call
    answer: Hashable
    invoked: int
    responded: int

    def __post_init__(self) -> None:
        if self.invoked >= self.responded:
            raise ValueError(f"{self} responded before it was invoked")

    def precedes(self, other: Operation) -> bool:
        """Whether it was over before the other began."""
        return self.responded < other.invoked


class SearchLimit(Exception):  # noqa: N818 - it says which limit, not what went wrong
    """The search gave up: the history was not judged."""


@dataclass
class Search(Generic[State]):
    """One search, and how many places it saw."""

    step: Step[State]
    start: State
    limit: int
    looks: Callable[[Call], bool] = lambda call: False  # whether a call changes nothing in any state
    places: int = 0

    def linearize(self, history: Sequence[Operation]) -> list[Operation] | None:
        """An order that explains the history, or None if there is none; SearchLimit if it takes too long."""
        operations = sorted(history, key=lambda each: each.invoked)
        everything = (1 << len(operations)) - 1
        seen: set[tuple[int, State]] = set()
        # For each operation taken: which it is, and what was left to try in its stead.
        taken: list[int] = []
        ways: list[Iterator[tuple[int, int, State]]] = [self.ways(operations, 0, self.start)]
        if not operations:
            return []
        while ways:
            for number, done, state in ways[-1]:
                if done == everything:
                    return [operations[each] for each in (*taken, number)]
                if (done, state) in seen:
                    continue
                self.places += 1
                if self.places > self.limit:
                    raise SearchLimit(f"more than {self.limit} places for {len(operations)} operations")
                seen.add((done, state))
                taken.append(number)
                ways.append(self.ways(operations, done, state))
                break
            else:
                ways.pop()
                if taken:
                    taken.pop()
        return None

    def ways(
        self, operations: Sequence[Operation], done: int, state: State
    ) -> Iterator[tuple[int, int, State]]:
        """Each operation that may come next, with what is then done and a state that it leads to."""
        moves = []
        for number in self.minimal(operations, done):
            operation = operations[number]
            after = self.step(state, operation.call, operation.answer)
            # What only looks may as well come at once: nothing that comes later could tell.
            if after and self.looks(operation.call):
                return iter([(number, done | 1 << number, state)])
            moves += [(number, done | 1 << number, each) for each in after]
        return iter(moves)

    def minimal(self, operations: Sequence[Operation], done: int) -> list[int]:
        """The operations not yet taken that no other of these precedes."""
        first = (~done & (done + 1)).bit_length() - 1
        found: list[int] = []
        earliest = None
        for number in range(first, len(operations)):
            if done >> number & 1:
                continue
            operation = operations[number]
            if earliest is not None and operation.invoked > earliest:
                break
            found.append(number)
            earliest = operation.responded if earliest is None else min(earliest, operation.responded)
        return found


def brute_force(history: Sequence[Operation], step: Step[State], start: State) -> bool:
    """The definition, for histories of a few operations: some permutation will do."""

    def allowed(order: Sequence[Operation]) -> bool:
        if any(later.precedes(earlier) for earlier, later in itertools.combinations(order, 2)):
            return False
        states = {start}
        for each in order:
            states = {after for state in states for after in step(state, each.call, each.answer)}
        return bool(states)

    return any(allowed(order) for order in itertools.permutations(history))
