"""The sequential specification of histories: the calls, and `specmm.model`'s own answers to them.

A `Subject` is a file of one implementation, mapped twice, and performs calls of one aligned word each.
The same class drives specmm and its model. Of the model's state the search keeps a projection, `State`:
the file's bytes and the private copies. What is in the cache, in the page table or read ahead may not
show in any answer, so it is left out; a test holds the projection against a model that lives through a
whole program.

Truncation to less is one step for those who only read the file. For a mapping it is not, as in Linux: the
size goes first, then the entries one by one, then the bytes after the cut. So in histories with mappings
it is two steps, both between invocation and response (`as_steps`). Between them reads of the file and its
size are answered as afterwards; a mapped access as before or as afterwards, each for itself. Nothing old
is allowed after the response.

Left out, because it is not linearizable by design:

- a change made outside, until `revalidate` has seen it: a hit still serves the old bytes, a miss does
  not. Histories do append to the file from outside, but beyond its end, and look at it in the same
  operation, under a lock that also keeps truncation away;
- `mprotect` and `munmap` of what others use: the right or the mapping goes first, an access that has
  passed its entry may still take effect until the call returns. Each thread does map, read and unmap a
  page of its own;
- truncation inside a page that has a private copy in the making: the copy may hold some words from before
  and some from after, as two programs that race on the same bytes get some mixture of words. Such files
  are cut between pages;
- reads of several words, which may tear; readahead state and residency, which only advise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

from differential.sides import PAGE, tell
from linearizable.search import Call, Operation, Search
from specmm import model
from specmm.model.file import File as ModelFile
from specmm.model.store import Look
from specmm.model.store import Store as ModelStore

WORD = 8
PAGES = 4
MOST = PAGES * PAGE  # no file grows beyond it
# Around the ends of pages, where things go wrong, and in the middle.
PLACES = [page * PAGE + at for page in range(PAGES) for at in (0, PAGE // 2, PAGE - WORD)]
RESIZES = ("truncate", "append")
READS = ("pread", "load", "mapped load", "private load")
LIMIT = 200_000  # places a search may see: the worst of thousands of histories saw 5,000


def word(number: int) -> bytes:
    """A word that tells where it comes from; no number is a word of zeros."""
    return (number + 1).to_bytes(WORD, "little")


def original(size: int) -> bytes:
    """What a file holds at first: each word is the number of its place."""
    return b"".join(word(number) for number in range(size // WORD))


# --- the calls, performed by specmm or by its model


class Subject:
    """A file in a cache, with a shared mapping and a private one in the same address space."""

    def __init__(self, library: Any, cache: Any, file: Any, outside: Callable[[bytes, int], object]) -> None:
        self.cache = cache
        self.file = file
        self.outside = outside  # writes to what is below the file, as another program would
        self.library = library
        self.resizing = threading.Lock()

    def map(self, **options: Any) -> None:
        """The mappings. They exceed a shorter file."""
        self.mm = self.library.Mm(self.cache, **options)
        self.shared = self.mm.mmap(self.file, MOST)
        self.private = self.mm.mmap(self.file, MOST, prot="rw", shared=False)

    def perform(self, call: Call) -> Hashable:
        """What the call answers or raises."""
        kind, *arguments = call
        answer: Hashable = tell(lambda: self.do(str(kind), *arguments))
        return answer

    def do(self, kind: str, *arguments: Any) -> Any:
        """The call itself."""
        match kind, *arguments:
            case "pread", offset:
                return self.file.pread(WORD, offset)
            case ("size",):
                return self.file.size
            case "truncate", size:
                return self.file.truncate(size)
            case "append", data:
                size = self.file.size
                self.outside(data[: MOST - size], size)
                return self.file.revalidate()
            case "load", offset:
                return self.mm.load(self.shared + offset, WORD)
            case "mapped load", offset:
                addr = self.mm.mmap(self.file, PAGE, offset // PAGE * PAGE)
                try:
                    return self.mm.load(addr + offset % PAGE, WORD)
                finally:
                    self.mm.munmap(addr, PAGE)
            case "private load", offset:
                return self.mm.load(self.private + offset, WORD)
            case "store", offset, data:
                return self.mm.store(self.private + offset, data)
            case "dontneed", page:
                return self.mm.madvise(self.private + page * PAGE, PAGE, "dontneed")
        raise ValueError(f"no such call: {kind}")

    def close(self) -> None:
        """Nothing may be left in use."""
        self.mm.close()
        self.file.close()
        self.cache.settle()
        self.cache.check()
        assert self.cache.stats().frames_in_use == 0
        self.cache.close()


# --- the specification


class Shrink(NamedTuple):
    """A truncation to less between its two steps."""

    number: int
    size: int


class State(NamedTuple):
    """All that answers depend on."""

    content: bytes
    copies: tuple[tuple[int, bytes], ...] = ()  # page and bytes of the private copies
    shrink: Shrink | None = None


class Memory(ModelStore):
    """What is below the model's file: bytes that others may change too."""

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)
        self.name = "memory"

    def read(self, offset: int, n: int) -> bytes:
        return bytes(self.content[offset : offset + n])

    def truncate(self, size: int) -> None:
        self.content[:] = self.content[:size].ljust(size, b"\0")

    def look(self) -> Look:
        return Look(len(self.content), 0, 0)

    def write(self, data: bytes, offset: int) -> None:
        self.content[offset : offset + len(data)] = data


