"""Caches and files in pickles: a pickle contains settings, not bytes.

A cache gets a name when it is first pickled. Wherever the pickle is loaded, the cache of that name is looked
up, or created with the same settings if the process has none: so all files of one cache share one cache
again. A worker that receives a file with each task must not start each task with an empty cache. So a cache
created that way lives until the process ends or closes it, and keeps the files that were opened last, because
pages are dropped with the last user of a file.
"""

import collections
import contextlib
import os
import pickle
import weakref
from collections.abc import Callable

from specmm._core import File, PageCache, may_stay_open
from specmm._default import default_cache, is_default

HELD = 64
"""How many files a cache created by a pickle keeps open, each with a descriptor."""


class _Kept:
    """A cache created by a pickle, and the files it keeps, the one opened last at the end."""

    def __init__(self, cache: PageCache) -> None:
        self.cache = cache
        self.files: collections.OrderedDict[str | bytes, File] = collections.OrderedDict()

    def hold(self, path: str | bytes) -> None:
        file = may_stay_open(self.cache.open(path, ra_pages=0))
        self.files.pop(path, None)
        self.files[path] = file
        while len(self.files) > HELD:
            self.files.popitem(last=False)


_Reduced = tuple[Callable[..., object], tuple[object, ...]]

# No lock, as in `_default`: each step takes one operation of a list or a dict.
_names: weakref.WeakKeyDictionary[PageCache, str] = weakref.WeakKeyDictionary()
_caches: weakref.WeakValueDictionary[str, PageCache] = weakref.WeakValueDictionary()
# What was created for each name, by one thread or several at once: the first that is not closed counts.
_kept: dict[str, list[_Kept]] = {}


def reduce_cache(cache: PageCache, capacity: int, io: str, frame_timeout: float) -> _Reduced:
    """What `PageCache.__reduce__` returns."""
    if is_default(cache):
        return default_cache, (capacity,)
    name = _names.setdefault(cache, os.urandom(16).hex())
    _caches[name] = cache
    return cache_named, (name, capacity, io, frame_timeout)


def cache_named(name: str, capacity: int, io: str, frame_timeout: float) -> PageCache:
    """This process's cache of a name, created with these settings if there is none, or none any more."""
    cache = _caches.get(name)
    if cache is not None and not cache.closed:
        return cache
    kept = _kept.setdefault(name, [])
    made = _first_open(kept)
    if made is None:
        own = _Kept(PageCache(capacity, io=io, frame_timeout=frame_timeout))  # type: ignore[arg-type]
        _names[own.cache] = name
        kept.append(own)
        made = _first_open(kept) or own
        if made is not own:
            # Somebody was faster.
            kept.remove(own)
    _caches[name] = made.cache
    return made.cache


def _first_open(kept: list[_Kept]) -> _Kept | None:
    for each in kept.copy():
        if not each.cache.closed:
            return each
        with contextlib.suppress(ValueError):
            kept.remove(each)
    return None


def reduce_file(file: File, cache: PageCache, path: str | None, ra_pages: int, advice: str) -> _Reduced:
    """What `File.__reduce__` returns."""
    if path is None:
        raise pickle.PicklingError(
            f"{file.name!r} is open over a store, which only this process has: open the store where it is "
            "needed, with PageCache.open_store"
        )
    # A file that was to be created or emptied must not be so again.
    mode = "r+b" if file.mode in ("w+b", "x+b") else file.mode
    place = os.fsencode(path) if isinstance(file.name, bytes) else path
    return open_again, (cache, place, mode, ra_pages, advice)


def open_again(cache: PageCache, path: str | bytes, mode: str, ra_pages: int, advice: str) -> File:
    """Opens the file of a pickle."""
    # Whoever receives it did not open it.
    file = may_stay_open(cache.open(path, mode, ra_pages=ra_pages))
    if advice != "normal":
        file.advise(advice)  # type: ignore[arg-type]
    for kept in _kept.get(_names.get(cache, ""), []).copy():
        if kept.cache is cache:
            kept.hold(path)
    return file
