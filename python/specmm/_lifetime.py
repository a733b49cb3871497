"""Caches that are still open when the interpreter exits are closed, their workers joined."""

import atexit
import contextlib
import weakref
from typing import Protocol


class _Closable(Protocol):
    def close(self) -> None: ...


_open: weakref.WeakSet[_Closable] = weakref.WeakSet()


def register(cache: _Closable) -> None:
    """Notes a cache that has to be closed at exit; the extension module calls this for each new one."""
    _open.add(cache)


@atexit.register
def _close_all() -> None:
    # Every cache is closed even when one fails; what failed is then reported by the interpreter.
    with contextlib.ExitStack() as stack:
        for cache in list(_open):
            stack.callback(cache.close)
