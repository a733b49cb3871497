"""One cache for the whole process, for those who do not want to carry their own about.

There is no lock: a finalizer or a signal handler may run at any place here and come here again, and the child
of a fork would find it taken. What was asked for is kept in its order instead, and each step takes one
operation of a list or a dict, which nothing can come between.
"""

import os

from specmm._core import DEFAULT_CAPACITY, DEFAULT_RA_PAGES, File, PageCache, parse_size
from specmm._errors import SpecmmError


class _Request:
    """A capacity that was configured, or one for want of such that a cache is being made with."""

    def __init__(self, capacity: int, *, makes: bool) -> None:
        self.capacity = capacity
        self.makes = makes


# In the order they came. The first that makes a cache ends the time to configure.
_requests: list[_Request] = []
# At most one cache, and its capacity.
_made: dict[None, tuple[PageCache, int]] = {}


def _capacity() -> int | None:
    """The capacity that can no longer be changed, if there is one."""
    if None in _made:
        return _made[None][1]
    configured = None
    for request in _requests.copy():
        if request.makes:
            return request.capacity if configured is None else configured
        configured = request.capacity
    return None


def configure(*, capacity: int | str) -> None:
    """Sets the bound of the process-wide cache, before the first `specmm.open`.

    capacity: bytes, or a size such as "64MiB", which is also what holds without this call. The same capacity
    again is no error; another one, once files have been opened, is a SpecmmError: the frames are allocated
    already.
    """
    request = _Request(parse_size(capacity), makes=False)
    _requests.append(request)
    fixed = _capacity()
    too_late = fixed not in (None, request.capacity)
    # Until the cache is made, whoever makes it may still be about to look.
    if too_late or _made:
        _requests.remove(request)
    if too_late:
        raise SpecmmError(
            f"capacity {capacity!r} comes too late: the process-wide cache has {fixed} bytes already"
        )


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
    made = _made.get(None)
    return _make(capacity) if made is None else made[0]


def _make(capacity: int) -> PageCache:
    request = _Request(capacity, makes=True)
    _requests.append(request)
    try:
        fixed = _capacity()
        wanted = capacity if fixed is None else fixed
        cache = PageCache(wanted)
        made = _made.setdefault(None, (cache, wanted))
    finally:
        # What failed decides nothing, and what succeeded has.
        _requests.remove(request)
    # Another one's, if somebody was faster.
    return made[0]


def is_default(cache: PageCache) -> bool:
    """Whether it is the process-wide one."""
    return None in _made and cache is _made[None][0]
