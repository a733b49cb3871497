"""The running kernel's page cache and address space, page by page, as the other side of a comparison.

What is asked: cachestat(2) which pages are there, read or not; mincore(2) which have their bytes;
/proc/self/pagemap which are mapped.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import time
from pathlib import Path

PAGE = 4096
CACHESTAT = 451  # its number, the same on every architecture that has it
MADV = {"normal": 0, "random": 1, "sequential": 2, "willneed": 3, "dontneed": 4}
FADV = {
    "normal": os.POSIX_FADV_NORMAL,
    "random": os.POSIX_FADV_RANDOM,
    "sequential": os.POSIX_FADV_SEQUENTIAL,
    "willneed": os.POSIX_FADV_WILLNEED,
    "dontneed": os.POSIX_FADV_DONTNEED,
}

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
for call in (libc.madvise, libc.mprotect):
    call.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class Unfit(Exception):  # noqa: N818 - it says why a test is skipped
    """This machine cannot be compared with, and why."""


def system_call(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class _Range(ctypes.Structure):
    _fields_ = [("offset", ctypes.c_uint64), ("length", ctypes.c_uint64)]


class _Cached(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("cache", "dirty", "writeback", "evicted", "recently")]


class KernelFile:
    """A file that the kernel can be made to forget, and one open of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self.fd).st_size
        self.pages = -(-self.size // PAGE)
        self.look = libc.mmap(None, self.pages * PAGE, mmap.PROT_READ, mmap.MAP_SHARED, self.fd, 0)
        self.reopen()

    def reopen(self) -> None:
        """Another open, whose readahead knows nothing, over no pages at all."""
        os.close(self.fd)
        self.fd = os.open(self.path, os.O_RDONLY)
        for _ in range(2000):
            self.settle()
            self.advise("dontneed", 0, 0)
            if self.cached(0, self.pages) == 0:
                return
            time.sleep(0.001)
        raise Unfit("this file system keeps pages that are not needed")

    def close(self) -> None:
        libc.munmap(self.look, self.pages * PAGE)
        os.close(self.fd)

    def cached(self, first: int, count: int) -> int:
        """How many of these pages there are, those being read included."""
        asked, found = _Range(first * PAGE, count * PAGE), _Cached()
        if libc.syscall(CACHESTAT, self.fd, ctypes.byref(asked), ctypes.byref(found), 0) != 0:
            raise Unfit(f"no cachestat(2): {os.strerror(ctypes.get_errno())}")
        return int(found.cache)

    def residency(self) -> bytes:
        """One byte a page, 1 = there, read or not."""
        found = bytearray()
        pieces = [(0, self.pages)]
        while pieces:
            first, count = pieces.pop()
            cached = self.cached(first, count)
            if cached in (0, count):
                found += bytes([cached > 0]) * count
            else:
                half = count // 2
                pieces += [(first + half, count - half), (first, half)]
        return bytes(found)

    def settle(self) -> None:
        """Waits until what is being read has been read."""
        answers = ctypes.create_string_buffer(self.pages)
        for _ in range(2000):
            system_call(libc.mincore(self.look, self.pages * PAGE, answers))
            if self.pages - answers.raw.count(0) == self.cached(0, self.pages):
                return
            time.sleep(0.001)
        raise Unfit("pages that are there are not read")

    def advise(self, advice: str, offset: int, length: int) -> None:
        os.posix_fadvise(self.fd, offset, length, FADV[advice])

    @property
    def ra_pages(self) -> int:
        """The largest window of a file on this device."""
        device = os.fstat(self.fd).st_dev
        told = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
        if not told.exists():
            raise Unfit("the readahead of this file system is nowhere told")
        return int(told.read_text()) * 1024 // PAGE

    @property
    def io_pages(self) -> int:
        """What one call may ask this device for."""
        device = os.fstat(self.fd).st_dev
        block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
        for folder in (block, block.parent):  # a partition's queue is its disk's
            told = folder / "queue" / "max_sectors_kb"
            if told.exists():
                return int(told.read_text()) * 1024 // PAGE
        raise Unfit("the largest request of this device is nowhere told")


class KernelMm:
    """Addresses that nothing else is given, from the start of a leaf table: as if from 0 on."""

    base = 0x2000_0000_0000

    def __init__(self) -> None:
        self.pieces: list[tuple[int, int]] = []

    def close(self) -> None:
        for addr, length in self.pieces:
            self.munmap(addr, length)

    def mmap(self, file: KernelFile, addr: int, length: int, offset: int, *, prot: str, shared: bool) -> None:
        noreplace = 0x100000  # MAP_FIXED_NOREPLACE
        kind = (mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE) | noreplace
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if prot == "rw" else 0)
        if libc.mmap(self.base + addr, length, protection, kind, file.fd, offset) != self.base + addr:
            raise OSError(ctypes.get_errno(), "mmap")
        self.pieces.append((addr, length))

    def munmap(self, addr: int, length: int) -> None:
        system_call(libc.munmap(self.base + addr, length))

    def mprotect(self, addr: int, length: int, prot: str) -> None:
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if prot == "rw" else 0)
        system_call(libc.mprotect(self.base + addr, length, protection))

    def madvise(self, addr: int, length: int, advice: str) -> bool:
        """False: not all of the range is mapped."""
        if libc.madvise(self.base + addr, length, MADV[advice]) == 0:
            return True
        if ctypes.get_errno() != errno.ENOMEM:
            raise OSError(ctypes.get_errno(), "madvise")
        return False

    def touch(self, addr: int, *, write: bool) -> None:
        byte = ctypes.c_ubyte.from_address(self.base + addr)
        if write:
            byte.value = 1  # without a look, which would be a fault of its own
        else:
            _ = byte.value

    def mapped(self, addr: int, length: int) -> bytes:
        """One byte a page, as `Mm.pagemap`: 1 = its entry is present, 4 = it names a private copy."""
        with Path("/proc/self/pagemap").open("rb", buffering=0) as pagemap:
            told = os.pread(pagemap.fileno(), length // PAGE * 8, (self.base + addr) // PAGE * 8)
        high = told[7::8]  # bit 7: present; bit 5: a page of a file
        return bytes(5 - 4 * (bits >> 5 & 1) if bits >> 7 else 0 for bits in high)
