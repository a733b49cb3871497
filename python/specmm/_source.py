"""An object of a file system, open for reading by range, in any thread, in one version.

Owns: how the bytes are fetched, the object's identity and version, and whether it is still that version. If a
file is replaced while it is open, reads return the old bytes if the open file keeps them, and fail otherwise.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import errno
import hashlib
import io
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

from fsspec.implementations.cached import CachingFileSystem
from fsspec.implementations.chained import ChainedFileSystem
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from specmm._identity import (
    Stamp,
    alone,
    archive_of,
    descriptor_of,
    differ,
    frozen,
    identity_of,
    is_poor,
    options_of,
    own_archive,
    state_of,
    turn,
    version_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

_ATTEMPTS = 5
"""How often an object may be replaced while it is being opened."""
_CHUNK = 1 << 20
SHARE = 4
"""An object that must be read whole may take this share of the cache."""


class Source(abc.ABC):
    """An object that is read."""

    fs: Any
    name: str
    key: Hashable | None
    """Which object it is; None: unlike any other."""
    version: Hashable
    size: int
    details: dict[str, Any]
    limit = 0
    """How many bytes may be read whole if ranges turn out not to be supported."""

    @abc.abstractmethod
    def fetch(self, start: int, stop: int, /) -> bytes:
        """These bytes, all within the object, on any thread."""

    def seek(self, at: int, offset: int, whence: int) -> int:
        """The position after a seek to a place outside the object."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: at, os.SEEK_END: self.size}.get(whence)
        if start is None or start + offset < 0:
            raise ValueError(f"no such place in {self.name!r}: offset {offset}, whence {whence}, from {at}")
        return start + offset


