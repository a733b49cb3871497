"""fsspec's files through one bounded page cache.

    import fsspec, specmm.fsspec

    fsspec.open("specmm::s3://bucket/key")                   # any file system, in front of which is the cache
    fs.open(path, cache_type="specmm")                       # the file system's own file, its cache replaced
    specmm.fsspec.open("s3://bucket/key")                    # a specmm.File, for many threads

All of them share the process-wide cache (`specmm.configure` sets its bound) unless a `PageCache` is given.
Files of one object share its pages, also one after the other, until the file system says that the object has
changed.
"""

from __future__ import annotations

import errno
import math
import os
import threading
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, ClassVar

try:
    import fsspec
except ImportError as error:
    raise ImportError("specmm.fsspec needs fsspec: pip install 'specmm[fsspec]'") from error

from fsspec.caching import BaseCache, register_cache
from fsspec.implementations.chained import ChainedFileSystem
from fsspec.spec import AbstractBufferedFile, make_instance
from fsspec.utils import tokenize

from specmm._core import PAGE_SIZE, File, PageCache, check_target, copy_into
from specmm._default import default_cache
from specmm._remote import Remote, open_object

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["CachedFile", "CachedFileSystem", "SpecmmCache", "open"]

# What file systems call that which changes whenever the bytes do.
_TAGS = ("ETag", "etag", "e_tag", "Content-MD5", "content_md5", "Digest", "md5Hash", "generation", "hex")


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

    urlpath: a URL, which may be a chain; a path of `fs` when that is given. mode: "rb" only. cache: the
    process-wide one unless given. ra_pages: largest readahead window, in pages. storage_options: for the file
    system of the URL.

    Each call has pages of its own, as the File may be closed by whoever has it: keep the File, any number of
    threads may read it. ValueError when the file system does not tell the object's size.
    """
    if mode not in ("rb", "r"):
        raise ValueError(f"mode must be 'rb': {mode!r}")
    if fs is None:
        fs, path = fsspec.core.url_to_fs(urlpath, **storage_options)
    else:
        path = fs._strip_protocol(urlpath)
    details = fs.info(path)
    _require_file(details, path)
    if details.get("size") is None:
        raise ValueError(f"{fs} does not tell the size of {path!r}")
    # Inside another cache's file system the bytes would be cached twice, and the inner read refused.
    fs = _innermost(fs)
    return (cache or default_cache()).open_store(
        _Object(fs, path), details["size"], name=path, ra_pages=ra_pages
    )


def _require_file(details: dict[str, Any], path: str) -> None:
    """Refuses what a file system knows to be something else."""
    match details.get("type"):
        case "directory":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        case "other":
            raise OSError(errno.EINVAL, "not a regular file", path)


class _Object:
    """An object of a file system as a store."""

    def __init__(self, fs: Any, path: str) -> None:
        self._fs = fs
        self._path = path

    def read_at(self, offset: int, n: int, /) -> ReadableBuffer:
        data: bytes = self._fs.cat_file(self._path, start=offset, end=offset + n)
        return data


class _Name(str):
    """The name of the cache type, which fsspec's files carry along when they are pickled.

    Unpickling it imports this module, and so registers the cache type before fsspec looks for it.
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[Callable[[], str], tuple[()]]:
        return _name, ()


def _name() -> str:
    return SpecmmCache.name


