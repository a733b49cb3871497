"""fsspec's files, read through one page cache under a memory limit.

    import fsspec, specmm.fsspec

    fsspec.open("specmm::s3://bucket/key")                   # any file system, with the cache in front of it
    fs.open(path, cache_type="specmm")                       # the file system's own file, with this cache
    specmm.fsspec.open("s3://bucket/key")                    # a specmm.File, for many threads

All of them share the process-wide cache (`specmm.configure` sets its capacity) unless a `PageCache` is given.
Files of one object share its pages, even when opened one after the other, until the file system reports that
the object has changed.
"""

from __future__ import annotations

import functools
import math
import operator
import os
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

try:
    import fsspec
except ImportError as error:
    raise ImportError("specmm.fsspec needs fsspec: pip install 'specmm[fsspec]'") from error

from fsspec.caching import BaseCache, register_cache
from fsspec.implementations.chained import ChainedFileSystem
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem, make_instance
from fsspec.utils import tokenize

from specmm._core import PAGE_SIZE, File, PageCache, check_target, copy_into
from specmm._default import default_cache
from specmm._identity import own_archive, turn
from specmm._remote import Remote, open_object
from specmm._source import SHARE, Source, open_source, refuse_inside_loop, source_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["CachedFile", "CachedFileSystem", "SpecmmCache", "open"]


def open(
    urlpath: str,
    mode: str = "rb",
    *,
    fs: Any = None,
    cache: PageCache | None = None,
    ra_pages: int = 1024,
    **storage_options: Any,
) -> File:
    """Opens an object of any fsspec file system as a `specmm.File`.

    urlpath: a URL, which may be a chain, or a path of `fs` if that is given. mode: "rb" only. cache: the
    process-wide one unless given. ra_pages: largest readahead window, in pages. storage_options: for the file
    system of the URL.

    The pages belong to this File, because its owner may close it: keep the File, which any number of threads
    may read. The thread that runs the file system's event loop is refused (NotImplementedError), unless the
    bytes it reads are cached.

    ValueError for another mode; TypeError for options that would be ignored; OSError for an object that can
    only be read whole and is larger than a quarter of the cache; and whatever the file system raises.
    """
    if mode not in ("rb", "r"):
        raise ValueError(f"mode must be 'rb': {mode!r}")
    if fs is None:
        for name in _OF_OPEN & storage_options.keys():
            raise TypeError(f"specmm.fsspec.open has no option {name}: {storage_options[name]!r}")
        fs, path = fsspec.core.url_to_fs(urlpath, **storage_options)
    elif storage_options:
        raise TypeError(f"options for a file system that already exists: {sorted(storage_options)}")
    else:
        path = fs._strip_protocol(urlpath)
    cache = cache or default_cache()
    # Inside another cached file system, the bytes would be cached twice, and the inner read refused.
    limit = _limit_of(cache)
    source = open_source(_innermost(fs), path, {}, limit)
    source.limit = limit()
    return cache.open_store(_Object(source), source.size, name=path, ra_pages=ra_pages)


# Options of `fsspec.open` that fsspec drops when asked for the file system.
_OF_OPEN = {"compression", "encoding", "errors", "expand", "name_function", "newline", "num"}


def _limit_of(cache: PageCache | None) -> Callable[[], int]:
    """How many bytes of an object may be read whole."""

    def limit() -> int:
        return (cache or default_cache()).stats().capacity_frames * PAGE_SIZE // SHARE

    return limit


class _Object:
    """An object of a file system as a store."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def read_at(self, offset: int, n: int, /) -> ReadableBuffer:
        return self._source.fetch(offset, offset + n)

    def before_waiting(self) -> None:
        refuse_inside_loop(self._source)


class _Name(str):
    """The name of the cache type, which fsspec's files carry when they are pickled.

    Unpickling it imports this module, and so registers the cache type before fsspec looks for it.
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[Callable[[], str], tuple[()]]:
        return _name, ()


def _name() -> str:
    return SpecmmCache.name