class _Opened:
    """A file that is closed when nobody uses it any more, so never under a thread that is reading."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __del__(self) -> None:
        # Whoever dropped it last has nothing to do with a failure to close it.
        with contextlib.suppress(Exception):
            self.file.close()


def _is_replaced(fs: Any, look: Callable[[], dict[str, Any]] | None, details: dict[str, Any]) -> bool:
    """Whether the object has another version by now than these details, as far as can be told."""
    then = state_of(details)
    if look is None or not then.keys() - {"size"}:
        return False
    with turn(fs):
        now = look()
    return differ(state_of(now), then)


def _stale(name: str) -> OSError:
    return OSError(errno.ESTALE, "it was replaced while it was open, or written to: open it again", name)


class _Regular(Source):
    """A regular file on this machine."""

    def __init__(self, fs: Any, name: str, opened: _Opened, descriptor: int, details: dict[str, Any]) -> None:
        self._opened = opened
        self._stamp = Stamp(descriptor)
        self.fs, self.name = fs, name
        self.key = _Regular, self._stamp.key
        self.version, self.size = self._stamp.version, self._stamp.found.st_size
        self.details = {**details, "size": self.size}

    def fetch(self, start: int, stop: int, /) -> bytes:
        parts = []
        while start < stop and (part := os.pread(self._stamp.descriptor, stop - start, start)):
            parts.append(part)
            start += len(part)
        if not self._stamp.is_unchanged():
            raise _stale(self.name)
        return b"".join(parts)

    def seek(self, at: int, offset: int, whence: int) -> int:
        if whence in (os.SEEK_DATA, os.SEEK_HOLE):
            # Reads do not depend on the position that this moves.
            return os.lseek(self._stamp.descriptor, offset, whence)
        return super().seek(at, offset, whence)


class _Whole(Source):
    """Bytes that are already in memory."""

    def __init__(self, fs: Any, name: str, data: bytes, details: dict[str, Any]) -> None:
        self.fs, self.name = fs, name
        self._data = data
        self.key, self.version = (_Whole, hashlib.blake2b(data).digest()), None
        self.size = len(data)
        self.details = {**details, "size": self.size}

    def fetch(self, start: int, stop: int, /) -> bytes:
        return self._data[start:stop]

    def seek(self, at: int, offset: int, whence: int) -> int:
        # As `io.BytesIO` does it, which stays at the start.
        if whence in (os.SEEK_CUR, os.SEEK_END):
            return max((at if whence == os.SEEK_CUR else self.size) + offset, 0)
        return super().seek(at, offset, whence)


class _Ranged(Source):
    """An object fetched by range requests, each of which sees whatever is there by then."""

    def __init__(
        self,
        fs: Any,
        name: str,
        fetch: Callable[[int, int], bytes],
        size: int,
        details: dict[str, Any],
        *,
        key: Hashable | None,
        options: dict[str, Any],
        look: Callable[[], dict[str, Any]] | None,
    ) -> None:
        # The file's size, which may differ from the one that is reported.
        self.fs, self.name, self.size, self.details = fs, name, size, {**details, "size": size}
        self._told = details
        self.key = None if key is None else (_Ranged, identity_of(fs), name, key)
        self.version = version_of(details)
        self._fetch, self._options = fetch, options
        self._look = look
        self._refused: Exception | None = None
        self._whole: bytes | None = None
        # One per process: a forked child would find it as it was.
        self._alone: dict[int, threading.RLock] = {}
        self._is_stale = False

    def fetch(self, start: int, stop: int, /) -> bytes:
        if self._is_stale:
            raise _stale(self.name)
        if self._refused is not None:
            return self._from_whole(start, stop, self._refused)
        try:
            with turn(self.fs):
                data = self._fetch(start, stop)
        except (ValueError, NotImplementedError) as error:
            # fsspec's way to say that a server does not support ranges; elsewhere it means an error.
            if not _is_http(self.fs) and not isinstance(error, NotImplementedError):
                raise
            return self._from_whole(start, stop, error)
        if len(data) != stop - start and _is_http(self.fs) and self.size <= self.limit:
            # Parts of what the server compressed.
            return self._from_whole(start, stop, ValueError(f"{len(data)} bytes of {stop - start}"))
        self._check()
        return data

    def _from_whole(self, start: int, stop: int, refused: Exception) -> bytes:
        """These bytes out of the whole object, where ranges are not supported."""
        self._refused = refused
        # Of several windows refused at once, one reads the object for all.
        with self._alone.setdefault(os.getpid(), threading.RLock()):
            whole = self._whole
            if whole is None:
                whole = self._all(refused)
                self._check()
                self._whole = whole
        return whole[start:stop]

    def _all(self, refused: Exception) -> bytes:
        if self.size > self.limit:
            raise _too_large(self.name, f"{self.size} bytes", self.limit) from refused
        with turn(self.fs):
            whole = _read_whole(self.fs, self.name, self._options, self.limit)
        if len(whole) != self.size:
            raise OSError(
                errno.EIO, f"it has {len(whole)} bytes, but had {self.size} when it was opened", self.name
            ) from refused
        return whole

    def _check(self) -> None:
        """Raises ESTALE unless the object still has the version that was opened."""
        if _is_replaced(self.fs, self._look, self._told):
            self._is_stale = True
            raise _stale(self.name)


class _Sought(Source):
    """A seekable object for one reader at a time, such as a member of an archive."""

    def __init__(
        self,
        fs: Any,
        name: str,
        opened: _Opened,
        size: int,
        details: dict[str, Any],
        options: dict[str, Any],
        *,
        look: Callable[[], dict[str, Any]] | None,
    ) -> None:
        self._opened, self._pid = opened, os.getpid()
        self._look, self._options = look, options
        self.fs, self.name, self.size, self.details = fs, name, size, {**details, "size": size}
        self._told = details
        self.version = version_of(details)
        inside = archive_of(fs)
        if inside is None:
            self._stamp = None
            self.key = _Sought, identity_of(fs), name, frozen(options)
        else:
            identity, self._stamp = inside
            self.key = _Sought, identity, name, frozen(options)
            self.version = self.version, self._stamp.version
        if look is None:
            self.key = None

    def fetch(self, start: int, stop: int, /) -> bytes:
        parts = []
        with alone(self.fs):
            if self._pid != os.getpid():
                again = own_archive(self.fs).open(self.name, "rb", **self._options)
                self._opened, self._pid = _Opened(again), os.getpid()
            file = self._opened.file
            file.seek(start)
            while start < stop and (part := file.read(stop - start)):
                parts.append(part)
                start += len(part)
        if self._stamp is not None:
            is_changed = not self._stamp.is_unchanged()
        else:
            is_changed = _is_replaced(self.fs, self._look, self._told)
        if is_changed:
            raise _stale(self.name)
        return b"".join(parts)

    def seek(self, at: int, offset: int, whence: int) -> int:
        # Seeks in archives stay within the member.
        with alone(self.fs):
            self._opened.file.seek(at)
            return int(self._opened.file.seek(offset, whence))


class _Unknown(Source):
    """A function that fetches, about which nothing else is known."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        self.fs, self.name, self.key, self.version, self.size = None, "", None, None, size
        self.details = {}
        self._fetch = fetch

    def fetch(self, start: int, stop: int, /) -> bytes:
        return self._fetch(start, stop)


