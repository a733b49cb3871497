"""One random program, run step by step by specmm and by its reference model.

Each side has a file with the same bytes and an address space. All I/O is done in the calling thread, so that
nothing depends on timing.
"""

import collections
import dataclasses
import enum
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import specmm
from specmm import model

PAGE = specmm.PAGE_SIZE
STEPS = 60
BASE = 0x10000  # the lowest address that mmap gives
WATCHED = 256  # pages from there on


@dataclasses.dataclass
class Tally:
    """What was compared."""

    programs: int = 0
    steps: int = 0
    calls: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    aborts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)


class _Side:
    """One implementation with a cache, a file and an address space."""

    def __init__(self, subject: Any, path: Path, frames: int, fault_around: int) -> None:
        self.path = path
        self.cache = subject.PageCache(frames * PAGE, io="inline")
        self.file = self.cache.open(path, "r+b")
        self.mm = subject.Mm(self.cache, fault_around=fault_around)

    def observe(self) -> dict[str, Any]:
        """Everything that can be seen. `check` raises if the cache contradicts itself."""
        self.cache.check()
        return {
            "residency": self.file.residency(),
            "size": self.file.size,
            "readahead state": _plain(self.file.readahead_state),
            "page-table entries": self.mm.pagemap(BASE, WATCHED * PAGE),
            "events": self.mm.vm_events(),
            "frames in use": self.cache.stats().frames_in_use,
        }

    def close(self) -> None:
        self.mm.close()
        self.file.close()
        self.cache.close()


def run(seed: int, tally: Tally) -> str | None:
    """Runs the program of a seed. Returns what differs, or None."""
    draw = random.Random(seed)  # noqa: S311 - programs need no secrecy
    size = draw.randrange(1, 64 * PAGE)
    frames, around = draw.choice([16, 48, 200]), draw.choice([4096, 16384, 65536])
    with tempfile.TemporaryDirectory(prefix="specmm-check-") as folder:
        sides = []
        for name, subject in (("specmm", specmm), ("model", model)):
            path = Path(folder, name)
            path.write_bytes(random.Random(seed).randbytes(size))  # noqa: S311
            sides.append(_Side(subject, path, frames, around))
        try:
            return _program(draw, sides, tally)
        finally:
            for side in sides:
                side.close()


def _program(draw: random.Random, sides: list[_Side], tally: Tally) -> str | None:
    for number in range(STEPS):
        name, call = _step(draw)
        answers = [_answer(call, side) for side in sides]
        seen = [{"answer": answer, **side.observe()} for answer, side in zip(answers, sides, strict=True)]
        tally.steps += 1
        tally.calls[name] += 1
        found = [
            f"  {key}: specmm {seen[0][key]!r}, model {seen[1][key]!r}"
            for key in seen[0]
            if seen[0][key] != seen[1][key]
        ]
        if found:
            return "\n".join([f"step {number}, {name}:", *found])
    for event, count in sides[0].mm.vm_events().items():
        if event.startswith("spf_abort_") and count:
            tally.aborts[event.removeprefix("spf_abort_")] += count
    return None


def _step(draw: random.Random) -> tuple[str, Callable[[_Side], object]]:
    """The next call. Addresses and offsets are drawn blindly: half of them hit something."""
    at, n = draw.randrange(80 * PAGE), draw.choice([1, 100, PAGE, 3 * PAGE + 7])
    address = BASE + at
    page, pages = BASE + at // PAGE * PAGE, draw.randrange(1, 40) * PAGE
    write = draw.random() < 0.5
    offset = draw.randrange(8) * PAGE
    prot, shared = draw.choice([("r", True), ("r", False), ("rw", False)])
    advice = draw.choice(["normal", "random", "sequential", "dontneed", "willneed"])
    data = draw.randbytes(n)
    size = draw.randrange(64 * PAGE)
    steps: list[tuple[int, str, Callable[[_Side], object]]] = [
        (3, "mmap", lambda side: side.mm.mmap(side.file, pages, offset, prot=prot, shared=shared)),
        (1, "munmap", lambda side: side.mm.munmap(page, pages)),
        (1, "mprotect", lambda side: side.mm.mprotect(page, pages, prot)),
        (2, "madvise", lambda side: side.mm.madvise(page, pages, advice)),
        (4, "fault", lambda side: side.mm.fault(address, write=write)),
        (3, "load", lambda side: side.mm.load(address, n)),
        (3, "store", lambda side: side.mm.store(address, data)),
        (2, "touch", lambda side: side.mm.touch(page, pages, write=write)),
        (3, "pread", lambda side: side.file.pread(n, at)),
        (2, "filemap_fault", lambda side: side.file.filemap_fault(at // PAGE, speculative=write)),
        (1, "truncate", lambda side: side.file.truncate(size)),
        (1, "advise", lambda side: side.file.advise(advice, at, n)),
        (1, "drop_caches", lambda side: side.cache.drop_caches()),
    ]
    _, name, call = draw.choices(steps, [weight for weight, _, _ in steps])[0]
    return name, call


def _answer(call: Callable[[_Side], object], side: _Side) -> object:
    """What a call returns or raises, in a form that does not depend on which side's classes it uses."""
    try:
        return _plain(call(side))
    except Exception as error:
        name = type(error).__name__
        if name == "InvariantError":
            raise
        return (name, error.args) if name == "BusError" else (name, getattr(error, "errno", None))


def _plain(value: object) -> object:
    """Flags as numbers, causes by name, records field by field."""
    if dataclasses.is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, enum.IntFlag):
        return int(value)
    return value.name if isinstance(value, enum.Enum) else value