class SpecmmCache(BaseCache):
    """fsspec's cache type "specmm": pages of a cache that all files share.

    blocksize: fsspec's block size, which becomes the largest readahead window. Options, as `cache_options`:
    cache: a `PageCache` in place of the process-wide one. ra_pages: the largest readahead window, in pages.

    hit_count: reads found in the cache in whole; miss_count: reads that were not; total_requested_bytes: what
    was fetched through this file, readahead included.
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
        self._opened: tuple[File, Remote] | None = None

    @property
    def total_requested_bytes(self) -> int:
        return sum(list(self._requested.values()))

    @total_requested_bytes.setter
    def total_requested_bytes(self, total: int) -> None:
        # For each thread its own, so that none is lost and no lock is needed.
        self._requested = {0: total}

    def fetch_range(self, start: int, stop: int, /) -> bytes:
        """Fetches a range for the cache, on any thread."""
        thread = threading.get_ident()
        self._requested[thread] = self._requested.get(thread, 0) + stop - start
        data: bytes = self.fetcher(start, stop)
        return data

    def _fetch(self, start: int | None, stop: int | None) -> bytes:
        start = 0 if start is None else start
        stop = self.size if stop is None else min(stop, self.size)
        if start >= stop:
            return b""
        file, remote = self._open()
        # Whoever reads next may be another open of the same object.
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

    def _open(self) -> tuple[File, Remote]:
        if self._opened is None:
            key, version, origin, name = _identity(self.fetcher)
            cache = self._cache or default_cache()
            ra_pages = self._ra_pages
            if ra_pages is None:
                # A block is what fsspec fetches at a time. Much of a small cache should not go at once.
                most = cache.stats().capacity_frames // 8
                ra_pages = max(1, min((self.blocksize or 0) // PAGE_SIZE, most))
            self._opened = open_object(
                cache, key, version, self.size, Remote(origin), name=name, ra_pages=ra_pages
            )
        return self._opened

    @property
    def reads(self) -> bool:
        return self._opened is not None

    def close(self) -> None:
        """Lets go of the object. Its pages stay for others who open it."""
        self._opened = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}


def _identity(fetcher: Any) -> tuple[Hashable | None, Hashable, object, str]:
    """Which object a file's fetcher fetches, in which version, through what, and its name.

    The first is None for a fetcher that is not the method of a file: of that nothing is known.
    """
    file = getattr(fetcher, "__self__", None)
    fs, path = getattr(file, "fs", None), getattr(file, "path", None)
    if file is None or fs is None or path is None:
        return None, None, None, ""
    details = file.details
    # Some files know no more of themselves than that they exist; their file systems do.
    if set(details) <= {"name", "size", "type"}:
        details = fs.info(path)
    fs = _innermost(fs)
    # The file system's own token differs from thread to thread, so what it was made of is taken. What the
    # file was opened with may matter as well.
    key = (type(file), type(fs), tokenize(fs.storage_args, fs.storage_options, file.kwargs), path)
    tags = {tag: str(details[tag]) for tag in _TAGS if details.get(tag)}
    return key, tokenize(sorted((tags or details).items())), fs, path


def _innermost(fs: Any) -> Any:
    """The file system behind any number of our own."""
    while isinstance(fs, CachedFileSystem):
        fs = fs.fs
    return fs


class CachedFile(AbstractBufferedFile):
    """A file of a `CachedFileSystem`, open to read."""

    def readinto(self, b: WriteableBuffer) -> int:
        # What is inherited takes memory of Python objects for plain bytes, and none of numpy's times.
        return copy_into(b, self.read(check_target(b)))

    def _fetch_range(self, start: int, end: int) -> bytes:
        data: bytes = _innermost(self.fs).cat_file(self.path, start=start, end=end)
        return data


class CachedFileSystem(ChainedFileSystem):
    """Any fsspec file system with one bounded page cache in front: `specmm::` in a chain of URLs.

    fs: the file system, or else target_protocol and target_options, of which one is made. cache: a
    `PageCache` in place of the process-wide one.

    What reads a part of a file goes through the cache: `open`, `cat`, `cat_file`, `cat_ranges`, `head`,
    `tail`, `read_block`. The rest, writes and `get` included, is the file system's own.
    """

    protocol: ClassVar[str] = "specmm"
    # There is no state worth sharing, and fsspec would take two caches of one size for the same.
    cachable: ClassVar[bool] = False

    def __init__(
        self,
        target_protocol: str | None = None,
        target_options: dict[str, Any] | None = None,
        fs: Any = None,
        fo: str | None = None,
        cache: PageCache | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (fs is None) == (target_protocol is None):
            raise ValueError(
                f"one of fs and target_protocol must be given: fs={fs!r}, target_protocol={target_protocol!r}"
            )
        self.fs = fs if fs is not None else fsspec.filesystem(target_protocol, **(target_options or {}))
        self._cache = cache
        # As a method of this instance: paths are those of the file system behind it.
        self._strip_protocol = self.fs._strip_protocol
        self._parent = self.fs._parent

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        if mode != "rb":
            kwargs |= {"block_size": block_size, "autocommit": autocommit, "cache_options": cache_options}
            return self.fs._open(path, mode, **kwargs)
        kwargs.pop("cache_type", None)
        options = {"cache": self._cache, **(cache_options or {})}
        file = CachedFile(
            self, path, mode, block_size or "default", cache_type="specmm", cache_options=options, **kwargs
        )
        _require_file(file.details, path)
        return file

    @property
    def _fs_token(self) -> str:
        token: str = tokenize(type(self), _innermost(self)._fs_token)
        return token

    def __reduce__(self) -> Any:
        return make_instance, (type(self), (), {"fs": self.fs, "cache": self._cache})


def _pass_on(name: str) -> Callable[..., Any]:
    def method(self: CachedFileSystem, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.fs, name)(*args, **kwargs)

    method.__name__ = name
    method.__qualname__ = f"CachedFileSystem.{name}"
    method.__doc__ = f"`{name}` of the file system behind."
    return method


for _method in (
    *("checksum", "created", "du", "exists", "expand_path", "find", "glob", "info", "invalidate_cache"),
    *("isdir", "isfile", "lexists", "ls", "modified", "sign", "size", "sizes", "ukey", "unstrip_protocol"),
    *("walk", "copy", "cp_file", "get", "get_file", "makedirs", "mkdir", "mv", "pipe", "pipe_file", "put"),
    *("put_file", "rm", "rm_file", "rmdir", "touch"),
):
    setattr(CachedFileSystem, _method, _pass_on(_method))

register_cache(SpecmmCache, clobber=True)  # again when the module is loaded again
fsspec.register_implementation("specmm", CachedFileSystem, clobber=True)