def open_source(
    fs: Any, path: str, options: dict[str, Any], limit: Callable[[], int], block_size: int | None = None
) -> Source:
    """Opens an object as the file system itself opens it, with these options of its `open`.

    limit: how many bytes may be read whole if the object cannot be read in parts. Raises what the file system
    raises; OSError for what is not a file, or is larger than the limit and cannot be read in parts.
    """
    with turn(fs):
        for _ in range(_ATTEMPTS):
            details, understood = _info(fs, path, options)
            if details.get("type") == "other":
                # Before it is opened, which could block.
                raise OSError(errno.EINVAL, "not a regular file", path)
            source = _open(fs, path, options, details, understood, limit, block_size)
            if source is not None:
                return source
    raise OSError(errno.ESTALE, f"it was replaced {_ATTEMPTS} times while it was being opened", path)


def _open(
    fs: Any,
    path: str,
    options: dict[str, Any],
    details: dict[str, Any],
    understood: bool,
    limit: Callable[[], int],
    block_size: int | None,
) -> Source | None:
    """None if it is another object by now than the one whose details these are."""
    size, is_whole = details.get("size"), _is_http(fs) and details.get("partial") is False
    asked = dict(options)
    if block_size:
        asked["block_size"] = block_size
    if _is_http(fs):
        # So that it does not ask the server again. Without a size it is opened as a stream.
        asked = {**({"size": size} if size and not is_whole else {"size": 1, "block_size": 0}), **asked}
    file = own_archive(fs).open(path, "rb", **asked)
    opened = _Opened(file)
    if details.get("type") == "directory":
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    descriptor = descriptor_of(file)
    if descriptor is not None:
        return _Regular(fs, path, opened, descriptor, details)
    if type(file) is io.BytesIO or _is_memory(file):
        # They may be written to in place: this copy stays as it is, and costs nothing extra.
        return _Whole(fs, path, file.getvalue(), details)
    size = _size_of(file)
    if size is None or is_whole or not (hasattr(file, "seekable") and file.seekable()):
        return _Whole(fs, path, _drain(file, path, limit()), details)
    look: Callable[[], dict[str, Any]] | None
    # Bytes kept on disk are read from there only through the file's own cache.
    if not isinstance(file, AbstractBufferedFile) or isinstance(fs, CachingFileSystem):
        look = _looker(fs, path, options) if understood else None
        return _Sought(fs, path, opened, size, details, options, look=look)

    own = {} if is_poor(file.details) else file.details
    look = _looker(fs, path, options if understood else {})
    if own and differ(state_of(own), state_of(details)):
        if not options:
            return None
        # The path's details are those of another version than requested.
        look = None
    elif not understood:
        look = None

    def fetch(start: int, stop: int) -> bytes:
        data: bytes = opened.file._fetch_range(start, stop)
        return data

    details = own or details
    # Without a version of its own, it does not share pages.
    key = (type(file), frozen(options), options_of(file)) if own or understood else None
    return _Ranged(fs, path, fetch, size, details, key=key, options=options, look=look)


def source_of(fetcher: Any, size: int) -> Source:
    """The source of a file's fetcher. Nothing is known of one that is not a method of a file."""
    file = getattr(fetcher, "__self__", None)
    source: Source | None = getattr(file, "source", None)
    if source is not None:
        return source
    fs, path = getattr(file, "fs", None), getattr(file, "path", None)
    if fs is None or not isinstance(path, str) or not isinstance(file, AbstractBufferedFile):
        return _Unknown(fetcher, size)
    options = dict(file.kwargs)
    version = getattr(file, "version_id", None)
    if version is not None:
        options["version_id"] = version
    details = dict(file.details)
    look: Callable[[], dict[str, Any]] | None = _looker(fs, path, options)
    key: Hashable | None = (type(file), options_of(file))
    if details.get("size") not in (None, size):
        # It was opened with another size than it has by now.
        raise _stale(path)
    if is_poor(details) or options:
        with turn(fs):
            told, understood = _info(fs, path, options)
        if not is_poor(details):
            if not understood or differ(state_of(told), state_of(details)):
                look = None
        elif not understood:
            look = key = None
        elif told.get("size") not in (None, size):
            raise _stale(path)
        else:
            details = told
    return _Ranged(fs, path, fetcher, size, details, key=key, options=dict(file.kwargs), look=look)


