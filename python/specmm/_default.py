"""One cache for the whole process, for those who do not want to carry their own about."""

import os
import threading

from specmm._core import DEFAULT_CAPACITY, File, PageCache, parse_size
from specmm._errors import SpecmmError

_lock = threading.Lock()
_capacity = DEFAULT_CAPACITY
_cache: PageCache | None = None


def configure(*, capacity: int | str) -> None:
    """Sets the bound of the process-wide cache, before the first `specmm.open`.

    capacity: bytes, or a size such as "64MiB". The same capacity again is no error; another one, once files
    have been opened, is a SpecmmError: the frames are allocated already.
    """
    global _capacity
    wanted = parse_size(capacity)
    with _lock:
        if _cache is not None and wanted != _capacity:
            raise SpecmmError(
                f"capacity {capacity!r} comes too late: the process-wide cache has {_capacity} bytes already"
            )
        _capacity = wanted


def open(path: str | bytes | os.PathLike[str] | os.PathLike[bytes], mode: str = "rb") -> File:
    """Opens a file through the process-wide cache; arguments and errors are those of `PageCache.open`."""
    return default_cache().open(path, mode)


def default_cache() -> PageCache:
    """The process-wide cache, made by the first who asks."""
    global _cache
    with _lock:
        if _cache is None:
            _cache = PageCache(_capacity)
        return _cache
