"""Objects that are fetched by range, each kept as one File of a cache for all who read it.

A store has no identity of its own: two `open_store` calls never share pages, and a File's pages go when it is
closed. Who opens the same object again and again, as fsspec's users do, is served from here: one File for
each object, which stays while its cache does, up to a number of objects.
"""

from __future__ import annotations

import collections
import os
import threading
import weakref
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from specmm._core import File, PageCache

OBJECTS = 1 << 14
"""Objects of a cache whose pages are kept while nobody has them open; the longest unused go first."""


class Store(Protocol):
    """What `PageCache.open_store` takes."""

    def read_at(self, offset: int, n: int, /) -> ReadableBuffer: ...


class Reader(Protocol):
    """Somebody who has an object open and knows how to get at its bytes."""

    @property
    def reads(self) -> bool:
        """Whether it still has the object open."""

    def fetch_range(self, start: int, stop: int, /) -> ReadableBuffer:
        """Fetches a range, on any thread."""


class Remote:
    """The store of one object: it fetches through whoever of its readers came last.

    The readers are held weakly: a reader holds the File, which holds this store out of the garbage
    collector's sight. Readahead that outlives the last reader fails, which nobody notices.

    There is no lock: a finalizer may run at any place, and would wait for a worker that waits for it.

    origin: what the object was found through. As long as this store lives, nothing else has its identity.
    """

    def __init__(self, origin: object) -> None:
        self._origin = origin
        self._latest: weakref.ref[Reader] | None = None
        self._readers: weakref.WeakValueDictionary[int, Reader] = weakref.WeakValueDictionary()

    def serve(self, reader: Reader) -> None:
        """Notes that this reader is about to read."""
        self._readers[id(reader)] = reader
        self._latest = weakref.ref(reader)

    def read_at(self, offset: int, n: int, /) -> ReadableBuffer:
        refs = [self._latest, *self._readers.valuerefs()]
        for reader in (ref() for ref in refs if ref is not None):
            if reader is not None and reader.reads:
                return reader.fetch_range(offset, offset + n)
        raise OSError("nobody has the object open any more")


# A finalizer may run wherever something is allocated, and may do what asks for this lock again.
_lock = threading.RLock()
# For each cache its objects, the longest unused first: version, File and store. Of versions only the newest
# is kept.
_objects: weakref.WeakKeyDictionary[
    PageCache, collections.OrderedDict[Hashable, tuple[Hashable, File, Any]]
] = weakref.WeakKeyDictionary()

_S = TypeVar("_S", bound=Store)


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
    """The File of an object, with its store, shared with all who gave the same cache, key, version and size.

    key: None shares nothing; otherwise it belongs to one kind of store. store: serves unless another one does
    already. The File is not to be closed: it goes when the last one lets go of it.
    """
    if key is None:
        return cache.open_store(store, size, name=name, ra_pages=ra_pages), store
    # What is let go of here ends outside the lock, as the end of a File may have to wait.
    gone: list[object] = []
    with _lock:
        objects = _objects.setdefault(cache, collections.OrderedDict())
        known = objects.get(key)
        if known is None or known[0] != (version, size):
            gone.append(known)
            known = (version, size), cache.open_store(store, size, name=name, ra_pages=ra_pages), store
            objects[key] = known
        objects.move_to_end(key)
        while len(objects) > OBJECTS:
            gone.append(objects.popitem(last=False))
    return known[1], known[2]


def _forked() -> None:
    """In a child of fork nobody else runs: whoever held the lock is gone, and so are the pages."""
    global _lock
    _lock = threading.RLock()
    _objects.clear()


os.register_at_fork(after_in_child=_forked)
