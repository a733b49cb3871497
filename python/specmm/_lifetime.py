"""Closes caches that are still open when the interpreter exits, and joins their workers.

A forked child does not have its parent's workers. There each cache, once it is used, is an empty one of the
child's own, and only those are closed.
"""

import atexit
import contextlib
import os
import threading  # noqa: F401 - the extension module looks for it
import warnings  # noqa: F401 - as above
import weakref

from specmm import _core

# Not a WeakSet, which cannot be iterated while others add to it.
_open: set[weakref.ref[_core.PageCache]] = set()


def register(cache: _core.PageCache) -> None:
    """Registers a cache to be closed at exit; the extension module calls this for each new one."""
    _open.add(weakref.ref(cache, _open.discard))


@atexit.register
def _close_all() -> None:
    _core.stop_warning()
    # Every cache is closed even if one fails; the interpreter then reports the failure.
    with contextlib.ExitStack() as stack:
        for cache in [ref() for ref in list(_open)]:
            if cache is None:
                continue
            # With a page pinned it stays open, and the pin valid, to the very end.
            stack.enter_context(contextlib.suppress(BufferError))
            stack.callback(_core.close_at_exit, cache)


os.register_at_fork(
    before=_core.before_fork, after_in_parent=_core.after_fork_in_parent, after_in_child=_core.stop_warning
)
