"""One cache for the whole process, for those who do not want to carry their own about."""

import os
import threading

from specmm._core import DEFAULT_CAPACITY, DEFAULT_RA_PAGES, File, PageCache, parse_size
from specmm._errors import SpecmmError

_lock = threading.Lock()
_capacity: int | None = None
_cache: PageCache | None = None


def configure(*, capacity: int | str) -> None:
    """Sets the bound of the process-wide cache, before the first `specmm.open`.

    capacity: bytes, or a size such as "64MiB", which is also what holds without this call. The same capacity
    again is no error; another one, once files have been opened, is a SpecmmError: the frames are allocated
    already.
    """
    global _capacity
    wanted = parse_size(capacity)
    with _lock:
        if _cache is not None and wanted != _capacity:
            raise SpecmmError(
                f"capacity {capacity!r} comes too late: the process-wide cache has {_capacity} bytes already"
            )
        _capacity = wanted


def open(
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    mode: str = "rb",
    *,
    ra_pages: int = DEFAULT_RA_PAGES,
) -> File:
    """Opens a file through the process-wide cache; arguments and errors are those of `PageCache.open`."""
    return default_cache().open(path, mode, ra_pages=ra_pages)


def default_cache(capacity: int = DEFAULT_CAPACITY) -> PageCache:
    """The process-wide cache; `capacity` counts when this makes it and nobody has configured another."""
    global _cache, _capacity
    with _lock:
        if _cache is None:
            wanted = capacity if _capacity is None else _capacity
            _cache = PageCache(wanted)
            _capacity = wanted
        return _cache


def is_default(cache: PageCache) -> bool:
    """Whether it is the process-wide one."""
    return cache is _cache


def _forked() -> None:
    # Another thread of the parent may have held it.
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forked)