def _looker(fs: Any, path: str, options: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    def look() -> dict[str, Any]:
        details, _ = _info(fs, path, options)
        return details

    return look


def _info(fs: Any, path: str, options: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """What the file system reports of an object, and whether it took these options into account."""
    if isinstance(fs, CachingFileSystem):
        # It looks objects up in listings, which HTTP does not have.
        fs = fs.fs
        path = fs._strip_protocol(path)
    # `size` is an assumption for `open`, not part of the question.
    options = {name: value for name, value in options.items() if name != "size"}
    try:
        return fs.info(path, **options), True
    except TypeError:
        if not options:
            raise
    except Exception as error:
        # This is how HTTP reports an unknown option.
        if isinstance(error.__cause__, TypeError):
            raise error.__cause__ from None
        # `open` decides whether it can be opened all the same.
        return {"name": path, "type": "file"}, False
    # The options are for `open` alone.
    return fs.info(path), False


def _size_of(file: Any) -> int | None:
    size = getattr(file, "size", None)
    if size is None and not isinstance(file, AbstractBufferedFile) and file.seekable():
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
    return None if size is None else int(size)


def _read_whole(fs: Any, path: str, options: dict[str, Any], limit: int) -> bytes:
    if not _is_http(fs):
        whole: bytes = fs.cat_file(path, **options)
        return whole
    # As a stream, which can be abandoned. The size only keeps it from being requested.
    with fs.open(path, "rb", **{**options, "block_size": 0, "size": 1}) as stream:
        return _drain(stream, path, limit)


def _drain(file: Any, name: str, limit: int) -> bytes:
    """All bytes of a file, up to the limit."""
    whole = bytearray()
    while part := file.read(_CHUNK):
        whole += part
        if len(whole) > limit:
            raise _too_large(name, f"more than {limit} bytes", limit)
    return bytes(whole)


def _too_large(name: str, size: str, limit: int) -> OSError:
    return OSError(
        errno.EFBIG,
        f"it has {size} and cannot be read in parts: the server reports no size or does not support ranges. "
        f"At most {limit} bytes, a quarter of the cache, are read whole. Use a larger cache, copy the object "
        "with get(), or read it without specmm",
        name,
    )


def _is_http(fs: Any) -> bool:
    module = sys.modules.get("fsspec.implementations.http")
    while isinstance(fs, DirFileSystem):
        fs = fs.fs
    return module is not None and isinstance(fs, module.HTTPFileSystem)


def _is_memory(file: Any) -> bool:
    module = sys.modules.get("fsspec.implementations.memory")
    return module is not None and type(file) is module.MemoryFile


def refuse_inside_loop(source: Source) -> None:
    """NotImplementedError, as in fsspec, if a read would wait for the event loop that it blocks."""
    running = asyncio._get_running_loop()
    if running is not None and any(loop is running for loop in _loops(source.fs)):
        raise NotImplementedError(
            f"{source.name!r} cannot be read inside the event loop that fetches it, which would wait for "
            "itself: read it in a thread, with asyncio.to_thread"
        )


def _loops(fs: Any) -> list[Any]:
    """The event loops with which a file system, and all those behind it, fetch."""
    loops, todo, seen = [], [fs], list[Any]()
    while todo:
        each = todo.pop()
        if each is None or any(each is one for one in seen):
            continue
        seen.append(each)
        if getattr(each, "async_impl", False) and not isinstance(each, ChainedFileSystem):
            loops.append(getattr(each, "_loop", None))
        # Wrapped file systems, archives and their files.
        for name in ("fs", "fo", "of", "fileobj", "raw", "f"):
            behind = getattr(each, name, None)
            if isinstance(behind, AbstractFileSystem) or hasattr(behind, "read") or hasattr(behind, "fs"):
                todo.append(behind)
    return [loop for loop in loops if loop is not None]
