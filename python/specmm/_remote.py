"""Objects that are fetched by range, each kept as one File of a cache for all who read it.

A store has no identity: two `open_store` calls never share pages, and a File's pages are dropped when it is
closed. For users who open the same object again and again, as fsspec's do, this module keeps one File for
each object, as long as its cache lives and for a limited number of objects.
"""

from __future__ import annotations

import collections
import contextlib
import weakref
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from specmm._core import may_stay_open

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from specmm._core import File, PageCache

OBJECTS = 1 << 14
"""Objects of a cache that are kept while nobody has them open; the least recently used go first."""


class Store(Protocol):
    """What `PageCache.open_store` takes."""

    def read_at(self, offset: int, n: int, /) -> ReadableBuffer: ...


class Reader(Protocol):
    """Somebody who has an object open and can fetch its bytes."""

    @property
    def reads(self) -> bool:
        """Whether it still has the object open."""

    def fetch_range(self, start: int, stop: int, /) -> ReadableBuffer:
        """Fetches a range, on any thread."""


class Remote:
    """The store of one object: it fetches through the reader that came last.

    The readers are held weakly: a reader holds the File, which holds this store where the garbage collector
    does not see it. Readahead that outlives the last reader fails, which nobody notices.
    """

    def __init__(self) -> None:
        self._latest: weakref.ref[Reader] | None = None
        self._readers: weakref.WeakValueDictionary[int, Reader] = weakref.WeakValueDictionary()

    def serve(self, reader: Reader) -> None:
        """Notes that this reader is about to read."""
        self._readers[id(reader)] = reader
        self._latest = weakref.ref(reader)

    def read_at(self, offset: int, n: int, /) -> ReadableBuffer:
        refs = [self._latest, *self._readers.valuerefs()]
        failed: Exception | None = None
        for reader in (ref() for ref in refs if ref is not None):
            if reader is None or not reader.reads:
                continue
            try:
                return reader.fetch_range(offset, offset + n)
            except Exception as error:
                # One that was closed meanwhile fails alone: the others still have the object.
                if reader.reads:
                    raise
                failed = error
        raise failed or OSError("nobody has the object open any more")


_S = TypeVar("_S", bound=Store)


class _Opened:
    """One version of an object."""

    def __init__(self, version: Hashable, file: File, store: Any) -> None:
        self.version = version
        self.file = file
        self.store = store


# No lock, as in `_default`: each step takes one operation of a list or a dict.
#
# For each cache its objects, the least recently used first. Only the newest version of each is kept, except
# while several threads open one: then the first counts.
_objects: weakref.WeakKeyDictionary[PageCache, collections.OrderedDict[Hashable, list[_Opened]]] = (
    weakref.WeakKeyDictionary()
)


def open_object(
    cache: PageCache,
    key: Hashable | None,
    version: Hashable,
    size: int,
    store: _S,
    *,
    name: str,
    ra_pages: int,
) -> tuple[File, _S]:
    """The File of an object, with its store, shared by all who pass the same cache, key, version and size.

    key: None shares nothing; otherwise it belongs to one kind of store, and consists of Python's own types.
    store: used unless there is one already. Do not close the File: it closes when the last reference to it is
    dropped.
    """
    if key is None:
        return may_stay_open(cache.open_store(store, size, name=name, ra_pages=ra_pages)), store
    objects = _objects.setdefault(cache, collections.OrderedDict())
    versions = objects.setdefault(key, [])
    with contextlib.suppress(KeyError):
        # It may have been evicted meanwhile, among thousands.
        objects.move_to_end(key)
    known = _first(versions, (version, size))
    if known is None:
        file = may_stay_open(cache.open_store(store, size, name=name, ra_pages=ra_pages))
        own = _Opened((version, size), file, store)
        before = versions.copy()
        versions.append(own)
        known = _first(versions, own.version) or own
        for gone in before if known is own else [own]:
            with contextlib.suppress(ValueError):
                versions.remove(gone)
    while len(objects) > OBJECTS:
        objects.popitem(last=False)
    return known.file, known.store


def _first(versions: list[_Opened], version: Hashable) -> _Opened | None:
    return next((each for each in versions.copy() if each.version == version), None)