class SpecmmCache(BaseCache):
    """fsspec's cache type "specmm": pages of a cache that all files share.

    blocksize: fsspec's block size, which becomes the largest readahead window. As `cache_options` it takes
    cache, a `PageCache` instead of the process-wide one, and ra_pages, the largest readahead window in pages.

    hit_count: reads found entirely in the cache; miss_count: other reads; total_requested_bytes: what was
    fetched through this file, readahead included.
    """

    name: ClassVar[str] = _Name("specmm")

    def __init__(
        self,
        blocksize: int,
        fetcher: Callable[[int, int], bytes],
        size: int,
        *,
        cache: PageCache | None = None,
        ra_pages: int | None = None,
    ) -> None:
        super().__init__(blocksize, fetcher, size)
        if size is None:
            raise ValueError("the cache type 'specmm' needs the size of the file, which is not known")
        self.nblocks = math.ceil(size / blocksize) if blocksize else 0
        self._ra_pages = ra_pages
        self._cache = cache
        self._source: Source | None = None
        self._opened: tuple[File, Remote] | None = None

    @property
    def total_requested_bytes(self) -> int:
        return sum(list(self._requested.values()))

    @total_requested_bytes.setter
    def total_requested_bytes(self, total: int) -> None:
        # One count per thread, so that none is lost and no lock is needed.
        self._requested = {0: total}

    def fetch_range(self, start: int, stop: int, /) -> bytes:
        """Fetches a range for the cache, on any thread."""
        thread = threading.get_ident()
        self._requested[thread] = self._requested.get(thread, 0) + stop - start
        source = self._source
        if source is None:
            raise ValueError("I/O operation on closed file.")
        return source.fetch(start, stop)

    def _fetch(self, start: int | None, stop: int | None) -> bytes:
        start = 0 if start is None else start
        stop = self.size if stop is None else min(stop, self.size)
        if start >= stop:
            return b""
        if start < 0:
            raise ValueError(f"a read that starts before the file: {start}")
        refuse_inside_loop(self._origin())
        file, remote = self._open()
        # The next read may come from another open of the same object.
        remote.serve(self)
        first = start // PAGE_SIZE
        if 0 in file.residency(first, (stop - 1) // PAGE_SIZE + 1 - first):
            self.miss_count += 1
        else:
            self.hit_count += 1
        try:
            return file.pread(stop - start, start)
        except OSError as error:
            cause = error.__cause__
            if cause is None:
                raise
        # Users of fsspec know what their file system raises.
        raise cause

    def _origin(self) -> Source:
        if self._source is None:
            self._source = source_of(self.fetcher, self.size)
        return self._source

    def _open(self) -> tuple[File, Remote]:
        if self._opened is None:
            source = self._origin()
            cache = self._cache or default_cache()
            source.limit = _limit_of(cache)()
            ra_pages = self._ra_pages
            if ra_pages is None:
                # fsspec fetches a block at a time. One window should not take much of a small cache.
                most = cache.stats().capacity_frames // 8
                ra_pages = max(1, min((self.blocksize or 0) // PAGE_SIZE, most))
            self._opened = open_object(
                cache, source.key, source.version, self.size, Remote(), name=source.name, ra_pages=ra_pages
            )
        return self._opened

    @property
    def reads(self) -> bool:
        # Older versions of fsspec leave the cache of a closed file to the garbage collector.
        is_closed = getattr(getattr(self.fetcher, "__self__", None), "closed", False)
        return self._opened is not None and not is_closed

    def close(self) -> None:
        """Drops the object. Its pages stay for others who open it."""
        self._opened = None
        self._source = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None, "_source": None}


def _innermost(fs: Any) -> Any:
    """The file system behind any number of our own."""
    while isinstance(fs, CachedFileSystem):
        fs = fs.fs
    return fs


class CachedFile(AbstractBufferedFile):
    """A file of a `CachedFileSystem`, opened for reading.

    Its results are those of the file that the file system itself opens. An unusual read, such as one of -2
    bytes, is passed to that file.
    """

    def __init__(
        self,
        fs: CachedFileSystem,
        path: str,
        source: Source,
        block_size: int | str,
        cache_options: dict[str, Any],
        options: dict[str, Any],
    ) -> None:
        self.source: Source | None = source
        self.details = source.details
        super().__init__(
            fs, path, "rb", block_size, cache_type="specmm", cache_options=cache_options, size=source.size
        )
        # What it was opened with, for whoever opens it again.
        self.kwargs = options

    def read(self, length: Any = -1) -> bytes:
        length = -1 if length is None else int(length)
        if length < -1 and not self.closed:
            # Some file systems then read everything, others refuse.
            with turn(_innermost(self.fs)), _innermost(self.fs).open(self.path, "rb", **self.kwargs) as file:
                file.seek(self.loc)
                data: bytes = file.read(length)
            self.loc += len(data)
            return data
        got: bytes = super().read(length)
        return got

    def seek(self, loc: int, whence: int = 0) -> int:
        source, at = self.source, int(self.tell())
        if source is None:
            raise ValueError("I/O operation on closed file.")
        loc = operator.index(loc)
        start = {os.SEEK_SET: 0, os.SEEK_CUR: at, os.SEEK_END: source.size}.get(whence)
        if start is not None and 0 <= start + loc <= source.size:
            self.loc = start + loc
        else:
            self.loc = source.seek(at, loc, whence)
        place: int = self.loc
        return place

    def readinto(self, b: WriteableBuffer) -> int:
        # The inherited method treats memory of Python objects as plain bytes, and refuses numpy's times.
        return copy_into(b, self.read(check_target(b)))

    def readline(self, size: int | None = -1) -> bytes:
        size = -1 if size is None else operator.index(size)
        if size < 0:
            # fsspec reads a block for each line.
            line: bytes = self.readuntil(b"\n", PAGE_SIZE)
            return line
        start: int = self.tell()
        line = self.read(size)
        end = line.find(b"\n") + 1
        if end:
            line = line[:end]
            self.loc = start + end
        return line

    def readlines(self, hint: int | None = -1) -> list[bytes]:
        lines, total = [], 0
        for line in self:
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint <= total:
                break
        return lines

    def _fetch_range(self, start: int, end: int) -> bytes:
        source = self.source
        if source is None:
            raise ValueError("I/O operation on closed file.")
        return source.fetch(start, end)

    def close(self) -> None:
        super().close()
        # The last reader closes the file behind it.
        self.source = None

    def __reduce__(self) -> Any:
        return _reopen, (self.fs, self.path, self.blocksize, self.loc, self.kwargs)


def _reopen(
    fs: CachedFileSystem, path: str, block_size: int, position: int, options: dict[str, Any]
) -> CachedFile:
    file: CachedFile = fs.open(path, "rb", block_size=block_size, **options)
    file.seek(position)
    return file


class CachedFileSystem(ChainedFileSystem):
    """Any fsspec file system with a page cache in front of it: `specmm::` in a chain of URLs.

    fs: the file system, or target_protocol and target_options to create one. cache: a `PageCache` instead of
    the process-wide one. TypeError for other options; ValueError for asynchronous=True, of this file system
    or the one behind it.

    Methods that read part of a file go through the cache: `open`, `cat`, `cat_file`, `cat_ranges`, `head`,
    `tail`, `read_block`. All others, writes and `get` included, are those of the file system. So are the
    options of `open` and `cat_file`: the same path with other options is another object.
    """

    protocol: ClassVar[str] = "specmm"
    # There is no state worth sharing, and fsspec would take two caches of one size for one.
    cachable: ClassVar[bool] = False

    def __init__(
        self,
        target_protocol: str | None = None,
        target_options: dict[str, Any] | None = None,
        fs: Any = None,
        fo: str | None = None,
        cache: PageCache | None = None,
        asynchronous: bool = False,
        **kwargs: Any,
    ) -> None:
        if kwargs:
            raise TypeError(
                f"specmm has no such options: {sorted(kwargs)}. Options of the file system behind it go into "
                "target_options, or under its protocol's name: fsspec.open('specmm::s3://...', s3={...})"
            )
        super().__init__()
        if (fs is None) == (target_protocol is None):
            raise ValueError(
                f"one of fs and target_protocol must be given: fs={fs!r}, target_protocol={target_protocol!r}"
            )
        self.fs = fs if fs is not None else fsspec.filesystem(target_protocol, **(target_options or {}))
        if not isinstance(self.fs, AbstractFileSystem):
            raise TypeError(f"fs must be an fsspec file system: {fs!r}")
        if asynchronous or getattr(self.fs, "asynchronous", False):
            raise ValueError(
                "specmm has no asynchronous file system: asynchronous=True. In coroutines, read in threads, "
                "as fsspec's AsyncFileSystemWrapper does; zarr creates such a wrapper if given "
                "storage_options={'asynchronous': False}"
            )
        self._cache = cache
        own_archive(self.fs)  # so that a forked child knows whose it is
        self.root_marker = self.fs.root_marker
        # As methods of this instance: paths are those of the file system behind it.
        self._strip_protocol = functools.partial(_stripped, self.fs._strip_protocol)
        self._parent = functools.partial(_stripped, self.fs._parent)

    @property
    def sep(self) -> str:
        sep: str = self.fs.sep
        return sep

    def open(
        self,
        path: Any,
        mode: str = "rb",
        block_size: int | None = None,
        cache_options: dict[str, Any] | None = None,
        compression: str | None = None,
        **kwargs: Any,
    ) -> Any:
        options = {
            **kwargs,
            "block_size": block_size,
            "cache_options": cache_options,
            "compression": compression,
        }
        if mode.replace("b", "").replace("t", "") != "r":
            # Including writes that a transaction defers.
            return self.fs.open(_without_own(path), mode, **options)
        return super().open(path, mode, **options)

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: dict[str, Any] | None = None,
        cache_type: str | None = None,
        **kwargs: Any,
    ) -> CachedFile:
        options = {"cache": self._cache, **(cache_options or {})}
        source = open_source(_innermost(self.fs), path, kwargs, _limit_of(options["cache"]), block_size)
        return CachedFile(self, path, source, block_size or "default", options, kwargs)

    def cat_file(self, path: Any, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        path = self._strip_protocol(path)
        start = None if start is None else operator.index(start)
        end = None if end is None else operator.index(end)
        if start is None or start != end:
            with self.open(path, "rb", **kwargs) as file:
                first, last, _ = slice(start, end).indices(file.size)
                if first < last and -file.size <= min(start or 0, end or 0):
                    file.seek(first)
                    found: bytes = file.read(last - first)
                    return found
        # File systems disagree about ranges outside the file: no bytes, some bytes or an error.
        data: bytes = self.fs.cat_file(path, start=start, end=end, **kwargs)
        return data

    def cat_ranges(
        self,
        paths: list[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,
        on_error: str = "return",
        **kwargs: Any,
    ) -> list[Any]:
        if _innermost(self.fs).async_impl:
            kwargs.pop("batch_size", None)
            starts, ends = (list(each) if isinstance(each, Iterable) else each for each in (starts, ends))
        found: list[Any] = super().cat_ranges(paths, starts, ends, max_gap, on_error, **kwargs)
        return found

    def cat(self, path: Any, recursive: bool = False, on_error: str = "raise", **kwargs: Any) -> Any:
        of_paths = kwargs
        if _innermost(self.fs).async_impl:
            kwargs.pop("batch_size", None)
            of_paths = {}
        paths = self.expand_path(path, recursive=recursive, **of_paths)
        if len(paths) == 1 and not isinstance(path, list) and paths[0] == self._strip_protocol(path):
            return self.cat_file(paths[0], **kwargs)
        found: dict[str, Any] = {}
        for each in paths:
            try:
                found[each] = self.cat_file(each, **kwargs)
            except Exception as error:
                if on_error == "raise":
                    raise
                if on_error == "return":
                    found[each] = error
        return found

    def walk(self, path: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """`walk` of the file system behind it."""
        found: Iterator[Any] = self.fs.walk(_without_own(path), *args, **kwargs)
        return found

    @property
    def transaction(self) -> Any:
        """The transaction of the file system behind it, which does the writes."""
        return self.fs.transaction

    @property
    def _fs_token(self) -> str:
        token: str = tokenize(type(self), _innermost(self)._fs_token)
        return token

    def __reduce__(self) -> Any:
        return make_instance, (type(self), (), {"fs": self.fs, "cache": self._cache})


_OWN = ("specmm://", "specmm::")


def _without_own(path: Any) -> Any:
    """A path, or several, without `specmm://` or `specmm::`; anything else as it is."""
    if isinstance(path, list):
        return [_without_own(each) for each in path]
    if isinstance(path, dict):
        return {_without_own(each): value for each, value in path.items()}
    while isinstance(path, str) and path.startswith(_OWN):
        path = path.removeprefix(_OWN[0]) if path.startswith(_OWN[0]) else path.removeprefix(_OWN[1])
    return path


def _stripped(strip: Callable[[Any], Any], path: Any) -> Any:
    return strip(_without_own(path))


def _pass_on(name: str) -> Callable[..., Any]:
    def method(self: CachedFileSystem, *args: Any, **kwargs: Any) -> Any:
        args = tuple(map(_without_own, args))
        kwargs = {each: _without_own(value) for each, value in kwargs.items()}
        # Other threads may be fetching, and the file system may not be thread-safe.
        with turn(self.fs):
            return getattr(self.fs, name)(*args, **kwargs)

    method.__name__ = name
    method.__qualname__ = f"CachedFileSystem.{name}"
    method.__doc__ = f"`{name}` of the file system behind it."
    return method


for _method in (
    *("checksum", "created", "du", "exists", "expand_path", "find", "glob", "info", "invalidate_cache"),
    *("isdir", "isfile", "lexists", "ls", "modified", "sign", "size", "sizes", "ukey", "unstrip_protocol"),
    *("copy", "cp_file", "get", "get_file", "makedirs", "mkdir", "mv", "pipe", "pipe_file", "put"),
    *("put_file", "rm", "rm_file", "rmdir", "touch", "start_transaction", "end_transaction", "tree"),
):
    setattr(CachedFileSystem, _method, _pass_on(_method))

register_cache(SpecmmCache, clobber=True)  # again when the module is loaded again
fsspec.register_implementation("specmm", CachedFileSystem, clobber=True)
