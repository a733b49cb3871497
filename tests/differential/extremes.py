"""The numbers that calls take, at their extremes: both sides answer alike, or refuse and name the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from differential.sides import BASE, PAGE, PatternStore, Side


class Index:
    """Any object may stand for a number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __index__(self) -> int:
        return self.number

    def __repr__(self) -> str:
        return f"Index({self.number})"


class Broken:
    """Or fail to."""

    def __index__(self) -> int:
        raise ZeroDivisionError("no number")

    def __float__(self) -> float:
        raise ZeroDivisionError("no number")

    def __repr__(self) -> str:
        return "Broken()"


# Where 4 KiB pages, signed and unsigned words, files and address spaces end.
EDGES = (0, 12, 20, 31, 32, 44, 47, 48, 52, 63, 64)
NUMBERS = {
    (f"2**{power}" if power else "0") + (f" {'+' if by > 0 else '-'} {abs(by)}" if by else ""): (
        (1 << power if power else 0) + by
    )
    for power in EDGES
    for by in (0, -PAGE, -1, 1, PAGE)
}
OTHERS = [
    *(10**30, -(10**30), -(2**63), -(2**63) - 1, -(2**64)),
    *(None, True, False),
    *(0.0, 1.0, 0.5, -1.0, 1e300, float("nan"), float("inf"), -float("inf")),
    *(1j, Decimal(1), "0", "1", "", "4KiB", "8 KiB", "4kib", "4KB", "1e3", "-1", "\u0664KiB"),
    *("99999999999999999999", "18446744073709551615", "16777216TiB", "9007199254740992KiB"),
    *(b"1", [1], (), Index(1), Index(-1), Index(2**64), Broken()),
    *(np.int8(-1), np.uint8(8), np.int64(PAGE), np.int64(-(2**63)), np.uint64(2**63), np.uint64(2**64 - 1)),
    *(np.float64(1), np.float32(0.5), np.bool_(True), np.array(PAGE), np.array([PAGE])),
]
# By a name, as not every value can be read back from how it is written.
EXTREMES: dict[str, Any] = NUMBERS | {repr(value): value for value in OTHERS}


@dataclass(frozen=True)
class Call:
    """A call with the numbers that are plain for it, and those that would cost more than a test may."""

    call: Callable[..., object]
    plain: tuple[Any, ...]
    too_much: Callable[..., bool] = lambda *_: False

    def numbers(self, names: tuple[str | None, ...]) -> tuple[Any, ...]:
        """The extremes of these names; where there is none, what is plain."""
        pairs = zip(names, self.plain, strict=False)
        return tuple(plain if name is None else EXTREMES[name] for name, plain in pairs)


def number(value: Any) -> int:
    """What it stands for, or -1."""
    try:
        return int(value.__index__())
    except Exception:
        return -1


def open_store(side: Side, mm: Any, file: Any, size: Any, ra_pages: Any) -> object:
    with side.cache.open_store(PatternStore(0, 0), size, ra_pages=ra_pages) as opened:
        opened.advise("sequential")
        return opened.size, opened.readahead_state.ra_pages


def open_path(side: Side, mm: Any, file: Any, ra_pages: Any) -> object:
    """What is refused leaves nothing behind."""
    path = side.path.with_suffix(".new")
    try:
        with side.cache.open(path, "w+b", ra_pages=ra_pages) as opened:
            return opened.readahead_state.ra_pages
    finally:
        created = path.exists()
        path.unlink(missing_ok=True)
        if created and number(ra_pages) not in range(1 << 19):
            raise AssertionError(f"ra_pages {ra_pages!r} was refused, but {path.name} was made")


def truncate(side: Side, mm: Any, file: Any, size: Any) -> object:
    """And back: of a file of 16 TiB nobody wants to see all pages."""
    before = file.size
    file.truncate(size)
    told = file.size
    file.truncate(before)
    return told


def pin(side: Side, mm: Any, file: Any, offset: Any, length: Any) -> object:
    pinned = file.pin(offset, length)
    try:
        return bytes(pinned)
    finally:
        pinned.release()


def mmap(side: Side, mm: Any, file: Any, length: Any, offset: Any) -> object:
    addr = mm.mmap(file, length, offset)
    mm.munmap(addr, file.size - number(offset) if length is None else length)
    return addr


def mmap_as(mm: Any, file: Any, shared: Any) -> object:
    addr = mm.mmap(file, PAGE, prot="r", shared=shared)
    mm.munmap(addr, PAGE)
    return addr


def new_cache(side: Side, mm: Any, file: Any, capacity: Any, frame_timeout: Any) -> object:
    with side.subject.PageCache(capacity, io="inline", frame_timeout=frame_timeout) as cache:
        return cache.stats().capacity_frames


