"""Caches that are still open when the interpreter exits are closed, their workers joined.

A child of fork has no such workers: there the parent's caches refuse every call, and nothing closes them.
"""

import atexit
import contextlib
import os
import weakref
from typing import Protocol

from specmm import _core


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
            # With a page pinned it stays open, and the pin good, to the very end.
            stack.enter_context(contextlib.suppress(BufferError))
            stack.callback(cache.close)


def _forked() -> None:
    _open.clear()
    _core.forked()


os.register_at_fork(after_in_child=_forked)
