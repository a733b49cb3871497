"""The reference model: what specmm does, one step at a time, in plain Python.

Read it as the specification. It is single-threaded, does all I/O inline, takes no lock and keeps no reference
counts, so what is left is the order of the decisions. Names are Linux's wherever the thing is Linux's. It
shares nothing with the extension module: tests drive both through the same calls and compare everything
observable.

From the bottom up:

========================  ==============================================================================
``page``                  a page of bytes, and the fixed number of frames that hold them
``store``                 where the bytes live: a file, or any object with ``read_at(offset, n)``
``address_space``         the pages of one file: find, add, read in, drop, truncate
``readahead``             which pages to read before they are asked for; one state for each open file
``filemap``               ``pread``, and ``filemap_fault`` with and without the mmap lock
``file``, ``cache``       the open file and the page cache, as users see them
``vma``, ``page_table``   what is mapped where, and which entries are present
``memory``                one pass over a fault: fault-around, the read fault, the private copy
``fault``                 a fault from entry to end: the speculative attempt, the classic passes, the counting
``mm``                    an address space, as users see it
========================  ==============================================================================

With one thread, nothing changes between two steps. So the causes of abort that need a race (ODD, VMA_COPY,
FAULT, PTE_MAP_LOCK_*, PTE_CHANGED, FILE_LOCKED, FILE_MAPPING) are in the list of names and nowhere else.
FILE_EOF is tested for where Linux does, but never happens: no page beyond the end stays in the cache.
"""

from .cache import PageCache
from .errors import (
    BusError,
    ClosedError,
    InvariantError,
    OutOfFramesError,
    SegmentationError,
    SpecmmError,
)
from .file import File
from .mm import Mm
from .outcomes import (
    Abort,
    CacheStats,
    FaultOutcome,
    FilemapFault,
    ReadaheadState,
    TouchReport,
    VmFault,
)
from .page import PAGE_SIZE

__all__ = [
    "PAGE_SIZE",
    "Abort",
    "BusError",
    "CacheStats",
    "ClosedError",
    "FaultOutcome",
    "File",
    "FilemapFault",
    "InvariantError",
    "Mm",
    "OutOfFramesError",
    "PageCache",
    "ReadaheadState",
    "SegmentationError",
    "SpecmmError",
    "TouchReport",
    "VmFault",
]
