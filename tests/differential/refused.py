"""Calls that both sides must refuse, in the same way and without a trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from differential.sides import BASE, PAGE, PatternStore, Side

# Bad arguments, which both must refuse in the same way.
REFUSED: dict[str, Callable[[Side, Any, Any], object]] = {
    "pread of -1 bytes": lambda side, mm, file: file.pread(-1, 0),
    "pread at -1": lambda side, mm, file: file.pread(1, -1),
    "pread at 16 TiB and 1": lambda side, mm, file: file.pread(1, (1 << 44) + 1),
    "pread at a string": lambda side, mm, file: file.pread(1, "0"),
    "gather of -1 bytes": lambda side, mm, file: file.gather([0], -1),
    "gather at -1": lambda side, mm, file: file.gather([0, -1], 1),
    "gather at 16 TiB and 1": lambda side, mm, file: file.gather([(1 << 44) + 1], 1),
    "gather at a string": lambda side, mm, file: file.gather([0, "0"], 1),
    "gather into too little": lambda side, mm, file: file.gather([0, 0], 8, out=bytearray(15)),
    "truncate to -1": lambda side, mm, file: file.truncate(-1),
    "truncate to 16 TiB and 1": lambda side, mm, file: file.truncate((1 << 44) + 1),
    "residency from -1": lambda side, mm, file: file.residency(-1),
    "filemap_fault of -1": lambda side, mm, file: file.filemap_fault(-1),
    "no such advice": lambda side, mm, file: file.advise("soon"),
    "no huge pages yet": lambda side, mm, file: file.advise("hugepage"),
    "store of -1 bytes": lambda side, mm, file: side.cache.open_store(PatternStore(0, 0), -1),
    "no such locking": lambda side, mm, file: side.subject.Mm(side.cache, locking="none"),
    "fault_around of 3 pages": lambda side, mm, file: side.subject.Mm(side.cache, fault_around=3 * PAGE),
    "fault_around of 4 MiB": lambda side, mm, file: side.subject.Mm(side.cache, fault_around="4MiB"),
    "capacity of 0": lambda side, mm, file: side.subject.PageCache(0),
    "capacity of much": lambda side, mm, file: side.subject.PageCache("much"),
    "mmap from 100": lambda side, mm, file: mm.mmap(file, PAGE, 100),
    "mmap of 0 bytes": lambda side, mm, file: mm.mmap(file, 0),
    "mmap from beyond the end": lambda side, mm, file: mm.mmap(file, None, 1 << 30),
    "mmap x": lambda side, mm, file: mm.mmap(file, PAGE, prot="x"),
    "mmap shared rw": lambda side, mm, file: mm.mmap(file, PAGE, prot="rw"),
    "munmap at 100": lambda side, mm, file: mm.munmap(BASE + 100, PAGE),
    "munmap of 0 bytes": lambda side, mm, file: mm.munmap(BASE, 0),
    "munmap of nothing": lambda side, mm, file: mm.munmap(1 << 46, PAGE),
    "mprotect of a hole": lambda side, mm, file: mm.mprotect(1 << 46, PAGE, "r"),
    "mprotect x": lambda side, mm, file: mm.mprotect(BASE, PAGE, "x"),
    "madvise of a hole": lambda side, mm, file: mm.madvise(1 << 46, PAGE, "random"),
    "madvise dontneed of a hole": lambda side, mm, file: mm.madvise(1 << 46, PAGE, "dontneed"),
    "madvise willneed of a hole": lambda side, mm, file: mm.madvise(1 << 46, PAGE, "willneed"),
    "no such madvise": lambda side, mm, file: mm.madvise(BASE, PAGE, "soon"),
    "touch with stride 0": lambda side, mm, file: mm.touch(BASE, PAGE, stride=0),
}

CLOSED: dict[str, Callable[[Any, Any], object]] = {
    "pread": lambda mm, file: file.pread(1, 0),
    "preadinto": lambda mm, file: file.preadinto(bytearray(1), 0),
    "gather": lambda mm, file: file.gather([0], 1),
    "gather of nothing": lambda mm, file: file.gather([], 1),
    "size": lambda mm, file: file.size,
    "readahead_state": lambda mm, file: file.readahead_state,
    "truncate": lambda mm, file: file.truncate(0),
    "advise": lambda mm, file: file.advise("normal"),
    "residency": lambda mm, file: file.residency(),
    "filemap_fault": lambda mm, file: file.filemap_fault(0),
    "revalidate": lambda mm, file: file.revalidate(),
    "mmap": lambda mm, file: mm.mmap(file, PAGE),
}
