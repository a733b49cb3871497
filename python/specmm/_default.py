"""One cache for the whole process, for those who do not want to pass their own around.

There is no lock: a finalizer or a signal handler may run at any point here and enter again, and a forked
child would find the lock taken. Instead, requests are kept in order, and each step is one operation of a list
or a dict, which nothing can interrupt.
"""

import os

from specmm._core import DEFAULT_CAPACITY, DEFAULT_RA_PAGES, File, PageCache, parse_size
from specmm._errors import SpecmmError


class _Request:
    """A capacity that was configured, or that a cache is being created with because none was."""

    def __init__(self, capacity: int, *, makes: bool) -> None:
        self.capacity = capacity
        self.makes = makes


# In order of arrival. The first that creates a cache ends the time to configure.
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
    """Sets the memory limit of the process-wide cache, before the first `specmm.open`.

    capacity: bytes, or a size such as "64MiB", which is the default. Setting the same capacity again is no
    error; another one, once files have been opened, raises SpecmmError, because the frames are allocated
    already.
    """
    request = _Request(parse_size(capacity), makes=False)
    _requests.append(request)
    fixed = _capacity()
    too_late = fixed not in (None, request.capacity)
    # Until the cache is created, whoever creates it may still have to read the capacity.
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
    """The process-wide cache; `capacity` is used if this creates it and nobody has configured another."""
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
        # A failure decides nothing, and a success has decided.
        _requests.remove(request)
    # Somebody else's, if they were faster.
    return made[0]


def is_default(cache: PageCache) -> bool:
    """Whether it is the process-wide one."""
    return None in _made and cache is _made[None][0]
