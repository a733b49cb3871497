"""Ways to read a file: each makes the same reads, as its users would write them."""

import mmap
import os
from collections.abc import Sequence
from typing import Any, Protocol

import specmm
from specmm import _core

PAGE = specmm.PAGE_SIZE

# A fault on a real mapping also maps what lies around it: by default, this much.
_FAULT_AROUND = 64 << 10


class Rival(Protocol):
    """One way to read."""

    def read(self, offset: int) -> bytes:
        """One read."""
        ...

    def many(self, offsets: Sequence[int]) -> None:
        """One read after another. The loop is inside, so that no call of ours is measured with each read."""
        ...

    def batch(self, offsets: Sequence[int]) -> bytes | bytearray:
        """All of them, in one call where the rival has one."""
        ...

    def counted(self) -> dict[str, int]:
        """Counters of its own, since it was opened."""
        ...

    def close(self) -> None:
        """Releases everything."""
        ...


class Specmm:
    """`File.pread` and `File.gather`."""

    def __init__(self, path: str, size: int, bound: int, pattern: str) -> None:
        self._cache = specmm.PageCache(bound)
        self._file = self._cache.open(path)
        self._file.advise("sequential" if pattern == "sequential" else "random")
        self._size = size

    def read(self, offset: int) -> bytes:
        return self._file.pread(self._size, offset)

    def many(self, offsets: Sequence[int]) -> None:
        pread, size = self._file.pread, self._size
        for offset in offsets:
            pread(size, offset)

    def batch(self, offsets: Sequence[int]) -> bytes | bytearray:
        return self._file.gather(offsets, self._size)

    def counted(self) -> dict[str, int]:
        # What readahead has started belongs to those who started it.
        self._cache.settle()
        stats = self._cache.stats()
        return {"hits": stats.hits, "misses": stats.misses, "store_bytes": stats.read_bytes}

    def close(self) -> None:
        self._cache.close()


class Pread:
    """`os.pread`: caches nothing itself; the kernel's page cache is under it."""

    def __init__(self, path: str, size: int, _bound: int, pattern: str) -> None:
        self._fd = _core.open_regular(path)
        how = os.POSIX_FADV_SEQUENTIAL if pattern == "sequential" else os.POSIX_FADV_RANDOM
        os.posix_fadvise(self._fd, 0, 0, how)
        self._size = size

    def read(self, offset: int) -> bytes:
        return os.pread(self._fd, self._size, offset)

    def many(self, offsets: Sequence[int]) -> None:
        pread, fd, size = os.pread, self._fd, self._size
        for offset in offsets:
            pread(fd, size, offset)

    def batch(self, offsets: Sequence[int]) -> bytes | bytearray:
        out = bytearray(self._size * len(offsets))
        rows = memoryview(out)
        fd, size, preadv = self._fd, self._size, os.preadv
        for at, offset in zip(range(0, len(out), size), offsets, strict=True):
            preadv(fd, [rows[at : at + size]], offset)
        return out

    def counted(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        os.close(self._fd)


class Mmap:
    """Slices of `mmap.mmap`, as most programs use it: nothing limits what stays resident."""

    def __init__(self, path: str, size: int, _bound: int, pattern: str) -> None:
        fd = _core.open_regular(path)
        try:
            self._map = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        finally:
            os.close(fd)
        self._map.madvise(mmap.MADV_SEQUENTIAL if pattern == "sequential" else mmap.MADV_RANDOM)
        self._size = size

    def read(self, offset: int) -> bytes:
        return self._map[offset : offset + self._size]

    def many(self, offsets: Sequence[int]) -> None:
        data, size = self._map, self._size
        for offset in offsets:
            data[offset : offset + size]

    def batch(self, offsets: Sequence[int]) -> bytes | bytearray:
        out = bytearray(self._size * len(offsets))
        data, size = self._map, self._size
        for at, offset in zip(range(0, len(out), size), offsets, strict=True):
            out[at : at + size] = data[offset : offset + size]
        return out

    def counted(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        self._map.close()


class BoundedMmap(Mmap):
    """The same, with everything mapped dropped (`MADV_DONTNEED`) whenever it could reach the limit.

    A read may map 64 KiB around each page it faults on, so it is charged that much. Nothing tells which pages
    are already mapped: dropping fewer of them would take bookkeeping.
    """

    def __init__(self, path: str, size: int, bound: int, pattern: str) -> None:
        super().__init__(path, size, bound, pattern)
        charge = (-(-size // _FAULT_AROUND) + 1) * _FAULT_AROUND
        self._every = max(bound // charge, 1)
        self._left = self._every

    def _drop_before(self, reads: int) -> None:
        if self._left < reads:
            self._map.madvise(mmap.MADV_DONTNEED)
            self._left = self._every
        self._left -= reads

    def read(self, offset: int) -> bytes:
        self._drop_before(1)
        return super().read(offset)

    def many(self, offsets: Sequence[int]) -> None:
        for at in range(0, len(offsets), self._every):
            part = offsets[at : at + self._every]
            self._drop_before(len(part))
            super().many(part)

    def batch(self, offsets: Sequence[int]) -> bytes | bytearray:
        if len(offsets) > self._every:
            return b"".join(map(self.read, offsets))
        self._drop_before(len(offsets))
        return super().batch(offsets)


RIVALS: dict[str, Any] = {"specmm": Specmm, "os.pread": Pread, "mmap": Mmap, "mmap, dropped": BoundedMmap}
"""By the names that the table shows; specmm first."""