def new_mm(side: Side, mm: Any, file: Any, fault_around: Any) -> None:
    with side.subject.Mm(side.cache, fault_around=fault_around):
        pass


def preadinto(side: Side, mm: Any, file: Any, offset: Any) -> object:
    buffer = bytearray(b"x" * 8)
    return file.preadinto(buffer, offset), bytes(buffer)


CALLS: dict[str, Call] = {
    "cache": Call(new_cache, (8 * PAGE, 0), lambda capacity, _: 1 << 31 < number(capacity) <= 1 << 42),
    "open": Call(open_path, (32,)),
    "open_store": Call(open_store, (PAGE, 32)),
    "reclaim": Call(lambda side, mm, file, pages: side.cache.reclaim(pages), (1,)),
    "pread": Call(lambda side, mm, file, n, offset: file.pread(n, offset), (8, 0)),
    "preadinto": Call(preadinto, (0,)),
    "gather": Call(
        lambda side, mm, file, offset, length: bytes(file.gather([0, offset], length)),
        (0, 8),
    ),
    "gather nothing": Call(lambda side, mm, file, length: bytes(file.gather([], length)), (8,)),
    "gather into": Call(
        lambda side, mm, file, offset, length: file.gather([offset], length, out=bytearray(8)), (0, 8)
    ),
    "pin": Call(pin, (0, 8)),
    "residency": Call(lambda side, mm, file, first, count: file.residency(first, count), (0, 5)),
    "filemap_fault": Call(lambda side, mm, file, index: file.filemap_fault(index), (0,)),
    "filemap_fault, classic": Call(
        lambda side, mm, file, index: file.filemap_fault(index, speculative=False), (0,)
    ),
    **{
        f"advise {advice}": Call(
            lambda side, mm, file, offset, length, advice=advice: file.advise(advice, offset, length),
            (0, PAGE),
        )
        for advice in ("normal", "willneed", "dontneed", "hugepage")
    },
    "truncate": Call(truncate, (PAGE,)),
    "mm": Call(new_mm, (PAGE,)),
    "mmap": Call(mmap, (PAGE, 0)),
    "mmap rw": Call(
        lambda side, mm, file, length, offset: mm.mmap(file, length, offset, prot="rw", shared=True),
        (PAGE, 0),
    ),
    "munmap": Call(lambda side, mm, file, addr, length: mm.munmap(addr, length), (BASE, PAGE)),
    **{
        f"mprotect {prot}": Call(
            lambda side, mm, file, addr, length, prot=prot: mm.mprotect(addr, length, prot), (BASE, PAGE)
        )
        for prot in ("r", "rw", "x")
    },
    **{
        f"madvise {advice}": Call(
            lambda side, mm, file, addr, length, advice=advice: mm.madvise(addr, length, advice), (BASE, PAGE)
        )
        for advice in ("random", "dontneed", "willneed")
    },
    "load": Call(lambda side, mm, file, addr, n: mm.load(addr, n), (BASE, 1)),
    "store": Call(lambda side, mm, file, addr: mm.store(addr, b"12"), (BASE,)),
    "store nothing": Call(lambda side, mm, file, addr: mm.store(addr, b""), (BASE,)),
    "fault": Call(lambda side, mm, file, addr: mm.fault(addr), (BASE,)),
    "fault to write": Call(lambda side, mm, file, addr: mm.fault(addr, write=True), (BASE,)),
    "touch": Call(
        lambda side, mm, file, addr, length, stride: mm.touch(addr, length, stride=stride), (BASE, PAGE, PAGE)
    ),
    "pagemap": Call(
        lambda side, mm, file, addr, length: mm.pagemap(addr, length),
        (BASE, PAGE),
        lambda _, length: 1 << 33 < number(length) <= 1 << 47,
    ),
}


# Flags are bools, and numbers are none.
CALLS |= {
    "filemap_fault speculative": Call(
        lambda side, mm, file, flag: file.filemap_fault(0, speculative=flag), (True,)
    ),
    "mmap shared": Call(lambda side, mm, file, flag: mmap_as(mm, file, flag), (True,)),
    "fault write": Call(lambda side, mm, file, flag: mm.fault(BASE, write=flag), (False,)),
    "touch write": Call(lambda side, mm, file, flag: mm.touch(BASE, PAGE, write=flag), (False,)),
}


def named(error: BaseException, numbers: tuple[Any, ...]) -> list[int]:
    """Which places a message names, of those whose numbers are hard to mistake."""
    return [
        at
        for at, value in enumerate(numbers)
        if any(re.search(rf"(?<!\w){re.escape(way)}(?!\w)", str(error)) for way in ways_to_write(value))
    ]


def ways_to_write(argument: Any) -> list[str]:
    value = number(argument)
    if value < 0:
        return [repr(argument)] if len(repr(argument)) > 1 else []
    return [str(value), f"{value:#x}"] if value >= 1 << 20 else []
