"""Read large files under a memory limit you set: a page cache inside your process, in place of mmap.

    import specmm

    with specmm.PageCache("64MiB") as cache, cache.open("data.bin") as file:
        file.pread(100, 0)

A `PageCache` holds pages of any number of files in at most the memory you give it, and a `File` reads through
it. Reads release the GIL whenever they may wait, and a file that is truncated under its reader raises
`BusError` where mmap sends SIGBUS.

For those who study page faults, `specmm.mm.Mm` is an address space over these files whose faults are served
as Linux serves them, with and without the mmap lock, and `specmm.model` is the reference model: the same
names in plain Python, single-threaded, written to be read.
"""

import sys

if sys.platform != "linux":
    raise ImportError("specmm runs on Linux only")

# The first for the command. A forked child may need the others, where an import could wait for one of its
# parent's threads.
from specmm import _early, _lifetime, _pickling, _raw, _report, mm  # noqa: F401
from specmm._core import PAGE_SIZE, File, PageCache, Pinned, __version__
from specmm._default import configure, open
from specmm._errors import (
    BusError,
    ClosedError,
    InvariantError,
    OutOfFramesError,
    SegmentationError,
    SpecmmError,
)
from specmm._types import CacheStats, ReadaheadState

TYPE_CHECKING = False  # checkers of types take it for true; typing itself is imported after `_early`
if TYPE_CHECKING:
    # The former names of what is in `specmm.mm`: they work as ever, and `dir` does not show them.
    from specmm.mm import Abort as Abort
    from specmm.mm import FaultOutcome as FaultOutcome
    from specmm.mm import FilemapFault as FilemapFault
    from specmm.mm import Mm as Mm
    from specmm.mm import TouchReport as TouchReport
    from specmm.mm import VmFault as VmFault
else:

    def __getattr__(name):
        if name in mm.__all__:
            return getattr(mm, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)


__all__ = [
    "PAGE_SIZE",
    "BusError",
    "CacheStats",
    "ClosedError",
    "File",
    "InvariantError",
    "OutOfFramesError",
    "PageCache",
    "Pinned",
    "ReadaheadState",
    "SegmentationError",
    "SpecmmError",
    "__version__",
    "configure",
    "open",
]


def __dir__() -> list[str]:
    # Modules that were imported are attributes of the package, too.
    return [*__all__, *(name for name in globals() if name.startswith("__") and name not in __all__)]


# Messages and pickles name a class where users find it.
for _name in __all__:
    _object = globals()[_name]
    if isinstance(_object, type):
        _object.__module__ = __name__
del TYPE_CHECKING, _name, _object, sys
