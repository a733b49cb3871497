"""What people pick to read a file again and again, each with the same face.

A rival is made with a path and a bound of memory in bytes; `read(offset)` gives `SIZE` bytes from there.
"""

import mmap
import os
import tempfile
import threading
from pathlib import Path

SIZE = 4096
BLOCK = 64 << 10


class Specmm:
    """`File.pread` of this project."""

    def __init__(self, path, bound, pattern):
        import specmm

        self._cache = specmm.PageCache(bound)
        self.file = self._cache.open(path)
        self.file.advise("normal" if pattern == "sequential" else "random")
        pread = self.file.pread
        self.read = lambda offset: pread(SIZE, offset)

    def close(self):
        self._cache.close()


class _OnDescriptor:
    def __init__(self, path, bound, pattern):
        self._fd = os.open(path, os.O_RDONLY)
        if pattern != "sequential":
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_RANDOM)
        self._size = os.fstat(self._fd).st_size
        self._prepare(bound)

    def _fetch(self, start, end):
        return os.pread(self._fd, end - start, start)

    def close(self):
        os.close(self._fd)


class Pread(_OnDescriptor):
    """`os.pread`: no cache in the process."""

    def _prepare(self, bound):
        fd, pread = self._fd, os.pread
        self.read = lambda offset: pread(fd, SIZE, offset)


class MmapSlice:
    """A slice of `mmap.mmap`."""

    def __init__(self, path, bound, pattern):
        with Path(path).open("rb") as file:
            self._map = data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        if pattern != "sequential":
            data.madvise(mmap.MADV_RANDOM)
        self.read = lambda offset: data[offset : offset + SIZE]

    def close(self):
        self._map.close()


class Memmap:
    """`np.memmap`, a copy of a slice."""

    def __init__(self, path, bound, pattern):
        import numpy as np

        self._map = data = np.memmap(path, dtype=np.uint8, mode="r")
        if pattern != "sequential":
            data._mmap.madvise(mmap.MADV_RANDOM)
        self.read = lambda offset: data[offset : offset + SIZE].tobytes()

    def close(self):
        del self._map, self.read


class FsspecBlocks(_OnDescriptor):
    """fsspec's "blockcache": least recently used blocks of 64 KiB. It has no lock, so each thread has one."""

    def _prepare(self, bound):
        from fsspec.caching import BlockCache

        local = threading.local()

        def read(offset):
            try:
                fetch = local.fetch
            except AttributeError:
                made = BlockCache(BLOCK, self._fetch, self._size, maxblocks=max(bound // BLOCK, 1))
                fetch = local.fetch = made._fetch
            return fetch(offset, offset + SIZE)

        self.read = read


class FsspecReadahead(_OnDescriptor):
    """fsspec's "readahead", its default: one window behind which it reads 64 KiB on. One for each thread."""

    def _prepare(self, bound):
        from fsspec.caching import ReadAheadCache

        local = threading.local()

        def read(offset):
            try:
                fetch = local.fetch
            except AttributeError:
                fetch = local.fetch = ReadAheadCache(BLOCK, self._fetch, self._size)._fetch
            return fetch(offset, offset + SIZE)

        self.read = read


class DiskCache(_OnDescriptor):
    """`diskcache.Cache` of pages: SQLite on disk, in a temporary folder. Its bound is one of the disk."""

    def _prepare(self, bound):
        import diskcache

        self._folder = tempfile.TemporaryDirectory(prefix="specmm-bench-")
        self._cache = cache = diskcache.Cache(
            self._folder.name, size_limit=bound, eviction_policy="least-recently-used"
        )

        def read(offset):
            page = cache.get(offset)
            if page is None:
                page = self._fetch(offset, offset + SIZE)
                cache.set(offset, page)
            return page

        self.read = read

    def close(self):
        self._cache.close()
        self._folder.cleanup()
        super().close()


class CacheTools(_OnDescriptor):
    """`cachetools.LRUCache` of pages, under the lock that its documentation asks for."""

    def _prepare(self, bound):
        from cachetools import LRUCache

        pages, lock = LRUCache(maxsize=max(bound // SIZE, 1)), threading.Lock()

        def read(offset):
            with lock:
                page = pages.get(offset)
            if page is None:
                page = self._fetch(offset, offset + SIZE)
                with lock:
                    pages[offset] = page
            return page

        self.read = read


class Dict(_OnDescriptor):
    """A dict of pages that only grows."""

    def _prepare(self, bound):
        pages = {}

        def read(offset):
            page = pages.get(offset)
            if page is None:
                page = pages[offset] = self._fetch(offset, offset + SIZE)
            return page

        self.read = read


RIVALS = {
    "specmm": Specmm,
    "os.pread": Pread,
    "mmap slice": MmapSlice,
    "np.memmap": Memmap,
    "fsspec blockcache": FsspecBlocks,
    "fsspec readahead": FsspecReadahead,
    "diskcache": DiskCache,
    "cachetools.LRUCache": CacheTools,
    "dict of pages": Dict,
}
