"""zarr's stores, read through one page cache under a memory limit.

    import zarr, specmm.zarr

    zarr.open(specmm.zarr.CachedStore("data.zarr"), mode="r")          # a folder
    zarr.open(specmm.zarr.CachedZipStore("data.zarr.zip"), mode="r")   # a zip archive

They share the process-wide cache (`specmm.configure` sets its capacity) unless a `PageCache` is given. For
what fsspec reads, put `specmm::` in front of the URL.
"""

from __future__ import annotations

import asyncio
import errno
import operator
import os
import pathlib
import stat
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, Self

try:
    from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
except ImportError as error:
    raise ImportError("specmm.zarr needs zarr 3: pip install 'specmm[zarr]'") from error

from zarr.core.buffer import default_buffer_prototype
from zarr.storage import LocalStore, ZipStore

from specmm._core import PAGE_SIZE, File, PageCache, may_stay_open, open_regular
from specmm._default import default_cache
from specmm._remote import open_object

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

__all__ = ["CachedStore", "CachedZipStore"]

_ATTEMPTS = 20
"""How often a file may change under one read before that is an error."""
_RA_PAGES = 1024
"""Largest readahead window, in pages."""


class CachedStore(LocalStore):
    """`zarr.storage.LocalStore`, reading through a cache.

    cache: the process-wide one unless given.

    Each read checks the file's size, times and inode first: a file that anybody changed is read again. Files
    are not kept open. Writes are those of `LocalStore`.
    """

    def __init__(
        self, root: pathlib.Path | str, *, read_only: bool = False, cache: PageCache | None = None
    ) -> None:
        super().__init__(root, read_only=read_only)
        self._cache = cache

    def with_read_only(self, read_only: bool = False) -> Self:
        return type(self)(self.root, read_only=read_only, cache=self._cache)

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        if not self._is_open:
            await self._open()
        return await asyncio.to_thread(self._read, key, prototype, byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return await asyncio.gather(*(self.get(key, prototype, byte_range) for key, byte_range in key_ranges))

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        self._ensure_open_sync()
        return self._read(key, prototype, byte_range)

    def _read(
        self, key: str, prototype: BufferPrototype | None, byte_range: ByteRequest | None
    ) -> Buffer | None:
        path = self.root / key
        for _ in range(_ATTEMPTS):
            try:
                file = self._file(path)
                if file is None:
                    return None
                start, stop = _bounds(byte_range, file.size)
                data = file.pread(max(stop - start, 0), start)
            except (FileNotFoundError, NotADirectoryError):
                return None
            except OSError as error:
                # It was replaced between the check and the read.
                if error.errno != errno.ESTALE:
                    raise
            else:
                return (prototype or default_buffer_prototype()).buffer.from_bytes(data)
        raise OSError(errno.ESTALE, f"changed {_ATTEMPTS} times while it was read", str(path))

    def _file(self, path: pathlib.Path) -> File | None:
        """The file in the cache, as it is now; None if it is not a regular file."""
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            return None
        if found.st_size == 0:
            # Refuses files that only claim to be empty, as those of /proc do.
            os.close(open_regular(path))
        version = _version(found)
        file, _ = open_object(
            self._cache or default_cache(),
            (_Unopened, str(path)),
            version,
            found.st_size,
            _Unopened(path, version),
            name=str(path),
            # A value is mostly read whole.
            ra_pages=min(-(-found.st_size // PAGE_SIZE), _RA_PAGES),
        )
        return file


def _version(found: os.stat_result) -> tuple[int, ...]:
    """Changes whenever the file does."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class _Unopened:
    """A file as a store that opens it for each read: there may be more files than can be open at once."""

    def __init__(self, path: pathlib.Path, version: tuple[int, ...]) -> None:
        self._path = path
        self._version = version

    def read_at(self, offset: int, n: int, /) -> memoryview:
        data = memoryview(bytearray(n))
        with os.fdopen(self._open(), "rb", buffering=0) as file:
            got = 0
            # Both before and after the read, as somebody may be writing to it.
            self._check(file.fileno())
            while got < n and (more := os.preadv(file.fileno(), [data[got:]], offset + got)):
                got += more
            self._check(file.fileno())
        return data[:got]

    def _open(self) -> int:
        try:
            return open_regular(self._path)
        except OSError as error:
            # It is no longer a regular file.
            raise self._stale() if error.errno in (errno.EINVAL, errno.EISDIR) else error from None

    def _check(self, fd: int) -> None:
        if _version(os.fstat(fd)) != self._version:
            raise self._stale()

    def _stale(self) -> OSError:
        return OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(self._path))


class CachedZipStore(ZipStore):
    """`zarr.storage.ZipStore`, opened for reading, through a cache.

    cache: the process-wide one unless given.

    Uncompressed members, which is how zarr writes them, can be read by any number of threads at once, and in
    parts without the rest. Compressed members are read one at a time. The archive must not change meanwhile.
    """

    def __init__(self, path: pathlib.Path | str, *, cache: PageCache | None = None) -> None:
        super().__init__(path, mode="r", read_only=True)
        self._cache = cache

    def _sync_open(self) -> None:
        # First, because it refuses anything but regular files, which zarr would wait for.
        # With zarr it is no mistake to leave a store unclosed.
        file = may_stay_open((self._cache or default_cache()).open(self.path))
        super()._sync_open()
        # Replaces the archive that zarr opened with one that reads through the cache.
        self._zf.close()
        self._file = file
        self._zf = zipfile.ZipFile(self._file.as_raw())

    def close(self) -> None:
        # zarr's own cannot be closed before the first read has opened it.
        if self._is_open:
            super().close()
            self._file.close()

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        if not self._is_open:
            self._sync_open()
        return await asyncio.to_thread(self._read, key, prototype, byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return await asyncio.gather(*(self.get(key, prototype, byte_range) for key, byte_range in key_ranges))

    def _read(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None) -> Buffer | None:
        try:
            member = self._zf.getinfo(key)
        except KeyError:
            return None
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            with self._lock:
                return self._get(key, prototype, byte_range)
        start, stop = _bounds(byte_range, member.file_size)
        data = self._file.pread(max(stop - start, 0), self._data_of(member) + start)
        # There is no checksum of a part.
        if len(data) == member.file_size and zlib.crc32(data) != member.CRC:
            raise zipfile.BadZipFile(f"bad CRC-32 of {key!r} in {str(self.path)!r}")
        return prototype.buffer.from_bytes(data)

    def _data_of(self, member: zipfile.ZipInfo) -> int:
        """Where a member's bytes begin: after a header with two lengths that are not in the directory."""
        header = self._file.pread(30, member.header_offset)
        if len(header) != 30 or header[:4] != b"PK\3\4":
            raise zipfile.BadZipFile(f"no header of {member.filename!r} in {str(self.path)!r}")
        name, extra = struct.unpack("<HH", header[26:30])
        return int(member.header_offset + 30 + name + extra)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_file"}


def _bounds(byte_range: ByteRequest | None, size: int) -> tuple[int, int]:
    """Where a request for part of a value begins and ends; an end before the beginning requests nothing."""
    match byte_range:
        case None:
            return 0, size
        # numpy's integers would wrap around.
        case RangeByteRequest(start, end):
            return operator.index(start), min(operator.index(end), size)
        case OffsetByteRequest(offset):
            return operator.index(offset), size
        case SuffixByteRequest(suffix):
            return max(size - operator.index(suffix), 0), size
    raise TypeError(f"Unexpected byte_range, got {byte_range}.")
