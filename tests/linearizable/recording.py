"""Recording what real threads see of specmm on a real file."""

from __future__ import annotations

import itertools
import random
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import specmm
from differential.sides import PAGE
from linearizable.search import Call, Operation
from linearizable.specification import (
    MOST,
    PAGES,
    PLACES,
    RESIZES,
    WORD,
    State,
    Subject,
    as_steps,
    original,
    word,
)


@dataclass(frozen=True)
class Workload:
    """What the threads do: kinds of call and how often; whatever is not listed is not done."""

    name: str
    mix: dict[str, int]
    granule: int = WORD  # sizes are multiples of it
    locked: bool = False  # whether truncations wait for each other, as appending needs
    two_steps: bool = False  # whether making the file shorter is two steps

    def sizes(self) -> list[int]:
        """Of the file at first."""
        return [size // self.granule * self.granule for size in (MOST, MOST - PAGE, MOST - WORD, PAGE + WORD)]

    def program(self, rng: random.Random, length: int, tags: Iterable[int]) -> list[Call]:
        """A thread's calls."""
        kinds = rng.choices(list(self.mix), list(self.mix.values()), k=length)
        return [self.call(kind, rng, tag) for kind, tag in zip(kinds, tags, strict=False)]

    def call(self, kind: str, rng: random.Random, tag: int) -> Call:
        match kind:
            case "size" | "noise":
                return (kind,)
            case "truncate":
                near = rng.choice(PLACES) + rng.choice([0, WORD, 2 * WORD])
                return kind, min(MOST, -(-near // self.granule) * self.granule)
            case "append":
                words = rng.choice([1, 2, PAGE // WORD, PAGE // WORD + 3, 2 * PAGE // WORD])
                words = -(-words * WORD // self.granule) * self.granule // WORD
                return kind, word(tag) * words
            case "store":
                return kind, rng.choice(PLACES), word(tag)
            case "dontneed":
                return kind, rng.randrange(PAGES)
        return kind, rng.choice(PLACES)


# What words of a file may be besides: unlike those of any place.
TAGS = 1 << 32

READERS = {"pread": 8, "size": 1, "noise": 2}
LOADERS = {"load": 5, "mapped load": 2, "noise": 2}
WORKLOADS = [
    Workload("file", {**READERS, "truncate": 5}),
    Workload("growing file", {**READERS, "truncate": 3, "append": 4}, locked=True),
    Workload("private", {"private load": 8, "store": 7, "load": 1, "dontneed": 2, "noise": 2}),
    Workload(
        "mapped",
        {"pread": 4, "size": 1, **LOADERS, "truncate": 3, "append": 4},
        locked=True,
        two_steps=True,
    ),
    Workload(
        "copies",
        {"pread": 2, **LOADERS, "private load": 6, "store": 7, "dontneed": 1, "truncate": 3, "append": 3},
        granule=PAGE,
        locked=True,
        two_steps=True,
    ),
]


@dataclass(frozen=True)
class Recording:
    """A history and what it is to be held against."""

    name: str
    start: State
    history: list[Operation]

    def overlaps(self) -> int:
        """Pairs of operations neither of which waited for the other."""
        pairs = itertools.combinations(self.history, 2)
        return sum(not (one.precedes(other) or other.precedes(one)) for one, other in pairs)


def noise(subject: Subject, rng: random.Random) -> None:
    """What may not show in any answer."""
    file, mm = subject.file, subject.mm
    page = rng.randrange(PAGES)
    match rng.randrange(8):
        case 0:
            subject.cache.drop_caches()
        case 1:
            file.advise(rng.choice(["normal", "random", "sequential"]))
        case 2:
            file.advise(rng.choice(["willneed", "dontneed"]), page * PAGE, rng.choice([PAGE, None]))
        case 3:
            file.filemap_fault(page, speculative=rng.random() < 0.5)
        case 4:
            advice = rng.choice(["dontneed", "random", "normal", "willneed"])
            mm.madvise(subject.shared + page * PAGE, PAGE, advice)
        case 5:
            mm.madvise(subject.private, MOST, rng.choice(["random", "sequential", "normal"]))
        case 6:
            mm.fault(subject.private + page * PAGE, write=False)
        case 7:
            file.residency()


def perform(subject: Subject, programs: Sequence[Sequence[Call]], locked: bool, seed: int) -> list[Operation]:
    """Performs each program in a thread of its own."""
    # One call of C: every thread draws another number, and later ones are greater. Between them is room for
    # what a corruption moves.
    clock = itertools.count(step=4)
    together = threading.Barrier(len(programs))
    recorded: list[list[Operation]] = [[] for _ in programs]
    failures: list[BaseException] = []

    def run(number: int) -> None:
        rng = random.Random(f"{seed} noise {number}")
        together.wait()
        for call in programs[number]:
            if call[0] == "noise":
                noise(subject, rng)
                continue
            resizes = locked and call[0] in RESIZES
            invoked = next(clock)
            if resizes:
                with subject.resizing:
                    answer = subject.perform(call)
            else:
                answer = subject.perform(call)
            recorded[number].append(Operation(call, answer, invoked, next(clock)))

    def guarded(number: int) -> None:
        try:
            run(number)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(len(programs))]
    interval = sys.getswitchinterval()
    # Calls of a few microseconds would else follow each other undisturbed.
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), f"{thread.name} hangs"
    finally:
        sys.setswitchinterval(interval)
    if failures:
        raise failures[0]
    return [each for thread in recorded for each in thread]


def on_disk(kind: type[Subject], path: Path, content: bytes, rng: random.Random) -> Subject:
    """A real file in a cache, each time set up otherwise."""
    path.write_bytes(content)
    # All draws come first: one that is too much ends the run, and would leave a file open.
    io, ra_pages = rng.choice(["threads", "inline"]), rng.choice([0, 2, 32])
    locking, fault_around = (
        rng.choice(["speculative", "speculative", "mmap_lock"]),
        rng.choice([PAGE, 4 * PAGE]),
    )
    cache = specmm.PageCache(8 * MOST, io=io)
    file = cache.open(path, "r+b", ra_pages=ra_pages)

    def outside(data: bytes, offset: int) -> None:
        with path.open("r+b") as other:
            other.seek(offset)
            other.write(data)

    subject = kind(specmm, cache, file, outside)
    subject.map(locking=locking, fault_around=fault_around)
    return subject


def record(
    path: Path,
    workload: Workload,
    seed: int,
    *,
    kind: type[Subject] = Subject,
    threads: int = 4,
    length: int = 25,
) -> Recording:
    """A history of specmm on a real file. The seed draws the programs; how they mix is up to the threads."""
    rng = random.Random(f"{seed} {workload.name}")
    start = State(original(rng.choice(workload.sizes())))
    tags = itertools.count(TAGS)
    programs = [workload.program(rng, length, tags) for _ in range(threads)]
    subject = on_disk(kind, path, start.content, rng)
    history = perform(subject, programs, workload.locked, seed)
    subject.close()
    return Recording(workload.name, start, as_steps(history) if workload.two_steps else history)