class Reference(Subject):
    """The model in a given state."""

    def __init__(self, state: State) -> None:
        self.store = Memory(state.content)
        cache = model.PageCache(8 * MOST)
        space = cache.add_space(self.store, len(state.content))
        file = cache.add_file(ModelFile(cache, space, self.store, "memory", "r+b", 32))
        super().__init__(model, cache, file, self.store.write)
        self.map()
        for page, data in state.copies:
            self.mm.store(self.private + page * PAGE, data)

    def state(self) -> State:
        """What the model has come to."""
        kinds = self.mm.pagemap(self.private, MOST)
        copies = [page for page, kind in enumerate(kinds) if kind & 4]
        return State(
            bytes(self.store.content),
            tuple((page, self.mm.load(self.private + page * PAGE, PAGE)) for page in copies),
        )


class Specification:
    """Answers and states after, as `specmm.model` says, each asked for once."""

    def __init__(self) -> None:
        self.told: dict[tuple[State, Call], tuple[Hashable, State]] = {}
        self.lookers: dict[State, Reference] = {}

    def tell(self, state: State, call: Call) -> tuple[Hashable, State]:
        """What the model answers in a state that is no half of a truncation, and the state after."""
        key = (state, call)
        if key not in self.told:
            if looks(call):
                if state not in self.lookers:
                    self.lookers[state] = Reference(state)
                self.told[key] = self.lookers[state].perform(call), state
            else:
                reference = Reference(state)
                answer = reference.perform(call)
                after = reference.state()
                self.lookers.setdefault(after, reference)
                self.told[key] = answer, state if after == state else after
        return self.told[key]

    def step(self, state: State, call: Call, answer: Hashable) -> Sequence[State]:
        """The states that the call may lead to, if it may answer so."""
        match call:
            case ("begin" | "end" as half, int(number), int(size)):
                return self.step_of_truncation(state, half == "begin", Shrink(number, size), answer)
        if state.shrink is None:
            return self.one_step(state, call, answer)
        if call[0] == "append":
            return ()

        # The size and what is read by it are those of afterwards, whatever else still shows.
        before = state._replace(shrink=None)
        _, cut = self.tell(before, ("truncate", state.shrink.size))
        if call[0] in ("pread", "size"):
            return [state] if self.tell(cut, call)[0] == answer else ()
        found = {each._replace(shrink=state.shrink) for each in self.one_step(before, call, answer)}
        # An access that finds everything gone changes nothing; one that does not has been tried already.
        found |= {state for each in self.one_step(cut, call, answer) if each == cut}
        return list(found)

    def one_step(self, state: State, call: Call, answer: Hashable) -> Sequence[State]:
        told, after = self.tell(state, call)
        return [after] if told == answer else ()

    def step_of_truncation(
        self, state: State, begins: bool, shrink: Shrink, answer: Hashable
    ) -> Sequence[State]:
        """Shorter begins with the size and ends with the rest; longer is all in the end."""
        if begins:
            if state.shrink is not None:
                return ()
            shorter = shrink.size < len(state.content)
            return [state._replace(shrink=shrink)] if shorter else [state]
        if state.shrink is None and shrink.size >= len(state.content):
            return self.one_step(state, ("truncate", shrink.size), answer)
        if state.shrink == shrink:
            return self.one_step(state._replace(shrink=None), ("truncate", shrink.size), answer)
        return ()


def looks(call: Call) -> bool:
    """Whether the call changes nothing."""
    return call[0] in READS or call[0] == "size"


def explain(
    start: State, history: Sequence[Operation], specification: Specification | None = None
) -> list[Operation] | None:
    """The history in an order that the model allows, or None."""
    specification = specification or Specification()
    order: list[Operation] = []
    for part in parts(history):
        found = Search(specification.step, start, LIMIT, looks).linearize(part)
        if found is None:
            return None
        order += found
    return order


def as_steps(history: Iterable[Operation]) -> list[Operation]:
    """The history with each truncation as two steps at any two moments between invocation and response."""
    steps = []
    for number, each in enumerate(history):
        if each.call[0] == "truncate":
            for half in ("begin", "end"):
                call = (half, number, each.call[1])
                steps.append(Operation(call, each.answer, each.invoked, each.responded))
        else:
            steps.append(each)
    return steps


def parts(history: Sequence[Operation]) -> list[list[Operation]]:
    """The parts to be judged alone: words, pages if some are given up, or all of it if the size changes."""
    kinds = {each.call[0] for each in history}
    if not kinds <= {*READS, "store", "dontneed"}:
        return [list(history)]

    def key(each: Operation) -> object:
        kind, at = each.call[0], each.call[1]
        assert isinstance(at, int)
        if kind == "dontneed":
            return at
        return at // PAGE if "dontneed" in kinds else at

    keys = {key(each) for each in history}
    return [[each for each in history if key(each) == one] for one in keys]
